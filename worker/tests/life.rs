//! The life of tasks and of the worker: starting in order, cancelling, releasing, forgetting, heartbeats, leaving.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use common::{
    Bench, FIRST, GRAPH, PEER, SELF, drops, failure, from, loads, messages, output, part,
    says_cancelled, says_finished, says_missing, small, starts, stops, task,
};
use transload_protocol::{
    Arguments, Attempt, Fused, LayerIndex, LayerSpec, Memory, Resources, RunningTask,
    SchedulerToWorker, Step, StepInput, TaskErrorKind, Tier, Time, WorkerMessage,
};
use transload_worker::{Action, Config, FetchFault, Given, Input, Worker};

#[test]
fn tasks_start_in_order_as_slots_allow() {
    let mut bench = Bench::new(small());
    bench.assign(0, &[]);
    bench.assign(2, &[]);
    bench.assign(1, &[]);
    let done = bench.done(0, &[]);
    assert!(starts(&done, 1) && !starts(&done, 2));
    assert!(
        starts(&bench.failed(1), 2),
        "a failed task frees its slot too"
    );
}

#[test]
fn a_task_that_waits_for_an_input_does_not_hold_up_those_behind_it() {
    let mut bench = Bench::new(small());
    bench.assign(1, &[from(PEER, part(50), 10)]);
    assert!(starts(&bench.assign(2, &[]), 2));
}

#[test]
fn a_wide_task_is_not_starved_by_narrow_ones_behind_it() {
    let mut bench = Bench::new(Config::new(Resources::slots(2), 100));
    bench.assign(0, &[]);
    bench.assign_as(1, FIRST, 2, &[]);
    assert!(!starts(&bench.assign(2, &[]), 2), "task 1 needs both slots");
    let done = bench.done(0, &[]);
    assert!(starts(&done, 1) && !starts(&done, 2));
    assert!(starts(&bench.done(1, &[]), 2));
}

#[test]
fn a_task_that_can_never_run_here_is_refused_at_once() {
    let mut bench = Bench::new(small());
    let wide = bench.assign_as(1, FIRST, 2, &[]);
    let (kind, text) = failure(&wide, 1).unwrap();
    assert_eq!(kind, TaskErrorKind::Unschedulable);
    assert!(
        text.contains("2 slots") && text.contains("1 slot"),
        "{text}"
    );
    let unknown = bench.assign_as(2, FIRST, 9, &[]);
    let (kind, text) = failure(&unknown, 2).unwrap();
    assert_eq!(kind, TaskErrorKind::UnknownOperator);
    assert!(text.contains("layer 9"), "{text}");
}

#[test]
fn a_start_names_inputs_by_position_and_is_told() {
    let mut bench = Bench::new(small());
    bench.make(1, &[3, 4]);
    let inputs = [from(SELF, output(1, 1), 4), from(SELF, output(1, 0), 3)];
    let actions = bench.assign(2, &inputs);
    let start = Action::Start {
        task: task(2),
        attempt: FIRST,
        layer: LayerIndex(0),
        inputs: vec![vec![Given::Held(output(1, 1)), Given::Held(output(1, 0))]],
        halved: false,
    };
    let started = WorkerMessage::Started {
        task: task(2),
        attempt: FIRST,
    };
    assert_eq!(actions, [start, Action::ToScheduler(started)]);
}

#[test]
fn a_failing_step_of_a_fused_layer_is_named_as_the_layer_that_it_was() {
    let mut bench = Bench::new(small());
    let step = Step {
        layer: "parse".to_owned(),
        operator: "csv".to_owned(),
        arguments: Arguments::default(),
        tasks: 5,
        outputs: 1,
        times: 1,
        reads: vec![],
    };
    let spec = LayerSpec {
        name: "total".to_owned(),
        operator: "sum".to_owned(),
        arguments: Arguments::default(),
        first_task: 0,
        outputs: 1,
        inputs: vec![],
        resources: Resources::slots(1),
        fused: Some(Box::new(Fused {
            steps: vec![step],
            reads: vec![StepInput::Step { step: 0, each: 1 }],
        })),
        gang: false,
        memory: Memory::Host,
        input_memory: Vec::new(),
    };
    bench.send(SchedulerToWorker::Layer {
        graph: GRAPH,
        layer: LayerIndex(0),
        spec: spec.into(),
    });
    for (index, step, expected) in [(1, Some(0), ("parse", "csv")), (2, None, ("total", "sum"))] {
        bench.assign(index, &[]);
        let failed = bench.input(Input::TaskFailed {
            task: task(index),
            attempt: FIRST,
            kind: TaskErrorKind::Operator,
            message: "bad row".to_owned(),
            step,
        });
        let [WorkerMessage::Failed { error, .. }] = messages(&failed)[..] else {
            panic!("{failed:?}");
        };
        assert_eq!((error.layer.as_str(), error.operator.as_str()), expected);
    }
}

