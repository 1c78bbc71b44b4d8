//! Moves partitions between processes behind one trait.
//!
//! The runtime fetches through [`Transport`] and serves through [`PartitionSource`]; each backend implements the trait in a
//! crate of its own and proves it with the [`conformance`] suite. This crate holds the in-memory reference backend and the
//! fault-injecting wrapper. It deliberately does not know which backend is in use, nor what the bytes mean.
#![forbid(unsafe_code)]

pub mod backend;
pub mod conformance;
mod error;
pub mod faulty;
pub mod memory;

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use transload_gpu::device::{Device, DeviceBuffer, Staging, Tiers};
use transload_gpu::{Budget, HostBuffer, OutOfBudget, Partition, PartitionHeader, Stored};
use transload_protocol::{Address, PartitionId};

pub use error::TransportError;

/// One way of moving partitions: TCP, memory, …
pub trait Transport: Send + Sync + 'static {
    /// Its name: the scheme of its addresses, and what events and metrics call it.
    fn scheme(&self) -> &'static str;

    /// Serves partitions from `source` at `bind`, whose form is the backend's own. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`TransportError::Listen`] when `bind` makes no sense or is taken.
    fn listen<'a>(
        &'a self,
        bind: &'a str,
        source: Arc<dyn PartitionSource>,
    ) -> BoxFuture<'a, Result<Box<dyn Listener>, TransportError>>;

    /// Connects to a listener. One connection per peer is enough: it carries many fetches at once. Must be called within a
    /// tokio runtime, which drives the connection from then on.
    ///
    /// # Errors
    /// [`TransportError::Connect`], [`TransportError::Version`], [`TransportError::Refused`], [`TransportError::Address`], or
    /// [`TransportError::TimedOut`] when the peer does not answer in time.
    fn connect<'a>(
        &'a self,
        peer: &'a Address,
    ) -> BoxFuture<'a, Result<Arc<dyn Connection>, TransportError>>;
}

impl<T: Transport + ?Sized> Transport for Arc<T> {
    fn scheme(&self) -> &'static str {
        (**self).scheme()
    }

    fn listen<'a>(
        &'a self,
        bind: &'a str,
        source: Arc<dyn PartitionSource>,
    ) -> BoxFuture<'a, Result<Box<dyn Listener>, TransportError>> {
        (**self).listen(bind, source)
    }

    fn connect<'a>(
        &'a self,
        peer: &'a Address,
    ) -> BoxFuture<'a, Result<Arc<dyn Connection>, TransportError>> {
        (**self).connect(peer)
    }
}

/// Serves partitions until it is dropped, which also closes its connections.
pub trait Listener: Send + Sync {
    /// What peers connect to.
    fn address(&self) -> &Address;
}

/// A connection to one peer. Dropping it closes it.
pub trait Connection: Send + Sync {
    /// Whom it is connected to.
    fn peer(&self) -> &Address;

    /// What carries it, for events, metrics and people: the transport's name and, where that has a choice, what it chose, as in
    /// `tcp` or `ucx posix/memory`. Stays the same as long as the connection lives.
    fn link(&self) -> &str;

    /// Whether it is of no use any more; every later fetch fails with [`TransportError::Closed`] or what closed it.
    fn is_closed(&self) -> bool;

    /// Fetches one partition: its header comes first, then memory is taken from `destination`, then the payload is received
    /// straight into it, or piece by piece through page-locked memory: into memory of a device only where the destination is for one. Many fetches may be in flight; they share the connection fairly. Dropping the future cancels the
    /// fetch, gives the memory back and leaves the connection usable.
    ///
    /// # Errors
    /// [`TransportError`]; after [`TransportError::NotFound`], [`TransportError::Source`] and
    /// [`TransportError::NoMemory`] the connection and its other fetches are unharmed.
    fn fetch(
        &self,
        partition: PartitionId,
        destination: Arc<dyn Destination>,
    ) -> BoxFuture<'_, Result<Stored, TransportError>>;
}

/// Where a listener finds the partitions it serves. Implemented by the partition store.
pub trait PartitionSource: Send + Sync {
    /// The partition, brought into host memory where it was spilled. `None` when it is not here. The future is dropped when
    /// the peer cancels or goes away, and must not block its thread.
    ///
    /// # Errors
    /// Why a partition that is here cannot be read, in words for the peer.
    fn open(&self, partition: PartitionId) -> BoxFuture<'_, Result<Option<Partition>, String>>;

    /// The same for a backend that sends from device memory, or fetches what it sends from there piece by piece: a partition that is on a
    /// device is given as it is, and stays there. By default as [`PartitionSource::open`].
    ///
    /// # Errors
    /// As there.
    fn open_in_place(
        &self,
        partition: PartitionId,
    ) -> BoxFuture<'_, Result<Option<Stored>, String>> {
        let opened = self.open(partition);
        opened.map(|opened| Ok(opened?.map(Stored::Host))).boxed()
    }
}

/// Where a fetch gets its memory. Asked once per fetch, after the header has arrived and before any payload.
pub trait Destination: Send + Sync {
    /// A buffer of exactly `header.payload_bytes()`. Called from the task that reads the connection: it must not block.
    ///
    /// # Errors
    /// [`OutOfBudget`] ends this fetch with [`TransportError::NoMemory`] and harms no other.
    fn allocate(&self, header: &PartitionHeader) -> Result<HostBuffer, OutOfBudget>;

    /// The device whose memory [`Destination::allocate_on_device`] may give. By default there is none.
    fn device(&self) -> Option<&Device> {
        None
    }

    /// Memory of a device, of exactly `header.payload_bytes()`. Asked first, by backends that can receive into it; where there is none, as
    /// by default, [`Destination::allocate`] is asked. It must not block, either.
    fn allocate_on_device(&self, _header: &PartitionHeader) -> Option<OnDevice> {
        None
    }

    /// Page-locked memory by way of which a payload reaches the memory of that device, for backends that receive into memory of the host
    /// alone. They ask for it before they ask [`Destination::allocate_on_device`]. It must not block, either.
    fn staging(&self) -> Option<Staging> {
        None
    }
}

/// Memory of a device for a payload, and what moves it later.
#[derive(Debug)]
pub struct OnDevice {
    /// The memory.
    pub buffer: DeviceBuffer,
    /// The tiers that it is of.
    pub tiers: Tiers,
}

/// Payload and metadata are taken from the budget, or refused.
impl Destination for Budget {
    fn allocate(&self, header: &PartitionHeader) -> Result<HostBuffer, OutOfBudget> {
        let payload_bytes = header.payload_bytes();
        let reservation =
            self.try_reserve(payload_bytes.saturating_add(header.metadata.0.len() as u64))?;
        Ok(HostBuffer::uncleared(payload_bytes as usize, reservation))
    }
}
