//! The scheduler's own thread: takes all that has arrived, feeds the machine, sends one batch per peer.
//!
//! No socket, encoding or timer is in this path; it decides nothing.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use transload_dashboard::{AssignedTasks, Batch, Feed, RanTask};
use transload_protocol::{
    ClientHello, ClientId, ClientMessage, ClusterId, ClusterInfo, Demotion, Event, EventRecord,
    Explanation, GraphId, JournalEntry, LayerIndex, PROTOCOL_VERSION, ReturningClient, Role,
    SchedulerToClient, SchedulerToWorker, Session, SessionToken, TaskAssignment, TaskId, Time,
    Welcome, WorkerHello, WorkerId, WorkerMessage,
};
use transload_scheduler::{Action, Facts, Input, Scheduler};

use super::connection::{Outbox, Outgoing};
use super::journal::Journal;
use super::journal_error::JournalError;
use crate::RuntimeError;
use crate::clock::Clock;
use crate::config::SchedulerConfig;

/// Most arrivals handled before answers leave.
const BATCH: usize = 256;
/// The client that the scheduler process itself is.
const OWN_CLIENT: ClientId = ClientId(0);

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum PeerId {
    /// A client.
    Client(ClientId),
    /// A worker.
    Worker(WorkerId),
}

/// One connection; a peer that comes back has another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ConnectionId(pub(super) u64);

/// Why the scheduler's thread ended by itself, if it did.
pub(super) type FailureSlot = Arc<Mutex<Option<RuntimeError>>>;

/// What connections and the process itself bring to the scheduler's thread.
#[derive(Debug)]
pub(super) enum Arrival {
    /// Somebody has said hello.
    Joined(ConnectionId, Role, Outbox),
    /// Messages of a client, in order.
    FromClient(ConnectionId, Vec<ClientMessage>),
    /// Messages of a worker, in order.
    FromWorker(ConnectionId, Vec<WorkerMessage>),
    /// A connection has ended, and why.
    Lost(ConnectionId, String),
    /// The process asks about the cluster.
    Info(oneshot::Sender<ClusterInfo>),
    /// The process asks about a task.
    Explain(TaskId, oneshot::Sender<Explanation>),
    /// The process asks about a layer.
    ExplainLayer(GraphId, LayerIndex, oneshot::Sender<Explanation>),
    /// The dashboard asks about the cluster.
    Look(oneshot::Sender<(Time, ClusterInfo)>),
    /// The process wants to end.
    Shutdown,
}

struct Peer {
    connection: ConnectionId,
    outbox: Outbox,
    /// Sent at the end of the batch.
    pending: Vec<Outgoing>,
}

/// The machine and what surrounds it.
pub(super) struct Core {
    scheduler: Scheduler,
    clock: Clock,
    /// When the arrivals that are handled now were taken.
    now: Time,
    journal: Option<Journal>,
    cluster: ClusterId,
    epoch: u32,
    grace_ms: u32,
    worker_timeout_ms: u32,
    failure: FailureSlot,
    peers: HashMap<PeerId, Peer>,
    /// Who is at the other end of each connection that counts.
    connections: HashMap<ConnectionId, PeerId>,
    /// Workers that have not said yet what they bring back.
    returning: HashMap<ConnectionId, (WorkerId, WorkerHello, Outbox)>,
    /// Peers with something pending.
    touched: Vec<PeerId>,
    actions: Vec<Action>,
    shown: Option<Shown>,
    stopping: bool,
}

/// The dashboard, as this thread knows it.
pub(super) struct Shown {
    pub(super) feed: Feed,
    /// `HOST:PORT`.
    pub(super) address: String,
    /// What has happened since the arrivals that are handled now were taken.
    pub(super) heard: Batch,
}

