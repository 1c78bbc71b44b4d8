//! Carries what happened into the worker machine and its actions out into the world. Decides nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use transload_gpu::{Partition, SpillDirectory, SpilledPartition};
use transload_protocol::{
    Address, Attempt, GraphId, LayerIndex, LayerSpec, PartitionId, SchedulerToWorker,
    TaskErrorKind, TaskId, WorkerId, WorkerMessage,
};
use transload_worker::{Action, Input, Worker};

use super::disk;
use super::executor::Executor;
use super::store::{Held, PartitionStore};
use crate::clock::Clock;
use crate::config::resident_bytes;
use crate::control::{Connected, ControlError, SendLimits};
use crate::fetcher::{FetchError, Fetched, Fetcher};
use crate::{OperatorError, RuntimeError};

/// How long the scheduler may take to close its side after we have closed ours.
const LINGER: Duration = Duration::from_secs(1);
const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// Something that this process has finished.
pub(super) enum Completion {
    /// An operator has ended.
    Task {
        task: TaskId,
        attempt: Attempt,
        result: Result<Vec<Partition>, OperatorError>,
    },
    /// A fetch has ended.
    Fetch {
        id: PartitionId,
        number: u64,
        micros: u64,
        result: Result<Fetched, FetchError>,
    },
    /// A partition was written, or could not be.
    Spill {
        id: PartitionId,
        result: Result<Arc<SpilledPartition>, String>,
    },
    /// A partition was read back, or could not be.
    Load {
        id: PartitionId,
        result: Result<Partition, String>,
    },
}

/// What a driver is made of.
pub(super) struct Parts {
    pub(super) id: WorkerId,
    pub(super) machine: transload_worker::Config,
    /// For people.
    pub(super) scheduler: String,
    pub(super) executor: Executor,
    pub(super) store: Arc<PartitionStore>,
    pub(super) spill: Arc<SpillDirectory>,
    pub(super) fetcher: Arc<Fetcher>,
    pub(super) stop_timeout: Duration,
}

/// A fetch in flight. A completion with another number is of one that was cancelled.
struct InFlight {
    number: u64,
    from: WorkerId,
    task: AbortHandle,
}

/// The machine and everything it acts on.
pub(super) struct Driver {
    parts: Parts,
    worker: Worker,
    clock: Clock,
    /// Inputs that follow from actions, to be fed before anything else.
    pending: VecDeque<Input>,
    actions: Vec<Action>,
    /// Messages to the scheduler, sent together.
    outgoing: Vec<WorkerMessage>,
    peers: HashMap<WorkerId, Arc<[Address]>>,
    layers: HashMap<GraphId, HashMap<LayerIndex, Arc<LayerSpec>>>,
    fetches: HashMap<PartitionId, InFlight>,
    next_fetch: u64,
    /// Spills and loads, which must be over before the spill directory is removed.
    disk: JoinSet<()>,
    completions: mpsc::UnboundedSender<Completion>,
    completed: mpsc::UnboundedReceiver<Completion>,
    exiting: bool,
}

impl Driver {
    pub(super) fn new(parts: Parts) -> Self {
        let (completions, completed) = mpsc::unbounded_channel();
        Self {
            worker: Worker::new(parts.machine.clone()),
            parts,
            clock: Clock::start(),
            pending: VecDeque::new(),
            actions: Vec::new(),
            outgoing: Vec::new(),
            peers: HashMap::new(),
            layers: HashMap::new(),
            fetches: HashMap::new(),
            next_fetch: 0,
            disk: JoinSet::new(),
            completions,
            completed,
            exiting: false,
        }
    }

