//! Session settings that distribution depends on. Called wherever a session is made; the one place that knows why.

use datafusion::common::config::ConfigOptions;

/// Turns off what is wrong when one partition of a plan runs alone, whatever the user has set.
///
/// - File-stream work stealing: a task that runs one partition would scan the files of all, and rows would be counted once
///   per task.
/// - Dynamic filters: a join waits for all its partitions before it passes a filter to its probe side, and would hang.
/// - Round-robin repartitioning: it only spreads work over the threads of one process.
/// - Window top-n and piecewise merge joins: their operators cannot be sent to a worker.
pub(crate) fn make_safe(options: &mut ConfigOptions) {
    options.execution.enable_file_stream_work_stealing = false;
    options.optimizer.enable_dynamic_filter_pushdown = false;
    options.optimizer.enable_join_dynamic_filter_pushdown = false;
    options.optimizer.enable_topk_dynamic_filter_pushdown = false;
    options.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    options.optimizer.enable_round_robin_repartition = false;
    options.optimizer.enable_window_topn = false;
    options.optimizer.enable_piecewise_merge_join = false;
}
