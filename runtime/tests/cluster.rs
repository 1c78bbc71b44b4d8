//! Whole clusters of worker processes over real sockets: graphs of every shape, failing tasks, lost workers, short memory.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::time::Duration;

use common::{cluster, failure, kill, left_in, number, run, tree, tree_sum, until};
use transload_protocol::{Edges, Layer, TaskErrorKind, TaskGraph, Tier};

/// Bytes of each partition in the tests that need more memory than there is.
const SIZE: usize = 128 << 10;

#[test]
fn run_as_worker() {
    common::worker_entry();
}

/// A map whose every partition is checked by the task that reads it, one to one and through a shuffle.
fn checked(tasks: u32, bytes: usize) -> TaskGraph {
    let size = || bytes.to_string().into_bytes();
    let mut graph = TaskGraph::new("checked");
    let made = graph.push(
        Layer::new("make", "bytes", tasks)
            .with_outputs(5)
            .with_common(size()),
    );
    graph.push(
        Layer::new("map", "check", tasks)
            .with_common(size())
            .reading(made, Edges::OneToOne),
    );
    let shuffled = graph.push(
        Layer::new("shuffle", "check", 5)
            .with_common(size())
            .reading(made, Edges::Shuffle),
    );
    graph.keep(shuffled);
    graph
}

