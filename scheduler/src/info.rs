//! The cluster at one moment, for `ClientMessage::Info` and the command line.

use transload_protocol::{
    ClusterInfo, GraphId, GraphInfo, Layer, LayerIndex, LayerInfo, Source, WorkerInfo,
};

use crate::graph::{Graph, LayerRecord, Phase};
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
                .map(|slot| (*slot, &self.workers.slab[*slot]))
                .map(|(slot, worker)| WorkerInfo {
                    worker: worker.id,
                    hello: worker.hello.clone(),
                    load: worker.load.clone(),
                    assigned: count(worker.assigned.len()),
                    finished: worker.finished,
                    spilled_bytes: worker.spilled_bytes,
                    stragglers: self.stragglers_on(worker),
                    apart_from: (self.apart.from(slot).into_keys())
                        .map(|other| self.workers.slab[other].id)
                        .collect(),
                    aside: worker.aside,
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
            graphs: self.running_graphs(),
            // The driver's to say.
            dashboard: String::new(),
        }
    }

    fn running_graphs(&self) -> Vec<GraphInfo> {
        let graphs = self.graphs.slab.iter().map(|(_, graph)| graph);
        let mut running: Vec<_> = graphs.filter(|it| it.phase == Phase::Running).collect();
        running.sort_unstable_by_key(|graph| graph.serial);
        let first = running.len().saturating_sub(ClusterInfo::MOST_GRAPHS);
        running[first..]
            .iter()
            .map(|it| self.described(it))
            .collect()
    }

    /// How far a graph is, if it has a record.
    pub fn graph_info(&self, graph: GraphId) -> Option<GraphInfo> {
        let slot = self.graphs.by_id.get(&graph)?;
        Some(self.described(&self.graphs.slab[*slot]))
    }

    fn described(&self, graph: &Graph) -> GraphInfo {
        let layers = graph.compiled.layers().iter().zip(&graph.layers);
        let described = |(layer, record): (&Layer, &LayerRecord)| LayerInfo {
            name: layer.name.clone(),
            operator: layer.operator.clone(),
            first_task: record.first_task,
            reads: layer
                .inputs
                .iter()
                .map(|input| reads(&input.source))
                .collect(),
            progress: record.counts,
        };
        let client = self.clients.get(&graph.id.client);
        GraphInfo {
            graph: graph.id,
            name: graph.compiled.name().to_owned(),
            description: graph.compiled.description().to_owned(),
            client: client.map_or_else(String::new, |client| client.name.clone()),
            layers: layers.map(described).collect(),
        }
    }
}

const fn reads(source: &Source) -> LayerIndex {
    let Source::Layer(layer) = source;
    *layer
}
