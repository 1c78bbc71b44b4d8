//! The fetching side: connects, sends requests, reads answers into the destinations' memory.
//!
//! One task per connection owns the socket and every buffer that is being filled. A fetch is an entry in [`Pending`] and a
//! future that waits for its reply; dropping the future gives the entry up and tells the server.

mod reader;

use std::io;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::WriteHalf;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use transload_gpu::Stored;
use transload_protocol::{Address, PartitionId};
use transload_transport::{Connection, Destination, TransportError, backend};

use crate::pending::{Pending, Received, Staged, Waiting};
use crate::socket::{Broken, Receiver, prepare};
use crate::wire::{GREETING_BYTES, Greeting, GreetingError, REQUEST_BYTES, Request};
use crate::{SCHEME, TcpOptions};

use reader::Reader;

/// Requests written with one system call.
const REQUESTS_PER_WRITE: usize = 512;

pub(crate) struct TcpConnection {
    shared: Arc<Shared>,
    task: AbortHandle,
}

struct Shared {
    peer: Address,
    pending: Pending,
    places: Arc<Semaphore>,
    requests: mpsc::UnboundedSender<Request>,
}

pub(crate) async fn connect(
    peer: &Address,
    options: &Arc<TcpOptions>,
) -> Result<TcpConnection, TransportError> {
    backend::check_scheme(peer, SCHEME)?;
    let timed_out = |waiting_for| {
        move |_| TransportError::TimedOut {
            peer: peer.clone(),
            after: options.connect_timeout,
            waiting_for,
        }
    };
    let failed = |source: io::Error| TransportError::Connect {
        peer: peer.clone(),
        source: Arc::new(source),
    };
    let mut stream = timeout(options.connect_timeout, TcpStream::connect(&peer.endpoint))
        .await
        .map_err(timed_out("a connection"))?
        .map_err(failed)?;
    prepare(&stream).map_err(failed)?;
    let greeting = timeout(options.connect_timeout, greet(&mut stream))
        .await
        .map_err(timed_out("a greeting"))?
        .map_err(failed)?;
    let greeting = Greeting::decode(&greeting).map_err(|error| match error {
        GreetingError::NotTransload => TransportError::Protocol {
            peer: peer.clone(),
            reason: error.to_string(),
        },
        GreetingError::Version(mismatch) => TransportError::Version {
            peer: peer.clone(),
            mismatch,
        },
    })?;
    if greeting.full {
        return Err(TransportError::Refused {
            peer: peer.clone(),
            reason:
                "it has as many connections as it allows; raise its limit, or use fewer workers"
                    .to_owned(),
        });
    }
    Ok(start(stream, peer, greeting.max_requests, options))
}

async fn greet(stream: &mut TcpStream) -> io::Result<[u8; GREETING_BYTES]> {
    let ours = Greeting {
        full: false,
        max_requests: 0,
    };
    stream.write_all(&ours.encode()).await?;
    let mut theirs = [0; GREETING_BYTES];
    stream.read_exact(&mut theirs).await.map_err(|error| {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            io::Error::new(error.kind(), "it closed the connection without a greeting")
        } else {
            error
        }
    })?;
    Ok(theirs)
}

fn start(
    stream: TcpStream,
    peer: &Address,
    max_requests: u32,
    options: &Arc<TcpOptions>,
) -> TcpConnection {
    let places = max_requests.clamp(1, options.max_requests_per_connection);
    let (requests, to_write) = mpsc::unbounded_channel();
    let shared = Arc::new(Shared {
        peer: peer.clone(),
        pending: Pending::default(),
        places: Arc::new(Semaphore::new(places as usize)),
        requests,
    });
    let task = tokio::spawn(run(
        stream,
        Arc::clone(&shared),
        to_write,
        Arc::clone(options),
    ))
    .abort_handle();
    TcpConnection { shared, task }
}

/// Reads and writes until one of the two breaks, then ends every fetch with the reason.
async fn run(
    mut stream: TcpStream,
    shared: Arc<Shared>,
    to_write: mpsc::UnboundedReceiver<Request>,
    options: Arc<TcpOptions>,
) {
    let close = CloseOnDrop(shared);
    let shared = &close.0;
    let (read_half, write_half) = stream.split();
    let mut reader = Reader {
        receiver: Receiver::new(read_half, options.stall_timeout),
        shared,
        options: &options,
    };
    let error = tokio::select! {
        error = reader.run() => error,
        error = write_requests(write_half, to_write, shared, &options) => error,
    };
    let copied_bytes = reader.receiver.copied_bytes();
    tracing::debug!(peer = %shared.peer, %error, copied_bytes, "a connection ended");
    shared.close(error);
}

