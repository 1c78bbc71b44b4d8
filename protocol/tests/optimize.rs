//! The optimizer changes what a graph costs and never what it computes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::BTreeSet;

use common::{Random, Results, interpret, random_graph};
use proptest::prelude::*;
use transload_protocol::optimize::{Change, Fate, Pass, Report};
use transload_protocol::{Blob, Edges, Layer, LayerIndex, Optimized, Passes, TaskGraph, optimize};

fn optimized(graph: &TaskGraph, passes: Passes) -> Optimized {
    optimize(graph.clone().compile().expect("a valid graph"), &passes)
}

/// Optimizes a graph, and checks that nothing else has changed.
fn check(graph: &TaskGraph, passes: Passes) -> Optimized {
    let result = optimized(graph, passes);
    let (before, after) = (interpret(graph), interpret(&result.graph));
    let fates = &result.report.fates;
    assert_eq!(fates.len(), graph.layers.len());
    for (old, fate) in fates.iter().enumerate() {
        if let Fate::Layer(now) = fate {
            assert_eq!(
                before.layers[old], after.layers[now.0 as usize],
                "layer {old} now {now}"
            );
        }
    }
    let kept: Option<Vec<LayerIndex>> = graph
        .outputs
        .iter()
        .map(|kept| result.report.layer(*kept))
        .collect();
    assert_eq!(
        kept.as_ref(),
        Some(&result.graph.outputs),
        "kept layers are there"
    );
    assert_eq!(calls_of(graph, &before, fates), sorted(after.calls));
    check_goals(graph, fates);
    check_size(graph, &result, passes.fewest_tasks);
    result
}

/// Every call that is to happen: all but those of dropped layers and of what runs inside them.
fn calls_of(graph: &TaskGraph, results: &Results, fates: &[Fate]) -> Vec<(String, u32)> {
    let layers = graph.layers.iter().zip(fates);
    let dropped: BTreeSet<&str> = layers
        .filter(|(_, fate)| **fate == Fate::Dropped)
        .flat_map(|(layer, _)| {
            let fused = layer.fused.iter().flat_map(|fused| &fused.steps);
            let steps = fused.map(|step| step.layer.as_str());
            steps.chain([layer.name.as_str()])
        })
        .collect();
    let calls = results.calls.iter();
    sorted(
        calls
            .filter(|(name, _)| !dropped.contains(name.as_str()))
            .cloned()
            .collect(),
    )
}

fn sorted(mut calls: Vec<(String, u32)>) -> Vec<(String, u32)> {
    calls.sort_unstable();
    calls
}

/// A graph that keeps nothing is run for the layers that nobody reads.
fn check_goals(graph: &TaskGraph, fates: &[Fate]) {
    if graph.outputs.is_empty() {
        let mut read = vec![false; graph.layers.len()];
        for input in graph.layers.iter().flat_map(|layer| &layer.inputs) {
            let transload_protocol::Source::Layer(source) = input.source;
            read[source.0 as usize] = true;
        }
        for (index, _) in read.iter().enumerate().filter(|(_, read)| !**read) {
            assert!(matches!(fates[index], Fate::Layer(_)), "layer {index}");
        }
    }
}

fn check_size(graph: &TaskGraph, result: &Optimized, fewest_tasks: u32) {
    let tasks = |graph: &TaskGraph| graph.layers.iter().map(|layer| layer.tasks).sum::<u32>();
    let passes = &result.report.passes;
    if let (Some(first), Some(last)) = (passes.first(), passes.last()) {
        assert_eq!(first.before.tasks, tasks(graph));
        assert_eq!(last.after.tasks, tasks(&result.graph));
        assert_eq!(last.after.layers as usize, result.graph.layers.len());
    }
    let was_fused = graph.layers.iter().any(|layer| layer.fused.is_some());
    for layer in result.graph.layers.iter().filter(|_| !was_fused) {
        let groups = layer.fused.iter().flat_map(|fused| &fused.steps);
        for step in groups.filter(|step| step.times > 1) {
            assert!(layer.tasks >= fewest_tasks, "{} in groups", step.layer);
        }
    }
    assert!(!result.report.to_string().is_empty());
}

const fn only(pass: Pass) -> Passes {
    match pass {
        Pass::Cull => Passes {
            cull: true,
            ..Passes::NONE
        },
        Pass::Fuse => Passes {
            fuse: true,
            ..Passes::NONE
        },
        Pass::Reduce => Passes {
            reduce: true,
            ..Passes::NONE
        },
    }
}

