//! Gangs: layers whose tasks start together or not at all, and run again together.
//!
//! A member that has ended well waits, stored, until all have: so nobody ever reads of a gang that does not come to its end. Called
//! by `lineage`, `attempts` and `members` for what happens to members, and by `place` (see `start`). Knows nothing of what
//! members say to each other.

mod check;
mod start;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use transload_protocol::{Attempt, LayerIndex, OutputSizes, TaskError, TaskErrorKind, Time};

use crate::api::Action;
use crate::graph::{Graph, LayerRecord};
use crate::machine::Scheduler;
use crate::ready::Rank;
use crate::slab::{GraphSlot, TaskAt, WorkerSlot};
use crate::task::TaskState;

/// What the scheduler remembers of a gang beside the record of its layer.
#[derive(Debug)]
pub(crate) struct Gang {
    pub(crate) members: u32,
    /// Those that have ended well while others have not, by index, and the sizes of their outputs.
    pub(crate) ended: BTreeMap<u32, OutputSizes>,
    /// What the graph will fail with, unless a worker of the gang turns out to be dead.
    pub(crate) verdict: Option<Verdict>,
}

/// A member failed for good, or so it seems: when a worker dies, those who spoke with it often notice before the scheduler does. So
/// it counts only when all others have answered that they stopped.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) at: TaskAt,
    pub(crate) error: TaskError,
    /// Members that have not answered.
    pub(crate) unanswered: u32,
}

/// What concerns all gangs.
#[derive(Debug, Default)]
pub(crate) struct Gangs {
    /// Those of which every member is ready.
    pub(crate) ready: BTreeSet<Rank>,
    /// Ready members of any gang.
    pub(crate) members_ready: u32,
    /// The one for which room is kept, and for how many members on whom.
    pub(crate) kept: Option<(Rank, BTreeMap<WorkerSlot, u32>)>,
    /// Those of `ready` for which all workers together are too small, and when their graphs fail.
    pub(crate) stuck: BTreeMap<Rank, Time>,
    /// Those on which a verdict is due in this step.
    pub(crate) due: Vec<Rank>,
    /// What returning workers hold of gangs, by graph and layer, until all of them are back.
    pub(crate) found: BTreeMap<(GraphSlot, u32), Vec<Found>>,
}

/// An output of a member on a worker that came back to a new scheduler.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) at: TaskAt,
    pub(crate) worker: WorkerSlot,
    pub(crate) incarnation: Attempt,
    pub(crate) sizes: OutputSizes,
}

impl Gang {
    pub(crate) const fn of(members: u32) -> Self {
        Self {
            members,
            ended: BTreeMap::new(),
            verdict: None,
        }
    }
}

impl Gangs {
    /// One more member of a gang is ready, perhaps the last of them.
    pub(crate) fn one_more(&mut self, rank: Rank, is_last: bool) {
        self.members_ready += 1;
        if is_last {
            self.ready.insert(rank);
        }
    }

    /// One less is.
    pub(crate) fn one_less(&mut self, layer: &LayerRecord) {
        self.members_ready -= 1;
        self.ready.remove(&layer.rank);
        self.stuck.remove(&layer.rank);
    }

    /// Whether there is anything for `start_gangs` to do.
    pub(crate) fn want_room(&self) -> bool {
        !self.ready.is_empty() || self.kept.is_some()
    }

    /// A graph is gone.
    pub(crate) fn forget(&mut self, graph: GraphSlot) {
        self.found.retain(|(of, _), _| *of != graph);
        self.due.retain(|rank| rank.graph != graph);
    }
}

impl Graph {
    pub(crate) fn is_of_gang(&self, index: u32) -> bool {
        self.layer_of(index).gang.is_some()
    }

    /// Whether any member of a gang is wanted for its own sake.
    pub(crate) fn is_gang_wanted(&self, layer: u32) -> bool {
        let mut members = self.compiled.tasks_of(LayerIndex(layer));
        members.any(|index| {
            let task = &self.tasks[index as usize];
            task.is_held() || task.readers > 0
        })
    }

    /// Under which task it is noted what went wrong with one: the first of its gang answers for all.
    pub(crate) fn history_key(&self, index: u32) -> u32 {
        let layer = self.layer_of(index);
        if layer.gang.is_some() {
            layer.first_task
        } else {
            index
        }
    }

