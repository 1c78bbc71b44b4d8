//! What is tried again, and when it is given up.

use transload_protocol::{GraphOutcome, TaskErrorKind};

use crate::testing::graphs::independent;
use crate::testing::{Cluster, task};

#[test]
fn a_retryable_failure_is_tried_again_on_another_worker() {
    let mut cluster = Cluster::of(2, 1);
    let graph = cluster.submit(independent(1));
    let first = cluster.fail(task(graph, 0), TaskErrorKind::OutOfMemory);
    let second = cluster.fail(task(graph, 0), TaskErrorKind::OutOfMemory);
    assert_ne!(first, second);
    assert_eq!(cluster.outcome(graph), None);
    cluster.fail(task(graph, 0), TaskErrorKind::OutOfMemory);
    let Some(GraphOutcome::Failed(error)) = cluster.outcome(graph) else {
        panic!("two retries are all it has");
    };
    assert!(error.message.contains("boom") && error.message.contains("attempt 3"));
    cluster.assert_clean();
}

#[test]
fn a_retry_stays_on_the_only_worker_there_is() {
    let mut cluster = Cluster::of(1, 1);
    let graph = cluster.submit(independent(1));
    cluster.fail(task(graph, 0), TaskErrorKind::SpillFailed);
    cluster.finish(task(graph, 0));
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
}

#[test]
fn a_task_that_kills_its_workers_is_given_up_and_named() {
    let mut cluster = Cluster::of(4, 1);
    let graph = cluster.submit(independent(1));
    for _ in 0..3 {
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
