//! The record of one worker, and the table of all: who has room, and for what.
//!
//! Written by `transition` (assignments) and `membership` (joining, leaving). Knows nothing of graphs.

use std::collections::{BTreeMap, BTreeSet};

use transload_protocol::{
    PeerTable, Resources, TaskAssignment, TaskId, Tier, TierUsage, Time, WorkerHello, WorkerId,
    WorkerLoad,
};

use crate::bits::BitSet;
use crate::graph::LayerRecord;
use crate::open::Open;
use crate::pace::{Pace, QueueLimits};
use crate::ready::Rank;
use crate::slab::{Slab, TaskAt, WorkerSlot};
use crate::stragglers::Straggling;

/// What a full set of slots counts as load.
pub(crate) const FULL: u32 = 1_000;

/// A worker with less than this part of its memory free is pressed.
const PRESSED_ABOVE_FREE: u64 = 8;

/// How far a worker may be filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Only what its free resources can run at once.
    Slot,
    /// Also a queue behind them.
    Queue,
}

/// What the scheduler remembers of a worker.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) id: WorkerId,
    pub(crate) hello: WorkerHello,
    /// Its last report.
    pub(crate) load: WorkerLoad,
    pub(crate) last_seen: Time,
    /// Its machine, by the number that the table gave it.
    pub(crate) host: u32,
    /// How much of what it stores is on disk, by its last report.
    pub(crate) on_disk_per_mille: u16,
    /// By its last report, its memory is nearly full although it moves what it can to disk.
    pub(crate) is_pressed: bool,
    /// How fast it works.
    pub(crate) pace: Pace,
    /// Tasks handed to it and not answered; few, so a plain list.
    pub(crate) assigned: Vec<TaskAt>,
    /// Those of them that run and have given back what they asked for.
    pub(crate) seceded: BTreeSet<TaskAt>,
    /// Those of them that take long.
    pub(crate) stragglers: BTreeMap<TaskAt, Straggling>,
    /// Cancelled assignments that it has not answered; they still occupy it.
    pub(crate) cancelling: u32,
    /// What all of these asked for.
    pub(crate) used: Resources,
    /// Finished tasks whose partitions it holds.
    pub(crate) stored: u32,
    /// Tasks it has finished.
    pub(crate) finished: u64,
    /// Bytes it has moved to disk.
    pub(crate) spilled_bytes: u64,
    /// Ready tasks that prefer it: their layer's rank and their index.
    pub(crate) preferred: BTreeSet<(Rank, u32)>,
    /// Tasks it shall drop, told at the end of the step.
    pub(crate) releases: Vec<TaskId>,
    /// Tasks handed to it, told at the end of the step.
    pub(crate) assignments: Vec<TaskAssignment>,
    /// Slots of the workers whose addresses it was told.
    pub(crate) knows: BitSet,
    /// Those of them of whom it is told before its next assignments.
    pub(crate) introductions: Vec<WorkerSlot>,
    /// What others are told of it.
    pub(crate) announcement: PeerTable,
    /// It is being taken out of the cluster: nothing new for it.
    pub(crate) leaving: bool,
    /// It gets what no other worker can take, and is not among those with room: see `apart`.
    pub(crate) aside: bool,
    /// What of it a gang waits for: nobody else gets that.
    kept: Option<Box<Kept>>,
    /// The fullness under which it stands in `Workers::open`, if it does.
    listed: Option<u32>,
    /// It stands in `Workers::changed`.
    is_changed: bool,
}

/// Room of a worker that is kept free, or will be kept when it gets free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    /// For so many tasks.
    pub(crate) members: u32,
    /// What they ask for, all together.
    pub(crate) resources: Resources,
}

/// Beside what a task must fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beside {
    /// Nothing: the worker were idle.
    Nothing,
    /// What the worker has.
    Tasks,
    /// What the worker has, and what is kept for others.
    TasksAndKept,
}

