//! A modelled cluster with a clock: what a run costs in time, in bytes moved and in partitions stored.
//!
//! Used by tests of placement. Its workers answer by themselves: they fetch one partition after the other over a link of
//! some speed, run what is ready in the scheduler's order, and tell of it. Nothing fails here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use transload_protocol::{
    Attempt, ClientHello, ClientId, ClientMessage, Event, EventRecord, GraphId, GraphOutcome,
    InputSpec, LayerIndex, LayerSpec, OutputSizes, PartitionId, Resources, SchedulerToClient,
    SchedulerToWorker, SourceTable, TaskAssignment, TaskGraph, TaskId, Tier, TierUsage, Time,
    WorkerHello, WorkerId, WorkerLoad, WorkerMessage,
};

use crate::{Action, Config, Input, Scheduler};

const CLIENT: ClientId = ClientId(0);

/// What the cluster is like, and what its tasks are.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    /// Slots of each worker, host by host.
    pub(crate) hosts: Vec<Vec<u32>>,
    /// One way of a message, in microseconds.
    pub(crate) latency_micros: u64,
    /// Of a link between hosts.
    pub(crate) far_bytes_per_micro: u64,
    /// Of a link within a host.
    pub(crate) near_bytes_per_micro: u64,
    /// How long a task takes, in microseconds: of each layer from least to most, the last entry for all further layers.
    pub(crate) task_micros: Vec<(u64, u64)>,
    /// Bytes of each output, as `task_micros`.
    pub(crate) output_bytes: Vec<u64>,
    /// What each worker reports that it may use of its memory.
    pub(crate) memory_bytes: u64,
    pub(crate) max_queue_per_slot: u32,
    pub(crate) seed: u64,
    /// Check the machine's invariants after every step.
    pub(crate) is_checked: bool,
}

impl Setting {
    /// So many workers on one host with tasks of 1 to 3 ms and outputs of 1 MB.
    pub(crate) fn of(workers: u32, slots: u32) -> Self {
        Self {
            hosts: vec![vec![slots; workers as usize]],
            latency_micros: 100,
            far_bytes_per_micro: 1_000,
            near_bytes_per_micro: 1_000,
            task_micros: vec![(1_000, 3_000)],
            output_bytes: vec![1_000_000],
            memory_bytes: u64::MAX,
            max_queue_per_slot: 64,
            seed: 1,
            is_checked: false,
        }
    }
}

/// What a run took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    /// From submission to the last task's end, in microseconds.
    pub(crate) micros: u64,
    pub(crate) moved_bytes: u64,
    pub(crate) moved_partitions: u64,
    /// Of these, bytes between hosts.
    pub(crate) far_bytes: u64,
    /// Most tasks whose outputs were stored at one time, on all workers together.
    pub(crate) peak_stored: u64,
    /// Most bytes of such tasks on one worker.
    pub(crate) peak_bytes: u64,
    /// Tasks given back before they began.
    pub(crate) recalled: u64,
    /// Times that a task began.
    pub(crate) runs: u64,
    /// By worker, tasks that it ended.
    pub(crate) ended: Vec<u64>,
}

#[derive(Debug)]
enum Happening {
    ToScheduler {
        worker: usize,
        message: WorkerMessage,
    },
    ToWorker {
        worker: usize,
        message: SchedulerToWorker,
    },
    Fetched {
        worker: usize,
        task: TaskId,
        attempt: Attempt,
    },
    Ends {
        worker: usize,
        task: TaskId,
    },
    Reports,
}

#[derive(Debug)]
struct Queued {
    assignment: TaskAssignment,
    is_fetched: bool,
    is_running: bool,
}

#[derive(Debug, Default)]
struct Worker {
    host: usize,
    free_slots: u32,
    tasks: BTreeMap<TaskId, Queued>,
    /// Those with all inputs here, in the order in which they run.
    ready: BTreeSet<(u64, TaskId)>,
    layers: BTreeMap<(GraphId, LayerIndex), LayerSpec>,
    sources: BTreeMap<(GraphId, LayerIndex, u32), SourceTable>,
    stored: BTreeMap<TaskId, u64>,
    stored_bytes: u64,
    /// Copies kept for further readers.
    copies: BTreeSet<PartitionId>,
    /// When its link has nothing more to do.
    link_free_at: Time,
}

