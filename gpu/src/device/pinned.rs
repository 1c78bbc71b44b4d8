//! Page-locked host memory, which devices, disks and network cards read and write themselves. Called by moves between tiers; knows sizes
//! alone.
//!
//! It is taken in blocks of huge pages that are locked once, as needed and up to a budget, and stay until the end: locking takes
//! longer than what is done with it. A buffer is one piece where there is one, and several where not, so that pieces that live long
//! cost nothing but copies that are shorter.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::block::Block;
use super::context::Device;
use super::error::{DeviceError, check_reservation};
use super::ranges::{Range, Ranges, rounded};
use crate::{Budget, HostBuffer, OutOfBudget, Reservation};

/// What pieces are aligned to and multiples of: what disks want for transfers past the page cache.
pub(super) const PAGE_BYTES: u64 = 4 << 10;
/// What is locked at once.
const BLOCK_BYTES: u64 = 64 << 20;

/// Page-locked memory of this process. Clones share it.
#[derive(Clone)]
pub struct PinnedPool {
    shared: Arc<Shared>,
}

struct Shared {
    device: Device,
    budget: Budget,
    /// Held for moments only: whoever drops a buffer waits for it.
    state: Mutex<State>,
    /// Held by the one that locks memory, which takes seconds for gigabytes.
    growing: Mutex<()>,
}

struct State {
    ranges: Ranges,
    blocks: Vec<Block>,
}

/// Page-locked memory in pieces. Its bytes are idle when it is dropped, as whatever works on them holds it.
pub struct PinnedBuffer {
    pool: Arc<Shared>,
    pieces: Vec<Range>,
    bytes: u64,
    _reservation: Reservation,
}

/// Whether there was enough memory that is locked and free.
pub(super) enum Locked {
    /// There was.
    Buffer(PinnedBuffer),
    /// There was not; the room for it.
    TooLittle(Reservation),
}

impl PinnedPool {
    /// Up to `bytes` of memory, none of which is taken yet.
    pub fn new(device: &Device, bytes: u64) -> Self {
        let state = State {
            ranges: Ranges::new(PAGE_BYTES),
            blocks: Vec::new(),
        };
        Self {
            shared: Arc::new(Shared {
                device: device.clone(),
                budget: Budget::new("pinned memory", bytes - bytes % PAGE_BYTES),
                state: Mutex::new(state),
                growing: Mutex::new(()),
            }),
        }
    }

    /// What it may have and what is in use.
    pub fn budget(&self) -> &Budget {
        &self.shared.budget
    }

    /// Room for `bytes`, rounded up to pages.
    ///
    /// # Errors
    /// [`OutOfBudget`].
    pub fn try_reserve(&self, bytes: u64) -> Result<Reservation, OutOfBudget> {
        self.shared.budget.try_reserve(rounded(bytes, PAGE_BYTES))
    }

    /// A buffer of `bytes`, in room that was reserved before, with whatever it holds. May take long, as memory may have to be locked.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`] where the system locks no more, and [`DeviceError::Reservation`] where there is too little room.
    pub fn allocate(
        &self,
        bytes: u64,
        reservation: Reservation,
    ) -> Result<PinnedBuffer, DeviceError> {
        let mut reservation = match self.allocate_locked(bytes, reservation)? {
            Locked::Buffer(buffer) => return Ok(buffer),
            Locked::TooLittle(reservation) => reservation,
        };
        let growing = self.shared.growing.lock();
        let _growing = growing.unwrap_or_else(PoisonError::into_inner);
        // Others may take what was just locked; but all of them have room, so that the last of it is enough.
        loop {
            reservation = match self.allocate_locked(bytes, reservation)? {
                Locked::Buffer(buffer) => return Ok(buffer),
                Locked::TooLittle(reservation) => reservation,
            };
            self.grow(rounded(bytes, PAGE_BYTES))?;
        }
    }

