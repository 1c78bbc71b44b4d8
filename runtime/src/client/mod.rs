//! The client: connects to a scheduler, submits graphs, follows them, and gathers their partitions from the workers.
//!
//! Called by `query`, the command line and anyone who embeds transload. Knows no SQL and decides nothing about placement.

mod connection;
pub mod coordination;
mod error;
mod everywhere;
mod graph;
mod layer;
mod scatter;
mod sharing;
mod state;
mod together;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use futures::stream::{BoxStream, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::broadcast;
use tokio_util::sync::{CancellationToken, DropGuard};
use transload_gpu::Budget;
use transload_protocol::optimize::Report;
use transload_protocol::{
    ClientHello, ClientId, ClientMessage, ClusterInfo, EventRecord, Explanation, GraphId,
    LayerProgress, Optimized, Passes, Role, TaskGraph, TaskId, Welcome, optimize,
};
use transload_transport::{Destination, Transport};
use transload_transport_tcp::TcpTransport;

use crate::config::ClientConfig;
use crate::control;
use crate::fetcher::Fetcher;
use crate::scheduler_server::SchedulerFile;

pub use error::ClientError;
pub use graph::GraphHandle;
pub use layer::LayerHandle;
pub use scatter::{ScatterOptions, Scattered};
pub use together::{Waited, as_completed, wait_all};

use connection::{Connection, Target};
use graph::ClientMemory;
use state::State;

/// Who a client is and how it connects and fetches.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Shown by `transload cluster info` and in the scheduler's log. Default: program name and process id.
    pub name: String,
    /// Most bytes of gathered partitions in this process; a fetch beyond it fails. Default: no limit.
    pub memory_bytes: u64,
    /// Time limits, attempts, and limits of its connections.
    pub config: ClientConfig,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self::new(ClientConfig::default())
    }
}

impl ClientOptions {
    /// Options with this configuration and defaults for the rest.
    pub fn new(config: ClientConfig) -> Self {
        let program = std::env::args_os().next();
        let name = program.as_deref().map(Path::new).and_then(Path::file_name);
        let name = name.map_or_else(|| "client".into(), |name| name.to_string_lossy());
        Self {
            name: format!("{name}/{}", std::process::id()),
            memory_bytes: u64::MAX,
            config,
        }
    }
}

/// A connection to a scheduler, made again when it breaks; cheap to clone, closed when the last clone and the last [`GraphHandle`] are gone.
#[derive(Clone)]
pub struct Client {
    inner: Arc<ClientInner>,
    /// The task that submits through it, and waits for what it submits.
    within: Option<TaskId>,
}

struct ClientInner {
    id: ClientId,
    state: Arc<State>,
    fetcher: Fetcher,
    memory: Arc<dyn Destination>,
    config: ClientConfig,
    next_graph: AtomicU32,
    next_call: AtomicU64,
    next_offer: AtomicU32,
    /// Serves what is scattered.
    server: tokio::sync::OnceCell<scatter::Server>,
    transport: Arc<dyn Transport>,
    /// `HOST:PORT`, as it was at first.
    scheduler: String,
    /// Where the connection was made, and lives.
    runtime: Handle,
    /// Ends the connection's tasks when the client is dropped.
    _stop: DropGuard,
}

impl Client {
    /// Connects to the scheduler at `HOST:PORT` (or `tcp://HOST:PORT`).
    ///
    /// # Errors
    /// [`ClientError::Connect`] when nobody answers there in time, when it is no scheduler, or when it speaks another
    /// version of the protocol.
    pub async fn connect(address: &str, options: ClientOptions) -> Result<Self, ClientError> {
        let budget = Budget::new("gathered partitions", options.memory_bytes);
        Self::connect_with_memory(address, options, budget).await
    }

    /// As [`Client::connect`], with a budget for gathered partitions that is shared with others.
    pub(crate) async fn connect_with_memory(
        address: &str,
        options: ClientOptions,
        budget: Budget,
    ) -> Result<Self, ClientError> {
        let target = Target {
            address: address.to_owned(),
            file: None,
        };
        Self::connect_to(target, options, budget).await
    }

    async fn connect_to(
        target: Target,
        options: ClientOptions,
        budget: Budget,
    ) -> Result<Self, ClientError> {
        let config = &options.config;
        let role = Role::Client(ClientHello {
            name: options.name.clone(),
        });
        let connected = control::connect(
            &target.address,
            role,
            config.connect_timeout,
            config.control.handshake_timeout,
        )
        .await?;
        let Welcome::Client {
            client: id,
            session,
        } = connected.welcome.clone()
        else {
            return Err(ClientError::UnexpectedWelcome {
                address: target.address,
            });
        };
        let state = Arc::new(State::new());
        let scheduler = control::scheduler_address(&target.address)?.to_owned();
        let stop = CancellationToken::new();
        let connection = Connection {
            id,
            session,
            target,
            state: Arc::clone(&state),
            patience: config.reconnect_timeout,
            handshake_timeout: config.control.handshake_timeout,
            limits: config.control.send_limits(),
            stop: stop.clone(),
        };
        connection.start(connected);

        let tcp: Arc<dyn Transport> = Arc::new(TcpTransport::new(config.tcp.clone()));
        Ok(Self {
            inner: Arc::new(ClientInner {
                id,
                state,
                fetcher: Fetcher::new(vec![Arc::clone(&tcp)]),
                memory: Arc::new(ClientMemory(budget)),
                config: options.config,
                next_graph: AtomicU32::new(0),
                next_call: AtomicU64::new(0),
                next_offer: AtomicU32::new(0),
                server: tokio::sync::OnceCell::new(),
                transport: tcp,
                scheduler,
                runtime: Handle::current(),
                _stop: stop.drop_guard(),
            }),
            within: None,
        })
    }