impl Core {
    /// Starts the thread; `ended` is cancelled when it is over, for whatever reason.
    pub(super) fn spawn(
        config: &SchedulerConfig,
        arrivals: mpsc::Receiver<Arrival>,
        abort: CancellationToken,
        ended: CancellationToken,
        failure: FailureSlot,
        shown: Option<Shown>,
    ) -> Result<(), RuntimeError> {
        let threads = |source| RuntimeError::Threads {
            what: "the scheduler's thread",
            source,
        };
        let (journal, facts) = match &config.journal.folder {
            None => (None, Facts::default()),
            Some(folder) => {
                let (journal, facts) = Journal::open(&config.journal, folder)?;
                (Some(journal), facts)
            }
        };
        // Where nobody can come back, nobody shall think so.
        let going_on = facts.cluster.filter(|_| !facts.is_empty());
        let machine = transload_scheduler::Config {
            task_events: tracing::enabled!(tracing::Level::DEBUG),
            ..config.machine()
        };
        let (grace_ms, worker_timeout_ms) = (machine.client_grace_ms, machine.worker_timeout_ms);
        let epoch = going_on.map_or(0, |_| facts.epoch.wrapping_add(1));
        let clock = Clock::start();
        // The journal is written anew from the machine, so its records of this are of no use.
        let mut actions = Vec::new();
        let scheduler = Scheduler::restore(machine, clock.now(), facts, &mut actions)
            .map_err(JournalError::Graph)?;
        actions.clear();
        let mut core = Self {
            scheduler,
            now: clock.now(),
            clock,
            journal,
            cluster: going_on.unwrap_or_else(|| ClusterId(random())),
            epoch,
            grace_ms,
            worker_timeout_ms,
            failure,
            peers: HashMap::new(),
            connections: HashMap::new(),
            returning: HashMap::new(),
            touched: Vec::new(),
            actions,
            shown,
            stopping: false,
        };
        core.compact()?;
        if let Some(cluster) = going_on {
            let info = core.scheduler.info();
            tracing::info!(%cluster, epoch, graphs = info.graphs_running, "the scheduler goes on from its journal");
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(threads)?;
        thread::Builder::new()
            .name("scheduler".to_owned())
            .spawn(move || {
                let _ended = ended.drop_guard();
                runtime.block_on(async {
                    tokio::select! {
                        biased;
                        () = abort.cancelled() => {}
                        () = core.run(arrivals) => {}
                    }
                });
            })
            .map_err(threads)?;
        Ok(())
    }

    async fn run(mut self, mut arrivals: mpsc::Receiver<Arrival>) {
        let mut batch = Vec::with_capacity(BATCH);
        while !self.stopping {
            let deadline = self.scheduler.next_deadline();
            let deadline = deadline.map(|time| self.clock.instant(time));
            let sync = self.journal.as_ref().and_then(Journal::deadline);
            let deadline = [deadline, sync].into_iter().flatten().min();
            let wake = sleep_until(deadline.unwrap_or_else(Instant::now));
            tokio::select! {
                biased;
                count = arrivals.recv_many(&mut batch, BATCH) => if count == 0 {
                    return;
                },
                () = wake, if deadline.is_some() => {}
            }
            // What has arrived together has happened now, as far as anyone can tell.
            self.now = self.clock.now();
            for arrival in &batch {
                if let Arrival::FromWorker(_, messages) = arrival {
                    self.scheduler.touch_ended(messages);
                }
            }
            for arrival in batch.drain(..) {
                self.take(arrival);
            }
            // A deadline passes even while messages keep coming.
            if self
                .scheduler
                .next_deadline()
                .is_some_and(|time| time <= self.now)
            {
                self.feed(Input::Tick);
            }
            self.decide();
            self.send();
            self.show();
            if self.journal.as_ref().is_some_and(Journal::is_long)
                && let Err(error) = self.compact()
            {
                self.fail(error);
            }
        }
    }

    /// Writes down anew all that still counts.
    fn compact(&mut self) -> Result<(), JournalError> {
        let Some(journal) = &mut self.journal else {
            return Ok(());
        };
        let mut entries = vec![JournalEntry::Begin {
            cluster: self.cluster,
            epoch: self.epoch,
            next_client: self.scheduler.next_client().0,
            next_worker: self.scheduler.next_worker().0,
        }];
        entries.extend(self.scheduler.facts());
        journal.compact(&entries)
    }

    /// Without its journal the scheduler can promise nothing more: it ends, and has told nobody what it could not write down.
    fn fail(&mut self, error: JournalError) {
        tracing::error!(%error, "the scheduler ends: it cannot write its journal");
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert(error.into());
        drop(failure);
        self.stopping = true;
        self.peers.clear();
        self.connections.clear();
        self.returning.clear();
        self.touched.clear();
    }

    fn take(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Joined(connection, role, outbox) => self.admit(connection, role, outbox),
            Arrival::FromClient(connection, messages) => {
                let Some(PeerId::Client(client)) = self.connections.get(&connection).copied()
                else {
                    return;
                };
                for message in messages {
                    if self.peers.contains_key(&PeerId::Client(client)) {
                        self.feed(Input::FromClient { client, message });
                    }
                }
            }
            Arrival::FromWorker(connection, messages) => {
                let mut messages = messages.into_iter();
                if let Some(back) = self.returning.remove(&connection) {
                    self.take_back(connection, back, messages.next());
                }
                let Some(PeerId::Worker(worker)) = self.connections.get(&connection).copied()
                else {
                    return;
                };
                for message in messages {
                    if self.peers.contains_key(&PeerId::Worker(worker)) {
                        self.hear_of_ran(worker, &message);
                        self.feed(Input::FromWorker { worker, message });
                    }
                }
            }
            // A peer that we dropped ourselves, or that has come back meanwhile, is of no concern.
            Arrival::Lost(connection, reason) => {
                self.returning.remove(&connection);
                if let Some(peer) = self.connections.remove(&connection) {
                    self.peers.remove(&peer);
                    tracing::debug!(?peer, %reason, "connection ended");
                    self.feed(match peer {
                        PeerId::Client(client) => Input::ClientLost { client },
                        PeerId::Worker(worker) => Input::WorkerLost { worker, reason },
                    });
                }
            }
            // Whoever asked may have stopped waiting.
            Arrival::Info(answer) => drop(answer.send(self.info())),
            Arrival::Look(answer) => drop(answer.send((self.now, self.info()))),
            Arrival::Explain(task, answer) => drop(answer.send(self.scheduler.explain(task))),
            Arrival::ExplainLayer(graph, layer, answer) => {
                let _ = answer.send(self.scheduler.explain_layer(graph, layer));
            }
            Arrival::Shutdown => {
                let name = "the scheduler's own process".to_owned();
                self.feed(Input::ClientConnected {
                    client: OWN_CLIENT,
                    hello: ClientHello { name },
                });
                self.feed(Input::FromClient {
                    client: OWN_CLIENT,
                    message: ClientMessage::Shutdown,
                });
            }
        }
    }

