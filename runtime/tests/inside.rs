//! Tasks that use the cluster themselves: graphs within graphs on one slot, waiting without a slot, and coordination.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::time::Duration;

use common::{Outcome, cluster, kill, left_in, number, run, until};
use futures::FutureExt;
use transload_gpu::Partition;
use transload_protocol::{Blob, Edges, Layer, LayerIndex, TaskErrorKind, TaskGraph};
use transload_runtime::builtin::content_byte;
use transload_runtime::coordination::CoordinationError;
use transload_runtime::{Client, ClientError, LocalCluster, OperatorFactory, TaskContext};

/// Bytes of a partition of which three do not fit in the memory of the test that makes ten.
const LARGE: u32 = 400 << 10;

/// How long any of these may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn run_as_worker() {
    common::worker_entry_with(operators());
}

fn operators() -> OperatorFactory {
    common::operators_with(&[
        ("fibonacci", |task| fibonacci(task).boxed()),
        ("nested-sleep", |task| nested_sleep(task).boxed()),
        ("nested-failure", |task| nested_failure(task).boxed()),
        ("two-waits", |task| two_waits(task).boxed()),
        ("count", |task| count(task).boxed()),
        ("produce", |task| produce(task).boxed()),
        ("deep-sum", |task| deep_sum(task).boxed()),
        ("leave-behind", |task| leave_behind(task).boxed()),
        ("busy-holder", |task| busy_holder(task).boxed()),
    ])
}

fn argument(task: &TaskContext) -> u32 {
    let bytes = task
        .own_argument()
        .unwrap_or_else(|| task.common_argument());
    std::str::from_utf8(bytes)
        .expect("a text")
        .parse()
        .expect("a number")
}

fn text(number: u32) -> Blob {
    number.to_string().into_bytes().into()
}

fn made(number: u64) -> Outcome {
    let bytes = number.to_le_bytes().to_vec();
    Ok(vec![Partition::new(Default::default(), vec![bytes.into()])])
}

fn read(partition: &Partition) -> u64 {
    let buffer = &partition.buffers()[0];
    u64::from_le_bytes(buffer.as_ref().try_into().expect("8 bytes"))
}

fn of_one_layer(layer: Layer) -> (TaskGraph, LayerIndex) {
    let mut graph = TaskGraph::new(layer.name.clone());
    let kept = graph.push(layer);
    graph.keep(kept);
    (graph, kept)
}

/// The n-th Fibonacci number, by a graph with a task for each of the two before it.
async fn fibonacci(task: TaskContext) -> Outcome {
    let n = argument(&task);
    if n < 2 {
        // Long enough for others to see the tasks above wait.
        tokio::time::sleep(Duration::from_millis(10)).await;
        return made(u64::from(n));
    }
    let (graph, kept) = of_one_layer(
        Layer::new(format!("below {n}"), "fibonacci", 2)
            .with_per_task(vec![text(n - 1), text(n - 2)]),
    );
    let handle = task.client().await?.submit(graph).await?;
    let below = task.wait_without_slot(handle.gather(kept)).await?;
    made(below.iter().flatten().map(read).sum())
}

/// A partition of so many bytes, and a task that sums them up and those of as many others as it is deep, each in a graph
/// within the graph before it.
fn deep(depth: u32) -> (TaskGraph, LayerIndex) {
    let mut graph = TaskGraph::new("deep");
    let made = graph.push(Layer::new("make", "bytes", 1).with_common(text(LARGE)));
    let sum = Layer::new("sum", "deep-sum", 1).with_common(text(depth));
    let kept = graph.push(sum.reading(made, Edges::OneToOne));
    graph.keep(kept);
    (graph, kept)
}

async fn deep_sum(task: TaskContext) -> Outcome {
    let depth = argument(&task);
    let mut sum: u64 = (task.inputs[0][0].buffers()[0].iter())
        .map(|byte| u64::from(*byte))
        .sum();
    if depth > 0 {
        let (graph, kept) = deep(depth - 1);
        let handle = task.client().await?.submit(graph).await?;
        let below = task.wait_without_slot(handle.gather(kept)).await?;
        sum += read(&below[0][0]);
    }
    made(sum)
}

/// Nests so deep; the innermost sleeps for an hour.
async fn nested_sleep(task: TaskContext) -> Outcome {
    let depth = argument(&task);
    let layer = if depth == 0 {
        Layer::new("hour", "sleep", 1).with_common(text(3_600_000))
    } else {
        Layer::new("deeper", "nested-sleep", 1).with_common(text(depth - 1))
    };
    let (graph, kept) = of_one_layer(layer);
    let handle = task.client().await?.submit(graph).await?;
    task.wait_without_slot(handle.gather(kept)).await?;
    made(0)
}

