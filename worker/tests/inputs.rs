//! How inputs of queued tasks come to memory: fetching, prefetching, retries, lost peers and lost partitions.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use common::{
    Bench, FIRST, OTHER, PEER, SELF, drops, events, fetches, from, loads, messages, output, part,
    says, says_missing, says_missing_for, shared, small, starts, task,
};
use transload_protocol::{
    Attempt, Demotion, Event, Memory, MissingCause, OutputSizes, Resources, WorkerId, WorkerMessage,
};
use transload_worker::{Action, Config, FetchFault, Given, Input};

#[test]
fn a_task_starts_once_its_remote_input_has_arrived() {
    let mut bench = Bench::new(small());
    let asked = bench.assign(1, &[from(PEER, part(50), 10)]);
    let fetch = Action::Fetch {
        partition: part(50),
        from: PEER,
        bytes: 10,
        memory: Memory::Host,
    };
    assert_eq!(asked, [fetch]);
    let arrived = bench.fetched(part(50), PEER, 10);
    assert!(starts(&arrived, 1));
}

#[test]
fn an_input_read_twice_is_fetched_once_and_passed_twice() {
    let mut bench = Bench::new(small());
    let twice = [from(PEER, part(50), 10), from(PEER, part(50), 10)];
    assert_eq!(fetches(&bench.assign(1, &twice)).len(), 1);
    let arrived = bench.fetched(part(50), PEER, 10);
    assert!(arrived.iter().any(|action| matches!(
        action,
        Action::Start { inputs, .. } if *inputs == [[Given::Held(part(50)); 2]]
    )));
    assert!(drops(&bench.done(1, &[1]), part(50)));
}

#[test]
fn an_input_without_bytes_is_neither_fetched_nor_waited_for() {
    let mut bench = Bench::new(small());
    bench.assign(0, &[]);
    // Of one the maker is unknown here, of the other it is queued.
    bench.assign(1, &[]);
    let empty = [from(PEER, part(50), 0), from(WorkerId(77), part(1), 0)];
    let assigned = bench.assign_as(2, FIRST, 0, &empty);
    assert_eq!(messages(&assigned), [] as [&WorkerMessage; 0]);
    bench.done(0, &[]);
    let started = bench.done(1, &[0]);
    assert!(started.iter().any(|action| matches!(
        action,
        Action::Start { inputs, .. } if *inputs == [[Given::Empty(part(50)), Given::Empty(part(1))]]
    )));
    assert!(!drops(&bench.done(2, &[]), part(50)), "it never was here");
}

#[test]
fn an_input_that_two_tasks_read_is_fetched_once() {
    let mut bench = Bench::new(Config::new(Resources::slots(2), 100));
    bench.assign(1, &[from(PEER, part(50), 10)]);
    assert_eq!(fetches(&bench.assign(2, &[from(OTHER, part(50), 10)])), []);
    let arrived = bench.fetched(part(50), PEER, 10);
    assert!(starts(&arrived, 1) && starts(&arrived, 2));
    assert!(!drops(&bench.done(1, &[]), part(50)), "the other runs on");
    assert!(drops(&bench.done(2, &[]), part(50)));
}

#[test]
fn inputs_of_queued_tasks_are_prefetched_while_another_task_runs() {
    let mut bench = Bench::new(small());
    bench.assign(1, &[]);
    let asked = bench.assign(2, &[from(PEER, part(50), 30)]);
    assert_eq!(fetches(&asked), [(part(50), PEER)]);
    bench.fetched(part(50), PEER, 30);
    assert!(starts(&bench.done(1, &[5]), 2));
}

#[test]
fn prefetching_for_tasks_behind_the_head_stops_at_the_spill_threshold() {
    let mut bench = Bench::new(small());
    bench.assign(1, &[]);
    bench.assign(2, &[from(PEER, part(50), 60)]);
    let behind = bench.assign(3, &[from(PEER, part(51), 20)]);
    assert_eq!(fetches(&behind), [], "60 + 20 exceeds 70");
    bench.fetched(part(50), PEER, 60);
    let ended = bench.done(1, &[]);
    assert!(starts(&ended, 2));
    assert_eq!(fetches(&ended), [(part(51), PEER)], "now it is the head");
}