    /// Runs until the machine wants to exit, `stop` is cancelled, or the scheduler is lost; then cleans up.
    pub(super) async fn run(
        mut self,
        scheduler: Connected,
        limits: SendLimits,
        stop: CancellationToken,
    ) -> Result<(), RuntimeError> {
        let (outbox, queue) = mpsc::unbounded_channel();
        let mut sender = tokio::spawn(scheduler.writer.send_all(queue, limits));
        let mut reader = scheduler.reader;
        let mut messages = Vec::new();
        let mut measure = interval(MEASURE_EVERY);
        measure.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.pending.push_back(Input::Connected {
            worker: self.parts.id,
        });
        let ended = loop {
            self.feed_pending();
            if !self.outgoing.is_empty() {
                // A sender that has failed is noticed below.
                let _ = outbox.send(std::mem::take(&mut self.outgoing));
            }
            if self.exiting {
                break Ok(());
            }
            let deadline = self.worker.next_deadline();
            let wake = deadline.map_or_else(Instant::now, |time| self.clock.instant(time));
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    let _ = outbox.send(vec![WorkerMessage::Goodbye]);
                    break Ok(());
                }
                Some(completion) = self.completed.recv() => {
                    self.complete(completion);
                    while let Ok(completion) = self.completed.try_recv() {
                        self.complete(completion);
                    }
                }
                read = reader.read_many(&mut messages) => {
                    for message in messages.drain(..) {
                        self.hear(message);
                    }
                    if let Err(error) = read {
                        self.feed_pending();
                        break if self.exiting { Ok(()) } else { Err(self.lost(&error)) };
                    }
                }
                sent = &mut sender => {
                    let reason = match sent {
                        Ok(Ok(())) => "the sender ended".to_owned(),
                        Ok(Err(error)) => error.to_string(),
                        Err(error) => error.to_string(),
                    };
                    break Err(RuntimeError::SchedulerLost { address: self.parts.scheduler.clone(), reason });
                }
                _ = measure.tick() => self.pending.push_back(Input::Measured {
                    resident_bytes: resident_bytes(),
                }),
                () = sleep_until(wake), if deadline.is_some() => self.pending.push_back(Input::Tick),
            }
            self.tick_if_due();
        };
        // What is queued for the scheduler still leaves; it does not matter if a scheduler that is gone does not take it.
        drop(outbox);
        let patience = self.parts.stop_timeout;
        self.clean_up().await;
        if !sender.is_finished() && timeout(patience, &mut sender).await.is_err() {
            sender.abort();
        }
        // Closing while unread input waits would make the system throw away our last words.
        let _ = timeout(LINGER, reader.drain()).await;
        ended
    }

    /// A deadline passes even while something else keeps happening.
    fn tick_if_due(&mut self) {
        let now = self.clock.now();
        if self.worker.next_deadline().is_some_and(|time| time <= now)
            && self.pending.back() != Some(&Input::Tick)
        {
            self.pending.push_back(Input::Tick);
        }
    }

    fn lost(&self, error: &ControlError) -> RuntimeError {
        RuntimeError::SchedulerLost {
            address: self.parts.scheduler.clone(),
            reason: error.to_string(),
        }
    }

    fn feed_pending(&mut self) {
        while let Some(input) = self.pending.pop_front() {
            let mut actions = std::mem::take(&mut self.actions);
            self.worker.handle(self.clock.now(), input, &mut actions);
            for action in actions.drain(..) {
                self.act(action);
            }
            self.actions = actions;
        }
    }

    /// Takes what the driver itself needs out of a message and hands it on.
    fn hear(&mut self, message: SchedulerToWorker) {
        let forgotten = match &message {
            SchedulerToWorker::Layer { graph, layer, spec } => {
                let layers = self.layers.entry(*graph).or_default();
                layers.insert(*layer, Arc::new(spec.clone()));
                None
            }
            SchedulerToWorker::Forget { graph } => Some(*graph),
            SchedulerToWorker::Peer { .. }
            | SchedulerToWorker::PeerLost { .. }
            | SchedulerToWorker::Assign { .. }
            | SchedulerToWorker::Cancel { .. }
            | SchedulerToWorker::Release { .. }
            | SchedulerToWorker::Shutdown => None,
        };
        self.pending.push_back(Input::FromScheduler(message));
        self.feed_pending();
        if let Some(graph) = forgotten {
            self.layers.remove(&graph);
        }
    }

    fn complete(&mut self, completion: Completion) {
        let input = match completion {
            Completion::Task {
                task,
                attempt,
                result,
            } => self.task_ended(task, attempt, result),
            Completion::Fetch {
                id,
                number,
                micros,
                result,
            } => match self.fetch_ended(id, number, micros, result) {
                Some(input) => input,
                None => return,
            },
            Completion::Spill { id, result } => self.spill_ended(id, result),
            Completion::Load { id, result } => self.load_ended(id, result),
        };
        self.pending.push_back(input);
        self.feed_pending();
    }

    fn task_ended(
        &mut self,
        task: TaskId,
        attempt: Attempt,
        result: Result<Vec<Partition>, OperatorError>,
    ) -> Input {
        self.parts.executor.forget(task, attempt);
        match result {
            Ok(partitions) => {
                let bytes = partitions.iter().map(Partition::bytes).collect();
                for (output, partition) in (0..).zip(partitions) {
                    let id = PartitionId { task, output };
                    self.parts.store.insert_output(id, partition);
                }
                Input::TaskDone {
                    task,
                    attempt,
                    bytes,
                }
            }
            Err(error) => {
                tracing::debug!(%task, kind = ?error.kind, message = %error.message, "task failed");
                Input::TaskFailed {
                    task,
                    attempt,
                    kind: error.kind,
                    message: error.message,
                }
            }
        }
    }

    fn fetch_ended(
        &mut self,
        id: PartitionId,
        number: u64,
        micros: u64,
        result: Result<Fetched, FetchError>,
    ) -> Option<Input> {
        // A fetch that was cancelled meanwhile: what it brought is dropped here.
        self.fetches
            .get(&id)
            .filter(|fetch| fetch.number == number)?;
        let from = self.fetches.remove(&id)?.from;
        Some(match result {
            Ok(fetched) => {
                let bytes = fetched.partition.bytes();
                self.parts.store.insert(id, fetched.partition);
                Input::Fetched {
                    partition: id,
                    from,
                    bytes,
                    micros,
                    transport: fetched.transport,
                }
            }
            Err(error) => Input::FetchFailed {
                partition: id,
                from,
                gone: error.is_gone(),
                reason: error.to_string(),
            },
        })
    }

    fn spill_ended(
        &mut self,
        id: PartitionId,
        result: Result<Arc<SpilledPartition>, String>,
    ) -> Input {
        let kept = result.and_then(|spilled| {
            let bytes = spilled.bytes();
            match self.parts.store.replace(id, Held::Disk(spilled)) {
                Ok(()) => Ok(bytes),
                Err(_) => Err("it was dropped meanwhile".to_owned()),
            }
        });
        match kept {
            Ok(bytes) => Input::Spilled {
                partition: id,
                bytes,
            },
            Err(reason) => Input::SpillFailed {
                partition: id,
                reason,
            },
        }
    }

    fn load_ended(&mut self, id: PartitionId, result: Result<Partition, String>) -> Input {
        let kept = result.and_then(|partition| {
            self.parts
                .store
                .replace(id, Held::Host(partition))
                .map_err(|_| "it was dropped meanwhile".to_owned())
        });
        match kept {
            Ok(()) => Input::Loaded { partition: id },
            Err(reason) => {
                self.discard(id);
                Input::LoadFailed {
                    partition: id,
                    reason,
                }
            }
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::ToScheduler(message) => self.outgoing.push(message),
            Action::AddPeer { worker, addresses } => {
                self.peers.insert(worker, addresses.into());
            }
            Action::RemovePeer { worker } => self.remove_peer(worker),
            Action::Fetch {
                partition,
                from,
                bytes,
            } => self.fetch(partition, from, bytes),
            Action::CancelFetch { partition } => {
                if let Some(fetch) = self.fetches.remove(&partition) {
                    fetch.task.abort();
                }
            }
            Action::Start {
                task,
                attempt,
                layer,
                inputs,
            } => self.start(task, attempt, layer, &inputs),
            Action::Stop { task, attempt } => self.parts.executor.cancel(task, attempt),
            Action::Spill { partition } => {
                let (spill, store) = (Arc::clone(&self.parts.spill), Arc::clone(&self.parts.store));
                self.on_disk(move || disk::spill(&spill, &store, partition));
            }
            Action::Load { partition } => {
                let store = Arc::clone(&self.parts.store);
                self.on_disk(move || disk::load(&store, partition));
            }
            Action::Drop { partition } => self.discard(partition),
            Action::Exit => self.exiting = true,
        }
    }

    fn remove_peer(&mut self, worker: WorkerId) {
        if let Some(addresses) = self.peers.remove(&worker) {
            self.parts.fetcher.forget(&addresses);
        }
        let mut over: Vec<PartitionId> = self
            .fetches
            .iter()
            .filter(|(_, fetch)| fetch.from == worker)
            .map(|(id, _)| *id)
            .collect();
        over.sort_unstable();
        for partition in over {
            if let Some(fetch) = self.fetches.remove(&partition) {
                fetch.task.abort();
            }
            self.pending.push_back(Input::FetchFailed {
                partition,
                from: worker,
                gone: false,
                reason: format!("worker {worker} is gone"),
            });
        }
    }

    fn fetch(&mut self, id: PartitionId, from: WorkerId, bytes: u64) {
        let Some(addresses) = self.peers.get(&from).cloned() else {
            self.pending.push_back(Input::FetchFailed {
                partition: id,
                from,
                gone: false,
                reason: format!("worker {from} is unknown here"),
            });
            return;
        };
        let number = self.next_fetch;
        self.next_fetch += 1;
        let fetcher = Arc::clone(&self.parts.fetcher);
        let destination = self.parts.store.destination(bytes);
        let completions = self.completions.clone();
        let task = tokio::spawn(async move {
            let start = Instant::now();
            let result = fetcher.fetch(&addresses, id, &destination).await;
            let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
            // A worker that is ending listens no more.
            let _ = completions.send(Completion::Fetch {
                id,
                number,
                micros,
                result,
            });
        });
        let fetch = InFlight {
            number,
            from,
            task: task.abort_handle(),
        };
        if let Some(old) = self.fetches.insert(id, fetch) {
            old.task.abort();
        }
    }

    fn start(
        &mut self,
        task: TaskId,
        attempt: Attempt,
        layer: LayerIndex,
        inputs: &[Vec<PartitionId>],
    ) {
        let spec = self
            .layers
            .get(&task.graph)
            .and_then(|layers| layers.get(&layer))
            .cloned();
        let partitions: Option<Vec<Vec<Partition>>> = inputs
            .iter()
            .map(|ids| {
                ids.iter()
                    .map(|id| self.parts.store.in_memory(*id))
                    .collect()
            })
            .collect();
        match (spec, partitions) {
            (Some(spec), Some(partitions)) => {
                self.parts
                    .executor
                    .run(task, attempt, spec, partitions, &self.completions);
            }
            (spec, _) => {
                let what = if spec.is_none() { "layer" } else { "inputs" };
                debug_assert!(false, "task {task} was started without its {what}");
                tracing::error!(%task, %layer, what, "a task was started without what it needs");
                self.pending.push_back(Input::TaskFailed {
                    task,
                    attempt,
                    kind: TaskErrorKind::CorruptPartition,
                    message: format!("its {what} are not on this worker"),
                });
            }
        }
    }

    fn on_disk(&mut self, operation: impl FnOnce() -> Completion + Send + 'static) {
        while self.disk.try_join_next().is_some() {}
        let completions = self.completions.clone();
        self.disk.spawn_blocking(move || {
            // A worker that is ending listens no more.
            let _ = completions.send(operation());
        });
    }

    fn discard(&mut self, id: PartitionId) {
        if let Some(Held::Disk(spilled)) = self.parts.store.remove(id) {
            // Removing a large file takes its time.
            tokio::task::spawn_blocking(move || drop(spilled));
        }
    }

    /// Ends everything that runs and removes everything that was stored.
    async fn clean_up(mut self) {
        for fetch in self.fetches.values() {
            fetch.task.abort();
        }
        let patience = self.parts.stop_timeout;
        let disk = async { while self.disk.join_next().await.is_some() {} };
        if timeout(patience, disk).await.is_err() {
            tracing::warn!(
                "a spill or load has not ended in time; the spill directory may be left to the next worker to remove"
            );
        }
        self.parts.executor.stop(patience).await;
        self.parts.store.clear();
        let spill = self.parts.spill;
        let _ = tokio::task::spawn_blocking(move || drop(spill)).await;
    }
}
