//! What fails, and what is stopped: tried again after a while, named with all that is known, and always heard by the operator.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use tempfile::TempDir;
use transload_gpu::Partition;
use transload_protocol::{Event, Layer, TaskErrorKind, TaskGraph};
use transload_runtime::config::{SchedulerConfig, WorkerConfig};
use transload_runtime::transports::TransportChoice;
use transload_runtime::{
    CancellationToken, Client, ClientError, ClientOptions, GraphHandle, Operator, OperatorError,
    OperatorFactory, OperatorRegistry, SchedulerServer, TaskContext, run_worker,
};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the operators of a test have gone through.
#[derive(Default)]
struct Seen {
    attempts: AtomicU32,
    /// Operators that run now and wait to be stopped.
    waiting: AtomicU32,
}

/// An operator of a test, which sees what the test sees.
struct Own {
    name: &'static str,
    run: fn(TaskContext, Arc<Seen>) -> BoxFuture<'static, Outcome>,
    seen: Arc<Seen>,
}

type Outcome = Result<Vec<Partition>, OperatorError>;

impl Operator for Own {
    fn name(&self) -> &str {
        self.name
    }

    fn run(&self, task: TaskContext) -> BoxFuture<'static, Outcome> {
        (self.run)(task, Arc::clone(&self.seen))
    }
}

fn nothing() -> Outcome {
    Ok(vec![Partition::new(Default::default(), Vec::new())])
}

/// Fails twice with an error that may pass.
async fn moody(seen: Arc<Seen>) -> Outcome {
    match seen.attempts.fetch_add(1, Ordering::SeqCst) {
        0 | 1 => Err(OperatorError::transient("the service is busy")),
        _ => nothing(),
    }
}

