//! The record of one task: small, plain, in a vector indexed by the task's index in its graph.
//!
//! Written by `transition` alone. Knows nothing of the graph around it.

use transload_protocol::OutputSizes;

use crate::slab::WorkerSlot;

/// What the scheduler remembers of a task.
#[derive(Debug)]
pub(crate) struct Task {
    /// Where it stands.
    pub(crate) state: TaskState,
    /// The last attempt that was handed out, 0 before the first.
    pub(crate) attempt: u32,
    /// Edges to tasks that are still to be done, but those of barriers. A task that reads two partitions of this one counts
    /// twice.
    pub(crate) readers: u32,
    /// Its layer.
    pub(crate) layer: u32,
    /// Someone wants its partitions kept, whoever reads them: the client, or the graph until the task has run once for its effect.
    pub(crate) held: bool,
}

/// Where a task stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TaskState {
    /// No output that the client asked for needs it: it never runs.
    Culled,
    /// To be done, but not yet.
    Waiting {
        /// Edges from tasks that are not done, one for each closed barrier of the layer, and one more while a cancelled attempt of
        /// this task is unanswered.
        missing: u32,
    },
    /// To be done now; waits for a worker.
    Ready {
        /// The worker that holds most of what it reads.
        prefers: Option<WorkerSlot>,
    },
    /// Handed to a worker.
    Assigned {
        /// To whom.
        worker: WorkerSlot,
        /// The scheduler's count of assignments when this one was made.
        serial: u32,
        /// The worker said that it runs.
        started: bool,
    },
    /// Done, and its partitions are stored.
    Done {
        /// Where.
        worker: WorkerSlot,
        /// The scheduler's count of assignments when it was done.
        serial: u32,
        /// Sizes of its outputs.
        sizes: OutputSizes,
    },
    /// Nobody needs its partitions (any more): freed, or never made.
    Released,
}

impl TaskState {
    /// Its name in traces.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Culled => "culled",
            Self::Waiting { .. } => "waiting",
            Self::Ready { .. } => "ready",
            Self::Assigned { .. } => "assigned",
            Self::Done { .. } => "done",
            Self::Released => "released",
        }
    }

    /// Whether it is still to be done (again), so that what it reads must not be freed.
    pub(crate) const fn is_to_do(&self) -> bool {
        match self {
            Self::Waiting { .. } | Self::Ready { .. } | Self::Assigned { .. } => true,
            Self::Culled | Self::Done { .. } | Self::Released => false,
        }
    }

    /// Whether its partitions are stored.
    pub(crate) const fn is_stored(&self) -> bool {
        match self {
            Self::Done { .. } => true,
            Self::Culled
            | Self::Waiting { .. }
            | Self::Ready { .. }
            | Self::Assigned { .. }
            | Self::Released => false,
        }
    }

    /// Whether nothing more has to happen for it.
    pub(crate) const fn is_settled(&self) -> bool {
        match self {
            Self::Done { .. } | Self::Released => true,
            Self::Culled | Self::Waiting { .. } | Self::Ready { .. } | Self::Assigned { .. } => {
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_stays_small() {
        assert!(size_of::<Task>() <= 56, "{} B", size_of::<Task>());
    }
}
