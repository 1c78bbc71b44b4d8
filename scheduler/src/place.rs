//! Which ready task goes to which worker, and when.
//!
//! Runs at the end of every step. A task whose inputs lie mostly on one worker queues for that worker, and an idle worker may
//! take it from there; all others queue together and go to the emptiest worker. Workers are filled to their slots first, then
//! with a small queue behind them, and never with more: what waits here can still go anywhere.

use std::cmp::Reverse;

use transload_protocol::{
    Attempt, Event, InputLocation, InputRef, LayerIndex, OutputSizes, PartitionId,
    SchedulerToWorker, TaskAssignment, TaskId,
};

use crate::api::Action;
use crate::barrier::Summary;
use crate::machine::Scheduler;
use crate::ready::{IN_FRONT, Rank};
use crate::slab::{GraphSlot, Slot, TaskAt, WorkerSlot};
use crate::task::{Bytes, TaskState};
use crate::worker::{FULL, Reach, Workers};

/// What fetching one partition costs beside its bytes, in bytes that could have been moved meanwhile.
pub(crate) const FETCH_COST_BYTES: u64 = 4 << 10;
/// Where workers could only take tasks from others, so many are asked before the rest has to wait.
const REFUSALS_PER_PASS: u32 = 16;
/// A byte from another machine counts for so many from the same one.
const FAR_WEIGHT: u64 = 4;

/// A task found for a worker.
enum Pick {
    /// From the common queue: another worker may be better for it.
    Open(TaskAt),
    /// From a worker's own queue, or another's.
    Settled(TaskAt),
}

/// How full a worker must not be to get more within this reach.
const fn limit(reach: Reach) -> u32 {
    match reach {
        Reach::Slot => FULL,
        Reach::Queue => u32::MAX,
    }
}

/// Takes note that a worker is to be told how to reach another, once.
fn introduce(workers: &mut Workers, reader: WorkerSlot, holder: WorkerSlot) {
    if reader != holder && workers.slab[reader].knows.insert(holder.0) {
        workers.slab[reader].introductions.push(holder);
    }
}

/// Tells a worker how to reach those to whom it was introduced.
fn flush_introductions(workers: &mut Workers, reader: WorkerSlot, out: &mut Vec<Action>) {
    if workers.slab[reader].introductions.is_empty() {
        return;
    }
    let mut holders = std::mem::take(&mut workers.slab[reader].introductions);
    let holding = holders
        .iter()
        .filter_map(|holder| workers.slab.get(*holder));
    let peers = holding.map(|holder| &holder.announcement).collect();
    out.push(Action::ToWorker {
        worker: workers.slab[reader].id,
        message: SchedulerToWorker::Peers { peers },
    });
    holders.clear();
    workers.slab[reader].introductions = holders;
}

/// Tells a worker how to reach those who hold some of a layer. Mostly it knows all of them or none, and then all workers like it
/// are sent the same bytes.
fn introduce_all(
    workers: &mut Workers,
    reader: WorkerSlot,
    summary: &mut Summary,
    out: &mut Vec<Action>,
) {
    // The table that comes next may name them.
    flush_introductions(workers, reader, out);
    let holders = &summary.holders;
    let unknown: Vec<u32> = holders
        .difference(&workers.slab[reader].knows)
        .filter(|holder| *holder != reader.0)
        .collect();
    let others = holders.len() - u32::from(holders.contains(reader.0));
    if unknown.is_empty() || unknown.len() < others as usize {
        for holder in unknown {
            introduce(workers, reader, WorkerSlot(holder));
        }
        flush_introductions(workers, reader, out);
        return;
    }
    let peers = summary.peers.get_or_insert_with(|| {
        let holding = holders
            .iter()
            .filter_map(|holder| workers.slab.get(WorkerSlot(holder)));
        holding.map(|holder| &holder.announcement).collect()
    });
    let record = &mut workers.slab[reader];
    for holder in unknown {
        record.knows.insert(holder);
    }
    out.push(Action::ToWorker {
        worker: record.id,
        message: SchedulerToWorker::Peers {
            peers: peers.clone(),
        },
    });
}

