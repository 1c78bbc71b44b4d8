//! Runs a query's graph one task after another, as the cluster would run it, but with nothing between the tasks.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::execution::TaskContext;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::{StreamExt, TryStreamExt, stream};
use transload_gpu::Partition;
use transload_protocol::{Layer, LayerIndex};

use super::gpu;
use crate::QueryError;
use crate::codec::decode_plan;
use crate::device::{SQL_CONCAT, SQL_PARTITION};
use crate::exchange::Exchange;
use crate::execute::tail_rows;
use crate::operator::run::{TaskInputs, run_stage};
use crate::operator::spec::{self, StageSpec};
use crate::plan::DistributedPlan;
use crate::session::{Planner, SqlOptions, Step};

/// Runs a test on threads with the stacks that workers have.
pub(super) fn block_on<T: Send + 'static>(test: impl Future<Output = T> + Send + 'static) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(16 << 20)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async { tokio::spawn(test).await.expect("the test ends") })
}

/// A planner that cuts small files finely.
pub(super) async fn planner() -> Planner {
    let options = SqlOptions {
        partitions: Some(4),
        ..SqlOptions::default()
    };
    let planner = Planner::new(options).expect("options");
    run(
        &planner,
        "SET datafusion.optimizer.repartition_file_min_size = 1000",
    )
    .await;
    planner
}

pub(super) async fn prepared(planner: &Planner, sql: &str) -> Result<Step, QueryError> {
    planner.prepare(sql, || async { Ok(3) }).await
}

pub(super) async fn planned(planner: &Planner, sql: &str) -> DistributedPlan {
    match prepared(planner, sql).await.expect(sql) {
        Step::Cluster(plan) => *plan,
        _ => panic!("not a query for the cluster: {sql}"),
    }
}

/// The result of a statement that must succeed.
pub(super) async fn run(planner: &Planner, sql: &str) -> Vec<RecordBatch> {
    try_run(planner, sql).await.expect(sql)
}

pub(super) async fn try_run(planner: &Planner, sql: &str) -> Result<Vec<RecordBatch>, QueryError> {
    match prepared(planner, sql).await? {
        Step::Cluster(plan) => run_plan(&plan).await,
        Step::Local { plan, context } => {
            crate::execute::run_local(plan, context, Vec::new())?
                .stream()
                .try_collect()
                .await
        }
        Step::Rows { batches, .. } => Ok(batches),
        Step::Table {
            name,
            plan,
            definition,
        } => {
            let (Step::Cluster(_) | Step::Local { .. }) = *plan else {
                panic!("a query makes a table")
            };
            let (schema, batches) = match *plan {
                Step::Cluster(plan) => (plan.schema(), run_plan(&plan).await?),
                Step::Local { plan, context } => (
                    plan.schema(),
                    crate::execute::run_local(plan, context, Vec::new())?
                        .stream()
                        .try_collect()
                        .await?,
                ),
                _ => panic!("a query makes a table"),
            };
            let rows = crate::execute::rows(schema, batches);
            planner.create_table(name, definition, rows).await?;
            Ok(Vec::new())
        }
    }
}

/// The partition as another process would see it.
fn received(partition: &Partition) -> Partition {
    Partition::new(partition.metadata().clone(), partition.buffers().to_vec())
}

async fn run_task(
    worker: &SessionState,
    layer: &Layer,
    position: u32,
    partitions: Vec<Vec<Partition>>,
) -> Result<Vec<Partition>, QueryError> {
    let spec = StageSpec::decode(&layer.arguments.common.0).expect("a stage");
    let inputs = TaskInputs {
        given: spec.given.clone(),
        partitions,
        batch_rows: 1_000,
    };
    let config = SessionConfig::from(spec::options(&spec.settings).expect("known settings"))
        .with_extension(Arc::new(Exchange(Arc::new(inputs))));
    let context = Arc::new(TaskContext::from(worker).with_session_config(config));
    let stage = decode_plan(&spec.plan.0, &context).expect("a plan");
    run_stage(&spec, stage, position as usize, context)
        .await
        .map_err(|error| QueryError::from_datafusion(error, &[]))
}

