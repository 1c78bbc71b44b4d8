//! The worker machine: its state, and what each message of the scheduler does to it. Driven by `runtime` and `sim`.
//!
//! The rest by what it is about: `assign` (the queue), `run` (tasks that start and end),
//! `secede` (that wait without a slot), `gang` (that wait for each other), `fetch` (partitions that arrive),
//! `spill` (that move between tiers), `release` (that leave). After all that has arrived was taken in, [`Worker::decide`] plans
//! anew: what to evict, which tasks to start, which inputs to ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use transload_protocol::{
    Attempt, EventRecord, GraphId, LayerIndex, LayerSpec, PartitionId, Resources,
    SchedulerToWorker, TaskId, Tier, Time, WorkerId, WorkerMessage,
};

use crate::ahead::Ahead;
use crate::memory::{Limits, Pressure};
use crate::report::next_beat;
use crate::spill::{Obstacle, Rise};
use crate::store::Store;
use crate::tasks::{Layer, Phase, Place, Queued, Running, Sources};
use crate::{Action, Config, Input};

/// Above so many partitions and tasks a debug build no longer checks every invariant after every input.
const CHECKED_UP_TO: usize = 256;

/// The pure state machine of one worker.
#[derive(Debug, Clone)]
pub struct Worker {
    pub(crate) config: Config,
    pub(crate) limits: Limits,
    pub(crate) link: Link,
    /// Workers that partitions can be fetched from.
    pub(crate) peers: BTreeSet<WorkerId>,
    pub(crate) layers: BTreeMap<(GraphId, LayerIndex), Arc<Layer>>,
    /// Where the layers are that they read whole.
    pub(crate) sources: BTreeMap<(GraphId, LayerIndex), Sources>,
    pub(crate) queue: BTreeMap<Place, Queued>,
    /// Of `queue`, the tasks that need no slot: while there are none, nothing can start without a free one.
    pub(crate) slotless: usize,
    /// Of `queue`, the tasks that are helped with device memory.
    pub(crate) helped: usize,
    /// Of `queue`, the members of gangs.
    pub(crate) members_queued: usize,
    /// Attempts that made outputs of gangs.
    pub(crate) of_gangs: BTreeMap<TaskId, Attempt>,
    /// Where in `queue` a task stands.
    pub(crate) places: BTreeMap<TaskId, Place>,
    pub(crate) running: BTreeMap<TaskId, Running>,
    /// Seceded tasks that want to go on, by ticket.
    pub(crate) rejoining: BTreeMap<u64, TaskId>,
    pub(crate) next_ticket: u64,
    /// Resources that no running task occupies.
    pub(crate) free: Resources,
    pub(crate) ahead: Ahead,
    pub(crate) store: Store,
    pub(crate) pressure: Pressure,
    /// Why spilling to disk pauses, if it does.
    pub(crate) obstacle: Option<Obstacle>,
    /// The same of page-locked memory.
    pub(crate) lock_obstacle: Option<Obstacle>,
    /// Moves to page-locked memory that failed since the last that did not.
    pub(crate) lock_refusals: u32,
    /// Partitions may go from the device straight to disk, and back.
    pub(crate) has_direct_storage: bool,
    /// Since when partitions are being moved whose moves are under way.
    pub(crate) moving: BTreeMap<PartitionId, Time>,
    /// How moves to the device go.
    pub(crate) rise: Rise,
    /// Not told yet.
    pub(crate) events: Vec<EventRecord>,
    pub(crate) resident_bytes: u64,
}

/// Relation to the scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// Not welcomed yet.
    Connecting,
    /// Part of the cluster.
    Connected {
        /// Its own id.
        worker: WorkerId,
        /// When the next heartbeat is due.
        beat_at: Time,
    },
    /// The connection broke: it finishes what runs, keeps what it made, and tells nobody.
    Away {
        /// Its own id.
        worker: WorkerId,
    },
    /// It said goodbye; every later input is ignored.
    Left,
}

/// One call of [`Worker::handle`].
pub(crate) struct Turn<'a> {
    pub(crate) now: Time,
    pub(crate) out: &'a mut Vec<Action>,
}

