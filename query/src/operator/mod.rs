//! The operator `sql-stage`: runs one task of a stage on DataFusion. Registered on every worker; knows plans and partitions,
//! never where they come from.

pub(crate) mod memory;
pub(crate) mod run;
pub(crate) mod spec;
mod worker;

use std::collections::VecDeque;
use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::common::DataFusionError;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::execution::TaskContext as QueryContext;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec,
};
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::scalar_subquery::ScalarSubqueryExec;
use datafusion::physical_plan::unnest::UnnestExec;
use datafusion::prelude::SessionConfig;
use futures::FutureExt;
use futures::future::BoxFuture;
use transload_gpu::Partition;
use transload_protocol::{GraphId, TaskErrorKind};
use transload_runtime::builtin::register_builtin;
use transload_runtime::{Operator, OperatorError, OperatorFactory, OperatorRegistry, TaskContext};

use crate::codec::decode_plan;
use crate::device::{SqlConcat, SqlPartition};
use crate::exchange::Exchange;
use run::{TaskInputs, run_stage};
use spec::StageSpec;
use worker::WorkerQueries;

/// Name of the operator in task graphs.
pub(crate) const SQL_STAGE: &str = "sql-stage";

/// Decoded plans kept for further tasks of their layers. A plan is some kilobytes; more layers than these run rarely at once.
const CACHED_PLANS: usize = 64;

/// Every operator a worker needs for SQL: `sql-stage`, those of exchanges on GPUs, and the runtime's own.
pub fn operators() -> OperatorFactory {
    Arc::new(|environment| {
        let mut registry = OperatorRegistry::new();
        register_builtin(&mut registry);
        registry.register(Arc::new(SqlStage {
            worker: WorkerQueries::new(environment)
                .map(Arc::new)
                .map_err(|error| error.to_string()),
            plans: Arc::default(),
        }));
        registry.register_on_device(Arc::new(SqlPartition));
        registry.register_on_device(Arc::new(SqlConcat));
        registry
    })
}

/// See the module.
struct SqlStage {
    /// Why the worker cannot run queries at all, where it cannot: told by each task, so that the client reads it.
    worker: Result<Arc<WorkerQueries>, String>,
    plans: Arc<Mutex<RecentPlans>>,
}

/// Plans of layers that ran lately.
type RecentPlans = VecDeque<(PlanKey, Arc<StagePlan>)>;

/// A layer: its graph and first task, and which step it is where it runs inside another.
type PlanKey = (GraphId, u32, Option<u32>);

/// What tasks of one layer share.
struct StagePlan {
    spec: StageSpec,
    /// The decoded plan, where one plan can serve several tasks at once.
    plan: Option<Arc<dyn ExecutionPlan>>,
}

impl Operator for SqlStage {
    fn name(&self) -> &str {
        SQL_STAGE
    }

    fn run(&self, task: TaskContext) -> BoxFuture<'static, Result<Vec<Partition>, OperatorError>> {
        let worker = self.worker.clone();
        let plans = Arc::clone(&self.plans);
        async move {
            let worker = worker.map_err(OperatorError::new)?;
            let cancelled = task.cancelled.clone();
            let run = run_task(&worker, &plans, task);
            tokio::select! {
                biased;
                () = cancelled.cancelled() => Err(OperatorError::new("cancelled")),
                outputs = run => outputs,
            }
        }
        .boxed()
    }
}

async fn run_task(
    worker: &WorkerQueries,
    plans: &Mutex<RecentPlans>,
    mut task: TaskContext,
) -> Result<Vec<Partition>, OperatorError> {
    let key = (task.task.graph, task.layer.first_task, task.step);
    let stage = stage_plan(worker, plans, key, task.common_argument())?;
    let options = spec::options(&stage.spec.settings).map_err(explained)?;
    let inputs = TaskInputs {
        given: stage.spec.given.clone(),
        partitions: std::mem::take(&mut task.inputs),
        batch_rows: options.execution.batch_size.into(),
    };
    let count = Arc::<run::RowCount>::default();
    let config = SessionConfig::from(options)
        .with_extension(Arc::new(Exchange(Arc::new(inputs))))
        .with_extension(Arc::clone(&count));
    let context = Arc::new(worker.context(config));
    let plan = fresh(&stage, &context).map_err(explained)?;
    let made = run_stage(&stage.spec, plan, task.position as usize, context).await;
    task.add_rows(count.rows());
    made.map_err(explained)
}

