//! What backends do alike, whatever carries their bytes: limits, checks, and how sources and destinations are asked. Called by backends
//! alone; knows none of them.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use transload_gpu::device::{Arriving, DeviceBuffer, DevicePartition, TieredBuffer, Tiers};
use transload_gpu::{HeaderError, HostBuffer, Partition, PartitionHeader, Stored};
use transload_protocol::{Address, PartitionId, codec};

use crate::{Destination, OnDevice, PartitionSource, TransportError};

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
    asked(async { source.open(partition).await }).await
}

async fn asked<T>(opening: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let opened = AssertUnwindSafe(opening).catch_unwind().await;
    opened.unwrap_or_else(|_| Err("opening it panicked; see the log there".to_owned()))
}

/// What a source gives to be sent by a backend that can send from device memory.
pub enum Outgoing {
    /// From host memory.
    Host(Partition),
    /// From a device.
    Device {
        /// The partition.
        partition: DevicePartition,
        /// Its payload, of [`PartitionHeader::payload_bytes`], which stays there while this is held, also when the partition moves
        /// elsewhere.
        payload: Arc<DeviceBuffer>,
    },
}

/// As [`open`], from a device where it is there.
///
/// # Errors
/// As there.
pub async fn open_in_place(
    source: &dyn PartitionSource,
    partition: PartitionId,
) -> Result<Option<Outgoing>, String> {
    match asked(async { source.open_in_place(partition).await }).await? {
        None => Ok(None),
        Some(Stored::Host(partition)) => Ok(Some(Outgoing::Host(partition))),
        Some(Stored::Device(partition)) => outgoing(partition).await.map(Some),
    }
}

async fn outgoing(partition: DevicePartition) -> Result<Outgoing, String> {
    let place = partition.payload().device_place();
    match place.filter(|payload| payload.bytes() > 0) {
        Some(payload) => Ok(Outgoing::Device { partition, payload }),
        // It has moved in this moment, or there is nothing to send.
        None => {
            let viewed = partition.tiers().viewed(&partition).await;
            viewed
                .map(Outgoing::Host)
                .map_err(|error| error.to_string())
        }
    }
}

/// Why a partition of this process was not brought to where it is read.
#[derive(Debug)]
pub enum Unopened {
    /// Its holder cannot read it, for this reason.
    There(String),
    /// The reader's device, or memory, does not take it.
    Here(TransportError),
}

impl From<String> for Unopened {
    fn from(reason: String) -> Self {
        Self::There(reason)
    }
}

/// As [`open`], for a destination in this process: what is on a device is brought to the destination's device, if there is one with room,
/// and is then where it belongs. Everything else is in host memory.
///
/// # Errors
/// [`Unopened`].
pub async fn open_beside(
    source: &dyn PartitionSource,
    partition: PartitionId,
    destination: &dyn Destination,
) -> Result<Option<Stored>, Unopened> {
    if destination.device().is_some() {
        let (header, payload) = match open_in_place(source, partition).await? {
            None => return Ok(None),
            Some(Outgoing::Host(partition)) => return Ok(Some(partition.into())),
            Some(Outgoing::Device { partition, payload }) => (partition.header().clone(), payload),
        };
        let memory = allocate_on_device(destination, &header);
        if let Some(OnDevice { buffer, tiers }) = memory.map_err(Unopened::Here)? {
            let brought = tiers.bring(header, payload, buffer).await;
            let brought = brought.map_err(|error| Unopened::Here(error.into()))?;
            return Ok(Some(brought.into()));
        }
    }
    Ok(open(source, partition).await?.map(Stored::Host))
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
    check_size(header, buffer.as_slice().len() as u64)?;
    Ok(buffer)
}

fn check_size(header: &PartitionHeader, actual_bytes: u64) -> Result<(), TransportError> {
    let expected_bytes = header.payload_bytes();
    if expected_bytes == actual_bytes {
        return Ok(());
    }
    Err(TransportError::WrongBuffer {
        expected_bytes,
        actual_bytes,
    })
}

/// Memory of a device for that payload, where the destination has some.
///
/// # Errors
/// [`TransportError::WrongBuffer`] where it is of another size.
pub fn allocate_on_device(
    destination: &dyn Destination,
    header: &PartitionHeader,
) -> Result<Option<OnDevice>, TransportError> {
    let memory = destination.allocate_on_device(header);
    if let Some(memory) = &memory {
        check_size(header, memory.buffer.bytes())?;
    }
    Ok(memory)
}

/// What receives that payload into memory of a device by way of page-locked memory, and the tiers it will be of, where the destination has
/// both.
///
/// # Errors
/// As there.
pub fn allocate_staged(
    destination: &dyn Destination,
    header: &PartitionHeader,
) -> Result<Option<(Arriving, Tiers)>, TransportError> {
    let Some(staging) = destination.staging() else {
        return Ok(None);
    };
    let memory = allocate_on_device(destination, header)?;
    Ok(memory.map(|OnDevice { buffer, tiers }| {
        let arriving = Arriving::new(buffer, &tiers, staging);
        (arriving, tiers)
    }))
}

/// The partition whose payload was received into such memory.
///
/// # Errors
/// [`HeaderError`] where the memory is of another size.
pub fn arrived_on_device(
    header: PartitionHeader,
    memory: OnDevice,
) -> Result<DevicePartition, HeaderError> {
    let payload = TieredBuffer::on_device(memory.buffer);
    DevicePartition::new(header, payload, &memory.tiers)
}
