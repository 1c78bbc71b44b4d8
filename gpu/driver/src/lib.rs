//! The functions of `libcuda.so.1` that we call, each found by name when it is first called.
//!
//! Called by `gpu`, and by the cases and measurements of `gpu/conformance`; knows nothing of either. Takes cudarc's library and
//! structures, not its functions: those answer with an enum, and a code that a newer driver invents would be undefined behaviour
//! in it. Here a code is a number that the driver names. Handles and addresses are `u64`, as the cases pass wrong ones on purpose; every platform of CUDA passes them as it passes pointers.

#![allow(
    non_snake_case,
    clippy::too_many_arguments,
    reason = "the functions carry the driver's names and parameters, so that a reader finds them in its documentation"
)]

use std::ffi::{CStr, c_char, c_void};
use std::fmt;

use cudarc::driver::sys;

/// What a function of the driver answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub u32);

impl Code {
    /// The library has no such function.
    pub const ABSENT: Self = Self(u32::MAX);

    /// Whether this is `CUDA_SUCCESS`.
    pub fn is_ok(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Code {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ABSENT {
            return out.write_str("no such function");
        }
        let mut name: *const c_char = std::ptr::null();
        // SAFETY: the driver writes the address of a text that lives as long as the library, or leaves null.
        let text = unsafe {
            let known = cuGetErrorName(self.0, &mut name);
            (known.is_ok() && !name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy())
        };
        match text {
            Some(text) => out.write_str(&text),
            None => write!(out, "unnamed code {}", self.0),
        }
    }
}

/// Whether there is a driver to ask.
pub fn is_present() -> bool {
    // SAFETY: loading the system's CUDA library runs its initializers, which is what the program is for.
    unsafe { sys::is_culib_present() }
}

/// Where `name`, which ends with a zero, is in the driver's library.
pub fn locate(name: &str) -> Option<usize> {
    if !is_present() {
        return None;
    }
    // SAFETY: the library is present, so that cudarc does not panic; the symbol is only turned into a number here.
    unsafe {
        let found = sys::culib().get::<*const c_void>(name.as_bytes()).ok()?;
        Some((*found).addr())
    }
}

/// Declares functions by name and parameters; each answers [`Code::ABSENT`] where `$find` does not find it.
#[macro_export]
macro_rules! functions {
    ($find:path; $($name:ident($($argument:ident: $kind:ty),* $(,)?);)*) => {
        $(
            /// The driver's function of this name.
            ///
            /// # Safety
            /// As the driver's documentation says of its arguments.
            pub unsafe fn $name($($argument: $kind),*) -> $crate::Code {
                static ADDRESS: ::std::sync::OnceLock<Option<usize>> = ::std::sync::OnceLock::new();
                let Some(address) = *ADDRESS.get_or_init(|| $find(concat!(stringify!($name), "\0"))) else {
                    return $crate::Code::ABSENT;
                };
                let address = std::ptr::with_exposed_provenance::<::std::ffi::c_void>(address);
                // SAFETY: the library exports a C function of this name with these parameters and is never closed; the
                // caller answers for the arguments.
                unsafe {
                    let function = std::mem::transmute::<*const ::std::ffi::c_void, unsafe extern "C" fn($($kind),*) -> u32>(address);
                    $crate::Code(function($($argument),*))
                }
            }
        )*
    };
}

/// A handle of memory or of an event that another process can open.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct IpcHandle(pub [u8; 64]);

/// A function that the driver calls when a stream arrives at it.
pub type HostFunction = extern "C" fn(*mut c_void);

functions! { locate;
    cuInit(flags: u32);
    cuDriverGetVersion(version: &mut i32);
    cuGetErrorName(code: u32, name: &mut *const c_char);
    cuDeviceGet(device: &mut i32, ordinal: i32);
    cuDeviceGetCount(count: &mut i32);
    cuDeviceGetName(name: *mut u8, len: i32, device: i32);
    cuDeviceGetUuid_v2(uuid: &mut [u8; 16], device: i32);
    cuDeviceGetPCIBusId(text: *mut u8, len: i32, device: i32);
    cuDeviceTotalMem_v2(bytes: &mut usize, device: i32);
    cuDeviceGetAttribute(value: &mut i32, attribute: u32, device: i32);
    cuDeviceCanAccessPeer(can: &mut i32, device: i32, peer: i32);
    cuDevicePrimaryCtxRetain(context: &mut u64, device: i32);
    cuDevicePrimaryCtxRelease_v2(device: i32);
    cuDevicePrimaryCtxReset_v2(device: i32);
    cuDevicePrimaryCtxGetState(device: i32, flags: &mut u32, active: &mut i32);
    cuDevicePrimaryCtxSetFlags_v2(device: i32, flags: u32);
    cuCtxCreate_v2(context: &mut u64, flags: u32, device: i32);
    cuCtxDestroy_v2(context: u64);
    cuCtxGetCurrent(context: &mut u64);
    cuCtxSetCurrent(context: u64);
    cuCtxPushCurrent_v2(context: u64);
    cuCtxPopCurrent_v2(context: &mut u64);
    cuCtxGetDevice(device: &mut i32);
    cuCtxSynchronize();
    cuCtxGetStreamPriorityRange(least: &mut i32, greatest: &mut i32);
    cuCtxEnablePeerAccess(peer: u64, flags: u32);
    cuCtxDisablePeerAccess(peer: u64);
    cuMemGetInfo_v2(free: &mut usize, total: &mut usize);
    cuMemAlloc_v2(address: &mut u64, bytes: usize);
    cuMemAllocManaged(address: &mut u64, bytes: usize, flags: u32);
    cuMemFree_v2(address: u64);
    cuMemGetAddressRange_v2(base: &mut u64, bytes: &mut usize, address: u64);
    cuMemAllocAsync(address: &mut u64, bytes: usize, stream: u64);
    cuMemFreeAsync(address: u64, stream: u64);
    cuDeviceGetDefaultMemPool(pool: &mut u64, device: i32);
    cuMemPoolCreate(pool: &mut u64, properties: &sys::CUmemPoolProps);
    cuMemPoolDestroy(pool: u64);
    cuMemPoolGetAttribute(pool: u64, attribute: u32, value: &mut u64);
    cuMemPoolSetAttribute(pool: u64, attribute: u32, value: &mut u64);
    cuMemPoolTrimTo(pool: u64, keep: usize);
    cuMemAllocFromPoolAsync(address: &mut u64, bytes: usize, pool: u64, stream: u64);
    cuMemPoolExportToShareableHandle(file: &mut i32, pool: u64, kind: u32, flags: u64);
    cuPointerGetAttribute(value: *mut c_void, attribute: u32, address: u64);
    cuPointerSetAttribute(value: &u32, attribute: u32, address: u64);
    cuMemGetAllocationGranularity(bytes: &mut usize, properties: &sys::CUmemAllocationProp, option: u32);
    cuMemCreate(handle: &mut u64, bytes: usize, properties: &sys::CUmemAllocationProp, flags: u64);
    cuMemRelease(handle: u64);
    cuMemAddressReserve(address: &mut u64, bytes: usize, alignment: usize, wish: u64, flags: u64);
    cuMemAddressFree(address: u64, bytes: usize);
    cuMemMap(address: u64, bytes: usize, offset: usize, handle: u64, flags: u64);
    cuMemUnmap(address: u64, bytes: usize);
    cuMemSetAccess(address: u64, bytes: usize, access: &sys::CUmemAccessDesc, count: usize);
    cuMemExportToShareableHandle(file: &mut i32, handle: u64, kind: u32, flags: u64);
    cuMemImportFromShareableHandle(handle: &mut u64, file: u64, kind: u32);
    cuMemHostAlloc(address: &mut u64, bytes: usize, flags: u32);
    cuMemFreeHost(address: u64);
    cuMemHostGetDevicePointer_v2(device: &mut u64, host: u64, flags: u32);
    cuMemHostGetFlags(flags: &mut u32, host: u64);
    cuMemHostRegister_v2(address: u64, bytes: usize, flags: u32);
    cuMemHostUnregister(address: u64);
    cuMemcpy(to: u64, from: u64, bytes: usize);
    cuMemcpyAsync(to: u64, from: u64, bytes: usize, stream: u64);
    cuMemcpyHtoD_v2(to: u64, from: u64, bytes: usize);
    cuMemcpyDtoH_v2(to: u64, from: u64, bytes: usize);
    cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize);
    cuMemcpyHtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: u64);
    cuMemcpyDtoHAsync_v2(to: u64, from: u64, bytes: usize, stream: u64);
    cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: u64);
    cuMemcpyPeer(to: u64, to_context: u64, from: u64, from_context: u64, bytes: usize);
    cuMemcpyPeerAsync(to: u64, to_context: u64, from: u64, from_context: u64, bytes: usize, stream: u64);
    cuMemsetD8_v2(address: u64, value: u8, count: usize);
    cuMemsetD16_v2(address: u64, value: u16, count: usize);
    cuMemsetD32_v2(address: u64, value: u32, count: usize);
    cuMemsetD8Async(address: u64, value: u8, count: usize, stream: u64);
    cuMemsetD2D8_v2(address: u64, pitch: usize, value: u8, width: usize, height: usize);
    cuStreamCreate(stream: &mut u64, flags: u32);
    cuStreamCreateWithPriority(stream: &mut u64, flags: u32, priority: i32);
    cuStreamGetPriority(stream: u64, priority: &mut i32);
    cuStreamGetFlags(stream: u64, flags: &mut u32);
    cuStreamGetCtx(stream: u64, context: &mut u64);
    cuStreamQuery(stream: u64);
    cuStreamSynchronize(stream: u64);
    cuStreamDestroy_v2(stream: u64);
    cuStreamWaitEvent(stream: u64, event: u64, flags: u32);
    cuLaunchHostFunc(stream: u64, function: HostFunction, data: *mut c_void);
    cuEventCreate(event: &mut u64, flags: u32);
    cuEventRecord(event: u64, stream: u64);
    cuEventQuery(event: u64);
    cuEventSynchronize(event: u64);
    cuEventElapsedTime(milliseconds: &mut f32, start: u64, end: u64);
    cuEventDestroy_v2(event: u64);
    cuModuleLoadData(module: &mut u64, image: *const u8);
    cuModuleLoadDataEx(module: &mut u64, image: *const u8, count: u32, options: *const u32, values: *mut u64);
    cuModuleGetFunction(function: &mut u64, module: u64, name: *const u8);
    cuModuleGetGlobal_v2(address: &mut u64, bytes: &mut usize, module: u64, name: *const u8);
    cuModuleUnload(module: u64);
    cuFuncGetAttribute(value: &mut i32, attribute: u32, function: u64);
    cuFuncSetAttribute(function: u64, attribute: u32, value: i32);
    cuLaunchKernel(function: u64, grid_x: u32, grid_y: u32, grid_z: u32, block_x: u32, block_y: u32, block_z: u32,
        shared: u32, stream: u64, parameters: *mut *mut c_void, extra: *mut *mut c_void);
    cuIpcGetMemHandle(handle: &mut IpcHandle, address: u64);
    cuIpcOpenMemHandle_v2(address: &mut u64, handle: IpcHandle, flags: u32);
    cuIpcCloseMemHandle(address: u64);
    cuIpcGetEventHandle(handle: &mut IpcHandle, event: u64);
    cuIpcOpenEventHandle(event: &mut u64, handle: IpcHandle);
}
