//! The command line of `transload trace`. Knows nothing of how it is recorded.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use transload_runtime::config::parse_duration;

use super::ClusterAddress;

const TRACE_EXAMPLES: &str = "\
Examples:
  transload trace record 10.0.0.3:8790 -o run.jsonl      while something runs; Ctrl-C ends it
  transload trace export run.jsonl -o run.json           to open in ui.perfetto.dev or chrome://tracing
  transload trace export run.jsonl -o run.html           one page that shows it all, to attach to a ticket
  transload trace send 10.0.0.3:8790 --to http://localhost:4318   spans to an OpenTelemetry collector, as they come
The dashboard replays recordings, too, and has a button that makes them.";

/// Arguments of `transload trace`.
#[derive(Debug, Args)]
#[command(after_help = TRACE_EXAMPLES)]
pub(crate) struct TraceArgs {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: TraceCommand,
}

/// The commands under `transload trace`.
#[derive(Debug, Subcommand)]
pub(crate) enum TraceCommand {
    /// Records what a cluster's dashboard shows, until Ctrl-C, for a time, or until the cluster ends.
    #[command(long_about = RECORD_HELP)]
    Record(RecordArgs),
    /// Makes a trace for Perfetto, a page that stands by itself, or spans for OpenTelemetry, of a recording.
    Export(ExportArgs),
    /// Sends spans to an OpenTelemetry collector, as they come, until Ctrl-C, for a time, or until the cluster ends.
    #[command(long_about = SEND_HELP)]
    Send(SendArgs),
}

/// What is looked at, and for how long.
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// Which cluster.
    #[command(flatten)]
    pub(crate) cluster: ClusterAddress,
    /// End after so long, as in 30s or 5min. [default: until Ctrl-C]
    #[arg(long = "for", value_name = "TIME", value_parser = parse_time)]
    pub(crate) limit: Option<Duration>,
    /// File with the token that the dashboard wants. [default: what scheduler.dashboard_token_file names]
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// No progress and no summary.
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

const RECORD_HELP: &str = "\
Records what a cluster's dashboard shows: first all that it remembers, then about ten times a second what is new, as one JSON object a \
line. Ctrl-C ends the recording and keeps what there is. It also ends when the cluster does.

The dashboard has to be reachable from here. One that was given a token wants it.";

const RECORD_EXAMPLES: &str = "\
Examples:
  transload trace record 10.0.0.3:8790 -o run.jsonl
  transload trace record --scheduler-file ~/s.json --for 30s -o run.jsonl
  transload trace record 10.0.0.3:8790 --token-file token -o run.jsonl
  transload trace record 127.0.0.1:8790 --for 10s | jq -c '.spans[]?'";

/// Arguments of `transload trace record`.
#[derive(Debug, Args)]
#[command(after_help = RECORD_EXAMPLES)]
pub(crate) struct RecordArgs {
    /// What to look at.
    #[command(flatten)]
    pub(crate) watch: WatchArgs,
    /// Write to a file, which appears when the recording is complete. [default: standard output]
    #[arg(short = 'o', long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

const EXPORT_EXAMPLES: &str = "\
Examples:
  transload trace export run.jsonl -o run.json
  transload trace export run.jsonl -o run.html
  curl http://127.0.0.1:8787/api/v1/record | transload trace export - --format report > run.html
  transload trace export run.jsonl --format otlp -o spans.jsonl
A last line that was cut off is left out; any other line that is none of a recording is an error.";

/// Arguments of `transload trace export`.
#[derive(Debug, Args)]
#[command(after_help = EXPORT_EXAMPLES)]
pub(crate) struct ExportArgs {
    /// What `transload trace record` or the dashboard's button wrote; - reads standard input.
    #[arg(value_name = "RECORDING")]
    pub(crate) recording: PathBuf,
    /// Write to a file, which appears when everything is written, or not at all. [default: standard output]
    #[arg(short = 'o', long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// What to make. [default: report where the -o file ends in .html, else perfetto]
    #[arg(long, value_enum)]
    pub(crate) format: Option<TraceFormat>,
}

/// What can be made of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TraceFormat {
    /// JSON that ui.perfetto.dev and chrome://tracing open: a track for each slot, arrows for transfers.
    Perfetto,
    /// One page with every view, which needs nothing else.
    Report,
    /// Spans in OpenTelemetry's JSON: on each line a request as collectors take it at /v1/traces, and read it from files.
    Otlp,
}

const SEND_HELP: &str = "\
Sends what a cluster's dashboard shows to an OpenTelemetry collector, as OTLP in JSON over HTTP: a trace for each graph, in it a span for \
each task that ran and each partition that moved between workers. First all that the dashboard remembers, then once a second what is new. \
Ctrl-C sends the rest and ends it. It also ends when the cluster does.

Headers that the collector wants are taken from OTEL_EXPORTER_OTLP_TRACES_HEADERS or OTEL_EXPORTER_OTLP_HEADERS, as in api-key=secret. \
Where --to is not given, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT or OTEL_EXPORTER_OTLP_ENDPOINT may say where. For collectors that want HTTPS, \
let one on this machine pass the spans on.";

const SEND_EXAMPLES: &str = "\
Examples:
  transload trace send 10.0.0.3:8790
  transload trace send --scheduler-file ~/s.json --to http://collector:4318 --for 10min
  OTEL_EXPORTER_OTLP_HEADERS=api-key=secret transload trace send 10.0.0.3:8790 --to http://collector:4318";

/// Arguments of `transload trace send`.
#[derive(Debug, Args)]
#[command(after_help = SEND_EXAMPLES)]
pub(crate) struct SendArgs {
    /// What to look at.
    #[command(flatten)]
    pub(crate) watch: WatchArgs,
    /// Where the collector listens for OTLP over HTTP; /v1/traces is put behind it. [default: what OpenTelemetry's variables say, else
    /// http://localhost:4318]
    #[arg(long, value_name = "URL")]
    pub(crate) to: Option<String>,
}

/// A duration of some length.
pub(super) fn parse_time(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|what| format!("not {what}"))
}
