//! Configuration: every limit and habit of the runtime, documented once in [`SETTINGS`] and read from a TOML file, the environment
//! and flags, later ones winning.
//!
//! Called by the command line and by whoever embeds the runtime. The structs here hold what was configured; `None` means "found
//! out at the start", from the machine.

mod error;
mod flags;
mod kind;
mod load;
mod machine;
mod markdown;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use transload_protocol::{Amount, Resources};
use transload_transport_tcp::TcpOptions;

use crate::RuntimeError;
use crate::client::ClientOptions;
use crate::control::SendLimits;
use crate::fetcher::LINK_RETRY;
use crate::gpu::GpuChoice;
use crate::scheduler_server::SchedulerFile;
use crate::transports::{TransportChoice, UcxConfig};

pub use error::ConfigError;
pub use flags::{SchedulerFlags, SqlFlags, WorkerFlags};
pub use kind::{format_bytes, parse_bytes, parse_duration};
pub use load::{CONFIG_FILE, CONFIG_VARIABLE, Sources};
pub(crate) use machine::resident_bytes;
pub use machine::{machine_memory_bytes, machine_slots};
pub use markdown::markdown_table;
pub use table::{Command, SETTINGS, Setting};

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    /// The scheduler.
    pub scheduler: SchedulerConfig,
    /// Each worker.
    pub worker: WorkerConfig,
    /// Clients.
    pub client: ClientConfig,
}

/// What a scheduler is told.
#[derive(Debug, Clone, PartialEq)]
pub struct SchedulerConfig {
    /// Where it listens: a host name or address.
    pub host: String,
    /// The port; 0 for a free one.
    pub port: u16,
    /// A file that tells others where it listens; removed when it ends.
    pub file: Option<PathBuf>,
    /// Where its dashboard listens.
    pub dashboard: DashboardChoice,
    /// A file with what viewers of the dashboard have to show.
    pub dashboard_token_file: Option<PathBuf>,
    /// Most connections at once; further ones are closed at once.
    pub connections: u32,
    /// See [`transload_scheduler::Config::queue_per_slot`].
    pub queue_per_slot: u32,
    /// See [`transload_scheduler::Config::max_queue_per_slot`].
    pub max_queue_per_slot: u32,
    /// See [`transload_scheduler::Config::worker_timeout_ms`].
    pub worker_timeout: Duration,
    /// See [`transload_scheduler::Config::client_grace_ms`].
    pub client_grace: Duration,
    /// See [`transload_scheduler::Config::recovery_grace_ms`].
    pub recovery_grace: Duration,
    /// See [`transload_scheduler::Config::unschedulable_grace_ms`].
    pub unschedulable_grace: Duration,
    /// What it writes down to survive its own end.
    pub journal: JournalConfig,
    /// See [`transload_scheduler::Config::worker_deaths_per_task`].
    pub worker_deaths_per_task: u32,
    /// See [`transload_scheduler::Config::retry_backoff_ms`].
    pub retry_backoff: Duration,
    /// See [`transload_scheduler::Config::retry_backoff_limit_ms`].
    pub retry_backoff_limit: Duration,
    /// See [`transload_scheduler::Config::straggler_factor`].
    pub straggler_factor: u32,
    /// See [`transload_scheduler::Config::straggler_after_ms`].
    pub straggler_after: Duration,
    /// See [`transload_scheduler::Config::progress_interval_ms`].
    pub progress_interval: Duration,
    /// See [`transload_scheduler::Config::published_names`].
    pub published_names: u32,
    /// See [`transload_scheduler::CoordinationLimits`].
    pub coordination: transload_scheduler::CoordinationLimits,
    /// Its control connections.
    pub control: ControlConfig,
}

/// Where a dashboard listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DashboardChoice {
    /// On this machine alone, at its usual port or, where that is taken, at a free one.
    Auto,
    /// Nowhere: there is none.
    Off,
    /// There.
    At {
        /// A host name or address.
        host: String,
        /// 0 for a free port.
        port: u16,
    },
}

