//! Device memory that goes to files and comes back without memory of the host in between: GPUDirect Storage, where the machine has it. Called
//! by moves to disk and back; which these are is decided elsewhere.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::compute::{Kernels, Learn};
use super::cufile::{Library, Part, Wrong};
use super::error::DeviceError;
use super::memory::{DeviceBuffer, DeviceMemory, GRANULE_BYTES};
use super::ranges::rounded;
use crate::SpillDirectory;
use crate::kernels::{Address, Checksum};

/// What disks and device memory move directly.
pub(super) struct DirectStorage {
    library: &'static Library,
    memory: DeviceMemory,
    /// Start and length of what disks reach themselves.
    slabs: Vec<(u64, u64)>,
    /// On a stream of their own.
    kernels: Kernels,
    /// Where checksums are made, one after another.
    sum: Arc<DeviceBuffer>,
    /// That it failed was told.
    is_told: AtomicBool,
}

impl DirectStorage {
    /// For this memory and files in this directory, if a page of it goes to a file there and comes back. Blocks.
    ///
    /// # Errors
    /// Why there is no such thing here, in words.
    pub(super) fn open(
        memory: &DeviceMemory,
        kernels: &Kernels,
        directory: &SpillDirectory,
    ) -> Result<Self, String> {
        let told = |error: DeviceError| error.to_string();
        memory.device().enter().map_err(told)?;
        let library = Library::of_process()?;
        let mut storage = Self {
            library,
            memory: memory.clone(),
            slabs: Vec::new(),
            kernels: kernels.on_a_stream_of_its_own("checksum").map_err(told)?,
            sum: Arc::new(memory.try_allocate(size_of::<u64>() as u64).map_err(told)?),
            is_told: AtomicBool::new(false),
        };
        storage.register_slabs();
        storage.try_out(directory).map_err(|wrong| {
            let path = directory.path().display();
            format!("{wrong}, for files in {path}")
        })?;
        Ok(storage)
    }

    /// Where that is refused, the library copies within the device, which is slower.
    fn register_slabs(&mut self) {
        for (address, bytes) in self.memory.slabs() {
            // SAFETY: the memory lives as long as `self`, which deregisters it first.
            match unsafe { self.library.register_memory(address, bytes) } {
                Ok(()) => self.slabs.push((address, bytes)),
                Err(wrong) => {
                    tracing::debug!(%wrong, bytes, "disks do not reach device memory themselves")
                }
            }
        }
    }

    /// Whether a file system or disk can do it shows when it does.
    fn try_out(&self, directory: &SpillDirectory) -> Result<(), Wrong> {
        let file = directory.new_file("direct");
        self.write(&self.sum, file.path())?;
        let read = self.read(&self.sum, file.path())?;
        if read == self.bytes_in_file(&self.sum) {
            return Ok(());
        }
        Err(Wrong::System(io::ErrorKind::UnexpectedEof.into()))
    }

    /// Of nvidia-fs.
    pub(super) fn version(&self) -> (u32, u32) {
        self.library.version()
    }

    /// What a buffer takes in a file: pages.
    pub(super) fn bytes_in_file(&self, buffer: &DeviceBuffer) -> u64 {
        rounded(buffer.bytes(), GRANULE_BYTES)
    }

    /// Writes a buffer, which nobody writes, to a file that is new. Blocks.
    pub(super) fn write(&self, from: &DeviceBuffer, path: &FilePath) -> Result<(), Wrong> {
        let file = self.opened(path, true)?;
        let registered = self.library.register(&file)?;
        let part = self.part(from);
        // SAFETY: buffers are pages, and whoever has filled this one has ended.
        let written = unsafe { registered.write(part) }?;
        if written < part.bytes {
            return Err(Wrong::System(io::ErrorKind::WriteZero.into()));
        }
        Ok(())
    }

    /// Reads a file into a buffer that nobody else uses, and says how much there was. Blocks.
    pub(super) fn read(&self, to: &DeviceBuffer, path: &FilePath) -> Result<u64, Wrong> {
        let file = self.opened(path, false)?;
        let registered = self.library.register(&file)?;
        // SAFETY: buffers are pages; nobody uses this one, says the caller.
        unsafe { registered.read(self.part(to)) }
    }

    fn opened(&self, path: &FilePath, is_new: bool) -> Result<File, Wrong> {
        // What is current is a thread's own.
        let entered = self.memory.device().enter();
        entered.map_err(|error| Wrong::System(io::Error::other(error)))?;
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(is_new);
        let opened = options.custom_flags(libc::O_DIRECT).open(path);
        opened.map_err(Wrong::System)
    }

    /// All pages of a buffer, as the library knows them.
    fn part(&self, buffer: &DeviceBuffer) -> Part {
        let (address, bytes) = (buffer.address(), self.bytes_in_file(buffer));
        let mut slabs = self.slabs.iter();
        let slab = slabs.find(|(start, bytes)| (*start..start + bytes).contains(&address));
        let base = slab.map_or(address, |(start, _)| *start);
        Part {
            base,
            offset: address - base,
            bytes,
        }
    }

    /// The checksum of a buffer's bytes, made on the device: all that crosses to the host is the sum.
    pub(super) async fn checksum(&self, buffer: Arc<DeviceBuffer>) -> Result<u64, DeviceError> {
        let checksum = Checksum {
            input: Address(buffer.address()),
            bytes: buffer.bytes(),
            sum: Address(self.sum.address()),
        };
        let learn = Learn {
            from: checksum.sum,
            bytes: size_of::<u64>() as u64,
        };
        let keep = (buffer, Arc::clone(&self.sum));
        // SAFETY: both are kept; nobody writes the buffer, and the sum is written and read in the order of one stream.
        let made = unsafe {
            self.kernels
                .run(keep, vec![Box::new(checksum)], Some(learn))
        };
        let (_, learnt) = made.await?;
        let learnt = learnt.as_slice().try_into();
        Ok(learnt.map_or(0, u64::from_le_bytes))
    }

    /// Says that something goes by way of the host that should not: the first time aloud.
    pub(super) fn tell(&self, wrong: &Wrong, path: &FilePath) {
        if self.is_told.swap(true, Ordering::Relaxed) {
            tracing::debug!(%wrong, path = %path.display(), "through the host instead of directly");
        } else {
            tracing::warn!(%wrong, path = %path.display(), "device memory goes through the host instead of directly, as it should");
        }
    }
}

impl Drop for DirectStorage {
    fn drop(&mut self) {
        if self.memory.device().enter().is_err() {
            return;
        }
        for (address, _) in &self.slabs {
            if let Err(wrong) = self.library.deregister_memory(*address) {
                tracing::debug!(%wrong, "device memory stays within the reach of disks");
            }
        }
    }
}

impl fmt::Debug for DirectStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = self.version();
        write!(f, "DirectStorage(nvidia-fs {major}.{minor})")
    }
}
