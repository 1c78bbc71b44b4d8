//! What a client makes of the answers to what it shares; every one of them must make sense at its time.

use transload_protocol::{
    GraphOutcome, RequestId, SharingAnswer, SharingCall, SharingRefusal, TaskRange,
};

use super::NAMES;
use crate::client::Client;
use crate::judge;
use crate::world::{Step, World};

impl Client {
    pub(in crate::client) fn on_shared(
        &mut self,
        world: &mut World,
        request: RequestId,
        answer: SharingAnswer,
    ) -> Step {
        match answer {
            SharingAnswer::Held { tasks, outputs } => self.on_held(world, request, tasks, outputs),
            SharingAnswer::Over { outcome } => self.on_hold_over(world, request, &outcome),
            SharingAnswer::Refused(refusal) => self.on_refused(world, request, &refusal),
            SharingAnswer::Done | SharingAnswer::Holders(_) | SharingAnswer::Names(_) => {
                self.on_answer(world, request, &answer)
            }
        }
    }

    fn on_held(
        &mut self,
        world: &mut World,
        request: RequestId,
        tasks: TaskRange,
        outputs: u32,
    ) -> Step {
        let plan = world.plans.get(&tasks.graph);
        let layer = plan.and_then(|plan| plan.compiled.layer_of(tasks.first));
        if layer.is_none_or(|layer| layer.outputs != outputs) {
            return Err(format!("{tasks} have {outputs} outputs, it is said"));
        }
        // One at most reads what is in several holds.
        let is_own = Some(tasks.graph.client) == self.id;
        let others = self.shares.holds.iter().filter(|(of, _)| **of != request);
        let is_read = others
            .filter_map(|(_, hold)| hold.tasks.filter(|_| hold.reads))
            .any(|others| others.graph == tasks.graph);
        let Some(hold) = self.shares.holds.get_mut(&request) else {
            // It has let go since.
            return Ok(());
        };
        let asked = match &hold.call {
            SharingCall::Hold { tasks } => Some(*tasks),
            _ => None,
        };
        if hold.tasks.or(asked).is_some_and(|wanted| wanted != tasks) {
            return Err(format!(
                "{tasks} are held, and {:?} were asked for",
                hold.call
            ));
        }
        if hold.tasks.is_none() {
            hold.tasks = Some(tasks);
            hold.reads &= !is_own && !is_read;
            if !hold.reads || world.random.chance(200) {
                self.let_go_later(world, request);
            }
        }
        Ok(())
    }

    fn on_hold_over(
        &mut self,
        world: &mut World,
        request: RequestId,
        outcome: &GraphOutcome,
    ) -> Step {
        let hold = self.shares.holds.get(&request);
        let Some(tasks) = hold.map(|hold| hold.tasks) else {
            return Ok(());
        };
        world.count("holds ended");
        let plan = tasks.and_then(|tasks| world.plans.get(&tasks.graph).cloned());
        match outcome {
            GraphOutcome::Finished => return Err(format!("hold {request} ended with all well")),
            GraphOutcome::Failed(error) => {
                let plan = world.plans.get(&error.task.graph).cloned();
                judge::failure_is_right(world, plan.as_deref(), error)?;
            }
            GraphOutcome::TimedOut { .. } => {
                if plan.is_some_and(|plan| plan.compiled.cancel_after_ms().is_none()) {
                    return Err(format!("{tasks:?} had all the time that they wanted"));
                }
            }
            GraphOutcome::Cancelled => {
                if tasks.is_some_and(|tasks| !world.cancelled.contains(&tasks.graph)) {
                    return Err(format!("{tasks:?} were cancelled by nobody"));
                }
            }
        }
        self.end_hold(world, request);
        self.leave_if_done(world);
        Ok(())
    }

    fn on_refused(
        &mut self,
        world: &mut World,
        request: RequestId,
        refusal: &SharingRefusal,
    ) -> Step {
        let is_right = match refusal {
            SharingRefusal::UnknownGraph { .. }
            | SharingRefusal::Released { .. }
            | SharingRefusal::UnknownName { .. }
            | SharingRefusal::NameTaken { .. } => true,
            SharingRefusal::NotKept { .. }
            | SharingRefusal::BadName { .. }
            | SharingRefusal::TooManyNames { .. } => false,
        };
        let held = self.shares.holds.get(&request).and_then(|hold| hold.tasks);
        if !is_right || held.is_some() {
            return Err(format!(
                "client {}: call {request} was refused, and {held:?} are held: {refusal}",
                self.index
            ));
        }
        world.count("calls refused");
        self.shares.asked.remove(&request);
        self.end_hold(world, request);
        self.leave_if_done(world);
        Ok(())
    }

    fn on_answer(&mut self, world: &mut World, request: RequestId, answer: &SharingAnswer) -> Step {
        let Some(call) = self.shares.asked.remove(&request) else {
            // Said twice after a broken connection.
            return Ok(());
        };
        let fits = match (&call, answer) {
            (SharingCall::Publish { .. } | SharingCall::Unpublish { .. }, SharingAnswer::Done) => {
                true
            }
            (SharingCall::WhoHas { tasks }, SharingAnswer::Holders(holders)) => {
                holders.len() == tasks.count as usize
            }
            (SharingCall::Published, SharingAnswer::Names(names)) => names
                .iter()
                .all(|it| NAMES.contains(&it.name.as_str()) && it.done <= it.tasks.count),
            _ => false,
        };
        if !fits {
            return Err(format!("client {}: {call:?}: {answer:?}", self.index));
        }
        self.leave_if_done(world);
        Ok(())
    }
}