/// What a worker is told.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerConfig {
    /// `HOST:PORT` of the scheduler. Needed unless `scheduler_file` is given.
    pub scheduler: Option<String>,
    /// The file that the scheduler wrote.
    pub scheduler_file: Option<PathBuf>,
    /// Shown to people; `None` for host and process id.
    pub name: Option<String>,
    /// Tasks that run at once; `None` for one per CPU of this machine.
    pub slots: Option<u32>,
    /// Further named resources that tasks can ask for.
    pub resources: BTreeMap<String, Amount>,
    /// Those of which tasks may ask for fractions.
    pub shared_resources: BTreeSet<String>,
    /// Names by which tasks can ask for workers like this one.
    pub labels: BTreeSet<String>,
    /// Memory for partitions and operators together, in bytes; `None` for a share of this machine's.
    pub memory_bytes: Option<u64>,
    /// Percentage of it for stored partitions; the rest is for running operators.
    pub storage_percent: u8,
    /// See [`transload_worker::Config::spill_above_percent`].
    pub spill_above_percent: u8,
    /// Where spilled partitions and temporary files go; `None` for a folder of this user's in the system's temporary folder.
    pub spill_dir: Option<PathBuf>,
    /// Most bytes of spilled partitions; `u64::MAX` for no limit.
    pub disk_bytes: u64,
    /// See [`transload_worker::Config::disk_operations_in_flight`].
    pub disk_operations_in_flight: u32,
    /// Spilled partitions that are read back at once to serve other workers.
    pub served_loads: u32,
    /// See [`transload_worker::Config::fetches_in_flight`].
    pub fetches_in_flight: u32,
    /// See [`transload_worker::Config::fetch_attempts`].
    pub fetch_attempts: u32,
    /// See [`crate::fetcher::Fetcher::retrying_links_after`].
    pub link_retry: Duration,
    /// See [`transload_worker::Config::heartbeat_ms`].
    pub heartbeat: Duration,
    /// Host on which it serves partitions; `None` for the address from which this machine reaches the scheduler.
    pub data_host: Option<String>,
    /// Port on which it serves partitions; 0 for a free one.
    pub data_port: u16,
    /// How long it tries to reach the scheduler.
    pub connect_timeout: Duration,
    /// How long it tries to come back after its connection to the scheduler broke.
    pub reconnect_timeout: Duration,
    /// How long running operators may take to stop when the worker ends.
    pub stop_timeout: Duration,
    /// Its GPU.
    pub gpu: GpuChoice,
    /// Memory that it takes of its GPU, in bytes; `None` for three quarters of it.
    pub gpu_memory_bytes: Option<u64>,
    /// Page-locked host memory for what leaves its GPU, in bytes; `None` for a quarter of its memory, beside which it is.
    pub pinned_memory_bytes: Option<u64>,
    /// What carries its data connections.
    pub transport: TransportChoice,
    /// Its data connections over TCP.
    pub tcp: TcpOptions,
    /// Its data connections over UCX.
    pub ucx: UcxConfig,
    /// Its control connection.
    pub control: ControlConfig,
}

/// What a client is told.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientConfig {
    /// How long it tries to reach the scheduler.
    pub connect_timeout: Duration,
    /// How long it tries to come back after its connection to the scheduler broke.
    pub reconnect_timeout: Duration,
    /// Most partitions fetched at once.
    pub fetches_in_flight: u32,
    /// Attempts to fetch one partition from one worker before the scheduler is told that it is unreachable.
    pub fetch_attempts: u32,
    /// Its data connections.
    pub tcp: TcpOptions,
    /// Its control connection.
    pub control: ControlConfig,
}

/// Limits of control connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlConfig {
    /// How long a peer may take for the handshake.
    pub handshake_timeout: Duration,
    /// Longest time in which a peer with messages waiting reads nothing.
    pub send_timeout: Duration,
    /// Most bytes of messages that wait for one peer.
    pub backlog_bytes: u64,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        let machine = transload_scheduler::Config::default();
        Self {
            host: "127.0.0.1".to_owned(),
            port: 8790,
            file: None,
            dashboard: DashboardChoice::Auto,
            dashboard_token_file: None,
            connections: 4_096,
            queue_per_slot: machine.queue_per_slot,
            max_queue_per_slot: machine.max_queue_per_slot,
            worker_timeout: millis(machine.worker_timeout_ms),
            client_grace: millis(machine.client_grace_ms),
            recovery_grace: millis(machine.recovery_grace_ms),
            unschedulable_grace: millis(machine.unschedulable_grace_ms),
            journal: JournalConfig::default(),
            worker_deaths_per_task: machine.worker_deaths_per_task,
            retry_backoff: millis(machine.retry_backoff_ms),
            retry_backoff_limit: millis(machine.retry_backoff_limit_ms),
            straggler_factor: machine.straggler_factor,
            straggler_after: millis(machine.straggler_after_ms),
            progress_interval: millis(machine.progress_interval_ms),
            published_names: machine.published_names,
            coordination: machine.coordination,
            control: ControlConfig::default(),
        }
    }
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            scheduler: None,
            scheduler_file: None,
            name: None,
            slots: None,
            resources: BTreeMap::new(),
            shared_resources: BTreeSet::new(),
            labels: BTreeSet::new(),
            memory_bytes: None,
            storage_percent: 50,
            spill_above_percent: 70,
            spill_dir: None,
            disk_bytes: u64::MAX,
            disk_operations_in_flight: 4,
            served_loads: 4,
            fetches_in_flight: 16,
            fetch_attempts: 2,
            link_retry: LINK_RETRY,
            heartbeat: Duration::from_millis(500),
            data_host: None,
            data_port: 0,
            connect_timeout: Duration::from_secs(30),
            reconnect_timeout: Duration::from_secs(30),
            stop_timeout: Duration::from_secs(5),
            gpu: GpuChoice::default(),
            gpu_memory_bytes: None,
            pinned_memory_bytes: None,
            transport: TransportChoice::default(),
            tcp: TcpOptions::default(),
            ucx: UcxConfig::default(),
            control: ControlConfig::default(),
        }
    }
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            reconnect_timeout: Duration::from_secs(30),
            fetches_in_flight: 16,
            fetch_attempts: 2,
            tcp: TcpOptions::default(),
            control: ControlConfig::default(),
        }
    }
}

