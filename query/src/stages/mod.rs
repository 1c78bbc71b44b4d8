//! Cuts a physical plan at its exchanges into stages. Called by the session with a finished DataFusion plan; knows operators
//! and how their partitions depend on each other, never workers or bytes.
//!
//! A stage is a plan whose partitions can each be computed alone, given the partitions it reads. Operators that move rows
//! between partitions (hash repartitioning, merging, broadcasting) become boundaries; operators that keep state across
//! partitions get a stage of one task. An operator this module does not know is never cut: it runs whole, in one task.

mod edges;
mod exchanges;
mod kind;
mod rule;
mod subquery;

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result, internal_err};
use datafusion::physical_expr::Partitioning;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::limit::LocalLimitExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::scalar_subquery::ScalarSubqueryExec;
use datafusion::physical_plan::{
    ExecutionPlan, ExecutionPlanProperties, PlanProperties, replace_children_if_necessary,
};
use transload_protocol::Edges;

use crate::exchange::ExchangeReadExec;
pub(crate) use exchanges::Exchanges;
use kind::{Kind, kind_of};
pub(crate) use rule::PartitionedOuterJoins;
use subquery::Scope;

/// One stage: a layer of tasks.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    /// What each task does.
    pub(crate) work: Work,
    pub(crate) tasks: usize,
    pub(crate) output: Output,
    pub(crate) inputs: Vec<Input>,
    /// Why one task runs several partitions of the plan, where it does.
    pub(crate) whole: Option<String>,
}

/// What the tasks of a stage do.
#[derive(Debug, Clone)]
pub(crate) enum Work {
    /// Run this plan on the host. The root is a `RepartitionExec` where the output is hashed; tasks run what is below it.
    Plan(Arc<dyn ExecutionPlan>),
    /// Hash rows by these columns, on the worker's GPU.
    HashOnDevice(Vec<Column>),
    /// Put the rows of all inputs behind each other, on the worker's GPU.
    ConcatOnDevice,
}

impl Stage {
    /// The plan of a stage on the host.
    pub(crate) fn plan(&self) -> Option<&Arc<dyn ExecutionPlan>> {
        match &self.work {
            Work::Plan(plan) => Some(plan),
            Work::HashOnDevice(_) | Work::ConcatOnDevice => None,
        }
    }
}

/// What a task makes of the rows of its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// One partition.
    One,
    /// One partition, of columns as they go over devices.
    Carried,
    /// As many as the exchange at the root of the plan says.
    Hashed(usize),
    /// One for each partition of the plan: the only task runs them all.
    Each(usize),
}

impl Output {
    /// Partitions that each task makes.
    pub(crate) fn count(self) -> usize {
        match self {
            Self::One | Self::Carried => 1,
            Self::Hashed(count) | Self::Each(count) => count,
        }
    }
}

/// One input of a stage.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    /// The stage that it reads.
    pub(crate) source: usize,
    pub(crate) edges: Edges,
    /// What the list of partitions that a task is given stands for.
    pub(crate) given: Given,
}

/// How the partitions of a read are made of the outputs of its source's tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Partition `p` is output `p` of every task.
    Outputs,
    /// Partition `p` is output 0 of task `p`.
    Tasks,
    /// The only partition is output 0 of every task.
    Merged,
}

/// How a task finds the partition it asks for among those it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Given {
    /// All of them are the one that this task reads.
    One,
    /// The `p`-th is partition `p`.
    Each,
}

/// A whole query, cut.
#[derive(Debug, Clone)]
pub(crate) struct Cut {
    /// In topological order; the last is the one that the client reads.
    pub(crate) stages: Vec<Stage>,
    /// What the client does with the last stage's partitions: merge, limit, rename. Its leaf reads input 0.
    pub(crate) tail: Arc<dyn ExecutionPlan>,
    /// The layout of that input.
    pub(crate) layout: Layout,
    /// Where its hash exchanges are, and why.
    pub(crate) exchanges: Exchanges,
}

/// The plan of a stage under construction.
#[derive(Debug, Default)]
struct Region {
    reads: Vec<(usize, Layout)>,
}

#[derive(Debug, Default)]
struct Cutter {
    stages: Vec<Stage>,
    scopes: Vec<Scope>,
    exchanges: Exchanges,
}

