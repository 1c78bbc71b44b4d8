//! The one function that changes a task's state, and what follows from a change alone: counters, queues, resources.
//!
//! Called by `lineage` and `place`, which decide what the next state is. Knows nothing of messages.

use std::mem;

use tracing::trace;

use crate::graph::Progress;
use crate::machine::Scheduler;
use crate::slab::TaskAt;
use crate::task::TaskState;

impl Scheduler {
    /// Moves a task to its next state and returns the one it left. Everything that is counted or queued by state is
    /// brought along; inputs, readers and messages are the caller's.
    pub(crate) fn set_state(&mut self, at: TaskAt, next: TaskState) -> TaskState {
        let graph = &mut self.graphs.slab[at.graph];
        let task = &mut graph.tasks[at.index as usize];
        let layer = &mut graph.layers[task.layer() as usize];
        trace!(graph = %graph.id, task = at.index, from = task.state.name(), to = next.name());
        let old = mem::replace(&mut task.state, next);
        let new = &task.state;
        let position = at.index - layer.first_task;
        let (was_to_do, is_to_do) = (old.is_to_do(), new.is_to_do());
        let (was_stored, is_stored) = (old.is_stored(), new.is_stored());

        match &old {
            TaskState::Culled | TaskState::Waiting { .. } => {}
            TaskState::Ready { prefers: None } => {
                layer.ready.remove(position);
                if let Some(families) = &mut layer.families {
                    families.on_taken(position);
                }
                if layer.is_stuck {
                    self.ready.stuck.one_less(layer);
                } else if layer.gang.is_some() {
                    self.gangs.one_less(layer);
                } else {
                    self.ready.open -= 1;
                    if layer.ready.is_empty() {
                        self.ready.remove_layer(&layer.rank);
                    }
                }
            }
            TaskState::Ready {
                prefers: Some(worker),
            } => {
                let entry = (layer.rank, at.index);
                self.workers.slab[*worker].preferred.remove(&entry);
                *self.ready.in_queues(layer) -= 1;
            }
            TaskState::Assigned { worker, .. } => {
                layer.counts.running -= 1;
                if layer.time_limit_ms.is_some() {
                    self.attempt_limits.end(at);
                }
                if self.ready.shares.are_contended()
                    && !self.workers.slab[*worker].seceded.contains(&at)
                {
                    self.ready.shares.refund(layer.rank.share, &layer.resources);
                }
                self.workers.unassign(*worker, at, &layer.resources);
            }
            TaskState::Ended { worker, .. } => {
                layer.counts.running -= 1;
                self.workers.slab[*worker].stored -= 1;
                if let Some(gang) = &mut layer.gang {
                    gang.ended.remove(&at.index);
                }
            }
            TaskState::Done { worker, .. } => {
                layer.counts.done -= 1;
                self.workers.slab[*worker].stored -= 1;
            }
            TaskState::Released => layer.counts.done -= 1,
        }
        match new {
            TaskState::Culled | TaskState::Waiting { .. } => {}
            TaskState::Ready { prefers: None } => {
                if layer.is_stuck {
                    self.ready.stuck.one_more();
                } else if let Some(gang) = &layer.gang {
                    let is_last = layer.ready.len() + 1 == gang.members;
                    self.gangs.one_more(layer.rank, is_last);
                    if is_last {
                        self.ready.unproven.push(layer.rank);
                    }
                } else {
                    if layer.ready.is_empty() {
                        self.ready.insert_layer(&layer.rank);
                        self.ready.unproven.push(layer.rank);
                    }
                    self.ready.open += 1;
                }
                layer.ready.insert(position);
                if let Some(families) = &mut layer.families
                    && task.attempt > 0
                {
                    families.on_returned(position);
                }
            }
            TaskState::Ready {
                prefers: Some(worker),
            } => {
                let entry = (layer.rank, at.index);
                self.workers.slab[*worker].preferred.insert(entry);
                *self.ready.in_queues(layer) += 1;
                self.workers.change(*worker);
            }
            TaskState::Assigned { worker, .. } => {
                layer.counts.running += 1;
                self.ready.shares.charge(layer.rank.share, &layer.resources);
                self.workers.assign(*worker, at, &layer.resources);
            }
            TaskState::Ended { worker, .. } => {
                layer.counts.running += 1;
                self.workers.slab[*worker].stored += 1;
            }
            TaskState::Done { worker, .. } => {
                layer.counts.done += 1;
                self.workers.slab[*worker].stored += 1;
            }
            TaskState::Released => layer.counts.done += 1,
        }
        if layer.goal {
            match (old.is_settled(), new.is_settled()) {
                (false, true) => graph.goals_left -= 1,
                (true, false) => graph.goals_left += 1,
                (true, true) | (false, false) => {}
            }
        }
        let own = task.layer();
        match (was_to_do, is_to_do) {
            (false, true) => {
                layer.to_do += 1;
                if layer.to_do == 1 {
                    graph.begin_reading(own);
                }
            }
            (true, false) => {
                layer.to_do -= 1;
                if layer.to_do == 0 {
                    graph.end_reading(own);
                }
            }
            (true, true) | (false, false) => {}
        }
        if was_stored != is_stored {
            for feed in 0..graph.layers[own as usize].feeds.len() {
                let (reader, barrier) = graph.layers[own as usize].feeds[feed];
                let barrier = &mut graph.layers[reader as usize].barriers[barrier as usize];
                if is_stored {
                    barrier.one_done();
                } else {
                    barrier.one_undone();
                }
            }
        }
        if let Progress::Told { at: last } = graph.progress {
            let interval = u64::from(self.config.progress_interval_ms) * 1_000;
            let due = last.map_or(self.now, |last| self.now.max(last.after_micros(interval)));
            graph.progress = Progress::Due { at: due };
            self.progress_due.insert((due, at.graph));
        }
        old
    }