/// The journal of a scheduler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalConfig {
    /// The folder; `None` for no journal.
    pub folder: Option<PathBuf>,
    /// When what is written is forced onto the disk.
    pub fsync: Fsync,
    /// A journal longer than this is made shorter, if that helps.
    pub limit_bytes: u64,
}

/// When a journal is forced onto the disk. The end of the process alone loses nothing, whatever stands here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// Before anything is acknowledged.
    Always,
    /// At most so much later: a crash of the machine may cost what was acknowledged since.
    Within(Duration),
    /// When the system likes.
    Never,
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self {
            folder: None,
            fsync: Fsync::Always,
            limit_bytes: 64 << 20,
        }
    }
}

impl Default for ControlConfig {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(5),
            send_timeout: Duration::from_secs(30),
            backlog_bytes: 1 << 30,
        }
    }
}

impl ControlConfig {
    /// When a peer counts as one that does not read.
    pub fn send_limits(&self) -> SendLimits {
        SendLimits {
            backlog_bytes: usize::try_from(self.backlog_bytes).unwrap_or(usize::MAX),
            stall: self.send_timeout,
        }
    }
}

impl SchedulerConfig {
    /// The part that the machine decides by.
    pub fn machine(&self) -> transload_scheduler::Config {
        transload_scheduler::Config {
            queue_per_slot: self.queue_per_slot,
            max_queue_per_slot: self.max_queue_per_slot,
            worker_timeout_ms: as_millis(self.worker_timeout),
            client_grace_ms: as_millis(self.client_grace),
            recovery_grace_ms: as_millis(self.recovery_grace),
            unschedulable_grace_ms: as_millis(self.unschedulable_grace),
            journal: self.journal.folder.is_some(),
            published_names: self.published_names,
            worker_deaths_per_task: self.worker_deaths_per_task,
            retry_backoff_ms: as_millis(self.retry_backoff),
            retry_backoff_limit_ms: as_millis(self.retry_backoff_limit),
            straggler_factor: self.straggler_factor,
            straggler_after_ms: as_millis(self.straggler_after),
            task_events: true,
            progress_interval_ms: as_millis(self.progress_interval),
            coordination: self.coordination,
        }
    }
}

/// Memory of a worker's GPU, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuBudget {
    /// On the device.
    pub device_bytes: u64,
    /// Page-locked memory of the host.
    pub pinned_bytes: u64,
}

impl WorkerConfig {
    /// This configuration for one of `workers` workers on this machine: slots and memory that were left open become its share.
    #[must_use]
    pub fn share_of(mut self, workers: u32) -> Self {
        let workers = workers.max(1);
        self.slots
            .get_or_insert_with(|| (machine_slots() / workers).max(1));
        self.memory_bytes
            .get_or_insert_with(|| default_memory_bytes() / u64::from(workers));
        self
    }

    /// Slots, as configured or found.
    pub fn slots(&self) -> u32 {
        self.slots.unwrap_or_else(machine_slots)
    }

    /// Memory for stored and fetched partitions, in bytes.
    pub fn storage_bytes(&self) -> u64 {
        self.stored_share(self.total_bytes())
    }

    /// What stored partitions have of so much memory, in bytes.
    fn stored_share(&self, bytes: u64) -> u64 {
        let percent = u128::from(self.storage_percent.min(100));
        u64::try_from(u128::from(bytes) * percent / 100).unwrap_or(u64::MAX)
    }