/// Cuts a plan. Hash exchanges go over devices where that is wanted and all of them can; else all stay on the host, as rows that are
/// joined must have been hashed in the same way.
///
/// # Errors
/// DataFusion's, when a plan cannot be rebuilt around an exchange.
pub(crate) fn cut(plan: &Arc<dyn ExecutionPlan>, on_devices: bool) -> Result<Cut> {
    let plan = without_round_robin(plan)?;
    if !on_devices || !exchanges::has_any(&plan) {
        return cut_with(&plan, Exchanges::Host);
    }
    let refused = match exchanges::refusal(&plan)? {
        Some(reason) => reason,
        None => {
            let cut = cut_with(&plan, Exchanges::Devices)?;
            match exchanges::hashes_inside(&cut.stages) {
                Some(reason) => reason,
                None => return Ok(cut),
            }
        }
    };
    cut_with(&plan, Exchanges::HostBecause(refused))
}

fn cut_with(plan: &Arc<dyn ExecutionPlan>, exchanges: Exchanges) -> Result<Cut> {
    let mut cutter = Cutter {
        exchanges,
        ..Cutter::default()
    };
    let mut region = Region::default();
    let tail = cutter.tail(plan, &mut region)?;
    match region.reads.as_slice() {
        [(source, layout)] if source + 1 == cutter.stages.len() => Ok(Cut {
            stages: cutter.stages,
            tail,
            layout: *layout,
            exchanges: cutter.exchanges,
        }),
        _ => internal_err!("the client would read {} stages", region.reads.len()),
    }
}

/// A plan that is not cut at all: one task runs it.
pub(crate) fn uncut(plan: &Arc<dyn ExecutionPlan>, reason: String) -> Cut {
    let count = plan.output_partitioning().partition_count().max(1);
    let stage = Stage {
        work: Work::Plan(Arc::clone(plan)),
        tasks: 1,
        output: Output::Each(count),
        inputs: Vec::new(),
        whole: Some(reason),
    };
    Cut {
        stages: vec![stage],
        tail: read(0, merged_properties(plan)),
        layout: Layout::Merged,
        exchanges: Exchanges::Host,
    }
}

/// A leaf that reads input `index` and stands for a plan with these properties.
fn read(index: usize, properties: Arc<PlanProperties>) -> Arc<dyn ExecutionPlan> {
    Arc::new(ExchangeReadExec::new(index, None, properties))
}

/// Properties of all partitions of `plan` as one.
fn merged_properties(plan: &Arc<dyn ExecutionPlan>) -> Arc<PlanProperties> {
    Arc::clone(gathered(Arc::clone(plan), None).properties())
}

fn gathered(plan: Arc<dyn ExecutionPlan>, fetch: Option<usize>) -> Arc<dyn ExecutionPlan> {
    Arc::new(CoalescePartitionsExec::new(plan).with_fetch(fetch))
}

fn partitions(plan: &Arc<dyn ExecutionPlan>) -> usize {
    plan.output_partitioning().partition_count()
}

/// What of `plan` is left to do where only its first `fetch` rows are wanted of each partition.
fn limited(plan: &Arc<dyn ExecutionPlan>, fetch: Option<usize>) -> Arc<dyn ExecutionPlan> {
    match fetch {
        Some(fetch) if plan.fetch().is_none_or(|own| own > fetch) => {
            Arc::new(LocalLimitExec::new(Arc::clone(plan), fetch))
        }
        _ => Arc::clone(plan),
    }
}

impl Cutter {
    /// Cuts `plan`, leaving to the client the merging, limiting and renaming at its top.
    fn tail(
        &mut self,
        plan: &Arc<dyn ExecutionPlan>,
        region: &mut Region,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if let Some(scalar) = plan.downcast_ref::<ScalarSubqueryExec>() {
            self.open_scope(scalar)?;
            return self.tail(scalar.input(), region);
        }
        if !kind::ends_in_a_merge(plan) {
            let (source, _) = self.close(plan)?;
            // In the order in which tasks complete: nothing depends on it, or there is one task.
            return Ok(self.join(region, source, Layout::Merged, merged_properties(plan)));
        }
        let children = plan.children();
        let [child] = children.as_slice() else {
            return internal_err!("{} has {} children", plan.name(), children.len());
        };
        let child = match kind::merge_fetch(plan) {
            Some(fetch) if partitions(child) > 1 => {
                let (source, layout) = self.close(&limited(child, fetch))?;
                if plan.is::<CoalescePartitionsExec>() {
                    // In the order in which tasks complete, so that a limit is reached early.
                    self.join(region, source, Layout::Merged, merged_properties(child))
                } else {
                    self.join(region, source, layout, Arc::clone(child.properties()))
                }
            }
            _ => self.tail(child, region)?,
        };
        replace_children_if_necessary(Arc::clone(plan), vec![child])
    }

    fn join(
        &mut self,
        region: &mut Region,
        source: usize,
        layout: Layout,
        properties: Arc<PlanProperties>,
    ) -> Arc<dyn ExecutionPlan> {
        region.reads.push((source, layout));
        read(region.reads.len() - 1, properties)
    }

