//! Limits in time: of a graph, from when it was accepted, and of an attempt, from when it started.
//!
//! Told by `clients` and `transition` what begins and ends, and asked by the clock. What has no limit costs nothing here.

use transload_protocol::{Event, GraphOutcome, LayerProgress, TaskErrorKind, words};

use crate::api::Action;
use crate::machine::Scheduler;
use crate::slab::{GraphSlot, TaskAt};
use crate::task::TaskState;

impl Scheduler {
    /// A graph was accepted, or taken over from an earlier scheduler: its time begins.
    pub(crate) fn begin_graph_limit(&mut self, slot: GraphSlot) {
        if let Some(millis) = self.graphs.slab[slot].compiled.cancel_after_ms() {
            let until = self.now.after_micros(millis.saturating_mul(1_000));
            self.graph_limits.begin(slot, until);
        }
    }

    /// A task runs, or runs still on a worker that came back: its time begins.
    pub(crate) fn begin_attempt_limit(&mut self, at: TaskAt) {
        if let Some(millis) = self.graphs.slab[at.graph].layer_of(at.index).time_limit_ms {
            let until = self.now.after_micros(u64::from(millis) * 1_000);
            self.attempt_limits.begin(at, until);
        }
    }

    /// Stops what takes too long.
    pub(crate) fn end_limits(&mut self, out: &mut Vec<Action>) {
        while let Some(slot) = self.graph_limits.pop_due(self.now) {
            self.end_late_graph(slot, out);
        }
        while let Some(at) = self.attempt_limits.pop_due(self.now) {
            self.end_late_attempt(at, out);
        }
    }

    fn end_late_graph(&mut self, slot: GraphSlot, out: &mut Vec<Action>) {
        let graph = &self.graphs.slab[slot];
        let sum = |count: fn(&LayerProgress) -> u32| {
            graph.layers.iter().map(|layer| count(&layer.counts)).sum()
        };
        let outcome = GraphOutcome::TimedOut {
            after_ms: graph.compiled.cancel_after_ms().unwrap_or(0),
            done: sum(|counts| counts.done),
            total: sum(|counts| counts.total),
        };
        self.end_early(slot, Some(outcome), out);
    }

    /// The attempt is cancelled, and counts as one that failed in a way that may pass. The task waits until its worker has
    /// answered: an operator that does not listen keeps its slot.
    fn end_late_attempt(&mut self, at: TaskAt, out: &mut Vec<Action>) {
        let graph = &mut self.graphs.slab[at.graph];
        let TaskState::Assigned { worker, .. } = graph.tasks[at.index as usize].state else {
            return;
        };
        let limit = graph.layer_of(at.index).time_limit_ms.unwrap_or(0);
        let id = self.workers.slab[worker].id;
        let task = graph.task_id(at.index);
        let message = format!(
            "it ran longer than {}; give its layer a longer time limit, or make its tasks smaller",
            words::duration(u64::from(limit) * 1_000)
        );
        let retries = graph.submitted_layer_of(at.index).retries;
        let key = graph.history_key(at.index);
        let history = graph.history.entry(key).or_default();
        history.last = format!("on worker {id} {message}");
        history.avoid = Some(id);
        let attempts = history.failed_attempts().saturating_add(1);
        let may_retry = history.failures < retries;
        history.failures += u32::from(may_retry);
        let event = Event::TaskFailed {
            task,
            worker: id,
            message: message.clone(),
            run_micros: u64::from(limit) * 1_000,
        };
        self.emit(event, out);
        if may_retry {
            if self.graphs.slab[at.graph].is_of_gang(at.index) {
                self.put_off(at);
                self.disband(at, None, out);
            } else {
                self.cancel_assignment(at, out);
                self.take_back_for_later(at);
            }
        } else {
            let kind = TaskErrorKind::TimeLimit;
            let error = self.error_of(at, Some(worker), (kind, message), attempts);
            // It still runs, so ending the graph cancels it.
            self.end_early(at.graph, Some(GraphOutcome::Failed(error)), out);
        }
    }

    /// What has a limit is there, and runs.
    pub(crate) fn check_limits(&self) -> Result<(), String> {
        for slot in self.graph_limits.iter() {
            if self.graphs.slab.get(slot).is_none() {
                return Err("a graph that is gone has a time limit".to_owned());
            }
        }
        for (slot, graph) in self.graphs.slab.iter() {
            for (index, task) in (0_u32..).zip(&graph.tasks) {
                let runs = matches!(task.state, TaskState::Assigned { started: true, .. });
                let is_limited = graph.layer_of(index).time_limit_ms.is_some();
                let at = TaskAt { graph: slot, index };
                if self.attempt_limits.until(at).is_some() != (runs && is_limited) {
                    return Err(format!(
                        "{at:?} has a time limit and does not run, or runs without"
                    ));
                }
            }
        }
        if !(self.graph_limits.are_consistent() && self.attempt_limits.are_consistent()) {
            return Err("a time limit will not end when it should".to_owned());
        }
        let alive = |at: TaskAt| self.graphs.slab.get(at.graph).is_some();
        match self.attempt_limits.iter().find(|at| !alive(*at)) {
            Some(at) => Err(format!("{at:?} has a time limit, and its graph is gone")),
            None => Ok(()),
        }
    }
}
