//! What leaves memory, when, and what happens when nothing can: eviction, spilling, overcommitment, full disks.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use common::{
    Bench, PEER, SELF, drops, events, failure, fetches, from, loads, messages, output, part,
    says_missing, shared, small, spills, starts,
};
use transload_protocol::{Event, Resources, TaskErrorKind, Tier};
use transload_worker::{Action, Config};

fn spilled_in(actions: &[Action]) -> Vec<u32> {
    let spill = |action: &Action| match action {
        Action::Spill { partition, .. } => Some(partition.task.index),
        _ => None,
    };
    actions.iter().filter_map(spill).collect()
}

#[test]
fn outputs_above_the_threshold_are_spilled_and_told() {
    let mut bench = Bench::new(small());
    assert_eq!(spilled_in(&bench.make(1, &[70])), []);
    assert_eq!(spilled_in(&bench.make(2, &[1])), [1], "the largest");
    assert_eq!(bench.tier(part(1)), Some(Tier::Host), "until it is written");
    bench.pass_millis(7);
    bench.spilled(part(1), 72);
    assert_eq!(bench.tier(part(1)), Some(Tier::Disk));
    assert_eq!((bench.memory_used(), bench.disk_used()), (1, 72));
    let moved = Event::PartitionMoved {
        partition: part(1),
        worker: SELF,
        from: Tier::Host,
        to: Tier::Disk,
        bytes: 72,
        micros: 7_000,
    };
    assert_eq!(events(&bench.pass_millis(500)), [moved]);
}

#[test]
fn no_more_is_spilled_than_brings_memory_below_the_threshold() {
    let mut bench = Bench::new(small());
    for index in 1..=3 {
        bench.make(index, &[20]);
    }
    assert_eq!(spilled_in(&bench.make(4, &[20])).len(), 1);
    assert_eq!(spilled_in(&bench.pass_millis(10)).len(), 0);
}

#[test]
fn disk_operations_in_flight_are_limited() {
    let mut config = small();
    config.disk_operations_in_flight = 1;
    let mut bench = Bench::new(config);
    let made = bench.make(1, &[60, 60, 60]);
    assert_eq!(spilled_in(&made).len(), 1);
    assert_eq!(spilled_in(&bench.spilled(output(1, 2), 60)).len(), 1);
}

#[test]
fn a_load_waits_when_making_room_for_it_took_the_disk() {
    let mut config = small();
    config.disk_operations_in_flight = 1;
    let mut bench = Bench::new(config);
    bench.make_on_disk(1, 80);
    bench.make(2, &[40]);
    let head = bench.assign(3, &[from(SELF, part(1), 80)]);
    assert_eq!(spilled_in(&head), [2]);
    assert!(!loads(&head, part(1)));
    assert!(loads(&bench.spilled(part(2), 40), part(1)));
}

#[test]
fn a_kept_copy_that_nobody_reads_goes_first_and_free() {
    let mut bench = Bench::new(small());
    bench.assign(1, &[shared(PEER, part(50), 40)]);
    bench.fetched(part(50), PEER, 40);
    let done = bench.done(1, &[40]);
    assert!(drops(&done, part(50)) && !spills(&done, part(1)));
}

#[test]
fn what_no_queued_task_reads_goes_before_what_one_reads_and_the_latest_reader_goes_first() {
    let mut bench = Bench::new(small());
    for index in 1..=3 {
        bench.make(index, &[20]);
    }
    bench.assign(4, &[]);
    bench.assign(11, &[from(SELF, part(1), 20)]);
    bench.assign(12, &[from(SELF, part(3), 20)]);
    // Task 5 is the head and wants 70 of 100 B: 40 of the 60 B in the way have to go.
    let head = bench.assign(5, &[from(PEER, part(50), 70)]);
    assert_eq!(spilled_in(&head), [2, 3]);
}

#[test]
fn a_copy_that_can_be_fetched_again_is_dropped_instead_of_spilled() {
    let mut bench = Bench::new(small());
    bench.assign(1, &[]);
    bench.assign(2, &[]);
    bench.assign(3, &[from(PEER, part(50), 40)]);
    bench.fetched(part(50), PEER, 40);
    let done = bench.done(1, &[60]);
    assert_eq!(spilled_in(&done), [1], "nobody reads it");
    bench.spilled(part(1), 60);
    let done = bench.done(2, &[60]);
    assert_eq!(spilled_in(&done), [2], "task 3 is running now");

    let mut bench = Bench::new(small());
    bench.assign(1, &[]);
    bench.assign(3, &[from(PEER, part(50), 40)]);
    bench.fetched(part(50), PEER, 40);
    let urgent = bench.assign(2, &[from(PEER, part(51), 80)]);
    assert!(drops(&urgent, part(50)), "task 2 comes before task 3");
    assert_eq!(fetches(&urgent), [(part(51), PEER)]);
    bench.fetched(part(51), PEER, 80);
    assert!(starts(&bench.done(1, &[]), 2));
    assert_eq!(fetches(&bench.done(2, &[])), [(part(50), PEER)], "again");
}

