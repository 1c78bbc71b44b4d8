//! What one task's fate means for others: finished, no longer needed, lost, given back.
//!
//! Called for every message that ends an attempt and for lost workers. Decides by readers and holders; sends only what
//! follows for partitions. Knows nothing of placement.

use std::sync::Arc;

use transload_protocol::{
    Attempt, Event, LayerIndex, OutputSizes, SchedulerToClient, SchedulerToWorker, TaskErrorKind,
    TaskId,
};

use crate::api::Action;
use crate::machine::{OpenCancel, Scheduler};
use crate::slab::{GraphSlot, TaskAt, WorkerSlot};
use crate::task::TaskState;

/// How often the partitions of one task may turn out to be out of reach on a living worker before the graph is given up.
const MAX_LOSSES_PER_TASK: u32 = 8;

impl Scheduler {
    /// An assigned task is done and stored.
    pub(crate) fn on_task_done(
        &mut self,
        at: TaskAt,
        worker: WorkerSlot,
        sizes: OutputSizes,
        out: &mut Vec<Action>,
    ) {
        if self.graphs.slab[at.graph].is_of_gang(at.index) {
            self.on_member_ended(at, worker, sizes, out);
        } else {
            self.count_as_done(at, worker, sizes, out);
            self.drop_unneeded(at.graph, out);
        }
    }

    /// As [`Scheduler::on_task_done`], of a scattered layer.
    pub(crate) fn on_scattered_done(
        &mut self,
        at: TaskAt,
        worker: WorkerSlot,
        sizes: OutputSizes,
        out: &mut Vec<Action>,
    ) {
        self.store(at, worker, sizes, out);
        self.followed.done.push(at);
    }

    /// A task is done and stored. What follows in its graph is still to be done.
    #[inline]
    fn store(&mut self, at: TaskAt, worker: WorkerSlot, sizes: OutputSizes, out: &mut Vec<Action>) {
        let largest = self.graphs.slab[at.graph].note_sizes(at.index, sizes);
        self.set_state(
            at,
            TaskState::Done {
                worker,
                serial: self.assignments,
                largest,
            },
        );
        self.workers.slab[worker].finished += 1;
        self.announce(at, out);
        self.for_importers(at, Self::one_missing_less);
    }

    /// A task is done and stored. What nobody needs from now on is collected for `drop_unneeded`.
    #[inline]
    pub(crate) fn count_as_done(
        &mut self,
        at: TaskAt,
        worker: WorkerSlot,
        sizes: OutputSizes,
        out: &mut Vec<Action>,
    ) {
        self.store(at, worker, sizes, out);
        let graph = &self.graphs.slab[at.graph];
        let (layer, position) = graph.locate(at.index);
        let mut readers = std::mem::take(&mut self.readers);
        let visit = |reader| readers.push(reader);
        let compiled = &graph.compiled;
        compiled.for_each_direct_consumer(layer, position, visit);
        for index in readers.iter().copied() {
            let graph = at.graph;
            self.one_missing_less(TaskAt { graph, index });
        }
        readers.clear();
        self.readers = readers;
        self.on_barriers(at, 0, Self::one_missing_less);
        if self.graphs.slab[at.graph].layer_of(at.index).is_import() {
            self.stop_importing(at);
        }
        let mut unneeded = std::mem::take(&mut self.unneeded);
        let graph = &mut self.graphs.slab[at.graph];
        graph.stop_reading(at.index, &mut unneeded);
        if !graph.layer_of(at.index).kept {
            // Held by the graph itself, until it has run once for its effect.
            graph.let_go(at.index);
        }
        if !graph.is_needed(at.index) {
            unneeded.push(at.index);
        }
        self.unneeded = unneeded;
    }

    /// Does something for every task behind those barriers in front of a task's layer at which exactly so many of the layer's tasks
    /// are not stored: with 0 the barrier has just opened, with 1 it has just closed.
    fn on_barriers(&mut self, at: TaskAt, undone: u32, mut change: impl FnMut(&mut Self, TaskAt)) {
        let (layer, _) = self.graphs.slab[at.graph].locate(at.index);
        for feed in 0..self.graphs.slab[at.graph].layers[layer.0 as usize]
            .feeds
            .len()
        {
            let graph = &self.graphs.slab[at.graph];
            let (reader, barrier) = graph.layers[layer.0 as usize].feeds[feed];
            let record = &graph.layers[reader as usize];
            if record.barriers[barrier as usize].undone == undone && record.to_do > 0 {
                for index in graph.compiled.tasks_of(LayerIndex(reader)) {
                    change(
                        self,
                        TaskAt {
                            graph: at.graph,
                            index,
                        },
                    );
                }
            }
        }
    }

