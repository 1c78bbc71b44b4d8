//! What a function of the driver answers, by number and by name.
//!
//! Used by every part. Numbers are those of `CUresult` (CUDA Driver API, 6.1 Data types used by CUDA driver).

use std::ffi::CStr;

/// An answer that is no success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Code(pub(crate) u32);

/// What the body of a function of the driver gives.
pub(crate) type Answer = Result<(), Code>;

macro_rules! codes {
    ($($name:ident = $number:literal $text:literal;)*) => {
        impl Code {
            $(
                #[doc = concat!("`CUDA_ERROR_", stringify!($name), "`.")]
                #[allow(dead_code, reason = "the list is that of the documentation, and fault plans name any of it")]
                pub(crate) const $name: Self = Self($number);
            )*

            /// The name that `cuGetErrorName` gives; `None` for a number that is no code.
            pub(crate) fn name(number: u32) -> Option<&'static CStr> {
                let text = match number {
                    0 => "CUDA_SUCCESS\0",
                    $($number => concat!("CUDA_ERROR_", stringify!($name), "\0"),)*
                    _ => return None,
                };
                CStr::from_bytes_with_nul(text.as_bytes()).ok()
            }

            /// What `cuGetErrorString` says.
            pub(crate) fn words(number: u32) -> Option<&'static CStr> {
                let text = match number {
                    0 => "no error\0",
                    $($number => concat!($text, "\0"),)*
                    _ => return None,
                };
                CStr::from_bytes_with_nul(text.as_bytes()).ok()
            }

            /// The code of this name, with or without `CUDA_ERROR_`.
            pub(crate) fn named(name: &str) -> Option<Self> {
                match name.strip_prefix("CUDA_ERROR_").unwrap_or(name) {
                    $(stringify!($name) => Some(Self($number)),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    INVALID_VALUE = 1 "invalid argument";
    OUT_OF_MEMORY = 2 "out of memory";
    NOT_INITIALIZED = 3 "initialization error";
    DEINITIALIZED = 4 "driver shutting down";
    NO_DEVICE = 100 "no CUDA-capable device is detected";
    INVALID_DEVICE = 101 "invalid device ordinal";
    INVALID_IMAGE = 200 "device kernel image is invalid";
    INVALID_CONTEXT = 201 "invalid device context";
    MAP_FAILED = 205 "mapping of buffer object failed";
    UNMAP_FAILED = 206 "unmapping of buffer object failed";
    NO_BINARY_FOR_GPU = 209 "no kernel image is available for execution on the device";
    ECC_UNCORRECTABLE = 214 "uncorrectable ECC error encountered";
    UNSUPPORTED_LIMIT = 215 "limit is not supported on this architecture";
    PEER_ACCESS_UNSUPPORTED = 217 "peer access is not supported between these two devices";
    INVALID_PTX = 218 "a PTX JIT compilation failed";
    NVLINK_UNCORRECTABLE = 220 "uncorrectable NVLink error detected during the execution";
    UNSUPPORTED_PTX_VERSION = 222 "the provided PTX was compiled with an unsupported toolchain.";
    INVALID_SOURCE = 300 "device kernel image is invalid";
    FILE_NOT_FOUND = 301 "file not found";
    OPERATING_SYSTEM = 304 "OS call failed or operation not supported on this OS";
    INVALID_HANDLE = 400 "invalid resource handle";
    ILLEGAL_STATE = 401 "the operation cannot be performed in the present state";
    NOT_FOUND = 500 "named symbol not found";
    NOT_READY = 600 "device not ready";
    ILLEGAL_ADDRESS = 700 "an illegal memory access was encountered";
    LAUNCH_OUT_OF_RESOURCES = 701 "too many resources requested for launch";
    LAUNCH_TIMEOUT = 702 "the launch timed out and was terminated";
    PEER_ACCESS_ALREADY_ENABLED = 704 "peer access is already enabled";
    PEER_ACCESS_NOT_ENABLED = 705 "peer access has not been enabled";
    CONTEXT_IS_DESTROYED = 709 "context is destroyed";
    ASSERT = 710 "device-side assert triggered";
    HOST_MEMORY_ALREADY_REGISTERED = 712 "part or all of the requested memory range is already mapped";
    HOST_MEMORY_NOT_REGISTERED = 713 "pointer does not correspond to a registered memory region";
    HARDWARE_STACK_ERROR = 714 "hardware stack error";
    ILLEGAL_INSTRUCTION = 715 "an illegal instruction was encountered";
    MISALIGNED_ADDRESS = 716 "misaligned address";
    INVALID_ADDRESS_SPACE = 717 "operation not supported on global/shared address space";
    INVALID_PC = 718 "invalid program counter";
    LAUNCH_FAILED = 719 "unspecified launch failure";
    NOT_PERMITTED = 800 "operation not permitted";
    NOT_SUPPORTED = 801 "operation not supported";
    SYSTEM_NOT_READY = 802 "system not yet initialized";
    STREAM_CAPTURE_UNSUPPORTED = 900 "operation not permitted when stream is capturing";
    UNKNOWN = 999 "unknown error";
}

impl Code {
    /// Whether this code ends the use of the device by its process: "the context cannot be used", "the process must be
    /// terminated and relaunched" in the documentation of `CUresult`.
    pub(crate) fn is_sticky(self) -> bool {
        matches!(self.0, 214 | 220 | 700 | 702 | 710 | 714..=719)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_found_by_its_name_with_and_without_the_prefix() {
        assert_eq!(
            Code::named("CUDA_ERROR_OUT_OF_MEMORY"),
            Some(Code::OUT_OF_MEMORY)
        );
        assert_eq!(Code::named("ECC_UNCORRECTABLE"), Some(Code(214)));
        assert_eq!(Code::named("OUT_OF_LUCK"), None);
    }
}
