//! Virtual memory management: addresses and memory apart, and memory as files.
//!
//! Rules: CUDA Driver API, 6.14 Virtual Memory Management, and docs/gpu-facts.md, Virtual memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::backing::Blocks;
use crate::call::{Out, functions, lock};
use crate::code::{Answer, Code};
use crate::context::current;
use crate::device::Device;
use crate::driver::Driver;
use crate::export::Description;
use crate::handle::Object;
use crate::machine::BLOCK_BYTES;
use crate::places::{Kind, Place};

/// Memory without an address, as `cuMemCreate` makes it.
#[derive(Debug)]
pub(crate) struct Physical {
    device: Arc<Device>,
    blocks: Arc<Blocks>,
    is_exportable: bool,
    /// Nobody has mapped it: its bytes mean nothing.
    is_fresh: AtomicBool,
    /// Files that tell other processes of it; emptied when it goes.
    exports: Mutex<Vec<File>>,
}

impl Physical {
    fn new(
        device: Arc<Device>,
        blocks: Arc<Blocks>,
        is_exportable: bool,
        is_fresh: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            device,
            blocks,
            is_exportable,
            is_fresh: AtomicBool::new(is_fresh),
            exports: Mutex::default(),
        })
    }

    /// Whether other processes may be told of it.
    pub(crate) fn is_exportable(&self) -> bool {
        self.is_exportable
    }
}

impl Drop for Physical {
    fn drop(&mut self) {
        lock(&self.exports).iter().for_each(|file| {
            let _ = file.set_len(0);
        });
    }
}

/// Reserved ranges: start and length.
#[derive(Debug, Default)]
pub(crate) struct Reservations(Mutex<BTreeMap<u64, u64>>);

impl Reservations {
    fn has(&self, start: u64, bytes: u64) -> bool {
        lock(&self.0)
            .range(..=start)
            .next_back()
            .is_some_and(|(from, length)| start + bytes <= from + length)
    }
}

/// `CUmemAllocationProp`, as far as it is read.
#[repr(C)]
#[derive(Clone, Copy)]
struct Properties {
    kind: u32,
    handle_types: u32,
    location_kind: u32,
    location: i32,
    windows: u64,
    flags: [u8; 8],
}

/// `CUmemAccessDesc`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Access {
    location_kind: u32,
    location: i32,
    flags: u32,
}

fn checked(driver: &Driver, properties: Properties) -> Result<&Arc<Device>, Code> {
    // CU_MEM_ALLOCATION_TYPE_PINNED on CU_MEM_LOCATION_TYPE_DEVICE.
    if properties.kind != 1 || properties.location_kind != 1 {
        return Err(Code::INVALID_VALUE);
    }
    if properties.handle_types > 1 {
        return Err(Code::NOT_SUPPORTED);
    }
    driver.device(properties.location)
}

fn whole_blocks(bytes: u64) -> Answer {
    if bytes == 0 || !bytes.is_multiple_of(BLOCK_BYTES) {
        Err(Code::INVALID_VALUE)
    } else {
        Ok(())
    }
}

/// The mapped pieces that make up a range exactly; `INVALID_VALUE` where they do not.
fn pieces(driver: &Driver, start: u64, bytes: u64) -> Result<Vec<Place>, Code> {
    let end = start.checked_add(bytes).ok_or(Code::INVALID_VALUE)?;
    let places = lock(&driver.places);
    let (mut found, mut at) = (Vec::new(), start);
    while at < end {
        let place = places
            .starting_at(at)
            .filter(|place| matches!(place.kind, Kind::Mapped { .. }))
            .ok_or(Code::INVALID_VALUE)?;
        at += place.bytes;
        found.push(place.clone());
    }
    if at == end && !found.is_empty() {
        Ok(found)
    } else {
        Err(Code::INVALID_VALUE)
    }
}

