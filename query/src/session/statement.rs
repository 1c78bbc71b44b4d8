//! What a statement asks for, and which tables it reads. Knows logical plans, never how they are run.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::default_table_source::source_as_provider;
use datafusion::common::TableReference;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::MemTable;
use datafusion::datasource::listing::{ListingTable, ListingTableUrl};
use datafusion::execution::TaskContext;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::object_store;
use datafusion::physical_plan::ExecutionPlan;
use futures::TryStreamExt;

use crate::plan::DistributedPlan;

/// What is to be done for a statement.
pub(crate) enum Step {
    /// A query for the cluster.
    Cluster(Box<DistributedPlan>),
    /// A query for this process: it reads no files, or holds what cannot be sent.
    Local {
        plan: Arc<dyn ExecutionPlan>,
        context: Arc<TaskContext>,
    },
    /// The result is there.
    Rows {
        schema: SchemaRef,
        batches: Vec<RecordBatch>,
    },
    /// `CREATE TABLE … AS`: the query's result becomes a table in this process's memory.
    Table {
        name: TableReference,
        plan: Box<Step>,
        definition: TableDefinition,
    },
}

/// What is to happen where the table exists already.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TableDefinition {
    pub(crate) or_replace: bool,
    pub(crate) if_not_exists: bool,
}

/// The tables that a plan reads.
#[derive(Debug, Default)]
pub(crate) struct Scans {
    /// Bytes of all their files.
    pub(crate) bytes: u64,
    /// Name by file: prefixes of paths, as the object store shows them.
    pub(crate) names: BTreeMap<String, String>,
    /// Whether any is made of files or rows in memory, which workers can read.
    pub(crate) any: bool,
}

fn gone(url: &ListingTableUrl) -> DataFusionError {
    let path = url.get_glob().as_ref().map_or_else(
        || url.get_url().path().to_owned(),
        |pattern| format!("{}{pattern}", url.get_url().path()),
    );
    let source = "no file is there any more".into();
    DataFusionError::ObjectStore(Box::new(object_store::Error::NotFound { path, source }))
}

/// Every table below `plan`, in subqueries too.
pub(crate) async fn scans(plan: &LogicalPlan, state: &SessionState) -> Result<Scans> {
    let mut found = Vec::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Ok(provider) = source_as_provider(&scan.source)
        {
            found.push((scan.table_name.table().to_owned(), provider));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    let mut scans = Scans::default();
    for (name, provider) in found {
        if let Some(table) = provider.downcast_ref::<ListingTable>() {
            scans.any = true;
            for url in table.table_paths() {
                let store = state.runtime_env().object_store(url)?;
                let ending = &table.options().file_extension;
                let mut files = url.list_all_files(state, store.as_ref(), ending).await?;
                let mut any = false;
                while let Some(file) = files.try_next().await? {
                    any = true;
                    scans.bytes += file.size;
                    scans.names.insert(file.location.to_string(), name.clone());
                }
                if !any && !url.is_folder() {
                    // DataFusion would answer as if the table had no rows.
                    return Err(gone(url));
                }
            }
        } else if provider.is::<MemTable>() {
            scans.any = true;
        }
    }
    Ok(scans)
}
