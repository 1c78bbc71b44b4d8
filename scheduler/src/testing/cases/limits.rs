//! Graphs and attempts that take too long.

use transload_protocol::{
    Event, GraphOutcome, RunningTask, TaskErrorKind, TaskGraph, WorkerLoad, WorkerMessage,
};

use crate::Config;
use crate::testing::graphs::{chain, gang, independent};
use crate::testing::{Cluster, task};

/// Tasks whose attempts may run for so long, and may be repeated so often.
fn limited(tasks: u32, time_limit_ms: u32, retries: u32) -> TaskGraph {
    let mut graph = independent(tasks);
    graph.layers[0].time_limit_ms = Some(time_limit_ms);
    graph.layers[0].retries = retries;
    graph
}

#[test]
fn a_graph_that_is_not_done_in_its_time_is_cancelled_and_says_how_far_it_was() {
    let mut cluster = Cluster::of(1, 1);
    let mut tasks = chain(3);
    tasks.cancel_after_ms = Some(30_000);
    let graph = cluster.submit(tasks);
    for index in [0, 1] {
        cluster.finish(task(graph, index));
    }
    let due = cluster.scheduler.next_deadline();
    for _ in 0..29 {
        cluster.wait_ms(1_000);
        cluster.say_alive();
    }
    assert!(due.is_some() && cluster.outcome(graph).is_none());
    let worker = cluster.worker_of(task(graph, 3)).expect("assigned");
    cluster.wait_ms(1_001);
    let outcome = GraphOutcome::TimedOut {
        after_ms: 30_000,
        done: 2,
        total: 9,
    };
    assert_eq!(cluster.outcome(graph), Some(&outcome));
    while !cluster.workers[&worker].cancelling.is_empty() {
        cluster.answer_cancel(worker);
    }
    cluster.assert_clean();
}

#[test]
fn a_task_that_takes_much_longer_than_its_siblings_is_told_of_once() {
    let mut cluster = Cluster::of(2, 2);
    let graph = cluster.submit(independent(6));
    let slow = task(graph, 0);
    let worker = cluster.worker_of(slow).expect("assigned");
    cluster.start(slow);
    cluster.wait_ms(5_000);
    let report = |cluster: &mut Cluster, running_ms| {
        cluster.wait_ms(1);
        let load = WorkerLoad {
            running: vec![RunningTask {
                task: slow,
                running_ms,
            }],
            ..WorkerLoad::default()
        };
        cluster.say(worker, WorkerMessage::Heartbeat { load });
        cluster.count_events(|event| matches!(event, Event::TaskStraggles { .. }))
    };
    for index in [1, 2] {
        cluster.finish(task(graph, index));
    }
    assert_eq!(report(&mut cluster, 5_000), 0, "two others say nothing yet");
    cluster.finish(task(graph, 3));
    assert_eq!(report(&mut cluster, 999), 0, "it is short");
    assert_eq!(report(&mut cluster, 1_100), 1);
    assert_eq!(report(&mut cluster, 1_200), 1);
    let details = cluster.scheduler.explain(slow).details;
    assert!(
        details.contains(&"it has run for 1.1 s; tasks of its layer take 200 ms".to_owned()),
        "{details:?}"
    );
    let stragglers = |cluster: &Cluster| {
        let workers = cluster.scheduler.info().workers.into_iter();
        workers
            .flat_map(|worker| worker.stragglers)
            .collect::<Vec<_>>()
    };
    let told = stragglers(&cluster);
    assert_eq!(
        (told.len(), told[0].task, told[0].typical_ms),
        (1, slow, 200)
    );
    cluster.finish(slow);
    assert_eq!(stragglers(&cluster), []);
}

#[test]
fn a_graph_that_is_done_in_its_time_is_kept_for_as_long_as_its_client_wants() {
    let mut cluster = Cluster::of(1, 1);
    let mut tasks = independent(1);
    tasks.cancel_after_ms = Some(1_000);
    let graph = cluster.submit(tasks);
    cluster.run();
    cluster.wait_ms(2_000);
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
    assert!(cluster.scheduler.graphs.find(task(graph, 0)).is_some());
}

