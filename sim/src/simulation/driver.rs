//! The driver of the scheduler's machine: turns what arrives into inputs, and carries out its actions. Strict: an action that
//! names somebody who never was, or who is lost, ends the simulation.

use std::collections::BTreeSet;

use transload_protocol::{
    ClientHello, ClientId, Event, EventRecord, MissingCause, SchedulerToWorker, SessionToken,
    TaskId, WorkerId, WorkerMessage,
};
use transload_scheduler::{Action, Input};

use super::{Connection, Happening, Process, Simulation, Step};

impl Simulation {
    /// Feeds the scheduler's machine, now and then without letting it decide until more has arrived.
    pub(super) fn decide(&mut self, input: Input) -> Step {
        if self.stopped {
            return Ok(());
        }
        let mut actions = Vec::new();
        let ticked = input == Input::Tick;
        let is_work = !matches!(
            input,
            Input::Tick
                | Input::FromWorker {
                    message: WorkerMessage::Heartbeat { .. } | WorkerMessage::Events { .. },
                    ..
                }
        );
        self.scheduler.take_in(self.world.now, input, &mut actions);
        self.carry_out(actions)?;
        if self.undecided {
            return Ok(());
        }
        let batch = self.world.scenario.batch_per_mille;
        // A deferred decision counts as work, and signs of life shall not keep a cluster from coming to rest.
        if is_work && self.world.random.chance(batch) {
            let soon = self.world.now.after_micros(self.world.random.below(2_000));
            self.world.agenda.push(soon, Happening::SchedulerDecides);
            self.undecided = true;
            return Ok(());
        }
        self.conclude(ticked)
    }

    pub(super) fn carry_out(&mut self, actions: Vec<Action>) -> Step {
        for action in actions {
            self.world
                .trace
                .note(self.world.now, || format!("    s {action:?}"));
            self.act(action)?;
        }
        Ok(())
    }

    /// Lets the scheduler's machine decide, checks it, and carries out what it wants.
    pub(super) fn conclude(&mut self, ticked: bool) -> Step {
        let mut actions = Vec::new();
        self.scheduler.decide(&mut actions);
        if let Err(error) = self.scheduler.check() {
            return Err(self.picture(&format!("scheduler: check: {error}")));
        }
        self.carry_out(actions)?;
        let wanted = self.scheduler.next_deadline();
        if let Some(deadline) = wanted.filter(|deadline| ticked && *deadline <= self.world.now) {
            return Err(format!(
                "the scheduler wants a tick at {} us right after one at {} us",
                deadline.micros, self.world.now.micros
            ));
        }
        if wanted != self.scheduler_tick.map(|(deadline, _)| deadline) {
            self.scheduler_tick = wanted.map(|deadline| {
                let token = self.world.token();
                let late = self.world.random.below(500);
                self.world.agenda.push(
                    deadline.max(self.world.now).after_micros(late),
                    Happening::SchedulerTick { token },
                );
                (deadline, token)
            });
        }
        Ok(())
    }

