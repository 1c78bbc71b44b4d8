//! All memory that the driver of this process knows, by address, and `cuMemAlloc` with its kin.
//!
//! Every other part looks an address up here before it touches it: what is not here is ordinary memory of the host, or nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::backing::View;
use crate::call::{Out, functions, lock};
use crate::code::{Answer, Code};
use crate::context::{Context, current, current_even_if_faulted, on_top};
use crate::device::Device;
use crate::driver::Driver;
use crate::host::HostPages;
use crate::pool::Pool;
use crate::stream_calls::Lane;
use crate::virtual_memory::Physical;

/// One piece of memory.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) start: u64,
    /// As asked for.
    pub(crate) bytes: u64,
    /// A number that no other memory of the process ever has.
    pub(crate) id: u64,
    /// The context it belongs to.
    pub(crate) context: u64,
    pub(crate) device: Arc<Device>,
    pub(crate) kind: Kind,
    /// `CU_POINTER_ATTRIBUTE_SYNC_MEMOPS` was set.
    pub(crate) is_synchronous: bool,
    /// `cuMemFreeAsync` was called, and its stream has not got there: work before it may use it, and no call.
    pub(crate) is_freed: bool,
}

/// Where memory comes from, and what belongs to it.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    /// `cuMemAlloc`, and variables of modules, which the program cannot free.
    Legacy { view: Arc<View>, is_variable: bool },
    /// `cuMemAllocAsync`.
    Pool { view: Arc<View>, pool: Arc<Pool> },
    /// `cuMemMap`.
    Mapped {
        view: Arc<View>,
        physical: Arc<Physical>,
        is_accessible: bool,
    },
    /// `cuIpcOpenMemHandle`, so many times.
    Opened {
        view: Arc<View>,
        times: u32,
        handle: [u8; 64],
    },
    /// `cuMemHostAlloc`.
    Pinned { pages: Arc<HostPages>, flags: u32 },
    /// `cuMemHostRegister`.
    Registered { flags: u32 },
    /// `cuMemAllocManaged`.
    Managed { pages: Arc<HostPages> },
}

impl Place {
    /// Whether the host may touch it.
    pub(crate) fn is_host(&self) -> bool {
        matches!(
            self.kind,
            Kind::Pinned { .. } | Kind::Registered { .. } | Kind::Managed { .. }
        )
    }

    /// Whether copies count it as host memory.
    pub(crate) fn counts_as_host(&self) -> bool {
        matches!(self.kind, Kind::Pinned { .. } | Kind::Registered { .. })
    }

    /// Whether it is mapped and no device may use it.
    pub(crate) fn is_without_access(&self) -> bool {
        matches!(
            self.kind,
            Kind::Mapped {
                is_accessible: false,
                ..
            }
        )
    }

    /// Whether copies and memsets may use it.
    pub(crate) fn is_usable(&self) -> bool {
        !self.is_freed && !self.is_without_access()
    }

    /// Whether `cuMemFreeAsync` takes it.
    pub(crate) fn may_be_freed_in_order(&self) -> bool {
        !self.is_freed
            && matches!(
                self.kind,
                Kind::Pool { .. }
                    | Kind::Legacy {
                        is_variable: false,
                        ..
                    }
            )
    }

    /// What keeps its bytes where they are.
    pub(crate) fn view(&self) -> Option<&Arc<View>> {
        match &self.kind {
            Kind::Legacy { view, .. }
            | Kind::Pool { view, .. }
            | Kind::Mapped { view, .. }
            | Kind::Opened { view, .. } => Some(view),
            Kind::Pinned { .. } | Kind::Registered { .. } | Kind::Managed { .. } => None,
        }
    }

    fn end(&self) -> u64 {
        self.start + self.bytes
    }
}

/// All memory, by its start. Pieces do not overlap.
#[derive(Debug, Default)]
pub(crate) struct Places {
    by_start: BTreeMap<u64, Place>,
    made: u64,
}

impl Places {
    /// The piece in which `address` lies.
    pub(crate) fn find(&self, address: u64) -> Option<&Place> {
        self.by_start
            .range(..=address)
            .next_back()
            .map(|(_, place)| place)
            .filter(|place| address < place.end())
    }

    /// The same, to be changed.
    pub(crate) fn find_mut(&mut self, address: u64) -> Option<&mut Place> {
        self.by_start
            .range_mut(..=address)
            .next_back()
            .map(|(_, place)| place)
            .filter(|place| address < place.end())
    }

    /// The piece that starts at `start`.
    pub(crate) fn starting_at(&self, start: u64) -> Option<&Place> {
        self.by_start.get(&start)
    }

    /// Whether a piece lies in a range, in part at least.
    pub(crate) fn overlap(&self, start: u64, bytes: u64) -> bool {
        self.by_start
            .range(..start.saturating_add(bytes))
            .next_back()
            .is_some_and(|(_, place)| place.end() > start)
    }

    /// All pieces, by address.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Place> {
        self.by_start.values()
    }

    /// Adds a piece.
    pub(crate) fn add(
        &mut self,
        start: u64,
        bytes: u64,
        context: u64,
        device: &Arc<Device>,
        kind: Kind,
    ) {
        self.made += 1;
        let place = Place {
            start,
            bytes,
            id: self.made,
            context,
            device: Arc::clone(device),
            kind,
            is_synchronous: false,
            is_freed: false,
        };
        self.by_start.insert(start, place);
    }

    /// Removes the piece that starts at `start`.
    pub(crate) fn remove(&mut self, start: u64) -> Option<Place> {
        self.by_start.remove(&start)
    }

    fn remove_all(&mut self, goes: impl Fn(&Place) -> bool) -> Vec<Place> {
        let starts: Vec<u64> = self
            .by_start
            .values()
            .filter(|place| goes(place))
            .map(|place| place.start)
            .collect();
        starts
            .iter()
            .filter_map(|start| self.by_start.remove(start))
            .collect()
    }
}

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