#[test]
fn fetches_in_flight_are_limited_and_go_in_order_of_the_queue() {
    let mut config = small();
    config.fetches_in_flight = 2;
    let mut bench = Bench::new(config);
    bench.assign(0, &[]);
    let late = bench.assign(9, &[from(PEER, part(59), 1)]);
    assert_eq!(fetches(&late).len(), 1);
    let inputs: Vec<_> = (50..53).map(|input| from(PEER, part(input), 1)).collect();
    assert_eq!(fetches(&bench.assign(2, &inputs)), [(part(50), PEER)]);
    bench.assign(1, &[from(PEER, part(60), 1)]);
    let next = bench.fetched(part(50), PEER, 1);
    assert_eq!(fetches(&next), [(part(60), PEER)], "task 1 comes before 2");
    assert_eq!(
        fetches(&bench.fetched(part(60), PEER, 1)),
        [(part(51), PEER)]
    );
}

#[test]
fn fetches_are_spread_over_the_peers_that_hold_the_inputs() {
    let mut config = small();
    config.fetches_in_flight = 4;
    let mut bench = Bench::new(config);
    let inputs: Vec<_> = (50..60)
        .map(|input| from(if input < 55 { PEER } else { OTHER }, part(input), 1))
        .collect();
    let asked = fetches(&bench.assign(1, &inputs));
    let from_peer = asked.iter().filter(|(_, holder)| *holder == PEER).count();
    assert_eq!((asked.len(), from_peer), (4, 2));
}

#[test]
fn a_fetch_that_failed_is_tried_again_after_a_pause() {
    let mut bench = Bench::new(small());
    bench.assign(1, &[from(PEER, part(50), 10)]);
    let failed = bench.fetch_failed(part(50), PEER, FetchFault::Link);
    assert_eq!(failed, [], "not at once");
    let retry = bench.worker.next_deadline().unwrap();
    assert!(retry.micros < 100_000, "and not late");
    bench.now = retry;
    assert_eq!(fetches(&bench.pass_millis(0)), [(part(50), PEER)]);
    assert!(starts(&bench.fetched(part(50), PEER, 10), 1));
}

#[test]
fn a_task_is_given_back_when_the_attempts_to_fetch_its_input_are_used_up() {
    for fault in [FetchFault::Link, FetchFault::Other] {
        let mut bench = Bench::new(small());
        bench.assign(1, &[from(PEER, part(50), 10)]);
        bench.assign(2, &[from(PEER, part(50), 10)]);
        bench.fetch_failed(part(50), PEER, fault);
        bench.pass_millis(1_000);
        let given_back = bench.fetch_failed(part(50), PEER, fault);
        let reason = "broken".to_owned();
        let cause = match fault {
            FetchFault::Link => MissingCause::Unreached { reason },
            _ => MissingCause::Failed { reason },
        };
        for index in [1, 2] {
            let missing = [(part(50), PEER)];
            assert!(says_missing_for(
                &given_back,
                index,
                &missing,
                cause.clone()
            ));
        }
        assert!(bench.worker.is_idle());
    }
}

#[test]
fn a_partition_that_its_holder_no_longer_has_is_not_asked_for_again() {
    let mut bench = Bench::new(small());
    bench.assign(1, &[from(PEER, part(50), 10)]);
    let gone = bench.fetch_failed(part(50), PEER, FetchFault::Gone);
    assert!(says_missing(&gone, 1, &[(part(50), PEER)]));
}

#[test]
fn a_second_holder_is_asked_for_the_tasks_that_know_it() {
    let mut bench = Bench::new(small());
    bench.assign(1, &[from(PEER, part(50), 10)]);
    bench.assign(2, &[from(OTHER, part(50), 10)]);
    let gone = bench.fetch_failed(part(50), PEER, FetchFault::Gone);
    assert!(says_missing(&gone, 1, &[(part(50), PEER)]));
    assert_eq!(fetches(&gone), [(part(50), OTHER)]);
    assert!(starts(&bench.fetched(part(50), OTHER, 10), 2));
}

#[test]
fn a_lost_peer_fails_its_fetches_at_once() {
    let mut bench = Bench::new(small());
    bench.assign(1, &[from(PEER, part(50), 10), from(OTHER, part(51), 10)]);
    let lost = bench.peer_lost(PEER);
    assert_eq!(lost[0], Action::RemovePeer { worker: PEER });
    assert!(says_missing(&lost, 1, &[(part(50), PEER)]));
    assert!(!bench.worker.is_idle(), "the driver's answers are due");
    bench.fetch_failed(part(50), PEER, FetchFault::Link);
    let late = bench.fetched(part(51), OTHER, 10);
    assert!(drops(&late, part(51)), "nobody reads it any more");
    assert!(bench.worker.is_idle());
}

