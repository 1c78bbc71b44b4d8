//! Tasks that run much longer than others of their layer took: noticed when their worker reports, told once of each attempt.
//!
//! Fed by `attempts` with the ends of tasks, called by `members` for heartbeats. Changes nothing about what runs where.

use transload_protocol::{Event, RunningTask, Straggler, Time, WorkerLoad, words};

use crate::api::Action;
use crate::machine::Scheduler;
use crate::slab::{TaskAt, WorkerSlot};
use crate::task::TaskState;
use crate::worker::Worker;

/// Tasks of a layer that have to have ended before anything is said of the others.
const ENOUGH: u32 = 3;

/// How long those tasks of a layer took that have ended.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Runs {
    ended: u32,
    micros: u64,
}

/// A task that takes long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Straggling {
    /// When it began to run.
    since: Time,
    /// What others took on average when it was noticed.
    typical_micros: u64,
}

impl Runs {
    pub(crate) fn on_ended(&mut self, micros: u64) {
        self.ended = self.ended.saturating_add(1);
        self.micros = self.micros.saturating_add(micros);
    }

    /// What they took on average, once it says something.
    fn typical_micros(self) -> Option<u64> {
        (self.ended >= ENOUGH).then(|| self.micros / u64::from(self.ended))
    }
}

/// Whether a task with this state runs on that worker.
fn runs_on(slot: WorkerSlot, state: &TaskState) -> bool {
    match state {
        TaskState::Assigned {
            worker, started, ..
        } => *worker == slot && *started,
        TaskState::Culled
        | TaskState::Waiting { .. }
        | TaskState::Ready { .. }
        | TaskState::Ended { .. }
        | TaskState::Done { .. }
        | TaskState::Released => false,
    }
}

impl Scheduler {
    /// A worker says what runs there, and how full it is.
    pub(crate) fn on_load(&mut self, worker: WorkerSlot, load: WorkerLoad, out: &mut Vec<Action>) {
        if self.config.straggler_factor > 0 {
            let least = u64::from(self.config.straggler_after_ms).max(1);
            for running in load.running.iter().filter(|it| it.running_ms >= least) {
                self.perhaps_straggles(worker, *running, out);
            }
        }
        self.workers.report(worker, load);
    }

    fn perhaps_straggles(&mut self, slot: WorkerSlot, running: RunningTask, out: &mut Vec<Action>) {
        let RunningTask { task, running_ms } = running;
        let Some(at) = self.graphs.find(task) else {
            return;
        };
        let worker = &mut self.workers.slab[slot];
        let graph = &self.graphs.slab[at.graph];
        let runs_there = runs_on(slot, &graph.tasks[at.index as usize].state);
        // One that waits for graphs of its own is as slow as those.
        if !runs_there || worker.seceded.contains(&at) || worker.stragglers.contains_key(&at) {
            return;
        }
        let Some(typical_micros) = graph.layer_of(at.index).runs.typical_micros() else {
            return;
        };
        let micros = running_ms.saturating_mul(1_000);
        if micros <= typical_micros.saturating_mul(self.config.straggler_factor.into()) {
            return;
        }
        let straggling = Straggling {
            since: Time {
                micros: self.now.micros.saturating_sub(micros),
            },
            typical_micros,
        };
        worker.stragglers.insert(at, straggling);
        let event = Event::TaskStraggles {
            task,
            worker: worker.id,
            running_ms,
            typical_ms: typical_micros / 1_000,
        };
        self.emit(event, out);
    }

    /// Those on a worker, for people.
    pub(crate) fn stragglers_on(&self, worker: &Worker) -> Vec<Straggler> {
        let stragglers = worker.stragglers.iter();
        stragglers
            .map(|(at, straggling)| Straggler {
                task: self.graphs.slab[at.graph].task_id(at.index),
                running_ms: self.now.micros_since(straggling.since) / 1_000,
                typical_ms: straggling.typical_micros / 1_000,
            })
            .collect()
    }

    pub(crate) fn explain_straggling(&self, at: TaskAt, worker: WorkerSlot) -> Option<String> {
        let straggling = self.workers.slab[worker].stragglers.get(&at)?;
        Some(format!(
            "it has run for {}; tasks of its layer take {}",
            words::duration(self.now.micros_since(straggling.since)),
            words::duration(straggling.typical_micros)
        ))
    }

    /// All that are said to take long run where they are said to.
    pub(crate) fn check_stragglers(&self) -> Result<(), String> {
        for (slot, worker) in self.workers.slab.iter() {
            for at in worker.stragglers.keys() {
                let graph = self.graphs.slab.get(at.graph);
                let task = graph.and_then(|graph| graph.tasks.get(at.index as usize));
                let runs = task.is_some_and(|task| runs_on(slot, &task.state));
                if !runs {
                    return Err(format!("{at:?} is a straggler and does not run there"));
                }
            }
        }
        Ok(())
    }
}
