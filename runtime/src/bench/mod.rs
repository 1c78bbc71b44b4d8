//! Measures the scheduler with *instant workers*: simulated ones that answer each assignment at once, do no work and move no
//! bytes, so that what is left is the scheduler's own cost; tasks end to end; and transports. Called by `transload bench`.
//!
//! Every run takes place in processes of its own, started from this very program ([`Program`], [`run_part`]): a process that has
//! run a graph before would find memory already there and hide what the next one needs. Needs Linux, whose `/proc` says what a
//! process has used. Deliberately knows nothing of operators and partitions.

mod graphs;
mod instant;
mod machine;
mod part;
mod sockets;
mod tasks;
mod transfer;
mod transport;
mod usage;

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use transload_protocol::{GraphError, GraphOutcome};

use crate::{
    ClientError, Config, ControlError, LocalCluster, LocalClusterOptions, RuntimeError, WorkerMode,
};

pub use graphs::{Shape, edge_count};
pub use part::run_part;
pub use tasks::{MeasuredTasks, PerTask, Spread, TaskBench};
pub use transfer::{MeasuredTransfer, TransferBench};
pub use transport::{BenchServer, LARGEST_PARTITION_BYTES, MeasuredTransport, TransportBench};

/// What stands around the scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The machine alone: no socket, codec or thread. Its CPU time is that of the one thread on which machine and instant
    /// workers take turns, so the workers' few nanoseconds count, too.
    Machine,
    /// A scheduler process with real control connections, and the instant workers in another process. The CPU time is that of all
    /// threads of the scheduler process and of nothing else.
    Sockets,
}

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchedulerBench {
    /// Which graph.
    pub graph: Shape,
    /// About how many tasks; what was measured says how many exactly.
    pub tasks: u32,
    /// Instant workers.
    pub workers: u32,
    /// Slots of each.
    pub slots: u32,
    /// Where [`Shape::Random`] begins to draw.
    pub seed: u64,
    /// What stands around the scheduler.
    pub mode: Mode,
}

/// What a run cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// What was measured, with the exact number of tasks.
    #[serde(flatten)]
    pub bench: SchedulerBench,
    /// Partitions read by all tasks together.
    pub edges: u64,
    /// Runs of which the numbers below are the medians.
    pub runs: u32,
    /// From submission to the end of the graph.
    pub wall_s: f64,
    /// CPU time of the scheduler, in microseconds for each task.
    pub scheduler_cpu_us_per_task: f64,
    /// Growth of the scheduler's resident memory from before the submission to its peak, in bytes for each task. Holds the graph
    /// as it was submitted.
    pub bytes_per_task: f64,
    /// Messages between the scheduler and its peers, both ways.
    pub messages: u64,
}

/// How to start parts of a measurement: `program arguments… PART`, which must call [`run_part`] with its last argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The program, usually this one.
    pub program: PathBuf,
    /// Its first arguments.
    pub arguments: Vec<String>,
}

impl Program {
    /// A cluster whose workers are processes of this program.
    async fn start_cluster(
        &self,
        workers: u32,
        slots: u32,
        memory_per_worker_bytes: Option<u64>,
        config: Config,
    ) -> Result<LocalCluster, RuntimeError> {
        LocalCluster::start(LocalClusterOptions {
            workers,
            slots_per_worker: Some(slots),
            memory_per_worker_bytes,
            spill_dir: None,
            mode: WorkerMode::Processes {
                program: self.program.clone(),
                arguments: self.arguments.clone(),
            },
            config,
        })
        .await
    }
}

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A process of the measurement could not be started.
    #[error("cannot start {}: {source}", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A process of the measurement ended early or said something unexpected.
    #[error("{what} of the measurement {how}; its own message, if any, stands above")]
    Part {
        /// Which part.
        what: &'static str,
        /// What it did.
        how: String,
    },
    /// The system does not say what a process has used.
    #[error("{path} cannot be read: {source}; measuring needs Linux and its /proc")]
    Usage {
        /// The file.
        path: String,
        /// What went wrong.
        source: io::Error,
    },
    /// The scheduler could not be started.
    #[error(transparent)]
    Scheduler(#[from] RuntimeError),
    /// A connection to the scheduler could not be made or ended.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A client of the measurement failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The scheduler refuses the graph.
    #[error("the scheduler refuses the graph: {0}")]
    Rejected(#[from] GraphError),
    /// The graph did not end as it should.
    #[error("the graph did not finish: {0:?}")]
    Ended(Option<Box<GraphOutcome>>),
    /// More workers than this process may have connections.
    #[error(
        "{workers} workers need {workers} connections, and a process may have only {files} files open; raise the limit with `ulimit -n`"
    )]
    TooManyWorkers {
        /// As asked for.
        workers: u32,
        /// The limit.
        files: u64,
    },
    /// Nothing can be fetched from the other side.
    #[error(
        "cannot fetch from {peer}: {reason}; `transload bench transport --serve` must run there"
    )]
    Fetch {
        /// Its address.
        peer: String,
        /// What went wrong, in words.
        reason: String,
    },
    /// Partitions cannot be served.
    #[error("cannot serve partitions: {reason}")]
    Serve {
        /// What went wrong, in words.
        reason: String,
    },
    /// Standard output is gone.
    #[error("cannot write to standard output: {0}")]
    Output(#[source] io::Error),
}

