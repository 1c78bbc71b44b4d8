//! Cases about `cuMemAllocAsync` and memory pools.

use cudarc::driver::sys;

use super::cases;
use crate::driver::*;
use crate::facts::Facts;
use crate::tools::{
    Gate, MIB, NON_BLOCKING, device, kernel, launch, pinned, pooled, read, ready, stream,
};

cases! { CASES;
    "pool/sizes", "zero, too much, alignment, wrong streams", sizes;
    "pool/order", "use before the allocation's stream got there, and on other streams", order;
    "pool/free", "each kind of free for each kind of memory", free;
    "pool/attributes", "release threshold, reserved and used memory, trimming", attributes;
    "pool/own", "a pool of our own: create, export, destroy with memory out", own;
}

fn default_pool() -> u64 {
    let mut pool = 0;
    // SAFETY: the pointer is of a local.
    unsafe { cuDeviceGetDefaultMemPool(&mut pool, 0) };
    pool
}

fn sizes(facts: &Facts) {
    ready();
    // SAFETY: pointers are of locals; sizes are numbers, right or wrong.
    unsafe {
        let mut address = 77;
        facts.code("zero_bytes", cuMemAllocAsync(&mut address, 0, 0));
        facts.fact("zero_bytes_gives", address);
        facts.code("one_exbibyte", cuMemAllocAsync(&mut address, 1 << 60, 0));
        let (mut free, mut total) = (0, 0);
        cuMemGetInfo_v2(&mut free, &mut total);
        facts.code(
            "more_than_total",
            cuMemAllocAsync(&mut address, total + MIB, 0),
        );
        facts.code("one_byte_after_that", cuMemAllocAsync(&mut address, 1, 0));
        facts.fact("aligned_to_512", address.trailing_zeros() >= 9);
        let mut second = 0;
        cuMemAllocAsync(&mut second, 1, 0);
        facts.environment(
            "distance_of_two_one_byte_allocations",
            second.abs_diff(address),
        );
        facts.code("synchronize", cuStreamSynchronize(0));
    }
}

fn order(facts: &Facts) {
    ready();
    let (first, second) = (stream(NON_BLOCKING), stream(NON_BLOCKING));
    let (kept, host) = (pooled(4096), pinned(4096));
    kernel("store\0");
    let gate = Gate::closed(first);
    // SAFETY: pointers are of locals; the memory is used within its size, in an order that the device checks or not.
    unsafe {
        let mut address = 0;
        facts.code(
            "allocate_behind_a_gate",
            cuMemAllocAsync(&mut address, 4096, first),
        );
        facts.fact("pointer_is_known_at_once", address != 0);
        facts.code("stream_is_still_busy", cuStreamQuery(first));
        facts.code(
            "use_on_its_stream",
            cuMemsetD8Async(address, 5, 4096, first),
        );
        facts.code(
            "use_on_another_stream_too_early",
            cuMemsetD8Async(address, 6, 4096, second),
        );
        facts.code("which_then_synchronizes", cuStreamSynchronize(second));
        facts.code("free_async", cuMemFreeAsync(address, first));
        let mut elsewhere = 0;
        facts.code(
            "allocate_on_another_stream_meanwhile",
            cuMemAllocAsync(&mut elsewhere, 4096, second),
        );
        facts.fact("which_gets_other_memory", elsewhere != address);
        facts.code("free_async_twice", cuMemFreeAsync(address, first));
        facts.code(
            "use_after_free_async_while_gate_closed",
            cuMemsetD8Async(address, 5, 4096, first),
        );
        gate.open();
        facts.code("synchronize", cuStreamSynchronize(first));
        facts.code(
            "copy_from_it_after_that",
            cuMemcpyDtoH_v2(host, address, 4096),
        );
        let mut again = 0;
        cuMemAllocAsync(&mut again, 4096, first);
        facts.environment("same_stream_gets_the_same_address_again", again == address);
        facts.code(
            "other_memory_still_works",
            launch(kernel("store\0"), 1, 1, 0, second, &mut [kept, 9]),
        );
        cuStreamSynchronize(second);
        cuMemcpyDtoH_v2(host, kept, 4);
        facts.fact("and_holds_what_was_stored", read(host));
    }
}

fn free(facts: &Facts) {
    ready();
    // SAFETY: what is freed wrongly is a number that the driver must refuse.
    unsafe {
        let address = pooled(MIB);
        facts.code("pool_memory_by_cuMemFree", cuMemFree_v2(address));
        facts.code("then_by_cuMemFreeAsync", cuMemFreeAsync(address, 0));
        let address = device(MIB);
        facts.code(
            "legacy_memory_by_cuMemFreeAsync",
            cuMemFreeAsync(address, 0),
        );
        facts.code("synchronize", cuStreamSynchronize(0));
        facts.code("then_by_cuMemFree", cuMemFree_v2(address));
        facts.code("null", cuMemFreeAsync(0, 0));
        facts.code("never_allocated", cuMemFreeAsync(0x7000_0000_0000, 0));
        let address = pooled(MIB);
        facts.code("interior", cuMemFreeAsync(address + 512, 0));
        facts.code("right", cuMemFreeAsync(address, 0));
        facts.code("pinned", cuMemFreeAsync(pinned(4096), 0));
        facts.code("synchronize_after_all_that", cuCtxSynchronize());
        let address = pooled(MIB);
        let gate = Gate::closed(0);
        gate.open();
        facts.code(
            "free_on_another_stream_after_synchronizing",
            cuMemFreeAsync(address, stream(NON_BLOCKING)),
        );
        facts.code("synchronize_all", cuCtxSynchronize());
    }
}

