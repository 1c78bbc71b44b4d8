//! What can go wrong between two processes, with who, what and what to do. Every backend speaks in these.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use transload_gpu::OutOfBudget;
use transload_gpu::device::DeviceError;
use transload_protocol::{Address, PartitionId, VersionMismatch};

/// Why a fetch, a connection or a listener failed. Cheap to clone: one broken connection fails many fetches.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TransportError {
    /// The address is not one of this transport.
    #[error("{address} is not an address of the {scheme} transport: {reason}")]
    Address {
        /// The address.
        address: Address,
        /// The transport that was asked.
        scheme: &'static str,
        /// What is wrong with it, in words.
        reason: String,
    },
    /// Nothing can listen there.
    #[error(
        "cannot listen on `{bind}`: {source}; choose a free port and an address of this machine"
    )]
    Listen {
        /// What was asked for.
        bind: String,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// The peer cannot be reached.
    #[error(
        "cannot connect to {peer}: {source}; check that it runs and that no firewall is between"
    )]
    Connect {
        /// Whom.
        peer: Address,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// The peer speaks another version of the protocol.
    #[error("{peer}: {mismatch}")]
    Version {
        /// Who.
        peer: Address,
        /// Both versions.
        mismatch: VersionMismatch,
    },
    /// The peer does not want this connection.
    #[error("{peer} refused the connection: {reason}")]
    Refused {
        /// Who.
        peer: Address,
        /// Why, in words.
        reason: String,
    },
    /// The connection ended, at our end or the peer's.
    #[error("the connection to {peer} is closed: {reason}")]
    Closed {
        /// To whom.
        peer: Address,
        /// Why, in words.
        reason: String,
    },
    /// The way to the peer works, and is not worth taking: another transport does the same for less.
    #[error("{what} is all that leads to {peer} here")]
    NothingBetter {
        /// To whom.
        peer: Address,
        /// What was found, in words.
        what: String,
    },
    /// The peer was silent for too long.
    #[error(
        "{peer} sent nothing for {} ms while {waiting_for} was awaited; it hangs, is overloaded, or the network is down",
        after.as_millis()
    )]
    TimedOut {
        /// Who.
        peer: Address,
        /// For how long.
        after: Duration,
        /// What should have come.
        waiting_for: &'static str,
    },
    /// The peer does not have the partition.
    #[error("{peer} does not have partition {partition}")]
    NotFound {
        /// Who was asked.
        peer: Address,
        /// For what.
        partition: PartitionId,
    },
    /// The peer has the partition and cannot read it.
    #[error("{peer} cannot read partition {partition}: {reason}")]
    Source {
        /// Who was asked.
        peer: Address,
        /// For what.
        partition: PartitionId,
        /// What the peer said.
        reason: String,
    },
    /// There is no memory here to receive into.
    #[error(transparent)]
    NoMemory(#[from] OutOfBudget),
    /// The GPU here did not take what was received.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The destination did not give what it was asked for: a bug in this process, not the peer's.
    #[error(
        "a destination gave {actual_bytes} B for a payload of {expected_bytes} B; please report this bug"
    )]
    WrongBuffer {
        /// Bytes of the payload.
        expected_bytes: u64,
        /// Bytes of the buffer.
        actual_bytes: u64,
    },
    /// The peer sent what makes no sense.
    #[error("{peer} broke the protocol: {reason}; is it a transload worker of this release?")]
    Protocol {
        /// Who.
        peer: Address,
        /// What it sent, in words.
        reason: String,
    },
}

impl TransportError {
    /// Whether the same fetch from the same peer, over a new connection where this one is closed, can end differently.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Closed { .. }
            | Self::TimedOut { .. }
            | Self::Source { .. }
            | Self::Refused { .. }
            | Self::NoMemory(_)
            | Self::Device(_) => true,
            Self::Address { .. }
            | Self::Listen { .. }
            | Self::Version { .. }
            | Self::NotFound { .. }
            | Self::WrongBuffer { .. }
            | Self::NothingBetter { .. }
            | Self::Protocol { .. } => false,
        }
    }

    /// Whether it says something of the way to the peer and nothing of the partition: another transport to the same peer may do.
    pub const fn is_about_the_link(&self) -> bool {
        match self {
            Self::Address { .. }
            | Self::Connect { .. }
            | Self::Version { .. }
            | Self::Refused { .. }
            | Self::Closed { .. }
            | Self::NothingBetter { .. }
            | Self::TimedOut { .. }
            | Self::Protocol { .. } => true,
            Self::Listen { .. }
            | Self::NotFound { .. }
            | Self::Source { .. }
            | Self::NoMemory(_)
            | Self::Device(_)
            | Self::WrongBuffer { .. } => false,
        }
    }

    /// Whether the peer answered that it does not have the partition, so that asking it again is pointless.
    pub const fn is_gone(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}
