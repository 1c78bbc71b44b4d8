//! What workers report about attempts at tasks, and about what they hold.
//!
//! Called by `members`. A report about any attempt but the current one changes nothing; one that cannot be true drops the
//! worker.

use std::collections::BTreeSet;

use transload_protocol::{
    Attempt, Event, MissingCause, OutputSizes, PartitionId, TaskError, TaskId, WorkerId,
};

use crate::api::Action;
use crate::machine::Scheduler;
use crate::slab::{TaskAt, WorkerSlot};
use crate::task::TaskState;

/// How an attempt named in a message relates to what the scheduler knows.
pub(crate) enum Standing {
    /// It is the task's current attempt, on this worker.
    Current {
        at: TaskAt,
        /// The count of assignments when it was handed out.
        serial: u32,
    },
    /// It was cancelled, and this is the first answer.
    Cancelled,
    /// It is of no interest any more.
    Stale,
}

impl Scheduler {
    pub(crate) fn on_cancelled(
        &mut self,
        worker: WorkerSlot,
        task: TaskId,
        attempt: Attempt,
        out: &mut Vec<Action>,
    ) {
        match self.standing(worker, task, attempt) {
            Standing::Cancelled => self.close_cancel(task),
            // It gave back a task that nobody cancelled: it may run elsewhere.
            Standing::Current { at, .. } => self.on_given_back(at, out),
            Standing::Stale => {}
        }
    }

    pub(crate) fn on_started(&mut self, worker: WorkerSlot, task: TaskId, attempt: Attempt) {
        match self.standing(worker, task, attempt) {
            Standing::Current { at, .. } => self.note_started(at),
            Standing::Cancelled | Standing::Stale => {}
        }
    }

    pub(crate) fn on_finished(
        &mut self,
        worker: WorkerSlot,
        (task, attempt): (TaskId, Attempt),
        sizes: OutputSizes,
        run_micros: u64,
        out: &mut Vec<Action>,
    ) {
        let mut standing = self.standing(worker, task, attempt);
        let is_scattered = match standing {
            Standing::Current { at, .. } => {
                let graph = &self.graphs.slab[at.graph];
                graph.layer_of(at.index).is_scattered
            }
            Standing::Cancelled | Standing::Stale => false,
        };
        if !is_scattered && !self.followed.done.is_empty() {
            self.follow_done(out);
            standing = self.standing(worker, task, attempt);
        }
        match standing {
            Standing::Current { at, .. } => {
                let expected = self.graphs.slab[at.graph].layer_of(at.index).outputs;
                if sizes.outputs != expected {
                    let reason = format!(
                        "it reported {} outputs of task {task}, which makes {expected}",
                        sizes.outputs
                    );
                    self.follow_done(out);
                    self.drop_worker(worker, &reason, out);
                    return;
                }
                let graph = &mut self.graphs.slab[at.graph];
                graph.layer_of_mut(at.index).runs.on_ended(run_micros);
                if self.tells_tasks() {
                    let finished = Event::TaskFinished {
                        task,
                        worker: self.workers.slab[worker].id,
                        bytes: sizes.total_bytes,
                        run_micros,
                    };
                    self.emit(finished, out);
                }
                if is_scattered {
                    self.on_scattered_done(at, worker, sizes, out);
                } else {
                    self.on_task_done(at, worker, sizes, out);
                }
                let record = &mut self.workers.slab[worker];
                let is_idle = record.assigned.is_empty();
                record.pace.on_ended(self.now, is_idle);
                if !is_scattered {
                    self.end_if_done(at.graph, out);
                }
            }
            Standing::Cancelled => {
                self.release_on(worker, task);
                self.close_cancel(task);
            }
            Standing::Stale => {
                if !self.concerns(worker, task) {
                    self.release_on(worker, task);
                }
            }
        }
    }

    pub(crate) fn on_failed(
        &mut self,
        worker: WorkerSlot,
        attempt: Attempt,
        (error, run_micros): (TaskError, u64),
        out: &mut Vec<Action>,
    ) {
        let at = match self.standing(worker, error.task, attempt) {
            Standing::Current { at, .. } => at,
            Standing::Cancelled => {
                self.reconsider(&error);
                self.close_cancel(error.task);
                return;
            }
            Standing::Stale => return,
        };
        let id = self.workers.slab[worker].id;
        self.emit(
            Event::TaskFailed {
                task: error.task,
                worker: id,
                message: error.message.clone(),
                run_micros,
            },
            out,
        );
        let graph = &mut self.graphs.slab[at.graph];
        let retries = graph.submitted_layer_of(at.index).retries;
        let key = graph.history_key(at.index);
        let history = graph.history.entry(key).or_default();
        if error.kind.is_retryable() && history.failures < retries {
            history.failures += 1;
            history.avoid = Some(id);
            history.last = format!("it failed on worker {id}: {}", error.message);
            self.take_back_failed(at, out);
        } else {
            let attempts = history.failed_attempts().saturating_add(1);
            let what = (error.kind, error.message);
            let mut told = self.error_of(at, Some(worker), what, attempts);
            let graph = &self.graphs.slab[at.graph];
            // In a fused layer it is one step that fails, and the worker knows which.
            let fused = graph.submitted_layer_of(at.index).fused.as_ref();
            let is_step = fused.is_some_and(|fused| {
                let mut steps = fused.steps.iter();
                steps.any(|step| step.layer == error.layer && step.operator == error.operator)
            });
            if is_step {
                (told.layer, told.operator) = (error.layer, error.operator);
            }
            let error = told;
            if self.graphs.slab[at.graph].is_of_gang(at.index) {
                self.on_member_failed(at, error, out);
            } else {
                self.fail_with(at, error, out);
            }
        }
    }

