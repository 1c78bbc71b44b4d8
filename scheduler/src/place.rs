//! Which ready task goes to which worker, and when.
//!
//! Runs at the end of every step. A task whose inputs lie mostly on one worker queues for that worker, and an idle worker may
//! take it from there; all others queue together and go to the emptiest worker. Workers are filled to their slots first, then
//! with a small queue behind them, and never with more: what waits here can still go anywhere.

use std::cmp::Reverse;

use transload_protocol::{
    Attempt, Event, InputLocation, LayerIndex, PartitionId, SchedulerToWorker, TaskAssignment,
    TaskErrorKind, WorkerId,
};

use crate::api::Action;
use crate::graph::is_shared;
use crate::machine::Scheduler;
use crate::ready::Rank;
use crate::slab::{Slot, TaskAt, WorkerSlot};
use crate::task::TaskState;
use crate::worker::{FULL, Reach};

/// What fetching one partition costs beside its bytes, in bytes that could have been moved meanwhile.
const FETCH_COST_BYTES: u64 = 4 << 10;
/// An idle worker takes a task that another could queue only when it reads at most so many bytes.
const STEAL_BYTES: u64 = 64 << 20;

/// A task found for a worker.
enum Pick {
    /// From the common queue: another worker may be better for it.
    Open(TaskAt),
    /// From a worker's own queue, or another's.
    Settled(TaskAt),
}

impl Scheduler {
    /// Hands out ready tasks as long as someone has room for them.
    pub(crate) fn place(&mut self, out: &mut Vec<Action>) {
        self.fail_unschedulable(out);
        if self.ready.len() > 0 {
            let with_room = std::mem::take(&mut self.with_room);
            for reach in [Reach::Slot, Reach::Queue] {
                for worker in with_room.iter().copied() {
                    // One that left in this step may still be named.
                    while self.workers.slab.get(worker).is_some()
                        && let Some(at) = self.pick_own(worker, reach)
                    {
                        self.assign(at, worker, out);
                    }
                }
                self.spread(reach, out);
            }
            self.with_room = with_room;
        }
        self.with_room.clear();
    }

    /// Serves the emptiest workers first.
    fn spread(&mut self, reach: Reach, out: &mut Vec<Action>) {
        let mut cursor = (0, WorkerSlot::from_index(0));
        loop {
            let (waiting, limit) = match reach {
                Reach::Slot => (self.ready.len(), FULL),
                Reach::Queue => (self.ready.open, u32::MAX),
            };
            let Some(&(fullness, worker)) = self.workers.open.range(cursor..).next() else {
                return;
            };
            if waiting == 0 || fullness >= limit {
                return;
            }
            match self.pick(worker, reach) {
                Some(Pick::Settled(at)) => self.assign(at, worker, out),
                Some(Pick::Open(at)) => {
                    let worker = self.better_holder(at, worker, reach);
                    self.assign(at, worker, out);
                }
                None => cursor = (fullness, WorkerSlot(worker.0 + 1)),
            }
        }
    }

