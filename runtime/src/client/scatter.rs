//! Data of a client's own as partitions on the workers.
//!
//! Part of [`Client`]. The client serves what it scatters from a listener of its own, which is opened by the first scatter.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::net::UdpSocket;
use transload_gpu::Partition;
use transload_protocol::{Layer, LayerIndex, Placement, TaskGraph, TaskRange};
use transload_transport::{Listener, PartitionSource};

use super::{Client, ClientError, GraphHandle};
use crate::process::{self, Published};
use crate::scatter::{Offers, SCATTER_OPERATOR, argument};

/// The only layer of a scattered graph.
const SCATTERED: LayerIndex = LayerIndex(0);

/// How data is scattered.
#[derive(Debug, Clone, Default)]
pub struct ScatterOptions {
    /// Shown to people. Default: `scattered`.
    pub name: Option<String>,
    /// Address of this machine under which workers reach it; counts for the first scatter of a client. Default: the one from which it
    /// reaches the scheduler.
    pub host: Option<String>,
    /// Which workers are to hold them; [`Placement::Each`] names one for each partition. Default: whichever have room.
    pub placement: Option<Placement>,
}

/// Where a client serves what it scatters.
pub(super) struct Server {
    offers: Arc<Offers>,
    published: Published,
    listener: Box<dyn Listener>,
}

/// Partitions that a client scattered: results as any others. As long as the handle lives, the client keeps them, too, so that a lost
/// worker costs a copy and nothing else.
pub struct Scattered {
    graph: GraphHandle,
    offer: Option<Offer>,
}

struct Offer {
    offers: Arc<Offers>,
    number: u32,
}

impl Drop for Offer {
    fn drop(&mut self) {
        self.offers.remove(self.number);
    }
}

impl Client {
    /// Makes partitions available on the workers, spread among them; each is fetched straight from this process by the worker that is
    /// to hold it. Returns as soon as that is accepted: the handle can be imported at once, and waited for.
    ///
    /// # Errors
    /// [`ClientError::Listen`]; [`ClientError::Rejected`] when there are none, or not as many as workers are named for; [`ClientError::ConnectionLost`]. Where workers cannot reach
    /// this process, waiting ends with an error that says so.
    pub async fn scatter(
        &self,
        partitions: Vec<Partition>,
        options: ScatterOptions,
    ) -> Result<Scattered, ClientError> {
        let opening = || self.open_server(options.host);
        let server = self.inner.server.get_or_try_init(opening).await?;
        let number = self.inner.next_offer.fetch_add(1, Ordering::Relaxed);
        let addresses = [
            server.published.address().clone(),
            server.listener.address().clone(),
        ];
        let count = u32::try_from(partitions.len()).unwrap_or(u32::MAX);
        server.offers.insert(number, partitions);
        let offer = Offer {
            offers: Arc::clone(&server.offers),
            number,
        };
        let name = options.name.unwrap_or_else(|| "scattered".to_owned());
        let mut graph = TaskGraph::new(name.clone());
        let layer = Layer::new(name, SCATTER_OPERATOR, count);
        let mut layer = layer.with_common(argument(number, &addresses).to_vec());
        layer.placement = options.placement.map(Box::new);
        graph.push(layer);
        graph.keep(SCATTERED);
        let graph = self.submit(graph).await?;
        Ok(Scattered {
            graph,
            offer: Some(offer),
        })
    }

    async fn open_server(&self, host: Option<String>) -> Result<Server, ClientError> {
        let host = match host {
            Some(host) => host,
            None => self.outward().await.to_string(),
        };
        let offers = Arc::new(Offers::default());
        let source: Arc<dyn PartitionSource> = Arc::clone(&offers) as _;
        let (transport, served) = (Arc::clone(&self.inner.transport), Arc::clone(&source));
        let bind = match host.parse::<IpAddr>() {
            Ok(ip) => std::net::SocketAddr::new(ip, 0).to_string(),
            Err(_) => format!("{host}:0"),
        };
        // Where the client's connection lives, which outlasts whoever calls this.
        let listening = self.inner.runtime.spawn(async move {
            let listener = transport.listen(&bind, served).await;
            listener.map_err(|error| error.to_string())
        });
        let listener = match listening.await {
            Ok(listener) => listener,
            Err(error) => Err(error.to_string()),
        };
        Ok(Server {
            offers,
            published: process::publish(source),
            listener: listener.map_err(|reason| ClientError::Listen { host, reason })?,
        })
    }

    /// The address from which this machine reaches the scheduler: one that others reach, too.
    async fn outward(&self) -> IpAddr {
        // Connecting a datagram socket sends nothing; it only makes the system choose an interface.
        let find = async |bind: &str| {
            let socket = UdpSocket::bind(bind).await?;
            socket.connect(self.inner.scheduler.as_str()).await?;
            socket.local_addr()
        };
        let found = match find("0.0.0.0:0").await {
            Ok(found) => Ok(found),
            Err(_) => find("[::]:0").await,
        };
        found.map_or(IpAddr::from([127, 0, 0, 1]), |address| address.ip())
    }
}

impl Scattered {
    /// The graph that brings them to the workers.
    pub fn graph(&self) -> &GraphHandle {
        &self.graph
    }

    /// What other clients can hold, and what can be published and imported.
    ///
    /// # Errors
    /// None that can happen: its layer is kept.
    pub fn tasks(&self) -> Result<TaskRange, ClientError> {
        self.graph.tasks_of(SCATTERED)
    }

    /// Waits until all of them are on workers.
    ///
    /// # Errors
    /// As [`GraphHandle::wait`].
    pub async fn wait(&self) -> Result<(), ClientError> {
        self.graph.wait().await
    }

    /// All of them, fetched back from the workers.
    ///
    /// # Errors
    /// As [`GraphHandle::gather`].
    pub async fn gather(&self) -> Result<Vec<Partition>, ClientError> {
        let outputs = self.graph.gather(SCATTERED).await?;
        Ok(outputs.into_iter().flatten().collect())
    }

    /// Adds a layer to a graph that stands for them.
    ///
    /// # Errors
    /// As [`Scattered::tasks`].
    pub fn import_into(&self, graph: &mut TaskGraph) -> Result<LayerIndex, ClientError> {
        self.graph.import_into(graph, SCATTERED)
    }

    /// Lets go of this process's own copies, to be called after [`Scattered::wait`]. Should a worker be lost afterwards, what it held is
    /// lost, and what needs it fails.
    pub fn keep_no_copy(&mut self) {
        self.offer = None;
    }
}
