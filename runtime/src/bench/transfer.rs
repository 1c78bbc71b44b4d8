//! Measures how fast partitions that one worker holds reach the tasks of another: scheduler, both machines, store and transport together.
//! Called by `transload bench transfer`.
//!
//! The tasks that read do nothing with what they read, so that moving is all there is. Deliberately knows nothing of how it is moved.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use transload_protocol::{ClusterInfo, Edges, Layer, LayerIndex, TaskGraph, WorkerId};

use super::tasks::rank;
use super::{BenchError, Program};
use crate::{Client, Config, LayerHandle};

/// Time in which workers tell the scheduler what has moved.
const REPORTED_WITHIN: Duration = Duration::from_secs(30);
/// Memory for what is not partitions, of each worker, in bytes.
const SPARE_BYTES: u64 = 1 << 30;

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferBench {
    /// Partitions that move.
    pub partitions: u32,
    /// Of each, in bytes.
    pub size_bytes: u64,
    /// How often all of them move; the median counts.
    pub runs: u32,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeasuredTransfer {
    /// As asked for.
    #[serde(flatten)]
    pub bench: TransferBench,
    /// What carried the last of them.
    pub transport: String,
    /// From submission until the last task has read, in seconds: median of the runs.
    pub wall_s: f64,
    /// Of the fastest run.
    pub best_wall_s: f64,
    /// Payload bytes in each second of the median run.
    pub bytes_per_s: f64,
}

impl TransferBench {
    /// Measures between two workers that are processes of `program`, on this machine. Calls `done` after each run. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`BenchError`].
    pub async fn measure(
        self,
        program: &Program,
        config: Config,
        done: impl FnMut(),
    ) -> Result<MeasuredTransfer, BenchError> {
        // So that nothing is spilled: half of a worker's memory is for partitions, of which it spills above 70 %, and what is imported counts
        // beside what it was made as, although both are the same bytes.
        let memory = self.bytes().saturating_mul(8).saturating_add(SPARE_BYTES);
        let cluster = program.start_cluster(2, 1, Some(memory), config).await?;
        let measured = match cluster.client().await {
            Ok(client) => self.run(&client, done).await,
            Err(error) => Err(error.into()),
        };
        cluster.shutdown().await;
        measured
    }

    async fn run(
        self,
        client: &Client,
        mut done: impl FnMut(),
    ) -> Result<MeasuredTransfer, BenchError> {
        let info = client.info().await?;
        let mut workers = info.workers.iter().map(|worker| worker.worker);
        let (Some(holder), Some(reader)) = (workers.next(), workers.next()) else {
            return Err(self.unexpected("has fewer than two workers".to_owned()));
        };
        let (graph, made) = self.making(holder);
        let making = client.submit(graph).await?;
        making.wait().await?;
        let held = client.hold(making.tasks_of(made)?).await?;
        held.wait().await?;
        let mut walls = Vec::new();
        // One more, in which connections and memory grow to their size.
        let runs = self.runs.max(1) + 1;
        for run in 0..runs {
            let (graph, read) = self.reading(&held, reader);
            let started = Instant::now();
            client.submit(graph).await?.gather(read).await?;
            if run > 0 {
                walls.push(started.elapsed().as_secs_f64());
                done();
            }
        }
        let moved = self.bytes().saturating_mul(runs.into());
        let transport = self.all_moved(client, (holder, reader), moved).await?;
        walls.sort_by(f64::total_cmp);
        let wall_s = rank(&walls, 0.5);
        Ok(MeasuredTransfer {
            bench: self,
            transport,
            wall_s,
            best_wall_s: rank(&walls, 0.0),
            bytes_per_s: self.bytes() as f64 / wall_s,
        })
    }

    /// Of all partitions together.
    fn bytes(self) -> u64 {
        self.size_bytes.saturating_mul(self.partitions.into())
    }

    /// What carried the last partition, once the scheduler has heard that so many bytes have moved: they are told with some delay. A copy that
    /// was dropped too early moves twice, which costs time like everything else.
    async fn all_moved(
        self,
        client: &Client,
        pair: (WorkerId, WorkerId),
        expected: u64,
    ) -> Result<String, BenchError> {
        let started = Instant::now();
        loop {
            let (bytes, transport) = moved(&client.info().await?, pair);
            if bytes >= expected {
                return Ok(transport);
            }
            if started.elapsed() > REPORTED_WITHIN {
                return Err(self.unexpected(format!("moved {bytes} bytes, not {expected}")));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn unexpected(self, how: String) -> BenchError {
        let what = "the cluster";
        BenchError::Part { what, how }
    }

    /// Partitions that are made, and kept, at one worker.
    fn making(self, holder: WorkerId) -> (TaskGraph, LayerIndex) {
        let mut graph = TaskGraph::new("make");
        let size = self.size_bytes.to_string().into_bytes();
        let layer = Layer::new("make", "bytes", self.partitions).with_common(size);
        let made = graph.push(layer.on_each(self.all_on(holder)));
        graph.keep(made);
        (graph, made)
    }

    /// A task for each of them at another, which must fetch it.
    fn reading(self, held: &LayerHandle, reader: WorkerId) -> (TaskGraph, LayerIndex) {
        let mut graph = TaskGraph::new("read");
        let imported = held.import_into(&mut graph, "held");
        let layer = Layer::new("read", "noop", self.partitions).reading(imported, Edges::OneToOne);
        let read = graph.push(layer.on_each(self.all_on(reader)));
        graph.keep(read);
        (graph, read)
    }

    fn all_on<T: From<WorkerId>>(self, worker: WorkerId) -> Vec<T> {
        (0..self.partitions).map(|_| worker.into()).collect()
    }
}

/// Bytes that have moved from one to the other, and what carried the last of them.
fn moved(info: &ClusterInfo, (holder, reader): (WorkerId, WorkerId)) -> (u64, String) {
    let of_pair = |it: &&transload_protocol::Transfer| it.from == holder && it.to == reader;
    info.transfers
        .iter()
        .find(of_pair)
        .map(|it| (it.bytes, it.transport.clone()))
        .unwrap_or_default()
}
