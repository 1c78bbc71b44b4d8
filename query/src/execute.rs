//! A running statement: its stages on the cluster, and what the client does with their results as they complete.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::{DataFusionError, Result, internal_datafusion_err};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use transload_gpu::Partition;
use transload_protocol::LayerProgress;
use transload_runtime::{Client, ClientError, GraphHandle};

use crate::QueryError;
use crate::exchange::{Exchange, ExchangeSource, Run};
use crate::operator::run::run_of;
use crate::plan::DistributedPlan;
use crate::stages::Layout;

/// A statement that has been submitted. Dropping it, or its stream, stops what is not done yet.
pub struct Execution {
    schema: SchemaRef,
    rows: BoxStream<'static, Result<RecordBatch, QueryError>>,
    cluster: Option<OnCluster>,
}

struct OnCluster {
    plan: DistributedPlan,
    handle: Arc<GraphHandle>,
}

impl fmt::Debug for Execution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Execution")
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}

impl Execution {
    /// Names and types of the result's columns; none for a statement without a result.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// How the query was cut; `None` for what runs in this process.
    pub fn plan(&self) -> Option<&DistributedPlan> {
        self.cluster.as_ref().map(|cluster| &cluster.plan)
    }

    /// Progress of each stage, in the order of [`DistributedPlan::stage_names`]; `None` for what runs in this process.
    pub fn progress(&self) -> Option<watch::Receiver<Vec<LayerProgress>>> {
        self.cluster
            .as_ref()
            .map(|cluster| cluster.handle.progress())
    }

    /// Stops the work. The stream then ends with [`QueryError::Cancelled`].
    pub fn cancel(&self) {
        if let Some(cluster) = &self.cluster {
            cluster.handle.cancel();
        }
    }

    /// The rows, as soon as they are there; in order where the query has an `ORDER BY`. Ends with an error when the query
    /// fails. As soon as enough rows for a `LIMIT` are in, the rest of the work is cancelled.
    pub fn stream(self) -> BoxStream<'static, Result<RecordBatch, QueryError>> {
        let held = self.cluster.map(|cluster| cluster.handle);
        WhileHeld {
            rows: Some(self.rows),
            held,
        }
        .boxed()
    }
}

/// Lets go of the graph when the last row is out: work that nobody needs stops then.
struct WhileHeld {
    rows: Option<BoxStream<'static, Result<RecordBatch, QueryError>>>,
    held: Option<Arc<GraphHandle>>,
}

impl Stream for WhileHeld {
    type Item = Result<RecordBatch, QueryError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(rows) = &mut self.rows else {
            return Poll::Ready(None);
        };
        let next = rows.poll_next_unpin(context);
        if let Poll::Ready(None | Some(Err(_))) = next {
            self.rows = None;
            self.held = None;
        }
        next
    }
}

/// A result that is there.
pub(crate) fn rows(schema: SchemaRef, batches: Vec<RecordBatch>) -> Execution {
    Execution {
        schema,
        rows: stream::iter(batches.into_iter().map(Ok)).boxed(),
        cluster: None,
    }
}

/// Runs a plan in this process.
pub(crate) fn run_local(
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    tables: Vec<String>,
) -> Result<Execution, QueryError> {
    let schema = plan.schema();
    let rows = execute_stream(plan, context)
        .map_err(|error| QueryError::from_datafusion(error, &tables))?;
    let rows = rows
        .map(move |batch| batch.map_err(|error| QueryError::from_datafusion(error, &tables)))
        .boxed();
    Ok(Execution {
        schema,
        rows,
        cluster: None,
    })
}

/// Submits a plan and starts to read its result.
pub(crate) async fn run_on_cluster(
    client: &Client,
    plan: DistributedPlan,
    tables: Vec<String>,
) -> Result<Execution, QueryError> {
    let handle = Arc::new(client.submit(plan.graph().clone()).await?);
    let completed = handle.as_completed(plan.result_layer());
    let completed = completed
        .map(|next| next.map_err(|error| shared(&Arc::new(error))))
        .boxed();
    let rows = tail_rows(&plan, completed)
        .map_err(|error| QueryError::from_datafusion(error, &tables))?
        .map(move |batch| batch.map_err(|error| QueryError::from_datafusion(error, &tables)))
        .boxed();
    Ok(Execution {
        schema: plan.schema(),
        rows,
        cluster: Some(OnCluster { plan, handle }),
    })
}

/// The outputs of the last stage's tasks, by position, as they complete.
pub(crate) type Completed = BoxStream<'static, Result<(u32, Vec<Partition>)>>;

