//! The command line: every command, flag and help text. Knows nothing of what the commands do.

mod bench;
mod top;
mod trace;

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};
use transload_protocol::{ParseIdError, TaskId};
use transload_runtime::config::{SchedulerFlags, SqlFlags, WorkerFlags};

use crate::data::{DataFormat, Table};
use crate::output::Format;

pub(crate) use bench::{
    BenchArgs, BenchCommand, SchedulerBenchArgs, TasksBenchArgs, TransferBenchArgs,
    TransportBenchArgs,
};
pub(crate) use top::TopArgs;
pub(crate) use trace::{
    ExportArgs, RecordArgs, SendArgs, TraceArgs, TraceCommand, TraceFormat, WatchArgs,
};

const EXAMPLES: &str = "\
Examples:
  transload demo                               see a small cluster answer a query
  transload data tpch --scale 1 --out tpch     make data to try things with
  transload sql --tables tpch -c 'SELECT count(*) FROM lineitem'
  transload sql --tables tpch                  a prompt
A cluster by hand, over as many machines as you like:
  transload scheduler --scheduler-file s.json
  transload worker --scheduler-file s.json
  transload sql --scheduler-file s.json --tables /shared/tpch

Exit codes: 0 done, 1 the work failed, 2 wrong usage, 3 no cluster could be
reached, 130 interrupted. Logs go to standard error; -v, -vv or TRANSLOAD_LOG
(for example TRANSLOAD_LOG=transload_runtime=trace) make them say more.";

/// A cluster runtime: SQL over files, answered by several workers.
#[derive(Debug, Parser)]
#[command(name = "transload", version = VERSION, after_help = EXAMPLES, max_term_width = 120)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Log more: -v what happens, -vv every detail.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// What `--version` prints after the name: the release, and the protocol that all processes of a cluster must share.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (protocol 11)");

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// What a newcomer runs first: three workers on this machine answer a query over made-up data.
    #[command(long_about = DEMO_HELP)]
    Demo,
    /// Answers SQL over Parquet and CSV files: one query, a script, or a prompt.
    #[command(long_about = SQL_HELP)]
    Sql(Box<SqlArgs>),
    /// Runs the scheduler of a cluster; prints where it listens.
    Scheduler(Box<SchedulerArgs>),
    /// Runs a worker that joins the scheduler at HOST:PORT.
    Worker(Box<WorkerArgs>),
    /// Looks at a running cluster, or stops it.
    Cluster(ClusterArgs),
    /// Shows a running cluster on the terminal as it works.
    #[command(long_about = top::HELP)]
    Top(TopArgs),
    /// Records what a cluster does, and makes traces and pages of recordings.
    Trace(TraceArgs),
    /// Says why a task waits, or what became of it.
    #[command(long_about = EXPLAIN_HELP)]
    Explain(ExplainArgs),
    /// Makes data to try things with.
    Data(DataArgs),
    /// Prints the configuration in effect, with every option explained.
    Config(ConfigArgs),
    /// Measures parts of transload on this machine.
    Bench(BenchArgs),
}

const DEMO_HELP: &str = "\
Makes a small TPC-H data set in a temporary folder, starts three worker processes, runs a join with a group-by, and shows its \
progress, its answer, how it was cut into stages, and what moved between which workers. Takes well under a minute, uses only \
this machine, and leaves nothing behind.";

const SQL_HELP: &str = "\
Answers SQL. Without --connect or --scheduler-file it starts a cluster on this machine first and ends it afterwards.

Statements come from -c, from a FILE (- for standard input), or from a prompt; a script separates them with semicolons. Tables are \
named with --table or --tables, or by CREATE EXTERNAL TABLE name STORED AS PARQUET LOCATION 'path'. EXPLAIN shows how a query \
is cut into stages. Results go to standard output; progress, row counts and times to standard error.";

const SQL_EXAMPLES: &str = "\
Examples:
  transload sql --table flights=flights.csv --null NA -c 'SELECT origin, count(*) FROM flights GROUP BY origin'
  transload sql --table 'orders=data/orders-*.parquet' --table lineitem=data/lineitem.parquet report.sql
  transload sql --tables tpch --format parquet -o top.parquet -c 'SELECT * FROM orders ORDER BY o_totalprice DESC LIMIT 10'
  transload sql --connect 10.0.0.3:8790 --tables /shared/tpch
  transload sql --tables tpch --report slow.html slow.sql
  echo 'SELECT 1' | transload sql --format json -

At the prompt: a statement ends with a semicolon; \\? lists the commands; Ctrl-C stops the running query; Ctrl-D leaves.";

