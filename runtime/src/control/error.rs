//! What can go wrong on a control connection, always with the peer's name.

use std::io;
use std::time::Duration;

use transload_protocol::VersionMismatch;
use transload_protocol::codec::CodecError;

/// Why a control connection could not be made, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Not a host and a port.
    #[error("`{text}` is not a scheduler's address; write HOST:PORT, as in 127.0.0.1:8790")]
    BadAddress {
        /// What was given.
        text: String,
    },
    /// Nothing accepts connections there.
    #[error(
        "cannot connect to the scheduler at {peer} ({attempts} attempt(s) in {:.1} s): {source}; is a scheduler running there? \
         Start one with `transload scheduler`, and check host, port and firewall",
        waited.as_secs_f64()
    )]
    Connect {
        /// The address.
        peer: String,
        /// How often it was tried.
        attempts: u32,
        /// For how long.
        waited: Duration,
        /// The last attempt's error.
        source: io::Error,
    },
    /// The peer accepted the connection and then said nothing.
    #[error("{peer} accepted the connection but did not finish the handshake within {:.1} s; is it a transload scheduler?", waited.as_secs_f64())]
    Silent {
        /// The peer.
        peer: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The peer speaks another version of the protocol.
    #[error("{peer}: {source}")]
    Version {
        /// The peer.
        peer: String,
        /// Both versions.
        source: VersionMismatch,
    },
    /// The scheduler does not want this connection.
    #[error("the scheduler at {peer} refused the connection: {reason}")]
    Refused {
        /// The scheduler.
        peer: String,
        /// Its words.
        reason: String,
    },
    /// The peer speaks something else, HTTP for example.
    #[error("{peer} does not speak transload's protocol: {reason}")]
    NotTransload {
        /// The peer.
        peer: String,
        /// What gave it away.
        reason: String,
    },
    /// The peer closed the connection in good order.
    #[error("{peer} closed the connection")]
    Closed {
        /// The peer.
        peer: String,
    },
    /// The connection broke.
    #[error("connection to {peer} broke: {source}")]
    Io {
        /// The peer.
        peer: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A frame that is too large or makes no sense.
    #[error("frame on the connection to {peer}: {source}")]
    Frame {
        /// The peer.
        peer: String,
        /// What is wrong with it.
        source: CodecError,
    },
    /// The peer reads nothing.
    #[error("{peer} has read nothing for {:.1} s", waited.as_secs_f64())]
    Stalled {
        /// The peer.
        peer: String,
        /// For how long.
        waited: Duration,
    },
    /// The peer reads too slowly.
    #[error("{peer} reads too slowly: {bytes} B wait for it, more than the limit of {limit} B")]
    Backlog {
        /// The peer.
        peer: String,
        /// Bytes that wait.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

impl ControlError {
    /// Whether connecting again later can help.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Silent { .. }
            | Self::Closed { .. }
            | Self::Io { .. }
            | Self::Stalled { .. }
            | Self::Backlog { .. } => true,
            Self::BadAddress { .. }
            | Self::Version { .. }
            | Self::Refused { .. }
            | Self::NotTransload { .. }
            | Self::Frame { .. } => false,
        }
    }
}
