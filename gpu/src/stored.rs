//! Partitions as stores keep them and transports move them: in host memory, or in the tiers of a device. Who computes on the host takes
//! a [`Partition`], so that nobody takes one on a device for it by accident.

use transload_protocol::Tier;

use crate::device::DevicePartition;
use crate::{Partition, PartitionHeader};

/// A partition, wherever it is. A clone shares the bytes.
#[derive(Debug, Clone)]
pub enum Stored {
    /// In host memory.
    Host(Partition),
    /// On a device, in page-locked memory beside it, or on disk.
    Device(DevicePartition),
}

impl Stored {
    /// Metadata and lengths of buffers.
    pub fn header(&self) -> PartitionHeader {
        match self {
            Self::Host(partition) => partition.header(),
            Self::Device(partition) => partition.header().clone(),
        }
    }

    /// Bytes of metadata and buffers, without padding.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Host(partition) => partition.bytes(),
            Self::Device(partition) => partition.bytes(),
        }
    }

    /// Bytes to account for where it is stored.
    pub fn occupied_bytes(&self) -> u64 {
        match self {
            Self::Host(partition) => partition.bytes(),
            Self::Device(partition) => partition.occupied_bytes(),
        }
    }

    /// Whether it has neither metadata nor buffers: then it is like every other such partition.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Host(partition) => partition.is_empty(),
            Self::Device(partition) => {
                let header = partition.header();
                header.metadata.0.is_empty() && header.buffer_bytes.is_empty()
            }
        }
    }

    /// The partition, if it is in host memory.
    pub fn into_host(self) -> Option<Partition> {
        match self {
            Self::Host(partition) => Some(partition),
            Self::Device(_) => None,
        }
    }

    /// Where its bytes are now.
    pub fn tier(&self) -> Tier {
        match self {
            Self::Host(partition) => partition.tier(),
            Self::Device(partition) => partition.tier(),
        }
    }
}

impl From<Partition> for Stored {
    fn from(partition: Partition) -> Self {
        Self::Host(partition)
    }
}

impl From<DevicePartition> for Stored {
    fn from(partition: DevicePartition) -> Self {
        Self::Device(partition)
    }
}
