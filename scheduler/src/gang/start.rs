//! When and where a gang starts: all of it at once on what is free, or nothing of it.
//!
//! Called by `place`. So that a stream of small tasks does not starve a gang, room is kept for the first that waits: on as few workers
//! as needed, and for one gang at a time, so that no two wait for each other.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use transload_protocol::{
    Attempt, Event, GangMember, GangTable, LayerIndex, Resources, SchedulerToWorker, TaskErrorKind,
};

use crate::api::Action;
use crate::graph::LayerRecord;
use crate::machine::Scheduler;
use crate::ready::Rank;
use crate::slab::{Slot, TaskAt, WorkerSlot};
use crate::worker::{Beside, FULL, Kept, Reach};

/// So many gangs that do not fit are looked at before the rest waits for another step.
const TRIED: usize = 16;

/// How many members a worker can take.
type Room = BTreeMap<WorkerSlot, u32>;

impl Scheduler {
    /// Starts what fits, and keeps room for the first that does not; workers of which nothing is kept any more are added to
    /// `with_room`. Before single tasks get slots, only gangs that go before all of
    /// them have their turn; after that, all others, with what is left.
    pub(crate) fn start_gangs(&mut self, reach: Reach, out: &mut Vec<Action>) {
        self.workers.relist(self.now);
        let first = self.first_single();
        let mut waits = None;
        let mut tried = 0;
        for rank in self.gangs_in_turn() {
            if !self.gangs.ready.contains(&rank) {
                // Another gang's end may have ended the graph.
                continue;
            }
            let is_first = first.is_none_or(|first| self.ready.shares.goes_before(&rank, &first));
            let room = if is_first || reach == Reach::Queue {
                self.room_now(&rank, reach)
            } else {
                Room::new()
            };
            if is_enough(&room, self.members(&rank)) {
                self.start_gang(rank, room, out);
                self.workers.relist(self.now);
            } else {
                tried += 1;
                let may_wait = (is_first || self.is_kept_for(&rank) && !self.gives_way(&rank))
                    && !self.is_waited_for_beside(&rank)
                    && !self.is_gang_held_up(&rank, None);
                waits = waits.or(Some(rank).filter(|_| may_wait));
            }
            if tried == TRIED {
                break;
            }
        }
        self.keep_room_for(waits);
        // What was kept for another until now may be enough.
        if let Some(rank) = waits.filter(|rank| self.is_kept_for(rank)) {
            let room = self.room_now(&rank, reach);
            if is_enough(&room, self.members(&rank)) {
                self.start_gang(rank, room, out);
                self.workers.relist(self.now);
            }
        }
    }

    /// The layer whose task gets the next free slot, gangs apart.
    fn first_single(&self) -> Option<Rank> {
        if self.ready.shares.are_contended() {
            let (urgency, share) = self.ready.shares.turns().next()?;
            self.ready.layers_of(urgency, share).next().copied()
        } else {
            self.ready.layers.first().copied()
        }
    }

    /// Ready gangs, first one first.
    fn gangs_in_turn(&self) -> Vec<Rank> {
        let mut gangs: Vec<Rank> = self.gangs.ready.iter().copied().collect();
        let shares = &self.ready.shares;
        if shares.are_contended() {
            gangs.sort_by_key(|rank| (shares.turn_of(rank), *rank));
        }
        gangs
    }

    /// Once room is kept for a gang, only tasks that a user put before it take that away from it.
    fn gives_way(&self, rank: &Rank) -> bool {
        let first = self.first_single();
        first.is_some_and(|first| first.urgency < rank.urgency)
    }

    /// Whether single tasks are ready that tasks without their slots wait for, further inside than the gang is. Room that is kept for
    /// it could be the last for them, and what they wait for the last for the gang.
    fn is_waited_for_beside(&self, rank: &Rank) -> bool {
        let is_inner = |other: &Rank| other.nesting() > rank.nesting();
        let kept = self.gangs.kept.iter().flat_map(|(_, shares)| shares.keys());
        let mut own = kept.filter_map(|worker| self.workers.slab.get(*worker));
        self.ready.layers.iter().any(is_inner)
            || own.any(|worker| worker.preferred.iter().any(|(other, _)| is_inner(other)))
    }

