//! Which partitions leave a tier when it gets short, and what the answers of those who move them mean. Part of `machine`.
//!
//! From host memory partitions go to disk; from a device to page-locked memory, and from there to disk; with direct storage straight to disk,
//! where page-locked memory has no room for them. The order of eviction: copies
//! that no queued task here reads, which are dropped for free; outputs that no queued task here reads; then what the task furthest back
//! in the queue reads, up to but excluding the head of the queue. A copy that can be fetched again is dropped, everything else is moved.
//! Nothing that runs or moves is touched.

use transload_protocol::{Event, Memory, PartitionId, TaskErrorKind, Tier, Time, WorkerMessage};

use crate::Action;
use crate::index::{NextUse, Victim};
use crate::machine::{Turn, Worker};
use crate::memory::Shortage;
use crate::store::{Claim, MAX_PARTITION_BYTES, Record, State, below};
use crate::tasks::Place;

/// A tier that refused a partition is not tried again for this time.
const SPILL_RETRY_MICROS: u64 = 1_000_000;
/// Page-locked memory that refused one, because others have it for a moment, for this time.
const LOCK_RETRY_MICROS: u64 = 100_000;
/// A device that refused a partition is tried again after this time, which doubles with every refusal.
const RISE_RETRY_MICROS: u64 = 5_000;
/// After so many refusals in a row tasks that need the partition fail.
const MOST_REFUSALS: u32 = 6;

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

/// How moves up go: there may be room in all and not in one piece, or others may take it first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Rise {
    /// None before that.
    pub(crate) until: Option<Time>,
    /// That failed since the last that did not.
    failed: u32,
}

/// Whether some bytes more fit into a tier.
pub(crate) enum Room {
    Free,
    /// When operations in flight have ended.
    Coming,
    None(Shortage),
}

/// What evicting one more partition came to.
pub(crate) enum Eviction {
    /// It is gone, or on its way down.
    Done,
    /// When moves in flight have ended.
    Wait,
    None(Shortage),
}

/// Why a partition is to leave its tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// There is more than there should be.
    Excess,
    /// A task needs the room.
    Room,
}

impl Worker {
    /// Evicts until what stays in each tier is below its threshold.
    pub(crate) fn spill_excess(&mut self, turn: &mut Turn<'_>) {
        self.spill_excess_of(Tier::Host, turn);
        if self.config.gpu.is_some() {
            self.spill_excess_of(Tier::Device, turn);
            self.spill_excess_of(Tier::PinnedHost, turn);
        }
    }

    fn spill_excess_of(&mut self, tier: Tier, turn: &mut Turn<'_>) {
        let head = self.head();
        loop {
            let level = self.store.usage().tiers[tier];
            let staying = level.bytes - level.leaving_bytes;
            if staying <= self.limits.tiers[tier].spill_above_bytes {
                return;
            }
            match self.evict_one(tier, Purpose::Excess, head, turn) {
                Eviction::Done => {}
                Eviction::Wait | Eviction::None(_) => return,
            }
        }
    }

    /// Evicts until `bytes` fit into a tier, for the task at the head of the queue.
    pub(crate) fn make_room(
        &mut self,
        bytes: u64,
        tier: Tier,
        head: Option<Place>,
        turn: &mut Turn<'_>,
    ) -> Room {
        loop {
            let level = self.store.usage().tiers[tier];
            let limit = self.limits.tiers[tier].bytes;
            let wanted = level.bytes.saturating_add(bytes);
            if wanted <= limit {
                return Room::Free;
            }
            if wanted - level.leaving_bytes <= limit {
                return Room::Coming;
            }
            let is_leaving = level.leaving_bytes > 0;
            match self.evict_one(tier, Purpose::Room, head, turn) {
                Eviction::Done => {}
                Eviction::Wait => return Room::Coming,
                Eviction::None(_) if is_leaving => return Room::Coming,
                Eviction::None(shortage) => return Room::None(shortage),
            }
        }
    }

