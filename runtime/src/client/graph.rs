//! A submitted graph: waiting for it, following it, gathering its partitions, and letting go of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, watch};
use transload_gpu::{Budget, HostBuffer, OutOfBudget, Partition, PartitionHeader};
use transload_protocol::optimize::Report;
use transload_protocol::{
    ClientMessage, CompiledGraph, GraphId, GraphOutcome, LayerIndex, LayerProgress, OutputLocation,
    PartitionId, TaskGraph, TaskId, TaskRange,
};
use transload_transport::Destination;

use super::state::{GraphSignals, Phase};
use super::{Client, ClientError};
use crate::fetcher::Fetched;

/// Holders of one task's partitions that may fail in turn before the client gives up.
pub(super) const HOLDERS_TRIED: u32 = 5;

/// A submitted graph. Dropping the last reference to it (handle and streams) cancels what still runs and releases what it
/// holds.
pub struct GraphHandle {
    inner: Arc<Held>,
}

struct Held {
    client: Client,
    id: GraphId,
    compiled: CompiledGraph,
    /// Where the caller's layers are in `compiled`, if it was made of another graph.
    report: Option<Report>,
    changed: watch::Receiver<u64>,
    progress: watch::Receiver<Vec<LayerProgress>>,
    /// Tasks of kept layers that were released already.
    released: Mutex<BTreeSet<u32>>,
}

impl GraphHandle {
    pub(super) fn new(
        client: Client,
        id: GraphId,
        (compiled, report): (CompiledGraph, Option<Report>),
        signals: GraphSignals,
    ) -> Self {
        let GraphSignals { changed, progress } = signals;
        let released = Mutex::default();
        Self {
            inner: Arc::new(Held {
                client,
                id,
                compiled,
                report,
                changed,
                progress,
                released,
            }),
        }
    }

    /// The graph's id, as it appears in logs and in task ids.
    pub fn id(&self) -> GraphId {
        self.inner.id
    }

    /// The graph that runs. After [`Client::submit_optimized`] its layers are not those that were handed in.
    pub fn graph(&self) -> &CompiledGraph {
        &self.inner.compiled
    }

    /// What [`Client::submit_optimized`] did; `None` when the graph runs as it was handed in.
    pub fn report(&self) -> Option<&Report> {
        self.inner.report.as_ref()
    }

    /// Progress of each layer of [`GraphHandle::graph`], updated a few times per second.
    pub fn progress(&self) -> watch::Receiver<Vec<LayerProgress>> {
        self.inner.progress.clone()
    }

    /// Waits until every task of every kept layer is done.
    ///
    /// # Errors
    /// [`ClientError::Task`] with the failure that ended the graph, [`ClientError::Cancelled`], or
    /// [`ClientError::ConnectionLost`].
    pub async fn wait(&self) -> Result<(), ClientError> {
        self.inner
            .until(|phase, _| matches!(phase, Phase::Ended(_)).then_some(Ok(())))
            .await
    }

    /// Waits until the scheduler has answered the submission.
    pub(super) async fn accepted(&self) -> Result<(), ClientError> {
        let answer = self
            .inner
            .until(|phase, _| (!matches!(phase, Phase::Submitted)).then_some(Ok(())))
            .await;
        match answer {
            // It was accepted, and has ended since: `wait` tells how.
            Err(ClientError::Task(_) | ClientError::Cancelled) => Ok(()),
            answer => answer,
        }
    }

    /// The tasks of a kept layer, by its index in the graph that was handed in: what other clients can hold, and what can be
    /// published and imported.
    ///
    /// # Errors
    /// [`ClientError::NotKept`].
    pub fn tasks_of(&self, layer: LayerIndex) -> Result<TaskRange, ClientError> {
        let held = &self.inner;
        let Some(kept) = held.layer(layer).filter(|it| held.compiled.is_kept(*it)) else {
            return Err(held.not_kept(layer));
        };
        let tasks = held.compiled.tasks_of(kept);
        Ok(TaskRange {
            graph: held.id,
            first: tasks.start,
            count: tasks.end - tasks.start,
        })
    }

