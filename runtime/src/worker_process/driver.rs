//! Carries what happened into the worker machine and its actions out into the world. Decides nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use transload_gpu::SpillDirectory;
use transload_protocol::{
    Address, Attempt, GraphId, LayerIndex, PartitionId, SchedulerToWorker, TaskId, WorkerId,
    WorkerMessage,
};
use transload_worker::{Action, Input, Worker};

use super::completions::Completion;
use super::executor::Executor;
use super::fused::PreparedLayer;
use super::link::{Home, Link, LinkEvent};
use super::store::PartitionStore;
use crate::RuntimeError;
use crate::clock::Clock;
use crate::config::resident_bytes;
use crate::control::{Connected, SendLimits};
use crate::fetcher::Fetcher;

const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// What a driver is made of.
pub(super) struct Parts {
    pub(super) home: Home,
    pub(super) machine: transload_worker::Config,
    pub(super) executor: Executor,
    pub(super) store: Arc<PartitionStore>,
    pub(super) spill: Arc<SpillDirectory>,
    pub(super) fetcher: Arc<Fetcher>,
    /// Where fetches run, so that moving bytes does not hold up decisions.
    pub(super) data_runtime: Handle,
    pub(super) stop_timeout: Duration,
}

/// A fetch in flight. A completion with another number is of one that was cancelled.
pub(super) struct InFlight {
    pub(super) number: u64,
    pub(super) from: WorkerId,
    pub(super) task: AbortHandle,
}

/// The machine and everything it acts on.
pub(super) struct Driver {
    pub(super) parts: Parts,
    pub(super) worker: Worker,
    pub(super) clock: Clock,
    /// Inputs that follow from actions, to be fed before anything else.
    pub(super) pending: VecDeque<Input>,
    pub(super) actions: Vec<Action>,
    /// Messages to the scheduler, sent together.
    pub(super) outgoing: Vec<WorkerMessage>,
    pub(super) peers: HashMap<WorkerId, Arc<[Address]>>,
    pub(super) layers: HashMap<GraphId, HashMap<LayerIndex, Arc<PreparedLayer>>>,
    pub(super) fetches: HashMap<PartitionId, InFlight>,
    pub(super) next_fetch: u64,
    /// Who waits in a task for its slot to come back.
    pub(super) resuming: HashMap<(TaskId, Attempt), Vec<oneshot::Sender<()>>>,
    /// Spills and loads, which must be over before the spill directory is removed.
    pub(super) disk: JoinSet<()>,
    pub(super) completions: mpsc::UnboundedSender<Completion>,
    pub(super) completed: mpsc::UnboundedReceiver<Completion>,
    pub(super) exiting: bool,
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
            resuming: HashMap::new(),
            disk: JoinSet::new(),
            completions,
            completed,
            exiting: false,
        }
    }

    /// Runs until the machine wants to exit, `stop` is cancelled, or the scheduler is lost for good; then cleans up.
    pub(super) async fn run(
        mut self,
        scheduler: Connected,
        limits: SendLimits,
        stop: CancellationToken,
    ) -> Result<(), RuntimeError> {
        let mut link = Link::up(scheduler, limits);
        let mut messages = Vec::new();
        let mut measure = interval(MEASURE_EVERY);
        measure.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let worker = self.parts.home.worker;
        self.pending.push_back(Input::Connected { worker });
        let ended = loop {
            self.feed_pending();
            if !self.outgoing.is_empty() {
                link.send(std::mem::take(&mut self.outgoing));
            }
            if self.exiting {
                break Ok(());
            }
            let deadline = self.worker.next_deadline();
            let wake = deadline.map_or_else(Instant::now, |time| self.clock.instant(time));
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    link.send(vec![WorkerMessage::Goodbye]);
                    break Ok(());
                }
                Some(completion) = self.completed.recv() => {
                    self.complete(completion);
                    while let Ok(completion) = self.completed.try_recv() {
                        self.complete(completion);
                    }
                }
                event = link.next(&mut messages) => {
                    for message in messages.drain(..) {
                        self.hear(message);
                    }
                    match event {
                        LinkEvent::Heard => {}
                        LinkEvent::Lost(reason) => {
                            self.feed_pending();
                            if self.exiting {
                                break Ok(());
                            }
                            match self.go_away(reason) {
                                Ok(returning) => link = returning,
                                Err(error) => break Err(error),
                            }
                        }
                        LinkEvent::Back(Ok(connected)) => {
                            tracing::info!(%worker, "back at the scheduler");
                            link = Link::up(connected, limits);
                            self.pending.push_back(Input::Connected { worker });
                        }
                        LinkEvent::Back(Err(error)) => break Err(error),
                    }
                }
                _ = measure.tick() => self.pending.push_back(Input::Measured {
                    resident_bytes: resident_bytes(),
                }),
                () = sleep_until(wake), if deadline.is_some() => self.pending.push_back(Input::Tick),
            }
            self.tick_if_due();
        };
        let patience = self.parts.stop_timeout;
        self.clean_up().await;
        link.close(patience).await;
        ended
    }

    /// The connection is lost. Where a scheduler may take the place of this one, the worker keeps what it has and looks for it.
    fn go_away(&mut self, reason: String) -> Result<Link, RuntimeError> {
        let home = &self.parts.home;
        let Some(returning) = home.find_back(reason.clone()) else {
            let address = home.address.clone();
            return Err(RuntimeError::SchedulerLost { address, reason });
        };
        tracing::warn!(worker = %home.worker, %reason, patience = ?home.patience, "lost the scheduler; trying to come back");
        self.pending.push_back(Input::Disconnected);
        self.feed_pending();
        self.outgoing.clear();
        self.layers.clear();
        Ok(returning)
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

    pub(super) fn feed_pending(&mut self) {
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
                layers.insert(*layer, Arc::new(PreparedLayer::new((**spec).clone())));
                None
            }
            SchedulerToWorker::Forget { graph } => Some(*graph),
            SchedulerToWorker::Peers { .. }
            | SchedulerToWorker::PeerLost { .. }
            | SchedulerToWorker::Sources { .. }
            | SchedulerToWorker::Assign { .. }
            | SchedulerToWorker::Cancel { .. }
            | SchedulerToWorker::Release { .. }
            | SchedulerToWorker::Disown { .. }
            | SchedulerToWorker::Recall { .. }
            | SchedulerToWorker::Shutdown => None,
        };
        self.pending.push_back(Input::FromScheduler(message));
        self.feed_pending();
        if let Some(graph) = forgotten {
            self.layers.remove(&graph);
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
