//! How graphs end: finished, failed, cancelled, released, or because their client is gone.
//!
//! Called by `clients`, `members` and `place`. After an end nothing of the graph remains but cancels that workers still owe an
//! answer to.

use transload_protocol::{
    Event, GraphOutcome, JournalEntry, SchedulerToClient, SchedulerToWorker, TaskError,
    TaskErrorKind,
};

use crate::api::Action;
use crate::graph::{History, Phase, Progress};
use crate::machine::Scheduler;
use crate::slab::{GraphSlot, Slot, TaskAt, WorkerSlot};
use crate::task::TaskState;
use crate::worker::Worker;

impl Scheduler {
    /// Ends the graph when its goals are reached, and forgets it when then nobody holds or imports anything of it.
    pub(crate) fn end_if_done(&mut self, slot: GraphSlot, out: &mut Vec<Action>) {
        let graph = &mut self.graphs.slab[slot];
        if graph.phase == Phase::Running && graph.goals_left == 0 {
            graph.phase = Phase::Finished;
            self.graph_limits.end(slot);
            let graph = &self.graphs.slab[slot];
            if graph.compiled.cancel_after_ms().is_some() {
                let id = graph.id;
                self.record(|| JournalEntry::InTime { graph: id }, out);
            }
            self.tell_end(slot, GraphOutcome::Finished, out);
        }
        let graph = &self.graphs.slab[slot];
        if graph.competes && graph.goals_left == 0 && graph.is_idle() {
            self.stop_competing(slot);
        }
        let graph = &self.graphs.slab[slot];
        if graph.phase == Phase::Finished && graph.held == 0 && graph.shared.importers.is_empty() {
            if !self.afterwards.is_empty() {
                // Some of its tasks may still have to hear that nobody imports them.
                self.perhaps_over.push(graph.id);
                return;
            }
            self.note_end(graph.id, &GraphOutcome::Finished, out);
            self.forget(slot, out);
        }
    }

    /// A task failed for good, and its graph with it.
    pub(crate) fn fail_task(
        &mut self,
        at: TaskAt,
        worker: Option<WorkerSlot>,
        kind: TaskErrorKind,
        message: String,
        out: &mut Vec<Action>,
    ) {
        let graph = &self.graphs.slab[at.graph];
        let history = graph.history.get(&graph.history_key(at.index));
        let attempts = history.map_or(0, History::failed_attempts);
        let error = self.error_of(at, worker, (kind, message), attempts);
        self.fail_with(at, error, out);
    }

    /// What a client is told of a task that has failed so many times, last on this worker.
    pub(crate) fn error_of(
        &self,
        at: TaskAt,
        worker: Option<WorkerSlot>,
        (kind, message): (TaskErrorKind, String),
        attempts: u32,
    ) -> TaskError {
        let graph = &self.graphs.slab[at.graph];
        let layer = graph.submitted_layer_of(at.index);
        let worker = worker.map(|worker| &self.workers.slab[worker]);
        TaskError {
            task: graph.task_id(at.index),
            layer: layer.name.clone(),
            operator: layer.operator.clone(),
            worker: worker.map(|worker| worker.id),
            kind,
            message,
            place: worker.map(Worker::place).unwrap_or_default(),
            attempts,
        }
    }

    /// As [`Scheduler::fail_task`], with an error whose words are there already.
    pub(crate) fn fail_with(&mut self, at: TaskAt, error: TaskError, out: &mut Vec<Action>) {
        let graph = &self.graphs.slab[at.graph];
        if matches!(
            graph.tasks[at.index as usize].state,
            TaskState::Assigned { .. }
        ) {
            // It has ended on its worker, so there is nothing to cancel.
            self.set_state(at, TaskState::Waiting { missing: 0 });
        }
        self.end_early(at.graph, Some(GraphOutcome::Failed(error)), out);
    }