/// Also where the task is aborted or the runtime ends, nobody is left waiting.
struct CloseOnDrop(Arc<Shared>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close(self.0.ended("it was closed at this end"));
    }
}

impl Shared {
    fn close(&self, error: TransportError) {
        self.pending.close(error);
        self.places.close();
    }

    fn ended(&self, reason: impl Into<String>) -> TransportError {
        TransportError::Closed {
            peer: self.peer.clone(),
            reason: reason.into(),
        }
    }

    fn closed_error(&self) -> TransportError {
        self.pending
            .closed()
            .unwrap_or_else(|| self.ended("its task has ended"))
    }

    fn nonsense(&self, reason: impl Into<String>) -> TransportError {
        TransportError::Protocol {
            peer: self.peer.clone(),
            reason: reason.into(),
        }
    }

    fn broken(
        &self,
        broken: Broken,
        options: &TcpOptions,
        waiting_for: &'static str,
    ) -> TransportError {
        match broken {
            Broken::Ended => self.ended("the peer closed it"),
            Broken::Stalled => TransportError::TimedOut {
                peer: self.peer.clone(),
                after: options.stall_timeout,
                waiting_for,
            },
            Broken::Io(error) => self.ended(error.to_string()),
        }
    }

    /// The request is no longer wanted.
    fn cancel(&self, request: u32) {
        if self.pending.give_up(request) {
            // A connection that has ended needs not be told.
            let _ = self.requests.send(Request::Cancel { request });
        }
    }
}

async fn write_requests(
    mut stream: WriteHalf<'_>,
    mut requests: mpsc::UnboundedReceiver<Request>,
    shared: &Shared,
    options: &TcpOptions,
) -> TransportError {
    let mut taken = Vec::new();
    let mut bytes = Vec::with_capacity(REQUESTS_PER_WRITE * REQUEST_BYTES);
    loop {
        taken.clear();
        bytes.clear();
        if requests.recv_many(&mut taken, REQUESTS_PER_WRITE).await == 0 {
            return shared.ended("it was closed at this end");
        }
        for request in &taken {
            bytes.extend_from_slice(&request.encode());
        }
        let written = timeout(options.stall_timeout, stream.write_all(&bytes))
            .await
            .map_err(|_| Broken::Stalled)
            .and_then(|written| written.map_err(Broken::Io));
        if let Err(broken) = written {
            return shared.broken(broken, options, "it to take a request");
        }
    }
}

impl Connection for TcpConnection {
    fn peer(&self) -> &Address {
        &self.shared.peer
    }

    fn link(&self) -> &str {
        SCHEME
    }

    fn is_closed(&self) -> bool {
        self.shared.places.is_closed()
    }

    fn fetch(
        &self,
        partition: PartitionId,
        destination: Arc<dyn Destination>,
    ) -> BoxFuture<'_, Result<Stored, TransportError>> {
        async move {
            let shared = &self.shared;
            let place = Arc::clone(&shared.places)
                .acquire_owned()
                .await
                .map_err(|_| shared.closed_error())?;
            let (reply, answer) = oneshot::channel();
            let waiting = Waiting {
                partition,
                destination,
                reply,
            };
            let request = shared.pending.add(waiting, place)?;
            let mut wanted = Wanted {
                shared,
                request: Some(request),
            };
            // Fails only where the connection has ended, which ends the reply too.
            let _ = shared.requests.send(Request::Fetch { request, partition });
            let answer = answer.await;
            wanted.request = None;
            let answer = answer.unwrap_or_else(|_| Err(shared.closed_error()));
            match answer? {
                Received::Host(partition) => Ok(partition.into()),
                Received::Device(header, staged) => {
                    let Staged { arriving, tiers } = *staged;
                    Ok(arriving.finish(header, &tiers).await?.into())
                }
            }
        }
        .boxed()
    }
}

/// Cancels the request when the fetch is dropped before its answer.
struct Wanted<'a> {
    shared: &'a Shared,
    request: Option<u32>,
}

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        if let Some(request) = self.request {
            self.shared.cancel(request);
        }
    }
}

impl Drop for TcpConnection {
    fn drop(&mut self) {
        self.task.abort();
    }
}
