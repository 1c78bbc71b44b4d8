//! Partitions that are read on a device: what leaves it, by which way, how it comes back, and what is done when it is too small.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use common::{
    Bench, FIRST, GRAPH, PEER, events, failure, fetches, from, messages, part, small, starts, task,
};
use transload_protocol::{
    Arguments, Event, InputSpec, LayerIndex, LayerSpec, Memory, PartitionId, Resources,
    SchedulerToWorker, TaskErrorKind, Tier, WorkerMessage,
};
use transload_worker::{Action, Config, GpuConfig, Input};

/// Whose tasks work in device memory.
const DEVICE: u32 = 3;
/// Whose tasks work in host memory, on what devices made.
const READER: u32 = 4;

/// A device of 100 B, page-locked memory of so many.
fn config(pinned_bytes: u64) -> Config {
    Config {
        resources: Resources::slots(1).with(Resources::GPU, 1),
        gpu: Some(GpuConfig {
            device_bytes: 100,
            pinned_bytes,
        }),
        ..small()
    }
}

fn bench(pinned_bytes: u64) -> Bench {
    bench_of(config(pinned_bytes))
}

fn bench_of(config: Config) -> Bench {
    let mut bench = Bench::new(config);
    announce(&mut bench, DEVICE, Memory::Device);
    bench
}

/// A layer that works in that memory and reads what devices made.
fn announce(bench: &mut Bench, layer: u32, memory: Memory) {
    let slot = Resources::slots(1);
    let spec = LayerSpec {
        name: format!("{memory:?}"),
        operator: "op".to_owned(),
        arguments: Arguments::default(),
        first_task: 0,
        outputs: 1,
        inputs: vec![InputSpec::Listed],
        resources: match memory {
            Memory::Device => slot.with(Resources::GPU, 1),
            Memory::Host => slot,
        },
        fused: None,
        gang: false,
        memory,
        input_memory: vec![Memory::Device],
    };
    bench.send(SchedulerToWorker::Layer {
        graph: GRAPH,
        layer: LayerIndex(layer),
        spec: spec.into(),
    });
}

fn make(bench: &mut Bench, index: u32, bytes: u64) -> Vec<Action> {
    let started = bench.assign_as(index, FIRST, DEVICE, &[]);
    assert!(starts(&started, index), "{started:?}");
    bench.done(index, &[bytes])
}

fn moves(actions: &[Action]) -> Vec<(PartitionId, Tier)> {
    let moves = |action: &Action| match action {
        Action::Spill { partition, to } | Action::Load { partition, to } => Some((*partition, *to)),
        _ => None,
    };
    actions.iter().filter_map(moves).collect()
}

/// What a start says of how the task is to work.
fn halved(actions: &[Action]) -> Option<bool> {
    actions.iter().find_map(|action| match action {
        Action::Start { halved, .. } => Some(*halved),
        _ => None,
    })
}

fn used(bench: &Bench, tier: Tier) -> u64 {
    let tiers = bench.worker.load(bench.now).tiers;
    let found = tiers.iter().find(|usage| usage.tier == tier);
    found.expect("told").used_bytes
}

fn out_of_memory(bench: &mut Bench, index: u32) -> Vec<Action> {
    bench.input(Input::TaskFailed {
        task: task(index),
        attempt: FIRST,
        kind: TaskErrorKind::OutOfMemory,
        message: "no room".to_owned(),
        step: None,
    })
}

#[test]
fn what_is_too_much_for_the_device_goes_to_page_locked_memory_and_from_there_to_disk() {
    let mut bench = bench(100);
    make(&mut bench, 1, 60);
    let over = make(&mut bench, 2, 50);
    assert_eq!(moves(&over), [(part(1), Tier::PinnedHost)], "the larger");
    let moved = bench.spilled(part(1), 60);
    assert_eq!(moves(&moved), []);
    assert_eq!(bench.tier(part(1)), Some(Tier::PinnedHost));
    assert_eq!(
        (used(&bench, Tier::Device), used(&bench, Tier::PinnedHost)),
        (50, 60)
    );

    let over = make(&mut bench, 3, 40);
    assert_eq!(moves(&over), [(part(1), Tier::Disk)], "to make room");
    let room = bench.spilled(part(1), 64);
    assert_eq!(moves(&room), [(part(2), Tier::PinnedHost)]);
    assert_eq!(
        (used(&bench, Tier::Disk), used(&bench, Tier::Host)),
        (64, 0)
    );
}

