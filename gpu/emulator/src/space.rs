//! Addresses of device memory: a range that the host may not touch, and beside it the same range where the emulator reads and
//! writes.
//!
//! Used by `backing`. A program that follows a device pointer on the host dies of SIGSEGV, as it does with a GPU: unified
//! addresses of device memory are not accessible from the host (CUDA Driver API, 6.27 Unified Addressing).

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Mutex;

use crate::call::lock;
use crate::machine::BLOCK_BYTES;

/// Addresses there are, for memory of all devices, opened memory and reservations.
pub(crate) const BYTES: u64 = 256 << 30;

/// The addresses of this process.
#[derive(Debug)]
pub(crate) struct Space {
    start: u64,
    /// What is added to a device address to get the host's of the same bytes.
    to_host: u64,
    /// The same for the bytes that say of each whether it was written, where that is known.
    to_written: Option<u64>,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    /// Start and length of what is taken.
    ranges: BTreeMap<u64, u64>,
    /// Where to look next. Addresses come again late, so that a stale pointer points to nothing.
    cursor: u64,
}

/// A reservation of addresses that nobody may touch.
fn reserve() -> io::Result<u64> {
    // SAFETY: a fresh mapping without access, at an address of the kernel's choice, disturbs nothing.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            (BYTES + BLOCK_BYTES) as usize,
            libc::PROT_NONE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok((address.expose_provenance() as u64).next_multiple_of(BLOCK_BYTES))
}

impl Space {
    /// Reserves all ranges.
    pub(crate) fn new(tracks_writes: bool) -> io::Result<Self> {
        let (start, host) = (reserve()?, reserve()?);
        let to_written = if tracks_writes {
            Some(reserve()?.wrapping_sub(start))
        } else {
            None
        };
        Ok(Self {
            start,
            to_host: host.wrapping_sub(start),
            to_written,
            used: Mutex::new(Used {
                cursor: start,
                ..Used::default()
            }),
        })
    }

    /// Whether `address` is one of device memory, taken or not.
    pub(crate) fn has(&self, address: u64) -> bool {
        (self.start..self.start + BYTES).contains(&address)
    }

    /// Where the emulator finds the bytes of a device address.
    pub(crate) fn host(&self, address: u64) -> u64 {
        address.wrapping_add(self.to_host)
    }

    /// Where it is noted of a device address and those behind it whether they were written; `None` where nobody keeps it.
    pub(crate) fn written(&self, address: u64) -> Option<u64> {
        self.to_written.map(|offset| address.wrapping_add(offset))
    }

    /// Takes `bytes`, a multiple of a block, with at least a block that stays empty behind them: an overrun then hits nothing.
    pub(crate) fn take(&self, bytes: u64) -> Option<u64> {
        let mut used = lock(&self.used);
        let fits = |from: u64| used.gap(from, self.start + BYTES, bytes.checked_add(BLOCK_BYTES)?);
        let found = fits(used.cursor).or_else(|| fits(self.start))?;
        used.ranges.insert(found, bytes);
        used.cursor = found + bytes + BLOCK_BYTES;
        Some(found)
    }

    /// Gives back what `take` gave.
    pub(crate) fn give_back(&self, start: u64) {
        lock(&self.used).ranges.remove(&start);
    }

    /// Lets the emulator read and write `blocks` of `file` at `address`, one after the other. What was written is noted in the
    /// same file, `device_bytes` further on.
    pub(crate) fn map(
        &self,
        address: u64,
        file: &std::fs::File,
        blocks: &[usize],
        device_bytes: u64,
    ) -> io::Result<()> {
        map_at(self.host(address), file, blocks, 0)?;
        self.written(address)
            .map_or(Ok(()), |at| map_at(at, file, blocks, device_bytes))
    }

    /// Undoes `map`.
    pub(crate) fn unmap(&self, address: u64, bytes: u64) {
        for at in [Some(self.host(address)), self.written(address)]
            .into_iter()
            .flatten()
        {
            // SAFETY: the range lies in our own reservation, and whoever maps it holds its view until nothing uses it.
            unsafe {
                libc::mmap(
                    std::ptr::with_exposed_provenance_mut(at as usize),
                    bytes as usize,
                    libc::PROT_NONE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED,
                    -1,
                    0,
                )
            };
        }
    }
}

/// Maps `blocks` of `file`, each `further` bytes behind where it lies, one after the other from `at` on.
fn map_at(mut at: u64, file: &std::fs::File, blocks: &[usize], further: u64) -> io::Result<()> {
    for row in blocks.chunk_by(|first, second| first + 1 == *second) {
        let bytes = row.len() as u64 * BLOCK_BYTES;
        let offset = further + row.first().map_or(0, |block| *block as u64 * BLOCK_BYTES);
        // SAFETY: the range lies in our own reservation and was taken for these blocks; the file is long enough.
        let mapped = unsafe {
            libc::mmap(
                std::ptr::with_exposed_provenance_mut(at as usize),
                bytes as usize,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_FIXED,
                file.as_raw_fd(),
                offset as i64,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        at += bytes;
    }
    Ok(())
}

impl Used {
    /// The first gap of `bytes` that starts at `from` or behind it and ends before `end`.
    fn gap(&self, from: u64, end: u64, bytes: u64) -> Option<u64> {
        let before = self
            .ranges
            .range(..from)
            .next_back()
            .map_or(from, |(start, length)| start + length + BLOCK_BYTES);
        let mut start = from.max(before);
        for (taken, length) in self.ranges.range(start..) {
            if taken - start >= bytes {
                break;
            }
            start = taken + length + BLOCK_BYTES;
        }
        (start.checked_add(bytes)? <= end).then_some(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_with_gaps_and_come_again_late() {
        let space = Space::new(false).expect("addresses");
        let first = space.take(BLOCK_BYTES).expect("first");
        let second = space.take(BLOCK_BYTES).expect("second");
        assert!(second >= first + 2 * BLOCK_BYTES);
        space.give_back(first);
        assert!(space.take(BLOCK_BYTES).expect("third") > second);
        assert!(space.take(BYTES).is_none());
        assert!(space.take(u64::MAX - 5).is_none());
    }

    #[test]
    fn a_gap_between_two_is_found_when_the_end_is_reached() {
        let mut used = Used::default();
        used.ranges.insert(0, BLOCK_BYTES);
        used.ranges.insert(8 * BLOCK_BYTES, BLOCK_BYTES);
        assert_eq!(
            used.gap(0, 20 * BLOCK_BYTES, 3 * BLOCK_BYTES),
            Some(2 * BLOCK_BYTES)
        );
        assert_eq!(
            used.gap(0, 20 * BLOCK_BYTES, 7 * BLOCK_BYTES),
            Some(10 * BLOCK_BYTES)
        );
    }
}
