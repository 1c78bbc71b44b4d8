//! The faults that befall processes, and the processes that replace dead ones.

use transload_protocol::WorkerMessage;

use super::{Death, Fault, Happening, Process, Simulation, Step};

impl Simulation {
    pub(super) fn on_fault(&mut self, fault: Fault) -> Step {
        match fault {
            Fault::Arrival => self.arrive(),
            Fault::Calm => {
                self.world.calm = true;
                if !self.processes.iter().any(Process::is_alive) {
                    self.arrive();
                }
            }
            Fault::Kill => self.end_one(Death::Killed, "workers killed"),
            Fault::PowerCut => self.end_one(Death::PowerCut, "power cuts"),
            Fault::CutConnection => {
                if let Some(index) = self.victim() {
                    self.world.count("connections cut");
                    self.cut(index);
                }
            }
            Fault::Stall => {
                if let Some(index) = self.victim() {
                    self.world.count("stalls");
                    let micros = self
                        .world
                        .random
                        .below(self.world.scenario.stall_micros + 1);
                    let until = self.world.now.after_micros(micros);
                    if let Some(process) = self.processes.get_mut(index) {
                        process.stalled_until = process.stalled_until.max(until);
                    }
                }
            }
            Fault::SchedulerStall => {
                self.world.count("scheduler stalls");
                let micros = self
                    .world
                    .random
                    .below(self.world.scenario.stall_micros + 1);
                // Never earlier than an older stall ends: what that one deferred must not be overtaken.
                let until = self.world.now.after_micros(micros);
                self.stalled_until = self.stalled_until.max(until);
            }
            Fault::SchedulerCrash => {
                // Connections of clients break more easily than schedulers do.
                if self.world.random.chance(300) {
                    return self.cut_client();
                }
                return self.crash();
            }
            Fault::Departure => {
                if let Some(index) = self.victim() {
                    self.depart(index);
                    self.replace();
                }
            }
        }
        Ok(())
    }

    /// A living process, chosen by chance.
    fn victim(&mut self) -> Option<usize> {
        let living = self.processes.iter().filter(|process| process.is_alive());
        let living: Vec<usize> = living.map(|process| process.index).collect();
        living.get(self.world.random.index(living.len())).copied()
    }

    fn end_one(&mut self, death: Death, count: &'static str) {
        let Some(index) = self.victim() else {
            return;
        };
        self.world.count(count);
        if let Some(process) = self.processes.get_mut(index) {
            process.die(&mut self.world, death);
        }
        self.replace();
    }

    /// Each side of a broken connection sees its end at its own time; until then the worker works on.
    fn cut(&mut self, index: usize) {
        let Some(process) = self.processes.get_mut(index) else {
            return;
        };
        let seen = self.world.random.below(50_001);
        let seen = self.world.now.after_micros(seen);
        let later = self.world.random.below(50_000);
        if process.is_away {
            // There is none that could be cut.
            return;
        }
        process.up_until = process.up_until.min(self.world.now);
        let connection = process.connection();
        self.world
            .agenda
            .push(seen, Happening::WorkerGone(connection));
        let at = process.down.last().max(self.world.now);
        self.world.agenda.push(
            at.after_micros(later + 1),
            Happening::SchedulerGone(connection),
        );
    }

    fn depart(&mut self, index: usize) {
        let Some(process) = self.processes.get_mut(index) else {
            return;
        };
        self.world.count("departures");
        if process.id.is_some() {
            let at = process.up.arrival(self.world.now, &mut self.world.random);
            let message = WorkerMessage::Goodbye;
            self.world.agenda.push(
                at,
                Happening::ToScheduler {
                    connection: process.connection(),
                    message,
                },
            );
        }
        process.die(&mut self.world, Death::Orderly);
    }

    /// A process has died. Perhaps another takes its place; in calm times certainly, so that somebody can do the work.
    pub(super) fn replace(&mut self) {
        let per_mille = self.world.scenario.respawn_per_mille;
        if !self.stopped && (self.world.calm || self.world.random.chance(per_mille)) {
            self.world.soon(200_000, Happening::Fault(Fault::Arrival));
        }
    }

    fn arrive(&mut self) {
        if self.stopped {
            return;
        }
        let index = self.processes.len();
        let process = Process::new(index, &mut self.world);
        self.processes.push(process);
    }
}
