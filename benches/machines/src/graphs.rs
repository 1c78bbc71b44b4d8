//! The graphs of the scenarios. Edges of the random one follow from its size alone.

use transload_protocol::{Blob, Edges, ExplicitEdges, Layer, TaskGraph};

/// Tasks on each side of a shuffle.
const WIDTH: u32 = 100;

/// Independent tasks and one that reads them all.
pub(crate) fn merge(tasks: u32) -> TaskGraph {
    let mut graph = TaskGraph::new("merge");
    let many = graph.push(Layer::new("many", "noop", tasks - 1));
    let merge = graph.push(Layer::new("merge", "noop", 1).reading(many, Edges::Broadcast));
    graph.keep(merge);
    graph
}

/// A binary reduction.
pub(crate) fn tree(tasks: u32) -> TaskGraph {
    let mut graph = TaskGraph::new("tree");
    let leaves = graph.push(Layer::new("leaves", "noop", tasks / 2));
    let root = graph.push_tree(leaves, 2, "tree", "noop", &Blob::from(Vec::new()));
    graph.keep(root);
    graph
}

/// Two layers, one-to-one; the client is told of each task of the second.
pub(crate) fn map(tasks: u32) -> TaskGraph {
    let mut graph = TaskGraph::new("map");
    let first = graph.push(Layer::new("first", "noop", tasks / 2));
    let second =
        graph.push(Layer::new("second", "noop", tasks / 2).reading(first, Edges::OneToOne));
    graph.keep(second);
    graph
}

/// A chain of shuffles of 100 x 100 partitions.
pub(crate) fn shuffle(tasks: u32) -> TaskGraph {
    let mut graph = TaskGraph::new("shuffle");
    let mut last = None;
    for _ in 0..(tasks / (2 * WIDTH)).max(1) {
        let map = Layer::new("map", "noop", WIDTH).with_outputs(WIDTH);
        let map = graph.push(match last {
            None => map,
            Some(reduced) => map.reading(reduced, Edges::OneToOne),
        });
        let reduce = Layer::new("reduce", "noop", WIDTH).reading(map, Edges::Shuffle);
        last = Some(graph.push(reduce));
    }
    last.into_iter().for_each(|layer| graph.keep(layer));
    graph
}

/// Ten layers; each task reads two of the layer before, scattered over it. The last layer is kept.
pub(crate) fn random(tasks: u32) -> TaskGraph {
    let mut graph = TaskGraph::new("random");
    let width = tasks / 10;
    let mut last = graph.push(Layer::new("random", "noop", width));
    for layer in 1..10 {
        let lists: Vec<[(u32, u32); 2]> = (0..width)
            .map(|task| {
                let one = scattered(layer * width + task) % width;
                let other = (one + 1 + scattered(one + layer) % (width - 1)) % width;
                [(one, 0), (other, 0)]
            })
            .collect();
        let edges = ExplicitEdges::from_lists(lists.iter().map(|list| list.as_slice()));
        last =
            graph.push(Layer::new("random", "noop", width).reading(last, Edges::Explicit(edges)));
    }
    graph.keep(last);
    graph
}

/// The same number for the same number, without order.
fn scattered(number: u32) -> u32 {
    let mixed = (number ^ (number >> 16)).wrapping_mul(0x7FEB_352D);
    let mixed = (mixed ^ (mixed >> 15)).wrapping_mul(0x846C_A68B);
    mixed ^ (mixed >> 16)
}