    /// A task to be done was dropped. If it was of a gang, nobody needs the rest of it either.
    pub(crate) fn drop_gang_of(&mut self, index: u32, unneeded: &mut Vec<u32>) {
        let layer = self.tasks[index as usize].layer();
        let record = &mut self.layers[layer as usize];
        let Some(gang) = &mut record.gang else {
            return;
        };
        gang.verdict = None;
        if record.to_do + 1 == gang.members {
            unneeded.extend(self.compiled.tasks_of(LayerIndex(layer)));
        }
    }
}

impl Scheduler {
    /// The members of the gang that a task belongs to.
    fn members_of(&self, at: TaskAt) -> Vec<TaskAt> {
        let graph = &self.graphs.slab[at.graph];
        let layer = LayerIndex(graph.tasks[at.index as usize].layer());
        let members = graph.compiled.tasks_of(layer);
        members.map(|index| TaskAt { index, ..at }).collect()
    }

    fn state_of_task(&self, at: TaskAt) -> &TaskState {
        &self.graphs.slab[at.graph].tasks[at.index as usize].state
    }

    fn gang_mut(&mut self, at: TaskAt) -> Option<&mut Gang> {
        let graph = &mut self.graphs.slab[at.graph];
        let layer = graph.tasks[at.index as usize].layer();
        graph.layers[layer as usize].gang.as_deref_mut()
    }

    /// A member is done and stored. With the last of them all are.
    pub(crate) fn on_member_ended(
        &mut self,
        at: TaskAt,
        worker: WorkerSlot,
        sizes: OutputSizes,
        out: &mut Vec<Action>,
    ) {
        self.set_state(at, TaskState::Ended { worker });
        let Some(gang) = self.gang_mut(at) else {
            return;
        };
        gang.ended.insert(at.index, sizes);
        if gang.ended.len() < gang.members as usize {
            return;
        }
        let sizes = gang.ended.clone();
        let members = self.members_of(at);
        for member in members.iter().copied() {
            if let TaskState::Ended { worker } = *self.state_of_task(member)
                && let Some(sizes) = sizes.get(&member.index)
            {
                self.count_as_done(member, worker, *sizes, out);
            }
        }
        self.unneeded
            .extend(members.iter().map(|member| member.index));
        self.drop_unneeded(at.graph, out);
    }

    /// A gang is to run again as a whole: those of its members that run are stopped, what others have made is dropped. The task at
    /// `over` has ended on its worker already. Returns how many were told to stop.
    pub(crate) fn disband(&mut self, at: TaskAt, over: Option<u32>, out: &mut Vec<Action>) -> u32 {
        let mut stopped = 0;
        for member in self.members_of(at) {
            match *self.state_of_task(member) {
                TaskState::Assigned { .. } => {
                    if over != Some(member.index) && self.cancel_assignment(member, out) {
                        stopped += 1;
                    }
                    self.take_back(member);
                }
                TaskState::Ended { worker, .. } => {
                    self.release_at(member, worker);
                    self.take_back(member);
                }
                TaskState::Culled
                | TaskState::Waiting { .. }
                | TaskState::Ready { .. }
                | TaskState::Done { .. }
                | TaskState::Released => {}
            }
        }
        stopped
    }

    /// A member failed in a way that no other attempt can cure.
    pub(crate) fn on_member_failed(&mut self, at: TaskAt, error: TaskError, out: &mut Vec<Action>) {
        let unanswered = self.disband(at, Some(at.index), out);
        if unanswered == 0 {
            self.fail_with(at, error, out);
        } else if let Some(gang) = self.gang_mut(at) {
            gang.verdict = Some(Verdict {
                at,
                error,
                unanswered,
            });
        }
    }

    /// A member that was told to stop had failed by then. Where its failure can be cured, it may be the cause of the other.
    pub(crate) fn reconsider(&mut self, error: &TaskError) {
        let Some(at) = self.graphs.find(error.task) else {
            return;
        };
        let graph = &mut self.graphs.slab[at.graph];
        let retries = graph.submitted_layer_of(at.index).retries;
        let key = graph.history_key(at.index);
        let layer = graph.tasks[at.index as usize].layer();
        let Some(gang) = &mut graph.layers[layer as usize].gang else {
            return;
        };
        let history = graph.history.entry(key).or_default();
        if gang.verdict.is_some() && error.kind.is_retryable() && history.failures < retries {
            gang.verdict = None;
            history.failures += 1;
            history.last = format!("one of its members failed: {}", error.message);
        }
    }

    /// A member that was told to stop has, or its worker is gone.
    pub(crate) fn on_member_stopped(&mut self, at: TaskAt) {
        let rank = self.graphs.slab[at.graph].layer_of(at.index).rank;
        let is_due = self.gang_mut(at).is_some_and(|gang| {
            gang.verdict.as_mut().is_some_and(|verdict| {
                verdict.unanswered = verdict.unanswered.saturating_sub(1);
                verdict.unanswered == 0
            })
        });
        if is_due {
            self.gangs.due.push(rank);
        }
    }

