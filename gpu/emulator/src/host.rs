//! Page-locked memory of the host: allocated, registered, managed.
//!
//! Exports its functions. Rules: CUDA Driver API, 6.13 Memory Management, and docs/gpu-facts.md, Host memory.

use std::sync::Arc;

use crate::call::{Out, functions, lock, say};
use crate::code::{Answer, Code};
use crate::context::current;
use crate::driver::Driver;
use crate::machine::BLOCK_BYTES;
use crate::places::Kind;

/// Pages of the host that the emulator has mapped.
#[derive(Debug)]
pub(crate) struct HostPages {
    start: u64,
    bytes: u64,
}

impl HostPages {
    fn new(bytes: u64) -> Option<Self> {
        let length = usize::try_from(bytes).ok()?;
        let (protection, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        );
        // SAFETY: a fresh mapping at an address of the kernel's choice disturbs nothing.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0) };
        (start != libc::MAP_FAILED).then(|| Self {
            start: start.expose_provenance() as u64,
            bytes,
        })
    }

    /// Where they start and how long they are.
    pub(crate) fn span(&self) -> (u64, u64) {
        (self.start, self.bytes)
    }
}

impl Drop for HostPages {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours; work in streams that uses it holds it.
        unsafe {
            libc::munmap(
                std::ptr::with_exposed_provenance_mut(self.start as usize),
                self.bytes as usize,
            )
        };
    }
}

/// How far behind the start of a page small allocations begin: they are aligned to 512 bytes and not to a page, so that a
/// program that takes them for pages is found out (docs/gpu-facts.md, surprise 4).
const SMALL_OFFSET: u64 = 512;

/// Pages for `bytes`, and where in them the memory starts.
fn pages_for(bytes: u64) -> Result<(u64, HostPages), Code> {
    let extra = if bytes < BLOCK_BYTES {
        SMALL_OFFSET
    } else {
        BLOCK_BYTES
    };
    let pages = bytes
        .checked_add(extra)
        .and_then(HostPages::new)
        .ok_or(Code::OUT_OF_MEMORY)?;
    let start = if bytes < BLOCK_BYTES {
        pages.start + SMALL_OFFSET
    } else {
        pages.start.next_multiple_of(BLOCK_BYTES)
    };
    Ok((start, pages))
}

/// `CU_MEMHOSTALLOC_DEVICEMAP` and `_WRITECOMBINED`; 1 is `_PORTABLE`.
const DEVICE_MAP: u32 = 2;
const WRITE_COMBINED: u32 = 4;

fn allocate(driver: &Driver, address: Out<u64>, bytes: u64, flags: u32) -> Answer {
    let context = current()?;
    address.put(0)?;
    if flags > 7 {
        return Err(Code::INVALID_VALUE);
    }
    if bytes == 0 {
        return Ok(());
    }
    let (start, pages) = pages_for(bytes)?;
    // What `cuMemHostGetFlags` gives: always DEVICEMAP, never PORTABLE (recorded).
    let kind = Kind::Pinned {
        pages: Arc::new(pages),
        flags: DEVICE_MAP | flags & WRITE_COMBINED,
    };
    lock(&driver.places).add(start, bytes, context.handle(), context.device(), kind);
    driver.counters.pinned(bytes as i64);
    address.put(start)
}

/// `CU_MEMHOSTREGISTER_READ_ONLY`; 1 is `_PORTABLE`, 2 `_DEVICEMAP`, 4 `_IOMEMORY`.
const READ_ONLY: u32 = 8;
const IO_MEMORY: u32 = 4;

/// Locks pages, as far as that is to be seen: they must be there, with the rights that the flags ask for.
fn populate(start: u64, bytes: u64, flags: u32) -> Answer {
    let page = 4096;
    let from = start - start % page;
    let length = (start + bytes).next_multiple_of(page) - from;
    let advice = if flags & READ_ONLY == 0 {
        libc::MADV_POPULATE_WRITE
    } else {
        libc::MADV_POPULATE_READ
    };
    // SAFETY: the advice brings pages into memory and changes no bytes; ranges that are not mapped are refused.
    let code = unsafe {
        libc::madvise(
            std::ptr::with_exposed_provenance_mut(from as usize),
            length as usize,
            advice,
        )
    };
    if code == 0 {
        Ok(())
    } else {
        Err(Code::INVALID_VALUE)
    }
}

/// Whether a range is a shared mapping of a file on a disk, which cannot be registered (docs/gpu-facts.md, Host memory).
fn is_shared_file(start: u64, bytes: u64) -> bool {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else {
        return false;
    };
    maps.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (range, rights, device) = (
            fields.next().unwrap_or(""),
            fields.next().unwrap_or(""),
            fields.nth(1).unwrap_or(""),
        );
        let bound = |text: Option<&str>| {
            text.and_then(|text| u64::from_str_radix(text, 16).ok())
                .unwrap_or(0)
        };
        let mut bounds = range.split('-');
        let (from, to) = (bound(bounds.next()), bound(bounds.next()));
        // Memory files have no block device: their number is 0.
        from < start + bytes && start < to && rights.ends_with('s') && !device.starts_with("00:")
    })
}

