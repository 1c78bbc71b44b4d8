//! What placement costs and saves on a modelled cluster.

use transload_protocol::{Blob, Edges, Layer, TaskGraph};

use crate::testing::graphs::explicit;
use crate::testing::model::{Setting, run};

/// `leaves` reduced to one, `arity` at a time.
fn tree(leaves: u32, arity: u32) -> TaskGraph {
    let mut graph = TaskGraph::new("tree");
    let layer = graph.push(Layer::new("leaves", "op", leaves));
    let root = graph.push_tree(layer, arity, "tree", "op", &Blob::from(Vec::new()));
    graph.keep(root);
    graph
}

/// Chains of three tasks, of which nothing is kept.
fn chains(width: u32) -> TaskGraph {
    let mut graph = TaskGraph::new("chains");
    let a = graph.push(Layer::new("a", "op", width));
    let b = graph.push(Layer::new("b", "op", width).reading(a, Edges::OneToOne));
    graph.push(Layer::new("c", "op", width).reading(b, Edges::OneToOne));
    graph
}

/// Each reads its neighbours on both sides.
fn stencil(width: u32) -> TaskGraph {
    let mut graph = TaskGraph::new("stencil");
    let a = graph.push(Layer::new("a", "op", width));
    let lists: Vec<Vec<(u32, u32)>> = (0..width)
        .map(|at| {
            let from = at.saturating_sub(1);
            (from..(at + 2).min(width)).map(|task| (task, 0)).collect()
        })
        .collect();
    graph.push(Layer::new("b", "op", width).reading(a, explicit(&lists)));
    graph
}

/// Partitions that all slots and the queues behind them may have made before anyone reads them, and once more while readers are on
/// their way.
fn under_way(setting: &Setting) -> u64 {
    let slots: u32 = setting.hosts.iter().flatten().sum();
    let (least, most) = setting.task_micros[0];
    // As `Pace` does it: what lasts for two milliseconds.
    let queue = (4_000 / (least + most)).clamp(1, u64::from(setting.max_queue_per_slot));
    2 * u64::from(slots) * (1 + queue)
}

/// Clusters of several sizes, with tasks from instant to long.
fn settings() -> Vec<Setting> {
    let sizes = [(1, 2), (8, 4)];
    let durations = [(1, 1), (1, 50), (1_000, 100_000)];
    let all = sizes.iter().flat_map(|(workers, slots)| {
        durations.iter().map(|micros| Setting {
            task_micros: vec![*micros],
            output_bytes: vec![1_000],
            ..Setting::of(*workers, *slots)
        })
    });
    all.collect()
}

#[test]
fn thousands_of_roots_are_made_only_as_fast_as_they_are_read() {
    for setting in settings() {
        let most = under_way(&setting);
        for graph in [chains(3_000), stencil(3_000)] {
            let stored = run(setting.clone(), graph).peak_stored;
            assert!(stored <= most + most / 2, "{stored} of {most}: {setting:?}");
        }
    }
}

#[test]
fn a_reduction_stores_little_more_than_its_depth_on_each_worker() {
    for setting in settings() {
        for (arity, depth) in [(2, 11), (8, 4), (50, 2)] {
            let workers = u64::try_from(setting.hosts[0].len()).expect("few");
            let most = under_way(&setting) * 3 / 2 + workers * u64::from(arity) * depth;
            let stored = run(setting.clone(), tree(2_048, arity)).peak_stored;
            assert!(
                stored <= most,
                "{stored} of {most}: arity {arity}, {setting:?}"
            );
        }
    }
}

#[test]
fn what_is_read_together_is_made_together() {
    for (graph, most) in [
        (tree(2_048, 2), 100),
        (tree(2_048, 8), 100),
        (tree(2_000, 50), 100),
        (stencil(2_000), 300),
    ] {
        let tasks: u32 = graph.layers.iter().map(|layer| layer.tasks).sum();
        for (workers, slots) in [(4, 2), (8, 4)] {
            let figures = run(Setting::of(workers, slots), graph.clone());
            let moved = figures.moved_partitions;
            assert!(moved <= most, "{moved} of {tasks} tasks: {}", graph.name);
            let ended = &figures.ended;
            let (least, most) = (ended.iter().min(), ended.iter().max());
            assert!(most < least.map(|least| least * 2).as_ref(), "{ended:?}");
        }
    }
}
