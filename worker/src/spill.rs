//! Which partitions leave memory when it gets short, and what the answers of the disk mean. Part of `machine`.
//!
//! The order of eviction: copies that no queued task here reads, which are dropped for free; outputs that no queued task
//! here reads; then what the task furthest back in the queue reads, up to but excluding the head of the queue. A copy that
//! can be fetched again is dropped, everything else is spilled. Nothing that runs or moves is touched.

use transload_protocol::{Event, PartitionId, TaskErrorKind, Tier, Time, WorkerMessage};

use crate::Action;
use crate::index::{NextUse, Victim};
use crate::machine::{Turn, Worker};
use crate::memory::Shortage;
use crate::store::{Claim, MAX_PARTITION_BYTES, Record, State};
use crate::tasks::Place;

/// A disk that refused a spill is not tried again for this time.
const SPILL_RETRY_MICROS: u64 = 1_000_000;

/// Why spilling pauses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Obstacle {
    pub(crate) until: Time,
    /// In words.
    pub(crate) reason: String,
    /// A task has failed for it; the next one waits for the next attempt to spill.
    pub(crate) is_charged: bool,
    cause: Cause,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// The configured limit is reached; over as soon as there is room again.
    Limit,
    /// The driver could not write.
    Failure,
}

/// Whether some bytes more fit into memory.
pub(crate) enum Room {
    Free,
    /// When operations in flight have ended.
    Coming,
    None(Shortage),
}

/// What evicting one more partition came to.
enum Eviction {
    /// It is gone, or on its way to disk.
    Done,
    /// Too many disk operations are in flight.
    Wait,
    None(Shortage),
}

impl Worker {
    /// Evicts until what stays in memory is below the spill threshold.
    pub(crate) fn spill_excess(&mut self, turn: &mut Turn<'_>) {
        let head = self.head();
        loop {
            let usage = self.store.usage();
            let staying = usage.host_bytes - usage.leaving_bytes;
            if staying <= self.limits.spill_above_bytes {
                return;
            }
            match self.evict_one(head, turn) {
                Eviction::Done => {}
                Eviction::Wait | Eviction::None(_) => return,
            }
        }
    }

    /// Evicts until `bytes` fit for the task at the head of the queue.
    pub(crate) fn make_room(&mut self, bytes: u64, head: Place, turn: &mut Turn<'_>) -> Room {
        loop {
            let usage = self.store.usage();
            let wanted = usage.host_bytes.saturating_add(bytes);
            if wanted <= self.limits.host_bytes {
                return Room::Free;
            }
            if wanted - usage.leaving_bytes <= self.limits.host_bytes {
                return Room::Coming;
            }
            let is_leaving = usage.leaving_bytes > 0;
            match self.evict_one(Some(head), turn) {
                Eviction::Done => {}
                Eviction::Wait => return Room::Coming,
                Eviction::None(_) if is_leaving => return Room::Coming,
                Eviction::None(shortage) => return Room::None(shortage),
            }
        }
    }

    /// Drops or spills the partition that is needed last, but nothing that the task at `head` needs.
    fn evict_one(&mut self, head: Option<Place>, turn: &mut Turn<'_>) -> Eviction {
        let is_fair_game = |victim: &&Victim| match (victim.next_use, head) {
            (NextUse::At(place), Some(head)) => {
                let record = self.store.get(victim.partition);
                // What comes before the head was passed over and cannot start now.
                place > head || record.is_some_and(|record| !record.needs.contains_key(&head))
            }
            (NextUse::At(_), None) | (NextUse::NoneOutput | NextUse::NoneCopy, _) => true,
        };
        let mut shortage = Shortage::NothingToEvict;
        let mut chosen = None;
        let victims = &self.store.indexes().victims;
        for victim in victims.iter().rev().filter(is_fair_game) {
            let Some(record) = self.store.get(victim.partition) else {
                continue;
            };
            if self.is_dispensable(record) {
                chosen = Some((victim.partition, true));
                break;
            }
            if self.disk_has_room_for(record.bytes) {
                chosen = Some((victim.partition, false));
                break;
            }
            // A copy further on may still be dropped.
            shortage = Shortage::DiskRefuses;
        }
        match chosen {
            None => {
                if shortage == Shortage::DiskRefuses && self.obstacle.is_none() {
                    self.note_full_disk(turn);
                }
                Eviction::None(shortage)
            }
            Some((partition, true)) => {
                self.drop_stored(partition, turn);
                Eviction::Done
            }
            Some((_, false))
                if self.store.usage().disk_operations >= self.limits.disk_operations =>
            {
                Eviction::Wait
            }
            Some((partition, false)) => {
                self.obstacle = None;
                self.store.set_state(partition, State::Spilling);
                turn.out.push(Action::Spill { partition });
                Eviction::Done
            }
        }
    }

