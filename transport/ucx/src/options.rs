//! Limits and timeouts of the UCX backend. Each can be configured.

use std::path::PathBuf;
use std::time::Duration;

/// Options of a [`crate::UcxTransport`]. The defaults suit one machine and a data centre alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UcxOptions {
    /// Folder with the site's own `libucp.so.0`; `None` for where the system finds it. A process has one UCX: the first transport
    /// decides. Default none.
    pub library_dir: Option<PathBuf>,
    /// How long the progress thread looks for work before it sleeps. Longer gives lower latency and costs a core; zero is best where
    /// cores are scarce. Default 20 us where the machine has at least 4 cores, else zero.
    pub spin: Duration,
    /// Whether a connection is worth having for which UCX found nothing better than TCP. Default true.
    pub accept_tcp_lanes: bool,
    /// Time in which a peer must accept a connection, answer the greeting and the probe. Default 10 s.
    pub connect_timeout: Duration,
    /// Silence after which a peer counts as dead: nothing arrives while an answer is awaited, or nothing is taken while we send. Must
    /// exceed the time in which a slow disk reads one partition. Default 30 s.
    pub stall_timeout: Duration,
    /// Requests that one connection may have in flight; a client's further fetches wait for a free place. A client obeys the server's
    /// number. Default 4,096.
    pub max_requests_per_connection: u32,
    /// Partitions that a server opens or sends at once for one connection; further requests wait. Default 32.
    pub max_open_per_connection: u32,
    /// Payload bytes of the partitions that a server sends at once over one connection, and so what a client must have memory for at
    /// once; a larger partition is sent alone, small ones (up to `chunk_bytes`) always pass. Default 256 MiB.
    pub max_bytes_in_flight_per_connection: u64,
    /// Largest partition that is accepted from a peer. Default 1 TiB.
    pub max_partition_bytes: u64,
    /// A payload is sent in messages of at most this size, between which other answers get their turn. From 64 KiB to 1 GiB. Default
    /// 4 MiB.
    pub chunk_bytes: u32,
    /// Connections that a listener accepts. Default 4,096.
    pub max_connections: u32,
    /// Host name or address that a listener publishes in place of the one it is bound to. Default none.
    pub advertised_host: Option<String>,
}

impl Default for UcxOptions {
    fn default() -> Self {
        Self {
            library_dir: None,
            spin: default_spin(),
            accept_tcp_lanes: true,
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
            max_requests_per_connection: 4_096,
            max_open_per_connection: 32,
            max_bytes_in_flight_per_connection: 256 << 20,
            max_partition_bytes: 1 << 40,
            chunk_bytes: 4 << 20,
            max_connections: 4_096,
            advertised_host: None,
        }
    }
}

fn default_spin() -> Duration {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores >= 4 {
        Duration::from_micros(20)
    } else {
        Duration::ZERO
    }
}

impl UcxOptions {
    /// The same options with every limit in the range that works.
    pub(crate) fn clamped(mut self) -> Self {
        // A multiple of the alignment of buffers, so that every chunk begins at one.
        self.chunk_bytes = self.chunk_bytes.clamp(64 << 10, 1 << 30) / 64 * 64;
        self.max_requests_per_connection = self.max_requests_per_connection.clamp(1, 1 << 20);
        self.max_open_per_connection = self.max_open_per_connection.clamp(1, 1 << 20);
        self.max_bytes_in_flight_per_connection = self.max_bytes_in_flight_per_connection.max(1);
        self.max_connections = self.max_connections.max(1);
        self
    }
}
