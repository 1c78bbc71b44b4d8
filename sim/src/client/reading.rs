//! How a client reads the outputs that it keeps, and checks every value.

use std::collections::BTreeSet;

use transload_protocol::{ClientMessage, OutputLocation, PartitionId};

use super::{Act, Client, Status};
use crate::graphs::GraphPlan;
use crate::network::{FetchAnswer, Happening};
use crate::world::{Fetch, Reader, Step, World};

/// Whether that is what the graph makes in this partition.
pub(super) fn is_right(
    plan: &GraphPlan,
    partition: PartitionId,
    (value, bytes): (u64, u64),
) -> bool {
    let values = plan.values_of(partition.task.index);
    values.get(partition.output as usize) == Some(&value)
        && (plan.sizes_vary || plan.bytes_of(value, 0) == bytes)
}

impl Client {
    /// Reads all that a graph has ready, and from now on whatever becomes ready.
    pub(super) fn read(&mut self, world: &mut World, graph: usize) -> Step {
        let Some(submission) = self.submissions.get_mut(graph) else {
            return Ok(());
        };
        submission.reading = true;
        let ready: Vec<u32> = submission.located.keys().copied().collect();
        for task in ready {
            self.read_task(world, graph, task)?;
        }
        self.release_if_read(world, graph);
        Ok(())
    }

    /// Starts to read the outputs of a task that were not read yet, if it is held and somewhere.
    pub(super) fn read_task(&mut self, world: &mut World, graph: usize, index: u32) -> Step {
        let Some(submission) = self.submissions.get(graph) else {
            return Ok(());
        };
        let Some(location) = submission.located.get(&index).cloned() else {
            return Ok(());
        };
        if !submission.held.contains(&index) || submission.read.contains(&index) {
            return Ok(());
        }
        let read = submission.partly_read.get(&index).cloned();
        self.fetch_outputs(world, &location, &read.unwrap_or_default())
    }

    /// Fetches what a task has made from where it is, but those outputs that were read before.
    pub(super) fn fetch_outputs(
        &mut self,
        world: &mut World,
        location: &OutputLocation,
        read: &BTreeSet<u32>,
    ) -> Step {
        let (task, from) = (location.task, location.worker);
        let Some(holder) = self.peers.get(&from).copied() else {
            return Err(format!(
                "client {}: an output on {from}, whose address it was not told",
                self.index
            ));
        };
        self.forget_fetches(world, task);
        let outputs = 0..location.sizes.outputs;
        for output in outputs.filter(|output| !read.contains(output)) {
            let partition = PartitionId { task, output };
            let fetch = world.send_fetch(Reader::Client(self.index), holder, from, partition);
            self.fetching.insert(partition, fetch);
        }
        Ok(())
    }

    /// The answer to a fetch is here.
    pub(crate) fn fetch_ended(
        &mut self,
        world: &mut World,
        fetch: u64,
        answer: &FetchAnswer,
    ) -> Step {
        let Some(ended) = world.end_fetch(fetch) else {
            return Ok(());
        };
        let partition = ended.partition;
        self.fetching.remove(&partition);
        let Some(graph) = self
            .submissions
            .iter()
            .position(|it| it.id == Some(partition.task.graph))
        else {
            return self.fetched_shared(world, &ended, answer);
        };
        let reason = match answer {
            FetchAnswer::Arrived { value, bytes } => {
                return self.receive(world, graph, partition, *value, *bytes);
            }
            FetchAnswer::Gone => "not here",
            FetchAnswer::TimedOut => "timed out",
            FetchAnswer::Failed(reason) => reason,
        };
        if let Some(submission) = self.submissions.get_mut(graph) {
            submission.located.remove(&partition.task.index);
        }
        self.tell_unreachable(world, &ended, reason);
        Ok(())
    }

    /// The answer to a fetch of what another's graph made is here.
    fn fetched_shared(&mut self, world: &mut World, ended: &Fetch, answer: &FetchAnswer) -> Step {
        let reason = match answer {
            FetchAnswer::Arrived { value, bytes } => {
                return self.receive_shared(world, ended.partition, (*value, *bytes));
            }
            FetchAnswer::Gone => "not here",
            FetchAnswer::TimedOut => "timed out",
            FetchAnswer::Failed(reason) => reason,
        };
        self.tell_unreachable(world, ended, reason);
        Ok(())
    }

    fn tell_unreachable(&mut self, world: &mut World, ended: &Fetch, reason: &str) {
        let task = ended.partition.task;
        self.forget_fetches(world, task);
        self.forget_shared(task);
        world.count("outputs unreachable");
        let message = ClientMessage::Unreachable {
            task,
            worker: ended.from,
            reason: reason.to_owned(),
        };
        self.send(world, message);
    }

    fn receive(
        &mut self,
        world: &mut World,
        graph: usize,
        partition: PartitionId,
        value: u64,
        bytes: u64,
    ) -> Step {
        let Some(submission) = self.submissions.get_mut(graph) else {
            return Ok(());
        };
        let index = partition.task.index;
        let Some(plan) = &submission.plan else {
            return Err(format!("an output of {partition}, whose graph was refused"));
        };
        if !is_right(plan, partition, (value, bytes)) {
            return Err(format!(
                "client {} read a wrong value in {partition}",
                self.index
            ));
        }
        let outputs = plan.values_of(index).len();
        let read = submission.partly_read.entry(index).or_default();
        read.insert(partition.output);
        if read.len() == outputs {
            submission.partly_read.remove(&index);
            submission.read.insert(index);
            world.count("outputs read");
            if submission.streams {
                self.release(world, graph, &[index])?;
            } else {
                self.release_if_read(world, graph);
            }
        }
        Ok(())
    }

    /// Releases everything a while after the last output was read.
    pub(super) fn release_if_read(&self, world: &mut World, graph: usize) {
        let Some(submission) = self.submissions.get(graph) else {
            return;
        };
        let is_read = submission
            .held
            .iter()
            .all(|it| submission.read.contains(it));
        if submission.status == Status::Held && is_read {
            let client = self.index;
            world.soon(
                world.scenario.hold_micros,
                Happening::ClientActs {
                    client,
                    act: Act::Release { graph },
                },
            );
        }
    }
}
