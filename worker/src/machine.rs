//! The worker machine: its state, and what each message of the scheduler does to it. Driven by `runtime` and `sim`.
//!
//! `fetch`, `spill` and `run` hold the rest: how partitions arrive, move between tiers, and how tasks start and end. After
//! each input [`Worker::handle`] plans anew: what to evict, which tasks to start, which inputs to ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use transload_protocol::{
    Attempt, EventRecord, GraphId, InputLocation, LayerIndex, LayerSpec, PartitionId, Resources,
    SchedulerToWorker, TaskAssignment, TaskErrorKind, TaskId, Tier, Time, WorkerId, WorkerMessage,
};

use crate::memory::{Limits, Pressure};
use crate::report::next_beat;
use crate::spill::Obstacle;
use crate::store::{Claim, Need, State, Store};
use crate::tasks::{Layer, Phase, Place, Queued, Running};
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
    pub(crate) queue: BTreeMap<Place, Queued>,
    /// Where in `queue` a task stands.
    pub(crate) places: BTreeMap<TaskId, Place>,
    pub(crate) running: BTreeMap<TaskId, Running>,
    /// Resources that no running task occupies.
    pub(crate) free: Resources,
    pub(crate) store: Store,
    pub(crate) pressure: Pressure,
    /// Why spilling pauses, if it does.
    pub(crate) obstacle: Option<Obstacle>,
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
    /// It said goodbye; every later input is ignored.
    Left,
}

