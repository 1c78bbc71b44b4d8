//! The command line of `transload bench`. Knows nothing of how it is measured.

use clap::{Args, Subcommand, ValueEnum};
use transload_runtime::bench::{
    LARGEST_PARTITION_BYTES, Mode, Shape, TaskBench, TransferBench, TransportBench,
};
use transload_runtime::config::parse_bytes;
use transload_runtime::transports::TransportChoice;

/// Arguments of `transload bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// What to measure.
    #[command(subcommand)]
    pub(crate) command: BenchCommand,
}

const SCHEDULER_HELP: &str = "\
Measures what the scheduler itself costs for each task: its workers are simulated, answer every assignment at once, do no work and \
move no bytes. Every run takes place in new processes.

With --mode machine (the default) the scheduler's state machine runs alone, without sockets: the CPU time is that of the one thread on \
which machine and workers take turns. With --mode sockets a scheduler process has a TCP connection to each of the workers, all of \
which live in another process: the CPU time is that of all threads of the scheduler process.

bytes/task is the growth of the scheduler's resident memory from before the submission to its peak, and holds the submitted graph. \
messages counts what goes between the scheduler and its workers and client, both ways.";

const SCHEDULER_EXAMPLES: &str = "\
Graphs:
  merge     independent tasks, and one that reads them all
  tree      a binary reduction
  map       two layers, one-to-one; the client keeps all tasks of the second and is told of each
  shuffle   a chain of shuffles, each of 1,000 x 1,000 partitions (fewer with fewer than 2,000 tasks)
  random    every task reads two others, drawn from the 100,000 before its layer; --seed chooses them
Examples:
  transload bench scheduler
  transload bench scheduler --graph all --tasks 1000000 --workers 1000 --runs 3
  transload bench scheduler --mode sockets --graph merge --graph random --workers 24
  transload bench scheduler --graph tree --json | jq .scheduler_cpu_us_per_task";

const TASKS_HELP: &str = "\
Measures no-op tasks end to end: submitted by a client, placed by a scheduler, run by workers that are processes of their own, results \
back at the client. All times are wall time seen by the client.

merge are independent tasks that one more task reads; chain are tasks each of which reads the one before, a tenth as many; single is one \
task alone, from submission to its result. CPU us/task is the CPU time of all worker processes together, and of this process, which is \
client and scheduler.";

const TASKS_EXAMPLES: &str = "\
Examples:
  transload bench tasks
  transload bench tasks --workers 2 --slots 1 --tasks 100000 --repeats 5
  transload bench tasks --connect localhost:8470 --json | jq .single.p50";

const TRANSPORT_HELP: &str = "\
Measures how fast partitions come from another process, over the path by which workers fetch them from each other: the same connections, \
headers, budgets and buffers. Between workers this is the most that a fetch can reach.

latency is the time from asking to having one partition, with nothing else under way; bandwidth is that of several fetches at once. \
Without --peer the other process is started on this machine. With --transport auto both take the best that they have, \
as workers do; ucx and tcp are that and nothing else. To measure a network, run `transload bench transport --serve` on one \
machine and `--peer` on another.";

const TRANSPORT_EXAMPLES: &str = "\
Examples:
  transload bench transport
  transload bench transport --sizes 8,64KiB,1MiB,64MiB --in-flight 8
  transload bench transport --serve 0.0.0.0:8475            # there
  transload bench transport --peer node1:8475 --json        # here
  transload bench transport --transport ucx --serve 0.0.0.0:8475    # there
  transload bench transport --peer ucx://node1:8475         # here";

const TRANSFER_HELP: &str = "\
Measures how fast partitions that one worker holds reach the tasks of another, which do nothing with them: scheduler, workers, store and \
transport together, on this machine, in processes of their own. What `transload bench transport` measures is the most that this can reach.

Needs memory for all partitions once, and for those under way.";

const TRANSFER_EXAMPLES: &str = "\
Examples:
  transload bench transfer
  transload bench transfer --partitions 1024 --size 1MiB --transport tcp
  transload bench transfer --json | jq .bytes_per_s";

