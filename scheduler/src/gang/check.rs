//! What must hold of gangs, recomputed from scratch. Part of `check`.

use std::collections::{BTreeMap, BTreeSet};

use transload_protocol::{LayerIndex, Resources};

use super::start::is_enough;
use crate::check::ensure;
use crate::graph::Graph;
use crate::machine::Scheduler;
use crate::task::TaskState;
use crate::worker::{Kept, Reach};

impl Scheduler {
    /// All members of a gang are at the same point.
    pub(crate) fn check_gang(&self, graph: &Graph, layer: usize) -> Result<(), String> {
        let record = &graph.layers[layer];
        let Some(gang) = &record.gang else {
            return Ok(());
        };
        let layer = LayerIndex(u32::try_from(layer).unwrap_or(u32::MAX));
        let members = graph.compiled.tasks_of(layer);
        let (mut given, mut stopping) = (0, 0);
        let mut ended = Vec::new();
        let mut attempts = BTreeSet::new();
        for index in members {
            let task = &graph.tasks[index as usize];
            attempts.insert(task.attempt);
            stopping += u32::from(self.cancels.contains_key(&graph.task_id(index)));
            match task.state {
                TaskState::Assigned { .. } => given += 1,
                TaskState::Ended { .. } => ended.push(index),
                TaskState::Culled
                | TaskState::Waiting { .. }
                | TaskState::Ready { .. }
                | TaskState::Done { .. }
                | TaskState::Released => {}
            }
        }
        ensure(
            gang.members == graph.compiled.layers()[layer.0 as usize].tasks,
            || format!("a gang of {}", gang.members),
        )?;
        ensure([0, gang.members].contains(&record.to_do), || {
            format!("{} of {} members are to do", record.to_do, gang.members)
        })?;
        let both = given + u32::try_from(ended.len()).unwrap_or(u32::MAX);
        ensure([0, gang.members].contains(&both), || {
            format!(
                "{given} of {} members run, {ended:?} have ended",
                gang.members
            )
        })?;
        ensure(given > 0 || ended.is_empty(), || {
            "all have ended, and the gang is not done".to_owned()
        })?;
        ensure(given == 0 || attempts.len() == 1, || {
            format!("members run in attempts {attempts:?}")
        })?;
        ensure(gang.ended.keys().eq(&ended), || {
            format!("members {:?} have ended, not {ended:?}", gang.ended)
        })?;
        let unanswered = gang.verdict.as_ref().map(|verdict| verdict.unanswered);
        ensure(
            unanswered.is_none_or(|unanswered| unanswered == stopping && stopping > 0),
            || format!("{unanswered:?} answers are missing, not {stopping}"),
        )?;
        let all_ready = record.ready.len() == gang.members;
        ensure(self.gangs.ready.contains(&record.rank) == all_ready, || {
            "queued although not all members are ready, or not although they are".to_owned()
        })
    }

    /// What is kept is kept for a gang that is ready and does not fit, and nothing else is kept.
    pub(crate) fn check_gangs(&self) -> Result<(), String> {
        let gangs = self.graphs.slab.iter().flat_map(|(_, graph)| &graph.layers);
        let ready: u32 = gangs
            .filter(|layer| layer.gang.is_some())
            .map(|layer| layer.ready.len())
            .sum();
        ensure(ready == self.gangs.members_ready, || {
            format!(
                "{} members of gangs are ready, not {ready}",
                self.gangs.members_ready
            )
        })?;
        for rank in &self.gangs.ready {
            let serial = self
                .graphs
                .slab
                .get(rank.graph)
                .map(|graph| graph.line.serial);
            ensure(serial == Some(rank.graph_serial), || {
                "a gang of a forgotten graph is still queued".to_owned()
            })?;
        }
        let is_settled = self.recovery.is_none() && !self.workers.slab.is_empty();
        for rank in &self.gangs.ready {
            ensure(
                !is_settled
                    || self.gangs.stuck.contains_key(rank) == self.why_too_large(rank).is_some(),
                || {
                    "a gang is said to be too large and is not, or is and is not said to be"
                        .to_owned()
                },
            )?;
        }
        for rank in self.gangs.stuck.keys() {
            ensure(self.gangs.ready.contains(rank), || {
                "a gang is too large and not ready".to_owned()
            })?;
        }
        ensure(self.gangs.due.is_empty(), || {
            "a verdict was not pronounced".to_owned()
        })?;
        ensure(
            self.recovery.is_some() || self.gangs.found.is_empty(),
            || "what was found of gangs was not settled".to_owned(),
        )?;
        let mut expected = BTreeMap::new();
        if let Some((rank, shares)) = &self.gangs.kept {
            let (members, request) = (self.members(rank), &self.gang_layer(rank).resources);
            ensure(self.gangs.ready.contains(rank), || {
                "room is kept for a gang that is not ready".to_owned()
            })?;
            ensure(
                !is_enough(&self.room_now(rank, Reach::Queue), members),
                || "a gang waits and fits".to_owned(),
            )?;
            ensure(shares.values().sum::<u32>() == members, || {
                format!("room is kept for {shares:?} of {members} members")
            })?;
            for (worker, share) in shares {
                let mut resources = Resources::slots(0);
                (0..*share).for_each(|_| resources.give_back(request));
                let members = *share;
                expected.insert(*worker, Kept { members, resources });
            }
        }
        for (slot, worker) in self.workers.slab.iter() {
            ensure(worker.kept() == expected.get(&slot), || {
                format!("of worker {} {:?} is kept", worker.id, worker.kept())
            })?;
        }
        Ok(())
    }
}
