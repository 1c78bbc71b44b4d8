//! cuFile: whether it is there, and what it says of a file on an ordinary file system.

#![allow(non_snake_case, reason = "the functions carry the library's names")]

use std::ffi::c_void;

use crate::facts::Facts;
use crate::tools::{MIB, device, ready};

/// `CUfileError_t`: cuFile's own code (0 is success) and the driver's, both in one register.
#[repr(C)]
struct Answer {
    own: i32,
    driver: u32,
}

/// `CUfileDescr_t` for a file descriptor.
#[repr(C)]
struct Description {
    kind: i32,
    file: u64,
    operations: u64,
}

fn address(symbol: &str) -> Option<*const c_void> {
    let found =
        super::find(c"libcufile.so.0", symbol).or_else(|| super::find(c"libcufile.so", symbol))?;
    Some(std::ptr::with_exposed_provenance(found))
}

fn tell(facts: &Facts, name: &str, answer: &Answer) {
    facts.environment(name, format!("{} (driver {})", answer.own, answer.driver));
}

/// The case `device/cufile`. All its answers are environment: the library is often absent.
pub(crate) fn ask(facts: &Facts) {
    ready();
    let Some(open) = address("cuFileDriverOpen\0") else {
        return facts.environment("library", "absent");
    };
    facts.environment("library", "present");
    // SAFETY: the symbol has this signature; the description is of an open file.
    unsafe {
        let open = std::mem::transmute::<*const c_void, unsafe extern "C" fn() -> Answer>(open);
        tell(facts, "driver_open", &open());
        let path = c"/tmp/transload-gpu-conformance";
        let file = libc::open(
            path.as_ptr(),
            libc::O_CREAT | libc::O_RDWR | libc::O_DIRECT,
            0o600,
        );
        facts.environment("file_with_o_direct", file >= 0);
        let Some(register) = address("cuFileHandleRegister\0") else {
            return;
        };
        let register = std::mem::transmute::<
            *const c_void,
            unsafe extern "C" fn(&mut u64, &Description) -> Answer,
        >(register);
        let mut handle = 0;
        let answer = register(
            &mut handle,
            &Description {
                kind: 1,
                file: file as u64,
                operations: 0,
            },
        );
        tell(facts, "handle_register", &answer);
        if answer.own == 0 {
            transfer(facts, handle);
        }
        libc::unlink(path.as_ptr());
    }
}

fn transfer(facts: &Facts, handle: u64) {
    type Move = unsafe extern "C" fn(u64, u64, usize, i64, i64) -> isize;
    let memory = device(MIB);
    for (name, symbol) in [("write", "cuFileWrite\0"), ("read", "cuFileRead\0")] {
        if let Some(found) = address(symbol) {
            // SAFETY: the symbol has this signature; the memory has one mebibyte.
            let bytes = unsafe {
                std::mem::transmute::<*const c_void, Move>(found)(handle, memory, MIB, 0, 0)
            };
            facts.environment(&format!("{name}_of_1_mib"), bytes);
        }
    }
}
