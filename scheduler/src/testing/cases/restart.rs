//! Schedulers that take each other's place, and connections that break: nothing accepted is lost, nothing stored is made twice.

use transload_protocol::{ClientMessage, GraphOutcome, TaskErrorKind};

use crate::task::TaskState;
use crate::testing::graphs::{chain, independent, shuffle};
use crate::testing::{CLIENT, Cluster, task};
use crate::{Config, Input};

fn cluster(workers: u32, slots: u32) -> Cluster {
    let mut cluster = Cluster::journaled(Config::default());
    for _ in 0..workers {
        cluster.join(slots);
    }
    cluster
}

#[test]
fn what_workers_hold_after_a_restart_is_not_made_again() {
    let mut cluster = cluster(2, 2);
    let graph = cluster.submit(shuffle(4, 4));
    for index in 0..3 {
        cluster.finish(task(graph, index));
    }
    cluster.crash();
    assert_eq!(cluster.assigned(), []);
    cluster.all_return();
    assert_eq!(
        cluster.assigned(),
        [task(graph, 3)],
        "only what nobody holds runs"
    );
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
    assert_eq!(cluster.client().outputs.len(), 4);
    assert_eq!(cluster.recomputed(), []);
    cluster.release((4..8).map(|index| task(graph, index)).collect());
    cluster.assert_clean();
}

#[test]
fn what_runs_goes_on_and_what_only_waited_is_handed_out_anew() {
    let mut cluster = cluster(1, 1);
    let graph = cluster.submit(independent(3));
    assert_eq!(cluster.assigned().len(), 2, "one runs, one waits behind it");
    let worker = cluster.worker_of(task(graph, 0)).expect("assigned");
    let fake = cluster.workers.get_mut(&worker).expect("alive");
    fake.assigned
        .get_mut(&task(graph, 0))
        .expect("runs")
        .fetched = true;
    cluster.crash();
    cluster.all_return();
    assert!(matches!(
        cluster.state_of(task(graph, 0)),
        Some(TaskState::Assigned { started: true, .. })
    ));
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
}

#[test]
fn nothing_is_handed_out_before_all_workers_are_back_or_the_grace_is_over() {
    let mut cluster = cluster(3, 1);
    let graph = cluster.submit(independent(6));
    cluster.crash();
    cluster.client_returns();
    let workers: Vec<_> = cluster.absent.keys().copied().collect();
    cluster.worker_returns(workers[0]);
    cluster.worker_returns(workers[1]);
    assert_eq!(cluster.assigned(), []);
    assert!(cluster.scheduler.is_recovering());
    cluster.wait_ms(5_001);
    assert!(!cluster.scheduler.is_recovering());
    assert_eq!(cluster.assigned().len(), 4);
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
    cluster.worker_returns(workers[2]);
}

#[test]
fn a_client_that_comes_back_learns_what_it_missed() {
    let mut cluster = cluster(1, 4);
    let done = cluster.submit(independent(2));
    let failed = cluster.submit(chain(1));
    cluster.cut_client();
    cluster.finish(task(done, 0));
    cluster.finish(task(done, 1));
    cluster.fail(task(failed, 0), TaskErrorKind::Operator);
    assert_eq!(cluster.outcome(done), None, "it is told nothing while away");
    cluster.client_returns();
    assert_eq!(cluster.outcome(done), Some(&GraphOutcome::Finished));
    assert_eq!(cluster.client().outputs.len(), 2);
    assert!(matches!(
        cluster.outcome(failed),
        Some(GraphOutcome::Failed(_))
    ));
}

#[test]
fn how_a_graph_ended_is_known_after_a_restart() {
    let mut cluster = cluster(1, 4);
    let failed = cluster.submit(chain(1));
    cluster.cut_client();
    cluster.fail(task(failed, 0), TaskErrorKind::Operator);
    cluster.crash();
    cluster.all_return();
    let Some(GraphOutcome::Failed(error)) = cluster.outcome(failed) else {
        panic!("{:?}", cluster.outcome(failed));
    };
    assert_eq!(error.task, task(failed, 0));
}