/// All workers now in the cluster.
#[derive(Debug)]
pub(crate) struct Workers {
    pub(crate) slab: Slab<WorkerSlot, Worker>,
    pub(crate) by_id: BTreeMap<WorkerId, WorkerSlot>,
    /// Names need not be unique.
    pub(crate) by_name: BTreeMap<String, BTreeSet<WorkerSlot>>,
    /// Workers with room for at least one small task, emptiest first, as far as `relist` has brought it up to date.
    pub(crate) open: Open,
    /// Workers whose fullness or own queue may have changed since. Most give up a task and get another in the same step.
    changed: Vec<WorkerSlot>,
    /// Hosts by name: the number of each, and how many workers it has.
    hosts: BTreeMap<String, (u32, u32)>,
    next_host: u32,
    /// Tasks that these gave back, and the tasks there that have to end before; see `held_up`.
    pub(crate) held_up: BTreeMap<(WorkerSlot, TaskAt), TaskId>,
    /// Where the worker was when it was last looked for, by the last bits of its id. Ids are given out in order, so that few share these.
    found: Vec<WorkerSlot>,
    /// How long a worker's queue may be.
    pub(crate) queue: QueueLimits,
}

/// Whether both amounts together are no more than so many times a third.
fn within_large((used, asked): (u64, u64), (offered, factor): (u64, u32)) -> bool {
    u128::from(used) + u128::from(asked) <= u128::from(offered) * u128::from(factor)
}

impl Worker {
    pub(crate) fn new(id: WorkerId, hello: WorkerHello, now: Time, queue: QueueLimits) -> Self {
        Self {
            announcement: PeerTable::of(id, &hello.addresses),
            id,
            hello,
            load: WorkerLoad::default(),
            last_seen: now,
            host: 0,
            on_disk_per_mille: 0,
            is_pressed: false,
            pace: Pace::new(queue, now),
            assigned: Vec::new(),
            seceded: BTreeSet::new(),
            stragglers: BTreeMap::new(),
            cancelling: 0,
            used: Resources::slots(0),
            stored: 0,
            finished: 0,
            spilled_bytes: 0,
            preferred: BTreeSet::new(),
            releases: Vec::new(),
            assignments: Vec::new(),
            knows: BitSet::default(),
            introductions: Vec::new(),
            leaving: false,
            aside: false,
            kept: None,
            listed: None,
            is_changed: false,
        }
    }

    /// Where it is, in words for errors.
    pub(crate) fn place(&self) -> String {
        format!("`{}` on {}", self.hello.name, self.hello.host)
    }

    /// Slots, counted as at least one so that a worker without any still gets its named resources used.
    fn slots(&self) -> u32 {
        self.hello.resources.slots.max(1)
    }

    /// How many times its slots it may be given. One that lacks memory gets no queue: what waits there pins more of it.
    fn factor(&self) -> u32 {
        // Nothing queues up in front of those for whom it is kept.
        if self.is_pressed || self.kept.is_some() {
            return 1;
        }
        self.pace.queue_per_slot().saturating_add(1)
    }

    pub(crate) fn kept(&self) -> Option<&Kept> {
        self.kept.as_deref()
    }

    pub(crate) fn occupants(&self) -> u32 {
        u32::try_from(self.assigned.len() - self.seceded.len())
            .unwrap_or(u32::MAX)
            .saturating_add(self.cancelling)
    }

    /// Tasks that have to end before another can begin.
    pub(crate) fn queued(&self) -> u64 {
        let beyond = (self.occupants() + 1).saturating_sub(self.slots());
        u64::from(beyond)
    }

    /// Takes in what it says of itself.
    fn report(&mut self, load: WorkerLoad) {
        let sum = |wanted: fn(Tier) -> bool, of: fn(&TierUsage) -> u64| {
            let tiers = load.tiers.iter().filter(|usage| wanted(usage.tier));
            tiers.fold(0_u64, |sum, usage| sum.saturating_add(of(usage)))
        };
        let is_memory = |tier| tier != Tier::Disk;
        let used = sum(is_memory, |usage| usage.used_bytes);
        let on_disk = sum(|tier| tier == Tier::Disk, |usage| usage.used_bytes);
        let all = used.saturating_add(on_disk).max(1);
        let per_mille = u128::from(on_disk) * 1_000 / u128::from(all);
        self.on_disk_per_mille = u16::try_from(per_mille).unwrap_or(1_000);
        // One memory is no help to another: a device may be full beside much free memory of the host.
        let is_pressed = |usage: &TierUsage| {
            let limit = usage.limit_bytes;
            is_memory(usage.tier) && usage.used_bytes > limit - limit / PRESSED_ABOVE_FREE
        };
        self.is_pressed = load.tiers.iter().any(is_pressed);
        self.load = load;
    }

