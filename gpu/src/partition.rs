//! Partitions: metadata and a list of buffers, immutable, cheap to clone. Made by operators, transports and loading; knows
//! sizes, never what the bytes mean.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use transload_protocol::{Blob, Tier};

use crate::{ALIGNMENT_BYTES, Reservation};

/// One output of a task, in host memory. A clone shares the bytes.
#[derive(Clone)]
pub struct Partition {
    data: Arc<Data>,
    decoded: Option<Arc<dyn Any + Send + Sync>>,
    reservations: Option<Arc<Held>>,
}

struct Data {
    metadata: Bytes,
    buffers: Vec<Bytes>,
    bytes: u64,
    // The memory that all buffers are slices of. Held even when every slice is empty, as the reservation lives in it.
    _payload: Option<Bytes>,
}

/// Reservations attached to a partition, latest first.
struct Held {
    _reservation: Reservation,
    _earlier: Option<Arc<Held>>,
}

impl Partition {
    /// A partition of these bytes. `metadata` is small and says how the buffers are to be read.
    pub fn new(metadata: Bytes, buffers: Vec<Bytes>) -> Self {
        Self::from_payload(metadata, buffers, None)
    }

    fn from_payload(metadata: Bytes, buffers: Vec<Bytes>, payload: Option<Bytes>) -> Self {
        let bytes = buffers.iter().fold(metadata.len() as u64, |sum, buffer| {
            sum + buffer.len() as u64
        });
        Self {
            data: Arc::new(Data {
                metadata,
                buffers,
                bytes,
                _payload: payload,
            }),
            decoded: None,
            reservations: None,
        }
    }

    /// Adds an in-process form, handed over with no decoding to readers in the same process. It never crosses to another
    /// process or to disk, so it must say nothing that metadata and buffers do not say.
    #[must_use]
    pub fn with_decoded(mut self, decoded: Arc<dyn Any + Send + Sync>) -> Self {
        self.decoded = Some(decoded);
        self
    }

    /// The in-process form, when there is one and it is a `T`.
    pub fn decoded<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.decoded.clone()?.downcast().ok()
    }

    /// How the buffers are to be read.
    pub fn metadata(&self) -> &Bytes {
        &self.data.metadata
    }

    /// The buffers, in order.
    pub fn buffers(&self) -> &[Bytes] {
        &self.data.buffers
    }

    /// Bytes of metadata and buffers, without padding.
    pub fn bytes(&self) -> u64 {
        self.data.bytes
    }

    /// Whether it has neither metadata nor buffers: then it is like every other such partition.
    pub fn is_empty(&self) -> bool {
        self.data.metadata.is_empty() && self.data.buffers.is_empty()
    }

    /// The memory that the buffers are in.
    pub fn tier(&self) -> Tier {
        Tier::Host
    }

    /// Metadata and buffer lengths: what crosses the wire before the buffers do.
    pub fn header(&self) -> PartitionHeader {
        PartitionHeader {
            metadata: Blob(self.data.metadata.clone()),
            buffer_bytes: self
                .data
                .buffers
                .iter()
                .map(|buffer| buffer.len() as u64)
                .collect(),
        }
    }

    /// Keeps `reservation` until this partition and all clones made from it are dropped. Slices taken out of
    /// [`Partition::buffers`] do not keep it.
    #[must_use]
    pub fn attach_reservation(mut self, reservation: Reservation) -> Self {
        self.reservations = Some(Arc::new(Held {
            _reservation: reservation,
            _earlier: self.reservations.take(),
        }));
        self
    }
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Partition({} B in {} buffers{})",
            self.bytes(),
            self.buffers().len(),
            if self.decoded.is_some() {
                ", decoded"
            } else {
                ""
            }
        )
    }
}

/// Same metadata and same buffers, byte for byte.
impl PartialEq for Partition {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.data, &other.data)
            || (self.metadata() == other.metadata() && self.buffers() == other.buffers())
    }
}

impl Eq for Partition {}

/// What is known of a partition before its buffers are there. Comes from peers and files, so every size in it is a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionHeader {
    /// [`Partition::metadata`].
    pub metadata: Blob,
    /// Length of each buffer, without padding.
    pub buffer_bytes: Vec<u64>,
}

/// A header and a payload do not belong together, or the header claims what cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The claimed sizes exceed what any memory has.
    #[error("the claimed sizes of {buffers} buffers add up to more than an address space")]
    Overflow {
        /// How many buffers are claimed.
        buffers: usize,
    },
    /// The payload has another size than the header says.
    #[error("the header describes a payload of {expected} B, but {actual} B are there")]
    PayloadSize {
        /// Bytes the header describes.
        expected: u64,
        /// Bytes of the payload.
        actual: u64,
    },
}

impl PartitionHeader {
    /// Bytes of the payload: the buffers one after another, each padded to [`ALIGNMENT_BYTES`]. `u64::MAX` when the claimed
    /// lengths add up to more, which no budget grants and [`PartitionHeader::assemble`] refuses.
    pub fn payload_bytes(&self) -> u64 {
        self.buffer_bytes.iter().fold(0, |sum: u64, bytes| {
            padded(*bytes).map_or(u64::MAX, |bytes| sum.saturating_add(bytes))
        })
    }

