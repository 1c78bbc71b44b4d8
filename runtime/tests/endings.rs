//! How schedulers and workers end, and what they leave behind: nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::left_in;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::task::JoinHandle;
use transload_gpu::Partition;
use transload_protocol::{Layer, TaskGraph};
use transload_runtime::config::{SchedulerConfig, WorkerConfig};
use transload_runtime::transports::TransportChoice;
use transload_runtime::{
    CancellationToken, Client, ClientOptions, Operator, OperatorError, OperatorFactory,
    RuntimeError, SchedulerFile, SchedulerServer, TaskContext, builtin_operators, run_worker,
};

type Ending = JoinHandle<Result<(), RuntimeError>>;

async fn scheduler() -> SchedulerServer {
    SchedulerServer::start(SchedulerConfig {
        port: 0,
        ..SchedulerConfig::default()
    })
    .await
    .expect("starts")
}

fn config(server: &SchedulerServer, spill: &Path) -> WorkerConfig {
    WorkerConfig {
        scheduler: Some(server.address().to_string()),
        slots: Some(1),
        memory_bytes: Some(8 << 20),
        spill_dir: Some(spill.to_owned()),
        transport: TransportChoice::Tcp,
        stop_timeout: Duration::from_secs(1),
        ..WorkerConfig::default()
    }
}

fn worker(
    server: &SchedulerServer,
    spill: &Path,
    operators: OperatorFactory,
) -> (Ending, CancellationToken) {
    let stop = CancellationToken::new();
    let running = run_worker(config(server, spill), operators, stop.clone());
    (tokio::spawn(running), stop)
}

