//! A cluster of fakes around the machine: workers that do what they are told when a test says so, clients that take notes.
//!
//! Used by this crate's tests. After each step it checks the machine's invariants, and that every message keeps the
//! protocol: layers and peers announced first, inputs where they are said to be, one attempt of a task at a time.

mod cases;
mod fakes;
pub(crate) mod graphs;
mod model;
mod random;
mod restart;
mod sharing;

use std::collections::{BTreeMap, BTreeSet};

use transload_protocol::{
    Attempt, ClientHello, ClientId, ClientMessage, Event, GraphId, GraphOutcome, JournalEntry,
    LayerIndex, MissingCause, OutputSizes, PartitionId, Resources, TaskError, TaskErrorKind,
    TaskGraph, TaskId, Time, WorkerHello, WorkerId, WorkerMessage,
};

use crate::{Action, Config, Input, Scheduler};
use fakes::{FakeClient, FakeWorker};

/// The one client of most tests.
pub(crate) const CLIENT: ClientId = ClientId(0);

pub(crate) struct Cluster {
    pub(crate) scheduler: Scheduler,
    pub(crate) now: Time,
    pub(crate) workers: BTreeMap<WorkerId, FakeWorker>,
    pub(crate) clients: BTreeMap<ClientId, FakeClient>,
    pub(crate) events: Vec<Event>,
    pub(crate) dropped: Vec<WorkerId>,
    pub(crate) stopped: bool,
    next_worker: u32,
    hellos: BTreeMap<WorkerId, WorkerHello>,
    /// Everything that was recorded.
    pub(crate) journal: Vec<JournalEntry>,
    /// Workers whose connection broke.
    pub(crate) absent: BTreeMap<WorkerId, FakeWorker>,
    /// Clients whose connection is broken.
    pub(crate) cut_off: BTreeSet<ClientId>,
    /// What they have submitted.
    pub(crate) submitted: BTreeMap<GraphId, TaskGraph>,
    /// Gangs of which all members were seen to run at the same time.
    met: BTreeSet<(GraphId, LayerIndex, Attempt)>,
}

impl Cluster {
    /// A scheduler with one client and no workers.
    pub(crate) fn new() -> Self {
        // Steps follow each other so fast here that every worker would get a long queue.
        Self::with(Config {
            max_queue_per_slot: 0,
            ..Config::default()
        })
    }

    pub(crate) fn with(config: Config) -> Self {
        let mut cluster = Self {
            scheduler: Scheduler::new(config),
            now: Time::default(),
            workers: BTreeMap::new(),
            clients: BTreeMap::new(),
            events: Vec::new(),
            dropped: Vec::new(),
            stopped: false,
            next_worker: 0,
            hellos: BTreeMap::new(),
            journal: Vec::new(),
            absent: BTreeMap::new(),
            cut_off: BTreeSet::new(),
            submitted: BTreeMap::new(),
            met: BTreeSet::new(),
        };
        cluster.join_client(CLIENT);
        cluster
    }

    /// With so many workers of so many slots each.
    pub(crate) fn of(workers: u32, slots: u32) -> Self {
        let mut cluster = Self::new();
        for _ in 0..workers {
            cluster.join(slots);
        }
        cluster
    }

    pub(crate) fn join_client(&mut self, client: ClientId) {
        self.clients.insert(client, FakeClient::default());
        self.feed(Input::ClientConnected {
            client,
            hello: ClientHello {
                name: format!("client {}", client.0),
            },
        });
    }

    pub(crate) fn join(&mut self, slots: u32) -> WorkerId {
        self.join_with(Resources::slots(slots))
    }

    pub(crate) fn join_with(&mut self, resources: Resources) -> WorkerId {
        self.join_as(resources, |_| ())
    }

    /// A worker of so many slots on that machine.
    pub(crate) fn join_on(&mut self, host: &str, slots: u32) -> WorkerId {
        self.join_as(Resources::slots(slots), |hello| {
            hello.host = host.to_owned()
        })
    }

