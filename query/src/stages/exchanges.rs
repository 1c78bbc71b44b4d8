//! Where the hash exchanges of a query are: on the host, or on devices. All of them are in one place, because the same rows have other
//! hashes there, and joins rely on equal ones. Part of `stages`; knows what kernels can hash, never how.

use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::physical_expr::Partitioning;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

use super::Stage;
use crate::device::carried_schema;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Exchanges {
    /// On the host, as nobody asked for more.
    #[default]
    Host,
    /// On the host, although devices were asked for.
    HostBecause(String),
    /// On devices.
    Devices,
}

/// Why not all exchanges of a plan can go over devices, if so.
///
/// # Errors
/// DataFusion's.
pub(super) fn refusal(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<String>> {
    let mut refused = None;
    plan.apply(|node| {
        refused = refusal_of(node);
        Ok(match refused {
            Some(_) => TreeNodeRecursion::Stop,
            None => TreeNodeRecursion::Continue,
        })
    })?;
    Ok(refused)
}

fn refusal_of(node: &Arc<dyn ExecutionPlan>) -> Option<String> {
    let Some(exchange) = node.downcast_ref::<RepartitionExec>() else {
        let partitioning = node.output_partitioning();
        let is_hashed_source = node.children().is_empty() && is_hash(partitioning);
        return is_hashed_source.then(|| format!("{} is hashed as it is", node.name()));
    };
    if exchange.preserve_order() && exchange.input().output_ordering().is_some() {
        return Some("an exchange keeps rows in order".to_owned());
    }
    if !is_hash(exchange.partitioning()) {
        return Some(format!("an exchange is by {}", exchange.partitioning()));
    }
    let key = hash_keys(exchange).iter().find(|key| !key.is::<Column>());
    if let Some(key) = key {
        return Some(format!("the key {key} is no plain column"));
    }
    carried_schema(&exchange.schema()).err()
}

fn is_hash(partitioning: &Partitioning) -> bool {
    matches!(partitioning, Partitioning::Hash(_, count) if *count > 1)
}

fn hash_keys(exchange: &RepartitionExec) -> &[Arc<dyn datafusion::physical_expr::PhysicalExpr>] {
    match exchange.partitioning() {
        Partitioning::Hash(keys, _) => keys,
        _ => &[],
    }
}

/// The columns that an exchange hashes.
///
/// # Errors
/// Where [`refusal`] would have told.
pub(super) fn keys(exchange: &RepartitionExec) -> Result<Vec<Column>> {
    let column = |key: &Arc<dyn datafusion::physical_expr::PhysicalExpr>| {
        let column = key.downcast_ref::<Column>().cloned();
        column.ok_or_else(|| internal_datafusion_err!("the key {key} is no plain column"))
    };
    hash_keys(exchange).iter().map(column).collect()
}

/// Why a stage hashes rows in another way than devices would, if one does: it runs a part of the plan that was not cut.
pub(super) fn hashes_inside(stages: &[Stage]) -> Option<String> {
    let mut plans = stages.iter().filter_map(Stage::plan);
    let reason = "a part of the plan that runs as one task hashes rows itself";
    plans.any(has_any).then(|| reason.to_owned())
}

/// Whether there is an exchange in the plan.
pub(super) fn has_any(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.is::<RepartitionExec>() || plan.children().into_iter().any(has_any)
}
