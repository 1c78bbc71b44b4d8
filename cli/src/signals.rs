//! Ctrl-C and SIGTERM: the first asks the running command to end in good order, the second ends the process at once.
//! Knows nothing of what the commands do.

use std::io;
use std::process;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::failure::{Exit, Failure};

/// Which signal asked the program to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Ctrl-C.
    Interrupt,
    /// SIGTERM, or the terminal went away.
    Terminate,
}

/// The signals that ask the program to stop; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Signals {
    /// The signal that came and that nobody has dealt with yet.
    pending: Arc<watch::Sender<Option<Stop>>>,
}

impl Signals {
    /// Starts to listen. From now on no signal ends the process by itself, except the second of two that nobody dealt with.
    ///
    /// # Errors
    /// The system has no room for signal handlers.
    pub(crate) fn listen() -> io::Result<Self> {
        let pending = Arc::new(watch::Sender::new(None));
        tokio::spawn(forward(
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
            pending.clone(),
        ));
        Ok(Self { pending })
    }

    /// Waits for a signal, or returns the one that nobody has dealt with yet.
    pub(crate) async fn stop(&self) -> Stop {
        let mut pending = self.pending.subscribe();
        let stop = pending.wait_for(Option::is_some).await.map(|stop| *stop);
        match stop {
            Ok(Some(stop)) => stop,
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// The signal is dealt with: a prompt goes on after its query was stopped.
    pub(crate) fn dealt_with(&self) {
        self.pending.send_replace(None);
    }
}

async fn forward(
    mut interrupt: Signal,
    mut terminate: Signal,
    mut hang_up: Signal,
    pending: Arc<watch::Sender<Option<Stop>>>,
) {
    loop {
        let stop = tokio::select! {
            Some(()) = interrupt.recv() => Stop::Interrupt,
            Some(()) = terminate.recv() => Stop::Terminate,
            Some(()) = hang_up.recv() => Stop::Terminate,
            else => return,
        };
        if pending.send_replace(Some(stop)).is_some() {
            Failure::new(
                Exit::Interrupted,
                "told to stop a second time, ending at once",
            )
            .report();
            process::exit(Exit::Interrupted.code().into());
        }
    }
}
