//! How many bytes went which way, for events, metrics and the proof that nothing was copied that need not be. Called by whatever moves
//! bytes here.

use std::sync::atomic::{AtomicU64, Ordering};

/// From where to where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Path {
    /// Page-locked host memory to a device.
    PinnedToDevice,
    /// A device to page-locked host memory.
    DeviceToPinned,
    /// Ordinary host memory to a device, which the driver stages.
    PageableToDevice,
    /// A device to ordinary host memory, which the driver stages.
    DeviceToPageable,
    /// Within a device.
    DeviceToDevice,
    /// From another device of this process, by the driver, or of another process, by a transport that is given the device's memory:
    /// whichever way there is.
    PeerToDevice,
    /// Page-locked memory to a file, past the page cache.
    PinnedToDisk,
    /// A file to page-locked memory, past the page cache.
    DiskToPinned,
    /// Page-locked memory to a file through the page cache.
    PinnedToDiskCached,
    /// A file to page-locked memory through the page cache.
    DiskToPinnedCached,
    /// A device to a file, without memory of the host in between.
    DeviceToDisk,
    /// A file to a device, without memory of the host in between.
    DiskToDevice,
}

impl Path {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::PinnedToDevice,
        Self::DeviceToPinned,
        Self::PageableToDevice,
        Self::DeviceToPageable,
        Self::DeviceToDevice,
        Self::PeerToDevice,
        Self::PinnedToDisk,
        Self::DiskToPinned,
        Self::PinnedToDiskCached,
        Self::DiskToPinnedCached,
        Self::DeviceToDisk,
        Self::DiskToDevice,
    ];
}

/// Counts of copies, by path.
#[derive(Debug, Default)]
pub struct Traffic {
    paths: [Count; Path::ALL.len()],
}

#[derive(Debug, Default)]
struct Count {
    copies: AtomicU64,
    bytes: AtomicU64,
}

impl Traffic {
    /// Copies and bytes that went this way so far.
    pub fn over(&self, path: Path) -> (u64, u64) {
        let count = &self.paths[path as usize];
        let copies = count.copies.load(Ordering::Relaxed);
        (copies, count.bytes.load(Ordering::Relaxed))
    }

    /// One copy was handed to whoever carries it out.
    pub fn add(&self, path: Path, bytes: u64) {
        let count = &self.paths[path as usize];
        count.copies.fetch_add(1, Ordering::Relaxed);
        count.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}
