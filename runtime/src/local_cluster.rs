//! A cluster on this machine: the scheduler in this process, workers as child processes or as tasks of this process.
//!
//! Called by `transload sql`, `transload demo`, tests and anyone who embeds transload. A worker process ends when its
//! connection to the scheduler ends, so that none outlives this process, however it dies.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use transload_gpu::SpillDirectory;

use crate::client::{Client, ClientError, ClientOptions};
use crate::config::{CONFIG_VARIABLE, ClientConfig, Config, SETTINGS};
use crate::error::RuntimeError;
use crate::operator::OperatorFactory;
use crate::scheduler_server::SchedulerServer;
use crate::transports::TransportChoice;
use crate::worker_process::run_worker;

/// Time for all workers to join.
const JOIN_TIMEOUT: Duration = Duration::from_secs(60);
const JOIN_POLL_INTERVAL: Duration = Duration::from_millis(10);
/// Time for workers to end in good order before they are killed; longer than they give their own operators.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for killed workers to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(2);

/// What a local cluster consists of.
#[derive(Clone)]
pub struct LocalClusterOptions {
    /// Number of workers, at least 1.
    pub workers: u32,
    /// Slots of each worker. Default: the machine's CPUs divided by the workers, at least 1.
    pub slots_per_worker: Option<u32>,
    /// Memory budget of each worker in bytes. Default: as configured, divided by the workers.
    pub memory_per_worker_bytes: Option<u64>,
    /// Where workers spill. Default: as configured.
    pub spill_dir: Option<PathBuf>,
    /// How workers run.
    pub mode: WorkerMode,
    /// Everything else.
    pub config: Config,
}

/// How the workers of a local cluster run.
#[derive(Clone)]
pub enum WorkerMode {
    /// Each as a child process: `program arguments… HOST:PORT --slots N …`.
    Processes {
        /// The program, usually this one.
        program: PathBuf,
        /// Its first arguments, usually `worker`.
        arguments: Vec<String>,
    },
    /// All in this process. Partitions are handed over in memory, and a crash takes everything down.
    Threads {
        /// Operators of each worker.
        operators: OperatorFactory,
    },
}

/// A running cluster on this machine. Dropping it ends it roughly; [`LocalCluster::shutdown`] ends it in good order.
pub struct LocalCluster {
    server: SchedulerServer,
    workers: Vec<LocalWorker>,
    /// Cancelled to end workers that are tasks of this process.
    stop: CancellationToken,
    spill_parent: PathBuf,
    client: ClientConfig,
}

enum LocalWorker {
    Process(Child),
    Task(JoinHandle<Result<(), RuntimeError>>),
}

impl LocalCluster {
    /// Starts scheduler and workers, and returns when all workers have joined.
    ///
    /// # Errors
    /// [`RuntimeError`] when the scheduler cannot listen, a worker cannot be started, or one ends before it has joined. Nothing
    /// is left running then.
    pub async fn start(options: LocalClusterOptions) -> Result<Self, RuntimeError> {
        let mut config = options.config;
        // A local cluster is for this machine and for one program: nothing of it may clash with another.
        config.scheduler.host = "127.0.0.1".to_owned();
        config.scheduler.port = 0;
        config.scheduler.file = None;
        let count = options.workers.max(1);
        config.worker.slots = options.slots_per_worker.or(config.worker.slots);
        config.worker.memory_bytes = options
            .memory_per_worker_bytes
            .or(config.worker.memory_bytes);
        config.worker.spill_dir = options.spill_dir.or(config.worker.spill_dir);
        config.worker = config.worker.share_of(count);
        config.worker.data_port = 0;
        config.worker.scheduler_file = None;

        let server = SchedulerServer::start(config.scheduler.clone()).await?;
        config.worker.scheduler = Some(server.address().to_string());
        let mut cluster = Self {
            server,
            workers: Vec::new(),
            stop: CancellationToken::new(),
            spill_parent: config.worker.spill_parent(),
            client: config.client.clone(),
        };
        for index in 0..count {
            config.worker.name = Some(format!("local-{index}"));
            let worker = cluster.start_worker(&options.mode, &config)?;
            cluster.workers.push(worker);
        }
        cluster.wait_for_workers(count).await?;
        Ok(cluster)
    }

    /// `HOST:PORT` of the scheduler.
    pub fn address(&self) -> String {
        self.server.address().to_string()
    }

    /// Where its dashboard listens, if it has one.
    pub const fn dashboard(&self) -> Option<SocketAddr> {
        self.server.dashboard()
    }