async fn nested_failure(task: TaskContext) -> Outcome {
    let layer = Layer::new("inner", "panic", 1).with_common(b"deep inside".to_vec());
    let (graph, _) = of_one_layer(layer);
    let handle = task.client().await?.submit(graph).await?;
    task.wait_without_slot(handle.wait()).await?;
    made(0)
}

/// Waits for two graphs at once, one of which takes longer, then for one that it gives up.
async fn two_waits(task: TaskContext) -> Outcome {
    let client = task.client().await?;
    let wait_for = |millis| {
        let (client, task) = (client.clone(), &task);
        async move {
            let (graph, kept) =
                of_one_layer(Layer::new("pause", "sleep", 2).with_common(text(millis)));
            let handle = client.submit(graph).await?;
            task.wait_without_slot(handle.gather(kept)).await
        }
    };
    let (short, long) = futures::future::join(wait_for(1), wait_for(200)).await;
    let pauses = short?.len() + long?.len();
    let given_up = tokio::time::timeout(Duration::from_millis(50), wait_for(3_600_000)).await;
    // Its own slot is back, or coming back: this is no other than with a wait that ends.
    task.secede();
    task.rejoin().await;
    made(pauses as u64 + u64::from(given_up.is_err()))
}

/// Adds to a shared number so often, reading and writing it under a lock.
async fn count(task: TaskContext) -> Outcome {
    let client = task.client().await?;
    let (lock, total) = (client.lock("count"), client.variable("total"));
    for _ in 0..argument(&task) {
        let permit = task.wait_without_slot(lock.acquire()).await?;
        let bytes = total.get().await?;
        let before = u64::from_le_bytes(bytes.as_ref().try_into().expect("8 bytes"));
        tokio::task::yield_now().await;
        total.set((before + 1).to_le_bytes().to_vec()).await?;
        drop(permit);
    }
    made(0)
}

async fn produce(task: TaskContext) -> Outcome {
    let queue = task.client().await?.queue("numbers").with_max_items(3);
    for number in 0..argument(&task) {
        let number = u64::from(number).to_le_bytes().to_vec();
        task.wait_without_slot(queue.put(number)).await?;
    }
    made(0)
}

/// Submits a graph of an hour and ends without waiting for it.
async fn leave_behind(task: TaskContext) -> Outcome {
    let layer = Layer::new("hour", "sleep", 3).with_common(text(3_600_000));
    let handle = task.client().await?.submit(of_one_layer(layer).0).await?;
    drop(handle);
    made(0)
}

/// Holds a lock with a short lease while its thread computes for much longer. Makes 1 when it still has it then.
async fn busy_holder(task: TaskContext) -> Outcome {
    let lock = task.client().await?.lock("busy");
    let lock = lock.with_lease(Duration::from_millis(300));
    let mut permit = lock.acquire().await?;
    std::thread::sleep(Duration::from_millis(1_500));
    let is_held = permit.lost().now_or_never().is_none();
    made(u64::from(is_held))
}

