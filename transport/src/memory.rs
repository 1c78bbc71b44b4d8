//! The reference backend: peers in one process, one hash map instead of a network. Used where a cluster runs as threads, and
//! by tests as the measure of what the other backends must do.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::watch;
use transload_gpu::{ALIGNMENT_BYTES, HostBuffer, Partition, Stored};
use transload_protocol::{Address, PartitionId};

use crate::backend::Unopened;
use crate::{
    Connection, Destination, Listener, PartitionSource, Transport, TransportError, backend,
};

const SCHEME: &str = "memory";

/// Peers that share an instance (or a clone of it) reach each other; others do not.
///
/// Addresses are `memory://NAME`; binding to the empty name takes a new one.
#[derive(Clone, Default)]
pub struct MemoryTransport {
    listeners: Arc<Mutex<HashMap<String, Weak<Served>>>>,
    handover: bool,
}

struct Served {
    source: Arc<dyn PartitionSource>,
    // Ends when the listener is dropped.
    open: watch::Sender<()>,
}

impl MemoryTransport {
    /// The reference: every partition is copied into memory of its destination, as if it had crossed a network.
    pub fn new() -> Self {
        Self::default()
    }

    /// The short cut within a process: the holder's partition itself is handed over, with its decoded form. No byte moves, so
    /// no memory is asked from the destination, and buffers are aligned as the holder's are.
    pub fn handing_over() -> Self {
        Self {
            handover: true,
            ..Self::default()
        }
    }

    fn listeners(&self) -> MutexGuard<'_, HashMap<String, Weak<Served>>> {
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(
        &self,
        bind: &str,
        source: Arc<dyn PartitionSource>,
    ) -> Result<MemoryListener, TransportError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = match bind {
            "" => format!("peer-{}", NEXT.fetch_add(1, Ordering::Relaxed)),
            name => name.to_owned(),
        };
        let mut listeners = self.listeners();
        listeners.retain(|_, served| served.strong_count() > 0);
        if listeners.contains_key(&name) {
            return Err(TransportError::Listen {
                bind: name,
                source: Arc::new(io::ErrorKind::AddrInUse.into()),
            });
        }
        let served = Arc::new(Served {
            source,
            open: watch::Sender::new(()),
        });
        listeners.insert(name.clone(), Arc::downgrade(&served));
        Ok(MemoryListener {
            address: Address::new(SCHEME, name),
            _served: served,
        })
    }

    fn open(&self, peer: &Address) -> Result<MemoryConnection, TransportError> {
        backend::check_scheme(peer, SCHEME)?;
        let served = self
            .listeners()
            .get(&peer.endpoint)
            .and_then(Weak::upgrade)
            .ok_or_else(|| TransportError::Connect {
                peer: peer.clone(),
                source: Arc::new(io::ErrorKind::ConnectionRefused.into()),
            })?;
        Ok(MemoryConnection {
            peer: peer.clone(),
            closed: served.open.subscribe(),
            served: Arc::downgrade(&served),
            handover: self.handover,
        })
    }
}

impl fmt::Debug for MemoryTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryTransport")
            .field("handover", &self.handover)
            .finish_non_exhaustive()
    }
}

impl Transport for MemoryTransport {
    fn scheme(&self) -> &'static str {
        SCHEME
    }

    fn listen<'a>(
        &'a self,
        bind: &'a str,
        source: Arc<dyn PartitionSource>,
    ) -> BoxFuture<'a, Result<Box<dyn Listener>, TransportError>> {
        async move { Ok(Box::new(self.serve(bind, source)?) as Box<dyn Listener>) }.boxed()
    }

    fn connect<'a>(
        &'a self,
        peer: &'a Address,
    ) -> BoxFuture<'a, Result<Arc<dyn Connection>, TransportError>> {
        async move { Ok(Arc::new(self.open(peer)?) as Arc<dyn Connection>) }.boxed()
    }
}

struct MemoryListener {
    address: Address,
    _served: Arc<Served>,
}

impl Listener for MemoryListener {
    fn address(&self) -> &Address {
        &self.address
    }
}

struct MemoryConnection {
    peer: Address,
    served: Weak<Served>,
    closed: watch::Receiver<()>,
    handover: bool,
}

impl MemoryConnection {
    fn closed_error(&self) -> TransportError {
        TransportError::Closed {
            peer: self.peer.clone(),
            reason: "the peer stopped listening".to_owned(),
        }
    }

    async fn fetch(
        &self,
        id: PartitionId,
        destination: Arc<dyn Destination>,
    ) -> Result<Stored, TransportError> {
        let mut closed = self.closed.clone();
        // Of the peer only its source is kept while waiting: a fetch must not hold a dropped listener open.
        let source = match self.served.upgrade() {
            Some(served) => Arc::clone(&served.source),
            None => return Err(self.closed_error()),
        };
        let opened = tokio::select! {
            opened = backend::open_beside(&*source, id, &*destination) => opened,
            _ = closed.changed() => return Err(self.closed_error()),
        };
        let partition = match opened {
            Ok(Some(Stored::Host(partition))) => partition,
            Ok(Some(brought @ Stored::Device(_))) => return Ok(brought),
            Ok(None) => {
                return Err(TransportError::NotFound {
                    peer: self.peer.clone(),
                    partition: id,
                });
            }
            Err(Unopened::Here(error)) => return Err(error),
            Err(Unopened::There(reason)) => {
                return Err(TransportError::Source {
                    peer: self.peer.clone(),
                    partition: id,
                    reason,
                });
            }
        };
        if self.handover {
            return Ok(partition.into());
        }
        let header = partition.header();
        let buffer = backend::allocate(&*destination, &header)?;
        // Where a network would be: other tasks run, and the future can be dropped, between allocation and payload.
        tokio::task::yield_now().await;
        let assembled = header.assemble(copied(&partition, buffer));
        let assembled = assembled.map_err(|error| TransportError::Protocol {
            peer: self.peer.clone(),
            reason: error.to_string(),
        });
        assembled.map(Stored::Host)
    }
}

/// The partition's buffers, each at an aligned offset of `buffer`, as far as they fit.
fn copied(partition: &Partition, mut buffer: HostBuffer) -> Bytes {
    let mut rest = buffer.as_mut_slice();
    for bytes in partition.buffers() {
        let padded = bytes.len().next_multiple_of(ALIGNMENT_BYTES);
        let Some((target, after)) = rest.split_at_mut_checked(padded) else {
            break;
        };
        target[..bytes.len()].copy_from_slice(bytes);
        rest = after;
    }
    buffer.freeze()
}

impl Connection for MemoryConnection {
    fn peer(&self) -> &Address {
        &self.peer
    }

    fn link(&self) -> &str {
        SCHEME
    }

    fn is_closed(&self) -> bool {
        self.served.strong_count() == 0
    }

    fn fetch(
        &self,
        partition: PartitionId,
        destination: Arc<dyn Destination>,
    ) -> BoxFuture<'_, Result<Stored, TransportError>> {
        self.fetch(partition, destination).boxed()
    }
}
