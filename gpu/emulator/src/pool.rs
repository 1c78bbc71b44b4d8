//! Memory pools: `cuMemAllocAsync` and its kin.
//!
//! Rules: CUDA Driver API, 6.15 Stream Ordered Memory Allocator, and docs/gpu-facts.md, Pools and surprises 7, 10 and 11. A
//! pointer is known at once; whether it is used before its stream got there is not checked, as on hardware.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::arena::Arena;
use crate::call::{Out, functions, lock};
use crate::code::{Answer, Code};
use crate::device::Device;
use crate::driver::Driver;
use crate::handle::Object;
use crate::places::{Kind, Place};
use crate::stream_calls::Lane;

/// How long, and how often, an allocation waits for memory whose `cuMemFreeAsync` its stream has not reached: hardware gives such memory
/// out again at once and lets the streams wait for each other (6.15, `CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES`).
const A_WAIT: Duration = Duration::from_millis(1);
const MOST_WAITS: u32 = 2000;

/// A pool of memory of one device.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) handle: u64,
    device: Arc<Device>,
    arena: Arena,
    is_default: bool,
    /// Its program has destroyed it; what is out stays usable.
    is_destroyed: AtomicBool,
    /// `CUmemAllocationHandleType` bits: 1 is a file descriptor.
    pub(crate) handle_types: u32,
    numbers: Mutex<Numbers>,
    threshold: AtomicU64,
}

#[derive(Debug, Default)]
struct Numbers {
    used: u64,
    used_high: u64,
    reserved_high: u64,
}

impl Pool {
    fn new(
        driver: &Driver,
        device: &Arc<Device>,
        is_default: bool,
        handle_types: u32,
    ) -> Arc<Self> {
        let mut made = None;
        driver.handles.add(|handle| {
            let pool = Arc::new(Self {
                handle,
                device: Arc::clone(device),
                arena: Arena::new(Arc::clone(&device.memory), driver.settings.poison),
                is_default,
                is_destroyed: AtomicBool::new(false),
                handle_types,
                numbers: Mutex::default(),
                threshold: AtomicU64::new(0),
            });
            made = Some(Arc::clone(&pool));
            Object::Pool(pool)
        });
        #[expect(clippy::expect_used, reason = "`add` has called the closure")]
        made.expect("made above")
    }

    /// The default pool of a device.
    fn default_of(driver: &Driver, device: &Arc<Device>) -> Arc<Self> {
        let mut place = lock(&device.default_pool);
        Arc::clone(place.get_or_insert_with(|| Self::new(driver, device, true, 0)))
    }

    fn allocate(self: &Arc<Self>, driver: &Driver, bytes: u64, context: u64) -> Result<u64, Code> {
        let mut taken = self.arena.take(bytes);
        for _ in 0..MOST_WAITS {
            if taken.is_ok() {
                break;
            }
            // Asked before it is tried again, so that what is freed between the two is found.
            let more_comes = lock(&driver.places)
                .iter()
                .any(|place| place.is_freed && place.device.ordinal == self.device.ordinal);
            give_up_unused(driver, &self.device);
            self.device.legacy.trim(0);
            taken = self.arena.take(bytes);
            if taken.is_err() && !more_comes {
                break;
            }
            std::thread::sleep(A_WAIT);
        }
        let (start, view) = taken?;
        let kind = Kind::Pool {
            view,
            pool: Arc::clone(self),
        };
        lock(&driver.places).add(start, bytes, context, &self.device, kind);
        driver
            .counters
            .allocated(self.device.memory.index(), bytes as i64);
        let mut numbers = lock(&self.numbers);
        numbers.used += bytes;
        numbers.used_high = numbers.used_high.max(numbers.used);
        numbers.reserved_high = numbers.reserved_high.max(self.arena.held_bytes());
        Ok(start)
    }

    /// Takes memory back that was removed from the places.
    pub(crate) fn take_back(&self, driver: &Driver, place: Place) {
        let (start, bytes) = (place.start, place.bytes);
        drop(place);
        self.arena.give_back(start, bytes);
        driver
            .counters
            .allocated(self.device.memory.index(), -(bytes as i64));
        let mut numbers = lock(&self.numbers);
        numbers.used = numbers.used.saturating_sub(bytes);
    }

    fn settle(&self) {
        self.arena.trim(self.threshold.load(Ordering::SeqCst));
    }
}

/// Frees memory of a pool or of `cuMemAlloc` when `lane` gets there; no call may use it from now on.
pub(crate) fn free_in(driver: &'static Driver, lane: &Lane, start: u64) -> Answer {
    match lock(&driver.places).find_mut(start) {
        Some(place) if place.start == start && place.may_be_freed_in_order() => {
            place.is_freed = true
        }
        _ => return Err(Code::INVALID_VALUE),
    }
    lane.submit(move || {
        let Some(place) = lock(&driver.places).remove(start) else {
            return Ok(());
        };
        match &place.kind {
            Kind::Pool { pool, .. } => Arc::clone(pool).take_back(driver, place),
            _ => crate::memory::free(driver, place),
        }
        Ok(())
    });
    Ok(())
}

/// After a synchronization: pools give back what is above their threshold.
pub(crate) fn settle(driver: &Driver, device: &Device) {
    driver
        .handles
        .pools()
        .iter()
        .filter(|pool| pool.device.ordinal == device.ordinal)
        .for_each(|pool| pool.settle());
}

/// The device is full: its pools give back all that they do not use, whatever their threshold (recorded).
pub(crate) fn give_up_unused(driver: &Driver, device: &Device) {
    driver
        .handles
        .pools()
        .iter()
        .filter(|pool| pool.device.ordinal == device.ordinal)
        .for_each(|pool| pool.arena.trim(0));
}