    /// How full it is: [`FULL`] when every slot has its task, more when others queue behind them.
    pub(crate) fn fullness(&self) -> u32 {
        let (slots, members) = self
            .kept()
            .map_or((0, 0), |kept| (kept.resources.slots, kept.members));
        let used = u64::from(self.used.slots) + u64::from(slots);
        let busy = used.max(u64::from(self.occupants()) + u64::from(members));
        u32::try_from(busy * u64::from(FULL) / u64::from(self.slots())).unwrap_or(u32::MAX)
    }

    /// Whether a request fits beside what it has, up to `factor` times what it offers.
    fn fits_times(&self, request: &Resources, factor: u32) -> bool {
        if self.kept.is_some() {
            return self.room(request, Beside::TasksAndKept) > 0;
        }
        let within = |used: u32, asked: u32, offered: u32| {
            u64::from(used) + u64::from(asked) <= u64::from(offered) * u64::from(factor)
        };
        let offered = &self.hello.resources;
        !self.leaving
            && within(self.occupants(), 1, self.slots())
            && within(self.used.slots, request.slots, offered.slots)
            && self.hello.offers(request)
            && (request.memory_bytes == 0
                || within_large(
                    (self.used.memory_bytes, request.memory_bytes),
                    (offered.memory_bytes, factor),
                ))
            && (request.named.is_empty() || self.fits_named(request, factor))
    }

    fn fits_named(&self, request: &Resources, factor: u32) -> bool {
        request.named.iter().all(|(name, asked)| {
            let of = |resources: &Resources| resources.amount_of(name).parts();
            let offered = of(&self.hello.resources);
            within_large((of(&self.used), asked.parts()), (offered, factor))
        })
    }

    /// How many such tasks fit at once.
    fn room(&self, request: &Resources, beside: Beside) -> u32 {
        if self.leaving {
            return 0;
        }
        let mut free = self.hello.resources.clone();
        let mut room = self.slots();
        if beside != Beside::Nothing {
            free.set_aside(&self.used);
            room = room.saturating_sub(self.occupants());
        }
        if beside == Beside::TasksAndKept
            && let Some(kept) = self.kept()
        {
            free.set_aside(&kept.resources);
            room = room.saturating_sub(kept.members);
        }
        // Of what it does not ask for there is always enough.
        let times = |free: u64, asked: u64| {
            let times = free.checked_div(asked).unwrap_or(u64::MAX);
            u32::try_from(times).unwrap_or(u32::MAX)
        };
        room = room.min(times(u64::from(free.slots), u64::from(request.slots)));
        room = room.min(times(free.memory_bytes, request.memory_bytes));
        for (name, asked) in &request.named {
            room = room.min(times(free.amount_of(name).parts(), asked.parts()));
        }
        room
    }
}

impl Workers {
    pub(crate) fn new(queue: QueueLimits) -> Self {
        Self {
            slab: Slab::new(),
            by_id: BTreeMap::new(),
            by_name: BTreeMap::new(),
            open: Open::default(),
            changed: Vec::new(),
            hosts: BTreeMap::new(),
            next_host: 0,
            held_up: BTreeMap::new(),
            found: Vec::new(),
            queue,
        }
    }

    /// The worker with this id, if it is in the cluster.
    #[inline]
    pub(crate) fn find(&mut self, id: WorkerId) -> Option<WorkerSlot> {
        let at = id.0 as usize & self.found.len().wrapping_sub(1);
        let found = self.found.get_mut(at)?;
        let worker = self.slab.get(*found);
        if worker.is_none_or(|worker| worker.id != id) {
            *found = *self.by_id.get(&id)?;
        }
        Some(*found)
    }