    /// Tells the client, and others who hold it, where the partitions of a kept task are.
    pub(crate) fn announce(&mut self, at: TaskAt, out: &mut Vec<Action>) {
        let graph = &self.graphs.slab[at.graph];
        let task = &graph.tasks[at.index as usize];
        if !task.is_held() || !graph.layer_of(at.index).kept {
            return;
        }
        if graph.shared.holders.is_empty() {
            self.tell_output(graph.id.client, at, out);
        } else {
            for client in graph.audience(at.index) {
                self.tell_output(client, at, out);
            }
        }
    }

    /// Frees or calls off every task listed in `self.unneeded` that nobody needs, and then what only they needed.
    pub(crate) fn drop_unneeded(&mut self, graph: GraphSlot, out: &mut Vec<Action>) {
        let mut unneeded = std::mem::take(&mut self.unneeded);
        while let Some(index) = unneeded.pop() {
            let at = TaskAt { graph, index };
            if self.graphs.slab[graph].is_needed(index) {
                continue;
            }
            match self.graphs.slab[graph].tasks[index as usize].state {
                TaskState::Culled | TaskState::Released => continue,
                TaskState::Done { worker, .. } => {
                    self.release_at(at, worker);
                    self.set_state(at, TaskState::Released);
                    continue;
                }
                TaskState::Waiting { .. } | TaskState::Ready { .. } => {
                    self.release_copies(at);
                    self.set_state(at, TaskState::Released);
                }
                TaskState::Assigned { .. } => {
                    self.cancel_assignment(at, out);
                    self.release_copies(at);
                    self.set_state(at, TaskState::Released);
                }
                TaskState::Ended { worker, .. } => {
                    self.release_at(at, worker);
                    self.set_state(at, TaskState::Released);
                }
            }
            if self.graphs.slab[graph].layer_of(index).is_import() {
                self.stop_importing(at);
            }
            self.graphs.slab[graph].drop_gang_of(index, &mut unneeded);
            self.graphs.slab[graph].stop_reading(index, &mut unneeded);
        }
        self.unneeded = unneeded;
    }

    /// Nobody needs a stored task: its holder drops it, and so does everyone who kept a shared copy.
    #[inline]
    pub(crate) fn release_at(&mut self, at: TaskAt, holder: WorkerSlot) {
        let graph = &self.graphs.slab[at.graph];
        let id = graph.task_id(at.index);
        if graph.layer_of(at.index).broadcast {
            self.release_everywhere(id);
        } else {
            self.release_on(holder, id);
        }
    }

    /// Nobody needs a task that is not stored. Where it was once and was lost, shared copies of it may have outlived it.
    fn release_copies(&mut self, at: TaskAt) {
        let graph = &self.graphs.slab[at.graph];
        let was_assigned = graph.tasks[at.index as usize].attempt > 0;
        if was_assigned && graph.layer_of(at.index).broadcast {
            self.release_everywhere(graph.task_id(at.index));
        }
    }

    #[inline(never)]
    fn release_everywhere(&mut self, id: TaskId) {
        for (_, worker) in self.workers.slab.iter_mut() {
            worker.releases.push(id);
        }
        self.releasing.extend(self.workers.by_id.values());
    }

    /// One worker drops what it has of a task.
    pub(crate) fn release_on(&mut self, worker: WorkerSlot, task: TaskId) {
        self.workers.slab[worker].releases.push(task);
        self.releasing.push(worker);
    }

    /// Sends what was collected for release. Before new assignments, so that none of them is hit.
    pub(crate) fn flush_releases(&mut self, out: &mut Vec<Action>) {
        for slot in self.releasing.drain(..) {
            // A worker that left in this step needs no telling.
            if let Some(worker) = self.workers.slab.get_mut(slot)
                && !worker.releases.is_empty()
                && !worker.leaving
            {
                out.push(Action::ToWorker {
                    worker: worker.id,
                    message: SchedulerToWorker::Release {
                        tasks: std::mem::take(&mut worker.releases),
                    },
                });
            }
        }
    }

