//! Members of gangs: nobody takes their slots while they fetch, and none of them waits for a slot or for memory.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use common::{
    Bench, FIRST, GRAPH, PEER, SELF, failure, fetches, from, messages, part, rejoin, resumes,
    secede, small, spills, starts, task,
};
use transload_protocol::{
    Arguments, Attempt, InputSpec, LayerIndex, LayerSpec, Memory, OutputSizes, Resources,
    SchedulerToWorker, TaskAssignment, WorkerMessage,
};
use transload_worker::{Action, Config, Input};

/// The layer whose tasks are members of a gang, one slot each.
const GANG: u32 = 7;

fn bench(config: Config) -> Bench {
    with_members_of(1, config)
}

fn with_members_of(slots: u32, config: Config) -> Bench {
    let mut bench = Bench::new(config);
    let spec = LayerSpec {
        name: "gang".to_owned(),
        operator: "op".to_owned(),
        arguments: Arguments::default(),
        first_task: 0,
        outputs: 1,
        inputs: vec![InputSpec::Listed],
        resources: Resources::slots(slots),
        fused: None,
        gang: true,
        memory: Memory::Host,
        input_memory: Vec::new(),
    };
    bench.send(SchedulerToWorker::Layer {
        graph: GRAPH,
        layer: LayerIndex(GANG),
        spec: spec.into(),
    });
    bench
}

fn of_slots(slots: u32) -> Config {
    Config::new(Resources::slots(slots), 100)
}

#[test]
fn a_member_that_fetches_keeps_its_slot_from_others() {
    let mut bench = bench(small());
    let input = part(50);
    let assigned = bench.assign_as(1, FIRST, GANG, &[from(PEER, input, 10)]);
    assert_eq!(fetches(&assigned), [(input, PEER)]);
    let other = bench.assign(2, &[]);
    assert!(!starts(&other, 2), "the slot is the member's: {other:?}");
    let here = bench.fetched(input, PEER, 10);
    assert!(starts(&here, 1) && !starts(&here, 2));
    assert!(starts(&bench.done(1, &[10]), 2));
}

#[test]
fn a_member_that_is_cancelled_while_it_fetches_gives_its_slot_to_the_next() {
    let mut bench = bench(small());
    bench.assign_as(1, FIRST, GANG, &[from(PEER, part(50), 10)]);
    bench.assign(2, &[]);
    assert!(starts(&bench.cancel(1), 2));
}

#[test]
fn a_member_that_comes_back_goes_on_at_once_and_nobody_else_starts_before_there_is_room() {
    let mut bench = bench(small());
    bench.assign_as(1, FIRST, GANG, &[]);
    secede(&mut bench, 1);
    bench.assign(2, &[]);
    bench.assign(3, &[]);
    let back = rejoin(&mut bench, 1);
    assert!(resumes(&back, 1), "its gang may wait for it: {back:?}");
    let done = bench.done(2, &[]);
    assert!(!starts(&done, 3), "the free slot is the member's: {done:?}");
    assert!(starts(&bench.done(1, &[10]), 3));
}

#[test]
fn a_member_whose_slot_went_back_to_another_at_the_last_moment_starts_all_the_same() {
    let mut bench = bench(small());
    bench.assign(5, &[]);
    secede(&mut bench, 5);
    rejoin(&mut bench, 5);
    // The scheduler had not heard of it.
    assert!(starts(&bench.assign_as(1, FIRST, GANG, &[]), 1));
    bench.done(5, &[]);
    assert!(
        !starts(&bench.assign(6, &[]), 6),
        "the slot is the member's"
    );
    assert!(starts(&bench.done(1, &[10]), 6));
}

#[test]
fn a_member_gets_memory_that_a_running_one_holds_the_rest_of() {
    let mut bench = bench(of_slots(2));
    let (first, second) = (part(50), part(51));
    bench.assign_as(1, FIRST, GANG, &[from(PEER, first, 80)]);
    assert!(starts(&bench.fetched(first, PEER, 80), 1));
    // Beside it there is no room, and it may wait for its sibling.
    let assigned = bench.assign_as(2, FIRST, GANG, &[from(PEER, second, 80)]);
    assert_eq!(fetches(&assigned), [(second, PEER)]);
    assert!(starts(&bench.fetched(second, PEER, 80), 2));
}

#[test]
fn an_ordinary_task_waits_for_memory_until_a_running_member_is_done() {
    let mut bench = bench(of_slots(2));
    let (first, second) = (part(50), part(51));
    bench.assign_as(1, FIRST, GANG, &[from(PEER, first, 80)]);
    bench.fetched(first, PEER, 80);
    assert!(fetches(&bench.assign(2, &[from(PEER, second, 80)])).is_empty());
    assert_eq!(fetches(&bench.done(1, &[0])), [(second, PEER)]);
}

