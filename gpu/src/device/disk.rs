//! Page-locked and device memory in files, and back: past the page cache where the file system can do that. Called by moves between tiers;
//! blocks.
//!
//! A file has the pages of one buffer and nothing else, and is of use to the process that wrote it alone: that keeps its checksum, which is
//! of the buffer without what is behind it in the last page, and the same whichever way it was written and is read.
//! Removing one may take long, and is done by the thread that writes.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path as FilePath, PathBuf};

use super::cufile::Wrong;
use super::direct::DirectStorage;
use super::error::DeviceError;
use super::jobs::Jobs;
use super::memory::DeviceBuffer;
use super::pinned::PinnedBuffer;
use super::traffic::{Path, Traffic};
use crate::kernels::checksum_of;
use crate::spill::SpillFile;

/// What was page-locked or device memory, on disk. Its file is removed soon after this is dropped.
#[derive(Debug)]
pub(super) struct DiskBuffer {
    path: PathBuf,
    checksum: u64,
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
            checksum: checksum_of(buffer.used_slices()),
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
            io::ErrorKind::UnexpectedEof => too_short(path),
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
        self.check(checksum_of(buffer.used_slices()))
    }

    /// Writes `buffer`, whose checksum this is, to `file`, past the host; `None` where that cannot be done and the host may.
    pub(super) fn write_directly(
        (buffer, checksum): (&DeviceBuffer, u64),
        mut file: SpillFile,
        storage: &DirectStorage,
        removals: Jobs,
    ) -> Result<Option<Self>, DeviceError> {
        if let Err(wrong) = storage.write(buffer, file.path()) {
            return not_directly(storage, "write", WRITING, file.path(), wrong);
        }
        let file_bytes = storage.bytes_in_file(buffer);
        file.set_bytes(file_bytes);
        buffer
            .device()
            .traffic()
            .add(Path::DeviceToDisk, file_bytes);
        Ok(Some(Self {
            path: file.path().to_owned(),
            checksum,
            file: Some(file),
            removals,
        }))
    }

    /// Reads it back into device memory as long as what was written, past the host; `None` where that cannot be done and the host may. The
    /// caller makes the checksum of it.
    pub(super) fn read_directly(
        &self,
        buffer: DeviceBuffer,
        storage: &DirectStorage,
    ) -> Result<Option<DeviceBuffer>, DeviceError> {
        let path = self.path.as_path();
        let read = match storage.read(&buffer, path) {
            Ok(read) => read,
            Err(wrong) => return not_directly(storage, "read", READING, path, wrong),
        };
        let file_bytes = storage.bytes_in_file(&buffer);
        if read < file_bytes {
            return Err(too_short(path));
        }
        buffer
            .device()
            .traffic()
            .add(Path::DiskToDevice, file_bytes);
        Ok(Some(buffer))
    }

    /// What was read has this checksum.
    pub(super) fn check(&self, actual: u64) -> Result<(), DeviceError> {
        let expected = self.checksum;
        if actual == expected {
            return Ok(());
        }
        Err(corrupt(
            &self.path,
            format!("its checksum is {actual:016x}, and was {expected:016x} when it was written"),
        ))
    }
}

/// Whether the host is to do what could not be done directly: where the disk is full or the file gone, it could not either.
fn not_directly<T>(
    storage: &DirectStorage,
    verb: &'static str,
    remedy: &'static str,
    path: &FilePath,
    wrong: Wrong,
) -> Result<Option<T>, DeviceError> {
    if let Wrong::System(error) = &wrong {
        use io::ErrorKind::{FileTooLarge, NotFound, QuotaExceeded, StorageFull};
        if matches!(
            error.kind(),
            StorageFull | QuotaExceeded | FileTooLarge | NotFound
        ) {
            return Err(failed(verb, remedy, path, error));
        }
    }
    storage.tell(&wrong, path);
    Ok(None)
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

/// What helps where a file cannot be written.
const WRITING: &str = "free space there, or choose a spill directory on another disk";
/// What helps where one cannot be read.
const READING: &str = "check the disk, and that nobody else removes files there";

fn too_short(path: &FilePath) -> DeviceError {
    corrupt(path, "it ends before all was read".to_owned())
}

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