#[test]
fn what_a_task_reads_comes_back_tier_by_tier() {
    let mut bench = bench(100);
    make(&mut bench, 1, 60);
    make(&mut bench, 2, 50);
    bench.spilled(part(1), 60);
    make(&mut bench, 3, 40);
    bench.spilled(part(1), 60);
    bench.spilled(part(2), 50);
    assert_eq!(bench.tier(part(1)), Some(Tier::Disk));

    let wanted = bench.assign_as(5, FIRST, DEVICE, &[from(common::SELF, part(1), 60)]);
    assert_eq!(moves(&wanted), [(part(2), Tier::Disk)], "room on the way");
    let there = bench.spilled(part(2), 50);
    assert_eq!(moves(&there), [(part(1), Tier::PinnedHost)]);
    let up = bench.loaded(part(1));
    assert_eq!(moves(&up), [(part(1), Tier::Device)]);
    let last = bench.loaded(part(1));
    assert!(starts(&last, 5));
    let told = events(&last);
    let risen = |event: &&Event| {
        matches!(
            event,
            Event::PartitionMoved {
                from: Tier::PinnedHost,
                to: Tier::Device,
                ..
            }
        )
    };
    assert_eq!(told.iter().filter(risen).count(), 1, "{told:?}");
}

#[test]
fn with_direct_storage_what_page_locked_memory_has_no_room_for_goes_straight_to_disk_and_back() {
    let mut bench = bench(100);
    bench.input(Input::HasDirectStorage);
    make(&mut bench, 1, 60);
    let over = make(&mut bench, 2, 50);
    assert_eq!(moves(&over), [(part(1), Tier::PinnedHost)], "there is room");
    bench.spilled(part(1), 60);
    let over = make(&mut bench, 3, 40);
    assert_eq!(moves(&over), [(part(2), Tier::Disk)], "there is none");
    let there = bench.spilled(part(2), 50);
    assert_eq!(
        (used(&bench, Tier::Device), used(&bench, Tier::PinnedHost)),
        (40, 60)
    );
    let wanted = bench.assign_as(5, FIRST, DEVICE, &[from(common::SELF, part(2), 50)]);
    assert_eq!(moves(&wanted), [(part(2), Tier::Device)], "in one go");
    let last = bench.loaded(part(2));
    assert!(starts(&last, 5));
    let told = [over, there, wanted, last].concat();
    let told = events(&told);
    let moved = |event: &Event| match event {
        Event::PartitionMoved { from, to, .. } => Some((*from, *to)),
        _ => None,
    };
    let told: Vec<_> = told.iter().filter_map(moved).collect();
    let straight = [(Tier::Device, Tier::Disk), (Tier::Disk, Tier::Device)];
    assert!(told.ends_with(&straight), "{told:?}");
}

#[test]
fn with_direct_storage_a_device_does_without_page_locked_memory() {
    let mut bench = bench(0);
    make(&mut bench, 1, 60);
    let over = make(&mut bench, 2, 50);
    assert_eq!(moves(&over), [], "it can go nowhere");
    let over = bench.input(Input::HasDirectStorage);
    assert_eq!(moves(&over), [(part(1), Tier::Disk)]);
    // What the disk refuses stays, and is tried again later.
    let refused = bench.input(Input::SpillFailed {
        partition: part(1),
        reason: "full".to_owned(),
    });
    assert_eq!(moves(&refused), []);
    assert_eq!(bench.tier(part(1)), Some(Tier::Device));
}