#[test]
fn a_failed_task_says_why_and_stores_nothing() {
    let mut bench = Bench::new(small());
    bench.assign(1, &[]);
    bench.now = bench.now.after_micros(7_000);
    let failed = bench.failed(1);
    let [
        WorkerMessage::Failed {
            attempt,
            error,
            run_micros,
        },
    ] = messages(&failed)[..]
    else {
        panic!("{failed:?}");
    };
    assert!((7_000..8_000).contains(run_micros), "{run_micros}");
    assert_eq!(
        (*attempt, error.task, error.worker),
        (FIRST, task(1), Some(SELF))
    );
    assert_eq!(
        (error.layer.as_str(), error.operator.as_str()),
        ("layer-0", "op")
    );
    assert_eq!(
        (error.kind, error.message.as_str()),
        (TaskErrorKind::Operator, "bad row")
    );
    assert_eq!(bench.worker.holds(), []);
}

#[test]
fn a_cancelled_task_in_the_queue_is_answered_at_once() {
    let mut bench = Bench::new(small());
    bench.assign(0, &[]);
    bench.assign(1, &[]);
    assert!(says_cancelled(&bench.cancel(1), 1));
    assert_eq!(bench.cancel(1), [], "and only once");
    assert!(!starts(&bench.done(0, &[]), 1));
}

#[test]
fn a_task_is_given_back_unless_it_has_begun() {
    let mut bench = Bench::new(small());
    bench.assign(1, &[]);
    bench.assign(2, &[]);
    assert_eq!(bench.recall(1, FIRST), [], "it runs");
    assert_eq!(bench.recall(2, Attempt(7)), [], "of another attempt");
    assert!(says_cancelled(&bench.recall(2, FIRST), 2));
    assert_eq!(bench.recall(2, FIRST), [], "it is gone");
    assert!(!starts(&bench.done(1, &[]), 2));
}

#[test]
fn a_cancelled_running_task_is_answered_when_it_has_ended() {
    let mut bench = Bench::new(small());
    bench.assign(1, &[]);
    let cancelled = bench.cancel(1);
    assert!(stops(&cancelled, 1) && messages(&cancelled).is_empty());
    assert_eq!(bench.cancel(1), [], "told to stop once");
    assert!(says_cancelled(&bench.failed(1), 1));
}

#[test]
fn a_cancelled_task_that_finished_first_is_finished() {
    let mut bench = Bench::new(small());
    bench.assign(1, &[]);
    bench.cancel(1);
    assert!(says_finished(&bench.done(1, &[5]), 1));
    assert_eq!(bench.tier(part(1)), Some(Tier::Host));
    assert!(drops(&bench.release(1), part(1)));
}

#[test]
fn a_cancel_of_another_attempt_is_ignored() {
    let mut bench = Bench::new(small());
    bench.assign_as(1, Attempt(4), 0, &[]);
    assert_eq!(bench.cancel(1), []);
}

#[test]
fn a_newer_attempt_takes_the_place_of_an_older_one() {
    let mut bench = Bench::new(small());
    bench.assign(0, &[]);
    bench.assign(1, &[]);
    assert!(
        says_cancelled(&bench.assign_as(1, Attempt(1), 0, &[]), 1),
        "queued"
    );
    bench.done(0, &[]);
    let newest = bench.assign_as(1, Attempt(2), 0, &[]);
    let (old, attempt) = (task(1), Attempt(1));
    assert_eq!(newest, [Action::Stop { task: old, attempt }], "running");
    let ended = bench.input(Input::TaskDone {
        task: old,
        attempt,
        bytes: vec![5],
        rows: 0,
    });
    let dropped = ended
        .iter()
        .position(|action| drops(std::slice::from_ref(action), part(1)));
    let started = ended
        .iter()
        .position(|action| starts(std::slice::from_ref(action), 1));
    assert!(
        dropped.unwrap() < started.unwrap(),
        "outputs are not mixed up"
    );
    assert!(messages(&ended).contains(&&WorkerMessage::Cancelled { task: old, attempt }));
    assert!(
        says_cancelled(&bench.assign(1, &[]), 1),
        "an older one is late"
    );
}

#[test]
fn an_assignment_said_twice_is_one() {
    let mut bench = Bench::new(small());
    bench.assign(1, &[]);
    assert_eq!(bench.assign(1, &[]), []);
    bench.assign(2, &[]);
    assert_eq!(bench.assign(2, &[]), []);
}

#[test]
fn inputs_of_a_running_task_outlive_their_release() {
    let mut bench = Bench::new(small());
    bench.make(1, &[10]);
    assert!(starts(&bench.assign(2, &[from(SELF, part(1), 10)]), 2));
    assert_eq!(bench.release(1), []);
    assert_eq!(bench.tier(part(1)), Some(Tier::Host));
    let late = bench.assign(3, &[from(SELF, part(1), 10)]);
    assert!(
        says_missing(&late, 3, &[(part(1), SELF)]),
        "released is gone"
    );
    assert!(drops(&bench.done(2, &[]), part(1)));
}

