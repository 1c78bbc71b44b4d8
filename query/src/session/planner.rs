//! From a statement's text to what is to be done for it. Called by the session; holds DataFusion's context with tables and
//! settings, and knows nothing of the cluster but its number of slots.

use std::future::Future;
use std::sync::Arc;

use datafusion::arrow::array::{RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::DataFusionError;
use datafusion::common::TableReference;
use datafusion::datasource::MemTable;
use datafusion::execution::TaskContext;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{CreateExternalTable, DdlStatement, LogicalPlan};
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::displayable;
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::TryStreamExt;

use super::SqlOptions;
use super::extension::{SqlSettings, gpu_exchange};
use super::statement::{Scans, Step, TableDefinition, scans};
use super::tables::{self, FileKind, FileOptions, Location};
use crate::QueryError;
use crate::execute::Execution;
use crate::operator::spec::settings;
use crate::plan::DistributedPlan;
use crate::settings::make_safe;
use crate::stages::{PartitionedOuterJoins, cut, uncut};

/// Tables below this size are not worth more partitions: starting a task costs more than reading a megabyte.
const SMALLEST_PARTITION_BYTES: u64 = 1 << 20;
/// Most partitions that are chosen by themselves: a shuffle has as many small outputs as the square of this.
const MOST_PARTITIONS: u64 = 1024;
/// Names of the options of `CREATE EXTERNAL TABLE` that give a null marker.
const NULL_OPTIONS: [&str; 4] = [
    "format.null",
    "format.null_value",
    "format.null_marker",
    "format.null_regex",
];

/// See the module.
pub(crate) struct Planner {
    context: SessionContext,
    options: SqlOptions,
    /// `target_partitions` as the session began: another value was set by the user and is obeyed.
    initial_partitions: usize,
}

impl Planner {
    pub(crate) fn new(options: SqlOptions) -> Result<Self, QueryError> {
        if options.batch_rows == 0 || options.partitions == Some(0) || options.partition_bytes == 0
        {
            return Err(QueryError::Plan(
                "batch_rows, partitions and partition_bytes must be at least 1".to_owned(),
            ));
        }
        let mut config = SessionConfig::new()
            .with_information_schema(true)
            .with_batch_size(options.batch_rows)
            .with_collect_statistics(true)
            .with_option_extension(SqlSettings {
                gpu_exchange: options.gpu_exchange,
            });
        let changed = config.options_mut();
        changed.optimizer.hash_join_single_partition_threshold = options.broadcast_bytes;
        // Where only the number of rows is known: rows of 64 bytes.
        changed.optimizer.hash_join_single_partition_threshold_rows =
            (options.broadcast_bytes / 64).max(1);
        changed.optimizer.repartition_file_scans = true;
        make_safe(changed);
        let initial_partitions = config.target_partitions();
        let state = SessionStateBuilder::new()
            .with_default_features()
            .with_config(config)
            .with_physical_optimizer_rules(optimizer_rules())
            .build();
        Ok(Self {
            context: SessionContext::new_with_state(state),
            options,
            initial_partitions,
        })
    }

    pub(crate) async fn register_table(
        &self,
        name: &str,
        location: &str,
        options: &FileOptions,
    ) -> Result<(), QueryError> {
        let table = tables::table(&self.context.state(), location, options, None).await?;
        let name = TableReference::bare(name.to_lowercase());
        let replaced = self.context.deregister_table(name.clone());
        replaced
            .and_then(|_| self.context.register_table(name, table))
            .map(drop)
            .map_err(|error| self.failed(error))
    }

    /// Names of all tables.
    pub(crate) fn table_names(&self) -> Vec<String> {
        let state = self.context.state();
        let catalog = state.config().options().catalog.clone();
        self.context
            .catalog(&catalog.default_catalog)
            .and_then(|found| found.schema(&catalog.default_schema))
            .map(|schema| schema.table_names())
            .unwrap_or_default()
    }

    fn failed(&self, error: DataFusionError) -> QueryError {
        QueryError::from_datafusion(error, &self.table_names())
    }

    /// What is to be done for one statement; what is done in this process alone is done already. `slots` tells how many
    /// slots the cluster has, and is asked only where that matters.
    pub(crate) async fn prepare<S, F>(&self, sql: &str, slots: S) -> Result<Step, QueryError>
    where
        S: FnOnce() -> F + Send,
        F: Future<Output = Result<usize, QueryError>> + Send,
    {
        let state = self.context.state();
        let dialect = state.config().options().sql_parser.dialect;
        let statement = state
            .sql_to_statement(sql, &dialect)
            .map_err(|error| self.failed(error))?;
        let logical = state
            .statement_to_plan(statement)
            .await
            .map_err(|error| self.failed(error))?;
        match logical {
            LogicalPlan::Explain(explain) => {
                let step = self.query(sql, explain.plan.as_ref(), slots).await?;
                Ok(explained(&step, &explain.plan, explain.verbose))
            }
            LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(table)) => {
                let plan = self.query(sql, table.input.as_ref(), slots).await?;
                Ok(Step::Table {
                    name: table.name,
                    plan: Box::new(plan),
                    definition: TableDefinition {
                        or_replace: table.or_replace,
                        if_not_exists: table.if_not_exists,
                    },
                })
            }
            LogicalPlan::Ddl(DdlStatement::CreateExternalTable(table)) => {
                self.create_external_table(*table).await?;
                Ok(Step::Rows {
                    schema: Arc::new(Schema::empty()),
                    batches: Vec::new(),
                })
            }
            LogicalPlan::Ddl(_) | LogicalPlan::Statement(_) | LogicalPlan::DescribeTable(_) => {
                let frame = self
                    .context
                    .execute_logical_plan(logical)
                    .await
                    .map_err(|error| self.failed(error))?;
                let plan = frame.logical_plan().clone();
                // What an EXECUTE of a prepared statement stands for is a query as any other.
                self.query(sql, &plan, slots).await
            }
            query => self.query(sql, &query, slots).await,
        }
    }

    async fn query<S, F>(
        &self,
        sql: &str,
        logical: &LogicalPlan,
        slots: S,
    ) -> Result<Step, QueryError>
    where
        S: FnOnce() -> F + Send,
        F: Future<Output = Result<usize, QueryError>> + Send,
    {
        let failed = |error| self.failed(error);
        let mut state = self.context.state();
        make_safe(state.config_mut().options_mut());
        let optimized = state.optimize(logical).map_err(failed)?;
        let scans = scans(&optimized, &state).await.map_err(failed)?;
        if scans.any {
            let partitions = self.partitions(&state, slots().await?, scans.bytes);
            state.config_mut().options_mut().execution.target_partitions = partitions;
        }
        let physical = DefaultPhysicalPlanner::default()
            .create_physical_plan(&optimized, &state)
            .await
            .map_err(failed)?;
        let context = Arc::new(TaskContext::from(&state));
        if !scans.any {
            return Ok(Step::Local {
                plan: physical,
                context,
            });
        }
        match distributed(sql, &physical, &context, &state, &scans) {
            Ok(plan) => Ok(Step::Cluster(Box::new(plan))),
            Err(reason) => {
                tracing::warn!(%reason, "the query cannot be sent to workers and runs in the client");
                Ok(Step::Local {
                    plan: physical,
                    context,
                })
            }
        }
    }

    /// How many partitions exchanges make: as many as the cluster has slots, fewer for tiny tables, more for large ones.
    fn partitions(&self, state: &SessionState, slots: usize, bytes: u64) -> usize {
        let set = state.config().target_partitions();
        if set != self.initial_partitions {
            return set;
        }
        if let Some(partitions) = self.options.partitions {
            return partitions;
        }
        let slots = (slots as u64).max(1);
        let useful = bytes.div_ceil(SMALLEST_PARTITION_BYTES).max(1);
        // A multiple of the slots: the last wave of tasks leaves no slot idle.
        let needed = bytes
            .div_ceil(self.options.partition_bytes)
            .next_multiple_of(slots);
        let chosen = needed
            .max(slots)
            .min(useful)
            .min(MOST_PARTITIONS.max(slots));
        usize::try_from(chosen).unwrap_or(1)
    }

    async fn create_external_table(
        &self,
        mut table: CreateExternalTable,
    ) -> Result<(), QueryError> {
        let exists = self
            .context
            .table_exist(table.name.clone())
            .map_err(|error| self.failed(error))?;
        let marker = NULL_OPTIONS
            .iter()
            .find_map(|option| table.options.remove(*option));
        let simple = table.table_partition_cols.is_empty()
            && table.order_exprs.is_empty()
            && table.constraints.is_empty()
            && table.column_defaults.is_empty()
            && table.locations.len() == 1
            && table
                .options
                .keys()
                .all(|key| key == "format.delimiter" || key == "format.has_header");
        let kind = FileKind::of_name(&table.file_type);
        let (true, Some(kind), [location]) = (simple, kind, table.locations.as_slice()) else {
            if marker.is_some() {
                return Err(QueryError::Plan(
                    "a null marker cannot be combined with PARTITIONED BY, WITH ORDER, constraints or options other \
                     than the delimiter and has_header"
                        .to_owned(),
                ));
            }
            return self.create_as_datafusion_does(table).await;
        };
        if exists && table.if_not_exists {
            return Ok(());
        }
        if exists && !table.or_replace {
            return Err(QueryError::Plan(format!(
                "there is a table `{}` already; use CREATE OR REPLACE EXTERNAL TABLE",
                table.name
            )));
        }
        let options = FileOptions {
            format: Some(kind),
            delimiter: delimiter(table.options.get("format.delimiter"))?,
            header: has_header(&table, self),
            null: marker,
        };
        let declared = Arc::clone(table.schema.inner());
        let declared = (!declared.fields().is_empty()).then_some(declared);
        let provider = tables::table(&self.context.state(), location, &options, declared).await?;
        self.context
            .deregister_table(table.name.clone())
            .and_then(|_| self.context.register_table(table.name, provider))
            .map(drop)
            .map_err(|error| self.failed(error))
    }

    async fn create_as_datafusion_does(
        &self,
        mut table: CreateExternalTable,
    ) -> Result<(), QueryError> {
        for location in &mut table.locations {
            if !location.contains("://") || location.starts_with("file://") {
                *location = Location::new(location)?.url()?.as_str().to_owned();
            }
        }
        let plan = LogicalPlan::Ddl(DdlStatement::CreateExternalTable(Box::new(table)));
        let created = self.context.execute_logical_plan(plan).await;
        created.map(drop).map_err(|error| self.failed(error))
    }

    /// Keeps the rows of a query as a table in this process's memory.
    pub(crate) async fn create_table(
        &self,
        name: TableReference,
        definition: TableDefinition,
        rows: Execution,
    ) -> Result<(), QueryError> {
        let exists = self
            .context
            .table_exist(name.clone())
            .map_err(|error| self.failed(error))?;
        if exists && definition.if_not_exists {
            return Ok(());
        }
        if exists && !definition.or_replace {
            return Err(QueryError::Plan(format!(
                "there is a table `{name}` already; use CREATE OR REPLACE TABLE"
            )));
        }
        let schema = rows.schema();
        let batches: Vec<RecordBatch> = rows.stream().try_collect().await?;
        let failed = |error| self.failed(error);
        let table = MemTable::try_new(schema, vec![batches]).map_err(failed)?;
        self.context
            .deregister_table(name.clone())
            .and_then(|_| self.context.register_table(name, Arc::new(table)))
            .map(drop)
            .map_err(failed)
    }

    /// The context itself, for tests that compare with DataFusion alone.
    #[cfg(test)]
    pub(crate) fn context(&self) -> &SessionContext {
        &self.context
    }
}

