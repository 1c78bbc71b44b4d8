//! What workers do: join, report on tasks, fall silent, leave.
//!
//! Called by `machine`. A report about any attempt but the current one changes nothing; a report that cannot be true drops the
//! worker.

use transload_protocol::{
    Attempt, Event, PartitionId, SchedulerToWorker, TaskError, TaskErrorKind, TaskId, WorkerHello,
    WorkerId, WorkerMessage,
};

use crate::api::Action;
use crate::machine::Scheduler;
use crate::slab::{TaskAt, WorkerSlot};
use crate::task::{OutputBytes, TaskState};
use crate::worker::Worker;

/// How an attempt named in a message relates to what the scheduler knows.
enum Standing {
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
    pub(crate) fn on_worker_connected(
        &mut self,
        id: WorkerId,
        hello: WorkerHello,
        out: &mut Vec<Action>,
    ) {
        if self.workers.by_id.contains_key(&id) {
            return;
        }
        let peer = |worker: &Worker| SchedulerToWorker::Peer {
            worker: worker.id,
            addresses: worker.hello.addresses.clone(),
        };
        let new = Worker::new(id, hello, self.now);
        for slot in self.workers.by_id.values() {
            let known = &self.workers.slab[*slot];
            out.push(Action::ToWorker {
                worker: known.id,
                message: peer(&new),
            });
            out.push(Action::ToWorker {
                worker: id,
                message: peer(known),
            });
        }
        self.workers.insert(new);
        self.ready.unproven.extend(&self.ready.layers);
        if self.liveness_check.is_none() {
            self.liveness_check = Some(self.now.after_micros(self.timeout_micros()));
        }
        self.emit(Event::WorkerJoined { worker: id }, out);
    }

    pub(crate) fn on_worker_message(
        &mut self,
        id: WorkerId,
        message: WorkerMessage,
        out: &mut Vec<Action>,
    ) {
        let Some(worker) = self.workers.by_id.get(&id).copied() else {
            return;
        };
        self.workers.slab[worker].last_seen = self.now;
        match message {
            WorkerMessage::Started { task, attempt } => self.on_started(worker, task, attempt),
            WorkerMessage::Finished {
                task,
                attempt,
                bytes,
            } => self.on_finished(worker, task, attempt, bytes, out),
            WorkerMessage::Failed { attempt, error } => self.on_failed(worker, attempt, error, out),
            WorkerMessage::MissingInputs {
                task,
                attempt,
                missing,
            } => self.on_missing_inputs(worker, task, attempt, &missing, out),
            WorkerMessage::Cancelled { task, attempt } => {
                match self.standing(worker, task, attempt) {
                    Standing::Cancelled => self.close_cancel(task),
                    // It gave back a task that nobody cancelled: it may run elsewhere.
                    Standing::Current { at, .. } => self.take_back(at),
                    Standing::Stale => {}
                }
            }
            WorkerMessage::Lost { tasks } => self.on_lost_outputs(worker, &tasks, out),
            WorkerMessage::Heartbeat { load } => self.workers.slab[worker].load = load,
            WorkerMessage::Events { events } => self.forward(worker, events, out),
            WorkerMessage::Goodbye => self.remove_worker(worker, "it left", false, out),
        }
    }

    pub(crate) fn on_worker_lost(&mut self, id: WorkerId, reason: &str, out: &mut Vec<Action>) {
        if let Some(worker) = self.workers.by_id.get(&id).copied() {
            self.remove_worker(worker, reason, true, out);
        }
    }

    pub(crate) fn drop_silent_workers(&mut self, out: &mut Vec<Action>) {
        let timeout = self.timeout_micros();
        let silent: Vec<WorkerSlot> = self
            .workers
            .slab
            .iter()
            .filter(|(_, worker)| worker.last_seen.after_micros(timeout) <= self.now)
            .map(|(slot, _)| slot)
            .collect();
        for worker in silent {
            let reason = format!("it sent nothing for {} ms", self.config.worker_timeout_ms);
            self.drop_worker(worker, &reason, out);
        }
        self.liveness_check = self
            .workers
            .slab
            .iter()
            .map(|(_, worker)| worker.last_seen.after_micros(timeout))
            .min();
    }