#[test]
fn a_task_in_host_memory_finds_what_it_reads_on_the_device() {
    let mut bench = bench(100);
    make(&mut bench, 1, 60);
    announce(&mut bench, READER, Memory::Host);
    let started = bench.assign_as(2, FIRST, READER, &[from(common::SELF, part(1), 60)]);
    assert!(starts(&started, 2));
    bench.done(2, &[30]);
    assert_eq!(
        (used(&bench, Tier::Device), used(&bench, Tier::Host)),
        (60, 30)
    );
}

#[test]
fn what_is_fetched_stays_where_there_was_room_for_it() {
    for (tier, asked, starts_at_once) in [
        (Tier::Device, vec![], true),
        (Tier::PinnedHost, vec![(part(50), Tier::Device)], false),
        (Tier::Host, vec![], true),
    ] {
        let mut bench = bench(100);
        let wanted = bench.assign_as(1, FIRST, DEVICE, &[from(PEER, part(50), 10)]);
        assert_eq!(fetches(&wanted), [(part(50), PEER)]);
        let fetched = bench.input(Input::Fetched {
            partition: part(50),
            from: PEER,
            bytes: 10,
            micros: 5,
            transport: "memory".to_owned(),
            tier,
        });
        assert_eq!(moves(&fetched), asked);
        assert_eq!(starts(&fetched, 1), starts_at_once, "{tier}");
        assert_eq!(used(&bench, tier), 10);
    }
}

#[test]
fn a_worker_without_a_gpu_reads_what_devices_made_in_host_memory() {
    let mut bench = Bench::new(small());
    announce(&mut bench, READER, Memory::Host);
    let wanted = bench.assign_as(1, FIRST, READER, &[from(PEER, part(50), 10)]);
    let to_host = |action: &Action| {
        matches!(
            action,
            Action::Fetch {
                memory: Memory::Host,
                ..
            }
        )
    };
    assert!(wanted.iter().any(to_host), "{wanted:?}");
    assert!(starts(&bench.fetched(part(50), PEER, 10), 1));
}

#[test]
fn a_task_that_runs_out_of_device_memory_has_the_device_then_works_in_halves_and_then_fails() {
    let mut bench = bench(100);
    make(&mut bench, 1, 30);
    make(&mut bench, 2, 30);
    let started = bench.assign_as(5, FIRST, DEVICE, &[from(common::SELF, part(2), 30)]);
    assert_eq!(halved(&started), Some(false));

    let again = out_of_memory(&mut bench, 5);
    assert_eq!(
        moves(&again),
        [(part(1), Tier::PinnedHost)],
        "all but its own"
    );
    assert_eq!(halved(&again), None, "not before it is gone");
    let emptied = bench.spilled(part(1), 30);
    assert_eq!(halved(&emptied), Some(false));
    let said = |actions: &[Action]| {
        let started = |message: &&&WorkerMessage| matches!(message, WorkerMessage::Started { .. });
        messages(actions).iter().filter(started).count()
    };
    assert_eq!(
        (said(&started), said(&emptied)),
        (1, 0),
        "one attempt, told once"
    );

    let halves = out_of_memory(&mut bench, 5);
    assert_eq!(halved(&halves), Some(true));
    let (kind, message) = failure(&out_of_memory(&mut bench, 5), 5).expect("failed");
    assert_eq!(
        (kind, message.as_str()),
        (TaskErrorKind::OutOfMemory, "no room")
    );
}

#[test]
fn a_task_that_waits_for_more_device_memory_can_be_cancelled() {
    let mut bench = bench(100);
    make(&mut bench, 1, 30);
    bench.assign_as(5, FIRST, DEVICE, &[]);
    assert_eq!(halved(&out_of_memory(&mut bench, 5)), None);
    let cancelled = bench.cancel(5);
    let told = |message: &&WorkerMessage| matches!(message, WorkerMessage::Cancelled { .. });
    assert!(messages(&cancelled).iter().any(told));
    bench.spilled(part(1), 30);
    assert!(starts(&bench.assign_as(6, FIRST, DEVICE, &[]), 6));
}

