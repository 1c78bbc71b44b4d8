//! What goes into the worker machine and what comes out of it.

use transload_protocol::{
    Attempt, Demotion, LayerIndex, PartitionId, Resources, SchedulerToWorker, TaskErrorKind,
    TaskId, WorkerId, WorkerMessage,
};

/// Limits of one worker. Every field can be configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// What tasks can occupy.
    pub resources: Resources,
    /// Host memory for stored and fetched partitions, in bytes.
    pub memory_bytes: u64,
    /// Disk for spilled partitions, in bytes; `u64::MAX` for no limit of ours.
    pub disk_bytes: u64,
    /// Spilling starts when stored partitions exceed this percentage of `memory_bytes`. Default 70.
    pub spill_above_percent: u8,
    /// Most fetches in flight at once. Default 16.
    pub fetches_in_flight: u32,
    /// Most spills and loads in flight at once. Default 4.
    pub disk_operations_in_flight: u32,
    /// Attempts to fetch one partition before its task is given back with `MissingInputs`. Default 2.
    pub fetch_attempts: u32,
    /// A heartbeat is sent at least so often, in milliseconds. Default 500.
    pub heartbeat_ms: u32,
}

impl Config {
    /// The defaults named at each field, no limit on disk.
    pub fn new(resources: Resources, memory_bytes: u64) -> Self {
        Self {
            resources,
            memory_bytes,
            disk_bytes: u64::MAX,
            spill_above_percent: 70,
            fetches_in_flight: 16,
            disk_operations_in_flight: 4,
            fetch_attempts: 2,
            heartbeat_ms: 500,
        }
    }
}

/// Something that happened outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The scheduler welcomed this worker, or, after `Disconnected`, welcomed it back under the id that it had.
    Connected {
        /// The id it was given.
        worker: WorkerId,
    },
    /// The scheduler sent a message.
    FromScheduler(SchedulerToWorker),
    /// A fetch ended well: the partition is in host memory.
    Fetched {
        /// Which partition.
        partition: PartitionId,
        /// From whom.
        from: WorkerId,
        /// Its size.
        bytes: u64,
        /// Duration of the transfer.
        micros: u64,
        /// Name of the transport that moved it.
        transport: String,
    },
    /// A fetch failed. Nothing is stored.
    FetchFailed {
        /// Which partition.
        partition: PartitionId,
        /// From whom.
        from: WorkerId,
        /// The peer answered that it does not have the partition, so asking it again is pointless.
        gone: bool,
        /// Why, in words.
        reason: String,
    },
    /// A started task ended well; its outputs are in host memory.
    TaskDone {
        /// Which task.
        task: TaskId,
        /// Which attempt.
        attempt: Attempt,
        /// Bytes of each output; 0 only for one that is like any other without bytes, so that readers need not fetch it.
        bytes: Vec<u64>,
    },
    /// A started task failed or, after `Action::Stop`, was stopped. Nothing of its outputs is stored.
    TaskFailed {
        /// Which task.
        task: TaskId,
        /// Which attempt.
        attempt: Attempt,
        /// Class of the failure.
        kind: TaskErrorKind,
        /// Why, in words.
        message: String,
        /// Which step of a fused layer failed; `None` when it was the layer's own operator, or none at all.
        step: Option<u32>,
    },
    /// A spill ended well: the partition is on disk and no longer in memory.
    Spilled {
        /// Which partition.
        partition: PartitionId,
        /// Bytes on disk.
        bytes: u64,
    },
    /// A spill failed: the partition is still in memory, unharmed.
    SpillFailed {
        /// Which partition.
        partition: PartitionId,
        /// Why, in words.
        reason: String,
    },
    /// A load ended well: the partition is in memory again and no longer on disk.
    Loaded {
        /// Which partition.
        partition: PartitionId,
    },
    /// A load failed: the partition is lost.
    LoadFailed {
        /// Which partition.
        partition: PartitionId,
        /// Why, in words.
        reason: String,
    },
    /// A started task waits for others and gives up what it occupies until `Rejoin`. Said twice, it counts once.
    Secede {
        /// Which task.
        task: TaskId,
        /// Which attempt.
        attempt: Attempt,
    },
    /// A task that has seceded wants to go on; answered by `Action::Resume` when what it occupies is free, unless it is being
    /// stopped.
    Rejoin {
        /// Which task.
        task: TaskId,
        /// Which attempt.
        attempt: Attempt,
    },
    /// Resident memory of the process was measured, for the heartbeat.
    Measured {
        /// Bytes.
        resident_bytes: u64,
    },
    /// Time has passed; see `Worker::next_deadline`.
    Tick,
    /// The connection to the scheduler broke, and may be made again.
    Disconnected,
    /// A transport to a peer failed, and another one carries its partitions for a while. Comes before the `Fetched` of the first
    /// of them.
    LinkDemoted {
        /// From whom.
        from: WorkerId,
        /// Which transport failed, and why.
        demotion: Demotion,
        /// What carries partitions instead.
        used: String,
    },
}

