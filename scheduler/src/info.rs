//! The cluster at one moment, for `ClientMessage::Info` and the command line.

use transload_protocol::{ClusterInfo, WorkerInfo};

use crate::graph::Phase;
use crate::machine::Scheduler;
use crate::traffic::Traffic;

impl Scheduler {
    /// Workers, clients, graphs, and what has moved between workers so far.
    pub fn info(&self) -> ClusterInfo {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        ClusterInfo {
            workers: self
                .workers
                .by_id
                .values()
                .map(|slot| &self.workers.slab[*slot])
                .map(|worker| WorkerInfo {
                    worker: worker.id,
                    hello: worker.hello.clone(),
                    load: worker.load.clone(),
                    assigned: count(worker.assigned.len()),
                    finished: worker.finished,
                    spilled_bytes: worker.spilled_bytes,
                    stragglers: self.stragglers_on(worker),
                })
                .collect(),
            clients: count(self.clients.len()).saturating_sub(self.away),
            graphs_running: count(
                self.graphs
                    .slab
                    .iter()
                    .filter(|(_, graph)| graph.phase == Phase::Running)
                    .count(),
            ),
            tasks_ready: self.ready.len() + self.gangs.members_ready,
            transfers: self.transfers.values().map(Traffic::transfer).collect(),
        }
    }
}