/// What can be measured.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// What the scheduler costs for each task, with simulated instant workers.
    #[command(long_about = SCHEDULER_HELP, after_help = SCHEDULER_EXAMPLES)]
    Scheduler(SchedulerBenchArgs),
    /// What a task costs end to end, and how long one takes, with worker processes.
    #[command(long_about = TASKS_HELP, after_help = TASKS_EXAMPLES)]
    Tasks(TasksBenchArgs),
    /// How fast partitions come from another process, on this machine or another.
    #[command(long_about = TRANSPORT_HELP, after_help = TRANSPORT_EXAMPLES)]
    Transport(TransportBenchArgs),
    /// How fast what one worker holds reaches the tasks of another.
    #[command(long_about = TRANSFER_HELP, after_help = TRANSFER_EXAMPLES)]
    Transfer(TransferBenchArgs),
    /// One process of a measurement.
    #[command(hide = true)]
    Part {
        /// Which, as JSON.
        part: String,
    },
}

/// Arguments of `transload bench scheduler`.
#[derive(Debug, Args)]
pub(crate) struct SchedulerBenchArgs {
    /// Tasks of each graph, about; the result says how many exactly.
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(10..=16_000_000))]
    pub(crate) tasks: u32,
    /// Simulated workers.
    #[arg(long, value_name = "W", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) workers: u32,
    /// Slots of each worker: tasks that it would run at once.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) slots: u32,
    /// The graph; may be given several times.
    #[arg(
        long = "graph",
        value_name = "NAME",
        value_enum,
        default_value = "merge"
    )]
    pub(crate) graphs: Vec<GraphName>,
    /// What stands around the scheduler.
    #[arg(long, value_enum, default_value_t = ModeName::Machine)]
    pub(crate) mode: ModeName,
    /// Runs of each graph; the median of each number counts.
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) runs: u32,
    /// Chooses the edges of random graphs.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// One JSON object for each graph, on a line of its own.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `transload bench tasks`.
#[derive(Debug, Args)]
pub(crate) struct TasksBenchArgs {
    /// Worker processes to start.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) workers: u32,
    /// Slots of each.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) slots: u32,
    /// Independent tasks, which one more task reads.
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    pub(crate) tasks: u32,
    /// Runs of each graph; the median counts.
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) repeats: u32,
    /// Single tasks, one after another.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) singles: u32,
    /// Measure the cluster of this scheduler instead of starting one.
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["workers", "slots"])]
    pub(crate) connect: Option<String>,
    /// One JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `transload bench transport`.
#[derive(Debug, Args)]
pub(crate) struct TransportBenchArgs {
    /// Sizes of partitions, up to 4GiB, separated by commas.
    #[arg(long, value_name = "SIZE,...", value_delimiter = ',', default_value = "8,64KiB,1MiB,8MiB,64MiB", value_parser = partition_size)]
    pub(crate) sizes: Vec<u64>,
    /// At most so many fetches of each size for its latency, and ten times as many for its bandwidth.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) fetches: u32,
    /// But no more than so many bytes, with three fetches at least.
    #[arg(long, value_name = "SIZE", default_value = "2GiB", value_parser = size)]
    pub(crate) bytes: u64,
    /// Fetches under way at once, for the bandwidth.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=4_096))]
    pub(crate) in_flight: u32,
    /// What carries them: auto, tcp or ucx. [default: worker.transport of the configuration, else auto]
    #[arg(long, value_name = "NAME", value_parser = transport)]
    pub(crate) transport: Option<TransportChoice>,
    /// Fetch from the process that serves there, instead of starting one: HOST:PORT, or ucx://HOST:PORT.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "serve")]
    pub(crate) peer: Option<String>,
    /// Serve others that measure, until Ctrl-C, and say at which addresses.
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["sizes", "fetches", "bytes", "in_flight", "json"])]
    pub(crate) serve: Option<String>,
    /// One JSON object for each size, on a line of its own.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `transload bench transfer`.
#[derive(Debug, Args)]
pub(crate) struct TransferBenchArgs {
    /// Partitions that move.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) partitions: u32,
    /// Size of each, up to 4GiB.
    #[arg(long, value_name = "SIZE", default_value = "8MiB", value_parser = partition_size)]
    pub(crate) size: u64,
    /// How often all of them move; the median counts.
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) runs: u32,
    /// What carries them: auto, tcp or ucx. [default: worker.transport of the configuration, else auto]
    #[arg(long, value_name = "NAME", value_parser = transport)]
    pub(crate) transport: Option<TransportChoice>,
    /// One JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

