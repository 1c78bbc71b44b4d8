//! The fake clock and network: everything that will happen, in order of time, and links that delay messages.
//!
//! A link keeps the order of its messages, as TCP does; messages of different links overtake each other.

use std::collections::BTreeMap;

use transload_protocol::{
    Attempt, ClientId, ClientMessage, SchedulerToClient, SchedulerToWorker, TaskId, Time, WorkerId,
    WorkerMessage,
};

use crate::client::Act;
use crate::faults::Fault;
use crate::random::Random;

/// Something that will happen at its time.
#[derive(Debug, Clone)]
pub(crate) enum Happening {
    /// A worker's hello reaches the scheduler.
    WorkerHello(Connection),
    /// The scheduler's welcome reaches a worker.
    WorkerWelcome {
        connection: Connection,
        worker: WorkerId,
    },
    /// A worker's message reaches the scheduler.
    ToScheduler {
        connection: Connection,
        message: WorkerMessage,
    },
    /// The scheduler's message reaches a worker.
    ToWorker {
        connection: Connection,
        message: SchedulerToWorker,
    },
    /// The scheduler decides about all that it has taken in.
    SchedulerDecides,
    /// The scheduler sees a worker's connection end.
    WorkerGone(Connection),
    /// A worker sees its connection to the scheduler end.
    SchedulerGone(Connection),
    /// A client's hello reaches the scheduler.
    ClientHello { client: usize },
    /// The scheduler's welcome reaches a client.
    ClientWelcome { client: usize, id: ClientId },
    /// A client's message reaches the scheduler.
    FromClient {
        client: usize,
        message: ClientMessage,
    },
    /// The scheduler's message reaches a client.
    ToClient {
        client: usize,
        message: SchedulerToClient,
    },
    /// The scheduler sees a client's connection end.
    ClientGone { client: usize },
    /// A client whose connection broke reaches the scheduler, or the one in its place.
    ClientReturns { client: usize },
    /// A timer of the scheduler's machine.
    SchedulerTick { token: u64 },
    /// A timer of a worker's machine.
    WorkerTick { process: usize, token: u64 },
    /// A request for a partition reaches its holder.
    FetchArrives { fetch: u64 },
    /// The answer to a fetch reaches its reader.
    FetchEnds { fetch: u64, answer: FetchAnswer },
    /// An operator returns.
    TaskEnds {
        process: usize,
        task: TaskId,
        attempt: Attempt,
        token: u64,
    },
    /// An operator submits a graph and waits for it.
    TaskSubmits(TaskRun),
    /// A spill or load ends.
    MoveEnds { process: usize, operation: u64 },
    /// A client does what its script says.
    ClientActs { client: usize, act: Act },
    /// Something breaks, or is mended.
    Fault(Fault),
}

/// A worker's connection to the scheduler. What was sent over one that is broken never arrives, whatever came after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Connection {
    pub(crate) process: usize,
    /// Each one that the process opens has a higher number.
    pub(crate) number: u32,
}

/// An operator that runs in a process, and what it does there now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TaskRun {
    pub(crate) process: usize,
    pub(crate) task: TaskId,
    pub(crate) attempt: Attempt,
    /// Another one means that it does something else by now.
    pub(crate) token: u64,
}

/// How a fetch ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FetchAnswer {
    Arrived { value: u64, bytes: u64 },
    Gone,
    TimedOut,
    Failed(&'static str),
}

impl Happening {
    /// Signs of life and timers: they never stop, so they do not count as work.
    pub(crate) const fn is_background(&self) -> bool {
        matches!(
            self,
            Self::SchedulerTick { .. }
                | Self::WorkerTick { .. }
                | Self::ToScheduler {
                    message: WorkerMessage::Heartbeat { .. } | WorkerMessage::Events { .. },
                    ..
                }
        )
    }

    /// What somebody outside the cluster will do.
    pub(crate) const fn is_plan(&self) -> bool {
        matches!(self, Self::ClientActs { .. } | Self::Fault(_))
    }

