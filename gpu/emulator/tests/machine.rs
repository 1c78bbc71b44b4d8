//! One machine in this process: memory, copies, and what is counted. Other tests are in processes of their own.

#![allow(clippy::expect_used, reason = "a test that cannot start fails")]
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "every call is one of the driver's, with pointers of locals and memory of its size"
)]

use std::sync::OnceLock;

use cuda_emulator::{Emulator, Moved, Movement};
use transload_cuda_driver::*;

const MIB: usize = 1 << 20;

/// The machine of this process, two devices of 64 MiB, with device 0's context current in the calling thread.
fn machine() -> &'static Emulator {
    static MACHINE: OnceLock<Emulator> = OnceLock::new();
    let machine = MACHINE.get_or_init(|| {
        let machine = Emulator::new()
            .expect("a machine")
            .devices(2)
            .memory_bytes(64 << 20);
        machine.load().expect("loaded");
        machine
    });
    context(0);
    machine
}

fn context(device: i32) -> u64 {
    let mut context = 0;
    unsafe {
        assert!(cuInit(0).is_ok());
        assert!(cuDevicePrimaryCtxRetain(&mut context, device).is_ok());
        assert!(cuCtxSetCurrent(context).is_ok());
    }
    context
}

fn device(bytes: usize) -> u64 {
    let mut address = 0;
    unsafe { assert!(cuMemAlloc_v2(&mut address, bytes).is_ok()) };
    address
}

fn address_of<T>(values: &[T]) -> u64 {
    values.as_ptr().expose_provenance() as u64
}

#[test]
fn bytes_travel_up_down_and_between_devices_and_every_copy_is_counted_by_its_kind() {
    let machine = machine();
    let (first, second) = (context(0), context(1));
    let there = device(MIB);
    unsafe { cuCtxSetCurrent(first) };
    let here = device(MIB);
    let (mut pinned, sent, mut received) = (0, vec![7_u8; MIB], vec![0_u8; MIB]);
    let before = machine.report().expect("a report");
    unsafe {
        assert!(cuMemHostAlloc(&mut pinned, MIB, 1).is_ok());
        assert!(cuMemcpyHtoD_v2(here, address_of(&sent), MIB).is_ok());
        assert!(cuMemcpyPeer(there, second, here, first, MIB).is_ok());
        assert!(cuMemcpyDtoH_v2(pinned, there, MIB).is_ok());
        assert!(
            cuMemcpyDtoH_v2(
                received.as_mut_ptr().expose_provenance() as u64,
                pinned,
                MIB
            )
            .is_ok()
        );
    }
    assert_eq!(received, sent);
    let after = machine.report().expect("a report");
    let once = |way| Moved {
        calls: after.moved(way).calls - before.moved(way).calls,
        bytes: after.moved(way).bytes - before.moved(way).bytes,
    };
    for way in [
        Movement::UploadPageable,
        Movement::Peer,
        Movement::DownloadPinned,
        Movement::HostToHost,
    ] {
        assert_eq!(
            once(way),
            Moved {
                calls: 1,
                bytes: MIB as u64
            },
            "{way:?}"
        );
    }
    assert_eq!(once(Movement::DeviceToDevice), Moved::default());
}

#[test]
fn memory_has_a_limit_and_fresh_memory_holds_poison() {
    machine();
    let mut address = 0;
    unsafe {
        assert_eq!(
            cuMemAlloc_v2(&mut address, 65 << 20).to_string(),
            "CUDA_ERROR_OUT_OF_MEMORY"
        );
        let fresh = device(8);
        let mut word = [0_u8; 8];
        assert!(cuMemcpyDtoH_v2(word.as_mut_ptr().expose_provenance() as u64, fresh, 8).is_ok());
        assert_eq!(word, [0xcd; 8]);
    }
}

#[test]
fn the_most_that_was_allocated_is_remembered_by_device() {
    let machine = machine();
    context(1);
    let address = device(5 * MIB);
    unsafe { assert!(cuMemFree_v2(address).is_ok()) };
    let report = machine.report().expect("a report");
    assert!(
        report
            .peak_device_bytes
            .get(&1)
            .is_some_and(|bytes| *bytes >= 5 * MIB as u64),
        "{report:?}"
    );
}
