//! Tasks that are started before a slot is free for them: where tasks are shorter than the way from the executor to the machine and
//! back, a slot would otherwise idle most of the time. Part of `machine`.
//!
//! They wait at the executor, which runs what it is given in order, each as soon as its slots are free. Only small tasks go
//! ahead, only while the last ones were short and memory is plentiful, and none overtakes a task that waits for more than is free.

use std::collections::VecDeque;

use transload_protocol::{Resources, TaskId, Tier, Time};

use crate::machine::Worker;
use crate::memory::Pressure;
use crate::tasks::Slot;

/// What waits at the executor is to last so long, in microseconds: some times what it takes to hand over more.
const LASTING_MICROS: u64 = 2_000;
/// Tasks that may wait for each slot at the executor, however short they are.
const MOST_PER_SLOT: u64 = 128;
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
    /// Tasks whose ends have arrived and are not part of `pace` yet, and when the first of them was started.
    ended: u32,
    earliest: Time,
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

    /// A task that was started at `started` has ended.
    pub(crate) fn on_done(&mut self, started: Time) {
        self.earliest = match self.ended {
            0 => started,
            _ => self.earliest.min(started),
        };
        self.ended = self.ended.saturating_add(1);
    }

    /// All ends that have arrived by now were told. What tasks spent waiting for others is not their length.
    pub(crate) fn on_time(&mut self, now: Time, slots: u32) {
        let since = self.earliest.max(self.last_end);
        let between = now.micros.saturating_sub(since.micros);
        if self.ended == 0 || between == 0 {
            return;
        }
        // As many as there are slots run side by side, and end so much closer together.
        let length = between.saturating_mul(u64::from(slots.max(1))) / u64::from(self.ended);
        self.last_end = now;
        self.ended = 0;
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
        let Some(pace) = self.ahead.pace.filter(|pace| *pace <= SHORT_MICROS) else {
            return 0;
        };
        let host = self.store.usage().tiers[Tier::Host];
        let is_roomy = host.bytes <= self.limits.tiers[Tier::Host].spill_above_bytes;
        // Those that wait for their slot to come back go first, and the executor knows nothing of slots that are reserved.
        if !self.rejoining.is_empty()
            || self.members_queued > 0
            || !is_roomy
            || self.pressure != Pressure::Calm
        {
            return 0;
        }
        let per_slot = (LASTING_MICROS / pace.max(1)).min(MOST_PER_SLOT);
        let most = per_slot.saturating_mul(self.config.resources.slots.into());
        u32::try_from(most.saturating_sub(self.ahead.len() as u64)).unwrap_or(u32::MAX)
    }

    /// The executor does the same, in the same order.
    pub(crate) fn give_slots_to_those_ahead(&mut self, now: Time) {
        while let Some(task) = self.ahead.waiting.front()
            && let Some(running) = self.running.get_mut(task)
            && self.free.take(&running.layer.resources)
        {
            running.slot = Slot::Held;
            running.began = now;
            self.ahead.waiting.pop_front();
        }
    }
}
