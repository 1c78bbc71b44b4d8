//! A payload in pieces that are sent one by one. Large buffers are sent from where they are; runs of small ones are copied together, as a
//! message each would cost more. What is on a device is sent from there, as it lies. Knows no UCX but what a body of it is.
//!
//! The payload is the buffers one after another, each padded to [`ALIGNMENT_BYTES`]. Every piece begins at such a place, and padding at its
//! end is not sent.

use std::sync::Arc;

use bytes::Bytes;
use transload_gpu::device::DeviceBuffer;
use transload_gpu::{ALIGNMENT_BYTES, Partition};

use crate::ucp::{DevicePart, Parcel};

/// Buffers below this are copied together.
const SMALL_BYTES: usize = 32 << 10;
/// Up to about so many bytes.
const PACKED_BYTES: usize = 128 << 10;

/// What is left to be sent of one partition.
pub(crate) enum Pieces {
    Host(HostPieces),
    Device(DevicePieces),
}

impl Pieces {
    /// Bytes of the payload that are left, padding included.
    pub(crate) fn left(&self) -> u64 {
        match self {
            Self::Host(pieces) => pieces.left(),
            Self::Device(pieces) => pieces.left(),
        }
    }

    /// The next piece, of at most about so many bytes, a multiple of [`ALIGNMENT_BYTES`], and where it belongs. `None` when nothing is left.
    pub(crate) fn next(&mut self, most: u64) -> Option<(u64, Parcel)> {
        match self {
            Self::Host(pieces) => {
                let (offset, piece) = pieces.next(most)?;
                Some((offset, piece.into()))
            }
            Self::Device(pieces) => pieces.next(most),
        }
    }
}

/// Of a payload on a device, which is in one piece there.
pub(crate) struct DevicePieces {
    payload: Arc<DeviceBuffer>,
    offset: u64,
}

impl DevicePieces {
    pub(crate) fn new(payload: Arc<DeviceBuffer>) -> Self {
        Self { payload, offset: 0 }
    }

    fn left(&self) -> u64 {
        self.payload.bytes() - self.offset
    }

    fn next(&mut self, most: u64) -> Option<(u64, Parcel)> {
        let (offset, bytes) = (self.offset, self.left().min(most));
        if bytes == 0 {
            return None;
        }
        let part = DevicePart::new(&self.payload, offset, bytes)?;
        self.offset += bytes;
        Some((offset, Parcel::Device(part)))
    }
}

/// Of a partition in host memory.
pub(crate) struct HostPieces {
    partition: Partition,
    /// The buffer to go on with, and where in it.
    buffer: usize,
    position: usize,
    /// Where the next piece belongs in the payload.
    offset: u64,
    left: u64,
}

impl HostPieces {
    /// Of a partition with so many bytes of payload.
    pub(crate) fn new(partition: Partition, payload_bytes: u64) -> Self {
        Self {
            partition,
            buffer: 0,
            position: 0,
            offset: 0,
            left: payload_bytes,
        }
    }

    /// See [`Pieces::left`].
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    /// See [`Pieces::next`].
    fn next(&mut self, most: u64) -> Option<(u64, Bytes)> {
        self.skip_empty();
        let buffer = self.partition.buffers().get(self.buffer)?.clone();
        let offset = self.offset;
        if buffer.len() >= SMALL_BYTES {
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            let end = self.position.saturating_add(most).min(buffer.len());
            let piece = buffer.slice(self.position..end);
            self.advance(end, buffer.len());
            return Some((offset, piece));
        }
        let mut packed = Vec::with_capacity(PACKED_BYTES.min(self.left as usize));
        while packed.len() < PACKED_BYTES
            && let Some(buffer) = self.partition.buffers().get(self.buffer)
            && buffer.len() < SMALL_BYTES
        {
            self.pack_one(&buffer.clone(), &mut packed);
        }
        Some((offset, packed.into()))
    }

    /// Copies everything that is left, padding included, behind what is in `packed`.
    pub(crate) fn pack_all(&mut self, packed: &mut Vec<u8>) {
        while let Some(buffer) = self.partition.buffers().get(self.buffer) {
            self.pack_one(&buffer.clone(), packed);
        }
    }

    /// Copies a whole buffer and its padding.
    fn pack_one(&mut self, buffer: &Bytes, packed: &mut Vec<u8>) {
        packed.extend_from_slice(buffer);
        let padding = buffer.len().next_multiple_of(ALIGNMENT_BYTES) - buffer.len();
        packed.resize(packed.len() + padding, 0);
        self.advance(buffer.len(), buffer.len());
    }

    fn skip_empty(&mut self) {
        while self
            .partition
            .buffers()
            .get(self.buffer)
            .is_some_and(Bytes::is_empty)
        {
            self.buffer += 1;
        }
    }

    /// Everything before `end` of the current buffer, which is `bytes` long, is done with.
    fn advance(&mut self, end: usize, bytes: usize) {
        let start = self.position;
        let end = if end == bytes {
            (self.buffer, self.position) = (self.buffer + 1, 0);
            bytes.next_multiple_of(ALIGNMENT_BYTES)
        } else {
            self.position = end;
            end
        };
        self.offset += (end - start) as u64;
        self.left -= (end - start) as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_put_at_their_places_are_the_payload(
            lengths in proptest::collection::vec(prop_oneof![0..200_usize, 30_000..40_000_usize, Just(300_000)], 0..12),
            most in (1..4_000_u64).prop_map(|most| most * 64),
        ) {
            let buffers: Vec<Bytes> = lengths.iter().map(|bytes| (0..*bytes).map(|at| (at % 251) as u8).collect()).collect();
            let partition = Partition::new(Bytes::new(), buffers);
            let payload_bytes = partition.header().payload_bytes();
            let mut payload = vec![0xff_u8; payload_bytes as usize];
            let mut pieces = HostPieces::new(partition.clone(), payload_bytes);
            let mut counted = 0;
            while let Some((offset, piece)) = pieces.next(most) {
                prop_assert_eq!(offset % ALIGNMENT_BYTES as u64, 0);
                prop_assert!(!piece.is_empty());
                let at = offset as usize;
                payload[at..at + piece.len()].copy_from_slice(&piece);
                counted += (piece.len() as u64).next_multiple_of(ALIGNMENT_BYTES as u64);
                prop_assert_eq!(pieces.left(), payload_bytes - counted);
            }
            prop_assert_eq!(counted, payload_bytes);
            let back = partition.header().assemble(payload.into()).expect("belongs");
            prop_assert_eq!(&back, &partition);
            let mut packed = Vec::new();
            HostPieces::new(partition.clone(), payload_bytes).pack_all(&mut packed);
            prop_assert_eq!(partition.header().assemble(packed.into()).expect("belongs"), partition);
        }
    }

    #[test]
    fn a_large_buffer_is_sent_from_where_it_is() {
        let large = Bytes::from(vec![7; 1 << 20]);
        let partition = Partition::new(
            Bytes::new(),
            vec![Bytes::from_static(b"small"), large.clone()],
        );
        let bytes = partition.header().payload_bytes();
        let mut pieces = HostPieces::new(partition, bytes);
        assert_eq!(
            pieces.next(1 << 30).map(|(at, it)| (at, it.len())),
            Some((0, 64))
        );
        let (offset, piece) = pieces.next(1 << 30).expect("the large one");
        assert_eq!((offset, piece.as_ptr()), (64, large.as_ptr()));
        assert!(pieces.next(1).is_none());
    }
}
