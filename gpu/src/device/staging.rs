//! Payloads that cross between a device and a wire that knows memory of the host alone: piece by piece through page-locked memory, so that
//! one piece is copied while another is on the wire. Called by transports; knows no wire.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};

use super::copies::Copies;
use super::error::DeviceError;
use super::memory::DeviceBuffer;
use super::partition::DevicePartition;
use super::pinned::{PAGE_BYTES, PinnedBuffer};
use super::ranges::rounded;
use super::stream::Completion;
use super::tiered::{TieredBuffer, Tiers};
use crate::PartitionHeader;

/// Pieces under way at one end: one is on the wire while the other is copied.
const PIECES: u64 = 2;

/// Page-locked memory for the pieces of one payload at one end. It is taken before the first of them, so that nobody who has some waits for
/// more.
#[derive(Debug)]
pub struct Staging {
    /// At least one.
    slots: Vec<PinnedBuffer>,
}

/// The payload of a device partition on its way to the wire.
pub struct Departing {
    partition: DevicePartition,
    departed_bytes: u64,
    idle: UnboundedReceiver<PinnedBuffer>,
    back: UnboundedSender<PinnedBuffer>,
}

/// The payload of a partition on its way from the wire to memory of a device.
pub struct Arriving {
    to: Arc<DeviceBuffer>,
    copies: Copies,
    idle: Vec<PinnedBuffer>,
    /// In the order in which they will end.
    copied: VecDeque<Completion<(PinnedBuffer, Arc<DeviceBuffer>)>>,
    arrived_bytes: u64,
}

/// Page-locked memory for the next bytes of a payload.
#[derive(Debug)]
pub struct Piece {
    slot: PinnedBuffer,
    bytes: u64,
}

impl Tiers {
    /// Memory for a payload to pass in pieces of at most `piece_bytes`.
    ///
    /// # Errors
    /// [`DeviceError`], where there is no room or the system locks no more.
    pub async fn stage(
        &self,
        payload_bytes: u64,
        piece_bytes: u64,
    ) -> Result<Staging, DeviceError> {
        // No less than is taken anyway: there may be more to come than was announced.
        let slot_bytes = rounded(payload_bytes.min(piece_bytes).max(1), PAGE_BYTES);
        let mut slots = Vec::new();
        for _ in 0..payload_bytes.div_ceil(slot_bytes).clamp(1, PIECES) {
            slots.push(self.allocate_pinned(slot_bytes).await?);
        }
        Ok(Staging { slots })
    }
}

impl Departing {
    /// Of this partition, through that memory.
    pub fn new(partition: DevicePartition, staging: Staging) -> Self {
        let (back, idle) = unbounded();
        for slot in staging.slots {
            give_back(&back, slot);
        }
        Self {
            partition,
            departed_bytes: 0,
            idle,
            back,
        }
    }

    /// The partition.
    pub const fn partition(&self) -> &DevicePartition {
        &self.partition
    }

    /// Lets go of the page-locked memory: the partition, and how many bytes of its payload have been given.
    pub fn into_rest(self) -> (DevicePartition, u64) {
        (self.partition, self.departed_bytes)
    }

    /// Bytes that are left to give.
    pub fn left_bytes(&self) -> u64 {
        self.partition.payload().bytes() - self.departed_bytes
    }

    /// The next piece, as slices that follow each other, once one of those before it has been dropped. `None` where the partition has left
    /// the device: the rest is to be had where it went. Between two pieces nothing keeps it on the device. Where the future is dropped,
    /// the payload cannot be given on.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub async fn next(&mut self) -> Result<Option<Vec<Bytes>>, DeviceError> {
        let slot = self.idle_slot().await?;
        let Some(from) = self.partition.payload().device_place() else {
            give_back(&self.back, slot);
            return Ok(None);
        };
        let bytes = self.left_bytes().min(slot.bytes());
        let copies = self.partition.tiers().copies();
        let downloading = copies.download_piece(from, self.departed_bytes, bytes, slot);
        let (_, slot) = downloading.await?;
        self.departed_bytes += bytes;
        let lent = Arc::new(Lent {
            slot: Some(slot),
            back: self.back.clone(),
        });
        Ok(Some(lent.slices(bytes)))
    }

    /// Until all that was given has been dropped.
    pub async fn settled(self) {
        let Self { back, mut idle, .. } = self;
        drop(back);
        while idle.next().await.is_some() {}
    }

    async fn idle_slot(&mut self) -> Result<PinnedBuffer, DeviceError> {
        // There is one or will be, as long as `back` lives.
        self.idle.next().await.ok_or_else(|| DeviceError::Unusable {
            reason: "no page-locked memory for a partition that is sent".to_owned(),
        })
    }
}

