//! Tasks that wait for graphs of their own, and clients that coordinate.

use transload_protocol::{
    Attempt, ClientId, ClientMessage, CoordinationAnswer, CoordinationCall, GraphOutcome, Patience,
    RequestId, TaskId, WorkerId, WorkerMessage,
};

use crate::Input;
use crate::testing::graphs::independent;
use crate::testing::{CLIENT, Cluster, task};

impl Cluster {
    fn attempt(&self, id: TaskId) -> (WorkerId, Attempt) {
        let worker = self.worker_of(id).expect("assigned");
        (worker, self.workers[&worker].assigned[&id].task.attempt)
    }

    fn secede(&mut self, task: TaskId) {
        let (worker, attempt) = self.attempt(task);
        self.say(worker, WorkerMessage::Seceded { task, attempt });
    }

    fn rejoin(&mut self, task: TaskId) {
        let (worker, attempt) = self.attempt(task);
        self.say(worker, WorkerMessage::Rejoined { task, attempt });
    }

    fn coordinate(&mut self, client: ClientId, request: u64, call: CoordinationCall) {
        let request = RequestId(request);
        let message = ClientMessage::Coordinate { request, call };
        self.feed(Input::FromClient { client, message });
    }
}

#[test]
fn a_task_that_waits_without_its_slot_lets_another_take_it() {
    let mut cluster = Cluster::of(1, 1);
    let outer = cluster.submit(independent(4));
    assert_eq!(cluster.assigned().len(), 2, "one runs and one queues");
    cluster.start(task(outer, 0));
    cluster.secede(task(outer, 0));
    // Said again it changes nothing.
    cluster.secede(task(outer, 0));
    assert_eq!(cluster.assigned().len(), 3);
    cluster.tell(ClientMessage::Explain {
        task: task(outer, 0),
    });
    let explained = &cluster.client().explained[0].summary;
    assert!(explained.contains("without a slot"), "{explained}");
    // For a moment its worker has more than it offers.
    cluster.rejoin(task(outer, 0));
    cluster.rejoin(task(outer, 0));
    cluster.finish(task(outer, 0));
    assert_eq!(cluster.assigned().len(), 2, "the last one has to wait");
    cluster.run();
    assert_eq!(cluster.outcome(outer), Some(&GraphOutcome::Finished));
}

#[test]
fn any_number_of_tasks_can_wait_on_one_slot_each_for_the_next() {
    let mut cluster = Cluster::of(1, 1);
    let graphs: Vec<_> = (0..50)
        .map(|_| {
            let graph = cluster.submit(independent(1));
            cluster.start(task(graph, 0));
            cluster.secede(task(graph, 0));
            graph
        })
        .collect();
    assert_eq!(cluster.assigned().len(), 50);
    for graph in graphs.into_iter().rev() {
        cluster.rejoin(task(graph, 0));
        cluster.finish(task(graph, 0));
        assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
    }
}

#[test]
fn a_task_that_waits_without_its_slot_can_be_cancelled_and_holds_nothing_until_it_answers() {
    let mut cluster = Cluster::of(1, 1);
    let outer = cluster.submit(independent(1));
    let (worker, attempt) = cluster.attempt(task(outer, 0));
    cluster.start(task(outer, 0));
    cluster.secede(task(outer, 0));
    cluster.tell(ClientMessage::Cancel { graph: outer });
    // The messages cross: the task goes on for a moment.
    let rejoined = WorkerMessage::Rejoined {
        task: task(outer, 0),
        attempt,
    };
    cluster.say(worker, rejoined);
    let next = cluster.submit(independent(1));
    assert_eq!(cluster.assigned(), [task(next, 0)]);
    cluster.answer_cancel(worker);
    cluster.run();
    assert_eq!(cluster.outcome(next), Some(&GraphOutcome::Finished));
}

#[test]
fn a_task_that_waits_without_its_slot_runs_again_when_its_worker_dies() {
    let mut cluster = Cluster::of(1, 1);
    let outer = cluster.submit(independent(1));
    cluster.start(task(outer, 0));
    cluster.secede(task(outer, 0));
    let (worker, _) = cluster.attempt(task(outer, 0));
    cluster.kill(worker);
    assert_eq!(cluster.assigned(), []);
    cluster.join(1);
    // It holds its slot again, as every task that starts.
    let other = cluster.submit(independent(2));
    assert_eq!(cluster.assigned(), [task(outer, 0), task(other, 0)]);
    cluster.run();
    assert_eq!(cluster.outcome(outer), Some(&GraphOutcome::Finished));
}

#[test]
fn a_lock_of_a_lost_client_goes_to_the_next_and_a_lease_ends_by_the_schedulers_clock() {
    let other = ClientId(7);
    let mut cluster = Cluster::of(1, 1);
    cluster.join_client(other);
    let lock = || CoordinationCall::Lock {
        name: "a".to_owned(),
        patience: Patience::Forever,
        lease_ms: 500,
    };
    cluster.coordinate(other, 0, lock());
    cluster.coordinate(CLIENT, 0, lock());
    assert_eq!(cluster.client().coordinated, []);
    cluster.feed(Input::ClientLost { client: other });
    let granted = (RequestId(0), CoordinationAnswer::Granted);
    assert_eq!(cluster.client().coordinated, std::slice::from_ref(&granted));
    let due = cluster.scheduler.next_deadline().expect("a lease");
    cluster.now = due;
    cluster.feed(Input::Tick);
    let expired = (RequestId(0), CoordinationAnswer::Expired);
    assert_eq!(cluster.client().coordinated, [granted, expired]);
}
