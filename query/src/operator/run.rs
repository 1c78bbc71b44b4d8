//! Runs one task of a stage: the plan's partition on DataFusion, its rows into partitions. Called by the operator and by
//! tests; knows nothing of workers or the network.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use datafusion::arrow::array::{RecordBatch, RecordBatchOptions};
use datafusion::arrow::compute::BatchCoalescer;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::{DataFusionError, Result, internal_datafusion_err};
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::physical_plan::metrics::Time;
use datafusion::physical_plan::repartition::{BatchPartitioner, RepartitionExec};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use futures::StreamExt;
use futures::future::try_join_all;
use futures::stream;
use transload_gpu::Partition;

use crate::device::{carried, carried_schema};
use crate::exchange::{ExchangeSource, Run};
use crate::operator::spec::{OutputSpec, StageSpec};
use crate::partition::{compact, decode, encode};
use crate::stages::Given;

/// How many times as many rows as other batches have those that go to a device: for each of them there is a copy of every column, and
/// some kernels.
const CARRIED_BATCHES: usize = 16;

/// The partitions that a task was given.
#[derive(Debug)]
pub(crate) struct TaskInputs {
    pub(crate) given: Vec<Given>,
    pub(crate) partitions: Vec<Vec<Partition>>,
    /// Most rows of a batch: what comes from a device is one, however many they are.
    pub(crate) batch_rows: usize,
}

impl ExchangeSource for TaskInputs {
    fn runs(&self, input: usize, partition: usize) -> Result<Vec<Run>> {
        let missing =
            || internal_datafusion_err!("the task has no partition {partition} of input {input}");
        let partitions = self.partitions.get(input).ok_or_else(missing)?;
        let wanted = match self.given.get(input).ok_or_else(missing)? {
            Given::One => partitions.as_slice(),
            Given::Each => partitions.get(partition..=partition).ok_or_else(missing)?,
        };
        let run = |partition| in_batches(run_of(partition), self.batch_rows);
        Ok(wanted.iter().cloned().map(run).collect())
    }
}

/// The same rows in batches of so many at most, each with memory of its own.
fn in_batches(run: Run, rows: usize) -> Run {
    let rows = rows.max(1);
    run.flat_map(move |batch| {
        let pieces = match &batch {
            Ok(batch) => batch.num_rows().div_ceil(rows),
            Err(_) => 1,
        };
        if pieces <= 1 {
            return stream::once(async { batch }).left_stream();
        }
        let piece = move |piece: usize| {
            let batch = batch
                .as_ref()
                .map_err(|_| internal_datafusion_err!("no batch"))?;
            let first = piece * rows;
            let count = rows.min(batch.num_rows() - first);
            Ok(compact(&batch.slice(first, count))?)
        };
        stream::iter((0..pieces).map(piece)).right_stream()
    })
    .boxed()
}

/// The batches of a partition, decoded when they are first asked for.
pub(crate) fn run_of(partition: Partition) -> Run {
    stream::once(async move {
        let batches =
            decode(&partition).map_err(|error| DataFusionError::External(error.into()))?;
        let batches: Vec<Result<RecordBatch>> = batches.iter().cloned().map(Ok).collect();
        Ok::<_, DataFusionError>(stream::iter(batches))
    })
    .flat_map(|batches| match batches {
        Ok(batches) => batches.left_stream(),
        Err(error) => stream::once(async { Err(error) }).right_stream(),
    })
    .boxed()
}

/// The outputs of task `position`. The plan has fresh state and the context holds the task's inputs.
///
/// # Errors
/// DataFusion's, and [`DataFusionError::External`] for inputs or outputs that cannot be decoded or encoded.
pub(crate) async fn run_stage(
    spec: &StageSpec,
    plan: Arc<dyn ExecutionPlan>,
    position: usize,
    context: Arc<TaskContext>,
) -> Result<Vec<Partition>> {
    match spec.output {
        OutputSpec::One => {
            let output = Collector::new(plan.schema(), &context);
            Ok(vec![one(&plan, position, &context, output).await?])
        }
        OutputSpec::Carried => {
            let output = Collector::carried(plan.schema(), &context)?;
            Ok(vec![one(&plan, position, &context, output).await?])
        }
        OutputSpec::Each => {
            let count = plan.output_partitioning().partition_count();
            let output = || Collector::new(plan.schema(), &context);
            let all = (0..count).map(|partition| one(&plan, partition, &context, output()));
            try_join_all(all).await
        }
        OutputSpec::Hashed => hashed(&plan, position, &context).await,
    }
}

