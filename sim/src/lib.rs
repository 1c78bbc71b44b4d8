//! Both pure machines under one seed: fake clock, fake network, faults.
//!
//! [`Simulation::run`] plays one scheduler, some workers and some clients against each other in simulated time. Links
//! delay and drop messages, workers die, stall and come back, disks fill up, tasks fail, clients change their minds. After
//! each step every machine checks itself; at the end every graph has the right values or the right error, and nothing is
//! left anywhere. It deliberately knows no byte of real data and no real clock.
//!
//! A run is a pure function of its seed: a seed that failed once fails again, and becomes a test.
#![forbid(unsafe_code)]

mod client;
mod faults;
mod gangs;
mod graphs;
mod judge;
mod network;
mod process;
mod random;
mod scenario;
mod simulation;
mod trace;
mod world;

pub use scenario::Scenario;
pub use simulation::Simulation;
pub use trace::{Failure, Tracing};
pub use world::Report;
