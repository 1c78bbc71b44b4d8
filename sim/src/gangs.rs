//! What the simulation knows of gangs: who was handed out, who has started, and who waits for whom.
//!
//! Asked by `process` for operators that meet their gang at a barrier, and told by `simulation` what the scheduler says. A member
//! does not end before all of its incarnation have started, so a scheduler or worker that starts some and not all hangs the run.

use std::collections::{BTreeMap, BTreeSet};

use transload_protocol::{Attempt, GraphId, LayerIndex, TaskId};

use crate::network::TaskRun;

/// One start of a gang.
pub(crate) type Incarnation = (GraphId, LayerIndex, Attempt);

/// All gangs of a run.
#[derive(Debug, Default)]
pub(crate) struct Gangs {
    /// The last incarnation of each that the scheduler told of.
    newest: BTreeMap<(GraphId, LayerIndex), Attempt>,
    /// Members that have started.
    started: BTreeMap<Incarnation, BTreeSet<TaskId>>,
    /// Operators at the barrier.
    waiting: BTreeMap<Incarnation, Vec<TaskRun>>,
    /// Incarnations of which a member is gone.
    broken: BTreeSet<Incarnation>,
    /// Members as the scheduler sees them: where, and of which incarnation.
    handed_out: BTreeMap<TaskId, Member>,
}

#[derive(Debug)]
struct Member {
    layer: LayerIndex,
    attempt: Attempt,
    process: usize,
    /// It was not told to stop and has not answered.
    is_wanted: bool,
}

impl Gangs {
    /// The scheduler tells a worker of a gang. Returns whether it runs again, where it was not told of this incarnation before.
    pub(crate) fn tell(
        &mut self,
        (graph, layer, attempt): Incarnation,
    ) -> Result<Option<bool>, String> {
        let still = self.handed_out.iter().find(|(task, member)| {
            (task.graph, member.layer) == (graph, layer)
                && member.attempt != attempt
                && member.is_wanted
        });
        if let Some((task, member)) = still {
            return Err(format!(
                "the gang of layer {layer} of graph {graph} starts anew while attempt {} of {task} is wanted",
                member.attempt.0
            ));
        }
        match self.newest.insert((graph, layer), attempt) {
            Some(before) if before > attempt => Err(format!(
                "the gang of layer {layer} of graph {graph} was at incarnation {} and is at {}",
                before.0, attempt.0
            )),
            Some(before) if before == attempt => Ok(None),
            before => Ok(Some(before.is_some())),
        }
    }

    /// A worker is told to run a member, or says that it does.
    pub(crate) fn hand_out(
        &mut self,
        (task, layer): (TaskId, LayerIndex),
        attempt: Attempt,
        process: usize,
    ) {
        let member = Member {
            layer,
            attempt,
            process,
            is_wanted: true,
        };
        self.handed_out.insert(task, member);
    }

    /// A member was told to stop, or has answered. Who has ended well may still be lost with its worker.
    pub(crate) fn let_go(&mut self, (task, attempt): (TaskId, Attempt), process: usize) {
        let member = self.handed_out.get_mut(&task);
        let is_it = |member: &&mut Member| member.process == process && member.attempt == attempt;
        if let Some(member) = member.filter(is_it) {
            member.is_wanted = false;
        }
    }

    /// The scheduler counts a worker out. Returns the members that were there.
    pub(crate) fn leave(&mut self, process: usize) -> Vec<TaskId> {
        let there = |(_, member): &(&TaskId, &Member)| member.process == process;
        let tasks: Vec<TaskId> = self
            .handed_out
            .iter()
            .filter(there)
            .map(|(task, _)| *task)
            .collect();
        for task in &tasks {
            self.handed_out.remove(task);
        }
        tasks
    }

    /// The scheduler is gone, and what it said holds no more.
    pub(crate) fn forget_all(&mut self) {
        self.handed_out.clear();
    }

    /// A member has started. With the last of them, those who wait go on: they are returned.
    pub(crate) fn start(
        &mut self,
        gang: Incarnation,
        task: TaskId,
        members: usize,
    ) -> Option<Vec<TaskRun>> {
        let started = self.started.entry(gang).or_default();
        started.insert(task);
        (started.len() == members).then(|| self.waiting.remove(&gang).unwrap_or_default())
    }

    pub(crate) fn has_met(&self, gang: Incarnation, members: usize) -> bool {
        self.started
            .get(&gang)
            .is_some_and(|started| started.len() == members)
    }

    /// An operator waits until all have started.
    pub(crate) fn wait(&mut self, gang: Incarnation, run: TaskRun) {
        self.waiting.entry(gang).or_default().push(run);
    }

    /// A member is gone. Returns the others that wait for it and may notice.
    pub(crate) fn lose(&mut self, gang: Incarnation) -> Vec<TaskRun> {
        self.broken.insert(gang);
        self.waiting.remove(&gang).unwrap_or_default()
    }

    pub(crate) fn is_broken(&self, gang: Incarnation) -> bool {
        self.broken.contains(&gang)
    }
}
