//! Whole statements through the planner, run task by task in this process and compared with DataFusion alone.

mod data;
mod explain;
mod features;
mod gpu;
mod oracle;
mod settings;
mod tpch;