async fn run_plan(plan: &DistributedPlan) -> Result<Vec<RecordBatch>, QueryError> {
    let graph = plan.graph().clone().compile().expect("a valid graph");
    let worker = SessionStateBuilder::new().with_default_features().build();
    let mut made: BTreeMap<(u32, u32), Partition> = BTreeMap::new();
    for task in 0..graph.task_count() {
        let (_, position) = graph.locate(task).expect("a task");
        let layer = graph.layer_of(task).expect("a layer");
        let mut partitions = vec![Vec::new(); layer.inputs.len()];
        graph.for_each_input(task, |input| {
            let partition = &made[&(input.task, input.output)];
            // Every other task runs in another process than the one that made its inputs.
            let partition = if task % 2 == 0 {
                partition.clone()
            } else {
                received(partition)
            };
            partitions[input.input as usize].push(partition);
        });
        let outputs = match layer.operator.as_str() {
            SQL_PARTITION => gpu::hash(layer, &partitions.concat()),
            SQL_CONCAT => gpu::concat(&partitions.concat()),
            _ => run_task(&worker, layer, position, partitions).await?,
        };
        assert_eq!(
            outputs.len(),
            layer.outputs as usize,
            "outputs of {}",
            layer.name
        );
        for (output, partition) in (0..).zip(outputs) {
            made.insert((task, output), partition);
        }
    }
    let last = LayerIndex(u32::try_from(graph.layers().len() - 1).expect("small"));
    let outputs = graph.layers()[last.0 as usize].outputs;
    let completed: Vec<_> = graph
        .tasks_of(last)
        .enumerate()
        .rev()
        .map(|(position, task)| {
            let partitions = (0..outputs)
                .map(|output| made[&(task, output)].clone())
                .collect();
            Ok((u32::try_from(position).expect("small"), partitions))
        })
        .collect();
    let rows = tail_rows(plan, stream::iter(completed).boxed())
        .map_err(|error| QueryError::from_datafusion(error, &[]))?;
    rows.map_err(|error| QueryError::from_datafusion(error, &[]))
        .try_collect()
        .await
}

/// DataFusion alone, with its own defaults, on the planner's tables.
pub(super) async fn alone(planner: &Planner, sql: &str) -> Vec<RecordBatch> {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(3));
    for name in planner.table_names() {
        let table = planner
            .context()
            .table_provider(name.as_str())
            .await
            .expect("registered");
        context
            .register_table(name.as_str(), table)
            .expect("registers");
    }
    context
        .sql(sql)
        .await
        .expect(sql)
        .collect()
        .await
        .expect(sql)
}

/// Rows as texts.
pub(super) fn shown(batches: &[RecordBatch]) -> Vec<Vec<String>> {
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Vec<_> = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column.as_ref(), &options).expect("printable"))
            .collect();
        rows.extend((0..batch.num_rows()).map(|row| {
            columns
                .iter()
                .map(|column| column.value(row).to_string())
                .collect::<Vec<_>>()
        }));
    }
    rows
}

fn alike(left: &str, right: &str) -> bool {
    if left == right {
        return true;
    }
    match (left.parse::<f64>(), right.parse::<f64>()) {
        (Ok(left), Ok(right)) => (left - right).abs() <= 1e-9 * left.abs().max(right.abs()),
        _ => false,
    }
}

/// Runs a query both ways and compares the rows: in order where the query has one, else as sets.
pub(super) async fn compare(planner: &Planner, sql: &str) -> Vec<Vec<String>> {
    let patience = Duration::from_secs(60);
    let want = tokio::time::timeout(patience, alone(planner, sql)).await;
    let mut want = shown(&want.unwrap_or_else(|_| panic!("DataFusion alone hangs: {sql}")));
    let got = tokio::time::timeout(patience, run(planner, sql)).await;
    let mut got = shown(&got.unwrap_or_else(|_| panic!("it hangs: {sql}")));
    // What stands in parentheses orders something else.
    let outermost = sql.rsplit(')').next().unwrap_or(sql).to_lowercase();
    if !outermost.contains("order by") {
        want.sort();
        got.sort();
    }
    let same = want.len() == got.len()
        && want.iter().zip(&got).all(|(want, got)| {
            want.len() == got.len() && want.iter().zip(got).all(|(want, got)| alike(want, got))
        });
    if !same {
        let plan = match prepared(planner, sql).await {
            Ok(Step::Cluster(plan)) => plan.to_string(),
            _ => "local".to_owned(),
        };
        panic!(
            "{sql}\n{plan}\nwant {} rows {want:?}\n got {} rows {got:?}",
            want.len(),
            got.len()
        );
    }
    got
}
