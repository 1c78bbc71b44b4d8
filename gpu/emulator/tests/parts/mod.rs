//! What the processes of `processes.rs` do, each with a machine that it finds in its environment.

#![allow(non_snake_case, reason = "the functions carry the driver's names")]

use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use transload_cuda_driver::*;

const MIB: usize = 1 << 20;

/// Does the part `name` and tells of it on standard output.
pub(crate) fn run(name: &str) {
    match name {
        "dereference" => dereference(),
        "hold_40_mib" => {
            start(0);
            device(40 * MIB);
            wait();
        }
        "allocate_40_mib" => {
            start(0);
            println!("{}", allocate(40 * MIB).0);
        }
        "upload_and_wait" => {
            start(0);
            let bytes = vec![1_u8; MIB];
            // The upload returns when its bytes are taken, which is before they are there.
            unsafe {
                cuMemcpyHtoD_v2(device(MIB), address_of(&bytes), MIB);
                cuCtxSynchronize();
            }
            wait();
        }
        "allocate_three_times" => {
            start(0);
            let [first, second, third] = [0; 3].map(|_| allocate(MIB).0);
            println!("{first} {second} {third}");
        }
        "allocate_and_free_in_one_stream" => allocate_and_free_in_one_stream(),
        "copy_twice" => copy_twice(),
        "call_what_is_not_emulated" => call_what_is_not_emulated(),
        "download_without_waiting" => download(false),
        "download_and_wait" => download(true),
        "store_to_another_device" => store_to_another_device(false),
        "store_to_a_peer" => store_to_another_device(true),
        "load_fresh_memory" | "load_what_was_copied" | "load_what_was_set" => load(name),
        "run_an_endless_kernel" => {
            start(0);
            println!("{}", launch(c"endless", 0));
        }
        "write_and_read_a_file_strictly" => write_and_read_a_file(true),
        "write_and_read_a_file_compatibly" => write_and_read_a_file(false),
        "open_cu_file_strictly" => open_cu_file_strictly(),
        "export_and_wait" => export_and_wait(),
        "open" => open(),
        "record_behind_an_endless_kernel" => record_behind_an_endless_kernel(),
        "wait_for_an_event" => wait_for_an_event(),
        "copy_a_rectangle" => copy_a_rectangle(),
        "ask_for_addresses" => ask_for_addresses(),
        _ => println!("there is no part {name}"),
    }
}

/// Starts CUDA with the context of a device current, and returns that.
fn start(device: i32) -> u64 {
    let mut context = 0;
    unsafe {
        cuInit(0);
        cuDevicePrimaryCtxRetain(&mut context, device);
        cuCtxSetCurrent(context);
    }
    context
}

fn allocate(bytes: usize) -> (Code, u64) {
    let mut address = 0;
    (unsafe { cuMemAlloc_v2(&mut address, bytes) }, address)
}

fn device(bytes: usize) -> u64 {
    allocate(bytes).1
}

fn pinned(bytes: usize) -> u64 {
    let mut address = 0;
    unsafe { cuMemHostAlloc(&mut address, bytes, 1) };
    address
}

fn address_of<T>(values: &[T]) -> u64 {
    values.as_ptr().expose_provenance() as u64
}

fn byte_at(address: u64) -> u8 {
    unsafe { std::ptr::with_exposed_provenance::<u8>(address as usize).read_volatile() }
}

fn wait() {
    println!("waits");
    let _ = std::io::stdin().read_line(&mut String::new());
}

fn dereference() {
    start(0);
    let address = device(MIB);
    println!("{}", byte_at(address));
}

/// More than fits at once, and each before the one before it is back.
fn allocate_and_free_in_one_stream() {
    start(0);
    for _ in 0..20 {
        let mut address = 0;
        unsafe {
            println!("{}", cuMemAllocAsync(&mut address, 40 * MIB, 0));
            cuMemsetD8Async(address, 1, 40 * MIB, 0);
            println!("{}", cuMemFreeAsync(address, 0));
        }
    }
    println!("{}", unsafe { cuCtxSynchronize() });
}

