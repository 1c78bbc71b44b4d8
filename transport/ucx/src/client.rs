//! The fetching side: greets a peer, has the progress thread connect to it, and waits for the partitions that thread receives.
//!
//! A fetch is an entry on the progress thread and a future that waits for its reply; dropping the future gives the entry up, and nothing
//! that UCX may still write to is freed by it.

pub(crate) mod requests;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout_at};
use transload_gpu::Stored;
use transload_protocol::{Address, PartitionId};
use transload_transport::{Connection, Destination, TransportError, backend};

use crate::engine::{Attach, Command, Ending, Engine, Side};
use crate::hello::{self, Answer, Hello, HelloError};
use crate::ucp::goes_over_tcp;
use crate::{SCHEME, UcxOptions};

use requests::{NewClient, Wanted};

pub(crate) struct UcxConnection {
    engine: Arc<Engine>,
    shared: Arc<Shared>,
    key: u64,
    link: String,
    next_request: AtomicU64,
}

/// What the connection and its end on the progress thread share.
pub(crate) struct Shared {
    peer: Address,
    places: Arc<Semaphore>,
    closed: Mutex<Option<TransportError>>,
}

pub(crate) async fn connect(
    engine: &Arc<Engine>,
    peer: &Address,
    options: &UcxOptions,
) -> Result<UcxConnection, TransportError> {
    backend::check_scheme(peer, SCHEME)?;
    let patience = Patience {
        peer,
        after: options.connect_timeout,
        until: Instant::now() + options.connect_timeout,
    };
    let ours = engine.hello(0);
    let key = ours.key;
    let (stream, theirs) = greet(&patience, ours).await?;
    let places = theirs
        .max_requests
        .clamp(1, options.max_requests_per_connection);
    let shared = Arc::new(Shared::new(peer.clone(), places));
    // From here on dropping it closes what there is.
    let (ended, end) = oneshot::channel();
    tokio::spawn(hello::attend(stream, Arc::clone(engine), key, end));
    let mut connection = UcxConnection {
        engine: Arc::clone(engine),
        shared: Arc::clone(&shared),
        key,
        link: String::new(),
        next_request: AtomicU64::new(0),
    };
    let (proven, proof) = oneshot::channel();
    let client = NewClient {
        shared: Arc::clone(&shared),
        max_partition_bytes: options.max_partition_bytes,
        proven,
    };
    let (done, attached) = oneshot::channel();
    engine.commands().send(Command::Attach(Box::new(Attach {
        key,
        name: peer.to_string(),
        peer: theirs,
        side: Side::Client(client),
        done,
        ended,
    })));
    let attached = patience.for_(attached, "an endpoint").await?;
    let chosen = attached
        .unwrap_or_else(|_| Err("the progress thread has ended".to_owned()))
        .map_err(|reason| shared.error(&Ending::Closed(reason)))?;
    // Before the peer's answer: that may decline as well, and what ends its side of it ends ours, for another reason.
    worth_it(peer, &chosen, options)?;
    let transports = patience.for_(proof, "an answer over UCX").await?;
    let transports = transports.map_err(|_| shared.closed_error())?;
    worth_it(peer, &transports, options)?;
    connection.link = format!("{SCHEME} {transports}").trim_end().to_owned();
    tracing::debug!(%peer, link = connection.link, "connected over UCX");
    Ok(connection)
}

/// How long connecting may take, all in all.
struct Patience<'a> {
    peer: &'a Address,
    after: Duration,
    until: Instant,
}

impl Patience<'_> {
    async fn for_<F: Future>(
        &self,
        future: F,
        waiting_for: &'static str,
    ) -> Result<F::Output, TransportError> {
        let waited = timeout_at(self.until, future).await;
        waited.map_err(|_| TransportError::TimedOut {
            peer: self.peer.clone(),
            after: self.after,
            waiting_for,
        })
    }
}