    fn admit(&mut self, connection: ConnectionId, role: Role, outbox: Outbox) {
        match role {
            Role::Client(hello) => {
                // 0 is the scheduler's own client, which asks for shutdown.
                let client = self.scheduler.next_client().max(ClientId(1));
                let token = SessionToken(random());
                self.join(connection, PeerId::Client(client), outbox);
                self.welcome_client(client, token);
                self.feed(Input::ClientConnected { client, hello });
                self.feed(Input::SessionOpened { client, token });
            }
            Role::Worker(hello) => {
                let worker = self.scheduler.next_worker().max(WorkerId(1));
                let welcome = self.welcome_worker(worker);
                self.join(connection, PeerId::Worker(worker), outbox);
                self.post(PeerId::Worker(worker), Outgoing::Welcome(welcome));
                self.feed(Input::WorkerConnected { worker, hello });
            }
            Role::ReturningClient(ReturningClient {
                cluster,
                client,
                token,
            }) => {
                if cluster == self.cluster && self.scheduler.knows_client(client, token) {
                    tracing::info!(%client, "a client is back");
                    self.join(connection, PeerId::Client(client), outbox);
                    self.welcome_client(client, token);
                    self.feed(Input::ClientReturned { client });
                } else {
                    refuse(&outbox, "it does not know this client any more");
                }
            }
            Role::ReturningWorker(back) => {
                if back.cluster == self.cluster && self.scheduler.knows_worker(back.worker) {
                    let welcome = self.welcome_worker(back.worker);
                    // A connection that has just ended reports so itself.
                    let _ = outbox.send(vec![Outgoing::Welcome(welcome)]);
                    let back = (back.worker, back.hello, outbox);
                    self.returning.insert(connection, back);
                } else {
                    refuse(&outbox, "it does not know this worker any more");
                }
            }
        }
    }

