//! The serving side: accepts connections, opens partitions, and hands them to the writer of their connection.
//!
//! A connection is one task that reads requests and writes answers at the same time, and one task per request that opens the
//! partition. All of them end with the listener.

mod departure;
mod writer;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use transload_gpu::Partition;
use transload_gpu::device::Departing;
use transload_protocol::{Address, PartitionId};
use transload_transport::backend::Outgoing;
use transload_transport::{Listener, PartitionSource, TransportError, backend};

use crate::socket::{Broken, Receiver, prepare};
use crate::wire::{
    GREETING_BYTES, Greeting, GreetingError, Kind, Nonsense, REQUEST_BYTES, Request,
};
use crate::{SCHEME, TcpOptions};

use writer::{Answer, Body, Places, Sending};

/// Pause after a failed accept, which is most often a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections above the limit that are told so; those above this number are just closed.
const REFUSALS_AT_ONCE: usize = 64;
/// Unit in which bytes in flight are counted.
const FLIGHT_UNIT_BYTES: u64 = 4 << 10;

pub(crate) struct TcpPartitionListener {
    address: Address,
    task: AbortHandle,
}

impl Listener for TcpPartitionListener {
    fn address(&self) -> &Address {
        &self.address
    }
}

impl Drop for TcpPartitionListener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) async fn listen(
    bind: &str,
    source: Arc<dyn PartitionSource>,
    options: Arc<TcpOptions>,
) -> Result<TcpPartitionListener, TransportError> {
    let failed = |error: io::Error| TransportError::Listen {
        bind: bind.to_owned(),
        source: Arc::new(error),
    };
    let listener = TcpListener::bind(bind).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let endpoint = backend::published(bound, options.advertised_host.as_deref());
    let task = tokio::spawn(accept(listener, source, options)).abort_handle();
    Ok(TcpPartitionListener {
        address: Address::new(SCHEME, endpoint),
        task,
    })
}

/// Accepts until it is aborted, which ends all connections.
async fn accept(listener: TcpListener, source: Arc<dyn PartitionSource>, options: Arc<TcpOptions>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let most = options.max_connections as usize;
        let full = connections.len() >= most;
        if connections.len() >= most + REFUSALS_AT_ONCE {
            continue;
        }
        let (source, options) = (Arc::clone(&source), Arc::clone(&options));
        connections.spawn(async move {
            match serve(stream, source, &options, full).await {
                Ok(()) => tracing::debug!(%peer, "a connection ended"),
                Err(failure) => report(peer, &failure),
            }
        });
    }
}

/// Why a connection was ended at this end.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Greeting(#[from] GreetingError),
    #[error(transparent)]
    Nonsense(#[from] Nonsense),
    #[error("nothing moved for {} ms", .0.as_millis())]
    Stalled(Duration),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the limit of connections is reached")]
    Full,
}

fn report(peer: SocketAddr, failure: &Failure) {
    match failure {
        // A peer that dies is told by the scheduler; its sockets need no second warning.
        Failure::Io(_) => tracing::debug!(%peer, %failure, "a connection ended"),
        Failure::Greeting(_) | Failure::Nonsense(_) | Failure::Stalled(_) | Failure::Full => {
            tracing::warn!(%peer, %failure, "closed a connection to the data port");
        }
    }
}

async fn serve(
    mut stream: TcpStream,
    source: Arc<dyn PartitionSource>,
    options: &TcpOptions,
    full: bool,
) -> Result<(), Failure> {
    prepare(&stream)?;
    timeout(options.connect_timeout, greet(&mut stream, options, full))
        .await
        .map_err(|_| Failure::Stalled(options.connect_timeout))??;
    let (read_half, write_half) = stream.split();
    let (answers, to_write) = mpsc::unbounded_channel();
    let flight_units = units(options.max_bytes_in_flight_per_connection);
    let peer = Arc::new(Peer {
        source,
        requests: Mutex::default(),
        places: Arc::new(Semaphore::new(options.max_open_per_connection as usize)),
        flight: Arc::new(Semaphore::new(flight_units as usize)),
        flight_units,
        chunk_bytes: u64::from(options.chunk_bytes),
        answers,
    });
    let receiver = Receiver::new(read_half, options.stall_timeout);
    let ended = tokio::select! {
        ended = read_requests(receiver, &peer, options) => ended,
        ended = writer::run(write_half, to_write, &peer, options) => Err(ended),
    };
    ended.or_else(|failure| match failure {
        Ended::Broken(Broken::Ended) => Ok(()),
        Ended::Broken(Broken::Stalled) => Err(Failure::Stalled(options.stall_timeout)),
        Ended::Broken(Broken::Io(error)) => Err(error.into()),
        Ended::Nonsense(nonsense) => Err(nonsense.into()),
    })
}

async fn greet(stream: &mut TcpStream, options: &TcpOptions, full: bool) -> Result<(), Failure> {
    let mut theirs = [0; GREETING_BYTES];
    stream.read_exact(&mut theirs).await?;
    let theirs = Greeting::decode(&theirs);
    // A peer of another version hears ours and says both; one that is not of our kind hears nothing.
    if theirs != Err(GreetingError::NotTransload) {
        let ours = Greeting {
            full,
            max_requests: options.max_requests_per_connection,
        };
        stream.write_all(&ours.encode()).await?;
    }
    theirs?;
    if full { Err(Failure::Full) } else { Ok(()) }
}

/// How reading or writing a connection ended.
enum Ended {
    Broken(Broken),
    Nonsense(Nonsense),
}