/// Over TCP: the first words of both sides.
async fn greet(patience: &Patience<'_>, ours: Hello) -> Result<(TcpStream, Hello), TransportError> {
    let peer = patience.peer;
    let failed = |source: io::Error| TransportError::Connect {
        peer: peer.clone(),
        source: Arc::new(source),
    };
    let connecting = patience.for_(TcpStream::connect(&peer.endpoint), "a connection");
    let mut stream = connecting.await?.map_err(failed)?;
    hello::prepare(&stream).map_err(failed)?;
    let greeting = async {
        hello::write(&mut stream, &ours).await?;
        hello::read::<Answer>(&mut stream).await
    };
    let answer = patience.for_(greeting, "a greeting").await?;
    match answer.map_err(|error| hello_error(peer, error))? {
        Answer::Welcome(theirs) => Ok((stream, theirs)),
        Answer::Refused(reason) => Err(TransportError::Refused {
            peer: peer.clone(),
            reason,
        }),
    }
}

fn hello_error(peer: &Address, error: HelloError) -> TransportError {
    let peer = peer.clone();
    match error {
        HelloError::Io(source) => TransportError::Connect {
            peer,
            source: Arc::new(source),
        },
        HelloError::Version(mismatch) => TransportError::Version { peer, mismatch },
        error @ HelloError::NotTransload(_) => TransportError::Protocol {
            peer,
            reason: error.to_string(),
        },
    }
}

fn worth_it(peer: &Address, transports: &str, options: &UcxOptions) -> Result<(), TransportError> {
    if options.accept_tcp_lanes || !goes_over_tcp(transports) {
        return Ok(());
    }
    Err(TransportError::NothingBetter {
        peer: peer.clone(),
        what: transports.to_owned(),
    })
}

impl Shared {
    pub(crate) fn new(peer: Address, places: u32) -> Self {
        Self {
            peer,
            places: Arc::new(Semaphore::new(places as usize)),
            closed: Mutex::default(),
        }
    }

    fn closed(&self) -> MutexGuard<'_, Option<TransportError>> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first error stands.
    fn close(&self, error: TransportError) {
        self.closed().get_or_insert(error);
        self.places.close();
    }

    fn closed_error(&self) -> TransportError {
        let closed = self.closed().clone();
        closed.unwrap_or_else(|| self.error(&Ending::Closed("its thread has ended".to_owned())))
    }

    fn error(&self, ending: &Ending) -> TransportError {
        let peer = self.peer.clone();
        match ending {
            Ending::Closed(reason) => TransportError::Closed {
                peer,
                reason: reason.clone(),
            },
            Ending::Nonsense(reason) => TransportError::Protocol {
                peer,
                reason: reason.clone(),
            },
            Ending::Silence(after) => TransportError::TimedOut {
                peer,
                after: *after,
                waiting_for: "an answer",
            },
        }
    }
}

impl Connection for UcxConnection {
    fn peer(&self) -> &Address {
        &self.shared.peer
    }

    fn link(&self) -> &str {
        &self.link
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
            let place = Arc::clone(&shared.places).acquire_owned().await;
            let place = place.map_err(|_| shared.closed_error())?;
            let request = self.next_request.fetch_add(1, Ordering::Relaxed);
            let (reply, answer) = oneshot::channel();
            let wanted = Wanted {
                request,
                partition,
                destination,
                reply,
                place,
            };
            let (link, wanted) = (self.key, Box::new(wanted));
            // Where the thread or the connection has ended, the reply ends with the command.
            self.engine.commands().send(Command::Fetch { link, wanted });
            let mut gives_up = GivesUp {
                connection: self,
                request: Some(request),
            };
            let answer = answer.await;
            gives_up.request = None;
            answer.unwrap_or_else(|_| Err(shared.closed_error()))
        }
        .boxed()
    }
}

/// Cancels the request when the fetch is dropped before its answer.
struct GivesUp<'a> {
    connection: &'a UcxConnection,
    request: Option<u64>,
}

impl Drop for GivesUp<'_> {
    fn drop(&mut self) {
        if let Some(request) = self.request {
            let link = self.connection.key;
            let commands = self.connection.engine.commands();
            commands.send(Command::Cancel { link, request });
        }
    }
}

impl Drop for UcxConnection {
    fn drop(&mut self) {
        let (link, reason) = (self.key, "it was closed at this end".to_owned());
        self.engine.commands().send(Command::Close { link, reason });
    }
}
