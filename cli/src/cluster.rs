//! Where a command's work runs: a cluster that is there already, or one that is started on this machine for the command.
//! Knows no SQL.

use std::num::NonZero;
use std::path::PathBuf;
use std::thread;

use transload_runtime::config::{ConfigError, Sources};
use transload_runtime::{
    Client, ClientError, ClientOptions, Config, LocalCluster, LocalClusterOptions, RuntimeError,
    WorkerMode,
};

use crate::failure::{Exit, Failure};

/// Which cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A new one on this machine.
    Local {
        /// Worker processes; none for as many as suit the machine.
        workers: Option<u32>,
    },
    /// The one whose scheduler listens at `HOST:PORT`.
    Address(String),
    /// The one whose scheduler wrote this file.
    File(PathBuf),
}

/// A connection to a cluster, and the cluster itself where it was started for it.
pub(crate) struct Cluster {
    /// The connection.
    pub(crate) client: Client,
    local: Option<LocalCluster>,
}

impl Cluster {
    /// Connects, after starting a cluster where none is there yet.
    ///
    /// # Errors
    /// No scheduler answers (exit code 3), or a local cluster cannot be started.
    pub(crate) async fn open(place: &Place, config: &Config) -> Result<Self, Failure> {
        let options = ClientOptions::new(config.client.clone());
        let remote = |client| Self {
            client,
            local: None,
        };
        match place {
            Place::Address(address) => Client::connect(address, options)
                .await
                .map(remote)
                .map_err(|error| client_failure(&error)),
            Place::File(path) => Client::connect_scheduler_file(path, options)
                .await
                .map(remote)
                .map_err(|error| client_failure(&error)),
            Place::Local { workers } => {
                let local = start_local(workers.unwrap_or_else(default_workers), config).await?;
                match local.client().await {
                    Ok(client) => Ok(Self {
                        client,
                        local: Some(local),
                    }),
                    Err(error) => {
                        local.shutdown().await;
                        Err(client_failure(&error))
                    }
                }
            }
        }
    }

    /// Leaves the cluster; ends it where it was started for this command.
    pub(crate) async fn close(self) {
        drop(self.client);
        if let Some(local) = self.local {
            local.shutdown().await;
        }
    }

    /// Where to look at it: the address of the dashboard, if it was started for this command and has one.
    pub(crate) fn dashboard(&self) -> Option<String> {
        let address = self.local.as_ref()?.dashboard()?;
        Some(format!("http://{address}/"))
    }

    /// Process ids of the workers that were started for this command.
    pub(crate) fn worker_processes(&self) -> Vec<u32> {
        self.local
            .as_ref()
            .map(LocalCluster::worker_processes)
            .unwrap_or_default()
    }
}

/// Starts scheduler and worker processes on this machine; the workers run this very program.
async fn start_local(workers: u32, config: &Config) -> Result<LocalCluster, Failure> {
    let program = std::env::current_exe().map_err(|error| {
        Failure::failed(format!(
            "cannot find this program to start workers with: {error}"
        ))
    })?;
    let options = LocalClusterOptions {
        workers,
        slots_per_worker: None,
        memory_per_worker_bytes: None,
        spill_dir: None,
        mode: WorkerMode::Processes {
            program,
            arguments: vec!["worker".to_owned(), "--local".to_owned()],
        },
        config: config.clone(),
    };
    LocalCluster::start(options)
        .await
        .map_err(|error| runtime_failure(&error))
}

/// Two workers show what a cluster does without splitting a machine's memory into small pieces.
fn default_workers() -> u32 {
    match thread::available_parallelism().map_or(1, NonZero::get) {
        1 => 1,
        _ => 2,
    }
}

/// A client's error as a failure of the command.
pub(crate) fn client_failure(error: &ClientError) -> Failure {
    let exit = match error {
        ClientError::Connect(_)
        | ClientError::UnexpectedWelcome { .. }
        | ClientError::SchedulerFile(_)
        | ClientError::ConnectionLost { .. } => Exit::Unreachable,
        ClientError::Rejected(_)
        | ClientError::Task(_)
        | ClientError::Deadline { .. }
        | ClientError::NotKept { .. }
        | ClientError::Refused(_)
        | ClientError::TimedOut { .. }
        | ClientError::Listen { .. }
        | ClientError::Fetch { .. } => Exit::Failed,
        ClientError::Cancelled => Exit::Interrupted,
    };
    with_hint(exit, error)
}

/// A runtime's error as a failure of the command.
pub(crate) fn runtime_failure(error: &RuntimeError) -> Failure {
    match error {
        RuntimeError::Config(_) | RuntimeError::NoScheduler => with_hint(Exit::Usage, error),
        RuntimeError::Control(_) => with_hint(Exit::Unreachable, error),
        // Nothing can be done about it here.
        RuntimeError::SchedulerLost { .. } => Failure::new(Exit::Unreachable, error),
        _ => with_hint(Exit::Failed, error),
    }
}

/// What file and environment say.
pub(crate) fn config() -> Result<Config, Failure> {
    let config = Sources::of_process().load();
    config.map_err(|error| config_failure(&error))
}

/// A wrong configuration as a failure of the command.
pub(crate) fn config_failure(error: &ConfigError) -> Failure {
    with_hint(Exit::Usage, error)
}

/// A failure whose hint is what the error's text says after a semicolon: that is where our own errors say what to do.
pub(crate) fn with_hint(exit: Exit, error: &(dyn std::error::Error + 'static)) -> Failure {
    let text = error.to_string();
    let failure = match text.split_once("; ") {
        Some((message, hint)) => Failure::new(exit, message).hint(hint),
        None => Failure::new(exit, &text),
    };
    // Everything beneath that the sentence does not say already.
    error
        .source()
        .filter(|source| !text.contains(&source.to_string()))
        .map_or(failure.clone(), |source| failure.because(source))
}