/// A partition that a task reads, and where it is.
#[derive(Debug)]
pub(crate) struct Gathered {
    input: InputRef,
    holder: WorkerSlot,
    bytes: Bytes,
}

/// Sums by worker that need no clearing: an entry counts when it was written since the last weighing began.
struct Scale<'a> {
    weights: &'a mut Vec<u64>,
    weighed: &'a mut Vec<u32>,
    weighing: u32,
    holders: &'a mut Vec<WorkerSlot>,
}

impl Scale<'_> {
    #[inline]
    fn add(&mut self, worker: WorkerSlot, weight: u64) {
        let at = worker.index();
        if self.weights.len() <= at {
            self.weights.resize(at + 1, 0);
            self.weighed.resize(at + 1, 0);
        }
        if self.weighed[at] != self.weighing {
            self.weighed[at] = self.weighing;
            self.weights[at] = 0;
            self.holders.push(worker);
        }
        self.weights[at] = self.weights[at].saturating_add(weight);
    }
}

impl Scheduler {
    /// Hands out ready tasks as long as someone has room for them.
    pub(crate) fn place(&mut self, out: &mut Vec<Action>) {
        self.find_stuck(out);
        self.follow_imports(out);
        if self.ready.runnable() > 0 || self.gangs.want_room() {
            let mut with_room = std::mem::take(&mut self.with_room);
            with_room.clone_from(self.workers.changed());
            for reach in [Reach::Slot, Reach::Queue] {
                if self.gangs.want_room() {
                    self.start_gangs(reach, out);
                    with_room.append(&mut self.with_room);
                }
                self.serve_own(&with_room, reach, out);
                for worker in with_room.iter().copied() {
                    if self.workers.slab.get(worker).is_some() {
                        self.refill(worker, reach, out);
                    }
                }
                self.spread(reach, out);
                if self.ready.pinned > 0 {
                    // Nobody else takes what tasks of the common queue went before.
                    self.serve_own(&with_room, reach, out);
                }
            }
            self.with_room = with_room;
            self.serve_aside(out);
        }
    }

    /// Gives workers what is in their own queues.
    fn serve_own(&mut self, workers: &[WorkerSlot], reach: Reach, out: &mut Vec<Action>) {
        for worker in workers.iter().copied() {
            // One that left in this step may still be named.
            while self.workers.slab.get(worker).is_some()
                && let Some(at) = self.pick_own(worker, reach)
            {
                self.assign(at, worker, out);
            }
        }
    }

    /// Gives a worker all that it may have.
    pub(crate) fn serve_fully(&mut self, worker: WorkerSlot, reach: Reach, out: &mut Vec<Action>) {
        while let Some(pick) = self.pick(worker, reach) {
            self.assign_picked(pick, worker, reach, out);
        }
    }

    /// Tasks that may be handed out within this reach.
    fn waiting(&self, reach: Reach) -> u32 {
        match reach {
            Reach::Slot => self.ready.open + self.ready.preferring,
            Reach::Queue => self.ready.open,
        }
    }

    /// What `spread` would do with a worker that has just got room, as long as no other is emptier. In a busy cluster that is
    /// all there is to do, and it needs no search.
    fn refill(&mut self, worker: WorkerSlot, reach: Reach, out: &mut Vec<Action>) {
        while self.waiting(reach) > 0
            && let Some(fullness) = self.workers.listing(worker)
            && fullness < limit(reach)
            && self.workers.is_emptiest(worker, fullness)
            && let Some(pick) = self.pick(worker, reach)
        {
            self.assign_picked(pick, worker, reach, out);
        }
    }