fn from_seed(seed: u64, passes: Passes) -> Optimized {
    let mut random = Random::new(seed);
    let graph = random_graph(&mut random);
    let fewest_tasks = random.below(6);
    check(
        &graph,
        Passes {
            fewest_tasks,
            ..passes
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(2_000)
    })]

    #[test]
    fn results_are_the_same_with_and_without_culling(seed in any::<u64>()) {
        from_seed(seed, only(Pass::Cull));
    }

    #[test]
    fn results_are_the_same_with_and_without_fusing(seed in any::<u64>()) {
        from_seed(seed, only(Pass::Fuse));
    }

    #[test]
    fn results_are_the_same_with_and_without_pushing_reductions(seed in any::<u64>()) {
        from_seed(seed, only(Pass::Reduce));
    }

    #[test]
    fn results_are_the_same_with_and_without_all_passes(seed in any::<u64>()) {
        from_seed(seed, Passes::ALL);
    }

    #[test]
    fn a_graph_that_was_optimized_can_be_optimized_again(seed in any::<u64>()) {
        let once = from_seed(seed, only(Pass::Reduce)).graph;
        let twice = check(&once, Passes { fewest_tasks: 2, ..Passes::ALL }).graph;
        check(&twice, Passes { fewest_tasks: 1, ..Passes::ALL });
    }
}

#[test]
fn random_graphs_give_every_pass_something_to_do() {
    let (mut dropped, mut chains, mut blocks, mut pushed, mut fused_and_pushed) = (0, 0, 0, 0, 0);
    for seed in 0..2_000 {
        let result = from_seed(seed, Passes::ALL);
        for change in result.report.passes.iter().flat_map(|pass| &pass.changes) {
            match change {
                Change::Dropped { .. } => dropped += 1,
                Change::Fused { layers, .. } if layers.len() == 1 => chains += 1,
                Change::Fused { .. } => blocks += 1,
                Change::Pushed { .. } => pushed += 1,
                Change::LeftAlone { .. } => {}
            }
        }
        for layer in &result.graph.layers {
            let steps = layer.fused.iter().flat_map(|fused| &fused.steps);
            let groups = steps.filter(|step| step.times > 1).count();
            fused_and_pushed += u32::from(groups > 1);
        }
    }
    for count in [dropped, chains, blocks, pushed, fused_and_pushed] {
        assert!(
            count > 30,
            "{dropped} {chains} {blocks} {pushed} {fused_and_pushed}"
        );
    }
}

/// Read, parse, and two columns of it joined again; the totals of that in a tree; and something that nobody asked for.
fn sales(tasks: u32) -> TaskGraph {
    let mut graph = TaskGraph::new("sales");
    let read = graph.push(Layer::new("read", "read", tasks));
    let parse = graph.push(Layer::new("parse", "parse", tasks).reading(read, Edges::OneToOne));
    let price = graph.push(Layer::new("price", "column", tasks).reading(parse, Edges::OneToOne));
    let count = graph.push(Layer::new("count", "column", tasks).reading(parse, Edges::OneToOne));
    graph.push(Layer::new("sample", "head", 1).reading(parse, Edges::Broadcast));
    let times = graph.push(
        Layer::new("times", "multiply", tasks)
            .reading(price, Edges::OneToOne)
            .reading(count, Edges::OneToOne),
    );
    let total = graph.push_tree(times, 8, "total", "sum", &Blob::default());
    graph.keep(total);
    graph
}

#[test]
fn a_pipeline_below_a_tree_becomes_its_first_level() {
    let graph = sales(800);
    let Optimized { graph, report } = check(&graph, Passes::ALL);
    let shape: Vec<(&str, u32)> = graph
        .layers
        .iter()
        .map(|layer| (layer.name.as_str(), layer.tasks))
        .collect();
    assert_eq!(
        shape,
        [
            ("total 800 to 100", 100),
            ("total 100 to 13", 13),
            ("total 13 to 2", 2),
            ("total 2 to 1", 1)
        ]
    );
    assert_eq!(
        report.fates[..7],
        [
            Fate::Step(LayerIndex(0)),
            Fate::Step(LayerIndex(0)),
            Fate::Step(LayerIndex(0)),
            Fate::Step(LayerIndex(0)),
            Fate::Dropped,
            Fate::Step(LayerIndex(0)),
            Fate::Layer(LayerIndex(0)),
        ]
    );
    let guide = include_str!("../../docs/graphs.md");
    assert!(
        guide.contains(&report.to_string()),
        "docs/graphs.md shows another report than: {report}"
    );
    assert_eq!(sales(800).explain(), Ok(report));
}

