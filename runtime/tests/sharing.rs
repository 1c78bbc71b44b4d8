//! Clients that share results over real sockets: they hold, name, look up and import what others made, and outlive them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{cluster, kill, left_in, number, until};
use futures::StreamExt;
use tokio::time::timeout;
use transload_gpu::Partition;
use transload_protocol::{
    Address, Edges, Layer, LayerIndex, Placement, SharingRefusal, TaskGraph, WorkerId, WorkerRef,
};
use transload_runtime::{
    Client, ClientError, GraphHandle, LayerHandle, ScatterOptions, Waited, as_completed, wait_all,
};

#[test]
fn run_as_worker() {
    common::worker_entry();
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(120), future)
        .await
        .expect("in time")
}

/// Partitions of 1,000 bytes whose content follows from their place, each after a while; all kept.
fn made(tasks: u32, pause_ms: u32) -> TaskGraph {
    let mut graph = TaskGraph::new("made");
    let pause = graph
        .push(Layer::new("pause", "sleep", tasks).with_common(pause_ms.to_string().into_bytes()));
    let made = Layer::new("make", "bytes", tasks)
        .with_common(b"1000".to_vec())
        .reading(pause, Edges::OneToOne);
    let made = graph.push(made);
    graph.keep(made);
    graph
}

const MADE: LayerIndex = LayerIndex(1);

/// The sum of all bytes of what is imported.
fn sum_of(held: &LayerHandle) -> (TaskGraph, LayerIndex) {
    let mut graph = TaskGraph::new("sum");
    let imported = held.import_into(&mut graph, "imported");
    let sum = graph.push(Layer::new("sum", "sum", 1).reading(imported, Edges::Broadcast));
    graph.keep(sum);
    (graph, sum)
}

async fn summed(client: &Client, held: &LayerHandle) -> u64 {
    let (graph, sum) = sum_of(held);
    let handle = in_time(client.submit(graph)).await.expect("accepted");
    number(&in_time(handle.gather(sum)).await.expect("gathered"))
}

