//! Fetches partitions from whoever holds them, over the best transport that both sides have.
//!
//! Called by worker processes and by clients. Keeps one connection per peer and transport; knows neither tasks nor who decides
//! what to fetch.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use transload_gpu::Partition;
use transload_protocol::{Address, PartitionId};
use transload_transport::{Connection, Destination, Transport, TransportError};

use crate::process;

/// Opens, keeps and shares connections to peers. Cheap to share behind an `Arc`.
pub struct Fetcher {
    /// Best first.
    transports: Vec<Arc<dyn Transport>>,
    pool: Mutex<HashMap<Address, Slot>>,
}

/// One connection, or the right to open it; the lock keeps many fetchers from opening it many times.
type Slot = Arc<tokio::sync::Mutex<Option<Arc<dyn Connection>>>>;

/// A partition that has arrived.
#[derive(Clone)]
pub struct Fetched {
    /// The partition.
    pub partition: Partition,
    /// Name of the transport that moved it: [`process::SCHEME`] when it was handed over within this process.
    pub transport: String,
}

/// Why a partition could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// None of the holder's addresses has a transport that this process has.
    #[error("no common transport: the holder offers {offered}, this process has {have}")]
    NoCommonTransport {
        /// The holder's addresses.
        offered: String,
        /// Names of our transports.
        have: String,
    },
    /// The holder is in this process and has ended, or cannot read its own partition.
    #[error("partition {partition} of a worker in this process: {reason}")]
    Process {
        /// Which partition.
        partition: PartitionId,
        /// Why, in words.
        reason: String,
        /// The holder answered that it does not have it.
        gone: bool,
    },
    /// The transport failed.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

impl FetchError {
    /// Whether the holder answered that it does not have the partition, so that asking again is pointless.
    pub fn is_gone(&self) -> bool {
        match self {
            Self::NoCommonTransport { .. } => false,
            Self::Process { gone, .. } => *gone,
            Self::Transport(error) => error.is_gone(),
        }
    }
}

impl Fetcher {
    /// A fetcher over these transports, best first.
    pub fn new(transports: Vec<Arc<dyn Transport>>) -> Self {
        Self {
            transports,
            pool: Mutex::default(),
        }
    }

    /// Fetches one partition from the holder with these addresses into memory that `destination` gives. Dropping the future cancels the fetch.
    ///
    /// # Errors
    /// [`FetchError`]; the last one when several addresses were tried.
    pub async fn fetch(
        &self,
        holder: &[Address],
        partition: PartitionId,
        destination: &Arc<dyn Destination>,
    ) -> Result<Fetched, FetchError> {
        if let Some(ours) = holder.iter().find(|address| process::is_ours(address)) {
            return hand_over(ours, partition).await;
        }
        let mut failure = None;
        for transport in &self.transports {
            let of_transport = |address: &&Address| address.scheme == transport.scheme();
            for address in holder.iter().filter(of_transport) {
                match self
                    .fetch_over(transport, address, partition, destination)
                    .await
                {
                    Ok(partition) => {
                        return Ok(Fetched {
                            partition,
                            transport: transport.scheme().to_owned(),
                        });
                    }
                    Err(error @ TransportError::Connect { .. }) => {
                        tracing::info!(%address, %error, "cannot connect; trying the peer's next address if it has one");
                        failure = Some(FetchError::Transport(error));
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Err(failure.unwrap_or_else(|| self.no_common(holder)))
    }

    /// Closes the connections to a peer; fetches over them fail.
    pub fn forget(&self, holder: &[Address]) {
        let mut pool = self.pool();
        for address in holder {
            pool.remove(address);
        }
    }

    async fn fetch_over(
        &self,
        transport: &Arc<dyn Transport>,
        address: &Address,
        partition: PartitionId,
        destination: &Arc<dyn Destination>,
    ) -> Result<Partition, TransportError> {
        let (connection, pooled) = self.connection(transport, address).await?;
        match connection.fetch(partition, Arc::clone(destination)).await {
            // A kept connection may have died while nobody looked; that says nothing about the peer now.
            Err(error) if pooled && connection.is_closed() && error.is_retryable() => {
                tracing::debug!(%address, %error, "kept connection is closed; opening another");
                let (connection, _) = self.connection(transport, address).await?;
                connection.fetch(partition, Arc::clone(destination)).await
            }
            result => result,
        }
    }

    /// A live connection, and whether it was there before.
    async fn connection(
        &self,
        transport: &Arc<dyn Transport>,
        address: &Address,
    ) -> Result<(Arc<dyn Connection>, bool), TransportError> {
        let slot = Arc::clone(self.pool().entry(address.clone()).or_default());
        let mut kept = slot.lock().await;
        if let Some(connection) = kept.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok((Arc::clone(connection), true));
        }
        let connection = transport.connect(address).await?;
        *kept = Some(Arc::clone(&connection));
        Ok((connection, false))
    }

    fn no_common(&self, holder: &[Address]) -> FetchError {
        let list = |names: Vec<String>| {
            if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(", ")
            }
        };
        FetchError::NoCommonTransport {
            offered: list(holder.iter().map(ToString::to_string).collect()),
            have: list(
                self.transports
                    .iter()
                    .map(|transport| transport.scheme().to_owned())
                    .collect(),
            ),
        }
    }

    fn pool(&self) -> std::sync::MutexGuard<'_, HashMap<Address, Slot>> {
        // Nothing that holds this lock can leave the map half-changed.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher")
            .field("connections", &self.pool().len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetched")
            .field("bytes", &self.partition.bytes())
            .field("transport", &self.transport)
            .finish()
    }
}

async fn hand_over(address: &Address, partition: PartitionId) -> Result<Fetched, FetchError> {
    let failed = |reason: &str, gone| FetchError::Process {
        partition,
        reason: reason.to_owned(),
        gone,
    };
    let source = process::find(address).ok_or_else(|| failed("that worker has ended", false))?;
    match source.open(partition).await {
        Ok(Some(partition)) => Ok(Fetched {
            partition,
            transport: process::SCHEME.to_owned(),
        }),
        Ok(None) => Err(failed("it is not there", true)),
        Err(reason) => Err(failed(&reason, false)),
    }
}