pub(crate) struct Model {
    setting: Setting,
    pub(crate) scheduler: Scheduler,
    now: Time,
    agenda: BTreeMap<(Time, u64), Happening>,
    serial: u64,
    workers: Vec<Worker>,
    random: SmallRng,
    outcome: Option<GraphOutcome>,
    stored: u64,
    pub(crate) figures: Figures,
}

/// Runs a graph to its end.
pub(crate) fn run(setting: Setting, graph: TaskGraph) -> Figures {
    let mut model = Model::new(setting);
    model.submit(graph);
    model.finish();
    model.figures
}

impl Model {
    pub(crate) fn new(setting: Setting) -> Self {
        let config = Config {
            max_queue_per_slot: setting.max_queue_per_slot,
            task_events: false,
            ..Config::default()
        };
        let mut model = Self {
            scheduler: Scheduler::new(config),
            now: Time::default(),
            agenda: BTreeMap::new(),
            serial: 0,
            workers: Vec::new(),
            random: SmallRng::seed_from_u64(setting.seed),
            outcome: None,
            stored: 0,
            figures: Figures::default(),
            setting,
        };
        let hello = ClientHello {
            name: "model".to_owned(),
        };
        model.feed(Input::ClientConnected {
            client: CLIENT,
            hello,
        });
        for (host, workers) in model.setting.hosts.clone().into_iter().enumerate() {
            for slots in workers {
                model.join(host, slots);
            }
        }
        model.at(100_000, Happening::Reports);
        model
    }

    pub(crate) fn join(&mut self, host: usize, slots: u32) {
        let id = u32::try_from(self.workers.len()).expect("few");
        self.workers.push(Worker {
            host,
            free_slots: slots,
            ..Worker::default()
        });
        self.figures.ended.push(0);
        let hello = WorkerHello {
            name: format!("w{id}"),
            host: format!("host {host}"),
            process: id,
            resources: Resources::slots(slots),
            memory_bytes: self.setting.memory_bytes,
            addresses: Vec::new(),
            labels: BTreeSet::new(),
            shared: BTreeSet::new(),
            gpu: None,
        };
        let worker = WorkerId(id);
        self.feed(Input::WorkerConnected { worker, hello });
    }

    pub(crate) fn submit(&mut self, tasks: TaskGraph) {
        let graph = GraphId {
            client: CLIENT,
            sequence: 0,
        };
        let message = ClientMessage::Submit { graph, tasks };
        self.feed(Input::FromClient {
            client: CLIENT,
            message,
        });
    }

    /// Goes on until the graph has ended.
    pub(crate) fn finish(&mut self) {
        while self.outcome.is_none() {
            self.step();
        }
        assert_eq!(self.outcome, Some(GraphOutcome::Finished));
        self.figures.micros = self.now.micros;
    }

    fn step(&mut self) {
        let ((at, _), happening) = self.agenda.pop_first().expect("there is more to come");
        self.now = at;
        match happening {
            Happening::ToScheduler { worker, message } => {
                let worker = WorkerId(u32::try_from(worker).expect("few"));
                self.feed(Input::FromWorker { worker, message });
            }
            Happening::ToWorker { worker, message } => self.receive(worker, message),
            Happening::Fetched {
                worker,
                task,
                attempt,
            } => self.fetched(worker, task, attempt),
            Happening::Ends { worker, task } => self.ends(worker, task),
            Happening::Reports => self.report(),
        }
    }

    fn at(&mut self, after_micros: u64, happening: Happening) {
        self.serial += 1;
        let at = self.now.after_micros(after_micros);
        self.agenda.insert((at, self.serial), happening);
    }

