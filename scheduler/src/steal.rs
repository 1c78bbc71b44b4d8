//! What an idle worker takes from a busy one: what it can have moved before the other would come to it.
//!
//! Called by `place` for workers that find nothing else. Weighs what `cost` estimates.

use std::cmp::Reverse;

use transload_protocol::Time;

use crate::machine::Scheduler;
use crate::slab::{TaskAt, WorkerSlot};
use crate::worker::Reach;

/// When no idle worker could take anything, none looks again for so long, in microseconds.
const PAUSE_MICROS: u64 = 500;
/// So many of the longest queues are looked into.
const VICTIMS: usize = 8;

/// When and where the next idle worker looks for tasks that queue for others.
#[derive(Debug)]
pub(crate) struct Steals {
    /// Not before this.
    pub(crate) after: Time,
    /// Who is asked first.
    pub(crate) next_thief: WorkerSlot,
}

impl Default for Steals {
    fn default() -> Self {
        Self {
            after: Time::default(),
            next_thief: WorkerSlot(0),
        }
    }
}

impl Steals {
    /// So many workers found nothing; the next to be asked is this one.
    pub(crate) fn end_pass(&mut self, refused: u32, next_thief: WorkerSlot, now: Time) {
        self.next_thief = next_thief;
        if refused > 0 {
            self.after = now.after_micros(PAUSE_MICROS);
        }
    }
}

impl Scheduler {
    /// For a worker with a free slot and nothing to do: a task that queues for another, if what it reads can be moved before
    /// the other would come to the last of its tasks. The first of its layer if that gets it done sooner, else the last.
    pub(crate) fn steal(&self, thief: WorkerSlot) -> Option<TaskAt> {
        let mut victims: Vec<(Reverse<u64>, WorkerSlot)> = self
            .workers
            .slab
            .iter()
            .filter(|(slot, worker)| *slot != thief && !worker.preferred.is_empty())
            .map(|(slot, worker)| (self.wait_micros(slot, worker.preferred.len() - 1), slot))
            .map(|(wait, slot)| (Reverse(wait), slot))
            .collect();
        victims.sort_unstable();
        let mut looked_into = 0;
        for (Reverse(all), victim) in victims {
            let mut is_costly = false;
            let can_take = |at: TaskAt| self.may_take(at, thief);
            let found = self.first_preferring(victim, |at| {
                can_take(at) && {
                    is_costly = self.steal_micros(at, victim, thief) >= all;
                    !is_costly
                }
            });
            if let Some((rank, first)) = found {
                if self.steal_micros(first, victim, thief) < self.wait_micros(victim, 0) {
                    return Some(first);
                }
                let queue = &self.workers.slab[victim].preferred;
                let last = queue.range(..=(rank, u32::MAX)).next_back();
                let last = last.map(|(_, index)| TaskAt {
                    graph: first.graph,
                    index: *index,
                });
                return last
                    .filter(|at| can_take(*at) && self.steal_micros(*at, victim, thief) < all)
                    .or(Some(first));
            }
            looked_into += usize::from(is_costly);
            if looked_into == VICTIMS {
                return None;
            }
        }
        None
    }

    /// Whether the worker has a slot for the task and may run it, which is not pinned to another.
    pub(crate) fn may_take(&self, at: TaskAt, thief: WorkerSlot) -> bool {
        let layer = self.graphs.slab[at.graph].layer_of(at.index);
        !layer.scope.is_each()
            && self.workers.fits(thief, layer, Reach::Slot)
            && !self.avoids(at, thief)
    }

    /// How much later a task could begin at the thief because its inputs have to be moved there, behind those of the tasks that the
    /// thief has already.
    fn steal_micros(&self, at: TaskAt, victim: WorkerSlot, thief: WorkerSlot) -> u64 {
        let others = u64::from(self.workers.slab[thief].occupants());
        let extra = self.extra_micros(at, victim, thief);
        extra.saturating_mul(others.saturating_add(1))
    }

    /// How much longer it takes to get a task's inputs to one worker than to the other.
    pub(crate) fn extra_micros(&self, at: TaskAt, here: WorkerSlot, there: WorkerSlot) -> u64 {
        let there = self.fetch_micros(at, there);
        there.saturating_sub(self.fetch_micros(at, here))
    }
}