    /// Tells the worker of an assigned task to stop it. Until it answers, the task occupies the worker and runs nowhere else.
    /// Returns whether there will be an answer.
    pub(crate) fn cancel_assignment(&mut self, at: TaskAt, out: &mut Vec<Action>) -> bool {
        let graph = &self.graphs.slab[at.graph];
        let task = &graph.tasks[at.index as usize];
        let TaskState::Assigned { worker, .. } = task.state else {
            return false;
        };
        if self.workers.slab[worker].leaving {
            return false;
        }
        let id = graph.task_id(at.index);
        let attempt = Attempt(task.attempt);
        let resources = self.occupied_by(at, worker);
        self.workers.open_cancel(worker, &resources);
        self.cancels.insert(
            id,
            OpenCancel {
                worker,
                attempt,
                resources,
            },
        );
        out.push(Action::ToWorker {
            worker: self.workers.slab[worker].id,
            message: SchedulerToWorker::Cancel { task: id, attempt },
        });
        true
    }

    /// A cancelled attempt is answered, or its worker is gone: the worker has room again, and the task may run again where it is
    /// needed after all.
    pub(crate) fn close_cancel(&mut self, id: TaskId) {
        let Some(cancel) = self.cancels.remove(&id) else {
            return;
        };
        self.workers.close_cancel(cancel.worker, &cancel.resources);
        if let Some(at) = self.graphs.find(id) {
            self.one_missing_less(at);
            if self.graphs.slab[at.graph].is_of_gang(at.index) {
                self.on_member_stopped(at);
            }
        }
    }

    /// The partitions of a finished task are gone although someone needs them: it runs again, and so does what it reads
    /// as far as that was freed, back to what is still stored.
    pub(crate) fn lose(&mut self, at: TaskAt, out: &mut Vec<Action>) {
        if !matches!(
            self.graphs.slab[at.graph].tasks[at.index as usize].state,
            TaskState::Done { .. }
        ) {
            return;
        }
        self.make_again(at, out);
    }

    /// A task that was done or freed, and what it reads as far as that was freed, is to be done again.
    pub(crate) fn make_again(&mut self, at: TaskAt, out: &mut Vec<Action>) {
        self.compete(at.graph);
        let compiled = Arc::clone(&self.graphs.slab[at.graph].compiled);
        let mut lost = vec![at.index];
        while let Some(index) = lost.pop() {
            let at = TaskAt {
                graph: at.graph,
                index,
            };
            let graph = &mut self.graphs.slab[at.graph];
            let id = graph.task_id(index);
            let was_stored = match graph.tasks[index as usize].state {
                TaskState::Done { .. } => true,
                TaskState::Released => false,
                TaskState::Culled
                | TaskState::Waiting { .. }
                | TaskState::Ready { .. }
                | TaskState::Assigned { .. }
                | TaskState::Ended { .. } => continue,
            };
            if graph.is_of_gang(index) {
                self.lose_with_gang(at, &mut lost);
            }
            let graph = &mut self.graphs.slab[at.graph];
            let (layer, position) = graph.locate(index);
            if graph.layers[layer.0 as usize].to_do == 0 {
                // It is the first of its layer to read again: what stands behind its barriers may have been freed.
                for barrier in &graph.layers[layer.0 as usize].barriers {
                    let sources = compiled.tasks_of(LayerIndex(barrier.source));
                    lost.extend(sources.filter(|source| {
                        graph.tasks[*source as usize].state == TaskState::Released
                    }));
                }
            }
            let mut missing = u32::from(self.cancels.contains_key(&id))
                + u32::from(self.retries.until(at).is_some())
                + graph.closed_barriers(layer.0);
            compiled.for_each_direct_input(layer, position, |input| {
                let source = &mut graph.tasks[input.task as usize];
                source.readers += 1;
                match source.state {
                    TaskState::Done { .. } => {}
                    TaskState::Released => {
                        missing += 1;
                        lost.push(input.task);
                    }
                    TaskState::Culled
                    | TaskState::Waiting { .. }
                    | TaskState::Ready { .. }
                    | TaskState::Assigned { .. }
                    | TaskState::Ended { .. } => missing += 1,
                }
            });
            let tell = graph.tasks[index as usize].is_held() && graph.layer_of(index).kept;
            missing += self.missing_imports(at);
            self.begin_importing(at);
            if missing == 0 {
                self.make_ready(at);
            } else {
                self.set_state(at, TaskState::Waiting { missing });
            }
            if was_stored {
                self.on_barriers(at, 1, Self::one_missing_more);
                compiled.for_each_direct_consumer(layer, position, |reader| {
                    self.one_missing_more(TaskAt {
                        graph: at.graph,
                        index: reader,
                    });
                });
                self.for_importers(at, Self::one_missing_more);
                if tell {
                    for client in self.graphs.slab[at.graph].audience(index) {
                        out.push(Action::ToClient {
                            client,
                            message: SchedulerToClient::OutputLost { task: id },
                        });
                    }
                }
            }
            self.emit(Event::TaskRecomputed { task: id }, out);
        }
    }