#[test]
fn a_copy_whose_holder_is_lost_is_spilled_like_an_output() {
    let mut bench = Bench::new(small());
    bench.assign(1, &[]);
    bench.assign(3, &[from(PEER, part(50), 40)]);
    bench.fetched(part(50), PEER, 40);
    bench.peer_lost(PEER);
    let urgent = bench.assign(2, &[from(common::OTHER, part(51), 80)]);
    assert_eq!(spilled_in(&urgent), [50]);
    let spilled = bench.spilled(part(50), 40);
    assert_eq!(fetches(&spilled), [(part(51), common::OTHER)]);
    bench.fetched(part(51), common::OTHER, 80);
    bench.done(1, &[]);
    assert!(loads(&bench.done(2, &[]), part(50)));
    assert!(starts(&bench.loaded(part(50)), 3));
    assert!(drops(&bench.done(3, &[]), part(50)));
}

#[test]
fn inputs_of_running_tasks_and_of_the_next_one_are_never_evicted() {
    let mut bench = Bench::new(small());
    bench.make(1, &[30]);
    bench.make(2, &[30]);
    assert!(starts(&bench.assign(3, &[from(SELF, part(1), 30)]), 3));
    bench.assign(4, &[from(SELF, part(2), 30)]);
    let done = bench.done(3, &[35]);
    assert!(starts(&done, 4));
    assert!(!spills(&done, part(2)));
    assert_eq!(spilled_in(&done), [3]);
}

#[test]
fn a_spilled_input_is_loaded_when_room_was_made() {
    let mut bench = Bench::new(small());
    bench.make_on_disk(1, 80);
    bench.make(2, &[60]);
    let asked = bench.assign(3, &[from(SELF, part(1), 80)]);
    assert!(spills(&asked, part(2)) && !loads(&asked, part(1)));
    let spilled = bench.spilled(part(2), 60);
    assert!(loads(&spilled, part(1)));
    let loaded = bench.loaded(part(1));
    assert!(starts(&loaded, 3));
    assert_eq!(bench.tier(part(1)), Some(Tier::Host));
    assert!(matches!(
        events(&loaded).last(),
        Some(Event::PartitionMoved {
            to: Tier::Host,
            bytes: 80,
            ..
        })
    ));
    assert_eq!(bench.disk_used(), 60);
}

#[test]
fn a_task_whose_inputs_exceed_all_memory_runs_alone() {
    let mut bench = Bench::new(Config::new(Resources::slots(4), 100));
    bench.make(1, &[60]);
    bench.assign(2, &[]);
    let inputs = [from(PEER, part(50), 90), from(PEER, part(51), 90)];
    let asked = bench.assign(3, &inputs);
    assert_eq!(spilled_in(&asked), [1]);
    bench.assign(4, &[]);
    assert_eq!(fetches(&bench.spilled(part(1), 60)), [(part(50), PEER)]);
    assert_eq!(
        fetches(&bench.fetched(part(50), PEER, 90)),
        [],
        "2 and 4 still run"
    );
    let held_back = bench.assign(5, &[]);
    assert!(!starts(&held_back, 5), "or task 3 would wait for ever");
    bench.done(2, &[]);
    assert_eq!(fetches(&bench.done(4, &[])), [(part(51), PEER)]);
    assert!(!starts(&bench.assign(6, &[]), 6));
    let arrived = bench.fetched(part(51), PEER, 90);
    assert!(starts(&arrived, 3) && !starts(&arrived, 5));
    assert_eq!(bench.memory_used(), 180);
    let done = bench.done(3, &[1]);
    assert!(starts(&done, 5) && starts(&done, 6));
}

#[test]
fn no_task_starts_while_memory_is_overfull_and_being_relieved() {
    let mut bench = Bench::new(Config::new(Resources::slots(1), 100));
    bench.assign(1, &[]);
    bench.assign(2, &[]);
    let done = bench.done(1, &[150]);
    assert!(spills(&done, part(1)) && !starts(&done, 2));
    assert!(starts(&bench.spilled(part(1), 150), 2));
}

