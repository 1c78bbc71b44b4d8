//! Device memory that goes to disk and comes back without memory of the host in between, where the machine has GPUDirect Storage; and what
//! becomes of it where the machine has none, or where that fails.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

use futures::FutureExt;
use futures::executor::block_on;
use futures::future::join_all;
use proptest::prelude::*;
use transload_gpu::device::{DeviceError, Path};
use transload_protocol::Tier;

use crate::common::{self, Bench, in_a_process_with_cufile};

const MIB: u64 = 1 << 20;
const PAGE: u64 = 4 << 10;

fn with_direct_storage(plan: &str, body: impl FnOnce()) {
    in_a_process_with_cufile("direct", plan, body);
}

/// The one file of a bench.
fn file(bench: &Bench) -> PathBuf {
    let files = files(bench);
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

fn files(bench: &Bench) -> Vec<PathBuf> {
    let paths = fs::read_dir(bench.directory.path()).unwrap();
    let paths = paths.map(|it| it.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|it| it == "partition"))
        .collect()
}

#[test]
fn a_buffer_goes_to_disk_and_comes_back_without_a_copy_through_the_host() {
    with_direct_storage("", || {
        // A page is for checksums. There is no room beside the buffer, and no page-locked memory at all.
        let bytes = 4 * MIB - PAGE;
        let bench = Bench::direct(4 * MIB, 0);
        assert!(bench.tiers.has_direct_storage());
        let buffer = bench.filled(bytes, 1);
        let before = bench.counts();
        let learnt = || bench.device.traffic().over(Path::DeviceToPinned).1;
        block_on(bench.tiers.to_disk(&buffer)).unwrap();
        assert_eq!(buffer.tier(), Tier::Disk);
        assert_eq!(bench.tiers.memory().budget().used_bytes(), PAGE);
        assert_eq!(bench.directory.used_bytes(), bytes);
        block_on(bench.tiers.to_device(&buffer)).unwrap();
        let counts = bench.counts().since(&before);
        assert_eq!((counts.directly_to_disk, counts.directly_from_disk), (1, 1));
        assert_eq!((counts.to_disk, counts.from_disk), (0, 0));
        assert_eq!(
            (counts.from_pinned, counts.to_pageable, counts.from_pageable),
            (0, 0, 0)
        );
        // Two checksums are all that the host learns.
        assert_eq!((counts.to_pinned, learnt()), (2, 16));
        assert_eq!(counts.within, 0, "disks reach the memory itself");
        assert_eq!(bench.contents(&buffer), common::pattern(bytes, 1));
        bench.wait_until_idle();
        assert_eq!(bench.directory.used_bytes(), 0);
        drop(buffer);
        assert_eq!(bench.tiers.memory().budget().used_bytes(), PAGE);
    });
}

#[test]
fn a_file_that_one_way_wrote_is_read_by_the_other() {
    with_direct_storage("", || {
        let bench = Bench::direct(8 * MIB, 8 * MIB);
        // What is behind them in the last page is not theirs.
        for bytes in [2 * MIB + 12_352, 64, 0] {
            let buffer = bench.filled(bytes, 3);
            let before = bench.counts();
            block_on(async {
                bench.tiers.to_disk(&buffer).await.unwrap();
                bench.tiers.to_pinned(&buffer).await.unwrap();
                assert_eq!(buffer.tier(), Tier::PinnedHost);
                bench.tiers.to_disk(&buffer).await.unwrap();
                bench.tiers.to_device(&buffer).await.unwrap();
            });
            let counts = bench.counts().since(&before);
            assert_eq!((counts.directly_to_disk, counts.from_disk), (1, 1));
            assert_eq!((counts.to_disk, counts.directly_from_disk), (1, 1));
            assert_eq!(bench.contents(&buffer), common::pattern(bytes, 3));
        }
    });
}