    /// The same, of memory that is locked already, so that it takes no time.
    pub(super) fn allocate_locked(
        &self,
        bytes: u64,
        reservation: Reservation,
    ) -> Result<Locked, DeviceError> {
        let needed_bytes = rounded(bytes, PAGE_BYTES);
        check_reservation(needed_bytes, &self.shared.budget, &reservation)?;
        let taken = self.shared.state().ranges.take_scattered(bytes);
        Ok(match taken {
            Some(pieces) => Locked::Buffer(PinnedBuffer {
                pool: Arc::clone(&self.shared),
                pieces,
                bytes,
                _reservation: reservation,
            }),
            None => Locked::TooLittle(reservation),
        })
    }

    /// Locks so much that `needed_bytes` are free, unless others take them. By one at a time, so that no more is locked than the budget
    /// has: what is in use, and what is needed, have their room in it.
    fn grow(&self, needed_bytes: u64) -> Result<(), DeviceError> {
        let state = self.shared.state();
        let missing = needed_bytes.saturating_sub(state.ranges.free_bytes());
        let bytes = missing.max(self.block_bytes(&state));
        drop(state);
        if missing == 0 {
            return Ok(());
        }
        let block = Block::lock(&self.shared.device, bytes)?;
        let mut state = self.shared.state();
        state.ranges.add(block.address(), block.bytes());
        state.blocks.push(block);
        Ok(())
    }

    /// Reserves and allocates.
    ///
    /// # Errors
    /// [`DeviceError::OutOfBudget`] and [`DeviceError::OutOfMemory`].
    pub fn try_allocate(&self, bytes: u64) -> Result<PinnedBuffer, DeviceError> {
        self.allocate(bytes, self.try_reserve(bytes)?)
    }

    /// What the next block has, unless more is needed: no more than the budget has left for blocks.
    fn block_bytes(&self, state: &State) -> u64 {
        let locked: u64 = state.blocks.iter().map(Block::bytes).sum();
        let left = self.shared.budget.limit_bytes().saturating_sub(locked);
        BLOCK_BYTES.min(left)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that holds this lock can leave it half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Unlocking wants a context, and that is let go of with the device.
        if let Err(error) = self.device.enter() {
            tracing::debug!(%error, "pinned memory is freed without a device");
        }
        self.state().blocks.clear();
    }
}

impl PinnedBuffer {
    /// Bytes that were asked for.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Its pieces in order, as address and length; the last may be longer than what is used of it. All but that are whole pages.
    pub(super) fn pieces(&self) -> impl Iterator<Item = (u64, u64)> {
        self.pieces.iter().map(|piece| (piece.start, piece.bytes))
    }

    /// Its pieces as bytes, whole pages. For whoever knows that nothing writes them: it holds the buffer, and what wrote it has ended.
    pub(super) fn page_slices(&self) -> Vec<&[u8]> {
        let slice = |piece: &Range| {
            let start = std::ptr::with_exposed_provenance::<u8>(piece.start as usize);
            // SAFETY: the piece is of a block that lives as long as the pool, which we hold, and is initialized: `lock`
            // cleared the block.
            unsafe { std::slice::from_raw_parts(start, piece.bytes as usize) }
        };
        self.pieces.iter().map(slice).collect()
    }

