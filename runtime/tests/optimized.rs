//! Optimized graphs on whole clusters: the same partitions from fewer tasks, errors that name the step, and cancellation.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::time::{Duration, Instant};

use common::{cluster, number, tree, tree_sum, until};
use futures::StreamExt;
use transload_gpu::Partition;
use transload_protocol::{Blob, Edges, Layer, LayerIndex, Passes, TaskErrorKind, TaskGraph};
use transload_runtime::{Client, ClientError, GraphHandle};

/// Every pass, on graphs as small as tests make them.
const PASSES: Passes = Passes {
    fewest_tasks: 2,
    ..Passes::ALL
};

#[test]
fn run_as_worker() {
    common::worker_entry();
}

/// Chains, blocks, a diamond, several outputs, a shuffle and two trees; every partition follows from where it was made. Also
/// the layers that are kept: one in the middle, the ends of both trees.
fn mixture() -> (TaskGraph, Vec<LayerIndex>) {
    let mut graph = TaskGraph::new("mixture");
    let sizes = |tasks: u32| -> Vec<Blob> {
        let sizes = (0..tasks).map(|task| (100 + 10 * task).to_string().into_bytes());
        sizes.map(Blob::from).collect()
    };
    let made = graph.push(Layer::new("made", "bytes", 10).with_per_task(sizes(10)));
    let copy = graph.push(Layer::new("copy", "concat", 10).reading(made, Edges::OneToOne));
    let more = graph.push(
        Layer::new("more", "bytes", 10)
            .with_outputs(4)
            .with_common(b"50".to_vec()),
    );
    let both = graph.push(
        Layer::new("both", "concat", 10)
            .reading(copy, Edges::OneToOne)
            .reading(made, Edges::OneToOne)
            .reading(more, Edges::OneToOne),
    );
    let by_key = graph.push(
        Layer::new("by key", "concat", 10)
            .with_outputs(3)
            .reading(both, Edges::OneToOne),
    );
    let shuffled = graph.push(Layer::new("shuffled", "concat", 3).reading(by_key, Edges::Shuffle));
    let summed = graph.push(Layer::new("summed", "sum", 3).reading(shuffled, Edges::OneToOne));
    graph.push(Layer::new("unused", "panic", 9).reading(made, Edges::Broadcast));

    let leaves = graph.push(Layer::new("leaves", "bytes", 11).with_per_task(sizes(11)));
    let halves = graph.push(
        Layer::new("halves", "concat", 11)
            .with_outputs(2)
            .reading(leaves, Edges::OneToOne),
    );
    let top = graph.push_tree(halves, 4, "joined", "concat", &Blob::default());
    let kept = vec![shuffled, summed, top];
    kept.iter().for_each(|layer| graph.keep(*layer));
    (graph, kept)
}

async fn gathered(handle: &GraphHandle, kept: &[LayerIndex]) -> Vec<Vec<Vec<Partition>>> {
    let mut all = Vec::new();
    for layer in kept {
        let layer = handle.gather(*layer);
        let layer = tokio::time::timeout(Duration::from_secs(60), layer).await;
        all.push(layer.expect("in time").expect("gathered"));
    }
    all
}