    /// Adds a layer to a graph that stands for a kept layer of this one, which may still be running. The handle may be dropped once the
    /// graph is submitted.
    ///
    /// # Errors
    /// [`ClientError::NotKept`].
    pub fn import_into(
        &self,
        graph: &mut TaskGraph,
        layer: LayerIndex,
    ) -> Result<LayerIndex, ClientError> {
        let tasks = self.tasks_of(layer)?;
        let found = self.inner.compiled.layer_of(tasks.first);
        let (name, outputs) = found.map_or_else(
            || (String::new(), 1),
            |layer| (layer.name.clone(), layer.outputs),
        );
        Ok(graph.push_import(name, vec![tasks], outputs))
    }

    /// All partitions of a kept layer, by its index in the graph that was handed in, as `[task][output]`, when all its tasks are done.
    ///
    /// # Errors
    /// As [`GraphHandle::wait`]; [`ClientError::NotKept`]; [`ClientError::Fetch`] when a holder cannot be reached, also
    /// after its partitions were made again elsewhere.
    pub async fn gather(&self, layer: LayerIndex) -> Result<Vec<Vec<Partition>>, ClientError> {
        let mut stream = self.as_completed(layer);
        let mut found = BTreeMap::new();
        while let Some(next) = stream.next().await {
            let (position, partitions) = next?;
            found.insert(position, partitions);
        }
        Ok(found.into_values().collect())
    }

    /// The partitions of a kept layer's tasks, each as soon as its task is done: position in the layer, and its outputs.
    /// The stream ends after the last task, or with an error as [`GraphHandle::gather`]. It keeps the graph alive, and
    /// fetches ahead of its reader by a few tasks only.
    pub fn as_completed(
        &self,
        layer: LayerIndex,
    ) -> BoxStream<'static, Result<(u32, Vec<Partition>), ClientError>> {
        let held = Arc::clone(&self.inner);
        let is_kept = |layer: &LayerIndex| held.compiled.is_kept(*layer);
        let Some(layer) = held.layer(layer).filter(is_kept) else {
            let error = held.not_kept(layer);
            return futures::stream::once(async move { Err(error) }).boxed();
        };
        let (sender, mut receiver) = mpsc::channel(1);
        tokio::spawn(async move { held.pump(layer, sender).await });
        futures::stream::poll_fn(move |context| receiver.poll_recv(context)).boxed()
    }

    /// Stops the graph's work and frees its partitions. Waiting then ends with [`ClientError::Cancelled`], unless the graph
    /// had ended before.
    pub fn cancel(&self) {
        // A lost connection has cancelled it already.
        let _ = self.inner.client.send(ClientMessage::Cancel {
            graph: self.inner.id,
        });
    }

    /// Lets go of the partitions of some tasks of a kept layer, by position in the layer. They cannot be gathered any more.
    pub fn release(&self, layer: LayerIndex, positions: impl IntoIterator<Item = u32>) {
        // A layer that is gone was not kept.
        let Some(layer) = self.inner.layer(layer) else {
            return;
        };
        let range = self.inner.compiled.tasks_of(layer);
        let tasks = positions
            .into_iter()
            .map(|position| range.start.saturating_add(position));
        self.inner
            .release(tasks.filter(|task| range.contains(task)));
    }
}

impl Held {
    fn not_kept(&self, layer: LayerIndex) -> ClientError {
        ClientError::NotKept {
            graph: self.compiled.name().to_owned(),
            layer: layer.0,
        }
    }

    /// Where a layer of the graph that was handed in is in the one that runs.
    fn layer(&self, layer: LayerIndex) -> Option<LayerIndex> {
        match &self.report {
            Some(report) => report.layer(layer),
            None => Some(layer),
        }
    }