/// Arguments of `transload sql`.
#[derive(Debug, Args)]
#[command(after_help = SQL_EXAMPLES)]
pub(crate) struct SqlArgs {
    /// A script of statements; - reads standard input.
    #[arg(value_name = "FILE", conflicts_with = "queries")]
    pub(crate) script: Option<PathBuf>,
    /// Statements to run; may be given several times.
    #[arg(short = 'c', long = "command", value_name = "QUERY")]
    pub(crate) queries: Vec<String>,
    /// Where tables are.
    #[command(flatten)]
    pub(crate) tables: TableArgs,
    /// Start a cluster of N worker processes on this machine. [default: 2, or 1 on a machine with one CPU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256), conflicts_with_all = ["connect", "scheduler.file"])]
    pub(crate) workers: Option<u32>,
    /// Use the cluster whose scheduler listens here.
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "scheduler.file")]
    pub(crate) connect: Option<String>,
    /// How results are written. [default: what the ending of the -o file says, else table]
    #[arg(long, value_enum)]
    pub(crate) format: Option<Format>,
    /// Write results to a file, which appears when everything is written, or not at all.
    #[arg(short = 'o', long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Write a report: one page that shows tasks, memory, transfers and plans of the run and needs nothing else to be opened. It is written
    /// also where a statement failed.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Show at most N rows of each result and stop the query then; 0 for all. [default: 10000 on a terminal, else all]
    #[arg(long, value_name = "N")]
    pub(crate) max_rows: Option<u64>,
    /// With `on`, hash exchanges stay on the workers' GPUs, if all exchanges of a query can: EXPLAIN says whether they do, and else why
    /// not. No gain yet, as operators on both sides of an exchange run on the host. SET transload.gpu_exchange = on does the same
    /// for the statements after it.
    #[arg(long, value_enum, value_name = "on|off", default_value_t = Switch::Off)]
    pub(crate) gpu_exchange: Switch,
    /// No progress, row counts or times.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Configuration.
    #[command(flatten)]
    pub(crate) flags: SqlFlags,
}

/// Whether to do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Switch {
    /// Do it.
    On,
    /// Do not.
    Off,
}

/// Where tables are and how their CSV files look.
#[derive(Debug, Args)]
pub(crate) struct TableArgs {
    /// A table: its name, and a file, folder or pattern; .csv and .parquet tell the format. May be given several times.
    #[arg(help_heading = "Tables", long = "table", value_name = "NAME=PATH", value_parser = parse_table)]
    pub(crate) tables: Vec<TableArg>,
    /// A folder: each CSV or Parquet file in it, and each folder of such files, becomes a table of its name.
    #[arg(help_heading = "Tables", long = "tables", value_name = "DIR")]
    pub(crate) folders: Vec<PathBuf>,
    /// What stands between the fields of CSV files.
    #[arg(help_heading = "Tables", long, value_name = "CHAR", default_value = ",", value_parser = parse_delimiter)]
    pub(crate) delimiter: u8,
    /// The first line of CSV files is data.
    #[arg(help_heading = "Tables", long)]
    pub(crate) no_header: bool,
    /// What stands for "no value" in CSV files, for example NA. [default: an empty field]
    #[arg(help_heading = "Tables", long, value_name = "TEXT")]
    pub(crate) null: Option<String>,
}

/// One `--table`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableArg {
    /// Its name in SQL.
    pub(crate) name: String,
    /// A path or a pattern.
    pub(crate) location: String,
}

const SCHEDULER_EXAMPLES: &str = "\
Examples:
  transload scheduler
      for this machine alone
  transload scheduler --host 0.0.0.0 --port 8790
      for workers on other machines, in a network you trust
  transload scheduler --host 0.0.0.0 --port 0 --scheduler-file ~/s.json
      on a batch system: a free port, told through a shared file
  transload scheduler --journal /var/lib/transload/journal
      started again with the same folder after its process died, it goes on where it ended
Ctrl-C or SIGTERM tells workers and clients, and ends; a second one ends at once.";

/// Arguments of `transload scheduler`.
#[derive(Debug, Args)]
#[command(after_help = SCHEDULER_EXAMPLES)]
pub(crate) struct SchedulerArgs {
    /// Configuration.
    #[command(flatten)]
    pub(crate) flags: SchedulerFlags,
}

const WORKER_EXAMPLES: &str = "\
Examples:
  transload worker 10.0.0.3:8790
  transload worker --scheduler-file ~/s.json --slots 8 --memory 16GiB --spill-dir /scratch
Ctrl-C or SIGTERM ends the worker in good order: its spill files are removed, and what it held is computed again elsewhere. A
second one ends it at once. It also ends when its scheduler does.";