    fn drop_worker(&mut self, worker: WorkerSlot, reason: &str, out: &mut Vec<Action>) {
        out.push(Action::DropWorker {
            worker: self.workers.slab[worker].id,
            reason: reason.to_owned(),
        });
        self.remove_worker(worker, reason, true, out);
    }

    fn timeout_micros(&self) -> u64 {
        u64::from(self.config.worker_timeout_ms) * 1_000
    }

    /// Takes a worker out: its tasks go back, what it held and someone needs is made again.
    fn remove_worker(
        &mut self,
        worker: WorkerSlot,
        reason: &str,
        died: bool,
        out: &mut Vec<Action>,
    ) {
        let id = self.workers.slab[worker].id;
        self.workers.close(worker);
        self.emit(
            Event::WorkerLost {
                worker: id,
                reason: reason.to_owned(),
            },
            out,
        );
        for other in self.workers.by_id.keys().filter(|other| **other != id) {
            out.push(Action::ToWorker {
                worker: *other,
                message: SchedulerToWorker::PeerLost { worker: id },
            });
        }
        self.lose_outputs_of(worker, out);
        self.take_back_tasks_of(worker, reason, died, out);
        let unanswered: Vec<TaskId> = self
            .cancels
            .iter()
            .filter(|(_, cancel)| cancel.worker == worker)
            .map(|(task, _)| *task)
            .collect();
        for task in unanswered {
            self.close_cancel(task);
        }
        for (_, graph) in self.graphs.slab.iter_mut() {
            for layer in &mut graph.layers {
                layer.told.remove(worker.0);
            }
        }
        self.workers.remove(worker);
        self.ready.unproven.extend(&self.ready.layers);
    }

    /// Everything stored on a worker is gone. Looks at every task: workers are lost rarely.
    fn lose_outputs_of(&mut self, worker: WorkerSlot, out: &mut Vec<Action>) {
        let is_lost = |state: &TaskState| match state {
            TaskState::Done { worker: holder, .. } => *holder == worker,
            TaskState::Culled
            | TaskState::Waiting { .. }
            | TaskState::Ready { .. }
            | TaskState::Assigned { .. }
            | TaskState::Released => false,
        };
        let mut lost = Vec::new();
        for (slot, graph) in self.graphs.slab.iter() {
            for (index, task) in (0_u32..).zip(&graph.tasks) {
                if is_lost(&task.state) {
                    lost.push(TaskAt { graph: slot, index });
                }
            }
        }
        for at in lost {
            self.lose(at, out);
        }
    }

    fn take_back_tasks_of(
        &mut self,
        worker: WorkerSlot,
        reason: &str,
        died: bool,
        out: &mut Vec<Action>,
    ) {
        let id = self.workers.slab[worker].id;
        for at in self.workers.slab[worker].assigned.clone() {
            // A neighbour's end may have ended the graph meanwhile.
            let Some(graph) = self.graphs.slab.get(at.graph) else {
                continue;
            };
            let TaskState::Assigned { started, .. } = graph.tasks[at.index as usize].state else {
                continue;
            };
            if started && died {
                let limit = self.config.worker_deaths_per_task.max(1);
                let history = self.graphs.slab[at.graph]
                    .history
                    .entry(at.index)
                    .or_default();
                history.deaths += 1;
                history.last = format!("worker {id} died while it ran: {reason}");
                if history.deaths >= limit {
                    let message = format!(
                        "{} workers died while they ran it; last: {}",
                        history.deaths, history.last
                    );
                    self.fail_task(at, Some(worker), TaskErrorKind::WorkersLost, message, out);
                    continue;
                }
            }
            self.take_back(at);
        }
    }