async fn one(
    plan: &Arc<dyn ExecutionPlan>,
    partition: usize,
    context: &Arc<TaskContext>,
    mut output: Collector,
) -> Result<Partition> {
    let mut rows = plan.execute(partition, Arc::clone(context))?;
    while let Some(batch) = rows.next().await {
        output.push(batch?)?;
    }
    output.finish()
}

async fn hashed(
    plan: &Arc<dyn ExecutionPlan>,
    position: usize,
    context: &Arc<TaskContext>,
) -> Result<Vec<Partition>> {
    let exchange = plan
        .downcast_ref::<RepartitionExec>()
        .ok_or_else(|| internal_datafusion_err!("a shuffling stage ends in {}", plan.name()))?;
    let input = exchange.input();
    let count = exchange.partitioning().partition_count();
    let mut partitioner = BatchPartitioner::try_new(
        exchange.partitioning().clone(),
        Time::default(),
        position,
        input.output_partitioning().partition_count(),
    )?;
    let mut outputs: Vec<Collector> = (0..count)
        .map(|_| Collector::new(plan.schema(), context))
        .collect();
    let mut rows = input.execute(position, Arc::clone(context))?;
    while let Some(batch) = rows.next().await {
        partitioner.partition(batch?, |output, batch| {
            outputs
                .get_mut(output)
                .ok_or_else(|| internal_datafusion_err!("no output {output}"))?
                .push(batch)
        })?;
    }
    outputs.into_iter().map(Collector::finish).collect()
}

/// Counts the rows of all outputs of a task.
#[derive(Debug, Default)]
pub(crate) struct RowCount(AtomicU64);

impl RowCount {
    /// How many there are.
    pub(crate) fn rows(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Gathers the rows of one output into batches worth sending.
struct Collector {
    schema: SchemaRef,
    coalescer: BatchCoalescer,
    /// Rows of batches without columns, which cannot be coalesced.
    bare_rows: usize,
    /// The columns as they go over devices, where these do.
    carried: Option<SchemaRef>,
    done: Vec<RecordBatch>,
    memory: MemoryReservation,
    count: Option<Arc<RowCount>>,
}

impl Collector {
    fn new(schema: SchemaRef, context: &TaskContext) -> Self {
        Self::of(schema, context.session_config().batch_size(), None, context)
    }

    /// For rows that go to a device.
    fn carried(schema: SchemaRef, context: &TaskContext) -> Result<Self> {
        let carried = carried_schema(&schema).map_err(DataFusionError::Plan)?;
        let rows = context.session_config().batch_size();
        let rows = rows.saturating_mul(CARRIED_BATCHES);
        Ok(Self::of(schema, rows, Some(carried), context))
    }

    fn of(
        schema: SchemaRef,
        rows: usize,
        carried: Option<SchemaRef>,
        context: &TaskContext,
    ) -> Self {
        Self {
            coalescer: BatchCoalescer::new(Arc::clone(&schema), rows)
                .with_biggest_coalesce_batch_size(Some(rows / 2)),
            schema,
            bare_rows: 0,
            carried,
            done: Vec::new(),
            memory: MemoryConsumer::new("StageOutput").register(context.memory_pool()),
            count: context.session_config().get_extension(),
        }
    }

    fn push(&mut self, batch: RecordBatch) -> Result<()> {
        if let Some(count) = &self.count {
            count
                .0
                .fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
        }
        if self.schema.fields().is_empty() {
            self.bare_rows += batch.num_rows();
            return Ok(());
        }
        if batch.num_rows() > 0 {
            self.coalescer.push_batch(batch)?;
        }
        self.take_completed()
    }

    fn take_completed(&mut self) -> Result<()> {
        while let Some(batch) = self.coalescer.next_completed_batch() {
            let batch = match &self.carried {
                Some(schema) => compact(&carried(&batch, schema)?)?,
                None => compact(&batch)?,
            };
            // Counted, not asked for: the rows exist, and an output cannot be spilled before its task ends. Operators
            // that can spill do so sooner for it.
            self.memory.grow(batch.get_array_memory_size());
            self.done.push(batch);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Partition> {
        self.coalescer.finish_buffered_batch()?;
        self.take_completed()?;
        if self.bare_rows > 0 {
            let options = RecordBatchOptions::new().with_row_count(Some(self.bare_rows));
            self.done.push(RecordBatch::try_new_with_options(
                self.schema,
                Vec::new(),
                &options,
            )?);
        }
        encode(&self.done).map_err(|error| DataFusionError::External(error.into()))
    }
}
