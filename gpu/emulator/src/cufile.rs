//! cuFile: files read into device memory and written from it, without memory of the host in between.
//!
//! Reached as `libcufile.so.0`. Rules: cuFile API Reference Guide. What is not here is not exported, as programs look each function
//! up by name. Takes files of every file system, which hardware does not (docs/gpu-facts.md, Not asked).

use std::ffi::c_void;

use crate::call::{Out, guarded, lock};
use crate::code::Code;
use crate::counters::Movement;
use crate::driver::Driver;

/// `CUfileError_t`: cuFile's own code, 0 for success, and the driver's.
#[repr(C)]
struct Answer {
    own: i32,
    driver: u32,
}

/// `CUfileDescr_t` of a file descriptor: the kind 1.
#[repr(C)]
#[derive(Clone, Copy)]
struct Description {
    kind: i32,
    _gap: u32,
    /// One of the two members of a union of eight bytes.
    file: i32,
    _rest: u32,
    operations: u64,
}

const SUCCESS: Answer = Answer { own: 0, driver: 0 };
/// `CU_FILE_INVALID_VALUE` and `CU_FILE_CUDA_DRIVER_ERROR`.
const INVALID_VALUE: i32 = 5022;
const CUDA_DRIVER_ERROR: i32 = 5018;

/// `cuFileDriverOpen`.
#[unsafe(no_mangle)]
extern "C" fn cuFileDriverOpen() -> Answer {
    SUCCESS
}

/// `cuFileDriverClose`.
#[unsafe(no_mangle)]
extern "C" fn cuFileDriverClose() -> Answer {
    SUCCESS
}

/// `cuFileDriverClose` of CUDA 12.
#[unsafe(no_mangle)]
extern "C" fn cuFileDriverClose_v2() -> Answer {
    SUCCESS
}

/// `cuFileHandleRegister`: the handle is the descriptor and one, so that null is none.
#[unsafe(no_mangle)]
extern "C" fn cuFileHandleRegister(handle: Out<u64>, description: Out<Description>) -> Answer {
    let number = guarded("cuFileHandleRegister", || {
        let description = description.get()?;
        // SAFETY: asks for the flags of a descriptor, which may be none.
        let is_open = unsafe { libc::fcntl(description.file, libc::F_GETFD) } >= 0;
        if description.kind != 1 || !is_open {
            Err(Code::INVALID_VALUE)
        } else {
            handle.put(description.file as u64 + 1)
        }
    });
    Answer {
        own: if number == 0 { 0 } else { INVALID_VALUE },
        driver: 0,
    }
}

/// `cuFileHandleDeregister`.
#[unsafe(no_mangle)]
extern "C" fn cuFileHandleDeregister(_handle: u64) {}

/// `cuFileBufRegister`: the memory must be a device's.
#[unsafe(no_mangle)]
extern "C" fn cuFileBufRegister(address: u64, bytes: u64, _flags: i32) -> Answer {
    match guarded("cuFileBufRegister", || host_of(address, bytes).map(|_| ())) {
        0 => SUCCESS,
        code => Answer {
            own: CUDA_DRIVER_ERROR,
            driver: code,
        },
    }
}

/// `cuFileBufDeregister`.
#[unsafe(no_mangle)]
extern "C" fn cuFileBufDeregister(_address: u64) -> Answer {
    SUCCESS
}

/// Where the emulator finds device memory, and what keeps it there.
fn host_of(address: u64, bytes: u64) -> Result<(u64, crate::places::Place), Code> {
    let driver = Driver::get()?;
    let place = lock(&driver.places)
        .find(address)
        .cloned()
        .ok_or(Code::INVALID_VALUE)?;
    if !place.is_usable() || bytes > place.start + place.bytes - address {
        return Err(Code::INVALID_VALUE);
    }
    Ok((
        if place.is_host() {
            address
        } else {
            driver.space.host(address)
        },
        place,
    ))
}

type Transfer = unsafe extern "C" fn(i32, *mut c_void, usize, i64) -> isize;

/// Moves bytes until all are moved or the file ends. Below 0: cuFile's code, negated.
fn transfer(
    name: &'static str,
    with: Transfer,
    is_read: bool,
    handle: u64,
    address: u64,
    bytes: u64,
    offset: i64,
) -> isize {
    let mut moved = 0_u64;
    let number = guarded(name, || {
        let file = handle
            .checked_sub(1)
            .and_then(|file| i32::try_from(file).ok())
            .ok_or(Code::INVALID_HANDLE)?;
        let (host, _kept) = host_of(address, bytes)?;
        while moved < bytes {
            let at = std::ptr::with_exposed_provenance_mut((host + moved) as usize);
            // SAFETY: the memory was looked up with its size and is kept; the file is the program's.
            match unsafe { with(file, at, (bytes - moved) as usize, offset + moved as i64) } {
                0 => break,
                count @ 1.. => moved += count as u64,
                _ => return Err(Code::OPERATING_SYSTEM),
            }
        }
        let driver = Driver::get()?;
        if is_read {
            crate::written::mark(&driver.space, address, moved, true);
        }
        driver.counters.count(Movement::File, moved);
        Ok(())
    });
    if number == 0 {
        moved as isize
    } else {
        -(INVALID_VALUE as isize)
    }
}

unsafe extern "C" fn write(file: i32, from: *mut c_void, bytes: usize, offset: i64) -> isize {
    // SAFETY: the caller answers for the memory.
    unsafe { libc::pwrite(file, from, bytes, offset) }
}

/// `cuFileRead`: bytes read, below 0 for an error.
#[unsafe(no_mangle)]
extern "C" fn cuFileRead(
    handle: u64,
    address: u64,
    bytes: usize,
    file_offset: i64,
    offset: i64,
) -> isize {
    transfer(
        "cuFileRead",
        libc::pread,
        true,
        handle,
        address.wrapping_add_signed(offset),
        bytes as u64,
        file_offset,
    )
}

/// `cuFileWrite`: bytes written.
#[unsafe(no_mangle)]
extern "C" fn cuFileWrite(
    handle: u64,
    address: u64,
    bytes: usize,
    file_offset: i64,
    offset: i64,
) -> isize {
    transfer(
        "cuFileWrite",
        write,
        false,
        handle,
        address.wrapping_add_signed(offset),
        bytes as u64,
        file_offset,
    )
}
