//! What goes into the scheduler and what comes out of it.

use transload_protocol::{
    ClientHello, ClientId, ClientMessage, EventRecord, Inventory, JournalEntry, SchedulerToClient,
    SchedulerToWorker, SessionToken, WorkerHello, WorkerId, WorkerMessage,
};

/// Limits and habits of a scheduler. Every field has a default and can be configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Tasks handed to a worker beyond those that its slots can run, per slot, so that fetching overlaps with computing.
    /// Default 1. More hides longer fetches and pins more memory.
    pub queue_per_slot: u32,
    /// Where tasks are so short that such a queue runs empty between two messages, it grows up to so many tasks per slot. Default
    /// 64. At most `queue_per_slot`: it stays as it is.
    pub max_queue_per_slot: u32,
    /// A worker that sent nothing for so long counts as lost, in milliseconds. Default 10,000.
    pub worker_timeout_ms: u32,
    /// How many workers may die while running one task before that task is given up and named. Default 3.
    pub worker_deaths_per_task: u32,
    /// A task that failed waits for so long before it is tried again, in milliseconds, and twice as long after each further
    /// failure. Default 100; 0 for not at all.
    pub retry_backoff_ms: u32,
    /// The longest such wait, in milliseconds. Default 30,000.
    pub retry_backoff_limit_ms: u32,
    /// Tell [`Action::Emit`] of every task that is handed out or done, also while no client has subscribed. Default true. Without,
    /// a million tasks cost noticeably less.
    pub task_events: bool,
    /// Shortest time between two progress messages about one graph, in milliseconds. Default 100.
    pub progress_interval_ms: u32,
    /// For so long the graphs of a client with a session go on after its connection broke, in milliseconds. Default 3,000;
    /// 0 for not at all. Longer survives longer breaks, and works longer for clients that died.
    pub client_grace_ms: u32,
    /// For so long a scheduler that took the place of another waits for that one's workers before it hands out tasks, in
    /// milliseconds. Default 5,000; less when all are back. Longer repeats less work, and does nothing meanwhile.
    pub recovery_grace_ms: u32,
    /// A graph with a task that no worker can run fails after so long, in milliseconds, unless a worker that can joins before.
    /// Default 10,000; 0 for at once. Longer gives workers time to start, and tells later of what can never run.
    pub unschedulable_grace_ms: u32,
    /// A running task that takes so many times as long as those of its layer that have ended is told to be a straggler. Default 3;
    /// 0 for never.
    pub straggler_factor: u32,
    /// But not before it has run for so long, in milliseconds. Default 1,000.
    pub straggler_after_ms: u32,
    /// Emit [`Action::Record`]. Default false.
    pub journal: bool,
    /// Most names under which results are published. Default 10,000, some hundred bytes each; the results themselves count more.
    pub published_names: u32,
    /// What locks, semaphores, events, queues and variables may take.
    pub coordination: CoordinationLimits,
}

/// What locks, semaphores, events, queues and variables may take of the scheduler's memory. What goes beyond is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoordinationLimits {
    /// Most of them at once. Default 100,000, some hundred bytes each.
    pub names: u32,
    /// Most calls at once that wait or hold something. Default 100,000, some hundred bytes each.
    pub calls: u32,
    /// Largest item of a queue or value of a variable, in bytes. Default 1 MiB: data belongs in partitions.
    pub item_bytes: u64,
    /// Most bytes of all items and values together. Default 256 MiB.
    pub memory_bytes: u64,
}

impl Default for CoordinationLimits {
    fn default() -> Self {
        Self {
            names: 100_000,
            calls: 100_000,
            item_bytes: 1 << 20,
            memory_bytes: 256 << 20,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            queue_per_slot: 1,
            max_queue_per_slot: 64,
            worker_timeout_ms: 10_000,
            worker_deaths_per_task: 3,
            retry_backoff_ms: 100,
            retry_backoff_limit_ms: 30_000,
            task_events: true,
            progress_interval_ms: 100,
            client_grace_ms: 3_000,
            recovery_grace_ms: 5_000,
            unschedulable_grace_ms: 10_000,
            straggler_factor: 3,
            straggler_after_ms: 1_000,
            journal: false,
            published_names: 10_000,
            coordination: CoordinationLimits::default(),
        }
    }
}

/// Something that happened outside. Ids of clients and workers are given out by the driver and never used twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A client said hello with the right version.
    ClientConnected {
        /// Its id.
        client: ClientId,
        /// What it said.
        hello: ClientHello,
    },
    /// A client sent a message.
    FromClient {
        /// Who.
        client: ClientId,
        /// What.
        message: ClientMessage,
    },
    /// A client's connection ended; unless it has a session and comes back in time, its graphs are cancelled and its partitions
    /// freed.
    ClientLost {
        /// Who.
        client: ClientId,
    },
    /// A worker said hello with the right version.
    WorkerConnected {
        /// Its id.
        worker: WorkerId,
        /// What it said.
        hello: WorkerHello,
    },
    /// A worker sent a message.
    FromWorker {
        /// Who.
        worker: WorkerId,
        /// What.
        message: WorkerMessage,
    },
    /// A worker's connection ended.
    WorkerLost {
        /// Who.
        worker: WorkerId,
        /// Why, in words.
        reason: String,
    },
    /// Time has passed; see `Scheduler::next_deadline`.
    Tick,
    /// A client that has just connected can come back with this token when its connection breaks.
    SessionOpened {
        /// Who.
        client: ClientId,
        /// What it was given.
        token: SessionToken,
    },
    /// A client came back over another connection: see `Scheduler::knows_client`. It is told nothing before its
    /// `ClientMessage::Resume`.
    ClientReturned {
        /// Who.
        client: ClientId,
    },
    /// A worker came back over another connection: see `Scheduler::knows_worker`.
    WorkerReturned {
        /// Who.
        worker: WorkerId,
        /// What it said.
        hello: WorkerHello,
        /// What it still has.
        inventory: Inventory,
    },
}

/// Something for the driver to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send to a client. Order per client is kept.
    ToClient {
        /// To whom.
        client: ClientId,
        /// What.
        message: SchedulerToClient,
    },
    /// Send to a worker. Order per worker is kept.
    ToWorker {
        /// To whom.
        worker: WorkerId,
        /// What.
        message: SchedulerToWorker,
    },
    /// Close a worker's connection: it counts as lost already.
    DropWorker {
        /// Whom.
        worker: WorkerId,
        /// Why, in words.
        reason: String,
    },
    /// Tell the readers of events (logs, metrics). Subscribed clients get theirs through `ToClient`.
    Emit(EventRecord),
    /// A client asked for shutdown: all workers and clients have been told; end the process.
    Stop,
    /// Write this down before any later message leaves. Only with [`Config::journal`].
    Record(JournalEntry),
}
