//! A scheduler that takes the place of one that is gone: what that one wrote down, and the time in which workers and clients come
//! back.
//!
//! Called by the driver at its start and by `machine`. What tasks are done is not written down: `inventory` finds it where it
//! is stored.

use std::collections::{BTreeMap, BTreeSet};

use transload_protocol::{
    ClientId, GraphError, JournalEntry, RequestId, TaskRange, Time, WorkerId,
};

use crate::api::{Action, Config};
use crate::machine::{Client, Scheduler};
use crate::record::Facts;

/// So many attempts of a task each scheduler may make before its numbers could be taken for those of the next one, as a
/// power of two.
const ATTEMPT_BITS: u32 = 20;

/// The workers of an earlier scheduler are being waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recovery {
    /// Until when at most.
    pub(crate) until: Time,
    /// Those that are not back.
    pub(crate) missing: BTreeSet<WorkerId>,
}

impl Scheduler {
    /// A scheduler that goes on where another ended. No task counts as done until a worker says that it holds its outputs;
    /// until all workers are back, or [`Config::recovery_grace_ms`] is over, none is handed out.
    ///
    /// # Errors
    /// A [`GraphError`] when an accepted graph is not valid: the journal is of another version.
    pub fn restore(
        config: Config,
        now: Time,
        facts: Facts,
        out: &mut Vec<Action>,
    ) -> Result<Self, GraphError> {
        let grace = u64::from(config.recovery_grace_ms) * 1_000;
        let absence = grace.max(u64::from(config.client_grace_ms) * 1_000);
        let mut scheduler = Self::new(config);
        scheduler.now = now;
        scheduler.next_client = facts.next_client;
        scheduler.next_worker = facts.next_worker;
        if facts.cluster.is_some() {
            scheduler.attempt_base = facts.epoch.wrapping_add(1) << ATTEMPT_BITS;
        }
        let mut holds = Vec::new();
        for (id, client) in facts.clients {
            holds.extend(client.holds.iter().map(|(hold, tasks)| (id, *hold, *tasks)));
            let mut record = Client::new(client.name);
            record.session = Some(client.token);
            record.ended = client.ended;
            record.over = client.over;
            scheduler.insert_absent(id, record, now.after_micros(absence));
        }
        if !facts.workers.is_empty() {
            scheduler.recovery = Some(Recovery {
                until: now.after_micros(grace),
                missing: facts.workers,
            });
        }
        let mut released = Vec::new();
        for graph in facts.graphs.into_values() {
            let slot = scheduler.insert_graph(graph.id, graph.tasks.compile()?);
            scheduler.start_roots(slot);
            released.push((graph.id, graph.released, graph.is_orphan));
        }
        // Everything that is needed is known before anything is let go.
        scheduler.restore_holds(&holds, &facts.names);
        for (id, released, is_orphan) in released {
            scheduler.on_release(id.client, &released, out);
            // A client that has left may be known by that alone, where the last entries are lost.
            let is_left = is_orphan || !scheduler.clients.contains_key(&id.client);
            if let Some(slot) = scheduler.graphs.by_id.get(&id).copied()
                && is_left
            {
                scheduler.leave(slot, out);
            }
        }
        if scheduler.recovery.is_none() {
            scheduler.find_sources_gone();
        }
        scheduler.follow_imports(out);
        scheduler.spare_the_absent(out);
        Ok(scheduler)
    }

    fn restore_holds(
        &mut self,
        holds: &[(ClientId, RequestId, TaskRange)],
        names: &BTreeMap<String, TaskRange>,
    ) {
        for (client, hold, tasks) in holds {
            if let Ok((slot, _)) = self.shareable(*tasks) {
                self.add_hold(*client, *hold, slot, *tasks);
            }
        }
        for (name, tasks) in names {
            if let Ok((slot, _)) = self.shareable(*tasks) {
                self.add_name(name.clone(), slot, *tasks);
            }
        }
    }

    /// Whether a worker with this id may come back.
    pub fn knows_worker(&self, worker: WorkerId) -> bool {
        worker.0 < self.next_worker
    }

    /// No worker was ever given this id or a higher one.
    pub fn next_worker(&self) -> WorkerId {
        WorkerId(self.next_worker)
    }

    /// Whether the workers of an earlier scheduler are still being waited for.
    pub fn is_recovering(&self) -> bool {
        self.recovery.is_some()
    }

    /// A worker of an earlier scheduler is back.
    pub(crate) fn on_back(&mut self, worker: WorkerId, out: &mut Vec<Action>) {
        if let Some(recovery) = &mut self.recovery {
            recovery.missing.remove(&worker);
        }
        self.end_recovery_if_due(out);
    }

    pub(crate) fn end_recovery_if_due(&mut self, out: &mut Vec<Action>) {
        let now = self.now;
        let is_over =
            |recovery: &mut Recovery| recovery.missing.is_empty() || recovery.until <= now;
        if let Some(recovery) = self.recovery.take_if(is_over) {
            for worker in recovery.missing {
                self.record(|| JournalEntry::WorkerLeft { worker }, out);
            }
            self.settle_returned_gangs(out);
            self.doubt_all();
            // Tasks that are pinned to them may be in their queues since they came back.
            self.workers.change_all();
            self.find_sources_gone();
        }
    }
}
