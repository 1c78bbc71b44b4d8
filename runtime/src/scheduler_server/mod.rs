//! The scheduler process: sockets, clock and thread around the pure [`transload_scheduler::Scheduler`].
//!
//! Called by the command line and by the local cluster. Decides nothing about tasks; it carries messages in and actions out.

mod connection;
mod core;
mod file;
mod journal;
mod journal_error;
mod shown;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use transload_dashboard::Dashboard;
use transload_protocol::{ClusterInfo, Explanation, PROTOCOL_VERSION, TaskId};

use self::connection::Door;
use self::core::{Arrival, Core, FailureSlot};
use crate::RuntimeError;
use crate::config::SchedulerConfig;

pub use file::SchedulerFile;
pub use journal_error::JournalError;

/// Batches of messages that wait for the scheduler's thread before readers pause, and their peers with them.
const ARRIVALS: usize = 1_024;
/// How long peers may take to read the last messages when the scheduler stops.
const FAREWELL: Duration = Duration::from_secs(3);
/// Pause after a connection could not be accepted, for lack of file descriptors for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A running scheduler. Dropping it closes every connection at once, and workers end with theirs; [`SchedulerServer::shutdown`] says goodbye
/// first.
#[derive(Debug)]
pub struct SchedulerServer {
    address: SocketAddr,
    dashboard: Option<SocketAddr>,
    arrivals: mpsc::Sender<Arrival>,
    /// Cancelled to end everything at once.
    abort: CancellationToken,
    /// Cancelled when everything has ended.
    ended: CancellationToken,
    failure: FailureSlot,
}

impl SchedulerServer {
    /// Listens, starts the scheduler's thread, and writes the scheduler file where one is configured. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`RuntimeError::Bind`], [`RuntimeError::File`], [`RuntimeError::Threads`], [`RuntimeError::Journal`].
    pub async fn start(config: SchedulerConfig) -> Result<Self, RuntimeError> {
        let bind = |source| RuntimeError::Bind {
            address: format!("{}:{}", config.host, config.port),
            source,
        };
        let listener = TcpListener::bind((config.host.as_str(), config.port))
            .await
            .map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let file = match &config.file {
            None => None,
            Some(path) => Some(file::Written::new(path, &reachable(address))?),
        };
        let abort = CancellationToken::new();
        let core_ended = CancellationToken::new();
        let ended = CancellationToken::new();
        let (arrivals, queue) = mpsc::channel(ARRIVALS);
        let failure = FailureSlot::default();
        let (stop, over) = (abort.clone(), core_ended.clone());
        let (dashboard, shown) = match shown::start(&config, reachable(address), &arrivals).await? {
            Some((dashboard, shown)) => (Some(dashboard), Some(shown)),
            None => (None, None),
        };
        Core::spawn(&config, queue, stop, over, Arc::clone(&failure), shown)?;
        let server = Self {
            address,
            dashboard: dashboard.as_ref().map(Dashboard::address),
            arrivals: arrivals.clone(),
            abort: abort.clone(),
            ended: ended.clone(),
            failure,
        };
        let door = Arc::new(Door::new(&config.control, arrivals, abort));
        let everything_ended = ended.drop_guard();
        tokio::spawn(async move {
            accept(listener, door, config.connections, core_ended).await;
            drop(dashboard);
            drop(file);
            drop(everything_ended);
        });
        tracing::info!(%address, version = PROTOCOL_VERSION, "scheduler listens");
        Ok(server)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its dashboard listens, if it has one.
    pub const fn dashboard(&self) -> Option<SocketAddr> {
        self.dashboard
    }

    /// `HOST:PORT` under which other machines reach it, as far as that can be known here.
    pub fn contact(&self) -> String {
        reachable(self.address)
    }

    /// The cluster at this moment.
    ///
    /// # Errors
    /// [`RuntimeError::SchedulerStopped`].
    pub async fn info(&self) -> Result<ClusterInfo, RuntimeError> {
        self.ask(Arrival::Info).await
    }

    /// Why a task is where it is.
    ///
    /// # Errors
    /// [`RuntimeError::SchedulerStopped`].
    pub async fn explain(&self, task: TaskId) -> Result<Explanation, RuntimeError> {
        self.ask(|answer| Arrival::Explain(task, answer)).await
    }

    /// Waits until the scheduler has ended, because a client asked for it or [`SchedulerServer::shutdown`] did.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Why it has ended although nobody asked for it; told once.
    pub fn take_failure(&self) -> Option<RuntimeError> {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.take()
    }

    /// Tells workers and clients, waits a moment for them to read it, and ends.
    pub async fn shutdown(&self) {
        // A scheduler that has ended already takes no arrivals.
        let _ = self.arrivals.send(Arrival::Shutdown).await;
        self.ended().await;
    }

    async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> Arrival,
    ) -> Result<T, RuntimeError> {
        let (sender, answer) = oneshot::channel();
        self.arrivals
            .send(question(sender))
            .await
            .map_err(|_| RuntimeError::SchedulerStopped)?;
        answer.await.map_err(|_| RuntimeError::SchedulerStopped)
    }
}

impl Drop for SchedulerServer {
    fn drop(&mut self) {
        self.abort.cancel();
    }
}

/// Accepts connections until the scheduler's thread has ended, then waits for the last messages to be read.
async fn accept(listener: TcpListener, door: Arc<Door>, limit: u32, core_ended: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = core_ended.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) if connections.len() < limit as usize => {
                    let door = Arc::clone(&door);
                    connections.spawn(async move { door.serve(stream, peer).await });
                }
                Ok((_, peer)) => tracing::warn!(
                    %peer, limit, "connection closed: there are too many; see scheduler.connections"
                ),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    let farewell = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(FAREWELL, farewell).await.is_err() {
        connections.shutdown().await;
    }
}

/// The address that others should use: where we listen on all interfaces, the one that leads outside.
fn reachable(address: SocketAddr) -> String {
    if !address.ip().is_unspecified() {
        return address.to_string();
    }
    // Connecting a datagram socket sends nothing; it only makes the system choose an interface.
    let outside = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    let host = outside().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    SocketAddr::new(host, address.port()).to_string()
}
