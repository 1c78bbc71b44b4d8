//! The graphs that schedulers are measured with. Called by the measurements; knows no scheduler.

use serde::{Deserialize, Serialize};
use transload_protocol::{
    Blob, Edges, ExplicitEdges, Layer, LayerIndex, LayerInput, Source, TaskGraph,
};

/// Tasks on each side of a shuffle, if there are so many.
const SHUFFLE_WIDTH: u32 = 1_000;
/// Tasks in a layer of the random graph, if there are so many. A task reads from the two layers before its own.
const RANDOM_WIDTH: u32 = 50_000;
const OPERATOR: &str = "noop";

/// A family of graphs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// Independent tasks, and one that reads them all and is kept.
    Merge,
    /// A binary reduction of half as many leaves; its root is kept.
    Tree,
    /// Two layers, each task of the second reads one of the first; the second is kept, so that the client is told of each.
    Map,
    /// A chain of shuffles of 1,000 x 1,000 partitions: 1,000 tasks with 1,000 outputs each, 1,000 tasks that each read one output of all
    /// of them, and so on. The last layer is kept.
    Shuffle,
    /// Each task reads two others, drawn from the two layers of 50,000 tasks before its own; edges are listed one by one. One task
    /// that is kept reads all that nobody else reads.
    Random,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Merge,
        Self::Tree,
        Self::Map,
        Self::Shuffle,
        Self::Random,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Merge => "merge",
            Self::Tree => "tree",
            Self::Map => "map",
            Self::Shuffle => "shuffle",
            Self::Random => "random",
        }
    }

    /// A graph of about so many tasks, at least ten. The same seed draws the same edges.
    pub fn graph(self, tasks: u32, seed: u64) -> TaskGraph {
        let tasks = tasks.max(10);
        let mut graph = TaskGraph::new(self.name());
        let kept = match self {
            Self::Merge => {
                let many = graph.push(Layer::new("many", OPERATOR, tasks - 1));
                graph.push(Layer::new("merge", OPERATOR, 1).reading(many, Edges::Broadcast))
            }
            Self::Tree => {
                let leaves = graph.push(Layer::new("leaves", OPERATOR, tasks.div_ceil(2)));
                graph.push_tree(leaves, 2, "tree", OPERATOR, &Blob::from(Vec::new()))
            }
            Self::Map => {
                let first = graph.push(Layer::new("first", OPERATOR, tasks / 2));
                graph
                    .push(Layer::new("second", OPERATOR, tasks / 2).reading(first, Edges::OneToOne))
            }
            Self::Shuffle => push_shuffles(&mut graph, tasks),
            Self::Random => push_random(&mut graph, tasks, seed),
        };
        graph.keep(kept);
        graph
    }
}

/// Partitions that all tasks of a graph read, together.
pub fn edge_count(graph: &TaskGraph) -> u64 {
    let tasks_of = |source: &Source| {
        let Source::Layer(index) = source;
        let layer = graph.layers.get(index.0 as usize);
        layer.map_or(0, |layer| u64::from(layer.tasks))
    };
    let of_input = |layer: &Layer, input: &LayerInput| match &input.edges {
        Edges::OneToOne => u64::from(layer.tasks),
        Edges::Shuffle | Edges::Broadcast => u64::from(layer.tasks) * tasks_of(&input.source),
        Edges::Tree { .. } => tasks_of(&input.source),
        Edges::Explicit(edges) => edges.partitions.len() as u64,
    };
    let layers = graph.layers.iter();
    layers
        .flat_map(|layer| layer.inputs.iter().map(move |input| of_input(layer, input)))
        .sum()
}

fn push_shuffles(graph: &mut TaskGraph, tasks: u32) -> LayerIndex {
    let width = SHUFFLE_WIDTH.min(tasks / 2);
    let mut last = None;
    for _ in 0..tasks / (2 * width) {
        let map = Layer::new("map", OPERATOR, width).with_outputs(width);
        let map = graph.push(match last {
            None => map,
            Some(reduced) => map.reading(reduced, Edges::OneToOne),
        });
        let reduce = Layer::new("reduce", OPERATOR, width).reading(map, Edges::Shuffle);
        last = Some(graph.push(reduce));
    }
    last.unwrap_or(LayerIndex(0))
}

