//! Reads and writes of cuFile. Part of `cufile`.

use std::ffi::c_void;

use super::{Own, STATE, Wrong, planned};
use crate::call::{guarded, lock};
use crate::code::Code;
use crate::counters::Movement;
use crate::driver::Driver;

/// What parts of files and device memory have to be aligned to, to be moved without a buffer in between.
const PAGE_BYTES: u64 = 4 << 10;

/// Where the emulator finds device memory, and what keeps it there.
pub(super) fn memory(
    driver: &'static Driver,
    address: u64,
    bytes: u64,
) -> Result<(u64, crate::places::Place), Code> {
    let place = lock(&driver.places)
        .find(address)
        .cloned()
        .ok_or(Code::INVALID_VALUE)?;
    if !place.is_usable() || bytes > place.start + place.bytes - address {
        return Err(Code::INVALID_VALUE);
    }
    let host = if place.is_host() {
        address
    } else {
        driver.space.host(address)
    };
    Ok((host, place))
}

/// What is to be moved.
#[derive(Clone, Copy)]
struct Part {
    handle: u64,
    /// Of device memory, as the program named it for registering.
    base: u64,
    offset: i64,
    bytes: u64,
    file_offset: i64,
}

/// One of `pread` and `pwrite`, and how it is counted.
struct Way {
    name: &'static str,
    with: unsafe extern "C" fn(i32, *mut c_void, usize, i64) -> isize,
    direct: Movement,
    by_host: Movement,
    /// What the operating system says where the plan of faults wants it to.
    planned: i32,
}

enum Failed {
    Wrong(Wrong),
    /// `errno`.
    System(i32),
}

impl<E: Into<Wrong>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Wrong(error.into())
    }
}

/// Bytes moved; below 0 for an error: -1 for one of the operating system, in `errno`, or cuFile's code, negated (4.1.3).
fn transfer(way: &Way, part: Part) -> isize {
    let mut result = 0;
    guarded(way.name, || {
        result = match moved(way, part) {
            Ok(bytes) => bytes as isize,
            Err(Failed::Wrong(Wrong::Own(own))) => -(own.0 as isize),
            Err(Failed::Wrong(Wrong::Driver(_))) => -(Own::CUDA_DRIVER_ERROR.0 as isize),
            Err(Failed::System(number)) => {
                // SAFETY: the address is this thread's own.
                unsafe { *libc::__errno_location() = number };
                -1
            }
        };
        Ok(())
    });
    result
}

fn moved(way: &Way, part: Part) -> Result<u64, Failed> {
    let driver = Driver::get()?;
    match planned(driver, way.name) {
        Err(Code::OPERATING_SYSTEM) => return Err(Failed::System(way.planned)),
        planned => planned?,
    }
    if crate::context::on_top().is_err() {
        return Err(Own::INVALID_CONTEXT.into());
    }
    let (file, is_direct, is_registered) = {
        let state = lock(&STATE);
        let handle = state.handles.get(&part.handle);
        let takes_direct = *handle.ok_or(Own::HANDLE_NOT_REGISTERED)?;
        let end = part.offset as u64 + part.bytes;
        let registered = state.buffers.get(&part.base);
        (
            (part.handle - 1) as i32,
            takes_direct && state.is_direct(driver),
            registered.is_some_and(|bytes| part.offset >= 0 && end <= *bytes),
        )
    };
    let address = part.base.wrapping_add_signed(part.offset);
    let (host, _kept) = memory(driver, address, part.bytes)?;
    let parts = [address, part.bytes, part.file_offset as u64];
    if is_direct && parts.iter().any(|it| it % PAGE_BYTES != 0) {
        crate::call::say!("{} of parts of pages is not emulated", way.name);
        return Err(Own::IO_NOT_SUPPORTED.into());
    }
    let bytes = all_of(way, file, host, part)?;
    if matches!(way.direct, Movement::FileToDevice) {
        crate::written::mark(&driver.space, address, bytes, true);
    }
    if !is_direct {
        driver.counters.count(way.by_host, bytes);
        return Ok(bytes);
    }
    driver.counters.count(way.direct, bytes);
    if !is_registered {
        // Through memory of cuFile's own on the device (4.5).
        driver.counters.count(Movement::DeviceToDevice, bytes);
    }
    Ok(bytes)
}

/// Moves bytes until all are moved or the file ends.
fn all_of(way: &Way, file: i32, host: u64, part: Part) -> Result<u64, Failed> {
    let mut moved = 0;
    while moved < part.bytes {
        let at = std::ptr::with_exposed_provenance_mut((host + moved) as usize);
        let (left, from) = (
            (part.bytes - moved) as usize,
            part.file_offset + moved as i64,
        );
        // SAFETY: the caller has looked the memory up with its size and keeps it; the file is the program's.
        match unsafe { (way.with)(file, at, left, from) } {
            0 => break,
            count @ 1.. => {
                moved += count as u64;
                // The file ends there, and what is read past the page cache begins at pages.
                if moved % PAGE_BYTES != 0 && matches!(way.direct, Movement::FileToDevice) {
                    break;
                }
            }
            _ => {
                let error = std::io::Error::last_os_error();
                return Err(Failed::System(error.raw_os_error().unwrap_or(libc::EIO)));
            }
        }
    }
    Ok(moved)
}

unsafe extern "C" fn write(file: i32, from: *mut c_void, bytes: usize, offset: i64) -> isize {
    // SAFETY: the caller answers for the memory.
    unsafe { libc::pwrite(file, from, bytes, offset) }
}

/// `cuFileRead`: bytes read, below 0 for an error.
#[unsafe(no_mangle)]
extern "C" fn cuFileRead(
    handle: u64,
    base: u64,
    bytes: usize,
    file_offset: i64,
    offset: i64,
) -> isize {
    let way = Way {
        name: "cuFileRead",
        with: libc::pread,
        direct: Movement::FileToDevice,
        by_host: Movement::UploadPageable,
        planned: libc::EIO,
    };
    transfer(
        &way,
        Part {
            handle,
            base,
            offset,
            bytes: bytes as u64,
            file_offset,
        },
    )
}

/// `cuFileWrite`: bytes written.
#[unsafe(no_mangle)]
extern "C" fn cuFileWrite(
    handle: u64,
    base: u64,
    bytes: usize,
    file_offset: i64,
    offset: i64,
) -> isize {
    let way = Way {
        name: "cuFileWrite",
        with: write,
        direct: Movement::DeviceToFile,
        by_host: Movement::DownloadPageable,
        planned: libc::ENOSPC,
    };
    transfer(
        &way,
        Part {
            handle,
            base,
            offset,
            bytes: bytes as u64,
            file_offset,
        },
    )
}