#[test]
fn a_member_that_cannot_start_yet_leaves_its_slot_to_the_task_that_it_waits_for() {
    let mut bench = bench(small());
    bench.assign_as(1, FIRST, GANG, &[]);
    bench.done(1, &[10]);
    bench.assign(2, &[from(SELF, part(1), 10)]);
    secede(&mut bench, 2);
    // The gang is to run again, and what it made is still read here.
    bench.release(1);
    assert!(is_given_back(&bench.assign_as(1, Attempt(1), GANG, &[])));
    assert!(
        resumes(&rejoin(&mut bench, 2), 2),
        "else nobody would go on"
    );
    bench.done(2, &[]);
    assert!(starts(&bench.assign_as(1, Attempt(2), GANG, &[]), 1));
}

fn is_given_back(actions: &[Action]) -> bool {
    let held_up = WorkerMessage::HeldUp {
        task: task(1),
        attempt: Attempt(1),
        by: task(2),
    };
    messages(actions).contains(&&held_up)
}

#[test]
fn a_member_is_given_back_although_members_of_other_gangs_run_beside_it() {
    let mut bench = bench(of_slots(2));
    bench.assign_as(1, FIRST, GANG, &[]);
    bench.done(1, &[10]);
    bench.assign(2, &[from(SELF, part(1), 10)]);
    secede(&mut bench, 2);
    bench.release(1);
    // It may wait for others that are held up elsewhere.
    assert!(starts(&bench.assign_as(3, FIRST, GANG, &[]), 3));
    assert!(is_given_back(&bench.assign_as(1, Attempt(1), GANG, &[])));
}

#[test]
fn a_member_that_cannot_start_yet_leaves_its_slot_to_what_the_other_task_may_wait_for() {
    let mut bench = bench(small());
    bench.assign_as(1, FIRST, GANG, &[]);
    bench.done(1, &[10]);
    bench.assign(2, &[from(SELF, part(1), 10)]);
    secede(&mut bench, 2);
    bench.release(1);
    assert!(is_given_back(&bench.assign_as(1, Attempt(1), GANG, &[])));
    assert!(
        starts(&bench.assign(3, &[]), 3),
        "of its own graph, perhaps"
    );
}

#[test]
fn what_a_member_made_is_told_with_its_incarnation_after_a_broken_connection() {
    let mut bench = bench(of_slots(2));
    bench.assign_as(1, FIRST, GANG, &[]);
    bench.done(1, &[10]);
    bench.assign(2, &[]);
    bench.done(2, &[10]);
    bench.input(Input::Disconnected);
    let back = bench.input(Input::Connected {
        worker: common::SELF,
    });
    let inventory = messages(&back)
        .into_iter()
        .find_map(|message| match message {
            WorkerMessage::Inventory(inventory) => Some(inventory.clone()),
            _ => None,
        });
    let inventory = inventory.expect("told");
    let sizes = OutputSizes::of(&[10]);
    assert_eq!(inventory.stored, [(task(1), sizes), (task(2), sizes)]);
    assert_eq!(inventory.of_gangs, [(task(1), FIRST)]);
}

#[test]
fn a_member_that_fails_for_lack_of_disk_leaves_its_slot_to_the_task_that_waits_for_it() {
    let mut bench = bench(small());
    bench.assign(2, &[]);
    secede(&mut bench, 2);
    assert!(spills(&bench.make(5, &[120]), part(5)), "too much");
    assert!(!starts(&bench.assign_as(1, FIRST, GANG, &[]), 1));
    assert!(!resumes(&rejoin(&mut bench, 2), 2), "its slot is taken");
    let refused = bench.spill_failed(part(5));
    assert!(failure(&refused, 1).is_some(), "{refused:?}");
    assert!(resumes(&refused, 2), "{refused:?}");
}

#[test]
fn nobody_else_starts_on_what_a_member_lacks_that_starts_in_the_same_step() {
    let mut bench = with_members_of(2, of_slots(3));
    bench.assign_as(0, FIRST, 2, &[]);
    let given = |index, layer| TaskAssignment {
        task: task(index),
        attempt: FIRST,
        layer: LayerIndex(layer),
        order: u64::from(index),
        inputs: Vec::new(),
    };
    let both = bench.send(SchedulerToWorker::Assign {
        tasks: vec![given(1, GANG), given(2, 0)],
    });
    assert!(starts(&both, 1), "on two slots, of which one is free");
    assert!(!starts(&both, 2), "that one is the member's");
    assert!(starts(&bench.done(0, &[]), 2));
}
