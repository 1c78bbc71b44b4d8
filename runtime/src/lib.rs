//! Does what the pure machines decide: clocks, sockets, threads, the partition store, executors, client and local cluster.
//!
//! [`SchedulerServer`] drives `transload-scheduler`, [`run_worker`] drives `transload-worker`; both only translate between
//! sockets, clocks and the machines' inputs and actions, and decide nothing. Operators are registered by name
//! ([`OperatorRegistry`]); [`config`] holds every limit in one documented table. Deliberately knows no SQL.
#![forbid(unsafe_code)]

pub mod bench;
pub mod builtin;
pub mod client;
mod clock;
pub mod config;
pub mod control;
mod environment;
mod error;
pub mod fetcher;
mod gang;
pub mod gpu;
mod inside;
mod local_cluster;
mod operator;
pub mod process;
mod scatter;
mod scheduler_server;
pub mod transports;
mod worker_process;

pub use builtin::builtin_operators;
pub use client::coordination;
pub use client::{
    Client, ClientError, ClientOptions, GraphHandle, LayerHandle, ScatterOptions, Scattered,
    Waited, as_completed, wait_all,
};
pub use config::Config;
pub use control::ControlError;
pub use environment::WorkerEnvironment;
pub use error::RuntimeError;
pub use gang::Gang;
pub use local_cluster::{LocalCluster, LocalClusterOptions, WorkerMode};
pub use operator::{
    DeviceOperator, DeviceTask, Operator, OperatorError, OperatorFactory, OperatorRegistry,
    TaskContext,
};
pub use scheduler_server::{JournalError, SchedulerFile, SchedulerServer};
pub use tokio_util::sync::CancellationToken;
pub use worker_process::run_worker;