    /// Memory for running operators, in bytes.
    pub fn execution_bytes(&self) -> u64 {
        self.total_bytes() - self.storage_bytes()
    }

    /// Where spill files and scratch files go: a folder under which each worker makes its own.
    pub fn spill_parent(&self) -> PathBuf {
        self.spill_dir.clone().unwrap_or_else(|| {
            std::env::temp_dir().join(format!("transload-{}", machine::user_id()))
        })
    }

    /// Where the scheduler listens. A scheduler file may come a while later: on batch systems workers often start first.
    ///
    /// # Errors
    /// [`RuntimeError::NoScheduler`], or [`RuntimeError::File`] when the scheduler file cannot be read in time.
    pub async fn scheduler_address(&self) -> Result<String, RuntimeError> {
        match (&self.scheduler, &self.scheduler_file) {
            (Some(address), _) => Ok(address.clone()),
            (None, Some(file)) => Ok(SchedulerFile::wait(file, self.connect_timeout)
                .await?
                .address),
            (None, None) => Err(RuntimeError::NoScheduler),
        }
    }

    /// What it offers to tasks: of memory, what is there for running operators; its GPU, if it has one and nothing else is said of it.
    pub fn resources(&self, has_gpu: bool) -> Resources {
        let mut named = self.resources.clone();
        if has_gpu {
            let gpu = named.entry(Resources::GPU.to_owned());
            gpu.or_insert(Amount::whole(1));
        }
        Resources {
            slots: self.slots(),
            named,
            memory_bytes: self.execution_bytes(),
        }
    }

    /// What it takes of a GPU with so much memory, and beside it.
    ///
    /// # Errors
    /// [`RuntimeError::GpuTooSmall`].
    pub fn gpu_budget(&self, total_bytes: u64) -> Result<GpuBudget, RuntimeError> {
        let (device, pinned) = (self.gpu_memory_bytes, self.pinned_memory_bytes);
        if let Some(wanted_bytes) = device.filter(|wanted| *wanted > total_bytes) {
            return Err(RuntimeError::GpuTooSmall {
                wanted_bytes,
                total_bytes,
            });
        }
        Ok(GpuBudget {
            device_bytes: device.unwrap_or(total_bytes / 4 * 3),
            pinned_bytes: pinned.unwrap_or(self.total_bytes() / 4),
        })
    }

    /// The part that the machine decides by. `silence` is the time after which the scheduler gives a silent worker up; `gpu` is what
    /// there is of a GPU, of which operators have the same share as of other memory.
    pub fn machine(&self, silence: Duration, gpu: Option<GpuBudget>) -> transload_worker::Config {
        transload_worker::Config {
            resources: self.resources(gpu.is_some()),
            memory_bytes: self.storage_bytes(),
            disk_bytes: self.disk_bytes,
            gpu: gpu.map(|gpu| transload_worker::GpuConfig {
                device_bytes: self.stored_share(gpu.device_bytes),
                // What is left is for chunks on their way, and for what operators tell the host.
                pinned_bytes: gpu.pinned_bytes / 4 * 3,
            }),
            spill_above_percent: self.spill_above_percent,
            fetches_in_flight: self.fetches_in_flight,
            disk_operations_in_flight: self.disk_operations_in_flight,
            copies_in_flight: self.disk_operations_in_flight,
            fetch_attempts: self.fetch_attempts,
            heartbeat_ms: as_millis(self.heartbeat.min(silence / 4)).max(1),
        }
    }

    /// How the tasks of a worker of this name connect as clients.
    pub(crate) fn client_options(&self, name: &str) -> ClientOptions {
        ClientOptions {
            name: format!("tasks of {name}"),
            memory_bytes: self.execution_bytes(),
            config: ClientConfig {
                connect_timeout: self.connect_timeout,
                reconnect_timeout: self.reconnect_timeout,
                fetches_in_flight: self.fetches_in_flight,
                fetch_attempts: self.fetch_attempts,
                tcp: self.tcp.clone(),
                control: self.control.clone(),
            },
        }
    }

    fn total_bytes(&self) -> u64 {
        self.memory_bytes.unwrap_or_else(default_memory_bytes)
    }
}

/// What workers may use of this machine when nothing is configured: three quarters of its memory, all workers together.
fn default_memory_bytes() -> u64 {
    machine_memory_bytes() / 4 * 3
}

fn millis(millis: u32) -> Duration {
    Duration::from_millis(millis.into())
}

fn as_millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