#[test]
fn few_tasks_stay_side_by_side_and_chains_are_fused_all_the_same() {
    let Optimized { graph, report } = check(&sales(10), Passes::ALL);
    assert!(report.to_string().contains("stays apart"), "{report}");
    let read = &graph.layers[0];
    assert_eq!(
        (read.name.as_str(), graph.layers.len()),
        ("parse", 6),
        "{report}"
    );
}

fn fates(graph: &TaskGraph) -> Vec<Fate> {
    check(
        graph,
        Passes {
            fewest_tasks: 1,
            ..Passes::ALL
        },
    )
    .report
    .fates
}

#[test]
fn a_layer_that_is_kept_or_read_twice_or_unlike_its_reader_stays() {
    let chain = |change: &dyn Fn(&mut TaskGraph)| {
        let mut graph = TaskGraph::new("chain");
        let first = graph.push(Layer::new("first", "op", 4));
        let last = graph.push(Layer::new("last", "op", 4).reading(first, Edges::OneToOne));
        graph.keep(last);
        change(&mut graph);
        fates(&graph)[0]
    };
    let stays = Fate::Layer(LayerIndex(0));
    assert_eq!(chain(&|_| ()), Fate::Step(LayerIndex(0)));
    assert_eq!(chain(&|graph| graph.keep(LayerIndex(0))), stays);
    assert_eq!(chain(&|graph| graph.layers[0].priority = 1), stays);
    assert_eq!(chain(&|graph| graph.layers[0].retries = 0), stays);
    assert_eq!(chain(&|graph| graph.layers[1].resources.slots = 2), stays);
    let place = |graph: &mut TaskGraph, layer: usize, host: &str| {
        graph.layers[layer] = graph.layers[layer].clone().on_host(host);
    };
    assert_eq!(chain(&|graph| place(graph, 1, "a")), stays);
    assert_eq!(
        chain(&|graph| {
            place(graph, 0, "a");
            place(graph, 1, "b");
        }),
        stays
    );
    assert_eq!(
        chain(&|graph| {
            let other = Layer::new("other", "op", 2).reading(LayerIndex(0), Edges::Broadcast);
            let other = graph.push(other);
            graph.keep(other);
        }),
        stays
    );
}

#[test]
fn what_could_run_meanwhile_is_not_put_behind_a_shuffle() {
    let mut graph = TaskGraph::new("join");
    let map = graph.push(Layer::new("map", "op", 4).with_outputs(4));
    let shuffled = graph.push(Layer::new("shuffled", "op", 4).reading(map, Edges::Shuffle));
    let scan = graph.push(Layer::new("scan", "op", 4));
    let join = graph.push(
        Layer::new("join", "op", 4)
            .reading(shuffled, Edges::OneToOne)
            .reading(scan, Edges::OneToOne),
    );
    graph.push(
        Layer::new("next", "op", 4)
            .reading(join, Edges::OneToOne)
            .reading(map, Edges::Broadcast),
    );
    let fates = fates(&graph);
    assert_eq!(fates[1], Fate::Layer(LayerIndex(1)), "it waits for the map");
    assert_eq!(fates[2], Fate::Step(LayerIndex(2)), "it waits for nothing");
    assert_eq!(
        fates[3],
        Fate::Layer(LayerIndex(2)),
        "its reader waits for the map"
    );
}

#[test]
fn a_chain_of_a_hundred_thousand_layers_is_optimized_in_linear_time() {
    let mut graph = TaskGraph::new("long");
    let mut last = graph.push(Layer::new("first", "op", 2));
    for _ in 0..100_000 {
        last = graph.push(Layer::new("next", "op", 2).reading(last, Edges::OneToOne));
    }
    graph.keep(last);
    let Optimized { graph, report } = optimized(&graph, Passes::ALL);
    assert_eq!(graph.layers.len(), 1);
    assert_eq!(report.layer(last), Some(LayerIndex(0)));
    let fused = graph.layers[0].fused.as_ref().expect("fused");
    assert_eq!(fused.calls(1).len(), 100_000);
}

#[test]
fn a_report_without_passes_says_so() {
    let report: Report = check(&sales(3), Passes::NONE).report;
    assert!(
        report.to_string().contains("no pass was asked for"),
        "{report}"
    );
}