    fn take_back(
        &mut self,
        connection: ConnectionId,
        (worker, hello, outbox): (WorkerId, WorkerHello, Outbox),
        first: Option<WorkerMessage>,
    ) {
        let Some(WorkerMessage::Inventory(inventory)) = first else {
            tracing::warn!(%worker, "a worker came back without saying what it has; connection closed");
            return;
        };
        tracing::info!(
            %worker, stored = inventory.stored.len(), running = inventory.running.len(), "a worker is back"
        );
        self.join(connection, PeerId::Worker(worker), outbox);
        self.feed(Input::WorkerReturned {
            worker,
            hello,
            inventory,
        });
    }

    fn welcome_client(&mut self, client: ClientId, token: SessionToken) {
        let session = Session {
            cluster: self.cluster,
            token,
            grace_ms: self.grace_ms,
            lasting: self.journal.is_some(),
        };
        let welcome = Welcome::Client { client, session };
        self.post(PeerId::Client(client), Outgoing::Welcome(welcome));
    }

    fn welcome_worker(&self, worker: WorkerId) -> Welcome {
        Welcome::Worker {
            worker,
            heartbeat_ms: self.worker_timeout_ms,
            cluster: self.journal.as_ref().map(|_| self.cluster),
        }
    }

    /// From now on this is the peer's connection; an older one counts no more.
    fn join(&mut self, connection: ConnectionId, id: PeerId, outbox: Outbox) {
        let peer = Peer {
            connection,
            outbox,
            pending: Vec::new(),
        };
        if let Some(old) = self.peers.insert(id, peer) {
            self.connections.remove(&old.connection);
            self.touched.retain(|touched| *touched != id);
        }
        self.connections.insert(connection, id);
    }

    fn feed(&mut self, input: Input) {
        let mut actions = std::mem::take(&mut self.actions);
        self.scheduler.take_in(self.now, input, &mut actions);
        self.carry_out(actions);
    }

    /// Once for all that has arrived.
    fn decide(&mut self) {
        let mut actions = std::mem::take(&mut self.actions);
        self.scheduler.decide(&mut actions);
        self.carry_out(actions);
    }

    fn carry_out(&mut self, mut actions: Vec<Action>) {
        for action in actions.drain(..) {
            self.act(action);
        }
        self.actions = actions;
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::ToClient {
                client,
                mut message,
            } => {
                if let SchedulerToClient::Info { info } = &mut message {
                    info.dashboard = self.dashboard();
                }
                self.post(PeerId::Client(client), Outgoing::Client(message));
            }
            Action::ToWorker { worker, message } => {
                if let SchedulerToWorker::Assign { tasks } = &message {
                    self.hear_of_assigned(worker, tasks);
                }
                self.post(PeerId::Worker(worker), Outgoing::Worker(message));
            }
            Action::DropWorker { worker, reason } => {
                tracing::warn!(%worker, %reason, "closing a worker's connection");
                self.send();
                if let Some(peer) = self.peers.remove(&PeerId::Worker(worker)) {
                    self.connections.remove(&peer.connection);
                }
            }
            Action::Emit(record) => {
                log(&record);
                self.hear(record);
            }
            Action::Stop => self.stopping = true,
            Action::Record(entry) => {
                let journal = self.journal.as_mut();
                if let Some(Err(error)) = journal.map(|journal| journal.append(&entry)) {
                    self.fail(error);
                }
            }
        }
    }

    fn info(&self) -> ClusterInfo {
        ClusterInfo {
            dashboard: self.dashboard(),
            ..self.scheduler.info()
        }
    }

    fn dashboard(&self) -> String {
        let shown = self.shown.as_ref();
        shown.map_or_else(String::new, |shown| shown.address.clone())
    }

    /// Keeps it for the dashboard; of a new graph, its layers.
    fn hear(&mut self, record: EventRecord) {
        let Some(shown) = &mut self.shown else {
            return;
        };
        if let Event::GraphAccepted { graph, .. } = record.event {
            shown.heard.graphs.extend(self.scheduler.graph_info(graph));
        }
        shown.heard.events.push(record);
    }

    /// Keeps for the dashboard that a task has run, where somebody looks: straight from what its worker says, as an event for each would cost
    /// the scheduler a quarter more.
    fn hear_of_ran(&mut self, worker: WorkerId, message: &WorkerMessage) {
        if let WorkerMessage::Finished {
            task,
            sizes,
            run_micros,
            ..
        } = message
            && let Some(shown) = &mut self.shown
            && shown.feed.is_watched()
        {
            shown.heard.ran.push(RanTask {
                task: *task,
                worker,
                bytes: sizes.total_bytes,
                rows: sizes.rows,
                run_micros: *run_micros,
            });
        }
    }

    /// Keeps for the dashboard to whom tasks were handed, where somebody looks.
    fn hear_of_assigned(&mut self, worker: WorkerId, tasks: &[TaskAssignment]) {
        let Some(shown) = self.shown.as_mut().filter(|it| it.feed.is_watched()) else {
            return;
        };
        let of_one_layer = |one: &TaskAssignment, next: &TaskAssignment| {
            (one.task.graph, one.layer) == (next.task.graph, next.layer)
        };
        for tasks in tasks.chunk_by(of_one_layer) {
            if let Some(first) = tasks.first() {
                shown.heard.assigned.push(AssignedTasks {
                    worker,
                    graph: first.task.graph,
                    layer: first.layer,
                    count: u32::try_from(tasks.len()).unwrap_or(u32::MAX),
                });
            }
        }
    }

    /// Tells the dashboard what was heard.
    fn show(&mut self) {
        if let Some(shown) = &mut self.shown {
            let mut heard = std::mem::take(&mut shown.heard);
            heard.now = self.now;
            shown.feed.push(heard);
        }
    }

    fn post(&mut self, peer: PeerId, message: Outgoing) {
        if let Some(entry) = self.peers.get_mut(&peer) {
            if entry.pending.is_empty() {
                self.touched.push(peer);
            }
            entry.pending.push(message);
        }
    }

    /// What follows from a record leaves when the record is written.
    fn send(&mut self) {
        if let Some(Err(error)) = self.journal.as_mut().map(Journal::commit) {
            self.fail(error);
            return;
        }
        for peer in self.touched.drain(..) {
            if let Some(entry) = self.peers.get_mut(&peer) {
                // A connection that has just ended reports so itself.
                let _ = entry.outbox.send(std::mem::take(&mut entry.pending));
            }
        }
    }
}