functions! { driver;
    /// `cuMemGetAllocationGranularity`: two mebibytes, least and recommended.
    fn cuMemGetAllocationGranularity(bytes: Out<u64>, properties: Out<Properties>, _option: u32) {
        checked(driver, properties.get()?)?;
        bytes.put(BLOCK_BYTES)
    }

    /// `cuMemCreate`.
    fn cuMemCreate(handle: Out<u64>, bytes: u64, properties: Out<Properties>, flags: u64) {
        let properties = properties.get()?;
        let device = Arc::clone(checked(driver, properties)?);
        device.fault.check()?;
        whole_blocks(bytes)?;
        if flags != 0 {
            return Err(Code::INVALID_VALUE);
        }
        let blocks = device.memory.take(bytes).or_else(|code| {
            crate::pool::give_up_unused(driver, &device);
            device.memory.take(bytes).map_err(|_| code)
        })?;
        let made = Physical::new(device, blocks, properties.handle_types & 1 != 0, true);
        handle.put(driver.handles.add(|_| Object::Physical(made)))
    }

    /// `cuMemRelease`: memory that is mapped stays.
    fn cuMemRelease(handle: u64) {
        driver.handles.remove_physical(handle).map(|_| ())
    }

    /// `cuMemRetainAllocationHandle`: memory of `cuMemAlloc` has none (6.14).
    fn cuMemRetainAllocationHandle(handle: Out<u64>, address: u64) {
        let places = lock(&driver.places);
        match places.find(address).map(|place| &place.kind) {
            Some(Kind::Mapped { physical, .. }) => handle.put(driver.handles.add(|_| Object::Physical(Arc::clone(physical)))),
            _ => Err(Code::INVALID_VALUE),
        }
    }

    /// `cuMemGetAllocationPropertiesFromHandle`.
    fn cuMemGetAllocationPropertiesFromHandle(properties: Out<Properties>, handle: u64) {
        let physical = driver.handles.physical(handle)?;
        properties.put(Properties {
            kind: 1,
            handle_types: u32::from(physical.is_exportable),
            location_kind: 1,
            location: physical.device.ordinal as i32,
            windows: 0,
            flags: [0; 8],
        })
    }

    /// `cuMemAddressReserve`: a wish for an address is not granted, as it need not be.
    fn cuMemAddressReserve(address: Out<u64>, bytes: u64, alignment: u64, _wish: u64, flags: u64) {
        whole_blocks(bytes)?;
        if flags != 0 || alignment != 0 && !alignment.is_power_of_two() {
            return Err(Code::INVALID_VALUE);
        }
        if alignment > BLOCK_BYTES {
            return Err(Code::NOT_SUPPORTED);
        }
        let start = driver.space.take(bytes).ok_or(Code::OUT_OF_MEMORY)?;
        lock(&driver.reservations.0).insert(start, bytes);
        address.put(start)
    }

    /// `cuMemAddressFree`: not while something is mapped there.
    fn cuMemAddressFree(address: u64, bytes: u64) {
        let mut reservations = lock(&driver.reservations.0);
        if reservations.get(&address) != Some(&bytes) || lock(&driver.places).overlap(address, bytes) {
            return Err(Code::INVALID_VALUE);
        }
        reservations.remove(&address);
        driver.space.give_back(address);
        Ok(())
    }

    /// `cuMemMap`: all of the memory, once at an address.
    fn cuMemMap(address: u64, bytes: u64, offset: u64, handle: u64, flags: u64) {
        let physical = driver.handles.physical(handle)?;
        let fits = bytes == physical.blocks.bytes() && offset == 0 && flags == 0 && address.is_multiple_of(BLOCK_BYTES);
        let mut places = lock(&driver.places);
        if !fits || !driver.reservations.has(address, bytes) || places.overlap(address, bytes) {
            return Err(Code::INVALID_VALUE);
        }
        let view = physical.blocks.view_at(address)?;
        if physical.is_fresh.swap(false, Ordering::SeqCst) {
            view.freshen(address, bytes, driver.settings.poison);
        }
        let device = Arc::clone(&physical.device);
        driver.counters.allocated(device.memory.index(), bytes as i64);
        places.add(address, bytes, 0, &device, Kind::Mapped { view, physical, is_accessible: false });
        Ok(())
    }

    /// `cuMemSetAccess`: of whole mappings.
    fn cuMemSetAccess(address: u64, bytes: u64, access: Out<Access>, count: u64) {
        let found = pieces(driver, address, bytes)?;
        for index in 0..count as usize {
            let access = access.at(index).get()?;
            if access.location_kind != 1 {
                return Err(Code::INVALID_VALUE);
            }
            let device = driver.device(access.location)?;
            let mut places = lock(&driver.places);
            for piece in found.iter().filter(|piece| piece.device.ordinal == device.ordinal) {
                if let Some(Kind::Mapped { is_accessible, .. }) = places.find_mut(piece.start).map(|place| &mut place.kind) {
                    // CU_MEM_ACCESS_FLAGS_PROT_READWRITE.
                    *is_accessible = access.flags == 3;
                }
            }
        }
        Ok(())
    }

    /// `cuMemUnmap`: whole mappings, without waiting.
    fn cuMemUnmap(address: u64, bytes: u64) {
        current()?;
        for piece in pieces(driver, address, bytes)? {
            driver.counters.allocated(piece.device.memory.index(), -(piece.bytes as i64));
            let removed = lock(&driver.places).remove(piece.start);
            drop(removed);
        }
        Ok(())
    }

    /// `cuMemExportToShareableHandle`: a file that closes on exec.
    fn cuMemExportToShareableHandle(file: Out<i32>, handle: u64, kind: u32, flags: u64) {
        let physical = driver.handles.physical(handle)?;
        if kind != 1 || flags != 0 || !physical.is_exportable {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: the name ends with a zero; the descriptor is fresh and given to the `File` alone.
        let mut made = unsafe {
            let number = libc::memfd_create(c"cuda-emulator-memory".as_ptr(), libc::MFD_CLOEXEC);
            if number < 0 {
                return Err(Code::OPERATING_SYSTEM);
            }
            File::from_raw_fd(number)
        };
        let device = physical.device.memory.index();
        let memory = Description { device, offset: 0, bytes: physical.blocks.bytes(), blocks: physical.blocks.list().to_vec() };
        let kept = memory.write(&mut made).and_then(|()| made.try_clone()).map_err(|_| Code::OPERATING_SYSTEM)?;
        lock(&physical.exports).push(kept);
        file.put(made.into_raw_fd())
    }

    /// `cuMemImportFromShareableHandle`: `UNKNOWN` for any other file.
    fn cuMemImportFromShareableHandle(handle: Out<u64>, file: u64, kind: u32) {
        if kind != 1 {
            return Err(Code::INVALID_VALUE);
        }
        let number = i32::try_from(file).map_err(|_| Code::UNKNOWN)?;
        // SAFETY: the descriptor is only duplicated; where it is none, that fails.
        let mut copy = unsafe {
            let copy = libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 0);
            if copy < 0 {
                return Err(Code::UNKNOWN);
            }
            File::from_raw_fd(copy)
        };
        let memory = Description::read(&mut copy).ok_or(Code::UNKNOWN)?;
        let (device, blocks) = memory.hold(driver)?;
        let made = Physical::new(device, blocks, true, false);
        handle.put(driver.handles.add(|_| Object::Physical(made)))
    }
}