    /// Makes a stage of `plan` whose tasks have one output each, and says how to read its partitions.
    fn close(&mut self, plan: &Arc<dyn ExecutionPlan>) -> Result<(usize, Layout)> {
        let mut region = Region::default();
        let plan = self.visit(plan, &mut region)?;
        if let (Some(_), [(source, layout)]) = (
            plan.downcast_ref::<ExchangeReadExec>(),
            region.reads.as_slice(),
        ) && *layout != Layout::Merged
            && self.stages.get(*source).is_some_and(|stage| {
                stage.plan().is_some() && !matches!(stage.output, Output::Hashed(_))
            })
        {
            // Nothing is left to do between two exchanges.
            return Ok((*source, *layout));
        }
        let tasks = partitions(&plan).max(1);
        let source = self.push(plan, tasks, Output::One, region, None)?;
        Ok((source, Layout::Tasks))
    }

    /// Makes stages whose rows are distributed as `exchange` says, and says how to read the partitions.
    fn close_hashed(&mut self, exchange: &RepartitionExec) -> Result<(usize, Layout)> {
        let mut region = Region::default();
        let input = self.visit(exchange.input(), &mut region)?;
        let tasks = partitions(&input).max(1);
        let count = exchange.partitioning().partition_count();
        if self.exchanges == Exchanges::Devices {
            let keys = exchanges::keys(exchange)?;
            let source = self.push(input, tasks, Output::Carried, region, None)?;
            return Ok((
                self.push_on_device(source, tasks, keys, count),
                Layout::Tasks,
            ));
        }
        let input = self.with_subqueries(input, &mut region)?;
        let plan = Arc::new(RepartitionExec::try_new(
            input,
            exchange.partitioning().clone(),
        )?);
        let source = self.push_stage(plan, tasks, Output::Hashed(count), region, None)?;
        Ok((source, Layout::Outputs))
    }

    /// The two stages that take what the tasks of `source` have made through an exchange on devices.
    fn push_on_device(
        &mut self,
        source: usize,
        tasks: usize,
        keys: Vec<Column>,
        count: usize,
    ) -> usize {
        let reading = |source, edges| Input {
            source,
            edges,
            given: Given::One,
        };
        self.stages.push(Stage {
            work: Work::HashOnDevice(keys),
            tasks,
            output: Output::Hashed(count),
            inputs: vec![reading(source, Edges::OneToOne)],
            whole: None,
        });
        let hashed = self.stages.len() - 1;
        self.stages.push(Stage {
            work: Work::ConcatOnDevice,
            tasks: count,
            output: Output::One,
            inputs: vec![reading(hashed, Edges::Shuffle)],
            whole: None,
        });
        hashed + 1
    }

    /// Makes a stage of one task that runs every partition of `plan`, because of `reason`.
    fn close_whole(
        &mut self,
        plan: Arc<dyn ExecutionPlan>,
        region: Region,
        reason: String,
    ) -> Result<usize> {
        let count = partitions(&plan);
        self.push(plan, 1, Output::Each(count), region, Some(reason))
    }

    fn push(
        &mut self,
        plan: Arc<dyn ExecutionPlan>,
        tasks: usize,
        output: Output,
        mut region: Region,
        whole: Option<String>,
    ) -> Result<usize> {
        let plan = self.with_subqueries(plan, &mut region)?;
        self.push_stage(plan, tasks, output, region, whole)
    }

    fn push_stage(
        &mut self,
        plan: Arc<dyn ExecutionPlan>,
        tasks: usize,
        output: Output,
        region: Region,
        whole: Option<String>,
    ) -> Result<usize> {
        let inputs = edges::inputs(&plan, tasks, output, &region.reads, &self.stages)?;
        self.stages.push(Stage {
            work: Work::Plan(plan),
            tasks,
            output,
            inputs,
            whole,
        });
        Ok(self.stages.len() - 1)
    }

    /// The same plan with reads where it was cut.
    fn visit(
        &mut self,
        plan: &Arc<dyn ExecutionPlan>,
        region: &mut Region,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if let Some(scalar) = plan.downcast_ref::<ScalarSubqueryExec>() {
            self.open_scope(scalar)?;
            return self.visit(scalar.input(), region);
        }
        match kind_of(plan) {
            Kind::Exchange => self.visit_exchange(plan, region),
            Kind::Merge => self.visit_merge(plan, region),
            Kind::BuildOnce => self.visit_build_once(plan, region),
            Kind::PerPartition => {
                let children = plan
                    .children()
                    .into_iter()
                    .map(|child| self.visit(child, region))
                    .collect::<Result<Vec<_>>>()?;
                replace_children_if_necessary(Arc::clone(plan), children)
            }
            Kind::Unknown if partitions(plan) <= 1 => Ok(Arc::clone(plan)),
            Kind::Unknown => {
                let reason = format!("{} is not cut", plan.name());
                let source = self.close_whole(Arc::clone(plan), Region::default(), reason)?;
                Ok(self.join(
                    region,
                    source,
                    Layout::Outputs,
                    Arc::clone(plan.properties()),
                ))
            }
        }
    }