    /// Fails the graphs of gangs of which a member failed and all others live.
    pub(crate) fn pronounce_verdicts(&mut self, out: &mut Vec<Action>) {
        while let Some(rank) = self.gangs.due.pop() {
            let layer = &mut self.graphs.slab[rank.graph].layers[rank.layer() as usize];
            let verdict = layer.gang.as_mut().and_then(|gang| gang.verdict.take());
            if let Some(verdict) = verdict {
                self.fail_with(verdict.at, verdict.error, out);
            }
        }
    }

    /// A worker is leaving, and with it all gangs that have a member there. Looks at all members: workers are lost rarely.
    pub(crate) fn disband_gangs_of(
        &mut self,
        worker: WorkerSlot,
        reason: &str,
        died: bool,
        out: &mut Vec<Action>,
    ) {
        for found in self.gangs.found.values_mut() {
            found.retain(|found| found.worker != worker);
        }
        let gangs: Vec<(TaskAt, bool)> = self.gangs_of(worker);
        for (at, ran) in gangs {
            // A neighbour's end may have ended the graph meanwhile.
            if self.graphs.slab.get(at.graph).is_none() {
                continue;
            }
            let verdict = self.gang_mut(at).and_then(|gang| gang.verdict.take());
            let is_over = died && ran && self.count_death(at, worker, reason);
            match verdict {
                Some(verdict) if is_over => self.fail_with(verdict.at, verdict.error, out),
                None if is_over => self.fail_for_deaths(at, worker, out),
                Some(_) | None => {
                    self.put_off_gang(at);
                    self.disband(at, None, out);
                }
            }
        }
    }

    /// A gang is to wait before it is tried again. Its members may have come back already, for the sake of a verdict.
    fn put_off_gang(&mut self, at: TaskAt) {
        let index = self.graphs.slab[at.graph].history_key(at.index);
        let first = TaskAt { index, ..at };
        let waited = self.retries.until(first).is_some();
        self.put_off(at);
        if !waited && self.retries.until(first).is_some() {
            self.one_missing_more(first);
        }
    }

    /// One member of each gang that has one on this worker, and whether any of those ran.
    fn gangs_of(&self, worker: WorkerSlot) -> Vec<(TaskAt, bool)> {
        let mut gangs = Vec::new();
        for (slot, graph) in self.graphs.slab.iter() {
            for (layer, record) in (0_u32..).zip(&graph.layers) {
                let Some(gang) = &record.gang else {
                    continue;
                };
                let mut member = None;
                let mut ran = false;
                for index in graph.compiled.tasks_of(LayerIndex(layer)) {
                    let id = graph.task_id(index);
                    let is_stopping = gang.verdict.is_some()
                        && (self.cancels.get(&id)).is_some_and(|cancel| cancel.worker == worker);
                    let (is_there, runs) = match graph.tasks[index as usize].state {
                        TaskState::Assigned {
                            worker: there,
                            started,
                            ..
                        } => (there == worker, started),
                        TaskState::Ended { worker: there, .. } => (there == worker, true),
                        TaskState::Culled
                        | TaskState::Waiting { .. }
                        | TaskState::Ready { .. }
                        | TaskState::Done { .. }
                        | TaskState::Released => (is_stopping, true),
                    };
                    if is_there {
                        member = Some(index);
                        ran |= runs;
                    }
                }
                gangs.extend(member.map(|index| (TaskAt { graph: slot, index }, ran)));
            }
        }
        gangs
    }

    /// A worker died with a gang. Whether that was one too many.
    fn count_death(&mut self, at: TaskAt, worker: WorkerSlot, reason: &str) -> bool {
        let id = self.workers.slab[worker].id;
        let limit = self.config.worker_deaths_per_task.max(1);
        let graph = &mut self.graphs.slab[at.graph];
        let key = graph.history_key(at.index);
        let history = graph.history.entry(key).or_default();
        history.deaths += 1;
        history.last = format!("worker {id} died while it ran a member: {reason}");
        history.deaths >= limit
    }

    fn fail_for_deaths(&mut self, at: TaskAt, worker: WorkerSlot, out: &mut Vec<Action>) {
        let graph = &self.graphs.slab[at.graph];
        let history = graph.history.get(&graph.history_key(at.index));
        let message = history.map_or_else(String::new, |history| {
            format!(
                "{} workers died while they ran its gang; last: {}",
                history.deaths, history.last
            )
        });
        self.fail_task(at, Some(worker), TaskErrorKind::WorkersLost, message, out);
    }

