//! Operators that wait without their slots: for graphs of their own, or for something that comes after some time.

use transload_protocol::{Attempt, Resources, TaskId};
use transload_worker::Input;

use super::{Outcome, Process, Stage};
use crate::network::{Happening, TaskRun};
use crate::world::{Step, World};

impl Process {
    /// How often an operator that starts now will wait.
    pub(super) fn draw_waits(world: &mut World) -> u32 {
        let per_mille = world.scenario.task_waits_per_mille;
        if per_mille > 0 && world.random.chance(per_mille) {
            world.random.small(1, 3)
        } else {
            0
        }
    }

    /// Whether such a task may go on beside those that hold their slots.
    pub(super) fn check_slot(&self, task: TaskId, asked: &Resources) -> Step {
        if self.free().covers(asked) {
            Ok(())
        } else {
            Err(format!("runs {task} with no slot free for it"))
        }
    }

    /// An operator would end now, or has waited long enough. Whether it has something else to do first.
    pub(super) fn waits_first(
        &mut self,
        world: &mut World,
        (task, attempt): (TaskId, Attempt),
    ) -> Result<bool, String> {
        let Some(execution) = self.running.get_mut(&(task, attempt)) else {
            return Ok(false);
        };
        if matches!(execution.outcome, Outcome::Stopped | Outcome::LosesItsPeer) {
            return Ok(false);
        }
        let input = match execution.stage {
            Stage::Works if execution.waits == 0 => return Ok(false),
            Stage::Works => {
                execution.waits -= 1;
                execution.stage = Stage::Waits;
                world.count("waits without a slot");
                Input::Secede { task, attempt }
            }
            Stage::Waits => {
                execution.stage = Stage::WantsSlot;
                Input::Rejoin { task, attempt }
            }
            Stage::WantsSlot | Stage::Ahead | Stage::Meets => {
                return Err(format!("{task} goes on without its slot"));
            }
        };
        if execution.stage == Stage::Waits {
            let token = world.token();
            execution.token = token;
            // What has to meet others first holds them up, and its graph might need their slots.
            let has_met = execution
                .gang
                .is_none_or(|gang| world.gangs.has_met(gang.incarnation, gang.members));
            if has_met && world.submits_a_graph() {
                let run = TaskRun {
                    process: self.index,
                    task,
                    attempt,
                    token,
                };
                world.soon(1_000, Happening::TaskSubmits(run));
            } else {
                let micros = world.scenario.task_micros;
                self.end_later(world, task, attempt, token, micros);
            }
            self.run_those_ahead(world);
        }
        self.handle(world, input)?;
        Ok(true)
    }

    /// Whether the operator still waits for what it waited for then.
    pub(crate) fn still_waits(&self, run: &TaskRun) -> bool {
        let execution = self.running.get(&(run.task, run.attempt));
        self.is_alive()
            && execution.is_some_and(|it| it.token == run.token && it.stage == Stage::Waits)
    }

    /// The machine lets a task go on.
    pub(super) fn resume(&mut self, world: &mut World, task: TaskId, attempt: Attempt) -> Step {
        let asked = match self.running.get(&(task, attempt)) {
            Some(execution) if execution.stage == Stage::WantsSlot => execution.resources.clone(),
            Some(_) | None => return Err(format!("resumes {task}, which does not wait for it")),
        };
        if self
            .running
            .get(&(task, attempt))
            .is_some_and(|it| it.gang.is_none())
        {
            self.check_slot(task, &asked)?;
        }
        let token = world.token();
        if let Some(execution) = self.running.get_mut(&(task, attempt)) {
            execution.stage = Stage::Works;
            execution.token = token;
        }
        let micros = world.scenario.task_micros;
        self.end_later(world, task, attempt, token, micros);
        Ok(())
    }
}
