//! Tasks that submit graphs and wait for them. Each graph has a client of its own, which lives no longer than its task waits.

use super::{Client, Happening, Simulation, Step, TaskRun};

impl Simulation {
    pub(super) fn on_task_submits(&mut self, run: TaskRun) -> Step {
        if self.waits(&run) {
            self.world.count("graphs within tasks");
            let index = self.clients.len();
            let client = Client::within_task(index, run.task, &mut self.world)?;
            self.clients.push(client);
            self.inside.push((run, index));
        }
        Ok(())
    }

    /// Tasks whose graphs have ended go on; graphs whose tasks have ended, end.
    pub(super) fn follow_tasks(&mut self) {
        let inside = std::mem::take(&mut self.inside);
        for (run, index) in inside {
            let waits = self.waits(&run);
            let Some(client) = self.clients.get_mut(index) else {
                continue;
            };
            if !waits {
                if !client.is_done() {
                    self.world.count("graphs within tasks cut short");
                }
                client.abandon(&mut self.world);
            } else if client.is_done() {
                let TaskRun {
                    process,
                    task,
                    attempt,
                    token,
                } = run;
                self.world.agenda.push(
                    self.world.now,
                    Happening::TaskEnds {
                        process,
                        task,
                        attempt,
                        token,
                    },
                );
            } else {
                self.inside.push((run, index));
            }
        }
    }

    fn waits(&self, run: &TaskRun) -> bool {
        self.processes
            .get(run.process)
            .is_some_and(|process| process.still_waits(run))
    }
}