    fn assign_picked(
        &mut self,
        pick: Pick,
        worker: WorkerSlot,
        reach: Reach,
        out: &mut Vec<Action>,
    ) {
        match pick {
            Pick::Settled(at) => self.assign(at, worker, out),
            Pick::Open(at) => {
                let graph = &self.graphs.slab[at.graph];
                let (layer, position) = graph.locate(at.index);
                if graph.layers[layer.0 as usize].wants_a_look_ahead(position) {
                    self.look_ahead(at);
                }
                self.gather_inputs(at);
                let worker = self.better_holder(at, worker, reach);
                self.assign_gathered(at, worker, out);
            }
        }
    }

    /// Serves the emptiest workers first.
    fn spread(&mut self, reach: Reach, out: &mut Vec<Action>) {
        let mut cursor = (0, WorkerSlot::from_index(0));
        let only_steals = reach == Reach::Slot && self.ready.open == 0;
        let can_steal =
            reach == Reach::Slot && self.ready.preferring > 0 && self.now >= self.steals.after;
        if only_steals {
            if !can_steal {
                return;
            }
            cursor.1 = self.steals.next_thief;
        }
        let mut refused = 0;
        loop {
            if self.waiting(reach) == 0 {
                return;
            }
            self.workers.relist(self.now);
            let next = self.workers.open.first_from(cursor);
            let next = next.filter(|(fullness, _)| *fullness < limit(reach));
            let Some((fullness, worker)) = next else {
                if can_steal {
                    self.steals
                        .end_pass(refused, WorkerSlot::from_index(0), self.now);
                }
                return;
            };
            match self.pick(worker, reach) {
                Some(pick) => self.assign_picked(pick, worker, reach, out),
                None => {
                    cursor = (fullness, WorkerSlot(worker.0 + 1));
                    refused += 1;
                    if only_steals && refused == REFUSALS_PER_PASS {
                        self.steals.end_pass(refused, cursor.1, self.now);
                        return;
                    }
                }
            }
        }
    }

    /// The first task in a worker's own queue that fits, unless the common queue has one of higher rank for it.
    fn pick_own(&self, worker: WorkerSlot, reach: Reach) -> Option<TaskAt> {
        let layer = |at: TaskAt| self.graphs.slab[at.graph].layer_of(at.index);
        let (rank, at) = self.first_preferring(worker, |at| {
            self.workers.fits(worker, layer(at), reach) && !self.workers.is_held_up(worker, at)
        })?;
        let shares = &self.ready.shares;
        if self.ready.layers.first().is_none_or(|first| *first > rank) && !shares.are_contended() {
            return Some(at);
        }
        // Only what this worker may take counts: a worker must not idle for a task that avoids it.
        let open = self.pick_open(worker, reach);
        let outranked = open.is_some_and(|(first, _)| shares.goes_before(&first, &rank));
        (!outranked).then_some(at)
    }

    fn pick(&self, worker: WorkerSlot, reach: Reach) -> Option<Pick> {
        if let Some(at) = self.pick_own(worker, reach) {
            return Some(Pick::Settled(at));
        }
        if let Some((_, at)) = self.pick_open(worker, reach) {
            return Some(Pick::Open(at));
        }
        match reach {
            Reach::Slot if self.ready.preferring > 0 && self.now >= self.steals.after => {
                self.steal(worker).map(Pick::Settled)
            }
            Reach::Slot | Reach::Queue => None,
        }
    }

    /// The first task of the common queue that fits.
    fn pick_open(&self, worker: WorkerSlot, reach: Reach) -> Option<(Rank, TaskAt)> {
        if self.ready.shares.are_contended() {
            let mut turns = self.ready.shares.turns();
            return turns.find_map(|(urgency, share)| {
                let mut layers = self.ready.layers_of(urgency, share);
                layers.find_map(|rank| self.pick_of_layer(rank, worker, reach))
            });
        }
        let first = self.ready.layers.first()?;
        // Nearly always the first layer has something for the worker, and a walk costs more than a look.
        self.pick_of_layer(first, worker, reach).or_else(|| {
            let mut others = self.ready.layers.iter().skip(1);
            others.find_map(|rank| self.pick_of_layer(rank, worker, reach))
        })
    }