#[test]
fn a_full_disk_fails_the_task_that_needs_memory_and_nothing_else() {
    let mut bench = Bench::new(small());
    bench.make(1, &[80]);
    bench.spill_failed(part(1));
    assert_eq!(bench.tier(part(1)), Some(Tier::Host), "unharmed");
    let refused = bench.assign(2, &[from(PEER, part(50), 50)]);
    let (kind, text) = failure(&refused, 2).unwrap();
    assert_eq!(kind, TaskErrorKind::SpillFailed);
    assert!(text.contains("no space left on device"), "{text}");
    assert!(text.contains("80 of 100 B"), "{text}");
    let small = bench.assign(3, &[from(SELF, part(1), 80)]);
    assert!(starts(&small, 3), "it needs no more memory");
}

#[test]
fn a_refused_spill_is_tried_again_after_a_pause_and_one_task_fails_each_time() {
    let mut bench = Bench::new(small());
    bench.make(1, &[80]);
    bench.spill_failed(part(1));
    assert!(failure(&bench.assign(2, &[from(PEER, part(50), 50)]), 2).is_some());
    let next = bench.assign(3, &[from(PEER, part(50), 50)]);
    assert_eq!((messages(&next).len(), spilled_in(&next)), (0, vec![]));
    for _ in 0..9 {
        assert_eq!(spilled_in(&bench.pass_millis(100)), []);
    }
    assert_eq!(spilled_in(&bench.pass_millis(100)), [1]);
    assert!(failure(&bench.spill_failed(part(1)), 3).is_some());
    bench.assign(4, &[from(PEER, part(50), 50)]);
    assert_eq!(spilled_in(&bench.pass_millis(1_000)), [1]);
    assert_eq!(
        fetches(&bench.spilled(part(1), 80)),
        [(part(50), PEER)],
        "it worked"
    );
}

#[test]
fn the_limit_on_disk_is_kept_and_named() {
    let mut config = small();
    config.disk_bytes = 100;
    let mut bench = Bench::new(config);
    bench.make_on_disk(1, 80);
    assert_eq!(spilled_in(&bench.make(2, &[80])), []);
    let refused = bench.assign(3, &[from(PEER, part(50), 50)]);
    let (kind, text) = failure(&refused, 3).unwrap();
    assert_eq!(kind, TaskErrorKind::SpillFailed);
    assert!(text.contains("80 B of the 100 B"), "{text}");
    assert_eq!(spilled_in(&bench.release(1)), [2], "room again, at once");
}

#[test]
fn a_task_without_inputs_does_not_start_into_memory_that_cannot_be_freed() {
    let mut bench = Bench::new(small());
    bench.make(1, &[120]);
    bench.spill_failed(part(1));
    let (kind, _) = failure(&bench.assign(2, &[]), 2).unwrap();
    assert_eq!(kind, TaskErrorKind::SpillFailed);
    assert!(starts(&bench.assign(3, &[from(SELF, part(1), 120)]), 3));
}

#[test]
fn a_full_disk_waits_for_running_tasks_before_it_fails_one() {
    let mut bench = Bench::new(Config::new(Resources::slots(2), 100));
    bench.assign(1, &[from(PEER, part(50), 60)]);
    bench.fetched(part(50), PEER, 60);
    bench.make(2, &[20]);
    bench.spill_failed(part(2));
    let waits = bench.assign(3, &[from(PEER, part(51), 50)]);
    assert_eq!(messages(&waits).len(), 0);
    assert_eq!(fetches(&bench.done(1, &[])), [(part(51), PEER)]);
}

#[test]
fn a_partition_released_while_it_moves_is_dropped_when_it_has_arrived() {
    let mut bench = Bench::new(small());
    assert!(spills(&bench.make(1, &[80]), part(1)));
    assert_eq!(bench.release(1), []);
    assert!(drops(&bench.spilled(part(1), 80), part(1)));
    assert!(spills(&bench.make(2, &[80]), part(2)));
    bench.release(2);
    assert!(drops(&bench.spill_failed(part(2)), part(2)));

    bench.pass_millis(2_000);
    bench.make_on_disk(3, 80);
    assert!(loads(&bench.assign(4, &[from(SELF, part(3), 80)]), part(3)));
    assert!(says_missing(&bench.release(3), 4, &[(part(3), SELF)]));
    assert!(drops(&bench.loaded(part(3)), part(3)));
    assert_eq!((bench.memory_used(), bench.disk_used()), (0, 0));
}

#[test]
fn empty_partitions_are_never_spilled() {
    let mut bench = Bench::new(Config::new(Resources::slots(1), 0));
    assert_eq!(spilled_in(&bench.make(1, &[0, 0])), []);
    assert!(starts(&bench.assign(2, &[from(SELF, part(1), 0)]), 2));
}