    fn feed(&mut self, input: Input) {
        let mut actions = Vec::new();
        self.scheduler.handle(self.now, input, &mut actions);
        if self.setting.is_checked
            && let Err(error) = self.scheduler.check()
        {
            panic!("{error}");
        }
        for action in actions {
            match action {
                Action::ToWorker { worker, message } => {
                    let worker = worker.0 as usize;
                    let message = Happening::ToWorker { worker, message };
                    self.at(self.setting.latency_micros, message);
                }
                Action::ToClient {
                    message: SchedulerToClient::Ended { outcome, .. },
                    ..
                } => self.outcome = Some(outcome),
                Action::DropWorker { reason, .. } => panic!("{reason}"),
                Action::ToClient { .. } | Action::Emit(_) | Action::Record(_) | Action::Stop => {}
            }
        }
    }

    fn tell(&mut self, worker: usize, message: WorkerMessage) {
        let message = Happening::ToScheduler { worker, message };
        self.at(self.setting.latency_micros, message);
    }

    fn report(&mut self) {
        for worker in 0..self.workers.len() {
            let memory = TierUsage {
                tier: Tier::Host,
                used_bytes: self.workers[worker].stored_bytes,
                limit_bytes: self.setting.memory_bytes,
            };
            let load = WorkerLoad {
                tiers: vec![memory],
                ..WorkerLoad::default()
            };
            self.tell(worker, WorkerMessage::Heartbeat { load });
        }
        self.at(100_000, Happening::Reports);
    }

    fn receive(&mut self, at: usize, message: SchedulerToWorker) {
        let worker = &mut self.workers[at];
        match message {
            SchedulerToWorker::Layer { graph, layer, spec } => {
                worker
                    .layers
                    .insert((graph, layer), Arc::unwrap_or_clone(spec));
            }
            SchedulerToWorker::Sources {
                graph,
                layer,
                input,
                sources,
            } => {
                worker.sources.insert((graph, layer, input), sources);
            }
            SchedulerToWorker::Assign { tasks } => {
                for task in tasks {
                    self.assign(at, task);
                }
            }
            SchedulerToWorker::Release { tasks } => {
                for task in tasks {
                    if let Some(bytes) = worker.stored.remove(&task) {
                        worker.stored_bytes -= bytes;
                        self.stored -= 1;
                    }
                    worker.copies.retain(|copy| copy.task != task);
                }
            }
            SchedulerToWorker::Recall { task, attempt } => {
                let waits = |queued: &mut Queued| {
                    !queued.is_running && queued.assignment.attempt == attempt
                };
                if worker.tasks.get_mut(&task).is_some_and(waits)
                    && let Some(queued) = worker.tasks.remove(&task)
                {
                    worker.ready.remove(&(queued.assignment.order, task));
                    self.figures.recalled += 1;
                    self.tell(at, WorkerMessage::Cancelled { task, attempt });
                }
            }
            SchedulerToWorker::Cancel { .. }
            | SchedulerToWorker::Peers { .. }
            | SchedulerToWorker::PeerLost { .. }
            | SchedulerToWorker::Forget { .. }
            | SchedulerToWorker::Shutdown
            | SchedulerToWorker::Disown { .. }
            | SchedulerToWorker::Gang { .. } => {}
        }
    }

    /// What a task reads from others, whose partitions these are, and whether copies of them are kept.
    fn remote_inputs(
        &self,
        at: usize,
        task: &TaskAssignment,
    ) -> Vec<(PartitionId, usize, u64, bool)> {
        let worker = &self.workers[at];
        let graph = task.task.graph;
        let listed = task.inputs.iter();
        let mut inputs: Vec<_> = listed
            .map(|input| (input.partition, input.worker, input.bytes, input.shared))
            .collect();
        let spec = &worker.layers[&(graph, task.layer)];
        for (input, reads) in (0..).zip(&spec.inputs) {
            let (first, output, shared) = match reads {
                InputSpec::Listed => continue,
                InputSpec::Column { first_task } => {
                    (*first_task, task.task.index - spec.first_task, false)
                }
                InputSpec::All { first_task, shared } => (*first_task, 0, *shared),
            };
            let table = &worker.sources[&(graph, task.layer, input)];
            inputs.extend((first..).zip(table.iter()).map(|(index, (holder, bytes))| {
                let task = TaskId { graph, index };
                (PartitionId { task, output }, holder, bytes, shared)
            }));
        }
        inputs
            .into_iter()
            .map(|(partition, holder, bytes, shared)| (partition, holder.0 as usize, bytes, shared))
            .filter(|(partition, holder, ..)| *holder != at && !worker.copies.contains(partition))
            .collect()
    }