    fn pick_of_layer(
        &self,
        rank: &Rank,
        worker: WorkerSlot,
        reach: Reach,
    ) -> Option<(Rank, TaskAt)> {
        let graph = &self.graphs.slab[rank.graph];
        let layer = &graph.layers[rank.layer() as usize];
        if !self.workers.fits(worker, layer, reach) {
            return None;
        }
        if self.is_aside_for(layer, worker) {
            return self.pick_exception(rank, worker);
        }
        let is_welcome = graph.history.is_empty() && self.workers.held_up.is_empty();
        if let Some(families) = &layer.families {
            let at = |position| TaskAt {
                graph: rank.graph,
                index: layer.first_task + position,
            };
            let may_have = |position| is_welcome || !self.avoids(at(position), worker);
            let position = families.pick(worker, &layer.ready, may_have)?;
            return Some((*rank, at(position)));
        }
        let mut from = 0;
        while let Some(position) = layer.ready.first_from(from) {
            let at = TaskAt {
                graph: rank.graph,
                index: layer.first_task + position,
            };
            if is_welcome || !self.avoids(at, worker) {
                return Some((*rank, at));
            }
            from = position + 1;
        }
        None
    }

    /// Whether a task failed on this worker, or the worker stands aside, and another could take it; or the task would have to wait
    /// there for one without its slot.
    pub(crate) fn avoids(&self, at: TaskAt, worker: WorkerSlot) -> bool {
        let workers = &self.workers;
        if workers.is_held_up(worker, at) {
            return true;
        }
        let graph = &self.graphs.slab[at.graph];
        let layer = graph.layer_of(at.index);
        let history = graph.history.get(&at.index);
        let avoid = history.and_then(|history| history.avoid);
        let failed_on = |other: WorkerSlot| avoid == Some(workers.slab[other].id);
        let is_open_to = |other: WorkerSlot| {
            !workers.slab[other].aside && !failed_on(other) && !workers.is_held_up(other, at)
        };
        workers.slab[worker].aside && workers.any_covers(layer, is_open_to)
            || failed_on(worker) && workers.any_covers(layer, |other| other != worker)
    }

    /// The first task in a worker's own queue that is wanted. Of each layer only the first is asked about.
    pub(crate) fn first_preferring(
        &self,
        worker: WorkerSlot,
        mut wanted: impl FnMut(TaskAt) -> bool,
    ) -> Option<(Rank, TaskAt)> {
        if self.ready.shares.are_contended() {
            return self.first_preferring_in_turn(worker, wanted);
        }
        let queue = &self.workers.slab[worker].preferred;
        let mut entry = queue.first().copied();
        while let Some((rank, index)) = entry {
            let at = TaskAt {
                graph: rank.graph,
                index,
            };
            if wanted(at) {
                return Some((rank, at));
            }
            entry = queue.range((rank, self.past(index))..).next().copied();
        }
        None
    }

    /// Where to look on in a worker's queue after a task that was not wanted: the others of its layer ask for the same, but only one of
    /// them may be held up.
    fn past(&self, index: u32) -> u32 {
        if self.workers.held_up.is_empty() {
            u32::MAX
        } else {
            index + 1
        }
    }

    /// The same where several clients share the workers.
    fn first_preferring_in_turn(
        &self,
        worker: WorkerSlot,
        mut wanted: impl FnMut(TaskAt) -> bool,
    ) -> Option<(Rank, TaskAt)> {
        let queue = &self.workers.slab[worker].preferred;
        let shares = &self.ready.shares;
        let mut best: Option<(Rank, TaskAt)> = None;
        let mut entry = queue.first().copied();
        while let Some((rank, index)) = entry {
            let graph = rank.graph;
            let at = TaskAt { graph, index };
            let is_better = best.is_none_or(|(first, _)| shares.goes_before(&rank, &first));
            let is_best = is_better && wanted(at);
            if is_best {
                best = Some((rank, at));
            }
            // Of this client's tasks none is better, or else its next layer may have one.
            let next = if is_better && !is_best {
                (rank, self.past(index))
            } else {
                (rank.last_of_share(), u32::MAX)
            };
            entry = queue.range(next..).next().copied();
        }
        best
    }

