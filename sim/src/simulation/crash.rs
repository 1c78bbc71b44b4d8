//! The scheduler's death, and the return of workers and clients to the one that takes its place.

use transload_protocol::{ClusterId, Inventory, JournalEntry, SessionToken};
use transload_scheduler::{Facts, Input, Scheduler};

use super::{Connection, Happening, Simulation, Step};

impl Simulation {
    /// Whether whoever loses its connection comes back.
    pub(super) fn comes_back(&self) -> bool {
        self.config.journal && !self.stopped
    }

    /// The scheduler is gone, and another one is there with what it wrote down. Every connection is broken.
    pub(super) fn crash(&mut self) -> Step {
        if self.stopped {
            return Ok(());
        }
        self.world.count("scheduler crashes");
        let mut facts = Facts::default();
        facts.add(JournalEntry::Begin {
            cluster: ClusterId(1),
            epoch: self.epoch,
            next_client: 0,
            next_worker: 0,
        });
        for entry in self.journal.iter().cloned() {
            facts.add(entry);
        }
        self.epoch += 1;
        self.world.gangs.forget_all();
        let mut actions = Vec::new();
        self.scheduler =
            Scheduler::restore(self.config.clone(), self.world.now, facts, &mut actions)
                .map_err(|error| format!("the journal cannot be used: {error}"))?;
        self.scheduler_tick = None;
        for process in &mut self.processes {
            let Some(number) = process.counted_in.take() else {
                continue;
            };
            if process.connection == number {
                process.up_until = process.up_until.min(self.world.now);
            }
            self.assigned.remove(&process.index);
            let seen = process.down.last().max(self.world.now);
            let later = self.world.random.below(50_000);
            let process = process.index;
            self.world.agenda.push(
                seen.after_micros(later + 1),
                Happening::SchedulerGone(Connection { process, number }),
            );
        }
        for client in &mut self.clients {
            if client.is_connected() && client.id.is_some() && !client.is_cut_off {
                client.cut_off(&mut self.world);
            }
        }
        self.carry_out(actions)?;
        self.conclude(false)
    }

    /// A client's connection breaks, and the scheduler sees it.
    pub(super) fn cut_client(&mut self) -> Step {
        let connected = self.clients.iter_mut();
        let client = connected
            .filter(|it| it.is_connected() && it.id.is_some() && !it.is_cut_off)
            .max_by_key(|it| it.index);
        let Some(client) = client else {
            return Ok(());
        };
        client.cut_off(&mut self.world);
        match client.id {
            Some(client) => self.decide(Input::ClientLost { client }),
            None => Ok(()),
        }
    }

    pub(super) fn on_client_returns(&mut self, index: usize) -> Step {
        let Some(client) = self.clients.get_mut(index) else {
            return Ok(());
        };
        let Some(id) = client.id.filter(|_| client.is_connected() && !self.stopped) else {
            return Ok(());
        };
        if !self
            .scheduler
            .knows_client(id, SessionToken(u64::from(id.0)))
        {
            // It was away for too long, and is refused at the door.
            self.world.count("clients refused");
            client.close(&mut self.world, false);
            return Ok(());
        }
        self.world.count("clients that came back");
        client.resume(&mut self.world);
        self.decide(Input::ClientReturned { client: id })
    }

    /// A worker that was cut off has said what it still has.
    pub(super) fn on_worker_back(&mut self, connection: Connection, inventory: Inventory) -> Step {
        let index = connection.process;
        let Some(process) = self.processes.get_mut(index) else {
            return Ok(());
        };
        let Some(worker) = process.id.filter(|_| !self.stopped) else {
            return Ok(());
        };
        self.world.count("workers that came back");
        process.counted_in = Some(connection.number);
        let hello = process.hello();
        self.world.gangs.leave(index);
        for (task, attempt) in inventory.running.iter().copied() {
            if let Some((layer, _)) = self.world.gang_of(task) {
                self.world.gangs.hand_out((task, layer), attempt, index);
            }
        }
        let running = inventory.running.iter().copied();
        self.assigned.insert(index, running.collect());
        self.decide(Input::WorkerReturned {
            worker,
            hello,
            inventory,
        })
    }
}
