//! Bytes that are on a device, in page-locked memory or on disk, and move between these. Called by stores of device partitions; which buffer
//! moves when is decided elsewhere.
//!
//! A move makes the new place and fills it, and only then is it the buffer's place: whatever fails, and whoever stops waiting, the bytes are
//! where they were. Whoever works on a place holds it, and the memory is free when the last of them lets go. Moves of one buffer take
//! turns, so that no two of them make a place for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::lock::Mutex as AsyncMutex;
use transload_protocol::Tier;

use super::compute::Kernels;
use super::copies::Copies;
use super::direct::DirectStorage;
use super::disk::DiskBuffer;
use super::error::DeviceError;
use super::jobs::Jobs;
use super::memory::{DeviceBuffer, DeviceMemory};
use super::pinned::{Locked, PinnedBuffer, PinnedPool};
use crate::SpillDirectory;

/// Bytes in one of the tiers.
#[derive(Debug)]
pub struct TieredBuffer {
    bytes: u64,
    place: Mutex<Place>,
    /// Held by the one that moves it, and changes its place.
    moving: AsyncMutex<()>,
}

#[derive(Debug, Clone)]
enum Place {
    Device(Arc<DeviceBuffer>),
    Pinned(Arc<PinnedBuffer>),
    Disk(Arc<DiskBuffer>),
}

/// The tiers of one device, and what moves bytes between them. Clones share them.
#[derive(Debug, Clone)]
pub struct Tiers {
    memory: DeviceMemory,
    pinned: PinnedPool,
    copies: Copies,
    directory: Arc<SpillDirectory>,
    /// Where the machine has it and somebody asked for it.
    direct: Option<Arc<DirectStorage>>,
    threads: Threads,
}

/// Threads for what blocks, so that neither kind waits for another.
#[derive(Debug, Clone)]
struct Threads {
    /// Also removes files.
    writes: Jobs,
    reads: Jobs,
    copies: Jobs,
    /// Locks memory.
    locks: Jobs,
}

impl TieredBuffer {
    /// On the device.
    pub fn on_device(buffer: impl Into<Arc<DeviceBuffer>>) -> Self {
        let buffer = buffer.into();
        Self::new(buffer.bytes(), Place::Device(buffer))
    }

    /// In page-locked memory.
    pub fn in_pinned(buffer: impl Into<Arc<PinnedBuffer>>) -> Self {
        let buffer = buffer.into();
        Self::new(buffer.bytes(), Place::Pinned(buffer))
    }

    fn new(bytes: u64, place: Place) -> Self {
        Self {
            bytes,
            place: Mutex::new(place),
            moving: AsyncMutex::new(()),
        }
    }

    /// Bytes it has, in whatever tier.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where it is now.
    pub fn tier(&self) -> Tier {
        match *self.place() {
            Place::Device(_) => Tier::Device,
            Place::Pinned(_) => Tier::PinnedHost,
            Place::Disk(_) => Tier::Disk,
        }
    }

    /// Its place on the device, if it is there, which stays as long as it is held.
    pub fn device_place(&self) -> Option<Arc<DeviceBuffer>> {
        match &*self.place() {
            Place::Device(there) => Some(Arc::clone(there)),
            Place::Pinned(_) | Place::Disk(_) => None,
        }
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        // Nothing that holds this lock can leave it half-changed.
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its place in page-locked memory, if it is there.
    fn pinned_place(&self) -> Option<Arc<PinnedBuffer>> {
        match &*self.place() {
            Place::Pinned(there) => Some(Arc::clone(there)),
            Place::Device(_) | Place::Disk(_) => None,
        }
    }

    /// It is here now. Called by the one that moves it.
    fn arrive(&self, at: Place) {
        let before = std::mem::replace(&mut *self.place(), at);
        // Not under the lock: memory is given back.
        drop(before);
    }
}

impl Tiers {
    /// Of this device memory, this page-locked memory, and files in this directory.
    ///
    /// # Errors
    /// [`DeviceError`], also where no threads can be started.
    pub fn new(
        memory: DeviceMemory,
        pinned: PinnedPool,
        directory: Arc<SpillDirectory>,
    ) -> Result<Self, DeviceError> {
        Ok(Self {
            copies: Copies::new(memory.device())?,
            memory,
            pinned,
            directory,
            direct: None,
            threads: Threads {
                writes: Jobs::start("disk-write")?,
                reads: Jobs::start("disk-read")?,
                copies: Jobs::start("pageable")?,
                locks: Jobs::start("lock")?,
            },
        })
    }

