//! Runs SQL on the cluster: plans, stages, exchanges and operators.
//!
//! DataFusion parses, optimizes and computes. This crate cuts its physical plans at exchanges into stages ([`DistributedPlan`]),
//! runs each stage as a layer of tasks (the operator `sql-stage`, from [`operators`]), and carries Arrow batches in partitions
//! ([`partition`]). [`SqlSession`] is what a client uses. Deliberately does not know where tasks run or how partitions move.
#![forbid(unsafe_code)]

mod codec;
mod device;
mod error;
mod exchange;
mod execute;
mod operator;
pub mod partition;
mod plan;
mod session;
mod settings;
mod stages;
#[cfg(test)]
mod tests;

pub use error::QueryError;
pub use execute::Execution;
pub use operator::operators;
pub use plan::DistributedPlan;
pub use session::{FileKind, FileOptions, SqlOptions, SqlSession};