fn copy_twice() {
    start(0);
    let (here, host) = (device(MIB), pinned(MIB));
    unsafe {
        let first = cuMemcpyDtoH_v2(host, here, MIB);
        let second = cuMemcpyDtoH_v2(host, here, MIB);
        println!("{first} {second} {}", cuCtxSynchronize());
    }
}

functions! { locate;
    cuMemcpy2D_v2(rectangle: &[u64; 16]);
    cuArrayCreate_v2(array: &mut u64, description: u64);
    cuGetProcAddress_v2(name: *const u8, function: &mut u64, version: i32, flags: u64, status: *mut u32);
}

fn call_what_is_not_emulated() {
    start(0);
    println!("{}", unsafe { cuArrayCreate_v2(&mut 0, 0) });
}

/// A download whose bytes are used at once, with a wait before that or without.
fn download(waits: bool) {
    start(0);
    let (here, host, mut stream) = (device(MIB), pinned(MIB), 0);
    unsafe {
        cuMemsetD8_v2(here, 9, MIB);
        cuCtxSynchronize();
        cuStreamCreate(&mut stream, 1);
        for _ in 0..20 {
            std::ptr::with_exposed_provenance_mut::<u8>(host as usize).write_volatile(0);
            cuMemcpyDtoHAsync_v2(host, here, MIB, stream);
            if waits {
                cuStreamSynchronize(stream);
            }
            println!("{}", if byte_at(host) == 9 { "fresh" } else { "stale" });
            cuStreamSynchronize(stream);
        }
    }
}

const KERNELS: &str = ".version 7.0
.target sm_80
.address_size 64
.visible .entry store(.param .u64 address)
{
    .reg .b32 %r<2>;
    .reg .b64 %rd<2>;
    ld.param.u64 %rd1, [address];
    mov.u32 %r1, 11;
    st.global.u32 [%rd1], %r1;
    ret;
}
.visible .entry endless(.param .u64 address)
{
again:
    bra again;
}
.visible .entry increase(.param .u64 address)
{
    .reg .b32 %r<2>;
    .reg .b64 %rd<2>;
    ld.param.u64 %rd1, [address];
    ld.global.u32 %r1, [%rd1];
    add.u32 %r1, %r1, 1;
    st.global.u32 [%rd1], %r1;
    ret;
}
\0";

/// Runs a kernel of one thread with one address, and waits for it.
fn launch(name: &std::ffi::CStr, address: u64) -> Code {
    begin(name, address);
    unsafe { cuCtxSynchronize() }
}

/// Runs it without waiting.
fn begin(name: &std::ffi::CStr, mut address: u64) {
    let (mut module, mut function) = (0, 0);
    unsafe {
        cuModuleLoadData(&mut module, KERNELS.as_ptr());
        cuModuleGetFunction(&mut function, module, name.as_ptr().cast());
        let mut list = [std::ptr::from_mut(&mut address).cast()];
        let none = std::ptr::null_mut();
        cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, 0, list.as_mut_ptr(), none);
    }
}

fn store_to_another_device(is_peer: bool) {
    let second = start(1);
    let there = device(4);
    start(0);
    let host = pinned(4);
    unsafe {
        if is_peer {
            cuCtxEnablePeerAccess(second, 0);
        }
        let code = launch(c"store", there);
        cuMemcpyDtoH_v2(host, there, 4);
        println!("{code}, {} is there", byte_at(host));
    }
}

fn load(name: &str) {
    start(0);
    let (here, there) = (device(8), device(8));
    unsafe {
        match name {
            "load_what_was_set" => {
                cuMemsetD8_v2(here, 1, 4);
            }
            "load_what_was_copied" => {
                cuMemcpyHtoD_v2(there, pinned(4), 4);
                cuMemcpyDtoD_v2(here, there, 4);
            }
            _ => {}
        }
    }
    println!("{}", launch(c"increase", here));
}

