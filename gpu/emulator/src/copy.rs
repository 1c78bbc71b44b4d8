//! Copies: what is checked at the call, what is counted, and who waits.
//!
//! Exports the copying functions of one dimension. Rules: CUDA Driver API, 4 API synchronization behavior, and docs/gpu-facts.md,
//! Copies and surprises 6 and 9.

use std::sync::Arc;

use crate::call::{functions, say};
use crate::code::Answer;
use crate::counters::Movement;
use crate::driver::Driver;
use crate::side::{Side, movement};
use crate::stream_calls::Lane;

/// Up to this size an upload of pageable memory takes its bytes at the call and returns; above it waits.
const STAGED_BYTES: u64 = 1 << 20;

/// Moves bytes; ranges may overlap.
pub(crate) fn move_bytes(to: u64, from: u64, bytes: u64) {
    // SAFETY: both sides were looked up with this size and are kept by the caller, or are the program's own to answer for.
    unsafe {
        std::ptr::copy(
            std::ptr::with_exposed_provenance::<u8>(from as usize),
            std::ptr::with_exposed_provenance_mut::<u8>(to as usize),
            bytes as usize,
        );
    }
}

/// Whether the caller waits, whatever the memory is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    /// As the synchronous functions do.
    AsSynchronous,
    /// Where pageable memory demands it.
    AsAsynchronous,
}

/// Copies `bytes` between two sides in a lane.
pub(crate) fn copy(
    driver: &'static Driver,
    lane: &Lane,
    to: Side,
    from: Side,
    bytes: u64,
    waits: Waits,
) -> Answer {
    let kind = movement(&to, &from);
    let is_staged = from.is_pageable() && to.is_device() && bytes <= STAGED_BYTES;
    let must_wait = match kind {
        Movement::UploadPageable => !is_staged,
        Movement::DownloadPageable | Movement::HostToHost => true,
        // Between devices nobody waits, not even in the synchronous functions.
        Movement::DeviceToDevice | Movement::Ipc | Movement::Peer => false,
        _ => waits == Waits::AsSynchronous,
    } || to.is_synchronous()
        || from.is_synchronous();
    let staged = match (&from, is_staged) {
        (Side::Pageable { address }, true) => Some(bytes_at(*address, bytes)),
        _ => None,
    };
    let (to_address, from_address) = (to.address(), from.address());
    lane.submit(move || {
        driver.plan.at_call("copy")?;
        if let Some(to) = to.host(driver, bytes) {
            match &staged {
                Some(copy) => move_bytes(to, copy.as_ptr().expose_provenance() as u64, bytes),
                None => from
                    .host(driver, bytes)
                    .into_iter()
                    .for_each(|from| move_bytes(to, from, bytes)),
            }
        }
        crate::written::copy(&driver.space, to_address, from_address, bytes);
        driver.counters.count(kind, bytes);
        Ok(())
    });
    if must_wait { lane.wait() } else { Ok(()) }
}

/// A copy of pageable memory as it is now.
fn bytes_at(address: u64, bytes: u64) -> Vec<u8> {
    let mut copy = vec![0; bytes as usize];
    move_bytes(copy.as_mut_ptr().expose_provenance() as u64, address, bytes);
    copy
}

/// How the sides of a function are looked up.
#[derive(Clone, Copy)]
enum Names {
    /// Both may be anything.
    Nothing,
    /// The destination must be known.
    HostToDevice,
    DeviceToHost,
    DeviceToDevice,
}

fn named(
    driver: &'static Driver,
    to: u64,
    from: u64,
    bytes: u64,
    stream: u64,
    names: Names,
    waits: Waits,
) -> Answer {
    let lane = Lane::of(driver, stream)?;
    if bytes == 0 {
        return Ok(());
    }
    let side = |is_known: bool, address| {
        if is_known {
            Side::known(driver, address, bytes)
        } else {
            Side::of(driver, address, bytes)
        }
    };
    let to = side(
        matches!(names, Names::HostToDevice | Names::DeviceToDevice),
        to,
    )?;
    let from = side(
        matches!(names, Names::DeviceToHost | Names::DeviceToDevice),
        from,
    )?;
    copy(driver, &lane, to, from, bytes, waits)
}

