//! What a simulated worker does for operators that ran out of device memory: it must be what was agreed, in that order.

use transload_protocol::{Attempt, LayerSpec, Memory, TaskId, Tier};
use transload_worker::Given;

use super::Process;
use super::work::held;
use crate::graphs::HELPINGS;
use crate::world::{Step, World};

impl Process {
    /// That a task in device memory runs where there is any, and that one that ran out of it is helped in order. Returns how often
    /// this attempt did.
    pub(super) fn check_help(
        &self,
        world: &mut World,
        key: (TaskId, Attempt),
        spec: &LayerSpec,
        halved: bool,
    ) -> Result<u32, String> {
        let task = key.0;
        let on_device = spec.memory == Memory::Device;
        if on_device && self.config.gpu.is_none() {
            return Err(format!("starts {task} without a device to work on"));
        }
        let ran_out = self.ran_out.get(&key).copied().unwrap_or(0);
        let is_helped = on_device && !spec.gang;
        if ran_out > if is_helped { HELPINGS } else { 0 } {
            return Err(format!("starts {task} again, and nothing more can help it"));
        }
        if halved != (ran_out == HELPINGS) {
            return Err(format!(
                "starts {task}, which ran out of memory {ran_out} times, with halved being {halved}"
            ));
        }
        if on_device {
            world.count(match ran_out {
                0 => "tasks started on devices",
                HELPINGS => "tasks started in halves",
                _ => "tasks started on emptied devices",
            });
        }
        Ok(ran_out)
    }

    /// That a device was emptied for a task, where nothing can be in the way of that.
    pub(super) fn check_emptied(&self, world: &World, task: TaskId, inputs: &[Vec<Given>]) -> Step {
        let scenario = &world.scenario;
        let may_stay = scenario.pinned_bytes < scenario.partition_bytes
            || scenario.copy_fails_per_mille > 0
            || scenario.spill_fails_per_mille > 0
            || scenario.disk_bytes < u64::MAX
            || scenario.disk_capacity_bytes < 1 << 40;
        let own = held(inputs);
        let mut stored = self.store.iter().filter(|(id, stored)| {
            stored.occupies(Tier::Device) && stored.bytes > 0 && !own.contains(*id)
        });
        match stored.find(|(id, _)| self.reader_of(**id).is_none()) {
            Some((id, _)) if !may_stay => Err(format!(
                "starts {task} on an emptied device, and {id} is there"
            )),
            Some(_) | None => Ok(()),
        }
    }
}