/// Counts an operator as long as it runs.
struct Waiting(Arc<Seen>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Runs until it is stopped.
async fn endless(seen: Arc<Seen>) -> Outcome {
    seen.attempts.fetch_add(1, Ordering::SeqCst);
    seen.waiting.fetch_add(1, Ordering::SeqCst);
    let _waiting = Waiting(seen);
    futures::future::pending().await
}

/// The first of its layer runs until it is stopped, the others for a moment.
async fn odd(task: TaskContext, seen: Arc<Seen>) -> Outcome {
    if task.position == 0 {
        return endless(seen).await;
    }
    tokio::time::sleep(Duration::from_millis(5)).await;
    nothing()
}

/// A cause with a cause, neither of which repeats the other.
#[derive(Debug, thiserror::Error)]
#[error("cannot read part 7")]
struct Unreadable(#[source] std::io::Error);

/// Fails for a reason that lies deep.
async fn deep() -> Outcome {
    let cause = Unreadable(std::io::Error::other("the disk is on fire"));
    Err(OperatorError::transient("the table is broken").because(&cause))
}

/// A scheduler and a worker, with sockets between them, and a client.
struct Cluster {
    server: SchedulerServer,
    client: Client,
    seen: Arc<Seen>,
    stop: CancellationToken,
    _spill: TempDir,
}

impl Cluster {
    async fn start(slots: u32) -> Self {
        let seen = Arc::new(Seen::default());
        let server = SchedulerServer::start(SchedulerConfig {
            port: 0,
            ..SchedulerConfig::default()
        });
        let server = server.await.expect("starts");
        let spill = tempfile::tempdir().expect("a folder");
        let stop = CancellationToken::new();
        let config = WorkerConfig {
            scheduler: Some(server.address().to_string()),
            name: Some("the worker".to_owned()),
            slots: Some(slots),
            memory_bytes: Some(8 << 20),
            spill_dir: Some(spill.path().to_owned()),
            transport: TransportChoice::Tcp,
            stop_timeout: Duration::from_secs(1),
            ..WorkerConfig::default()
        };
        tokio::spawn(run_worker(config, operators(&seen), stop.clone()));
        let address = server.address().to_string();
        let client = Client::connect(&address, ClientOptions::default());
        Self {
            client: client.await.expect("connects"),
            server,
            seen,
            stop,
            _spill: spill,
        }
    }

    /// Waits until so many operators run.
    async fn until_waiting(&self, operators: u32) {
        let start = Instant::now();
        while self.seen.waiting.load(Ordering::SeqCst) != operators {
            assert!(start.elapsed() < PATIENCE, "not in time");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn end(self) {
        self.stop.cancel();
        self.server.shutdown().await;
    }
}

fn operators(seen: &Arc<Seen>) -> OperatorFactory {
    let seen = Arc::clone(seen);
    Arc::new(move |_| {
        let mut registry = OperatorRegistry::new();
        registry.register(Arc::new(Own {
            name: "moody",
            run: |_, seen| moody(seen).boxed(),
            seen: Arc::clone(&seen),
        }));
        registry.register(Arc::new(Own {
            name: "endless",
            run: |_, seen| endless(seen).boxed(),
            seen: Arc::clone(&seen),
        }));
        registry.register(Arc::new(Own {
            name: "odd",
            run: |task, seen| odd(task, seen).boxed(),
            seen: Arc::clone(&seen),
        }));
        registry.register(Arc::new(Own {
            name: "deep",
            run: |_, _| deep().boxed(),
            seen: Arc::clone(&seen),
        }));
        registry
    })
}

fn of_one_layer(layer: Layer) -> TaskGraph {
    let mut graph = TaskGraph::new(layer.name.clone());
    let kept = graph.push(layer);
    graph.keep(kept);
    graph
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_says_its_failure_may_pass_is_tried_again_after_a_while() {
    let cluster = Cluster::start(1).await;
    let start = Instant::now();
    let graph = of_one_layer(Layer::new("moods", "moody", 1));
    let handle = cluster.client.submit(graph).await.expect("accepted");
    let waiting = tokio::time::timeout(PATIENCE, handle.wait());
    waiting.await.expect("in time").expect("ends well");
    assert_eq!(cluster.seen.attempts.load(Ordering::SeqCst), 3);
    // 100 ms after the first failure, 200 ms after the second.
    assert!(start.elapsed() > Duration::from_millis(300));
    drop(handle);
    cluster.end().await;
}

async fn outcome(handle: &GraphHandle) -> ClientError {
    let waiting = tokio::time::timeout(PATIENCE, handle.wait());
    waiting.await.expect("in time").expect_err("it is endless")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graph_that_misses_its_deadline_is_cancelled_down_to_its_operators() {
    let cluster = Cluster::start(2).await;
    let graph = of_one_layer(Layer::new("endless", "endless", 3));
    let graph = graph.cancel_after(Duration::from_millis(500));
    let handle = cluster.client.submit(graph).await.expect("accepted");
    cluster.until_waiting(2).await;
    let text = outcome(&handle).await.to_string();
    assert_eq!(
        text,
        "cancelled after 500 ms: its deadline; 0 of 3 tasks were done"
    );
    cluster.until_waiting(0).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_runs_longer_than_its_layer_allows_is_stopped_and_tried_again() {
    let cluster = Cluster::start(1).await;
    let layer = Layer::new("endless", "endless", 1).with_time_limit(Duration::from_millis(200));
    let graph = of_one_layer(layer.with_retries(1));
    let handle = cluster.client.submit(graph).await.expect("accepted");
    let error = outcome(&handle).await;
    let ClientError::Task(error) = error else {
        panic!("{error}");
    };
    assert_eq!(error.kind, TaskErrorKind::TimeLimit);
    assert!(error.message.contains("ran longer than 200 ms"), "{error}");
    assert_eq!(cluster.seen.attempts.load(Ordering::SeqCst), 2);
    cluster.until_waiting(0).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_a_graph_reaches_its_running_operators() {
    let cluster = Cluster::start(2).await;
    let graph = of_one_layer(Layer::new("endless", "endless", 2));
    let handle = cluster.client.submit(graph).await.expect("accepted");
    cluster.until_waiting(2).await;
    handle.cancel();
    assert!(matches!(outcome(&handle).await, ClientError::Cancelled));
    cluster.until_waiting(0).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_client_reaches_its_running_operators() {
    let cluster = Cluster::start(2).await;
    let address = cluster.server.address().to_string();
    let other = Client::connect(&address, ClientOptions::default());
    let other = other.await.expect("connects");
    let graph = of_one_layer(Layer::new("endless", "endless", 2));
    let handle = other.submit(graph).await.expect("accepted");
    cluster.until_waiting(2).await;
    drop((handle, other));
    cluster.until_waiting(0).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn letting_go_of_a_kept_task_that_runs_reaches_its_operator_and_no_other() {
    let cluster = Cluster::start(2).await;
    let graph = of_one_layer(Layer::new("endless", "endless", 2));
    let kept = graph.outputs[0];
    let handle = cluster.client.submit(graph).await.expect("accepted");
    cluster.until_waiting(2).await;
    handle.release(kept, [0]);
    cluster.until_waiting(1).await;
    handle.release(kept, [1]);
    cluster.until_waiting(0).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_names_the_operator_the_worker_the_attempts_and_the_innermost_cause() {
    let cluster = Cluster::start(1).await;
    let graph = of_one_layer(Layer::new("tables", "deep", 1).with_retries(1));
    let handle = cluster.client.submit(graph).await.expect("accepted");
    let error = outcome(&handle).await;
    let text = error.to_string();
    let ClientError::Task(error) = error else {
        panic!("{error}");
    };
    assert_eq!(
        error.message,
        "the table is broken: cannot read part 7: the disk is on fire"
    );
    assert_eq!(error.attempts, 2);
    assert!(error.place.starts_with("`the worker` on "), "{error:?}");
    for part in [
        "`deep`",
        "(tables,",
        "`the worker`",
        "2 attempts",
        "on fire",
    ] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_takes_much_longer_than_the_others_of_its_layer_is_told_and_explained() {
    let cluster = Cluster::start(2).await;
    let mut events = cluster.client.events().expect("connected");
    let graph = of_one_layer(Layer::new("odd", "odd", 10));
    let handle = cluster.client.submit(graph).await.expect("accepted");
    let told = async {
        loop {
            let record = events.next().await.expect("connected");
            if let Event::TaskStraggles {
                task,
                running_ms,
                typical_ms,
                ..
            } = record.event
            {
                return (task, running_ms, typical_ms);
            }
        }
    };
    let told = tokio::time::timeout(PATIENCE, told);
    let (task, running_ms, typical_ms) = told.await.expect("in time");
    assert_eq!((task.graph, task.index), (handle.id(), 0));
    assert!(running_ms >= 1_000 && running_ms > 3 * typical_ms);
    let explained = cluster.client.explain(task).await.expect("connected");
    let is_said = |detail: &String| detail.contains("; tasks of its layer take ");
    assert!(explained.details.iter().any(is_said), "{explained:?}");
    let info = cluster.client.info().await.expect("connected");
    let stragglers = &info.workers[0].stragglers;
    assert_eq!((stragglers.len(), stragglers[0].task), (1, task));
    handle.cancel();
    cluster.until_waiting(0).await;
    cluster.end().await;
}