/// `CUfileError_t`.
#[repr(C)]
struct Answer {
    own: i32,
    driver: u32,
}

fn cufile(symbol: &str) -> *mut std::ffi::c_void {
    unsafe {
        let library = libc::dlopen(c"libcufile.so.0".as_ptr(), libc::RTLD_NOW);
        libc::dlsym(library, symbol.as_ptr().cast())
    }
}

/// Opens cuFile, with compatibility mode or without.
fn open_cufile(allows_compatibility: bool) -> i32 {
    type Set = unsafe extern "C" fn(i32, bool) -> Answer;
    type Open = unsafe extern "C" fn() -> Answer;
    let (set, open) = (
        cufile("cuFileSetParameterBool\0"),
        cufile("cuFileDriverOpen\0"),
    );
    unsafe {
        let set = std::mem::transmute::<*mut std::ffi::c_void, Set>(set);
        let open = std::mem::transmute::<*mut std::ffi::c_void, Open>(open);
        assert_eq!(set(1, allows_compatibility).own, 0);
        open().own
    }
}

fn open_cu_file_strictly() {
    start(0);
    println!("{}", open_cufile(false));
}

fn write_and_read_a_file(is_strict: bool) {
    type Register = unsafe extern "C" fn(&mut u64, &[u64; 3]) -> Answer;
    type RegisterMemory = unsafe extern "C" fn(u64, usize, i32) -> Answer;
    type Transfer = unsafe extern "C" fn(u64, u64, usize, i64, i64) -> isize;
    start(0);
    assert_eq!(open_cufile(!is_strict), 0);
    let (from, to, mut handle) = (device(MIB), device(2 * MIB), 0);
    // Beside the program, as folders for temporary files are often in memory.
    let program = std::env::current_exe().expect("a path");
    let folder = tempfile::tempdir_in(program.parent().expect("a folder")).expect("a folder");
    let path = folder.path().join("file");
    let flags = if is_strict { libc::O_DIRECT } else { 0 };
    let mut options = std::fs::OpenOptions::new();
    let options = options.create(true).truncate(true).read(true).write(true);
    let file = options.custom_flags(flags).open(&path).expect("a file");
    unsafe {
        cuMemsetD8_v2(from, 5, MIB);
        cuCtxSynchronize();
        let register = std::mem::transmute::<*mut std::ffi::c_void, Register>(cufile(
            "cuFileHandleRegister\0",
        ));
        let register_memory = std::mem::transmute::<*mut std::ffi::c_void, RegisterMemory>(cufile(
            "cuFileBufRegister\0",
        ));
        let write = std::mem::transmute::<*mut std::ffi::c_void, Transfer>(cufile("cuFileWrite\0"));
        let read = std::mem::transmute::<*mut std::ffi::c_void, Transfer>(cufile("cuFileRead\0"));
        let answer = register(&mut handle, &[1, file.as_raw_fd() as u64, 0]);
        assert_eq!((answer.own, answer.driver), (0, 0));
        assert_eq!(register_memory(from, MIB, 0).own, 0);
        assert_eq!(register_memory(from, MIB, 0).own, 5023);
        assert_eq!(write(handle, from, MIB, 4096, 0), MIB as isize);
        // More than the file has: what there is comes.
        assert_eq!(read(handle, to, 2 * MIB, 4096, 0), MIB as isize);
        assert_eq!(read(handle + 77, to, MIB, 4096, 0), -5027);
        let host = pinned(MIB);
        cuMemcpyDtoH_v2(host, to, MIB);
        assert_eq!(byte_at(host + MIB as u64 - 1), 5);
    }
    let bytes = std::fs::read(&path).expect("read");
    assert!(
        bytes.iter().take(4096).all(|byte| *byte == 0)
            && bytes.iter().skip(4096).all(|byte| *byte == 5)
    );
    println!("right");
}

fn tell(handle: &IpcHandle) {
    let text: String = handle.0.iter().map(|byte| format!("{byte:02x}")).collect();
    println!("handle {text}");
}

