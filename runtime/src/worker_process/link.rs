//! A worker's connection to its scheduler: while it holds, and while the worker tries to come back. Part of the driver.
//!
//! Knows nothing of what is said over it.

use std::path::PathBuf;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use transload_protocol::{
    ClusterId, ReturningWorker, Role, SchedulerToWorker, Welcome, WorkerHello, WorkerId,
    WorkerMessage,
};

use crate::RuntimeError;
use crate::control::{self, Connected, ControlError, FrameReader, SendLimits};
use crate::scheduler_server::SchedulerFile;

/// How long the scheduler may take to close its side after we have closed ours.
const LINGER: Duration = Duration::from_secs(1);
/// Between two attempts to come back.
const PAUSE: Duration = Duration::from_millis(100);
/// How long one address is tried before the scheduler file is read again.
const ONE_ATTEMPT: Duration = Duration::from_secs(1);

/// Where a worker came from, and what it needs to come back.
#[derive(Debug, Clone)]
pub(super) struct Home {
    /// `HOST:PORT` of the scheduler that welcomed it.
    pub(super) address: String,
    /// Where a scheduler that takes its place says how it is reached.
    pub(super) file: Option<PathBuf>,
    /// `None` when there is no coming back.
    pub(super) cluster: Option<ClusterId>,
    pub(super) worker: WorkerId,
    pub(super) hello: WorkerHello,
    pub(super) patience: Duration,
    pub(super) handshake_timeout: Duration,
}

/// What happens on the way between worker and scheduler.
pub(super) enum LinkEvent {
    /// Messages have arrived.
    Heard,
    /// The connection is lost, and why.
    Lost(String),
    /// An attempt to come back has ended.
    Back(Result<Connected, RuntimeError>),
}

/// The way between worker and scheduler.
pub(super) enum Link {
    /// A connection.
    Up(Wire),
    /// An attempt to come back.
    Down(BoxFuture<'static, Result<Connected, RuntimeError>>),
}

/// A connection in use.
pub(super) struct Wire {
    outbox: mpsc::UnboundedSender<Vec<WorkerMessage>>,
    sender: JoinHandle<Result<(), ControlError>>,
    reader: FrameReader,
}

impl Link {
    pub(super) fn up(connected: Connected, limits: SendLimits) -> Self {
        let (outbox, queue) = mpsc::unbounded_channel();
        Self::Up(Wire {
            outbox,
            sender: tokio::spawn(connected.writer.send_all(queue, limits)),
            reader: connected.reader,
        })
    }

    /// Sends, if there is a connection; what a connection that is lost does not take is lost with it.
    pub(super) fn send(&self, messages: Vec<WorkerMessage>) {
        match self {
            // A sender that has failed is noticed by `next`.
            Self::Up(wire) => drop(wire.outbox.send(messages)),
            Self::Down(_) => {}
        }
    }

    /// Waits for what happens next. Dropping the future loses nothing.
    pub(super) async fn next(&mut self, messages: &mut Vec<SchedulerToWorker>) -> LinkEvent {
        match self {
            Self::Up(wire) => tokio::select! {
                biased;
                read = wire.reader.read_many(messages) => match read {
                    Ok(()) => LinkEvent::Heard,
                    Err(error) => LinkEvent::Lost(error.to_string()),
                },
                sent = &mut wire.sender => LinkEvent::Lost(match sent {
                    Ok(Ok(())) => "the sender ended".to_owned(),
                    Ok(Err(error)) => error.to_string(),
                    Err(error) => error.to_string(),
                }),
            },
            Self::Down(returning) => LinkEvent::Back(returning.await),
        }
    }

    /// Closes the connection. What is queued for the scheduler still leaves; it does not matter if one that is gone does not
    /// take it.
    pub(super) async fn close(self, patience: Duration) {
        let Self::Up(Wire {
            outbox,
            mut sender,
            mut reader,
        }) = self
        else {
            return;
        };
        drop(outbox);
        if !sender.is_finished() && timeout(patience, &mut sender).await.is_err() {
            sender.abort();
        }
        // Closing while unread input waits would make the system throw away our last words.
        let _ = timeout(LINGER, reader.drain()).await;
    }
}

impl Home {
    /// Tries to come back, if there is something to come back to.
    pub(super) fn find_back(&self, reason: String) -> Option<Link> {
        let cluster = self.cluster?;
        let home = self.clone();
        let returning = async move { home.search(cluster, reason).await };
        Some(Link::Down(returning.boxed()))
    }

    async fn search(self, cluster: ClusterId, reason: String) -> Result<Connected, RuntimeError> {
        let deadline = Instant::now() + self.patience;
        loop {
            let address = self.address_now();
            let role = Role::ReturningWorker(Box::new(ReturningWorker {
                cluster,
                worker: self.worker,
                hello: self.hello.clone(),
            }));
            let left = deadline.saturating_duration_since(Instant::now());
            let patience = ONE_ATTEMPT.min(left);
            match control::connect(&address, role, patience, self.handshake_timeout).await {
                Ok(connected) if self.is_welcome(&connected.welcome) => return Ok(connected),
                Ok(_) => {
                    let reason = "it took this worker for something else".to_owned();
                    return Err(RuntimeError::Forgotten { address, reason });
                }
                Err(ControlError::Refused { reason, .. }) => {
                    return Err(RuntimeError::Forgotten { address, reason });
                }
                Err(error) => tracing::debug!(%address, %error, "the scheduler is not back yet"),
            }
            if Instant::now() + PAUSE >= deadline {
                return Err(RuntimeError::SchedulerLost { address, reason });
            }
            sleep(PAUSE).await;
        }
    }

    fn is_welcome(&self, welcome: &Welcome) -> bool {
        match welcome {
            Welcome::Worker { worker, .. } => *worker == self.worker,
            Welcome::Client { .. } | Welcome::Refused { .. } => false,
        }
    }

    fn address_now(&self) -> String {
        let said = self.file.as_deref().map(SchedulerFile::read);
        said.and_then(Result::ok)
            .map_or_else(|| self.address.clone(), |file| file.address)
    }
}