    /// The worker that holds most of what a task reads, when that is more than half and the worker can run it. A task that has a
    /// worker of its own prefers that one.
    pub(crate) fn preferred_worker(&mut self, at: TaskAt) -> Option<WorkerSlot> {
        let layer = self.graphs.slab[at.graph].layer_of(at.index);
        if layer.scope.is_each() {
            return self.pinned_worker(at);
        }
        if !layer.reads || layer.gang.is_some() {
            return None;
        }
        self.gather_inputs(at);
        let total = self.weigh_inputs(at);
        let (weight, worker) = self
            .holders
            .iter()
            .map(|holder| (self.weights[holder.index()], *holder))
            .max_by_key(|(weight, holder)| (*weight, Reverse(*holder)))?;
        let layer = self.graphs.slab[at.graph].layer_of(at.index);
        (weight > total / 2 && self.workers.covers(worker, layer) && !self.avoids(at, worker))
            .then_some(worker)
    }

    /// The worker with room that holds most of what a task reads, when that is more than `worker` holds.
    fn better_holder(&mut self, at: TaskAt, worker: WorkerSlot, reach: Reach) -> WorkerSlot {
        if !self.graphs.slab[at.graph].layer_of(at.index).reads {
            return worker;
        }
        self.weigh_inputs(at);
        let layer = self.graphs.slab[at.graph].layer_of(at.index);
        let own = self.saved_at(worker);
        self.holders
            .iter()
            .map(|holder| (self.saved_at(*holder), *holder))
            .filter(|(saved, holder)| {
                *saved > own
                    && self.workers.fits(*holder, layer, reach)
                    && !self.avoids(at, *holder)
            })
            .max_by_key(|(saved, holder)| (*saved, Reverse(*holder)))
            .map_or(worker, |(_, holder)| holder)
    }

    /// What a worker need not fetch of what was weighed last; what lies on its own machine counts for more than what lies afar.
    #[inline]
    fn saved_at(&self, worker: WorkerSlot) -> u64 {
        let own = self.weight_of(worker);
        if self.workers.are_apart() {
            self.saved_near(worker, own)
        } else {
            own
        }
    }

    #[inline]
    fn weight_of(&self, holder: WorkerSlot) -> u64 {
        match self.weighed.get(holder.index()) {
            Some(weighing) if *weighing == self.weighing => self.weights[holder.index()],
            Some(_) | None => 0,
        }
    }

    fn saved_near(&self, worker: WorkerSlot, own: u64) -> u64 {
        let host = |slot: WorkerSlot| self.workers.slab[slot].host;
        let holders = self.holders.iter();
        let near = holders.filter(|holder| host(**holder) == host(worker));
        let near = near.fold(0_u64, |sum, holder| {
            sum.saturating_add(self.weight_of(*holder))
        });
        near.saturating_mul(FAR_WEIGHT - 1).saturating_add(own)
    }

    /// Collects what a task reads beside whole layers and other graphs, and where that is: once for weighing it, and for telling
    /// the reader.
    pub(crate) fn gather_inputs(&mut self, at: TaskAt) {
        self.gathered.clear();
        let graph = &self.graphs.slab[at.graph];
        let (layer, position) = graph.locate(at.index);
        if !graph.layers[layer.0 as usize].reads_direct {
            return;
        }
        let gathered = &mut self.gathered;
        graph
            .compiled
            .for_each_direct_input(layer, position, |input| {
                if let TaskState::Done {
                    worker, largest, ..
                } = graph.tasks[input.task as usize].state
                {
                    gathered.push(Gathered {
                        input,
                        holder: worker,
                        bytes: largest,
                    });
                }
            });
    }

