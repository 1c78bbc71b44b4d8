//! Tasks that are started before a slot is free for them, because the ones before were short.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use common::{
    Bench, FIRST, messages, rejoin, resumes, says_cancelled, secede, small, starts, stops, task,
};
use transload_protocol::{Resources, Time, WorkerMessage};
use transload_worker::{Action, Config, Input};

/// A worker on which one task has run for so long.
fn after_a_task_of(micros: u64, config: Config) -> Bench {
    let mut bench = Bench::new(config);
    bench.assign(0, &[]);
    bench.now = bench.now.after_micros(micros);
    bench.done(0, &[]);
    bench
}

fn started(actions: &[Action]) -> usize {
    let is_start = |message: &&&WorkerMessage| matches!(message, WorkerMessage::Started { .. });
    messages(actions).iter().filter(is_start).count()
}

#[test]
fn short_tasks_go_ahead_of_their_slots_up_to_a_limit() {
    let mut bench = after_a_task_of(100, small());
    let ahead: usize = (1..100)
        .map(|index| started(&bench.assign(index, &[])))
        .sum();
    assert_eq!(ahead, 1 + 20, "one has the slot, and 2 ms wait for it");
    bench.now = bench.now.after_micros(100);
    assert_eq!(started(&bench.done(1, &[])), 1, "one for one");
}

#[test]
fn however_short_tasks_are_so_many_and_no_more_go_ahead() {
    let mut bench = after_a_task_of(1, small());
    let ahead: usize = (1..200)
        .map(|index| started(&bench.assign(index, &[])))
        .sum();
    assert_eq!(ahead, 1 + 128);
}

#[test]
fn ends_that_are_told_together_share_the_time_that_they_took() {
    let mut bench = after_a_task_of(20, small());
    for index in 1..11 {
        bench.assign(index, &[]);
    }
    bench.now = bench.now.after_micros(2_000);
    let ends: Vec<Input> = (1..11)
        .map(|index| Input::TaskDone {
            task: task(index),
            attempt: FIRST,
            bytes: vec![],
            rows: 0,
        })
        .collect();
    bench.inputs(ends);
    assert!(starts(&bench.assign(11, &[]), 11));
    assert!(starts(&bench.assign(12, &[]), 12), "each took 200 us");
}

#[test]
fn after_long_tasks_none_goes_ahead() {
    let mut bench = after_a_task_of(50_000, small());
    assert!(starts(&bench.assign(1, &[]), 1));
    assert!(!starts(&bench.assign(2, &[]), 2));
}

#[test]
fn one_long_task_after_short_ones_ends_it() {
    let mut bench = after_a_task_of(20, small());
    for index in 1..30 {
        bench.assign(index, &[]);
    }
    bench.now = bench.now.after_micros(1_000_000);
    assert_eq!(started(&bench.done(1, &[])), 0);
}

#[test]
fn tasks_side_by_side_are_not_taken_for_short_ones() {
    let mut bench = Bench::new(Config::new(Resources::slots(100), 100));
    for index in 0..200 {
        bench.assign(index, &[]);
    }
    // Each takes 20 ms, and one ends every 200 us.
    for index in 0..100 {
        bench.now = Time::from_micros(20_000 + u64::from(index) * 200);
        assert_eq!(started(&bench.done(index, &[])), 1, "task {index}");
    }
}

#[test]
fn a_wide_task_is_not_overtaken_on_the_way_to_the_slots() {
    let mut bench = after_a_task_of(20, Config::new(Resources::slots(2), 100));
    bench.assign(1, &[]);
    assert!(!starts(&bench.assign_as(2, FIRST, 2, &[]), 2));
    assert!(!starts(&bench.assign(3, &[]), 3), "task 2 needs both slots");
    bench.now = bench.now.after_micros(20);
    assert!(starts(&bench.done(1, &[]), 2));
}

#[test]
fn a_task_that_went_ahead_can_be_stopped() {
    let mut bench = after_a_task_of(20, small());
    for index in 1..4 {
        assert!(starts(&bench.assign(index, &[]), index));
    }
    assert!(stops(&bench.cancel(2), 2));
    assert!(says_cancelled(&bench.failed(2), 2));
    bench.done(1, &[]);
    bench.done(3, &[]);
    assert!(bench.worker.is_idle());
}

#[test]
fn none_goes_ahead_while_memory_is_short() {
    let mut bench = after_a_task_of(20, small());
    bench.assign(1, &[]);
    bench.now = bench.now.after_micros(20);
    bench.done(1, &[90]);
    assert!(starts(&bench.assign(2, &[]), 2), "its slot is free");
    assert!(!starts(&bench.assign(3, &[]), 3));
}

#[test]
fn a_task_that_got_the_turn_of_one_that_was_stopped_can_wait_without_its_slot() {
    let mut bench = after_a_task_of(100, small());
    for index in 1..5 {
        assert!(starts(&bench.assign(index, &[]), index));
    }
    assert!(stops(&bench.cancel(2), 2));
    bench.done(1, &[]);
    // The executor has passed over the one that was to be next, and its answer is still on its way.
    let waits = secede(&mut bench, 3);
    let seceded = WorkerMessage::Seceded {
        task: task(3),
        attempt: FIRST,
    };
    assert!(messages(&waits).contains(&&seceded), "{waits:?}");
    assert!(says_cancelled(&bench.failed(2), 2));
    // The next one occupies the slot now.
    assert!(!resumes(&rejoin(&mut bench, 3), 3));
    assert!(resumes(&bench.done(4, &[]), 3));
}
