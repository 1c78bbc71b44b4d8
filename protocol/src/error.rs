//! Why a task failed, in a form that crosses sockets and still tells who, where and what to do.

use serde::{Deserialize, Serialize};

use crate::{TaskId, WorkerId};

/// The class of a task's failure; decides whether trying again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TaskErrorKind {
    /// The operator returned an error: bad input, an unreadable file, a failing expression. Deterministic.
    Operator,
    /// The operator panicked. Ours or its author's bug.
    Panic,
    /// No operator of this name is registered on the worker.
    UnknownOperator,
    /// The task needs more memory than the worker's budget.
    OutOfMemory,
    /// The spill directory is full or cannot be written.
    SpillFailed,
    /// A spilled partition could not be read back, or its checksum is wrong.
    CorruptPartition,
    /// The workers that ran it died, more often than the limit allows.
    WorkersLost,
    /// No worker can ever run it, for example because it asks for more slots than any worker has.
    Unschedulable,
    /// The operator says that it may pass: a service that did not answer, a file that is locked. Another attempt can help.
    Transient,
    /// It reads results of another graph, and that one is over before it has them.
    SourceGone,
    /// It ran longer than its layer's time limit.
    TimeLimit,
}

impl TaskErrorKind {
    /// Whether another attempt, perhaps on another worker, can end differently.
    pub const fn is_retryable(self) -> bool {
        match self {
            Self::SpillFailed
            | Self::CorruptPartition
            | Self::OutOfMemory
            | Self::Transient
            | Self::TimeLimit => true,
            Self::Operator
            | Self::Panic
            | Self::UnknownOperator
            | Self::WorkersLost
            | Self::Unschedulable
            | Self::SourceGone => false,
        }
    }
}

/// The failure of one task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error(
    "task {task} ({layer}, operator `{operator}`){} failed: {message}",
    on_worker(worker)
)]
pub struct TaskError {
    /// Which task.
    pub task: TaskId,
    /// The name of its layer.
    pub layer: String,
    /// The name of its operator.
    pub operator: String,
    /// Where it ran last, if it ever ran.
    pub worker: Option<WorkerId>,
    /// The class of the failure.
    pub kind: TaskErrorKind,
    /// The cause in words, with its remedy where one is known.
    pub message: String,
}

fn on_worker(worker: &Option<WorkerId>) -> String {
    worker
        .map(|worker| format!(" on worker {worker}"))
        .unwrap_or_default()
}