    /// Adds up, for each holder of what a task reads, what fetching it from there would cost; returns the sum of all. Of those
    /// who hold parts of a whole layer only the largest count. To be called when the task's inputs are gathered.
    pub(crate) fn weigh_inputs(&mut self, at: TaskAt) -> u64 {
        self.holders.clear();
        self.weighing = self.weighing.wrapping_add(1);
        let graph = &mut self.graphs.slab[at.graph];
        let layer = graph.tasks[at.index as usize].layer();
        graph.summarize(layer, &self.workers);
        let mut scale = Scale {
            weights: &mut self.weights,
            weighed: &mut self.weighed,
            weighing: self.weighing,
            holders: &mut self.holders,
        };
        let mut total = 0_u64;
        for barrier in &graph.layers[layer as usize].barriers {
            if let Some(summary) = &barrier.summary {
                total = total.saturating_add(summary.total);
                for (worker, weight) in &summary.largest {
                    scale.add(*worker, *weight);
                }
            }
        }
        for read in &self.gathered {
            let weight = u64::from(read.bytes).saturating_add(FETCH_COST_BYTES);
            scale.add(read.holder, weight);
            total = total.saturating_add(weight);
        }
        if let Some((worker, sizes)) = self.imported_from(at) {
            let weight = sizes.total_bytes.saturating_add(FETCH_COST_BYTES);
            let mut scale = Scale {
                weights: &mut self.weights,
                weighed: &mut self.weighed,
                weighing: self.weighing,
                holders: &mut self.holders,
            };
            scale.add(worker, weight);
            total = total.saturating_add(weight);
        }
        total
    }

    /// Hands a task to a worker.
    pub(crate) fn assign(&mut self, at: TaskAt, worker: WorkerSlot, out: &mut Vec<Action>) {
        self.gather_inputs(at);
        self.assign_gathered(at, worker, out);
    }

    /// As [`Scheduler::assign`], when the task's inputs are gathered.
    fn assign_gathered(&mut self, at: TaskAt, worker: WorkerSlot, out: &mut Vec<Action>) {
        self.assignments = self.assignments.wrapping_add(1);
        self.set_state(
            at,
            TaskState::Assigned {
                worker,
                serial: self.assignments,
                started: false,
            },
        );
        let to = self.workers.slab[worker].id;
        let base = self.attempt_base;
        let graph = &mut self.graphs.slab[at.graph];
        let task = &mut graph.tasks[at.index as usize];
        task.attempt = task.attempt.max(base) + 1;
        let (attempt, layer) = (Attempt(task.attempt), task.layer());
        self.tell_layer(at, worker, out);
        self.tell_sources(at.graph, layer, worker, out);
        let inputs = self.input_locations(at, worker);
        let graph = &mut self.graphs.slab[at.graph];
        let record = &mut graph.layers[layer as usize];
        let position = at.index - record.first_task;
        if let Some(families) = &mut record.families {
            families.on_assigned(worker, position, self.workers.slab.len());
        }
        let rank = record.rank;
        let is_member = record.gang.is_some();
        let task = graph.task_id(at.index);
        let mut order = self.order_on_worker(&rank);
        if is_member {
            order &= IN_FRONT;
        }
        let record = &mut self.workers.slab[worker];
        if record.assigned.len() == 1 {
            record.pace.on_assigned(self.now);
        }
        let assignments = &mut record.assignments;
        if assignments.is_empty() {
            self.assigning.push(worker);
        }
        assignments.push(TaskAssignment {
            task,
            attempt,
            layer: LayerIndex(layer),
            order,
            inputs,
        });
        if self.tells_tasks() {
            let worker = to;
            self.emit(
                Event::TaskAssigned {
                    task,
                    attempt,
                    worker,
                },
                out,
            );
        }
    }

