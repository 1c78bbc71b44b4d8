//! How partitions leave for good: released, forgotten, no longer needed. Part of `machine`.

use transload_protocol::{GraphId, MissingCause, PartitionId, TaskId};

use crate::Action;
use crate::machine::{Turn, Worker};
use crate::store::{Claim, State};
use crate::tasks::Phase;

impl Worker {
    /// Nobody needs the partitions of `task`. Those that a queued task can still fetch from a peer are fetched again;
    /// copies are kept while a queued task reads them.
    pub(crate) fn release(&mut self, task: TaskId, turn: &mut Turn<'_>) {
        // Most tasks have one partition, which nobody here reads.
        self.drop_idle(PartitionId { task, output: 0 }, turn);
        let mut partitions = self.store.of_task(task);
        partitions.retain(|partition| !self.drop_idle(*partition, turn));
        if partitions.is_empty() {
            return;
        }
        for partition in &partitions {
            let Some(record) = self.store.get(*partition) else {
                continue;
            };
            let claim = match record.claim {
                Claim::Output | Claim::Released => Claim::Released,
                Claim::Copy | Claim::SharedCopy => Claim::Copy,
            };
            self.store.set_claim(*partition, claim);
        }
        self.give_back_unreachable(&partitions, turn);
        for partition in partitions {
            self.settle(partition, turn);
        }
    }

    /// Drops a partition that is released, if nobody reads it. Returns whether it did.
    fn drop_idle(&mut self, partition: PartitionId, turn: &mut Turn<'_>) -> bool {
        let is_idle = self.store.take_idle(partition);
        if is_idle {
            turn.out.push(Action::Drop { partition });
        }
        is_idle
    }

    /// A new attempt of `task` will make these partitions anew: nothing of the old ones may be read or stay.
    pub(crate) fn replace_outputs(&mut self, task: TaskId, turn: &mut Turn<'_>) {
        if !self.store.has_any_of(task) {
            return;
        }
        let partitions = self.store.of_task(task);
        let readers = self.readers(&partitions, |_| true);
        self.give_back(readers, &MissingCause::Gone, turn);
        self.release(task, turn);
    }

    pub(crate) fn on_forget(&mut self, graph: GraphId, turn: &mut Turn<'_>) {
        let tasks = self.queue.keys().map(|place| place.task);
        let tasks: Vec<_> = tasks.chain(self.running.keys().copied()).collect();
        for task in tasks.into_iter().filter(|task| task.graph == graph) {
            self.abandon(task, Phase::Disowned, turn);
        }
        let partitions = self.store.of_graph(graph);
        let readers = self.readers(&partitions, |_| true);
        self.give_back(readers, &MissingCause::Gone, turn);
        for partition in partitions {
            let Some(record) = self.store.get(partition) else {
                continue;
            };
            if let State::Fetching { .. } = record.state {
                // Ids of a forgotten graph never come back, so a late answer cannot be taken for another one.
                turn.out.push(Action::CancelFetch { partition });
                self.store.remove(partition);
            } else {
                self.store.set_claim(partition, Claim::Released);
                self.settle(partition, turn);
            }
        }
        self.layers.retain(|(of, _), _| *of != graph);
        self.sources.retain(|(of, _), _| *of != graph);
        self.of_gangs.retain(|of, _| of.graph != graph);
    }

    /// Drops a partition if nothing keeps it any more. To be called after every loss of a need, pin, claim or operation.
    pub(crate) fn settle(&mut self, partition: PartitionId, turn: &mut Turn<'_>) {
        let Some(record) = self.store.get(partition) else {
            return;
        };
        let is_needed = !record.needs.is_empty();
        let is_kept = match record.claim {
            Claim::Output | Claim::SharedCopy => true,
            Claim::Copy => is_needed,
            Claim::Released => false,
        };
        match record.state {
            State::Absent { .. } | State::Paused { .. } => {
                if !is_needed {
                    self.store.remove(partition);
                }
            }
            // Its answer decides.
            State::Fetching { .. }
            | State::Spilling { .. }
            | State::Sinking
            | State::Loading { .. }
            | State::Rising => {}
            State::Ready { pins: 1.. } => {}
            State::Ready { pins: 0 } | State::Pinned | State::Disk { .. } => {
                if !is_kept {
                    self.drop_stored(partition, turn);
                }
            }
        }
    }

    /// Drops a partition that is stored and idle. Whoever needs it fetches it again.
    pub(crate) fn drop_stored(&mut self, partition: PartitionId, turn: &mut Turn<'_>) {
        turn.out.push(Action::Drop { partition });
        self.make_absent(partition, turn);
    }

    /// A partition is not here any more.
    pub(crate) fn make_absent(&mut self, partition: PartitionId, turn: &mut Turn<'_>) {
        let Some(record) = self.store.get(partition) else {
            return;
        };
        if record.needs.is_empty() {
            self.store.remove(partition);
        } else {
            let claim = record.claim_of_copy();
            self.store.set_state(partition, State::Absent { failed: 0 });
            self.store.set_claim(partition, claim);
            self.give_back_unreachable(&[partition], turn);
        }
    }
}