#[test]
fn a_task_that_runs_out_of_device_memory_while_nobody_knows_of_it_is_not_started_again() {
    let mut bench = bench(100);
    bench.assign_as(5, FIRST, DEVICE, &[]);
    bench.input(Input::Disconnected);
    assert_eq!(halved(&out_of_memory(&mut bench, 5)), None, "its layer is");

    bench.input(Input::Connected {
        worker: common::SELF,
    });
    assert!(bench.worker.is_idle());
}

#[test]
fn a_device_is_emptied_for_a_task_and_filled_for_the_next_one_after_that() {
    let mut bench = bench(100);
    let said = make(&mut bench, 1, 60);
    carry_out(&mut bench, said, |_, _| false);
    let said = make(&mut bench, 2, 50);
    carry_out(&mut bench, said, |_, _| false);
    assert_eq!(bench.tier(part(1)), Some(Tier::PinnedHost));
    assert!(starts(&bench.assign_as(6, FIRST, DEVICE, &[]), 6));
    // What goes before it in the queue waits for two partitions, of which only one is here.
    let inputs = [from(common::SELF, part(1), 60), from(PEER, part(50), 10)];
    let mut said = bench.assign_as(5, FIRST, DEVICE, &inputs);
    said.extend(out_of_memory(&mut bench, 6));
    let said = carry_out(&mut bench, said, |_, _| false);
    assert_eq!(halved(&said), Some(false));
    assert_eq!(used(&bench, Tier::Device), 0, "nor filled meanwhile");
    let said = bench.done(6, &[10]);
    carry_out(&mut bench, said, |_, _| false);
    assert_eq!(bench.tier(part(1)), Some(Tier::Device));
}

/// Carries out every move, and all that follow, but those that are refused. Returns all that was said.
fn carry_out(
    bench: &mut Bench,
    actions: Vec<Action>,
    is_refused: impl Fn(PartitionId, Tier) -> bool,
) -> Vec<Action> {
    let mut said = actions;
    let mut at = 0;
    while let Some(action) = said.get(at).cloned() {
        at += 1;
        let (partition, to, is_spill) = match action {
            Action::Spill { partition, to } => (partition, to, true),
            Action::Load { partition, to } => (partition, to, false),
            _ => continue,
        };
        let reason = "no room in one piece".to_owned();
        let input = match (is_spill, is_refused(partition, to)) {
            (true, false) => Input::Spilled {
                partition,
                bytes: 45,
            },
            (true, true) => Input::SpillFailed { partition, reason },
            (false, false) => Input::Loaded { partition },
            (false, true) => Input::LoadFailed {
                partition,
                is_lost: false,
                reason,
            },
        };
        said.extend(bench.input(input));
        assert!(said.len() < 10_000, "it never ends");
    }
    said
}

/// Three partitions of 45 B, of which neither device nor page-locked memory can hold more than two.
fn three(bench: &mut Bench) {
    for index in 1..=3 {
        let said = make(bench, index, 45);
        carry_out(bench, said, |_, _| false);
    }
}

#[test]
fn inputs_that_no_device_can_hold_together_are_an_error_that_says_what_to_do() {
    let mut bench = bench(100);
    three(&mut bench);
    let inputs = [1, 2, 3].map(|index| from(common::SELF, part(index), 45));
    let said = bench.assign_as(5, FIRST, DEVICE, &inputs);
    let said = carry_out(&mut bench, said, |_, _| false);
    let (kind, message) = failure(&said, 5).expect("failed");
    assert_eq!(kind, TaskErrorKind::OutOfMemory);
    assert!(
        message.contains("device memory") && message.contains("--gpu-memory"),
        "{message}"
    );
}

