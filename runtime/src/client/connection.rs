//! A client's connection to its scheduler, and how it is made again when it breaks.
//!
//! Feeds the client's state with what arrives. What must be said again is the state's to know.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use transload_protocol::{ClientId, ReturningClient, Role, SchedulerToClient, Session, Welcome};

use super::state::State;
use crate::control::{self, Connected, ControlError, SendLimits};
use crate::scheduler_server::SchedulerFile;

/// Between two attempts to come back.
const PAUSE: Duration = Duration::from_millis(100);
/// How long one address is tried before the scheduler file is read again.
const ONE_ATTEMPT: Duration = Duration::from_secs(1);

/// Where the scheduler is.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// `HOST:PORT`.
    pub(super) address: String,
    /// The file that says so, should it change.
    pub(super) file: Option<PathBuf>,
}

/// What a connection needs to be kept up.
pub(super) struct Connection {
    pub(super) id: ClientId,
    pub(super) session: Session,
    pub(super) target: Target,
    pub(super) state: Arc<State>,
    pub(super) patience: Duration,
    pub(super) handshake_timeout: Duration,
    pub(super) limits: SendLimits,
    /// The client was closed.
    pub(super) stop: CancellationToken,
}

impl Connection {
    /// Keeps the connection up until the client is closed or the scheduler is gone for good.
    pub(super) fn start(self, connected: Connected) {
        // Before this returns: the client may be used at once.
        let queue = self.open(false);
        tokio::spawn(async move {
            let reason = self.keep_up(connected, queue).await;
            self.state.on_lost(reason);
        });
    }

    fn open(
        &self,
        is_back: bool,
    ) -> mpsc::UnboundedReceiver<Vec<transload_protocol::ClientMessage>> {
        let (outgoing, queue) = mpsc::unbounded_channel();
        self.state.on_connected(outgoing, is_back);
        queue
    }

    /// Returns why it is over.
    async fn keep_up(
        &self,
        mut connected: Connected,
        mut queue: mpsc::UnboundedReceiver<Vec<transload_protocol::ClientMessage>>,
    ) -> String {
        loop {
            let reason = self.use_up(connected, queue).await;
            if !self.state.on_broken() || self.stop.is_cancelled() {
                return reason;
            }
            tracing::warn!(client = %self.id, %reason, "lost the scheduler; trying to come back");
            connected = tokio::select! {
                () = self.stop.cancelled() => return reason,
                back = self.come_back() => match back {
                    Ok(connected) => connected,
                    Err(why) => return why.unwrap_or(reason),
                },
            };
            tracing::info!(client = %self.id, "back at the scheduler");
            queue = self.open(true);
        }
    }

    /// Carries messages both ways until the connection ends, and returns why.
    async fn use_up(
        &self,
        connected: Connected,
        queue: mpsc::UnboundedReceiver<Vec<transload_protocol::ClientMessage>>,
    ) -> String {
        let mut reader = connected.reader;
        // What is queued when the last handle goes is still sent: this task outlives the client.
        let mut sending = tokio::spawn(connected.writer.send_all(queue, self.limits));
        let mut messages: Vec<SchedulerToClient> = Vec::new();
        loop {
            let read = tokio::select! {
                () = self.stop.cancelled() => return "the client was closed".to_owned(),
                read = reader.read_many(&mut messages) => read,
                sent = &mut sending => return match sent {
                    Ok(Ok(())) => "the client was closed".to_owned(),
                    Ok(Err(error)) => error.to_string(),
                    Err(error) => error.to_string(),
                },
            };
            // Whole messages that came before an error still count.
            messages
                .drain(..)
                .for_each(|message| self.state.on_message(message));
            if let Err(error) = read {
                sending.abort();
                return error.to_string();
            }
        }
    }

    /// Looks for the scheduler, or one in its place. An error is why it is of no use to go on, where that is not why the
    /// connection broke.
    async fn come_back(&self) -> Result<Connected, Option<String>> {
        let grace = Duration::from_millis(self.session.grace_ms.into());
        let patience = if self.session.lasting {
            self.patience
        } else {
            self.patience.min(grace)
        };
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(None);
            }
            let role = Role::ReturningClient(ReturningClient {
                cluster: self.session.cluster,
                client: self.id,
                token: self.session.token,
            });
            let address = self.address_now();
            let patience = ONE_ATTEMPT.min(left);
            match control::connect(&address, role, patience, self.handshake_timeout).await {
                Ok(connected) if self.is_welcome(&connected.welcome) => return Ok(connected),
                Ok(_) => return Err(Some("the scheduler took it for something else".to_owned())),
                Err(ControlError::Refused { reason, .. }) => return Err(Some(reason)),
                // Nobody listens there any more, and nobody will.
                Err(ControlError::Connect { source, .. })
                    if !self.session.lasting
                        && source.kind() == io::ErrorKind::ConnectionRefused =>
                {
                    return Err(None);
                }
                Err(error) => tracing::debug!(%address, %error, "the scheduler is not back yet"),
            }
            sleep(PAUSE).await;
        }
    }

    fn is_welcome(&self, welcome: &Welcome) -> bool {
        match welcome {
            Welcome::Client { client, .. } => *client == self.id,
            Welcome::Worker { .. } | Welcome::Refused { .. } => false,
        }
    }

    fn address_now(&self) -> String {
        let said = self.target.file.as_deref().map(SchedulerFile::read);
        said.and_then(Result::ok)
            .map_or_else(|| self.target.address.clone(), |file| file.address)
    }
}
