//! Running tasks that wait for others without holding their slot, and get it back before new tasks start. Part of `machine`.
//!
//! Knows nothing of what they wait for. While they wait they count as idle: whatever they wait for may have to run here.

use std::collections::BTreeMap;

use transload_protocol::{
    Attempt, Memory, PartitionId, Resources, TaskId, Tier, Time, WorkerMessage,
};

use crate::Action;
use crate::machine::{Turn, Worker};
use crate::tasks::{Phase, Place, Queued, Running, Slot};

impl Worker {
    pub(crate) fn on_secede(&mut self, task: TaskId, attempt: Attempt, turn: &mut Turn<'_>) {
        let Some(running) = self.attempt(task, attempt) else {
            return;
        };
        let is_wanted = running.phase == Phase::Wanted;
        let resources = running.layer.resources.clone();
        let is_news = match std::mem::replace(&mut running.slot, Slot::Given) {
            Slot::Held => {
                self.free.give_back(&resources);
                self.hand_on_slots(turn.now);
                true
            }
            Slot::Beyond => true,
            // It has begun all the same: the executor passed over one that was stopped, which has the slot here until it answers.
            Slot::Ahead => {
                self.ahead.remove(task);
                true
            }
            Slot::Awaited { ticket } => {
                self.rejoining.remove(&ticket);
                false
            }
            Slot::Given => false,
        };
        // Of an attempt that it has cancelled the scheduler waits for the end alone.
        if is_news && is_wanted {
            self.tell(WorkerMessage::Seceded { task, attempt }, turn);
        }
    }

    pub(crate) fn on_rejoin(&mut self, task: TaskId, attempt: Attempt, turn: &mut Turn<'_>) {
        let ticket = self.next_ticket;
        let Some(running) = self.attempt(task, attempt) else {
            return;
        };
        if running.phase != Phase::Wanted {
            return;
        }
        match running.slot {
            Slot::Held | Slot::Ahead | Slot::Beyond => {
                turn.out.push(Action::Resume { task, attempt });
            }
            Slot::Given if running.layer.gang => self.resume_member(task, attempt, turn),
            Slot::Given => {
                running.slot = Slot::Awaited { ticket };
                self.rejoining.insert(ticket, task);
                self.next_ticket += 1;
            }
            Slot::Awaited { .. } => {}
        }
    }

    /// Lets tasks go on that wait for their slot, first come, first served, and returns what new tasks may take.
    pub(crate) fn resume_tasks(&mut self, turn: &mut Turn<'_>) -> Resources {
        let mut free = self.free.clone();
        self.set_aside_for_members(&mut free);
        let waiting: Vec<TaskId> = self.rejoining.values().copied().collect();
        for task in waiting {
            let Some(running) = self.running.get_mut(&task) else {
                continue;
            };
            let layer = running.layer.clone();
            if !free.take(&layer.resources) {
                // What it waits for is kept for it.
                free.set_aside(&layer.resources);
                continue;
            }
            let attempt = running.attempt;
            if let Slot::Awaited { ticket } = std::mem::replace(&mut running.slot, Slot::Held) {
                self.rejoining.remove(&ticket);
            }
            self.free.take(&layer.resources);
            self.tell(WorkerMessage::Rejoined { task, attempt }, turn);
            turn.out.push(Action::Resume { task, attempt });
        }
        free
    }

    /// A task is being stopped: it needs no slot for that.
    pub(crate) fn wait_no_more(&mut self, task: TaskId) {
        if let Some(running) = self.running.get_mut(&task)
            && let Slot::Awaited { ticket } = running.slot
        {
            running.slot = Slot::Given;
            self.rejoining.remove(&ticket);
        }
    }

    /// A task has ended: what it occupies is free.
    pub(crate) fn vacate(&mut self, task: TaskId, ended: &Running, now: Time) {
        match ended.slot {
            Slot::Held => {
                self.free.give_back(&ended.layer.resources);
                self.hand_on_slots(now);
            }
            Slot::Ahead => self.ahead.remove(task),
            Slot::Given | Slot::Beyond => {}
            Slot::Awaited { ticket } => {
                self.rejoining.remove(&ticket);
            }
        }
    }

    /// Whether a task runs here that will end without any other being started.
    pub(crate) fn is_working(&self) -> bool {
        let are_members_awaited = self.first_member().is_some();
        let mut running = self.running.values();
        running.any(|running| {
            running.is_working() && !(are_members_awaited && running.is_awaiting_members())
        })
    }