    /// Where several clients share the workers, tasks run in the order in which they were handed out: a client whose graph is older
    /// than another's would overtake it on each worker for ever.
    fn order_on_worker(&mut self, rank: &Rank) -> u64 {
        match self.ready.shares.next_in_era() {
            None => rank.order(),
            Some(number) => {
                if number == 0 {
                    self.accepted = self.accepted.wrapping_add(1);
                }
                rank.order_in_turn(self.accepted, number)
            }
        }
    }

    /// Sends what was handed out in this step, one message for each worker.
    pub(crate) fn flush_assignments(&mut self, out: &mut Vec<Action>) {
        for slot in self.assigning.drain(..) {
            // It may have been lost since, where it was to have a task that was asked back for it.
            if (self.workers.slab.get(slot)).is_none_or(|worker| worker.assignments.is_empty()) {
                continue;
            }
            flush_introductions(&mut self.workers, slot, out);
            let worker = &mut self.workers.slab[slot];
            let tasks = std::mem::take(&mut worker.assignments);
            out.push(Action::ToWorker {
                worker: worker.id,
                message: SchedulerToWorker::Assign { tasks },
            });
        }
    }

    /// Tells a worker where that is of which every task of a layer reads all.
    #[inline]
    fn tell_sources(
        &mut self,
        slot: GraphSlot,
        layer: u32,
        worker: WorkerSlot,
        out: &mut Vec<Action>,
    ) {
        if self.graphs.slab[slot].layers[layer as usize]
            .barriers
            .is_empty()
        {
            return;
        }
        self.tell_sources_now(slot, layer, worker, out);
    }

    fn tell_sources_now(
        &mut self,
        slot: GraphSlot,
        layer: u32,
        worker: WorkerSlot,
        out: &mut Vec<Action>,
    ) {
        self.graphs.slab[slot].summarize(layer, &self.workers);
        for index in 0..self.graphs.slab[slot].layers[layer as usize].barriers.len() {
            let graph = &mut self.graphs.slab[slot];
            let barrier = &mut graph.layers[layer as usize].barriers[index];
            if !barrier.told.insert(worker.0) {
                continue;
            }
            let Some(summary) = &mut barrier.summary else {
                continue;
            };
            introduce_all(&mut self.workers, worker, summary, out);
            out.push(Action::ToWorker {
                worker: self.workers.slab[worker].id,
                message: SchedulerToWorker::Sources {
                    graph: graph.id,
                    layer: LayerIndex(layer),
                    input: barrier.input,
                    sources: summary.table.clone(),
                },
            });
        }
    }

    /// The partitions that a task reads beside those of whole layers, as they were gathered, and where they are. Introduces the
    /// reader to their holders.
    fn input_locations(&mut self, at: TaskAt, reader: WorkerSlot) -> Vec<InputLocation> {
        if let Some((worker, sizes)) = self.imported_from(at) {
            return self.imported_locations(at, reader, worker, sizes);
        }
        let graph = self.graphs.slab[at.graph].id;
        let workers = &mut self.workers;
        let location = |read: &Gathered| {
            introduce(workers, reader, read.holder);
            let index = read.input.task;
            InputLocation {
                input: read.input.input,
                partition: PartitionId {
                    task: TaskId { graph, index },
                    output: read.input.output,
                },
                worker: workers.slab[read.holder].id,
                bytes: read.bytes.into(),
                shared: false,
            }
        };
        self.gathered.iter().map(location).collect()
    }

    fn imported_locations(
        &mut self,
        at: TaskAt,
        reader: WorkerSlot,
        holder: WorkerSlot,
        sizes: OutputSizes,
    ) -> Vec<InputLocation> {
        let Some(task) = self.graphs.slab[at.graph].imported_by(at.index) else {
            return Vec::new();
        };
        introduce(&mut self.workers, reader, holder);
        let worker = self.workers.slab[holder].id;
        let input = |output| InputLocation {
            input: 0,
            partition: PartitionId { task, output },
            worker,
            bytes: sizes.largest_bytes,
            shared: false,
        };
        (0..sizes.outputs).map(input).collect()
    }
}
