//! Which tasks start, and what their ends mean; the plan that is made after every input. Part of `machine`.

use std::collections::btree_map::Entry;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use transload_protocol::{
    Attempt, InputLocation, Memory, OutputSizes, PartitionId, TaskErrorKind, TaskId, Tier, Time,
    WorkerMessage,
};

use crate::Action;
use crate::ahead::may_go_ahead;
use crate::machine::{Turn, Worker};
use crate::memory::{Pressure, Shortage};
use crate::store::{Claim, Need, State};
use crate::tasks::{Help, Phase, Place, Queued, Running, Slot, has_bytes};

/// Whether memory allows a task to start whose inputs are all there.
enum Permission {
    Start,
    Wait,
    Refuse,
}

impl Worker {
    /// Brings decisions up to date: evict what is too much, start what can start, ask for what is missing.
    pub(crate) fn plan(&mut self, turn: &mut Turn<'_>) {
        self.give_back_held_up(turn);
        loop {
            self.spill_excess(turn);
            while self.start_tasks(turn) {}
            let before = self.pressure;
            self.pressure = self.request_inputs(turn);
            let is_over = before != Pressure::Calm && self.pressure == Pressure::Calm;
            // Tasks that did not start for the sake of a starved one may start when it is no longer starved.
            if !self.relieve(turn) && !is_over {
                return;
            }
        }
    }

    /// The next in the queue after `place`.
    pub(crate) fn place_after(&self, place: Option<Place>) -> Option<Place> {
        let next = match place {
            None => self.queue.first_key_value(),
            Some(place) => self.queue.range((Excluded(place), Unbounded)).next(),
        };
        next.map(|(place, _)| *place)
    }

    /// The task that goes first: a member of a gang, if there is one, since others wait for it while they run; then one for which the
    /// device is emptied, since nobody can use it meanwhile. One that has to wait for a task without its slot is passed over: what
    /// that one waits for may be behind it.
    pub(crate) fn head(&self) -> Option<Place> {
        let first = self.place_after(None)?;
        if let Some(ahead) = self.first_member().or_else(|| self.first_helped()) {
            return Some(ahead);
        }
        if self.running.is_empty() || self.is_working() {
            return Some(first);
        }
        let mut queue = self.queue.iter();
        queue
            .find(|(place, queued)| !self.is_held_up(**place, queued))
            .map(|(place, _)| *place)
    }

    /// The first queued task that is helped with device memory and could be brought to run.
    fn first_helped(&self) -> Option<Place> {
        if self.helped == 0 {
            return None;
        }
        let mut helped = self.queue.iter().filter(|(_, it)| it.help > Help::None);
        let first = helped.find(|(place, queued)| !self.is_held_up(**place, queued));
        first.map(|(place, _)| *place)
    }

    /// It waits for a running task: for its output, or for it to have read what is to be replaced, of this task or of one
    /// that both read.
    pub(crate) fn is_held_up(&self, place: Place, queued: &Queued) -> bool {
        self.is_output_in_the_way(place.task)
            || !self.store.is_ready(place) && queued.inputs.iter().any(|it| self.is_awaited(it))
    }

    /// An input cannot be had before a running task has made it anew, or has read what is to be replaced.
    pub(crate) fn is_awaited(&self, input: &InputLocation) -> bool {
        let record = self.store.get(input.partition);
        let is_read = record.is_some_and(|record| {
            record.claim == Claim::Released && matches!(record.state, State::Ready { pins: 1.. })
        });
        has_bytes(input) && (is_read || self.running.contains_key(&input.partition.task))
    }

    /// Whether a task has failed instead: others may be waiting for what it occupied.
    fn start_tasks(&mut self, turn: &mut Turn<'_>) -> bool {
        if self.queue.is_empty() && self.rejoining.is_empty() {
            return false;
        }
        let mut free = self.resume_tasks(turn);
        let mut ahead = self.room_ahead();
        let mut cursor = None;
        while let Some(place) = self.place_after(cursor) {
            if free.slots == 0 && self.slotless == 0 && ahead == 0 {
                // A long queue behind busy slots costs nothing.
                return false;
            }
            cursor = Some(place);
            if !self.store.is_ready(place) {
                match self.pressure {
                    Pressure::Starved { head, .. } | Pressure::Overcommitted { head }
                        if head == place =>
                    {
                        return false;
                    }
                    Pressure::Starved { .. } | Pressure::Overcommitted { .. } | Pressure::Calm => {
                        continue;
                    }
                }
            }
            if self.is_output_in_the_way(place.task) {
                continue;
            }
            let Some(queued) = self.queue.get(&place) else {
                continue;
            };
            let slot = if queued.layer.gang {
                if !queued.is_reserved {
                    // Also where it is less than the member asks for, which waits for it then.
                    free.set_aside(&queued.layer.resources);
                }
                Some(self.slot_of_member(queued))
            } else if free.take(&queued.layer.resources) {
                Some(Slot::Held)
            } else if ahead > 0 && may_go_ahead(&queued.layer.resources) {
                ahead -= 1;
                Some(Slot::Ahead)
            } else {
                None
            };
            let Some(slot) = slot else {
                // Nothing overtakes it on the way to the slots.
                ahead = 0;
                // What it waits for is kept for it, so that smaller tasks behind it cannot starve it.
                free.set_aside(&queued.layer.resources);
                continue;
            };
            let is_source = queued.inputs.is_empty();
            let (memory, help) = (queued.layer.memory, queued.help);
            // For one at a time: what is in the way of this one may be what the head needs.
            let is_helped = help > Help::None;
            if is_helped && (self.head() != Some(place) || !self.empty_device(place, turn)) {
                // What it was to occupy is kept for it: `free` is what those behind may have.
                ahead = 0;
                continue;
            }
            match self.permission(is_source, memory) {
                Permission::Start => self.start(place, slot, turn),
                Permission::Wait => return false,
                Permission::Refuse => {
                    self.fail_for_lack_of_disk(place, Tier::Host, turn);
                    return true;
                }
            }
        }
        false
    }

