//! What cases do again and again: start CUDA, take memory, hold a stream back, look at host memory.
//!
//! Called by cases and measurements. Frees nothing that is not asked for: a case's process ends soon.

use std::ffi::c_void;
use std::sync::OnceLock;

use crate::driver::{
    Code, cuCtxSetCurrent, cuCtxSynchronize, cuDevicePrimaryCtxRetain, cuEventCreate, cuInit,
    cuLaunchKernel, cuMemAlloc_v2, cuMemAllocAsync, cuMemFree_v2, cuMemHostAlloc,
    cuMemHostRegister_v2, cuMemcpyDtoDAsync_v2, cuMemsetD8Async, cuModuleGetFunction,
    cuModuleLoadData, cuStreamCreate,
};
use crate::kernels;

/// One mebibyte.
pub(crate) const MIB: usize = 1 << 20;
/// `CU_STREAM_NON_BLOCKING`.
pub(crate) const NON_BLOCKING: u32 = 1;

/// Starts CUDA on device 0 with its primary context current, and returns that.
pub(crate) fn ready() -> u64 {
    let mut context = 0;
    // SAFETY: the pointer is of a local; contexts are handles of the driver's own.
    unsafe {
        cuInit(0);
        cuDevicePrimaryCtxRetain(&mut context, 0);
        cuCtxSetCurrent(context);
    }
    context
}

/// Device memory of the legacy kind; 0 where there is none.
pub(crate) fn device(bytes: usize) -> u64 {
    let mut address = 0;
    // SAFETY: the pointer is of a local.
    unsafe { cuMemAlloc_v2(&mut address, bytes) };
    address
}

/// Device memory of the default pool, ready to be used.
pub(crate) fn pooled(bytes: usize) -> u64 {
    let mut address = 0;
    // SAFETY: the pointers are of locals; stream 0 exists.
    unsafe {
        cuMemAllocAsync(&mut address, bytes, 0);
        crate::driver::cuStreamSynchronize(0);
    }
    address
}

/// Page-locked host memory, portable and cached.
pub(crate) fn pinned(bytes: usize) -> u64 {
    let mut address = 0;
    // SAFETY: the pointer is of a local.
    unsafe { cuMemHostAlloc(&mut address, bytes, 1) };
    address
}

/// Whole pages of ordinary memory, zeroed and never given back.
pub(crate) fn pages(bytes: usize) -> u64 {
    map(
        bytes,
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        -1,
    )
}

/// Pages as `mmap` maps them; 0 where it does not.
pub(crate) fn map(bytes: usize, protection: i32, flags: i32, file: i32) -> u64 {
    // SAFETY: a fresh mapping at an address of the kernel's choice disturbs nothing.
    let address = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, file, 0) };
    if address == libc::MAP_FAILED {
        0
    } else {
        address.expose_provenance() as u64
    }
}

/// Ordinary pages that the driver has page-locked afterwards.
pub(crate) fn registered(bytes: usize) -> u64 {
    let address = pages(bytes);
    // SAFETY: the pages are ours and stay mapped.
    unsafe { cuMemHostRegister_v2(address, bytes, 0) };
    address
}

/// A stream: blocking with flags 0.
pub(crate) fn stream(flags: u32) -> u64 {
    let mut stream = 0;
    // SAFETY: the pointer is of a local.
    unsafe { cuStreamCreate(&mut stream, flags) };
    stream
}

/// An event; flags 2 leave out its time.
pub(crate) fn event(flags: u32) -> u64 {
    let mut event = 0;
    // SAFETY: the pointer is of a local.
    unsafe { cuEventCreate(&mut event, flags) };
    event
}

/// The kernel `name` of [`kernels::GOOD`]; `name` ends with a zero.
pub(crate) fn kernel(name: &str) -> u64 {
    static MODULE: OnceLock<u64> = OnceLock::new();
    let mut function = 0;
    // SAFETY: both texts end with a zero; the pointers are of locals.
    unsafe {
        let module = *MODULE.get_or_init(|| {
            let mut module = 0;
            cuModuleLoadData(&mut module, kernels::GOOD.as_ptr());
            module
        });
        cuModuleGetFunction(&mut function, module, name.as_ptr());
    }
    function
}

/// Launches `function` in `grid` blocks of `block` threads; every parameter is the low bytes of one word.
pub(crate) fn launch(
    function: u64,
    grid: u32,
    block: u32,
    shared: u32,
    stream: u64,
    words: &mut [u64],
) -> Code {
    let mut parameters: Vec<*mut c_void> = words
        .iter_mut()
        .map(|word| std::ptr::from_mut(word).cast())
        .collect();
    // SAFETY: the driver copies the parameters before it returns; no kernel has a parameter of more than eight bytes.
    unsafe {
        cuLaunchKernel(
            function,
            grid,
            1,
            1,
            block,
            1,
            1,
            shared,
            stream,
            parameters.as_mut_ptr(),
            std::ptr::null_mut(),
        )
    }
}

/// Runs each kind of work once: the driver loads its own kernels when they are first needed, and may wait for the device then.
fn warm(address: u64) {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let second = device(4096);
        // SAFETY: both memories have 4096 bytes.
        unsafe {
            cuMemsetD8Async(address, 0, 4096, 0);
            cuMemsetD8Async(second, 0, 4096, 0);
            cuMemcpyDtoDAsync_v2(second, address, 4096, 0);
            cuMemFree_v2(second);
            cuCtxSynchronize();
        }
        launch(kernel("store\0"), 1, 1, 0, 0, &mut [address, 0]);
        // Or it would close a gate that is opened soon.
        // SAFETY: waits.
        unsafe { cuCtxSynchronize() };
    });
}

/// Holds a stream back until it is opened: what is "not done yet" is then true without a clock.
pub(crate) struct Gate {
    flag: u64,
}

impl Gate {
    /// A gate that is closed, in `stream`. Opens by itself after five seconds.
    pub(crate) fn closed(stream: u64) -> Self {
        let flag = pinned(4096);
        warm(flag);
        write(flag, 0);
        launch(kernel("gate\0"), 1, 1, 0, stream, &mut [flag]);
        Self { flag }
    }

    /// Lets the stream go on.
    pub(crate) fn open(&self) {
        write(self.flag, 1);
    }
}

/// The word at `address` of host memory; 0 for address 0.
pub(crate) fn read(address: u64) -> u32 {
    if address == 0 {
        return 0;
    }
    // SAFETY: callers pass host memory that is mapped and aligned; the device may write it meanwhile, hence volatile.
    unsafe { std::ptr::with_exposed_provenance::<u32>(address as usize).read_volatile() }
}

/// Writes the word at `address` of host memory; nothing for address 0.
pub(crate) fn write(address: u64, value: u32) {
    if address != 0 {
        // SAFETY: as for `read`; nothing in this process holds a reference to that memory.
        unsafe {
            std::ptr::with_exposed_provenance_mut::<u32>(address as usize).write_volatile(value)
        }
    }
}
