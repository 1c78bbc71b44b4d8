//! What backends do alike, whatever carries their bytes: limits, checks, and how sources and destinations are asked. Called by backends
//! alone; knows none of them.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;

use bytes::Bytes;
use futures::FutureExt;
use transload_gpu::{HostBuffer, Partition, PartitionHeader};
use transload_protocol::{Address, PartitionId, codec};

use crate::{Destination, PartitionSource, TransportError};

/// Longest header of a partition: metadata and 8 bytes per buffer.
pub const MAX_HEADER_BYTES: u32 = 64 << 20;
/// Longest reason why a partition cannot be read.
pub const MAX_REASON_BYTES: u32 = 4 << 10;

/// Whether `peer` is an address of the transport `scheme`.
///
/// # Errors
/// [`TransportError::Address`].
pub fn check_scheme(peer: &Address, scheme: &'static str) -> Result<(), TransportError> {
    if peer.scheme == scheme {
        return Ok(());
    }
    Err(TransportError::Address {
        address: peer.clone(),
        scheme,
        reason: format!("its scheme is not `{scheme}`"),
    })
}

/// What a listener bound to `bound` publishes, as `HOST:PORT`: the advertised host in place of its own, where there is one.
pub fn published(bound: SocketAddr, advertised_host: Option<&str>) -> String {
    match advertised_host {
        // An IPv6 address is told from its port by brackets.
        Some(host) if host.contains(':') && !host.starts_with('[') => {
            format!("[{host}]:{}", bound.port())
        }
        Some(host) => format!("{host}:{}", bound.port()),
        None => bound.to_string(),
    }
}

/// Asks a source, whose panic is a reason like any other.
///
/// # Errors
/// Why the partition cannot be read, in words for the peer.
pub async fn open(
    source: &dyn PartitionSource,
    partition: PartitionId,
) -> Result<Option<Partition>, String> {
    let opened = AssertUnwindSafe(async { source.open(partition).await });
    let panicked = |_| Err("opening it panicked; see the log there".to_owned());
    opened.catch_unwind().await.unwrap_or_else(panicked)
}

/// A header as it crosses the wire.
///
/// # Errors
/// Why it cannot, in words for the peer: it exceeds [`MAX_HEADER_BYTES`].
pub fn encode_header(header: &PartitionHeader) -> Result<Vec<u8>, String> {
    let header = codec::encode(header).map_err(|error| error.to_string())?;
    if header.len() > MAX_HEADER_BYTES as usize {
        return Err(format!(
            "its header of {} B exceeds the limit of {MAX_HEADER_BYTES} B",
            header.len()
        ));
    }
    Ok(header)
}

/// A reason, cut to [`MAX_REASON_BYTES`].
pub fn shortened(reason: String) -> Bytes {
    let end = reason.floor_char_boundary(MAX_REASON_BYTES as usize);
    Bytes::from(reason).slice(..end)
}

/// Memory from a destination for the payload that `header` describes.
///
/// # Errors
/// [`TransportError::NoMemory`] where it refuses, [`TransportError::WrongBuffer`] where it gives something else.
pub fn allocate(
    destination: &dyn Destination,
    header: &PartitionHeader,
) -> Result<HostBuffer, TransportError> {
    let buffer = destination.allocate(header)?;
    let (expected_bytes, actual_bytes) = (header.payload_bytes(), buffer.as_slice().len() as u64);
    if expected_bytes != actual_bytes {
        return Err(TransportError::WrongBuffer {
            expected_bytes,
            actual_bytes,
        });
    }
    Ok(buffer)
}
