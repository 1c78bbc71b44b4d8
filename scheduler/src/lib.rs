//! Pure state machine that decides where and when each task runs.
//!
//! `runtime` feeds it [`Input`]s and carries out its [`Action`]s; `sim` does the same under a fake clock and network. It
//! deliberately knows no bytes, sockets or clock: time is an argument.
#![forbid(unsafe_code)]

mod apart;
mod api;
mod attempts;
mod barrier;
mod bits;
mod check;
mod clients;
mod coordination;
mod cost;
mod ending;
mod explain;
mod family;
mod follow;
mod gang;
mod graph;
mod held_up;
mod holds;
mod imports;
mod info;
mod inventory;
mod limits;
mod lineage;
mod machine;
mod members;
mod open;
mod pace;
mod place;
mod ready;
mod recall;
mod record;
mod reports;
mod restore;
mod retry;
mod scope;
mod secede;
mod session;
mod share;
mod sharing;
mod slab;
mod steal;
mod stragglers;
mod stuck;
mod task;
#[cfg(test)]
mod testing;
mod timers;
mod traffic;
mod transition;
mod weighed;
mod worker;

pub use api::{Action, Config, CoordinationLimits, Input};
pub use machine::Scheduler;
pub use record::Facts;
