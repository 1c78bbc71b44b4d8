//! Cases about virtual memory management: reserve, create, map, allow, export.

use cudarc::driver::sys;

use super::cases;
use super::pointer::tell_all;
use crate::child::Process;
use crate::driver::*;
use crate::facts::Facts;
use crate::tools::{MIB, ready};

cases! { CASES;
    "virtual/lifecycle", "every step, in order and out of order", lifecycle;
    "virtual/pointer", "pointer attributes and IPC of mapped memory", pointer;
    "virtual/export", "export as a file and import in the same process", export;
    "virtual/other-process", "export as a file and import in another process", other_process;
}

fn properties(handles: u32) -> sys::CUmemAllocationProp {
    sys::CUmemAllocationProp {
        type_: sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED,
        requestedHandleTypes: sys::CUmemAllocationHandleType_enum(handles),
        location: location(),
        win32HandleMetaData: std::ptr::null_mut(),
        allocFlags: sys::CUmemAllocationProp_st__bindgen_ty_1 {
            compressionType: 0,
            gpuDirectRDMACapable: 0,
            usage: 0,
            reserved: [0; 4],
        },
    }
}

fn location() -> sys::CUmemLocation {
    sys::CUmemLocation {
        type_: sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE,
        id: 0,
    }
}

fn access() -> sys::CUmemAccessDesc {
    sys::CUmemAccessDesc {
        location: location(),
        flags: sys::CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READWRITE,
    }
}

fn lifecycle(facts: &Facts) {
    ready();
    let size = 4 * MIB;
    let (mut least, mut best, mut address, mut handle) = (0, 0, 0, 0);
    // SAFETY: pointers are of locals; steps out of order are refused or leave the range unmapped, and the host never reads it.
    unsafe {
        facts.code(
            "granularity",
            cuMemGetAllocationGranularity(&mut least, &properties(0), 0),
        );
        cuMemGetAllocationGranularity(&mut best, &properties(0), 1);
        facts.environment("granularity_least", least);
        facts.environment("granularity_best", best);
        facts.code(
            "create_odd_size",
            cuMemCreate(&mut handle, 1000, &properties(0), 0),
        );
        facts.code(
            "create_nothing",
            cuMemCreate(&mut handle, 0, &properties(0), 0),
        );
        facts.code(
            "create_too_much",
            cuMemCreate(&mut handle, 1 << 50, &properties(0), 0),
        );
        facts.code("create", cuMemCreate(&mut handle, size, &properties(0), 0));
        facts.code(
            "reserve_odd_size",
            cuMemAddressReserve(&mut address, 1000, 0, 0, 0),
        );
        facts.code("reserve", cuMemAddressReserve(&mut address, size, 0, 0, 0));
        facts.code(
            "access_before_map",
            cuMemSetAccess(address, size, &access(), 1),
        );
        facts.code("map", cuMemMap(address, size, 0, handle, 0));
        facts.code("map_twice", cuMemMap(address, size, 0, handle, 0));
        facts.code("release_while_mapped", cuMemRelease(handle));
        facts.code("free_address_while_mapped", cuMemAddressFree(address, size));
        facts.code("memset_before_access", cuMemsetD8_v2(address, 3, size));
        facts.code("access", cuMemSetAccess(address, size, &access(), 1));
        facts.code("memset", cuMemsetD8_v2(address, 3, size));
        facts.code("cuMemFree", cuMemFree_v2(address));
        facts.code("unmap_part", cuMemUnmap(address, size / 2));
        facts.code("unmap", cuMemUnmap(address, size));
        facts.code("memset_after_unmap", cuMemsetD8_v2(address, 3, size));
        facts.code("free_address", cuMemAddressFree(address, size));
        facts.code("release_again", cuMemRelease(handle));
        facts.code("synchronize", cuCtxSynchronize());
    }
}

/// Mapped memory that the device may use, and its handle.
fn mapped(size: usize, handles: u32) -> (u64, u64) {
    let (mut address, mut handle) = (0, 0);
    // SAFETY: pointers are of locals.
    unsafe {
        cuMemCreate(&mut handle, size, &properties(handles), 0);
        cuMemAddressReserve(&mut address, size, 0, 0, 0);
        cuMemMap(address, size, 0, handle, 0);
        cuMemSetAccess(address, size, &access(), 1);
    }
    (address, handle)
}

/// Usable memory of `size` bytes with as many reserved and unmapped addresses behind it.
pub(super) fn half_mapped(size: usize) -> u64 {
    let (mut address, mut handle) = (0, 0);
    // SAFETY: pointers are of locals.
    unsafe {
        cuMemCreate(&mut handle, size, &properties(0), 0);
        cuMemAddressReserve(&mut address, 2 * size, 0, 0, 0);
        cuMemMap(address, size, 0, handle, 0);
        cuMemSetAccess(address, size, &access(), 1);
    }
    address
}

