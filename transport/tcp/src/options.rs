//! Limits and timeouts of the TCP backend. Each can be configured.

use std::time::Duration;

/// Options of a [`crate::TcpTransport`]. The defaults suit one machine and a data centre alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpOptions {
    /// Time in which a peer must accept a connection and answer the greeting. Default 10 s.
    pub connect_timeout: Duration,
    /// Silence after which a peer counts as dead: no byte while an answer or the rest of a frame is awaited, or no byte taken
    /// while we send. Must exceed the time in which a slow disk reads one partition. Default 30 s.
    pub stall_timeout: Duration,
    /// Requests that one connection may have in flight; a client's further fetches wait for a free place. Costs about 200 B
    /// each. A client obeys the server's number. Default 4,096.
    pub max_requests_per_connection: u32,
    /// Partitions that a server opens or sends at once for one connection; further requests wait. Bounds what a peer can
    /// make a server load from disk at once. Default 32.
    pub max_open_per_connection: u32,
    /// Payload bytes of the partitions that a server sends at once over one connection, and so what a client must have
    /// memory for at once; a larger partition is sent alone, small ones (up to `chunk_bytes`) always pass. Default 256 MiB.
    pub max_bytes_in_flight_per_connection: u64,
    /// Largest partition that is accepted from a peer: a wrong size in a broken header ends as an error, not as an attempt to
    /// allocate it. Default 1 TiB.
    pub max_partition_bytes: u64,
    /// A payload is sent in pieces of this size, between which other answers get their turn. Larger is a little faster,
    /// smaller is fairer. From 4 KiB to 16 MiB. Default 1 MiB.
    pub chunk_bytes: u32,
    /// Connections that a listener accepts. Each costs two small buffers and a file descriptor. Default 4,096.
    pub max_connections: u32,
    /// Host name or address that a listener publishes in place of the one it is bound to; needed when it is bound to all
    /// interfaces (`0.0.0.0`), which is not an address that others can connect to. Default none.
    pub advertised_host: Option<String>,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
            max_requests_per_connection: 4_096,
            max_open_per_connection: 32,
            max_bytes_in_flight_per_connection: 256 << 20,
            max_partition_bytes: 1 << 40,
            chunk_bytes: 1 << 20,
            max_connections: 4_096,
            advertised_host: None,
        }
    }
}

impl TcpOptions {
    /// The same options with every limit in the range that works.
    pub(crate) fn clamped(mut self) -> Self {
        let chunks = crate::wire::MIN_CHUNK_BYTES..=crate::wire::MAX_CHUNK_BYTES;
        self.chunk_bytes = self.chunk_bytes.clamp(*chunks.start(), *chunks.end());
        self.max_requests_per_connection = self.max_requests_per_connection.clamp(1, 1 << 20);
        self.max_open_per_connection = self.max_open_per_connection.clamp(1, 1 << 20);
        self.max_connections = self.max_connections.max(1);
        self
    }
}
