//! What placement costs and saves on a modelled cluster.

use transload_protocol::{Blob, Edges, Layer, TaskGraph};

use crate::testing::graphs::{explicit, independent, shuffle};
use crate::testing::model::{Figures, Setting, run};

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

/// Of a run on eight workers of four slots, in a table.
fn show(name: &str, figures: &Figures) {
    println!(
        "{name:<8} {:>4} ms {:>5} MB moved, at most {:>4} tasks stored",
        figures.micros / 1_000,
        figures.moved_bytes / 1_000_000,
        figures.peak_stored
    );
}

/// The table of `benches/README.md`, section Placement: run with `--no-capture` to see it.
#[test]
fn what_some_graphs_take_and_move_stays_near_the_least_possible() {
    // Name, graph, and at most so many milliseconds and moved megabytes.
    for (name, graph, millis, megabytes) in [
        ("tree 2", tree(2_048, 2), 300, 80),
        ("tree 8", tree(2_048, 8), 180, 70),
        ("tree 50", tree(2_000, 50), 180, 70),
        ("chains", chains(1_000), 200, 10),
        ("stencil", stencil(1_000), 145, 180),
        ("shuffle", shuffle(64, 64), 470, 3_584),
    ] {
        let figures = run(Setting::of(8, 4), graph);
        show(name, &figures);
        assert!(figures.micros <= millis * 1_000, "{name}: {figures:?}");
        assert!(
            figures.moved_bytes <= megabytes * 1_000_000,
            "{name}: {figures:?}"
        );
    }
}

#[test]
fn a_reduction_over_two_machines_moves_little_between_them() {
    let setting = Setting {
        hosts: vec![vec![4; 4], vec![4; 4]],
        far_bytes_per_micro: 200,
        ..Setting::of(8, 4)
    };
    let figures = run(setting, tree(2_048, 2));
    assert!(figures.far_bytes <= 50_000_000, "{figures:?}");
    assert!(figures.moved_bytes <= 80_000_000, "{figures:?}");
}

#[test]
fn heavy_inputs_of_many_readers_are_moved_only_where_that_saves_time() {
    for (bytes, millis) in [(1_000, 280), (1_000_000, 290), (100_000_000, 540)] {
        // Two partitions, each read by a hundred tasks of 10 ms, on four workers of two slots.
        let mut graph = TaskGraph::new("two read by many");
        let a = graph.push(Layer::new("a", "op", 2));
        let lists: Vec<Vec<(u32, u32)>> = (0..200).map(|at| vec![(at % 2, 0)]).collect();
        graph.push(Layer::new("b", "op", 200).reading(a, explicit(&lists)));
        let setting = Setting {
            output_bytes: vec![bytes, 1_000],
            task_micros: vec![(1_000, 1_000), (5_000, 15_000)],
            is_checked: true,
            ..Setting::of(4, 2)
        };
        let figures = run(setting, graph);
        assert!(figures.micros <= millis * 1_000, "{bytes} B: {figures:?}");
    }
}

#[test]
fn the_last_of_uneven_tasks_do_not_wait_behind_long_ones() {
    let setting = Setting {
        task_micros: vec![(1_000, 200_000)],
        is_checked: true,
        ..Setting::of(4, 2)
    };
    let figures = run(setting, independent(40));
    assert!(figures.recalled > 0, "{figures:?}");
    assert_eq!(figures.runs, 40, "what was given back had not begun");
}