fn refuse(outbox: &Outbox, reason: &str) {
    let refused = Welcome::Refused {
        version: PROTOCOL_VERSION,
        reason: reason.to_owned(),
    };
    // Whoever is gone need not know.
    let _ = outbox.send(vec![Outgoing::Welcome(refused)]);
}

/// A number that nobody can guess: a keyed hash whose keys come from the system.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

fn log(record: &EventRecord) {
    match &record.event {
        Event::WorkerJoined { worker } => tracing::info!(%worker, "worker joined"),
        Event::WorkerLost { worker, reason } => tracing::info!(%worker, %reason, "worker lost"),
        Event::GraphEnded { graph, outcome } => tracing::info!(%graph, ?outcome, "graph ended"),
        Event::TaskFailed {
            task,
            worker,
            message,
            run_micros,
        } => {
            tracing::info!(%task, %worker, %message, run_micros, "task failed");
        }
        Event::TaskUnschedulable { task, message } => {
            tracing::warn!(%task, reason = %message, "no worker can run a task");
        }
        Event::TaskStraggles {
            task,
            worker,
            running_ms,
            typical_ms,
        } => {
            tracing::warn!(%task, %worker, running_ms, typical_ms, "a task takes much longer than others of its layer");
        }
        Event::LinkDemoted {
            from,
            to,
            demotion,
            used,
        } => {
            let Demotion {
                wanted,
                reason,
                lasting,
            } = demotion;
            if *lasting {
                tracing::info!(%from, %to, wanted, %used, reason, "between two workers another transport does as well");
            } else {
                tracing::warn!(%from, %to, wanted, %used, reason, "two workers use another transport for a while");
            }
        }
        Event::WorkersApart {
            reader,
            holder,
            reason,
            aside,
            pause_ms,
        } => {
            tracing::warn!(%reader, %holder, reason, ?aside, pause_ms, "a worker cannot fetch from another; who stands aside gets nothing that others can take");
        }
        event @ (Event::GraphAccepted { .. }
        | Event::TaskAssigned { .. }
        | Event::TaskFinished { .. }
        | Event::TaskRecomputed { .. }
        | Event::PartitionFetched { .. }
        | Event::PartitionMoved { .. }) => tracing::debug!(?event),
    }
}
