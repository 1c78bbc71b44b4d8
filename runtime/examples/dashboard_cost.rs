//! What a dashboard costs the scheduler: CPU time of its thread for each of 100,000 tasks without one, with one that nobody looks at, and with
//! one viewer. All three take turns in one process, as a machine is not equally fast at all times.
//!
//! `cargo run --release -p transload-runtime --example dashboard_cost -- [ROUNDS]`
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a measurement that cannot go on ends"
)]

use std::collections::BTreeSet;
use std::fs;

use futures::StreamExt;
use transload_protocol::{Edges, Layer, TaskGraph};
use transload_runtime::config::DashboardChoice;
use transload_runtime::{
    Client, Config, LocalCluster, LocalClusterOptions, WorkerMode, builtin_operators,
};

const TASKS: u32 = 100_000;
const WORKERS: u32 = 2;

struct Way {
    name: &'static str,
    client: Client,
    cluster: LocalCluster,
    /// Where the system tells the CPU time of its scheduler's thread.
    thread: String,
    /// CPU nanoseconds per task, of each round.
    rounds: Vec<f64>,
}

#[tokio::main]
async fn main() {
    let rounds = std::env::args()
        .nth(1)
        .map_or(15, |text| text.parse().expect("a number of rounds"));
    let mut ways = Vec::new();
    for (name, dashboard) in [
        ("none", DashboardChoice::Off),
        ("closed", DashboardChoice::Auto),
        ("one viewer", DashboardChoice::Auto),
    ] {
        ways.push(start(name, dashboard).await);
    }
    let address = ways[2].cluster.dashboard().expect("it has one");
    let (mut viewer, _) = tokio_tungstenite::connect_async(format!("ws://{address}/ws"))
        .await
        .expect("a viewer");
    let bytes = tokio::spawn(async move {
        let mut bytes = 0;
        while let Some(Ok(message)) = viewer.next().await {
            bytes += message.len();
        }
        bytes
    });
    for _ in 0..rounds {
        for way in &mut ways {
            let before = nanos(&way.thread);
            run(&way.client).await;
            way.rounds
                .push((nanos(&way.thread) - before) as f64 / f64::from(TASKS + 1));
        }
    }
    let median = |way: &Way| {
        let mut all = way.rounds.clone();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let without = median(&ways[0]);
    println!("{:<12} {:>12} {:>8}", "dashboard", "ns per task", "ratio");
    for way in &ways {
        println!(
            "{:<12} {:>12.0} {:>8.3}",
            way.name,
            median(way),
            median(way) / without
        );
    }
    drop(ways);
    println!("the viewer was sent {} B", bytes.await.expect("it ends"));
}

async fn start(name: &'static str, dashboard: DashboardChoice) -> Way {
    let before = scheduler_threads();
    let mut config = Config::default();
    config.scheduler.dashboard = dashboard;
    config.worker.memory_bytes = Some(1 << 30);
    let options = LocalClusterOptions {
        workers: WORKERS,
        slots_per_worker: Some(1),
        memory_per_worker_bytes: None,
        spill_dir: None,
        mode: WorkerMode::Threads {
            operators: builtin_operators(),
        },
        config,
    };
    let cluster = LocalCluster::start(options).await.expect("a cluster");
    let client = cluster.client().await.expect("a client");
    let new = scheduler_threads();
    let thread = new.difference(&before).next().expect("a scheduler").clone();
    Way {
        name,
        client,
        cluster,
        thread,
        rounds: Vec::new(),
    }
}

async fn run(client: &Client) {
    let mut graph = TaskGraph::new("merge");
    let many = graph.push(Layer::new("many", "noop", TASKS));
    let merged = graph.push(Layer::new("merge", "noop", 1).reading(many, Edges::Broadcast));
    graph.keep(merged);
    client
        .submit(graph)
        .await
        .expect("taken")
        .gather(merged)
        .await
        .expect("done");
}

/// Folders of the threads of this process that are called so.
fn scheduler_threads() -> BTreeSet<String> {
    let all = fs::read_dir("/proc/self/task")
        .expect("Linux")
        .map(|it| it.expect("a thread").path());
    let ours = all.filter(|path| {
        fs::read_to_string(path.join("comm")).is_ok_and(|it| it.trim() == "scheduler")
    });
    ours.map(|path| path.display().to_string()).collect()
}

fn nanos(thread: &str) -> u64 {
    let text = fs::read_to_string(format!("{thread}/schedstat")).expect("the thread runs");
    let first = text.split(' ').next().and_then(|it| it.parse().ok());
    first.expect("a number")
}