    /// Waits until `ready` gives an answer; a graph that failed, was refused or cancelled ends the wait with its error.
    async fn until<T>(
        &self,
        mut ready: impl FnMut(&Phase, &BTreeMap<u32, OutputLocation>) -> Option<Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let mut changed = self.changed.clone();
        loop {
            changed.mark_unchanged();
            let state = &self.client.inner.state;
            let answer = state.with_graph(self.id, |graph| match &graph.phase {
                Phase::Rejected(error) => Some(Err(ClientError::Rejected(error.clone()))),
                Phase::Ended(GraphOutcome::Failed(error)) => {
                    Some(Err(ClientError::Task(error.clone().into())))
                }
                Phase::Ended(GraphOutcome::Cancelled) => Some(Err(ClientError::Cancelled)),
                Phase::Ended(GraphOutcome::TimedOut {
                    after_ms,
                    done,
                    total,
                }) => Some(Err(ClientError::Deadline {
                    after_ms: *after_ms,
                    done: *done,
                    total: *total,
                })),
                phase @ (Phase::Submitted
                | Phase::Running
                | Phase::Ended(GraphOutcome::Finished)) => ready(phase, &graph.outputs),
            });
            if let Some(answer) = answer.flatten() {
                return answer;
            }
            if state.lost().is_some() || changed.changed().await.is_err() {
                return Err(self.client.connection_lost());
            }
        }
    }

    /// Feeds a stream of [`GraphHandle::as_completed`] until it is complete, failed, or dropped by its reader.
    async fn pump(
        self: Arc<Self>,
        layer: LayerIndex,
        sender: mpsc::Sender<Result<(u32, Vec<Partition>), ClientError>>,
    ) {
        let tasks = self.compiled.tasks_of(layer);
        let first = tasks.start;
        let released = self
            .released
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mut waiting: BTreeSet<u32> = tasks.filter(|task| !released.contains(task)).collect();
        let most = usize::try_from(self.client.inner.config.fetches_in_flight)
            .unwrap_or(1)
            .max(1);
        let mut fetching = FuturesUnordered::new();
        while !(waiting.is_empty() && fetching.is_empty()) {
            let room = fetching.len() < most && !waiting.is_empty();
            let next_ready = async {
                if room {
                    let ready = |_: &Phase, outputs: &BTreeMap<u32, OutputLocation>| {
                        outputs
                            .keys()
                            .find(|task| waiting.contains(task))
                            .copied()
                            .map(Ok)
                    };
                    self.until(ready).await
                } else {
                    std::future::pending().await
                }
            };
            tokio::select! {
                () = sender.closed() => return,
                Some(fetched) = fetching.next(), if !fetching.is_empty() => {
                    let fetched: Result<(u32, Vec<Partition>), ClientError> = fetched;
                    let failed = fetched.is_err();
                    let item = fetched.map(|(task, partitions)| (task - first, partitions));
                    if sender.send(item).await.is_err() || failed {
                        return;
                    }
                }
                ready = next_ready => match ready {
                    Ok(task) => {
                        waiting.remove(&task);
                        fetching.push(Arc::clone(&self).fetch_task(task));
                    }
                    Err(error) => {
                        // The reader being gone is no error.
                        let _ = sender.send(Err(error)).await;
                        return;
                    }
                },
            }
        }
    }

