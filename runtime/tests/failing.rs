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

use futures::FutureExt;
use futures::future::BoxFuture;
use tempfile::TempDir;
use transload_gpu::Partition;
use transload_protocol::{Layer, TaskGraph};
use transload_runtime::config::{SchedulerConfig, WorkerConfig};
use transload_runtime::{
    CancellationToken, Client, ClientOptions, Operator, OperatorError, OperatorFactory,
    OperatorRegistry, SchedulerServer, TaskContext, run_worker,
};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the operators of a test have gone through.
#[derive(Default)]
struct Seen {
    attempts: AtomicU32,
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
