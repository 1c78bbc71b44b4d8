//! A scheduler that is killed and started again, among real processes: nothing acknowledged is lost, nothing stored is made twice.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use common::{kill, until};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep, timeout};
use transload_gpu::Partition;
use transload_protocol::{Edges, Layer, LayerIndex, TaskGraph};
use transload_runtime::config::{ClientConfig, Sources};
use transload_runtime::transports::TransportChoice;
use transload_runtime::{
    CancellationToken, Client, ClientError, ClientOptions, Operator, OperatorError,
    OperatorFactory, SchedulerServer, TaskContext, builtin_operators, run_worker,
};

/// Tells in which role this program was called, and where runs are counted.
const ROLE: &str = "RESTART_TEST_ROLE";
const RUNS: &str = "RESTART_TEST_RUNS";

/// Writes down that it ran, takes its time, and makes what `bytes` makes.
struct Counted {
    bytes: Arc<dyn Operator>,
    runs: PathBuf,
}

impl Operator for Counted {
    fn name(&self) -> &str {
        "counted"
    }

    fn run(
        &self,
        context: TaskContext,
    ) -> BoxFuture<'static, Result<Vec<Partition>, OperatorError>> {
        let (bytes, runs) = (Arc::clone(&self.bytes), self.runs.clone());
        async move {
            let mut runs = OpenOptions::new()
                .create(true)
                .append(true)
                .open(runs)
                .expect("a file");
            runs.write_all(format!("{}\n", context.task.index).as_bytes())
                .expect("written");
            sleep(Duration::from_millis(50)).await;
            bytes.run(context).await
        }
        .boxed()
    }
}

/// A scheduler or a worker when the environment says so, and else a test that passes.
#[test]
fn run_as_process() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let mut config = Sources::of_process().load().expect("the parent's settings");
    let runtime = Runtime::new().expect("a runtime");
    let ended = runtime.block_on(async {
        if role == "scheduler" {
            let server = match SchedulerServer::start(config.scheduler).await {
                Ok(server) => server,
                Err(error) => {
                    eprintln!("{error}");
                    return false;
                }
            };
            server.ended().await;
            server.take_failure().is_none()
        } else {
            let runs = PathBuf::from(std::env::var(RUNS).expect("a path"));
            let operators: OperatorFactory = Arc::new(move |environment| {
                let mut registry = builtin_operators()(environment);
                let bytes = registry.get("bytes").expect("builtin");
                let runs = runs.clone();
                registry.register(Arc::new(Counted { bytes, runs }));
                registry
            });
            config.worker.transport = TransportChoice::Tcp;
            config.worker.slots = Some(2);
            config.worker.memory_bytes = Some(64 << 20);
            run_worker(config.worker, operators, CancellationToken::new())
                .await
                .is_ok()
        }
    });
    std::process::exit(i32::from(!ended));
}

