//! The UCX backend of the transport: shared memory, InfiniBand and NVLink where UCX finds them.
//!
//! UCX is looked for when a transport starts; where it is absent, that says why. One progress thread does everything that touches UCX, the
//! protocol included: a fetch is one small message, its answer a header and then the payload in pieces, each received straight into the
//! memory that the destination gave. Two processes first speak over TCP, and go on over UCX only where version and settings are the same and a
//! probe has come through. Deliberately does not know who asks for which partition, or why.
#![deny(unsafe_code)]

mod client;
mod engine;
mod hello;
mod options;
mod pieces;
mod server;
#[allow(unsafe_code, reason = "the safe layer above UCX's functions")]
mod ucp;
mod wire;

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use transload_protocol::Address;
use transload_transport::{Connection, Listener, PartitionSource, Transport, TransportError};

use engine::Engine;
pub use engine::Unavailable;
pub use options::UcxOptions;

/// The name of this transport.
pub const SCHEME: &str = "ucx";

/// Long enough to go the way that payloads go.
const PROBE_BYTES: usize = 64 << 10;

/// What a probe's body is.
fn probe() -> Bytes {
    (0..PROBE_BYTES).map(|at| (at % 251) as u8).collect()
}

/// Sets in the environment what UCX is to find there, where the user has set nothing: that it tells dead peers also over shared memory, in
/// versions before 1.17, and that it says what it has to say on standard error. To be called first thing in `main`, while the process has
/// one thread; later it does nothing. Processes with UCX 1.13 to 1.16 that do and do not call it talk TCP with each other.
pub fn prepare_environment() {
    ucp::set_environment();
}

/// Partitions over UCX. Addresses are `ucx://HOST:PORT`, where processes first speak over TCP; to listen, bind to `HOST:PORT`, where port 0 takes
/// a free one.
#[derive(Clone)]
pub struct UcxTransport {
    engine: Arc<Engine>,
    options: Arc<UcxOptions>,
}

impl UcxTransport {
    /// Loads UCX and starts its thread, which ends with the last clone, listener and connection.
    ///
    /// # Errors
    /// [`Unavailable`] where there is no UCX, or none that works.
    pub fn start(options: UcxOptions) -> Result<Self, Unavailable> {
        let options = options.clamped();
        Ok(Self {
            engine: Arc::new(Engine::start(&options)?),
            options: Arc::new(options),
        })
    }

    /// The options in force.
    pub fn options(&self) -> &UcxOptions {
        &self.options
    }
}

impl std::fmt::Debug for UcxTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UcxTransport")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Transport for UcxTransport {
    fn scheme(&self) -> &'static str {
        SCHEME
    }

    fn listen<'a>(
        &'a self,
        bind: &'a str,
        source: Arc<dyn PartitionSource>,
    ) -> BoxFuture<'a, Result<Box<dyn Listener>, TransportError>> {
        async move {
            let (engine, options) = (Arc::clone(&self.engine), Arc::clone(&self.options));
            let listener = server::listen(engine, bind, source, options).await?;
            Ok(Box::new(listener) as Box<dyn Listener>)
        }
        .boxed()
    }

    fn connect<'a>(
        &'a self,
        peer: &'a Address,
    ) -> BoxFuture<'a, Result<Arc<dyn Connection>, TransportError>> {
        async move {
            let connection = client::connect(&self.engine, peer, &self.options).await?;
            Ok(Arc::new(connection) as Arc<dyn Connection>)
        }
        .boxed()
    }
}
