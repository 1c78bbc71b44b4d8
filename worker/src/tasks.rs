//! Records of the tasks that a worker was given: queued or running. Used by `machine` and its parts; knows nothing of
//! where partitions are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use transload_protocol::{
    Attempt, InputLocation, InputSpec, LayerIndex, Memory, PartitionId, Resources, SourceTable,
    TaskId, Time,
};

use crate::Given;

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
    /// Index of its first task.
    pub(crate) first_task: u32,
    /// How each task reads.
    pub(crate) inputs: Vec<InputSpec>,
    pub(crate) resources: Resources,
    /// Names of layer and operator of each step of a fused layer.
    pub(crate) steps: Vec<(String, String)>,
    /// Its tasks wait for each other while they run, on all workers.
    pub(crate) gang: bool,
    /// Where its tasks work.
    pub(crate) memory: Memory,
    /// As in [`transload_protocol::LayerSpec::input_memory`].
    pub(crate) input_memory: Vec<Memory>,
}

impl Layer {
    /// In which memory the partitions of an input were made.
    pub(crate) fn memory_of(&self, input: &InputLocation) -> Memory {
        let memory = self.input_memory.get(input.input as usize);
        memory.copied().unwrap_or_default()
    }

    /// Names of layer and operator for the error of a task, of which that step failed.
    pub(crate) fn names(&self, step: Option<u32>) -> (&str, &str) {
        match step.and_then(|step| self.steps.get(step as usize)) {
            Some((layer, operator)) => (layer, operator),
            None => (&self.name, &self.operator),
        }
    }
}

/// Where whole layers are that the tasks of a layer read, by input.
pub(crate) type Sources = BTreeMap<u32, SourceTable>;

/// A task that waits for inputs, memory or a slot.
#[derive(Debug, Clone)]
pub(crate) struct Queued {
    pub(crate) attempt: Attempt,
    pub(crate) layer_index: LayerIndex,
    pub(crate) layer: Arc<Layer>,
    /// As assigned; one partition may stand here more than once.
    pub(crate) inputs: Vec<InputLocation>,
    /// It occupies what it asked for already, so that nobody else takes that before it starts; see `gang`.
    pub(crate) is_reserved: bool,
    /// How much it is helped with device memory.
    pub(crate) help: Help,
}

/// What is done for a task that works in device memory and has run out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Help {
    /// It has not.
    None,
    /// It runs when what it does not read has left the device.
    Emptied,
    /// That, and it works on its inputs in two halves.
    Halved,
}

impl Queued {
    /// Every partition that has to be here for it, each once.
    pub(crate) fn distinct_inputs(&self) -> BTreeSet<PartitionId> {
        let inputs = self.inputs.iter();
        inputs
            .filter(|input| has_bytes(input))
            .map(|input| input.partition)
            .collect()
    }

    /// It can start when no slot is free.
    pub(crate) fn is_slotless(&self) -> bool {
        self.layer.resources.slots == 0 || self.layer.gang
    }

    /// For each input of the layer, the partitions in order: the shape that `Action::Start` wants.
    pub(crate) fn inputs_by_position(&self) -> Vec<Vec<Given>> {
        let mut positions = vec![Vec::new(); self.layer.inputs.len()];
        for input in &self.inputs {
            if let Some(position) = positions.get_mut(input.input as usize) {
                position.push(if has_bytes(input) {
                    Given::Held(input.partition)
                } else {
                    Given::Empty(input.partition)
                });
            }
        }
        positions
    }
}

/// Whether there is anything in an input. What has no bytes is the same everywhere: nobody fetches it, keeps a copy or waits for it.
pub(crate) fn has_bytes(input: &InputLocation) -> bool {
    input.bytes > 0
}

/// A task that was started and has not ended.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    pub(crate) attempt: Attempt,
    pub(crate) layer: Arc<Layer>,
    /// Pinned until it ends.
    pub(crate) inputs: BTreeSet<PartitionId>,
    /// How much it was helped with device memory.
    pub(crate) help: Help,
    /// As it was queued, of a task that works in device memory, to be queued again when that is short.
    pub(crate) queued: Option<Box<(Place, Queued)>>,
    pub(crate) phase: Phase,
    pub(crate) slot: Slot,
    pub(crate) started: Time,
    /// When it got its slot; of one that waits for it at the executor, when it was started.
    pub(crate) began: Time,
}

/// Whether a running task occupies what it asked for. Changed in `secede`, `ahead` and `gang` alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    /// It waits at the executor for a slot that another task still occupies; see `ahead`.
    Ahead,
    /// It does.
    Held,
    /// It runs without, beyond what the worker offers: it is a member of a gang, and others wait for it.
    Beyond,
    /// It has given it back, and waits for something that is not ours to know.
    Given,
    /// It wants it again.
    Awaited {
        /// Lower goes first.
        ticket: u64,
    },
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
    /// Whether it will come to its end whatever else starts here or not.
    pub(crate) fn is_working(&self) -> bool {
        match self.slot {
            Slot::Held | Slot::Ahead | Slot::Beyond => true,
            Slot::Given | Slot::Awaited { .. } => self.phase != Phase::Wanted,
        }
    }

    /// Whether it may wait for other members of its gang.
    pub(crate) fn is_awaiting_members(&self) -> bool {
        self.layer.gang && self.phase == Phase::Wanted
    }

    /// For how long it has run.
    pub(crate) fn run_micros(&self, now: Time) -> u64 {
        match self.slot {
            Slot::Ahead => 0,
            Slot::Held | Slot::Beyond | Slot::Given | Slot::Awaited { .. } => {
                now.micros_since(self.began)
            }
        }
    }

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