    /// The worker of an assigned task says that it runs.
    pub(crate) fn note_started(&mut self, at: TaskAt) {
        if let TaskState::Assigned { started, .. } =
            &mut self.graphs.slab[at.graph].tasks[at.index as usize].state
        {
            trace!(task = at.index, "started");
            if !std::mem::replace(started, true) {
                self.begin_attempt_limit(at);
            }
        }
    }

    /// A task's input is done: it misses one less, and is ready when it misses none.
    pub(crate) fn one_missing_less(&mut self, at: TaskAt) {
        match &mut self.graphs.slab[at.graph].tasks[at.index as usize].state {
            TaskState::Waiting { missing } if *missing > 1 => *missing -= 1,
            TaskState::Waiting { .. } => self.make_ready(at),
            // It runs with what it has, or has no more use for it.
            TaskState::Culled
            | TaskState::Ready { .. }
            | TaskState::Assigned { .. }
            | TaskState::Ended { .. }
            | TaskState::Done { .. }
            | TaskState::Released => {}
        }
    }

    /// A task's input is lost: it misses one more.
    pub(crate) fn one_missing_more(&mut self, at: TaskAt) {
        match &mut self.graphs.slab[at.graph].tasks[at.index as usize].state {
            TaskState::Waiting { missing } => *missing += 1,
            TaskState::Ready { .. } => {
                self.set_state(at, TaskState::Waiting { missing: 1 });
            }
            // An assigned task either has the partition already, or will say that it misses it.
            TaskState::Assigned { .. }
            | TaskState::Ended { .. }
            | TaskState::Culled
            | TaskState::Done { .. }
            | TaskState::Released => {}
        }
    }

    /// Everything a task reads is there: it joins the queue of the worker that holds most of it, or the common one.
    pub(crate) fn make_ready(&mut self, at: TaskAt) {
        let prefers = self.preferred_worker(at);
        self.set_state(at, TaskState::Ready { prefers });
    }
}
