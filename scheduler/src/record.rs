//! What is written down for a scheduler that will take this one's place: each fact as it comes, and all of them at once.
//!
//! Called by the parts of the machine that accept and end things. Nothing is put together where no journal is kept. Knows no
//! files.

use std::collections::{BTreeMap, BTreeSet};

use transload_protocol::{
    ClientId, ClusterId, GraphId, GraphOutcome, JournalEntry, RequestId, SessionToken, TaskGraph,
    TaskId, TaskRange, WorkerId,
};

use crate::api::Action;
use crate::graph::{Graph, Phase};
use crate::machine::Scheduler;

/// So many of a client's graphs are remembered after their end, for the case that it has missed how they ended.
const ENDS_REMEMBERED: usize = 256;

/// What a journal says, all entries taken together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// The cluster, if the journal has anything to say.
    pub cluster: Option<ClusterId>,
    /// How many schedulers the cluster has had before the last one.
    pub epoch: u32,
    /// No client had this id or a higher one.
    pub next_client: u32,
    /// No worker had this id or a higher one.
    pub next_worker: u32,
    pub(crate) clients: BTreeMap<ClientId, ClientFacts>,
    /// Workers that were in the cluster.
    pub(crate) workers: BTreeSet<WorkerId>,
    /// Graphs in the order in which they were accepted.
    pub(crate) graphs: BTreeMap<u64, GraphFacts>,
    serials: BTreeMap<GraphId, u64>,
    /// What is published.
    pub(crate) names: BTreeMap<String, TaskRange>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientFacts {
    pub(crate) name: String,
    pub(crate) token: SessionToken,
    pub(crate) ended: BTreeMap<GraphId, GraphOutcome>,
    pub(crate) holds: BTreeMap<RequestId, TaskRange>,
    pub(crate) over: BTreeMap<RequestId, GraphOutcome>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GraphFacts {
    pub(crate) id: GraphId,
    pub(crate) tasks: TaskGraph,
    pub(crate) released: Vec<TaskId>,
    pub(crate) is_orphan: bool,
}

impl Facts {
    /// Whether there is nothing that anybody could come back to.
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty() && self.workers.is_empty() && self.graphs.is_empty()
    }

    fn graph(&mut self, id: GraphId) -> Option<&mut GraphFacts> {
        let serial = self.serials.get(&id)?;
        self.graphs.get_mut(serial)
    }

    /// Adds what a later entry says.
    pub fn add(&mut self, entry: JournalEntry) {
        match entry {
            JournalEntry::Begin {
                cluster,
                epoch,
                next_client,
                next_worker,
            } => {
                self.cluster = Some(cluster);
                self.epoch = epoch;
                self.next_client = self.next_client.max(next_client);
                self.next_worker = self.next_worker.max(next_worker);
            }
            JournalEntry::ClientJoined {
                client,
                name,
                token,
            } => {
                self.next_client = self.next_client.max(client.0.saturating_add(1));
                let facts = ClientFacts {
                    name,
                    token,
                    ended: BTreeMap::new(),
                    holds: BTreeMap::new(),
                    over: BTreeMap::new(),
                };
                self.clients.insert(client, facts);
            }
            JournalEntry::ClientLeft { client } => {
                self.clients.remove(&client);
            }
            JournalEntry::WorkerJoined { worker } => {
                self.next_worker = self.next_worker.max(worker.0.saturating_add(1));
                self.workers.insert(worker);
            }
            JournalEntry::WorkerLeft { worker } => {
                self.workers.remove(&worker);
            }
            JournalEntry::Accepted { graph: id, tasks } => {
                let serial = self.graphs.last_key_value().map_or(0, |(last, _)| last + 1);
                self.serials.insert(id, serial);
                let released = Vec::new();
                let graph = GraphFacts {
                    id,
                    tasks,
                    released,
                    is_orphan: false,
                };
                self.graphs.insert(serial, graph);
            }
            JournalEntry::Released { tasks } => {
                for task in tasks {
                    if let Some(graph) = self.graph(task.graph)
                        && !graph.is_orphan
                    {
                        graph.released.push(task);
                    }
                }
            }
            JournalEntry::Ended { graph, outcome } => {
                if let Some(serial) = self.serials.remove(&graph) {
                    self.graphs.remove(&serial);
                }
                if let Some(client) = self.clients.get_mut(&graph.client) {
                    remember(&mut client.ended, graph, outcome);
                }
            }
            JournalEntry::Shutdown => {
                self.clients.clear();
                self.workers.clear();
                self.graphs.clear();
                self.serials.clear();
                self.names.clear();
            }
            JournalEntry::Orphaned { graph } => {
                if let Some(graph) = self.graph(graph) {
                    graph.is_orphan = true;
                    graph.released.clear();
                }
            }
            JournalEntry::Held {
                client,
                hold,
                tasks,
            } => {
                if let Some(client) = self.clients.get_mut(&client) {
                    client.holds.insert(hold, tasks);
                }
            }
            JournalEntry::LetGo {
                client,
                hold,
                outcome,
            } => {
                if let Some(client) = self.clients.get_mut(&client) {
                    client.holds.remove(&hold);
                    if let Some(outcome) = outcome {
                        remember(&mut client.over, hold, outcome);
                    }
                }
            }
            JournalEntry::Published { name, tasks } => {
                self.names.insert(name, tasks);
            }
            JournalEntry::Unpublished { name } => {
                self.names.remove(&name);
            }
            JournalEntry::InTime { graph } => {
                if let Some(graph) = self.graph(graph) {
                    graph.tasks.cancel_after_ms = None;
                }
            }
        }
    }
}