async fn hold_all(owner: &GraphHandle, other: &Client) -> LayerHandle {
    let tasks = owner.tasks_of(MADE).expect("kept");
    in_time(other.hold(tasks)).await.expect("held")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_client_made_is_held_gathered_and_imported_by_another_that_outlives_it() {
    let spill = tempfile::tempdir().expect("a folder");
    let cluster = cluster(2, spill.path(), |_| {}).await;
    let owner = cluster.client().await.expect("connects");
    let other = cluster.client().await.expect("connects");
    let graph = in_time(owner.submit(made(12, 50))).await.expect("accepted");
    // It runs still: a future.
    let held = hold_all(&graph, &other).await;
    assert_eq!(held.outputs(), 1);
    drop(graph);
    drop(owner);
    in_time(held.wait()).await.expect("done");
    assert_eq!(held.done(), 12);
    let gathered = in_time(held.gather()).await.expect("gathered");
    assert_eq!(gathered.len(), 12);
    let want = common::tree_sum(12, 1_000);
    assert_eq!(summed(&other, &held).await, want);

    let holders = in_time(other.who_has(held.tasks())).await.expect("known");
    assert_eq!(holders.iter().flatten().count(), 12);
    kill(cluster.worker_processes()[0]);
    until(&other, "one worker is left", |info| info.workers.len() == 1).await;
    assert_eq!(summed(&other, &held).await, want, "made again");

    let tasks = held.tasks();
    drop(held);
    until(&other, "nothing is stored", |info| {
        let tiers = info.workers.iter().flat_map(|worker| &worker.load.tiers);
        tiers.map(|tier| tier.used_bytes).sum::<u64>() == 0
    })
    .await;
    let refused = in_time(other.hold(tasks)).await.err().expect("gone");
    assert!(
        matches!(
            refused,
            ClientError::Refused(SharingRefusal::UnknownGraph { .. })
        ),
        "{refused}"
    );
    cluster.shutdown().await;
    assert_eq!(left_in(spill.path()), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graph_imports_what_is_still_being_made_and_fails_as_it_does() {
    let spill = tempfile::tempdir().expect("a folder");
    let cluster = cluster(2, spill.path(), |_| {}).await;
    let client = cluster.client().await.expect("connects");
    let first = in_time(client.submit(made(6, 200)))
        .await
        .expect("accepted");
    let mut graph = TaskGraph::new("second");
    let imported = first.import_into(&mut graph, MADE).expect("kept");
    let same = Layer::new("check", "check", 6)
        .with_common(b"1000".to_vec())
        .reading(imported, Edges::OneToOne);
    let same = graph.push(same);
    graph.keep(same);
    let second = in_time(client.submit(graph)).await.expect("accepted");
    drop(first);
    in_time(second.wait())
        .await
        .expect("what came is what was made");

    let mut failing = TaskGraph::new("failing");
    let pause = failing.push(Layer::new("pause", "sleep", 1).with_common(b"500".to_vec()));
    let fails = Layer::new("fails", "fail", 1)
        .with_common(b"no such luck".to_vec())
        .reading(pause, Edges::OneToOne);
    let fails = failing.push(fails);
    failing.keep(fails);
    let failing = in_time(client.submit(failing)).await.expect("accepted");
    let held = client.hold(failing.tasks_of(fails).expect("kept")).await;
    let held = held.expect("held");
    let (graph, _) = sum_of(&held);
    let reader = in_time(client.submit(graph)).await.expect("accepted");
    for error in [
        in_time(reader.wait()).await.expect_err("fails"),
        in_time(held.wait()).await.expect_err("fails"),
    ] {
        let text = error.to_string();
        assert!(text.contains("no such luck"), "{text}");
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_result_is_found_by_its_name_until_that_is_taken_away() {
    let spill = tempfile::tempdir().expect("a folder");
    let cluster = cluster(1, spill.path(), |_| {}).await;
    let owner = cluster.client().await.expect("connects");
    let other = cluster.client().await.expect("connects");
    let graph = in_time(owner.submit(made(4, 0))).await.expect("accepted");
    let tasks = graph.tasks_of(MADE).expect("kept");
    in_time(owner.publish("squares", tasks, false))
        .await
        .expect("published");
    in_time(graph.wait()).await.expect("done");
    drop(graph);
    drop(owner);
    let found = in_time(other.lookup("squares")).await.expect("found");
    assert_eq!(in_time(found.gather()).await.expect("gathered").len(), 4);
    let names = in_time(other.published()).await.expect("listed");
    assert_eq!((names.len(), names[0].done), (1, 4));
    assert!(names[0].bytes >= 4_000);
    let second = in_time(other.submit(made(1, 0))).await.expect("accepted");
    let others = second.tasks_of(MADE).expect("kept");
    let taken = in_time(other.publish("squares", others, false)).await;
    let taken = taken.expect_err("taken");
    assert!(taken.to_string().contains("`squares` is taken"), "{taken}");
    in_time(other.publish("squares", others, true))
        .await
        .expect("replaced");
    in_time(other.unpublish("squares")).await.expect("gone");
    let unknown = in_time(other.lookup("squares")).await.err().expect("gone");
    assert!(
        unknown.to_string().contains("nothing is published"),
        "{unknown}"
    );
    assert_eq!(in_time(found.gather()).await.expect("still held").len(), 4);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_graphs_are_awaited_together_with_a_limit() {
    let spill = tempfile::tempdir().expect("a folder");
    let cluster = cluster(1, spill.path(), |_| {}).await;
    let client = cluster.client().await.expect("connects");
    let slow = in_time(client.submit(made(1, 60_000)))
        .await
        .expect("accepted");
    let fast = in_time(client.submit(made(1, 0))).await.expect("accepted");
    let held = hold_all(&fast, &client).await;
    let mut completed = as_completed([&slow as &dyn Waited, &fast, &held]);
    let (first, result) = in_time(completed.next()).await.expect("one");
    result.expect("well");
    assert_ne!(first, 0);
    drop(completed);
    let short = Some(Duration::from_millis(50));
    let late = wait_all([&slow as &dyn Waited, &fast], short).await;
    assert!(matches!(late, Err(ClientError::TimedOut { .. })));
    let both = wait_all([&fast as &dyn Waited, &held], Some(Duration::from_secs(60))).await;
    both.expect("done");
    slow.cancel();
    let cancelled = in_time(wait_all([&slow as &dyn Waited], None)).await;
    assert!(matches!(cancelled, Err(ClientError::Cancelled)));
    cluster.shutdown().await;
}

fn bytes_of(number: u8, bytes: usize) -> Partition {
    Partition::new(Bytes::new(), vec![Bytes::from(vec![number; bytes])])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_scattered_lies_on_all_workers_and_survives_the_loss_of_one() {
    let spill = tempfile::tempdir().expect("a folder");
    let cluster = cluster(2, spill.path(), |_| {}).await;
    let client = cluster.client().await.expect("connects");
    let data: Vec<Partition> = (0..20).map(|number| bytes_of(number, 300_000)).collect();
    let scattered = client.scatter(data, ScatterOptions::default()).await;
    let scattered = scattered.expect("accepted");
    // Before it is there.
    let sum = async || {
        let mut graph = TaskGraph::new("sum");
        let imported = scattered.import_into(&mut graph).expect("kept");
        let sums = graph.push(Layer::new("sum", "sum", 20).reading(imported, Edges::OneToOne));
        let sum = graph.push_tree(sums, 32, "add", "sum", &Vec::new().into());
        graph.keep(sum);
        let handle = in_time(client.submit(graph)).await.expect("accepted");
        number(&in_time(handle.gather(sum)).await.expect("gathered"))
    };
    let want = (0..20).sum::<u64>() * 300_000;
    assert_eq!(sum().await, want);
    let tasks = scattered.tasks().expect("kept");
    let holders = in_time(client.who_has(tasks)).await.expect("known");
    let mut workers: Vec<_> = holders.iter().flatten().map(|it| it.worker).collect();
    assert_eq!(workers.len(), 20);
    workers.sort_unstable();
    workers.dedup();
    assert_eq!(workers.len(), 2, "spread");
    kill(cluster.worker_processes()[0]);
    until(&client, "one worker is left", |info| {
        info.workers.len() == 1
    })
    .await;
    assert_eq!(sum().await, want);
    let back = in_time(scattered.gather()).await.expect("gathered");
    let all = back.iter().zip(0_u8..);
    assert!(
        all.into_iter()
            .all(|(it, number)| it.buffers()[0][..] == vec![number; 300_000][..])
    );
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_scattered_goes_to_the_workers_that_are_named() {
    let spill = tempfile::tempdir().expect("a folder");
    let cluster = cluster(2, spill.path(), |_| {}).await;
    let client = cluster.client().await.expect("connects");
    let info = client.info().await.expect("answered");
    let ids: Vec<_> = info.workers.iter().map(|worker| worker.worker).collect();
    let wanted = [ids[1], ids[0], ids[1], ids[1]];
    let options = |workers: &[WorkerId]| ScatterOptions {
        placement: Some(Placement::Each(
            workers.iter().copied().map(WorkerRef::from).collect(),
        )),
        ..ScatterOptions::default()
    };
    let data: Vec<Partition> = (0..4).map(|number| bytes_of(number, 100)).collect();
    let scattered = client.scatter(data.clone(), options(&wanted)).await;
    let scattered = scattered.expect("accepted");
    in_time(scattered.wait()).await.expect("scattered");
    let tasks = scattered.tasks().expect("kept");
    let holders = in_time(client.who_has(tasks)).await.expect("known");
    let there: Vec<_> = holders.iter().flatten().map(|it| it.worker).collect();
    assert_eq!(there, wanted);
    let too_few = in_time(client.scatter(data, options(&wanted[..3]))).await;
    let error = too_few.err().expect("four partitions").to_string();
    assert!(error.contains("3 workers for 4 tasks"), "{error}");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_cannot_reach_a_client_say_so() {
    let spill = tempfile::tempdir().expect("a folder");
    let cluster = cluster(1, spill.path(), |_| {}).await;
    let client = cluster.client().await.expect("connects");
    // What a scatter submits whose client is behind a wall: nobody listens at this address.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound");
    drop(taken);
    let mut graph = TaskGraph::new("scattered");
    let offer = format!("0\n{}", Address::new("tcp", address.to_string()));
    let layer = Layer::new("scattered", "transload-scatter", 1).with_common(offer.into_bytes());
    let layer = graph.push(layer);
    graph.keep(layer);
    let handle = in_time(client.submit(graph)).await.expect("accepted");
    let error = in_time(handle.wait()).await.expect_err("nobody is there");
    let message = error.to_string();
    assert!(message.contains("cannot be reached"), "{message}");
    assert!(message.contains("ScatterOptions::host"), "{message}");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scatter_that_cannot_be_served_says_what_to_do() {
    let spill = tempfile::tempdir().expect("a folder");
    let cluster = cluster(1, spill.path(), |_| {}).await;
    let client = cluster.client().await.expect("connects");
    let options = ScatterOptions {
        host: Some("no such host".to_owned()),
        ..ScatterOptions::default()
    };
    let error = in_time(client.scatter(vec![bytes_of(1, 10)], options)).await;
    let error = error.err().expect("no such host").to_string();
    assert!(error.contains("ScatterOptions::host"), "{error}");
    let none = in_time(client.scatter(Vec::new(), ScatterOptions::default())).await;
    assert!(matches!(none, Err(ClientError::Rejected(_))));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_scattered_and_is_offered_no_longer_cannot_be_made_again() {
    let spill = tempfile::tempdir().expect("a folder");
    let cluster = cluster(2, spill.path(), |_| {}).await;
    let client = cluster.client().await.expect("connects");
    let data = (0..8).map(|number| bytes_of(number, 10)).collect();
    let scattered = client.scatter(data, ScatterOptions::default()).await;
    let mut scattered = scattered.expect("accepted");
    in_time(scattered.wait()).await.expect("there");
    scattered.keep_no_copy();
    kill(cluster.worker_processes()[0]);
    until(&client, "one worker is left", |info| {
        info.workers.len() == 1
    })
    .await;
    let error = in_time(async {
        loop {
            if let Err(error) = scattered.wait().await {
                return error;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let text = error.await.to_string();
    assert!(text.contains("offers this partition no longer"), "{text}");
    cluster.shutdown().await;
}