    /// An earlier attempt of the task runs, or something of its outputs is not gone yet.
    fn is_output_in_the_way(&self, task: TaskId) -> bool {
        self.running.contains_key(&task) || self.store.has_any_of(task)
    }

    /// While memory is overfull, the next task starts only when nothing that runs or moves can relieve it.
    fn permission(&self, is_source: bool, memory: Memory) -> Permission {
        let usage = self.store.usage();
        let is_over = |tier| usage.tiers[tier].bytes > self.limits.tiers[tier].bytes;
        if memory == Memory::Device && is_over(Tier::Device) {
            // What can leave is on its way.
            if self.is_working() || usage.is_moving() {
                return Permission::Wait;
            }
        }
        if !is_over(Tier::Host) {
            return Permission::Start;
        }
        if self.is_working() || usage.disk_operations > 0 {
            return Permission::Wait;
        }
        // A task with inputs may start: it ends their use. One without would only add to the excess.
        match &self.obstacle {
            Some(obstacle) if is_source && obstacle.is_charged => Permission::Wait,
            Some(_) if is_source => Permission::Refuse,
            Some(_) | None => Permission::Start,
        }
    }

    fn start(&mut self, place: Place, slot: Slot, turn: &mut Turn<'_>) {
        let Some(queued) = self.queue.remove(&place) else {
            return;
        };
        self.slotless -= usize::from(queued.is_slotless());
        self.helped -= usize::from(queued.help > Help::None);
        let task = place.task;
        self.places.remove(&task);
        let inputs = queued.distinct_inputs();
        for partition in &inputs {
            self.store.pin(*partition);
            self.store.remove_need(*partition, place);
        }
        self.members_queued -= usize::from(queued.layer.gang);
        if slot == Slot::Ahead {
            self.ahead.push(task);
        } else if slot == Slot::Held && !queued.is_reserved {
            self.free.take(&queued.layer.resources);
        }
        let attempt = queued.attempt;
        turn.out.push(Action::Start {
            task,
            attempt,
            layer: queued.layer_index,
            inputs: queued.inputs_by_position(),
            halved: queued.help == Help::Halved,
        });
        let help = queued.help;
        let may_return = queued.layer.memory == Memory::Device
            && !queued.layer.gang
            && queued.help < Help::Halved;
        let running = Running {
            attempt,
            layer: Arc::clone(&queued.layer),
            inputs,
            help,
            queued: may_return.then(|| Box::new((place, queued))),
            phase: Phase::Wanted,
            slot,
            started: turn.now,
            began: turn.now,
        };
        self.running.insert(task, running);
        if help == Help::None {
            self.tell(WorkerMessage::Started { task, attempt }, turn);
        }
    }

    /// Takes an ended task out and gives back what it held, if that attempt runs here.
    fn end(&mut self, task: TaskId, attempt: Attempt, now: Time) -> Option<Running> {
        let Entry::Occupied(entry) = self.running.entry(task) else {
            return None;
        };
        if entry.get().attempt != attempt {
            return None;
        }
        let running = entry.remove();
        self.vacate(task, &running, now);
        for partition in &running.inputs {
            self.store.unpin(*partition);
        }
        Some(running)
    }

