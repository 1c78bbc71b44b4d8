//! DataFusion as one worker runs it: memory from the worker's budget, temporary files in its scratch folder, one cache of
//! file footers for all tasks. Made once for each worker.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::execution::TaskContext;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::prelude::SessionConfig;
use transload_runtime::WorkerEnvironment;

use super::memory::BudgetPool;

/// What all tasks of one worker share.
pub(super) struct WorkerQueries {
    state: SessionState,
}

impl WorkerQueries {
    pub(super) fn new(environment: &WorkerEnvironment) -> Result<Self> {
        let disk = DiskManagerBuilder::default()
            .with_mode(DiskManagerMode::Directories(vec![
                environment.scratch_dir.clone(),
            ]))
            // The disk itself is the limit.
            .with_max_temp_directory_size(u64::MAX);
        let runtime = RuntimeEnvBuilder::new()
            .with_disk_manager_builder(disk)
            .with_memory_pool(Arc::new(BudgetPool::new(
                environment.execution_memory.clone(),
            )))
            .build_arc()?;
        let state = SessionStateBuilder::new()
            .with_default_features()
            .with_runtime_env(runtime)
            .build();
        Ok(Self { state })
    }

    /// All functions and the worker's memory and files, under these settings.
    pub(super) fn context(&self, config: SessionConfig) -> TaskContext {
        TaskContext::from(&self.state).with_session_config(config)
    }
}
