//! Fetches partitions from whoever holds them, over the best transport that both sides have.
//!
//! Called by worker processes and by clients. Keeps one connection per peer and transport, and does without a transport that has
//! failed for a while. Knows neither tasks nor who decides what to fetch.

mod demoted;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use transload_gpu::{Partition, Stored};
use transload_protocol::{Address, Demotion, PartitionId};
use transload_transport::backend::Unopened;
use transload_transport::{Connection, Destination, Transport, TransportError, backend};

use self::demoted::Demoted;
use crate::process;

/// See [`Fetcher::retrying_links_after`].
pub(crate) const LINK_RETRY: Duration = Duration::from_secs(60);

/// Opens, keeps and shares connections to peers. Cheap to share behind an `Arc`.
pub struct Fetcher {
    /// Best first.
    transports: Vec<Arc<dyn Transport>>,
    pool: Mutex<HashMap<Address, Slot>>,
    demoted: Demoted,
}

/// One connection, or the right to open it; the lock keeps many fetchers from opening it many times.
type Slot = Arc<tokio::sync::Mutex<Option<Arc<dyn Connection>>>>;

/// A partition that has arrived.
#[derive(Clone)]
pub struct Fetched {
    /// The partition: in host memory, or on a device where the destination is for one and the transport could bring it there.
    pub partition: Stored,
    /// What carried it: the connection's [`Connection::link`], or [`process::SCHEME`] when it was handed over within this process.
    pub transport: String,
    /// Why it did not come over a better transport that both sides have. Told once for each time that one fails.
    pub demotion: Option<Demotion>,
}

/// One way to a holder.
type Way<'a> = (&'a Arc<dyn Transport>, &'a Address);

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
    /// It came to a device, although host memory was given for it.
    #[error("a partition has come to a device that was to come to host memory; please report this")]
    OnDevice,
    /// The transport failed.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

impl FetchError {
    /// Whether the holder answered that it does not have the partition, so that asking again is pointless.
    pub fn is_gone(&self) -> bool {
        match self {
            Self::NoCommonTransport { .. } | Self::OnDevice => false,
            Self::Process { gone, .. } => *gone,
            Self::Transport(error) => error.is_gone(),
        }
    }

    /// Whether it says something of the way to the holder and nothing of the partition.
    pub fn is_about_the_link(&self) -> bool {
        match self {
            Self::NoCommonTransport { .. } => true,
            Self::OnDevice | Self::Process { .. } => false,
            Self::Transport(error) => error.is_about_the_link(),
        }
    }
}

impl Fetched {
    /// The partition that was fetched into host memory.
    ///
    /// # Errors
    /// [`FetchError::OnDevice`] where it was not.
    pub fn into_host(self) -> Result<Partition, FetchError> {
        self.partition.into_host().ok_or(FetchError::OnDevice)
    }
}

impl Fetcher {
    /// A fetcher over these transports, best first.
    pub fn new(transports: Vec<Arc<dyn Transport>>) -> Self {
        Self {
            transports,
            pool: Mutex::default(),
            demoted: Demoted::new(LINK_RETRY),
        }
    }

    /// A transport to a peer that has failed is not used for so long, while there is another, and twice as long after each further
    /// failure. Default 60 s.
    #[must_use]
    pub fn retrying_links_after(mut self, time: Duration) -> Self {
        self.demoted = Demoted::new(time);
        self
    }

