//! The `transload` program: parses the command line, starts a runtime, runs one command, and ends with its exit code.

mod args;
mod bench;
mod cluster;
mod data;
mod demo;
mod explain;
mod failure;
mod info;
mod logging;
mod make;
mod output;
mod progress;
mod serve;
mod settings;
mod show;
mod signals;
mod sql;
mod top;
mod trace;
mod viewer;

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::Parser;
use transload_runtime::transports::prepare_environment;

use crate::args::{Cli, Command, DataCommand};
use crate::failure::Failure;
use crate::logging::Quiet;
use crate::signals::Signals;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Plans are trees that are walked by recursion; deep ones overflow the usual 2 MiB, above all unoptimized.
const STACK_BYTES: usize = 16 << 20;
/// How long tasks may go on after the command has ended: a last message to a scheduler, for example.
const LINGER: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    // First of all: UCX looks into the environment, which may be changed only while there is one thread.
    prepare_environment();
    let cli = Cli::parse();
    let ended = thread::Builder::new()
        .name("main-command".to_owned())
        .stack_size(2 * STACK_BYTES)
        .spawn(move || run(cli))
        .map_err(|error| Failure::failed(format!("cannot start a thread: {error}")))
        .and_then(|command| {
            command.join().unwrap_or_else(|_| {
                Err(Failure::failed(
                    "the command panicked, which is a bug in transload",
                ))
            })
        });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report();
            ExitCode::from(&failure)
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    let quiet = match &cli.command {
        Command::Worker(args) if args.local => Quiet::LocalWorker,
        Command::Scheduler(_) | Command::Worker(_) => Quiet::No,
        Command::Demo
        | Command::Sql(_)
        | Command::Cluster(_)
        | Command::Top(_)
        | Command::Trace(_)
        | Command::Explain(_)
        | Command::Data(_)
        | Command::Bench(_)
        | Command::Config(_) => Quiet::Yes,
    };
    logging::start(cli.verbose, quiet).map_err(Failure::usage)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("transload")
        .thread_stack_size(STACK_BYTES)
        .build()
        .map_err(|error| Failure::failed(format!("cannot start threads: {error}")))?;
    let ended = runtime.block_on(command(cli.command));
    runtime.shutdown_timeout(LINGER);
    ended
}

async fn command(command: Command) -> Result<(), Failure> {
    let signals = Signals::listen()
        .map_err(|error| Failure::failed(format!("cannot listen for signals: {error}")))?;
    match command {
        Command::Demo => demo::run(&signals).await,
        Command::Sql(args) => Box::pin(sql::run(*args, &signals)).await,
        Command::Scheduler(args) => serve::scheduler(*args, &signals).await,
        Command::Worker(args) => Box::pin(serve::worker(*args, &signals)).await,
        Command::Cluster(args) => info::run(args.command, &signals).await,
        Command::Top(args) => Box::pin(top::run(args, &signals)).await,
        Command::Trace(args) => Box::pin(trace::run(args.command, &signals)).await,
        Command::Explain(args) => explain::run(&args, &signals).await,
        Command::Data(args) => match args.command {
            DataCommand::Tpch(args) => make::tpch(args, &signals).await,
        },
        Command::Config(args) => settings::run(args),
        Command::Bench(args) => Box::pin(bench::run(args.command, &signals)).await,
    }
}