    /// A new client of this cluster.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn client(&self) -> Result<Client, ClientError> {
        Client::connect(&self.address(), ClientOptions::new(self.client.clone())).await
    }

    /// Process ids of the workers that are processes of their own and have not been waited for.
    pub fn worker_processes(&self) -> Vec<u32> {
        let workers = self.workers.iter();
        workers
            .filter_map(|worker| match worker {
                LocalWorker::Process(child) => child.id(),
                LocalWorker::Task(_) => None,
            })
            .collect()
    }

    /// Ends all workers and the scheduler, and removes what they spilled.
    pub async fn shutdown(mut self) {
        self.server.shutdown().await;
        self.stop.cancel();
        let deadline = Instant::now() + SHUTDOWN_TIMEOUT;
        for worker in &mut self.workers {
            let patience = deadline.saturating_duration_since(Instant::now());
            match worker {
                LocalWorker::Process(child) => {
                    if timeout(patience, child.wait()).await.is_err() {
                        tracing::warn!(
                            pid = child.id(),
                            "worker did not end in time and is killed"
                        );
                        // A worker that has ended by itself meanwhile is no error.
                        let _ = child.kill().await;
                    }
                }
                LocalWorker::Task(task) => {
                    if timeout(patience, &mut *task).await.is_err() {
                        task.abort();
                    }
                }
            }
        }
    }

    fn start_worker(
        &self,
        mode: &WorkerMode,
        config: &Config,
    ) -> Result<LocalWorker, RuntimeError> {
        match mode {
            WorkerMode::Threads { operators } => {
                let mut worker = config.worker.clone();
                // Within a process partitions are handed over, and clients use TCP: there is nobody to choose for.
                if worker.transport == TransportChoice::Auto {
                    worker.transport = TransportChoice::Tcp;
                }
                let worker = run_worker(worker, operators.clone(), self.stop.child_token());
                Ok(LocalWorker::Task(tokio::spawn(worker)))
            }
            WorkerMode::Processes { program, arguments } => {
                let mut command = Command::new(program);
                command.args(arguments).arg(self.address());
                // Every setting travels in the environment; a file or variable of our own must not win over it.
                command.env_remove(CONFIG_VARIABLE);
                for setting in SETTINGS {
                    command.env(setting.variable(), setting.value(config));
                }
                command
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::inherit());
                // Ctrl-C at a terminal reaches this process alone, which then ends the workers in good order.
                command.process_group(0).kill_on_drop(true);
                command
                    .spawn()
                    .map(LocalWorker::Process)
                    .map_err(|source| RuntimeError::File {
                        what: "cannot start worker process",
                        path: program.clone(),
                        source,
                    })
            }
        }
    }

    async fn wait_for_workers(&mut self, count: u32) -> Result<(), RuntimeError> {
        let deadline = Instant::now() + JOIN_TIMEOUT;
        loop {
            let joined = self.server.info().await?.workers.len();
            if joined >= count as usize {
                return Ok(());
            }
            for (index, worker) in self.workers.iter_mut().enumerate() {
                let ended = match worker {
                    LocalWorker::Process(child) => child
                        .try_wait()
                        .ok()
                        .flatten()
                        .map(|status| status.to_string()),
                    LocalWorker::Task(task) if task.is_finished() => Some(match task.await {
                        Ok(Ok(())) => "it was stopped".to_owned(),
                        Ok(Err(error)) => error.to_string(),
                        Err(error) => error.to_string(),
                    }),
                    LocalWorker::Task(_) => None,
                };
                if let Some(reason) = ended {
                    return Err(RuntimeError::WorkerStart { index, reason });
                }
            }
            if Instant::now() >= deadline {
                let reason = format!("it did not join within {} s", JOIN_TIMEOUT.as_secs());
                return Err(RuntimeError::WorkerStart {
                    index: joined,
                    reason,
                });
            }
            sleep(JOIN_POLL_INTERVAL).await;
        }
    }
}

impl Drop for LocalCluster {
    /// Ends roughly what [`LocalCluster::shutdown`] has not ended in good order: a start that was interrupted, for example.
    fn drop(&mut self) {
        self.stop.cancel();
        let mut children: Vec<&mut Child> = Vec::new();
        for worker in &mut self.workers {
            if let LocalWorker::Process(child) = worker {
                // One that has ended already is no error.
                let _ = child.start_kill();
                children.push(child);
            }
        }
        // A killed process is gone within milliseconds; what it spilled is swept only once it is.
        let deadline = std::time::Instant::now() + KILL_TIMEOUT;
        while !children.is_empty() && std::time::Instant::now() < deadline {
            children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
            std::thread::sleep(JOIN_POLL_INTERVAL / 10);
        }
        SpillDirectory::sweep(&self.spill_parent);
    }
}
