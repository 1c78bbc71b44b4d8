//! Carries what happened into the worker machine and its actions out into the world. Decides nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use transload_gpu::{Partition, SpillDirectory};
use transload_protocol::{
    Address, Attempt, GangMember, GangTable, GraphId, LayerIndex, PartitionId, SchedulerToWorker,
    TaskId, Time, WorkerId, WorkerMessage,
};
use transload_worker::{Action, Input, Worker};

use super::completions::Completion;
use super::executor::Executor;
use super::fused::PreparedLayer;
use super::inbox::Inbox;
use super::link::{Home, Link, LinkEvent};
use super::quick::IdMap;
use super::store::PartitionStore;
use crate::RuntimeError;
use crate::clock::Clock;
use crate::config::resident_bytes;
use crate::control::{Connected, SendLimits};
use crate::fetcher::Fetcher;
use crate::gpu::LazyGpu;

const MEASURE_EVERY: Duration = Duration::from_secs(1);
/// While slot threads go from one short task to the next, the driver looks by itself for what they have ended, this long after it
/// last found something.
const LOOK_AFTER: Duration = Duration::from_millis(1);

/// What a driver is made of.
pub(super) struct Parts {
    pub(super) home: Home,
    pub(super) machine: transload_worker::Config,
    pub(super) executor: Executor,
    pub(super) store: Arc<PartitionStore>,
    pub(super) spill: Arc<SpillDirectory>,
    /// The worker's GPU, if it has one.
    pub(super) gpu: Option<Arc<LazyGpu>>,
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

/// A start of a gang, and where its members run.
pub(super) type Incarnation = (Attempt, Arc<[GangMember]>);

/// The machine and everything it acts on.
pub(super) struct Driver {
    pub(super) parts: Parts,
    pub(super) worker: Worker,
    pub(super) clock: Clock,
    /// When what is handled now was taken.
    now: Time,
    /// Inputs that follow from actions, to be taken in before the next decision.
    pub(super) pending: VecDeque<Input>,
    pub(super) actions: Vec<Action>,
    /// Messages to the scheduler, sent together.
    pub(super) outgoing: Vec<WorkerMessage>,
    pub(super) peers: HashMap<WorkerId, Arc<[Address]>>,
    pub(super) layers: IdMap<GraphId, IdMap<LayerIndex, Arc<PreparedLayer>>>,
    /// The gangs that have or will have members here.
    pub(super) gangs: HashMap<GraphId, HashMap<LayerIndex, Incarnation>>,
    pub(super) fetches: IdMap<PartitionId, InFlight>,
    pub(super) next_fetch: u64,
    /// Who waits in a task for its slot to come back.
    pub(super) resuming: HashMap<(TaskId, Attempt), Vec<oneshot::Sender<()>>>,
    /// Spills and loads, which must be over before the spill directory is removed.
    pub(super) disk: JoinSet<()>,
    pub(super) completions: Arc<Inbox<Completion>>,
    /// Handed to tasks in the place of every partition without bytes.
    pub(super) empty: Partition,
    pub(super) exiting: bool,
    /// Why nothing works on the GPU any more.
    pub(super) lost_gpu: Option<String>,
    /// The GPU has been opened, and the machine knows what it can do.
    pub(super) knows_gpu: bool,
}

impl Driver {
    pub(super) fn new(parts: Parts) -> Self {
        Self {
            worker: Worker::new(parts.machine.clone()),
            parts,
            now: Time::default(),
            clock: Clock::start(),
            pending: VecDeque::new(),
            actions: Vec::new(),
            outgoing: Vec::new(),
            peers: HashMap::new(),
            layers: IdMap::default(),
            gangs: HashMap::new(),
            fetches: IdMap::default(),
            next_fetch: 0,
            resuming: HashMap::new(),
            disk: JoinSet::new(),
            completions: Arc::new(Inbox::new()),
            empty: Partition::new(Bytes::new(), Vec::new()),
            exiting: false,
            lost_gpu: None,
            knows_gpu: false,
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
        let mut completed = Vec::new();
        let mut measure = interval(MEASURE_EVERY);
        measure.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let worker = self.parts.home.worker;
        self.pending.push_back(Input::Connected { worker });
        // Whether something had ended when it last looked.
        let mut found = false;
        let ended = loop {
            self.decide();
            if !self.outgoing.is_empty() {
                link.send(std::mem::take(&mut self.outgoing));
            }
            if self.exiting {
                break Ok(());
            }
            if let Some(reason) = self.lost_gpu.take() {
                // Without a goodbye: what ran here counts as what a worker died of.
                break Err(RuntimeError::GpuLost { reason });
            }
            let deadline = self.worker.next_deadline();
            let wake = deadline.map_or_else(Instant::now, |time| self.clock.instant(time));
            // Where tasks wait for their slots, each end would wake this thread, to no use but to be told.
            let looks_soon = found && self.parts.executor.has_line();
            self.completions.look_soon(looks_soon);
            let look = Instant::now() + LOOK_AFTER;
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    link.send(vec![WorkerMessage::Goodbye]);
                    break Ok(());
                }
                () = self.completions.next(&mut completed) => {}
                event = link.next(&mut messages) => {
                    self.now = self.clock.now();
                    for message in messages.drain(..) {
                        self.hear(message);
                    }
                    match event {
                        LinkEvent::Heard => {}
                        LinkEvent::Lost(reason) => {
                            self.decide();
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
                _ = measure.tick() => {
                    self.look_at_gpu();
                    self.pending.push_back(Input::Measured {
                        resident_bytes: resident_bytes(),
                    });
                }
                () = sleep_until(wake), if deadline.is_some() => {}
                () = sleep_until(look), if looks_soon => {}
            }
            self.now = self.clock.now();
            // Whatever has woken it, it takes what is there.
            if completed.is_empty() {
                self.completions.take(&mut completed);
            }
            found = !completed.is_empty();
            for completion in completed.drain(..) {
                self.complete(completion);
            }
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
        self.decide();
        self.outgoing.clear();
        self.layers.clear();
        self.gangs.clear();
        Ok(returning)
    }

    /// Tells the machine something, and does what is to be done at once.
    pub(super) fn take_in(&mut self, input: Input) {
        let mut actions = std::mem::take(&mut self.actions);
        self.worker.take_in(self.now, input, &mut actions);
        self.carry_out(actions);
    }

    /// Does what follows from all that the machine was told, until nothing more follows. Deadlines pass here, too.
    fn decide(&mut self) {
        loop {
            while let Some(input) = self.pending.pop_front() {
                self.take_in(input);
            }
            let mut actions = std::mem::take(&mut self.actions);
            self.worker.decide(self.now, &mut actions);
            self.carry_out(actions);
            if self.pending.is_empty() {
                return;
            }
        }
    }

    fn carry_out(&mut self, mut actions: Vec<Action>) {
        for action in actions.drain(..) {
            self.act(action);
        }
        self.actions = actions;
    }

    /// Takes what the driver itself needs out of a message and hands it on.
    fn hear(&mut self, message: SchedulerToWorker) {
        let forgotten = match &message {
            SchedulerToWorker::Layer { graph, layer, spec } => {
                let layers = self.layers.entry(*graph).or_default();
                layers.insert(*layer, Arc::new(PreparedLayer::new((**spec).clone())));
                None
            }
            SchedulerToWorker::Gang {
                graph,
                layer,
                incarnation,
                members,
            } => {
                self.meet(*graph, *layer, *incarnation, members);
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
        self.take_in(Input::FromScheduler(message));
        if let Some(graph) = forgotten {
            self.layers.remove(&graph);
            self.gangs.remove(&graph);
        }
    }

    fn meet(
        &mut self,
        graph: GraphId,
        layer: LayerIndex,
        incarnation: Attempt,
        members: &GangTable,
    ) {
        match members.members() {
            Ok(members) => {
                let gangs = self.gangs.entry(graph).or_default();
                gangs.insert(layer, (incarnation, members.into()));
            }
            // Its members fail when they start.
            Err(error) => tracing::error!(%graph, %layer, %error, "the scheduler sent no gang"),
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