/// The layer's plan, decoded by the first of its tasks.
fn stage_plan(
    worker: &WorkerQueries,
    plans: &Mutex<RecentPlans>,
    key: PlanKey,
    argument: &[u8],
) -> Result<Arc<StagePlan>, OperatorError> {
    let cached = || {
        let plans = plans.lock().unwrap_or_else(PoisonError::into_inner);
        plans
            .iter()
            .find(|(cached, _)| *cached == key)
            .map(|(_, plan)| Arc::clone(plan))
    };
    if let Some(plan) = cached() {
        return Ok(plan);
    }
    let spec = StageSpec::decode(argument)
        .map_err(|error| OperatorError::new(format!("malformed stage: {error}")))?;
    let options = spec::options(&spec.settings).map_err(explained)?;
    let context = worker.context(SessionConfig::from(options));
    let plan = interruptible(&spec.plan.0, &context).map_err(explained)?;
    let plan = is_shareable(&plan).then_some(plan);
    let stage = Arc::new(StagePlan { spec, plan });
    let mut plans = plans.lock().unwrap_or_else(PoisonError::into_inner);
    plans.push_back((key, Arc::clone(&stage)));
    if plans.len() > CACHED_PLANS {
        plans.pop_front();
    }
    Ok(stage)
}

/// The plan as if it had never run: tasks must not see each other's state.
fn fresh(
    stage: &StagePlan,
    context: &QueryContext,
) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    match &stage.plan {
        Some(plan) => reset_plan_states(Arc::clone(plan)),
        None => interruptible(&stage.spec.plan.0, context),
    }
}

/// The decoded plan with joins that yield now and then. Leaves yield already, but a join can make so many rows of a few that
/// its leaves are not asked again for hours, and a task that does not yield cannot be cancelled.
fn interruptible(
    plan: &[u8],
    context: &QueryContext,
) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    let plan = decode_plan(plan, context)?.transform_up(|node| {
        let multiplies = node.is::<CrossJoinExec>()
            || node.is::<NestedLoopJoinExec>()
            || node.is::<HashJoinExec>()
            || node.is::<SortMergeJoinExec>()
            || node.is::<UnnestExec>();
        Ok(if multiplies {
            Transformed::yes(Arc::new(CooperativeExec::new(node)) as Arc<dyn ExecutionPlan>)
        } else {
            Transformed::no(node)
        })
    })?;
    Ok(plan.data)
}

/// Resetting does not part the results of scalar subqueries and the work tables of recursive queries, which expressions and
/// leaves hold: such plans are decoded for each task.
fn is_shareable(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let mut shareable = true;
    // The closure does not fail, so neither does the walk.
    let _ = plan.apply(|node| {
        if node.is::<ScalarSubqueryExec>() || node.is::<RecursiveQueryExec>() {
            shareable = false;
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    shareable
}

fn explained(error: DataFusionError) -> OperatorError {
    let kind = match error.find_root() {
        DataFusionError::ResourcesExhausted(_) => TaskErrorKind::OutOfMemory,
        root if is_disk_full(root) => TaskErrorKind::SpillFailed,
        _ => TaskErrorKind::Operator,
    };
    let message = error.strip_backtrace();
    let message = match kind {
        TaskErrorKind::OutOfMemory => format!(
            "{message}; give the workers more memory (--memory), or let fewer tasks run at once on each (--slots)"
        ),
        TaskErrorKind::SpillFailed => {
            format!("{message}; free space in the spill directory, or choose another (--spill-dir)")
        }
        _ => message,
    };
    let explained = OperatorError { kind, message };
    match error.source() {
        Some(cause) => explained.because(cause),
        None => explained,
    }
}

fn is_disk_full(error: &DataFusionError) -> bool {
    let mut source: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = source {
        let full = error.downcast_ref::<io::Error>().is_some_and(|error| {
            matches!(
                error.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            )
        });
        if full {
            return true;
        }
        source = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exhausted_memory_is_told_with_its_remedy_and_may_be_retried() {
        let error = DataFusionError::ResourcesExhausted("HashJoin needs 1 B".to_owned());
        let error = explained(error.context("while joining"));
        assert_eq!(error.kind, TaskErrorKind::OutOfMemory);
        assert!(error.kind.is_retryable());
        assert!(error.message.contains("--memory"), "{}", error.message);
    }

    #[test]
    fn a_full_disk_is_told_as_such() {
        let full = io::Error::new(io::ErrorKind::StorageFull, "no space left on device");
        let error = explained(DataFusionError::IoError(full));
        assert_eq!(error.kind, TaskErrorKind::SpillFailed);
        assert!(error.message.contains("no space left"), "{}", error.message);
    }

    #[test]
    fn everything_else_is_the_querys_own_fault() {
        let error = explained(DataFusionError::Execution("Divide by zero".to_owned()));
        assert_eq!(error.kind, TaskErrorKind::Operator);
        assert!(!error.kind.is_retryable());
    }
}