/// Processes that die with the test.
struct Cluster {
    folder: tempfile::TempDir,
    port: u16,
    scheduler: Child,
    workers: Vec<Child>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.workers.iter_mut().chain([&mut self.scheduler]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Cluster {
    fn start(workers: u32, settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let scheduler = scheduler(folder.path(), port, settings);
        let mut cluster = Self {
            folder,
            port,
            scheduler,
            workers: Vec::new(),
        };
        for _ in 0..workers {
            let worker = process("worker", cluster.folder.path(), &[])
                .env(
                    "TRANSLOAD_WORKER_SPILL_DIR",
                    cluster.folder.path().join("spill"),
                )
                .env(RUNS, cluster.runs_file())
                .spawn()
                .expect("starts");
            cluster.workers.push(worker);
        }
        cluster
    }

    fn runs_file(&self) -> PathBuf {
        self.folder.path().join("runs")
    }

    /// How often each task ran.
    fn runs(&self) -> BTreeMap<u32, u32> {
        let mut runs = BTreeMap::new();
        for line in fs::read_to_string(self.runs_file())
            .unwrap_or_default()
            .lines()
        {
            *runs.entry(line.parse().expect("an index")).or_insert(0) += 1;
        }
        runs
    }

    fn kill_scheduler(&mut self) {
        kill(self.scheduler.id());
        self.scheduler.wait().expect("dead");
    }

    fn start_scheduler_again(&mut self, settings: &[(&str, &str)]) {
        self.scheduler = scheduler(self.folder.path(), self.port, settings);
    }

    async fn client(&self) -> Client {
        let config = ClientConfig {
            connect_timeout: Duration::from_secs(20),
            ..ClientConfig::default()
        };
        let file = self.folder.path().join("scheduler.json");
        Client::connect_scheduler_file(&file, ClientOptions::new(config))
            .await
            .expect("connects")
    }
}

fn process(role: &str, folder: &Path, settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command
        .args(["--exact", "run_as_process", "--nocapture"])
        .env(ROLE, role)
        .env("TRANSLOAD_SCHEDULER_FILE", folder.join("scheduler.json"))
        .envs(settings.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

fn scheduler(folder: &Path, port: u16, settings: &[(&str, &str)]) -> Child {
    let log = File::create(folder.join("scheduler.log")).expect("a log");
    process("scheduler", folder, settings)
        .env("TRANSLOAD_SCHEDULER_PORT", port.to_string())
        .env("TRANSLOAD_SCHEDULER_JOURNAL", folder.join("journal"))
        .stderr(log)
        .spawn()
        .expect("starts")
}

/// `tasks` counted tasks, each read by one that is kept.
fn counted(tasks: u32) -> (TaskGraph, LayerIndex) {
    let mut graph = TaskGraph::new("counted");
    let made = graph.push(Layer::new("make", "counted", tasks).with_common(b"1000".to_vec()));
    let summed = graph.push(Layer::new("sum", "sum", tasks).reading(made, Edges::OneToOne));
    let top = graph.push_tree(summed, 4, "add", "sum", &Vec::new().into());
    graph.keep(made);
    graph.keep(top);
    (graph, top)
}

async fn in_time<T>(what: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), what)
        .await
        .expect("in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_that_is_killed_and_started_again_loses_nothing_and_repeats_nothing() {
    let tasks = 60;
    let mut cluster = Cluster::start(2, &[]);
    let client = cluster.client().await;
    until(&client, "two workers", |info| info.workers.len() == 2).await;
    let (graph, top) = counted(tasks);
    let handle = client.submit(graph).await.expect("accepted");
    let deadline = Instant::now() + Duration::from_secs(30);
    while cluster.runs().len() < 20 {
        assert!(Instant::now() < deadline, "the graph runs");
        sleep(Duration::from_millis(10)).await;
    }
    cluster.kill_scheduler();
    let before = cluster.runs().len();
    assert!(before < tasks as usize, "killed in the middle");
    // What runs ends meanwhile, and is not lost either.
    sleep(Duration::from_millis(300)).await;
    cluster.start_scheduler_again(&[]);
    in_time(handle.wait()).await.expect("ends well");
    let sum = common::number(&in_time(handle.gather(top)).await.expect("gathered"));
    assert_eq!(sum, common::tree_sum(tasks, 1_000));
    let made = in_time(handle.gather(LayerIndex(0)))
        .await
        .expect("gathered");
    assert_eq!(made.len(), tasks as usize);
    let runs = cluster.runs();
    assert_eq!(runs.len(), tasks as usize);
    let again: Vec<_> = runs.iter().filter(|(_, count)| **count > 1).collect();
    assert!(again.is_empty(), "tasks that ran again: {again:?}");

    // The connection that was made again serves as the first one did, and the scheduler can be killed again.
    cluster.kill_scheduler();
    cluster.start_scheduler_again(&[]);
    let (graph, top) = counted(8);
    let handle = in_time(client.submit(graph)).await.expect("accepted");
    let sum = common::number(&in_time(handle.gather(top)).await.expect("gathered"));
    assert_eq!(sum, common::tree_sum(8, 1_000));
    client.shutdown_cluster().await.expect("shut down");
    for worker in &mut cluster.workers {
        assert!(
            worker.wait().expect("ended").success(),
            "ends in good order"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_submitted_while_the_scheduler_is_gone_runs_when_it_is_back() {
    let mut cluster = Cluster::start(1, &[]);
    let client = cluster.client().await;
    until(&client, "a worker", |info| info.workers.len() == 1).await;
    cluster.kill_scheduler();
    let submitting = tokio::spawn({
        let client = client.clone();
        async move {
            let (graph, top) = counted(4);
            let handle = client.submit(graph).await.expect("accepted");
            common::number(&handle.gather(top).await.expect("gathered"))
        }
    });
    sleep(Duration::from_millis(500)).await;
    assert!(!submitting.is_finished());
    cluster.start_scheduler_again(&[]);
    let sum = in_time(submitting).await.expect("no panic");
    assert_eq!(sum, common::tree_sum(4, 1_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_without_its_journal_is_another_cluster() {
    let mut cluster = Cluster::start(1, &[]);
    let client = cluster.client().await;
    until(&client, "a worker", |info| info.workers.len() == 1).await;
    let (graph, _) = counted(200);
    let handle = client.submit(graph).await.expect("accepted");
    cluster.kill_scheduler();
    fs::remove_dir_all(cluster.folder.path().join("journal")).expect("removed");
    cluster.start_scheduler_again(&[]);
    let error = in_time(handle.wait()).await.expect_err("lost");
    assert!(
        matches!(error, ClientError::ConnectionLost { .. }),
        "{error}"
    );
    // The worker starts anew there, with nothing of the old graph.
    let client = cluster.client().await;
    until(&client, "the worker", |info| info.workers.len() == 1).await;
    let (graph, top) = counted(4);
    let handle = in_time(client.submit(graph)).await.expect("accepted");
    let sum = common::number(&in_time(handle.gather(top)).await.expect("gathered"));
    assert_eq!(sum, common::tree_sum(4, 1_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_schedulers_do_not_share_a_journal() {
    let cluster = Cluster::start(0, &[]);
    let _client = cluster.client().await;
    let output = process("scheduler", cluster.folder.path(), &[])
        .env("TRANSLOAD_SCHEDULER_PORT", "0")
        .env(
            "TRANSLOAD_SCHEDULER_JOURNAL",
            cluster.folder.path().join("journal"),
        )
        .output()
        .expect("runs");
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        error.contains("another scheduler keeps its journal"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_published_and_imported_is_so_after_the_scheduler_was_killed() {
    let mut cluster = Cluster::start(2, &[]);
    let owner = cluster.client().await;
    let other = cluster.client().await;
    until(&owner, "workers", |info| info.workers.len() == 2).await;
    let (graph, _) = counted(8);
    let handle = in_time(owner.submit(graph)).await.expect("accepted");
    let tasks = handle.tasks_of(LayerIndex(0)).expect("kept");
    let held = in_time(other.hold(tasks)).await.expect("held");
    in_time(owner.publish("made", tasks, false))
        .await
        .expect("published");
    let mut graph = TaskGraph::new("sum");
    let imported = held.import_into(&mut graph, "imported");
    let sum = graph.push(Layer::new("sum", "sum", 1).reading(imported, Edges::Broadcast));
    graph.keep(sum);
    let importing = in_time(other.submit(graph)).await.expect("accepted");
    drop(handle);
    drop(owner);
    cluster.kill_scheduler();
    cluster.start_scheduler_again(&[]);
    let outputs = in_time(importing.gather(sum)).await.expect("gathered");
    assert_eq!(common::number(&outputs), common::tree_sum(8, 1_000));
    assert_eq!(in_time(held.gather()).await.expect("gathered").len(), 8);
    drop(held);
    let found = in_time(other.lookup("made")).await.expect("found");
    assert_eq!(in_time(found.gather()).await.expect("gathered").len(), 8);
    in_time(other.unpublish("made")).await.expect("unpublished");
    assert!(in_time(other.published()).await.expect("listed").is_empty());
}
