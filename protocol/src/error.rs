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
    "task {task} ({layer}, operator `{operator}`){} failed{}: {message}",
    on_worker(*worker, place),
    so_often(*attempts)
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
    /// Name and host of that worker, in words; empty where it is not known.
    pub place: String,
    /// Attempts that have failed, this one included; those whose worker died count.
    pub attempts: u32,
}

fn on_worker(worker: Option<WorkerId>, place: &str) -> String {
    match worker {
        None => String::new(),
        Some(worker) if place.is_empty() => format!(" on worker {worker}"),
        Some(worker) => format!(" on worker {worker} ({place})"),
    }
}

fn so_often(attempts: u32) -> String {
    match attempts {
        0 | 1 => String::new(),
        attempts => format!(" in {attempts} attempts"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ClientId, GraphId};

    #[test]
    fn a_failure_says_where_and_how_often_as_far_as_that_is_known() {
        let graph = GraphId {
            client: ClientId(1),
            sequence: 2,
        };
        let mut error = TaskError {
            task: TaskId { graph, index: 3 },
            layer: "scan".to_owned(),
            operator: "read".to_owned(),
            worker: None,
            kind: TaskErrorKind::Transient,
            message: "no answer".to_owned(),
            place: String::new(),
            attempts: 1,
        };
        let told = |error: &TaskError| error.to_string();
        assert!(told(&error).ends_with("(scan, operator `read`) failed: no answer"));
        error.worker = Some(WorkerId(3));
        assert!(told(&error).ends_with("on worker w3 failed: no answer"));
        (error.place, error.attempts) = ("`big` on rack7".to_owned(), 4);
        let end = "on worker w3 (`big` on rack7) failed in 4 attempts: no answer";
        assert!(told(&error).ends_with(end), "{error}");
    }
}
