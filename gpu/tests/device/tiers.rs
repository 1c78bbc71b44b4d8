//! Device memory, page-locked memory and disk, and the moves between them, on the emulated driver, whose own counts of copies are compared
//! with ours and with the least that a move needs.

use std::fs;
use std::sync::Arc;

use bytes::Bytes;
use futures::executor::block_on;
use futures::future::join_all;
use proptest::prelude::*;
use transload_gpu::device::{Device, DeviceError, DeviceMemory, Path, PinnedPool, TieredBuffer};
use transload_gpu::{Budget, HostBuffer, Partition};
use transload_protocol::Tier;

use crate::common::{self, Bench};

const MIB: u64 = 1 << 20;

#[test]
fn memory_is_given_until_the_budget_ends_and_again_when_it_comes_back() {
    let bench = Bench::new(8 * MIB, MIB);
    let memory = bench.tiers.memory();
    let taken: Vec<_> = (0..8).map(|_| memory.try_allocate(MIB).unwrap()).collect();
    let error = memory.try_allocate(1).unwrap_err();
    assert!(matches!(error, DeviceError::OutOfBudget(_)), "{error}");
    assert!(error.is_about_memory());
    assert_eq!(memory.budget().used_bytes(), 8 * MIB);
    drop(taken);
    assert_eq!(memory.budget().used_bytes(), 0);
    assert_eq!(memory.try_allocate(8 * MIB).unwrap().bytes(), 8 * MIB);
}

#[test]
fn memory_that_is_free_in_pieces_only_is_refused_with_their_sizes() {
    let bench = Bench::new(8 * MIB, MIB);
    let memory = bench.tiers.memory();
    let mut taken: Vec<_> = (0..8).map(|_| memory.try_allocate(MIB).unwrap()).collect();
    taken.sort_by_key(|it| it.address());
    for at in [6, 4, 2, 0] {
        drop(taken.remove(at));
    }
    let error = memory.try_allocate(2 * MIB).unwrap_err();
    let expected = DeviceError::Fragmented {
        requested_bytes: 2 * MIB,
        longest_bytes: MIB,
        free_bytes: 4 * MIB,
    };
    assert_eq!(error, expected);
    assert_eq!(memory.budget().used_bytes(), 4 * MIB, "the room came back");
}

#[test]
fn more_than_the_driver_has_is_refused_and_what_was_taken_for_it_goes_back() {
    let (device, _alone) = common::device();
    let (free, total) = device.memory().unwrap();
    let error = DeviceMemory::take(&device, total + MIB).unwrap_err();
    let DeviceError::OutOfMemory {
        requested_bytes, ..
    } = error
    else {
        panic!("{error}");
    };
    assert!(requested_bytes >= total + MIB);
    assert_eq!(device.memory().unwrap().0, free);
    let error = DeviceMemory::take(&device, u64::MAX).unwrap_err();
    assert!(matches!(error, DeviceError::OutOfMemory { .. }), "{error}");
}

#[test]
fn pinned_memory_is_locked_as_needed_and_in_several_pieces_where_it_must_be() {
    let bench = Bench::new(4 * MIB, 4 * MIB);
    let pinned = bench.tiers.pinned();
    let mut taken: Vec<_> = (0..4).map(|_| pinned.try_allocate(MIB).unwrap()).collect();
    assert!(pinned.try_allocate(1).unwrap_err().is_about_memory());
    drop((taken.remove(2), taken.remove(0)));
    let scattered = pinned.try_allocate(2 * MIB).unwrap();
    assert!(
        format!("{scattered:?}").contains("in 2 pieces"),
        "{scattered:?}"
    );
    // It is filled and read as one.
    let buffer = bench.filled(2 * MIB, 7);
    let copies = bench.tiers.copies();
    let from = block_on(bench.tiers.to_device(&buffer)).unwrap();
    let (_, scattered) = copies.download(from, scattered).wait().unwrap();
    let scattered = TieredBuffer::in_pinned(scattered);
    assert_eq!(bench.contents(&scattered), common::pattern(2 * MIB, 7));
}