fn attributes(facts: &Facts) {
    ready();
    let pool = default_pool();
    let get = |attribute| {
        let mut value = 0;
        // SAFETY: the value has room for the largest attribute.
        let code = unsafe { cuMemPoolGetAttribute(pool, attribute, &mut value) };
        (code, value)
    };
    facts.code("get", get(4).0);
    facts.fact("release_threshold", get(4).1);
    for (name, number) in [
        ("reuse_follow_event_dependencies", 1),
        ("reuse_opportunistic", 2),
        ("reuse_internal_dependencies", 3),
    ] {
        facts.fact(name, get(number).1);
    }
    facts.code("unknown_attribute", get(999).0);
    // SAFETY: pointers are of locals; the address came from the pool.
    unsafe {
        let address = pooled(3 * MIB);
        facts.fact("used_after_3_mib", get(7).1);
        facts.environment("reserved_after_3_mib", get(5).1);
        cuMemFreeAsync(address, 0);
        facts.environment("used_after_free_before_synchronize", get(7).1);
        cuStreamSynchronize(0);
        facts.fact("used_after_synchronize", get(7).1);
        facts.fact("reserved_after_synchronize_with_threshold_0", get(5).1);
        facts.fact("used_high", get(8).1);
        facts.code(
            "set_threshold",
            cuMemPoolSetAttribute(pool, 4, &mut u64::MAX.clone()),
        );
        let address = pooled(3 * MIB);
        cuMemFreeAsync(address, 0);
        cuStreamSynchronize(0);
        facts.fact(
            "with_threshold_pool_keeps_memory",
            get(5).1 >= 3 * MIB as u64,
        );
        facts.code("trim", cuMemPoolTrimTo(pool, 0));
        facts.fact("reserved_after_trim", get(5).1);
        facts.code("set_used_high_to_1", cuMemPoolSetAttribute(pool, 8, &mut 1));
        facts.code("reset_used_high", cuMemPoolSetAttribute(pool, 8, &mut 0));
        facts.code("set_used_current", cuMemPoolSetAttribute(pool, 7, &mut 0));
        facts.code("trim_of_no_pool", cuMemPoolTrimTo(0, 0));
    }
}

fn properties(handles: sys::CUmemAllocationHandleType_enum) -> sys::CUmemPoolProps {
    sys::CUmemPoolProps {
        allocType: sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED,
        handleTypes: handles,
        location: sys::CUmemLocation {
            type_: sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE,
            id: 0,
        },
        win32SecurityAttributes: std::ptr::null_mut(),
        maxSize: 0,
        usage: 0,
        reserved: [0; 54],
    }
}

fn own(facts: &Facts) {
    ready();
    let (mut pool, mut address, mut file) = (0, 0, -1);
    // SAFETY: pointers are of locals; a destroyed pool is not used again but to free its memory, which is allowed.
    unsafe {
        facts.code(
            "export_of_default_pool",
            cuMemPoolExportToShareableHandle(&mut file, default_pool(), 1, 0),
        );
        facts.code(
            "create",
            cuMemPoolCreate(
                &mut pool,
                &properties(sys::CUmemAllocationHandleType_enum(0)),
            ),
        );
        facts.code(
            "allocate",
            cuMemAllocFromPoolAsync(&mut address, MIB, pool, 0),
        );
        cuStreamSynchronize(0);
        facts.code(
            "export_without_handle_type",
            cuMemPoolExportToShareableHandle(&mut file, pool, 1, 0),
        );
        facts.code(
            "ipc_handle_of_its_memory",
            cuIpcGetMemHandle(&mut IpcHandle([0; 64]), address),
        );
        facts.code("destroy_with_memory_out", cuMemPoolDestroy(pool));
        facts.code(
            "memory_is_usable_after_that",
            cuMemsetD8_v2(address, 1, MIB),
        );
        facts.code("free_after_that", cuMemFreeAsync(address, 0));
        facts.code("synchronize", cuStreamSynchronize(0));
        facts.code(
            "create_for_files",
            cuMemPoolCreate(
                &mut pool,
                &properties(sys::CUmemAllocationHandleType_enum(1)),
            ),
        );
        facts.code(
            "export",
            cuMemPoolExportToShareableHandle(&mut file, pool, 1, 0),
        );
        facts.fact("export_gives_a_file", file >= 0);
        cuMemAllocFromPoolAsync(&mut address, MIB, pool, 0);
        cuStreamSynchronize(0);
        facts.code(
            "ipc_handle_of_exportable_memory",
            cuIpcGetMemHandle(&mut IpcHandle([0; 64]), address),
        );
        facts.code(
            "ipc_handle_of_default_pool_memory",
            cuIpcGetMemHandle(&mut IpcHandle([0; 64]), pooled(MIB)),
        );
        facts.code("destroy_default_pool", cuMemPoolDestroy(default_pool()));
    }
}
