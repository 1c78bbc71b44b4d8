//! Measures no-op tasks end to end: a client, a scheduler and workers that are real processes. Called by `transload bench tasks`.
//!
//! Everything is wall time seen by the client, and holds sockets, codec, both machines, the partition store and the executor,
//! and no work. Deliberately knows nothing of how any of them does its part.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use transload_protocol::{Edges, Layer, LayerIndex, TaskGraph};

use super::usage::process_cpu_nanos;
use super::{BenchError, Program};
use crate::{Client, ClientOptions, Config};

/// How many tasks of the chain there are for each task of the merge graph: a tenth.
const CHAIN_SHARE: u32 = 10;

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskBench {
    /// Worker processes.
    pub workers: u32,
    /// Slots of each.
    pub slots: u32,
    /// Independent tasks that one more task reads.
    pub tasks: u32,
    /// Runs of each graph; the median counts.
    pub repeats: u32,
    /// Single tasks, one after another.
    pub singles: u32,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeasuredTasks {
    /// As asked for; of a cluster that runs already, its own workers.
    #[serde(flatten)]
    pub bench: TaskBench,
    /// Independent tasks, and one that reads them all.
    pub merge: PerTask,
    /// Tasks each of which reads the one before: a tenth as many.
    pub chain: PerTask,
    /// One task alone, from submission to its result at the client, in milliseconds. Connection and workers are there.
    pub single: Spread,
}

/// What a task of a graph costs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PerTask {
    /// From submission to the last result at the client, divided by the tasks, in microseconds: median of the runs.
    pub wall_us: f64,
    /// The same of the fastest run.
    pub best_wall_us: f64,
    /// CPU time of all worker processes, in microseconds for each task; `None` of a cluster that was not started here.
    pub workers_cpu_us: Option<f64>,
    /// CPU time of this process, which holds client and scheduler, in microseconds for each task; of a cluster that was not started
    /// here the client alone.
    pub own_cpu_us: f64,
}

/// How something that was measured often is spread.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Half of all are below.
    pub p50: f64,
    /// 99 of 100 are below.
    pub p99: f64,
    /// The greatest.
    pub worst: f64,
}

impl TaskBench {
    /// Measures on a local cluster whose workers are processes of `program`. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`BenchError`].
    pub async fn measure(self, program: &Program) -> Result<MeasuredTasks, BenchError> {
        let cluster = program
            .start_cluster(self.workers, self.slots, None, Config::default())
            .await?;
        let measured = match cluster.client().await {
            Ok(client) => self.run(&client, &cluster.worker_processes()).await,
            Err(error) => Err(error.into()),
        };
        cluster.shutdown().await;
        measured
    }

    /// Measures on the cluster whose scheduler is at `address`, which says how many workers and slots there are.
    ///
    /// # Errors
    /// [`BenchError`].
    pub async fn measure_at(self, address: &str) -> Result<MeasuredTasks, BenchError> {
        let client = Client::connect(address, ClientOptions::default()).await?;
        let info = client.info().await?;
        let slots = info.workers.iter().map(|it| it.hello.resources.slots);
        let bench = Self {
            workers: u32::try_from(info.workers.len()).unwrap_or(u32::MAX),
            slots: slots.max().unwrap_or_default(),
            ..self
        };
        bench.run(&client, &[]).await
    }

    async fn run(self, client: &Client, workers: &[u32]) -> Result<MeasuredTasks, BenchError> {
        let merge = self.graph(client, merge(self.tasks), workers).await?;
        let chain = chain(self.tasks / CHAIN_SHARE);
        let chain = self.graph(client, chain, workers).await?;
        let mut millis = Vec::new();
        for _ in 0..self.singles.max(1) {
            let started = Instant::now();
            let mut graph = TaskGraph::new("single");
            let layer = graph.push(Layer::new("single", "noop", 1));
            graph.keep(layer);
            client.submit(graph).await?.gather(layer).await?;
            millis.push(started.elapsed().as_secs_f64() * 1e3);
        }
        Ok(MeasuredTasks {
            bench: self,
            merge,
            chain,
            single: Spread::of(millis),
        })
    }

    async fn graph(
        self,
        client: &Client,
        (graph, last): (TaskGraph, LayerIndex),
        workers: &[u32],
    ) -> Result<PerTask, BenchError> {
        let tasks: u32 = graph.layers.iter().map(|layer| layer.tasks).sum();
        let runs = self.repeats.max(1);
        let before = (cpu(&[std::process::id()])?, cpu(workers)?);
        let mut walls = Vec::new();
        for _ in 0..runs {
            let graph = graph.clone();
            let started = Instant::now();
            client.submit(graph).await?.gather(last).await?;
            walls.push(started.elapsed().as_secs_f64() * 1e6 / f64::from(tasks));
        }
        let after = (cpu(&[std::process::id()])?, cpu(workers)?);
        let all_tasks = f64::from(tasks) * f64::from(runs);
        let per_task =
            |before: u64, after: u64| after.saturating_sub(before) as f64 / 1e3 / all_tasks;
        walls.sort_by(f64::total_cmp);
        Ok(PerTask {
            wall_us: rank(&walls, 0.5),
            best_wall_us: rank(&walls, 0.0),
            workers_cpu_us: (!workers.is_empty()).then(|| per_task(before.1, after.1)),
            own_cpu_us: per_task(before.0, after.0),
        })
    }
}

impl Spread {
    pub(super) fn of(mut all: Vec<f64>) -> Self {
        all.sort_by(f64::total_cmp);
        Self {
            p50: rank(&all, 0.5),
            p99: rank(&all, 0.99),
            worst: rank(&all, 1.0),
        }
    }
}

/// The number below which this share of the numbers lies; they must be sorted. 0 for none.
pub(super) fn rank(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let at = (last as f64 * share).round() as usize;
    sorted.get(at).copied().unwrap_or_default()
}

fn cpu(processes: &[u32]) -> Result<u64, BenchError> {
    processes.iter().map(|pid| process_cpu_nanos(*pid)).sum()
}

/// Independent tasks, and one that reads them all.
fn merge(tasks: u32) -> (TaskGraph, LayerIndex) {
    let mut graph = TaskGraph::new("merge");
    let many = graph.push(Layer::new("many", "noop", tasks));
    let merged = graph.push(Layer::new("merge", "noop", 1).reading(many, Edges::Broadcast));
    graph.keep(merged);
    (graph, merged)
}

/// Tasks each of which reads the one before.
fn chain(tasks: u32) -> (TaskGraph, LayerIndex) {
    let mut graph = TaskGraph::new("chain");
    let mut last = graph.push(Layer::new("link", "noop", 1));
    for _ in 1..tasks.max(2) {
        last = graph.push(Layer::new("link", "noop", 1).reading(last, Edges::OneToOne));
    }
    graph.keep(last);
    (graph, last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_numbers_that_were_measured() {
        let spread = Spread::of((1..=101).rev().map(f64::from).collect());
        assert_eq!((spread.p50, spread.p99, spread.worst), (51.0, 100.0, 101.0));
        assert_eq!(Spread::of(Vec::new()).p50, 0.0);
    }

    #[test]
    fn the_graphs_have_as_many_tasks_as_asked_for() {
        let tasks = |graph: &TaskGraph| graph.layers.iter().map(|layer| layer.tasks).sum::<u32>();
        assert_eq!(tasks(&merge(100).0), 101);
        assert_eq!(tasks(&chain(100).0), 100);
    }
}
