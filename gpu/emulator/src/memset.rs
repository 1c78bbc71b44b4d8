//! Memsets of one and of two dimensions.
//!
//! Rules: CUDA Driver API, 4 API synchronization behavior (asynchronous but for memory of the host), and docs/gpu-facts.md, surprise 9.

use crate::call::functions;
use crate::code::{Answer, Code};
use crate::counters::Movement;
use crate::driver::Driver;
use crate::side::Side;
use crate::stream_calls::Lane;

/// A memset: `height` rows of `width` elements of `element` bytes, `pitch` bytes apart.
struct Shape {
    address: u64,
    pitch: u64,
    width: u64,
    height: u64,
    element: u64,
}

fn memset(
    driver: &'static Driver,
    shape: Shape,
    value: u32,
    stream: u64,
    is_asynchronous: bool,
) -> Answer {
    let lane = Lane::of(driver, stream)?;
    let Shape {
        address,
        pitch,
        width,
        height,
        element,
    } = shape;
    let row = width.checked_mul(element).ok_or(Code::INVALID_VALUE)?;
    if row == 0 || height == 0 {
        return Ok(());
    }
    if !address.is_multiple_of(element)
        || !pitch.is_multiple_of(element)
        || height > 1 && pitch < row
    {
        return Err(Code::INVALID_VALUE);
    }
    let bytes = pitch
        .checked_mul(height - 1)
        .and_then(|bytes| bytes.checked_add(row))
        .ok_or(Code::INVALID_VALUE)?;
    let side = Side::known(driver, address, bytes)?;
    let Side::Known { place, .. } = &side else {
        return Err(Code::INVALID_VALUE);
    };
    let waits = !is_asynchronous && place.is_host() || place.is_synchronous;
    let host = if place.is_host() {
        address
    } else {
        driver.space.host(address)
    };
    lane.submit(move || {
        let pattern = value.to_le_bytes();
        for line in 0..height {
            // SAFETY: the range was looked up with its size, and `side` keeps it until this is done.
            let bytes = unsafe {
                std::slice::from_raw_parts_mut(
                    std::ptr::with_exposed_provenance_mut::<u8>((host + line * pitch) as usize),
                    row as usize,
                )
            };
            match element {
                1 => bytes.fill(value as u8),
                _ => bytes.chunks_exact_mut(element as usize).for_each(|chunk| {
                    chunk
                        .iter_mut()
                        .zip(pattern)
                        .for_each(|(byte, of)| *byte = of);
                }),
            }
        }
        (0..height).for_each(|line| {
            crate::written::mark(&driver.space, address + line * pitch, row, true)
        });
        driver.counters.count(Movement::Memset, row * height);
        drop(side);
        Ok(())
    });
    if waits { lane.wait() } else { Ok(()) }
}

fn line(address: u64, element: u64, count: u64) -> Shape {
    Shape {
        address,
        pitch: 0,
        width: count,
        height: 1,
        element,
    }
}

functions! { driver;
    /// `cuMemsetD8`.
    fn cuMemsetD8_v2(address: u64, value: u8, count: u64) {
        memset(driver, line(address, 1, count), value.into(), 0, false)
    }

    /// `cuMemsetD16`: addresses must be even.
    fn cuMemsetD16_v2(address: u64, value: u16, count: u64) {
        memset(driver, line(address, 2, count), value.into(), 0, false)
    }

    /// `cuMemsetD32`: addresses must be multiples of four.
    fn cuMemsetD32_v2(address: u64, value: u32, count: u64) {
        memset(driver, line(address, 4, count), value, 0, false)
    }

    /// `cuMemsetD8Async`.
    fn cuMemsetD8Async(address: u64, value: u8, count: u64, stream: u64) {
        memset(driver, line(address, 1, count), value.into(), stream, true)
    }

    /// `cuMemsetD16Async`.
    fn cuMemsetD16Async(address: u64, value: u16, count: u64, stream: u64) {
        memset(driver, line(address, 2, count), value.into(), stream, true)
    }

    /// `cuMemsetD32Async`.
    fn cuMemsetD32Async(address: u64, value: u32, count: u64, stream: u64) {
        memset(driver, line(address, 4, count), value, stream, true)
    }

    /// `cuMemsetD2D8`.
    fn cuMemsetD2D8_v2(address: u64, pitch: u64, value: u8, width: u64, height: u64) {
        memset(driver, Shape { address, pitch, width, height, element: 1 }, value.into(), 0, false)
    }

    /// `cuMemsetD2D16`.
    fn cuMemsetD2D16_v2(address: u64, pitch: u64, value: u16, width: u64, height: u64) {
        memset(driver, Shape { address, pitch, width, height, element: 2 }, value.into(), 0, false)
    }

    /// `cuMemsetD2D32`.
    fn cuMemsetD2D32_v2(address: u64, pitch: u64, value: u32, width: u64, height: u64) {
        memset(driver, Shape { address, pitch, width, height, element: 4 }, value, 0, false)
    }
}
