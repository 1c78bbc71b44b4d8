//! What can go wrong in the runtime outside of a task, with context, cause and remedy.

use std::io;
use std::path::PathBuf;

use transload_dashboard::DashboardError;
use transload_transport::TransportError;

use crate::config::ConfigError;
use crate::control::ControlError;
use crate::gpu::GpuChoice;
use crate::scheduler_server::JournalError;

/// Why a scheduler, worker or local cluster could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A control connection could not be made or ended badly.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A scheduler cannot listen where it was told to.
    #[error(
        "the scheduler cannot listen on {address}: {source}; is another scheduler running there? \
         Choose another with --host and --port (port 0 picks a free one)"
    )]
    Bind {
        /// Host and port as configured.
        address: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The dashboard that was asked for cannot be had.
    #[error("{0}; see --dashboard and --dashboard-token-file")]
    Dashboard(#[from] DashboardError),
    /// A worker cannot listen for data.
    #[error(
        "the worker cannot listen for data on {address}: {source}; see --data-host, --data-port and --ucx-port"
    )]
    Listen {
        /// Transport, host and port as configured.
        address: String,
        /// The transport's answer.
        source: TransportError,
    },
    /// UCX is wanted by name and cannot be started.
    #[error(
        "--transport ucx: {reason}; --ucx-library-dir names the folder of a UCX, and --transport auto does without where there is none"
    )]
    NoUcx {
        /// Why, in words.
        reason: String,
    },
    /// A GPU is wanted by its number and cannot be had.
    #[error("--gpu {wanted}: {reason}; --gpu auto does without where there is none")]
    NoGpu {
        /// What was wanted.
        wanted: GpuChoice,
        /// Why, in words.
        reason: String,
    },
    /// More of a GPU's memory is wanted than it has.
    #[error(
        "--gpu-memory {wanted_bytes}: the GPU has {total_bytes} B; leave it out for three quarters of them"
    )]
    GpuTooSmall {
        /// What was wanted.
        wanted_bytes: u64,
        /// What there is.
        total_bytes: u64,
    },
    /// After a fault nothing works on the worker's GPU in this process.
    #[error("{reason}; this worker ends, and what it held is made anew elsewhere")]
    GpuLost {
        /// The driver's answer.
        reason: String,
    },
    /// The spill directory cannot be made.
    #[error("cannot use {} for spilled partitions: {source}; choose another with --spill-dir", path.display())]
    SpillDirectory {
        /// The directory as configured.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// A file or folder of ours cannot be written or read.
    #[error("{what} {}: {source}", path.display())]
    File {
        /// What was tried, as in "cannot write scheduler file".
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The threads that run operators or the scheduler cannot be started.
    #[error("cannot start {what}: {source}")]
    Threads {
        /// Which.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The connection to the scheduler ended although nobody asked for it.
    #[error(
        "the scheduler at {address} is gone ({reason}); this worker ends, and its partitions with it"
    )]
    SchedulerLost {
        /// The scheduler's address.
        address: String,
        /// How it was noticed.
        reason: String,
    },
    /// A worker of a local cluster could not be brought up.
    #[error(
        "worker {index} of the local cluster did not start: {reason}; its own message, if any, stands above"
    )]
    WorkerStart {
        /// Which, from 0.
        index: usize,
        /// Why.
        reason: String,
    },
    /// No scheduler was named.
    #[error(
        "no scheduler named; give HOST:PORT, or --scheduler-file with the file that `transload scheduler` wrote"
    )]
    NoScheduler,
    /// The scheduler's journal cannot be read or written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The scheduler that this worker came back to does not know it: it is to start anew.
    #[error("the scheduler at {address} does not know this worker any more ({reason})")]
    Forgotten {
        /// The scheduler's address.
        address: String,
        /// Its answer.
        reason: String,
    },
    /// A scheduler that has stopped was asked something.
    #[error("the scheduler has stopped")]
    SchedulerStopped,
}
