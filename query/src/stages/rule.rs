//! A physical optimizer rule: joins that must emit unmatched rows of their build side hash both sides instead of collecting
//! one, so that they can be split over tasks. Runs after DataFusion has chosen how to join and before it adds exchanges.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};

use super::kind::tracks_build_rows;

/// See the module.
#[derive(Debug)]
pub(crate) struct PartitionedOuterJoins;

impl PhysicalOptimizerRule for PartitionedOuterJoins {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if config.execution.target_partitions <= 1 || !config.optimizer.repartition_joins {
            return Ok(plan);
        }
        let plan = plan.transform_up(|plan| {
            let Some(join) = plan.downcast_ref::<HashJoinExec>() else {
                return Ok(Transformed::no(plan));
            };
            let collects = *join.partition_mode() == PartitionMode::CollectLeft;
            // A null-aware join needs to know of every null on one side: it stays, and runs as one task.
            if !collects || join.null_aware || tracks_build_rows(&plan).is_none() {
                return Ok(Transformed::no(plan));
            }
            let join = join
                .builder()
                .with_partition_mode(PartitionMode::Partitioned)
                .recompute_properties()
                .build_exec()?;
            Ok(Transformed::yes(join))
        })?;
        Ok(plan.data)
    }

    fn name(&self) -> &str {
        "partitioned_outer_joins"
    }

    fn schema_check(&self) -> bool {
        true
    }
}