#[tokio::test(flavor = "multi_thread")]
async fn graphs_of_every_shape_end_right_on_one_to_three_workers() {
    let spill = tempfile::tempdir().expect("a folder");
    for workers in 1..=3 {
        let cluster = cluster(workers, spill.path(), |_| {}).await;
        let client = cluster.client().await.expect("connects");
        let graph = checked(7, 10_000);
        let kept = graph.outputs[0];
        assert_eq!(run(&client, graph, kept).await.len(), 5);
        let (graph, top) = tree(20, 1_000, 0);
        assert_eq!(number(&run(&client, graph, top).await), tree_sum(20, 1_000));
        cluster.shutdown().await;
    }
    assert_eq!(left_in(spill.path()), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn large_partitions_arrive_whole_over_tcp() {
    let spill = tempfile::tempdir().expect("a folder");
    let cluster = cluster(2, spill.path(), |_| {}).await;
    let client = cluster.client().await.expect("connects");
    let graph = checked(4, 3 << 20);
    let kept = graph.outputs[0];
    run(&client, graph, kept).await;
    let info = client.info().await.expect("info");
    assert!(
        info.transfers
            .iter()
            .any(|transfer| transfer.transport == "tcp" && transfer.bytes > 1 << 20),
        "{:?}",
        info.transfers
    );
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_task_is_named_and_the_cluster_serves_the_next_graph() {
    let spill = tempfile::tempdir().expect("a folder");
    let cluster = cluster(2, spill.path(), |_| {}).await;
    let client = cluster.client().await.expect("connects");

    let layer = Layer::new("bad", "fail", 3).with_common(b"no such column".to_vec());
    let (kind, text) = failure(&client, layer).await;
    assert_eq!(kind, TaskErrorKind::Operator);
    assert!(
        text.contains("no such column") && text.contains("bad"),
        "{text}"
    );

    let layer = Layer::new("worse", "panic", 1).with_common(b"index out of range".to_vec());
    let (kind, text) = failure(&client, layer).await;
    assert_eq!(kind, TaskErrorKind::Panic);
    assert!(text.contains("panicked: index out of range"), "{text}");

    let (kind, text) = failure(&client, Layer::new("unheard", "nonesuch", 1)).await;
    assert_eq!(kind, TaskErrorKind::UnknownOperator);
    assert!(text.contains("nonesuch") && text.contains("noop"), "{text}");

    let layer = Layer::new("huge", "bytes", 1).with_common(b"99999999999".to_vec());
    let (kind, text) = failure(&client, layer).await;
    assert_eq!(kind, TaskErrorKind::OutOfMemory);
    assert!(text.contains("memory for operators"), "{text}");

    let (graph, top) = tree(10, 100, 0);
    assert_eq!(number(&run(&client, graph, top).await), tree_sum(10, 100));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_in_the_middle_costs_time_and_no_answer() {
    let spill = tempfile::tempdir().expect("a folder");
    let cluster = cluster(3, spill.path(), |_| {}).await;
    let client = cluster.client().await.expect("connects");
    let (graph, top) = tree(40, 5_000, 100);
    let handle = client.submit(graph).await.expect("accepted");
    tokio::time::sleep(Duration::from_millis(500)).await;
    kill(cluster.worker_processes()[0]);
    let outputs = async {
        handle.wait().await.expect("ends well");
        handle.gather(top).await.expect("gathered")
    };
    let outputs = tokio::time::timeout(Duration::from_secs(60), outputs)
        .await
        .expect("in time");
    assert_eq!(number(&outputs), tree_sum(40, 5_000));
    until(&client, "two workers are left", |info| {
        info.workers.len() == 2
    })
    .await;
    cluster.shutdown().await;
    assert_eq!(left_in(spill.path()), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_beyond_memory_are_spilled_and_come_back_right() {
    let spill = tempfile::tempdir().expect("a folder");
    let cluster = cluster(2, spill.path(), |config| {
        config.worker.memory_bytes = Some(2 << 20);
    })
    .await;
    let client = cluster.client().await.expect("connects");
    // 5 MiB of partitions that wait for the slowest, in 2 x 1 MiB of memory.
    let (graph, top) = tree(40, SIZE, 10);
    assert_eq!(number(&run(&client, graph, top).await), tree_sum(40, SIZE));
    let graph = {
        let mut graph = TaskGraph::new("kept");
        let made =
            graph.push(Layer::new("make", "bytes", 40).with_common(SIZE.to_string().into_bytes()));
        graph.keep(made);
        graph
    };
    let handle = client.submit(graph.clone()).await.expect("accepted");
    handle.wait().await.expect("ends well");
    until(&client, "spilling is reported", |info| {
        info.workers.iter().any(|worker| {
            worker.spilled_bytes > 0
                && worker
                    .load
                    .tiers
                    .iter()
                    .any(|tier| tier.tier == Tier::Disk && tier.used_bytes > 0)
        })
    })
    .await;
    // Served from disk, each as its task made it.
    let kept = handle.gather(graph.outputs[0]).await.expect("gathered");
    for (task, outputs) in (0_u32..).zip(&kept) {
        let buffer = &outputs[0].buffers()[0];
        assert_eq!(buffer.len(), SIZE);
        let byte = |at| transload_runtime::builtin::content_byte(task, 0, at);
        assert!(
            buffer
                .iter()
                .enumerate()
                .all(|(at, found)| *found == byte(at))
        );
    }
    drop(handle);
    until(&client, "everything is freed", |info| {
        info.workers
            .iter()
            .all(|worker| worker.load.tiers.iter().all(|tier| tier.used_bytes == 0))
    })
    .await;
    cluster.shutdown().await;
    assert_eq!(left_in(spill.path()), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spill_disk_fails_that_graph_and_the_next_one_runs() {
    let spill = tempfile::tempdir().expect("a folder");
    let cluster = cluster(1, spill.path(), |config| {
        config.worker.memory_bytes = Some(2 << 20);
        config.worker.disk_bytes = 1 << 19;
    })
    .await;
    let client = cluster.client().await.expect("connects");
    let (kind, text) = failure(
        &client,
        Layer::new("too much", "bytes", 40).with_common(SIZE.to_string().into_bytes()),
    )
    .await;
    assert_eq!(kind, TaskErrorKind::SpillFailed, "{text}");
    let (graph, top) = tree(10, 100, 0);
    assert_eq!(number(&run(&client, graph, top).await), tree_sum(10, 100));

    // The same when the disk itself refuses: the spill directory is gone.
    for entry in left_in(spill.path()) {
        std::fs::remove_dir_all(entry).expect("removed");
    }
    let (kind, text) = failure(
        &client,
        Layer::new("too much", "bytes", 40).with_common(SIZE.to_string().into_bytes()),
    )
    .await;
    assert_eq!(kind, TaskErrorKind::SpillFailed, "{text}");
    let (graph, top) = tree(10, 100, 0);
    assert_eq!(number(&run(&client, graph, top).await), tree_sum(10, 100));
    assert_eq!(cluster.worker_processes().len(), 1);
    cluster.shutdown().await;
}