fn allocate(
    driver: &Driver,
    address: Out<u64>,
    bytes: u64,
    pool: Option<u64>,
    stream: u64,
) -> Answer {
    let lane = Lane::of(driver, stream)?;
    address.put(0)?;
    let pool = match pool {
        None => Pool::default_of(driver, lane.context.device()),
        Some(handle) => driver.handles.pool(handle)?,
    };
    if bytes == 0 {
        return Ok(());
    }
    address.put(pool.allocate(driver, bytes, lane.context.handle())?)
}

/// `CUmemPoolProps`, as far as it is read.
#[repr(C)]
#[derive(Clone, Copy)]
struct Properties {
    kind: u32,
    handle_types: u32,
    location_kind: u32,
    location: i32,
}

/// `CUmemPool_attribute`.
fn attribute(pool: &Pool, number: u32) -> Result<(u64, bool), Code> {
    let numbers = lock(&pool.numbers);
    Ok(match number {
        // The three kinds of reuse, as 32 bits.
        1..=3 => (1, false),
        4 => (pool.threshold.load(Ordering::SeqCst), true),
        5 => (pool.arena.held_bytes(), true),
        6 => (numbers.reserved_high, true),
        7 => (numbers.used, true),
        8 => (numbers.used_high, true),
        _ => return Err(Code::INVALID_VALUE),
    })
}

functions! { driver;
    /// `cuDeviceGetDefaultMemPool`.
    fn cuDeviceGetDefaultMemPool(pool: Out<u64>, device: i32) {
        pool.put(Pool::default_of(driver, driver.device(device)?).handle)
    }

    /// `cuDeviceGetMemPool`: the default one, as `cuDeviceSetMemPool` is not emulated.
    fn cuDeviceGetMemPool(pool: Out<u64>, device: i32) {
        pool.put(Pool::default_of(driver, driver.device(device)?).handle)
    }

    /// `cuMemPoolCreate`.
    fn cuMemPoolCreate(pool: Out<u64>, properties: Out<Properties>) {
        let properties = properties.get()?;
        // CU_MEM_ALLOCATION_TYPE_PINNED on CU_MEM_LOCATION_TYPE_DEVICE, exported as nothing or as a file.
        if properties.kind != 1 || properties.location_kind != 1 || properties.handle_types > 1 {
            return Err(Code::INVALID_VALUE);
        }
        pool.put(Pool::new(driver, driver.device(properties.location)?, false, properties.handle_types).handle)
    }

    /// `cuMemPoolDestroy`: memory that is out stays usable. The default pool is refused.
    fn cuMemPoolDestroy(pool: u64) {
        let pool = driver.handles.pool(pool)?;
        if pool.is_default {
            return Err(Code::INVALID_VALUE);
        }
        pool.is_destroyed.store(true, Ordering::SeqCst);
        pool.threshold.store(0, Ordering::SeqCst);
        pool.settle();
        driver.handles.remove_pool(pool.handle).map(|_| ())
    }

    /// `cuMemPoolGetAttribute`.
    fn cuMemPoolGetAttribute(pool: u64, number: u32, value: Out<u64>) {
        let (found, is_wide) = attribute(&*driver.handles.pool(pool)?, number)?;
        if is_wide { value.put(found) } else { value.cast::<u32>().put(found as u32) }
    }

    /// `cuMemPoolSetAttribute`: high water marks can only be set to 0.
    fn cuMemPoolSetAttribute(pool: u64, number: u32, value: Out<u64>) {
        let pool = driver.handles.pool(pool)?;
        match number {
            1..=3 => value.cast::<u32>().get().map(|_| ()),
            4 => {
                pool.threshold.store(value.get()?, Ordering::SeqCst);
                Ok(())
            }
            6 | 8 if value.get()? == 0 => {
                let mut numbers = lock(&pool.numbers);
                if number == 6 {
                    numbers.reserved_high = pool.arena.held_bytes();
                } else {
                    numbers.used_high = numbers.used;
                }
                Ok(())
            }
            _ => Err(Code::INVALID_VALUE),
        }
    }

    /// `cuMemPoolTrimTo`.
    fn cuMemPoolTrimTo(pool: u64, keep: u64) {
        driver.handles.pool(pool)?.arena.trim(keep);
        Ok(())
    }

    /// `cuMemPoolExportToShareableHandle`: only of a pool that was made for it. The file cannot be imported here.
    fn cuMemPoolExportToShareableHandle(file: Out<i32>, pool: u64, kind: u32, flags: u64) {
        let pool = driver.handles.pool(pool)?;
        if kind != 1 || flags != 0 || pool.handle_types & 1 == 0 {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: the name ends with a zero.
        let made = unsafe { libc::memfd_create(c"cuda-emulator-pool".as_ptr(), libc::MFD_CLOEXEC) };
        if made < 0 { Err(Code::OPERATING_SYSTEM) } else { file.put(made) }
    }

    /// `cuMemAllocAsync`: success with null for no bytes.
    fn cuMemAllocAsync(address: Out<u64>, bytes: u64, stream: u64) {
        allocate(driver, address, bytes, None, stream)
    }

    /// `cuMemAllocFromPoolAsync`.
    fn cuMemAllocFromPoolAsync(address: Out<u64>, bytes: u64, pool: u64, stream: u64) {
        allocate(driver, address, bytes, Some(pool), stream)
    }

    /// `cuMemFreeAsync`: of `cuMemAlloc` memory too. Every use after the call is `INVALID_VALUE`, even before the stream gets there.
    fn cuMemFreeAsync(address: u64, stream: u64) {
        let lane = Lane::of(driver, stream)?;
        if address == 0 {
            return Ok(());
        }
        free_in(driver, &lane, address)
    }
}