/// A copy between devices. Without peer access hardware stages it through the host, which is told once.
fn peer(
    driver: &'static Driver,
    to: u64,
    to_context: u64,
    from: u64,
    from_context: u64,
    bytes: u64,
    stream: u64,
) -> Answer {
    let (to_device, from_device) = (
        driver.handles.context(to_context)?,
        driver.handles.context(from_context)?,
    );
    let (to_device, from_device) = (
        Arc::clone(to_device.device()),
        Arc::clone(from_device.device()),
    );
    let is_peer = |device: &crate::device::Device, other: &crate::device::Device| {
        device.peers.load(std::sync::atomic::Ordering::SeqCst) >> other.ordinal & 1 == 1
    };
    if to_device.ordinal != from_device.ordinal
        && !is_peer(&to_device, &from_device)
        && !is_peer(&from_device, &to_device)
    {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| say!("a copy between devices that are not peers: hardware would stage it through the host"));
    }
    named(
        driver,
        to,
        from,
        bytes,
        stream,
        Names::DeviceToDevice,
        Waits::AsAsynchronous,
    )
}

functions! { driver;
    /// `cuMemcpy`: between any two kinds of memory.
    fn cuMemcpy(to: u64, from: u64, bytes: u64) {
        named(driver, to, from, bytes, 0, Names::Nothing, Waits::AsSynchronous)
    }

    /// `cuMemcpyAsync`.
    fn cuMemcpyAsync(to: u64, from: u64, bytes: u64, stream: u64) {
        named(driver, to, from, bytes, stream, Names::Nothing, Waits::AsAsynchronous)
    }

    /// `cuMemcpyHtoD`.
    fn cuMemcpyHtoD_v2(to: u64, from: u64, bytes: u64) {
        named(driver, to, from, bytes, 0, Names::HostToDevice, Waits::AsSynchronous)
    }

    /// `cuMemcpyHtoDAsync`.
    fn cuMemcpyHtoDAsync_v2(to: u64, from: u64, bytes: u64, stream: u64) {
        named(driver, to, from, bytes, stream, Names::HostToDevice, Waits::AsAsynchronous)
    }

    /// `cuMemcpyDtoH`.
    fn cuMemcpyDtoH_v2(to: u64, from: u64, bytes: u64) {
        named(driver, to, from, bytes, 0, Names::DeviceToHost, Waits::AsSynchronous)
    }

    /// `cuMemcpyDtoHAsync`.
    fn cuMemcpyDtoHAsync_v2(to: u64, from: u64, bytes: u64, stream: u64) {
        named(driver, to, from, bytes, stream, Names::DeviceToHost, Waits::AsAsynchronous)
    }

    /// `cuMemcpyDtoD`: does not wait for the copy.
    fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: u64) {
        named(driver, to, from, bytes, 0, Names::DeviceToDevice, Waits::AsAsynchronous)
    }

    /// `cuMemcpyDtoDAsync`.
    fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: u64, stream: u64) {
        named(driver, to, from, bytes, stream, Names::DeviceToDevice, Waits::AsAsynchronous)
    }

    /// `cuMemcpyPeer`.
    fn cuMemcpyPeer(to: u64, to_context: u64, from: u64, from_context: u64, bytes: u64) {
        peer(driver, to, to_context, from, from_context, bytes, 0)
    }

    /// `cuMemcpyPeerAsync`.
    fn cuMemcpyPeerAsync(to: u64, to_context: u64, from: u64, from_context: u64, bytes: u64, stream: u64) {
        peer(driver, to, to_context, from, from_context, bytes, stream)
    }
}
