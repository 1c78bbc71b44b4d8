//! Logs to standard error, as much as `-v` and `TRANSLOAD_LOG` ask for. Called once, by `main`.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

/// The environment variable with a filter in the notation of `tracing-subscriber`.
const LOG_VARIABLE: &str = "TRANSLOAD_LOG";

/// How much a command logs when nobody asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quiet {
    /// Warnings and errors.
    Yes,
    /// The same, but not that the cluster is gone: a worker that was started for one command ends with it.
    LocalWorker,
    /// What happens, too: for processes that run for days.
    No,
}

/// Starts logging.
///
/// # Errors
/// The filter in the environment is not one.
pub(crate) fn start(verbose: u8, quiet: Quiet) -> Result<(), String> {
    let level = match (verbose, quiet) {
        (0, Quiet::Yes) => "warn",
        (0, Quiet::LocalWorker) => "warn,transload_runtime::worker_process=error",
        (0, Quiet::No) => "info",
        (1, _) => "warn,transload=debug",
        (_, _) => "debug,transload=trace",
    };
    let filter = match std::env::var(LOG_VARIABLE) {
        Ok(filter) if !filter.is_empty() => EnvFilter::try_new(&filter)
            .map_err(|error| format!("{LOG_VARIABLE}={filter}: {error}"))?,
        Ok(_) | Err(_) => EnvFilter::new(level),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
    Ok(())
}