    /// Connects to the scheduler that wrote this scheduler file, waiting for the file to appear.
    ///
    /// # Errors
    /// As [`Client::connect`], and when the file does not appear in time or is no scheduler file.
    pub async fn connect_scheduler_file(
        path: &Path,
        options: ClientOptions,
    ) -> Result<Self, ClientError> {
        let address = SchedulerFile::wait(path, options.config.connect_timeout)
            .await
            .map_err(ClientError::SchedulerFile)?
            .address;
        let target = Target {
            address,
            file: Some(path.to_owned()),
        };
        let budget = Budget::new("gathered partitions", options.memory_bytes);
        Self::connect_to(target, options, budget).await
    }

    /// The same client, in the name of a task.
    pub(crate) fn within(&self, task: TaskId) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            within: Some(task),
        }
    }

    /// The id that the scheduler gave this connection.
    pub fn id(&self) -> ClientId {
        self.inner.id
    }

    /// Whether its connection to the scheduler has not ended.
    pub fn is_connected(&self) -> bool {
        self.inner.state.lost().is_none()
    }

    /// Submits a graph as it is and waits until the scheduler has accepted it.
    ///
    /// # Errors
    /// [`ClientError::Rejected`] names the rule that the graph breaks.
    pub async fn submit(&self, graph: TaskGraph) -> Result<GraphHandle, ClientError> {
        self.submit_as(graph, None).await
    }

    /// Optimizes a graph, submits what came of it, and waits until the scheduler has accepted that. The results are those of
    /// [`Client::submit`], made by fewer tasks. The handle's kept layers have the indices that they have in `graph`.
    ///
    /// # Errors
    /// [`ClientError::Rejected`] names the rule that the graph breaks.
    pub async fn submit_optimized(
        &self,
        graph: TaskGraph,
        passes: &Passes,
    ) -> Result<GraphHandle, ClientError> {
        let compiled = graph.compile().map_err(ClientError::Rejected)?;
        let Optimized { graph, report } = optimize(compiled, passes);
        self.submit_as(graph, Some(report)).await
    }

    async fn submit_as(
        &self,
        graph: TaskGraph,
        report: Option<Report>,
    ) -> Result<GraphHandle, ClientError> {
        let parent = graph.parent.or(self.within);
        let graph = TaskGraph { parent, ..graph };
        // Checked here too: a bad graph costs no round trip, and the handle needs the compiled form.
        let compiled = graph.clone().compile().map_err(ClientError::Rejected)?;
        let sequence = self.inner.next_graph.fetch_add(1, Ordering::Relaxed);
        let id = GraphId {
            client: self.inner.id,
            sequence,
        };
        let layers = compiled.layers().iter();
        let progress = layers.map(|layer| LayerProgress {
            total: layer.tasks,
            done: 0,
            running: 0,
        });
        let signals = self.inner.state.add_graph(id, progress.collect());
        let handle = GraphHandle::new(self.clone(), id, (compiled, report), signals);
        self.send(ClientMessage::Submit {
            graph: id,
            tasks: graph,
        })?;
        handle.accepted().await?;
        Ok(handle)
    }

    /// The cluster as the scheduler sees it now.
    ///
    /// # Errors
    /// [`ClientError::ConnectionLost`].
    pub async fn info(&self) -> Result<ClusterInfo, ClientError> {
        let answer = self.inner.state.expect_info();
        self.send(ClientMessage::Info)?;
        answer.await.map_err(|_| self.connection_lost())
    }

    /// Why a task is waiting, or what became of it.
    ///
    /// # Errors
    /// [`ClientError::ConnectionLost`]. An unknown task is no error: the explanation says so.
    pub async fn explain(&self, task: TaskId) -> Result<Explanation, ClientError> {
        let answer = self.inner.state.expect_explanation(task);
        self.send(ClientMessage::Explain { task })?;
        answer.await.map_err(|_| self.connection_lost())
    }

    /// Everything that happens in the cluster from now on. A reader that falls far behind skips the oldest events.
    ///
    /// # Errors
    /// [`ClientError::ConnectionLost`].
    pub fn events(&self) -> Result<BoxStream<'static, EventRecord>, ClientError> {
        let receiver = self.inner.state.subscribe();
        self.send(ClientMessage::Subscribe)?;
        let stream = futures::stream::unfold(receiver, |mut receiver| async move {
            loop {
                match receiver.recv().await {
                    Ok(event) => return Some((event, receiver)),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        });
        Ok(stream.boxed())
    }

    /// Stops the scheduler and all its workers; returns when the scheduler has said goodbye.
    ///
    /// # Errors
    /// [`ClientError::ConnectionLost`] when it was gone already.
    pub async fn shutdown_cluster(&self) -> Result<(), ClientError> {
        // The end of the connection drops the sender of this channel. Asked for first: the end may come at once.
        let ended = self.inner.state.expect_info();
        self.send(ClientMessage::Shutdown)?;
        let _ = ended.await;
        Ok(())
    }

    fn send(&self, message: ClientMessage) -> Result<(), ClientError> {
        if self.inner.state.lost().is_some() {
            return Err(self.connection_lost());
        }
        self.inner.state.send(message);
        Ok(())
    }

    fn connection_lost(&self) -> ClientError {
        let reason = self.inner.state.lost();
        ClientError::ConnectionLost {
            reason: reason.unwrap_or_else(|| "it was closed".to_owned()),
        }
    }
}

impl Drop for ClientInner {
    fn drop(&mut self) {
        // Before the connection's tasks are told to stop: what is queued still leaves, cancels and releases among them.
        self.state.close();
    }
}
