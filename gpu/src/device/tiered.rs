//! Bytes that are on a device, in page-locked memory or on disk, and move between these. Called by stores of device partitions; which buffer
//! moves when is decided elsewhere.
//!
//! A move makes the new place and fills it, and only then is it the buffer's place: whatever fails, and whoever stops waiting, the bytes are
//! where they were. Whoever works on a place holds it, and the memory is free when the last of them lets go.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;

use futures::channel::oneshot;
use transload_protocol::Tier;

use super::copies::Copies;
use super::disk::DiskBuffer;
use super::error::DeviceError;
use super::memory::{DeviceBuffer, DeviceMemory};
use super::pinned::{PinnedBuffer, PinnedPool};
use crate::SpillDirectory;

/// Bytes in one of the tiers.
#[derive(Debug)]
pub struct TieredBuffer {
    bytes: u64,
    place: Mutex<Place>,
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
    threads: Threads,
}

/// Threads for what blocks, so that neither kind waits for another.
#[derive(Debug, Clone)]
struct Threads {
    writes: mpsc::Sender<Job>,
    reads: mpsc::Sender<Job>,
    copies: mpsc::Sender<Job>,
}

type Job = Box<dyn FnOnce() + Send>;

impl TieredBuffer {
    /// On the device.
    pub fn on_device(buffer: DeviceBuffer) -> Self {
        Self {
            bytes: buffer.bytes(),
            place: Mutex::new(Place::Device(Arc::new(buffer))),
        }
    }

    /// In page-locked memory.
    pub fn in_pinned(buffer: PinnedBuffer) -> Self {
        Self {
            bytes: buffer.bytes(),
            place: Mutex::new(Place::Pinned(Arc::new(buffer))),
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

    /// Its place on the device, if it is there.
    pub(super) fn device_place(&self) -> Option<Arc<DeviceBuffer>> {
        match &*self.place() {
            Place::Device(there) => Some(Arc::clone(there)),
            Place::Pinned(_) | Place::Disk(_) => None,
        }
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        // Nothing that holds this lock can leave it half-changed.
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is here now, unless it has been brought somewhere else meanwhile.
    fn arrive(&self, from: &Place, at: Place) {
        let mut place = self.place();
        if place.is(from) {
            *place = at;
        }
    }
}

impl Place {
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Device(a), Self::Device(b)) => Arc::ptr_eq(a, b),
            (Self::Pinned(a), Self::Pinned(b)) => Arc::ptr_eq(a, b),
            (Self::Disk(a), Self::Disk(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
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
            threads: Threads {
                writes: start_thread("disk-write")?,
                reads: start_thread("disk-read")?,
                copies: start_thread("pageable")?,
            },
        })
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
        run(&self.threads.copies, job).await
    }

    /// Brings the buffer to the device, if it is not there, and gives its place, which stays as long as it is held.
    ///
    /// # Errors
    /// [`DeviceError`]; the buffer is where it was, or as far as it came.
    pub async fn to_device(&self, buffer: &TieredBuffer) -> Result<Arc<DeviceBuffer>, DeviceError> {
        loop {
            let place = buffer.place().clone();
            match &place {
                Place::Device(there) => return Ok(Arc::clone(there)),
                Place::Disk(_) => drop(self.to_pinned(buffer).await?),
                Place::Pinned(from) => {
                    let to = self.memory.try_allocate(buffer.bytes)?;
                    let (_, to) = self.copies.upload(Arc::clone(from), to).await?;
                    buffer.arrive(&place, Place::Device(Arc::new(to)));
                }
            }
        }
    }

    /// Brings the buffer to page-locked memory, if it is not there, and gives its place, which stays as long as it is held.
    ///
    /// # Errors
    /// [`DeviceError`]; the buffer is where it was.
    pub async fn to_pinned(&self, buffer: &TieredBuffer) -> Result<Arc<PinnedBuffer>, DeviceError> {
        loop {
            let place = buffer.place().clone();
            if let Place::Pinned(there) = &place {
                return Ok(Arc::clone(there));
            }
            let mut to = self.allocate_pinned(buffer.bytes).await?;
            let to = match &place {
                Place::Device(from) => self.copies.download(Arc::clone(from), to).await?.1,
                Place::Disk(from) => {
                    let (from, device) = (Arc::clone(from), self.memory.device().clone());
                    let read = move || from.read(&mut to, device.traffic()).map(|()| to);
                    run(&self.threads.reads, read).await?
                }
                Place::Pinned(_) => to,
            };
            buffer.arrive(&place, Place::Pinned(Arc::new(to)));
        }
    }

    /// On a thread that may block where memory has to be locked first.
    async fn allocate_pinned(&self, bytes: u64) -> Result<PinnedBuffer, DeviceError> {
        if self.pinned.is_ready_for(bytes) {
            return self.pinned.try_allocate(bytes);
        }
        let pinned = self.pinned.clone();
        self.blocking(move || pinned.try_allocate(bytes)).await
    }

    /// Brings the buffer to disk, if it is not there, through page-locked memory.
    ///
    /// # Errors
    /// [`DeviceError`]; the buffer is where it was, or as far as it came.
    pub async fn to_disk(&self, buffer: &TieredBuffer) -> Result<(), DeviceError> {
        loop {
            let place = buffer.place().clone();
            match &place {
                Place::Disk(_) => return Ok(()),
                Place::Device(_) => drop(self.to_pinned(buffer).await?),
                Place::Pinned(from) => {
                    let (from, device) = (Arc::clone(from), self.memory.device().clone());
                    let file = self.directory.new_file("device");
                    let write = move || DiskBuffer::write(&from, file, device.traffic());
                    let to = run(&self.threads.writes, write).await?;
                    buffer.arrive(&place, Place::Disk(Arc::new(to)));
                }
            }
        }
    }
}

/// A thread that carries out jobs until nobody can send any.
fn start_thread(name: &str) -> Result<mpsc::Sender<Job>, DeviceError> {
    let (sender, jobs) = mpsc::channel::<Job>();
    let thread = thread::Builder::new().name(format!("gpu-{name}"));
    let started = thread.spawn(move || jobs.into_iter().for_each(|job| job()));
    started.map_err(|error| DeviceError::Unusable {
        reason: format!("no thread for copies: {error}"),
    })?;
    Ok(sender)
}

async fn run<T: Send + 'static>(
    thread: &mpsc::Sender<Job>,
    job: impl FnOnce() -> Result<T, DeviceError> + Send + 'static,
) -> Result<T, DeviceError> {
    let (told, end) = oneshot::channel();
    let job = move || {
        // Who waited may be gone, and then what was made is dropped here.
        let _ = told.send(job());
    };
    let ended = || DeviceError::Unusable {
        reason: "a thread for copies has ended".to_owned(),
    };
    thread.send(Box::new(job)).map_err(|_| ended())?;
    end.await.unwrap_or_else(|_| Err(ended()))
}
