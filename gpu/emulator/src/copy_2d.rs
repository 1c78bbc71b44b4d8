//! Copies of rectangles between linear memory.
//!
//! Rules: CUDA Driver API, 6.13 (`cuMemcpy2D`): rows of `WidthInBytes`, a pitch apart on each side. Arrays are not emulated.

use crate::call::{Out, functions, say};
use crate::code::{Answer, Code};
use crate::driver::Driver;
use crate::side::{Side, movement};
use crate::stream_calls::Lane;

/// One side of `CUDA_MEMCPY2D`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Corner {
    x_bytes: u64,
    y: u64,
    kind: u32,
    host: u64,
    device: u64,
    array: u64,
    pitch: u64,
}

/// `CUDA_MEMCPY2D`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Rectangle {
    from: Corner,
    to: Corner,
    width_bytes: u64,
    height: u64,
}

/// `CU_MEMORYTYPE_HOST` and those whose address is in `device`: `_DEVICE` and `_UNIFIED`; 3 is `_ARRAY`.
const HOST: u32 = 1;
const DEVICE: u32 = 2;
const UNIFIED: u32 = 4;

impl Corner {
    /// Where the rectangle starts, how far apart its rows are, and what lies there.
    fn side(&self, driver: &Driver, width: u64, height: u64) -> Result<(u64, u64, Side), Code> {
        // A pitch of 0 is that of rows without gaps.
        let pitch = if self.pitch == 0 { width } else { self.pitch };
        if pitch < self.x_bytes.saturating_add(width) && height > 1 {
            return Err(Code::INVALID_VALUE);
        }
        let start = match self.kind {
            HOST => self.host,
            DEVICE | UNIFIED => self.device,
            _ => {
                say!("copies of arrays are not emulated: the answer is CUDA_ERROR_NOT_SUPPORTED");
                return Err(Code::NOT_SUPPORTED);
            }
        };
        let span = pitch
            .checked_mul(height - 1)
            .and_then(|rows| rows.checked_add(width))
            .ok_or(Code::INVALID_VALUE)?;
        let address = pitch
            .checked_mul(self.y)
            .and_then(|rows| start.checked_add(rows)?.checked_add(self.x_bytes))
            .ok_or(Code::INVALID_VALUE)?;
        let side = if self.kind == DEVICE {
            Side::known(driver, address, span)?
        } else {
            Side::of(driver, address, span)?
        };
        Ok((address, pitch, side))
    }
}

fn copy(
    driver: &'static Driver,
    rectangle: Out<Rectangle>,
    stream: u64,
    is_asynchronous: bool,
) -> Answer {
    let Rectangle {
        from,
        to,
        width_bytes: width,
        height,
    } = rectangle.get()?;
    let lane = Lane::of(driver, stream)?;
    if width == 0 || height == 0 {
        return Ok(());
    }
    let (to_start, to_pitch, to) = to.side(driver, width, height)?;
    let (from_start, from_pitch, from) = from.side(driver, width, height)?;
    let kind = movement(&to, &from);
    let within_device = to.is_device() && from.is_device();
    let waits = to.is_pageable()
        || from.is_pageable()
        || to.is_synchronous()
        || from.is_synchronous()
        || !is_asynchronous && !within_device;
    lane.submit(move || {
        driver.plan.at_call("copy")?;
        for row in 0..height {
            let (to_row, from_row) = (row * to_pitch, row * from_pitch);
            if let (Some(to), Some(from)) = (to.host(driver, width), from.host(driver, width)) {
                crate::copy::move_bytes(to + to_row, from + from_row, width);
            }
            crate::written::copy(
                &driver.space,
                to_start + to_row,
                from_start + from_row,
                width,
            );
        }
        driver.counters.count(kind, width * height);
        Ok(())
    });
    if waits { lane.wait() } else { Ok(()) }
}

functions! { driver;
    /// `cuMemcpy2D`.
    fn cuMemcpy2D_v2(rectangle: Out<Rectangle>) {
        copy(driver, rectangle, 0, false)
    }

    /// `cuMemcpy2DUnaligned`.
    fn cuMemcpy2DUnaligned_v2(rectangle: Out<Rectangle>) {
        copy(driver, rectangle, 0, false)
    }

    /// `cuMemcpy2DAsync`.
    fn cuMemcpy2DAsync_v2(rectangle: Out<Rectangle>, stream: u64) {
        copy(driver, rectangle, stream, true)
    }
}