    pub(crate) fn on_task_done(
        &mut self,
        task: TaskId,
        attempt: Attempt,
        (bytes, rows): (Vec<u64>, u64),
        turn: &mut Turn<'_>,
    ) {
        let outputs = (0..).zip(&bytes).map(|(output, bytes)| {
            let partition = PartitionId { task, output };
            (partition, *bytes)
        });
        let Some(running) = self.end(task, attempt, turn.now) else {
            // Not ours. What it left in the driver's store must not stay there.
            let strays = outputs.map(|(partition, _)| partition);
            for partition in strays.filter(|partition| self.store.get(*partition).is_none()) {
                turn.out.push(Action::Drop { partition });
            }
            return;
        };
        self.ahead.on_done(running.started);
        match running.phase {
            Phase::Wanted | Phase::Cancelled => {
                let memory = self.limits.memory_here(running.layer.memory);
                for (partition, bytes) in outputs {
                    self.store.add_output(partition, bytes, memory);
                }
                if running.layer.gang {
                    self.of_gangs.insert(task, attempt);
                }
                let sizes = OutputSizes {
                    rows,
                    ..OutputSizes::of(&bytes)
                };
                let message = WorkerMessage::Finished {
                    task,
                    attempt,
                    sizes,
                    run_micros: running.run_micros(turn.now),
                };
                self.tell(message, turn);
            }
            Phase::Disowned => {
                for (partition, _) in outputs {
                    turn.out.push(Action::Drop { partition });
                }
                self.tell(WorkerMessage::Cancelled { task, attempt }, turn);
            }
        }
        self.settle_all(running, turn);
    }

    pub(crate) fn on_task_failed(
        &mut self,
        task: TaskId,
        attempt: Attempt,
        (kind, message, step): (TaskErrorKind, String, Option<u32>),
        turn: &mut Turn<'_>,
    ) {
        let Some(mut running) = self.end(task, attempt, turn.now) else {
            return;
        };
        match running.phase {
            Phase::Wanted => match running.queued.take() {
                Some(queued) if kind == TaskErrorKind::OutOfMemory && self.may_queue(&queued.1) => {
                    self.queue_again(*queued, turn);
                }
                Some(_) | None => {
                    let names = Some(running.layer.names(step));
                    let run_micros = running.run_micros(turn.now);
                    let error = (kind, message);
                    self.tell_failed_after(run_micros, (task, attempt), names, error, turn);
                }
            },
            Phase::Cancelled | Phase::Disowned => {
                self.tell(WorkerMessage::Cancelled { task, attempt }, turn);
            }
        }
        self.settle_all(running, turn);
    }

    /// Whether everything that a task read is still here to be read, and not about to be made anew.
    fn may_queue(&self, queued: &Queued) -> bool {
        let inputs = queued.distinct_inputs();
        inputs.iter().all(|input| {
            let record = self.store.get(*input);
            let is_kept = record.is_some_and(|record| record.claim != Claim::Released);
            is_kept && !self.places.contains_key(&input.task)
        })
    }

    /// A task that works in device memory ran out of it, and runs again with more of it. Its inputs are where they were.
    fn queue_again(&mut self, (place, mut queued): (Place, Queued), turn: &mut Turn<'_>) {
        // Who counted on its outputs is told that they are not to be had now.
        self.replace_outputs(place.task, turn);
        queued.help = match queued.help {
            Help::None => Help::Emptied,
            Help::Emptied | Help::Halved => Help::Halved,
        };
        for input in queued.inputs.iter().filter(|input| has_bytes(input)) {
            let need = Need {
                from: input.worker,
                shared: input.shared,
            };
            let memory = self.limits.memory_here(queued.layer.memory_of(input));
            let (id, bytes) = (input.partition, input.bytes);
            self.store.add_need(id, place, need, (bytes, memory));
        }
        self.helped += 1;
        self.places.insert(place.task, place);
        self.slotless += usize::from(queued.is_slotless());
        self.queue.insert(place, queued);
    }

    fn settle_all(&mut self, running: Running, turn: &mut Turn<'_>) {
        for partition in running.inputs {
            self.settle(partition, turn);
        }
    }

    /// Ends a standstill that the shortage of memory caused. Returns whether it did something.
    fn relieve(&mut self, turn: &mut Turn<'_>) -> bool {
        let Pressure::Starved { head, tier, cause } = self.pressure else {
            return false;
        };
        if self.is_working() || self.store.usage().is_in_flight() {
            return false;
        }
        match (cause, tier) {
            (Shortage::NothingToEvict, Tier::Host | Tier::Disk) => {
                self.pressure = Pressure::Overcommitted { head };
                true
            }
            (
                Shortage::Refused {
                    by: Tier::PinnedHost,
                },
                _,
            ) if self.is_refused_for_now() => false,
            _ if self.give_back_crowded_out(head, tier, turn) => true,
            // Nothing is behind it that could be used in its place.
            (
                Shortage::NothingToEvict
                | Shortage::Refused {
                    by: Tier::PinnedHost,
                },
                _,
            ) => {
                self.fail_for_lack_of_memory(head, tier, turn);
                true
            }
            (Shortage::Refused { .. }, _) => {
                let is_charged = self
                    .obstacle
                    .as_ref()
                    .is_none_or(|obstacle| obstacle.is_charged);
                if !is_charged {
                    self.fail_for_lack_of_disk(head, tier, turn);
                }
                !is_charged
            }
        }
    }
}
