//! Tasks that wait without their slot: what runs in their place, and when they get it back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use common::{
    Bench, FIRST, PEER, SELF, fetches, from, messages, part, rejoin, resumes, says_cancelled,
    secede, small, starts, stops, task,
};
use transload_protocol::{Attempt, Resources, WorkerMessage};
use transload_worker::{Action, Config, Input};

#[test]
fn what_waits_without_its_slot_goes_on_before_what_has_not_started() {
    let mut bench = Bench::new(small());
    bench.assign(5, &[]);
    bench.assign(6, &[]);
    bench.assign(0, &[]);
    let seceded = secede(&mut bench, 5);
    assert!(starts(&seceded, 0), "first in the queue: {seceded:?}");
    assert!(messages(&seceded).contains(&&WorkerMessage::Seceded {
        task: task(5),
        attempt: FIRST
    }));
    assert!(!resumes(&rejoin(&mut bench, 5), 5), "the slot is taken");
    let done = bench.done(0, &[]);
    assert!(resumes(&done, 5) && !starts(&done, 6));
    assert!(starts(&bench.done(5, &[]), 6));
}

#[test]
fn those_that_wait_for_their_slots_get_them_in_the_order_of_asking() {
    let mut bench = Bench::new(small());
    for index in 0..4 {
        bench.assign(index, &[]);
        if index < 3 {
            secede(&mut bench, index);
        }
    }
    for index in [1, 0, 2] {
        assert!(!resumes(&rejoin(&mut bench, index), index));
    }
    // It changes its mind, and asks again as the last.
    secede(&mut bench, 1);
    rejoin(&mut bench, 1);
    assert!(resumes(&bench.done(3, &[]), 0));
    assert!(resumes(&bench.done(0, &[]), 2));
    assert!(resumes(&bench.failed(2), 1));
}

#[test]
fn what_a_wide_task_waits_for_is_kept_for_it() {
    let mut bench = Bench::new(Config::new(Resources::slots(2), 100));
    bench.assign_as(0, FIRST, 2, &[]);
    secede(&mut bench, 0);
    bench.assign(1, &[]);
    bench.assign(2, &[]);
    rejoin(&mut bench, 0);
    assert!(!starts(&bench.assign(3, &[]), 3));
    let done = bench.done(1, &[]);
    assert!(!resumes(&done, 0) && !starts(&done, 3));
    assert!(resumes(&bench.done(2, &[]), 0));
}

#[test]
fn saying_so_twice_or_for_another_attempt_changes_nothing() {
    let mut bench = Bench::new(small());
    bench.assign(0, &[]);
    let asked = rejoin(&mut bench, 0);
    let resume = Action::Resume {
        task: task(0),
        attempt: FIRST,
    };
    assert_eq!(asked, [resume], "it has its slot, and nobody else hears");
    let of_another = bench.input(Input::Secede {
        task: task(0),
        attempt: Attempt(7),
    });
    assert_eq!(of_another, []);
    secede(&mut bench, 0);
    assert_eq!(secede(&mut bench, 0), []);
    assert_eq!(secede(&mut bench, 9), []);
    assert!(starts(&bench.assign(1, &[]), 1));
}

#[test]
fn a_task_that_waits_can_be_stopped_and_takes_no_slot_for_it() {
    let mut bench = Bench::new(small());
    bench.assign(0, &[]);
    secede(&mut bench, 0);
    bench.assign(1, &[]);
    rejoin(&mut bench, 0);
    bench.assign(2, &[]);
    assert!(stops(&bench.cancel(0), 0));
    let done = bench.done(1, &[]);
    assert!(!resumes(&done, 0) && starts(&done, 2));
    assert_eq!(rejoin(&mut bench, 0), []);
    assert!(says_cancelled(&bench.failed(0), 0));
}

#[test]
fn a_waiting_tasks_inputs_do_not_keep_others_out_of_memory_for_good() {
    let mut bench = Bench::new(small());
    bench.assign(0, &[from(PEER, part(50), 90)]);
    assert!(starts(&bench.fetched(part(50), PEER, 90), 0));
    secede(&mut bench, 0);
    // Nothing that runs will ever make room: what it waits for may be this task.
    let assigned = bench.assign(1, &[from(PEER, part(51), 80)]);
    assert_eq!(fetches(&assigned), [(part(51), PEER)]);
    assert!(starts(&bench.fetched(part(51), PEER, 80), 1));
    rejoin(&mut bench, 0);
    assert!(resumes(&bench.done(1, &[5]), 0));
    bench.done(0, &[5]);
}

/// A task without its slot reads the output of another, which is to run again meanwhile.
fn holding_up(config: Config) -> Bench {
    let mut bench = Bench::new(config);
    bench.make(5, &[10]);
    let reader = bench.assign(0, &[from(SELF, part(5), 10)]);
    assert!(starts(&reader, 0), "{reader:?}");
    secede(&mut bench, 0);
    bench
}

fn says_held_up(actions: &[Action], index: u32, attempt: Attempt) -> bool {
    let (task, by) = (task(index), task(0));
    messages(actions).contains(&&WorkerMessage::HeldUp { task, attempt, by })
}

#[test]
fn what_a_task_without_its_slot_holds_up_is_given_back() {
    let mut bench = holding_up(small());
    let again = bench.assign_as(5, Attempt(2), 0, &[]);
    assert!(says_held_up(&again, 5, Attempt(2)), "{again:?}");
    // It is gone from here, and comes again when there is nothing in its way.
    assert!(resumes(&rejoin(&mut bench, 0), 0));
    let done = bench.done(0, &[]);
    assert!(!starts(&done, 5), "{done:?}");
    assert!(starts(&bench.assign_as(5, Attempt(3), 0, &[]), 5));
}

#[test]
fn what_is_held_up_stays_as_long_as_something_works_beside_it() {
    let mut bench = holding_up(Config::new(Resources::slots(2), 100));
    bench.assign(1, &[]);
    let again = bench.assign_as(5, Attempt(2), 0, &[]);
    assert!(!says_held_up(&again, 5, Attempt(2)), "{again:?}");
    let done = bench.done(1, &[]);
    assert!(says_held_up(&done, 5, Attempt(2)), "{done:?}");
}

#[test]
fn a_task_whose_input_was_made_anew_while_another_reads_the_old_one_is_given_back() {
    let mut bench = holding_up(small());
    bench.release(5);
    let again = bench.assign_as(6, FIRST, 0, &[from(PEER, part(5), 10)]);
    assert!(says_held_up(&again, 6, FIRST), "{again:?}");
}
