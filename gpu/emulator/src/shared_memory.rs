//! The memory of one device as all processes share it: a file with its bytes, and who holds which block.
//!
//! Used by `machine`, which sees to it that one process at a time is here. Knows processes by their number alone.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::machine::BLOCK_BYTES;
use crate::mapped::{Words, open};

/// Memory of one device.
#[derive(Debug)]
pub(crate) struct SharedMemory {
    /// One word for each block: the processes that hold it; then one word for the most blocks ever held.
    words: Words,
    /// The bytes, and behind them, where that is kept, one for each that says whether it was written.
    file: File,
    bytes: u64,
    tracks_writes: bool,
}

/// The file with the words of a device.
pub(crate) fn words_path(folder: &Path, device: usize) -> std::path::PathBuf {
    folder.join(format!("device-{device}.blocks"))
}

impl SharedMemory {
    /// Opens it, or makes it.
    pub(crate) fn open(
        folder: &Path,
        device: usize,
        bytes: u64,
        tracks_writes: bool,
    ) -> io::Result<Self> {
        let file = open(&folder.join(format!("device-{device}.memory")))?;
        let (found, wanted) = (
            file.metadata()?.len(),
            bytes * (1 + u64::from(tracks_writes)),
        );
        if found == 0 {
            file.set_len(wanted)?;
        } else if found != wanted {
            return Err(io::Error::other(format!(
                "the file of device {device} has {found} bytes there and {wanted} are asked: give all processes the same {} and {}",
                crate::settings::MEMORY,
                crate::settings::UNINITIALISED
            )));
        }
        let words = Words::of_file(
            &words_path(folder, device),
            (bytes / BLOCK_BYTES) as usize + 1,
        )?;
        Ok(Self {
            words,
            file,
            bytes,
            tracks_writes,
        })
    }

    /// The file with the bytes.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    fn holders(&self) -> &[AtomicU64] {
        self.words
            .all()
            .split_last()
            .map_or(&[], |(_, blocks)| blocks)
    }

    fn of<'a>(&'a self, blocks: &'a [usize]) -> impl Iterator<Item = (usize, &'a AtomicU64)> {
        blocks
            .iter()
            .filter_map(|block| Some((*block, self.holders().get(*block)?)))
    }

    /// Takes `count` free blocks for a process, in a row where that is possible; `None` where there are too few.
    pub(crate) fn take(&self, process: usize, count: usize) -> Option<Vec<usize>> {
        let words = self.holders().iter().enumerate();
        let free: Vec<usize> = words
            .filter(|(_, word)| word.load(Ordering::SeqCst) == 0)
            .map(|(block, _)| block)
            .collect();
        let is_row = |blocks: &&[usize]| {
            blocks
                .last()
                .zip(blocks.first())
                .is_some_and(|(last, first)| last - first + 1 == count)
        };
        let taken = free
            .windows(count.max(1))
            .find(is_row)
            .or_else(|| free.get(..count))?
            .to_vec();
        self.hold(process, &taken);
        let held = self.holders().len() - free.len() + taken.len();
        if let Some(most) = self.words.all().last() {
            most.fetch_max(held as u64, Ordering::SeqCst);
        }
        Some(taken)
    }

    /// Adds a process to the holders of blocks.
    pub(crate) fn hold(&self, process: usize, blocks: &[usize]) {
        self.of(blocks).for_each(|(_, word)| {
            word.fetch_or(1 << process, Ordering::SeqCst);
        });
    }

    /// Whether somebody holds every one of the blocks.
    pub(crate) fn are_held(&self, blocks: &[usize]) -> bool {
        self.of(blocks)
            .filter(|(_, word)| word.load(Ordering::SeqCst) != 0)
            .count()
            == blocks.len()
    }

    /// Takes a process from the holders of blocks; those that nobody holds then are empty.
    pub(crate) fn leave(&self, process: usize, blocks: &[usize]) {
        for (block, word) in self.of(blocks) {
            if word.fetch_and(!(1 << process), Ordering::SeqCst) == 1 << process {
                self.discard(block);
            }
        }
    }

    /// Takes a process that has died from all blocks.
    pub(crate) fn forget(&self, process: usize) {
        let all: Vec<usize> = (0..self.holders().len()).collect();
        self.leave(process, &all);
    }

    /// Bytes that nobody holds.
    pub(crate) fn free_bytes(&self) -> u64 {
        let free = self
            .holders()
            .iter()
            .filter(|word| word.load(Ordering::SeqCst) == 0)
            .count();
        free as u64 * BLOCK_BYTES
    }

    /// Gives the pages of a block back to the host; its next holder finds zeros.
    fn discard(&self, block: usize) {
        let start = block as u64 * BLOCK_BYTES;
        for offset in [
            Some(start),
            self.tracks_writes.then_some(self.bytes + start),
        ]
        .into_iter()
        .flatten()
        {
            let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            // SAFETY: the file is ours and the range within it; bytes that nobody holds are nobody's.
            unsafe {
                libc::fallocate(
                    self.file.as_raw_fd(),
                    mode,
                    offset as i64,
                    BLOCK_BYTES as i64,
                )
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_free_when_its_last_holder_has_left_it_or_died() {
        let folder = tempfile::tempdir().expect("a folder");
        let memory = SharedMemory::open(folder.path(), 0, 4 * BLOCK_BYTES, true).expect("memory");
        let blocks = memory.take(1, 3).expect("three of four");
        assert_eq!(blocks, [0, 1, 2]);
        assert_eq!(memory.take(1, 2), None);
        memory.hold(2, &[1]);
        memory.leave(1, &[0, 1]);
        assert_eq!(memory.free_bytes(), 2 * BLOCK_BYTES);
        assert_eq!(
            memory.take(3, 2),
            Some(vec![0, 3]),
            "not in a row, as no row is left"
        );
        memory.forget(2);
        assert!(!memory.are_held(&[1]));
        memory.forget(3);
        memory.forget(1);
        assert_eq!(memory.free_bytes(), 4 * BLOCK_BYTES);
    }
}
