//! Strings whose offsets came from elsewhere.

use bytes::Bytes;
use futures::executor::block_on;
use transload_gpu::Partition;
use transload_gpu::device::{DeviceError, Region, Strings, UncheckedStrings};
use transload_gpu::kernels::OffsetWidth;

use crate::columns::kernels;
use crate::common::Bench;

const MIB: u64 = 1 << 20;

/// Columns of these offsets, each into so many bytes, checked together.
fn checked(
    bench: &Bench,
    width: OffsetWidth,
    columns: &[(&[u64], usize)],
) -> Result<Vec<Strings>, DeviceError> {
    let buffers = columns.iter().flat_map(|(offsets, bytes)| {
        let number = |offset: &u64| offset.to_le_bytes()[..width.bytes() as usize].to_vec();
        let offsets: Bytes = offsets.iter().flat_map(number).collect();
        [offsets, vec![b'x'; *bytes].into()]
    });
    let partition = Partition::new(Bytes::new(), buffers.collect());
    let on_device = block_on(bench.tiers.upload(&partition)).unwrap();
    let buffer = block_on(bench.tiers.to_device(on_device.payload())).unwrap();
    let mut regions = on_device
        .buffers()
        .map(|(at, bytes)| Region::new(&buffer, at, bytes).unwrap());
    let unchecked = columns.iter().map(|(offsets, _)| {
        let rows = offsets.len() as u32 - 1;
        UncheckedStrings::new(
            rows,
            width,
            regions.next().unwrap(),
            regions.next().unwrap(),
        )
    });
    let unchecked: Result<Vec<_>, _> = unchecked.collect();
    block_on(kernels(bench).checked(unchecked?))
}

#[test]
fn offsets_that_rise_from_nothing_to_the_end_are_believed_and_no_others() {
    let bench = Bench::new(MIB, MIB);
    let right: (&[u64], usize) = (&[0, 3, 3, 7], 7);
    let wrong: [(&[u64], usize); 5] = [
        (&[1, 3, 7], 7),
        (&[0, 5, 3, 7], 7),
        (&[0, 3, 7], 8),
        (&[0, 0xffff_ffff, 7], 7),
        (&[2], 2),
    ];
    for width in [OffsetWidth::Bits32, OffsetWidth::Bits64] {
        let many = [right, (&[0], 0), right];
        assert_eq!(checked(&bench, width, &many).unwrap().len(), 3);
        assert!(checked(&bench, width, &[]).unwrap().is_empty());
        for wrong in wrong {
            let error = checked(&bench, width, &[right, wrong, right]).unwrap_err();
            assert!(error.to_string().contains("do not rise"), "{error}");
        }
    }
}

#[test]
fn other_numbers_of_offsets_than_rows_need_are_refused() {
    let bench = Bench::new(MIB, MIB);
    let buffer = std::sync::Arc::new(bench.tiers.memory().try_allocate(128).unwrap());
    let region = |at, bytes| Region::new(&buffer, at, bytes).unwrap();
    let of = |rows, bytes| {
        UncheckedStrings::new(rows, OffsetWidth::Bits32, region(0, bytes), region(64, 8))
    };
    assert!(of(2, 12).is_ok());
    for (rows, bytes) in [(2, 8), (2, 16), (0, 0), (u32::MAX, 12)] {
        let error = of(rows, bytes).unwrap_err().to_string();
        assert!(error.contains("are not those of"), "{error}");
    }
}