/// Arguments of `transload worker`.
#[derive(Debug, Args)]
#[command(after_help = WORKER_EXAMPLES)]
pub(crate) struct WorkerArgs {
    /// Where the scheduler listens.
    #[arg(value_name = "HOST:PORT")]
    pub(crate) scheduler: Option<String>,
    /// A worker of a local cluster: it logs no more than the command that started it.
    #[arg(long, hide = true)]
    pub(crate) local: bool,
    /// Configuration.
    #[command(flatten)]
    pub(crate) flags: WorkerFlags,
}

/// Arguments of `transload cluster`.
#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {
    /// What to do with the cluster.
    #[command(subcommand)]
    pub(crate) command: ClusterCommand,
}

const INFO_EXAMPLES: &str = "\
Examples:
  transload cluster info 10.0.0.3:8790
  transload cluster info --scheduler-file ~/s.json
  transload cluster info 10.0.0.3:8790 --json | jq '.workers[].running'";

/// The commands under `transload cluster`.
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Shows workers, slots, memory per tier, transports, running tasks, and what moved between workers.
    #[command(after_help = INFO_EXAMPLES)]
    Info {
        /// Which cluster.
        #[command(flatten)]
        cluster: ClusterAddress,
        /// As one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Stops the scheduler and all its workers.
    Shutdown {
        /// Which cluster.
        #[command(flatten)]
        cluster: ClusterAddress,
    },
}

const EXPLAIN_HELP: &str = "\
Says in words where a task is and why: what it waits for, what it asks for and what the workers offer, where it runs, who holds what \
it made, and what went wrong with it so far. A task that no worker can ever run is named as such at once.

TASK is written as logs, errors and `transload cluster info` print it: CLIENT.GRAPH.TASK, three numbers.";

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  transload explain 1.0.17 10.0.0.3:8790
  transload explain 1.0.17 --scheduler-file ~/s.json
  transload explain 1.0.17 10.0.0.3:8790 --json | jq -r .summary
A task that the scheduler does not know, or no longer, is no error: the answer says so.";

/// Arguments of `transload explain`.
#[derive(Debug, Args)]
#[command(after_help = EXPLAIN_EXAMPLES)]
pub(crate) struct ExplainArgs {
    /// Which task, as in 1.0.17.
    #[arg(value_name = "TASK", value_parser = parse_task)]
    pub(crate) task: TaskId,
    /// Which cluster.
    #[command(flatten)]
    pub(crate) cluster: ClusterAddress,
    /// As one JSON object: `task`, `summary` and `details`.
    #[arg(long)]
    pub(crate) json: bool,
}

fn parse_task(text: &str) -> Result<TaskId, String> {
    text.parse()
        .map_err(|error: ParseIdError| error.to_string())
}

/// Where a cluster's scheduler listens.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct ClusterAddress {
    /// Where the scheduler listens.
    #[arg(value_name = "HOST:PORT")]
    pub(crate) address: Option<String>,
    /// The file that `transload scheduler --scheduler-file` wrote.
    #[arg(long, value_name = "FILE")]
    pub(crate) scheduler_file: Option<PathBuf>,
}

/// Arguments of `transload data`.
#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    /// Which data.
    #[command(subcommand)]
    pub(crate) command: DataCommand,
}

/// The commands under `transload data`.
#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// The eight tables of the TPC-H benchmark, generated by all CPUs.
    Tpch(TpchArgs),
}

const TPCH_EXAMPLES: &str = "\
Examples:
  transload data tpch --scale 1 --out tpch             8.7 million rows, about 300 MB of Parquet
  transload data tpch --scale 10 --out tpch10 --parts 4
  transload data tpch --scale 0.01 --out tiny --format csv --table orders --table lineitem
Then: transload sql --tables tpch";

/// Arguments of `transload data tpch`.
#[derive(Debug, Args)]
#[command(after_help = TPCH_EXAMPLES)]
pub(crate) struct TpchArgs {
    /// The scale factor: 1 is about 1 GB as CSV, 10 ten times as much.
    #[arg(long, value_name = "F", value_parser = parse_scale)]
    pub(crate) scale: f64,
    /// The folder for the files; it is made when missing.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Their format.
    #[arg(long, value_enum, default_value_t = DataFormat::Parquet)]
    pub(crate) format: DataFormat,
    /// Files per table: one is DIR/orders.parquet, more are DIR/orders/part-1.parquet and so on.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) parts: u32,
    /// About how many rows are in a Parquet row group, the smallest piece that a scan is split into.
    #[arg(long, value_name = "N", default_value_t = 250_000, value_parser = clap::value_parser!(u64).range(1_000..=10_000_000))]
    pub(crate) row_group_rows: u64,
    /// Only this table; may be given several times. [default: all eight]
    #[arg(long = "table", value_name = "NAME", value_parser = parse_tpch_table)]
    pub(crate) tables: Vec<Table>,
    /// Replace files that are there already.
    #[arg(long)]
    pub(crate) force: bool,
    /// No progress and no summary.
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// Arguments of `transload config`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  transload config > transload.toml    a file to edit, with every option explained"
)]
pub(crate) struct ConfigArgs {
    /// Read this file instead of transload.toml in the current folder.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The table of options as Markdown, as the README shows it.
    #[arg(long)]
    pub(crate) markdown: bool,
}

