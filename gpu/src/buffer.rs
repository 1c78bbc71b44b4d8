//! Aligned host memory that is written once and then shared. Called by transports and by the loading of spilled
//! partitions; knows no layout of what is stored in it, and of page-locked memory only that it is memory.

use std::mem;
use std::sync::Arc;

use bytes::Bytes;

use crate::Reservation;
use crate::device::{Landed, PinnedBuffer, share};
use crate::pool::POOL;

/// Every buffer of a received or loaded partition starts at a multiple of this many bytes: a cache line, and what Arrow
/// recommends.
pub const ALIGNMENT_BYTES: usize = 64;

/// What memory holds at first where debug assertions are on, so that tests find who relies on zeros.
const UNCLEARED: u8 = 0xa5;

/// Owned, writable host memory, aligned to [`ALIGNMENT_BYTES`]. Holds its [`Reservation`] as long as the memory lives.
///
/// Memory of 256 KiB and more is used again by later buffers of about its size. Up to 256 MiB of it are kept in a process while
/// nobody uses them, which no reservation pays for; and since sizes are rounded up to be alike, a buffer occupies up to an
/// eighth more than was asked for.
#[derive(Debug)]
pub struct HostBuffer {
    memory: Memory,
}

#[derive(Debug)]
enum Memory {
    Pageable(Pageable),
    /// In one piece, and who wants to have it once it is written.
    Pinned(PinnedBuffer, Landed),
}

#[derive(Debug)]
struct Pageable {
    // With room for the shift to the first aligned byte. A byte vector comes zeroed from the operating system without being
    // touched; an over-aligned type would be zeroed by hand, a pass over memory that nobody needs.
    storage: Vec<u8>,
    start: usize,
    bytes: usize,
    _reservation: Reservation,
}

impl HostBuffer {
    /// `bytes` bytes with whatever contents: they may be what an earlier buffer held, and whoever asks overwrites all that it
    /// shows to others. The reservation was taken for them before; it may be larger.
    pub fn uncleared(bytes: usize, reservation: Reservation) -> Self {
        debug_assert!(
            reservation.bytes() >= bytes as u64,
            "{bytes} B allocated under {reservation:?}"
        );
        let storage = POOL.take(bytes);
        let start = storage
            .as_ptr()
            .align_offset(ALIGNMENT_BYTES)
            .min(ALIGNMENT_BYTES - 1);
        let mut buffer = Self {
            memory: Memory::Pageable(Pageable {
                storage,
                start,
                bytes,
                _reservation: reservation,
            }),
        };
        if cfg!(debug_assertions) {
            buffer.as_mut_slice().fill(UNCLEARED);
        }
        buffer
    }

    /// Page-locked memory, whose reservation it has itself; once it is frozen, `landed` has it, too. `None` where it is not in one piece.
    pub(crate) fn in_pinned(mut buffer: PinnedBuffer, landed: Landed) -> Option<Self> {
        let whole = buffer.as_one_slice_mut()?;
        if cfg!(debug_assertions) {
            whole.fill(UNCLEARED);
        }
        Some(Self {
            memory: Memory::Pinned(buffer, landed),
        })
    }

    /// Its bytes.
    pub fn as_slice(&self) -> &[u8] {
        match &self.memory {
            Memory::Pageable(it) => &it.storage[it.start..it.start + it.bytes],
            Memory::Pinned(it, _) => it.as_one_slice().unwrap_or_default(),
        }
    }

    /// Its bytes, to be written.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        match &mut self.memory {
            Memory::Pageable(it) => &mut it.storage[it.start..it.start + it.bytes],
            Memory::Pinned(it, _) => it.as_one_slice_mut().unwrap_or_default(),
        }
    }

    /// Makes it immutable and shared without a copy. The reservation returns when the last slice is dropped.
    pub fn freeze(self) -> Bytes {
        match self.memory {
            Memory::Pageable(it) => Bytes::from_owner(it),
            Memory::Pinned(it, landed) => {
                let it = Arc::new(it);
                // Set here alone, and a buffer is frozen once.
                let _ = landed.0.set(Arc::clone(&it));
                share(it)
            }
        }
    }
}

impl AsRef<[u8]> for Pageable {
    fn as_ref(&self) -> &[u8] {
        &self.storage[self.start..self.start + self.bytes]
    }
}

impl Drop for Pageable {
    fn drop(&mut self) {
        POOL.give_back(mem::take(&mut self.storage));
    }
}

impl AsMut<[u8]> for HostBuffer {
    fn as_mut(&mut self) -> &mut [u8] {
        self.as_mut_slice()
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
    fn memory_is_aligned_and_of_the_asked_size() {
        let budget = Budget::new("m", u64::MAX);
        for bytes in [0, 1, 63, 64, 65, 4_095, 1 << 20, (5 << 20) + 3] {
            let reservation = budget.try_reserve(bytes as u64).expect("fits");
            let buffer = HostBuffer::uncleared(bytes, reservation);
            assert_eq!(buffer.as_slice().len(), bytes);
            assert_eq!(buffer.as_slice().as_ptr().align_offset(ALIGNMENT_BYTES), 0);
        }
    }

    #[test]
    fn memory_is_used_again_once_the_last_slice_of_it_is_dropped_and_not_before() {
        // A size that no other test uses.
        const BYTES: usize = 77 << 20;
        let budget = Budget::new("m", u64::MAX);
        let make = || HostBuffer::uncleared(BYTES, budget.try_reserve(BYTES as u64).expect("fits"));
        let first = make().freeze();
        let address = first.as_ptr();
        let last = first.slice(BYTES - 1..);
        drop(first);
        let other = make();
        assert_ne!(other.as_slice().as_ptr(), address, "a slice lives");
        drop(last);
        assert_eq!(make().as_slice().as_ptr(), address);
    }

    #[test]
    fn where_debug_assertions_are_on_nobody_can_take_memory_for_zeroed() {
        let budget = Budget::new("m", u64::MAX);
        let buffer = HostBuffer::uncleared(1_000, budget.try_reserve(1_000).expect("fits"));
        let is_marked = buffer.as_slice().iter().all(|byte| *byte == UNCLEARED);
        assert_eq!(is_marked, cfg!(debug_assertions));
    }

    #[test]
    fn the_reservation_returns_with_the_last_slice() {
        let budget = Budget::new("m", 100);
        let mut buffer = HostBuffer::uncleared(100, budget.try_reserve(100).expect("fits"));
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
