//! The serving side: accepts the first words of peers, and has the progress thread answer them over UCX from then on.
//!
//! A connection is one task that waits for the peer to go away. All of them end with the listener.

pub(crate) mod answers;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use transload_protocol::Address;
use transload_transport::{Listener, PartitionSource, TransportError, backend};

use crate::engine::{Attach, Command, Engine, Side};
use crate::hello::{self, Answer, Hello, HelloError};
use crate::{SCHEME, UcxOptions};

use answers::ServerLink;

/// Pause after a failed accept, which is most often a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(crate) struct UcxPartitionListener {
    address: Address,
    task: AbortHandle,
}

impl Listener for UcxPartitionListener {
    fn address(&self) -> &Address {
        &self.address
    }
}

impl Drop for UcxPartitionListener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) async fn listen(
    engine: Arc<Engine>,
    bind: &str,
    source: Arc<dyn PartitionSource>,
    options: Arc<UcxOptions>,
) -> Result<UcxPartitionListener, TransportError> {
    let failed = |error: io::Error| TransportError::Listen {
        bind: bind.to_owned(),
        source: Arc::new(error),
    };
    let listener = TcpListener::bind(bind).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let endpoint = backend::published(bound, options.advertised_host.as_deref());
    let serving = Serving {
        engine,
        source,
        options,
    };
    let task = tokio::spawn(serving.accept(listener)).abort_handle();
    Ok(UcxPartitionListener {
        address: Address::new(SCHEME, endpoint),
        task,
    })
}

/// What all connections of a listener share.
#[derive(Clone)]
struct Serving {
    engine: Arc<Engine>,
    source: Arc<dyn PartitionSource>,
    options: Arc<UcxOptions>,
}

/// Why a connection did not begin.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Hello(#[from] HelloError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("nothing came for {} ms", .0.as_millis())]
    Stalled(Duration),
    #[error("{0}")]
    Refused(String),
}

impl Serving {
    /// Accepts until it is aborted, which ends all connections.
    async fn accept(self, listener: TcpListener) {
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
            let full = connections.len() >= self.options.max_connections as usize;
            let serving = self.clone();
            connections.spawn(async move {
                match serving.serve(stream, full).await {
                    Ok(reason) => tracing::debug!(%peer, reason, "a connection over UCX ended"),
                    Err(failure) => {
                        tracing::warn!(%peer, %failure, "no connection over UCX");
                    }
                }
            });
        }
    }

    /// Serves one peer until it is gone, and says how that looked.
    async fn serve(&self, mut stream: TcpStream, full: bool) -> Result<String, Failure> {
        hello::prepare(&stream)?;
        let patience = self.options.connect_timeout;
        let greeting = timeout(patience, self.greet(&mut stream, full)).await;
        let (link, ended) = greeting.map_err(|_| Failure::Stalled(patience))??;
        let engine = Arc::clone(&self.engine);
        // A task of its own, which outlives the listener: the peer must not hear of its end before the connection's.
        let attending = tokio::spawn(hello::attend(stream, engine, link.key, ended));
        let reason = attending.await;
        Ok(reason.unwrap_or_else(|error| error.to_string()))
    }

    async fn greet(
        &self,
        stream: &mut TcpStream,
        full: bool,
    ) -> Result<(EndsLink, oneshot::Receiver<()>), Failure> {
        let theirs: Hello = hello::read(stream).await?;
        let ours = self.engine.hello(self.options.max_requests_per_connection);
        let reason = if full {
            Some("it has as many connections as it allows; raise its limit".to_owned())
        } else {
            ours.mismatch(&theirs)
        };
        if let Some(reason) = reason {
            hello::write(stream, &Answer::Refused(reason.clone())).await?;
            return Err(Failure::Refused(reason));
        }
        let link = EndsLink {
            engine: Arc::clone(&self.engine),
            key: ours.key,
        };
        let name = match stream.peer_addr() {
            Ok(peer) => peer.to_string(),
            Err(error) => error.to_string(),
        };
        let ended = match self.attach(ours.key, name, theirs).await {
            Ok(ended) => ended,
            Err(reason) => {
                hello::write(stream, &Answer::Refused(reason.clone())).await?;
                return Err(Failure::Refused(reason));
            }
        };
        hello::write(stream, &Answer::Welcome(ours)).await?;
        Ok((link, ended))
    }

    /// What comes back is told of the connection's end.
    async fn attach(
        &self,
        key: u64,
        name: String,
        peer: Hello,
    ) -> Result<oneshot::Receiver<()>, String> {
        let server = ServerLink::new(
            Arc::clone(&self.source),
            Handle::current(),
            self.engine.commands().clone(),
            &self.options,
        );
        let (done, attached) = oneshot::channel();
        let (ended, end) = oneshot::channel();
        let commands = self.engine.commands();
        commands.send(Command::Attach(Box::new(Attach {
            key,
            name,
            peer,
            side: Side::Server(Box::new(server)),
            done,
            ended,
        })));
        let attached = attached.await;
        let _transports =
            attached.unwrap_or_else(|_| Err("the progress thread has ended".to_owned()))?;
        Ok(end)
    }
}

/// Ends the connection on the progress thread, however its task ends.
struct EndsLink {
    engine: Arc<Engine>,
    key: u64,
}

impl Drop for EndsLink {
    fn drop(&mut self) {
        let (link, reason) = (self.key, "its peer has gone".to_owned());
        self.engine.commands().send(Command::Close { link, reason });
    }
}