/// DataFusion's own rules, and [`PartitionedOuterJoins`] once joins are chosen.
fn optimizer_rules()
-> Vec<Arc<dyn datafusion::physical_optimizer::PhysicalOptimizerRule + Send + Sync>> {
    let mut rules = PhysicalOptimizer::new().rules;
    let at = rules
        .iter()
        .position(|rule| rule.name() == "join_selection")
        .map_or(0, |at| at + 1);
    rules.insert(at, Arc::new(PartitionedOuterJoins));
    rules
}

fn distributed(
    sql: &str,
    physical: &Arc<dyn datafusion::physical_plan::ExecutionPlan>,
    context: &TaskContext,
    state: &SessionState,
    scans: &Scans,
) -> Result<DistributedPlan, DataFusionError> {
    let settings = settings(state.config().options());
    let pieces = match cut(physical, gpu_exchange(state.config().options())) {
        Ok(pieces) => pieces,
        Err(error) => uncut(
            physical,
            format!("the plan cannot be cut: {}", error.strip_backtrace()),
        ),
    };
    match DistributedPlan::new(sql, pieces, context, &settings, scans) {
        Err(error) => {
            let reason = format!("the plan cannot be cut: {}", error.strip_backtrace());
            DistributedPlan::new(sql, uncut(physical, reason), context, &settings, scans)
        }
        plan => plan,
    }
}