    /// Takes in what a worker says of itself.
    pub(crate) fn report(&mut self, slot: WorkerSlot, load: WorkerLoad) {
        let worker = &mut self.slab[slot];
        let was_pressed = worker.is_pressed;
        worker.report(load);
        if worker.is_pressed != was_pressed {
            self.change(slot);
        }
    }

    pub(crate) fn insert(&mut self, mut worker: Worker) -> WorkerSlot {
        let (id, name) = (worker.id, worker.hello.name.clone());
        worker.host = self.enter_host(&worker.hello.host);
        let slot = self.slab.insert(worker);
        self.by_id.insert(id, slot);
        let size = self.by_id.len().next_power_of_two();
        if self.found.len() < size {
            self.found.resize(size, slot);
        }
        self.by_name.entry(name).or_default().insert(slot);
        self.change(slot);
        slot
    }

    /// Nothing new goes to this worker from now on.
    pub(crate) fn close(&mut self, slot: WorkerSlot) {
        self.slab[slot].leaving = true;
        self.list(slot);
    }

    pub(crate) fn remove(&mut self, slot: WorkerSlot) {
        if let Some(worker) = self.slab.remove(slot) {
            self.by_id.remove(&worker.id);
            if let Some(named) = self.by_name.get_mut(&worker.hello.name) {
                named.remove(&slot);
                if named.is_empty() {
                    self.by_name.remove(&worker.hello.name);
                }
            }
            self.leave_host(&worker.hello.host);
            self.held_up.retain(|(worker, _), _| *worker != slot);
        }
    }

    fn enter_host(&mut self, name: &str) -> u32 {
        if let Some((number, workers)) = self.hosts.get_mut(name) {
            *workers += 1;
            return *number;
        }
        let number = self.next_host;
        self.next_host = number.wrapping_add(1);
        self.hosts.insert(name.to_owned(), (number, 1));
        number
    }

    fn leave_host(&mut self, name: &str) {
        if let Some((_, workers)) = self.hosts.get_mut(name) {
            *workers -= 1;
            if *workers == 0 {
                self.hosts.remove(name);
            }
        }
    }

    /// For the check: hosts, the number of each, and how many workers are said to be there.
    pub(crate) fn hosts(&self) -> &BTreeMap<String, (u32, u32)> {
        &self.hosts
    }

    /// Workers are on more than one machine.
    pub(crate) fn are_apart(&self) -> bool {
        self.hosts.len() > 1
    }

    /// Whether the worker has room for a task of this layer now. A task that has a worker of its own is asked about at that one only.
    pub(crate) fn fits(&self, slot: WorkerSlot, layer: &LayerRecord, reach: Reach) -> bool {
        let factor = match reach {
            Reach::Slot => 1,
            Reach::Queue => self.slab[slot].factor(),
        };
        layer.scope.allows(slot) && self.slab[slot].fits_times(&layer.resources, factor)
    }

    /// Whether the worker could run a task of this layer if it had nothing else. A task that has a worker of its own is asked about
    /// at that one only.
    pub(crate) fn covers(&self, slot: WorkerSlot, layer: &LayerRecord) -> bool {
        let worker = &self.slab[slot];
        layer.scope.allows(slot) && !worker.leaving && worker.hello.offers(&layer.resources)
    }

    /// Whether any such worker could run those tasks of this layer that are in no worker's queue if it had nothing else. None can where
    /// each has a worker of its own.
    pub(crate) fn any_covers(
        &self,
        layer: &LayerRecord,
        is_such: impl Fn(WorkerSlot) -> bool,
    ) -> bool {
        let mut workers = self.slab.iter();
        !layer.scope.is_each() && workers.any(|(slot, _)| is_such(slot) && self.covers(slot, layer))
    }

    /// How many tasks of a layer fit on the worker at once.
    pub(crate) fn room(&self, slot: WorkerSlot, layer: &LayerRecord, beside: Beside) -> u32 {
        if self.covers(slot, layer) {
            self.slab[slot].room(&layer.resources, beside)
        } else {
            0
        }
    }

