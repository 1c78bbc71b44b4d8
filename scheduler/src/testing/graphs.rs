//! Small graphs that tests speak about, and random ones of every kind of edge.

use proptest::prelude::*;
use transload_protocol::{
    Amount, Edges, ExplicitEdges, Layer, LayerIndex, TaskGraph, WorkerId, WorkerRef,
};

/// `tasks` independent tasks, all kept.
pub(crate) fn independent(tasks: u32) -> TaskGraph {
    let mut graph = TaskGraph::new("independent");
    let layer = graph.push(Layer::new("map", "op", tasks));
    graph.keep(layer);
    graph
}

/// `tasks` tasks that start together, all kept.
pub(crate) fn gang(tasks: u32) -> TaskGraph {
    let mut graph = TaskGraph::new("gang");
    let layer = graph.push(Layer::new("gang", "op", tasks).as_gang());
    graph.keep(layer);
    graph
}

/// Three layers one after another, `width` tasks each; the last is kept. Task `i` of layer `l` has index `l * width + i`.
pub(crate) fn chain(width: u32) -> TaskGraph {
    let mut graph = TaskGraph::new("chain");
    let a = graph.push(Layer::new("a", "op", width));
    let b = graph.push(Layer::new("b", "op", width).reading(a, Edges::OneToOne));
    let c = graph.push(Layer::new("c", "op", width).reading(b, Edges::OneToOne));
    graph.keep(c);
    graph
}

/// `m` tasks shuffled into `r`, which are kept.
pub(crate) fn shuffle(m: u32, r: u32) -> TaskGraph {
    let mut graph = TaskGraph::new("shuffle");
    let map = graph.push(Layer::new("map", "op", m).with_outputs(r));
    let reduce = graph.push(Layer::new("reduce", "op", r).reading(map, Edges::Shuffle));
    graph.keep(reduce);
    graph
}

/// `m` tasks gathered into one, which is kept.
pub(crate) fn gather(m: u32) -> TaskGraph {
    let mut graph = TaskGraph::new("gather");
    let map = graph.push(Layer::new("map", "op", m));
    let merge = graph.push(Layer::new("merge", "op", 1).reading(map, Edges::Broadcast));
    graph.keep(merge);
    graph
}

pub(crate) fn explicit(lists: &[Vec<(u32, u32)>]) -> Edges {
    Edges::Explicit(ExplicitEdges::from_lists(lists.iter().map(Vec::as_slice)))
}

fn edges_from(below: &Layer, size: u32, kind: u8, bits: u64) -> (u32, Edges) {
    match kind {
        0 => (below.tasks, Edges::OneToOne),
        1 => (below.outputs, Edges::Shuffle),
        2 => (size, Edges::Broadcast),
        3 => (
            below.tasks.div_ceil(size + 1),
            Edges::Tree { arity: size + 1 },
        ),
        _ => {
            let lists: Vec<Vec<(u32, u32)>> = (0..size)
                .map(|row| {
                    (0..below.tasks)
                        .filter(|task| (bits >> ((row * 7 + task) % 64)) & 1 == 1)
                        .map(|task| (task, task % below.outputs))
                        .collect()
                })
                .collect();
            (size, explicit(&lists))
        }
    }
}

/// One layer in a few asks for more than slots, or for certain workers.
fn constrained(mut layer: Layer, bits: u64) -> Layer {
    match bits % 7 {
        0 => layer.resources.memory_bytes = 1 + bits % 600,
        1 => layer.resources = layer.resources.with("gpu", Amount::ten_thousandths(5_000)),
        _ => {}
    }
    let some = WorkerId((bits >> 4) as u32 % 3);
    match bits % 11 {
        0 => layer.with_label("odd"),
        1 => layer.on_worker(some).on_worker("worker 1"),
        2 => layer.on_host("there"),
        3 if !layer.gang => {
            let worker = |task: u32| match (bits >> 4) as u32 % 5 + task % 3 {
                id @ 0..3 => WorkerRef::Id(WorkerId(id)),
                name => WorkerRef::Name(format!("worker {name}")),
            };
            let workers = (0..layer.tasks).map(worker).collect();
            layer.on_each(workers)
        }
        _ => layer,
    }
}

/// Random graphs of every kind of edge, some tasks with two inputs, some layers kept, perhaps none.
pub(crate) fn any_graph() -> impl Strategy<Value = TaskGraph> {
    let layer = (1_u32..5, 0_u8..5, any::<u64>(), any::<bool>(), -1_i32..2);
    (
        proptest::collection::vec(layer, 0..6),
        any::<u16>(),
        1_u32..5,
    )
        .prop_map(|(recipe, kept, roots)| {
            let mut graph = TaskGraph::new("random");
            graph.push(Layer::new("root", "op", roots).with_outputs(3));
            for (size, kind, bits, twice, priority) in recipe {
                let pick = |bits: u64| (bits % graph.layers.len() as u64) as usize;
                let source = pick(bits);
                let (tasks, edges) = edges_from(&graph.layers[source], size, kind, bits);
                let mut layer = Layer::new("layer", "op", tasks)
                    .with_outputs(size)
                    .reading(LayerIndex(source as u32), edges.clone());
                layer.priority = priority;
                layer.resources.slots = 1 + (bits >> 9) as u32 % 2;
                if bits >> 11 & 3 == 0 {
                    layer.gang = true;
                    layer.resources.slots = 1;
                }
                if twice {
                    // The same partitions once more, or everything of another layer.
                    layer = match kind {
                        0 | 1 => layer.reading(LayerIndex(source as u32), edges),
                        _ => layer.reading(LayerIndex(pick(bits >> 20) as u32), Edges::Broadcast),
                    };
                }
                graph.push(constrained(layer, bits >> 32));
            }
            for layer in 0..graph.layers.len() as u32 {
                if kept >> layer & 1 == 1 {
                    graph.keep(LayerIndex(layer));
                }
            }
            graph
        })
}
