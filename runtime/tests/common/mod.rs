//! What the whole-cluster tests share: workers as processes of their own (this test program, called again), graphs, answers.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, and not every test program uses every helper"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::runtime::Runtime;
use tokio::time::Instant;
use transload_gpu::Partition;
use transload_protocol::{ClusterInfo, Edges, Layer, LayerIndex, TaskErrorKind, TaskGraph};
use transload_runtime::builtin::{content_byte, register_builtin};
use transload_runtime::config::Sources;
use transload_runtime::transports::TransportChoice;
use transload_runtime::{
    CancellationToken, Client, ClientError, Config, LocalCluster, LocalClusterOptions, Operator,
    OperatorError, OperatorFactory, OperatorRegistry, TaskContext, WorkerMode, builtin_operators,
    run_worker,
};

/// Name of the test that is a worker when this program is called as one.
const ENTRY: &str = "run_as_worker";

/// What an operator of a test makes.
pub(crate) type Outcome = Result<Vec<Partition>, OperatorError>;
/// What it does.
pub(crate) type Run = fn(TaskContext) -> BoxFuture<'static, Outcome>;

struct Own {
    name: &'static str,
    run: Run,
}

impl Operator for Own {
    fn name(&self) -> &str {
        self.name
    }

    fn run(&self, task: TaskContext) -> BoxFuture<'static, Outcome> {
        (self.run)(task)
    }
}

/// The operators that every worker has, and some of a test's own.
pub(crate) fn operators_with(own: &'static [(&'static str, Run)]) -> OperatorFactory {
    Arc::new(|_| {
        let mut registry = OperatorRegistry::new();
        register_builtin(&mut registry);
        for (name, run) in own.iter().copied() {
            registry.register(Arc::new(Own { name, run }));
        }
        registry
    })
}

/// The error with which a graph of one layer ends: its kind, and what people are told.
pub(crate) async fn failure(client: &Client, layer: Layer) -> (TaskErrorKind, String) {
    let mut graph = TaskGraph::new("failing");
    let kept = graph.push(layer);
    graph.keep(kept);
    let handle = client.submit(graph).await.expect("accepted");
    match handle.wait().await {
        Err(ClientError::Task(error)) => (error.kind, error.to_string()),
        other => panic!("a task error was expected, not {other:?}"),
    }
}

/// The body of the test named [`ENTRY`] in each test program: a worker when the last argument is a scheduler's address.
pub(crate) fn worker_entry() {
    worker_entry_with(builtin_operators());
}

/// The same, with operators of the test program's own.
pub(crate) fn worker_entry_with(operators: OperatorFactory) {
    let Some(address) = std::env::args()
        .next_back()
        .filter(|text| text.contains(':'))
    else {
        return;
    };
    let mut config = Sources::of_process().load().expect("the parent's settings");
    config.worker.scheduler = Some(address);
    let ended = Runtime::new().expect("a runtime").block_on(run_worker(
        config.worker,
        operators,
        CancellationToken::new(),
    ));
    // Not through the test harness: it would print what nobody reads.
    std::process::exit(i32::from(ended.is_err()));
}

/// A cluster whose workers are processes, so that everything between them crosses sockets.
pub(crate) async fn cluster(
    workers: u32,
    spill: &Path,
    change: impl FnOnce(&mut Config),
) -> LocalCluster {
    cluster_by(Vec::new(), workers, spill, change).await
}

/// The same, whose workers are started by a command of these words, if there are any.
pub(crate) async fn cluster_by(
    mut words: Vec<String>,
    workers: u32,
    spill: &Path,
    change: impl FnOnce(&mut Config),
) -> LocalCluster {
    let program = std::env::current_exe().expect("this program");
    words.push(program.into_os_string().into_string().expect("text"));
    words.extend(["--exact".to_owned(), ENTRY.to_owned()]);
    let program = words.remove(0).into();
    let mut config = Config::default();
    config.worker.slots = Some(2);
    config.worker.memory_bytes = Some(256 << 20);
    config.worker.spill_dir = Some(spill.to_owned());
    // What these tests show must not depend on what this machine has.
    config.worker.transport = TransportChoice::Tcp;
    change(&mut config);
    LocalCluster::start(LocalClusterOptions {
        workers,
        slots_per_worker: None,
        memory_per_worker_bytes: None,
        spill_dir: None,
        mode: WorkerMode::Processes {
            program,
            arguments: words,
        },
        config,
    })
    .await
    .expect("a cluster starts")
}

pub(crate) async fn run(
    client: &Client,
    graph: TaskGraph,
    kept: LayerIndex,
) -> Vec<Vec<Partition>> {
    let handle = client.submit(graph).await.expect("accepted");
    let waiting = async {
        handle.wait().await.expect("the graph ends well");
        handle.gather(kept).await.expect("gathered")
    };
    tokio::time::timeout(Duration::from_secs(120), waiting)
        .await
        .expect("in time")
}

/// `tasks` partitions of `bytes` bytes, then `size` of their sums, added up in a tree.
pub(crate) fn tree(tasks: u32, bytes: usize, pause_ms: u32) -> (TaskGraph, LayerIndex) {
    let mut graph = TaskGraph::new("tree");
    let made =
        graph.push(Layer::new("make", "bytes", tasks).with_common(bytes.to_string().into_bytes()));
    let pause = graph
        .push(Layer::new("pause", "sleep", tasks).with_common(pause_ms.to_string().into_bytes()));
    let summed = graph.push(
        Layer::new("sum", "sum", tasks)
            .reading(made, Edges::OneToOne)
            .reading(pause, Edges::OneToOne),
    );
    let top = graph.push_tree(summed, 3, "add", "sum", &Vec::new().into());
    graph.keep(top);
    (graph, top)
}

/// What the top of [`tree`] must hold.
pub(crate) fn tree_sum(tasks: u32, bytes: usize) -> u64 {
    (0..tasks)
        .map(|task| {
            (0..bytes)
                .map(|at| u64::from(content_byte(task, 0, at)))
                .sum::<u64>()
        })
        .sum()
}

/// The number in the only partition of the only task.
pub(crate) fn number(outputs: &[Vec<Partition>]) -> u64 {
    assert_eq!(outputs.len(), 1);
    let buffer = &outputs[0][0].buffers()[0];
    u64::from_le_bytes(buffer.as_ref().try_into().expect("8 bytes"))
}

/// Waits until the cluster looks as it should.
pub(crate) async fn until(client: &Client, what: &str, is_so: impl Fn(&ClusterInfo) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let info = client.info().await.expect("info");
        if is_so(&info) {
            return;
        }
        assert!(Instant::now() < deadline, "not in time: {what}: {info:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Kills a process as `kill -9` does.
pub(crate) fn kill(pid: u32) {
    let killed = std::process::Command::new("kill")
        .args(["-9", &pid.to_string()])
        .status()
        .expect("kill runs");
    assert!(killed.success());
}

/// What is left in a folder that should be empty.
pub(crate) fn left_in(folder: &Path) -> Vec<String> {
    match std::fs::read_dir(folder) {
        Ok(entries) => entries
            .map(|entry| {
                entry
                    .expect("an entry")
                    .path()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect(),
        Err(_) => Vec::new(),
    }
}
