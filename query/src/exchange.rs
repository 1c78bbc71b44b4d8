//! The leaf through which a stage reads what another stage has made. Placed by the planner, executed inside a task or in the
//! client; knows positions of inputs, never who made them or how they came here.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{LexOrdering, PhysicalExpr};
use datafusion::physical_plan::coop::make_cooperative;
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet};
use datafusion::physical_plan::sorts::streaming_merge::StreamingMergeBuilder;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions,
};
use futures::StreamExt;
use futures::stream::{self, BoxStream};

use crate::device::restored;

/// Batches of one partition made by one task.
pub(crate) type Run = BoxStream<'static, Result<RecordBatch>>;

/// Where [`ExchangeReadExec`] finds its batches: an extension of the session configuration of whoever executes the plan.
pub(crate) trait ExchangeSource: fmt::Debug + Send + Sync {
    /// Partition `partition` of input `input`, as one run for each task that made a part of it.
    fn runs(&self, input: usize, partition: usize) -> Result<Vec<Run>>;
}

/// The extension itself.
#[derive(Debug)]
pub(crate) struct Exchange(pub(crate) Arc<dyn ExchangeSource>);

/// Reads one input of the stage. Its properties are those of the plan that it stands for.
#[derive(Debug, Clone)]
pub(crate) struct ExchangeReadExec {
    input: usize,
    /// Set where runs are sorted and must be merged into one sorted stream.
    merge: Option<LexOrdering>,
    properties: Arc<PlanProperties>,
}

impl ExchangeReadExec {
    pub(crate) fn new(
        input: usize,
        merge: Option<LexOrdering>,
        properties: Arc<PlanProperties>,
    ) -> Self {
        Self {
            input,
            merge,
            properties,
        }
    }

    /// Position of the input in its stage.
    pub(crate) fn input(&self) -> usize {
        self.input
    }

    /// The order in which sorted runs are merged.
    pub(crate) fn merge(&self) -> Option<&LexOrdering> {
        self.merge.as_ref()
    }

    fn merged(
        &self,
        runs: Vec<SendableRecordBatchStream>,
        ordering: &LexOrdering,
        partition: usize,
        context: &TaskContext,
    ) -> Result<SendableRecordBatchStream> {
        let metrics = ExecutionPlanMetricsSet::new();
        let reservation = MemoryConsumer::new(format!("ExchangeRead[{partition}]"))
            .register(context.memory_pool());
        StreamingMergeBuilder::new()
            .with_streams(runs)
            .with_schema(self.schema())
            .with_expressions(ordering)
            .with_metrics(BaselineMetrics::new(&metrics, partition))
            .with_batch_size(context.session_config().batch_size())
            .with_reservation(reservation)
            .build()
    }
}

impl DisplayAs for ExchangeReadExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ExchangeRead: input={}, partitions={}",
            self.input,
            self.properties.output_partitioning().partition_count()
        )?;
        match &self.merge {
            Some(ordering) => write!(f, ", merge=[{ordering}]"),
            None => Ok(()),
        }
    }
}

impl ExecutionPlan for ExchangeReadExec {
    fn name(&self) -> &str {
        "ExchangeReadExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let exchange = context
            .session_config()
            .get_extension::<Exchange>()
            .ok_or_else(|| internal_datafusion_err!("an exchange is read outside of a task"))?;
        let runs = exchange.0.runs(self.input, partition)?;
        let schema = self.schema();
        if let (Some(ordering), true) = (&self.merge, runs.len() > 1) {
            let runs = runs.into_iter().map(|run| adapt(&schema, run)).collect();
            return self.merged(runs, ordering, partition, &context);
        }
        // Batches lie ready, so nothing below would ever yield; cooperating lets a cancelled task stop.
        let all = stream::iter(runs).flatten().boxed();
        Ok(make_cooperative(adapt(&schema, all)))
    }
}

fn adapt(schema: &SchemaRef, run: Run) -> SendableRecordBatchStream {
    // Partitions carry their own schema, which may differ from the plan's in metadata, and where they were on a device, in types.
    let expected = Arc::clone(schema);
    let run = run.map(move |batch| {
        let batch = batch?;
        if Arc::ptr_eq(&batch.schema(), &expected) {
            Ok(batch)
        } else {
            Ok(restored(&batch, &expected)?)
        }
    });
    Box::pin(RecordBatchStreamAdapter::new(Arc::clone(schema), run))
}
