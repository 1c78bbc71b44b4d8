//! A worker's GPU, whose memory is taken when the first task or partition wants it: who does not use the GPU leaves it to others. Called by
//! the worker process.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use transload_gpu::SpillDirectory;
use transload_gpu::device::{Device, DeviceError, DeviceMemory, Kernels, PinnedPool, Tiers};

/// A GPU and its memory, as operators have it.
#[derive(Debug)]
pub struct WorkerGpu {
    tiers: Tiers,
    kernels: Kernels,
}

/// What a worker may take of its GPU, and has once it was wanted.
pub(crate) struct LazyGpu {
    ordinal: u32,
    device_bytes: u64,
    pinned_bytes: u64,
    directory: Arc<SpillDirectory>,
    opened: OnceLock<Arc<WorkerGpu>>,
    /// Why it cannot be opened by this process any more, once a fault has said so.
    lost: OnceLock<String>,
    /// Held by the one that opens it.
    opening: Mutex<()>,
}

impl WorkerGpu {
    /// Its memory tiers, and what moves bytes between them.
    pub fn tiers(&self) -> &Tiers {
        &self.tiers
    }

    /// Its operators on columns.
    pub fn kernels(&self) -> &Kernels {
        &self.kernels
    }

    /// Why nothing works on it any more, if that is so.
    fn is_lost(&self) -> Option<String> {
        let asked = self.tiers.memory().device().memory();
        let error = asked.err().filter(DeviceError::is_lost)?;
        Some(error.to_string())
    }
}

impl LazyGpu {
    /// The GPU of this number, of which so much memory may be taken; what does not fit beside it goes to files in `directory`.
    pub(crate) fn new(
        ordinal: u32,
        device_bytes: u64,
        pinned_bytes: u64,
        directory: Arc<SpillDirectory>,
    ) -> Self {
        Self {
            ordinal,
            device_bytes,
            pinned_bytes,
            directory,
            opened: OnceLock::new(),
            lost: OnceLock::new(),
            opening: Mutex::default(),
        }
    }

    /// The GPU with its memory. The first call takes a second, and blocks.
    ///
    /// # Errors
    /// [`DeviceError`]; the next call tries again.
    pub(crate) fn open(&self) -> Result<Arc<WorkerGpu>, DeviceError> {
        let opening = self.opening.lock();
        let _opening = opening.unwrap_or_else(PoisonError::into_inner);
        if let Some(gpu) = self.opened() {
            return Ok(gpu);
        }
        let gpu = self.take().inspect_err(|error| {
            if error.is_lost() {
                self.lost.get_or_init(|| error.to_string());
            }
        })?;
        Ok(Arc::clone(self.opened.get_or_init(|| Arc::new(gpu))))
    }

    fn take(&self) -> Result<WorkerGpu, DeviceError> {
        let device = Device::open(self.ordinal)?;
        let memory = DeviceMemory::take(&device, self.device_bytes)?;
        let pinned = PinnedPool::new(&device, self.pinned_bytes);
        let kernels = Kernels::load(&memory, &pinned)?;
        let tiers = Tiers::new(memory, pinned, Arc::clone(&self.directory))?;
        let tiers = tiers.with_direct_storage(&kernels);
        tracing::info!(
            device = device.name(),
            device_bytes = self.device_bytes,
            pinned_bytes = self.pinned_bytes,
            "took memory of the GPU"
        );
        Ok(WorkerGpu { tiers, kernels })
    }

    /// Why nothing works on it any more in this process, if that is so, or was so when it was to be opened. Asks the driver.
    pub(crate) fn is_lost(&self) -> Option<String> {
        match self.opened() {
            Some(gpu) => gpu.is_lost(),
            None => self.lost.get().cloned(),
        }
    }

    /// What was opened. Waits for nobody: the thread that decides for the worker asks.
    pub(crate) fn opened(&self) -> Option<Arc<WorkerGpu>> {
        self.opened.get().cloned()
    }
}

impl fmt::Debug for LazyGpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LazyGpu")
            .field("ordinal", &self.ordinal)
            .field("device_bytes", &self.device_bytes)
            .field("is_open", &self.opened().is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_what_is_open_does_not_wait_while_another_opens_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let directory = SpillDirectory::create(folder.path()).expect("made");
        let gpu = LazyGpu::new(0, 1, 1, Arc::new(directory));
        let _opening = gpu.opening.lock().expect("nobody panicked");
        // A hang, where it waits.
        assert!(gpu.opened().is_none());
    }
}
