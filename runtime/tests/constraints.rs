//! Where tasks may run and what they ask for, on real workers: pins, memory, requests that nobody can meet, and what runs on every
//! worker.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Outcome, cluster, failure, kill, until};
use futures::FutureExt;
use transload_gpu::Partition;
use transload_protocol::{
    Amount, Layer, Resources, TaskErrorKind, TaskGraph, WorkerId, WorkerInfo, WorkerRef,
};
use transload_runtime::{Client, ClientError, OperatorFactory};

#[test]
fn run_as_worker() {
    common::worker_entry_with(operators());
}

/// Makes the id of the worker's process.
async fn who_am_i() -> Outcome {
    let id = u64::from(std::process::id()).to_le_bytes();
    Ok(vec![Partition::new(Bytes::new(), vec![id.to_vec().into()])])
}

fn operators() -> OperatorFactory {
    common::operators_with(&[("who-am-i", |_| who_am_i().boxed())])
}

fn process_of(partition: &Partition) -> u32 {
    let id = partition.buffers()[0].as_ref().try_into().expect("8 bytes");
    u32::try_from(u64::from_le_bytes(id)).expect("a process id")
}

async fn workers(client: &Client) -> Vec<WorkerInfo> {
    client.info().await.expect("connected").workers
}

#[tokio::test(flavor = "multi_thread")]
async fn pinned_tasks_run_where_they_are_pinned_to() {
    let spill = tempfile::tempdir().expect("a folder");
    let cluster = cluster(3, spill.path(), |_| ()).await;
    let client = cluster.client().await.expect("a client");
    let workers = workers(&client).await;
    let pins: Vec<WorkerRef> = (0..12)
        .map(|task: usize| match task % 4 {
            0 => workers[2].hello.name.as_str().into(),
            _ => workers[task % 2].worker.into(),
        })
        .collect();
    let mut graph = TaskGraph::new("pinned");
    let kept = graph.push(Layer::new("who", "who-am-i", 12).on_each(pins));
    graph.keep(kept);
    let tasks = common::run(&client, graph, kept).await;
    for (task, outputs) in tasks.iter().enumerate() {
        let wanted = if task % 4 == 0 { 2 } else { task % 2 };
        assert_eq!(process_of(&outputs[0]), workers[wanted].hello.process);
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_that_does_not_fit_twice_is_used_one_after_another() {
    let spill = tempfile::tempdir().expect("a folder");
    let cluster = cluster(1, spill.path(), |_| ()).await;
    let client = cluster.client().await.expect("a client");
    let offered = workers(&client).await[0].hello.resources.memory_bytes;
    assert_eq!(offered, 128 << 20, "half of its memory");
    let request = Resources::slots(1).with_memory(offered / 2 + 1);
    let mut graph = TaskGraph::new("memory");
    let layer = Layer::new("sleep", "sleep", 3).with_common(b"200".to_vec());
    let kept = graph.push(layer.with_resources(request));
    graph.keep(kept);
    let begun = Instant::now();
    common::run(&client, graph, kept).await;
    assert!(
        begun.elapsed() >= Duration::from_millis(600),
        "two slots, and yet one at a time"
    );
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_worker_can_run_is_told_of_at_once_and_fails_after_its_grace() {
    let spill = tempfile::tempdir().expect("a folder");
    let grace = Duration::from_millis(1_500);
    let cluster = cluster(1, spill.path(), |config| {
        config.scheduler.unschedulable_grace = grace;
        config.worker.resources = [("gpu".to_owned(), Amount::whole(1))].into();
    })
    .await;
    let client = cluster.client().await.expect("a client");
    let half = Resources::slots(1).with("gpu", Amount::ten_thousandths(5_000));
    let begun = Instant::now();
    let mut graph = TaskGraph::new("half");
    let kept = graph.push(Layer::new("half", "noop", 1).with_resources(half));
    graph.keep(kept);
    let handle = client.submit(graph).await.expect("accepted");
    let task = transload_protocol::TaskId {
        graph: handle.id(),
        index: 0,
    };
    let explanation = client.explain(task).await.expect("an answer");
    assert!(
        explanation.summary.contains("--shared-resources gpu"),
        "{explanation:?}"
    );
    let Err(ClientError::Task(error)) = handle.wait().await else {
        panic!("a task error was expected");
    };
    assert_eq!(error.kind, TaskErrorKind::Unschedulable);
    assert!(begun.elapsed() >= grace);
    let (kind, text) = failure(&client, Layer::new("here", "noop", 1).on_host("nowhere")).await;
    assert_eq!(kind, TaskErrorKind::Unschedulable);
    assert!(text.contains("host `nowhere`"), "{text}");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_runs_once_on_every_worker_also_where_all_slots_are_busy() {
    let spill = tempfile::tempdir().expect("a folder");
    let cluster = cluster(3, spill.path(), |_| ()).await;
    let client = cluster.client().await.expect("a client");
    let mut busy = TaskGraph::new("busy");
    let kept = busy.push(Layer::new("sleep", "sleep", 6).with_common(b"60000".to_vec()));
    busy.keep(kept);
    let busy = client.submit(busy).await.expect("accepted");
    until(&client, "all slots are busy", |info| {
        let mut workers = info.workers.iter();
        workers.all(|worker| worker.load.running.len() == 2)
    })
    .await;
    let made = client
        .run_on_all_workers("who-am-i", Vec::new())
        .await
        .expect("connected");
    let found: Vec<(WorkerId, u32)> = made
        .iter()
        .map(|(worker, partition)| (*worker, process_of(partition.as_ref().expect("made"))))
        .collect();
    let workers = workers(&client).await;
    let wanted = workers
        .iter()
        .map(|worker| (worker.worker, worker.hello.process));
    assert_eq!(found, wanted.collect::<Vec<_>>());
    let failed = client
        .run_on_all_workers("fail", b"not here".to_vec())
        .await
        .expect("connected");
    assert_eq!(failed.len(), 3);
    for result in failed.into_values() {
        let text = result.expect_err("it fails").to_string();
        assert!(text.contains("not here"), "{text}");
    }
    busy.cancel();
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_meanwhile_is_an_error_of_its_own() {
    let spill = tempfile::tempdir().expect("a folder");
    let cluster = cluster(2, spill.path(), |config| {
        config.scheduler.unschedulable_grace = Duration::from_millis(300);
    })
    .await;
    let client = cluster.client().await.expect("a client");
    let before = workers(&client).await;
    let running = client.run_on_all_workers("sleep", b"1500".to_vec());
    let killing = async {
        until(&client, "both have it", |info| {
            let mut workers = info.workers.iter();
            workers.all(|worker| worker.assigned == 1)
        })
        .await;
        kill(before[0].hello.process);
    };
    let (made, ()) = tokio::join!(running, killing);
    let mut made = made.expect("connected");
    let lost = made
        .remove(&before[0].worker)
        .expect("asked")
        .expect_err("killed");
    assert!(
        lost.to_string().contains("may run only on worker"),
        "{lost}"
    );
    made.remove(&before[1].worker)
        .expect("asked")
        .expect("it lives");
    cluster.shutdown().await;
}
