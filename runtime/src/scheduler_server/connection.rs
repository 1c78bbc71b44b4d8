//! One control connection at the scheduler: handshake, then a reader and a writer until one of them ends.
//!
//! Knows who is at the other end and nothing about what the messages ask for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use transload_protocol::{Role, SchedulerToClient, SchedulerToWorker, Welcome};

use super::core::{Arrival, ConnectionId};
use crate::config::ControlConfig;
use crate::control::{self, ControlError, FrameReader, FrameWriter};

/// How long a peer may take to read the last messages after the scheduler has closed its side.
const LINGER: Duration = Duration::from_millis(500);

/// A message to a peer of either kind.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Outgoing {
    /// To whoever has just said hello.
    Welcome(Welcome),
    /// To a client.
    Client(SchedulerToClient),
    /// To a worker.
    Worker(SchedulerToWorker),
}

/// Messages on their way to one peer, in order. Dropping it closes the connection once they are sent.
pub(super) type Outbox = mpsc::UnboundedSender<Vec<Outgoing>>;

/// What every connection needs.
#[derive(Debug)]
pub(super) struct Door {
    control: ControlConfig,
    arrivals: mpsc::Sender<Arrival>,
    abort: CancellationToken,
    next: AtomicU64,
}

impl Door {
    pub(super) fn new(
        control: &ControlConfig,
        arrivals: mpsc::Sender<Arrival>,
        abort: CancellationToken,
    ) -> Self {
        Self {
            control: control.clone(),
            arrivals,
            abort,
            next: AtomicU64::new(0),
        }
    }

    /// Serves one connection until it ends.
    pub(super) async fn serve(&self, stream: TcpStream, address: SocketAddr) {
        tokio::select! {
            biased;
            () = self.abort.cancelled() => {}
            () = self.talk(stream, address) => {}
        }
    }

    async fn talk(&self, stream: TcpStream, address: SocketAddr) {
        let peer: Arc<str> = address.to_string().into();
        let patience = self.control.handshake_timeout;
        let (role, reader, mut writer) = match control::answer(stream, peer, patience).await {
            Ok(accepted) => accepted,
            Err(ControlError::Closed { peer }) => {
                tracing::debug!(%peer, "connection closed before it said hello");
                return;
            }
            Err(error) => {
                tracing::warn!(peer = %address, %error, "connection refused");
                return;
            }
        };
        let (outbox, mut queue) = mpsc::unbounded_channel();
        let id = ConnectionId(self.next.fetch_add(1, Ordering::Relaxed));
        let is_client = match &role {
            Role::Client(_) | Role::ReturningClient(_) => true,
            Role::Worker(_) | Role::ReturningWorker(_) => false,
        };
        let joined = Arrival::Joined(id, role, outbox);
        if self.arrivals.send(joined).await.is_err() {
            return;
        }
        // The welcome leaves before the first message is looked at, whatever that is.
        let first = queue.recv().await.unwrap_or_default();
        if first.iter().any(|message| writer.push(message).is_err()) {
            return;
        }
        let reason = if is_client {
            self.exchange(reader, writer, queue, |messages| {
                Arrival::FromClient(id, messages)
            })
            .await
        } else {
            self.exchange(reader, writer, queue, |messages| {
                Arrival::FromWorker(id, messages)
            })
            .await
        };
        if let Err(error) = reason {
            // A scheduler that has ended takes no arrivals.
            let _ = self
                .arrivals
                .send(Arrival::Lost(id, error.to_string()))
                .await;
        }
    }

    /// Reads and writes until the peer is lost (an error) or the scheduler has closed its side (ok).
    async fn exchange<T: DeserializeOwned>(
        &self,
        mut reader: FrameReader,
        writer: FrameWriter,
        queue: mpsc::UnboundedReceiver<Vec<Outgoing>>,
        arrival: impl Fn(Vec<T>) -> Arrival,
    ) -> Result<(), ControlError> {
        let sending = writer.send_all(queue, self.control.send_limits());
        tokio::pin!(sending);
        loop {
            let mut messages = Vec::new();
            tokio::select! {
                biased;
                sent = &mut sending => {
                    sent?;
                    // Closing while unread input waits would make the system throw away what the peer has not read yet.
                    let _ = tokio::time::timeout(LINGER, reader.drain()).await;
                    return Ok(());
                }
                read = reader.read_many(&mut messages) => {
                    // What arrived whole before a bad frame still counts.
                    if !messages.is_empty() && self.arrivals.send(arrival(messages)).await.is_err() {
                        return Ok(());
                    }
                    read?;
                }
            }
        }
    }
}
