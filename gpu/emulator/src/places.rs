//! All memory that the driver of this process knows, by address.
//!
//! Every part looks an address up here before it touches it: what is not here is ordinary memory of the host, or nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::backing::View;
use crate::device::Device;
use crate::host::HostPages;
use crate::pool::Pool;
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

    /// Removes every piece that `goes` names.
    pub(crate) fn remove_all(&mut self, goes: impl Fn(&Place) -> bool) -> Vec<Place> {
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
