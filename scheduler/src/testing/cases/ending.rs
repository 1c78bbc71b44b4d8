//! How graphs end, and that nothing of them stays.

use transload_protocol::{
    ClientId, ClientMessage, GraphOutcome, OutputSizes, TaskErrorKind, WorkerId, WorkerMessage,
};

use crate::Input;
use crate::testing::graphs::{chain, independent, shuffle};
use crate::testing::{CLIENT, Cluster, task};

#[test]
fn a_graph_finishes_and_is_forgotten_when_its_outputs_are_released() {
    let mut cluster = Cluster::of(2, 2);
    let graph = cluster.submit(shuffle(3, 3));
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
    assert_eq!(cluster.client().outputs.len(), 3);
    cluster.release(vec![task(graph, 3), task(graph, 4)]);
    assert!(
        cluster
            .scheduler
            .explain(task(graph, 5))
            .summary
            .contains("is done")
    );
    cluster.release(vec![task(graph, 5)]);
    cluster.assert_clean();
    assert!(
        cluster
            .scheduler
            .explain(task(graph, 5))
            .summary
            .contains("unknown")
    );
}

#[test]
fn a_failure_names_its_task_and_stops_the_rest() {
    let mut cluster = Cluster::of(2, 1);
    let graph = cluster.submit(chain(2));
    cluster.finish(task(graph, 0));
    let worker = cluster.fail(task(graph, 2), TaskErrorKind::Operator);
    let Some(GraphOutcome::Failed(error)) = cluster.outcome(graph) else {
        panic!("{:?}", cluster.outcome(graph));
    };
    assert_eq!((error.task, error.worker), (task(graph, 2), Some(worker)));
    assert_eq!(
        (
            error.layer.as_str(),
            error.operator.as_str(),
            error.message.as_str()
        ),
        ("b", "op", "boom")
    );
    let busy = cancelling(&cluster);
    assert_eq!(busy.len(), 1, "the other task was running");
    cluster.answer_cancel(busy[0]);
    cluster.assert_clean();
}

fn cancelling(cluster: &Cluster) -> Vec<WorkerId> {
    cluster
        .workers
        .iter()
        .filter(|(_, worker)| !worker.cancelling.is_empty())
        .map(|(id, _)| *id)
        .collect()
}

#[test]
fn a_cancelled_task_occupies_its_worker_until_the_worker_answers() {
    let mut cluster = Cluster::of(1, 1);
    let graph = cluster.submit(independent(2));
    let next = cluster.submit(independent(2));
    cluster.tell(ClientMessage::Cancel { graph });
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Cancelled));
    assert_eq!(cluster.assigned(), []);
    let worker = WorkerId(0);
    cluster.answer_cancel(worker);
    assert_eq!(cluster.assigned(), [task(next, 0)]);
    // The other one ended before it heard.
    let (late, attempt) = cluster
        .workers
        .get_mut(&worker)
        .expect("alive")
        .cancelling
        .remove(0);
    cluster.say(
        worker,
        WorkerMessage::Finished {
            task: late,
            attempt,
            sizes: OutputSizes::of(&[1]),
            run_micros: 0,
        },
    );
    assert_eq!(cluster.assigned(), [task(next, 0), task(next, 1)]);
    cluster.run();
    assert_eq!(cluster.outcome(next), Some(&GraphOutcome::Finished));
}

#[test]
fn a_lost_client_takes_its_graphs_along_and_hears_nothing_more() {
    let mut cluster = Cluster::of(2, 1);
    let other = ClientId(1);
    cluster.join_client(other);
    let doomed = cluster.submit(chain(2));
    let kept = cluster.submit_as(other, independent(3));
    cluster.finish(task(doomed, 0));
    cluster.clients.remove(&CLIENT);
    cluster.feed(Input::ClientLost { client: CLIENT });
    while let Some(worker) = cancelling(&cluster).first().copied() {
        cluster.answer_cancel(worker);
    }
    cluster.run();
    assert_eq!(cluster.outcome(kept), Some(&GraphOutcome::Finished));
    assert!(
        cluster
            .workers
            .values()
            .all(|worker| worker.stored.iter().all(|stored| stored.graph == kept))
    );
    cluster.clients.remove(&other);
    cluster.feed(Input::ClientLost { client: other });
    cluster.assert_clean();
}