    fn standing(&self, worker: WorkerSlot, task: TaskId, attempt: Attempt) -> Standing {
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
            | TaskState::Done { .. }
            | TaskState::Released => Standing::Stale,
        }
    }

    fn on_started(&mut self, worker: WorkerSlot, task: TaskId, attempt: Attempt) {
        match self.standing(worker, task, attempt) {
            Standing::Current { at, .. } => self.note_started(at),
            Standing::Cancelled | Standing::Stale => {}
        }
    }

    fn on_finished(
        &mut self,
        worker: WorkerSlot,
        task: TaskId,
        attempt: Attempt,
        bytes: Vec<u64>,
        out: &mut Vec<Action>,
    ) {
        match self.standing(worker, task, attempt) {
            Standing::Current { at, .. } => {
                let expected = self.graphs.slab[at.graph]
                    .submitted_layer_of(at.index)
                    .outputs;
                if bytes.len() != expected as usize {
                    let reason = format!(
                        "it reported {} outputs of task {task}, which makes {expected}",
                        bytes.len()
                    );
                    self.drop_worker(worker, &reason, out);
                    return;
                }
                self.on_task_done(at, worker, OutputBytes::from(bytes), out);
                self.end_if_done(at.graph, out);
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

    /// Whether the worker holds the task's partitions or is to make them.
    fn concerns(&self, worker: WorkerSlot, task: TaskId) -> bool {
        let Some(at) = self.graphs.find(task) else {
            // Its graph is forgotten, and the worker was told so.
            return true;
        };
        match self.graphs.slab[at.graph].tasks[at.index as usize].state {
            TaskState::Assigned { worker: there, .. } | TaskState::Done { worker: there, .. } => {
                there == worker
            }
            TaskState::Culled
            | TaskState::Waiting { .. }
            | TaskState::Ready { .. }
            | TaskState::Released => false,
        }
    }

    fn on_failed(
        &mut self,
        worker: WorkerSlot,
        attempt: Attempt,
        error: TaskError,
        out: &mut Vec<Action>,
    ) {
        let at = match self.standing(worker, error.task, attempt) {
            Standing::Current { at, .. } => at,
            Standing::Cancelled => {
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
            },
            out,
        );
        let graph = &mut self.graphs.slab[at.graph];
        let retries = graph.submitted_layer_of(at.index).retries;
        let history = graph.history.entry(at.index).or_default();
        if error.kind.is_retryable() && history.failures < retries {
            history.failures += 1;
            history.avoid = Some(id);
            history.last = format!("it failed on worker {id}: {}", error.message);
            self.take_back(at);
        } else {
            let message = match history.failures {
                0 => error.message,
                failures => format!("{} (attempt {})", error.message, failures + 1),
            };
            self.fail_task(at, Some(worker), error.kind, message, out);
        }
    }

    fn on_missing_inputs(
        &mut self,
        worker: WorkerSlot,
        task: TaskId,
        attempt: Attempt,
        missing: &[(PartitionId, WorkerId)],
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
        self.take_back(at);
        for (partition, holder) in missing {
            let source = self.graphs.find(partition.task);
            let holder = self.workers.by_id.get(holder).copied();
            // Both are gone when a loss has ended the graph, or the worker died meanwhile.
            if let (Some(source), Some(holder)) = (source, holder)
                && source.graph == at.graph
            {
                let reason = format!("worker {reporter} could not fetch {partition}");
                self.on_out_of_reach(source, holder, Some(serial), &reason, out);
            }
        }
    }

    fn on_lost_outputs(&mut self, worker: WorkerSlot, tasks: &[TaskId], out: &mut Vec<Action>) {
        for task in tasks {
            if let Some(at) = self.graphs.find(*task) {
                self.on_out_of_reach(at, worker, None, "the worker lost them", out);
            }
        }
    }
}