    /// The same, where device memory goes to disk and comes back without memory of the host in between, if this machine has GPUDirect Storage
    /// and the directory is on a disk that it can be used for. Why not is told to the log. Takes a moment, and blocks.
    #[must_use]
    pub fn with_direct_storage(mut self, kernels: &Kernels) -> Self {
        match DirectStorage::open(&self.memory, kernels, &self.directory) {
            Ok(storage) => {
                tracing::info!(?storage, "device memory goes to disk directly");
                self.direct = Some(Arc::new(storage));
            }
            Err(reason) => {
                tracing::info!(
                    reason,
                    "device memory goes to disk through page-locked memory: no GPUDirect Storage"
                );
            }
        }
        self
    }

    /// Whether device memory goes to disk without memory of the host in between.
    pub fn has_direct_storage(&self) -> bool {
        self.direct.is_some()
    }

    /// Its device memory.
    pub fn memory(&self) -> &DeviceMemory {
        &self.memory
    }

    /// Its page-locked memory.
    pub fn pinned(&self) -> &PinnedPool {
        &self.pinned
    }

    /// Its copies.
    pub fn copies(&self) -> &Copies {
        &self.copies
    }

    /// Carries out what may block its thread for as long as a copy takes.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, DeviceError> + Send + 'static,
    ) -> Result<T, DeviceError> {
        self.threads.copies.run(job).await
    }

    /// Brings the buffer to the device, if it is not there, and gives its place, which stays as long as it is held.
    ///
    /// # Errors
    /// [`DeviceError`]; the buffer is where it was.
    pub async fn to_device(&self, buffer: &TieredBuffer) -> Result<Arc<DeviceBuffer>, DeviceError> {
        if let Some(there) = self.own_place(buffer)? {
            return Ok(there);
        }
        let _moving = buffer.moving.lock().await;
        if let Some(there) = self.own_place(buffer)? {
            return Ok(there);
        }
        let to = match self.read_directly(buffer).await? {
            Some(to) => to,
            None => {
                let from = self.in_pinned(buffer).await?;
                let to = self.memory.try_allocate(buffer.bytes)?;
                Arc::new(self.copies.upload(from, to).await?.1)
            }
        };
        buffer.arrive(Place::Device(Arc::clone(&to)));
        Ok(to)
    }

    /// Brings the buffer to page-locked memory, if it is not there, and gives its place, which stays as long as it is held.
    ///
    /// # Errors
    /// [`DeviceError`]; the buffer is where it was.
    pub async fn to_pinned(&self, buffer: &TieredBuffer) -> Result<Arc<PinnedBuffer>, DeviceError> {
        if let Some(there) = buffer.pinned_place() {
            return Ok(there);
        }
        let _moving = buffer.moving.lock().await;
        let there = self.in_pinned(buffer).await?;
        buffer.arrive(Place::Pinned(Arc::clone(&there)));
        Ok(there)
    }

