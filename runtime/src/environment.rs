//! What operators may know and use of the worker that runs them.

use std::path::PathBuf;

use transload_gpu::Budget;

/// One worker, as its operators see it.
#[derive(Debug, Clone)]
pub struct WorkerEnvironment {
    /// The worker's name, shown to people.
    pub name: String,
    /// Slots, and so the number of operators that run at once.
    pub slots: u32,
    /// Memory for running operators, all of them together. Outputs must hold no reservation of it: once an operator has ended,
    /// they are accounted for as stored partitions.
    pub execution_memory: Budget,
    /// A folder for operators' own temporary files; removed when the worker ends.
    pub scratch_dir: PathBuf,
}