    /// A worker that says something else of itself than others do.
    pub(crate) fn join_as(
        &mut self,
        resources: Resources,
        change: impl FnOnce(&mut WorkerHello),
    ) -> WorkerId {
        let worker = WorkerId(self.next_worker);
        self.next_worker += 1;
        self.workers.insert(worker, FakeWorker::default());
        let parity = ["even", "odd"][worker.0 as usize % 2];
        let mut hello = WorkerHello {
            name: format!("worker {}", worker.0),
            host: "here".to_owned(),
            process: worker.0,
            resources,
            memory_bytes: 1 << 30,
            addresses: Vec::new(),
            labels: [parity.to_owned()].into(),
            shared: BTreeSet::new(),
            gpu: None,
        };
        change(&mut hello);
        self.hellos.insert(worker, hello.clone());
        self.feed(Input::WorkerConnected { worker, hello });
        worker
    }

    /// One step of the machine, its check, and delivery of what it says.
    pub(crate) fn feed(&mut self, input: Input) {
        let mut actions = Vec::new();
        self.now = self.now.after_micros(10);
        let label = format!("{input:?}");
        self.scheduler.handle(self.now, input, &mut actions);
        if let Err(error) = self.scheduler.check() {
            panic!("after {label}: {error}");
        }
        for action in actions {
            self.carry_out(action);
        }
    }

    pub(crate) fn carry_out(&mut self, action: Action) {
        match action {
            Action::ToClient { client, message } => {
                let client = self.clients.get_mut(&client).expect("a connected client");
                client.receive(message);
            }
            Action::ToWorker { worker, message } => {
                let fake = self.workers.get_mut(&worker).expect("a living worker");
                fake.inbox.push_back(message);
                if !fake.slow {
                    self.deliver_all(worker);
                }
            }
            Action::DropWorker { worker, .. } => {
                self.dropped.push(worker);
                self.workers.remove(&worker);
            }
            Action::Emit(record) => self.events.push(record.event),
            Action::Stop => self.stopped = true,
            Action::Record(entry) => self.journal.push(entry),
        }
    }

    pub(crate) fn deliver_all(&mut self, worker: WorkerId) {
        while self.deliver_one(worker) {}
    }

    /// The worker reads its next message; false when there is none.
    pub(crate) fn deliver_one(&mut self, worker: WorkerId) -> bool {
        let fake = self.workers.get_mut(&worker).expect("a living worker");
        match fake.inbox.pop_front() {
            Some(message) => {
                fake.receive(worker, message);
                true
            }
            None => false,
        }
    }

    pub(crate) fn tell(&mut self, message: ClientMessage) {
        self.feed(Input::FromClient {
            client: CLIENT,
            message,
        });
    }

    pub(crate) fn tell_as(&mut self, client: ClientId, message: ClientMessage) {
        self.feed(Input::FromClient { client, message });
    }

    pub(crate) fn say(&mut self, worker: WorkerId, message: WorkerMessage) {
        self.feed(Input::FromWorker { worker, message });
    }

    /// Submits a graph as the first client's next one.
    pub(crate) fn submit(&mut self, tasks: TaskGraph) -> GraphId {
        self.submit_as(CLIENT, tasks)
    }

    pub(crate) fn submit_as(&mut self, client: ClientId, tasks: TaskGraph) -> GraphId {
        let fake = self.clients.get_mut(&client).expect("connected");
        let graph = GraphId {
            client,
            sequence: fake.submitted,
        };
        fake.submitted += 1;
        self.submitted.insert(graph, tasks.clone());
        self.feed(Input::FromClient {
            client,
            message: ClientMessage::Submit { graph, tasks },
        });
        graph
    }

    /// The worker that a task is assigned to.
    pub(crate) fn worker_of(&self, task: TaskId) -> Option<WorkerId> {
        self.workers
            .iter()
            .find(|(_, worker)| worker.assigned.contains_key(&task))
            .map(|(id, _)| *id)
    }

