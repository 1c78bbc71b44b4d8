//! Memory that is locked as a whole: made, locked, and given back. Called by the pool of page-locked memory; knows not who uses it.

use std::alloc::{Layout, alloc, dealloc};
use std::ptr::NonNull;

use transload_cuda_driver::{cuMemHostRegister_v2, cuMemHostUnregister};

use super::context::Device;
use super::error::{DeviceError, check, check_memory};

const HUGE_PAGE_BYTES: usize = 2 << 20;
/// `CU_MEMHOSTREGISTER_PORTABLE`.
const PORTABLE: u32 = 1;

/// Memory that is locked as long as this lives.
pub(super) struct Block {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: it is plain memory, and who may touch which bytes is the business of the buffers.
unsafe impl Send for Block {}

impl Block {
    /// Locks `bytes`, which are whole pages, one at least, and cleared. Takes seconds for gigabytes.
    pub(super) fn lock(device: &Device, bytes: u64) -> Result<Self, DeviceError> {
        let no_memory = || DeviceError::OutOfMemory {
            what: "pinned memory",
            requested_bytes: bytes,
        };
        device.enter()?;
        let layout = Layout::from_size_align(bytes as usize, HUGE_PAGE_BYTES);
        let layout = layout.map_err(|_| no_memory())?;
        // SAFETY: the layout is not empty: at least one page is missing.
        let start = NonNull::new(unsafe { alloc(layout) }).ok_or_else(no_memory)?;
        let block = Self { start, layout };
        // Where the system has no huge pages it is as it was.
        block.advise(libc::MADV_HUGEPAGE);
        // A fork would share the pages until one side writes: this side would then write to others than those the device knows.
        block.advise(libc::MADV_DONTFORK);
        // Pages that exist are locked faster.
        // SAFETY: the range is ours.
        unsafe { start.as_ptr().write_bytes(0, layout.size()) };
        // SAFETY: the range is ours until it is unlocked, in `drop`.
        let code = unsafe { cuMemHostRegister_v2(block.address(), layout.size(), PORTABLE) };
        if let Err(error) = check_memory("cuMemHostRegister", code, "pinned memory", bytes) {
            // SAFETY: locking it failed, and nobody has it.
            unsafe { std::mem::ManuallyDrop::new(block).free() };
            return Err(error);
        }
        Ok(block)
    }

    pub(super) fn address(&self) -> u64 {
        self.start.as_ptr().expose_provenance() as u64
    }

    pub(super) fn bytes(&self) -> u64 {
        self.layout.size() as u64
    }

    /// Tells the system how the range is used. It is whole pages, and is used as well where the system does not listen.
    fn advise(&self, advice: libc::c_int) {
        // SAFETY: the range is ours, and no advice that is given here changes what is in it.
        unsafe { libc::madvise(self.start.as_ptr().cast(), self.layout.size(), advice) };
    }

    /// Gives the memory back.
    ///
    /// # Safety
    /// It is not locked, and nothing is done with it afterwards.
    unsafe fn free(&self) {
        // Whoever has it next may fork.
        self.advise(libc::MADV_DOFORK);
        // SAFETY: from `alloc` with this layout; the rest is the caller's.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: locked by `lock`; no piece of it is left.
        let code = unsafe { cuMemHostUnregister(self.address()) };
        if let Err(error) = check("cuMemHostUnregister", code) {
            // Whoever had the address next would have memory that the driver takes for locked.
            return tracing::warn!(%error, bytes = self.bytes(), "pinned memory cannot be unlocked and is never freed");
        }
        // SAFETY: it was just unlocked, and this is its end.
        unsafe { self.free() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::emulated;

    #[test]
    fn a_fork_gets_no_page_that_a_device_writes() {
        let block = Block::lock(&emulated::device(), 1 << 20).expect("memory");
        let at = block.address();
        let maps = std::fs::read_to_string("/proc/self/smaps").expect("of this process");
        let mut is_in = false;
        for line in maps.lines() {
            let range = line.split(' ').next().and_then(|it| it.split_once('-'));
            let hex = |text: &str| u64::from_str_radix(text, 16).ok();
            if let Some((Some(start), Some(end))) = range.map(|(a, b)| (hex(a), hex(b))) {
                is_in = (start..end).contains(&at);
            }
            if is_in && let Some(flags) = line.strip_prefix("VmFlags:") {
                return assert!(flags.split(' ').any(|it| it == "dc"), "{flags}");
            }
        }
        panic!("no such page");
    }
}
