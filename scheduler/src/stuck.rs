//! Ready tasks that no worker in the cluster can ever run: they are told of at once, and their graphs fail after a while unless a
//! worker that can run them joins before.
//!
//! Called by `place` for layers that have got their first ready task or lost a worker, and by `members`. While a layer stands
//! here nobody looks through its tasks, so that they cost nothing.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use transload_protocol::{Event, Placement, TaskErrorKind, Time, WorkerId, WorkerRef};

use crate::api::Action;
use crate::graph::LayerRecord;
use crate::machine::Scheduler;
use crate::ready::Rank;
use crate::slab::{TaskAt, WorkerSlot};
use crate::worker::Worker;

/// So many workers are named in a reason.
const NAMED: usize = 3;

/// Layers with ready tasks that nobody can run.
#[derive(Debug, Default)]
pub(crate) struct Stuck {
    /// When their graphs fail.
    pub(crate) layers: BTreeMap<Rank, Time>,
    /// The same by time.
    pub(crate) due: BTreeSet<(Time, Rank)>,
    /// Ready tasks of these layers that are in no worker's queue.
    tasks: u32,
}

impl Stuck {
    pub(crate) const fn tasks(&self) -> u32 {
        self.tasks
    }

    /// One more task of a layer that stands here is ready.
    pub(crate) fn one_more(&mut self) {
        self.tasks += 1;
    }

    /// One less is, and `layer.ready` says which are left.
    pub(crate) fn one_less(&mut self, layer: &mut LayerRecord) {
        self.tasks -= 1;
        if layer.ready.is_empty() {
            layer.is_stuck = false;
            self.forget(layer.rank);
        }
    }

    fn forget(&mut self, rank: Rank) {
        if let Some(due) = self.layers.remove(&rank) {
            self.due.remove(&(due, rank));
        }
    }

    fn remember(&mut self, rank: Rank, due: Time) {
        self.forget(rank);
        self.layers.insert(rank, due);
        self.due.insert((due, rank));
    }
}

impl Scheduler {
    /// When the first graph fails because of this.
    pub(crate) fn next_stuck_end(&self) -> Option<Time> {
        // Nobody fails while the workers of an earlier scheduler are still coming back.
        let is_recovering = self.recovery.is_some();
        let first = self.ready.stuck.due.first().map(|(due, _)| due);
        let gangs = self.gangs.stuck.values();
        let first = first.into_iter().chain(gangs).min();
        first.filter(|_| !is_recovering).copied()
    }

    /// Takes out of the queue what nobody can run, and fails what has been so for too long.
    pub(crate) fn find_stuck(&mut self, out: &mut Vec<Action>) {
        while let Some(rank) = self.ready.unproven.pop() {
            if self.gangs.ready.contains(&rank) {
                self.doubt_gang(rank, out);
            } else if self.ready.layers.contains(&rank) && self.is_hopeless(rank) {
                self.set_stuck(rank, out);
            }
        }
        self.fail_stuck_gangs(out);
        while let Some((due, rank)) = self.ready.stuck.due.first().copied()
            && due <= self.now
        {
            if self.is_hopeless(rank) {
                self.fail_stuck(rank, out);
            } else {
                // The last worker has left, and with no workers at all tasks wait.
                self.set_free(rank);
            }
        }
    }

    /// A worker has joined: what it can run is no longer stuck.
    pub(crate) fn free_stuck(&mut self, worker: WorkerSlot) {
        let layers: Vec<Rank> = self.ready.stuck.layers.keys().copied().collect();
        for rank in layers {
            let layer = self.layer_at(rank);
            if !layer.scope.is_each() && self.workers.covers(worker, layer) {
                self.set_free(rank);
            }
        }
    }

    /// Some of a layer's tasks are stuck no longer: the others get their time anew.
    pub(crate) fn renew_stuck(&mut self, at: TaskAt) {
        let layer = self.graphs.slab[at.graph].layer_of(at.index);
        if layer.is_stuck {
            let due = self.stuck_until();
            let rank = layer.rank;
            self.ready.stuck.remember(rank, due);
        }
    }

    pub(crate) fn stuck_until(&self) -> Time {
        let grace = u64::from(self.config.unschedulable_grace_ms) * 1_000;
        self.now.after_micros(grace)
    }

    fn layer_at(&self, rank: Rank) -> &LayerRecord {
        &self.graphs.slab[rank.graph].layers[rank.layer() as usize]
    }

    /// Whether no worker can run the layer's tasks that are in no worker's queue. With no workers at all there is hope, except for
    /// what waits for a certain worker that was there.
    fn is_hopeless(&self, rank: Rank) -> bool {
        if self.workers.slab.is_empty() {
            self.graphs.slab[rank.graph]
                .placement_of(rank.layer())
                .is_some_and(names_ids)
        } else {
            !self.workers.any_covers(self.layer_at(rank), |_| true)
        }
    }

    fn set_stuck(&mut self, rank: Rank, out: &mut Vec<Action>) {
        let due = self.stuck_until();
        let graph = &mut self.graphs.slab[rank.graph];
        let layer = &mut graph.layers[rank.layer() as usize];
        let tasks = u32::try_from(layer.ready.iter().count()).unwrap_or(u32::MAX);
        layer.is_stuck = true;
        self.ready.remove_layer(&rank);
        self.ready.open -= tasks;
        self.ready.stuck.tasks += tasks;
        self.ready.stuck.remember(rank, due);
        if let Some(at) = self.first_stuck(rank) {
            let task = self.graphs.slab[at.graph].task_id(at.index);
            let message = self.why_nobody(at);
            self.emit(Event::TaskUnschedulable { task, message }, out);
        }
    }

