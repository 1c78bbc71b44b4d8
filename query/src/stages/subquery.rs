//! Scalar subqueries: each is a stage of its own whose one row is broadcast to the stages whose expressions use it.

use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, not_impl_err};
use datafusion::logical_expr::physical_planning_context::{ScalarSubqueryResults, SubqueryIndex};
use datafusion::physical_expr::scalar_subquery::ScalarSubqueryExpr;
use datafusion::physical_plan::scalar_subquery::{ScalarSubqueryExec, ScalarSubqueryLink};
use datafusion::physical_plan::{ExecutionPlan, PlanProperties};

use super::{Cutter, Layout, Region, gathered, partitions, read};

/// The scalar subqueries of one level of the query.
#[derive(Debug)]
pub(super) struct Scope {
    results: ScalarSubqueryResults,
    subqueries: Vec<(SubqueryIndex, usize, Arc<PlanProperties>)>,
}

impl Cutter {
    /// Makes a stage of each subquery. Expressions that use them are found when their stages are closed.
    pub(super) fn open_scope(&mut self, scalar: &ScalarSubqueryExec) -> Result<()> {
        let mut subqueries = Vec::new();
        for link in scalar.subqueries() {
            let plan = if partitions(&link.plan) > 1 {
                gathered(Arc::clone(&link.plan), None)
            } else {
                Arc::clone(&link.plan)
            };
            let (source, _) = self.close(&plan)?;
            subqueries.push((link.index, source, Arc::clone(plan.properties())));
        }
        self.scopes.push(Scope {
            results: scalar.results().clone(),
            subqueries,
        });
        Ok(())
    }

    /// The same plan below an operator that computes the scalar subqueries it uses, where it uses any.
    pub(super) fn with_subqueries(
        &mut self,
        plan: Arc<dyn ExecutionPlan>,
        region: &mut Region,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let used: Vec<&Scope> = self
            .scopes
            .iter()
            .filter(|scope| uses(&plan, &scope.results))
            .collect();
        let [scope] = used.as_slice() else {
            return match used.len() {
                0 => Ok(plan),
                count => not_impl_err!("scalar subqueries of {count} levels in one stage"),
            };
        };
        let links = scope
            .subqueries
            .iter()
            .map(|(index, source, properties)| {
                region.reads.push((*source, Layout::Merged));
                ScalarSubqueryLink {
                    plan: read(region.reads.len() - 1, Arc::clone(properties)),
                    index: *index,
                }
            })
            .collect();
        Ok(Arc::new(ScalarSubqueryExec::new(
            plan,
            links,
            scope.results.clone(),
        )))
    }
}

fn uses(plan: &Arc<dyn ExecutionPlan>, results: &ScalarSubqueryResults) -> bool {
    let mut found = false;
    // Neither closure fails, so neither does the walk.
    let _ = plan.apply(|node| {
        node.apply_expressions(&mut |root| {
            root.apply(|expr| {
                found |= expr
                    .downcast_ref::<ScalarSubqueryExpr>()
                    .is_some_and(|used| ScalarSubqueryResults::ptr_eq(used.results(), results));
                Ok(if found {
                    TreeNodeRecursion::Stop
                } else {
                    TreeNodeRecursion::Continue
                })
            })
        })
    });
    found
}