/// Tasks that a cluster has finished so far.
async fn finished(client: &Client) -> u64 {
    let info = client.info().await.expect("info");
    info.workers.iter().map(|worker| worker.finished).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_optimized_graph_makes_the_same_partitions_with_fewer_tasks() {
    let spill = tempfile::tempdir().expect("a folder");
    let cluster = cluster(2, spill.path(), |_| {}).await;
    let client = cluster.client().await.expect("connects");
    let (graph, kept) = mixture();

    let plain = client.submit(graph.clone()).await.expect("accepted");
    let expected = gathered(&plain, &kept).await;
    assert!(plain.report().is_none());
    let plain_tasks = finished(&client).await;
    drop(plain);

    let optimized = client.submit_optimized(graph, &PASSES).await;
    let optimized = optimized.expect("accepted");
    assert_eq!(gathered(&optimized, &kept).await, expected);
    assert!(
        expected
            .iter()
            .flatten()
            .flatten()
            .all(|part| part.bytes() > 0)
    );
    let report = optimized.report().expect("optimized");
    let tasks = finished(&client).await - plain_tasks;
    // made, copy, more, both, by key; shuffled; summed; leaves and halves in joined; the top.
    assert_eq!((plain_tasks, tasks), (82, 10 + 3 + 3 + 3 + 1), "{report}");
    assert!(
        report.to_string().contains("`joined 11 to 3` runs"),
        "{report}"
    );

    // What is not kept cannot be gathered, by the name that it has in the caller's graph; what is kept can be let go of.
    let refused = optimized.gather(LayerIndex(1)).await;
    assert!(
        matches!(refused, Err(ClientError::NotKept { layer: 1, .. })),
        "{refused:?}"
    );
    for layer in kept {
        let tasks = optimized.as_completed(layer).count().await;
        optimized.release(layer, 0..u32::try_from(tasks).expect("few"));
    }
    until(&client, "everything is freed", |info| {
        info.workers
            .iter()
            .all(|worker| worker.load.tiers.iter().all(|tier| tier.used_bytes == 0))
    })
    .await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_whose_first_level_was_pushed_adds_up() {
    let spill = tempfile::tempdir().expect("a folder");
    let cluster = cluster(1, spill.path(), |_| {}).await;
    let client = cluster.client().await.expect("connects");
    let (graph, top) = tree(20, 1_000, 0);
    let handle = client.submit_optimized(graph, &PASSES).await;
    let handle = handle.expect("accepted");
    let outputs = handle.gather(top).await.expect("gathered");
    assert_eq!(number(&outputs), tree_sum(20, 1_000));
    // 20 leaves in 7 groups of three, then 7 to 3 and 3 to 1.
    assert_eq!(finished(&client).await, 7 + 3 + 1);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_step_is_named_with_its_operator_and_its_position() {
    let spill = tempfile::tempdir().expect("a folder");
    let cluster = cluster(1, spill.path(), |_| {}).await;
    let client = cluster.client().await.expect("connects");
    for (operator, kind) in [
        ("fail", TaskErrorKind::Operator),
        ("panic", TaskErrorKind::Panic),
        ("nonesuch", TaskErrorKind::UnknownOperator),
    ] {
        let mut graph = TaskGraph::new("failing");
        let made = graph.push(Layer::new("made", "noop", 1));
        let bad = graph.push(
            Layer::new("bad", operator, 1)
                .with_common(b"no such column".to_vec())
                .reading(made, Edges::OneToOne),
        );
        let top = graph.push(Layer::new("top", "sum", 1).reading(bad, Edges::OneToOne));
        graph.keep(top);
        let handle = client.submit_optimized(graph, &PASSES).await;
        let ended = handle.expect("accepted").wait().await;
        let Err(ClientError::Task(error)) = ended else {
            panic!("a task error was expected, not {ended:?}");
        };
        assert_eq!(error.kind, kind);
        let step =
            format!("in step `bad`, operator `{operator}`, at position 0, which runs inside `top`");
        assert!(error.to_string().contains(&step), "{error}");
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_graph_stops_its_fused_tasks() {
    let spill = tempfile::tempdir().expect("a folder");
    let cluster = cluster(1, spill.path(), |_| {}).await;
    let client = cluster.client().await.expect("connects");
    let mut graph = TaskGraph::new("long");
    let mut last = graph.push(Layer::new("first", "noop", 2));
    for _ in 0..1_000 {
        let sleep = Layer::new("next", "sleep", 2).with_common(b"50".to_vec());
        last = graph.push(sleep.reading(last, Edges::OneToOne));
    }
    graph.keep(last);
    let handle = client.submit_optimized(graph, &PASSES).await;
    let handle = handle.expect("accepted");
    assert_eq!(handle.graph().task_count(), 2);
    until(&client, "both run", |info| {
        info.workers
            .iter()
            .all(|worker| worker.load.running.len() == 2)
    })
    .await;
    let start = Instant::now();
    handle.cancel();
    let ended = handle.wait().await;
    assert!(matches!(ended, Err(ClientError::Cancelled)), "{ended:?}");
    until(&client, "none runs", |info| {
        info.workers
            .iter()
            .all(|worker| worker.load.running.is_empty())
    })
    .await;
    // They would have slept for 50 s.
    assert!(start.elapsed() < Duration::from_secs(25));
    cluster.shutdown().await;
}