/// Queued tasks, and which of their inputs cannot be had from whom.
pub(crate) type Readers = BTreeMap<Place, Vec<(PartitionId, WorkerId)>>;

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
            queue: BTreeMap::new(),
            places: BTreeMap::new(),
            running: BTreeMap::new(),
            free: config.resources.clone(),
            store: Store::default(),
            pressure: Pressure::Calm,
            obstacle: None,
            events: Vec::new(),
            resident_bytes: 0,
            config,
        }
    }

    /// Takes in one input and appends what is to be done, in order. `now` must not go backwards.
    pub fn handle(&mut self, now: Time, input: Input, out: &mut Vec<Action>) {
        if self.link == Link::Left {
            return;
        }
        let turn = &mut Turn { now, out };
        self.wake(turn);
        self.dispatch(input, turn);
        if self.link != Link::Left {
            self.plan(turn);
            self.beat_if_due(turn);
        }
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
                let beat_at = next_beat(&self.config, turn.now);
                self.link = Link::Connected { worker, beat_at };
            }
            Input::FromScheduler(message) => self.on_message(message, turn),
            Input::Fetched {
                partition,
                from,
                bytes,
                micros,
                transport,
            } => self.on_fetched(partition, from, bytes, (micros, transport), turn),
            Input::FetchFailed {
                partition,
                from,
                gone,
                reason: _,
            } => self.on_fetch_failed(partition, from, gone, turn),
            Input::TaskDone {
                task,
                attempt,
                bytes,
            } => self.on_task_done(task, attempt, bytes, turn),
            Input::TaskFailed {
                task,
                attempt,
                kind,
                message,
            } => self.on_task_failed(task, attempt, (kind, message), turn),
            Input::Spilled { partition, bytes } => self.on_spilled(partition, bytes, turn),
            Input::SpillFailed { partition, reason } => {
                self.on_spill_failed(partition, reason, turn);
            }
            Input::Loaded { partition } => self.on_loaded(partition, turn),
            Input::LoadFailed {
                partition,
                reason: _,
            } => self.on_load_failed(partition, turn),
            Input::Measured { resident_bytes } => self.resident_bytes = resident_bytes,
            Input::Tick => {}
        }
    }

    fn on_message(&mut self, message: SchedulerToWorker, turn: &mut Turn<'_>) {
        match message {
            SchedulerToWorker::Peer { worker, addresses } => {
                if self.own_id() != Some(worker) {
                    self.peers.insert(worker);
                    turn.out.push(Action::AddPeer { worker, addresses });
                }
            }
            SchedulerToWorker::PeerLost { worker } => self.on_peer_lost(worker, turn),
            SchedulerToWorker::Layer { graph, layer, spec } => self.on_layer(graph, layer, spec),
            SchedulerToWorker::Assign { task } => self.on_assign(task, turn),
            SchedulerToWorker::Cancel { task, attempt } => self.on_cancel(task, attempt, turn),
            SchedulerToWorker::Release { tasks } => {
                for task in tasks {
                    self.release(task, turn);
                }
            }
            SchedulerToWorker::Forget { graph } => self.on_forget(graph, turn),
            SchedulerToWorker::Shutdown => self.on_shutdown(turn),
        }
    }

    fn on_layer(&mut self, graph: GraphId, index: LayerIndex, spec: LayerSpec) {
        let layer = Layer {
            name: spec.name,
            operator: spec.operator,
            inputs: spec.inputs as usize,
            resources: spec.resources,
        };
        self.layers.insert((graph, index), Arc::new(layer));
    }

    fn on_assign(&mut self, assignment: TaskAssignment, turn: &mut Turn<'_>) {
        let TaskAssignment {
            task,
            attempt,
            layer: layer_index,
            order,
            inputs,
        } = assignment;
        let known = self.running.get(&task).map(|running| running.attempt);
        let queued = self.queued(task).map(|(_, queued)| queued.attempt);
        match known.max(queued).map(|newest| attempt.cmp(&newest)) {
            // Said twice: its one answer is still to come.
            Some(std::cmp::Ordering::Equal) => return,
            Some(std::cmp::Ordering::Less) => {
                self.tell(WorkerMessage::Cancelled { task, attempt }, turn);
                return;
            }
            Some(std::cmp::Ordering::Greater) | None => self.abandon(task, Phase::Disowned, turn),
        }

        let Some(layer) = self.layers.get(&(task.graph, layer_index)).map(Arc::clone) else {
            let text = format!(
                "layer {layer_index} of graph {} is unknown here",
                task.graph
            );
            let error = (TaskErrorKind::UnknownOperator, text);
            self.tell_failed((task, attempt), None, error, turn);
            return;
        };
        if !self.config.resources.covers(&layer.resources) {
            let text = format!(
                "it needs {}, this worker has {}",
                layer.resources, self.config.resources
            );
            let error = (TaskErrorKind::Unschedulable, text);
            self.tell_failed((task, attempt), Some(&layer), error, turn);
            return;
        }

        self.replace_outputs(task, turn);
        let missing: BTreeSet<_> = inputs
            .iter()
            .filter(|input| !self.is_obtainable(input, task))
            .map(|input| (input.partition, input.worker))
            .collect();
        if !missing.is_empty() {
            let missing = missing.into_iter().collect();
            let message = WorkerMessage::MissingInputs {
                task,
                attempt,
                missing,
            };
            self.tell(message, turn);
            return;
        }

        let place = Place { order, task };
        for input in &inputs {
            let need = Need {
                from: input.worker,
                shared: input.shared,
            };
            self.store
                .add_need(input.partition, place, need, input.bytes);
        }
        self.places.insert(task, place);
        let queued = Queued {
            attempt,
            layer_index,
            layer,
            inputs,
        };
        self.queue.insert(place, queued);
    }

    /// It is here, or on its way, or a peer that we can reach is said to have it.
    fn is_obtainable(&self, input: &InputLocation, reader: TaskId) -> bool {
        let maker = input.partition.task;
        // What is still to be made here cannot be anywhere.
        if maker == reader || self.places.contains_key(&maker) {
            return false;
        }
        let is_here = self.store.get(input.partition).is_some_and(|record| {
            let is_kept = record.claim != Claim::Released;
            let is_coming = match record.state {
                State::Absent { .. } | State::Paused { .. } => false,
                State::Fetching { .. }
                | State::Host { .. }
                | State::Spilling
                | State::Disk { .. }
                | State::Loading { .. } => true,
            };
            is_kept && is_coming
        });
        is_here || self.peers.contains(&input.worker)
    }

    fn on_cancel(&mut self, task: TaskId, attempt: Attempt, turn: &mut Turn<'_>) {
        let is_running = self
            .running
            .get(&task)
            .is_some_and(|running| running.attempt == attempt);
        let is_queued = self
            .queued(task)
            .is_some_and(|(_, queued)| queued.attempt == attempt);
        // An attempt that is neither has been answered already: the two messages crossed.
        if is_running {
            self.stop(task, Phase::Cancelled, turn);
        } else if is_queued {
            self.cancel_queued(task, turn);
        }
    }

    /// Ends whatever is under way for a task: the queued attempt at once, the running one as soon as it can be stopped.
    fn abandon(&mut self, task: TaskId, phase: Phase, turn: &mut Turn<'_>) {
        self.stop(task, phase, turn);
        self.cancel_queued(task, turn);
    }

    fn stop(&mut self, task: TaskId, phase: Phase, turn: &mut Turn<'_>) {
        if let Some(running) = self.running.get_mut(&task)
            && running.abandon(phase)
        {
            let attempt = running.attempt;
            turn.out.push(Action::Stop { task, attempt });
        }
    }

    fn cancel_queued(&mut self, task: TaskId, turn: &mut Turn<'_>) {
        if let Some(place) = self.places.get(&task).copied()
            && let Some(queued) = self.unqueue(place, turn)
        {
            let attempt = queued.attempt;
            self.tell(WorkerMessage::Cancelled { task, attempt }, turn);
        }
    }

    /// Nobody needs the partitions of `task`. Those that a queued task can still fetch from a peer are fetched again;
    /// copies are kept while a queued task reads them.
    pub(crate) fn release(&mut self, task: TaskId, turn: &mut Turn<'_>) {
        let partitions = self.store.of_task(task);
        for partition in &partitions {
            let Some(record) = self.store.get(*partition) else {
                continue;
            };
            let claim = match record.claim {
                Claim::Output | Claim::Released => Claim::Released,
                Claim::Copy | Claim::SharedCopy => Claim::Copy,
            };
            self.store.set_claim(*partition, claim);
        }
        self.give_back_unreachable(&partitions, turn);
        for partition in partitions {
            self.settle(partition, turn);
        }
    }

    /// A new attempt of `task` will make these partitions anew: nothing of the old ones may be read or stay.
    fn replace_outputs(&mut self, task: TaskId, turn: &mut Turn<'_>) {
        let partitions = self.store.of_task(task);
        let readers = self.readers(&partitions, |_| true);
        self.give_back(readers, turn);
        self.release(task, turn);
    }

    fn on_forget(&mut self, graph: GraphId, turn: &mut Turn<'_>) {
        let tasks = self.queue.keys().map(|place| place.task);
        let tasks: Vec<_> = tasks.chain(self.running.keys().copied()).collect();
        for task in tasks.into_iter().filter(|task| task.graph == graph) {
            self.abandon(task, Phase::Disowned, turn);
        }
        let partitions = self.store.of_graph(graph);
        let readers = self.readers(&partitions, |_| true);
        self.give_back(readers, turn);
        for partition in partitions {
            let Some(record) = self.store.get(partition) else {
                continue;
            };
            if let State::Fetching { .. } = record.state {
                // Ids of a forgotten graph never come back, so a late answer cannot be taken for another one.
                turn.out.push(Action::CancelFetch { partition });
                self.store.remove(partition);
            } else {
                self.store.set_claim(partition, Claim::Released);
                self.settle(partition, turn);
            }
        }
        self.layers.retain(|(of, _), _| *of != graph);
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
        self.places.clear();
        self.running.clear();
        self.layers.clear();
        self.store = Store::default();
        self.free = self.config.resources.clone();
        self.pressure = Pressure::Calm;
        self.obstacle = None;
    }

    /// Takes a task out of the queue; what only it needed goes with it.
    pub(crate) fn unqueue(&mut self, place: Place, turn: &mut Turn<'_>) -> Option<Queued> {
        let queued = self.queue.remove(&place)?;
        self.places.remove(&place.task);
        for partition in queued.distinct_inputs() {
            self.store.remove_need(partition, place);
            self.settle(partition, turn);
        }
        Some(queued)
    }

    /// The queued tasks that read one of `partitions` from a holder that satisfies `is_affected`, and what they miss.
    pub(crate) fn readers(
        &self,
        partitions: &[PartitionId],
        is_affected: impl Fn(WorkerId) -> bool,
    ) -> Readers {
        let mut readers = Readers::new();
        for partition in partitions {
            let needs = self.store.get(*partition).map(|record| &record.needs);
            for (place, need) in needs.into_iter().flatten() {
                if is_affected(need.from) {
                    let missing = readers.entry(*place).or_default();
                    missing.push((*partition, need.from));
                }
            }
        }
        readers
    }

    /// Gives queued tasks back to the scheduler.
    pub(crate) fn give_back(&mut self, readers: Readers, turn: &mut Turn<'_>) {
        for (place, missing) in readers {
            if let Some(queued) = self.queue.get(&place) {
                let message = WorkerMessage::MissingInputs {
                    task: place.task,
                    attempt: queued.attempt,
                    missing,
                };
                self.tell(message, turn);
                self.unqueue(place, turn);
            }
        }
    }

    /// Gives back the queued tasks that would have to fetch one of `partitions` from a worker that is not a peer.
    pub(crate) fn give_back_unreachable(
        &mut self,
        partitions: &[PartitionId],
        turn: &mut Turn<'_>,
    ) {
        let mut unstored = partitions.to_vec();
        unstored.retain(|partition| {
            self.store.get(*partition).is_some_and(|record| {
                record.claim == Claim::Released
                    || matches!(record.state, State::Absent { .. } | State::Paused { .. })
            })
        });
        let readers = self.readers(&unstored, |from| !self.peers.contains(&from));
        self.give_back(readers, turn);
    }

    /// Drops a partition if nothing keeps it any more. To be called after every loss of a need, pin, claim or operation.
    pub(crate) fn settle(&mut self, partition: PartitionId, turn: &mut Turn<'_>) {
        let Some(record) = self.store.get(partition) else {
            return;
        };
        let is_needed = !record.needs.is_empty();
        let is_kept = match record.claim {
            Claim::Output | Claim::SharedCopy => true,
            Claim::Copy => is_needed,
            Claim::Released => false,
        };
        match record.state {
            State::Absent { .. } | State::Paused { .. } => {
                if !is_needed {
                    self.store.remove(partition);
                }
            }
            // Its answer decides.
            State::Fetching { .. } | State::Spilling | State::Loading { .. } => {}
            State::Host { pins: 1.. } => {}
            State::Host { pins: 0 } | State::Disk { .. } => {
                if !is_kept {
                    self.drop_stored(partition, turn);
                }
            }
        }
    }

    /// Drops a partition that is stored and idle. Whoever needs it fetches it again.
    pub(crate) fn drop_stored(&mut self, partition: PartitionId, turn: &mut Turn<'_>) {
        turn.out.push(Action::Drop { partition });
        self.make_absent(partition, turn);
    }

    /// A partition is not here any more.
    pub(crate) fn make_absent(&mut self, partition: PartitionId, turn: &mut Turn<'_>) {
        let Some(record) = self.store.get(partition) else {
            return;
        };
        if record.needs.is_empty() {
            self.store.remove(partition);
        } else {
            let claim = record.claim_of_copy();
            self.store.set_state(partition, State::Absent { failed: 0 });
            self.store.set_claim(partition, claim);
            self.give_back_unreachable(&[partition], turn);
        }
    }

    /// When a `Tick` is wanted, if nothing else happens before.
    pub fn next_deadline(&self) -> Option<Time> {
        let beat = match self.link {
            Link::Connected { beat_at, .. } => Some(beat_at),
            Link::Connecting | Link::Left => None,
        };
        let retry = self.store.indexes().retries.first().map(|(at, _)| *at);
        let spill = self.obstacle.as_ref().map(|obstacle| obstacle.until);
        [beat, retry, spill].into_iter().flatten().min()
    }

    /// Stored partitions and where they are. One that moves between tiers counts for the tier it leaves.
    pub fn holds(&self) -> Vec<(PartitionId, Tier)> {
        self.store
            .iter()
            .filter_map(|(partition, record)| Some((partition, record.state.tier()?)))
            .collect()
    }

    /// No task queued or running, and no answer of the driver outstanding.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.running.is_empty() && !self.store.usage().is_in_flight()
    }

    pub(crate) fn own_id(&self) -> Option<WorkerId> {
        match self.link {
            Link::Connected { worker, .. } => Some(worker),
            Link::Connecting | Link::Left => None,
        }
    }

    fn queued(&self, task: TaskId) -> Option<(Place, &Queued)> {
        let place = *self.places.get(&task)?;
        Some((place, self.queue.get(&place)?))
    }
}