impl Worker {
    /// A worker that holds nothing and is not connected.
    pub fn new(config: Config) -> Self {
        Self {
            limits: Limits::new(&config),
            link: Link::Connecting,
            peers: BTreeSet::new(),
            layers: BTreeMap::new(),
            sources: BTreeMap::new(),
            queue: BTreeMap::new(),
            slotless: 0,
            members_queued: 0,
            helped: 0,
            of_gangs: BTreeMap::new(),
            places: BTreeMap::new(),
            running: BTreeMap::new(),
            rejoining: BTreeMap::new(),
            next_ticket: 0,
            free: config.resources.clone(),
            ahead: Ahead::default(),
            store: Store::default(),
            pressure: Pressure::Calm,
            obstacle: None,
            lock_obstacle: None,
            lock_refusals: 0,
            has_direct_storage: false,
            moving: BTreeMap::new(),
            rise: Rise::default(),
            events: Vec::new(),
            resident_bytes: 0,
            config,
        }
    }

    /// Takes in one input, decides, and appends what is to be done, in order. `now` must not go backwards.
    pub fn handle(&mut self, now: Time, input: Input, out: &mut Vec<Action>) {
        self.take_in(now, input, out);
        self.decide(now, out);
    }

    /// Takes in one of several inputs that have arrived together; [`Worker::decide`] must follow the last one. `now` must not go
    /// backwards.
    pub fn take_in(&mut self, now: Time, input: Input, out: &mut Vec<Action>) {
        if self.link != Link::Left {
            self.dispatch(input, &mut Turn { now, out });
        }
    }

    /// Decides what follows from all that was taken in, and appends what is to be done, in order.
    pub fn decide(&mut self, now: Time, out: &mut Vec<Action>) {
        if self.link == Link::Left {
            return;
        }
        let turn = &mut Turn { now, out };
        self.wake(turn);
        self.ahead.on_time(now, self.config.resources.slots);
        self.plan(turn);
        self.beat_if_due(turn);
        debug_assert!(
            self.queue.len() + self.store.iter().take(CHECKED_UP_TO).count() >= CHECKED_UP_TO
                || self.check() == Ok(()),
            "{:?}",
            self.check()
        );
    }

    fn dispatch(&mut self, input: Input, turn: &mut Turn<'_>) {
        match input {
            Input::Connected { worker } => {
                let is_back = matches!(self.link, Link::Away { .. });
                let beat_at = next_beat(&self.config, turn.now);
                self.link = Link::Connected { worker, beat_at };
                if is_back {
                    self.tell_inventory(turn);
                }
            }
            Input::FromScheduler(message) => self.on_message(message, turn),
            Input::Fetched {
                partition,
                from,
                bytes,
                micros,
                transport,
                tier,
            } => self.on_fetched((partition, tier), from, bytes, (micros, transport), turn),
            Input::FetchFailed {
                partition,
                from,
                fault,
                reason,
            } => self.on_fetch_failed(partition, from, (fault, reason), turn),
            Input::TaskDone {
                task,
                attempt,
                bytes,
                rows,
            } => self.on_task_done(task, attempt, (bytes, rows), turn),
            Input::TaskFailed {
                task,
                attempt,
                kind,
                message,
                step,
            } => self.on_task_failed(task, attempt, (kind, message, step), turn),
            Input::Spilled { partition, bytes } => self.on_spilled(partition, bytes, turn),
            Input::SpillFailed { partition, reason } => {
                self.moving.remove(&partition);
                self.on_spill_failed(partition, reason, turn);
            }
            Input::Loaded { partition } => self.on_loaded(partition, turn),
            Input::LoadFailed {
                partition,
                is_lost,
                reason,
            } => {
                self.moving.remove(&partition);
                self.on_load_failed(partition, is_lost, reason, turn);
            }
            Input::Secede { task, attempt } => self.on_secede(task, attempt, turn),
            Input::Rejoin { task, attempt } => self.on_rejoin(task, attempt, turn),
            Input::HasDirectStorage => self.has_direct_storage = true,
            Input::Measured { resident_bytes } => self.resident_bytes = resident_bytes,
            Input::Tick => {}
            Input::Disconnected => self.on_disconnected(turn),
            Input::LinkDemoted {
                from,
                demotion,
                used,
            } => self.on_link_demoted(from, demotion, used, turn),
        }
    }

