//! Device partitions on their way to another process: through page-locked memory at both ends.

use std::sync::Arc;

use bytes::Bytes;
use futures::executor::block_on;
use transload_gpu::device::{Device, DeviceMemory, Landed, Path, PinnedPool, Tiers};
use transload_gpu::{ALIGNMENT_BYTES, HostBuffer, Partition};
use transload_protocol::Tier;

use crate::common::{self, Bench, Counts};

const MIB: u64 = 1 << 20;

fn partition() -> Partition {
    let buffers = [1_u64, 100_000, 0, 64, 300_001];
    let filled = |bytes| Bytes::from(common::pattern(bytes, bytes));
    Partition::new(
        Bytes::from_static(b"metadata"),
        buffers.map(filled).to_vec(),
    )
}

/// What a transport does: every buffer to its place.
fn received(sent: &Partition, mut to: HostBuffer) -> Partition {
    let mut rest = to.as_mut_slice();
    for buffer in sent.buffers() {
        let (now, later) = rest.split_at_mut(buffer.len().next_multiple_of(ALIGNMENT_BYTES));
        now[..buffer.len()].copy_from_slice(buffer);
        now[buffer.len()..].fill(0);
        rest = later;
    }
    sent.header().assemble(to.freeze()).unwrap()
}

#[test]
fn a_device_partition_is_sent_and_received_with_one_copy_down_and_one_up() {
    for (tier, downloads, reads) in [
        (Tier::Device, 1, 0),
        (Tier::PinnedHost, 0, 0),
        (Tier::Disk, 0, 1),
    ] {
        let bench = Bench::new(4 * MIB, 4 * MIB);
        let tiers = &bench.tiers;
        block_on(async {
            let held = tiers.upload(&partition()).await.unwrap();
            match tier {
                Tier::Disk => tiers.to_disk(held.payload()).await.unwrap(),
                Tier::PinnedHost => drop(tiers.to_pinned(held.payload()).await.unwrap()),
                _ => {}
            }
            let before = bench.counts();
            let sent = tiers.viewed(&held).await.unwrap();
            assert_eq!(sent, partition());
            assert_eq!(held.tier(), tier, "who reads it does not move it");
            let bytes = held.header().payload_bytes();
            drop(tiers.pinned().try_allocate(bytes).unwrap());
            let (to, landed) = tiers.landing(bytes).unwrap();
            let arrived = received(&sent, to);
            drop(sent);
            let here = tiers.adopt(&arrived, &landed).unwrap();
            drop((arrived, landed));
            assert_eq!(here.tier(), Tier::PinnedHost);
            tiers.to_device(here.payload()).await.unwrap();
            let copies = bench.counts().since(&before);
            let expected = Counts {
                to_pinned: downloads,
                from_pinned: 1,
                to_pageable: 0,
                from_pageable: 0,
                within: 0,
                to_disk: 0,
                from_disk: reads,
                directly_to_disk: 0,
                directly_from_disk: 0,
            };
            assert_eq!(copies, expected, "from {tier}");
            assert_eq!(tiers.viewed(&here).await.unwrap(), partition());
        });
        bench.wait_until_idle();
        assert_eq!(tiers.pinned().budget().used_bytes(), 0);
    }
}

#[test]
fn what_is_in_several_pieces_is_put_together() {
    let bench = Bench::new(4 * MIB, MIB);
    let tiers = &bench.tiers;
    block_on(async {
        let held = tiers.upload(&partition()).await.unwrap();
        // Every second of the pieces that fill the pool goes away, so that no piece that is free is long.
        let mut all = Vec::new();
        while let Ok(buffer) = tiers.pinned().try_allocate(16 << 10) {
            all.push(buffer);
        }
        let mut number = 0;
        all.retain(|_| {
            number += 1;
            number % 2 == 0
        });
        let bytes = held.header().payload_bytes();
        assert!(tiers.landing(bytes).is_none(), "not in one piece");
        assert_eq!(tiers.viewed(&held).await.unwrap(), partition());
    });
}

#[test]
fn a_landing_that_nobody_finished_is_no_partition_and_gives_its_memory_back() {
    let bench = Bench::new(MIB, MIB);
    let tiers = &bench.tiers;
    drop(tiers.pinned().try_allocate(MIB).unwrap());
    assert!(tiers.landing(MIB + 1).is_none());
    let (to, landed) = tiers.landing(100).unwrap();
    drop(to);
    assert!(tiers.adopt(&partition(), &landed).is_none());
    let (to, landed) = tiers.landing(128).unwrap();
    drop(to.freeze());
    assert!(
        tiers.adopt(&partition(), &landed).is_none(),
        "of another size"
    );
    assert!(tiers.adopt(&partition(), &Landed::default()).is_none());
    drop(landed);
    assert_eq!(tiers.pinned().budget().used_bytes(), 0);
}

#[test]
fn a_payload_of_another_device_comes_over_in_one_copy_and_none_through_the_host() {
    let bench = Bench::new(4 * MIB, 4 * MIB);
    if Device::count().unwrap() < 2 {
        return println!("skipped: there is one device");
    }
    let other = Device::open(1).unwrap();
    let memory = DeviceMemory::take(&other, 4 * MIB).unwrap();
    let pinned = PinnedPool::new(&other, 4 * MIB);
    let there = Tiers::new(memory, pinned, Arc::clone(&bench.directory)).unwrap();
    block_on(async {
        let held = bench.tiers.upload(&partition()).await.unwrap();
        let before = bench.counts();
        let (header, place) = (held.header().clone(), held.payload().device_place());
        let to = there.memory().try_allocate(header.payload_bytes()).unwrap();
        let brought = there.bring(header, place.unwrap(), to).await.unwrap();
        assert_eq!(bench.counts(), before);
        let bytes = brought.header().payload_bytes();
        let ours = other.traffic().over(Path::PeerToDevice);
        assert_eq!(ours, (1, bytes));
        assert_eq!(there.viewed(&brought).await.unwrap(), partition());
        assert_eq!(held.tier(), Tier::Device);
    });
}
