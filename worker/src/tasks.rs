//! Records of the tasks that a worker was given: queued or running. Used by `machine` and its parts; knows nothing of
//! where partitions are.

use std::collections::BTreeSet;
use std::sync::Arc;

use transload_protocol::{
    Attempt, InputLocation, LayerIndex, PartitionId, Resources, TaskId, Time,
};

/// Position in the queue: lower runs first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// As the scheduler wished.
    pub(crate) order: u64,
    /// Tells tasks of the same order apart.
    pub(crate) task: TaskId,
}

/// What the machine needs to know of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layer {
    pub(crate) name: String,
    pub(crate) operator: String,
    /// Number of inputs of each task.
    pub(crate) inputs: usize,
    pub(crate) resources: Resources,
}

/// A task that waits for inputs, memory or a slot.
#[derive(Debug, Clone)]
pub(crate) struct Queued {
    pub(crate) attempt: Attempt,
    pub(crate) layer_index: LayerIndex,
    pub(crate) layer: Arc<Layer>,
    /// As assigned; one partition may stand here more than once.
    pub(crate) inputs: Vec<InputLocation>,
}

impl Queued {
    /// Every partition it reads, each once.
    pub(crate) fn distinct_inputs(&self) -> BTreeSet<PartitionId> {
        self.inputs.iter().map(|input| input.partition).collect()
    }

    /// It can start when no slot is free.
    pub(crate) fn is_slotless(&self) -> bool {
        self.layer.resources.slots == 0
    }

    /// For each input of the layer, the partitions in order: the shape that `Action::Start` wants.
    pub(crate) fn inputs_by_position(&self) -> Vec<Vec<PartitionId>> {
        let mut positions = vec![Vec::new(); self.layer.inputs];
        for input in &self.inputs {
            if let Some(position) = positions.get_mut(input.input as usize) {
                position.push(input.partition);
            }
        }
        positions
    }
}

/// A task that was started and has not ended.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    pub(crate) attempt: Attempt,
    pub(crate) layer: Arc<Layer>,
    /// Pinned until it ends.
    pub(crate) inputs: BTreeSet<PartitionId>,
    pub(crate) phase: Phase,
    pub(crate) started: Time,
    /// It waits at the executor for a slot that another task still occupies; see `ahead`.
    pub(crate) is_ahead: bool,
}

/// What is to become of a running task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It runs to its end.
    Wanted,
    /// The scheduler cancelled it. It is being stopped; outputs it makes nevertheless are kept and reported.
    Cancelled,
    /// Its graph was forgotten or a newer attempt was assigned. It is being stopped; its outputs are dropped.
    Disowned,
}

impl Running {
    /// The one function that changes a phase. Returns whether the driver must be told to stop the task.
    pub(crate) fn abandon(&mut self, next: Phase) -> bool {
        let (phase, stop) = match (self.phase, next) {
            (Phase::Wanted, Phase::Wanted) => (Phase::Wanted, false),
            (Phase::Wanted, Phase::Cancelled) => (Phase::Cancelled, true),
            (Phase::Wanted, Phase::Disowned) => (Phase::Disowned, true),
            (Phase::Cancelled, Phase::Wanted | Phase::Cancelled) => (Phase::Cancelled, false),
            (Phase::Cancelled, Phase::Disowned) | (Phase::Disowned, _) => (Phase::Disowned, false),
        };
        self.phase = phase;
        stop
    }
}
