//! What a client makes of the scheduler's messages; every one of them must make sense at its time.

use transload_protocol::{GraphId, GraphOutcome, OutputLocation, OutputSizes, SchedulerToClient};

use super::{Act, Client, Presence, Status};
use crate::graphs::GraphPlan;
use crate::judge;
use crate::network::Happening;
use crate::process::process_at;
use crate::world::{Step, World};

/// Whether what is said of an output is true of what its task makes.
pub(super) fn check_output(plan: &GraphPlan, output: &OutputLocation) -> Step {
    let task = output.task;
    let is_kept = plan
        .compiled
        .locate(task.index)
        .is_some_and(|(layer, _)| plan.compiled.is_kept(layer));
    if !is_kept {
        return Err(format!("output {task} is ready, but nobody keeps it"));
    }
    let sizes: Vec<u64> = plan
        .values_of(task.index)
        .iter()
        .map(|value| plan.bytes_of(*value, 0))
        .collect();
    let sizes = OutputSizes::of(&sizes);
    let are_alike = plan.sizes_vary && sizes.outputs == output.sizes.outputs;
    if sizes == output.sizes || are_alike {
        Ok(())
    } else {
        Err(format!(
            "output {task} has sizes {:?}, not {sizes:?}",
            output.sizes
        ))
    }
}

impl Client {
    pub(crate) fn on_message(&mut self, world: &mut World, message: SchedulerToClient) -> Step {
        if self.presence != Presence::Connected {
            return Ok(());
        }
        match message {
            SchedulerToClient::Peer { worker, addresses } => {
                let process = process_at(&addresses)
                    .ok_or_else(|| format!("worker {worker} has no address"))?;
                self.peers.insert(worker, process);
                Ok(())
            }
            SchedulerToClient::Accepted { graph } => {
                let position = self.position(graph)?;
                self.expect(position, Status::Submitted, "Accepted")?;
                if let Some(submission) = self.submissions.get_mut(position) {
                    if submission.plan.is_none() {
                        return Err(format!(
                            "graph {graph} was accepted though it breaks a rule"
                        ));
                    }
                    submission.status = Status::Running;
                }
                self.plan_to_leave(world, position);
                Ok(())
            }
            SchedulerToClient::Rejected { graph, error } => {
                let submission = self.position(graph)?;
                self.expect(submission, Status::Submitted, "Rejected")?;
                if self
                    .submissions
                    .get(submission)
                    .is_some_and(|it| it.plan.is_some() && !it.may_be_refused)
                {
                    return Err(format!("graph {graph} was rejected: {error}"));
                }
                self.end(world, submission);
                Ok(())
            }
            SchedulerToClient::OutputReady { output } => self.on_ready(world, output),
            SchedulerToClient::OutputLost { task } => {
                world.count("outputs lost");
                self.forget_fetches(world, task);
                self.forget_shared(task);
                if Some(task.graph.client) != self.id {
                    return Ok(());
                }
                let submission = self.position(task.graph)?;
                if let Some(submission) = self.submissions.get_mut(submission) {
                    submission.located.remove(&task.index);
                }
                Ok(())
            }
            SchedulerToClient::Ended { graph, outcome } => self.on_ended(world, graph, outcome),
            SchedulerToClient::Progress { graph, layers } => {
                self.position(graph)?;
                match layers.iter().find(|it| it.done + it.running > it.total) {
                    Some(wrong) => Err(format!("progress of graph {graph}: {wrong:?}")),
                    None => Ok(()),
                }
            }
            SchedulerToClient::Explained { .. }
            | SchedulerToClient::Info { .. }
            | SchedulerToClient::Events { .. }
            | SchedulerToClient::Coordinated { .. } => Ok(()),
            SchedulerToClient::Shared { request, answer } => self.on_shared(world, request, answer),
            SchedulerToClient::ShuttingDown => {
                self.close(world, true);
                Ok(())
            }
        }
    }

    fn position(&self, graph: GraphId) -> Result<usize, String> {
        self.submissions
            .iter()
            .position(|it| it.id == Some(graph))
            .ok_or_else(|| format!("client {} was told of graph {graph}", self.index))
    }

    fn expect(&self, submission: usize, status: Status, what: &str) -> Step {
        match self.submissions.get(submission) {
            Some(it) if it.status == status => Ok(()),
            Some(it) => Err(format!(
                "client {}: {what} while graph {:?} is {:?}",
                self.index, it.id, it.status
            )),
            None => Err(format!("{what} about no graph")),
        }
    }

    fn on_ready(&mut self, world: &mut World, output: OutputLocation) -> Step {
        let task = output.task;
        if Some(task.graph.client) != self.id {
            return self.on_shared_output(world, output);
        }
        let graph = self.position(task.graph)?;
        let Some(submission) = self.submissions.get_mut(graph) else {
            return Ok(());
        };
        if submission.status == Status::Over || submission.cancelled {
            return Ok(());
        }
        if submission.status == Status::Submitted {
            return Err(format!(
                "output {task} is ready before its graph was accepted"
            ));
        }
        let Some(plan) = &submission.plan else {
            return Err(format!("output {task} of a refused graph"));
        };
        check_output(plan, &output)?;
        if submission.held.contains(&task.index) {
            submission.located.insert(task.index, output);
            if submission.streams || submission.reading {
                self.read_task(world, graph, task.index)?;
            }
        }
        Ok(())
    }

    fn on_ended(&mut self, world: &mut World, id: GraphId, outcome: GraphOutcome) -> Step {
        let graph = self.position(id)?;
        // A finished graph may still fail, when an output is lost and cannot be made again: the client may hold it, or may
        // have let go of it while the news was on its way.
        let it = self.submissions.get(graph);
        if it.is_some_and(|it| it.left) {
            return Ok(());
        }
        let has_finished = it.is_some_and(|it| it.outcome == Some(GraphOutcome::Finished));
        if has_finished && !matches!(outcome, GraphOutcome::Failed(_)) {
            // It was told again after a broken connection; or it was cancelled while some of it had to be made again.
            return Ok(());
        }
        if !(has_finished && matches!(outcome, GraphOutcome::Failed(_))) {
            self.expect(graph, Status::Running, "Ended")?;
        }
        let Some(submission) = self.submissions.get_mut(graph) else {
            return Ok(());
        };
        match &outcome {
            GraphOutcome::Finished => {
                world.count("graphs finished");
                submission.status = Status::Held;
            }
            GraphOutcome::Failed(error) => {
                world.count("graphs failed");
                // What it imports may have failed instead.
                let plan = world.plans.get(&error.task.graph).cloned();
                judge::failure_is_right(world, plan.as_deref(), error)?;
                submission.status = Status::Over;
            }
            GraphOutcome::TimedOut { .. } => {
                world.count("graphs out of time");
                if submission.tasks.cancel_after_ms.is_none() {
                    return Err(format!("graph {id} had all the time that it wanted"));
                }
                submission.status = Status::Over;
            }
            GraphOutcome::Cancelled => {
                if !submission.cancelled {
                    return Err(format!("graph {id} was cancelled by nobody"));
                }
                submission.status = Status::Over;
            }
        }
        submission.outcome = Some(outcome);
        let is_over =
            submission.cancelled || submission.held.is_empty() || submission.status == Status::Over;
        if is_over {
            self.end(world, graph);
        } else {
            let client = self.index;
            world.soon(
                world.scenario.hold_micros,
                Happening::ClientActs {
                    client,
                    act: Act::Read { graph },
                },
            );
        }
        Ok(())
    }
}