#[test]
fn partitions_change_places_where_neither_memory_has_room_for_one_more() {
    let settings = [45, 60, 90, 100].map(|bytes| [(bytes, false), (bytes, true)]);
    for (pinned_bytes, has_direct_storage) in settings.into_iter().flatten().chain([(0, true)]) {
        let mut bench = bench(pinned_bytes);
        if has_direct_storage {
            bench.input(Input::HasDirectStorage);
        }
        three(&mut bench);
        for round in 0..4 {
            for index in 1..=3 {
                let reader = 10 + round * 3 + index;
                let inputs = [from(common::SELF, part(index), 45)];
                let said = bench.assign_as(reader, FIRST, DEVICE, &inputs);
                let said = carry_out(&mut bench, said, |_, _| false);
                assert!(starts(&said, reader), "{pinned_bytes} B: {said:?}");
                let said = bench.done(reader, &[0]);
                carry_out(&mut bench, said, |_, _| false);
            }
        }
    }
}

#[test]
fn what_the_next_task_reads_does_not_go_back_to_disk_for_what_is_merely_too_much() {
    let mut bench = bench_of(Config {
        spill_above_percent: 0,
        disk_bytes: 50,
        ..config(100)
    });
    // The disk has room for the first, page-locked memory for the second beside it, and neither of them for the third.
    for (index, bytes, tier) in [
        (1, 35, Tier::Disk),
        (2, 60, Tier::PinnedHost),
        (3, 55, Tier::Device),
    ] {
        let said = make(&mut bench, index, bytes);
        carry_out(&mut bench, said, |_, _| false);
        assert_eq!(bench.tier(part(index)), Some(tier));
    }
    let said = bench.assign_as(5, FIRST, DEVICE, &[from(common::SELF, part(1), 35)]);
    let said = carry_out(&mut bench, said, |_, _| false);
    assert!(starts(&said, 5));
    assert_eq!(
        moves(&said),
        [(part(1), Tier::PinnedHost), (part(1), Tier::Device)]
    );
}

#[test]
fn a_partition_that_does_not_get_to_the_device_is_tried_again_and_then_an_error() {
    let mut bench = bench(200);
    three(&mut bench);
    let away = bench.worker.holds().into_iter();
    let mut away = away.filter(|(_, tier)| *tier == Tier::PinnedHost);
    let (away, _) = away.next().expect("one");
    let inputs = [from(common::SELF, away, 45)];
    let mut said = bench.assign_as(5, FIRST, DEVICE, &inputs);
    let mut tries = 0;
    let failed = loop {
        let done = carry_out(&mut bench, said, |it, to| (it, to) == (away, Tier::Device));
        tries += moves(&done)
            .iter()
            .filter(|it| **it == (away, Tier::Device))
            .count();
        assert_eq!(bench.tier(away), Some(Tier::PinnedHost), "unharmed");
        if let Some(failed) = failure(&done, 5) {
            break failed;
        }
        assert!(bench.now.micros < 60_000_000, "it never ends");
        said = bench.pass_millis(50);
    };
    assert!((3..20).contains(&tries), "{tries}");
    assert_eq!(failed.0, TaskErrorKind::OutOfMemory);
    assert!(failed.1.contains("no room in one piece"), "{failed:?}");
}

#[test]
fn page_locked_memory_that_refuses_is_left_alone_for_a_while() {
    let mut bench = bench(100);
    make(&mut bench, 1, 60);
    assert_eq!(
        moves(&make(&mut bench, 2, 50)),
        [(part(1), Tier::PinnedHost)]
    );
    assert_eq!(moves(&bench.spill_failed(part(1))), [], "not at once");
    assert_eq!(bench.tier(part(1)), Some(Tier::Device));
    assert_eq!(
        moves(&bench.pass_millis(1_100)),
        [(part(1), Tier::PinnedHost)]
    );
}

#[test]
fn what_page_locked_memory_can_never_hold_stays_on_the_device() {
    let mut bench = bench(40);
    make(&mut bench, 1, 50);
    assert_eq!(
        moves(&make(&mut bench, 2, 35)),
        [(part(2), Tier::PinnedHost)]
    );
}