    /// A number for the hash of a run.
    pub(crate) fn mark(&self) -> u64 {
        let (kind, number) = match self {
            Self::WorkerHello(connection) => (0, connection.process as u64),
            Self::WorkerWelcome { connection, .. } => (1, connection.process as u64),
            Self::ToScheduler { connection, .. } => (2, connection.process as u64),
            Self::ToWorker { connection, .. } => (3, connection.process as u64),
            Self::WorkerGone(connection) => (4, connection.process as u64),
            Self::SchedulerGone(connection) => (5, connection.process as u64),
            Self::ClientHello { client } => (6, *client as u64),
            Self::ClientWelcome { client, .. } => (7, *client as u64),
            Self::FromClient { client, .. } => (8, *client as u64),
            Self::ToClient { client, .. } => (9, *client as u64),
            Self::ClientGone { client } => (10, *client as u64),
            Self::SchedulerTick { .. } => (11, 0),
            Self::WorkerTick { process, .. } => (12, *process as u64),
            Self::FetchArrives { fetch } => (13, *fetch),
            Self::FetchEnds { fetch, .. } => (14, *fetch),
            Self::TaskEnds { task, .. } => (15, u64::from(task.index)),
            Self::MoveEnds { operation, .. } => (16, *operation),
            Self::ClientActs { client, .. } => (17, *client as u64),
            Self::Fault(_) => (18, 0),
            Self::SchedulerDecides => (19, 0),
            Self::ClientReturns { client } => (21, *client as u64),
            Self::TaskSubmits(run) => (20, u64::from(run.task.index)),
        };
        (kind << 48) | number
    }
}

/// Everything that will happen, in order of time; what was scheduled first happens first at the same time.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    entries: BTreeMap<(Time, u64), Happening>,
    next: u64,
    work: usize,
    /// Of `work`, what clients will do by their scripts, and faults.
    plans: usize,
}

impl Agenda {
    /// Returns a key for `take_back`.
    pub(crate) fn push(&mut self, at: Time, happening: Happening) -> (Time, u64) {
        let key = (at, self.next);
        self.next += 1;
        self.insert(key, happening);
        key
    }

    /// What was pushed will not happen after all.
    pub(crate) fn take_back(&mut self, key: (Time, u64)) {
        if let Some(happening) = self.entries.remove(&key) {
            self.count_out(&happening);
        }
    }

    fn insert(&mut self, key: (Time, u64), happening: Happening) {
        self.work += usize::from(!happening.is_background());
        self.plans += usize::from(happening.is_plan());
        self.entries.insert(key, happening);
    }

    fn count_out(&mut self, happening: &Happening) {
        self.work -= usize::from(!happening.is_background());
        self.plans -= usize::from(happening.is_plan());
    }

    /// The next happening, its time and its place in the order.
    pub(crate) fn pop(&mut self) -> Option<(Time, u64, Happening)> {
        let ((at, order), happening) = self.entries.pop_first()?;
        self.count_out(&happening);
        Some((at, order, happening))
    }

    /// Puts back what was popped, for a later time. It keeps its place among what happens at that time, so that links
    /// stay in order.
    pub(crate) fn defer(&mut self, at: Time, order: u64, happening: Happening) {
        self.insert((at, order), happening);
    }

    /// Whether anything but timers and signs of life will happen.
    pub(crate) const fn has_work(&self) -> bool {
        self.work > 0
    }

    /// Whether nothing is under way but what clients and faults will do later.
    pub(crate) const fn is_quiet(&self) -> bool {
        self.work == self.plans
    }
}

/// One direction of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    base_micros: u64,
    jitter_micros: u64,
    last: Time,
}

impl Link {
    pub(crate) const fn new(base_micros: u64, jitter_micros: u64) -> Self {
        Self {
            base_micros,
            jitter_micros,
            last: Time::from_micros(0),
        }
    }

    /// When a message sent now arrives: never before the one sent before it.
    pub(crate) fn arrival(&mut self, now: Time, random: &mut Random) -> Time {
        let at = now.after_micros(self.base_micros + random.below(self.jitter_micros + 1));
        self.last = self.last.max(at);
        self.last
    }

    /// The time after which nothing that was sent so far can still arrive.
    pub(crate) const fn last(&self) -> Time {
        self.last
    }
}