    /// The first task in a worker's own queue that fits, unless the common queue has one of higher rank for it.
    fn pick_own(&self, worker: WorkerSlot, reach: Reach) -> Option<TaskAt> {
        let resources = |at: TaskAt| &self.graphs.slab[at.graph].layer_of(at.index).resources;
        let (rank, at) =
            self.first_preferring(worker, |at| self.workers.fits(worker, resources(at), reach))?;
        // Only what this worker may take counts: a worker must not idle for a task that avoids it.
        let open = self.pick_open(worker, reach);
        let outranked = open.is_some_and(|(first, _)| first < rank);
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
            Reach::Slot if self.ready.preferring > 0 => self.steal(worker).map(Pick::Settled),
            Reach::Slot | Reach::Queue => None,
        }
    }

    /// The first task of the common queue that fits.
    fn pick_open(&self, worker: WorkerSlot, reach: Reach) -> Option<(Rank, TaskAt)> {
        self.ready.layers.iter().find_map(|rank| {
            let graph = &self.graphs.slab[rank.graph];
            let layer = &graph.layers[rank.layer.0 as usize];
            if !self.workers.fits(worker, &layer.resources, reach) {
                return None;
            }
            layer
                .ready
                .iter()
                .map(|position| TaskAt {
                    graph: rank.graph,
                    index: layer.first_task + position,
                })
                .find(|at| !self.avoids(*at, worker))
                .map(|at| (*rank, at))
        })
    }

    /// Whether a task failed on this worker and another could take it.
    fn avoids(&self, at: TaskAt, worker: WorkerSlot) -> bool {
        let graph = &self.graphs.slab[at.graph];
        graph
            .history
            .get(&at.index)
            .is_some_and(|history| history.avoid == Some(self.workers.slab[worker].id))
            && self
                .workers
                .any_covers(&graph.layer_of(at.index).resources, Some(worker))
    }

    /// For a worker with a free slot and nothing to do: the first task of the longest queue that it can take.
    fn steal(&self, thief: WorkerSlot) -> Option<TaskAt> {
        let mut victims: Vec<(Reverse<usize>, WorkerSlot)> = self
            .workers
            .slab
            .iter()
            .filter(|(slot, worker)| *slot != thief && !worker.preferred.is_empty())
            .map(|(slot, worker)| (Reverse(worker.preferred.len()), slot))
            .collect();
        victims.sort_unstable();
        victims.into_iter().find_map(|(_, victim)| {
            let can_take = |at: TaskAt| {
                let graph = &self.graphs.slab[at.graph];
                let resources = &graph.layer_of(at.index).resources;
                self.workers.fits(thief, resources, Reach::Slot)
                    && !self.avoids(at, thief)
                    && (graph.input_bytes(at.index) <= STEAL_BYTES
                        || !self.workers.fits(victim, resources, Reach::Queue))
            };
            self.first_preferring(victim, can_take).map(|(_, at)| at)
        })
    }

    /// The first task in a worker's own queue that is wanted. Of each layer only the first is asked about.
    fn first_preferring(
        &self,
        worker: WorkerSlot,
        wanted: impl Fn(TaskAt) -> bool,
    ) -> Option<(Rank, TaskAt)> {
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
            entry = queue.range((rank, u32::MAX)..).next().copied();
        }
        None
    }

    /// The worker that holds most of what a task reads, when that is more than half and the worker can run it.
    pub(crate) fn preferred_worker(&mut self, at: TaskAt) -> Option<WorkerSlot> {
        let total = self.weigh_inputs(at);
        let (weight, worker) = self
            .holders
            .iter()
            .map(|holder| (self.weights[holder.index()], *holder))
            .max_by_key(|(weight, holder)| (*weight, Reverse(*holder)))?;
        let resources = &self.graphs.slab[at.graph].layer_of(at.index).resources;
        (weight > total / 2 && self.workers.covers(worker, resources) && !self.avoids(at, worker))
            .then_some(worker)
    }

    /// The worker with room that holds most of what a task reads, when that is more than `worker` holds.
    fn better_holder(&mut self, at: TaskAt, worker: WorkerSlot, reach: Reach) -> WorkerSlot {
        self.weigh_inputs(at);
        let resources = &self.graphs.slab[at.graph].layer_of(at.index).resources;
        let own = self
            .weights
            .get(worker.index())
            .copied()
            .filter(|_| self.holders.contains(&worker))
            .unwrap_or(0);
        self.holders
            .iter()
            .map(|holder| (self.weights[holder.index()], *holder))
            .filter(|(weight, holder)| {
                *weight > own
                    && self.workers.fits(*holder, resources, reach)
                    && !self.avoids(at, *holder)
            })
            .max_by_key(|(weight, holder)| (*weight, Reverse(*holder)))
            .map_or(worker, |(_, holder)| holder)
    }

    /// Adds up, for each holder of what a task reads, what fetching it from there would cost; returns the sum of all.
    fn weigh_inputs(&mut self, at: TaskAt) -> u64 {
        self.holders.clear();
        let graph = &self.graphs.slab[at.graph];
        let mut total = 0_u64;
        graph.compiled.for_each_input(at.index, |input| {
            let TaskState::Done { worker, bytes, .. } = &graph.tasks[input.task as usize].state
            else {
                return;
            };
            if self.weights.len() <= worker.index() {
                self.weights.resize(worker.index() + 1, 0);
                self.weighed.resize(worker.index() + 1, 0);
            }
            if self.weighed[worker.index()] != self.weighing {
                self.weighed[worker.index()] = self.weighing;
                self.weights[worker.index()] = 0;
                self.holders.push(*worker);
            }
            let weight = bytes.of(input.output).saturating_add(FETCH_COST_BYTES);
            self.weights[worker.index()] = self.weights[worker.index()].saturating_add(weight);
            total = total.saturating_add(weight);
        });
        self.weighing = self.weighing.wrapping_add(1);
        total
    }

    /// Hands a task to a worker.
    fn assign(&mut self, at: TaskAt, worker: WorkerSlot, out: &mut Vec<Action>) {
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
        let graph = &mut self.graphs.slab[at.graph];
        let task = &mut graph.tasks[at.index as usize];
        task.attempt += 1;
        let (attempt, layer) = (Attempt(task.attempt), task.layer);
        if graph.layers[layer as usize].told.insert(worker.0) {
            out.push(Action::ToWorker {
                worker: to,
                message: SchedulerToWorker::Layer {
                    graph: graph.id,
                    layer: LayerIndex(layer),
                    spec: graph.layer_spec(layer),
                },
            });
        }
        let inputs = self.input_locations(at);
        let graph = &self.graphs.slab[at.graph];
        let record = &graph.layers[layer as usize];
        let task = graph.task_id(at.index);
        out.push(Action::ToWorker {
            worker: to,
            message: SchedulerToWorker::Assign {
                task: TaskAssignment {
                    task,
                    attempt,
                    layer: LayerIndex(layer),
                    order: record.rank.order(at.index - record.first_task),
                    inputs,
                },
            },
        });
        self.emit(
            Event::TaskAssigned {
                task,
                attempt,
                worker: to,
            },
            out,
        );
    }

    fn input_locations(&self, at: TaskAt) -> Vec<InputLocation> {
        let graph = &self.graphs.slab[at.graph];
        let reader = graph.submitted_layer_of(at.index);
        let hint = graph.layer_of(at.index).inputs_hint as usize;
        let mut inputs = Vec::with_capacity(hint);
        graph.compiled.for_each_input(at.index, |input| {
            if let TaskState::Done { worker, bytes, .. } = &graph.tasks[input.task as usize].state {
                inputs.push(InputLocation {
                    input: input.input,
                    partition: PartitionId {
                        task: graph.task_id(input.task),
                        output: input.output,
                    },
                    worker: self.workers.slab[*worker].id,
                    bytes: bytes.of(input.output),
                    shared: reader
                        .inputs
                        .get(input.input as usize)
                        .is_some_and(|input| is_shared(reader, &input.edges)),
                });
            }
        });
        inputs
    }

    /// Fails graphs whose ready tasks ask for more than any worker has. With no workers at all, tasks wait.
    fn fail_unschedulable(&mut self, out: &mut Vec<Action>) {
        if self.workers.slab.is_empty() {
            self.ready.unproven.clear();
            return;
        }
        while let Some(rank) = self.ready.unproven.pop() {
            if !self.ready.layers.contains(&rank) {
                continue;
            }
            let layer = &self.graphs.slab[rank.graph].layers[rank.layer.0 as usize];
            let Some(position) = layer.ready.first_from(0) else {
                continue;
            };
            if self.workers.any_covers(&layer.resources, None) {
                continue;
            }
            let at = TaskAt {
                graph: rank.graph,
                index: layer.first_task + position,
            };
            let message = format!(
                "it asks for {}, and no worker offers so much ({}); start a worker that does, or ask for less",
                layer.resources,
                self.largest_offers()
            );
            self.fail_task(at, None, TaskErrorKind::Unschedulable, message, out);
        }
    }

    /// The largest workers, in words.
    pub(crate) fn largest_offers(&self) -> String {
        let mut offers: Vec<(Reverse<u32>, WorkerId, String)> = self
            .workers
            .slab
            .iter()
            .map(|(_, worker)| {
                let resources = &worker.hello.resources;
                (Reverse(resources.slots), worker.id, resources.to_string())
            })
            .collect();
        offers.sort_unstable();
        let shown: Vec<String> = offers
            .iter()
            .take(3)
            .map(|(_, worker, offer)| format!("worker {worker} offers {offer}"))
            .collect();
        format!("{} of {}: {}", shown.len(), offers.len(), shown.join("; "))
    }
}
