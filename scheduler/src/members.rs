//! What workers do: join, fall silent, leave, die; and which part handles what they say.
//!
//! Called by `machine`. Knows nothing of what a report means for other tasks.

use transload_protocol::{
    Event, JournalEntry, SchedulerToWorker, TaskErrorKind, TaskId, Time, WorkerHello, WorkerId,
    WorkerMessage,
};

use crate::api::Action;
use crate::machine::Scheduler;
use crate::slab::{TaskAt, WorkerSlot};
use crate::task::TaskState;
use crate::worker::Worker;

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
        self.next_worker = self.next_worker.max(id.0.saturating_add(1));
        self.record(|| JournalEntry::WorkerJoined { worker: id }, out);
        let worker = Worker::new(id, hello, self.now, self.workers.queue);
        let slot = self.workers.insert(worker);
        self.admit_worker(slot);
        self.free_stuck(slot);
        self.doubt_all();
        self.steals.after = self.now;
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
        let Some(worker) = self.workers.find(id) else {
            return;
        };
        self.workers.slab[worker].last_seen = self.now;
        self.watch_hold_ups(worker, &message);
        match message {
            WorkerMessage::Started { task, attempt } => self.on_started(worker, task, attempt),
            WorkerMessage::Finished {
                task,
                attempt,
                sizes,
                run_micros,
            } => self.on_finished(worker, (task, attempt), sizes, run_micros, out),
            WorkerMessage::Failed {
                attempt,
                error,
                run_micros,
            } => self.on_failed(worker, attempt, (*error, run_micros), out),
            WorkerMessage::MissingInputs {
                task,
                attempt,
                missing,
                cause,
            } => self.on_missing_inputs(worker, task, attempt, (&missing, &cause), out),
            WorkerMessage::Cancelled { task, attempt } => {
                self.on_cancelled(worker, task, attempt, out);
            }
            WorkerMessage::Lost { tasks } => self.on_lost_outputs(worker, &tasks, out),
            WorkerMessage::Heartbeat { load } => self.on_load(worker, load, out),
            WorkerMessage::Events { events } => self.forward(worker, events, out),
            // It belongs to a return, and this worker is here.
            WorkerMessage::Inventory(_) => {}
            WorkerMessage::Seceded { task, attempt } => self.on_seceded(worker, task, attempt),
            WorkerMessage::Rejoined { task, attempt } => self.on_rejoined(worker, task, attempt),
            WorkerMessage::HeldUp { task, attempt, by } => {
                self.on_held_up(worker, (task, attempt), by, out);
            }
            WorkerMessage::Goodbye => self.remove_worker(worker, "it left", false, out),
        }
    }

    pub(crate) fn on_worker_lost(&mut self, id: WorkerId, reason: &str, out: &mut Vec<Action>) {
        if let Some(worker) = self.workers.by_id.get(&id).copied() {
            self.remove_worker(worker, reason, true, out);
        }
    }

    /// Called when the first of them may have been silent for too long since `due`.
    pub(crate) fn drop_silent_workers(&mut self, due: Time, out: &mut Vec<Action>) {
        let timeout = self.timeout_micros();
        if self.now.micros_since(due) > timeout / 2 {
            // We were the silent one, and what they said meanwhile is still to be read.
            for (_, worker) in self.workers.slab.iter_mut() {
                worker.last_seen = self.now;
            }
        }
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

    /// Ends a worker that is silent or talks nonsense.
    pub(crate) fn drop_worker(&mut self, worker: WorkerSlot, reason: &str, out: &mut Vec<Action>) {
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
    pub(crate) fn remove_worker(
        &mut self,
        worker: WorkerSlot,
        reason: &str,
        died: bool,
        out: &mut Vec<Action>,
    ) {
        let id = self.workers.slab[worker].id;
        self.record(|| JournalEntry::WorkerLeft { worker: id }, out);
        self.workers.close(worker);
        self.emit(
            Event::WorkerLost {
                worker: id,
                reason: reason.to_owned(),
            },
            out,
        );
        for (_, other) in self.workers.slab.iter_mut() {
            if other.knows.remove(worker.0) {
                out.push(Action::ToWorker {
                    worker: other.id,
                    message: SchedulerToWorker::PeerLost { worker: id },
                });
            }
        }
        for client in self.clients.values_mut() {
            client.told.remove(worker.0);
        }
        self.disband_gangs_of(worker, reason, died, out);
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
        self.move_pinned_from(worker);
        for (_, graph) in self.graphs.slab.iter_mut() {
            for layer in &mut graph.layers {
                layer.told.remove(worker.0);
                if let Some(families) = &mut layer.families {
                    families.forget(worker);
                }
                layer.scope.leave(worker);
                for barrier in &mut layer.barriers {
                    barrier.told.remove(worker.0);
                }
            }
        }
        self.recalls.forget(worker);
        self.forget_links_of(worker);
        self.workers.remove(worker);
        self.doubt_all();
    }

    /// Can the workers that are here now run what is ready?
    pub(crate) fn doubt_all(&mut self) {
        self.ready.unproven.extend(&self.ready.layers);
        self.ready.unproven.extend(&self.gangs.ready);
    }

    /// Everything stored on a worker is gone. Looks at every task: workers are lost rarely.
    fn lose_outputs_of(&mut self, worker: WorkerSlot, out: &mut Vec<Action>) {
        let is_lost = |state: &TaskState| match state {
            TaskState::Done { worker: holder, .. } => *holder == worker,
            TaskState::Culled
            | TaskState::Waiting { .. }
            | TaskState::Ready { .. }
            | TaskState::Assigned { .. }
            | TaskState::Ended { .. }
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
                self.take_back_for_later(at);
            } else {
                self.take_back(at);
            }
        }
    }
}