    /// An assigned task has ended on its worker, undone: it is to run again, and all of its gang with it.
    pub(crate) fn take_back_ended(&mut self, at: TaskAt, out: &mut Vec<Action>) {
        if self.graphs.slab[at.graph].is_of_gang(at.index) {
            self.disband(at, Some(at.index), out);
        } else {
            self.take_back(at);
        }
    }

    /// As [`Scheduler::take_back_ended`], and it waits before it is tried again, as its history says.
    pub(crate) fn take_back_failed(&mut self, at: TaskAt, out: &mut Vec<Action>) {
        self.put_off(at);
        self.take_back_ended(at, out);
    }

    /// An assigned task comes back undone: it waits for what it misses, or is ready at once.
    pub(crate) fn take_back(&mut self, at: TaskAt) {
        let graph = &self.graphs.slab[at.graph];
        let (layer, position) = graph.locate(at.index);
        let cancels = self.cancels.contains_key(&graph.task_id(at.index));
        let mut missing = u32::from(cancels)
            + u32::from(self.retries.until(at).is_some())
            + graph.closed_barriers(layer.0);
        graph
            .compiled
            .for_each_direct_input(layer, position, |input| {
                match graph.tasks[input.task as usize].state {
                    TaskState::Done { .. } => {}
                    TaskState::Culled
                    | TaskState::Waiting { .. }
                    | TaskState::Ready { .. }
                    | TaskState::Assigned { .. }
                    | TaskState::Ended { .. }
                    | TaskState::Released => missing += 1,
                }
            });
        missing += self.missing_imports(at);
        if missing == 0 {
            self.make_ready(at);
        } else {
            self.set_state(at, TaskState::Waiting { missing });
        }
    }

    /// Someone could not get a stored task's partitions from its living holder: they count as lost there. Nothing happens when
    /// they are no longer where the report says, or were made after `since`.
    pub(crate) fn on_out_of_reach(
        &mut self,
        at: TaskAt,
        holder: WorkerSlot,
        since: Option<u32>,
        reason: &str,
        out: &mut Vec<Action>,
    ) {
        let graph = &mut self.graphs.slab[at.graph];
        let TaskState::Done { worker, serial, .. } = graph.tasks[at.index as usize].state else {
            return;
        };
        let is_newer = |since: u32| serial.wrapping_sub(since) < u32::MAX / 2;
        if worker != holder || since.is_some_and(is_newer) {
            return;
        }
        let id = graph.task_id(at.index);
        let holder_id = self.workers.slab[holder].id;
        let key = graph.history_key(at.index);
        let history = graph.history.entry(key).or_default();
        history.losses += 1;
        history.avoid = Some(holder_id);
        history.last = format!("its partitions could not be had from worker {holder_id}: {reason}");
        if history.losses > MAX_LOSSES_PER_TASK {
            let message = format!("{} times; last: {}", history.losses, history.last);
            self.fail_task(at, Some(holder), TaskErrorKind::WorkersLost, message, out);
            return;
        }
        self.release_on(holder, id);
        self.lose(at, out);
    }
}