fn delimiter(option: Option<&String>) -> Result<u8, QueryError> {
    match option.map(|text| text.as_bytes()) {
        None => Ok(b','),
        Some([delimiter]) => Ok(*delimiter),
        Some(b"\\t") => Ok(b'\t'),
        Some(_) => Err(QueryError::Plan(
            "the delimiter of a CSV file is one character".to_owned(),
        )),
    }
}

fn has_header(table: &CreateExternalTable, planner: &Planner) -> bool {
    table.options.get("format.has_header").map_or_else(
        || {
            planner
                .context
                .state()
                .config()
                .options()
                .catalog
                .has_header
        },
        |text| text.eq_ignore_ascii_case("true"),
    )
}

/// The answer to `EXPLAIN`: one row for each line.
fn explained(step: &Step, logical: &LogicalPlan, verbose: bool) -> Step {
    let mut text = match step {
        Step::Cluster(plan) => plan.to_string(),
        Step::Local { plan, .. } => format!(
            "runs in the client: no file is read, or an operator cannot be sent to workers\n{}",
            displayable(plan.as_ref()).indent(verbose)
        ),
        Step::Rows { .. } | Step::Table { .. } => "runs in the client".to_owned(),
    };
    if verbose {
        text.push_str(&format!("\nlogical plan\n{}\n", logical.display_indent()));
        if let Step::Cluster(plan) = step {
            text.push_str(&format!("\nsizes of stage plans\n{}", plan.sizes()));
        }
    }
    let lines: Vec<&str> = text.lines().collect();
    let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("plan", DataType::Utf8, false)]));
    let rows = RecordBatch::try_new(
        Arc::clone(&schema),
        vec![Arc::new(StringArray::from(lines))],
    );
    Step::Rows {
        schema,
        batches: rows.into_iter().collect(),
    }
}
