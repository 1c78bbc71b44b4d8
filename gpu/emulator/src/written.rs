//! Which bytes of device memory were ever written, where that is asked for (`CUDA_EMULATOR_UNINITIALISED`).
//!
//! One byte for each, 0 for those that nobody wrote, in the file of the device's memory behind its bytes: so it is known across
//! processes. Copies take it along and the host may download anything; a kernel that reads what nobody wrote faults. Used by whoever
//! writes device memory.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::space::Space;

/// Notes that `bytes` of device memory from `address` on were written, or that they are fresh.
pub(crate) fn mark(space: &Space, address: u64, bytes: u64, is_written: bool) {
    if let Some(noted) = space.written(address).filter(|_| space.has(address)) {
        let noted = std::ptr::with_exposed_provenance_mut::<u8>(noted as usize);
        // SAFETY: whoever works on device memory keeps its view, which maps these bytes as well. Several may write them at once, as
        // they may the memory itself.
        unsafe { std::ptr::write_bytes(noted, u8::from(is_written), bytes as usize) };
    }
}

/// Notes what a copy brought: of device memory what was noted there, else that all of it was written.
pub(crate) fn copy(space: &Space, to: u64, from: u64, bytes: u64) {
    match (space.has(to), space.has(from)) {
        (true, true) => {
            if let (Some(to), Some(from)) = (space.written(to), space.written(from)) {
                crate::copy::move_bytes(to, from, bytes);
            }
        }
        (true, false) => mark(space, to, bytes, true),
        (false, _) => {}
    }
}

/// Whether all of `bytes` at `address` were written, as far as that is known.
pub(crate) fn is_written(space: &Space, address: u64, bytes: usize) -> bool {
    let Some(noted) = space.written(address).filter(|_| space.has(address)) else {
        return true;
    };
    let noted = std::ptr::with_exposed_provenance_mut::<AtomicU8>(noted as usize);
    // SAFETY: as in `mark`; single bytes are always aligned.
    (0..bytes).all(|index| unsafe { &*noted.add(index) }.load(Ordering::Relaxed) != 0)
}
