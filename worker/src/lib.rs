//! Pure state machine that decides what a worker fetches, starts, spills and drops.
//!
//! `runtime` feeds it [`Input`]s and carries out its [`Action`]s; `sim` does the same under a fake clock and network. It
//! knows sizes and tiers of partitions, never their bytes, and no socket or clock.
#![forbid(unsafe_code)]

mod absence;
mod ahead;
mod api;
mod assign;
mod check;
mod fetch;
mod gang;
mod index;
mod machine;
mod memory;
mod release;
mod report;
mod run;
mod secede;
mod spill;
mod store;
mod tasks;

pub use api::{Action, Config, FetchFault, Given, GpuConfig, Input};
pub use machine::Worker;
