//! `transload sql`: decides where statements come from, where they run and where results go.

mod prompt;
mod report;
mod run;
mod statements;
mod tables;

use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;

use transload_query::{SqlOptions, SqlSession};
use transload_runtime::Config;

pub(crate) use run::{Runner, query_failure};

use crate::args::{SqlArgs, Switch};
use crate::cluster::{Cluster, Place, config_failure};
use crate::failure::Failure;
use crate::output::{Destination, Format};
use crate::signals::Signals;
use crate::viewer;

use report::Recorder;

/// Rows of one result that a terminal shows unless told otherwise.
const TERMINAL_ROWS: u64 = 10_000;

/// Where statements come from.
enum Statements {
    /// All are known.
    Script(Vec<String>),
    /// A person types them.
    Prompt,
}

/// Runs `transload sql`.
pub(crate) async fn run(args: SqlArgs, signals: &Signals) -> Result<(), Failure> {
    let config = args.flags.load().map_err(|error| config_failure(&error))?;
    let statements = statements_of(&args)?;
    let format = format_of(&args)?;
    let mut destination = match &args.output {
        Some(path) => Destination::file(path)?,
        None => Destination::stdout(),
    };
    let report = args.report.as_deref().map(Destination::file).transpose()?;
    let token = match &report {
        Some(_) => viewer::token(None, &config)?,
        None => None,
    };
    let place = place_of(&args, &config);
    let cluster = tokio::select! {
        opened = Cluster::open(&place, &config) => opened?,
        _ = signals.stop() => return Err(Failure::interrupted()),
    };
    if !args.quiet
        && io::stderr().is_terminal()
        && let Some(dashboard) = cluster.dashboard()
    {
        // Only for people, and their terminal may be gone.
        let _ = writeln!(io::stderr(), "dashboard at {dashboard}");
    }
    let done = reported(&args, &cluster, report, token, signals, async || {
        answer(
            &args,
            &cluster,
            statements,
            format,
            &mut destination,
            signals,
        )
        .await
    })
    .await;
    cluster.close().await;
    done.and_then(|()| destination.commit())
}

/// Does the work, and writes the report of it however that ended.
async fn reported(
    args: &SqlArgs,
    cluster: &Cluster,
    target: Option<Destination>,
    token: Option<String>,
    signals: &Signals,
    work: impl AsyncFnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let (Some(target), Some(path)) = (target, &args.report) else {
        return work().await;
    };
    let recorder = tokio::select! {
        started = Recorder::start(target, &cluster.client, token) => started?,
        _ = signals.stop() => return Err(Failure::interrupted()),
    };
    let done = work().await;
    let written = recorder.finish(path, args.quiet).await;
    match (done, written) {
        (Err(failure), Err(also)) => {
            also.report();
            Err(failure)
        }
        (done, written) => done.and(written),
    }
}

async fn answer(
    args: &SqlArgs,
    cluster: &Cluster,
    statements: Statements,
    format: Format,
    destination: &mut Destination,
    signals: &Signals,
) -> Result<(), Failure> {
    let options = SqlOptions {
        gpu_exchange: args.gpu_exchange == Switch::On,
        ..SqlOptions::default()
    };
    let session =
        SqlSession::new(cluster.client.clone(), options).map_err(|error| query_failure(&error))?;
    tokio::select! {
        registered = tables::register(&session, &args.tables) => registered?,
        _ = signals.stop() => return Err(Failure::interrupted()),
    }
    let on_terminal = args.output.is_none() && io::stdout().is_terminal();
    let max_rows = match args.max_rows {
        Some(0) => None,
        Some(rows) => Some(rows),
        None => (on_terminal && format == Format::Table).then_some(TERMINAL_ROWS),
    };
    let mut runner = Runner {
        session: &session,
        format,
        destination,
        max_rows,
        quiet: args.quiet,
        timing: true,
        results: 0,
    };
    match statements {
        Statements::Script(statements) => {
            for statement in &statements {
                tokio::select! {
                    done = runner.run(statement) => done?,
                    _ = signals.stop() => return Err(Failure::interrupted()),
                }
            }
            Ok(())
        }
        Statements::Prompt => prompt::run(&mut runner, signals).await,
    }
}

fn place_of(args: &SqlArgs, config: &Config) -> Place {
    match (&args.connect, args.workers, &config.scheduler.file) {
        (Some(address), _, _) => Place::Address(address.clone()),
        (None, None, Some(file)) => Place::File(file.clone()),
        (None, workers, _) => Place::Local { workers },
    }
}

fn statements_of(args: &SqlArgs) -> Result<Statements, Failure> {
    let text = match &args.script {
        _ if !args.queries.is_empty() => args.queries.join(";\n"),
        Some(path) if path == Path::new("-") => from_stdin()?,
        Some(path) => std::fs::read_to_string(path)
            .map_err(|error| Failure::failed(format!("cannot read {}: {error}", path.display())))?,
        None if io::stdin().is_terminal() => return Ok(Statements::Prompt),
        None => from_stdin()?,
    };
    let script =
        statements::split(&text).map_err(|error| Failure::failed(format!("not SQL: {error}")))?;
    if script.statements.is_empty() {
        return Err(Failure::usage("no statement given")
            .hint("give one with -c 'SELECT …', or a file with statements"));
    }
    Ok(Statements::Script(script.statements))
}

fn from_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| Failure::failed(format!("cannot read standard input: {error}")))?;
    Ok(text)
}

/// The format asked for, or the one that the output file's ending names.
fn format_of(args: &SqlArgs) -> Result<Format, Failure> {
    let ending = args.output.as_deref().and_then(Path::extension);
    let format = match (args.format, ending.and_then(|ending| ending.to_str())) {
        (Some(format), _) => format,
        (None, Some("csv")) => Format::Csv,
        (None, Some("json" | "ndjson" | "jsonl")) => Format::Json,
        (None, Some("parquet")) => Format::Parquet,
        (None, _) => Format::Table,
    };
    if format == Format::Parquet && args.output.is_none() && io::stdout().is_terminal() {
        return Err(
            Failure::usage("a Parquet file cannot be shown on a terminal")
                .hint("name a file with -o, or send standard output to one"),
        );
    }
    Ok(format)
}