#[test]
fn buffers_of_any_length_touch_nothing_beside_them() {
    with_direct_storage("", || {
        let bench = Bench::direct(16 * MIB, MIB);
        let length = prop_oneof![(0..200_u64).prop_map(|it| it * 64), Just(PAGE)];
        let lengths = proptest::collection::vec(length, 1..8);
        proptest!(ProptestConfig::with_cases(12), |(lengths in lengths)| {
            let filled = |(number, bytes): (usize, &u64)| bench.filled(*bytes, number as u64);
            let buffers: Vec<_> = lengths.iter().enumerate().map(filled).collect();
            for number in 0..buffers.len() {
                // Every second one is gone while another comes back.
                block_on(bench.tiers.to_disk(&buffers[number])).unwrap();
                block_on(bench.tiers.to_device(&buffers[number / 2])).unwrap();
            }
            for (number, buffer) in buffers.iter().enumerate() {
                prop_assert_eq!(bench.contents(buffer), common::pattern(lengths[number], number as u64));
            }
        });
    });
}

#[test]
fn many_buffers_that_move_at_once_or_are_let_go_of_keep_their_bytes() {
    with_direct_storage("", || {
        let bench = Bench::direct(8 * MIB, 2 * MIB);
        let buffers: Vec<_> = (0..10)
            .map(|number| {
                let buffer = Arc::new(bench.filled(MIB, number));
                block_on(bench.tiers.to_disk(&buffer)).unwrap();
                buffer
            })
            .collect();
        for buffer in &buffers {
            drop(bench.tiers.to_device(buffer).now_or_never());
            drop(bench.tiers.to_disk(buffer).now_or_never());
        }
        let moves = buffers.iter().enumerate().map(|(number, buffer)| {
            let bench = &bench;
            async move {
                for step in 0..5 {
                    // Some find no room, and stay where they are.
                    match (number * 7 + step * 5) % 3 {
                        0 => drop(bench.tiers.to_device(buffer).await),
                        1 => drop(bench.tiers.to_pinned(buffer).await),
                        _ => drop(bench.tiers.to_disk(buffer).await),
                    }
                }
                bench.tiers.to_disk(buffer).await
            }
        });
        block_on(join_all(moves));
        bench.wait_until_idle();
        for (number, buffer) in buffers.into_iter().enumerate() {
            let expected = common::pattern(MIB, number as u64);
            assert_eq!(bench.contents(&buffer), expected, "buffer {number}");
        }
        bench.wait_until_idle();
        assert_eq!(bench.tiers.memory().budget().used_bytes(), PAGE);
    });
}

#[test]
fn a_cufile_that_goes_through_the_host_is_not_used() {
    in_a_process_with_cufile("compatible", "", || {
        assert_goes_through_page_locked_memory(&Bench::direct(4 * MIB, 4 * MIB));
    });
}

#[test]
fn without_cufile_device_memory_goes_through_page_locked_memory() {
    in_a_process_with_cufile("absent", "", || {
        assert_goes_through_page_locked_memory(&Bench::direct(4 * MIB, 4 * MIB));
    });
}

#[test]
fn a_file_system_that_refuses_is_found_out_at_the_start() {
    with_direct_storage("cuFileHandleRegister@1=CUDA_ERROR_NOT_SUPPORTED", || {
        assert_goes_through_page_locked_memory(&Bench::direct(4 * MIB, 4 * MIB));
    });
}

#[test]
fn a_disk_that_does_not_reach_the_device_is_found_out_at_the_start() {
    with_direct_storage("cuFileRead@1=CUDA_ERROR_INVALID_VALUE", || {
        assert_goes_through_page_locked_memory(&Bench::direct(4 * MIB, 4 * MIB));
    });
}

fn assert_goes_through_page_locked_memory(bench: &Bench) {
    assert!(!bench.tiers.has_direct_storage());
    let buffer = bench.filled(MIB, 2);
    let before = bench.counts();
    block_on(bench.tiers.to_disk(&buffer)).unwrap();
    block_on(bench.tiers.to_device(&buffer)).unwrap();
    let counts = bench.counts().since(&before);
    assert_eq!((counts.directly_to_disk, counts.directly_from_disk), (0, 0));
    assert_eq!((counts.to_disk, counts.from_disk), (1, 1));
    assert_eq!((counts.to_pinned, counts.from_pinned), (1, 1));
    assert_eq!(bench.contents(&buffer), common::pattern(MIB, 2));
    bench.wait_until_idle();
    assert_eq!(files(bench), Vec::<PathBuf>::new());
}

