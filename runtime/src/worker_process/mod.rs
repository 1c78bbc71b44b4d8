//! The worker process: sockets, clock, threads, memory and disk around the pure [`transload_worker::Worker`].
//!
//! Called by the command line and, for workers in threads, by the local cluster. Decides nothing: what to fetch, start, spill
//! and drop comes from the machine.

mod actions;
mod completions;
mod disk;
mod driver;
mod executor;
mod fused;
mod inbox;
mod link;
mod on_device;
mod quick;
mod slots;
mod store;

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use transload_gpu::{Budget, SpillDirectory};
use transload_protocol::{Address, ClusterId, Role, Welcome, WorkerHello, WorkerId};

use self::driver::{Driver, Parts};
use self::executor::Executor;
use self::link::Home;
use self::store::PartitionStore;
use crate::config::WorkerConfig;
use crate::control::{self, ControlError, Dialed};
use crate::fetcher::Fetcher;
use crate::gpu::{ChosenGpu, LazyGpu};
use crate::inside::WorkerClient;
use crate::process;
use crate::transports::{CannotListen, Listeners, Places, Transports};
use crate::{OperatorFactory, RuntimeError, WorkerEnvironment};

/// Runs a worker until the scheduler says so, `stop` is cancelled, or the connection to the scheduler ends. However it ends, its
/// running operators are stopped and its spill directory is removed before this returns. Needs a tokio runtime, on which partitions
/// are served and fetched; the machine and its connection to the scheduler have a thread of their own.
///
/// # Errors
/// [`RuntimeError`]; [`RuntimeError::SchedulerLost`] when the connection ended and nobody asked for it.
pub async fn run_worker(
    config: WorkerConfig,
    operators: OperatorFactory,
    stop: CancellationToken,
) -> Result<(), RuntimeError> {
    let threads = |source| RuntimeError::Threads {
        what: "the worker's thread",
        source,
    };
    let data = Handle::current();
    let abort = CancellationToken::new();
    let _aborts_when_dropped = abort.clone().drop_guard();
    let (ended, end) = oneshot::channel();
    // A message that arrives, the machine's decision and its answer are one thread's work: handing them from one thread to the next
    // would cost more than all of them.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(threads)?;
    thread::Builder::new()
        .name("worker".to_owned())
        .spawn(move || {
            let result = runtime.block_on(async {
                tokio::select! {
                    biased;
                    () = abort.cancelled() => Ok(()),
                    result = live(config, operators, stop, data) => result,
                }
            });
            runtime.shutdown_background();
            // Whoever waited may be gone.
            let _ = ended.send(result);
        })
        .map_err(threads)?;
    end.await
        .unwrap_or_else(|_| Err(threads(io::Error::other("it panicked"))))
}

/// One life after another: a worker that its scheduler no longer knows begins anew, with nothing.
async fn live(
    config: WorkerConfig,
    operators: OperatorFactory,
    stop: CancellationToken,
    data: Handle,
) -> Result<(), RuntimeError> {
    loop {
        let (operators, stop) = (Arc::clone(&operators), stop.clone());
        match Box::pin(work(config.clone(), operators, stop, data.clone())).await {
            Err(error @ RuntimeError::Forgotten { .. }) => {
                tracing::warn!(%error, "the worker starts anew");
            }
            ended => return ended,
        }
    }
}

