//! The order of ready tasks: which layer is served first, and which of them nobody has a claim on.
//!
//! Filled and emptied by `transition`, read by `place`. Tasks of one layer ask for the same resources, so they queue
//! together: whoever finds that a worker has no room for one of them skips them all.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::graph::LayerRecord;
use crate::slab::GraphSlot;
use crate::stuck::Stuck;

/// The place of a layer among all layers: lower goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    /// Higher priorities first.
    pub(crate) priority: Reverse<i32>,
    /// Then graphs that were accepted earlier.
    pub(crate) graph_serial: u32,
    /// Then deeper layers, which free memory, before wider ones, which take it.
    pub(crate) layer: Reverse<u32>,
    /// Where the graph is.
    pub(crate) graph: GraphSlot,
}

impl Rank {
    /// The order among the tasks of one worker: the same as here, packed (priorities beyond 16 bits are clamped).
    pub(crate) fn order(&self, position: u32) -> u64 {
        let priority = self
            .priority
            .0
            .clamp(i32::from(i16::MIN), i32::from(i16::MAX));
        let priority = u64::try_from(i32::from(i16::MAX) - priority).unwrap_or(0);
        let graph = u64::from(self.graph_serial & 0x00ff_ffff);
        let layer = u64::from(255 - self.layer.0.min(255));
        let position = u64::from(position.min(0xffff));
        priority << 48 | graph << 24 | layer << 16 | position
    }
}

/// Ready tasks of all graphs. The tasks themselves are in their layers' bit sets and their preferred workers' heaps.
#[derive(Debug, Default)]
pub(crate) struct ReadyQueue {
    /// Layers with ready tasks that prefer no worker.
    pub(crate) layers: BTreeSet<Rank>,
    /// Ready tasks that prefer no worker.
    pub(crate) open: u32,
    /// Ready tasks that prefer a worker.
    pub(crate) preferring: u32,
    /// Layers that have just got such tasks: can any worker run them at all?
    pub(crate) unproven: Vec<Rank>,
    /// Ready tasks that have a worker of their own and are in its queue.
    pub(crate) pinned: u32,
    /// Ready tasks that no worker can run.
    pub(crate) stuck: Stuck,
}

impl ReadyQueue {
    /// All of them.
    pub(crate) fn len(&self) -> u32 {
        self.runnable() + self.stuck.tasks()
    }

    /// Those that some worker can run.
    pub(crate) fn runnable(&self) -> u32 {
        self.open + self.preferring + self.pinned
    }

    /// The count of those tasks of a layer that are in queues of workers.
    pub(crate) fn in_queues(&mut self, layer: &LayerRecord) -> &mut u32 {
        if layer.scope.is_each() {
            &mut self.pinned
        } else {
            &mut self.preferring
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rank(priority: i32, graph_serial: u32, layer: u32) -> Rank {
        Rank {
            priority: Reverse(priority),
            graph_serial,
            layer: Reverse(layer),
            graph: GraphSlot(0),
        }
    }

    #[test]
    fn priority_then_age_then_depth_then_index_decide() {
        let sorted = [
            (rank(5, 9, 0), 0),
            (rank(0, 1, 3), 0),
            (rank(0, 1, 3), 1),
            (rank(0, 1, 2), 0),
            (rank(0, 2, 7), 0),
            (rank(-1, 0, 0), 0),
        ];
        assert!(sorted.is_sorted());
        assert!(sorted.is_sorted_by_key(|(rank, position)| rank.order(*position)));
    }
}