async fn joined(server: &SchedulerServer, workers: usize) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while server.info().await.expect("info").workers.len() != workers {
        assert!(Instant::now() < deadline, "workers join and leave in time");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Its only worker has heard that it was welcome: it reports.
async fn heard(server: &SchedulerServer) {
    joined(server, 1).await;
    let deadline = Instant::now() + Duration::from_secs(10);
    while server.info().await.expect("info").workers[0]
        .load
        .tiers
        .is_empty()
    {
        assert!(Instant::now() < deadline, "workers report in time");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn ends(worker: Ending) -> Result<(), RuntimeError> {
    tokio::time::timeout(Duration::from_secs(10), worker)
        .await
        .expect("in time")
        .expect("no panic")
}

async fn client(server: &SchedulerServer) -> Client {
    Client::connect(&server.address().to_string(), ClientOptions::default())
        .await
        .expect("connects")
}

/// Keeps its slot thread for ten seconds and listens to nobody.
struct Deaf;

impl Operator for Deaf {
    fn name(&self) -> &str {
        "deaf"
    }

    fn run(&self, _: TaskContext) -> BoxFuture<'static, Result<Vec<Partition>, OperatorError>> {
        async {
            std::thread::sleep(Duration::from_secs(10));
            Err(OperatorError::new("nobody stopped it"))
        }
        .boxed()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_worker_says_goodbye_and_removes_its_spill_directory() {
    let server = scheduler().await;
    let spill = tempfile::tempdir().expect("a folder");
    let (running, stop) = worker(&server, spill.path(), builtin_operators());
    joined(&server, 1).await;
    let client = client(&server).await;
    let mut graph = TaskGraph::new("spilling");
    let made =
        graph.push(Layer::new("make", "bytes", 20).with_common((1 << 20).to_string().into_bytes()));
    graph.keep(made);
    let handle = client.submit(graph).await.expect("accepted");
    handle.wait().await.expect("ends well");
    let directories = left_in(spill.path());
    assert_eq!(directories.len(), 1, "{directories:?}");
    assert!(
        left_in(Path::new(&directories[0])).len() > 2,
        "something is spilled"
    );
    stop.cancel();
    ends(running).await.expect("a stop is no error");
    assert_eq!(left_in(spill.path()), Vec::<String>::new());
    joined(&server, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_operator_does_not_listen_ends_in_time_nevertheless() {
    let server = scheduler().await;
    let spill = tempfile::tempdir().expect("a folder");
    let operators: OperatorFactory = Arc::new(|environment| {
        let mut registry = builtin_operators()(environment);
        registry.register(Arc::new(Deaf));
        registry
    });
    let (running, stop) = worker(&server, spill.path(), operators);
    joined(&server, 1).await;
    let client = client(&server).await;
    let mut graph = TaskGraph::new("deaf");
    let kept = graph.push(Layer::new("deaf", "deaf", 1));
    graph.keep(kept);
    let _handle = client.submit(graph).await.expect("accepted");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let start = Instant::now();
    stop.cancel();
    ends(running).await.expect("a stop is no error");
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(left_in(spill.path()), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_end_with_their_scheduler() {
    let server = scheduler().await;
    let spill = tempfile::tempdir().expect("a folder");
    let (told, _stop) = worker(&server, spill.path(), builtin_operators());
    joined(&server, 1).await;
    server.shutdown().await;
    ends(told).await.expect("a shutdown is no error");

    let server = scheduler().await;
    let (orphan, _stop) = worker(&server, spill.path(), builtin_operators());
    heard(&server).await;
    drop(server);
    let error = ends(orphan).await.expect_err("nobody said goodbye");
    assert!(
        matches!(error, RuntimeError::SchedulerLost { .. }),
        "{error}"
    );
    assert_eq!(left_in(spill.path()), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_can_end_the_cluster() {
    let server = scheduler().await;
    let spill = tempfile::tempdir().expect("a folder");
    let (running, _stop) = worker(&server, spill.path(), builtin_operators());
    joined(&server, 1).await;
    client(&server)
        .await
        .shutdown_cluster()
        .await
        .expect("the scheduler agrees");
    ends(running).await.expect("a shutdown is no error");
    tokio::time::timeout(Duration::from_secs(10), server.ended())
        .await
        .expect("the scheduler ends");
    let error = server.info().await.expect_err("it is over").to_string();
    assert!(error.contains("stopped"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_file_brings_workers_and_goes_with_the_scheduler() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("scheduler.json");
    let server = SchedulerServer::start(SchedulerConfig {
        port: 0,
        file: Some(file.clone()),
        ..SchedulerConfig::default()
    })
    .await
    .expect("starts");
    let written = SchedulerFile::read(&file).expect("written");
    assert_eq!(written.address, server.address().to_string());
    assert_eq!(written.pid, std::process::id());
    let stop = CancellationToken::new();
    let found = WorkerConfig {
        scheduler: None,
        scheduler_file: Some(file.clone()),
        ..config(&server, folder.path())
    };
    let running = tokio::spawn(run_worker(found, builtin_operators(), stop.clone()));
    joined(&server, 1).await;
    server.shutdown().await;
    ends(running).await.expect("a shutdown is no error");
    assert!(!file.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_of_one_process_hand_partitions_over_without_a_socket() {
    let server = scheduler().await;
    let spill = tempfile::tempdir().expect("a folder");
    let (first, _stop) = worker(&server, spill.path(), builtin_operators());
    let (second, _stop) = worker(&server, spill.path(), builtin_operators());
    joined(&server, 2).await;
    let client = client(&server).await;
    let (graph, top) = common::tree(12, 1_000, 20);
    let outputs = common::run(&client, graph, top).await;
    assert_eq!(common::number(&outputs), common::tree_sum(12, 1_000));
    let transfers = client.info().await.expect("info").transfers;
    assert!(
        !transfers.is_empty()
            && transfers
                .iter()
                .all(|transfer| transfer.transport == "process"),
        "{transfers:?}"
    );
    server.shutdown().await;
    ends(first).await.expect("ends well");
    ends(second).await.expect("ends well");
}

#[tokio::test]
async fn what_cannot_start_says_why_and_leaves_nothing() {
    let server = scheduler().await;
    let taken = SchedulerConfig {
        port: server.address().port(),
        ..SchedulerConfig::default()
    };
    let error = SchedulerServer::start(taken)
        .await
        .expect_err("the port is taken");
    assert!(error.to_string().contains("--port"), "{error}");

    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("a file");
    std::fs::write(&file, "").expect("written");
    let error = run_worker(
        config(&server, &file),
        builtin_operators(),
        CancellationToken::new(),
    )
    .await
    .expect_err("no folder");
    assert!(error.to_string().contains("--spill-dir"), "{error}");

    let nowhere = WorkerConfig {
        data_host: Some("203.0.113.77".to_owned()),
        ..config(&server, folder.path())
    };
    let error = run_worker(nowhere, builtin_operators(), CancellationToken::new())
        .await
        .expect_err("not our address");
    assert!(error.to_string().contains("--data-host"), "{error}");
    let nobody = WorkerConfig {
        scheduler: None,
        ..config(&server, folder.path())
    };
    let error = run_worker(nobody, builtin_operators(), CancellationToken::new())
        .await
        .expect_err("no scheduler");
    assert!(error.to_string().contains("--scheduler-file"), "{error}");
    assert_eq!(
        left_in(folder.path()),
        [file.to_string_lossy().into_owned()]
    );
}