    /// Stops all work for a graph and frees all of its partitions. Tells the client, and others who need something of it, how it
    /// ended, unless that is `None`.
    pub(crate) fn end_early(
        &mut self,
        slot: GraphSlot,
        outcome: Option<GraphOutcome>,
        out: &mut Vec<Action>,
    ) {
        match outcome {
            Some(outcome) => {
                self.call_off(slot, out);
                self.end_holds_on(slot, &outcome, out);
                self.end_importers(slot, &outcome);
                self.tell_end(slot, outcome, out);
            }
            None => {
                let graph = self.graphs.slab[slot].id;
                if self.graphs.slab[slot].phase == Phase::Finished {
                    self.note_end(graph, &GraphOutcome::Finished, out);
                } else {
                    self.note_end(graph, &GraphOutcome::Cancelled, out);
                    let outcome = Box::new(GraphOutcome::Cancelled);
                    self.emit(Event::GraphEnded { graph, outcome }, out);
                }
                self.call_off(slot, out);
            }
        }
        self.forget(slot, out);
    }

    /// Cancels what runs, and takes everything else out of the queues.
    fn call_off(&mut self, slot: GraphSlot, out: &mut Vec<Action>) {
        let tasks = self.graphs.slab[slot].compiled.task_count();
        for index in 0..tasks {
            let at = TaskAt { graph: slot, index };
            match self.graphs.slab[slot].tasks[index as usize].state {
                TaskState::Culled | TaskState::Released | TaskState::Done { .. } => {}
                TaskState::Waiting { .. } => {}
                TaskState::Ready { .. } | TaskState::Ended { .. } => {
                    self.set_state(at, TaskState::Waiting { missing: 0 });
                }
                TaskState::Assigned { .. } => {
                    self.cancel_assignment(at, out);
                    self.set_state(at, TaskState::Waiting { missing: 0 });
                }
            }
        }
    }

    fn tell_end(&mut self, slot: GraphSlot, outcome: GraphOutcome, out: &mut Vec<Action>) {
        self.tell_progress(slot, out);
        let graph = self.graphs.slab[slot].id;
        if outcome != GraphOutcome::Finished {
            self.note_end(graph, &outcome, out);
        }
        if !self.graphs.slab[slot].shared.is_orphan {
            let outcome = outcome.clone();
            out.push(Action::ToClient {
                client: graph.client,
                message: SchedulerToClient::Ended { graph, outcome },
            });
        }
        let outcome = Box::new(outcome);
        self.emit(Event::GraphEnded { graph, outcome }, out);
    }

    /// Deletes the record of a graph of which nothing is queued or running.
    fn forget(&mut self, slot: GraphSlot, out: &mut Vec<Action>) {
        self.flush_releases(out);
        self.leave_imports(slot);
        self.stop_competing(slot);
        self.graph_limits.end(slot);
        for index in 0..self.graphs.slab[slot].compiled.task_count() {
            if let TaskState::Done { worker, .. } =
                self.graphs.slab[slot].tasks[index as usize].state
            {
                self.workers.slab[worker].stored -= 1;
            }
        }
        let Some(graph) = self.graphs.slab.remove(slot) else {
            return;
        };
        self.graphs.by_id.remove(&graph.id);
        self.retries.forget(slot);
        self.leave_share(graph.line.share);
        self.gangs.forget(slot);
        self.workers.forget_hold_ups(slot);
        if let Some(client) = self.clients.get_mut(&graph.id.client) {
            client.graphs.remove(&graph.id);
        }
        if let Progress::Due { at } = graph.progress {
            self.progress_due.remove(&(at, slot));
        }
        for worker in graph.told().iter().map(WorkerSlot::from_index) {
            let worker = &self.workers.slab[worker];
            if !worker.leaving {
                out.push(Action::ToWorker {
                    worker: worker.id,
                    message: SchedulerToWorker::Forget { graph: graph.id },
                });
            }
        }
    }
}