#[test]
fn page_locked_memory_that_is_refused_costs_one_task_for_each_attempt() {
    let mut bench = bench(100);
    make(&mut bench, 1, 60);
    // Each needs room that only page-locked memory can give.
    let mut said = Vec::new();
    for index in 2..=5 {
        let input = from(PEER, part(100 + index), 50);
        said.extend(bench.assign_as(index, FIRST, DEVICE, &[input]));
    }
    for attempt in 0..12 {
        said = carry_out(&mut bench, said, |_, to| to == Tier::PinnedHost);
        let failed = messages(&said).into_iter();
        let failed = failed.filter(|it| matches!(it, WorkerMessage::Failed { .. }));
        assert!(failed.count() <= 1, "at attempt {attempt}: {said:?}");
        said = bench.pass_millis(101);
    }
}

#[test]
fn something_smaller_leaves_the_device_where_the_first_to_go_finds_no_room_below() {
    let mut bench = bench_of(Config {
        spill_above_percent: 100,
        disk_bytes: 0,
        ..config(60)
    });
    make(&mut bench, 1, 30);
    let said = make(&mut bench, 2, 75);
    carry_out(&mut bench, said, |_, _| false);
    assert_eq!(bench.tier(part(1)), Some(Tier::PinnedHost));
    bench.release(2);
    make(&mut bench, 3, 45);
    make(&mut bench, 4, 20);
    let said = bench.assign_as(5, FIRST, DEVICE, &[from(PEER, part(50), 50)]);
    assert_eq!(moves(&said), [(part(4), Tier::PinnedHost)], "{said:?}");
    let room = bench.spilled(part(4), 20);
    assert_eq!(fetches(&room), [(part(50), PEER)]);
}

#[test]
fn inputs_in_host_memory_are_fetched_while_a_device_is_left_to_one_task() {
    let mut bench = bench_of(Config {
        resources: Resources::slots(2).with(Resources::GPU, 1),
        ..config(100)
    });
    make(&mut bench, 1, 30);
    assert!(starts(&bench.assign_as(5, FIRST, DEVICE, &[]), 5));
    let said = out_of_memory(&mut bench, 5);
    // Of the two that come behind it one reads on the device.
    let said = {
        let mut behind = said;
        behind.extend(bench.assign_as(6, FIRST, DEVICE, &[from(PEER, part(50), 10)]));
        behind.extend(bench.assign(7, &[from(PEER, part(51), 10)]));
        behind
    };
    assert_eq!(fetches(&said), [(part(51), PEER)], "while it is emptied");
    let said = carry_out(&mut bench, said, |_, _| false);
    assert_eq!(halved(&said), Some(false));
    let said = bench.assign(8, &[from(PEER, part(52), 10)]);
    assert_eq!(fetches(&said), [(part(52), PEER)], "while the task runs");
    assert_eq!(fetches(&bench.done(5, &[10])), [(part(50), PEER)]);
}

/// A task that waits without its slot reads 60 of the device's 100 B, and another is to read so many more.
fn beside_one_that_waits(bytes: u64) -> Vec<Action> {
    let mut bench = bench(100);
    make(&mut bench, 1, 60);
    let said = bench.assign_as(5, FIRST, DEVICE, &[from(common::SELF, part(1), 60)]);
    assert!(starts(&said, 5));
    common::secede(&mut bench, 5);
    bench.assign_as(6, FIRST, DEVICE, &[from(PEER, part(50), bytes)])
}

#[test]
fn what_a_task_without_its_slot_leaves_no_room_for_is_given_back_and_does_not_fail() {
    let said = beside_one_that_waits(50);
    let (task, by, attempt) = (task(6), task(5), FIRST);
    let held_up = WorkerMessage::HeldUp { task, attempt, by };
    assert!(messages(&said).contains(&&held_up), "{said:?}");
    assert_eq!(failure(&said, 6), None);
}

#[test]
fn what_does_not_fit_a_device_even_alone_waits_for_nobody() {
    let (kind, _) = failure(&beside_one_that_waits(101), 6).expect("failed");
    assert_eq!(kind, TaskErrorKind::OutOfMemory);
}
