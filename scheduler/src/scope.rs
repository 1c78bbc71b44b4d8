//! Where the tasks of a layer may run: what its client said about it, kept as sets of worker slots.
//!
//! Made with the record of a graph, brought up to date when workers join and leave, asked by `worker` and `place`. A task that has
//! one worker of its own queues there as if it preferred it, and nobody else takes it; while that worker is away, the task
//! counts as one that nobody can run.

use transload_protocol::{Conditions, Placement, WorkerRef};

use crate::bits::BitSet;
use crate::graph::{Graph, LayerRecord};
use crate::machine::Scheduler;
use crate::slab::{GraphSlot, TaskAt, WorkerSlot};
use crate::task::TaskState;
use crate::worker::{Worker, Workers};

/// Where the tasks of a layer may run.
#[derive(Debug)]
pub(crate) enum Scope {
    /// Everywhere.
    Anywhere,
    /// In these worker slots.
    Within(Box<BitSet>),
    /// Each on the worker that the layer as submitted names for it.
    Each,
}

impl Scope {
    /// The scope of a layer while nobody is there.
    pub(crate) fn new(placement: Option<&Placement>) -> Self {
        match placement {
            None => Self::Anywhere,
            Some(Placement::Where(_)) => Self::Within(Box::default()),
            Some(Placement::Each(_)) => Self::Each,
        }
    }

    /// Whether a worker may run those tasks of the layer that it is asked about.
    pub(crate) fn allows(&self, worker: WorkerSlot) -> bool {
        match self {
            Self::Anywhere | Self::Each => true,
            Self::Within(workers) => workers.contains(worker.0),
        }
    }

    /// Whether each task has a worker of its own.
    pub(crate) const fn is_each(&self) -> bool {
        matches!(self, Self::Each)
    }

    fn join(&mut self, worker: WorkerSlot) {
        if let Self::Within(workers) = self {
            workers.insert(worker.0);
        }
    }

    /// A worker is gone.
    pub(crate) fn leave(&mut self, worker: WorkerSlot) {
        if let Self::Within(workers) = self {
            workers.remove(worker.0);
        }
    }
}

impl Graph {
    /// What a layer's client said about where its tasks may run.
    pub(crate) fn placement_of(&self, layer: u32) -> Option<&Placement> {
        self.compiled.layers()[layer as usize].placement.as_deref()
    }

    /// The worker that a task is pinned to, as its client named it.
    pub(crate) fn pin_of(&self, index: u32) -> Option<&WorkerRef> {
        let (layer, position) = self.locate(index);
        match self.placement_of(layer.0)? {
            Placement::Each(workers) => workers.get(position as usize),
            Placement::Where(_) => None,
        }
    }

    fn conditions_of(&self, layer: u32) -> Option<&Conditions> {
        match self.placement_of(layer)? {
            Placement::Where(conditions) => Some(conditions),
            Placement::Each(_) => None,
        }
    }

    /// A worker has joined.
    fn admit(&mut self, slot: WorkerSlot, worker: &Worker) {
        for at in 0..self.scoped.len() {
            let layer = self.scoped[at];
            if self
                .conditions_of(layer)
                .is_some_and(|conditions| conditions.allow(worker.id, &worker.hello))
            {
                self.layers[layer as usize].scope.join(slot);
            }
        }
    }
}

impl Workers {
    /// The worker that a pinned task goes to: of several with the name the one with the fewest tasks.
    fn pinned(&self, named: &WorkerRef, layer: &LayerRecord) -> Option<WorkerSlot> {
        let tasks = |slot: &WorkerSlot| {
            let worker = &self.slab[*slot];
            (worker.preferred.len() + worker.assigned.len(), *slot)
        };
        let can = |slot: &WorkerSlot| self.covers(*slot, layer);
        match named {
            WorkerRef::Id(id) => self.by_id.get(id).copied().filter(can),
            WorkerRef::Name(name) => {
                let workers = self.by_name.get(name)?.iter().copied();
                workers.filter(can).min_by_key(tasks)
            }
        }
    }
}

impl Scheduler {
    /// The worker that a ready task of a layer of such tasks goes to, if it is there.
    pub(crate) fn pinned_worker(&self, at: TaskAt) -> Option<WorkerSlot> {
        let graph = &self.graphs.slab[at.graph];
        self.workers
            .pinned(graph.pin_of(at.index)?, graph.layer_of(at.index))
    }

    /// A graph is new: who may run what of it?
    pub(crate) fn admit_workers_to(&mut self, graph: GraphSlot) {
        let graph = &mut self.graphs.slab[graph];
        for (slot, worker) in self.workers.slab.iter() {
            graph.admit(slot, worker);
        }
    }

    /// A worker is new: what may it run? Tasks that waited for it join its queue.
    pub(crate) fn admit_worker(&mut self, slot: WorkerSlot) {
        let mut waiting = Vec::new();
        for (at, graph) in self.graphs.slab.iter_mut() {
            graph.admit(slot, &self.workers.slab[slot]);
            let scoped = graph
                .scoped
                .iter()
                .map(|layer| &graph.layers[*layer as usize]);
            for layer in scoped.filter(|layer| layer.scope.is_each()) {
                let ready = layer.ready.iter();
                waiting.extend(ready.map(|position| TaskAt {
                    graph: at,
                    index: layer.first_task + position,
                }));
            }
        }
        for at in waiting {
            if let Some(worker) = self.pinned_worker(at) {
                let prefers = Some(worker);
                self.set_state(at, TaskState::Ready { prefers });
                self.renew_stuck(at);
            }
        }
    }

    /// Ready tasks in the queue of a worker that leaves and for which they had no other reason than being pinned to it: they wait
    /// for its return, or go to another of its name.
    pub(crate) fn move_pinned_from(&mut self, worker: WorkerSlot) {
        let queue = self.workers.slab[worker].preferred.clone();
        for (rank, index) in queue {
            self.make_ready(TaskAt {
                graph: rank.graph,
                index,
            });
        }
    }
}
