//! Host memory that is used again: what large buffers leave behind is kept for the next of about their size. Called by
//! [`crate::HostBuffer`] alone; knows neither budgets nor contents.
//!
//! The first write to a new page costs more than receiving into it does: of 64 MiB partitions over TCP that are dropped as they
//! arrive, reused memory takes in three times as many in a second, for 0.4 of the CPU time. Whether pages are huge is left to the
//! allocator: of huge ones each reuse saved less than 0.1 ns per byte, and their first touch cost 2.3 ns where small ones cost 0.5
//! (measured on a virtual machine).

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::ALIGNMENT_BYTES;

/// Smaller buffers are the allocator's. From a few pages on it returns what was freed to the operating system, and clears what it did not.
const LEAST_BYTES: usize = 16 << 10;
/// Most that is kept idle. No budget pays for it: it comes on top of all of them, and so is modest.
pub(crate) const MOST_IDLE_BYTES: usize = 256 << 20;
/// Sizes between two powers of two. A buffer occupies less than this part more than was asked for.
const STEPS: usize = 8;
/// Room for the shift to the first aligned byte, beyond the size that counts: sizes are most often powers of two.
const SHIFT_BYTES: usize = ALIGNMENT_BYTES - 1;

/// The process's own.
pub(crate) static POOL: Pool = Pool::new(MOST_IDLE_BYTES);

/// Idle memory, up to a limit.
#[derive(Debug)]
pub(crate) struct Pool {
    idle: Mutex<Idle>,
    most_bytes: usize,
}

#[derive(Debug)]
struct Idle {
    /// By class, in the order in which they came back, each with its number in the order of all. No class is empty.
    storages: BTreeMap<usize, VecDeque<(u64, Vec<u8>)>>,
    bytes: usize,
    /// How many ever came back.
    returns: u64,
}

impl Idle {
    /// The one of this class that came back last.
    fn take_latest(&mut self, class_bytes: usize) -> Option<Vec<u8>> {
        let same = self.storages.get_mut(&class_bytes)?;
        let (_, storage) = same.pop_back()?;
        self.remove_if_empty(class_bytes);
        self.bytes -= class_bytes;
        Some(storage)
    }

    /// The one of any class that came back first.
    fn take_oldest(&mut self) -> Option<Vec<u8>> {
        let number = |same: &VecDeque<(u64, Vec<u8>)>| same.front().map(|(number, _)| *number);
        let oldest = self.storages.iter_mut().min_by_key(|(_, it)| number(it))?;
        let (&class_bytes, same) = oldest;
        let (_, storage) = same.pop_front()?;
        self.remove_if_empty(class_bytes);
        self.bytes -= class_bytes;
        Some(storage)
    }

    fn put(&mut self, class_bytes: usize, storage: Vec<u8>) {
        self.returns += 1;
        self.bytes += class_bytes;
        let same = self.storages.entry(class_bytes).or_default();
        same.push_back((self.returns, storage));
    }

    fn remove_if_empty(&mut self, class_bytes: usize) {
        if self
            .storages
            .get(&class_bytes)
            .is_some_and(VecDeque::is_empty)
        {
            self.storages.remove(&class_bytes);
        }
    }
}

impl Pool {
    const fn new(most_bytes: usize) -> Self {
        let idle = Idle {
            storages: BTreeMap::new(),
            bytes: 0,
            returns: 0,
        };
        Self {
            idle: Mutex::new(idle),
            most_bytes,
        }
    }

    /// At least `bytes` of memory from its first aligned byte on, with whatever its last user wrote. The most recently used
    /// comes first: it may still be in a cache.
    pub(crate) fn take(&self, bytes: usize) -> Vec<u8> {
        let Some(class_bytes) = self.class(bytes) else {
            return vec![0; bytes.saturating_add(SHIFT_BYTES)];
        };
        let recycled = self.idle().take_latest(class_bytes);
        // Comes zeroed from the operating system, untouched.
        recycled.unwrap_or_else(|| vec![0; class_bytes + SHIFT_BYTES])
    }

    /// Keeps the memory for the next, and frees what has been idle longest where that is too much.
    pub(crate) fn give_back(&self, storage: Vec<u8>) {
        let class_bytes = class_of(&storage);
        if self.class(class_bytes) != Some(class_bytes) {
            return;
        }
        let mut freed = Vec::new();
        let mut idle = self.idle();
        idle.put(class_bytes, storage);
        while idle.bytes > self.most_bytes
            && let Some(oldest) = idle.take_oldest()
        {
            freed.push(oldest);
        }
        // Outside the lock: unmapping takes its time.
        drop(idle);
        drop(freed);
    }

    /// What is allocated for so many bytes: `None` where it is not kept.
    fn class(&self, bytes: usize) -> Option<usize> {
        if !(LEAST_BYTES..=self.most_bytes).contains(&bytes) {
            return None;
        }
        let step = bytes.next_power_of_two() / 2 / STEPS;
        let class_bytes = bytes.next_multiple_of(step);
        (class_bytes <= self.most_bytes).then_some(class_bytes)
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        // Nothing that holds this lock can leave its count wrong.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn class_of(storage: &[u8]) -> usize {
    storage.len().saturating_sub(SHIFT_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn memory_that_came_back_is_taken_again_as_it_was_left() {
        let pool = Pool::new(64 * MIB);
        let mut storage = pool.take(MIB + 5);
        storage[7] = 9;
        let address = storage.as_ptr();
        pool.give_back(storage);
        let again = pool.take(MIB + 100);
        assert_eq!((again.as_ptr(), again[7]), (address, 9));
        let other = pool.take(MIB + 100);
        assert_ne!(other.as_ptr(), address, "it is taken");
    }

    #[test]
    fn no_more_than_an_eighth_is_wasted() {
        let pool = Pool::new(usize::MAX);
        for power in 14..40 {
            for bytes in [
                1_usize << power,
                (1 << power) + 1,
                (3 << (power - 1)) - 1,
                (2 << power) - 1,
            ] {
                let class_bytes = pool.class(bytes).expect("large enough");
                assert!(class_bytes >= bytes, "{bytes}");
                assert!(class_bytes - bytes < bytes / STEPS + 1, "{bytes}");
                assert_eq!(pool.class(class_bytes), Some(class_bytes), "{bytes}");
            }
        }
    }

    #[test]
    fn what_has_been_idle_longest_is_freed_first_and_the_limit_holds() {
        let pool = Pool::new(8 * MIB);
        let taken: Vec<_> = [4, 2, 3].map(|mib| pool.take(mib * MIB)).into();
        for storage in taken {
            pool.give_back(storage);
        }
        let kept = |pool: &Pool| {
            let idle = pool.idle();
            let all = idle.storages.values().flatten();
            let sizes: Vec<_> = all.map(|(_, it)| class_of(it) / MIB).collect();
            assert_eq!(idle.bytes, sizes.iter().sum::<usize>() * MIB);
            sizes
        };
        assert_eq!(kept(&pool), [2, 3], "the first made room for the last");
        drop(pool.take(2 * MIB));
        assert_eq!(kept(&pool), [3]);
    }

    #[test]
    fn what_is_small_or_larger_than_all_that_is_kept_is_of_the_asked_size_and_not_kept() {
        let pool = Pool::new(8 * MIB);
        for bytes in [0, 1, LEAST_BYTES - 1, 8 * MIB + 1] {
            let storage = pool.take(bytes);
            assert_eq!(class_of(&storage), bytes);
            pool.give_back(storage);
        }
        assert!(pool.idle().storages.is_empty());
    }
}
