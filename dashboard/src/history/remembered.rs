//! The graphs that are remembered: those that run, and of those that have ended the last. Part of the history.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use transload_protocol::{ClusterInfo, GraphId, GraphInfo, GraphOutcome, TaskId};

use crate::view::{Graph, Layer};
use crate::words;

/// Graphs that have ended and are remembered.
const MOST_ENDED: usize = 300;
/// Graphs that run and are remembered.
const MOST_RUNNING: usize = 1_000;

/// Graphs by id.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    graphs: BTreeMap<GraphId, Graph>,
    /// Oldest first.
    running: VecDeque<GraphId>,
    /// Oldest first.
    ended: VecDeque<GraphId>,
    /// Of those that run: not among those of the cluster when it was last seen.
    missing: BTreeSet<GraphId>,
    changed: BTreeSet<GraphId>,
}

impl Remembered {
    /// It was accepted at that moment.
    pub(super) fn accept(&mut self, info: &GraphInfo, now_us: u64) {
        let id = info.graph;
        self.running.retain(|running| *running != id);
        self.ended.retain(|ended| *ended != id);
        self.graphs.insert(id, words::graph(info, now_us));
        self.changed.insert(id);
        self.running.push_back(id);
        let surplus = self.running.len().saturating_sub(MOST_RUNNING);
        let forgotten: Vec<GraphId> = self.running.drain(..surplus).collect();
        self.forget(&forgotten);
    }

    /// The cluster's graphs as they are.
    pub(super) fn see(&mut self, infos: &[GraphInfo], now_us: u64) {
        for info in infos {
            self.see_one(info, now_us);
        }
        if infos.len() >= ClusterInfo::MOST_GRAPHS {
            return;
        }
        // Those of which the end was not heard, as events are dropped where there are too many. One that is missing once may have been
        // accepted just now.
        let there: BTreeSet<GraphId> = infos.iter().map(|it| it.graph).collect();
        let running = self.running.iter().filter(|it| !there.contains(it));
        let missing: BTreeSet<GraphId> = running.copied().collect();
        let over: Vec<GraphId> = missing.intersection(&self.missing).copied().collect();
        for graph in over {
            self.end_as(graph, ("ended", None), now_us);
        }
        self.missing = missing;
    }

    fn see_one(&mut self, info: &GraphInfo, now_us: u64) {
        let Some(known) = self.graphs.get_mut(&info.graph) else {
            return self.accept(info, now_us);
        };
        if known.end_us.is_some() {
            return;
        }
        let id = info.graph;
        for (layer, info) in known.layers.iter_mut().zip(&info.layers) {
            let now = info.progress;
            if (layer.total, layer.done, layer.running) != (now.total, now.done, now.running) {
                (layer.total, layer.done, layer.running) = (now.total, now.done, now.running);
                self.changed.insert(id);
            }
        }
    }

    /// It has ended.
    pub(super) fn end(&mut self, graph: GraphId, outcome: &GraphOutcome, now_us: u64) {
        self.end_as(graph, words::ending(outcome), now_us);
    }

    fn end_as(
        &mut self,
        id: GraphId,
        (state, reason): (&'static str, Option<String>),
        now_us: u64,
    ) {
        let Some(graph) = self.graphs.get_mut(&id) else {
            return;
        };
        for layer in &mut graph.layers {
            layer.running = 0;
            if state == "finished" {
                layer.done = layer.total;
            }
        }
        (graph.state, graph.reason, graph.end_us) = (state.to_owned(), reason, Some(now_us));
        self.changed.insert(id);
        self.running.retain(|running| *running != id);
        self.ended.push_back(id);
        let surplus = self.ended.len().saturating_sub(MOST_ENDED);
        let forgotten: Vec<GraphId> = self.ended.drain(..surplus).collect();
        self.forget(&forgotten);
    }

    fn forget(&mut self, graphs: &[GraphId]) {
        for graph in graphs {
            self.graphs.remove(graph);
            self.changed.remove(graph);
            self.missing.remove(graph);
        }
    }

    /// A task has run for so long and made so many bytes and rows: its layer, if its graph is remembered.
    pub(super) fn ran(
        &mut self,
        task: TaskId,
        run_us: u64,
        (bytes, rows): (u64, u64),
    ) -> Option<u32> {
        let index = self.layer_of(task)?;
        let layer = self.graphs.get_mut(&task.graph)?;
        let layer = layer.layers.get_mut(index as usize)?;
        layer.run_us = layer.run_us.saturating_add(run_us);
        layer.bytes = layer.bytes.saturating_add(bytes);
        layer.rows = layer.rows.saturating_add(rows);
        self.changed.insert(task.graph);
        Some(index)
    }

    /// The layer of a task, if its graph is remembered.
    pub(super) fn layer_of(&self, task: TaskId) -> Option<u32> {
        let layers = &self.graphs.get(&task.graph)?.layers;
        let behind = layers.partition_point(|layer: &Layer| layer.first_task <= task.index);
        u32::try_from(behind.checked_sub(1)?).ok()
    }

    /// Those of which something has changed since this was last asked.
    pub(super) fn changed(&mut self) -> Vec<Graph> {
        let changed = std::mem::take(&mut self.changed);
        let graphs = changed.iter().filter_map(|id| self.graphs.get(id));
        graphs.cloned().collect()
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Graph> {
        self.graphs.values().cloned().collect()
    }
}
