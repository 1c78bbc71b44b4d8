//! Aligned host memory that is written once and then shared. Called by transports and by the loading of spilled
//! partitions; knows no layout of what is stored in it.

use bytes::Bytes;

use crate::Reservation;

/// Every buffer of a received or loaded partition starts at a multiple of this many bytes: a cache line, and what Arrow
/// recommends.
pub const ALIGNMENT_BYTES: usize = 64;

/// Owned, writable, zeroed host memory, aligned to [`ALIGNMENT_BYTES`]. Holds its [`Reservation`] as long as the memory lives.
#[derive(Debug)]
pub struct HostBuffer {
    // Allocated with room for the shift to the first aligned byte. A byte vector comes zeroed from the operating system
    // without being touched; an over-aligned type would be zeroed by hand, a pass over memory that nobody needs.
    storage: Vec<u8>,
    start: usize,
    bytes: usize,
    _reservation: Reservation,
}

impl HostBuffer {
    /// `bytes` zeroed bytes. The reservation was taken for them before; it may be larger.
    pub fn zeroed(bytes: usize, reservation: Reservation) -> Self {
        debug_assert!(
            reservation.bytes() >= bytes as u64,
            "{bytes} B allocated under {reservation:?}"
        );
        let storage = vec![0; bytes.saturating_add(ALIGNMENT_BYTES - 1)];
        let start = storage
            .as_ptr()
            .align_offset(ALIGNMENT_BYTES)
            .min(ALIGNMENT_BYTES - 1);
        Self {
            storage,
            start,
            bytes,
            _reservation: reservation,
        }
    }

    /// Its bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.storage[self.start..self.start + self.bytes]
    }

    /// Its bytes, to be written.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.storage[self.start..self.start + self.bytes]
    }

    /// Makes it immutable and shared without a copy. The reservation returns when the last slice is dropped.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for HostBuffer {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Budget;

    #[test]
    fn memory_is_zeroed_aligned_and_of_the_asked_size() {
        let budget = Budget::new("m", u64::MAX);
        for bytes in [0, 1, 63, 64, 65, 4_095, 1 << 20, (5 << 20) + 3] {
            let buffer = HostBuffer::zeroed(bytes, budget.try_reserve(bytes as u64).expect("fits"));
            assert_eq!(buffer.as_slice().len(), bytes);
            assert_eq!(buffer.as_slice().as_ptr().align_offset(ALIGNMENT_BYTES), 0);
            assert!(buffer.as_slice().iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn the_reservation_returns_with_the_last_slice() {
        let budget = Budget::new("m", 100);
        let mut buffer = HostBuffer::zeroed(100, budget.try_reserve(100).expect("fits"));
        buffer.as_mut_slice()[99] = 7;
        let address = buffer.as_slice().as_ptr();
        let bytes = buffer.freeze();
        assert_eq!(bytes.as_ptr(), address, "frozen in place");
        let last = bytes.slice(99..);
        drop(bytes);
        assert_eq!((last[0], budget.used_bytes()), (7, 100));
        drop(last);
        assert_eq!(budget.used_bytes(), 0);
    }
}