    /// Drops or moves down the partition of a tier that is needed last, but nothing that the task at `head` needs.
    fn evict_one(
        &mut self,
        tier: Tier,
        purpose: Purpose,
        head: Option<Place>,
        turn: &mut Turn<'_>,
    ) -> Eviction {
        // What did not find room in page-locked memory stays where it is; something smaller behind it may.
        let mut most_bytes = u64::MAX;
        let mut first_shortage = None;
        loop {
            let (partition, to) = match (self.next_victim(tier, most_bytes, head), first_shortage) {
                (Ok((partition, Some(to))), _) => (partition, to),
                (Ok((partition, None)), _) => {
                    self.drop_stored(partition, turn);
                    return Eviction::Done;
                }
                (Err(_), Some(shortage)) => return Eviction::None(shortage),
                (Err(shortage), None) => {
                    let is_full = shortage == Shortage::Refused { by: Tier::Disk };
                    if is_full && self.obstacle.is_none() {
                        self.note_full_disk(turn);
                    }
                    return Eviction::None(shortage);
                }
            };
            match self.move_down(partition, (tier, to, purpose), head, turn) {
                Eviction::None(shortage) if first_shortage.is_none() => {
                    first_shortage = Some(shortage);
                    // Nothing more can leave it now.
                    let used = self.store.usage().tiers[to].bytes;
                    most_bytes = self.limits.tiers[to].bytes.saturating_sub(used);
                }
                ended @ (Eviction::Done | Eviction::Wait | Eviction::None(_)) => return ended,
            }
        }
    }

    /// The partition of a tier that is needed last, of those that can leave it, and where it goes; nowhere, if it is to be dropped. To
    /// page-locked memory goes nothing of more than `most_bytes`.
    fn next_victim(
        &self,
        tier: Tier,
        most_bytes: u64,
        head: Option<Place>,
    ) -> Result<(PartitionId, Option<Tier>), Shortage> {
        let mut shortage = Shortage::NothingToEvict;
        for victim in self.store.indexes().victims[tier].iter().rev() {
            if !self.is_fair_game(victim, head) {
                continue;
            }
            let Some(record) = self.store.get(victim.partition) else {
                continue;
            };
            if self.is_dispensable(record) {
                return Ok((victim.partition, None));
            }
            match self.way_down(tier, record.bytes) {
                Some(Tier::PinnedHost) if record.bytes > most_bytes => {}
                Some(to) => return Ok((victim.partition, Some(to))),
                None => {}
            }
            // A copy further on may still be dropped.
            shortage = Shortage::Refused { by: below(tier) };
        }
        Err(shortage)
    }

    /// Whether the task at `head` can do without it.
    fn is_fair_game(&self, victim: &Victim, head: Option<Place>) -> bool {
        match (victim.next_use, head) {
            (NextUse::At(place), Some(head)) => {
                let record = self.store.get(victim.partition);
                // What comes before the head was passed over and cannot start now.
                place > head || record.is_some_and(|record| !record.needs.contains_key(&head))
            }
            (NextUse::At(_), None) | (NextUse::NoneOutput | NextUse::NoneCopy, _) => true,
        }
    }

    fn move_down(
        &mut self,
        partition: PartitionId,
        (from, to, purpose): (Tier, Tier, Purpose),
        head: Option<Place>,
        turn: &mut Turn<'_>,
    ) -> Eviction {
        let usage = self.store.usage();
        let is_busy = match to {
            Tier::PinnedHost => usage.copies >= self.limits.copies,
            Tier::Device | Tier::Host | Tier::Disk => {
                usage.disk_operations >= self.limits.disk_operations
            }
        };
        if is_busy {
            return Eviction::Wait;
        }
        if to == Tier::PinnedHost {
            let bytes = self.store.get(partition).map_or(0, |record| record.bytes);
            let room = match self.make_room(bytes, to, head, turn) {
                Room::None(_) if self.store.usage().is_moving() => Room::Coming,
                // What the head needs is in the way of what is in its own way; it comes back when there is room for it above.
                Room::None(_) if purpose == Purpose::Room => self.make_room(bytes, to, None, turn),
                Room::None(shortage) => Room::None(shortage),
                room @ (Room::Free | Room::Coming) => room,
            };
            match room {
                Room::Free => {}
                Room::Coming => return Eviction::Wait,
                Room::None(shortage) => return Eviction::None(shortage),
            }
        }
        match from {
            Tier::PinnedHost => self.store.set_state(partition, State::Sinking),
            Tier::Device | Tier::Host | Tier::Disk => {
                self.store.set_state(partition, State::Spilling { to });
            }
        }
        *self.obstacle_to(to) = None;
        self.moving.insert(partition, turn.now);
        turn.out.push(Action::Spill { partition, to });
        Eviction::Done
    }