fn parse_table(text: &str) -> Result<TableArg, String> {
    match text.split_once('=') {
        Some((name, location)) if !name.trim().is_empty() && !location.is_empty() => Ok(TableArg {
            name: name.trim().to_owned(),
            location: location.to_owned(),
        }),
        _ => Err("write NAME=PATH, as in flights=data/flights.csv".to_owned()),
    }
}

fn parse_delimiter(text: &str) -> Result<u8, String> {
    match (text, text.as_bytes()) {
        ("\\t" | "tab", _) => Ok(b'\t'),
        (_, [byte]) if *byte != b'"' && *byte != b'\n' && *byte != b'\r' => Ok(*byte),
        _ => Err("a delimiter is one ASCII character, as in ; or | or \\t".to_owned()),
    }
}

fn parse_scale(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(scale) if scale > 0.0 && scale <= 100_000.0 => Ok(scale),
        _ => {
            Err("a scale factor is a number above 0 and at most 100000, as in 0.1 or 10".to_owned())
        }
    }
}

fn parse_tpch_table(text: &str) -> Result<Table, String> {
    Table::ALL
        .into_iter()
        .find(|table| table.name() == text.to_lowercase())
        .ok_or_else(|| {
            let names = Table::ALL.map(Table::name).join(", ");
            format!("the tables are {names}")
        })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        assert!(VERSION.contains(&format!(
            "(protocol {})",
            transload_protocol::PROTOCOL_VERSION
        )));
    }

    #[test]
    fn help_in_full_says_more_than_in_short_where_there_is_more_to_say() {
        let help = |words: &str| {
            let line = format!("transload {words} --help");
            let shown = Cli::try_parse_from(line.split(' ')).expect_err("help");
            shown.to_string()
        };
        for (words, said) in [
            ("demo", "leaves nothing behind"),
            ("sql", "starts a cluster on this machine first"),
            ("top", "needs no dashboard"),
            ("explain", "CLIENT.GRAPH.TASK, three numbers"),
            ("trace record", "one JSON object a line"),
            ("trace send", "OTEL_EXPORTER_OTLP_HEADERS"),
        ] {
            let all: Vec<String> = help(words).split_whitespace().map(str::to_owned).collect();
            assert!(all.join(" ").contains(said), "{words}: {}", help(words));
        }
    }

    #[test]
    fn a_table_is_a_name_and_a_place() {
        let table = parse_table("a=b=c.csv").expect("a table");
        assert_eq!(
            (table.name.as_str(), table.location.as_str()),
            ("a", "b=c.csv")
        );
        for bad in ["", "a", "=b", "a="] {
            assert!(parse_table(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_delimiter_is_one_character() {
        assert_eq!(parse_delimiter("\\t"), Ok(b'\t'));
        assert_eq!(parse_delimiter("|"), Ok(b'|'));
        for bad in ["", "||", "\"", "ä"] {
            assert!(parse_delimiter(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn flags_that_contradict_each_other_are_refused() {
        for bad in [
            "transload sql --workers 2 --connect a:1",
            "transload sql --workers 0",
            "transload sql -c x file.sql",
            "transload cluster info",
            "transload cluster info a:1 --scheduler-file f",
            "transload explain 1.0.17",
            "transload explain 1.0 a:1",
            "transload explain 1.0.x a:1",
            "transload explain a:1",
            "transload data tpch --scale 0 --out d",
            "transload data tpch --scale 1 --out d --table x",
            "transload top",
            "transload top a:1 --interval 10ms",
            "transload top a:1 --interval soon",
            "transload trace record a:1 --for ever",
            "transload trace export",
            "transload trace export f --format pdf",
            "transload trace send",
            "transload trace send a:1 --for ever",
            "transload nonsense",
            "transload",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse("transload cluster info --scheduler-file f").is_ok());
        assert!(parse("transload explain 1.0.17 --scheduler-file f").is_ok());
        assert!(parse("transload explain 1.0.17 a:1 --json").is_ok());
        assert!(parse("transload top --scheduler-file f --interval 250ms").is_ok());
        assert!(parse("transload trace record a:1 --for 2min -o f").is_ok());
        assert!(parse("transload trace send a:1 --to http://b:4318 --for 2min").is_ok());
        assert!(parse("transload worker 1.2.3.4:5 -vv --slots 2").is_ok());
    }
}
