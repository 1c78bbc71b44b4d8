//! `transload trace`: records what a cluster shows, and makes of recordings what other programs open.

mod export;
mod record;

use std::io::{self, IsTerminal};
use std::path::Path;

use crate::args::TraceCommand;
use crate::failure::Failure;
use crate::output::Destination;
use crate::signals::Signals;

/// Runs `transload trace …`.
pub(crate) async fn run(command: TraceCommand, signals: &Signals) -> Result<(), Failure> {
    match command {
        TraceCommand::Record(args) => record::run(&args, signals).await,
        TraceCommand::Export(args) => export::run(&args),
    }
}

/// Where to write what no person reads.
fn destination(output: Option<&Path>) -> Result<Destination, Failure> {
    match output {
        Some(path) => Destination::file(path),
        None if io::stdout().is_terminal() => {
            Err(Failure::usage("this is nothing to be shown on a terminal")
                .hint("name a file with -o, or send standard output to one"))
        }
        None => Ok(Destination::stdout()),
    }
}
