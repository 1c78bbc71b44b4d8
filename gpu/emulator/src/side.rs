//! The two sides of a copy: what lies at an address, and what a copy between two such counts as.
//!
//! Used by `copy` and `memset`. Sizes are checked to the byte (docs/gpu-facts.md, surprise 9).

use crate::call::lock;
use crate::code::Code;
use crate::counters::Movement;
use crate::driver::Driver;
use crate::places::{Kind, Place};

/// One side of a copy.
#[derive(Debug, Clone)]
pub(crate) enum Side {
    /// Memory that the driver knows.
    Known { address: u64, place: Place },
    /// Other memory of the host.
    Pageable { address: u64 },
}

impl Side {
    /// What lies at `address`; `INVALID_VALUE` where the driver knows that there are no `bytes`.
    pub(crate) fn of(driver: &Driver, address: u64, bytes: u64) -> Result<Self, Code> {
        match lock(&driver.places).find(address) {
            Some(place) if place.is_usable() && bytes <= place.start + place.bytes - address => {
                Ok(Self::Known {
                    address,
                    place: place.clone(),
                })
            }
            Some(_) => Err(Code::INVALID_VALUE),
            None if driver.space.has(address) || address < 4096 => Err(Code::INVALID_VALUE),
            None => Ok(Self::Pageable { address }),
        }
    }

    /// The same for a side that must be known to the driver: a "device pointer" of the named copies.
    pub(crate) fn known(driver: &Driver, address: u64, bytes: u64) -> Result<Self, Code> {
        match Self::of(driver, address, bytes)? {
            Self::Pageable { .. } => Err(Code::INVALID_VALUE),
            side => Ok(side),
        }
    }

    /// Its first address.
    pub(crate) fn address(&self) -> u64 {
        match self {
            Self::Known { address, .. } | Self::Pageable { address } => *address,
        }
    }

    /// Whether its bytes are a device's.
    pub(crate) fn is_device(&self) -> bool {
        matches!(self, Self::Known { place, .. } if !place.counts_as_host())
    }

    /// Whether the driver does not know it.
    pub(crate) fn is_pageable(&self) -> bool {
        matches!(self, Self::Pageable { .. })
    }

    /// Whether whoever copies it waits.
    pub(crate) fn is_synchronous(&self) -> bool {
        matches!(self, Self::Known { place, .. } if place.is_synchronous)
    }

    /// Where the emulator finds the bytes; `None` where the program has unmapped them.
    pub(crate) fn host(&self, driver: &Driver, bytes: u64) -> Option<u64> {
        match self {
            Self::Pageable { address } => Some(*address),
            Self::Known { address, place } if matches!(place.kind, Kind::Registered { .. }) => {
                crate::host::is_mapped(*address, bytes).then_some(*address)
            }
            Self::Known { address, place } if place.is_host() => Some(*address),
            Self::Known { address, .. } => Some(driver.space.host(*address)),
        }
    }
}

/// What a copy between two sides counts as.
pub(crate) fn movement(to: &Side, from: &Side) -> Movement {
    match (to, from) {
        (Side::Known { place: to, .. }, Side::Known { place: from, .. })
            if !to.counts_as_host() && !from.counts_as_host() =>
        {
            if to.device.ordinal != from.device.ordinal {
                Movement::Peer
            } else if [to, from]
                .iter()
                .any(|place| matches!(place.kind, Kind::Opened { .. }))
            {
                Movement::Ipc
            } else {
                Movement::DeviceToDevice
            }
        }
        (to, from) if to.is_device() => {
            if from.is_pageable() {
                Movement::UploadPageable
            } else {
                Movement::UploadPinned
            }
        }
        (to, from) if from.is_device() => {
            if to.is_pageable() {
                Movement::DownloadPageable
            } else {
                Movement::DownloadPinned
            }
        }
        _ => Movement::HostToHost,
    }
}