    /// A copy that every task that needs it can fetch again.
    fn is_dispensable(&self, record: &Record) -> bool {
        match record.claim {
            Claim::Output | Claim::Released => false,
            Claim::Copy | Claim::SharedCopy => {
                let mut needs = record.needs.values();
                needs.all(|need| self.peers.contains(&need.from))
            }
        }
    }

    fn disk_has_room_for(&self, bytes: u64) -> bool {
        let is_writable = match &self.obstacle {
            None => true,
            Some(obstacle) => match obstacle.cause {
                Cause::Limit => true,
                Cause::Failure => false,
            },
        };
        let wanted = self.store.usage().disk_bytes.saturating_add(bytes);
        is_writable && wanted <= self.limits.disk_bytes
    }

    fn note_full_disk(&mut self, turn: &mut Turn<'_>) {
        let reason = format!(
            "{} B of the {} B that may be used on disk are in use",
            self.store.usage().disk_bytes,
            self.limits.disk_bytes
        );
        self.pause_spilling(Cause::Limit, reason, turn);
    }

    fn pause_spilling(&mut self, cause: Cause, reason: String, turn: &mut Turn<'_>) {
        self.obstacle = Some(Obstacle {
            until: turn.now.after_micros(SPILL_RETRY_MICROS),
            reason,
            is_charged: false,
            cause,
        });
    }

    /// Fails a queued task that needs memory which only the disk could give; the worker and its partitions live on.
    pub(crate) fn fail_for_lack_of_disk(&mut self, place: Place, turn: &mut Turn<'_>) {
        let Some(obstacle) = &mut self.obstacle else {
            return;
        };
        obstacle.is_charged = true;
        let text = format!(
            "memory is full ({} of {} B) and nothing can be spilled to disk: {}; \
             free space in the spill directory or raise the worker's limits",
            self.store.usage().host_bytes,
            self.limits.host_bytes,
            obstacle.reason
        );
        let Some(queued) = self.unqueue(place, turn) else {
            return;
        };
        let attempt = (place.task, queued.attempt);
        let error = (TaskErrorKind::SpillFailed, text);
        self.tell_failed(attempt, Some(queued.layer.names(None)), error, turn);
    }

    pub(crate) fn on_spilled(&mut self, partition: PartitionId, bytes: u64, turn: &mut Turn<'_>) {
        if self.state_of(partition) != Some(State::Spilling) {
            return;
        }
        let file_bytes = bytes.min(MAX_PARTITION_BYTES);
        self.store.set_state(partition, State::Disk { file_bytes });
        self.note_move(partition, Tier::Host, Tier::Disk, bytes, turn);
        self.settle(partition, turn);
    }

    pub(crate) fn on_spill_failed(
        &mut self,
        partition: PartitionId,
        reason: String,
        turn: &mut Turn<'_>,
    ) {
        if self.state_of(partition) != Some(State::Spilling) {
            return;
        }
        self.store.set_state(partition, State::Host { pins: 0 });
        self.pause_spilling(Cause::Failure, reason, turn);
        self.settle(partition, turn);
    }

    pub(crate) fn on_loaded(&mut self, partition: PartitionId, turn: &mut Turn<'_>) {
        let Some(record) = self.store.get(partition) else {
            return;
        };
        let State::Loading { .. } = record.state else {
            return;
        };
        let bytes = record.bytes;
        self.store.set_state(partition, State::Host { pins: 0 });
        self.note_move(partition, Tier::Disk, Tier::Host, bytes, turn);
        self.settle(partition, turn);
    }

    /// The partition is lost. A copy is fetched again; an output takes the other outputs of its task with it, because
    /// the task has to run again as a whole.
    pub(crate) fn on_load_failed(&mut self, partition: PartitionId, turn: &mut Turn<'_>) {
        let Some(record) = self.store.get(partition) else {
            return;
        };
        let State::Loading { .. } = record.state else {
            return;
        };
        let claim = record.claim;
        turn.out.push(Action::Drop { partition });
        match claim {
            Claim::Output => {
                let tasks = vec![partition.task];
                self.tell(WorkerMessage::Lost { tasks }, turn);
                self.release(partition.task, turn);
            }
            Claim::Copy | Claim::SharedCopy | Claim::Released => {}
        }
        self.make_absent(partition, turn);
    }

    fn note_move(
        &mut self,
        partition: PartitionId,
        from: Tier,
        to: Tier,
        bytes: u64,
        turn: &mut Turn<'_>,
    ) {
        if let Some(worker) = self.own_id() {
            let event = Event::PartitionMoved {
                partition,
                worker,
                from,
                to,
                bytes,
            };
            self.note(event, turn);
        }
    }

    fn state_of(&self, partition: PartitionId) -> Option<State> {
        self.store.get(partition).map(|record| record.state)
    }
}