    /// Its bytes without what is behind them in the last page. As for [`PinnedBuffer::page_slices`].
    pub(super) fn used_slices(&self) -> Vec<&[u8]> {
        let mut left = self.bytes as usize;
        let used = |slice: &'_ [u8]| {
            let used = slice.len().min(left);
            left -= used;
            used
        };
        let slices = self.page_slices();
        let lengths: Vec<usize> = slices.iter().copied().map(used).collect();
        let cut = slices.into_iter().zip(lengths);
        cut.map(|(slice, used)| &slice[..used]).collect()
    }

    /// Its bytes, where they are one piece. As for [`PinnedBuffer::page_slices`].
    pub(crate) fn as_one_slice(&self) -> Option<&[u8]> {
        let slices = self.page_slices();
        match slices.as_slice() {
            [] => Some(&[]),
            [one] => one.get(..self.bytes as usize),
            _ => None,
        }
    }

    /// The same, to be written.
    pub(crate) fn as_one_slice_mut(&mut self) -> Option<&mut [u8]> {
        let bytes = self.bytes as usize;
        let mut slices = self.page_slices_mut();
        match slices.len() {
            0 => Some(&mut []),
            1 => slices.pop()?.get_mut(..bytes),
            _ => None,
        }
    }

    /// A copy of its bytes. As for [`PinnedBuffer::page_slices`].
    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = self.page_slices().concat();
        bytes.truncate(self.bytes as usize);
        bytes
    }

    /// Copies its bytes to ordinary memory of the same size.
    pub(super) fn copy_to(&self, mut to: HostBuffer) -> Result<HostBuffer, DeviceError> {
        let mut left = to.as_mut_slice();
        if left.len() as u64 != self.bytes {
            return Err(DeviceError::Sizes {
                from_bytes: self.bytes,
                to_bytes: left.len() as u64,
            });
        }
        for piece in self.page_slices() {
            let (now, later) = left.split_at_mut(piece.len().min(left.len()));
            now.copy_from_slice(&piece[..now.len()]);
            left = later;
        }
        Ok(to)
    }

    /// The same, to be written.
    pub(super) fn page_slices_mut(&mut self) -> Vec<&mut [u8]> {
        let slice = |piece: &Range| {
            let start = std::ptr::with_exposed_provenance_mut::<u8>(piece.start as usize);
            // SAFETY: as for `page_slices`; pieces do not overlap, and nobody else has this buffer.
            unsafe { std::slice::from_raw_parts_mut(start, piece.bytes as usize) }
        };
        self.pieces.iter().map(slice).collect()
    }
}

impl Drop for PinnedBuffer {
    fn drop(&mut self) {
        let mut state = self.pool.state();
        for piece in self.pieces.drain(..) {
            state.ranges.free(piece);
        }
    }
}

impl fmt::Debug for PinnedPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PinnedPool({:?})", self.shared.budget)
    }
}

impl fmt::Debug for PinnedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "PinnedBuffer({} B in {} pieces)",
            self.bytes,
            self.pieces.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::emulated;

    const MIB: u64 = 1 << 20;

    #[test]
    fn while_memory_is_locked_other_buffers_come_and_go() {
        let pool = PinnedPool::new(&emulated::device(), 128 * MIB);
        let small = pool.try_allocate(MIB).expect("room");
        let growing = pool.shared.growing.lock().expect("nobody panicked");
        let of_thread = pool.clone();
        let waiting = std::thread::spawn(move || of_thread.try_allocate(100 * MIB).map(drop));
        while pool.budget().used_bytes() < 101 * MIB {
            std::thread::yield_now();
        }
        // A hang, where any of these waits.
        drop(small);
        drop(pool.try_allocate(MIB).expect("locked already"));
        drop(growing);
        waiting.join().expect("no panic").expect("room");
        let locked: u64 = pool.shared.state().blocks.iter().map(Block::bytes).sum();
        assert!(locked <= 128 * MIB, "{locked} B are locked");
    }

    #[test]
    fn those_who_lock_memory_at_once_lock_no_more_than_the_budget_has() {
        let pool = PinnedPool::new(&emulated::device(), 96 * MIB);
        std::thread::scope(|scope| {
            for thread in 1..=4 {
                let pool = &pool;
                scope.spawn(move || {
                    for _ in 0..50 {
                        // Where there is room, there is memory.
                        if let Ok(room) = pool.try_reserve(thread * 11 * MIB) {
                            drop(pool.allocate(thread * 11 * MIB, room).expect("memory"));
                        }
                    }
                });
            }
        });
        let locked: u64 = pool.shared.state().blocks.iter().map(Block::bytes).sum();
        assert!(locked <= 96 * MIB, "{locked} B are locked");
    }
}
