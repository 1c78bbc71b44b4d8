//! `cuMemAlloc` and its kin: device memory that belongs to a context until it is freed.
//!
//! Rules: CUDA Driver API, 6.13 Memory Management, and docs/gpu-facts.md, Device memory.

use std::sync::Arc;

use crate::call::{Out, functions, lock};
use crate::code::{Answer, Code};
use crate::context::{Context, current, current_even_if_faulted, on_top};
use crate::driver::Driver;
use crate::places::{Kind, Place};
use crate::stream_calls::Lane;

/// Legacy memory of a device. A device that is full takes back what its pools do not use (docs/gpu-facts.md, surprise 7).
pub(crate) fn allocate(
    driver: &Driver,
    context: &Context,
    bytes: u64,
    is_variable: bool,
) -> Result<u64, Code> {
    let device = context.device();
    let taken = device.legacy.take(bytes).or_else(|code| {
        crate::pool::give_up_unused(driver, device);
        device.legacy.take(bytes).map_err(|_| code)
    });
    let (start, view) = taken?;
    lock(&driver.places).add(
        start,
        bytes,
        context.handle(),
        device,
        Kind::Legacy { view, is_variable },
    );
    driver
        .counters
        .allocated(device.memory.index(), bytes as i64);
    Ok(start)
}

/// Frees legacy memory that nothing uses any more.
pub(crate) fn free(driver: &Driver, place: Place) {
    driver
        .counters
        .allocated(place.device.memory.index(), -(place.bytes as i64));
    crate::ipc::forget_export(driver, &place);
    let (device, start, bytes) = (Arc::clone(&place.device), place.start, place.bytes);
    drop(place);
    device.legacy.give_back(start, bytes);
    device.legacy.trim(0);
}

/// Frees all that belongs to a context which ends.
pub(crate) fn free_all_of(driver: &Driver, context: &Context) {
    let gone = lock(&driver.places).remove_all(|place| place.context == context.handle());
    for place in gone {
        match &place.kind {
            Kind::Legacy { .. } => free(driver, place),
            Kind::Pool { pool, .. } => Arc::clone(pool).take_back(driver, place),
            Kind::Pinned { .. } => driver.counters.pinned(-(place.bytes as i64)),
            Kind::Managed { .. }
            | Kind::Registered { .. }
            | Kind::Mapped { .. }
            | Kind::Opened { .. } => drop(place),
        }
    }
}

/// `cuMemFree` needs no current context, but not a dead one (docs/gpu-facts.md, surprise 10).
fn may_free() -> Answer {
    match on_top() {
        Ok(_) => current_even_if_faulted()?.device().fault.check(),
        Err(_) => Ok(()),
    }
}

functions! { driver;
    /// `cuMemAlloc`: null and `INVALID_VALUE` for no bytes.
    fn cuMemAlloc_v2(address: Out<u64>, bytes: u64) {
        let context = current()?;
        address.put(0)?;
        if bytes == 0 {
            return Err(Code::INVALID_VALUE);
        }
        address.put(allocate(driver, &context, bytes, false)?)
    }

    /// `cuMemAllocPitch`: rows of a multiple of 512 bytes.
    fn cuMemAllocPitch_v2(address: Out<u64>, pitch: Out<u64>, width: u64, height: u64, element: u32) {
        let context = current()?;
        if !matches!(element, 4 | 8 | 16) || width == 0 || height == 0 {
            return Err(Code::INVALID_VALUE);
        }
        let row = width.checked_next_multiple_of(512).ok_or(Code::OUT_OF_MEMORY)?;
        pitch.put(row)?;
        let bytes = row.checked_mul(height).ok_or(Code::OUT_OF_MEMORY)?;
        address.put(allocate(driver, &context, bytes, false)?)
    }

    /// `cuMemFree`: waits for the device; memory of a pool goes back without waiting (docs/gpu-facts.md, surprise 3).
    fn cuMemFree_v2(address: u64) {
        may_free()?;
        if address == 0 {
            return Ok(());
        }
        let place = lock(&driver.places).starting_at(address).filter(|place| place.is_usable()).cloned().ok_or(Code::INVALID_VALUE)?;
        match &place.kind {
            Kind::Legacy { is_variable: false, .. } | Kind::Managed { .. } => {
                crate::context::drain_device(driver, &place.device);
                place.device.fault.tell()?;
            }
            // At the next synchronization, without waiting for it.
            Kind::Pool { .. } => return crate::pool::free_in(driver, &Lane::of(driver, 0)?, address),
            _ => return Err(Code::INVALID_VALUE),
        }
        let Some(removed) = lock(&driver.places).remove(address) else { return Err(Code::INVALID_VALUE) };
        drop(place);
        if matches!(removed.kind, Kind::Legacy { .. }) {
            free(driver, removed);
        }
        Ok(())
    }

    /// `cuMemGetInfo`: of the device, whichever processes use it.
    fn cuMemGetInfo_v2(free: Out<u64>, total: Out<u64>) {
        let context = current()?;
        free.put_if_wanted(context.device().memory.free_bytes());
        total.put_if_wanted(context.device().memory.bytes());
        Ok(())
    }

    /// `cuMemGetAddressRange`: the asked size, for all kinds; `NOT_FOUND` elsewhere.
    fn cuMemGetAddressRange_v2(base: Out<u64>, bytes: Out<u64>, address: u64) {
        let places = lock(&driver.places);
        let place = places.find(address).ok_or(Code::NOT_FOUND)?;
        base.put_if_wanted(place.start);
        bytes.put_if_wanted(place.bytes);
        Ok(())
    }
}