/// The client's part of a plan over the last stage's outputs.
pub(crate) fn tail_rows(
    plan: &DistributedPlan,
    completed: Completed,
) -> Result<BoxStream<'static, Result<RecordBatch>>> {
    let source: Arc<dyn ExchangeSource> = match plan.layout() {
        Layout::Merged => Arc::new(AsTheyCome(Mutex::new(Some(completed)))),
        layout @ (Layout::Tasks | Layout::Outputs) => {
            let (tasks, outputs) = plan.result_shape();
            let count = if layout == Layout::Tasks {
                tasks
            } else {
                outputs
            };
            Arc::new(ByPartition::new(completed, layout, count))
        }
    };
    let config = SessionConfig::new().with_extension(Arc::new(Exchange(Arc::clone(&source))));
    let context = SessionContext::new_with_config(config).task_ctx();
    let rows = execute_stream(Arc::clone(plan.tail()), context)?;
    // The source lives as long as the rows: what it spawned ends with it.
    Ok(rows
        .map(move |batch| {
            let _ = &source;
            batch
        })
        .boxed())
}

/// A client's error inside DataFusion's, to be found again by [`QueryError::from_datafusion`].
#[derive(Debug, Clone, thiserror::Error)]
#[error(transparent)]
pub(crate) struct Shared(pub(crate) Arc<ClientError>);

fn shared(error: &Arc<ClientError>) -> DataFusionError {
    DataFusionError::External(Box::new(Shared(Arc::clone(error))))
}

/// All partitions as one, in the order in which they arrive.
struct AsTheyCome(Mutex<Option<Completed>>);

impl fmt::Debug for AsTheyCome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AsTheyCome")
    }
}

impl ExchangeSource for AsTheyCome {
    fn runs(&self, _: usize, _: usize) -> Result<Vec<Run>> {
        let completed = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
            .ok_or_else(|| internal_datafusion_err!("the result is read twice"))?;
        let run = completed.flat_map(|next| match next {
            Ok((_, partitions)) => stream::iter(partitions.into_iter().map(run_of))
                .flatten()
                .left_stream(),
            Err(error) => stream::once(async { Err(error) }).right_stream(),
        });
        Ok(vec![run.boxed()])
    }
}

/// What one task of the last stage will have made.
type Promised = oneshot::Receiver<Result<Vec<Partition>>>;

/// Each partition by itself, for a merge that needs them all.
#[derive(Debug)]
struct ByPartition {
    partitions: Mutex<Vec<Option<Promised>>>,
    pump: JoinHandle<()>,
}

impl ByPartition {
    fn new(completed: Completed, layout: Layout, count: usize) -> Self {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..count)
            .map(|_| {
                let (sender, receiver) = oneshot::channel();
                (Some(sender), Some(receiver))
            })
            .unzip();
        let pump = tokio::spawn(pump(completed, layout, senders));
        Self {
            partitions: Mutex::new(receivers),
            pump,
        }
    }
}

impl Drop for ByPartition {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

type Sender = Option<oneshot::Sender<Result<Vec<Partition>>>>;

async fn pump(mut completed: Completed, layout: Layout, mut senders: Vec<Sender>) {
    while let Some(next) = completed.next().await {
        let arrived: Vec<(usize, Partition)> = match next {
            Ok((position, partitions)) => match layout {
                Layout::Outputs => partitions.into_iter().enumerate().collect(),
                Layout::Tasks | Layout::Merged => partitions
                    .into_iter()
                    .map(|partition| (position as usize, partition))
                    .collect(),
            },
            Err(error) => {
                let error = Arc::new(error);
                for sender in senders.iter_mut().filter_map(Option::take) {
                    // Whoever does not listen any more needs no error.
                    let _ = sender.send(Err(DataFusionError::Shared(Arc::clone(&error))));
                }
                return;
            }
        };
        for (index, partition) in arrived {
            if let Some(sender) = senders.get_mut(index).and_then(Option::take) {
                // A merge that has its rows listens no more.
                let _ = sender.send(Ok(vec![partition]));
            }
        }
    }
}

impl ExchangeSource for ByPartition {
    fn runs(&self, _: usize, partition: usize) -> Result<Vec<Run>> {
        let receiver = self
            .partitions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_mut(partition)
            .and_then(Option::take)
            .ok_or_else(|| {
                internal_datafusion_err!("partition {partition} of the result is read twice")
            })?;
        let run = stream::once(async move {
            match receiver.await {
                Ok(Ok(partitions)) => stream::iter(partitions.into_iter().map(run_of))
                    .flatten()
                    .boxed(),
                Ok(Err(error)) => stream::iter([Err(error)]).boxed(),
                Err(_) => {
                    let error = internal_datafusion_err!("a part of the result never came");
                    stream::iter([Err(error)]).boxed()
                }
            }
        });
        Ok(vec![run.flatten().boxed()])
    }
}