#[test]
fn a_task_whose_inputs_are_here_does_not_care_for_its_lost_holder() {
    let mut bench = Bench::new(small());
    bench.assign(0, &[]);
    bench.assign(1, &[from(PEER, part(50), 10)]);
    bench.fetched(part(50), PEER, 10);
    assert_eq!(messages(&bench.peer_lost(PEER)), [] as [&WorkerMessage; 0]);
    assert!(starts(&bench.done(0, &[]), 1));
}

#[test]
fn a_task_that_reads_from_an_unknown_or_lost_peer_is_given_back() {
    let mut bench = Bench::new(small());
    let stranger = WorkerId(77);
    let answer = bench.assign(1, &[from(stranger, part(50), 10)]);
    assert!(says_missing(&answer, 1, &[(part(50), stranger)]));
    bench.peer_lost(PEER);
    let answer = bench.assign(2, &[from(PEER, part(50), 10)]);
    assert!(says_missing(&answer, 2, &[(part(50), PEER)]));
}

#[test]
fn a_task_that_reads_here_what_is_not_here_is_given_back() {
    let mut bench = Bench::new(small());
    let answer = bench.assign(1, &[from(SELF, part(50), 10), from(PEER, part(51), 1)]);
    assert!(says_missing(&answer, 1, &[(part(50), SELF)]));
    assert!(bench.worker.is_idle());
}

#[test]
fn a_late_arrival_of_what_nobody_reads_is_dropped() {
    let mut bench = Bench::new(small());
    bench.assign(1, &[from(PEER, part(50), 10)]);
    bench.cancel(1);
    assert_eq!(bench.memory_used(), 10, "reserved until the answer");
    assert!(drops(&bench.fetched(part(50), PEER, 10), part(50)));
    assert!(drops(&bench.fetched(part(99), PEER, 10), part(99)));
    assert_eq!(bench.memory_used(), 0);
}

#[test]
fn a_fetch_that_became_needless_serves_the_next_task_that_reads_the_same() {
    let mut bench = Bench::new(small());
    bench.assign(1, &[from(PEER, part(50), 10)]);
    bench.cancel(1);
    assert_eq!(fetches(&bench.assign(2, &[from(PEER, part(50), 10)])), []);
    assert!(starts(&bench.fetched(part(50), PEER, 10), 2));
}

#[test]
fn a_copy_is_dropped_after_its_last_reader_and_a_shared_one_after_its_release() {
    let mut bench = Bench::new(small());
    bench.assign(1, &[from(PEER, part(50), 10), shared(PEER, part(51), 10)]);
    bench.fetched(part(50), PEER, 10);
    bench.fetched(part(51), PEER, 10);
    let done = bench.done(1, &[]);
    assert!(drops(&done, part(50)) && !drops(&done, part(51)));
    let again = bench.assign(2, &[shared(PEER, part(51), 10)]);
    assert!(starts(&again, 2), "it is still here");
    assert!(!drops(&bench.release(51), part(51)), "it is being read");
    assert!(drops(&bench.done(2, &[]), part(51)));
}

#[test]
fn an_output_that_cannot_be_read_back_is_reported_with_all_of_its_task() {
    let mut bench = Bench::new(small());
    bench.make(1, &[80, 5]);
    bench.spilled(output(1, 0), 80);
    bench.assign(0, &[]);
    let asked = bench.assign(2, &[from(SELF, output(1, 0), 80)]);
    assert!(loads(&asked, output(1, 0)));
    bench.assign(3, &[from(SELF, output(1, 1), 5)]);
    let lost = bench.load_failed(output(1, 0));
    let tasks = vec![task(1)];
    assert_eq!(messages(&lost)[0], &WorkerMessage::Lost { tasks });
    assert!(says_missing(&lost, 2, &[(output(1, 0), SELF)]));
    assert!(says_missing(&lost, 3, &[(output(1, 1), SELF)]));
    // It went to disk when the other one was to come back.
    assert!(drops(&bench.spilled(output(1, 1), 5), output(1, 1)));
    assert_eq!(bench.worker.holds(), []);
}

#[test]
fn an_unreadable_output_that_was_released_meanwhile_is_nobodys_loss() {
    let mut bench = Bench::new(small());
    bench.make_on_disk(1, 80);
    assert!(loads(&bench.assign(2, &[from(SELF, part(1), 80)]), part(1)));
    assert!(says_missing(&bench.release(1), 2, &[(part(1), SELF)]));
    assert_eq!(
        messages(&bench.load_failed(part(1))),
        [] as [&WorkerMessage; 0]
    );
    assert!(bench.worker.is_idle());
}

