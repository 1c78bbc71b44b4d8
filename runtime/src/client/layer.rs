//! Tasks that a client holds, of whatever graph: waiting for them, gathering their partitions, handing them on, letting go.
//!
//! Made by `sharing`. A hold needs no handle of the graph that it is about, nor the client that submitted that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::stream::{BoxStream, StreamExt};
use tokio::sync::watch;
use transload_gpu::Partition;
use transload_protocol::{
    ClientMessage, GraphOutcome, LayerIndex, OutputLocation, RequestId, SharingAnswer, SharingCall,
    TaskGraph, TaskId, TaskRange,
};

use super::graph::HOLDERS_TRIED;
use super::state::HoldState;
use super::{Client, ClientError};

/// Tasks of a kept layer that this client holds. Dropping the last reference to it (handle and streams) lets go of them; they stay as
/// long as anyone holds them.
pub struct LayerHandle {
    inner: Arc<Held>,
}

struct Held {
    client: Client,
    request: RequestId,
    changed: watch::Receiver<u64>,
    tasks: TaskRange,
    outputs: u32,
}

impl LayerHandle {
    /// Asks to hold something, and waits for the answer.
    pub(super) async fn new(client: &Client, call: SharingCall) -> Result<Self, ClientError> {
        let request = client.next_request();
        let changed = client.inner.state.add_hold(request, call);
        let mut held = Held {
            client: client.clone(),
            request,
            changed,
            tasks: TaskRange {
                graph: client.no_graph(),
                first: 0,
                count: 0,
            },
            outputs: 0,
        };
        (held.tasks, held.outputs) = held
            .until(|_, tasks, outputs| Some((tasks, outputs)))
            .await?;
        let inner = Arc::new(held);
        Ok(Self { inner })
    }

    /// Which tasks: what other clients can hold, and what can be published and imported.
    pub fn tasks(&self) -> TaskRange {
        self.inner.tasks
    }

    /// Partitions that each of them makes.
    pub fn outputs(&self) -> u32 {
        self.inner.outputs
    }

    /// How many of them are done now.
    pub fn done(&self) -> u32 {
        let state = &self.inner.client.inner.state;
        let done = state.with_hold(self.inner.request, |hold| hold.outputs.len());
        u32::try_from(done.unwrap_or(0)).unwrap_or(u32::MAX)
    }

    /// Waits until all of them are done.
    ///
    /// # Errors
    /// [`ClientError::Task`] with the failure that ended their graph, [`ClientError::Cancelled`], or
    /// [`ClientError::ConnectionLost`].
    pub async fn wait(&self) -> Result<(), ClientError> {
        let all = self.inner.tasks.count as usize;
        self.inner
            .until(|hold, _, _| (hold.outputs.len() >= all).then_some(()))
            .await
    }

    /// All their partitions, as `[task][output]`, when all are done.
    ///
    /// # Errors
    /// As [`LayerHandle::wait`]; [`ClientError::Fetch`] when a holder cannot be reached, also after its partitions were made again
    /// elsewhere.
    pub async fn gather(&self) -> Result<Vec<Vec<Partition>>, ClientError> {
        let mut stream = self.as_completed();
        let mut found = BTreeMap::new();
        while let Some(next) = stream.next().await {
            let (position, partitions) = next?;
            found.insert(position, partitions);
        }
        Ok(found.into_values().collect())
    }

    /// Their partitions, each as soon as its task is done: its place among them, and its outputs. The stream ends after the last, or
    /// with an error as [`LayerHandle::gather`], and holds them until then.
    pub fn as_completed(&self) -> BoxStream<'static, Result<(u32, Vec<Partition>), ClientError>> {
        let held = Arc::clone(&self.inner);
        let first = held.tasks.first;
        let most = held.client.inner.config.fetches_in_flight.max(1);
        let waiting: BTreeSet<u32> = held.tasks.indices().collect();
        let ready = futures::stream::unfold((Arc::clone(&held), waiting), next_ready);
        let fetch = move |next: Result<u32, ClientError>| {
            let held = Arc::clone(&held);
            async move {
                let task = next?;
                let partitions = held.fetch(task).await?;
                Ok((task - first, partitions))
            }
        };
        let most = usize::try_from(most).unwrap_or(1);
        ready.map(fetch).buffer_unordered(most).boxed()
    }

    /// Adds a layer to a graph that stands for these tasks, which may still be running. The handle may be dropped once the graph is
    /// submitted.
    pub fn import_into(&self, graph: &mut TaskGraph, name: &str) -> LayerIndex {
        graph.push_import(name, vec![self.inner.tasks], self.inner.outputs)
    }
}

