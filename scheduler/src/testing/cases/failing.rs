//! What is tried again, and when it is given up.

use transload_protocol::{ClientMessage, GraphId, GraphOutcome, TaskErrorKind, TaskGraph};

use crate::Config;
use crate::testing::graphs::{chain, independent};
use crate::testing::{Cluster, task};

#[test]
fn a_retryable_failure_is_tried_again_on_another_worker() {
    let mut cluster = Cluster::of(2, 1);
    let graph = cluster.submit(independent(1));
    let first = cluster.fail(task(graph, 0), TaskErrorKind::OutOfMemory);
    cluster.wait_for_retries();
    let second = cluster.fail(task(graph, 0), TaskErrorKind::OutOfMemory);
    assert_ne!(first, second);
    assert_eq!(cluster.outcome(graph), None);
    cluster.wait_for_retries();
    cluster.fail(task(graph, 0), TaskErrorKind::OutOfMemory);
    let Some(GraphOutcome::Failed(error)) = cluster.outcome(graph) else {
        panic!("two retries are all it has");
    };
    assert!(error.message.contains("boom") && error.attempts == 3);
    cluster.assert_clean();
}

#[test]
fn a_retry_stays_on_the_only_worker_there_is() {
    let mut cluster = Cluster::of(1, 1);
    let graph = cluster.submit(independent(1));
    cluster.fail(task(graph, 0), TaskErrorKind::SpillFailed);
    cluster.wait_for_retries();
    cluster.finish(task(graph, 0));
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
}

#[test]
fn a_task_that_kills_its_workers_is_given_up_and_named() {
    let mut cluster = Cluster::of(4, 1);
    let graph = cluster.submit(independent(1));
    for _ in 0..3 {
        cluster.wait_for_retries();
        cluster.start(task(graph, 0));
        let worker = cluster.worker_of(task(graph, 0)).expect("assigned");
        cluster.kill(worker);
    }
    let Some(GraphOutcome::Failed(error)) = cluster.outcome(graph) else {
        panic!("{:?}", cluster.outcome(graph));
    };
    assert_eq!(error.kind, TaskErrorKind::WorkersLost);
    assert_eq!(error.task, task(graph, 0));
    assert!(error.message.contains("3 workers died"), "{error}");
}

#[test]
fn a_task_that_was_only_queued_is_not_blamed_for_a_death() {
    let mut cluster = Cluster::of(1, 1);
    let graph = cluster.submit(independent(1));
    for _ in 0..5 {
        let worker = cluster.worker_of(task(graph, 0)).expect("assigned");
        cluster.join(1);
        cluster.kill(worker);
    }
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
}

/// Fails the only task of a graph on the only worker, and says how long it then waits, in milliseconds.
fn wait_after_failure(cluster: &mut Cluster, graph: GraphId) -> u64 {
    cluster.fail(task(graph, 0), TaskErrorKind::Transient);
    let due = cluster.scheduler.retries.next_due().expect("it waits");
    due.micros_since(cluster.now) / 1_000
}

/// One task that may be retried so often.
fn persistent(retries: u32) -> TaskGraph {
    let mut graph = independent(1);
    graph.layers[0].retries = retries;
    graph
}

#[test]
fn each_failure_is_followed_by_a_longer_wait_which_explain_tells() {
    let mut cluster = Cluster::of(1, 1);
    let graph = cluster.submit(persistent(100));
    let mut waits = Vec::new();
    for _ in 0..11 {
        waits.push(wait_after_failure(&mut cluster, graph));
        if waits.len() == 6 {
            let summary = cluster.scheduler.explain(task(graph, 0)).summary;
            assert!(
                summary.contains("waits 3.2 s before attempt 7"),
                "{summary}"
            );
        }
        assert_eq!(cluster.assigned(), [], "not before it is due");
        cluster.wait_for_retries();
        assert_eq!(cluster.assigned(), [task(graph, 0)]);
    }
    let doubled = [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600];
    assert_eq!(waits[..9], doubled);
    assert_eq!(waits[9..], [30_000, 30_000]);
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
}

#[test]
fn a_task_whose_worker_died_is_tried_again_at_once_and_after_the_next_death_later() {
    let mut cluster = Cluster::of(3, 1);
    let graph = cluster.submit(independent(1));
    for is_at_once in [true, false] {
        cluster.start(task(graph, 0));
        let worker = cluster.worker_of(task(graph, 0)).expect("assigned");
        cluster.kill(worker);
        assert_eq!(!cluster.assigned().is_empty(), is_at_once);
        cluster.wait_for_retries();
    }
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
}

#[test]
fn a_graph_that_is_cancelled_while_a_task_waits_for_its_retry_leaves_nothing() {
    let mut cluster = Cluster::of(1, 1);
    let graph = cluster.submit(persistent(1));
    cluster.fail(task(graph, 0), TaskErrorKind::Transient);
    cluster.tell(ClientMessage::Cancel { graph });
    assert_eq!(cluster.scheduler.retries.next_due(), None);
    // Its place is taken by another graph, which does not wait.
    let next = cluster.submit(independent(1));
    assert_eq!(cluster.assigned(), [task(next, 0)]);
    cluster.run();
    cluster.release(vec![task(next, 0)]);
    cluster.assert_clean();
}

#[test]
fn a_task_that_is_released_while_it_waits_for_its_retry_does_not_run_again() {
    let mut cluster = Cluster::of(1, 1);
    let graph = cluster.submit(independent(2));
    cluster.fail(task(graph, 0), TaskErrorKind::Transient);
    cluster.release(vec![task(graph, 0)]);
    cluster.wait_for_retries();
    assert_eq!(cluster.assigned(), [task(graph, 1)]);
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
}

#[test]
fn a_task_that_loses_its_input_while_it_waits_for_its_retry_waits_for_both() {
    let mut cluster = Cluster::of(1, 1);
    let graph = cluster.submit(chain(1));
    let holder = cluster.finish(task(graph, 0));
    cluster.fail(task(graph, 1), TaskErrorKind::Transient);
    cluster.kill(holder);
    cluster.wait_for_retries();
    cluster.join(1);
    assert_eq!(cluster.assigned(), [task(graph, 0)]);
    cluster.finish(task(graph, 0));
    assert_eq!(cluster.assigned(), [task(graph, 1)]);
    // The other way round: the input is back before the wait is over.
    let holder = cluster.worker_of(task(graph, 1)).expect("assigned");
    cluster.fail(task(graph, 1), TaskErrorKind::Transient);
    cluster.kill(holder);
    cluster.join(1);
    cluster.finish(task(graph, 0));
    assert_eq!(cluster.assigned(), []);
    cluster.wait_for_retries();
    assert_eq!(cluster.assigned(), [task(graph, 1)]);
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
}

#[test]
fn a_scheduler_that_takes_anothers_place_tries_at_once_what_waited_for_a_retry() {
    let mut cluster = Cluster::journaled(Config::default());
    let worker = cluster.join(1);
    let graph = cluster.submit(persistent(1));
    cluster.fail(task(graph, 0), TaskErrorKind::Transient);
    cluster.crash();
    cluster.all_return();
    assert_eq!(cluster.worker_of(task(graph, 0)), Some(worker));
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
}