fn other_process(facts: &Facts) {
    ready();
    let size = 4 * MIB;
    let (address, handle) = mapped(size, 1);
    let mut file = -1;
    // SAFETY: pointers are of locals; the file is one that the driver has opened for us.
    unsafe {
        cuMemsetD32_v2(address, 42, 4);
        cuCtxSynchronize();
        facts.code(
            "export",
            cuMemExportToShareableHandle(&mut file, handle, 1, 0),
        );
        // The driver's file would be closed in the helper; passing it on is what a socket does otherwise.
        libc::fcntl(file, libc::F_SETFD, 0);
    }
    let Ok(mut other) = Process::helper("import-file", &[&file.to_string()]) else {
        return facts.fact("helper", "did not start");
    };
    other.until_it_waits(&facts.within("while_owned"));
    // SAFETY: the mapping is not used again.
    unsafe {
        facts.code("owner_unmaps", cuMemUnmap(address, size));
        facts.code("owner_releases", cuMemRelease(handle));
    }
    other.go_on();
    let end = other.finish(&facts.within("after_release"));
    facts.fact("importer_process", end);
}

/// The importer of [`other_process`]: maps memory from the file whose number it is given.
pub(super) fn import_file(facts: &Facts, arguments: &[String]) {
    ready();
    let (mut handle, mut address) = (0, 0);
    let file = arguments
        .first()
        .and_then(|text| text.parse().ok())
        .unwrap_or(u64::MAX);
    let host = crate::tools::pinned(4096);
    // SAFETY: pointers are of locals; copies are within the mapping.
    unsafe {
        facts.code(
            "import",
            cuMemImportFromShareableHandle(&mut handle, file, 1),
        );
        cuMemAddressReserve(&mut address, 4 * MIB, 0, 0, 0);
        facts.code("map", cuMemMap(address, 4 * MIB, 0, handle, 0));
        facts.code("access", cuMemSetAccess(address, 4 * MIB, &access(), 1));
        facts.code("copy", cuMemcpyDtoH_v2(host, address, 4));
        facts.fact("word", crate::tools::read(host));
        facts.wait();
        facts.code("copy", cuMemcpyDtoH_v2(host, address, 4));
        facts.fact("word", crate::tools::read(host));
        facts.code("unmap", cuMemUnmap(address, 4 * MIB));
        facts.code("release", cuMemRelease(handle));
    }
}

fn pointer(facts: &Facts) {
    ready();
    let size = 4 * MIB;
    let (address, _) = mapped(size, 1);
    tell_all(facts, address, size);
    let (mut base, mut bytes) = (0, 0);
    // SAFETY: pointers are of locals.
    unsafe {
        facts.code(
            "ipc_handle",
            cuIpcGetMemHandle(&mut IpcHandle([0; 64]), address),
        );
        facts.code(
            "address_range",
            cuMemGetAddressRange_v2(&mut base, &mut bytes, address + 10),
        );
        facts.fact("address_range_base_is_start", base == address);
        facts.fact("address_range_size", bytes);
    }
}

fn export(facts: &Facts) {
    ready();
    let size = 4 * MIB;
    let (address, handle) = mapped(size, 1);
    let (_, private) = mapped(size, 0);
    let (mut file, mut imported, mut second) = (-1, 0, 0);
    let host = crate::tools::pinned(4096);
    // SAFETY: pointers are of locals; the file is one that the driver has opened for us.
    unsafe {
        facts.code(
            "export_unexportable",
            cuMemExportToShareableHandle(&mut file, private, 1, 0),
        );
        facts.code(
            "export",
            cuMemExportToShareableHandle(&mut file, handle, 1, 0),
        );
        facts.fact("file_is_open", libc::fcntl(file, libc::F_GETFD) >= 0);
        facts.fact(
            "file_closes_on_exec",
            libc::fcntl(file, libc::F_GETFD) & libc::FD_CLOEXEC != 0,
        );
        facts.code(
            "import",
            cuMemImportFromShareableHandle(&mut imported, file as u64, 1),
        );
        facts.fact("imported_handle_is_the_same", imported == handle);
        cuMemAddressReserve(&mut second, size, 0, 0, 0);
        facts.code("map_a_second_time", cuMemMap(second, size, 0, imported, 0));
        facts.code("access", cuMemSetAccess(second, size, &access(), 1));
        cuMemsetD32_v2(address, 42, 4);
        cuMemcpyDtoH_v2(host, second, 16);
        facts.fact(
            "both_mappings_show_the_same_bytes",
            crate::tools::read(host),
        );
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY);
        facts.code(
            "import_of_some_other_file",
            cuMemImportFromShareableHandle(&mut imported, null as u64, 1),
        );
        facts.code(
            "import_of_no_file",
            cuMemImportFromShareableHandle(&mut imported, 999, 1),
        );
    }
}
