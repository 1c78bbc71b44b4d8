//! A person's SQL session on a cluster: tables, settings, and statements run one at a time. Knows SQL and plans; how tasks
//! are placed and moved is the cluster's business.

mod extension;
mod planner;
mod statement;
mod tables;

use std::sync::Arc;

use datafusion::arrow::datatypes::Schema;
use transload_runtime::Client;

use crate::QueryError;
use crate::execute::{Execution, rows, run_local, run_on_cluster};
use crate::plan::DistributedPlan;
pub(crate) use planner::Planner;
pub(crate) use statement::{Scans, Step};
pub use tables::{FileKind, FileOptions};

/// What distinguishes one session from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlOptions {
    /// Partitions that exchanges split rows into. Default: the cluster's slots, more for large tables. Fewer mean less
    /// overhead for small queries, more mean less memory per task.
    pub partitions: Option<usize>,
    /// Bytes of table files for each partition, where that gives more partitions than the cluster has slots. Default:
    /// 128 MiB.
    pub partition_bytes: u64,
    /// Largest build side of a join that is sent whole to every task instead of shuffling both sides, in bytes. Default:
    /// 10 MiB. Each task holds it in memory.
    pub broadcast_bytes: usize,
    /// Rows of the batches that operators work on. Default: 8192.
    pub batch_rows: usize,
    /// Whether hash exchanges stay on the workers' GPUs, where every exchange of a query can. `SET transload.gpu_exchange = on` changes it
    /// within a session. Default: off, because operators run on the host on both sides of an exchange, so that rows go to the GPU and
    /// back for it: no gain yet.
    pub gpu_exchange: bool,
}

impl Default for SqlOptions {
    fn default() -> Self {
        Self {
            partitions: None,
            partition_bytes: 128 << 20,
            broadcast_bytes: 10 << 20,
            batch_rows: 8192,
            gpu_exchange: false,
        }
    }
}

/// SQL on a cluster.
pub struct SqlSession {
    client: Client,
    planner: Planner,
}

impl SqlSession {
    /// A session with no tables.
    ///
    /// # Errors
    /// [`QueryError::Plan`] for options that make no sense.
    pub fn new(client: Client, options: SqlOptions) -> Result<Self, QueryError> {
        Ok(Self {
            client,
            planner: Planner::new(options)?,
        })
    }

    /// Makes files a table: one file, a folder of files, or a pattern such as `data/2024-*.csv`. Names are not case
    /// sensitive. A table of the same name is replaced.
    ///
    /// # Errors
    /// [`QueryError::File`] when there is no such file, or its columns cannot be inferred.
    pub async fn register_table(
        &self,
        name: &str,
        location: &str,
        options: FileOptions,
    ) -> Result<(), QueryError> {
        self.planner.register_table(name, location, &options).await
    }

    /// Runs one statement: a query, `EXPLAIN`, or one that defines tables or changes settings. Returns when the work has
    /// been submitted; results arrive through [`Execution::stream`].
    ///
    /// # Errors
    /// When the statement cannot be parsed, planned or submitted. What fails later ends the stream.
    pub async fn execute(&self, sql: &str) -> Result<Execution, QueryError> {
        let step = self.planner.prepare(sql, || self.slots()).await?;
        self.run(step).await
    }

    /// How a query would be run.
    ///
    /// # Errors
    /// When it cannot be parsed or planned, or is no query.
    pub async fn plan(&self, sql: &str) -> Result<DistributedPlan, QueryError> {
        match self.planner.prepare(sql, || self.slots()).await? {
            Step::Cluster(plan) => Ok(*plan),
            Step::Local { .. } | Step::Rows { .. } | Step::Table { .. } => Err(QueryError::Plan(
                "this statement does not run on the cluster".to_owned(),
            )),
        }
    }

    async fn run(&self, step: Step) -> Result<Execution, QueryError> {
        let tables = self.planner.table_names();
        match step {
            Step::Cluster(plan) => {
                if plan.needs_gpu() {
                    self.check_for_gpus().await?;
                }
                run_on_cluster(&self.client, *plan, tables).await
            }
            Step::Local { plan, context } => run_local(plan, context, tables),
            Step::Rows { schema, batches } => Ok(rows(schema, batches)),
            Step::Table {
                name,
                plan,
                definition,
            } => {
                let execution = Box::pin(self.run(*plan)).await?;
                self.planner
                    .create_table(name, definition, execution)
                    .await?;
                Ok(rows(Arc::new(Schema::empty()), Vec::new()))
            }
        }
    }

    /// That some worker has a GPU: else the query would wait for one.
    async fn check_for_gpus(&self) -> Result<(), QueryError> {
        let info = self.client.info().await?;
        if info.workers.iter().any(|worker| worker.hello.gpu.is_some()) {
            return Ok(());
        }
        Err(QueryError::Plan(format!(
            "exchanges are to stay on GPUs, and none of the {} workers has one; SET transload.gpu_exchange = off, or start \
             workers where there are GPUs",
            info.workers.len()
        )))
    }

    async fn slots(&self) -> Result<usize, QueryError> {
        let info = self.client.info().await?;
        Ok(info
            .workers
            .iter()
            .map(|worker| worker.hello.resources.slots as usize)
            .sum())
    }
}
