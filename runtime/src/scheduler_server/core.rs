//! The scheduler's own thread: takes all that has arrived, feeds the machine, sends one batch per peer.
//!
//! No socket, encoding or timer is in this path; it decides nothing.

use std::collections::HashMap;
use std::thread;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use transload_protocol::{
    ClientHello, ClientId, ClientMessage, ClusterInfo, Event, EventRecord, Explanation, TaskId,
    WorkerHello, WorkerId, WorkerMessage,
};
use transload_scheduler::{Action, Input, Scheduler};

use super::connection::{Outbox, Outgoing};
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

/// What connections and the process itself bring to the scheduler's thread.
#[derive(Debug)]
pub(super) enum Arrival {
    /// A client has said hello.
    ClientJoined(ClientId, ClientHello, Outbox),
    /// A worker has said hello.
    WorkerJoined(WorkerId, WorkerHello, Outbox),
    /// Messages of a client, in order.
    FromClient(ClientId, Vec<ClientMessage>),
    /// Messages of a worker, in order.
    FromWorker(WorkerId, Vec<WorkerMessage>),
    /// A connection has ended, and why.
    Lost(PeerId, String),
    /// The process asks about the cluster.
    Info(oneshot::Sender<ClusterInfo>),
    /// The process asks about a task.
    Explain(TaskId, oneshot::Sender<Explanation>),
    /// The process wants to end.
    Shutdown,
}

struct Peer {
    outbox: Outbox,
    /// Sent at the end of the batch.
    pending: Vec<Outgoing>,
}

/// The machine and what surrounds it.
pub(super) struct Core {
    scheduler: Scheduler,
    clock: Clock,
    peers: HashMap<PeerId, Peer>,
    /// Peers with something pending.
    touched: Vec<PeerId>,
    actions: Vec<Action>,
    stopping: bool,
}

impl Core {
    /// Starts the thread; `ended` is cancelled when it is over, for whatever reason.
    pub(super) fn spawn(
        config: &SchedulerConfig,
        arrivals: mpsc::Receiver<Arrival>,
        abort: CancellationToken,
        ended: CancellationToken,
    ) -> Result<(), RuntimeError> {
        let threads = |source| RuntimeError::Threads {
            what: "the scheduler's thread",
            source,
        };
        let core = Self {
            scheduler: Scheduler::new(transload_scheduler::Config {
                task_events: tracing::enabled!(tracing::Level::DEBUG),
                ..config.machine()
            }),
            clock: Clock::start(),
            peers: HashMap::new(),
            touched: Vec::new(),
            actions: Vec::new(),
            stopping: false,
        };
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
            let wake =
                sleep_until(deadline.map_or_else(Instant::now, |time| self.clock.instant(time)));
            tokio::select! {
                biased;
                count = arrivals.recv_many(&mut batch, BATCH) => if count == 0 {
                    return;
                },
                () = wake, if deadline.is_some() => {}
            }
            for arrival in batch.drain(..) {
                self.take(arrival);
            }
            // A deadline passes even while messages keep coming.
            let now = self.clock.now();
            if self
                .scheduler
                .next_deadline()
                .is_some_and(|time| time <= now)
            {
                self.feed(Input::Tick);
            }
            self.decide();
            self.send();
        }
    }

    fn take(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::ClientJoined(client, hello, outbox) => {
                self.join(PeerId::Client(client), outbox);
                self.feed(Input::ClientConnected { client, hello });
            }
            Arrival::WorkerJoined(worker, hello, outbox) => {
                self.join(PeerId::Worker(worker), outbox);
                self.feed(Input::WorkerConnected { worker, hello });
            }
            Arrival::FromClient(client, messages) => {
                for message in messages {
                    if self.peers.contains_key(&PeerId::Client(client)) {
                        self.feed(Input::FromClient { client, message });
                    }
                }
            }
            Arrival::FromWorker(worker, messages) => {
                for message in messages {
                    if self.peers.contains_key(&PeerId::Worker(worker)) {
                        self.feed(Input::FromWorker { worker, message });
                    }
                }
            }
            // A peer that we dropped ourselves counts as lost already.
            Arrival::Lost(peer, reason) => {
                if self.peers.remove(&peer).is_some() {
                    tracing::debug!(?peer, %reason, "connection ended");
                    self.feed(match peer {
                        PeerId::Client(client) => Input::ClientLost { client },
                        PeerId::Worker(worker) => Input::WorkerLost { worker, reason },
                    });
                }
            }
            // Whoever asked may have stopped waiting.
            Arrival::Info(answer) => drop(answer.send(self.scheduler.info())),
            Arrival::Explain(task, answer) => drop(answer.send(self.scheduler.explain(task))),
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

    fn join(&mut self, peer: PeerId, outbox: Outbox) {
        let pending = Vec::new();
        self.peers.insert(peer, Peer { outbox, pending });
    }

    fn feed(&mut self, input: Input) {
        let mut actions = std::mem::take(&mut self.actions);
        self.scheduler
            .take_in(self.clock.now(), input, &mut actions);
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
            Action::ToClient { client, message } => {
                self.post(PeerId::Client(client), Outgoing::Client(message));
            }
            Action::ToWorker { worker, message } => {
                self.post(PeerId::Worker(worker), Outgoing::Worker(message));
            }
            Action::DropWorker { worker, reason } => {
                tracing::warn!(%worker, %reason, "closing a worker's connection");
                self.send();
                self.peers.remove(&PeerId::Worker(worker));
            }
            Action::Emit(record) => log(&record),
            Action::Stop => self.stopping = true,
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

    fn send(&mut self) {
        for peer in self.touched.drain(..) {
            if let Some(entry) = self.peers.get_mut(&peer) {
                // A connection that has just ended reports so itself.
                let _ = entry.outbox.send(std::mem::take(&mut entry.pending));
            }
        }
    }
}

fn log(record: &EventRecord) {
    match &record.event {
        Event::WorkerJoined { worker } => tracing::info!(%worker, "worker joined"),
        Event::WorkerLost { worker, reason } => tracing::info!(%worker, %reason, "worker lost"),
        Event::GraphEnded { graph } => tracing::info!(%graph, "graph ended"),
        Event::TaskFailed {
            task,
            worker,
            message,
        } => {
            tracing::info!(%task, %worker, %message, "task failed");
        }
        event @ (Event::GraphAccepted { .. }
        | Event::TaskAssigned { .. }
        | Event::TaskFinished { .. }
        | Event::TaskRecomputed { .. }
        | Event::PartitionFetched { .. }
        | Event::PartitionMoved { .. }) => tracing::debug!(?event),
    }
}
