//! The order of ready tasks: which layer is served first, and which of them nobody has a claim on.
//!
//! Filled and emptied by `transition`, read by `place`. Tasks of one layer ask for the same resources, so they queue
//! together: whoever finds that a worker has no room for one of them skips them all.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use transload_protocol::MAX_TASKS_PER_GRAPH;

use crate::graph::{LayerRecord, Line};
use crate::share::Shares;
use crate::slab::{GraphSlot, ShareSlot};
use crate::stuck::Stuck;

/// What is left of an [`order`](Rank::order) without its priority: such a task goes before nearly all others of its worker.
pub(crate) const IN_FRONT: u64 = (1 << 48) - 1;

/// Bits for the number of a layer in its graph: a graph has no more layers than tasks.
const LAYER_BITS: u32 = 24;
const _: () = assert!(MAX_TASKS_PER_GRAPH <= 1 << LAYER_BITS);

/// The place of a layer among all layers of its client: lower goes first. Between clients of the same priority it is decided by
/// `share` who goes first; here their layers only stand together. Ranks are compared all the time: the fields lie so that two are
/// compared at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Rank {
    pub(crate) share: ShareSlot,
    /// Higher priorities first.
    pub(crate) urgency: Urgency,
    /// Graphs further inside, which others wait for, go first; then deeper layers, which free memory, before wider ones, which take
    /// it.
    depth: Depth,
    /// Graphs that were accepted earlier go first, together with those that their tasks wait for.
    pub(crate) graph_serial: u32,
    /// Where the graph is.
    pub(crate) graph: GraphSlot,
}

/// A priority, turned round: lower goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Urgency(u32);

impl Urgency {
    fn of(priority: i32) -> Self {
        Self(!priority.cast_unsigned() ^ 1 << 31)
    }

    pub(crate) fn priority(self) -> i32 {
        (!self.0 ^ 1 << 31).cast_signed()
    }
}

/// Nesting and layer, turned round: lower goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Depth(u32);

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Rank {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        let place = |rank: &Self| {
            let whose = u64::from(rank.urgency.0) << 32 | u64::from(rank.share.0);
            let which = u64::from(rank.graph_serial) << 32 | u64::from(rank.depth.0);
            (whose, which, rank.graph.0)
        };
        place(self).cmp(&place(other))
    }
}

impl Rank {
    /// The place of a layer with this priority and number.
    pub(crate) fn new(line: &Line, graph: GraphSlot, priority: i32, layer: u32) -> Self {
        let nesting = line.nesting.min(u32::MAX >> LAYER_BITS);
        Self {
            share: line.share,
            urgency: Urgency::of(priority.max(line.least_priority)),
            depth: Depth(!(nesting << LAYER_BITS | layer)),
            graph_serial: line.serial,
            graph,
        }
    }

    /// The number of the layer in its graph.
    pub(crate) fn layer(&self) -> u32 {
        !self.depth.0 & ((1 << LAYER_BITS) - 1)
    }

    /// How far inside other tasks its graph was submitted.
    pub(crate) fn nesting(&self) -> u32 {
        !self.depth.0 >> LAYER_BITS
    }

    /// As far back as layers of the same client and priority can stand.
    pub(crate) fn last_of_share(&self) -> Self {
        Self {
            graph_serial: u32::MAX,
            depth: Depth(u32::MAX),
            graph: GraphSlot(u32::MAX),
            ..*self
        }
    }

    /// The order among the tasks of one worker: the same as here, packed (priorities beyond 16 bits, nesting beyond 4 and layers
    /// beyond 12 are clamped). Tasks of one layer follow each other by their ids.
    pub(crate) fn order(&self) -> u64 {
        let nesting = u64::from(15 - self.nesting().min(15));
        let layer = u64::from(0x0fff - self.layer().min(0x0fff));
        self.order_of_priority() | u64::from(self.graph_serial) << 16 | nesting << 12 | layer
    }

    /// Among the tasks of one worker, after all of the same priority that were handed out before, whosever they were. `era` is no
    /// less than the serial of any graph, and `number` grows with each task of one era.
    pub(crate) fn order_in_turn(&self, era: u32, number: u16) -> u64 {
        self.order_of_priority() | u64::from(era) << 16 | u64::from(number)
    }

    fn order_of_priority(&self) -> u64 {
        let priority = self
            .urgency
            .priority()
            .clamp(i32::from(i16::MIN), i32::from(i16::MAX));
        u64::try_from(i32::from(i16::MAX) - priority).unwrap_or(0) << 48
    }
}

/// Ready tasks of all graphs. The tasks themselves are in their layers' bit sets and their preferred workers' heaps.
#[derive(Debug, Default)]
pub(crate) struct ReadyQueue {
    /// Layers with ready tasks that prefer no worker.
    pub(crate) layers: BTreeSet<Rank>,
    /// Whose layers go first.
    pub(crate) shares: Shares,
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

    /// A layer has got its first ready task that prefers no worker.
    pub(crate) fn insert_layer(&mut self, rank: &Rank) {
        self.layers.insert(*rank);
        self.shares.open(rank);
    }

    /// A layer has none any more.
    pub(crate) fn remove_layer(&mut self, rank: &Rank) {
        self.layers.remove(rank);
        self.shares.close(rank);
    }

    /// The layers of one client and priority, in order.
    pub(crate) fn layers_of(
        &self,
        urgency: Urgency,
        share: ShareSlot,
    ) -> impl Iterator<Item = &Rank> {
        let first = Rank {
            share,
            urgency,
            graph_serial: 0,
            depth: Depth(0),
            graph: GraphSlot(0),
        };
        let rest = self.layers.range(first..);
        rest.take_while(move |rank| rank.urgency == urgency && rank.share == share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rank(priority: i32, serial: u32, nesting: u32, layer: u32) -> Rank {
        let line = Line {
            share: ShareSlot(0),
            serial,
            nesting,
            least_priority: i32::MIN,
        };
        Rank::new(&line, GraphSlot(0), priority, layer)
    }

    #[test]
    fn priority_then_age_then_nesting_then_depth_decide() {
        let sorted = [
            rank(5, 9, 0, 0),
            rank(0, 1, 2, 0),
            rank(0, 1, 1, 9),
            rank(0, 1, 0, 3),
            rank(0, 1, 0, 2),
            rank(0, 2, 0, 7),
            rank(-1, 0, 0, 0),
        ];
        assert!(sorted.is_sorted());
        assert!(sorted.is_sorted_by(|a, b| a.order() < b.order()));
        assert_eq!(sorted[2].layer(), 9);
    }

    #[test]
    fn what_is_handed_out_in_turn_goes_behind_what_was_handed_out_before() {
        let sorted = [
            rank(7, 9, 0, 0).order(),
            rank(0, 6, 0, 9).order(),
            rank(0, 6, 3, 0).order_in_turn(7, 0),
            rank(0, 1, 0, 9).order_in_turn(7, 1),
            rank(0, 6, 0, 9).order_in_turn(8, 0),
            rank(0, 8, 0, 0).order(),
        ];
        assert!(sorted.is_sorted(), "{sorted:?}");
    }
}
