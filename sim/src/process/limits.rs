//! What a simulated worker may never do, and what may never be left of it.

use transload_protocol::{PartitionId, Tier, Time, WorkerMessage};

use super::{Process, Stage};
use crate::world::Step;

impl Process {
    /// Memory of the store: what is there, and what is reserved for what is on its way there.
    pub(super) fn memory_bytes(&self) -> u64 {
        let stored = self.store.values();
        let here = stored.filter(|stored| stored.is_in_memory());
        let here: u64 = here.map(|stored| stored.bytes).sum();
        here + self.fetching.values().map(|(_, bytes)| bytes).sum::<u64>()
    }

    /// Whether a fetch or load may start. The budget may be exceeded for the inputs of one task at a time.
    pub(super) fn check_room(&mut self, partition: PartitionId, bytes: u64) -> Step {
        if self.memory_bytes() + bytes <= self.config.memory_bytes || bytes == 0 {
            return Ok(());
        }
        let (store, fetching) = (&self.store, &self.fetching);
        // What turned out to be empty takes no room, whatever was expected of it.
        // What a task without a slot reads, or one that waits for its gang, stays where it is, and counts no more.
        let waiting = self.running.iter().filter(|(_, it)| {
            it.gang.is_some() || !it.holds_its_slot() && it.stage != Stage::Ahead
        });
        let pinned: Vec<_> = waiting
            .filter_map(|(key, _)| self.assigned.get(key))
            .collect();
        self.overcommitted.retain(|partition| {
            if pinned.iter().any(|inputs| inputs.contains(partition)) {
                return false;
            }
            fetching.contains_key(partition)
                || store
                    .get(partition)
                    .is_some_and(|stored| stored.is_in_memory() && stored.bytes > 0)
        });
        self.overcommitted.insert(partition);
        let mut inputs = self.assigned.values();
        if inputs.any(|inputs| self.overcommitted.is_subset(inputs)) {
            Ok(())
        } else {
            Err(format!(
                "brings {:?} into memory, {} B of {} B in use, and no one task needs them all",
                self.overcommitted,
                self.memory_bytes(),
                self.config.memory_bytes
            ))
        }
    }

    /// An answer ends what was assigned.
    pub(super) fn note_answer(&mut self, message: &WorkerMessage) {
        let key = match message {
            WorkerMessage::Finished { task, attempt, .. }
            | WorkerMessage::Cancelled { task, attempt }
            | WorkerMessage::HeldUp { task, attempt, .. }
            | WorkerMessage::MissingInputs { task, attempt, .. } => (*task, *attempt),
            WorkerMessage::Failed { attempt, error } => (error.task, *attempt),
            WorkerMessage::Started { .. }
            | WorkerMessage::Lost { .. }
            | WorkerMessage::Heartbeat { .. }
            | WorkerMessage::Events { .. }
            | WorkerMessage::Seceded { .. }
            | WorkerMessage::Rejoined { .. }
            | WorkerMessage::Inventory(_)
            | WorkerMessage::Goodbye => return,
        };
        self.assigned.remove(&key);
    }

    /// What the store has, in the machine's words: every partition and where it is.
    pub(crate) fn stored(&self) -> Vec<(PartitionId, Tier)> {
        self.store
            .iter()
            .map(|(id, stored)| {
                (
                    *id,
                    if stored.on_disk {
                        Tier::Disk
                    } else {
                        Tier::Host
                    },
                )
            })
            .collect()
    }

    /// Limits that hold at every moment: operations in flight, and the store equal to what the machine believes.
    pub(super) fn check_limits(&mut self) -> Step {
        if self.memory_bytes() <= self.config.memory_bytes {
            self.overcommitted.clear();
        }
        if self.fetching.len() > self.config.fetches_in_flight as usize {
            return Err(format!("{} fetches in flight", self.fetching.len()));
        }
        if self.disk.len() > self.config.disk_operations_in_flight as usize {
            return Err(format!("{} disk operations in flight", self.disk.len()));
        }
        let mut believed = self.machine.holds();
        believed.sort_unstable();
        let stored = self.stored();
        if believed != stored {
            return Err(format!(
                "believes it holds {believed:?}, but holds {stored:?}"
            ));
        }
        Ok(())
    }

    /// That nothing is left: no partition, no task, nothing in flight.
    pub(crate) fn check_empty(&self) -> Step {
        let problem = if !self.store.is_empty() {
            format!("still holds {:?}", self.stored())
        } else if !self.machine.is_idle() {
            "is not idle".to_owned()
        } else if !self.running.is_empty() || !self.fetching.is_empty() || !self.disk.is_empty() {
            "still runs, fetches or moves something".to_owned()
        } else if !self.layers.is_empty() {
            format!(
                "was never told to forget the layers {:?}",
                self.layers.keys()
            )
        } else if let Some(used) = self
            .machine
            .load(Time::default())
            .tiers
            .iter()
            .find(|tier| tier.used_bytes > 0)
        {
            format!("counts {used:?} with nothing stored")
        } else {
            return Ok(());
        };
        Err(format!("process {} {problem}", self.index))
    }
}