    /// Bytes of the whole partition as [`Partition::bytes`] counts them, saturating.
    pub fn bytes(&self) -> u64 {
        self.buffer_bytes
            .iter()
            .fold(self.metadata.0.len() as u64, |sum, bytes| {
                sum.saturating_add(*bytes)
            })
    }

    /// The partition whose buffers are slices of `payload`; nothing is copied.
    ///
    /// # Errors
    /// [`HeaderError`] when `payload` is not [`PartitionHeader::payload_bytes`] long.
    pub fn assemble(self, payload: Bytes) -> Result<Partition, HeaderError> {
        let expected = self.payload_bytes();
        if expected > isize::MAX as u64 {
            return Err(HeaderError::Overflow {
                buffers: self.buffer_bytes.len(),
            });
        }
        if expected != payload.len() as u64 {
            return Err(HeaderError::PayloadSize {
                expected,
                actual: payload.len() as u64,
            });
        }
        // All sums below are at most `payload.len()`, checked above.
        let mut at = 0;
        let buffers = self
            .buffer_bytes
            .iter()
            .map(|bytes| {
                let bytes = *bytes as usize;
                let buffer = payload.slice(at..at + bytes);
                at += bytes.next_multiple_of(ALIGNMENT_BYTES);
                buffer
            })
            .collect();
        Ok(Partition::from_payload(
            self.metadata.0,
            buffers,
            Some(payload),
        ))
    }
}

fn padded(bytes: u64) -> Option<u64> {
    bytes.checked_next_multiple_of(ALIGNMENT_BYTES as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Budget, HostBuffer};
    use proptest::prelude::*;
    use transload_protocol::codec;

    fn payload_of(partition: &Partition) -> Vec<u8> {
        let mut payload = Vec::new();
        for buffer in partition.buffers() {
            payload.extend_from_slice(buffer);
            payload.resize(payload.len().next_multiple_of(ALIGNMENT_BYTES), 0);
        }
        payload
    }

    #[test]
    fn the_decoded_form_is_found_by_its_type_and_not_compared() {
        let plain = Partition::new(Bytes::from_static(b"m"), vec![]);
        let decoded = plain.clone().with_decoded(Arc::new(vec![1_u32]));
        assert_eq!(*decoded.decoded::<Vec<u32>>().expect("there"), vec![1]);
        assert!(decoded.decoded::<String>().is_none());
        assert!(plain.decoded::<Vec<u32>>().is_none());
        assert_eq!(plain, decoded);
    }

    #[test]
    fn reservations_return_with_the_last_clone() {
        let budget = Budget::new("m", 10);
        let first = Partition::new(Bytes::new(), vec![])
            .attach_reservation(budget.try_reserve(4).expect("fits"))
            .attach_reservation(budget.try_reserve(3).expect("fits"));
        let second = first.clone();
        drop(first);
        assert_eq!(budget.used_bytes(), 7);
        drop(second);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn an_empty_payload_still_holds_its_reservation() {
        let budget = Budget::new("m", 10);
        let payload = HostBuffer::uncleared(0, budget.try_reserve(10).expect("fits")).freeze();
        let partition = Partition::new(Bytes::from_static(b"metadata"), vec![Bytes::new()]);
        let back = partition.header().assemble(payload).expect("belongs");
        assert_eq!((back == partition, budget.used_bytes()), (true, 10));
        drop(back);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn a_header_that_claims_an_address_space_is_refused() {
        for buffer_bytes in [
            vec![u64::MAX],
            vec![u64::MAX - 63],
            vec![u64::MAX / 2, u64::MAX / 2, 64],
        ] {
            let header = PartitionHeader {
                metadata: Blob::default(),
                buffer_bytes,
            };
            assert!(header.payload_bytes() > isize::MAX as u64);
            assert!(matches!(
                header.assemble(Bytes::new()),
                Err(HeaderError::Overflow { .. })
            ));
        }
    }

    proptest! {
        #[test]
        fn a_partition_is_assembled_from_its_header_and_payload(
            metadata in proptest::collection::vec(any::<u8>(), 0..50),
            buffers in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..20),
        ) {
            let partition = Partition::new(metadata.into(), buffers.into_iter().map(Bytes::from).collect());
            let header: PartitionHeader =
                codec::decode(&codec::encode(&partition.header()).expect("encodes")).expect("decodes");
            prop_assert_eq!(header.bytes(), partition.bytes());
            let payload = payload_of(&partition);
            prop_assert_eq!(header.payload_bytes(), payload.len() as u64);
            prop_assert_eq!(header.clone().assemble(payload.clone().into()).expect("belongs"), partition);
            let longer = [payload.as_slice(), &[0]].concat();
            prop_assert!(header.assemble(longer.into()).is_err());
        }

        #[test]
        fn arbitrary_headers_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(header) = codec::decode::<PartitionHeader>(&bytes) {
                let _ = header.payload_bytes();
                let _ = header.bytes();
                let _ = header.assemble(Bytes::from_static(&[0; 128]));
            }
        }
    }
}