#[test]
fn outputs_released_before_they_are_made_are_never_made() {
    let mut cluster = Cluster::of(1, 1);
    let graph = cluster.submit(chain(4));
    cluster.finish(task(graph, 0));
    cluster.finish(task(graph, 4));
    cluster.finish(task(graph, 8));
    // The client has enough: one row of four.
    cluster.release((9..12).map(|index| task(graph, index)).collect());
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
    assert_eq!(cluster.assigned(), []);
    while let Some(worker) = cancelling(&cluster).first().copied() {
        cluster.answer_cancel(worker);
    }
    cluster.release(vec![task(graph, 8)]);
    cluster.assert_clean();
}

#[test]
fn a_task_called_off_and_needed_again_waits_for_the_answer() {
    let mut cluster = Cluster::of(2, 1);
    let mut tasks = chain(1);
    tasks.keep(transload_protocol::LayerIndex(1));
    let graph = cluster.submit(tasks);
    cluster.finish(task(graph, 0));
    let holder = cluster.finish(task(graph, 1));
    // The last task runs; the output before it is lost, and the first task runs again for it.
    let worker = cluster.worker_of(task(graph, 2)).expect("assigned");
    cluster.say(
        holder,
        WorkerMessage::Lost {
            tasks: vec![task(graph, 1)],
        },
    );
    let again = cluster.worker_of(task(graph, 0)).expect("assigned again");
    // Nobody wants either any more.
    cluster.release(vec![task(graph, 1)]);
    assert_eq!(cluster.worker_of(task(graph, 2)), Some(worker));
    cluster.finish(task(graph, 2));
    assert!(!cluster.workers[&again].cancelling.is_empty());
    // Now the last output is lost too, and everything is needed again.
    let last = cluster.client().outputs[&task(graph, 2)];
    cluster.say(
        last,
        WorkerMessage::Lost {
            tasks: vec![task(graph, 2)],
        },
    );
    assert_eq!(cluster.assigned(), [], "its old attempt is not answered");
    assert!(
        cluster
            .scheduler
            .explain(task(graph, 0))
            .details
            .iter()
            .any(|detail| detail.contains("not yet answered"))
    );
    cluster.answer_cancel(again);
    cluster.run();
    cluster.release(vec![task(graph, 2)]);
    cluster.assert_clean();
}

#[test]
fn a_worker_that_leaves_or_dies_while_it_owes_an_answer_owes_it_no_more() {
    let mut cluster = Cluster::of(1, 1);
    let graph = cluster.submit(independent(1));
    cluster.tell(ClientMessage::Cancel { graph });
    cluster.kill(WorkerId(0));
    assert!(cluster.scheduler.cancels.is_empty());
    cluster.assert_clean();
}

#[test]
fn a_cancel_after_the_end_frees_the_outputs_silently() {
    let mut cluster = Cluster::of(1, 1);
    let graph = cluster.submit(independent(2));
    cluster.run();
    cluster.tell(ClientMessage::Cancel { graph });
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
    cluster.assert_clean();
    // And once more, about a graph that is forgotten.
    cluster.tell(ClientMessage::Cancel { graph });
}

#[test]
fn a_worker_that_says_goodbye_loses_what_it_held_and_nothing_is_blamed() {
    let mut cluster = Cluster::of(2, 1);
    let graph = cluster.submit(chain(1));
    let leaver = cluster.finish(task(graph, 0));
    cluster.start(task(graph, 1));
    cluster.workers.remove(&leaver);
    cluster.say(leaver, WorkerMessage::Goodbye);
    cluster.feed(Input::WorkerLost {
        worker: leaver,
        reason: "closed".to_owned(),
    });
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
}