#[test]
fn a_buffer_goes_down_to_disk_and_comes_back_with_the_least_of_copies() {
    let bench = Bench::new(16 * MIB, 16 * MIB);
    let buffer = bench.filled(5 * MIB + 12_352, 1);
    let before = bench.counts();
    block_on(async {
        bench.tiers.to_pinned(&buffer).await.unwrap();
        assert_eq!(buffer.tier(), Tier::PinnedHost);
        assert_eq!(bench.tiers.memory().budget().used_bytes(), 0);
        bench.tiers.to_device(&buffer).await.unwrap();
        assert_eq!(buffer.tier(), Tier::Device);
        assert_eq!(bench.tiers.pinned().budget().used_bytes(), 0);
    });
    let once = bench.counts().since(&before);
    assert_eq!((once.to_pinned, once.from_pinned), (1, 1));
    assert_eq!(
        (once.to_pageable, once.from_pageable, once.within),
        (0, 0, 0)
    );
    block_on(async {
        bench.tiers.to_disk(&buffer).await.unwrap();
        assert_eq!(buffer.tier(), Tier::Disk);
        assert_eq!(bench.tiers.pinned().budget().used_bytes(), 0);
        assert!(bench.directory.used_bytes() >= buffer.bytes());
        bench.tiers.to_device(&buffer).await.unwrap();
    });
    bench.wait_until_idle();
    assert_eq!(bench.directory.used_bytes(), 0);
    let twice = bench.counts().since(&before);
    assert_eq!((twice.to_pinned, twice.from_pinned), (2, 2));
    assert_eq!(
        (twice.to_pageable, twice.from_pageable, twice.within),
        (0, 0, 0)
    );
    assert_eq!((twice.to_disk, twice.from_disk), (1, 1));
    assert_eq!(bench.contents(&buffer), common::pattern(buffer.bytes(), 1));
}

#[test]
fn within_a_device_nothing_touches_the_host() {
    let bench = Bench::new(4 * MIB, MIB);
    let buffer = bench.filled(MIB, 2);
    let before = bench.counts();
    let from = block_on(bench.tiers.to_device(&buffer)).unwrap();
    let to = bench.tiers.memory().try_allocate(MIB).unwrap();
    let (_, to) = bench.tiers.copies().copy(from, to).wait().unwrap();
    let counts = bench.counts().since(&before);
    assert_eq!(counts.within, 1);
    assert_eq!(counts.over_the_bus(), 0);
    let copy = TieredBuffer::on_device(to);
    assert_eq!(bench.contents(&copy), common::pattern(MIB, 2));
}

#[test]
fn a_move_that_finds_no_room_leaves_the_buffer_where_it_is() {
    let bench = Bench::new(4 * MIB, MIB);
    let buffer = bench.filled(2 * MIB, 3);
    let error = block_on(bench.tiers.to_pinned(&buffer)).unwrap_err();
    assert!(error.is_about_memory(), "{error}");
    assert!(block_on(bench.tiers.to_disk(&buffer)).is_err());
    assert_eq!(buffer.tier(), Tier::Device);
    assert_eq!(bench.contents(&buffer), common::pattern(2 * MIB, 3));
    // And back up.
    let other = bench.filled(MIB, 4);
    block_on(bench.tiers.to_disk(&other)).unwrap();
    let full = bench.tiers.memory().try_allocate(2 * MIB).unwrap();
    assert!(block_on(bench.tiers.to_device(&other)).is_err());
    drop(full);
    assert_eq!(bench.contents(&other), common::pattern(MIB, 4));
}

#[test]
fn a_disk_that_fails_leaves_the_buffer_where_it_is() {
    let bench = Bench::new(4 * MIB, 4 * MIB);
    let buffer = bench.filled(MIB, 5);
    fs::remove_dir_all(bench.directory.path()).unwrap();
    let error = block_on(bench.tiers.to_disk(&buffer)).unwrap_err();
    assert!(matches!(error, DeviceError::Disk { .. }), "{error}");
    assert!(error.to_string().contains("spill directory"), "{error}");
    assert_eq!(buffer.tier(), Tier::Device);
    assert_eq!(bench.tiers.pinned().budget().used_bytes(), 0);
    assert_eq!(bench.contents(&buffer), common::pattern(MIB, 5));
}