    fn is_kept_for(&self, rank: &Rank) -> bool {
        self.gangs.kept.as_ref().is_some_and(|(of, _)| of == rank)
    }

    pub(super) fn members(&self, rank: &Rank) -> u32 {
        self.gang_layer(rank)
            .gang
            .as_ref()
            .map_or(0, |gang| gang.members)
    }

    pub(super) fn gang_layer(&self, rank: &Rank) -> &LayerRecord {
        &self.graphs.slab[rank.graph].layers[rank.layer() as usize]
    }

    /// How many members fit on each worker now.
    pub(super) fn room_now(&self, rank: &Rank, reach: Reach) -> Room {
        let layer = self.gang_layer(rank);
        let own = self.is_kept_for(rank);
        let kept = self.gangs.kept.iter().filter(|_| own);
        let kept = kept.flat_map(|(_, shares)| shares.keys().copied());
        let avoided = self.avoided_by(rank);
        let is_free = |worker: &WorkerSlot| {
            let worker = &self.workers.slab[*worker];
            !worker.leaving && worker.fullness() < FULL
        };
        let aside = self.apart.aside().filter(is_free);
        let candidates = self.workers.open.below(FULL).chain(aside).chain(kept);
        let mut room = Room::new();
        for worker in candidates {
            let Some(record) = self.workers.slab.get(worker) else {
                continue;
            };
            let first = record.preferred.first();
            let is_taken = reach == Reach::Slot
                && first.is_some_and(|(first, _)| self.ready.shares.goes_before(first, rank));
            let is_held_up = self.is_gang_held_up(rank, Some(worker));
            if is_taken && !own || avoided.contains(&worker) || is_held_up {
                continue;
            }
            let beside = if own {
                Beside::Tasks
            } else {
                Beside::TasksAndKept
            };
            let fits = self.workers.room(worker, layer, beside);
            if fits > 0 {
                room.insert(worker, fits);
            }
        }
        room
    }

    /// How many members would fit on each worker if none had anything else.
    pub(super) fn room_if_idle(&self, rank: &Rank) -> Room {
        let layer = self.gang_layer(rank);
        let workers = self.workers.slab.iter();
        workers
            .map(|(slot, _)| (slot, self.workers.room(slot, layer, Beside::Nothing)))
            .filter(|(_, room)| *room > 0)
            .collect()
    }

    /// The workers that stand aside, and the one on which the gang failed last, as far as the others together can run it.
    fn avoided_by(&self, rank: &Rank) -> BTreeSet<WorkerSlot> {
        let graph = &self.graphs.slab[rank.graph];
        let first = graph.layers[rank.layer() as usize].first_task;
        let failed = graph.history.get(&first).and_then(|history| history.avoid);
        let failed = failed.and_then(|worker| self.workers.by_id.get(&worker).copied());
        let mut avoided = BTreeSet::new();
        let unwanted: Vec<WorkerSlot> = self.apart.aside().chain(failed).collect();
        if unwanted.is_empty() {
            return avoided;
        }
        let mut others = self.room_if_idle(rank);
        let members = self.members(rank);
        for worker in unwanted {
            let room = others.remove(&worker);
            if is_enough(&others, members) {
                avoided.insert(worker);
            } else if let Some(room) = room {
                others.insert(worker, room);
            }
        }
        avoided
    }

    /// Keeps room for this gang and for no other.
    fn keep_room_for(&mut self, gang: Option<Rank>) {
        if let Some((of, shares)) = &self.gangs.kept
            && gang == Some(*of)
            && shares.keys().all(|worker| self.keeps_room(*worker))
        {
            return;
        }
        if let Some((_, shares)) = self.gangs.kept.take() {
            for worker in shares.into_keys() {
                self.workers.keep(worker, None);
                self.with_room.push(worker);
            }
        }
        if let Some(rank) = gang {
            self.keep_room(rank);
        }
        self.workers.relist(self.now);
    }

