//! What goes into the worker machine and what comes out of it.

use transload_protocol::{
    Attempt, Demotion, LayerIndex, Memory, PartitionId, Resources, SchedulerToWorker,
    TaskErrorKind, TaskId, Tier, WorkerId, WorkerMessage,
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
    /// The GPU, if the worker has one.
    pub gpu: Option<GpuConfig>,
    /// Spilling starts when stored partitions exceed this percentage of the memory that they are in. Default 70.
    pub spill_above_percent: u8,
    /// Most fetches in flight at once. Default 16.
    pub fetches_in_flight: u32,
    /// Most spills and loads in flight at once. Default 4.
    pub disk_operations_in_flight: u32,
    /// Most moves between device and page-locked memory at once. Default 4.
    pub copies_in_flight: u32,
    /// Attempts to fetch one partition before its task is given back with `MissingInputs`. Default 2.
    pub fetch_attempts: u32,
    /// A heartbeat is sent at least so often, in milliseconds. Default 500.
    pub heartbeat_ms: u32,
}

/// Memory of a worker's GPU, and beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuConfig {
    /// Device memory for stored and fetched partitions, in bytes.
    pub device_bytes: u64,
    /// Page-locked host memory for partitions that left the device, in bytes.
    pub pinned_bytes: u64,
}

impl Config {
    /// The defaults named at each field, no GPU, no limit on disk.
    pub fn new(resources: Resources, memory_bytes: u64) -> Self {
        Self {
            resources,
            memory_bytes,
            disk_bytes: u64::MAX,
            gpu: None,
            spill_above_percent: 70,
            fetches_in_flight: 16,
            disk_operations_in_flight: 4,
            copies_in_flight: 4,
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
    /// A fetch ended well.
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
        /// Where it is now: in the memory that was asked for, or, where there was no room on the device, in page-locked memory, or in
        /// host memory, where it stays then.
        tier: Tier,
    },
    /// A fetch failed. Nothing is stored.
    FetchFailed {
        /// Which partition.
        partition: PartitionId,
        /// From whom.
        from: WorkerId,
        /// What is at fault.
        fault: FetchFault,
        /// Why, in words.
        reason: String,
    },
    /// A started task ended well; its outputs are in the memory where its layer works.
    TaskDone {
        /// Which task.
        task: TaskId,
        /// Which attempt.
        attempt: Attempt,
        /// Bytes of each output; 0 only for one that is like any other without bytes, so that readers need not fetch it.
        bytes: Vec<u64>,
        /// Rows of all of them, for people; 0 where the operator does not count.
        rows: u64,
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
    /// A spill ended well: the partition is where it was to go, and nowhere else.
    Spilled {
        /// Which partition.
        partition: PartitionId,
        /// Bytes that it takes there.
        bytes: u64,
    },
    /// A spill failed: the partition is still where it was, unharmed.
    SpillFailed {
        /// Which partition.
        partition: PartitionId,
        /// Why, in words.
        reason: String,
    },
    /// A load ended well: the partition is where it was to go, and nowhere else.
    Loaded {
        /// Which partition.
        partition: PartitionId,
    },
    /// A load failed.
    LoadFailed {
        /// Which partition.
        partition: PartitionId,
        /// Whether what is on disk cannot be read any more; else it is still where it was, unharmed.
        is_lost: bool,
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
    /// The GPU was opened, and device memory goes to disk and comes back without memory of the host in between: from now on partitions
    /// may be moved so.
    HasDirectStorage,
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

/// What is at fault where a fetch failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchFault {
    /// The peer answered that it does not have the partition, so asking it again is pointless.
    Gone,
    /// Nothing comes from that peer.
    Link,
    /// Something else, here or there: no memory, an unreadable disk.
    Other,
}

/// A partition that a task is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Given {
    /// It is in the memory where it is read.
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
    /// Fetch a partition; answer with `Fetched` or `FetchFailed`.
    Fetch {
        /// Which partition.
        partition: PartitionId,
        /// From whom.
        from: WorkerId,
        /// Its expected size.
        bytes: u64,
        /// Where to.
        memory: Memory,
    },
    /// The result of a fetch in flight is no longer wanted, because its graph is forgotten. No answer is expected any more;
    /// a late `Fetched` is answered by `Drop`. A fetch that is merely not needed now runs to its end.
    CancelFetch {
        /// Which partition.
        partition: PartitionId,
    },
    /// Run a task: all its inputs are in the memory where they are read, or have nothing in them. Answer with `TaskDone` or `TaskFailed`.
    Start {
        /// Which task.
        task: TaskId,
        /// Which attempt.
        attempt: Attempt,
        /// Its layer, whose `LayerSpec` the driver keeps from `SchedulerToWorker::Layer`.
        layer: LayerIndex,
        /// Its inputs: for each input of the layer, the partitions in order.
        inputs: Vec<Vec<Given>>,
        /// Whether it is to work on its inputs in two halves, because device memory was too small for it in one go.
        halved: bool,
    },
    /// Stop a running task. It still answers with `TaskDone` or `TaskFailed`.
    Stop {
        /// Which task.
        task: TaskId,
        /// Which attempt.
        attempt: Attempt,
    },
    /// Move a partition down; answer with `Spilled` or `SpillFailed`.
    Spill {
        /// Which partition.
        partition: PartitionId,
        /// Where to: from a device to page-locked memory or, with direct storage, to disk; from elsewhere to disk.
        to: Tier,
    },
    /// Move a partition up; answer with `Loaded` or `LoadFailed`.
    Load {
        /// Which partition.
        partition: PartitionId,
        /// Where to: from disk to host or page-locked memory or, with direct storage, to the device; from page-locked memory to the device.
        to: Tier,
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
