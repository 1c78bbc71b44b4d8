//! Tasks that wait at a busy worker while another idles, and are asked back.
//!
//! Called at the end of a step, and by `attempts` when a worker gives a task back. A worker gives back only what has not begun, and
//! each task is asked back once, so that nothing goes to and fro.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use transload_protocol::{Attempt, SchedulerToWorker, TaskId, Time};

use crate::api::Action;
use crate::machine::Scheduler;
use crate::slab::{TaskAt, WorkerSlot};
use crate::task::TaskState;
use crate::worker::FULL;

/// Idle workers are looked for no more often than this, in microseconds.
const PAUSE_MICROS: u64 = 4_000;
/// So many of them, and so many of the busiest workers.
const AT_ONCE: usize = 8;
/// Until a task that is asked back is at another worker, in microseconds: some messages between busy machines.
const ROUND_TRIP_MICROS: u64 = 2_000;

/// What was asked back, and when something may be again.
#[derive(Debug, Default)]
pub(crate) struct Recalls {
    /// Not before this.
    after: Time,
    /// Tasks that were asked back, and for which worker; some of them have been answered otherwise.
    pub(crate) open: BTreeMap<TaskId, WorkerSlot>,
}

impl Recalls {
    /// The worker is gone: nothing is meant for it any more.
    pub(crate) fn forget(&mut self, worker: WorkerSlot) {
        self.open.retain(|_, target| *target != worker);
    }
}

impl Scheduler {
    /// Asks busy workers for tasks that idle ones would have done much sooner. What is ready has been handed out before.
    pub(crate) fn recall(&mut self, out: &mut Vec<Action>) {
        if self.now < self.recalls.after || self.recovery.is_some() {
            return;
        }
        let mut thieves = self.workers.open.below(FULL).peekable();
        if thieves.peek().is_none() {
            return;
        }
        let mut thieves: Vec<WorkerSlot> = thieves.take(AT_ONCE).collect();
        self.recalls.after = self.now.after_micros(PAUSE_MICROS);
        self.drop_answered_recalls();
        thieves.retain(|thief| !self.recalls.open.values().any(|target| target == thief));
        for (wait, victim) in self.longest_queues() {
            let Some(at) = self.last_unstarted(victim) else {
                continue;
            };
            let Some(thief) = self.thief_for(at, victim, wait, &thieves) else {
                continue;
            };
            thieves.retain(|other| *other != thief);
            let graph = &mut self.graphs.slab[at.graph];
            graph.recalled.insert(at.index);
            let task = graph.task_id(at.index);
            let attempt = Attempt(graph.tasks[at.index as usize].attempt);
            self.recalls.open.insert(task, thief);
            out.push(Action::ToWorker {
                worker: self.workers.slab[victim].id,
                message: SchedulerToWorker::Recall { task, attempt },
            });
        }
    }

    /// What has begun, or ended, is not given back.
    fn drop_answered_recalls(&mut self) {
        let graphs = &self.graphs;
        self.recalls.open.retain(|task, _| {
            graphs.find(*task).is_some_and(|at| {
                let state = &graphs.slab[at.graph].tasks[at.index as usize].state;
                matches!(state, TaskState::Assigned { started: false, .. })
            })
        });
    }

    /// Workers with tasks that wait for a slot there, longest wait first: how long the last of them is still to wait.
    fn longest_queues(&self) -> Vec<(u64, WorkerSlot)> {
        let mut queues: Vec<(Reverse<u64>, WorkerSlot)> = self
            .workers
            .slab
            .iter()
            .map(|(slot, worker)| {
                let before = worker.queued().saturating_sub(1);
                let wait = worker.pace.seen_micros_per_task(self.now);
                (Reverse(wait.saturating_mul(before)), slot)
            })
            .filter(|(Reverse(wait), _)| *wait > 2 * ROUND_TRIP_MICROS)
            .collect();
        queues.sort_unstable();
        queues.truncate(AT_ONCE);
        queues
            .into_iter()
            .map(|(Reverse(wait), slot)| (wait, slot))
            .collect()
    }

    /// The task that a worker comes to last, if it was never asked back.
    fn last_unstarted(&self, victim: WorkerSlot) -> Option<TaskAt> {
        let assigned = self.workers.slab[victim].assigned.iter().copied();
        let waits = |at: &TaskAt| {
            let graph = &self.graphs.slab[at.graph];
            let state = &graph.tasks[at.index as usize].state;
            matches!(state, TaskState::Assigned { started: false, .. })
                && !graph.recalled.contains(&at.index)
                && !graph.layer_of(at.index).scope.is_each()
                && !graph.is_of_gang(at.index)
        };
        let rank = |at: &TaskAt| (self.graphs.slab[at.graph].layer_of(at.index).rank, at.index);
        assigned.filter(waits).max_by_key(rank)
    }

    /// An idle worker that would have the task done well before its own worker comes to it.
    fn thief_for(
        &self,
        at: TaskAt,
        victim: WorkerSlot,
        wait: u64,
        thieves: &[WorkerSlot],
    ) -> Option<WorkerSlot> {
        thieves.iter().copied().find(|thief| {
            let cost = self
                .extra_micros(at, victim, *thief)
                .saturating_add(ROUND_TRIP_MICROS);
            *thief != victim && wait > cost.saturating_mul(2) && self.may_take(at, *thief)
        })
    }

    /// A worker has given a task back: whom it was asked back for gets it at once, if it still has a slot for it.
    pub(crate) fn on_given_back(&mut self, at: TaskAt, out: &mut Vec<Action>) {
        self.take_back_ended(at, out);
        let graph = &self.graphs.slab[at.graph];
        let Some(thief) = self.recalls.open.remove(&graph.task_id(at.index)) else {
            return;
        };
        let is_ready = matches!(
            graph.tasks[at.index as usize].state,
            TaskState::Ready { .. }
        );
        if is_ready && self.may_take(at, thief) {
            self.assign(at, thief, out);
        }
    }
}
