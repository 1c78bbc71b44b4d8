//! Members of gangs: tasks that wait for each other while they run, here and on other workers. Part of `machine`.
//!
//! None of them ever waits for a slot that another task could hold while it waits for the gang: what a member asks for is taken when
//! it is assigned, and one that comes back after a wait without its slot goes on at once, beyond what the worker offers if need
//! be. And none waits for memory that a running member holds.

use transload_protocol::{Attempt, Resources, TaskId, Time, WorkerMessage};

use crate::Action;
use crate::machine::{Turn, Worker};
use crate::tasks::{Place, Queued, Running, Slot};

impl Worker {
    /// Takes for a member what it will occupy. Whoever came back to its slot at this very moment may have it.
    pub(crate) fn reserve(&mut self, resources: &Resources) -> bool {
        self.free.take(resources)
    }

    /// A task leaves the queue without having started.
    pub(crate) fn unreserve(&mut self, queued: &Queued, now: Time) {
        self.members_queued -= usize::from(queued.layer.gang);
        if queued.is_reserved {
            self.free.give_back(&queued.layer.resources);
            self.hand_on_slots(now);
        }
    }

    /// What a member that starts now will occupy. It goes before those who want their slots back.
    pub(crate) fn slot_of_member(&self, queued: &Queued) -> Slot {
        if queued.is_reserved || self.free.covers(&queued.layer.resources) {
            Slot::Held
        } else {
            Slot::Beyond
        }
    }

    /// A member goes on after a wait without its slot.
    pub(crate) fn resume_member(&mut self, task: TaskId, attempt: Attempt, turn: &mut Turn<'_>) {
        if let Some(running) = self.running.get_mut(&task) {
            running.slot = if self.free.take(&running.layer.resources) {
                Slot::Held
            } else {
                Slot::Beyond
            };
            self.tell(WorkerMessage::Rejoined { task, attempt }, turn);
            turn.out.push(Action::Resume { task, attempt });
        }
    }

    /// Something is free: first those get it who run without.
    pub(crate) fn hand_on_slots(&mut self, now: Time) {
        for running in self.running.values_mut() {
            if running.slot == Slot::Beyond && self.free.take(&running.layer.resources) {
                running.slot = Slot::Held;
            }
        }
        self.give_slots_to_those_ahead(now);
    }

    /// Nobody else starts on what members wait for who run without.
    pub(crate) fn set_aside_for_members(&self, free: &mut Resources) {
        let running = self.running.values();
        for member in running.filter(|running| running.slot == Slot::Beyond) {
            free.set_aside(&member.layer.resources);
        }
    }

    /// The first queued member that could be brought to run. Running members may wait for it, be it through others elsewhere.
    pub(crate) fn first_member(&self) -> Option<Place> {
        if self.members_queued == 0 {
            return None;
        }
        let mut members = self.queue.iter().filter(|(_, queued)| queued.layer.gang);
        let first = members.find(|(place, queued)| !self.is_held_up(**place, queued));
        first.map(|(place, _)| *place)
    }

    /// What queued members occupy is taken out of `free`.
    pub(crate) fn check_members(&self, free: &mut Resources) -> Result<(), String> {
        let members = self.queue.iter().filter(|(_, queued)| queued.layer.gang);
        if members.clone().count() != self.members_queued {
            return Err(format!(
                "{} members of gangs said to be queued",
                self.members_queued
            ));
        }
        for (place, queued) in members {
            if queued.is_reserved && !free.take(&queued.layer.resources) {
                return Err(format!("there is no room for what {} reserved", place.task));
            }
        }
        let is_beyond = |running: &&Running| running.slot == Slot::Beyond;
        let mut beyond = self.running.values().filter(is_beyond);
        let alone = beyond
            .find(|running| !running.layer.gang || self.free.covers(&running.layer.resources));
        match alone {
            Some(running) => Err(format!(
                "a task of `{}` runs beyond what is offered",
                running.layer.name
            )),
            None => Ok(()),
        }
    }
}
