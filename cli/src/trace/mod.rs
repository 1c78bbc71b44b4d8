//! `transload trace`: records what a cluster shows, and makes of recordings what other programs open.

mod export;
mod record;
mod send;

use std::io::{self, IsTerminal};
use std::path::Path;

use crate::args::{TraceCommand, WatchArgs};
use crate::cluster;
use crate::failure::Failure;
use crate::info;
use crate::output::Destination;
use crate::signals::Signals;
use crate::viewer::{self, Viewer};

/// Runs `transload trace …`.
pub(crate) async fn run(command: TraceCommand, signals: &Signals) -> Result<(), Failure> {
    match command {
        TraceCommand::Record(args) => record::run(&args, signals).await,
        TraceCommand::Export(args) => export::run(&args),
        TraceCommand::Send(args) => send::run(&args, signals).await,
    }
}

/// Why looking on has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Asked,
    Time,
    ClusterEnded,
}

impl End {
    /// What stands before the summary.
    const fn words(self) -> &'static str {
        match self {
            Self::Asked | Self::Time => "",
            Self::ClusterEnded => "the cluster has ended; ",
        }
    }
}

/// Looks at the dashboard of a cluster.
async fn open(watch: &WatchArgs) -> Result<Viewer, Failure> {
    let token = viewer::token(watch.token_file.as_deref(), &cluster::config()?)?;
    let cluster = info::open(&watch.cluster).await?;
    // Looking on needs no client: the cluster is left before its dashboard counts how many are there.
    let viewer = Viewer::open(&cluster.client, token.as_deref()).await;
    cluster.close().await;
    viewer
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