/// Where a slot goes once nobody reads it.
fn give_back(back: &UnboundedSender<PinnedBuffer>, slot: PinnedBuffer) {
    // Nobody may want it any more, and then it is freed here.
    let _ = back.unbounded_send(slot);
}

/// A piece that is on the wire.
struct Lent {
    /// Until this is dropped.
    slot: Option<PinnedBuffer>,
    back: UnboundedSender<PinnedBuffer>,
}

/// One part of its memory, as the owner of `Bytes`.
struct Slice {
    of: Arc<Lent>,
    index: usize,
    bytes: usize,
}

impl Lent {
    fn pages(&self) -> Vec<&[u8]> {
        self.slot
            .as_ref()
            .map(PinnedBuffer::page_slices)
            .unwrap_or_default()
    }

    /// Its first `bytes`.
    fn slices(self: Arc<Self>, bytes: u64) -> Vec<Bytes> {
        let mut left = bytes as usize;
        let lengths: Vec<usize> = self.pages().into_iter().map(<[u8]>::len).collect();
        let mut slices = Vec::with_capacity(1);
        for (index, length) in lengths.into_iter().enumerate() {
            let bytes = length.min(left);
            left -= bytes;
            let of = Arc::clone(&self);
            slices.push(Bytes::from_owner(Slice { of, index, bytes }));
        }
        slices
    }
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        let pages = self.of.pages();
        pages
            .get(self.index)
            .and_then(|page| page.get(..self.bytes))
            .unwrap_or_default()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            give_back(&self.back, slot);
        }
    }
}

impl Arriving {
    /// Into this memory, through that.
    pub fn new(to: DeviceBuffer, tiers: &Tiers, staging: Staging) -> Self {
        Self {
            to: Arc::new(to),
            copies: tiers.copies().clone(),
            idle: staging.slots,
            copied: VecDeque::new(),
            arrived_bytes: 0,
        }
    }

    /// Bytes of the whole payload.
    pub fn payload_bytes(&self) -> u64 {
        self.to.bytes()
    }

    /// Page-locked memory for some of the next `bytes`, at least for one, once there is some again. Not for more than the payload has.
    ///
    /// # Errors
    /// [`DeviceError`] of a piece before it.
    pub async fn piece(&mut self, bytes: u64) -> Result<Piece, DeviceError> {
        let slot = match self.idle.pop() {
            Some(slot) => slot,
            None => self.copied().await?,
        };
        let left = self.payload_bytes() - self.arrived_bytes;
        let bytes = bytes.min(left).min(slot.bytes());
        Ok(Piece { slot, bytes })
    }

    /// The piece that was last asked for is written, and goes to the device.
    pub fn arrived(&mut self, piece: Piece) {
        let Piece { slot, bytes } = piece;
        let to = Arc::clone(&self.to);
        // SAFETY: nobody else has the destination before all has arrived, and each piece has its own part of it.
        let uploading = unsafe {
            self.copies
                .upload_piece(slot, bytes, to, self.arrived_bytes)
        };
        self.copied.push_back(uploading);
        self.arrived_bytes += bytes;
    }

    /// The partition of that header, once all of it is on the device of `tiers`.
    ///
    /// # Errors
    /// [`DeviceError`], also where some of the payload has not come.
    pub async fn finish(
        mut self,
        header: PartitionHeader,
        tiers: &Tiers,
    ) -> Result<DevicePartition, DeviceError> {
        while !self.copied.is_empty() {
            drop(self.copied().await?);
        }
        if self.arrived_bytes != self.payload_bytes() {
            return Err(DeviceError::Sizes {
                from_bytes: self.arrived_bytes,
                to_bytes: self.payload_bytes(),
            });
        }
        Ok(DevicePartition::new(
            header,
            TieredBuffer::on_device(self.to),
            tiers,
        )?)
    }

    /// The slot of the first piece that is on its way.
    async fn copied(&mut self) -> Result<PinnedBuffer, DeviceError> {
        match self.copied.pop_front() {
            Some(copied) => Ok(copied.await?.0),
            None => Err(DeviceError::Unusable {
                reason: "no page-locked memory for a partition that is received".to_owned(),
            }),
        }
    }
}

impl Piece {
    /// Its bytes.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Its memory, as slices that follow each other.
    pub fn slices_mut(&mut self) -> Vec<&mut [u8]> {
        let mut left = self.bytes as usize;
        let mut slices = Vec::with_capacity(1);
        for page in self.slot.page_slices_mut() {
            let bytes = page.len().min(left);
            left -= bytes;
            slices.push(&mut page[..bytes]);
        }
        slices
    }
}

impl fmt::Debug for Departing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Departing({} B of {:?})",
            self.departed_bytes, self.partition
        )
    }
}

impl fmt::Debug for Arriving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Arriving({} of {} B)",
            self.arrived_bytes,
            self.payload_bytes()
        )
    }
}
