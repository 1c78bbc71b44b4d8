//! No-op tasks: how many per second, and how long one takes from submission to its result at the client.
//!
//! Prints one JSON object. Everything in it is wall time seen by the client; workers are processes on this machine, so
//! the numbers hold sockets, codec, both machines and the executor, and no work.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;
use serde_json::{Value, json};
use transload_benches::{Failure, percentile};
use transload_protocol::{Edges, Layer, LayerIndex, TaskGraph};
use transload_runtime::{
    Client, ClientOptions, Config, LocalCluster, LocalClusterOptions, WorkerMode,
};

/// Measures no-op tasks on a local cluster, or on one that runs already.
#[derive(Parser)]
struct Options {
    /// The program that offers `worker`; by default `transload` beside this one.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Measure a running cluster instead of starting one.
    #[arg(long, value_name = "HOST:PORT")]
    connect: Option<String>,
    /// Worker processes to start.
    #[arg(long, default_value_t = 2)]
    workers: u32,
    /// Slots of each.
    #[arg(long, default_value_t = 1)]
    slots: u32,
    /// Tasks of each throughput run.
    #[arg(long, default_value_t = 10_000)]
    tasks: u32,
    /// Throughput runs; the median counts.
    #[arg(long, default_value_t = 5)]
    repeats: u32,
    /// Single tasks whose latency is measured, one after another.
    #[arg(long, default_value_t = 1_000)]
    singles: u32,
}

fn main() -> Result<(), Failure> {
    let options = Options::parse();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(run(options))
}

async fn run(options: Options) -> Result<(), Failure> {
    if let Some(address) = &options.connect {
        let client = Client::connect(address, ClientOptions::default()).await?;
        println!("{}", measure(&client, &options).await?);
        return Ok(());
    }
    let program = match &options.binary {
        Some(binary) => binary.clone(),
        None => std::env::current_exe()?.with_file_name("transload"),
    };
    let cluster = LocalCluster::start(LocalClusterOptions {
        workers: options.workers,
        slots_per_worker: Some(options.slots),
        memory_per_worker_bytes: None,
        spill_dir: None,
        mode: WorkerMode::Processes {
            program,
            arguments: vec!["worker".to_owned()],
        },
        config: Config::default(),
    })
    .await?;
    let report = measure(&cluster.client().await?, &options).await;
    cluster.shutdown().await;
    println!("{}", report?);
    Ok(())
}

async fn measure(client: &Client, options: &Options) -> Result<Value, Failure> {
    let mut throughput = serde_json::Map::new();
    for (name, graph) in shapes(options.tasks) {
        let mut per_task = Vec::new();
        for _ in 0..options.repeats.max(1) {
            let (graph, kept) = graph.clone();
            let tasks: u32 = graph.layers.iter().map(|layer| layer.tasks).sum();
            let started = Instant::now();
            client.submit(graph).await?.gather(kept).await?;
            per_task.push(started.elapsed().as_secs_f64() * 1e6 / f64::from(tasks));
        }
        per_task.sort_by(f64::total_cmp);
        throughput.insert(
            name.to_owned(),
            json!({
                "micros_per_task_median": percentile(&per_task, 50.0),
                "micros_per_task_best": percentile(&per_task, 0.0),
                "tasks_per_second_median": 1e6 / percentile(&per_task, 50.0),
            }),
        );
    }
    let mut millis = Vec::new();
    for _ in 0..options.singles.max(1) {
        let started = Instant::now();
        let mut graph = TaskGraph::new("single");
        let layer = graph.push(Layer::new("single", "noop", 1));
        graph.keep(layer);
        client.submit(graph).await?.gather(layer).await?;
        millis.push(started.elapsed().as_secs_f64() * 1e3);
    }
    millis.sort_by(f64::total_cmp);
    Ok(json!({
        "workers": client.info().await?.workers.len(),
        "tasks": options.tasks,
        "throughput": throughput,
        "submit_to_result_millis": {
            "p50": percentile(&millis, 50.0),
            "p99": percentile(&millis, 99.0),
            "worst": percentile(&millis, 100.0),
        },
    }))
}

/// The graphs whose throughput is measured, each with the layer that the client gathers: independent tasks read by one
/// (`merge`), and a chain in which each task waits for the one before it.
fn shapes(tasks: u32) -> [(&'static str, (TaskGraph, LayerIndex)); 2] {
    let mut merge = TaskGraph::new("merge");
    let many = merge.push(Layer::new("many", "noop", tasks));
    let merged = merge.push(Layer::new("merge", "noop", 1).reading(many, Edges::Broadcast));
    merge.keep(merged);

    let mut chain = TaskGraph::new("chain");
    let mut last = chain.push(Layer::new("link", "noop", 1));
    for _ in 1..(tasks / 10).max(2) {
        last = chain.push(Layer::new("link", "noop", 1).reading(last, Edges::OneToOne));
    }
    chain.keep(last);
    [("merge", (merge, merged)), ("chain", (chain, last))]
}
