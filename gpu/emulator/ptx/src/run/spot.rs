//! Where addresses point, and how many sectors of global memory the lanes of a warp touch.

use crate::types::Space;
use crate::{LOCAL_BASE, SHARED_BASE, WINDOW_BYTES};

/// Memory, and an address in it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Spot {
    Global(u64),
    Shared(u64),
    Local(u64),
    Parameter(u64),
}

pub(super) fn spot(space: Space, address: u64) -> Spot {
    match space {
        Space::Shared => Spot::Shared(address),
        Space::Local => Spot::Local(address),
        Space::Param => Spot::Parameter(address),
        Space::Generic if address.wrapping_sub(SHARED_BASE) < WINDOW_BYTES => {
            Spot::Shared(address - SHARED_BASE)
        }
        Space::Generic if address.wrapping_sub(LOCAL_BASE) < WINDOW_BYTES => {
            Spot::Local(address - LOCAL_BASE)
        }
        Space::Generic | Space::Global | Space::Const => Spot::Global(address),
    }
}

/// How many sectors the lanes' accesses touch. None of them crosses a sector, as all are aligned and none is longer.
fn sectors(addresses: &mut [u64]) -> u64 {
    addresses.sort_unstable();
    let mut count = 0;
    let mut last = None;
    for sector in addresses.iter().map(|address| address / 32) {
        count += u64::from(last != Some(sector));
        last = Some(sector);
    }
    count
}

/// Which global addresses an instruction touched, and whether it touched shared memory.
#[derive(Default)]
pub(super) struct Touched {
    global: [u64; 32],
    pub(super) globals: usize,
    pub(super) shared: bool,
}

impl Touched {
    pub(super) fn note(&mut self, spot: Spot) {
        match spot {
            Spot::Global(address) => {
                if let Some(place) = self.global.get_mut(self.globals) {
                    *place = address;
                    self.globals += 1;
                }
            }
            Spot::Shared(_) => self.shared = true,
            Spot::Local(_) | Spot::Parameter(_) => {}
        }
    }

    pub(super) fn sectors(&mut self) -> u64 {
        sectors(self.global.get_mut(..self.globals).unwrap_or_default())
    }
}