    fn assign(&mut self, at: usize, assignment: TaskAssignment) {
        let (task, attempt) = (assignment.task, assignment.attempt);
        let mut fetched_at = self.now;
        for (partition, holder, bytes, shared) in self.remote_inputs(at, &assignment) {
            let is_near = self.workers[holder].host == self.workers[at].host;
            let speed = if is_near {
                self.setting.near_bytes_per_micro
            } else {
                self.setting.far_bytes_per_micro
            };
            let micros = bytes / speed;
            let request = 2 * self.setting.latency_micros;
            let worker = &mut self.workers[at];
            let begin = worker.link_free_at.max(self.now.after_micros(request));
            worker.link_free_at = begin.after_micros(micros);
            fetched_at = worker.link_free_at;
            if shared {
                worker.copies.insert(partition);
            }
            self.figures.moved_bytes += bytes;
            self.figures.moved_partitions += 1;
            self.figures.far_bytes += if is_near { 0 } else { bytes };
            let event = Event::PartitionFetched {
                partition,
                from: WorkerId(u32::try_from(holder).expect("few")),
                to: WorkerId(u32::try_from(at).expect("few")),
                bytes,
                transport: "model".to_owned(),
                micros: micros + request,
            };
            let events = vec![EventRecord {
                at: self.now,
                event,
            }];
            self.tell(at, WorkerMessage::Events { events });
        }
        let queued = Queued {
            assignment,
            is_fetched: false,
            is_running: false,
        };
        self.workers[at].tasks.insert(task, queued);
        let wait = fetched_at.micros_since(self.now);
        if wait == 0 {
            self.fetched(at, task, attempt);
        } else {
            let worker = at;
            self.at(
                wait,
                Happening::Fetched {
                    worker,
                    task,
                    attempt,
                },
            );
        }
    }

    fn fetched(&mut self, at: usize, task: TaskId, attempt: Attempt) {
        let worker = &mut self.workers[at];
        if let Some(queued) = worker.tasks.get_mut(&task)
            && queued.assignment.attempt == attempt
        {
            queued.is_fetched = true;
            let order = queued.assignment.order;
            worker.ready.insert((order, task));
            self.start(at);
        }
    }

    fn start(&mut self, at: usize) {
        while self.workers[at].free_slots > 0
            && let Some((_, task)) = self.workers[at].ready.pop_first()
        {
            let worker = &mut self.workers[at];
            worker.free_slots -= 1;
            let queued = worker.tasks.get_mut(&task).expect("queued");
            queued.is_running = true;
            let attempt = queued.assignment.attempt;
            let layer = queued.assignment.layer.0 as usize;
            let micros = &self.setting.task_micros;
            let (least, most) = micros[layer.min(micros.len() - 1)];
            let micros = self.random.random_range(least..=most);
            self.figures.runs += 1;
            self.tell(at, WorkerMessage::Started { task, attempt });
            self.at(micros, Happening::Ends { worker: at, task });
        }
    }

    fn ends(&mut self, at: usize, task: TaskId) {
        let worker = &mut self.workers[at];
        let queued = worker.tasks.remove(&task).expect("running");
        worker.free_slots += 1;
        let layer = queued.assignment.layer;
        let outputs = worker.layers[&(task.graph, layer)].outputs;
        let sizes = &self.setting.output_bytes;
        let bytes = sizes[(layer.0 as usize).min(sizes.len() - 1)];
        let sizes = OutputSizes::of(&vec![bytes; outputs as usize]);
        worker.stored.insert(task, sizes.total_bytes);
        worker.stored_bytes += sizes.total_bytes;
        self.figures.peak_bytes = self.figures.peak_bytes.max(worker.stored_bytes);
        self.figures.ended[at] += 1;
        self.stored += 1;
        self.figures.peak_stored = self.figures.peak_stored.max(self.stored);
        let attempt = queued.assignment.attempt;
        self.tell(
            at,
            WorkerMessage::Finished {
                task,
                attempt,
                sizes,
                run_micros: 0,
            },
        );
        self.start(at);
    }
}