    fn set_free(&mut self, rank: Rank) {
        let graph = &mut self.graphs.slab[rank.graph];
        let layer = &mut graph.layers[rank.layer() as usize];
        let tasks = u32::try_from(layer.ready.iter().count()).unwrap_or(u32::MAX);
        layer.is_stuck = false;
        self.ready.stuck.forget(rank);
        self.ready.stuck.tasks -= tasks;
        self.ready.open += tasks;
        self.ready.insert_layer(&rank);
    }

    fn first_stuck(&self, rank: Rank) -> Option<TaskAt> {
        let layer = self.layer_at(rank);
        let position = layer.ready.first_from(0)?;
        Some(TaskAt {
            graph: rank.graph,
            index: layer.first_task + position,
        })
    }

    fn fail_stuck(&mut self, rank: Rank, out: &mut Vec<Action>) {
        match self.first_stuck(rank) {
            Some(at) => {
                let message = self.why_nobody(at);
                self.fail_task(at, None, TaskErrorKind::Unschedulable, message, out);
            }
            None => self.ready.stuck.forget(rank),
        }
    }

    /// Why no worker can run a task, and what to do about it. Completes the sentence "task 1.0.0 cannot run: ...".
    pub(crate) fn why_nobody(&self, at: TaskAt) -> String {
        let graph = &self.graphs.slab[at.graph];
        let layer = graph.layer_of(at.index);
        let (place, here) = self.allowed(at);
        if here.is_empty() {
            return format!(
                "it may run only {place}, and no such worker is there ({}); start one, or let it run elsewhere",
                offers(self.workers.slab.iter().map(|(_, worker)| worker).collect())
            );
        }
        let asked = &layer.resources;
        let large = |worker: &&Worker| worker.hello.resources.covers(asked);
        let unshared = here.iter().copied().find(large).and_then(|worker| {
            let name = asked.fraction_of_unshared(&worker.hello.shared)?;
            Some((name, asked.amount_of(name)))
        });
        let here = offers(here);
        let place = if place.is_empty() {
            place
        } else {
            format!(", and may run only {place}")
        };
        match unshared {
            Some((name, amount)) => format!(
                "it asks for {asked}{place}, and no worker there shares its {name} between tasks ({here}); \
                 start workers with `--shared-resources {name}`, or ask for 1 {name} instead of {amount}"
            ),
            None => format!(
                "it asks for {asked}{place}, and no worker there offers so much ({here}); start a worker that does, or ask for less"
            ),
        }
    }

    /// Where a task may run, completing the sentence "it may run only ...", and the workers that are there. Empty for everywhere.
    fn allowed(&self, at: TaskAt) -> (String, Vec<&Worker>) {
        let graph = &self.graphs.slab[at.graph];
        let (layer, _) = graph.locate(at.index);
        let place = match (graph.placement_of(layer.0), graph.pin_of(at.index)) {
            (_, Some(pin)) => format!("on worker {pin}"),
            (Some(Placement::Where(conditions)), None) => conditions.to_string(),
            (Some(Placement::Each(_)) | None, None) => String::new(),
        };
        let scope = &graph.layers[layer.0 as usize].scope;
        let pin = graph.pin_of(at.index);
        let is_pin = |worker: &Worker| pin.is_none_or(|pin| pin.is(worker.id, &worker.hello));
        let here = self
            .workers
            .slab
            .iter()
            .filter(|(slot, worker)| !worker.leaving && scope.allows(*slot) && is_pin(worker));
        (place, here.map(|(_, worker)| worker).collect())
    }

    /// What the largest of the workers offer on which a task may run, in words.
    pub(crate) fn offers_to(&self, at: TaskAt) -> String {
        offers(self.allowed(at).1)
    }

    /// Where a task may run, in words; `None` for everywhere.
    pub(crate) fn place_of(&self, at: TaskAt) -> Option<String> {
        let (place, _) = self.allowed(at);
        (!place.is_empty()).then(|| format!("it may run only {place}"))
    }
}

/// Whether workers are named that must have been there when they were.
fn names_ids(placement: &Placement) -> bool {
    let workers = match placement {
        Placement::Where(conditions) => &conditions.workers,
        Placement::Each(workers) => workers,
    };
    workers
        .iter()
        .any(|worker| matches!(worker, WorkerRef::Id(_)))
}

/// What the largest of some workers offer, in words.
fn offers(workers: Vec<&Worker>) -> String {
    let mut offers: Vec<(Reverse<u32>, WorkerId, &Worker)> = workers
        .into_iter()
        .map(|worker| (Reverse(worker.hello.resources.slots), worker.id, worker))
        .collect();
    if offers.is_empty() {
        return "there are no workers".to_owned();
    }
    offers.sort_unstable_by_key(|(slots, id, _)| (*slots, *id));
    let shown: Vec<String> = offers
        .iter()
        .take(NAMED)
        .map(|(_, id, worker)| {
            let hello = &worker.hello;
            format!("worker {id} `{}` offers {}", hello.name, hello.resources)
        })
        .collect();
    format!("{} of {}: {}", shown.len(), offers.len(), shown.join("; "))
}