fn push_random(graph: &mut TaskGraph, tasks: u32, seed: u64) -> LayerIndex {
    let width = RANDOM_WIDTH.min(tasks / 4);
    let mut draw = Draw(seed);
    // Position in its layer of each task that nobody reads yet.
    let mut unread: Vec<Vec<bool>> = Vec::new();
    let mut left = tasks - 1;
    while left > 0 {
        let size = width.min(left);
        left -= size;
        let sources = unread.len().min(2);
        let mut layer = Layer::new("random", OPERATOR, size);
        if sources > 0 {
            for (source, edges) in random_edges(&mut draw, size, sources, &mut unread) {
                layer = layer.reading(source, Edges::Explicit(edges));
            }
        }
        graph.push(layer);
        unread.push(vec![true; size as usize]);
    }
    let mut sink = Layer::new("sink", OPERATOR, 1);
    for (index, unread) in (0..).zip(&unread) {
        let partitions: Vec<(u32, u32)> = (0..)
            .zip(unread)
            .filter(|(_, unread)| **unread)
            .map(|(task, _)| (task, 0))
            .collect();
        if !partitions.is_empty() {
            let edges = ExplicitEdges::from_lists([partitions.as_slice()]);
            sink = sink.reading(LayerIndex(index), Edges::Explicit(edges));
        }
    }
    graph.push(sink)
}

/// The edges of a layer of `size` tasks, each of which reads two different tasks of the last `sources` layers, by source layer.
fn random_edges(
    draw: &mut Draw,
    size: u32,
    sources: usize,
    unread: &mut [Vec<bool>],
) -> Vec<(LayerIndex, ExplicitEdges)> {
    let first = unread.len() - sources;
    let window = unread.get_mut(first..).unwrap_or_default();
    let mut made: Vec<(LayerIndex, ExplicitEdges)> = (first..)
        .take(sources)
        .map(|index| {
            let mut edges = ExplicitEdges {
                offsets: Vec::with_capacity(size as usize + 1),
                partitions: Vec::new(),
            };
            edges.offsets.push(0);
            (LayerIndex(u32::try_from(index).unwrap_or(u32::MAX)), edges)
        })
        .collect();
    let choices: u64 = window.iter().map(|layer| layer.len() as u64).sum();
    for _ in 0..size {
        let one = draw.below(choices);
        let other = (one + 1 + draw.below(choices - 1)) % choices;
        for mut chosen in [one, other] {
            for ((_, edges), layer) in made.iter_mut().zip(window.iter_mut()) {
                match layer.get_mut(chosen as usize) {
                    Some(unread) => {
                        *unread = false;
                        let task = u32::try_from(chosen).unwrap_or(u32::MAX);
                        edges.partitions.push((task, 0));
                        break;
                    }
                    None => chosen -= layer.len() as u64,
                }
            }
        }
        for (_, edges) in &mut made {
            let end = u32::try_from(edges.partitions.len()).unwrap_or(u32::MAX);
            edges.offsets.push(end);
        }
    }
    made
}

/// SplitMix64: enough chance to draw edges, the same on every machine.
struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_graph_is_sound_and_about_as_large_as_asked_for() {
        for shape in Shape::ALL {
            for tasks in [10, 1_000, 110_000] {
                let graph = shape.graph(tasks, 1);
                let edges = edge_count(&graph);
                let compiled = graph.compile().expect("a sound graph");
                let count = compiled.task_count();
                assert!(
                    count.abs_diff(tasks) <= tasks / 10 + 20,
                    "{shape:?}: {count} for {tasks}"
                );
                let walked: u64 = (0..count)
                    .map(|task| u64::from(compiled.input_count(task)))
                    .sum();
                assert_eq!(edges, walked, "{shape:?} {tasks}");
            }
        }
    }

    #[test]
    fn nothing_of_a_graph_is_superfluous() {
        for shape in Shape::ALL {
            let graph = shape.graph(2_000, 5).compile().expect("a sound graph");
            let mut needed = vec![false; graph.task_count() as usize];
            for layer in (0..).take(graph.layers().len()).map(LayerIndex) {
                if graph.is_kept(layer) {
                    graph
                        .tasks_of(layer)
                        .for_each(|task| needed[task as usize] = true);
                }
            }
            for task in (0..graph.task_count()).rev() {
                if needed[task as usize] {
                    graph.for_each_input(task, |input| needed[input.task as usize] = true);
                }
            }
            assert!(needed.iter().all(|needed| *needed), "{shape:?}");
        }
    }

    #[test]
    fn a_random_task_reads_two_different_ones_and_a_seed_repeats_them() {
        let graph = Shape::Random.graph(1_000, 3);
        assert_eq!(graph, Shape::Random.graph(1_000, 3));
        assert_ne!(graph, Shape::Random.graph(1_000, 4));
        let first_width = graph.layers[0].tasks;
        let sink = graph.layers.len() - 1;
        let graph = graph.compile().expect("a sound graph");
        let last = graph
            .tasks_of(LayerIndex(u32::try_from(sink).expect("few")))
            .start;
        for task in first_width..last {
            let mut read = Vec::new();
            graph.for_each_input(task, |input| read.push(input.task));
            assert_eq!(read.len(), 2);
            assert_ne!(read[0], read[1]);
        }
    }
}