    /// A worker lost what a member has made before the rest of its gang has ended.
    pub(crate) fn on_ended_lost(&mut self, at: TaskAt, worker: WorkerSlot, out: &mut Vec<Action>) {
        if let TaskState::Ended { worker: there, .. } = *self.state_of_task(at)
            && there == worker
        {
            self.disband(at, None, out);
        }
    }

    /// A member's outputs are lost and have to be made again: so have all others', which go with them. Called before the first of
    /// them changes its state.
    pub(crate) fn lose_with_gang(&mut self, at: TaskAt, lost: &mut Vec<u32>) {
        if let TaskState::Done { worker, .. } = *self.state_of_task(at) {
            self.release_at(at, worker);
        }
        if self.graphs.slab[at.graph].layer_of(at.index).to_do == 0 {
            lost.extend(self.members_of(at).iter().map(|member| member.index));
        }
    }

    /// A worker that came back holds what a member made. Worth something only to a scheduler that has just begun, and only
    /// together with what others hold.
    pub(crate) fn on_member_found(
        &mut self,
        at: TaskAt,
        worker: WorkerSlot,
        incarnation: Option<Attempt>,
        sizes: OutputSizes,
    ) {
        let graph = &self.graphs.slab[at.graph];
        let is_right = sizes.outputs == graph.submitted_layer_of(at.index).outputs;
        match incarnation {
            Some(incarnation) if is_right && self.recovery.is_some() => {
                let key = (at.graph, graph.tasks[at.index as usize].layer());
                self.gangs.found.entry(key).or_default().push(Found {
                    at,
                    worker,
                    incarnation,
                    sizes,
                });
            }
            Some(_) | None => self.release_on(worker, graph.task_id(at.index)),
        }
    }

    /// All workers are back that will come: gangs of which everything is there that somebody needs are done.
    pub(crate) fn settle_returned_gangs(&mut self, out: &mut Vec<Action>) {
        // The last layers first: what they hold decides what of earlier ones is needed.
        while let Some(((slot, layer), found)) = self.gangs.found.pop_last() {
            let newest = found.iter().map(|found| found.incarnation).max();
            let (found, stale): (Vec<Found>, Vec<Found>) = found
                .into_iter()
                .partition(|found| Some(found.incarnation) == newest);
            let by_index: BTreeMap<u32, &Found> =
                found.iter().map(|found| (found.at.index, found)).collect();
            let graph = &self.graphs.slab[slot];
            let record = &graph.layers[layer as usize];
            let is_wanted = |index: u32| {
                let task = &graph.tasks[index as usize];
                task.is_held() || task.readers > 0 || record.barrier_readers > 0
            };
            let mut members = graph.compiled.tasks_of(LayerIndex(layer));
            let is_whole = record.to_do > 0
                && members.all(|index| by_index.contains_key(&index) || !is_wanted(index));
            let kept: BTreeSet<(u32, WorkerSlot)> = by_index
                .values()
                .filter(|_| is_whole)
                .map(|found| (found.at.index, found.worker))
                .collect();
            for other in found.iter().chain(&stale) {
                if !kept.contains(&(other.at.index, other.worker)) {
                    let id = self.graphs.slab[slot].task_id(other.at.index);
                    self.release_on(other.worker, id);
                }
            }
            if is_whole {
                self.adopt_gang((slot, layer), &by_index, out);
            }
        }
    }

    fn adopt_gang(
        &mut self,
        (slot, layer): (GraphSlot, u32),
        found: &BTreeMap<u32, &Found>,
        out: &mut Vec<Action>,
    ) {
        let compiled = std::sync::Arc::clone(&self.graphs.slab[slot].compiled);
        for index in compiled.tasks_of(LayerIndex(layer)) {
            let at = TaskAt { graph: slot, index };
            if let Some(found) = found.get(&index) {
                self.count_as_done(at, found.worker, found.sizes, out);
            } else {
                // It was made, and freed when nobody needed it any more.
                self.set_state(at, TaskState::Released);
                let mut unneeded = std::mem::take(&mut self.unneeded);
                self.graphs.slab[slot].stop_reading(index, &mut unneeded);
                self.unneeded = unneeded;
            }
        }
        self.unneeded.extend(compiled.tasks_of(LayerIndex(layer)));
        self.drop_unneeded(slot, out);
        self.end_if_done(slot, out);
    }
}