#[test]
fn an_arrival_is_told_before_the_end_of_the_task_that_needed_it() {
    let mut bench = Bench::new(small());
    bench.assign(1, &[from(PEER, part(50), 10)]);
    let arrived = bench.fetched(part(50), PEER, 10);
    let [
        Event::PartitionFetched {
            partition,
            from,
            to,
            bytes,
            micros,
            ..
        },
    ] = events(&arrived)[..]
    else {
        panic!("{arrived:?}");
    };
    assert_eq!(
        (partition, from, to, bytes, micros),
        (part(50), PEER, SELF, 10, 5)
    );
    let told = messages(&arrived);
    assert!(matches!(told[0], WorkerMessage::Events { .. }));
    assert!(matches!(told[1], WorkerMessage::Started { .. }));
}

#[test]
fn a_transport_that_is_not_used_is_told_with_the_partition_that_came_over_another() {
    let mut bench = Bench::new(small());
    bench.assign(1, &[from(PEER, part(50), 10)]);
    let demotion = Demotion {
        wanted: "ucx".to_owned(),
        reason: "it died".to_owned(),
        lasting: false,
    };
    let demoted = bench.input(Input::LinkDemoted {
        from: PEER,
        demotion: demotion.clone(),
        used: "tcp".to_owned(),
    });
    assert_eq!(demoted, []);
    let arrived = bench.fetched(part(50), PEER, 10);
    let told = events(&arrived);
    let expected = Event::LinkDemoted {
        from: PEER,
        to: SELF,
        demotion,
        used: "tcp".to_owned(),
    };
    assert_eq!(told[0], expected);
    assert!(matches!(told[1], Event::PartitionFetched { .. }));
}

#[test]
fn events_wait_for_the_next_message() {
    let mut bench = Bench::new(small());
    bench.assign(0, &[]);
    bench.assign(1, &[from(PEER, part(50), 10)]);
    assert_eq!(bench.fetched(part(50), PEER, 10), []);
    let done = bench.done(0, &[4]);
    assert_eq!(events(&done).len(), 1);
    let finished = WorkerMessage::Finished {
        task: task(0),
        attempt: FIRST,
        sizes: OutputSizes::of(&[4]),
        run_micros: 0,
    };
    assert!(says(&done, &finished));
    assert!(matches!(messages(&done)[0], WorkerMessage::Events { .. }));
}

#[test]
fn what_a_task_here_is_about_to_make_is_not_fetched_beside_it() {
    let mut bench = Bench::new(small());
    bench.assign(1, &[]);
    bench.cancel(1);
    // The scheduler had it made elsewhere while the cancelled attempt still runs here.
    assert_eq!(fetches(&bench.assign(2, &[from(PEER, part(1), 10)])), []);
    assert_eq!(fetches(&bench.failed(1)), [(part(1), PEER)]);
    assert!(starts(&bench.fetched(part(1), PEER, 10), 2));
    bench.done(2, &[]);

    bench.assign(1, &[]);
    bench.cancel(1);
    bench.assign(3, &[from(PEER, part(1), 10)]);
    assert!(starts(&bench.done(1, &[10]), 3), "made after all");
}

#[test]
fn a_task_that_is_to_run_here_again_waits_until_its_old_outputs_are_gone() {
    let mut bench = Bench::new(small());
    bench.make(1, &[80]);
    let again = bench.assign_as(1, Attempt(1), 0, &[]);
    assert!(!starts(&again, 1), "the old output is on its way to disk");
    let spilled = bench.spilled(part(1), 80);
    let dropped = spilled
        .iter()
        .position(|action| drops(std::slice::from_ref(action), part(1)));
    let started = spilled
        .iter()
        .position(|action| starts(std::slice::from_ref(action), 1));
    assert!(dropped.unwrap() < started.unwrap());
}

#[test]
fn readers_of_outputs_that_are_made_again_are_given_back() {
    let mut bench = Bench::new(small());
    bench.make(1, &[10]);
    bench.assign(0, &[]);
    bench.assign(2, &[from(SELF, part(1), 10)]);
    let again = bench.assign_as(1, Attempt(1), 0, &[]);
    assert!(says_missing(&again, 2, &[(part(1), SELF)]));
    assert!(drops(&again, part(1)));
    let early = bench.assign(3, &[from(SELF, part(1), 10)]);
    assert!(says_missing(&early, 3, &[(part(1), SELF)]), "not made yet");
}