type Waiting = (Arc<Held>, BTreeSet<u32>);

/// The next task that is done, of those that are waited for. After an error there is none.
async fn next_ready((held, mut waiting): Waiting) -> Option<(Result<u32, ClientError>, Waiting)> {
    if waiting.is_empty() {
        return None;
    }
    let ready = held.until(|hold, _, _| {
        let mut done = hold.outputs.keys();
        done.find(|task| waiting.contains(task)).copied()
    });
    let next = ready.await;
    match &next {
        Ok(task) => {
            waiting.remove(task);
        }
        Err(_) => waiting.clear(),
    }
    Some((next, (held, waiting)))
}

impl Held {
    /// Waits until `ready` gives an answer; a hold that was refused or ended ends the wait with its error.
    async fn until<T>(
        &self,
        mut ready: impl FnMut(&HoldState, TaskRange, u32) -> Option<T>,
    ) -> Result<T, ClientError> {
        let mut changed = self.changed.clone();
        loop {
            changed.mark_unchanged();
            let state = &self.client.inner.state;
            let answer = state.with_hold(self.request, |hold| match &hold.answer {
                Some(SharingAnswer::Held { tasks, outputs }) => {
                    ready(hold, *tasks, *outputs).map(Ok)
                }
                Some(SharingAnswer::Over { outcome }) => Some(Err(match outcome {
                    GraphOutcome::Failed(error) => ClientError::Task(error.clone().into()),
                    GraphOutcome::TimedOut {
                        after_ms,
                        done,
                        total,
                    } => ClientError::Deadline {
                        after_ms: *after_ms,
                        done: *done,
                        total: *total,
                    },
                    GraphOutcome::Cancelled | GraphOutcome::Finished => ClientError::Cancelled,
                })),
                Some(SharingAnswer::Refused(refusal)) => {
                    Some(Err(ClientError::Refused(refusal.clone())))
                }
                // No answers to a hold.
                Some(SharingAnswer::Done | SharingAnswer::Names(_) | SharingAnswer::Holders(_))
                | None => None,
            });
            if let Some(answer) = answer.flatten() {
                return answer;
            }
            if state.lost().is_some() || changed.changed().await.is_err() {
                return Err(self.client.connection_lost());
            }
        }
    }

    /// Fetches all outputs of one task, wherever they are by then.
    async fn fetch(&self, task: u32) -> Result<Vec<Partition>, ClientError> {
        let mut attempts = 0;
        loop {
            let location = self
                .until(|hold, _, _| hold.outputs.get(&task).cloned())
                .await?;
            let reason = match self.client.fetch_outputs(&location).await {
                Ok(partitions) => return Ok(partitions),
                Err(reason) => reason,
            };
            attempts += 1;
            if attempts >= HOLDERS_TRIED {
                return Err(ClientError::Fetch {
                    task: location.task,
                    attempts,
                    reason,
                });
            }
            self.on_unreachable(&location, reason)?;
        }
    }

    /// Forgets a location that did not serve and tells the scheduler, which answers with another.
    fn on_unreachable(&self, location: &OutputLocation, reason: String) -> Result<(), ClientError> {
        let TaskId { index, .. } = location.task;
        self.client.inner.state.with_hold(self.request, |hold| {
            // A newer location may have come in meanwhile; keep that one.
            if hold.outputs.get(&index) == Some(location) {
                hold.outputs.remove(&index);
            }
        });
        self.client.send(ClientMessage::Unreachable {
            task: location.task,
            worker: location.worker,
            reason,
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.client.inner.state.remove_hold(self.request);
    }
}