    /// Whether a worker on which room was kept still has it. Another one may stand in the place of one that is gone.
    pub(super) fn keeps_room(&self, worker: WorkerSlot) -> bool {
        let worker = self.workers.slab.get(worker);
        worker.is_some_and(|worker| worker.kept().is_some())
    }

    /// Keeps room on those who will soonest have it.
    fn keep_room(&mut self, rank: Rank) {
        let mut room = self.room_if_idle(&rank);
        let avoided = self.avoided_by(&rank);
        room.retain(|worker, _| !avoided.contains(worker));
        let mut missing = self.members(&rank);
        if !is_enough(&room, missing) {
            return;
        }
        let mut workers: Vec<(u32, WorkerSlot, u32)> = room
            .into_iter()
            .map(|(worker, room)| (self.workers.slab[worker].fullness(), worker, room))
            .collect();
        workers
            .sort_unstable_by_key(|(fullness, worker, room)| (*fullness, Reverse(*room), *worker));
        let request = self.gang_layer(&rank).resources.clone();
        let mut shares = BTreeMap::new();
        for (_, worker, room) in workers {
            let members = room.min(missing);
            if members == 0 {
                break;
            }
            missing -= members;
            shares.insert(worker, members);
            let mut resources = Resources::slots(0);
            (0..members).for_each(|_| resources.give_back(&request));
            self.workers.keep(worker, Some(Kept { members, resources }));
        }
        self.gangs.kept = Some((rank, shares));
    }

    /// Hands out all members, and before them tells each worker who they are.
    fn start_gang(&mut self, rank: Rank, room: Room, out: &mut Vec<Action>) {
        if self.is_kept_for(&rank) {
            self.keep_room_for(None);
        }
        let places = self.distribute(&rank, room);
        let incarnation = self.next_incarnation(&places);
        if let Err(error) = self.introduce(&rank, incarnation, &places, out) {
            if let Some((at, _)) = places.first() {
                self.fail_task(*at, None, TaskErrorKind::Unschedulable, error, out);
            }
            return;
        }
        for (at, worker) in places {
            let task = &mut self.graphs.slab[at.graph].tasks[at.index as usize];
            // `assign` counts on by one.
            task.attempt = incarnation.0 - 1;
            self.assign(at, worker, out);
        }
    }

    /// A worker for each member: who holds most of what it reads, else one that has others of the gang, or can take many.
    fn distribute(&mut self, rank: &Rank, mut room: Room) -> Vec<(TaskAt, WorkerSlot)> {
        let graph = &self.graphs.slab[rank.graph];
        let reads = graph.layers[rank.layer() as usize].reads;
        let members = graph
            .compiled
            .tasks_of(LayerIndex(rank.layer()))
            .map(|index| TaskAt {
                graph: rank.graph,
                index,
            });
        let mut members: Vec<(TaskAt, Option<WorkerSlot>)> = members.map(|at| (at, None)).collect();
        let mut has_some: Room = Room::new();
        for (at, place) in members.iter_mut().filter(|_| reads) {
            *place = self.holder_with_room(*at, &room);
            if let Some(worker) = place {
                take_one(&mut room, *worker);
                *has_some.entry(*worker).or_default() += 1;
            }
        }
        let mut rest: Vec<(WorkerSlot, u32)> = room.into_iter().collect();
        rest.sort_unstable_by_key(|(worker, room)| {
            (!has_some.contains_key(worker), Reverse(*room), *worker)
        });
        let mut rest = rest
            .into_iter()
            .flat_map(|(worker, room)| std::iter::repeat_n(worker, room as usize));
        members
            .into_iter()
            .filter_map(|(at, place)| Some((at, place.or_else(|| rest.next())?)))
            .collect()
    }

    fn holder_with_room(&mut self, at: TaskAt, room: &Room) -> Option<WorkerSlot> {
        self.gather_inputs(at);
        self.weigh_inputs(at);
        self.holders
            .iter()
            .filter(|holder| room.contains_key(holder))
            .map(|holder| (self.weights[holder.index()], *holder))
            .max_by_key(|(weight, holder)| (*weight, Reverse(*holder)))
            .map(|(_, holder)| holder)
    }