    /// Queued tasks that cannot begin before one without its slot has ended go back to the scheduler: what that one waits for may
    /// need the room that they occupy in the scheduler's books, here, or elsewhere for the rest of their gangs.
    pub(crate) fn give_back_held_up(&mut self, turn: &mut Turn<'_>) {
        if self.queue.is_empty() || !self.is_standing_still() {
            return;
        }
        let queue = self.queue.iter();
        let held_up = queue.filter_map(|(place, queued)| {
            let by = self.held_up_by(*place, queued)?;
            Some((*place, queued.attempt, by))
        });
        let held_up: Vec<(Place, Attempt, TaskId)> = held_up.collect();
        for held_up in held_up {
            self.tell_held_up(held_up, turn);
        }
    }

    /// The same of one whose inputs fit into device memory, but not beside those of a task without its slot. Returns whether it was that.
    pub(crate) fn give_back_crowded_out(
        &mut self,
        place: Place,
        tier: Tier,
        turn: &mut Turn<'_>,
    ) -> bool {
        let Some(queued) = self.queue.get(&place).filter(|_| tier == Tier::Device) else {
            return false;
        };
        let on_device = |partition: &PartitionId| {
            let record = self.store.get(*partition);
            record.map_or(0, |it| {
                if it.memory == Memory::Device {
                    it.bytes
                } else {
                    0
                }
            })
        };
        let inputs = queued.distinct_inputs();
        let bytes: u64 = inputs.iter().map(on_device).sum();
        if bytes > self.limits.tiers[tier].bytes {
            return false;
        }
        let occupies = |running: &Running| {
            let mut read = running.inputs.iter();
            read.any(|input| !inputs.contains(input) && on_device(input) > 0)
        };
        let mut running = self.running.iter();
        let by = running.find(|(_, running)| !running.is_working() && occupies(running));
        let Some((by, attempt)) = by.map(|(by, _)| (*by, queued.attempt)) else {
            return false;
        };
        self.tell_held_up((place, attempt, by), turn);
        true
    }

    fn tell_held_up(
        &mut self,
        (place, attempt, by): (Place, Attempt, TaskId),
        turn: &mut Turn<'_>,
    ) {
        let task = place.task;
        self.tell(WorkerMessage::HeldUp { task, attempt, by }, turn);
        self.unqueue(place, turn);
    }

    /// The running task that has to end before a queued one can begin, if there is one.
    fn held_up_by(&self, place: Place, queued: &Queued) -> Option<TaskId> {
        let reader = |partition: PartitionId| {
            let mut running = self.running.iter();
            let reader = running.find(|(_, running)| running.inputs.contains(&partition));
            reader.map(|(task, _)| *task)
        };
        let own = self.store.of_task(place.task).into_iter().find_map(reader);
        if own.is_some() || self.store.is_ready(place) {
            return own;
        }
        let awaited = queued.inputs.iter().find(|input| self.is_awaited(input))?;
        let maker = awaited.partition.task;
        let is_made_here = self.running.contains_key(&maker);
        is_made_here
            .then_some(maker)
            .or_else(|| reader(awaited.partition))
    }

    /// Whether tasks run here and all of them wait: without their slots, or for others of their gangs.
    fn is_standing_still(&self) -> bool {
        let mut running = self.running.values();
        !self.running.is_empty()
            && !self.store.usage().is_in_flight()
            && running.all(|running| !running.is_working() || running.is_awaiting_members())
    }

    /// Those that wait are listed, and none waits for what is free.
    pub(crate) fn check_rejoining(&self, mut free: Resources) -> Result<(), String> {
        self.set_aside_for_members(&mut free);
        let mut waiting = BTreeMap::new();
        for (task, running) in &self.running {
            if let Slot::Awaited { ticket } = running.slot {
                waiting.insert(ticket, *task);
                if running.phase != Phase::Wanted {
                    return Err(format!("{task} is being stopped and waits for its slot"));
                }
            }
        }
        if waiting != self.rejoining {
            return Err(format!(
                "{:?} wait for their slots, tasks say {waiting:?}",
                self.rejoining
            ));
        }
        for task in waiting.values() {
            if let Some(running) = self.running.get(task) {
                if free.take(&running.layer.resources) {
                    return Err(format!("{task} waits for a slot that is free"));
                }
                free.set_aside(&running.layer.resources);
            }
        }
        Ok(())
    }

    fn attempt(&mut self, task: TaskId, attempt: Attempt) -> Option<&mut Running> {
        self.running
            .get_mut(&task)
            .filter(|running| running.attempt == attempt)
    }
}
