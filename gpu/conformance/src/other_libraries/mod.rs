//! Libraries beside the driver, each loaded by name when it is there.
//!
//! Called by the cases of `cases::surroundings`.

pub(crate) mod cufile;
pub(crate) mod nvml;

use std::ffi::CStr;

/// Where `symbol`, which ends with a zero, is in `library`; the library stays open.
fn find(library: &CStr, symbol: &str) -> Option<usize> {
    let symbol = CStr::from_bytes_with_nul(symbol.as_bytes()).ok()?;
    // SAFETY: both texts end with a zero; NVIDIA's libraries run initializers of their own, which is what is asked for.
    let address = unsafe {
        let handle = libc::dlopen(library.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL);
        if handle.is_null() {
            return None;
        }
        libc::dlsym(handle, symbol.as_ptr())
    };
    (!address.is_null()).then(|| address.expose_provenance())
}