fn size(text: &str) -> Result<u64, String> {
    parse_bytes(text).map_err(|expected| format!("not {expected}"))
}

fn transport(text: &str) -> Result<TransportChoice, String> {
    text.parse()
        .map_err(|expected: String| format!("not {expected}"))
}

fn partition_size(text: &str) -> Result<u64, String> {
    match size(text)? {
        bytes if bytes <= LARGEST_PARTITION_BYTES => Ok(bytes),
        _ => Err("more than 4GiB".to_owned()),
    }
}

impl TransportBenchArgs {
    /// What is to be measured.
    pub(crate) fn bench(&self) -> TransportBench {
        TransportBench {
            sizes: self.sizes.clone(),
            fetches: self.fetches,
            bytes: self.bytes,
            in_flight: self.in_flight,
        }
    }
}

impl TransferBenchArgs {
    /// What is to be measured.
    pub(crate) fn bench(&self) -> TransferBench {
        TransferBench {
            partitions: self.partitions,
            size_bytes: self.size,
            runs: self.runs,
        }
    }
}

impl TasksBenchArgs {
    /// What is to be measured.
    pub(crate) fn bench(&self) -> TaskBench {
        TaskBench {
            workers: self.workers,
            slots: self.slots,
            tasks: self.tasks,
            repeats: self.repeats,
            singles: self.singles,
        }
    }
}

impl SchedulerBenchArgs {
    /// The graphs that are asked for, each once, in order.
    pub(crate) fn shapes(&self) -> Vec<Shape> {
        let mut shapes = Vec::new();
        for name in &self.graphs {
            for shape in name.shapes() {
                if !shapes.contains(&shape) {
                    shapes.push(shape);
                }
            }
        }
        shapes
    }
}

/// A name of `--graph`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GraphName {
    Merge,
    Tree,
    Map,
    Shuffle,
    Random,
    /// All five.
    All,
}

impl GraphName {
    fn shapes(self) -> Vec<Shape> {
        match self {
            Self::Merge => vec![Shape::Merge],
            Self::Tree => vec![Shape::Tree],
            Self::Map => vec![Shape::Map],
            Self::Shuffle => vec![Shape::Shuffle],
            Self::Random => vec![Shape::Random],
            Self::All => Shape::ALL.to_vec(),
        }
    }
}

/// A name of `--mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ModeName {
    /// The state machine alone, in one thread.
    Machine,
    /// A scheduler process with a TCP connection to each worker.
    Sockets,
}

impl From<ModeName> for Mode {
    fn from(name: ModeName) -> Self {
        match name {
            ModeName::Machine => Self::Machine,
            ModeName::Sockets => Self::Sockets,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn shapes(line: &str) -> Vec<Shape> {
        match Cli::try_parse_from(line.split(' '))
            .expect("parses")
            .command
        {
            Command::Bench(BenchArgs {
                command: BenchCommand::Scheduler(args),
            }) => args.shapes(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn graphs_are_measured_once_each_in_the_order_given() {
        let tree_first = "transload bench scheduler --graph tree --graph all";
        assert_eq!(shapes(tree_first).len(), 5);
        assert_eq!(shapes(tree_first)[0], Shape::Tree);
        assert_eq!(shapes("transload bench scheduler"), [Shape::Merge]);
    }

    #[test]
    fn numbers_that_make_no_sense_are_refused() {
        for bad in [
            "transload bench",
            "transload bench scheduler --tasks 0",
            "transload bench scheduler --workers 0",
            "transload bench scheduler --runs 0",
            "transload bench scheduler --graph circle",
            "transload bench scheduler --mode thought",
            "transload bench tasks --workers 0",
            "transload bench transfer --partitions 0",
            "transload bench transfer --size 5GiB",
            "transload bench transfer --transport pigeon",
            "transload bench tasks --connect localhost:1 --workers 2",
        ] {
            assert!(Cli::try_parse_from(bad.split(' ')).is_err(), "{bad}");
        }
    }
}