#[test]
fn a_forgotten_graph_leaves_nothing_behind() {
    let mut bench = Bench::new(small());
    bench.make_on_disk(1, 80);
    bench.make(2, &[10]);
    bench.assign(3, &[from(SELF, part(2), 10)]);
    bench.assign(4, &[from(PEER, part(50), 5)]);
    bench.assign(5, &[from(SELF, part(1), 80)]);
    let forgotten = bench.forget();
    assert!(stops(&forgotten, 3));
    assert!(says_cancelled(&forgotten, 4) && says_cancelled(&forgotten, 5));
    let partition = part(50);
    assert!(forgotten.contains(&Action::CancelFetch { partition }));
    assert!(drops(&forgotten, part(1)) && !drops(&forgotten, part(2)));
    let done = bench.done(3, &[7]);
    assert!(says_cancelled(&done, 3) && drops(&done, part(3)) && drops(&done, part(2)));
    assert_eq!(
        (bench.worker.holds(), bench.worker.is_idle()),
        (vec![], true)
    );
    assert!(
        failure(&bench.assign(6, &[]), 6).is_some(),
        "its layers are gone"
    );
}

#[test]
fn a_graph_forgotten_while_its_partitions_move_leaves_when_they_have_arrived() {
    let mut bench = Bench::new(small());
    bench.make_on_disk(1, 80);
    bench.assign(2, &[from(SELF, part(1), 80)]);
    assert!(!drops(&bench.forget(), part(1)));
    assert!(!bench.worker.is_idle());
    assert!(drops(&bench.loaded(part(1)), part(1)));
    assert!(bench.worker.is_idle());
}

#[test]
fn answers_about_unknown_tasks_and_partitions_are_ignored() {
    let mut bench = Bench::new(small());
    assert!(
        drops(&bench.done(9, &[5]), part(9)),
        "their results are dropped"
    );
    assert_eq!(bench.failed(9), []);
    assert_eq!(bench.spilled(part(9), 5), []);
    assert_eq!(bench.spill_failed(part(9)), []);
    assert_eq!(bench.loaded(part(9)), []);
    assert_eq!(bench.load_failed(part(9)), []);
    assert_eq!(bench.fetch_failed(part(9), PEER, FetchFault::Gone), []);
    assert_eq!(bench.release(9), []);
}

#[test]
fn a_heartbeat_carries_the_load_and_comes_in_time() {
    let mut bench = Bench::new(small());
    assert_eq!(bench.worker.next_deadline(), Some(Time::from_millis(500)));
    bench.make_on_disk(1, 80);
    bench.make(2, &[10]);
    bench.assign(3, &[]);
    bench.assign(4, &[]);
    let resident_bytes = 12_345;
    bench.input(Input::Measured { resident_bytes });
    assert!(messages(&bench.pass_millis(499)).is_empty());
    let beat = bench.pass_millis(1);
    let Some(WorkerMessage::Heartbeat { load }) = messages(&beat).last() else {
        panic!("{beat:?}");
    };
    let running = RunningTask {
        task: task(3),
        running_ms: 500,
    };
    assert_eq!((load.running.clone(), load.queued), (vec![running], 1));
    let used: Vec<_> = load
        .tiers
        .iter()
        .map(|tier| (tier.tier, tier.used_bytes))
        .collect();
    assert_eq!(used, [(Tier::Host, 10), (Tier::Disk, 80)]);
    assert_eq!(load.resident_bytes, 12_345);
    assert_eq!(bench.worker.next_deadline(), Some(Time::from_millis(1_000)));
}

#[test]
fn a_worker_that_was_told_to_shut_down_says_goodbye_and_is_silent() {
    let mut bench = Bench::new(small());
    bench.assign(1, &[]);
    let left = bench.send(SchedulerToWorker::Shutdown);
    assert!(stops(&left, 1));
    let goodbye = Action::ToScheduler(WorkerMessage::Goodbye);
    assert_eq!(left[left.len() - 2..], [goodbye, Action::Exit]);
    assert_eq!(bench.done(1, &[5]), []);
    assert_eq!(bench.pass_millis(10_000), []);
    assert_eq!(bench.worker.next_deadline(), None);
    assert!(bench.worker.is_idle());
}

#[test]
fn a_worker_without_a_scheduler_waits() {
    let worker = Worker::new(small());
    assert_eq!((worker.next_deadline(), worker.is_idle()), (None, true));
    assert_eq!(worker.check(), Ok(()));
}

#[test]
fn a_task_that_reads_what_another_graph_made_is_of_no_concern_here() {
    let mut bench = Bench::new(small());
    bench.make(1, &[10]);
    let mut other = GRAPH;
    other.sequence = 1;
    assert_eq!(bench.send(SchedulerToWorker::Forget { graph: other }), []);
    assert_eq!(bench.tier(part(1)), Some(Tier::Host));
    assert!(!loads(
        &bench.assign(2, &[from(SELF, part(1), 10)]),
        part(1)
    ));
}