    /// Evicts from the device what the task at `place` does not read. Returns whether that is done, as far as it can be.
    pub(crate) fn empty_device(&mut self, place: Place, turn: &mut Turn<'_>) -> bool {
        loop {
            match self.evict_one(Tier::Device, Purpose::Room, Some(place), turn) {
                Eviction::Done => {}
                Eviction::Wait => return false,
                Eviction::None(_) => break,
            }
        }
        let usage = self.store.usage();
        usage.tiers[Tier::Device].leaving_bytes == 0 && usage.rising == 0
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

    /// Where so many bytes go that leave a tier, if they can go anywhere. From a device to page-locked memory, from where they come back
    /// soonest; where that has no room now and disks reach the device, to disk, which is one move instead of two.
    fn way_down(&self, from: Tier, bytes: u64) -> Option<Tier> {
        let down = below(from);
        if self.has_direct_storage && down == Tier::PinnedHost {
            let used = self.store.usage().tiers[down].bytes;
            let is_full = used.saturating_add(bytes) > self.limits.tiers[down].bytes;
            let is_closed = is_full || !self.may_take(down, bytes);
            if is_closed && self.may_take(Tier::Disk, bytes) {
                return Some(Tier::Disk);
            }
        }
        self.may_take(down, bytes).then_some(down)
    }

    /// Whether a tier takes so many bytes more. Of page-locked memory, whether it can: there may have to be made room.
    fn may_take(&self, tier: Tier, bytes: u64) -> bool {
        let (obstacle, used) = match tier {
            Tier::PinnedHost => (&self.lock_obstacle, 0),
            Tier::Device | Tier::Host | Tier::Disk => {
                (&self.obstacle, self.store.usage().tiers[Tier::Disk].bytes)
            }
        };
        let is_open = obstacle
            .as_ref()
            .is_none_or(|obstacle| obstacle.cause == Cause::Limit);
        is_open && used.saturating_add(bytes) <= self.limits.tiers[tier].bytes
    }

    fn obstacle_to(&mut self, tier: Tier) -> &mut Option<Obstacle> {
        match tier {
            Tier::PinnedHost => &mut self.lock_obstacle,
            Tier::Device | Tier::Host | Tier::Disk => &mut self.obstacle,
        }
    }

    /// Whether a partition on disk is not to be read now, because others like it were not to be had a moment ago.
    pub(crate) fn is_paused(&self, partition: PartitionId) -> bool {
        let record = self.store.get(partition);
        self.rise.until.is_some() && record.is_some_and(|record| record.memory == Memory::Device)
    }

    /// Whether one more partition may be moved to the device.
    pub(crate) fn may_rise(&self) -> bool {
        self.rise.until.is_none() && self.store.usage().copies < self.limits.copies
    }

    fn note_full_disk(&mut self, turn: &mut Turn<'_>) {
        let reason = format!(
            "{} B of the {} B that may be used on disk are in use",
            self.store.usage().tiers[Tier::Disk].bytes,
            self.limits.tiers[Tier::Disk].bytes
        );
        self.pause_spilling(Tier::Disk, Cause::Limit, reason, turn);
    }

    fn pause_spilling(&mut self, to: Tier, cause: Cause, reason: String, turn: &mut Turn<'_>) {
        let pause = match to {
            Tier::PinnedHost => LOCK_RETRY_MICROS,
            Tier::Device | Tier::Host | Tier::Disk => SPILL_RETRY_MICROS,
        };
        *self.obstacle_to(to) = Some(Obstacle {
            until: turn.now.after_micros(pause),
            reason,
            is_charged: false,
            cause,
        });
    }

    /// Fails a queued task that needs room in `tier` which only the disk could give; the worker and its partitions live on.
    pub(crate) fn fail_for_lack_of_disk(&mut self, place: Place, tier: Tier, turn: &mut Turn<'_>) {
        let Some(obstacle) = &mut self.obstacle else {
            return;
        };
        obstacle.is_charged = true;
        let level = self.store.usage().tiers[tier];
        let text = format!(
            "{} is full ({} of {} B) and nothing can be spilled to disk: {}; \
             free space in the spill directory or raise the worker's limits",
            named(tier),
            level.bytes,
            self.limits.tiers[tier].bytes,
            obstacle.reason
        );
        self.fail_queued(place, TaskErrorKind::SpillFailed, text, turn);
    }

    /// Page-locked memory refuses what it should take, and may take it in a moment; or a task has failed for it, and the next one waits
    /// for the next attempt.
    pub(crate) fn is_refused_for_now(&self) -> bool {
        let obstacle = self.lock_obstacle.as_ref();
        obstacle.is_some_and(|it| it.is_charged || self.lock_refusals < MOST_REFUSALS)
    }

    /// Fails a queued task whose inputs do not fit into device memory, or do not get there.
    pub(crate) fn fail_for_lack_of_memory(
        &mut self,
        place: Place,
        tier: Tier,
        turn: &mut Turn<'_>,
    ) {
        let level = self.store.usage().tiers[tier];
        let text = format!(
            "its inputs do not fit into {}, of which {} of {} B are in use, and nothing more can leave it{}; \
             cut the work into smaller partitions, or give the worker more with --gpu-memory and --pinned-memory",
            named(tier),
            level.bytes,
            self.limits.tiers[tier].bytes,
            match &mut self.lock_obstacle {
                Some(obstacle) => {
                    obstacle.is_charged = true;
                    format!(": {}", obstacle.reason)
                }
                None => String::new(),
            }
        );
        self.fail_queued(place, TaskErrorKind::OutOfMemory, text, turn);
    }

    fn fail_queued(
        &mut self,
        place: Place,
        kind: TaskErrorKind,
        text: String,
        turn: &mut Turn<'_>,
    ) {
        let Some(queued) = self.unqueue(place, turn) else {
            return;
        };
        let attempt = (place.task, queued.attempt);
        self.tell_failed(attempt, Some(queued.layer.names(None)), (kind, text), turn);
    }

    pub(crate) fn on_spilled(&mut self, partition: PartitionId, bytes: u64, turn: &mut Turn<'_>) {
        let micros = self.moved_for(partition, turn);
        let Some((from, to)) = self.move_of(partition) else {
            return;
        };
        let file_bytes = bytes.min(MAX_PARTITION_BYTES);
        let next = match to {
            Tier::Disk => State::Disk { file_bytes },
            Tier::PinnedHost => State::Pinned,
            Tier::Device | Tier::Host => return,
        };
        if to == Tier::PinnedHost {
            self.lock_refusals = 0;
        }
        self.store.set_state(partition, next);
        self.note_move(partition, (from, to), (bytes, micros), turn);
        self.settle(partition, turn);
    }

    pub(crate) fn on_spill_failed(
        &mut self,
        partition: PartitionId,
        reason: String,
        turn: &mut Turn<'_>,
    ) {
        let (back, to) = match (self.state_of(partition), self.move_of(partition)) {
            (Some(State::Spilling { .. }), Some((_, to))) => (State::Ready { pins: 0 }, to),
            (Some(State::Sinking), Some((_, to))) => (State::Pinned, to),
            _ => return,
        };
        self.store.set_state(partition, back);
        if to == Tier::PinnedHost {
            self.lock_refusals = self.lock_refusals.saturating_add(1);
        }
        self.pause_spilling(to, Cause::Failure, reason, turn);
        self.settle(partition, turn);
    }

    /// From where to where a partition is being moved.
    fn move_of(&self, partition: PartitionId) -> Option<(Tier, Tier)> {
        let record = self.store.get(partition)?;
        record.operation()?;
        let [from, to] = record.occupied();
        Some((from?.tier, to?.tier))
    }

    pub(crate) fn on_loaded(&mut self, partition: PartitionId, turn: &mut Turn<'_>) {
        let micros = self.moved_for(partition, turn);
        let (Some(record), Some(moved)) = (self.store.get(partition), self.move_of(partition))
        else {
            return;
        };
        let bytes = record.bytes;
        let next = match record.state {
            State::Loading {
                to: Tier::PinnedHost,
                ..
            } => State::Pinned,
            State::Loading { .. } | State::Rising => State::Ready { pins: 0 },
            _ => return,
        };
        if moved.1 == Tier::Device {
            self.rise = Rise::default();
        }
        self.store.set_state(partition, next);
        self.note_move(partition, moved, (bytes, micros), turn);
        self.settle(partition, turn);
    }

    /// Of what is lost, a copy is fetched again; an output takes the other outputs of its task with it, because the task has to run
    /// again as a whole. What is not is tried again.
    pub(crate) fn on_load_failed(
        &mut self,
        partition: PartitionId,
        is_lost: bool,
        reason: String,
        turn: &mut Turn<'_>,
    ) {
        let Some(record) = self.store.get(partition) else {
            return;
        };
        match record.state {
            State::Loading { .. } if is_lost => {}
            State::Loading { file_bytes, .. } => {
                return self.on_rise_failed(partition, State::Disk { file_bytes }, reason, turn);
            }
            State::Rising => return self.on_rise_failed(partition, State::Pinned, reason, turn),
            _ => return,
        }
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

    /// What was in the way may be gone in a moment; what is still in the way when nothing else happens here will stay.
    fn on_rise_failed(
        &mut self,
        partition: PartitionId,
        back: State,
        reason: String,
        turn: &mut Turn<'_>,
    ) {
        self.store.set_state(partition, back);
        self.rise.failed = self.rise.failed.saturating_add(1);
        let pause = RISE_RETRY_MICROS << self.rise.failed.min(10);
        self.rise.until = Some(turn.now.after_micros(pause));
        if self.rise.failed > MOST_REFUSALS && !self.is_working() {
            self.rise = Rise::default();
            let text = format!(
                "one of its inputs does not get to where it is read: {reason}; \
                 cut the work into smaller partitions, or give the worker more with --gpu-memory and --pinned-memory"
            );
            let readers = self.store.get(partition).map(|record| &record.needs);
            let readers: Vec<Place> = readers
                .into_iter()
                .flat_map(|it| it.keys())
                .copied()
                .collect();
            for place in readers {
                self.fail_queued(place, TaskErrorKind::OutOfMemory, text.clone(), turn);
            }
        }
        self.settle(partition, turn);
    }

    /// How long a move has taken that is over.
    fn moved_for(&mut self, partition: PartitionId, turn: &Turn<'_>) -> u64 {
        let since = self.moving.remove(&partition);
        since.map_or(0, |since| turn.now.micros.saturating_sub(since.micros))
    }

    fn note_move(
        &mut self,
        partition: PartitionId,
        (from, to): (Tier, Tier),
        (bytes, micros): (u64, u64),
        turn: &mut Turn<'_>,
    ) {
        if let Some(worker) = self.own_id() {
            let event = Event::PartitionMoved {
                partition,
                worker,
                from,
                to,
                bytes,
                micros,
            };
            self.note(event, turn);
        }
    }

    fn state_of(&self, partition: PartitionId) -> Option<State> {
        self.store.get(partition).map(|record| record.state)
    }
}

/// A tier, for people.
fn named(tier: Tier) -> &'static str {
    match tier {
        Tier::Device => "device memory",
        Tier::PinnedHost => "page-locked memory",
        Tier::Host => "memory",
        Tier::Disk => "the disk",
    }
}
