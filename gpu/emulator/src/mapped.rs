//! A file in shared memory, seen as words that several processes change at once.
//!
//! Used by `machine`, `counters` and the harness. Every word is atomic, so that no process can see half of another's.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::AtomicU64;

/// Words of a file, mapped for as long as this lives.
#[derive(Debug)]
pub(crate) struct Words {
    address: *mut AtomicU64,
    count: usize,
}

// SAFETY: the words are atomic and the mapping stays until this is dropped, whichever thread does that.
unsafe impl Send for Words {}
// SAFETY: as above; shared references only reach atomics.
unsafe impl Sync for Words {}

/// Opens a file for reading and writing, made when it is not there, for this user alone.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

/// Opens a file for reading and writing that is there.
pub(crate) fn open_existing(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

impl Words {
    /// The first `count` words of the file at `path`, which grows with zeros where it is shorter.
    pub(crate) fn of_file(path: &Path, count: usize) -> io::Result<Self> {
        let file = open(path)?;
        let bytes = count * size_of::<AtomicU64>();
        if file.metadata()?.len() < bytes as u64 {
            file.set_len(bytes as u64)?;
        }
        // SAFETY: a fresh mapping, at an address of the kernel's choice, of a file that is long enough.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            address: address.cast(),
            count,
        })
    }

    /// All words.
    pub(crate) fn all(&self) -> &[AtomicU64] {
        // SAFETY: the mapping has `count` words, aligned to a page, and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.address, self.count) }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing borrows from it any more.
        unsafe { libc::munmap(self.address.cast(), self.count * size_of::<AtomicU64>()) };
    }
}