impl From<Broken> for Ended {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

impl From<Nonsense> for Ended {
    fn from(nonsense: Nonsense) -> Self {
        Self::Nonsense(nonsense)
    }
}

/// What the tasks of one connection share.
struct Peer {
    source: Arc<dyn PartitionSource>,
    /// Requests without their last answer, and how to cancel each.
    requests: Mutex<HashMap<u32, CancellationToken>>,
    /// One for each partition that may be open.
    places: Arc<Semaphore>,
    /// Bytes of payload that may be open, in [`FLIGHT_UNIT_BYTES`].
    flight: Arc<Semaphore>,
    flight_units: u32,
    chunk_bytes: u64,
    answers: mpsc::UnboundedSender<Answer>,
}

async fn read_requests(
    mut receiver: Receiver<'_>,
    peer: &Arc<Peer>,
    options: &TcpOptions,
) -> Result<(), Ended> {
    // Dropped, and with it every task that opens a partition, when the connection ends.
    let mut opening = JoinSet::new();
    loop {
        let bytes = receiver.head::<REQUEST_BYTES>(&|| None).await?;
        while opening.try_join_next().is_some() {}
        match Request::decode(&bytes)? {
            Request::Fetch { request, partition } => {
                let cancelled = CancellationToken::new();
                {
                    let mut requests = peer.requests();
                    if requests.len() >= options.max_requests_per_connection as usize {
                        return Err(Nonsense(format!(
                            "more than {} requests in flight",
                            requests.len()
                        ))
                        .into());
                    }
                    if requests.insert(request, cancelled.clone()).is_some() {
                        return Err(
                            Nonsense(format!("request {request} is in flight already")).into()
                        );
                    }
                }
                let mut answered = answer(Arc::clone(peer), request, partition, cancelled).boxed();
                // A partition in memory is there at once, and needs no task of its own.
                if (&mut answered).now_or_never().is_none() {
                    opening.spawn(answered);
                }
            }
            Request::Cancel { request } => {
                // Unknown where the last answer has been given: they crossed.
                if let Some(cancelled) = peer.requests().get(&request) {
                    cancelled.cancel();
                }
            }
        }
    }
}

/// Gives the writer all of the answer, which ends the request.
async fn answer(
    peer: Arc<Peer>,
    request: u32,
    partition: PartitionId,
    cancelled: CancellationToken,
) {
    let opened = tokio::select! {
        biased;
        () = cancelled.cancelled() => Opened::Whole(Body::ended()),
        opened = open(&peer, partition) => opened,
    };
    let to = Recipient {
        peer: &peer,
        request,
        cancelled,
    };
    match opened {
        Opened::Whole(body) => to.give(body),
        Opened::Departing(departing, places) => departure::send(&to, departing, places).await,
    }
}

/// Whose answer it is.
struct Recipient<'a> {
    peer: &'a Peer,
    request: u32,
    cancelled: CancellationToken,
}

impl Recipient<'_> {
    fn give(&self, body: Body) {
        // A connection without a writer has ended.
        let _ = self.peer.answers.send(Answer {
            request: self.request,
            cancelled: self.cancelled.clone(),
            body,
        });
    }
}

/// An answer, or where it will come from.
enum Opened {
    Whole(Body),
    /// A partition on a device, through page-locked memory.
    Departing(Departing, Places),
}

async fn open(peer: &Arc<Peer>, id: PartitionId) -> Opened {
    let Ok(place) = Arc::clone(&peer.places).acquire_owned().await else {
        return Opened::Whole(Body::ended());
    };
    let opened = match backend::open_in_place(&*peer.source, id).await {
        Ok(Some(Outgoing::Device { partition, payload })) => {
            // It may leave the device while it waits for its turn.
            drop(payload);
            let payload_bytes = partition.payload().bytes();
            let flight = flight(peer, payload_bytes).await;
            match departure::stage(partition, peer.chunk_bytes).await {
                Some(departing) => return Opened::Departing(departing, (place, flight)),
                None => {
                    drop(flight);
                    backend::open(&*peer.source, id).await
                }
            }
        }
        Ok(Some(Outgoing::Host(partition))) => Ok(Some(partition)),
        Ok(None) => Ok(None),
        Err(reason) => Err(reason),
    };
    Opened::Whole(match opened {
        Ok(Some(partition)) => sending(peer, partition, place).await,
        Ok(None) => Body::whole(Kind::NotFound, Bytes::new()),
        Err(reason) => Body::failed(reason),
    })
}

async fn sending(peer: &Peer, partition: Partition, place: OwnedSemaphorePermit) -> Body {
    let header = partition.header();
    let payload_bytes = header.payload_bytes();
    let header = match backend::encode_header(&header) {
        Ok(header) => header,
        Err(reason) => return Body::failed(reason),
    };
    let places = (place, flight(peer, payload_bytes).await);
    let sending = Sending::new(header, partition, payload_bytes, places);
    Body::Partition(Box::new(sending))
}

/// Leave to have so many bytes of payload in flight, where that is more than a chunk.
async fn flight(peer: &Peer, payload_bytes: u64) -> Option<OwnedSemaphorePermit> {
    if payload_bytes <= peer.chunk_bytes {
        return None;
    }
    let wanted = units(payload_bytes).min(peer.flight_units);
    let flight = Arc::clone(&peer.flight);
    flight.acquire_many_owned(wanted).await.ok()
}

fn units(bytes: u64) -> u32 {
    let units = bytes.div_ceil(FLIGHT_UNIT_BYTES).max(1);
    // More than a semaphore counts is as good as no limit.
    u32::try_from(units).unwrap_or(u32::MAX).min(1 << 28)
}

impl Peer {
    fn requests(&self) -> MutexGuard<'_, HashMap<u32, CancellationToken>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