impl Scheduler {
    /// Has something written down before anything later is told.
    pub(crate) fn record(&self, entry: impl FnOnce() -> JournalEntry, out: &mut Vec<Action>) {
        if self.config.journal {
            out.push(Action::Record(entry()));
        }
    }

    /// A graph is over, or what is left of it is forgotten.
    pub(crate) fn note_end(
        &mut self,
        graph: GraphId,
        outcome: &GraphOutcome,
        out: &mut Vec<Action>,
    ) {
        let entry = || JournalEntry::Ended {
            graph,
            outcome: outcome.clone(),
        };
        self.record(entry, out);
        if let Some(client) = self.clients.get_mut(&graph.client)
            && client.session.is_some()
        {
            remember(&mut client.ended, graph, outcome.clone());
        }
    }

    /// Everything that was recorded and still counts, in as few entries as possible; all but [`JournalEntry::Begin`], which is the
    /// driver's.
    pub fn facts(&self) -> Vec<JournalEntry> {
        let mut entries = Vec::new();
        for (client, record) in &self.clients {
            let Some(token) = record.session else {
                continue;
            };
            entries.push(JournalEntry::ClientJoined {
                client: *client,
                name: record.name.clone(),
                token,
            });
            let ended = record.ended.iter();
            entries.extend(ended.map(|(graph, outcome)| JournalEntry::Ended {
                graph: *graph,
                outcome: outcome.clone(),
            }));
            let over = record.over.iter();
            entries.extend(over.map(|(hold, outcome)| JournalEntry::LetGo {
                client: *client,
                hold: *hold,
                outcome: Some(outcome.clone()),
            }));
            let holds = record.holds.iter();
            entries.extend(holds.map(|(hold, tasks)| JournalEntry::Held {
                client: *client,
                hold: *hold,
                tasks: *tasks,
            }));
        }
        let workers = self.workers.by_id.keys().copied();
        let missing = self.recovery.iter().flat_map(|recovery| &recovery.missing);
        entries.extend(
            workers
                .chain(missing.copied())
                .map(|worker| JournalEntry::WorkerJoined { worker }),
        );
        let mut graphs: Vec<&Graph> = self.graphs.slab.iter().map(|(_, graph)| graph).collect();
        graphs.sort_unstable_by_key(|graph| graph.serial);
        for graph in graphs {
            entries.push(JournalEntry::Accepted {
                graph: graph.id,
                tasks: graph.compiled.to_graph(),
            });
            if graph.phase == Phase::Finished && graph.compiled.cancel_after_ms().is_some() {
                entries.push(JournalEntry::InTime { graph: graph.id });
            }
            if graph.shared.is_orphan {
                entries.push(JournalEntry::Orphaned { graph: graph.id });
                continue;
            }
            let tasks: Vec<TaskId> = (0..graph.compiled.task_count())
                .filter(|index| graph.layer_of(*index).kept && !graph.owner_holds(*index))
                .map(|index| graph.task_id(index))
                .collect();
            if !tasks.is_empty() {
                entries.push(JournalEntry::Released { tasks });
            }
        }
        let names = self.names.iter();
        entries.extend(names.map(|(name, tasks)| JournalEntry::Published {
            name: name.clone(),
            tasks: *tasks,
        }));
        entries
    }
}

pub(crate) fn remember<K: Ord>(
    ended: &mut BTreeMap<K, GraphOutcome>,
    which: K,
    outcome: GraphOutcome,
) {
    ended.insert(which, outcome);
    if ended.len() > ENDS_REMEMBERED {
        ended.pop_first();
    }
}