fn register(driver: &Driver, start: u64, bytes: u64, flags: u32) -> Answer {
    let context = current()?;
    let end = start.checked_add(bytes).ok_or(Code::INVALID_VALUE)?;
    if start == 0
        || bytes == 0
        || flags > 15
        || flags & IO_MEMORY != 0
        || driver.space.has(start)
        || driver.space.has(end)
    {
        return Err(Code::INVALID_VALUE);
    }
    let mut places = lock(&driver.places);
    if places.overlap(start, bytes) {
        let over_own = places.iter().any(|place| {
            place.start < end
                && start < place.start + place.bytes
                && !matches!(place.kind, Kind::Registered { .. })
        });
        return Err(if over_own {
            Code::INVALID_VALUE
        } else {
            Code::HOST_MEMORY_ALREADY_REGISTERED
        });
    }
    if is_shared_file(start, bytes) {
        return Err(Code::INVALID_VALUE);
    }
    populate(start, bytes, flags)?;
    places.add(
        start,
        bytes,
        context.handle(),
        context.device(),
        Kind::Registered { flags },
    );
    Ok(())
}

/// Whether registered memory is still there. Hardware goes on with the pages that it had locked; here they are gone.
pub(crate) fn is_mapped(start: u64, bytes: u64) -> bool {
    let from = start - start % 4096;
    let length = (start + bytes - from) as usize;
    // SAFETY: an asynchronous msync touches nothing; it fails where the range is not mapped.
    let mapped = unsafe {
        libc::msync(
            std::ptr::with_exposed_provenance_mut(from as usize),
            length,
            libc::MS_ASYNC,
        )
    } == 0;
    if !mapped {
        say!(
            "registered memory at {start:#x} was unmapped by the program before it was unregistered; its bytes do not travel"
        );
    }
    mapped
}

functions! { driver;
    /// `cuMemHostAlloc`: zeroed. No bytes are success with null.
    fn cuMemHostAlloc(address: Out<u64>, bytes: u64, flags: u32) {
        allocate(driver, address, bytes, flags)
    }

    /// `cuMemAllocHost`.
    fn cuMemAllocHost_v2(address: Out<u64>, bytes: u64) {
        allocate(driver, address, bytes, 0)
    }

    /// `cuMemFreeHost`: waits for the device. Registered memory is refused.
    fn cuMemFreeHost(address: u64) {
        let context = current()?;
        if address == 0 {
            return Ok(());
        }
        if !lock(&driver.places).starting_at(address).is_some_and(|place| matches!(place.kind, Kind::Pinned { .. })) {
            return Err(Code::INVALID_VALUE);
        }
        crate::context::drain_device(driver, context.device());
        context.device().fault.tell()?;
        let place = lock(&driver.places).remove(address).ok_or(Code::INVALID_VALUE)?;
        driver.counters.pinned(-(place.bytes as i64));
        Ok(())
    }

    /// `cuMemHostGetDevicePointer`: the same address.
    fn cuMemHostGetDevicePointer_v2(device: Out<u64>, host: u64, flags: u32) {
        current()?;
        let places = lock(&driver.places);
        if flags != 0 || !places.find(host).is_some_and(|place| place.counts_as_host()) {
            return Err(Code::INVALID_VALUE);
        }
        device.put(host)
    }

    /// `cuMemHostGetFlags`: of registered memory what was asked.
    fn cuMemHostGetFlags(flags: Out<u32>, host: u64) {
        current()?;
        match lock(&driver.places).find(host).map(|place| &place.kind) {
            Some(Kind::Pinned { flags: of, .. } | Kind::Registered { flags: of }) => flags.put(*of),
            _ => Err(Code::INVALID_VALUE),
        }
    }

    /// `cuMemHostRegister`: unaligned ranges too, but none that overlap.
    fn cuMemHostRegister_v2(address: u64, bytes: u64, flags: u32) {
        register(driver, address, bytes, flags)
    }

    /// `cuMemHostUnregister`: waits for the device.
    fn cuMemHostUnregister(address: u64) {
        let context = current()?;
        let refused = match lock(&driver.places).find(address) {
            Some(place) if place.start == address && matches!(place.kind, Kind::Registered { .. }) => None,
            Some(_) => Some(Code::INVALID_VALUE),
            None if address == 0 => Some(Code::INVALID_VALUE),
            None => Some(Code::HOST_MEMORY_NOT_REGISTERED),
        };
        refused.map_or(Ok(()), Err)?;
        crate::context::drain_device(driver, context.device());
        context.device().fault.tell()?;
        lock(&driver.places).remove(address).map(|_| ()).ok_or(Code::HOST_MEMORY_NOT_REGISTERED)
    }

    /// `cuMemAllocManaged`: memory of the host that devices may use, as pages do not move here.
    fn cuMemAllocManaged(address: Out<u64>, bytes: u64, flags: u32) {
        let context = current()?;
        if bytes == 0 || !matches!(flags, 1 | 2) {
            return Err(Code::INVALID_VALUE);
        }
        let (start, pages) = pages_for(bytes)?;
        let mut places = lock(&driver.places);
        places.add(start, bytes, context.handle(), context.device(), Kind::Managed { pages: Arc::new(pages) });
        // Managed memory has SYNC_MEMOPS set from the start (recorded).
        if let Some(place) = places.find_mut(start) {
            place.is_synchronous = true;
        }
        address.put(start)
    }
}
