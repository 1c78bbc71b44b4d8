//! Why something asked of a client did not happen.

use std::time::Duration;

use transload_protocol::{GraphError, SharingRefusal, TaskError, TaskId, words};

use crate::RuntimeError;
use crate::control::ControlError;

/// Why something asked of a client did not happen.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection to the scheduler.
    #[error(transparent)]
    Connect(#[from] ControlError),
    /// The scheduler took this client for something else.
    #[error(
        "{address} answered, but not as a scheduler answers a client; is it another program's port?"
    )]
    UnexpectedWelcome {
        /// Where.
        address: String,
    },
    /// The scheduler file is missing or unreadable.
    #[error(transparent)]
    SchedulerFile(RuntimeError),
    /// The graph breaks a rule.
    #[error(transparent)]
    Rejected(GraphError),
    /// A task failed for good, and its graph with it.
    #[error(transparent)]
    Task(Box<TaskError>),
    /// The graph was cancelled.
    #[error("the graph was cancelled")]
    Cancelled,
    /// The graph was not done in the time that it was given.
    #[error(
        "cancelled after {}: its deadline; {} of {} tasks were done",
        words::duration(after_ms.saturating_mul(1_000)), words::count(*done), words::count(*total)
    )]
    Deadline {
        /// That time, in milliseconds.
        after_ms: u64,
        /// Tasks that were done.
        done: u32,
        /// Tasks that were to be done.
        total: u32,
    },
    /// The connection ended; what was submitted through it has been cancelled.
    #[error("connection to the scheduler lost: {reason}")]
    ConnectionLost {
        /// Why.
        reason: String,
    },
    /// Only partitions of layers marked as kept can be gathered.
    #[error(
        "layer {layer} of graph `{graph}` was not kept; mark it with TaskGraph::keep before submitting"
    )]
    NotKept {
        /// The graph's name.
        graph: String,
        /// The layer's position.
        layer: u32,
    },
    /// What was asked of the scheduler about shared results was not done.
    #[error(transparent)]
    Refused(SharingRefusal),
    /// What is scattered cannot be served.
    #[error(
        "cannot serve partitions at {host}: {reason}; name another address of this machine in ScatterOptions::host"
    )]
    Listen {
        /// Where.
        host: String,
        /// Why not.
        reason: String,
    },
    /// It was not over in time.
    #[error("not done after {} ms", after.as_millis())]
    TimedOut {
        /// How long was waited.
        after: Duration,
    },
    /// A finished partition could not be fetched, also after it was made again.
    #[error(
        "the partitions of task {task} could not be fetched after {attempts} attempts: {reason}"
    )]
    Fetch {
        /// Which task.
        task: TaskId,
        /// How often it was tried.
        attempts: u32,
        /// What happened last.
        reason: String,
    },
}
