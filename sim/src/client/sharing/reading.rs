//! How a client reads what it holds of others' graphs, and checks every value.

use transload_protocol::{OutputLocation, PartitionId, RequestId, TaskId};

use crate::client::Client;
use crate::client::messages::check_output;
use crate::client::reading::is_right;
use crate::world::{Step, World};

impl Client {
    /// An output of another's graph is there.
    pub(in crate::client) fn on_shared_output(
        &mut self,
        world: &mut World,
        output: OutputLocation,
    ) -> Step {
        let task = output.task;
        let Some(plan) = world.plans.get(&task.graph).cloned() else {
            return Err(format!("output {task} of a graph that never was"));
        };
        check_output(&plan, &output)?;
        let mut is_expected = self.shares.past.iter().any(|past| past.contains(task));
        let mut reads = None;
        for (request, hold) in &mut self.shares.holds {
            is_expected |= hold.tasks.is_none();
            if hold.contains(task) {
                is_expected = true;
                hold.located.insert(task.index, output.clone());
                reads = reads.or(hold.reads.then_some(*request));
            }
        }
        if !is_expected {
            return Err(format!("client {} does not hold {task}", self.index));
        }
        match reads {
            Some(request) => self.read_shared(world, request, &output),
            None => Ok(()),
        }
    }

    pub(in crate::client) fn forget_shared(&mut self, task: TaskId) {
        for hold in self.shares.holds.values_mut() {
            if hold.contains(task) {
                hold.located.remove(&task.index);
            }
        }
    }

    fn read_shared(
        &mut self,
        world: &mut World,
        request: RequestId,
        output: &OutputLocation,
    ) -> Step {
        let task = output.task;
        let Some(hold) = self.shares.holds.get(&request) else {
            return Ok(());
        };
        if hold.read.contains(&task.index) {
            return Ok(());
        }
        let read = hold.partly_read.get(&task.index).cloned();
        self.fetch_outputs(world, output, &read.unwrap_or_default())
    }

    /// A partition of another's graph is here.
    pub(in crate::client) fn receive_shared(
        &mut self,
        world: &mut World,
        partition: PartitionId,
        what: (u64, u64),
    ) -> Step {
        let task = partition.task;
        let Some(plan) = world.plans.get(&task.graph).cloned() else {
            return Ok(());
        };
        if !is_right(&plan, partition, what) {
            return Err(format!(
                "client {} read a wrong value in {partition}, which it holds",
                self.index
            ));
        }
        let mut holds = self.shares.holds.iter_mut();
        let Some((request, hold)) = holds.find(|(_, hold)| hold.reads && hold.contains(task))
        else {
            return Ok(());
        };
        let request = *request;
        let read = hold.partly_read.entry(task.index).or_default();
        read.insert(partition.output);
        if read.len() == plan.values_of(task.index).len() {
            hold.partly_read.remove(&task.index);
            hold.read.insert(task.index);
            world.count("outputs of others read");
            let count = hold.tasks.map_or(0, |tasks| tasks.count);
            if hold.read.len() == count as usize {
                self.let_go_later(world, request);
            }
        }
        Ok(())
    }
}