    /// Fetches one partition from the holder with these addresses into memory that `destination` gives: over the best transport,
    /// and over the next when what fails is the link. What the holder answers counts, whatever carries it. Dropping the future
    /// cancels the fetch.
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
            return hand_over(ours, partition, &**destination).await;
        }
        let all = self.ways(holder);
        let mut ways = self.usable(&all).into_iter().peekable();
        let chosen = Instant::now();
        while let Some((transport, address)) = ways.next() {
            let fetched = self.fetch_over((transport, address), chosen, partition, destination);
            match fetched.await {
                Ok((partition, link)) => {
                    self.demoted.restore(address, chosen);
                    let better = all.iter().map(|(_, better)| *better);
                    let demotion = self
                        .demoted
                        .tell(better.take_while(|it| *it != address), &link);
                    return Ok(Fetched {
                        partition,
                        transport: link,
                        demotion,
                    });
                }
                Err(error) if error.is_about_the_link() && ways.peek().is_some() => {
                    tracing::info!(%address, %error, "this way to a peer has failed; trying the next");
                    self.demoted.demote(address, error);
                    self.pool().remove(address);
                }
                Err(error) => {
                    if !error.is_about_the_link() {
                        self.demoted.restore(address, chosen);
                    }
                    return Err(error.into());
                }
            }
        }
        Err(self.no_common(holder))
    }

    /// Closes the connections to a peer; fetches over them fail. What was found out about its links is forgotten.
    pub fn forget(&self, holder: &[Address]) {
        let mut pool = self.pool();
        for address in holder {
            pool.remove(address);
            self.demoted.forget(address);
        }
    }

    /// All ways to a holder, best first.
    fn ways<'a>(&'a self, holder: &'a [Address]) -> Vec<Way<'a>> {
        let of = |transport: &'a Arc<dyn Transport>| {
            let scheme = transport.scheme();
            let addresses = holder.iter().filter(move |it| it.scheme == scheme);
            addresses.map(move |address| (transport, address))
        };
        self.transports.iter().flat_map(of).collect()
    }

    /// Those that have not failed of late. The last one is always among them.
    fn usable<'a>(&self, all: &[Way<'a>]) -> Vec<Way<'a>> {
        let Some((last, better)) = all.split_last() else {
            return Vec::new();
        };
        let better = better.iter().filter(|(_, it)| self.demoted.may_try(it));
        better.chain([last]).copied().collect()
    }

    /// The partition, and what carried it.
    async fn fetch_over(
        &self,
        way: Way<'_>,
        chosen: Instant,
        partition: PartitionId,
        destination: &Arc<dyn Destination>,
    ) -> Result<(Stored, String), TransportError> {
        let (mut connection, pooled) = self.connection(way, chosen).await?;
        let mut result = connection.fetch(partition, Arc::clone(destination)).await;
        if let Err(error) = &result
            && pooled
            && connection.is_closed()
            && error.is_retryable()
        {
            // A kept connection may have died while nobody looked; that says nothing about the peer now.
            tracing::debug!(address = %way.1, %error, "kept connection is closed; opening another");
            (connection, _) = self.connection(way, chosen).await?;
            result = connection.fetch(partition, Arc::clone(destination)).await;
        }
        Ok((result?, connection.link().to_owned()))
    }

    /// A live connection, and whether it was there before.
    async fn connection(
        &self,
        (transport, address): Way<'_>,
        chosen: Instant,
    ) -> Result<(Arc<dyn Connection>, bool), TransportError> {
        let slot = Arc::clone(self.pool().entry(address.clone()).or_default());
        let mut kept = slot.lock().await;
        if let Some(connection) = kept.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok((Arc::clone(connection), true));
        }
        // Of many that waited here for one that failed, each would find out for itself, one after another.
        if let Some(error) = self.demoted.since(address, chosen) {
            return Err(error);
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

/// The holder is in this process: what is in host memory is shared, and what is on a device is brought to the destination's, if it has one.
async fn hand_over(
    address: &Address,
    partition: PartitionId,
    destination: &dyn Destination,
) -> Result<Fetched, FetchError> {
    let failed = |reason: &str, gone| FetchError::Process {
        partition,
        reason: reason.to_owned(),
        gone,
    };
    let source = process::find(address).ok_or_else(|| failed("that worker has ended", false))?;
    match backend::open_beside(&*source, partition, destination).await {
        Ok(Some(partition)) => Ok(Fetched {
            partition,
            transport: process::SCHEME.to_owned(),
            demotion: None,
        }),
        Ok(None) => Err(failed("it is not there", true)),
        Err(Unopened::There(reason)) => Err(failed(&reason, false)),
        Err(Unopened::Here(error)) => Err(error.into()),
    }
}
