//! How device partitions travel between processes as a whole: from page-locked memory and into it, so that the host copies nothing. Called by
//! stores, which serve partitions and receive them; transports see memory of the host.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::error::DeviceError;
use super::partition::DevicePartition;
use super::pinned::{Locked, PinnedBuffer};
use super::staging::Staging;
use super::tiered::{TieredBuffer, Tiers};
use crate::{HostBuffer, Partition};

/// What was received into page-locked memory of [`Tiers::landing`], once it has arrived.
#[derive(Debug, Clone, Default)]
pub struct Landed(pub(crate) Arc<OnceLock<Arc<PinnedBuffer>>>);

/// A payload that is received goes to the device in pieces of this size, most often that of the sender's.
const PIECE_BYTES: u64 = 1 << 20;

/// Page-locked memory for a payload that is about to come.
#[derive(Debug)]
pub enum Prepared {
    /// For its pieces on their way to the device.
    Pieces(Staging),
    /// For all of it: the device has no room now.
    Whole(PinnedBuffer),
}

/// Bytes of a buffer in one piece, as the owner of `Bytes`.
struct Whole(Arc<PinnedBuffer>);

impl AsRef<[u8]> for Whole {
    fn as_ref(&self) -> &[u8] {
        self.0.as_one_slice().unwrap_or_default()
    }
}

/// Page-locked memory in one piece that nobody writes any more, shared without a copy.
pub(crate) fn share(buffer: Arc<PinnedBuffer>) -> Bytes {
    Bytes::from_owner(Whole(buffer))
}

impl Tiers {
    /// Takes page-locked memory, and locks some where need be, for a payload of about so many bytes. What is for all of it has to be dropped
    /// right before [`Tiers::landing`], which takes exactly what is needed.
    ///
    /// # Errors
    /// [`DeviceError`], where there is no room or the system locks no more.
    pub async fn prepare(&self, bytes: u64) -> Result<Prepared, DeviceError> {
        if self.memory().budget().free_bytes() < bytes {
            return self.allocate_pinned(bytes).await.map(Prepared::Whole);
        }
        self.stage(bytes, PIECE_BYTES).await.map(Prepared::Pieces)
    }

    /// Memory for a payload to be received into, page-locked and in one piece; `None` where there is none ready. Takes no time.
    pub fn landing(&self, bytes: u64) -> Option<(HostBuffer, Landed)> {
        let reservation = self.pinned().try_reserve(bytes).ok()?;
        match self.pinned().allocate_locked(bytes, reservation).ok()? {
            Locked::Buffer(buffer) => {
                let landed = Landed::default();
                let buffer = HostBuffer::in_pinned(buffer, landed.clone())?;
                Some((buffer, landed))
            }
            Locked::TooLittle(_) => None,
        }
    }

    /// A partition that was received into such memory, as one of this device; `None` where it was not.
    pub fn adopt(&self, partition: &Partition, landed: &Landed) -> Option<DevicePartition> {
        let buffer = Arc::clone(landed.0.get()?);
        DevicePartition::new(partition.header(), TieredBuffer::in_pinned(buffer), self).ok()
    }

    /// A view of a partition through page-locked memory: its own place, if it is there, else a copy that lives as long as the view. The
    /// partition stays where it is.
    ///
    /// # Errors
    /// [`DeviceError`], also where there is no page-locked memory for it now.
    pub async fn viewed(&self, partition: &DevicePartition) -> Result<Partition, DeviceError> {
        let whole = self.in_pinned(partition.payload()).await?;
        let payload = if whole.as_one_slice().is_some() {
            share(whole)
        } else {
            // In several pieces, which is rare: there was no room in one.
            whole.to_vec().into()
        };
        Ok(partition.header().clone().assemble(payload)?)
    }
}
