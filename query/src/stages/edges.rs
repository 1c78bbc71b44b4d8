//! Which partitions each task of a stage reads, as the most regular rule that says it. Called once for each stage; knows
//! operators' dependencies and layouts, never what the rows are.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::common::{Result, internal_err};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::scalar_subquery::ScalarSubqueryExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use transload_protocol::{Edges, ExplicitEdges};

use super::kind::{Kind, kind_of};
use super::{Given, Input, Layout, Output, Stage};
use crate::exchange::ExchangeReadExec;

/// Inputs of a stage whose plan reads `reads` (source stage and layout).
pub(super) fn inputs(
    plan: &Arc<dyn ExecutionPlan>,
    tasks: usize,
    output: Output,
    reads: &[(usize, Layout)],
    stages: &[Stage],
) -> Result<Vec<Input>> {
    // For each task, for each read, the partitions needed.
    let mut needs = vec![vec![BTreeSet::new(); reads.len()]; tasks];
    for (task, needed) in needs.iter_mut().enumerate() {
        match output {
            Output::Each(count) => (0..count).for_each(|partition| visit(plan, partition, needed)),
            Output::One | Output::Carried | Output::Hashed(_) => visit(plan, task, needed),
        }
    }
    reads
        .iter()
        .enumerate()
        .map(|(read, (source, layout))| {
            let Some(stage) = stages.get(*source) else {
                return internal_err!("a stage reads stage {source}, which is not before it");
            };
            let needed: Vec<&BTreeSet<usize>> =
                needs.iter().filter_map(|task| task.get(read)).collect();
            let given = if needed.iter().all(|partitions| partitions.len() <= 1) {
                Given::One
            } else {
                Given::Each
            };
            let lists: Vec<Vec<(u32, u32)>> = needed
                .iter()
                .map(|partitions| {
                    partitions
                        .iter()
                        .flat_map(|p| outputs(*p, *layout, stage))
                        .collect()
                })
                .collect();
            if given == Given::Each && !all_in_order(&needed, &lists) {
                return internal_err!(
                    "stage {source} is read in an order that no task could follow"
                );
            }
            let edges = edges(lists, stage);
            Ok(Input {
                source: *source,
                edges,
                given,
            })
        })
        .collect()
}

/// Adds the partitions of reads that partition `partition` of `plan` needs.
fn visit(plan: &Arc<dyn ExecutionPlan>, partition: usize, needs: &mut [BTreeSet<usize>]) {
    if let Some(read) = plan.downcast_ref::<ExchangeReadExec>() {
        if let Some(partitions) = needs.get_mut(read.input()) {
            partitions.insert(partition);
        }
        return;
    }
    let children = plan.children();
    if plan.is::<UnionExec>() {
        let mut partition = partition;
        for child in children {
            let count = child.output_partitioning().partition_count();
            if partition < count {
                return visit(child, partition, needs);
            }
            partition -= count;
        }
        return;
    }
    let first_reads_whole = kind_of(plan) == Kind::BuildOnce;
    let scalar = plan.is::<ScalarSubqueryExec>();
    // The exchange at the root of a stage is run by the task on the rows of its own partition.
    let merges = kind_of(plan) == Kind::Merge && !plan.is::<RepartitionExec>();
    for (index, child) in children.into_iter().enumerate() {
        if merges {
            (0..child.output_partitioning().partition_count())
                .for_each(|partition| visit(child, partition, needs));
        } else if (first_reads_whole && index == 0) || (scalar && index > 0) {
            visit(child, 0, needs);
        } else {
            visit(child, partition, needs);
        }
    }
}

/// The outputs that make one partition: pairs of task and output.
fn outputs(partition: usize, layout: Layout, stage: &Stage) -> Vec<(u32, u32)> {
    let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    match layout {
        Layout::Outputs => (0..stage.tasks)
            .map(|task| (small(task), small(partition)))
            .collect(),
        Layout::Tasks => vec![(small(partition), 0)],
        Layout::Merged => (0..stage.tasks).map(|task| (small(task), 0)).collect(),
    }
}

/// Whether the `p`-th partition given to each task is partition `p`.
fn all_in_order(needed: &[&BTreeSet<usize>], lists: &[Vec<(u32, u32)>]) -> bool {
    needed.iter().zip(lists).all(|(partitions, list)| {
        partitions.len() == list.len() && partitions.iter().copied().eq(0..partitions.len())
    })
}

fn edges(lists: Vec<Vec<(u32, u32)>>, source: &Stage) -> Edges {
    let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let one_to_one = lists.len() == source.tasks
        && lists
            .iter()
            .enumerate()
            .all(|(task, list)| *list == [(small(task), 0)]);
    if one_to_one {
        return Edges::OneToOne;
    }
    let column = |output: usize| (0..small(source.tasks)).map(move |task| (task, small(output)));
    let shuffle = lists.len() == source.output.count()
        && lists
            .iter()
            .enumerate()
            .all(|(task, list)| list.iter().copied().eq(column(task)));
    if shuffle {
        return Edges::Shuffle;
    }
    if lists.iter().all(|list| list.iter().copied().eq(column(0))) {
        return Edges::Broadcast;
    }
    Edges::Explicit(ExplicitEdges::from_lists(lists.iter().map(Vec::as_slice)))
}
