//! The record of one task: small, plain, in a vector indexed by the task's index in its graph.
//!
//! Written by `transition` alone. Knows nothing of the graph around it.

use crate::slab::WorkerSlot;

/// What the scheduler remembers of a task. Half a line of the cache: a graph without regular shape waits for memory at every edge.
#[derive(Debug)]
#[repr(align(32))]
pub(crate) struct Task {
    /// Where it stands.
    pub(crate) state: TaskState,
    /// The last attempt that was handed out, 0 before the first.
    pub(crate) attempt: u32,
    /// Edges to tasks that are still to be done, but those of barriers. A task that reads two partitions of this one counts
    /// twice.
    pub(crate) readers: u32,
    /// Its layer, and in the last bit whether it is held. A graph has no more layers than tasks, far fewer than fit
    /// ([`MAX_TASKS_PER_GRAPH`](transload_protocol::MAX_TASKS_PER_GRAPH)).
    layer_and_held: u32,
}

/// A number of bytes that needs no more alignment than the numbers beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bytes([u8; 8]);

/// Where a task stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TaskState {
    /// No output that the client asked for needs it: it never runs.
    Culled,
    /// To be done, but not yet.
    Waiting {
        /// Edges from tasks that are not done, one for each closed barrier of the layer, one more while a cancelled attempt of
        /// this task is unanswered, and one more while it waits before it is tried again.
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
    /// Ended well as part of a gang, and its partitions are stored; it is done when its whole gang is.
    Ended {
        /// Where.
        worker: WorkerSlot,
    },
    /// Done, and its partitions are stored.
    Done {
        /// Where.
        worker: WorkerSlot,
        /// The scheduler's count of assignments when it was done.
        serial: u32,
        /// Size of the largest of its outputs. [`Graph::sizes`](crate::graph::Graph::sizes) knows more.
        largest: Bytes,
    },
    /// Nobody needs its partitions (any more): freed, or never made.
    Released,
}

impl Task {
    /// A task that nobody has asked for.
    pub(crate) const fn culled(layer: u32, held: bool) -> Self {
        Self {
            state: TaskState::Culled,
            attempt: 0,
            readers: 0,
            layer_and_held: layer << 1 | held as u32,
        }
    }

    /// Its layer.
    pub(crate) const fn layer(&self) -> u32 {
        self.layer_and_held >> 1
    }

    /// Someone wants its partitions kept, whoever reads them: the client, others with it, or the graph until the task has run once
    /// for its effect.
    pub(crate) const fn is_held(&self) -> bool {
        self.layer_and_held & 1 == 1
    }

    /// Someone does, from now on.
    pub(crate) const fn hold(&mut self) {
        self.layer_and_held |= 1;
    }

    /// Nobody does any more.
    pub(crate) const fn let_go(&mut self) {
        self.layer_and_held &= !1;
    }
}

impl From<u64> for Bytes {
    fn from(bytes: u64) -> Self {
        Self(bytes.to_ne_bytes())
    }
}

impl From<Bytes> for u64 {
    fn from(bytes: Bytes) -> Self {
        Self::from_ne_bytes(bytes.0)
    }
}

impl TaskState {
    /// Its name in traces.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Culled => "culled",
            Self::Waiting { .. } => "waiting",
            Self::Ready { .. } => "ready",
            Self::Assigned { .. } => "assigned",
            Self::Ended { .. } => "ended",
            Self::Done { .. } => "done",
            Self::Released => "released",
        }
    }

    /// Whether it is still to be done (again), so that what it reads must not be freed.
    pub(crate) const fn is_to_do(&self) -> bool {
        match self {
            Self::Waiting { .. }
            | Self::Ready { .. }
            | Self::Assigned { .. }
            | Self::Ended { .. } => true,
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
            | Self::Ended { .. }
            | Self::Released => false,
        }
    }

    /// Whether nothing more has to happen for it.
    pub(crate) const fn is_settled(&self) -> bool {
        match self {
            Self::Done { .. } | Self::Released => true,
            Self::Culled
            | Self::Waiting { .. }
            | Self::Ready { .. }
            | Self::Assigned { .. }
            | Self::Ended { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use transload_protocol::MAX_TASKS_PER_GRAPH;

    #[test]
    fn a_record_stays_small() {
        assert!(size_of::<Task>() <= 32, "{} B", size_of::<Task>());
    }

    #[test]
    fn a_record_knows_its_layer_whether_it_is_held_or_not() {
        let mut task = Task::culled(MAX_TASKS_PER_GRAPH - 1, true);
        assert_eq!(
            (task.layer(), task.is_held()),
            (MAX_TASKS_PER_GRAPH - 1, true)
        );
        task.let_go();
        assert_eq!(
            (task.layer(), task.is_held()),
            (MAX_TASKS_PER_GRAPH - 1, false)
        );
    }

    #[test]
    fn no_byte_is_lost() {
        for bytes in [0, 1, u64::from(u32::MAX) + 7, u64::MAX] {
            assert_eq!(u64::from(Bytes::from(bytes)), bytes);
        }
    }
}
