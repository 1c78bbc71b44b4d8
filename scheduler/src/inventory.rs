//! Workers that come back after a broken connection: what they hold counts as done, what they run goes on, the rest is
//! dropped there.
//!
//! Called by `machine`. Whether the connection broke or the scheduler did is all the same here.

use std::collections::{BTreeMap, BTreeSet};

use transload_protocol::{
    Attempt, GraphId, Inventory, LayerIndex, OutputSizes, SchedulerToWorker, TaskId, WorkerHello,
    WorkerId,
};

use crate::api::Action;
use crate::machine::Scheduler;
use crate::slab::{GraphSlot, TaskAt, WorkerSlot};
use crate::task::TaskState;

impl Scheduler {
    pub(crate) fn on_worker_returned(
        &mut self,
        id: WorkerId,
        hello: WorkerHello,
        inventory: Inventory,
        out: &mut Vec<Action>,
    ) {
        if let Some(old) = self.workers.by_id.get(&id).copied() {
            self.remove_worker(old, "it came back over another connection", false, out);
        }
        self.on_worker_connected(id, hello, out);
        if let Some(worker) = self.workers.by_id.get(&id).copied() {
            self.take_stock(worker, inventory, out);
            // It is new and has tasks that prefer it: `place` must find it among those with room at once.
            self.workers.relist(self.now);
            self.workers.change_all();
        }
        self.on_back(id, out);
    }

    fn take_stock(&mut self, worker: WorkerSlot, inventory: Inventory, out: &mut Vec<Action>) {
        let mut unknown = BTreeSet::new();
        let mut touched = BTreeSet::new();
        let of_gangs: BTreeMap<TaskId, Attempt> = inventory.of_gangs.into_iter().collect();
        for (task, sizes) in inventory.stored {
            match self.look_up(task) {
                Ok(at) if self.graphs.slab[at.graph].is_of_gang(at.index) => {
                    self.tell_layer(at, worker, out);
                    self.on_member_found(at, worker, of_gangs.get(&task).copied(), sizes);
                }
                Ok(at) if self.adopt_stored(at, worker, sizes, out) => {
                    touched.insert(at.graph);
                }
                Ok(_) => self.release_on(worker, task),
                Err(graph) => {
                    unknown.insert(graph);
                }
            }
        }
        for (task, attempt) in inventory.running {
            match self.look_up(task) {
                Ok(at) => {
                    // Also an attempt that is to stop may end before it hears of that.
                    self.tell_layer(at, worker, out);
                    if !self.adopt_running(at, worker, attempt) {
                        out.push(Action::ToWorker {
                            worker: self.workers.slab[worker].id,
                            message: SchedulerToWorker::Disown { task, attempt },
                        });
                    }
                }
                Err(graph) => {
                    unknown.insert(graph);
                }
            }
        }
        for graph in unknown {
            out.push(Action::ToWorker {
                worker: self.workers.slab[worker].id,
                message: SchedulerToWorker::Forget { graph },
            });
        }
        let touched: Vec<GraphSlot> = touched.into_iter().collect();
        for graph in touched {
            self.end_if_done(graph, out);
        }
    }

    /// The task, or its graph when that is over.
    fn look_up(&self, task: TaskId) -> Result<TaskAt, GraphId> {
        self.graphs.find(task).ok_or(task.graph)
    }

    /// Takes stored outputs for the task's result, if it has none and needs one.
    fn adopt_stored(
        &mut self,
        at: TaskAt,
        worker: WorkerSlot,
        sizes: OutputSizes,
        out: &mut Vec<Action>,
    ) -> bool {
        let graph = &self.graphs.slab[at.graph];
        if sizes.outputs != graph.submitted_layer_of(at.index).outputs {
            return false;
        }
        match graph.tasks[at.index as usize].state {
            TaskState::Waiting { .. } | TaskState::Ready { .. } | TaskState::Assigned { .. } => {}
            TaskState::Culled
            | TaskState::Ended { .. }
            | TaskState::Done { .. }
            | TaskState::Released => return false,
        }
        self.disown_attempts(at, out);
        self.tell_layer(at, worker, out);
        self.on_task_done(at, worker, sizes, out);
        true
    }

    /// Whoever has something of a graph knows its layers, so that it is told when the graph is forgotten.
    #[inline]
    pub(crate) fn tell_layer(&mut self, at: TaskAt, worker: WorkerSlot, out: &mut Vec<Action>) {
        let graph = &mut self.graphs.slab[at.graph];
        let layer = graph.tasks[at.index as usize].layer();
        if graph.layers[layer as usize].told.insert(worker.0) {
            out.push(Action::ToWorker {
                worker: self.workers.slab[worker].id,
                message: SchedulerToWorker::Layer {
                    graph: graph.id,
                    layer: LayerIndex(layer),
                    spec: graph.layer_spec(layer),
                },
            });
        }
    }

    /// Whoever works on the task, or was told to stop, need not go on, nor answer.
    fn disown_attempts(&mut self, at: TaskAt, out: &mut Vec<Action>) {
        let graph = &self.graphs.slab[at.graph];
        let task = graph.task_id(at.index);
        let record = &graph.tasks[at.index as usize];
        let assigned = match record.state {
            TaskState::Assigned { worker, .. } => Some((worker, Attempt(record.attempt))),
            TaskState::Culled
            | TaskState::Waiting { .. }
            | TaskState::Ready { .. }
            | TaskState::Ended { .. }
            | TaskState::Done { .. }
            | TaskState::Released => None,
        };
        let cancel = self.cancels.remove(&task);
        let cancelled = cancel.map(|cancel| {
            self.workers.close_cancel(cancel.worker, &cancel.resources);
            (cancel.worker, cancel.attempt)
        });
        for (worker, attempt) in assigned.into_iter().chain(cancelled) {
            out.push(Action::ToWorker {
                worker: self.workers.slab[worker].id,
                message: SchedulerToWorker::Disown { task, attempt },
            });
        }
    }

    /// Takes a running attempt for the task's current one, if it has none and needs one.
    fn adopt_running(&mut self, at: TaskAt, worker: WorkerSlot, attempt: Attempt) -> bool {
        let graph = &mut self.graphs.slab[at.graph];
        let id = graph.task_id(at.index);
        let task = &mut graph.tasks[at.index as usize];
        match task.state {
            TaskState::Waiting { .. } | TaskState::Ready { .. } => {}
            TaskState::Culled
            | TaskState::Assigned { .. }
            | TaskState::Ended { .. }
            | TaskState::Done { .. }
            | TaskState::Released => return false,
        }
        if graph.layers[task.layer() as usize].gang.is_some() {
            // Its siblings may be gone, so that all begin anew.
            return false;
        }
        // A newer attempt was handed out meanwhile, and its cancellation may be on its way.
        if attempt.0 < task.attempt || self.cancels.contains_key(&id) {
            return false;
        }
        task.attempt = attempt.0;
        self.set_state(
            at,
            TaskState::Assigned {
                worker,
                serial: self.assignments,
                started: true,
            },
        );
        self.begin_attempt_limit(at);
        true
    }
}
