//! Columns with dictionaries: what their keys stand for is what counts.

use std::num::NonZeroU32;
use std::sync::Arc;

use bytes::Bytes;
use futures::executor::block_on;
use transload_gpu::Partition;
use transload_gpu::device::{Column, DeviceError, Dictionary, Region, Values};
use transload_gpu::kernels::{
    KeyWidth, NULL_HASH, OffsetWidth, Width, hash_of_bytes, partition_of,
};

use crate::columns::{HostColumn, Kind, downloaded, kernels, uploaded};
use crate::common::Bench;

const MIB: u64 = 1 << 20;

/// A column of these words.
fn words(words: &[&str], kind: Kind) -> HostColumn {
    HostColumn {
        kind,
        values: words.iter().map(|word| word.as_bytes().to_vec()).collect(),
        validity: None,
    }
}

#[test]
fn equal_strings_come_into_equal_partitions_whatever_dictionary_they_are_in() {
    let bench = Bench::new(32 * MIB, MIB);
    let kernels = kernels(&bench);
    let all = ["ash", "beech", "cedar", "", "elm", "fir", "ginkgo", "hazel"];
    let backwards: Vec<&str> = all.iter().rev().copied().collect();
    let (plain, coded) = (
        Kind::Strings(OffsetWidth::Bits32),
        Kind::Dictionary(KeyWidth::One),
    );
    let partitions = NonZeroU32::new(3).unwrap();
    let parts_of = |column: HostColumn| -> Vec<Vec<Vec<u8>>> {
        let columns = uploaded(&bench, std::slice::from_ref(&column));
        let parts = block_on(kernels.partition(&columns, &[0], partitions)).unwrap();
        let words = |part| {
            let mut words = downloaded(&bench, part, std::slice::from_ref(&column))
                .remove(0)
                .values;
            words.sort();
            words
        };
        parts.iter().map(words).collect()
    };
    let expected = parts_of(words(&all, plain));
    assert!(expected.iter().filter(|part| !part.is_empty()).count() > 1);
    assert_eq!(parts_of(words(&all, coded)), expected);
    assert_eq!(parts_of(words(&backwards, coded)), expected);
}

#[test]
fn a_key_of_a_null_entry_is_like_a_null() {
    let bench = Bench::new(32 * MIB, MIB);
    let kernels = kernels(&bench);
    let mut entries = words(&["never seen", "ash"], Kind::Strings(OffsetWidth::Bits32));
    entries.validity = Some(vec![false, true]);
    let entries = Arc::new(uploaded(&bench, &[entries]).remove(0));
    let keys = HostColumn {
        kind: Kind::Fixed(Width::One),
        values: vec![vec![0], vec![1], vec![0]],
        validity: None,
    };
    let partition = Partition::new(Bytes::new(), keys.buffers());
    let keys = block_on(bench.tiers.upload(&partition)).unwrap();
    let keys = block_on(bench.tiers.to_device(keys.payload())).unwrap();
    let keys = Region::new(&keys, 0, 3).unwrap();
    // SAFETY: there are two entries.
    let coded = unsafe { Dictionary::new(KeyWidth::One, keys, entries) }.unwrap();
    let coded = Column::new(3, None, Values::Dictionary(coded)).unwrap();
    let partitions = NonZeroU32::new(1_000).unwrap();
    let parts = block_on(kernels.partition(&[coded], &[0], partitions)).unwrap();
    let rows = |hash| parts[partition_of(hash, 1_000) as usize].rows;
    assert_eq!((rows(NULL_HASH), rows(hash_of_bytes(b"ash"))), (2, 1));
}

#[test]
fn dictionaries_that_do_not_fit_their_keys_together_are_an_error_and_one_that_is_shared_is_not() {
    let bench = Bench::new(32 * MIB, MIB);
    let kernels = kernels(&bench);
    let texts: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let column = words(&texts, Kind::Dictionary(KeyWidth::One));
    let [one, other] = [(); 2].map(|()| uploaded(&bench, std::slice::from_ref(&column)));
    let error = block_on(kernels.concat(&[one.clone(), other])).unwrap_err();
    assert!(error.to_string().contains("use wider keys"), "{error}");
    let twice = block_on(kernels.concat(&[one.clone(), one.clone()])).unwrap();
    let (Values::Dictionary(of_all), Values::Dictionary(of_one)) =
        (twice.columns[0].values(), one[0].values())
    else {
        panic!("{twice:?}");
    };
    assert!(Arc::ptr_eq(of_all.entries(), of_one.entries()));
    let like = column.pick(&(0..200).map(|row| row % 100).collect::<Vec<_>>());
    assert_eq!(
        downloaded(&bench, &twice, std::slice::from_ref(&like)),
        [like]
    );
}

#[test]
fn a_dictionary_of_a_dictionary_is_refused() {
    let bench = Bench::new(32 * MIB, MIB);
    let coded = words(&["ash"], Kind::Dictionary(KeyWidth::One));
    let coded = Arc::new(uploaded(&bench, &[coded]).remove(0));
    let keys = Arc::new(bench.tiers.memory().try_allocate(64).unwrap());
    let keys = Region::new(&keys, 0, 1).unwrap();
    // SAFETY: nothing is done with it.
    let made = unsafe { Dictionary::new(KeyWidth::One, keys, coded) };
    assert!(matches!(made, Err(DeviceError::Column { .. })));
}