    pub(super) fn act(&mut self, action: Action) -> Step {
        let world = &mut self.world;
        match action {
            Action::ToClient { client, message } => {
                let Some(client) = self.clients.iter_mut().find(|it| it.id == Some(client)) else {
                    return Err(format!(
                        "the scheduler writes to client {client}, who never was"
                    ));
                };
                let at = client.down.arrival(world.now, &mut world.random);
                let client = client.index;
                world
                    .agenda
                    .push(at, Happening::ToClient { client, message });
                Ok(())
            }
            Action::ToWorker { worker, message } => {
                let process = self.workers.get(&worker).copied();
                let Some(process) = process.and_then(|it| self.processes.get_mut(it)) else {
                    return Err(format!(
                        "the scheduler writes to worker {worker}, who never was"
                    ));
                };
                let Some(number) = process.counted_in else {
                    return Err(format!(
                        "the scheduler writes to worker {worker}, who is lost"
                    ));
                };
                if let SchedulerToWorker::Assign { tasks } = &message {
                    let assigned = self.assigned.entry(process.index).or_default();
                    assigned.extend(tasks.iter().map(|task| (task.task, task.attempt)));
                    for task in tasks {
                        if let Some((layer, _)) = world.gang_of(task.task) {
                            let member = (task.task, layer);
                            world.gangs.hand_out(member, task.attempt, process.index);
                        }
                    }
                }
                if let SchedulerToWorker::Gang {
                    graph,
                    layer,
                    incarnation,
                    ..
                } = &message
                    && world.gangs.tell((*graph, *layer, *incarnation))? == Some(true)
                {
                    world.count("gangs run again");
                }
                if let SchedulerToWorker::Cancel { task, attempt }
                | SchedulerToWorker::Disown { task, attempt } = &message
                {
                    world.gangs.let_go((*task, *attempt), process.index);
                }
                if let SchedulerToWorker::Recall { .. } = &message {
                    world.count("tasks asked back");
                }
                let at = process.down.arrival(world.now, &mut world.random);
                let process = process.index;
                let connection = Connection { process, number };
                world.agenda.push(
                    at,
                    Happening::ToWorker {
                        connection,
                        message,
                    },
                );
                Ok(())
            }
            Action::DropWorker { worker, .. } => {
                world.count("workers dropped");
                let Some(process) = self.workers.get(&worker).copied() else {
                    return Err(format!(
                        "the scheduler drops worker {worker}, who never was"
                    ));
                };
                let number = self.processes.get(process).and_then(|it| it.counted_in);
                self.leave_cluster(process);
                if let (Some(it), Some(number)) = (self.processes.get_mut(process), number) {
                    let at = it.down.arrival(self.world.now, &mut self.world.random);
                    let gone = Happening::SchedulerGone(Connection { process, number });
                    self.world.agenda.push(at, gone);
                }
                Ok(())
            }
            Action::Emit(EventRecord {
                event: Event::TaskStraggles { .. },
                ..
            }) => {
                self.world.count("stragglers told");
                Ok(())
            }
            Action::Emit(_) => Ok(()),
            Action::Record(entry) => {
                self.journal.push(entry);
                Ok(())
            }
            Action::Stop => {
                self.stopped = true;
                world.count("shutdowns");
                Ok(())
            }
        }
    }

    pub(super) fn on_worker_hello(&mut self, connection: Connection) -> Step {
        let index = connection.process;
        let worker = WorkerId(u32::try_from(self.workers.len()).unwrap_or(u32::MAX));
        let Some(process) = self.processes.get_mut(index) else {
            return Ok(());
        };
        if let Some(worker) = process.id {
            let is_over = process.connection != connection.number || !process.is_alive();
            if is_over || self.stopped {
                return Ok(());
            }
            // It came back, and says what it has when it is welcomed.
            let at = process.down.arrival(self.world.now, &mut self.world.random);
            let welcome = Happening::WorkerWelcome { connection, worker };
            self.world.agenda.push(at, welcome);
            return Ok(());
        }
        if self.world.now > process.up_until || self.stopped {
            return Ok(());
        }
        process.counted_in = Some(connection.number);
        self.workers.insert(worker, index);
        let at = process.down.arrival(self.world.now, &mut self.world.random);
        let hello = process.hello();
        self.world
            .agenda
            .push(at, Happening::WorkerWelcome { connection, worker });
        self.decide(Input::WorkerConnected { worker, hello })
    }

    pub(super) fn on_client_hello(&mut self, index: usize) -> Step {
        let id = ClientId(u32::try_from(index).unwrap_or(u32::MAX));
        let Some(client) = self.clients.get_mut(index) else {
            return Ok(());
        };
        if self.world.now > client.up_until || self.stopped {
            return Ok(());
        }
        client.id = Some(id);
        let at = client.down.arrival(self.world.now, &mut self.world.random);
        self.world
            .agenda
            .push(at, Happening::ClientWelcome { client: index, id });
        let hello = ClientHello {
            name: format!("client {index}"),
        };
        self.decide(Input::ClientConnected { client: id, hello })?;
        if self.comes_back() {
            let token = SessionToken(u64::from(id.0));
            self.decide(Input::SessionOpened { client: id, token })?;
        }
        Ok(())
    }

