//! The disk tier: partitions written to files of their own and read back. Called on blocking threads by the partition store;
//! which partition goes to disk, and when, is decided in `worker`.

mod directory;
mod file;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use transload_protocol::PartitionId;

use crate::{Budget, HeaderError, HostBuffer, OutOfBudget, Partition, PartitionHeader};

use directory::Directory;

/// A directory of this process's own for spilled partitions, removed with everything in it when this is dropped.
#[derive(Debug)]
pub struct SpillDirectory {
    directory: Directory,
    used_bytes: Arc<AtomicU64>,
    next_file: AtomicU64,
}

/// A partition could not be written. It is unharmed, and nothing of it is left on the disk.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot spill {} B to {}: {source}; free space there, or choose a spill directory on a larger disk",
    partition.bytes(),
    path.display()
)]
pub struct SpillError {
    /// The partition, as it was handed in.
    pub partition: Partition,
    /// The file that could not be written.
    pub path: PathBuf,
    /// What the operating system said; [`io::ErrorKind::StorageFull`] for a full disk.
    pub source: io::Error,
}

/// A spilled partition could not be read back.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file could not be read.
    #[error("cannot read the spilled partition {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is not what was written.
    #[error(
        "the spilled partition {} is corrupt: {reason}; check the disk, or choose another spill directory",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, in words.
        reason: String,
    },
    /// There is no memory to read it into; the file stays as it is.
    #[error(transparent)]
    NoMemory(#[from] OutOfBudget),
}

impl SpillDirectory {
    /// Makes a directory for this process below `parent`, which is made too where it is missing. Directories there whose
    /// processes have died are removed; those of living processes are left alone.
    ///
    /// # Errors
    /// With the path in their text: `parent` cannot be made or written.
    pub fn create(parent: &Path) -> io::Result<Self> {
        Ok(Self {
            directory: Directory::create(parent)?,
            used_bytes: Arc::default(),
            next_file: AtomicU64::new(0),
        })
    }

    /// Removes the directories below `parent` whose processes have died; for whoever started those processes. What cannot be
    /// removed is told to the log.
    pub fn sweep(parent: &Path) {
        directory::sweep(parent);
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Bytes of all files in it.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Acquire)
    }

    /// Writes `partition` to a file of its own. Blocks.
    ///
    /// # Errors
    /// [`SpillError`] gives the partition back unharmed.
    pub fn spill(
        &self,
        id: PartitionId,
        partition: Partition,
    ) -> Result<SpilledPartition, SpillError> {
        let mut file = self.new_file(&format!("{}-{}", id.task, id.output));
        match file::write(file.path(), &partition) {
            Ok(file_bytes) => {
                file.set_bytes(file_bytes);
                Ok(SpilledPartition {
                    file,
                    bytes: partition.bytes(),
                })
            }
            Err(source) => Err(SpillError {
                partition,
                path: file.path().to_owned(),
                source,
            }),
        }
    }

    /// Room for a file of this name and a number of its own, which is not there yet.
    pub(crate) fn new_file(&self, name: &str) -> SpillFile {
        let number = self.next_file.fetch_add(1, Ordering::Relaxed);
        SpillFile {
            path: self.path().join(format!("{name}.{number}.partition")),
            bytes: 0,
            used_bytes: Arc::clone(&self.used_bytes),
        }
    }
}

/// A file in the directory, removed when this is dropped.
#[derive(Debug)]
pub(crate) struct SpillFile {
    path: PathBuf,
    bytes: u64,
    used_bytes: Arc<AtomicU64>,
}

impl SpillFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// It has been written, and is so long.
    pub(crate) fn set_bytes(&mut self, bytes: u64) {
        self.used_bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        self.used_bytes.fetch_add(bytes, Ordering::AcqRel);
        self.bytes = bytes;
    }
}

/// A partition on disk. Its file is removed when this is dropped.
#[derive(Debug)]
pub struct SpilledPartition {
    file: SpillFile,
    bytes: u64,
}

impl SpilledPartition {
    /// [`Partition::bytes`] of the partition that was spilled.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Reads the partition back into memory reserved from `budget`. Blocks. The file stays until this is dropped.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load(&self, budget: &Budget) -> Result<Partition, LoadError> {
        self.load_into(|header| {
            let reservation = budget.try_reserve(
                header
                    .payload_bytes()
                    .saturating_add(header.metadata.0.len() as u64),
            )?;
            Ok(HostBuffer::uncleared(
                header.payload_bytes() as usize,
                reservation,
            ))
        })
    }

    /// Reads the partition back into the memory that `allocate` gives, which must be
    /// [`PartitionHeader::payload_bytes`] long. The header's sizes have been checked against the file. Blocks.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load_into(
        &self,
        allocate: impl FnOnce(&PartitionHeader) -> Result<HostBuffer, OutOfBudget>,
    ) -> Result<Partition, LoadError> {
        file::read(self.path(), allocate).map_err(|failure| match failure {
            file::ReadFailure::Io(source) => LoadError::Read {
                path: self.path().to_owned(),
                source,
            },
            file::ReadFailure::Corrupt(reason) => LoadError::Corrupt {
                path: self.path().to_owned(),
                reason,
            },
            file::ReadFailure::NoMemory(error) => LoadError::NoMemory(error),
        })
    }
}

impl Drop for SpillFile {
    fn drop(&mut self) {
        match std::fs::remove_file(&self.path) {
            Ok(()) => {}
            // It was never written, or its directory went first, and all files with it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "cannot remove a spilled partition");
            }
        }
        self.used_bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

impl From<HeaderError> for file::ReadFailure {
    fn from(error: HeaderError) -> Self {
        Self::Corrupt(error.to_string())
    }
}