async fn of_one_slot(workers: u32, spill: &std::path::Path) -> (LocalCluster, Client) {
    let cluster = cluster(workers, spill, |config| config.worker.slots = Some(1)).await;
    let client = cluster.client().await.expect("connects");
    (cluster, client)
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_nest_to_any_depth_on_one_slot() {
    let spill = tempfile::tempdir().expect("a folder");
    let (cluster, client) = of_one_slot(1, spill.path()).await;
    let layer = Layer::new("top", "fibonacci", 1).with_common(text(10));
    let (graph, kept) = of_one_layer(layer);
    assert_eq!(number(&run(&client, graph, kept).await), 55);
    until(&client, "nothing is left of the inner graphs", |info| {
        let kept = |worker: &transload_protocol::WorkerInfo| {
            worker.load.tiers.iter().all(|tier| tier.used_bytes == 0) && worker.assigned == 0
        };
        info.graphs_running == 0 && info.workers.iter().all(kept)
    })
    .await;
    cluster.shutdown().await;
    assert_eq!(left_in(spill.path()), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_waits_says_so_when_asked_and_its_end_reaches_the_innermost_operator() {
    let spill = tempfile::tempdir().expect("a folder");
    let (cluster, client) = of_one_slot(1, spill.path()).await;
    let layer = Layer::new("top", "nested-sleep", 1).with_common(text(5));
    let handle = client.submit(of_one_layer(layer).0).await.expect("taken");
    until(&client, "the innermost sleeps", |info| {
        info.graphs_running == 7 && info.workers[0].load.running.len() == 7
    })
    .await;
    let top = transload_protocol::TaskId {
        graph: handle.id(),
        index: 0,
    };
    let explained = client.explain(top).await.expect("explained").summary;
    assert!(explained.contains("without a slot"), "{explained}");
    handle.cancel();
    let ended = in_time(handle.wait()).await;
    assert!(matches!(ended, Err(ClientError::Cancelled)), "{ended:?}");
    until(&client, "nothing runs any more", |info| {
        info.graphs_running == 0
            && info.workers[0].assigned == 0
            && info.workers[0].load.running.is_empty()
    })
    .await;
    // The one slot is free again.
    let (graph, kept) = of_one_layer(Layer::new("next", "fibonacci", 1).with_common(text(3)));
    assert_eq!(number(&run(&client, graph, kept).await), 2);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_inside_is_the_outer_tasks_failure_and_names_the_inner_one() {
    let spill = tempfile::tempdir().expect("a folder");
    let (cluster, client) = of_one_slot(1, spill.path()).await;
    let (graph, _) = of_one_layer(Layer::new("outer", "nested-failure", 1));
    let handle = client.submit(graph).await.expect("taken");
    match in_time(handle.wait()).await {
        Err(ClientError::Task(error)) => {
            assert_eq!(error.kind, TaskErrorKind::Panic);
            assert_eq!(error.layer, "outer");
            let text = error.to_string();
            assert!(
                text.contains("inner") && text.contains("deep inside"),
                "{text}"
            );
        }
        other => panic!("a task error was expected, not {other:?}"),
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_with_waiting_tasks_costs_time_and_no_answer() {
    let spill = tempfile::tempdir().expect("a folder");
    let (cluster, client) = of_one_slot(2, spill.path()).await;
    let layer =
        Layer::new("top", "fibonacci", 4).with_per_task(vec![text(9), text(8), text(9), text(8)]);
    let (graph, kept) = of_one_layer(layer);
    let handle = client.submit(graph).await.expect("taken");
    until(&client, "it is in full swing", |info| {
        info.graphs_running > 10 && info.workers.iter().all(|worker| worker.assigned > 2)
    })
    .await;
    kill(cluster.worker_processes()[0]);
    let outputs = in_time(handle.gather(kept)).await.expect("gathered");
    let numbers: Vec<u64> = outputs.iter().flatten().map(read).collect();
    assert_eq!(numbers, [34, 21, 34, 21]);
    drop(handle);
    until(&client, "the dead worker's graphs are gone", |info| {
        info.graphs_running == 0 && info.workers.len() == 1
    })
    .await;
    cluster.shutdown().await;
    assert_eq!(left_in(spill.path()), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_can_wait_for_two_things_at_once_and_give_up_a_third() {
    let spill = tempfile::tempdir().expect("a folder");
    let (cluster, client) = of_one_slot(1, spill.path()).await;
    let (graph, kept) = of_one_layer(Layer::new("top", "two-waits", 1));
    assert_eq!(number(&run(&client, graph, kept).await), 5);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waiting_tasks_read_does_not_keep_what_they_wait_for_out_of_memory() {
    let spill = tempfile::tempdir().expect("a folder");
    let cluster = cluster(1, spill.path(), |config| {
        config.worker.slots = Some(1);
        config.worker.memory_bytes = Some(2 << 20);
    })
    .await;
    let client = cluster.client().await.expect("connects");
    let (graph, kept) = deep(9);
    let one: u64 = (0..LARGE as usize)
        .map(|at| u64::from(content_byte(0, 0, at)))
        .sum();
    assert_eq!(number(&run(&client, graph, kept).await), 10 * one);
    cluster.shutdown().await;
    assert_eq!(left_in(spill.path()), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_task_leaves_behind_is_cancelled() {
    let spill = tempfile::tempdir().expect("a folder");
    let (cluster, client) = of_one_slot(1, spill.path()).await;
    let (graph, kept) = of_one_layer(Layer::new("top", "leave-behind", 1));
    run(&client, graph, kept).await;
    until(&client, "nothing runs any more", |info| {
        info.graphs_running == 0
            && info.workers[0].assigned == 0
            && info.workers[0].load.running.is_empty()
    })
    .await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_too_busy_to_yield_keeps_its_lock() {
    let spill = tempfile::tempdir().expect("a folder");
    let (cluster, client) = of_one_slot(1, spill.path()).await;
    let (graph, kept) = of_one_layer(Layer::new("top", "busy-holder", 2));
    let held = run(&client, graph, kept).await;
    let held: Vec<u64> = held.iter().flatten().map(read).collect();
    assert_eq!(held, [1, 1]);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_count_under_a_lock_lose_no_count() {
    let spill = tempfile::tempdir().expect("a folder");
    let (cluster, client) = of_one_slot(2, spill.path()).await;
    let total = client.variable("total");
    // The tasks wait until there is a value to begin with; more of them than slots.
    let (graph, kept) = of_one_layer(Layer::new("count", "count", 6).with_common(text(20)));
    let handle = client.submit(graph).await.expect("taken");
    tokio::time::sleep(Duration::from_millis(100)).await;
    total.set(0_u64.to_le_bytes().to_vec()).await.expect("set");
    in_time(handle.gather(kept)).await.expect("gathered");
    let bytes = total.get().await.expect("a value");
    assert_eq!(bytes.as_ref(), 120_u64.to_le_bytes());
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_reads_what_a_task_puts_in_a_queue_in_order_and_once() {
    let spill = tempfile::tempdir().expect("a folder");
    let (cluster, client) = of_one_slot(1, spill.path()).await;
    let (graph, _) = of_one_layer(Layer::new("produce", "produce", 1).with_common(text(40)));
    let handle = client.submit(graph).await.expect("taken");
    let queue = client.queue("numbers");
    for expected in 0..40_u64 {
        // Giving up at any moment loses nothing; now and then there is an answer before.
        let hasty = (0..expected % 3).find_map(|_| queue.get().now_or_never());
        let item = match hasty {
            Some(item) => item.expect("an item"),
            None => in_time(queue.get()).await.expect("an item"),
        };
        assert_eq!(item.as_ref(), expected.to_le_bytes());
    }
    in_time(handle.wait()).await.expect("ends well");
    let empty = queue.within(Duration::from_millis(20)).get().await;
    assert!(matches!(empty, Err(CoordinationError::TimedOut { .. })));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permit_is_renewed_while_it_is_held_and_lost_with_its_client() {
    let spill = tempfile::tempdir().expect("a folder");
    let (cluster, one) = of_one_slot(1, spill.path()).await;
    let two = cluster.client().await.expect("connects");
    let lease = Duration::from_millis(300);
    let of = |client: &Client| client.semaphore("printers", 2).with_lease(lease);
    let first = of(&one).acquire().await.expect("a permit");
    let mut second = of(&one).acquire().await.expect("another");
    let impatient = of(&two).within(Duration::from_millis(900));
    let error = impatient.acquire().await.expect_err("both are renewed");
    assert!(
        error.to_string().contains("semaphore `printers`"),
        "{error}"
    );
    let other = two.semaphore("printers", 3).acquire().await;
    assert!(matches!(other, Err(CoordinationError::Refused { .. })));

    // A future that was dropped while it waited gets nothing later.
    assert!(of(&two).acquire().now_or_never().is_none());
    drop(first);
    let third = in_time(of(&two).acquire()).await.expect("what was dropped");
    let fourth = of(&two).within(Duration::ZERO).acquire().await;
    assert!(fourth.is_err(), "two hold two");
    assert!(second.lost().now_or_never().is_none());
    let all_at_once = tokio::spawn(async move {
        let lost = second.lost().await;
        drop(one);
        lost
    });
    drop(third);
    cluster.shutdown().await;
    let lost = in_time(all_at_once).await.expect("no panic");
    assert!(matches!(lost, CoordinationError::Client(_)), "{lost}");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_and_variables_are_waited_for_and_deleted() {
    let spill = tempfile::tempdir().expect("a folder");
    let (cluster, one) = of_one_slot(1, spill.path()).await;
    let two = cluster.client().await.expect("connects");
    let event = two.event("go");
    assert!(!event.is_set().await.expect("asked"));
    let waiting = tokio::spawn(async move { event.wait().await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished());
    one.event("go").set().await.expect("set");
    in_time(waiting).await.expect("no panic").expect("set");
    assert!(two.event("go").is_set().await.expect("asked"));
    one.event("go").clear().await.expect("cleared");
    assert!(!two.event("go").is_set().await.expect("asked"));

    one.variable("v").set("small").await.expect("set");
    let large = one.variable("v").set(vec![0; 2 << 20]).await;
    let text = large.expect_err("too large").to_string();
    assert!(text.contains("scheduler.coordination_item"), "{text}");
    assert_eq!(two.variable("v").get().await.expect("there"), "small");
    two.variable("v").delete().await.expect("deleted");
    let gone = one.variable("v").within(Duration::ZERO).get().await;
    assert!(matches!(gone, Err(CoordinationError::TimedOut { .. })));
    cluster.shutdown().await;
}
