//! What the driver says of an address.
//!
//! Rules: CUDA Driver API, 6.27 Unified Addressing, and docs/gpu-facts.md, Pointer attributes.

use std::ffi::c_void;

use crate::call::{Out, functions, lock};
use crate::code::{Answer, Code};
use crate::driver::Driver;
use crate::places::{Kind, Place};

/// One attribute (`CUpointer_attribute`) of an address in `place`, of the width that the documentation gives it.
fn put(place: &Place, address: u64, number: u32, value: Out<c_void>) -> Answer {
    let is_pool = matches!(place.kind, Kind::Pool { .. });
    let is_mapped = matches!(place.kind, Kind::Mapped { .. });
    let boolean = |is: bool| value.cast::<u8>().put(u8::from(is));
    let wide = |number: u64| value.cast::<u64>().put(number);
    let narrow = |number: u32| value.cast::<u32>().put(number);
    let span = || match &place.kind {
        Kind::Pinned { pages, .. } | Kind::Managed { pages } => pages.span(),
        _ => place.view().map_or((place.start, place.bytes), |view| {
            (view.address(), view.bytes())
        }),
    };
    match number {
        // Context: null for pools and mapped memory.
        1 => wide(if is_pool || is_mapped {
            0
        } else {
            place.context
        }),
        // CU_MEMORYTYPE_HOST or _DEVICE.
        2 => narrow(if place.counts_as_host() { 1 } else { 2 }),
        3 => wide(address),
        4 if place.is_host() => wide(address),
        6 => boolean(place.is_synchronous),
        7 => wide(place.id),
        8 => boolean(matches!(place.kind, Kind::Managed { .. })),
        9 => value.cast::<i32>().put(place.device.ordinal as i32),
        10 => boolean(matches!(
            place.kind,
            Kind::Legacy {
                is_variable: false,
                ..
            }
        )),
        11 => wide(place.start),
        12 => wide(place.bytes),
        13 => boolean(true),
        // Handle types it may be exported as.
        14 => wide(u64::from(
            matches!(&place.kind, Kind::Mapped { physical, .. } if physical.is_exportable()),
        )),
        // RDMA: there is no other device that could.
        15 => boolean(false),
        // CU_POINTER_ATTRIBUTE_ACCESS_FLAG_READWRITE.
        16 => narrow(3),
        17 => match &place.kind {
            Kind::Pool { pool, .. } => wide(pool.handle),
            _ => wide(0),
        },
        18 => wide(span().1),
        19 => wide(span().0),
        20 => wide(place.id),
        _ => Err(Code::INVALID_VALUE),
    }
}

fn of_address(driver: &Driver, address: u64) -> Result<Place, Code> {
    lock(&driver.places)
        .find(address)
        .filter(|place| !place.is_freed)
        .cloned()
        .ok_or(Code::INVALID_VALUE)
}

functions! { driver;
    /// `cuPointerGetAttribute`: `INVALID_VALUE` for every address that the driver does not know. Needs no context.
    fn cuPointerGetAttribute(value: Out<c_void>, number: u32, address: u64) {
        put(&of_address(driver, address)?, address, number, value)
    }

    /// `cuPointerGetAttributes`: zeros where one attribute has no answer, and success; the ordinal is then -2.
    fn cuPointerGetAttributes(count: u32, numbers: Out<u32>, values: Out<Out<c_void>>, address: u64) {
        let place = of_address(driver, address).ok();
        for index in 0..count as usize {
            let (number, value) = (numbers.at(index).get()?, values.at(index).get()?);
            let given = place.as_ref().map_or(Err(Code::INVALID_VALUE), |place| put(place, address, number, value));
            if given.is_err() {
                match number {
                    6 | 8 | 10 | 13 | 15 => value.cast::<u8>().put(0)?,
                    2 | 16 => value.cast::<u32>().put(0)?,
                    9 => value.cast::<i32>().put(-2)?,
                    1 | 3 | 4 | 7 | 11 | 12 | 14 | 17..=20 => value.cast::<u64>().put(0)?,
                    _ => return Err(Code::INVALID_VALUE),
                }
            }
        }
        Ok(())
    }

    /// `cuPointerSetAttribute`: SYNC_MEMOPS alone, for the whole memory in which the address is.
    fn cuPointerSetAttribute(value: Out<u32>, number: u32, address: u64) {
        let mut places = lock(&driver.places);
        let place = places.find_mut(address).ok_or(Code::INVALID_VALUE)?;
        if number != 6 {
            return Err(Code::INVALID_VALUE);
        }
        place.is_synchronous = value.get()? != 0;
        Ok(())
    }
}
