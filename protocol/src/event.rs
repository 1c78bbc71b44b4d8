//! What happened, told once and read by many: logs, metrics, the command line, tests.

use serde::{Deserialize, Serialize};

use crate::{Attempt, Demotion, GraphId, GraphOutcome, PartitionId, TaskId, Tier, Time, WorkerId};

/// Something that happened somewhere in the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A worker joined the cluster.
    WorkerJoined {
        /// Which worker.
        worker: WorkerId,
    },
    /// A worker left or died.
    WorkerLost {
        /// Which worker.
        worker: WorkerId,
        /// Why, in words.
        reason: String,
    },
    /// A graph was accepted.
    GraphAccepted {
        /// Which graph.
        graph: GraphId,
        /// How many tasks it has.
        tasks: u32,
    },
    /// A graph ended: all outputs made, failed, or cancelled.
    GraphEnded {
        /// Which graph.
        graph: GraphId,
        /// How.
        outcome: Box<GraphOutcome>,
    },
    /// A task was handed to a worker.
    TaskAssigned {
        /// Which task.
        task: TaskId,
        /// The attempt this is.
        attempt: Attempt,
        /// To which worker.
        worker: WorkerId,
    },
    /// A task ended well. Of one whose gang runs again it is told again.
    TaskFinished {
        /// Which task.
        task: TaskId,
        /// Where.
        worker: WorkerId,
        /// Bytes of all its outputs.
        bytes: u64,
        /// How long it ran, as [`crate::WorkerMessage::Finished`] tells it.
        run_micros: u64,
    },
    /// A task failed.
    TaskFailed {
        /// Which task.
        task: TaskId,
        /// Where.
        worker: WorkerId,
        /// Why, in words.
        message: String,
        /// How long it ran, in microseconds; 0 where it did not begin.
        run_micros: u64,
    },
    /// A finished task must run again because its partitions were lost.
    TaskRecomputed {
        /// Which task.
        task: TaskId,
    },
    /// A partition moved between workers.
    PartitionFetched {
        /// Which partition.
        partition: PartitionId,
        /// Its holder.
        from: WorkerId,
        /// Its new reader.
        to: WorkerId,
        /// Payload bytes.
        bytes: u64,
        /// What moved it: the name of a transport and what that chose, as in `tcp` or `ucx posix/memory`.
        transport: String,
        /// From request to last byte.
        micros: u64,
    },
    /// A partition moved down or up between the tiers of one worker.
    PartitionMoved {
        /// Which partition.
        partition: PartitionId,
        /// Where.
        worker: WorkerId,
        /// The tier it left.
        from: Tier,
        /// The tier it is in now.
        to: Tier,
        /// Its bytes.
        bytes: u64,
        /// How long that took.
        micros: u64,
    },
    /// A task is ready and no worker of the cluster can ever run it, nor the others of its layer. Told once, before its graph
    /// fails.
    TaskUnschedulable {
        /// Which task: the first of its layer.
        task: TaskId,
        /// What it asks for and what there is, in words.
        message: String,
    },
    /// A task runs much longer than others of its layer took. Told once of each attempt.
    TaskStraggles {
        /// Which task.
        task: TaskId,
        /// Where.
        worker: WorkerId,
        /// For how long it has run, in milliseconds.
        running_ms: u64,
        /// How long the others took on average, in milliseconds.
        typical_ms: u64,
    },
    /// A worker could not fetch from another that is a member still. What would fail again is not tried for a while: one of the two stands
    /// aside, and gets no task that another can take.
    WorkersApart {
        /// Who tried to read.
        reader: WorkerId,
        /// From whom.
        holder: WorkerId,
        /// Why that failed, in words.
        reason: String,
        /// Which of the two stands aside; both where other workers are out of reach, too.
        aside: Vec<WorkerId>,
        /// For how long, in milliseconds.
        pause_ms: u64,
    },
    /// A transport between two workers failed, and their partitions come over another one for a while. Told with the first that
    /// came so.
    LinkDemoted {
        /// Who holds the partitions.
        from: WorkerId,
        /// Who reads them.
        to: WorkerId,
        /// Which transport failed, and why.
        demotion: Demotion,
        /// What carries them instead: the name of a transport and what that chose.
        used: String,
    },
}

/// An event and when it happened, on the clock of the process that tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    /// When.
    pub at: Time,
    /// What.
    pub event: Event,
}