    /// Keeps that much of the worker for a gang, instead of what was kept before.
    pub(crate) fn keep(&mut self, slot: WorkerSlot, kept: Option<Kept>) {
        if let Some(worker) = self.slab.get_mut(slot) {
            worker.kept = kept.map(Box::new);
            self.change(slot);
        }
    }

    pub(crate) fn assign(&mut self, slot: WorkerSlot, at: TaskAt, request: &Resources) {
        let worker = &mut self.slab[slot];
        worker.assigned.push(at);
        worker.used.give_back(request);
        self.change(slot);
    }

    pub(crate) fn unassign(&mut self, slot: WorkerSlot, at: TaskAt, request: &Resources) {
        let worker = &mut self.slab[slot];
        if let Some(position) = worker.assigned.iter().position(|assigned| *assigned == at) {
            worker.assigned.swap_remove(position);
        }
        if !worker.stragglers.is_empty() {
            worker.stragglers.remove(&at);
        }
        let freed = worker.seceded.remove(&at) || worker.used.take(request);
        debug_assert!(freed, "what was given is there to be taken back");
        self.change(slot);
    }

    pub(crate) fn open_cancel(&mut self, slot: WorkerSlot, request: &Resources) {
        let worker = &mut self.slab[slot];
        worker.cancelling += 1;
        worker.used.give_back(request);
        self.change(slot);
    }

    pub(crate) fn close_cancel(&mut self, slot: WorkerSlot, request: &Resources) {
        let worker = &mut self.slab[slot];
        worker.cancelling -= 1;
        let freed = worker.used.take(request);
        debug_assert!(freed, "what was given is there to be taken back");
        self.change(slot);
    }

    /// Whether the worker belongs in `open`, and at which fullness.
    pub(crate) fn listing(&self, slot: WorkerSlot) -> Option<u32> {
        let worker = &self.slab[slot];
        let fullness = worker.fullness();
        let is_open = !worker.leaving && !worker.aside;
        (is_open && fullness < FULL.saturating_mul(worker.factor())).then_some(fullness)
    }

    /// Whether no other worker is emptier, as far as `open` knows.
    pub(crate) fn is_emptiest(&self, slot: WorkerSlot, fullness: u32) -> bool {
        self.open
            .first()
            .is_none_or(|(least, other)| other == slot || least >= fullness)
    }

    /// Brings `open` up to date, and the length of queues with it.
    pub(crate) fn relist(&mut self, now: Time) {
        while let Some(slot) = self.changed.pop() {
            if let Some(worker) = self.slab.get_mut(slot) {
                worker.is_changed = false;
                let slots = worker.slots();
                worker.pace.adapt(now, slots, self.queue);
                self.list(slot);
            }
        }
    }

    /// Brings `open` up to date for one worker.
    pub(crate) fn list(&mut self, slot: WorkerSlot) {
        let listing = self.listing(slot);
        let worker = &mut self.slab[slot];
        if worker.listed != listing {
            if let Some(old) = std::mem::replace(&mut worker.listed, listing) {
                self.open.remove(old, slot);
            }
            if let Some(fullness) = listing {
                self.open.insert(fullness, slot);
            }
        }
    }

    /// Workers that may have got room, or a task in their own queue, since `open` was brought up to date.
    pub(crate) fn changed(&self) -> &Vec<WorkerSlot> {
        &self.changed
    }

    /// Takes note that any worker may have got something to do.
    pub(crate) fn change_all(&mut self) {
        for slot in self.by_id.values() {
            let worker = &mut self.slab[*slot];
            if !worker.is_changed {
                worker.is_changed = true;
                self.changed.push(*slot);
            }
        }
    }

    /// Takes note that a worker's fullness or own queue may have changed.
    pub(crate) fn change(&mut self, slot: WorkerSlot) {
        let worker = &mut self.slab[slot];
        if !worker.is_changed {
            worker.is_changed = true;
            self.changed.push(slot);
        }
    }
}
