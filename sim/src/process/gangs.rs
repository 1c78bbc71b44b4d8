//! Operators that are members of gangs: each is told who the others are, and meets them before it ends.

use transload_protocol::{Attempt, LayerIndex, LayerSpec, Placement, TaskErrorKind, TaskId};
use transload_worker::Input;

use super::{Execution, Membership, Outcome, Process, Stage};
use crate::graphs::GraphPlan;
use crate::network::TaskRun;
use crate::world::{Step, World};

impl Process {
    /// That a task which starts here may run here.
    pub(super) fn check_place(&self, world: &mut World, task: TaskId, plan: &GraphPlan) -> Step {
        let layer = plan.compiled.layer_of(task.index);
        let Some(placement) = layer.and_then(|layer| layer.placement.as_deref()) else {
            return Ok(());
        };
        world.count("tasks held to workers");
        let (Some(id), hello) = (self.id, self.hello()) else {
            return Err(format!("starts {task} without an id"));
        };
        let is_right = match placement {
            Placement::Where(conditions) => conditions.allow(id, &hello),
            Placement::Each(workers) => {
                let position = plan.compiled.locate(task.index).map(|(_, at)| at as usize);
                let named = position.and_then(|position| workers.get(position));
                named.is_some_and(|named| named.is(id, &hello))
            }
        };
        if is_right {
            Ok(())
        } else {
            Err(format!(
                "starts {task}, which may run only at {placement:?}"
            ))
        }
    }

    /// A member of a gang starts: it was told of all, and of itself where it is. Perhaps the others wait for it.
    pub(super) fn join_gang(
        &self,
        world: &mut World,
        (task, attempt): (TaskId, Attempt),
        layer: LayerIndex,
        spec: &LayerSpec,
    ) -> Result<Option<Membership>, String> {
        let gang = world.gang_of(task);
        if gang.is_some() != spec.gang {
            return Err(format!("starts {task} with its gang being {gang:?}"));
        }
        let Some((_, members)) = gang else {
            return Ok(None);
        };
        let incarnation = (task.graph, layer, attempt);
        let table = self.gangs.get(&incarnation);
        let told = table.and_then(|table| table.members().ok());
        let told = told.ok_or_else(|| format!("starts {task} and was not told of its gang"))?;
        let rank = task.index.saturating_sub(spec.first_task) as usize;
        let own = told.get(rank).map(|member| member.worker);
        if told.len() != members as usize || own != self.id {
            return Err(format!("starts {task}, but its gang is {told:?}"));
        }
        let members = told.len();
        if let Some(waiting) = world.gangs.start(incarnation, task, members) {
            world.count("gangs started");
            waiting.into_iter().for_each(|run| world.wake(run));
        }
        Ok(Some(Membership {
            incarnation,
            members,
            is_late: world.random.chance(300),
        }))
    }

    /// Whether an operator has to wait for others of its gang before it goes on.
    pub(super) fn meets_first(&mut self, world: &mut World, key: (TaskId, Attempt)) -> bool {
        let process = self.index;
        let Some(execution) = self.running.get_mut(&key) else {
            return false;
        };
        let Some(gang) = execution.gang else {
            return false;
        };
        let has_more_to_do = gang.is_late && (execution.waits > 0 || execution.is_doomed());
        let is_here = matches!(execution.stage, Stage::Works | Stage::Meets);
        if !is_here || has_more_to_do || execution.outcome == Outcome::Stopped {
            return false;
        }
        if world.gangs.has_met(gang.incarnation, gang.members) {
            execution.stage = Stage::Works;
            return false;
        }
        if execution.told_to_stop {
            execution.outcome = Outcome::Stopped;
            return false;
        }
        // Who waits for somebody that is gone notices, or waits until it is told.
        if world.gangs.is_broken(gang.incarnation) && world.random.chance(700) {
            execution.outcome = Outcome::LosesItsPeer;
            return false;
        }
        execution.stage = Stage::Meets;
        let (task, attempt) = key;
        let run = TaskRun {
            process,
            task,
            attempt,
            token: execution.token,
        };
        world.gangs.wait(gang.incarnation, run);
        true
    }

    /// An operator fails because one of its gang is gone, and says so in a way that nobody would try again.
    pub(super) fn lose_peer(&mut self, world: &mut World, key: (TaskId, Attempt)) -> Step {
        let (task, attempt) = key;
        world.injected(task).peers_lost += 1;
        world.count("peers lost");
        let (kind, message) = (TaskErrorKind::Operator, "a peer is gone".to_owned());
        self.handle(
            world,
            Input::TaskFailed {
                task,
                attempt,
                kind,
                message,
                step: None,
            },
        )
    }
}

impl Execution {
    fn is_doomed(&self) -> bool {
        match self.outcome {
            Outcome::Fails(_) | Outcome::KillsTheProcess => true,
            Outcome::Done { .. } | Outcome::LosesItsPeer | Outcome::Stopped => false,
        }
    }
}