/// The handle that the test has passed on.
fn told() -> IpcHandle {
    let text = std::env::var("HANDLE").unwrap_or_default();
    let byte = |index: usize| {
        text.get(2 * index..2 * index + 2)
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
    };
    IpcHandle(std::array::from_fn(|index| byte(index).unwrap_or(0)))
}

fn record_behind_an_endless_kernel() {
    start(0);
    let (mut event, mut handle) = (0, IpcHandle([0; 64]));
    unsafe {
        // Untimed and interprocess.
        cuEventCreate(&mut event, 6);
        cuIpcGetEventHandle(&mut handle, event);
        begin(c"endless", 0);
        cuEventRecord(event, 0);
    }
    tell(&handle);
    wait();
}

fn wait_for_an_event() {
    start(0);
    let mut event = 0;
    unsafe {
        cuIpcOpenEventHandle(&mut event, told());
        println!("{}", cuEventQuery(event));
        println!("waited: {}", cuEventSynchronize(event));
    }
}

fn export_and_wait() {
    start(0);
    let (address, mut handle) = (device(MIB), IpcHandle([0; 64]));
    unsafe {
        cuMemsetD8_v2(address, 77, MIB);
        cuCtxSynchronize();
        cuIpcGetMemHandle(&mut handle, address);
    }
    tell(&handle);
    wait();
}

fn open() {
    start(0);
    let handle = told();
    let (mut address, mut ordinal, host) = (0, -1_i32, pinned(4));
    unsafe {
        let code = cuIpcOpenMemHandle_v2(&mut address, handle, 1);
        // CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL.
        cuPointerGetAttribute(std::ptr::from_mut(&mut ordinal).cast(), 9, address);
        cuMemcpyDtoH_v2(host, address, 4);
        println!("{code}, device {ordinal}, byte {}", byte_at(host));
    }
}

/// Three rows of four bytes, ten apart in memory of the host, eight apart on the device.
fn copy_a_rectangle() {
    start(0);
    let (there, host) = (device(64), pinned(64));
    unsafe {
        cuMemsetD8_v2(there, 0, 64);
        cuMemsetD8_v2(host, 0, 64);
        for (row, column) in [0, 1, 2].into_iter().flat_map(|row| [(row, 2), (row, 5)]) {
            std::ptr::with_exposed_provenance_mut::<u8>((host + row * 10 + column) as usize)
                .write_volatile(9);
        }
        let from = [2, 0, 1, host, 0, 0, 10];
        let to = [0, 1, 2, 0, there, 0, 8];
        let words = from.into_iter().chain(to).chain([4, 3]);
        let mut rectangle = [0; 16];
        rectangle
            .iter_mut()
            .zip(words)
            .for_each(|(place, word)| *place = word);
        assert_eq!(cuMemcpy2D_v2(&rectangle).to_string(), "CUDA_SUCCESS");
        let back = pinned(64);
        cuMemcpyDtoH_v2(back, there, 64);
        let found: Vec<u64> = (0..64)
            .filter(|offset| byte_at(back + offset) == 9)
            .collect();
        assert_eq!(found, [8, 11, 16, 19, 24, 27]);
    }
    println!("right");
}

fn ask_for_addresses() {
    start(0);
    let (mut found, mut status) = (0, 9);
    unsafe {
        let code = cuGetProcAddress_v2(
            c"cuMemAlloc".as_ptr().cast(),
            &mut found,
            12080,
            0,
            &mut status,
        );
        assert_eq!((code.to_string().as_str(), status), ("CUDA_SUCCESS", 0));
        assert_eq!(Some(found as usize), locate("cuMemAlloc_v2\0"));
        let code = cuGetProcAddress_v2(
            c"cuNothing".as_ptr().cast(),
            &mut found,
            12080,
            0,
            &mut status,
        );
        assert_eq!(
            (code.to_string().as_str(), found, status),
            ("CUDA_ERROR_NOT_FOUND", 0, 1)
        );
    }
    println!("right");
}