impl Mode {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Sockets => "sockets",
        }
    }
}

impl SchedulerBench {
    /// Runs it once, in processes of its own, which are killed when the future is dropped. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`BenchError`].
    pub async fn measure(self, program: &Program) -> Result<Measured, BenchError> {
        match self.mode {
            Mode::Machine => part::measure_machine(self, program).await,
            Mode::Sockets => sockets::measure(self, program).await,
        }
    }
}

impl Measured {
    fn new(
        bench: SchedulerBench,
        tasks: u32,
        edges: u64,
        wall_s: f64,
        cpu_nanos: u64,
        bytes: u64,
        messages: u64,
    ) -> Self {
        let per_task = |amount: f64| amount / f64::from(tasks.max(1));
        Self {
            bench: SchedulerBench { tasks, ..bench },
            edges,
            runs: 1,
            wall_s,
            scheduler_cpu_us_per_task: per_task(cpu_nanos as f64 / 1e3),
            bytes_per_task: per_task(bytes as f64),
            messages,
        }
    }

    /// The median of each number over several runs of one benchmark; `None` for no runs.
    pub fn median(runs: &[Self]) -> Option<Self> {
        let median = |number: fn(&Self) -> f64| {
            let mut all: Vec<f64> = runs.iter().map(number).collect();
            all.sort_by(f64::total_cmp);
            all.get(all.len() / 2).copied().unwrap_or_default()
        };
        let mut messages: Vec<u64> = runs.iter().map(|run| run.messages).collect();
        messages.sort_unstable();
        Some(Self {
            runs: u32::try_from(runs.len()).unwrap_or(u32::MAX),
            wall_s: median(|run| run.wall_s),
            scheduler_cpu_us_per_task: median(|run| run.scheduler_cpu_us_per_task),
            bytes_per_task: median(|run| run.bytes_per_task),
            messages: messages.get(messages.len() / 2).copied()?,
            ..runs.first()?.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(wall_s: f64, messages: u64) -> Measured {
        let bench = SchedulerBench {
            graph: Shape::Map,
            tasks: 10,
            workers: 1,
            slots: 1,
            seed: 0,
            mode: Mode::Machine,
        };
        Measured::new(bench, 10, 5, wall_s, 20_000, 1_000, messages)
    }

    #[test]
    fn numbers_are_told_per_task() {
        let run = run(1.0, 3);
        assert_eq!(run.scheduler_cpu_us_per_task, 2.0);
        assert_eq!(run.bytes_per_task, 100.0);
    }

    #[test]
    fn the_median_is_taken_of_each_number_alone() {
        let median = Measured::median(&[run(3.0, 1), run(1.0, 3), run(2.0, 2)]).expect("runs");
        assert_eq!((median.wall_s, median.messages, median.runs), (2.0, 2, 3));
        assert_eq!(Measured::median(&[]), None);
    }

    #[test]
    fn what_was_measured_reads_back_from_its_json() {
        let run = run(0.5, 7);
        let text = serde_json::to_string(&run).expect("written");
        assert!(text.contains("\"graph\":\"map\""), "{text}");
        assert_eq!(
            serde_json::from_str::<Measured>(&text).expect("read back"),
            run
        );
    }
}
