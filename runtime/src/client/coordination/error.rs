//! Why something asked of a lock, semaphore, event, queue or variable did not happen.

use std::time::Duration;

use transload_protocol::CoordinationRefusal;

use crate::ClientError;

/// Why something asked of a lock, semaphore, event, queue or variable did not happen.
#[derive(Debug, thiserror::Error)]
pub enum CoordinationError {
    /// The connection to the scheduler ended; what was held is given up.
    #[error(transparent)]
    Client(ClientError),
    /// The turn did not come in time.
    #[error("{what} was not to be had within {} ms", waited.as_millis())]
    TimedOut {
        /// Which thing, as in "lock `a`".
        what: String,
        /// How long the caller was ready to wait.
        waited: Duration,
    },
    /// The scheduler refused the call.
    #[error("{what}: {source}")]
    Refused {
        /// Which thing.
        what: String,
        /// Why.
        source: CoordinationRefusal,
    },
    /// The lease was not renewed in time, so the scheduler gave the lock or permit to another.
    #[error(
        "the lease of {what} is over: this process was not heard in time, and another may hold it now"
    )]
    LeaseOver {
        /// Which thing.
        what: String,
    },
    /// The scheduler gave an answer that does not belong to the call.
    #[error("the scheduler gave a wrong answer about {what}")]
    WrongAnswer {
        /// Which thing.
        what: String,
    },
}