    /// Whether a running task has met all of its gang, if it is of one: none comes to its end before.
    pub(crate) fn has_met_its_gang(&mut self, task: TaskId) -> bool {
        let worker = self.worker_of(task).expect("assigned");
        let fake = &self.workers[&worker].assigned[&task];
        let Some(members) = &fake.gang else {
            return true;
        };
        let (graph, layer, attempt) = (task.graph, fake.task.layer, fake.task.attempt);
        let run = self.workers.values().flat_map(|worker| {
            worker.assigned.values().filter(|other| {
                (other.task.task.graph, other.task.layer) == (graph, layer)
                    && other.task.attempt == attempt
                    && other.fetched
            })
        });
        if run.count() == members.len() {
            self.met.insert((graph, layer, attempt));
        }
        self.met.contains(&(graph, layer, attempt))
    }

    pub(crate) fn assigned(&self) -> Vec<TaskId> {
        let mut tasks: Vec<TaskId> = self
            .workers
            .values()
            .flat_map(|worker| worker.assigned.keys().copied())
            .collect();
        tasks.sort_unstable();
        tasks
    }

    pub(crate) fn start(&mut self, task: TaskId) {
        let worker = self.worker_of(task).expect("assigned");
        let attempt = self.workers[&worker].assigned[&task].task.attempt;
        self.say(worker, WorkerMessage::Started { task, attempt });
    }

    /// The task's worker reports it done, with 100 B per output.
    pub(crate) fn finish(&mut self, task: TaskId) -> WorkerId {
        let worker = self.worker_of(task).expect("assigned");
        let bytes = vec![100; self.workers[&worker].assigned[&task].outputs as usize];
        self.finish_with(task, &bytes)
    }

    pub(crate) fn finish_with(&mut self, task: TaskId, bytes: &[u64]) -> WorkerId {
        let worker = self.worker_of(task).expect("assigned");
        let fake = self.workers.get_mut(&worker).expect("alive");
        let attempt = fake.finish(task);
        self.say(
            worker,
            WorkerMessage::Finished {
                task,
                attempt,
                sizes: OutputSizes::of(bytes),
                run_micros: RUN_MICROS,
            },
        );
        worker
    }

    /// Several tasks end, and all of that is taken in before anything is decided.
    pub(crate) fn finish_together(&mut self, tasks: &[TaskId]) {
        let mut actions = Vec::new();
        for task in tasks.iter().copied() {
            let worker = self.worker_of(task).expect("assigned");
            let fake = self.workers.get_mut(&worker).expect("alive");
            let bytes = vec![100; fake.assigned[&task].outputs as usize];
            let message = WorkerMessage::Finished {
                task,
                attempt: fake.finish(task),
                sizes: OutputSizes::of(&bytes),
                run_micros: RUN_MICROS,
            };
            let input = Input::FromWorker { worker, message };
            self.scheduler.take_in(self.now, input, &mut actions);
        }
        self.scheduler.decide(&mut actions);
        self.scheduler.check().expect("sound");
        for action in actions {
            self.carry_out(action);
        }
    }

    pub(crate) fn fail(&mut self, task: TaskId, kind: TaskErrorKind) -> WorkerId {
        let worker = self.worker_of(task).expect("assigned");
        let fake = self.workers.get_mut(&worker).expect("alive");
        let attempt = fake.drop_task(task);
        let error = TaskError {
            task,
            layer: String::new(),
            operator: String::new(),
            worker: None,
            kind,
            message: "boom".to_owned(),
            place: String::new(),
            attempts: 0,
        };
        let error = Box::new(error);
        let message = WorkerMessage::Failed {
            attempt,
            error,
            run_micros: RUN_MICROS,
        };
        self.say(worker, message);
        worker
    }

    pub(crate) fn miss(&mut self, task: TaskId, missing: Vec<(PartitionId, WorkerId)>) {
        self.miss_for(task, missing, MissingCause::Gone);
    }