#[test]
fn an_attempt_that_runs_too_long_is_cancelled_and_the_task_tried_again_elsewhere() {
    let mut cluster = Cluster::of(2, 1);
    let graph = cluster.submit(limited(1, 1_000, 1));
    let first = cluster.worker_of(task(graph, 0)).expect("assigned");
    cluster.wait_ms(5_000);
    assert_eq!(
        cluster.worker_of(task(graph, 0)),
        Some(first),
        "it did not run"
    );
    cluster.start(task(graph, 0));
    cluster.wait_ms(1_001);
    assert_eq!(cluster.assigned(), []);
    cluster.wait_for_retries();
    assert_eq!(cluster.assigned(), [], "not before the first has stopped");
    cluster.answer_cancel(first);
    let second = cluster.worker_of(task(graph, 0)).expect("assigned");
    assert_ne!(second, first);
    cluster.start(task(graph, 0));
    cluster.wait_ms(1_001);
    let Some(GraphOutcome::Failed(error)) = cluster.outcome(graph) else {
        panic!("{:?}", cluster.outcome(graph));
    };
    assert_eq!(error.kind, TaskErrorKind::TimeLimit);
    assert!(error.message.contains("ran longer than 1 s"), "{error}");
    cluster.answer_cancel(second);
    cluster.assert_clean();
}

#[test]
fn a_member_of_a_gang_that_runs_too_long_takes_all_back() {
    let mut cluster = Cluster::of(2, 1);
    let mut tasks = gang(2);
    tasks.layers[0].time_limit_ms = Some(1_000);
    let graph = cluster.submit(tasks);
    cluster.start(task(graph, 1));
    cluster.wait_ms(1_001);
    cluster.wait_for_retries();
    assert_eq!(cluster.assigned(), [], "nobody has answered");
    let workers: Vec<_> = cluster.workers.keys().copied().collect();
    for worker in workers {
        cluster.answer_cancel(worker);
    }
    assert_eq!(cluster.assigned(), [task(graph, 0), task(graph, 1)]);
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
}

#[test]
fn an_attempt_that_ends_in_time_has_no_limit_any_more() {
    let mut cluster = Cluster::of(1, 1);
    let graph = cluster.submit(limited(2, 1_000, 0));
    cluster.start(task(graph, 0));
    cluster.finish(task(graph, 0));
    cluster.start(task(graph, 1));
    cluster.wait_ms(999);
    cluster.finish(task(graph, 1));
    assert_eq!(cluster.scheduler.attempt_limits.next_due(), None);
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
}

#[test]
fn a_graph_that_was_done_in_its_time_stays_so_after_another_scheduler_took_over() {
    let mut cluster = Cluster::journaled(Config::default());
    cluster.join(1);
    let mut tasks = independent(1);
    tasks.cancel_after_ms = Some(1_000);
    let graph = cluster.submit(tasks);
    cluster.run();
    // Once from the entries as they came, once from those that were put together.
    for _ in 0..2 {
        cluster.crash();
        cluster.wait_ms(2_000);
        cluster.all_return();
        assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
        assert!(cluster.scheduler.graphs.find(task(graph, 0)).is_some());
    }
}

#[test]
fn limits_hold_also_after_another_scheduler_took_over_from_when_it_did() {
    let mut cluster = Cluster::journaled(Config::default());
    let worker = cluster.join(1);
    let mut tasks = limited(1, 1_000, 0);
    tasks.cancel_after_ms = Some(60_000);
    let graph = cluster.submit(tasks);
    let fake = cluster.workers.get_mut(&worker).expect("alive");
    let fetched = fake.assigned.get_mut(&task(graph, 0));
    fetched.expect("assigned").fetched = true;
    cluster.start(task(graph, 0));
    cluster.wait_ms(900);
    cluster.crash();
    cluster.all_return();
    assert!(cluster.scheduler.graph_limits.next_due().is_some());
    cluster.wait_ms(900);
    assert_eq!(cluster.outcome(graph), None);
    cluster.wait_ms(200);
    assert!(matches!(
        cluster.outcome(graph),
        Some(GraphOutcome::Failed(error)) if error.kind == TaskErrorKind::TimeLimit
    ));
}