#[test]
fn a_file_that_was_damaged_is_an_error_and_no_buffer() {
    let bench = Bench::new(4 * MIB, 4 * MIB);
    let buffer = bench.filled(MIB, 6);
    block_on(bench.tiers.to_disk(&buffer)).unwrap();
    let is_payload =
        |path: &std::path::PathBuf| path.extension().is_some_and(|it| it == "partition");
    let mut files = fs::read_dir(bench.directory.path()).unwrap();
    let file = files.find_map(|it| Some(it.unwrap().path()).filter(is_payload));
    let mut bytes = fs::read(file.as_ref().unwrap()).unwrap();
    bytes[77_777] ^= 1;
    fs::write(file.as_ref().unwrap(), bytes).unwrap();
    let error = block_on(bench.tiers.to_device(&buffer)).unwrap_err();
    assert!(matches!(error, DeviceError::Corrupt { .. }), "{error}");
    assert_eq!(buffer.tier(), Tier::Disk);
    assert_eq!(bench.tiers.pinned().budget().used_bytes(), 0);
    fs::write(file.as_ref().unwrap(), b"short").unwrap();
    let error = block_on(bench.tiers.to_device(&buffer)).unwrap_err();
    assert!(matches!(error, DeviceError::Corrupt { .. }), "{error}");
    fs::remove_file(file.unwrap()).unwrap();
    let error = block_on(bench.tiers.to_device(&buffer)).unwrap_err();
    assert!(matches!(error, DeviceError::Disk { .. }), "{error}");
    assert!(error.to_string().contains("check the disk"), "{error}");
}

#[test]
fn two_moves_of_one_buffer_at_once_need_room_for_one() {
    let bench = Bench::new(4 * MIB, MIB);
    let buffer = bench.filled(MIB, 1);
    for _ in 0..10 {
        let moves = [(); 3].map(|()| bench.tiers.to_pinned(&buffer));
        let places: Vec<_> = block_on(join_all(moves))
            .into_iter()
            .map(Result::unwrap)
            .collect();
        assert!(Arc::ptr_eq(&places[0], &places[2]));
        drop(places);
        // Room for one there, too.
        let full = bench.tiers.memory().try_allocate(3 * MIB).unwrap();
        let moves = [(); 2].map(|()| bench.tiers.to_device(&buffer));
        for moved in block_on(join_all(moves)) {
            moved.unwrap();
        }
        drop(full);
    }
    assert_eq!(bench.contents(&buffer), common::pattern(MIB, 1));
}

#[test]
fn the_end_of_a_copy_can_be_waited_for_inside_of_an_executor() {
    let bench = Bench::new(4 * MIB, MIB);
    let buffer = bench.filled(MIB, 1);
    let copy = block_on(async {
        let from = bench.tiers.to_device(&buffer).await.unwrap();
        let to = bench.tiers.memory().try_allocate(MIB).unwrap();
        bench.tiers.copies().copy(from, to).wait().unwrap().1
    });
    let copy = TieredBuffer::on_device(copy);
    assert_eq!(bench.contents(&copy), common::pattern(MIB, 1));
}

#[test]
fn memory_under_anothers_reservation_or_too_small_a_one_is_refused() {
    let bench = Bench::new(4 * MIB, 4 * MIB);
    let (memory, pinned) = (bench.tiers.memory(), bench.tiers.pinned());
    let of_memory = || memory.try_reserve(MIB).unwrap();
    let of_pinned = || pinned.try_reserve(MIB).unwrap();
    let errors = [
        memory.allocate(MIB, of_pinned()).unwrap_err(),
        memory.allocate(MIB + 1, of_memory()).unwrap_err(),
        pinned.allocate(MIB, of_memory()).unwrap_err(),
        pinned.allocate(MIB + 1, of_pinned()).unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, DeviceError::Reservation { .. }), "{error}");
    }
    assert!(memory.allocate(MIB, of_memory()).is_ok());
    assert!(pinned.allocate(MIB, of_pinned()).is_ok());
}