    /// Brings the buffer to disk, if it is not there: directly where that can be done, else through page-locked memory.
    ///
    /// # Errors
    /// [`DeviceError`]; the buffer is where it was.
    pub async fn to_disk(&self, buffer: &TieredBuffer) -> Result<(), DeviceError> {
        let _moving = buffer.moving.lock().await;
        if buffer.tier() == Tier::Disk {
            return Ok(());
        }
        let to = match self.written_directly(buffer).await? {
            Some(to) => to,
            None => {
                let from = self.in_pinned(buffer).await?;
                let (device, removals) =
                    (self.memory.device().clone(), self.threads.writes.clone());
                let file = self.directory.new_file("device");
                let write = move || DiskBuffer::write(&from, file, device.traffic(), removals);
                self.threads.writes.run(write).await?
            }
        };
        buffer.arrive(Place::Disk(Arc::new(to)));
        Ok(())
    }

    /// The buffer in a file, written past the host, if it is on the device and that can be done.
    async fn written_directly(
        &self,
        buffer: &TieredBuffer,
    ) -> Result<Option<DiskBuffer>, DeviceError> {
        let (Some(storage), Some(from)) = (self.direct.clone(), self.own_place(buffer)?) else {
            return Ok(None);
        };
        let checksum = storage.checksum(Arc::clone(&from)).await?;
        let (file, removals) = (
            self.directory.new_file("device"),
            self.threads.writes.clone(),
        );
        let write = move || DiskBuffer::write_directly((&from, checksum), file, &storage, removals);
        self.threads.writes.run(write).await
    }

    /// The buffer's bytes on the device, read past the host, if they are on disk and that can be done.
    async fn read_directly(
        &self,
        buffer: &TieredBuffer,
    ) -> Result<Option<Arc<DeviceBuffer>>, DeviceError> {
        let place = buffer.place().clone();
        let (Some(storage), Place::Disk(from)) = (self.direct.clone(), place) else {
            return Ok(None);
        };
        let to = self.memory.try_allocate(buffer.bytes)?;
        let (file, by_thread) = (Arc::clone(&from), Arc::clone(&storage));
        let read = move || file.read_directly(to, &by_thread);
        let Some(to) = self.threads.reads.run(read).await? else {
            return Ok(None);
        };
        let to = Arc::new(to);
        from.check(storage.checksum(Arc::clone(&to)).await?)?;
        Ok(Some(to))
    }

    /// The buffer's place on this device, if it is there.
    fn own_place(&self, buffer: &TieredBuffer) -> Result<Option<Arc<DeviceBuffer>>, DeviceError> {
        let place = buffer.device_place();
        if let Some(there) = &place {
            self.memory.device().check_same(there.device())?;
        }
        Ok(place)
    }

    /// The buffer's bytes in page-locked memory: its own place, if it is there, else a copy, and the buffer stays where it is.
    pub(super) async fn in_pinned(
        &self,
        buffer: &TieredBuffer,
    ) -> Result<Arc<PinnedBuffer>, DeviceError> {
        let place = buffer.place().clone();
        let to = match place {
            Place::Pinned(there) => return Ok(there),
            Place::Device(from) => {
                let to = self.allocate_pinned(buffer.bytes).await?;
                self.copies.download(from, to).await?.1
            }
            Place::Disk(from) => {
                let mut to = self.allocate_pinned(buffer.bytes).await?;
                let device = self.memory.device().clone();
                let read = move || from.read(&mut to, device.traffic()).map(|()| to);
                self.threads.reads.run(read).await?
            }
        };
        Ok(Arc::new(to))
    }

    /// On a thread that may block where memory has to be locked first.
    pub(super) async fn allocate_pinned(&self, bytes: u64) -> Result<PinnedBuffer, DeviceError> {
        let reservation = self.pinned.try_reserve(bytes)?;
        match self.pinned.allocate_locked(bytes, reservation)? {
            Locked::Buffer(buffer) => Ok(buffer),
            Locked::TooLittle(reservation) => {
                let pinned = self.pinned.clone();
                let lock = move || pinned.allocate(bytes, reservation);
                self.threads.locks.run(lock).await
            }
        }
    }
}
