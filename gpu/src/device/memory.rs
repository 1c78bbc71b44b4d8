//! Device memory: taken from the driver once, in as few slabs as it gives, and handed out in pieces. Called by whoever makes device
//! partitions; knows sizes alone.
//!
//! Slabs come from `cuMemAlloc`, as other processes can open only such memory, and are given back at the end: to free memory waits for
//! kernels that run (docs/gpu-facts.md). A transport needs to know few large slabs, and each once.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use transload_cuda_driver::{cuMemAlloc_v2, cuMemFree_v2};

use super::context::Device;
use super::error::{DeviceError, check, check_memory, check_reservation};
use super::ranges::{Range, Ranges, rounded};
use crate::{Budget, OutOfBudget, Reservation};

/// What a piece is aligned to, and a multiple of: what disks read and write directly. The driver's own allocations are aligned to it, too, from
/// [`SLAB_STEP_BYTES`] on.
pub(super) const GRANULE_BYTES: u64 = 4 << 10;
/// Smaller slabs are not worth having.
const LEAST_SLAB_BYTES: u64 = 2 << 20;
/// The driver rounds allocations up to so much.
const SLAB_STEP_BYTES: u64 = 2 << 20;

/// Memory of a device for this process's partitions. Clones share it.
#[derive(Clone)]
pub struct DeviceMemory {
    shared: Arc<Shared>,
}

struct Shared {
    device: Device,
    budget: Budget,
    slabs: Vec<Slab>,
    ranges: Mutex<Ranges>,
}

/// Memory from the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slab {
    address: u64,
    bytes: u64,
}

/// A piece of device memory. Its bytes are idle when it is dropped, as whatever works on them holds it.
pub struct DeviceBuffer {
    memory: Arc<Shared>,
    range: Range,
    bytes: u64,
    _reservation: Reservation,
}

impl DeviceMemory {
    /// Takes `bytes` from the driver: in one slab where it can, else in several.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`] where it has not so many.
    pub fn take(device: &Device, bytes: u64) -> Result<Self, DeviceError> {
        device.enter()?;
        let whole = bytes.checked_next_multiple_of(SLAB_STEP_BYTES);
        let bytes = whole.ok_or(DeviceError::OutOfMemory {
            what: "device memory",
            requested_bytes: bytes,
        })?;
        let mut taken = Taken::default();
        let mut next_bytes = bytes;
        while taken.bytes() < bytes {
            let wanted = next_bytes.min(bytes - taken.bytes());
            match allocate(wanted) {
                Ok(address) => taken.slabs.push(Slab {
                    address,
                    bytes: wanted,
                }),
                Err(DeviceError::OutOfMemory { .. }) if wanted > LEAST_SLAB_BYTES => {
                    next_bytes = (wanted / 2).next_multiple_of(SLAB_STEP_BYTES);
                }
                // What there is goes back.
                Err(error) => return Err(error.of(bytes)),
            }
        }
        let slabs = std::mem::take(&mut taken.slabs);
        let mut ranges = Ranges::new(GRANULE_BYTES);
        for slab in &slabs {
            ranges.add(slab.address, slab.bytes);
        }
        tracing::debug!(?device, bytes, slabs = slabs.len(), "took device memory");
        Ok(Self {
            shared: Arc::new(Shared {
                device: device.clone(),
                budget: Budget::new("device memory", bytes),
                slabs,
                ranges: Mutex::new(ranges),
            }),
        })
    }

    /// Its device.
    pub fn device(&self) -> &Device {
        &self.shared.device
    }

    /// What it has and what is in use.
    pub fn budget(&self) -> &Budget {
        &self.shared.budget
    }

    /// The slabs, as address and length: what a transport is to know before it moves pieces of them.
    pub fn slabs(&self) -> impl Iterator<Item = (u64, u64)> {
        self.shared.slabs.iter().map(|it| (it.address, it.bytes))
    }

    /// Room for `bytes`, rounded up to what pieces are multiples of.
    ///
    /// # Errors
    /// [`OutOfBudget`].
    pub fn try_reserve(&self, bytes: u64) -> Result<Reservation, OutOfBudget> {
        self.shared
            .budget
            .try_reserve(rounded(bytes, GRANULE_BYTES))
    }

    /// A piece of `bytes`, in room that was reserved before, with whatever it holds.
    ///
    /// # Errors
    /// [`DeviceError::Fragmented`], and [`DeviceError::Reservation`] where there is too little room.
    pub fn allocate(
        &self,
        bytes: u64,
        reservation: Reservation,
    ) -> Result<DeviceBuffer, DeviceError> {
        let needed_bytes = rounded(bytes, GRANULE_BYTES);
        check_reservation(needed_bytes, &self.shared.budget, &reservation)?;
        let mut ranges = self.shared.ranges();
        let range = ranges.take(bytes);
        let range = range.ok_or_else(|| DeviceError::Fragmented {
            requested_bytes: bytes,
            longest_bytes: ranges.longest_bytes(),
            free_bytes: ranges.free_bytes(),
        })?;
        drop(ranges);
        Ok(DeviceBuffer {
            memory: Arc::clone(&self.shared),
            range,
            bytes,
            _reservation: reservation,
        })
    }

    /// Reserves and allocates.
    ///
    /// # Errors
    /// [`DeviceError::OutOfBudget`] and [`DeviceError::Fragmented`].
    pub fn try_allocate(&self, bytes: u64) -> Result<DeviceBuffer, DeviceError> {
        self.allocate(bytes, self.try_reserve(bytes)?)
    }
}

/// Slabs that are given back unless they are taken out.
#[derive(Default)]
struct Taken {
    slabs: Vec<Slab>,
}

impl Taken {
    fn bytes(&self) -> u64 {
        self.slabs.iter().map(|slab| slab.bytes).sum()
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        give_back(&self.slabs);
    }
}

fn allocate(bytes: u64) -> Result<u64, DeviceError> {
    let mut address = 0;
    // SAFETY: the pointer is of a local.
    let code = unsafe { cuMemAlloc_v2(&mut address, bytes as usize) };
    check_memory("cuMemAlloc", code, "device memory", bytes)?;
    Ok(address)
}

fn give_back(slabs: &[Slab]) {
    for slab in slabs {
        // SAFETY: from `allocate`; no piece of it is left.
        let code = unsafe { cuMemFree_v2(slab.address) };
        if let Err(error) = check("cuMemFree", code) {
            tracing::debug!(%error, "device memory is left to the driver");
        }
    }
}

impl Shared {
    fn ranges(&self) -> MutexGuard<'_, Ranges> {
        // Nothing that holds this lock can leave them half-changed.
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        give_back(&self.slabs);
    }
}

impl DeviceBuffer {
    /// Bytes that were asked for.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where it is. A host that reads there faults.
    pub fn address(&self) -> u64 {
        self.range.start
    }

    /// Its device.
    pub fn device(&self) -> &Device {
        &self.memory.device
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        self.memory.ranges().free(self.range);
    }
}

impl fmt::Debug for DeviceMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceMemory({:?})", self.shared.budget)
    }
}

impl fmt::Debug for DeviceBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceBuffer({} B at {:#x})", self.bytes, self.address())
    }
}
