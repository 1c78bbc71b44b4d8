//! Tasks that are started before a slot is free for them: where tasks are shorter than the way from the executor to the machine and
//! back, a slot would otherwise idle most of the time. Part of `machine`.
//!
//! They wait at the executor, which runs what it is given in order, each as soon as its slots are free. Only small tasks go
//! ahead, only while the last ones were short and memory is plentiful, and none overtakes a task that waits for more than is free.

use std::collections::VecDeque;

use transload_protocol::{Resources, TaskId, Time};

use crate::machine::Worker;
use crate::memory::Pressure;
use crate::tasks::Slot;

/// Tasks that may wait for each slot at the executor. Handing over so many takes a fraction of a millisecond.
const PER_SLOT: u32 = 16;
/// Tasks up to this length are short, in microseconds: some times what handing one over takes.
const SHORT_MICROS: u64 = 300;

/// Who has gone ahead, and how long tasks take.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ahead {
    /// In the order in which they get slots.
    waiting: VecDeque<TaskId>,
    /// Length of the last tasks, in microseconds; none has ended yet at first.
    pace: Option<u64>,
    last_end: Time,
}

impl Ahead {
    pub(crate) fn push(&mut self, task: TaskId) {
        self.waiting.push_back(task);
    }

    pub(crate) fn remove(&mut self, task: TaskId) {
        self.waiting.retain(|waiting| *waiting != task);
    }

    pub(crate) fn contains(&self, task: TaskId) -> bool {
        self.waiting.contains(&task)
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// A task that was started at `started` has ended. What it spent waiting for others is not its length.
    pub(crate) fn on_done(&mut self, started: Time, now: Time, slots: u32) {
        let since = started.max(self.last_end);
        let between = now.micros.saturating_sub(since.micros);
        // As many as there are slots run side by side, and end so much closer together.
        let length = between.saturating_mul(u64::from(slots.max(1)));
        self.last_end = now;
        if between == 0 {
            // Several ends at one reading of the clock say nothing.
            return;
        }
        self.pace = Some(match self.pace {
            None => length,
            Some(pace) => pace - pace / 8 + length / 8,
        });
    }
}

/// One slot and nothing else: whatever is in front of it, it gets its turn.
pub(crate) fn may_go_ahead(resources: &Resources) -> bool {
    resources.slots == 1 && resources.memory_bytes == 0 && resources.named.is_empty()
}

impl Worker {
    /// How many more tasks may go ahead now.
    pub(crate) fn room_ahead(&self) -> u32 {
        let is_short = self.ahead.pace.is_some_and(|pace| pace <= SHORT_MICROS);
        let is_roomy = self.store.usage().host_bytes <= self.limits.spill_above_bytes;
        // Those that wait for their slot to come back go first.
        if !self.rejoining.is_empty() || !is_short || !is_roomy || self.pressure != Pressure::Calm {
            return 0;
        }
        let most = self.config.resources.slots.saturating_mul(PER_SLOT);
        most.saturating_sub(u32::try_from(self.ahead.len()).unwrap_or(u32::MAX))
    }

    /// The executor does the same, in the same order.
    pub(crate) fn give_slots_to_those_ahead(&mut self) {
        while let Some(task) = self.ahead.waiting.front()
            && let Some(running) = self.running.get_mut(task)
            && self.free.take(&running.layer.resources)
        {
            running.slot = Slot::Held;
            self.ahead.waiting.pop_front();
        }
    }
}
