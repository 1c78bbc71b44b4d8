//! Partitions whose payload is on a device, or in page-locked memory or on disk beside it: the same header and the same layout as in host
//! memory. Called by stores and operators of device partitions.

use std::sync::Arc;

use bytes::Bytes;
use transload_protocol::Tier;

use super::error::DeviceError;
use super::memory::DeviceBuffer;
use super::pinned::PAGE_BYTES;
use super::ranges::rounded;
use super::tiered::{TieredBuffer, Tiers};
use crate::{ALIGNMENT_BYTES, HeaderError, HostBuffer, Partition, PartitionHeader};

/// One output of a task, in the tiers of a device. A clone shares the bytes.
#[derive(Debug, Clone)]
pub struct DevicePartition {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    header: PartitionHeader,
    payload: TieredBuffer,
    tiers: Tiers,
}

impl DevicePartition {
    /// A partition of this payload, which is in those tiers, laid out as [`PartitionHeader::payload_bytes`] says.
    ///
    /// # Errors
    /// [`HeaderError`] where the payload is of another size.
    pub fn new(
        header: PartitionHeader,
        payload: TieredBuffer,
        tiers: &Tiers,
    ) -> Result<Self, HeaderError> {
        let (expected, actual) = (header.payload_bytes(), payload.bytes());
        if expected != actual {
            return Err(HeaderError::PayloadSize { expected, actual });
        }
        let tiers = tiers.clone();
        Ok(Self {
            shared: Arc::new(Shared {
                header,
                payload,
                tiers,
            }),
        })
    }

    /// What moves it.
    pub fn tiers(&self) -> &Tiers {
        &self.shared.tiers
    }

    /// Metadata and lengths of buffers.
    pub fn header(&self) -> &PartitionHeader {
        &self.shared.header
    }

    /// Its bytes, in whatever tier.
    pub fn payload(&self) -> &TieredBuffer {
        &self.shared.payload
    }

    /// Bytes of metadata and buffers, without padding.
    pub fn bytes(&self) -> u64 {
        self.shared.header.bytes()
    }

    /// Bytes that it takes in whichever tier it is: pages of whole payload.
    pub fn occupied_bytes(&self) -> u64 {
        rounded(self.shared.payload.bytes(), PAGE_BYTES)
    }

    /// Where its payload is now.
    pub fn tier(&self) -> Tier {
        self.shared.payload.tier()
    }

    /// Where each buffer begins in the payload, and its length.
    pub fn buffers(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut at = 0;
        self.shared.header.buffer_bytes.iter().map(move |bytes| {
            let start = at;
            // The sum is at most the payload's length, which exists.
            at += bytes.next_multiple_of(ALIGNMENT_BYTES as u64);
            (start, *bytes)
        })
    }
}

impl Tiers {
    /// Brings a partition from host memory to the device.
    ///
    /// # Errors
    /// [`DeviceError`]; the partition is as it was.
    pub async fn upload(&self, partition: &Partition) -> Result<DevicePartition, DeviceError> {
        let header = partition.header();
        let to = self.memory().try_allocate(header.payload_bytes())?;
        let from: Vec<Bytes> = partition.buffers().to_vec();
        let copies = self.copies().clone();
        // The driver may stage them on the thread that asks.
        let uploading = self.blocking(move || Ok(copies.upload_slices(from, to)));
        let (_, to) = uploading.await?.await?;
        Ok(DevicePartition::new(
            header,
            TieredBuffer::on_device(to),
            self,
        )?)
    }

    /// Copies a payload from a device of this process, this or another, to memory of this one.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub async fn bring(
        &self,
        header: PartitionHeader,
        from: Arc<DeviceBuffer>,
        to: DeviceBuffer,
    ) -> Result<DevicePartition, DeviceError> {
        let (_, to) = self.copies().bring(from, to).await?;
        Ok(DevicePartition::new(
            header,
            TieredBuffer::on_device(to),
            self,
        )?)
    }

    /// Copies a partition, wherever it is, into host memory that `to` is, of [`PartitionHeader::payload_bytes`]. It stays where it was.
    ///
    /// # Errors
    /// [`DeviceError`]; the partition is as it was.
    pub async fn download(
        &self,
        partition: &DevicePartition,
        to: HostBuffer,
    ) -> Result<Partition, DeviceError> {
        let payload = partition.payload();
        let filled = if let Some(from) = payload.device_place() {
            let copies = self.copies().clone();
            let downloading = self.blocking(move || Ok(copies.download_host(from, to)));
            downloading.await?.await?.1
        } else {
            let from = self.in_pinned(payload).await?;
            self.blocking(move || from.copy_to(to)).await?
        };
        let header = PartitionHeader::clone(partition.header());
        Ok(header.assemble(filled.freeze())?)
    }
}
