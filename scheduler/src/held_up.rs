//! Tasks that a worker gave back because they would have to wait there for one that waits without its slot.
//!
//! That one still reads what they would replace, or leaves no room on a device for what they read. In its worker's queue they would occupy the room for which it may be waiting; so
//! they wait here, or run elsewhere, until something has ended there. Called by `members`, asked by `place` and `gang`.

use transload_protocol::{Attempt, TaskErrorKind, TaskId, WorkerMessage};

use crate::api::Action;
use crate::attempts::Standing;
use crate::machine::Scheduler;
use crate::ready::Rank;
use crate::slab::{GraphSlot, TaskAt, WorkerSlot};
use crate::task::TaskState;
use crate::worker::Workers;

impl Workers {
    /// Whether the task was given back by this worker, where what it would have waited for has not ended yet.
    #[inline]
    pub(crate) fn is_held_up(&self, worker: WorkerSlot, at: TaskAt) -> bool {
        !self.held_up.is_empty() && self.held_up.contains_key(&(worker, at))
    }

    /// A graph is gone.
    pub(crate) fn forget_hold_ups(&mut self, graph: GraphSlot) {
        self.held_up.retain(|(_, at), _| at.graph != graph);
    }

    /// A task has ended on a worker: what it held up there may be tried again.
    fn end_hold_ups(&mut self, worker: WorkerSlot, task: TaskId) {
        let before = self.held_up.len();
        let is_over = |at: WorkerSlot, by: TaskId| at == worker && by == task;
        self.held_up.retain(|(at, _), by| !is_over(*at, *by));
        if self.held_up.len() < before {
            self.change(worker);
        }
    }
}

impl Scheduler {
    /// To be called for every message of a worker: some of them tell the end of what holds up others there.
    #[inline]
    pub(crate) fn watch_hold_ups(&mut self, worker: WorkerSlot, message: &WorkerMessage) {
        if self.workers.held_up.is_empty() {
            return;
        }
        let ended = match message {
            WorkerMessage::Finished { task, .. }
            | WorkerMessage::MissingInputs { task, .. }
            | WorkerMessage::HeldUp { task, .. }
            | WorkerMessage::Cancelled { task, .. } => *task,
            WorkerMessage::Failed { error, .. } => error.task,
            WorkerMessage::Started { .. }
            | WorkerMessage::Lost { .. }
            | WorkerMessage::Heartbeat { .. }
            | WorkerMessage::Events { .. }
            | WorkerMessage::Goodbye
            | WorkerMessage::Seceded { .. }
            | WorkerMessage::Rejoined { .. }
            | WorkerMessage::Inventory(_) => return,
        };
        self.workers.end_hold_ups(worker, ended);
    }

    pub(crate) fn on_held_up(
        &mut self,
        worker: WorkerSlot,
        (task, attempt): (TaskId, Attempt),
        by: TaskId,
        out: &mut Vec<Action>,
    ) {
        match self.standing(worker, task, attempt) {
            Standing::Cancelled => self.close_cancel(task),
            Standing::Current { at, .. } if self.waits_for(by, at) => {
                let reason = format!(
                    "its inputs do not fit into device memory beside those of task {by}, which waits for it; \
                     cut the work into smaller partitions, or give the worker more with --gpu-memory"
                );
                let what = (TaskErrorKind::OutOfMemory, reason);
                let error = self.error_of(at, Some(worker), what, 0);
                self.on_failed(worker, attempt, (error, 0), out);
            }
            Standing::Current { at, .. } => {
                if by != task && self.will_end_on(worker, by) {
                    self.workers.held_up.insert((worker, at), by);
                }
                self.on_given_back(at, out);
            }
            Standing::Stale => {}
        }
    }

    /// Whether the graph of a task was submitted by that task, or by one that it waits for: neither would ever end.
    fn waits_for(&self, by: TaskId, at: TaskAt) -> bool {
        let parent_of = |at: TaskAt| self.graphs.slab[at.graph].compiled.parent();
        let mut outer = parent_of(at);
        while let Some(task) = outer.filter(|task| *task != by) {
            outer = self.graphs.find(task).and_then(parent_of);
        }
        outer.is_some()
    }

    /// Whether the worker is still to tell the end of that task.
    fn will_end_on(&self, worker: WorkerSlot, task: TaskId) -> bool {
        let cancel = self.cancels.get(&task);
        let is_assigned = self.graphs.find(task).is_some_and(|at| {
            let state = &self.graphs.slab[at.graph].tasks[at.index as usize].state;
            matches!(state, TaskState::Assigned { worker: there, .. } if *there == worker)
        });
        is_assigned || cancel.is_some_and(|cancel| cancel.worker == worker)
    }

    /// Whether a member of the gang is held up on this worker, or on any.
    pub(crate) fn is_gang_held_up(&self, rank: &Rank, on: Option<WorkerSlot>) -> bool {
        let mut held_up = self.workers.held_up.keys();
        held_up.any(|(worker, at)| {
            on.is_none_or(|on| on == *worker)
                && at.graph == rank.graph
                && self.graphs.slab[at.graph].layer_of(at.index).rank == *rank
        })
    }

    /// What holds up a ready task, and where, in words.
    pub(crate) fn explain_hold_ups(&self, at: TaskAt) -> impl Iterator<Item = String> {
        let held_up = self.workers.held_up.iter();
        let its = held_up.filter(move |((_, other), _)| *other == at);
        its.map(|((worker, _), by)| {
            format!(
                "it cannot begin on {} before task {by} has ended there, which has what it needs, and waits without its slot",
                self.worker_name(*worker)
            )
        })
    }
}