    fn on_message(&mut self, message: SchedulerToWorker, turn: &mut Turn<'_>) {
        match message {
            SchedulerToWorker::Peers { peers } => {
                for (worker, addresses) in peers.iter() {
                    if self.own_id() != Some(worker) {
                        self.peers.insert(worker);
                        turn.out.push(Action::AddPeer { worker, addresses });
                    }
                }
            }
            SchedulerToWorker::PeerLost { worker } => self.on_peer_lost(worker, turn),
            SchedulerToWorker::Layer { graph, layer, spec } => {
                self.on_layer(graph, layer, Arc::unwrap_or_clone(spec));
            }
            SchedulerToWorker::Sources {
                graph,
                layer,
                input,
                sources,
            } => {
                let of_layer = self.sources.entry((graph, layer)).or_default();
                of_layer.insert(input, sources);
            }
            SchedulerToWorker::Assign { tasks } => {
                for task in tasks {
                    self.on_assign(task, turn);
                }
            }
            SchedulerToWorker::Cancel { task, attempt } => self.on_cancel(task, attempt, turn),
            SchedulerToWorker::Release { tasks } => {
                for task in tasks {
                    self.release(task, turn);
                }
            }
            SchedulerToWorker::Forget { graph } => self.on_forget(graph, turn),
            SchedulerToWorker::Shutdown => self.on_shutdown(turn),
            SchedulerToWorker::Disown { task, attempt } => self.on_disown(task, attempt, turn),
            SchedulerToWorker::Recall { task, attempt } => self.on_recall(task, attempt, turn),
            // The driver keeps it for the operators.
            SchedulerToWorker::Gang { .. } => {}
        }
    }

    fn on_layer(&mut self, graph: GraphId, index: LayerIndex, spec: LayerSpec) {
        let steps = spec.fused.map(|fused| fused.steps).unwrap_or_default();
        let layer = Layer {
            steps: steps
                .into_iter()
                .map(|step| (step.layer, step.operator))
                .collect(),
            name: spec.name,
            operator: spec.operator,
            first_task: spec.first_task,
            inputs: spec.inputs,
            resources: spec.resources,
            gang: spec.gang,
            memory: spec.memory,
            input_memory: spec.input_memory,
        };
        self.layers.insert((graph, index), Arc::new(layer));
    }

    /// The process ends, and with it everything that is held here.
    fn on_shutdown(&mut self, turn: &mut Turn<'_>) {
        let running: Vec<_> = self.running.keys().copied().collect();
        for task in running {
            self.stop(task, Phase::Disowned, turn);
        }
        self.tell(WorkerMessage::Goodbye, turn);
        turn.out.push(Action::Exit);
        self.link = Link::Left;
        self.queue.clear();
        self.slotless = 0;
        self.members_queued = 0;
        self.helped = 0;
        self.of_gangs.clear();
        self.places.clear();
        self.running.clear();
        self.rejoining.clear();
        self.layers.clear();
        self.sources.clear();
        self.store = Store::default();
        self.free = self.config.resources.clone();
        self.ahead = Ahead::default();
        self.pressure = Pressure::Calm;
        self.obstacle = None;
        self.lock_obstacle = None;
        self.lock_refusals = 0;
        self.rise = Rise::default();
    }

    /// When a `Tick` is wanted, if nothing else happens before.
    pub fn next_deadline(&self) -> Option<Time> {
        let beat = match self.link {
            Link::Connected { beat_at, .. } => Some(beat_at),
            Link::Connecting | Link::Away { .. } | Link::Left => None,
        };
        let retry = self.store.indexes().retries.first().map(|(at, _)| *at);
        let obstacles = [&self.obstacle, &self.lock_obstacle];
        let spill = obstacles.into_iter().flatten().map(|it| it.until).min();
        [beat, retry, spill, self.rise.until]
            .into_iter()
            .flatten()
            .min()
    }

    /// Stored partitions and where they are. One that moves between tiers counts for the tier it leaves.
    pub fn holds(&self) -> Vec<(PartitionId, Tier)> {
        self.store
            .iter()
            .filter_map(|(partition, record)| Some((partition, record.tier()?)))
            .collect()
    }

    /// No task queued or running, and no answer of the driver outstanding.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.running.is_empty() && !self.store.usage().is_in_flight()
    }

    pub(crate) fn own_id(&self) -> Option<WorkerId> {
        match self.link {
            Link::Connected { worker, .. } | Link::Away { worker } => Some(worker),
            Link::Connecting | Link::Left => None,
        }
    }
}