#[test]
fn whoever_stops_waiting_loses_nothing_and_memory_comes_back() {
    let bench = Bench::new(16 * MIB, 16 * MIB);
    let buffer = bench.filled(4 * MIB, 8);
    for _ in 0..20 {
        drop(futures::FutureExt::now_or_never(
            bench.tiers.to_pinned(&buffer),
        ));
        drop(futures::FutureExt::now_or_never(
            bench.tiers.to_disk(&buffer),
        ));
        drop(futures::FutureExt::now_or_never(
            bench.tiers.to_device(&buffer),
        ));
    }
    assert_eq!(bench.contents(&buffer), common::pattern(4 * MIB, 8));
    block_on(bench.tiers.to_device(&buffer)).unwrap();
    bench.wait_until_idle();
    assert_eq!(bench.tiers.pinned().budget().used_bytes(), 0);
    assert_eq!(bench.tiers.memory().budget().used_bytes(), 4 * MIB);
}

#[test]
fn many_buffers_that_move_at_once_keep_their_bytes_and_the_budgets_hold() {
    // Half of what is to be held, so that most of it is somewhere else at any time.
    let bench = Bench::new(8 * MIB, 8 * MIB);
    let buffers: Vec<_> = (0..16_u64)
        .map(|number| {
            let buffer = Arc::new(bench.filled(MIB, number));
            block_on(bench.tiers.to_disk(&buffer)).unwrap();
            buffer
        })
        .collect();
    let moves = buffers.iter().enumerate().map(|(number, buffer)| {
        let bench = &bench;
        async move {
            for step in 0..6 {
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
    for (number, buffer) in buffers.into_iter().enumerate() {
        assert_eq!(
            bench.contents(&buffer),
            common::pattern(MIB, number as u64),
            "buffer {number}"
        );
    }
    for budget in [bench.tiers.memory().budget(), bench.tiers.pinned().budget()] {
        assert!(budget.peak_bytes() <= budget.limit_bytes());
    }
}

#[test]
fn a_pool_of_pinned_memory_is_unlocked_with_its_last_buffer() {
    let (device, _alone) = common::device();
    let pool = PinnedPool::new(&device, 4 * MIB);
    let buffer = pool.try_allocate(MIB).unwrap();
    drop(pool);
    drop(device);
    drop(buffer);
    assert!(Device::open(0).is_ok());
}

#[test]
fn a_device_that_is_not_there_is_an_error_that_says_how_many_there_are() {
    let _device = common::device();
    let count = Device::count().unwrap();
    let error = Device::open(count + 3).unwrap_err();
    let expected = DeviceError::NoDevice {
        ordinal: count + 3,
        count,
    };
    assert_eq!(error, expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]
    #[test]
    fn a_partition_comes_back_from_every_tier_as_it_was(
        metadata in proptest::collection::vec(any::<u8>(), 0..50),
        lengths in proptest::collection::vec(prop_oneof![0..300_usize, 60_000..70_000_usize, Just(1 << 20)], 0..8),
        tier in 0..3,
    ) {
        let bench = Bench::new(16 * MIB, 16 * MIB);
        let filled = |(number, bytes): (usize, &usize)| Bytes::from(common::pattern(*bytes as u64, number as u64));
        let buffers = lengths.iter().enumerate().map(filled).collect();
        let partition = Partition::new(metadata.into(), buffers);
        block_on(async {
            let uploaded = bench.tiers.upload(&partition).await.unwrap();
            prop_assert_eq!((uploaded.tier(), uploaded.bytes()), (Tier::Device, partition.bytes()));
            match tier {
                0 => {}
                1 => drop(bench.tiers.to_pinned(uploaded.payload()).await.unwrap()),
                _ => bench.tiers.to_disk(uploaded.payload()).await.unwrap(),
            }
            let bytes = uploaded.header().payload_bytes();
            let budget = Budget::new("host", u64::MAX);
            let to = HostBuffer::uncleared(bytes as usize, budget.try_reserve(bytes).unwrap());
            let before = uploaded.tier();
            let back = bench.tiers.download(&uploaded, to).await.unwrap();
            prop_assert_eq!(uploaded.tier(), before, "who reads it does not move it");
            prop_assert_eq!(back, partition);
            Ok(())
        })?;
        prop_assert_eq!(bench.device.traffic().over(Path::DeviceToDevice), (0, 0));
    }
}
