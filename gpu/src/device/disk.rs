//! Page-locked memory in files, and back: past the page cache where the file system can do that. Called by moves between tiers; blocks.
//!
//! A file has the pages of one buffer and nothing else, and is of use to the process that wrote it alone: that keeps its checksum.
//! Removing one may take long, and is done by the thread that writes.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path as FilePath, PathBuf};

use super::error::DeviceError;
use super::jobs::Jobs;
use super::pinned::PinnedBuffer;
use super::traffic::{Path, Traffic};
use crate::spill::SpillFile;

/// What was page-locked memory, on disk. Its file is removed soon after this is dropped.
#[derive(Debug)]
pub(super) struct DiskBuffer {
    path: PathBuf,
    checksum: u32,
    /// Until this is dropped.
    file: Option<SpillFile>,
    removals: Jobs,
}

impl DiskBuffer {
    /// Writes `buffer` to `file`, which is new, and which `removals` will remove.
    pub(super) fn write(
        buffer: &PinnedBuffer,
        mut file: SpillFile,
        traffic: &Traffic,
        removals: Jobs,
    ) -> Result<Self, DeviceError> {
        let slices = buffer.page_slices();
        let options = OpenOptions::new().write(true).create(true).clone();
        let written = past_the_cache(&options, file.path(), |opened| {
            let mut at = 0;
            for slice in &slices {
                opened.write_all_at(slice, at)?;
                at += slice.len() as u64;
            }
            Ok(at)
        });
        let (file_bytes, direct) =
            written.map_err(|error| failed("write", WRITING, file.path(), &error))?;
        file.set_bytes(file_bytes);
        traffic.add(
            if direct {
                Path::PinnedToDisk
            } else {
                Path::PinnedToDiskCached
            },
            file_bytes,
        );
        Ok(Self {
            path: file.path().to_owned(),
            checksum: checksum(&slices),
            file: Some(file),
            removals,
        })
    }

    /// Reads it back into `buffer`, which is as long as the one that was written. Its pieces may be others.
    pub(super) fn read(
        &self,
        buffer: &mut PinnedBuffer,
        traffic: &Traffic,
    ) -> Result<(), DeviceError> {
        let path = self.path.as_path();
        let mut slices = buffer.page_slices_mut();
        let options = OpenOptions::new().read(true).clone();
        let read = past_the_cache(&options, path, |opened| {
            let mut at = 0;
            for slice in &mut slices {
                opened.read_exact_at(slice, at)?;
                at += slice.len() as u64;
            }
            Ok(at)
        });
        let (file_bytes, direct) = read.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => corrupt(path, "it ends before all was read".to_owned()),
            _ => failed("read", READING, path, &error),
        })?;
        traffic.add(
            if direct {
                Path::DiskToPinned
            } else {
                Path::DiskToPinnedCached
            },
            file_bytes,
        );
        let actual = checksum(&buffer.page_slices());
        if actual != self.checksum {
            let expected = self.checksum;
            return Err(corrupt(
                path,
                format!("its checksum is {actual:08x}, and was {expected:08x} when it was written"),
            ));
        }
        Ok(())
    }
}

impl Drop for DiskBuffer {
    fn drop(&mut self) {
        let file = self.file.take();
        self.removals.send(move || drop(file));
    }
}

/// Carries out `transfer` on the file opened with `O_DIRECT`, and where the file system refuses that, once more without; and whether it was
/// with.
fn past_the_cache<T>(
    options: &OpenOptions,
    path: &FilePath,
    mut transfer: impl FnMut(&File) -> io::Result<T>,
) -> io::Result<(T, bool)> {
    let direct = options
        .clone()
        .custom_flags(libc::O_DIRECT)
        .open(path)
        .and_then(|file| transfer(&file));
    match direct {
        Ok(value) => Ok((value, true)),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            let file = options.open(path)?;
            Ok((transfer(&file)?, false))
        }
        Err(error) => Err(error),
    }
}

fn checksum(slices: &[&[u8]]) -> u32 {
    let mut checksum = crc32fast::Hasher::new();
    for slice in slices {
        checksum.update(slice);
    }
    checksum.finalize()
}

/// What helps where a file cannot be written.
const WRITING: &str = "free space there, or choose a spill directory on another disk";
/// What helps where one cannot be read.
const READING: &str = "check the disk, and that nobody else removes files there";

fn corrupt(path: &FilePath, reason: String) -> DeviceError {
    DeviceError::Corrupt {
        path: path.to_owned(),
        reason,
    }
}

fn failed(
    verb: &'static str,
    remedy: &'static str,
    path: &FilePath,
    error: &io::Error,
) -> DeviceError {
    DeviceError::Disk {
        verb,
        remedy,
        path: path.to_owned(),
        kind: error.kind(),
        reason: error.to_string(),
    }
}