#[test]
fn what_cannot_be_done_directly_goes_through_page_locked_memory() {
    // The first of each is to try it out.
    let plan = "cuFileWrite@2=CUDA_ERROR_INVALID_VALUE, cuFileRead@2=CUDA_ERROR_INVALID_VALUE, \
        cuFileHandleRegister@5=CUDA_ERROR_NOT_SUPPORTED";
    with_direct_storage(plan, || {
        let bench = Bench::direct(4 * MIB, 4 * MIB);
        let buffer = bench.filled(MIB, 4);
        let before = bench.counts();
        let round = || {
            block_on(bench.tiers.to_disk(&buffer)).unwrap();
            assert_eq!(buffer.tier(), Tier::Disk);
            block_on(bench.tiers.to_device(&buffer)).unwrap();
            let counts = bench.counts().since(&before);
            [
                (counts.to_disk, counts.directly_to_disk),
                (counts.from_disk, counts.directly_from_disk),
            ]
        };
        assert_eq!(round(), [(1, 0), (1, 0)], "both failed");
        assert_eq!(round(), [(2, 0), (1, 1)], "the file was not taken");
        assert_eq!(round(), [(2, 1), (1, 2)]);
        assert_eq!(bench.contents(&buffer), common::pattern(MIB, 4));
        bench.wait_until_idle();
        assert_eq!(files(&bench), Vec::<PathBuf>::new());
        assert_eq!(bench.tiers.pinned().budget().used_bytes(), 0);
    });
}

#[test]
fn where_disks_do_not_reach_the_device_cufile_copies_within_it() {
    with_direct_storage("cuFileBufRegister@1=CUDA_ERROR_OUT_OF_MEMORY", || {
        let bench = Bench::direct(4 * MIB, MIB);
        let buffer = bench.filled(MIB, 4);
        block_on(bench.tiers.to_disk(&buffer)).unwrap();
        block_on(bench.tiers.to_device(&buffer)).unwrap();
        assert_eq!(bench.contents(&buffer), common::pattern(MIB, 4));
        let traffic = bench.device.traffic();
        assert_eq!(traffic.over(Path::DeviceToDisk), (1, MIB));
        assert_eq!(traffic.over(Path::DiskToDevice), (1, MIB));
    });
}

#[test]
fn a_full_disk_is_an_error_and_the_buffer_stays_on_the_device() {
    with_direct_storage("cuFileWrite@2=CUDA_ERROR_OPERATING_SYSTEM", || {
        let bench = Bench::direct(4 * MIB, 4 * MIB);
        let buffer = bench.filled(MIB, 5);
        let error = block_on(bench.tiers.to_disk(&buffer)).unwrap_err();
        let full = ErrorKind::StorageFull;
        assert!(
            matches!(&error, DeviceError::Disk { kind, .. } if *kind == full),
            "{error}"
        );
        assert!(error.to_string().contains("free space"), "{error}");
        assert_eq!(buffer.tier(), Tier::Device);
        bench.wait_until_idle();
        assert_eq!((files(&bench), bench.directory.used_bytes()), (vec![], 0));
        assert_eq!(bench.contents(&buffer), common::pattern(MIB, 5));
    });
}

