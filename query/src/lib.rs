//! Runs SQL on the cluster: plans, stages, exchanges and operators.
