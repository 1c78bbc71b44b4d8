//! Every invariant of the machine, recomputed from scratch. Called after each step by tests and `sim`.

use std::collections::{BTreeMap, BTreeSet};

use transload_protocol::{Memory, PartitionId};

use crate::Worker;
use crate::store::{Claim, Record, State};
use crate::tasks::{Help, Slot};

impl Worker {
    /// Whether all that the machine keeps fits together.
    ///
    /// # Errors
    /// The first invariant found broken, in words.
    pub fn check(&self) -> Result<(), String> {
        self.check_indexes()?;
        self.check_queue()?;
        self.check_running()?;
        for (partition, record) in self.store.iter() {
            self.check_record(partition, record)
                .map_err(|error| format!("partition {partition}: {error}; {record:?}"))?;
        }
        self.check_progress_is_possible()
    }

    fn check_indexes(&self) -> Result<(), String> {
        let rebuilt = self.store.rebuilt_indexes();
        ensure(*self.store.indexes() == rebuilt, || {
            format!(
                "indexes are {:?}, records say {rebuilt:?}",
                self.store.indexes()
            )
        })?;
        ensure(
            rebuilt.usage.fetches_in_flight <= self.limits.fetches,
            || format!("{} fetches in flight", rebuilt.usage.fetches_in_flight),
        )?;
        ensure(
            rebuilt.usage.disk_operations <= self.limits.disk_operations,
            || format!("{} disk operations", rebuilt.usage.disk_operations),
        )?;
        ensure(rebuilt.usage.copies <= self.limits.copies, || {
            format!("{} copies", rebuilt.usage.copies)
        })
    }

    fn check_queue(&self) -> Result<(), String> {
        let places: BTreeMap<_, _> = self.queue.keys().map(|at| (at.task, *at)).collect();
        ensure(places == self.places, || {
            format!("places {:?}, queue {places:?}", self.places)
        })?;
        let slotless = self.queue.values().filter(|queued| queued.is_slotless());
        ensure(slotless.count() == self.slotless, || {
            format!("{} tasks said to need no slot", self.slotless)
        })?;
        let helped = self
            .queue
            .values()
            .filter(|queued| queued.help > Help::None);
        ensure(helped.count() == self.helped, || {
            format!("{} tasks said to be helped", self.helped)
        })?;
        for (place, queued) in &self.queue {
            for partition in queued.distinct_inputs() {
                let record = self.store.get(partition);
                ensure(
                    record.is_some_and(|record| record.needs.contains_key(place)),
                    || format!("{} does not know that {place:?} needs it", partition),
                )?;
            }
            for output in self.store.of_task(place.task) {
                let record = self.store.get(output);
                ensure(record.is_some_and(|record| record.needs.is_empty()), || {
                    format!("{output} is needed, but its task is queued here")
                })?;
            }
        }
        Ok(())
    }

    fn check_running(&self) -> Result<(), String> {
        let mut free = self.config.resources.clone();
        self.check_members(&mut free)?;
        for (task, running) in &self.running {
            let is_ahead = running.slot == Slot::Ahead;
            ensure(is_ahead == self.ahead.contains(*task), || {
                format!("{task} is ahead in one place and not in the other")
            })?;
            ensure(
                running.slot != Slot::Held || free.take(&running.layer.resources),
                || format!("{task} and its neighbours occupy more than there is"),
            )?;
            for input in &running.inputs {
                let state = self.store.get(*input).map(|record| record.state);
                ensure(matches!(state, Some(State::Ready { pins: 1.. })), || {
                    format!("{task} reads {input}, which is {state:?}")
                })?;
            }
        }
        let ahead = self
            .running
            .values()
            .filter(|running| running.slot == Slot::Ahead);
        ensure(ahead.count() == self.ahead.len(), || {
            format!("{} tasks ahead", self.ahead.len())
        })?;
        ensure(self.ahead.len() == 0 || free.slots == 0, || {
            "a slot is free and a task waits for it".to_owned()
        })?;
        // Compared like this because amounts of zero may be written down or not.
        ensure(free.covers(&self.free) && self.free.covers(&free), || {
            format!("free are {}, should be {free}", self.free)
        })?;
        self.check_rejoining(free)
    }

    fn check_record(&self, partition: PartitionId, record: &Record) -> Result<(), String> {
        let Record {
            claim,
            state,
            needs,
            ..
        } = record;
        for place in needs.keys() {
            let is_known = self
                .queue
                .get(place)
                .is_some_and(|queued| queued.distinct_inputs().contains(&partition));
            ensure(is_known, || format!("{place:?} does not need it"))?;
        }
        let readers = self.running.values();
        let readers = readers.filter(|running| running.inputs.contains(&partition));
        let pins_expected = readers.count();
        let is_unreachable = || needs.values().any(|need| !self.peers.contains(&need.from));
        match state {
            State::Absent { .. } | State::Paused { .. } => {
                ensure(!needs.is_empty(), || "nobody needs it".to_owned())?;
                ensure(!is_unreachable(), || "cannot be fetched".to_owned())?;
                ensure(matches!(claim, Claim::Copy | Claim::SharedCopy), || {
                    "not here, but claimed".to_owned()
                })
            }
            State::Fetching { .. } => ensure(
                matches!(claim, Claim::Copy | Claim::SharedCopy)
                    && !self.running.contains_key(&partition.task),
                || "fetched, but made here".to_owned(),
            ),
            State::Ready { pins } => {
                ensure(*pins as usize == pins_expected, || {
                    format!("{pins_expected} running tasks read it")
                })?;
                ensure(*pins > 0 || self.has_use(record), || "useless".to_owned())
            }
            State::Pinned | State::Disk { .. } => {
                ensure(self.has_use(record), || "useless".to_owned())
            }
            State::Spilling { .. } | State::Sinking | State::Loading { .. } | State::Rising => {
                Ok(())
            }
        }?;
        ensure(
            record.memory == Memory::Host || self.limits.device_memory == Memory::Device,
            || "read on a device that is not there".to_owned(),
        )?;
        let is_lost_to_some = *claim == Claim::Released && is_unreachable();
        ensure(!is_lost_to_some, || "released under a reader".to_owned())
    }

    fn has_use(&self, record: &Record) -> bool {
        match record.claim {
            Claim::Output | Claim::SharedCopy => true,
            Claim::Copy => !record.needs.is_empty(),
            Claim::Released => false,
        }
    }

    /// While tasks are queued, something is under way that will call the machine again, other than the next heartbeat.
    fn check_progress_is_possible(&self) -> Result<(), String> {
        let is_something_pending = self.is_working()
            || self.store.usage().is_in_flight()
            || !self.store.indexes().retries.is_empty()
            || self.obstacle.is_some()
            || self.lock_obstacle.is_some()
            || self.rise.until.is_some();
        let stuck: BTreeSet<_> = self.queue.keys().map(|place| place.task).collect();
        ensure(stuck.is_empty() || is_something_pending, || {
            format!("nothing is under way, and yet these wait: {stuck:?}")
        })
    }
}

fn ensure(holds: bool, message: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(message()) }
}