/// A partition that a task is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Given {
    /// It is in host memory.
    Held(PartitionId),
    /// It has no bytes at all, wherever it was made: there was nothing to fetch.
    Empty(PartitionId),
}

/// Something for the driver to do. Actions are to be carried out in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send to the scheduler. Order is kept.
    ToScheduler(WorkerMessage),
    /// A peer's addresses, for later fetches.
    AddPeer {
        /// Which worker.
        worker: WorkerId,
        /// Where it listens.
        addresses: Vec<transload_protocol::Address>,
    },
    /// A peer is gone: close connections to it and end fetches from it with `FetchFailed`.
    RemovePeer {
        /// Which worker.
        worker: WorkerId,
    },
    /// Fetch a partition into host memory; answer with `Fetched` or `FetchFailed`.
    Fetch {
        /// Which partition.
        partition: PartitionId,
        /// From whom.
        from: WorkerId,
        /// Its expected size.
        bytes: u64,
    },
    /// The result of a fetch in flight is no longer wanted, because its graph is forgotten. No answer is expected any more;
    /// a late `Fetched` is answered by `Drop`. A fetch that is merely not needed now runs to its end.
    CancelFetch {
        /// Which partition.
        partition: PartitionId,
    },
    /// Run a task: all its inputs are in host memory, or have nothing in them. Answer with `TaskDone` or `TaskFailed`.
    Start {
        /// Which task.
        task: TaskId,
        /// Which attempt.
        attempt: Attempt,
        /// Its layer, whose `LayerSpec` the driver keeps from `SchedulerToWorker::Layer`.
        layer: LayerIndex,
        /// Its inputs: for each input of the layer, the partitions in order.
        inputs: Vec<Vec<Given>>,
    },
    /// Stop a running task. It still answers with `TaskDone` or `TaskFailed`.
    Stop {
        /// Which task.
        task: TaskId,
        /// Which attempt.
        attempt: Attempt,
    },
    /// Move a partition from host memory to disk; answer with `Spilled` or `SpillFailed`.
    Spill {
        /// Which partition.
        partition: PartitionId,
    },
    /// Move a partition from disk to host memory; answer with `Loaded` or `LoadFailed`.
    Load {
        /// Which partition.
        partition: PartitionId,
    },
    /// Forget a partition, wherever it is. Never said while a fetch, spill or load of it is in flight, nor while a running
    /// task reads it. Also said for results of late answers and after `LoadFailed`, so it may find nothing.
    Drop {
        /// Which partition.
        partition: PartitionId,
    },
    /// Clean up and end the process.
    Exit,
    /// A task that wanted to go on may do so: it occupies what it asked for.
    Resume {
        /// Which task.
        task: TaskId,
        /// Which attempt.
        attempt: Attempt,
    },
}
