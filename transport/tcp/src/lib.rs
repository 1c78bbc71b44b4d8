//! The TCP backend of the transport: one connection per peer, many fetches at once, no copy above the socket.
//!
//! A fetch is one small request; its answer is the partition's header and then the payload in chunks, between which other
//! answers get their turn. The server writes chunks from the partition's own buffers; the client reads them into the memory
//! that the destination gave, header first. Both sides keep reading whatever they are writing, so neither can block the
//! other: a client has memory for all it accepted and throws away what it no longer wants, a server has a bounded number of
//! partitions open per connection. Deliberately does not know who asks for which partition, or why.
//!
//! What it does not do, because it was measured not to pay (two processes on two cores, loopback, partitions of 1 to 64 MiB, of
//! which one connection carries 4.5 GiB/s with the serving core busy; medians of three runs):
//!
//! - Several connections to a peer: two carried 3.4 to 4.7 GiB/s and four 4.0 to 4.9, for a tenth more CPU. They would pay where
//!   a network is faster than one core.
//! - `MSG_ZEROCOPY`: on loopback the kernel copies all the same, and says so for each send: 2.2 GiB/s in place of 3.3 for a bare
//!   sender.
//! - Fixed socket buffers: 3.7 to 4.0 GiB/s with 256 KiB, nothing gained with 1 MiB or with 4 MiB to send.
//! - Other chunks: 3.0 to 3.7 GiB/s with 256 KiB, nothing gained with 4 MiB.
//! - Requests and small answers written past the tasks of their connections: with everything on one thread, where nobody is
//!   woken, a fetch of 8 B takes 18 us and a bare echo of 24 B through tokio 13. What is left is the kernel's.
#![forbid(unsafe_code)]

mod client;
mod options;
mod pending;
mod server;
mod socket;
mod wire;

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use transload_protocol::Address;
use transload_transport::{Connection, Listener, PartitionSource, Transport, TransportError};

pub use options::TcpOptions;

/// The name of this transport.
pub const SCHEME: &str = "tcp";

/// Partitions over TCP. Addresses are `tcp://HOST:PORT`; to listen, bind to `HOST:PORT`, where port 0 takes a free one.
#[derive(Debug, Clone, Default)]
pub struct TcpTransport {
    options: Arc<TcpOptions>,
}

impl TcpTransport {
    /// A transport with these options. Numbers outside the documented ranges are moved into them.
    pub fn new(options: TcpOptions) -> Self {
        Self {
            options: Arc::new(options.clamped()),
        }
    }

    /// The options in force.
    pub fn options(&self) -> &TcpOptions {
        &self.options
    }
}

impl Transport for TcpTransport {
    fn scheme(&self) -> &'static str {
        SCHEME
    }

    fn listen<'a>(
        &'a self,
        bind: &'a str,
        source: Arc<dyn PartitionSource>,
    ) -> BoxFuture<'a, Result<Box<dyn Listener>, TransportError>> {
        async move {
            let listener = server::listen(bind, source, Arc::clone(&self.options)).await?;
            Ok(Box::new(listener) as Box<dyn Listener>)
        }
        .boxed()
    }

    fn connect<'a>(
        &'a self,
        peer: &'a Address,
    ) -> BoxFuture<'a, Result<Arc<dyn Connection>, TransportError>> {
        async move {
            let connection = client::connect(peer, &self.options).await?;
            Ok(Arc::new(connection) as Arc<dyn Connection>)
        }
        .boxed()
    }
}