/// The worker's life, on its own thread. `data` is the runtime for partitions.
async fn work(
    config: WorkerConfig,
    operators: OperatorFactory,
    stop: CancellationToken,
    data_runtime: Handle,
) -> Result<(), RuntimeError> {
    let address = tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        address = config.scheduler_address() => address?,
    };
    let dialed = tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        dialed = control::dial(&address, config.connect_timeout) => dialed?,
    };
    let name = config
        .name
        .clone()
        .unwrap_or_else(|| format!("{}-{}", host_name(), std::process::id()));
    let gpu = config.gpu.choose().map_err(|reason| RuntimeError::NoGpu {
        wanted: config.gpu,
        reason,
    })?;
    let spill = Arc::new(make_spill_directory(&config)?);
    let budget = match &gpu {
        Some(gpu) => Some(config.gpu_budget(gpu.total_bytes())?),
        None => None,
    };
    let lazy_gpu = gpu.as_ref().zip(budget).map(|(gpu, budget)| {
        let (device_bytes, pinned_bytes) = (budget.device_bytes, budget.pinned_bytes);
        let spill = Arc::clone(&spill);
        Arc::new(LazyGpu::new(
            gpu.ordinal(),
            device_bytes,
            pinned_bytes,
            spill,
        ))
    });
    let environment = Arc::new(WorkerEnvironment {
        name: name.clone(),
        slots: config.slots(),
        execution_memory: Budget::new("memory for operators", config.execution_bytes()),
        scratch_dir: make_scratch_directory(spill.path())?,
    });
    let client = Arc::new(WorkerClient::new(
        address.clone(),
        config.client_options(&name),
        environment.execution_memory.clone(),
    ));
    let executor = Executor::start(&environment, operators(&environment), client)?;
    let store = Arc::new(PartitionStore::new(
        config.storage_bytes(),
        config.served_loads,
    ));
    let published = process::publish(store.source());
    let data = listen(&config, &dialed, &store, &data_runtime).await?;
    let served = data.listeners.iter().map(|it| it.address().clone());
    let served: Vec<Address> = served.collect();
    let hello = WorkerHello {
        name: name.clone(),
        host: host_name(),
        process: std::process::id(),
        resources: config.resources(gpu.is_some()),
        memory_bytes: config.storage_bytes(),
        addresses: [&[published.address().clone()], &served[..]].concat(),
        labels: config.labels.clone(),
        shared: config.shared_resources.clone(),
        gpu: gpu.as_ref().map(ChosenGpu::told),
    };
    let handshake = control::greet(
        dialed,
        Role::Worker(hello.clone()),
        config.control.handshake_timeout,
    );
    let connected = tokio::select! {
        biased;
        () = stop.cancelled() => {
            executor.stop(Duration::ZERO).await;
            return Ok(());
        }
        connected = handshake => connected?,
    };
    let (id, silence, cluster) = welcomed(&connected.welcome, &address)?;
    tracing::info!(
        worker = %id, %name, scheduler = %address, data = ?served.iter().map(ToString::to_string).collect::<Vec<_>>(),
        slots = environment.slots, spill = %spill.path().display(), "worker joined"
    );
    let driver = Driver::new(Parts {
        home: Home {
            address,
            file: config.scheduler_file.clone(),
            cluster,
            worker: id,
            hello,
            patience: config.reconnect_timeout,
            handshake_timeout: config.control.handshake_timeout,
        },
        machine: config.machine(silence, budget),
        executor,
        store,
        spill,
        gpu: lazy_gpu,
        fetcher: Arc::new(
            Fetcher::new(data.transports.all()).retrying_links_after(config.link_retry),
        ),
        data_runtime,
        stop_timeout: config.stop_timeout,
    });
    let ended = driver
        .run(connected, config.control.send_limits(), stop)
        .await;
    drop(published);
    drop(gpu);
    drop(data.listeners);
    match &ended {
        Ok(()) => tracing::info!(worker = %id, "worker ended"),
        Err(error) => tracing::warn!(worker = %id, %error, "worker ended"),
    }
    ended
}

/// What serves partitions to others, and fetches from them.
struct Data {
    /// Best first.
    listeners: Listeners,
    transports: Transports,
}

async fn listen(
    config: &WorkerConfig,
    dialed: &Dialed,
    store: &Arc<PartitionStore>,
    data_runtime: &Handle,
) -> Result<Data, RuntimeError> {
    // The address from which this machine reaches the scheduler is one that others reach, too.
    let outward = dialed.stream.local_addr().map(|address| address.ip());
    let host = match (&config.data_host, &outward) {
        (Some(host), _) => host.clone(),
        (None, Ok(ip)) => ip.to_string(),
        (None, Err(_)) => "127.0.0.1".to_owned(),
    };
    let everywhere = host.parse().is_ok_and(|ip: IpAddr| ip.is_unspecified());
    let advertised = outward.ok().filter(|_| everywhere).map(|ip| ip.to_string());
    let transports =
        Transports::start(config, advertised).map_err(|reason| RuntimeError::NoUcx { reason })?;
    let (tcp_port, ucx_port) = (config.data_port, config.ucx.port);
    let source = store.source();
    let listening = async move {
        let places = Places {
            host: &host,
            tcp_port,
            ucx_port,
        };
        let listeners = transports.listen(&places, &source).await?;
        Ok(Data {
            listeners,
            transports,
        })
    };
    data_runtime
        .spawn(listening)
        .await
        .map_err(|error| RuntimeError::Threads {
            what: "the threads that serve partitions",
            source: error.into(),
        })?
        .map_err(|CannotListen { address, source }| RuntimeError::Listen {
            address: address.to_string(),
            source,
        })
}

fn make_spill_directory(config: &WorkerConfig) -> Result<SpillDirectory, RuntimeError> {
    let path = config.spill_parent();
    SpillDirectory::create(&path).map_err(|source| RuntimeError::SpillDirectory { path, source })
}

/// Inside the spill directory, so that it is removed with it, also when this process is killed and another one sweeps.
fn make_scratch_directory(spill: &Path) -> Result<std::path::PathBuf, RuntimeError> {
    let path = spill.join("scratch");
    match fs::create_dir(&path) {
        Ok(()) => Ok(path),
        Err(source) => Err(RuntimeError::File {
            what: "cannot make scratch folder",
            path,
            source,
        }),
    }
}

/// A worker's id, the silence that the scheduler bears, and where to come back to.
type Membership = (WorkerId, Duration, Option<ClusterId>);

fn welcomed(welcome: &Welcome, address: &str) -> Result<Membership, RuntimeError> {
    match welcome {
        Welcome::Worker {
            worker,
            heartbeat_ms,
            cluster,
        } => Ok((
            *worker,
            Duration::from_millis((*heartbeat_ms).into()),
            *cluster,
        )),
        Welcome::Client { .. } | Welcome::Refused { .. } => Err(ControlError::NotTransload {
            peer: address.to_owned(),
            reason: "it answered a worker's hello with something else".to_owned(),
        }
        .into()),
    }
}

fn host_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .or_else(|| std::env::var("HOSTNAME").ok())
        .unwrap_or_else(|| "localhost".to_owned())
}