    fn visit_exchange(
        &mut self,
        plan: &Arc<dyn ExecutionPlan>,
        region: &mut Region,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(exchange) = plan.downcast_ref::<RepartitionExec>() else {
            return internal_err!("{} is no exchange", plan.name());
        };
        let (source, layout) = self.close_hashed(exchange)?;
        let merge = exchange
            .preserve_order()
            .then(|| exchange.input().output_ordering().cloned())
            .flatten();
        region.reads.push((source, layout));
        Ok(Arc::new(ExchangeReadExec::new(
            region.reads.len() - 1,
            merge,
            Arc::clone(plan.properties()),
        )))
    }

    fn visit_merge(
        &mut self,
        plan: &Arc<dyn ExecutionPlan>,
        region: &mut Region,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let children = plan.children();
        let ([child], Some(fetch)) = (children.as_slice(), kind::merge_fetch(plan)) else {
            return internal_err!("{} is no merge", plan.name());
        };
        if partitions(child) <= 1 {
            let child = self.visit(child, region)?;
            return replace_children_if_necessary(Arc::clone(plan), vec![child]);
        }
        let (source, layout) = self.close(&limited(child, fetch))?;
        if plan.is::<CoalescePartitionsExec>() && fetch.is_none() && layout == Layout::Tasks {
            let properties = Arc::clone(plan.properties());
            return Ok(self.join(region, source, Layout::Merged, properties));
        }
        let leaf = self.join(region, source, layout, Arc::clone(child.properties()));
        replace_children_if_necessary(Arc::clone(plan), vec![leaf])
    }

    /// A join whose first child is read whole by every partition of its second.
    fn visit_build_once(
        &mut self,
        plan: &Arc<dyn ExecutionPlan>,
        region: &mut Region,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let children = plan.children();
        let [build, probe] = children.as_slice() else {
            return internal_err!("{} has {} children", plan.name(), children.len());
        };
        let reason = kind::tracks_build_rows(plan).filter(|_| partitions(probe) > 1);
        if let Some(reason) = reason {
            let mut own = Region::default();
            let (source, layout) = self.close(probe)?;
            let probe = self.join(&mut own, source, layout, Arc::clone(probe.properties()));
            let build = self.visit(build, &mut own)?;
            let join = replace_children_if_necessary(Arc::clone(plan), vec![build, probe])?;
            let properties = Arc::clone(join.properties());
            let source = self.close_whole(join, own, reason)?;
            return Ok(self.join(region, source, Layout::Outputs, properties));
        }
        let probe = self.visit(probe, region)?;
        let build = if partitions(&probe) > 1 {
            self.broadcast(build, region)?
        } else {
            self.visit(build, region)?
        };
        replace_children_if_necessary(Arc::clone(plan), vec![build, probe])
    }

    /// A read of all rows of `plan`, for every task of the region.
    fn broadcast(
        &mut self,
        plan: &Arc<dyn ExecutionPlan>,
        region: &mut Region,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let properties = Arc::clone(plan.properties());
        let gather = plan
            .downcast_ref::<CoalescePartitionsExec>()
            .filter(|gather| gather.fetch().is_none());
        let Some(gather) = gather else {
            let (source, _) = self.close(plan)?;
            return Ok(self.join(region, source, Layout::Merged, properties));
        };
        let input = gather.input();
        let (mut source, layout) = self.close(input)?;
        if layout != Layout::Tasks {
            let mut own = Region::default();
            let leaf = self.join(&mut own, source, layout, Arc::clone(input.properties()));
            source = self.push(gathered(leaf, None), 1, Output::One, own, None)?;
        }
        Ok(self.join(region, source, Layout::Merged, properties))
    }
}

/// The plan without round-robin exchanges: they only spread work over threads, and tasks are spread already.
fn without_round_robin(plan: &Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let plan = Arc::clone(plan).transform_up(|plan| {
        Ok(match plan.downcast_ref::<RepartitionExec>() {
            Some(exchange)
                if matches!(exchange.partitioning(), Partitioning::RoundRobinBatch(_)) =>
            {
                Transformed::yes(Arc::clone(exchange.input()))
            }
            _ => Transformed::no(plan),
        })
    })?;
    Ok(plan.data)
}
