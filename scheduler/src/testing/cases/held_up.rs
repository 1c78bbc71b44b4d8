//! Tasks that would have to wait at their worker for one that waits without its slot.

use transload_protocol::{
    ClientMessage, GraphId, GraphOutcome, TaskErrorKind, TaskId, WorkerId, WorkerMessage,
};

use crate::testing::graphs::{gang, independent};
use crate::testing::{CLIENT, Cluster, task};

impl Cluster {
    /// A graph of one task that runs, and waits without its slot.
    fn waiting(&mut self) -> (TaskId, WorkerId) {
        let graph = self.submit(independent(1));
        let waits = task(graph, 0);
        self.start(waits);
        let worker = self.worker_of(waits).expect("assigned");
        let attempt = self.workers[&worker].assigned[&waits].task.attempt;
        let task = waits;
        self.say(worker, WorkerMessage::Seceded { task, attempt });
        (waits, worker)
    }

    /// The worker of a task gives it back.
    pub(crate) fn hold_up(&mut self, task: TaskId, by: TaskId) -> WorkerId {
        let worker = self.worker_of(task).expect("assigned");
        let fake = self.workers.get_mut(&worker).expect("alive");
        let attempt = fake.drop_task(task);
        self.say(worker, WorkerMessage::HeldUp { task, attempt, by });
        worker
    }

    fn why(&mut self, task: TaskId) -> String {
        self.tell(ClientMessage::Explain { task });
        let explained = self.clients[&CLIENT].explained.last().expect("answered");
        explained.details.join("; ")
    }

    fn ends(&mut self, graph: GraphId) {
        self.run();
        assert_eq!(self.outcome(graph), Some(&GraphOutcome::Finished));
    }
}

#[test]
fn a_task_that_is_held_up_leaves_its_room_to_what_the_other_waits_for() {
    let mut cluster = Cluster::of(1, 1);
    let (waits, worker) = cluster.waiting();
    let held_up = cluster.submit(independent(1));
    assert_eq!(cluster.assigned(), [waits, task(held_up, 0)]);
    cluster.hold_up(task(held_up, 0), waits);
    assert_eq!(cluster.assigned(), [waits], "it would be given back again");
    let why = cluster.why(task(held_up, 0));
    assert!(why.contains("cannot begin on worker"), "{why}");
    let inner = cluster.submit(independent(2));
    assert_eq!(cluster.worker_of(task(inner, 0)), Some(worker));
    cluster.finish(waits);
    cluster.ends(held_up);
    cluster.ends(inner);
}

#[test]
fn a_task_that_is_held_up_by_one_that_waits_for_it_fails() {
    let mut cluster = Cluster::of(1, 1);
    let (waits, _) = cluster.waiting();
    let inside = |parent| {
        let mut graph = independent(1);
        graph.parent = Some(parent);
        graph.layers[0].retries = 0;
        graph
    };
    let inner = cluster.submit(inside(waits));
    cluster.start(task(inner, 0));
    let worker = cluster.worker_of(task(inner, 0)).expect("assigned");
    let waits_too = WorkerMessage::Seceded {
        task: task(inner, 0),
        attempt: cluster.workers[&worker].assigned[&task(inner, 0)]
            .task
            .attempt,
    };
    cluster.say(worker, waits_too);
    let innermost = cluster.submit(inside(task(inner, 0)));
    cluster.hold_up(task(innermost, 0), waits);
    let outcome = cluster.outcome(innermost);
    assert!(
        matches!(outcome, Some(GraphOutcome::Failed(error)) if error.kind == TaskErrorKind::OutOfMemory),
        "{outcome:?}"
    );
}

#[test]
fn a_task_that_is_held_up_runs_elsewhere_at_once() {
    let mut cluster = Cluster::of(1, 1);
    let (waits, worker) = cluster.waiting();
    let held_up = cluster.submit(independent(1));
    let other = cluster.join(1);
    assert_eq!(cluster.worker_of(task(held_up, 0)), Some(worker));
    cluster.hold_up(task(held_up, 0), waits);
    assert_eq!(cluster.worker_of(task(held_up, 0)), Some(other));
    cluster.ends(held_up);
}

#[test]
fn a_gang_with_a_member_that_is_held_up_takes_no_room_and_keeps_none() {
    let mut cluster = Cluster::of(2, 1);
    let (waits, worker) = cluster.waiting();
    let graph = cluster.submit(gang(2));
    assert_eq!(cluster.assigned().len(), 3);
    let member = [task(graph, 0), task(graph, 1)]
        .into_iter()
        .find(|member| cluster.worker_of(*member) == Some(worker))
        .expect("one on each");
    cluster.hold_up(member, waits);
    let other = cluster.workers.keys().copied().find(|it| *it != worker);
    cluster.deliver_all(other.expect("two"));
    cluster.answer_cancel(other.expect("two"));
    assert_eq!(cluster.assigned(), [waits]);
    let inner = cluster.submit(independent(2));
    assert_eq!(cluster.assigned().len(), 3, "both workers are free for it");
    cluster.finish(task(inner, 0));
    cluster.finish(task(inner, 1));
    assert_eq!(cluster.assigned(), [waits]);
    cluster.finish(waits);
    assert_eq!(cluster.assigned(), [task(graph, 0), task(graph, 1)]);
    cluster.ends(graph);
}

#[test]
fn a_worker_gets_back_at_once_what_it_gave_back_for_the_sake_of_nothing() {
    let mut cluster = Cluster::of(1, 1);
    let graph = cluster.submit(independent(1));
    let worker = cluster.hold_up(task(graph, 0), task(graph, 7));
    assert_eq!(cluster.worker_of(task(graph, 0)), Some(worker));
    cluster.ends(graph);
    cluster.release(vec![task(graph, 0)]);
    cluster.assert_clean();
}

#[test]
fn what_was_held_up_is_forgotten_with_its_graph_and_with_its_worker() {
    let mut cluster = Cluster::of(1, 1);
    let (waits, worker) = cluster.waiting();
    let cancelled = cluster.submit(independent(1));
    cluster.hold_up(task(cancelled, 0), waits);
    cluster.tell(ClientMessage::Cancel { graph: cancelled });
    // Its record is free for this one.
    let next = cluster.submit(independent(1));
    assert_eq!(cluster.worker_of(task(next, 0)), Some(worker));
    cluster.hold_up(task(next, 0), waits);
    assert_eq!(cluster.assigned(), [waits]);
    cluster.kill(worker);
    cluster.join(2);
    assert!(cluster.worker_of(task(next, 0)).is_some());
    cluster.ends(next);
}