    /// A worker could not fetch this from that one.
    pub(crate) fn not_reach(&mut self, task: TaskId, missing: (PartitionId, WorkerId)) {
        let reason = "no route to host".to_owned();
        self.miss_for(task, vec![missing], MissingCause::Unreached { reason });
    }

    fn miss_for(
        &mut self,
        task: TaskId,
        missing: Vec<(PartitionId, WorkerId)>,
        cause: MissingCause,
    ) {
        let worker = self.worker_of(task).expect("assigned");
        let attempt = self
            .workers
            .get_mut(&worker)
            .expect("alive")
            .drop_task(task);
        self.say(
            worker,
            WorkerMessage::MissingInputs {
                task,
                attempt,
                missing,
                cause,
            },
        );
    }

    pub(crate) fn holds(&self, worker: WorkerId, partition: PartitionId) -> bool {
        self.workers
            .get(&worker)
            .is_some_and(|worker| worker.stored.contains(&partition.task))
    }

    /// A worker answers its oldest cancel.
    pub(crate) fn answer_cancel(&mut self, worker: WorkerId) {
        let (task, attempt) = self
            .workers
            .get_mut(&worker)
            .expect("alive")
            .cancelling
            .remove(0);
        self.say(worker, WorkerMessage::Cancelled { task, attempt });
    }

    /// No worker counts as silent for a while.
    pub(crate) fn say_alive(&mut self) {
        let workers: Vec<WorkerId> = self.workers.keys().copied().collect();
        self.now = self.now.after_micros(1);
        for worker in workers {
            let load = Default::default();
            self.say(worker, WorkerMessage::Heartbeat { load });
        }
    }

    /// Time passes until every task that has failed may be tried again.
    pub(crate) fn wait_for_retries(&mut self) {
        while let Some(due) = self.scheduler.retries.next_due() {
            self.now = self.now.max(due);
            self.feed(Input::Tick);
        }
    }

    /// The worker's process is gone.
    pub(crate) fn kill(&mut self, worker: WorkerId) {
        self.workers.remove(&worker).expect("alive");
        self.feed(Input::WorkerLost {
            worker,
            reason: "killed".to_owned(),
        });
    }

    /// Finishes whatever is assigned, in task order, until nothing is.
    pub(crate) fn run(&mut self) {
        while let Some(task) = self.assigned().first().copied() {
            self.finish(task);
        }
    }

    pub(crate) fn client(&self) -> &FakeClient {
        &self.clients[&CLIENT]
    }

    pub(crate) fn outcome(&self, graph: GraphId) -> Option<&GraphOutcome> {
        self.clients[&graph.client].ended.get(&graph)
    }

    /// The client needs nothing of these tasks any more.
    pub(crate) fn release(&mut self, tasks: Vec<TaskId>) {
        for task in &tasks {
            let client = self.clients.get_mut(&task.graph.client).expect("connected");
            client.released.insert(*task);
            client.forget();
        }
        self.tell(ClientMessage::Release { tasks });
    }

    pub(crate) fn count_events(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|event| wanted(event)).count()
    }

    pub(crate) fn recomputed(&self) -> Vec<u32> {
        self.events
            .iter()
            .filter_map(|event| match event {
                Event::TaskRecomputed { task } => Some(task.index),
                _ => None,
            })
            .collect()
    }

    /// Nothing of any graph is left anywhere.
    pub(crate) fn assert_clean(&self) {
        let info = self.scheduler.info();
        assert_eq!((info.graphs_running, info.tasks_ready), (0, 0));
        for (id, worker) in &self.workers {
            assert!(worker.is_clean(), "worker {id} still has {worker:?}");
        }
        assert!(info.workers.iter().all(|worker| worker.assigned == 0));
    }
}

/// How long every fake task is said to run.
pub(crate) const RUN_MICROS: u64 = 200_000;

pub(crate) fn task(graph: GraphId, index: u32) -> TaskId {
    TaskId { graph, index }
}

pub(crate) fn partition(graph: GraphId, index: u32) -> PartitionId {
    PartitionId {
        task: task(graph, index),
        output: 0,
    }
}
