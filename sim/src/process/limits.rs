//! What a simulated worker may never do, and what may never be left of it.

use transload_protocol::{Memory, PartitionId, Tier, Time, WorkerMessage};

use super::{Process, Stage};
use crate::world::Step;

impl Process {
    /// A tier of the store: what is there, and what is reserved for what is on its way there.
    pub(super) fn tier_bytes(&self, tier: Tier) -> u64 {
        let stored = self.store.values();
        let here = stored.filter(|stored| stored.occupies(tier));
        let here: u64 = here.map(|stored| stored.bytes).sum();
        let coming = self.fetching.values();
        let coming = coming.filter(|fetching| fetching.memory.tier() == tier);
        here + coming.map(|fetching| fetching.bytes).sum::<u64>()
    }

    pub(super) fn limit_of(&self, tier: Tier) -> u64 {
        let gpu = self.config.gpu.as_ref();
        match tier {
            Tier::Device => gpu.map_or(0, |gpu| gpu.device_bytes),
            Tier::PinnedHost => gpu.map_or(0, |gpu| gpu.pinned_bytes),
            Tier::Host => self.config.memory_bytes,
            Tier::Disk => self.config.disk_bytes,
        }
    }

    /// Where partitions of layers that work in that memory are read here.
    pub(super) fn memory_here(&self, memory: Memory) -> Memory {
        match self.config.gpu {
            Some(_) => memory,
            None => Memory::Host,
        }
    }

    /// Whether a fetch or move may start.
    pub(super) fn check_room(&mut self, partition: PartitionId, bytes: u64, to: Tier) -> Step {
        let (used, limit) = (self.tier_bytes(to), self.limit_of(to));
        let mut running = self.running.iter();
        let helped = running.find(|(_, it)| it.is_helped && it.holds_its_slot());
        if let (Tier::Device, Some(((task, _), _))) = (to, helped) {
            return Err(format!(
                "brings {partition} to the device that was emptied for {task}"
            ));
        }
        match to {
            _ if used.saturating_add(bytes) <= limit || bytes == 0 => Ok(()),
            Tier::Host => self.check_overcommitted(partition),
            Tier::Device | Tier::PinnedHost | Tier::Disk => Err(format!(
                "brings {partition} of {bytes} B to {to}, of which {used} B of {limit} B are in use"
            )),
        }
    }

    /// Host memory may be exceeded for the inputs of one task at a time.
    fn check_overcommitted(&mut self, partition: PartitionId) -> Step {
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
            let coming = fetching.get(partition);
            coming.is_some_and(|it| it.memory == Memory::Host)
                || store
                    .get(partition)
                    .is_some_and(|stored| stored.occupies(Tier::Host) && stored.bytes > 0)
        });
        self.overcommitted.insert(partition);
        let mut inputs = self.assigned.values();
        if inputs.any(|inputs| self.overcommitted.is_subset(inputs)) {
            Ok(())
        } else {
            Err(format!(
                "brings {:?} into memory, {} B of {} B in use, and no one task needs them all",
                self.overcommitted,
                self.tier_bytes(Tier::Host),
                self.config.memory_bytes
            ))
        }
    }

    /// An answer ends what was assigned. That it has started is said of an attempt once, however often it starts.
    pub(super) fn note_answer(&mut self, message: &WorkerMessage) -> Step {
        let key = match message {
            WorkerMessage::Finished { task, attempt, .. }
            | WorkerMessage::Cancelled { task, attempt }
            | WorkerMessage::HeldUp { task, attempt, .. }
            | WorkerMessage::MissingInputs { task, attempt, .. } => (*task, *attempt),
            WorkerMessage::Failed { attempt, error, .. } => (error.task, *attempt),
            WorkerMessage::Started { task, attempt } => {
                return if self.said_to_run.insert((*task, *attempt)) {
                    Ok(())
                } else {
                    Err(format!("says that {task} has started a second time"))
                };
            }
            WorkerMessage::Lost { .. }
            | WorkerMessage::Heartbeat { .. }
            | WorkerMessage::Events { .. }
            | WorkerMessage::Seceded { .. }
            | WorkerMessage::Rejoined { .. }
            | WorkerMessage::Inventory(_)
            | WorkerMessage::Goodbye => return Ok(()),
        };
        self.assigned.remove(&key);
        self.ran_out.remove(&key);
        self.said_to_run.remove(&key);
        Ok(())
    }

    /// What the store has, in the machine's words: every partition and where it is.
    pub(crate) fn stored(&self) -> Vec<(PartitionId, Tier)> {
        let stored = self.store.iter();
        stored.map(|(id, stored)| (*id, stored.tier)).collect()
    }

    /// Limits that hold at every moment: operations in flight, and the store equal to what the machine believes.
    pub(super) fn check_limits(&mut self) -> Step {
        if self.tier_bytes(Tier::Host) <= self.config.memory_bytes {
            self.overcommitted.clear();
        }
        if self.fetching.len() > self.config.fetches_in_flight as usize {
            return Err(format!("{} fetches in flight", self.fetching.len()));
        }
        let copies = self.moves.values().filter(|it| it.is_copy()).count();
        if copies > self.config.copies_in_flight as usize {
            return Err(format!("{copies} copies in flight"));
        }
        let disk_operations = self.moves.len() - copies;
        if disk_operations > self.config.disk_operations_in_flight as usize {
            return Err(format!("{disk_operations} disk operations in flight"));
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
        } else if !self.running.is_empty() || !self.fetching.is_empty() || !self.moves.is_empty() {
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
