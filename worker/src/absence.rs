//! A broken connection to the scheduler: what was promised to it or by it is dropped, what was made here stays. Part of
//! `machine`.
//!
//! Nothing that the scheduler said before is relied on after: it says again what still holds, or another one does.

use std::collections::BTreeMap;

use transload_protocol::{Attempt, Inventory, OutputSizes, PartitionId, TaskId, WorkerMessage};

use crate::Action;
use crate::machine::{Link, Turn, Worker};
use crate::store::{Claim, State};
use crate::tasks::{Phase, Slot};

impl Worker {
    pub(crate) fn is_away(&self) -> bool {
        matches!(self.link, Link::Away { .. })
    }

    /// Tasks that have not started leave, and with them everything that was fetched or asked for.
    pub(crate) fn on_disconnected(&mut self, turn: &mut Turn<'_>) {
        let Link::Connected { worker, .. } = self.link else {
            return;
        };
        self.link = Link::Away { worker };
        self.events.clear();
        let places: Vec<_> = self.queue.keys().copied().collect();
        for place in places {
            self.unqueue(place, turn);
        }
        let running: Vec<TaskId> = self.running.keys().copied().collect();
        for task in running {
            // Nobody will remember having cancelled it.
            let is_cancelled = |phase| phase != Phase::Wanted;
            if self
                .running
                .get(&task)
                .is_some_and(|it| is_cancelled(it.phase))
            {
                self.stop(task, Phase::Disowned, turn);
            }
        }
        let fetched: Vec<PartitionId> = self
            .store
            .iter()
            .filter(|(_, record)| match record.claim {
                Claim::Copy | Claim::SharedCopy => true,
                Claim::Output | Claim::Released => false,
            })
            .map(|(partition, _)| partition)
            .collect();
        for partition in fetched {
            let state = self.store.get(partition).map(|record| record.state);
            if let Some(State::Fetching { .. }) = state {
                turn.out.push(Action::CancelFetch { partition });
                self.store.remove(partition);
            } else {
                self.store.set_claim(partition, Claim::Released);
                self.settle(partition, turn);
            }
        }
        while let Some(peer) = self.peers.first().copied() {
            self.on_peer_lost(peer, turn);
        }
        self.layers.clear();
        self.sources.clear();
        // The scheduler gives a task that is not found running to somebody else: none is queued again here.
        for running in self.running.values_mut() {
            running.queued = None;
        }
    }

    pub(crate) fn tell_inventory(&mut self, turn: &mut Turn<'_>) {
        let mut outputs: BTreeMap<TaskId, Vec<u64>> = BTreeMap::new();
        for (partition, record) in self.store.iter() {
            if record.claim == Claim::Output && record.tier().is_some() {
                outputs
                    .entry(partition.task)
                    .or_default()
                    .push(record.bytes);
            }
        }
        let sizes = |(task, bytes): (TaskId, Vec<u64>)| (task, OutputSizes::of(&bytes));
        let running = self.running.iter();
        let made_by = |task: &TaskId| Some((*task, *self.of_gangs.get(task)?));
        let of_gangs = outputs.keys().filter_map(made_by).collect();
        let inventory = Inventory {
            of_gangs,
            stored: outputs.into_iter().map(sizes).collect(),
            running: running
                .filter(|(_, running)| running.phase == Phase::Wanted)
                .map(|(task, running)| (*task, running.attempt))
                .collect(),
        };
        let waiting: Vec<(TaskId, Attempt)> = inventory
            .running
            .iter()
            .filter(|(task, _)| {
                let running = self.running.get(task);
                running.is_some_and(|running| match running.slot {
                    Slot::Given | Slot::Awaited { .. } => true,
                    Slot::Held | Slot::Ahead | Slot::Beyond => false,
                })
            })
            .copied()
            .collect();
        self.tell(WorkerMessage::Inventory(inventory), turn);
        for (task, attempt) in waiting {
            self.tell(WorkerMessage::Seceded { task, attempt }, turn);
        }
    }

    /// The scheduler has no use for an attempt that it does not remember.
    pub(crate) fn on_disown(&mut self, task: TaskId, attempt: Attempt, turn: &mut Turn<'_>) {
        let running = self.running.get(&task).map(|running| running.attempt);
        let queued = self.queued(task).map(|(_, queued)| queued.attempt);
        if running == Some(attempt) {
            self.stop(task, Phase::Disowned, turn);
        }
        if queued == Some(attempt) {
            self.cancel_queued(task, turn);
        }
    }
}