    /// The id of a process whose messages the scheduler still takes.
    pub(super) fn worker_of(&self, process: usize) -> Option<WorkerId> {
        self.processes.get(process).filter(|it| it.in_cluster())?;
        self.workers
            .iter()
            .find(|(_, index)| **index == process)
            .map(|(worker, _)| *worker)
    }

    pub(super) fn on_worker_message(
        &mut self,
        connection: Connection,
        message: WorkerMessage,
    ) -> Step {
        let now = self.world.now;
        let process = connection.process;
        let stands = |it: &&Process| it.connection == connection.number && now <= it.up_until;
        let Some(it) = self.processes.get(process).filter(stands) else {
            return Ok(());
        };
        let is_counted_in = it.counted_in == Some(connection.number);
        if let WorkerMessage::Inventory(inventory) = message {
            return self.on_worker_back(connection, inventory);
        }
        let Some(worker) = self.worker_of(process).filter(|_| is_counted_in) else {
            return Ok(());
        };
        if message == WorkerMessage::Goodbye {
            for task in self.world.gangs.leave(process) {
                self.world.injected(task).deaths += 1;
            }
        }
        let ended = match &message {
            WorkerMessage::Failed { attempt, error, .. } => {
                self.world.injected(error.task).reported += 1;
                Some((error.task, *attempt))
            }
            WorkerMessage::Finished { task, attempt, .. }
            | WorkerMessage::Cancelled { task, attempt } => Some((*task, *attempt)),
            WorkerMessage::HeldUp { task, attempt, .. } => {
                self.world.count("tasks held up");
                // It counts as failed where the other waits for it.
                self.world.injected(*task).reported += 1;
                Some((*task, *attempt))
            }
            WorkerMessage::MissingInputs {
                task,
                attempt,
                missing,
                cause,
            } => {
                self.world.count("missing inputs");
                if matches!(cause, MissingCause::Unreached { .. }) {
                    self.world.count("inputs out of reach");
                }
                for (partition, _) in missing {
                    self.world.injected(partition.task).losses += 1;
                }
                Some((*task, *attempt))
            }
            WorkerMessage::Lost { tasks } => {
                for task in tasks {
                    self.world.injected(*task).losses += 1;
                }
                None
            }
            _ => None,
        };
        if let Some(ended) = ended {
            self.world.gangs.let_go(ended, process);
        }
        // An older attempt may end when a newer one is on its way.
        if let (Some(ended), Some(attempts)) = (ended, self.assigned.get_mut(&process)) {
            attempts.remove(&ended);
        }
        self.decide(Input::FromWorker { worker, message })
    }

    pub(super) fn on_worker_gone(&mut self, connection: Connection) -> Step {
        let process = connection.process;
        let counted_in = self.processes.get(process).and_then(|it| it.counted_in);
        let is_over = counted_in != Some(connection.number);
        let Some(worker) = self.worker_of(process).filter(|_| !is_over) else {
            return Ok(());
        };
        self.world.count("workers lost");
        self.leave_cluster(process);
        self.decide(Input::WorkerLost {
            worker,
            reason: "connection closed".to_owned(),
        })
    }

    pub(super) fn leave_cluster(&mut self, process: usize) {
        if let Some(process) = self.processes.get_mut(process) {
            process.counted_in = None;
        }
        let attempts = self.assigned.remove(&process).unwrap_or_default();
        let mut tasks: BTreeSet<TaskId> = attempts.into_iter().map(|(task, _)| task).collect();
        tasks.extend(self.world.gangs.leave(process));
        for task in tasks {
            self.world.injected(task).deaths += 1;
        }
    }
}
