//! Global memory as a kernel sees it: every address is looked up, to the byte.
//!
//! Used by `launch`. Stricter than hardware, which lets a store past an allocation hit what lies there (docs/gpu-facts.md, surprise 9).

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use transload_ptx::{AccessError, FaultKind, Memory};

use crate::call::lock;
use crate::device::Device;
use crate::driver::Driver;
use crate::places::Place;
use crate::space::Space;

/// What a kernel of one device may use, as it was when the kernel began. Keeps all of it where it is.
pub(crate) struct KernelMemory {
    segments: Vec<Segment>,
    space: Arc<Space>,
}

struct Segment {
    place: Place,
    /// Where the emulator finds its first byte.
    host: u64,
}

impl KernelMemory {
    /// All that kernels of `device` may use: its own memory, that of its peers, and page-locked memory of the host.
    pub(crate) fn of(driver: &Driver, device: &Device) -> Self {
        let peers = device.peers.load(Ordering::SeqCst);
        let places = lock(&driver.places);
        let visible = places.iter().filter(|place| {
            let is_near =
                place.device.ordinal == device.ordinal || peers >> place.device.ordinal & 1 == 1;
            place.is_host() || is_near && !place.is_without_access()
        });
        let host = |place: &Place| {
            if place.is_host() {
                place.start
            } else {
                driver.space.host(place.start)
            }
        };
        let segments = visible.map(|place| Segment {
            host: host(place),
            place: place.clone(),
        });
        Self {
            segments: segments.collect(),
            space: Arc::clone(&driver.space),
        }
    }

    fn must_be_written(&self, address: u64, bytes: usize) -> Result<(), AccessError> {
        if crate::written::is_written(&self.space, address, bytes) {
            return Ok(());
        }
        Err(AccessError {
            kind: FaultKind::Uninitialised,
            detail: format!("nobody ever wrote some of these {bytes} bytes of device memory"),
        })
    }

    /// Where the `bytes` at `address` are.
    fn find(&self, address: u64, bytes: usize) -> Result<*mut u8, AccessError> {
        let behind = self
            .segments
            .partition_point(|segment| segment.place.start <= address);
        let Some(segment) = behind
            .checked_sub(1)
            .and_then(|index| self.segments.get(index))
        else {
            return Err(refused(
                "no memory of the device lies there or before it".to_owned(),
            ));
        };
        let offset = address - segment.place.start;
        if offset.saturating_add(bytes as u64) > segment.place.bytes {
            let past = offset - offset.min(segment.place.bytes);
            return Err(refused(format!(
                "{past} bytes past the end of {} bytes at {:#x}",
                segment.place.bytes, segment.place.start
            )));
        }
        Ok(std::ptr::with_exposed_provenance_mut(
            (segment.host + offset) as usize,
        ))
    }
}

fn refused(detail: String) -> AccessError {
    AccessError {
        kind: FaultKind::IllegalAddress,
        detail,
    }
}

/// Reads or writes one word that others may use at the same time, where the length is that of one.
macro_rules! words {
    ($length:expr, $pointer:expr, |$word:ident: $kind:ident| $work:expr, $otherwise:expr) => {
        match $length {
            1 => words!(@one AtomicU8, u8, $pointer, $word, $kind, $work),
            2 => words!(@one AtomicU16, u16, $pointer, $word, $kind, $work),
            4 => words!(@one AtomicU32, u32, $pointer, $word, $kind, $work),
            8 => words!(@one AtomicU64, u64, $pointer, $word, $kind, $work),
            _ => $otherwise,
        }
    };
    (@one $atomic:ident, $plain:ident, $pointer:expr, $word:ident, $kind:ident, $work:expr) => {{
        type $kind = $plain;
        // SAFETY: the segment keeps the memory, and the address is aligned, as kernels' accesses are checked to be; the host and
        // other kernels use it through atomics, or with the care that CUDA asks of them.
        let $word = unsafe { $atomic::from_ptr($pointer.cast()) };
        $work
    }};
}

/// A word of any width as the widest.
fn wide(word: impl Into<u64>) -> u64 {
    word.into()
}

impl Memory for KernelMemory {
    fn read(&self, address: u64, to: &mut [u8]) -> Result<(), AccessError> {
        let from = self.find(address, to.len())?;
        self.must_be_written(address, to.len())?;
        words!(
            to.len(),
            from,
            |word: Word| to.copy_from_slice(&Word::to_le_bytes(word.load(Ordering::Relaxed))),
            for (index, byte) in to.iter_mut().enumerate() {
                // SAFETY: within the bytes that were found.
                *byte = unsafe { from.add(index).read_volatile() };
            }
        );
        Ok(())
    }

    fn write(&self, address: u64, from: &[u8]) -> Result<(), AccessError> {
        let to = self.find(address, from.len())?;
        crate::written::mark(&self.space, address, from.len() as u64, true);
        words!(
            from.len(),
            to,
            |word: Word| {
                if let Ok(bytes) = from.try_into() {
                    word.store(Word::from_le_bytes(bytes), Ordering::Relaxed);
                }
            },
            for (index, byte) in from.iter().enumerate() {
                // SAFETY: within the bytes that were found.
                unsafe { to.add(index).write_volatile(*byte) };
            }
        );
        Ok(())
    }

    fn update(
        &self,
        address: u64,
        bytes: u32,
        change: &mut dyn FnMut(u64) -> u64,
    ) -> Result<u64, AccessError> {
        let at = self.find(address, bytes as usize)?;
        self.must_be_written(address, bytes as usize)?;
        let old = words!(
            bytes,
            at,
            |word: Word| {
                let mut seen = word.load(Ordering::SeqCst);
                loop {
                    let new = change(wide(seen)) as Word;
                    match word.compare_exchange_weak(seen, new, Ordering::SeqCst, Ordering::SeqCst)
                    {
                        Ok(old) => break wide(old),
                        Err(other) => seen = other,
                    }
                }
            },
            return Err(refused(format!("no atomic operation has {bytes} bytes")))
        );
        Ok(old)
    }
}