    /// Fetches all outputs of one task, wherever they are by then.
    fn fetch_task(
        self: Arc<Self>,
        task: u32,
    ) -> BoxFuture<'static, Result<(u32, Vec<Partition>), ClientError>> {
        Box::pin(async move {
            let mut attempts = 0;
            loop {
                let find = |_: &Phase, outputs: &BTreeMap<u32, OutputLocation>| {
                    outputs.get(&task).cloned().map(Ok)
                };
                let location = self.until(find).await?;
                match self.fetch_outputs(&location).await {
                    Ok(partitions) => return Ok((task, partitions)),
                    Err(reason) => {
                        attempts += 1;
                        self.on_unreachable(&location, attempts, reason)?;
                    }
                }
            }
        })
    }

    async fn fetch_outputs(&self, location: &OutputLocation) -> Result<Vec<Partition>, String> {
        self.client.fetch_outputs(location).await
    }

    /// Forgets a location that did not serve and tells the scheduler, which answers with another.
    fn on_unreachable(
        &self,
        location: &OutputLocation,
        attempts: u32,
        reason: String,
    ) -> Result<(), ClientError> {
        if attempts >= HOLDERS_TRIED {
            return Err(ClientError::Fetch {
                task: location.task,
                attempts,
                reason,
            });
        }
        self.client.inner.state.with_graph(self.id, |graph| {
            // A newer location may have come in meanwhile; keep that one.
            if graph.outputs.get(&location.task.index) == Some(location) {
                graph.outputs.remove(&location.task.index);
            }
        });
        let (task, worker) = (location.task, location.worker);
        self.client.send(ClientMessage::Unreachable {
            task,
            worker,
            reason,
        })
    }

    fn release(&self, tasks: impl Iterator<Item = u32>) {
        let mut released = self.released.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = tasks.filter(|task| released.insert(*task));
        let tasks: Vec<TaskId> = fresh
            .map(|index| TaskId {
                graph: self.id,
                index,
            })
            .collect();
        if !tasks.is_empty() {
            // A lost connection has released everything already.
            let _ = self.client.send(ClientMessage::Release { tasks });
        }
    }
}

impl Client {
    /// Fetches all partitions of a task from where they are said to be.
    pub(super) async fn fetch_outputs(
        &self,
        location: &OutputLocation,
    ) -> Result<Vec<Partition>, String> {
        if location.sizes.total_bytes == 0 {
            // They are like any others without bytes.
            let empty = Partition::new(Bytes::new(), Vec::new());
            return Ok(vec![empty; location.sizes.outputs as usize]);
        }
        let inner = &self.inner;
        let addresses = inner.state.addresses_of(location.worker);
        let mut partitions = Vec::with_capacity(location.sizes.outputs as usize);
        for output in 0..location.sizes.outputs {
            let partition = PartitionId {
                task: location.task,
                output,
            };
            let mut attempt = 1;
            let fetched = loop {
                let fetched = inner
                    .fetcher
                    .fetch(&addresses, partition, &inner.memory)
                    .await;
                match fetched.and_then(Fetched::into_host) {
                    Ok(partition) => break partition,
                    Err(error) if error.is_gone() || attempt >= inner.config.fetch_attempts => {
                        return Err(error.to_string());
                    }
                    Err(_) => attempt += 1,
                }
            };
            partitions.push(fetched);
        }
        Ok(partitions)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        match self.client.inner.state.remove_graph(self.id) {
            Some(Phase::Submitted | Phase::Running) => {
                let _ = self.client.send(ClientMessage::Leave { graph: self.id });
            }
            Some(Phase::Ended(GraphOutcome::Finished)) => {
                let kept = self.compiled.outputs().to_vec();
                self.release(
                    kept.into_iter()
                        .flat_map(|layer| self.compiled.tasks_of(layer)),
                );
            }
            Some(Phase::Rejected(_) | Phase::Ended(_)) | None => {}
        }
    }
}

/// Memory of the client for partitions it gathers.
pub(super) struct ClientMemory(pub(super) Budget);

impl Destination for ClientMemory {
    fn allocate(&self, header: &PartitionHeader) -> Result<HostBuffer, OutOfBudget> {
        let bytes = header.payload_bytes();
        let reservation = self.0.try_reserve(bytes)?;
        Ok(HostBuffer::uncleared(bytes as usize, reservation))
    }
}