#[test]
fn a_client_that_stays_away_too_long_is_gone_with_all_its_graphs() {
    let mut cluster = cluster(1, 1);
    cluster.submit(independent(2));
    cluster.cut_client();
    cluster.wait_ms(2_990);
    assert_eq!(cluster.assigned().len(), 2);
    cluster.wait_ms(15);
    let worker = *cluster.workers.keys().next().expect("one");
    cluster.answer_cancel(worker);
    cluster.answer_cancel(worker);
    cluster.assert_clean();
    assert!(cluster.facts().graphs.is_empty() && cluster.facts().clients.is_empty());
}

#[test]
fn a_scheduler_that_slept_itself_waits_once_more_for_a_client_that_is_away() {
    let mut cluster = cluster(1, 1);
    let graph = cluster.submit(independent(1));
    cluster.cut_client();
    cluster.wait_ms(60_000);
    cluster.client_returns();
    cluster.join(1);
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
}

#[test]
fn a_client_that_says_goodbye_is_gone_at_once() {
    let mut cluster = cluster(1, 1);
    cluster.submit(independent(1));
    cluster.tell(ClientMessage::Goodbye);
    let worker = *cluster.workers.keys().next().expect("one");
    cluster.answer_cancel(worker);
    cluster.assert_clean();
    cluster.feed(Input::ClientLost { client: CLIENT });
}

#[test]
fn a_submission_whose_answer_was_lost_is_accepted_once() {
    let mut cluster = cluster(1, 1);
    let graph = cluster.submit(independent(1));
    cluster.crash();
    let fake = cluster.clients.get_mut(&CLIENT).expect("known");
    fake.accepted.remove(&graph);
    cluster.all_return();
    assert!(cluster.client().accepted.contains(&graph));
    assert!(cluster.client().rejected.is_empty());
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
}

#[test]
fn a_graph_that_its_client_dropped_while_away_is_forgotten_everywhere() {
    let mut cluster = cluster(1, 2);
    let graph = cluster.submit(independent(2));
    cluster.finish(task(graph, 0));
    cluster.crash();
    let worker = *cluster.absent.keys().next().expect("one");
    cluster.worker_returns(worker);
    cluster.feed(Input::ClientReturned { client: CLIENT });
    cluster.cut_off.clear();
    let nothing = Vec::new();
    cluster.tell(ClientMessage::Resume {
        accepted: nothing.clone(),
        submitted: nothing,
        holds: vec![],
    });
    while !cluster.workers[&worker].cancelling.is_empty() {
        cluster.answer_cancel(worker);
    }
    cluster.assert_clean();
    assert!(cluster.facts().graphs.is_empty());
}

#[test]
fn a_worker_that_lost_its_connection_for_a_moment_brings_back_what_it_holds() {
    let mut cluster = cluster(1, 2);
    let graph = cluster.submit(shuffle(3, 2));
    cluster.finish(task(graph, 0));
    cluster.finish(task(graph, 1));
    let worker = cluster.finish(task(graph, 2));
    cluster.cut(worker);
    assert!(cluster.stored().is_empty());
    cluster.worker_returns(worker);
    assert_eq!(cluster.stored().len(), 3);
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
}

#[test]
fn what_was_made_elsewhere_meanwhile_is_dropped_by_who_comes_back() {
    let mut cluster = cluster(2, 2);
    let graph = cluster.submit(independent(1));
    let worker = cluster.finish(task(graph, 0));
    cluster.cut(worker);
    let other = cluster.finish(task(graph, 0));
    assert_ne!(worker, other);
    cluster.worker_returns(worker);
    assert!(!cluster.workers[&worker].stored.contains(&task(graph, 0)));
    assert_eq!(cluster.client().outputs[&task(graph, 0)], other);
}

#[test]
fn a_shut_down_cluster_leaves_nothing_to_come_back_to() {
    let mut cluster = cluster(1, 1);
    cluster.submit(independent(1));
    cluster.tell(ClientMessage::Shutdown);
    assert!(cluster.facts().is_empty());
    assert!(cluster.facts().cluster.is_some());
}