    pub(crate) fn on_missing_inputs(
        &mut self,
        worker: WorkerSlot,
        task: TaskId,
        attempt: Attempt,
        (missing, cause): (&[(PartitionId, WorkerId)], &MissingCause),
        out: &mut Vec<Action>,
    ) {
        let (at, serial) = match self.standing(worker, task, attempt) {
            Standing::Current { at, serial } => (at, serial),
            Standing::Cancelled => {
                self.close_cancel(task);
                return;
            }
            Standing::Stale => return,
        };
        let reporter = self.workers.slab[worker].id;
        let (why, is_unreached) = match cause {
            MissingCause::Gone => ("it is not there", false),
            MissingCause::Failed { reason } => (reason.as_str(), false),
            MissingCause::Unreached { reason } => (reason.as_str(), true),
        };
        if is_unreached {
            let holders: BTreeSet<WorkerId> = missing.iter().map(|(_, holder)| *holder).collect();
            for holder in holders {
                if let Some(holder) = self.workers.by_id.get(&holder).copied() {
                    self.on_unreached(worker, holder, why, out);
                }
            }
        }
        self.take_back_ended(at, out);
        // Whoever reads it next reaches a holder that does not stand aside, as far as anyone knows.
        let is_read_elsewhere = is_unreached && self.is_left_by(at, worker);
        for (partition, holder) in missing {
            let source = self.graphs.find(partition.task);
            let holder = self.workers.by_id.get(holder).copied();
            // Both are gone when a loss has ended the graph, or the worker died meanwhile.
            if let (Some(source), Some(holder)) = (source, holder)
                && (!is_read_elsewhere || self.workers.slab[holder].aside)
                && (source.graph == at.graph || self.source_of(at) == Some(source))
            {
                let reason = format!("worker {reporter} could not fetch {partition}: {why}");
                self.on_out_of_reach(source, holder, Some(serial), &reason, out);
            }
        }
    }

    pub(crate) fn on_lost_outputs(
        &mut self,
        worker: WorkerSlot,
        tasks: &[TaskId],
        out: &mut Vec<Action>,
    ) {
        for task in tasks {
            if let Some(at) = self.graphs.find(*task) {
                self.on_ended_lost(at, worker, out);
                self.on_out_of_reach(at, worker, None, "the worker lost them", out);
            }
        }
    }

    pub(crate) fn standing(&self, worker: WorkerSlot, task: TaskId, attempt: Attempt) -> Standing {
        if self
            .cancels
            .get(&task)
            .is_some_and(|cancel| cancel.worker == worker && cancel.attempt == attempt)
        {
            return Standing::Cancelled;
        }
        let Some(at) = self.graphs.find(task) else {
            return Standing::Stale;
        };
        let record = &self.graphs.slab[at.graph].tasks[at.index as usize];
        match record.state {
            TaskState::Assigned {
                worker: assigned,
                serial,
                ..
            } if assigned == worker && Attempt(record.attempt) == attempt => {
                Standing::Current { at, serial }
            }
            TaskState::Culled
            | TaskState::Waiting { .. }
            | TaskState::Ready { .. }
            | TaskState::Assigned { .. }
            | TaskState::Ended { .. }
            | TaskState::Done { .. }
            | TaskState::Released => Standing::Stale,
        }
    }

    /// Whether the worker holds the task's partitions or is to make them.
    fn concerns(&self, worker: WorkerSlot, task: TaskId) -> bool {
        let Some(at) = self.graphs.find(task) else {
            // Its graph is forgotten, and the worker was told so.
            return true;
        };
        match self.graphs.slab[at.graph].tasks[at.index as usize].state {
            TaskState::Assigned { worker: there, .. }
            | TaskState::Ended { worker: there, .. }
            | TaskState::Done { worker: there, .. } => there == worker,
            TaskState::Culled
            | TaskState::Waiting { .. }
            | TaskState::Ready { .. }
            | TaskState::Released => false,
        }
    }
}
