//! What each of DataFusion's operators means for cutting: one list, looked up for every node. Knows operators, never plans.

use std::sync::Arc;

use datafusion::common::JoinType;
use datafusion::datasource::sink::DataSinkExec;
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::async_func::AsyncFuncExec;
use datafusion::physical_plan::buffer::BufferExec;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, PartitionMode, SortMergeJoinExec,
};
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::memory::LazyMemoryExec;
use datafusion::physical_plan::placeholder_row::PlaceholderRowExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::union::{InterleaveExec, UnionExec};
use datafusion::physical_plan::unnest::UnnestExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

use crate::exchange::ExchangeReadExec;

/// How an operator's partitions depend on those of its children.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It moves rows between partitions.
    Exchange,
    /// It makes one partition of many.
    Merge,
    /// A join: every partition reads the whole first child and its own partition of the second.
    BuildOnce,
    /// Partition `p` reads partition `p` of each child, or, in a union, one partition of one child.
    PerPartition,
    /// Not known to be safe.
    Unknown,
}

pub(super) fn kind_of(plan: &Arc<dyn ExecutionPlan>) -> Kind {
    let plan = plan.as_ref();
    if plan.is::<RepartitionExec>() {
        return Kind::Exchange;
    }
    if plan.is::<CoalescePartitionsExec>() || plan.is::<SortPreservingMergeExec>() {
        return Kind::Merge;
    }
    if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        return match join.partition_mode() {
            PartitionMode::CollectLeft => Kind::BuildOnce,
            PartitionMode::Partitioned => Kind::PerPartition,
            PartitionMode::Auto => Kind::Unknown,
        };
    }
    if plan.is::<NestedLoopJoinExec>() || plan.is::<CrossJoinExec>() {
        return Kind::BuildOnce;
    }
    #[expect(deprecated, reason = "plans may still hold it")]
    let coalesces = plan.is::<datafusion::physical_plan::coalesce_batches::CoalesceBatchesExec>();
    let per_partition = coalesces
        || plan.is::<ProjectionExec>()
        || plan.is::<FilterExec>()
        || plan.is::<AggregateExec>()
        || plan.is::<SortExec>()
        || plan.is::<SortMergeJoinExec>()
        || plan.is::<UnionExec>()
        || plan.is::<InterleaveExec>()
        || plan.is::<LocalLimitExec>()
        || plan.is::<GlobalLimitExec>()
        || plan.is::<WindowAggExec>()
        || plan.is::<BoundedWindowAggExec>()
        || plan.is::<UnnestExec>()
        || plan.is::<CooperativeExec>()
        || plan.is::<BufferExec>()
        || plan.is::<AsyncFuncExec>()
        || plan.is::<DataSourceExec>()
        || plan.is::<DataSinkExec>()
        || plan.is::<LazyMemoryExec>()
        || plan.is::<EmptyExec>()
        || plan.is::<PlaceholderRowExec>()
        || plan.is::<ExchangeReadExec>();
    if per_partition {
        Kind::PerPartition
    } else {
        Kind::Unknown
    }
}

/// The row limit of an operator that makes one partition of many; `None` for every other.
pub(super) fn merge_fetch(plan: &Arc<dyn ExecutionPlan>) -> Option<Option<usize>> {
    match kind_of(plan) {
        Kind::Merge => Some(plan.fetch()),
        _ => None,
    }
}

/// Whether the top of `plan` is work for the client (merging, limiting, renaming) above a merge of several partitions.
pub(super) fn ends_in_a_merge(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let children = plan.children();
    let [child] = children.as_slice() else {
        return false;
    };
    if merge_fetch(plan).is_some() && child.output_partitioning().partition_count() > 1 {
        return true;
    }
    let renames = plan
        .downcast_ref::<ProjectionExec>()
        .is_some_and(|projection| {
            projection
                .expr()
                .iter()
                .all(|projected| projected.expr.is::<Column>())
        });
    let light = renames
        || merge_fetch(plan).is_some()
        || plan.is::<GlobalLimitExec>()
        || plan.is::<CooperativeExec>();
    light && ends_in_a_merge(child)
}

/// Why every partition of a join must run in one task, when it must: it notes, across all partitions of the second child,
/// which rows of the first have found a partner.
pub(super) fn tracks_build_rows(plan: &Arc<dyn ExecutionPlan>) -> Option<String> {
    let (join_type, null_aware) = if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        (*join.join_type(), join.null_aware)
    } else {
        (
            *plan.downcast_ref::<NestedLoopJoinExec>()?.join_type(),
            false,
        )
    };
    let tracks = null_aware
        || matches!(
            join_type,
            JoinType::Left
                | JoinType::Full
                | JoinType::LeftSemi
                | JoinType::LeftAnti
                | JoinType::LeftMark
        );
    tracks.then(|| {
        format!(
            "{} ({join_type}{}) tracks which rows of its first input have matched",
            plan.name(),
            if null_aware { ", null aware" } else { "" }
        )
    })
}