    fn next_incarnation(&self, places: &[(TaskAt, WorkerSlot)]) -> Attempt {
        let attempts = places
            .iter()
            .map(|(at, _)| self.graphs.slab[at.graph].tasks[at.index as usize].attempt);
        Attempt(attempts.max().unwrap_or(0).max(self.attempt_base) + 1)
    }

    /// Tells each worker of a gang about all members.
    fn introduce(
        &self,
        rank: &Rank,
        incarnation: Attempt,
        places: &[(TaskAt, WorkerSlot)],
        out: &mut Vec<Action>,
    ) -> Result<(), String> {
        let member = |(_, worker): &(TaskAt, WorkerSlot)| {
            let hello = &self.workers.slab[*worker].hello;
            GangMember {
                worker: self.workers.slab[*worker].id,
                host: hello.host.clone(),
                process: hello.process,
                addresses: hello.addresses.clone(),
            }
        };
        let members: Vec<GangMember> = places.iter().map(member).collect();
        let table = GangTable::new(&members)
            .map_err(|error| format!("its members cannot be told of each other: {error}"))?;
        let mut workers: Vec<WorkerSlot> = places.iter().map(|(_, worker)| *worker).collect();
        workers.sort_unstable();
        workers.dedup();
        for worker in workers {
            out.push(Action::ToWorker {
                worker: self.workers.slab[worker].id,
                message: SchedulerToWorker::Gang {
                    graph: self.graphs.slab[rank.graph].id,
                    layer: LayerIndex(rank.layer()),
                    incarnation,
                    members: table.clone(),
                },
            });
        }
        Ok(())
    }

    /// Tells of a gang for which all workers together are too small, and gives it a while until one joins that makes up for it.
    pub(crate) fn doubt_gang(&mut self, rank: Rank, out: &mut Vec<Action>) {
        match self.why_too_large(&rank) {
            Some(message) if !self.gangs.stuck.contains_key(&rank) => {
                let due = self.stuck_until();
                self.gangs.stuck.insert(rank, due);
                let at = self.first_member(&rank);
                let task = self.graphs.slab[at.graph].task_id(at.index);
                self.emit(Event::TaskUnschedulable { task, message }, out);
            }
            Some(_) => {}
            None => {
                self.gangs.stuck.remove(&rank);
            }
        }
    }

    /// Fails what has been too large for too long.
    pub(crate) fn fail_stuck_gangs(&mut self, out: &mut Vec<Action>) {
        let now = self.now;
        while let Some((rank, _)) = self.gangs.stuck.iter().find(|(_, due)| **due <= now) {
            let rank = *rank;
            self.gangs.stuck.remove(&rank);
            if let Some(message) = self.why_too_large(&rank) {
                let at = self.first_member(&rank);
                self.fail_task(at, None, TaskErrorKind::Unschedulable, message, out);
            }
        }
    }

    fn first_member(&self, rank: &Rank) -> TaskAt {
        TaskAt {
            graph: rank.graph,
            index: self.gang_layer(rank).first_task,
        }
    }

    /// In words, if it is so. With no workers at all there is hope.
    pub(super) fn why_too_large(&self, rank: &Rank) -> Option<String> {
        if self.workers.slab.is_empty() {
            return None;
        }
        let (room, members) = (self.room_if_idle(rank), self.members(rank));
        if is_enough(&room, members) {
            return None;
        }
        let at = self.first_member(rank);
        let place = self.place_of(at).map(|place| format!(", and {place}"));
        Some(format!(
            "it is one of a gang of {members} tasks, which start together and ask for {} each{}, and the workers together have room \
             for {} of them ({}); start more workers, or ask for less",
            self.gang_layer(rank).resources,
            place.unwrap_or_default(),
            total(&room),
            self.offers_to(at)
        ))
    }
}

fn take_one(room: &mut Room, worker: WorkerSlot) {
    if let Some(left) = room.get_mut(&worker) {
        *left -= 1;
        if *left == 0 {
            room.remove(&worker);
        }
    }
}

pub(super) fn total(room: &Room) -> u64 {
    room.values().map(|room| u64::from(*room)).sum()
}

pub(super) fn is_enough(room: &Room, members: u32) -> bool {
    total(room) >= u64::from(members)
}