#[test]
fn a_checksum_that_cannot_be_made_is_an_error_and_loses_nothing() {
    // The second entry counts no call that the first one fails.
    let plan =
        "cuLaunchKernel@1=CUDA_ERROR_OUT_OF_MEMORY, cuLaunchKernel@2=CUDA_ERROR_OUT_OF_MEMORY";
    with_direct_storage(plan, || {
        let bench = Bench::direct(4 * MIB, 4 * MIB);
        let buffer = bench.filled(MIB, 6);
        let error = block_on(bench.tiers.to_disk(&buffer)).unwrap_err();
        assert!(error.is_about_memory(), "{error}");
        assert_eq!(buffer.tier(), Tier::Device);
        block_on(bench.tiers.to_disk(&buffer)).unwrap();
        let error = block_on(bench.tiers.to_device(&buffer)).unwrap_err();
        assert!(error.is_about_memory(), "{error}");
        assert_eq!(buffer.tier(), Tier::Disk);
        assert_eq!(bench.contents(&buffer), common::pattern(MIB, 6));
    });
}

#[test]
fn a_file_that_was_damaged_is_an_error_and_no_buffer() {
    with_direct_storage("", || {
        let bench = Bench::direct(4 * MIB, 4 * MIB);
        let buffer = bench.filled(MIB, 7);
        block_on(bench.tiers.to_disk(&buffer)).unwrap();
        let file = file(&bench);
        let right = fs::read(&file).unwrap();
        let swapped = {
            let mut bytes = right.clone();
            let (head, tail) = bytes.split_at_mut(PAGE as usize);
            head[..8].swap_with_slice(&mut tail[PAGE as usize..][..8]);
            bytes
        };
        let mut flipped = right.clone();
        flipped[77_777] ^= 1;
        let mut missing = right.clone();
        missing[5 * PAGE as usize..6 * PAGE as usize].fill(0);
        let short = right[..right.len() - 1].to_vec();
        for damaged in [swapped, flipped, missing, short, vec![1; 5], Vec::new()] {
            assert!(damaged != right);
            fs::write(&file, damaged).unwrap();
            let error = block_on(bench.tiers.to_device(&buffer)).unwrap_err();
            assert!(matches!(error, DeviceError::Corrupt { .. }), "{error}");
            assert_eq!(buffer.tier(), Tier::Disk);
            assert_eq!(bench.tiers.memory().budget().used_bytes(), PAGE);
        }
        fs::write(&file, right).unwrap();
        block_on(bench.tiers.to_device(&buffer)).unwrap();
        assert_eq!(bench.contents(&buffer), common::pattern(MIB, 7));
        block_on(bench.tiers.to_disk(&buffer)).unwrap();
        bench.wait_until_idle();
        fs::remove_file(self::file(&bench)).unwrap();
        let error = block_on(bench.tiers.to_device(&buffer)).unwrap_err();
        assert!(matches!(error, DeviceError::Disk { .. }), "{error}");
    });
}

#[test]
fn moves_that_fail_now_and_then_lose_no_byte() {
    let plan = "seed=1, cuFileWrite%20=CUDA_ERROR_INVALID_VALUE, cuFileRead%20=CUDA_ERROR_OPERATING_SYSTEM, \
        cuFileHandleRegister%10=CUDA_ERROR_NOT_SUPPORTED, cuLaunchKernel%10=CUDA_ERROR_OUT_OF_MEMORY, \
        cuMemHostRegister_v2%20=CUDA_ERROR_OUT_OF_MEMORY";
    with_direct_storage(plan, || {
        let bench = Bench::direct(6 * MIB, 2 * MIB);
        assert!(bench.tiers.has_direct_storage(), "choose another seed");
        let buffers: Vec<_> = (0..5).map(|number| bench.filled(MIB, number)).collect();
        let moves = buffers.iter().enumerate().map(|(number, buffer)| {
            let bench = &bench;
            async move {
                for step in 0..16 {
                    match (number + step * 5) % 4 {
                        0 | 1 => drop(bench.tiers.to_device(buffer).await),
                        2 => drop(bench.tiers.to_pinned(buffer).await),
                        _ => drop(bench.tiers.to_disk(buffer).await),
                    }
                }
            }
        });
        block_on(join_all(moves));
        bench.wait_until_idle();
        for (number, buffer) in buffers.into_iter().enumerate() {
            let expected = common::pattern(MIB, number as u64);
            assert_eq!(bench.contents(&buffer), expected, "buffer {number}");
        }
    });
}
