//! Cases about what a call does before it returns: which ones wait for the device, and when bytes travel.
//!
//! A gate holds a stream back, so that "returned before" is seen without a clock.

use std::sync::atomic::{AtomicBool, Ordering};

use super::cases;
use super::virtual_memory::half_mapped;
use crate::driver::*;
use crate::facts::Facts;
use crate::tools::{
    Gate, MIB, NON_BLOCKING, device, event, pages, pinned, pooled, read, ready, registered, stream,
    write,
};

cases! { CASES;
    "blocking/copies", "which copies return before their stream got to them", blocking;
    "blocking/calls", "which other calls return while a non-blocking stream is held back", calls;
    "blocking/late", "when the bytes of a download are there, and which bytes of an upload travel", late;
}

/// Whether `call` succeeded and returned while a gate held `stream` back.
pub(super) fn returns_early(stream: u64, call: impl FnOnce() -> Code) -> bool {
    let gate = Gate::closed(stream);
    let opened = AtomicBool::new(false);
    let early = std::thread::scope(|scope| {
        scope.spawn(|| {
            // A blocking call would wait for the gate's own five seconds: this opens it sooner.
            std::thread::sleep(std::time::Duration::from_millis(150));
            opened.store(true, Ordering::SeqCst);
            gate.open();
        });
        call().is_ok() && !opened.load(Ordering::SeqCst)
    });
    // SAFETY: the stream is one of ours.
    unsafe { cuStreamSynchronize(stream) };
    early
}

fn blocking(facts: &Facts) {
    ready();
    let own = stream(NON_BLOCKING);
    let (on_device, second) = (device(64 * MIB), device(64 * MIB));
    for (name, host) in [
        ("pinned", pinned(64 * MIB)),
        ("registered", registered(64 * MIB)),
        ("pageable", pages(64 * MIB)),
    ] {
        for bytes in [4096, 65536, 65537, MIB, 64 * MIB] {
            let facts = facts.within(&format!("{name}_{bytes}"));
            // SAFETY: all memories have 64 mebibytes.
            unsafe {
                facts.fact(
                    "upload_returns_early",
                    returns_early(own, || cuMemcpyHtoDAsync_v2(on_device, host, bytes, own)),
                );
                facts.fact(
                    "download_returns_early",
                    returns_early(own, || cuMemcpyDtoHAsync_v2(host, on_device, bytes, own)),
                );
            }
        }
    }
    // SAFETY: as above.
    unsafe {
        facts.fact(
            "device_async",
            returns_early(own, || cuMemcpyDtoDAsync_v2(second, on_device, MIB, own)),
        );
        facts.fact(
            "device_behind_legacy_gate",
            returns_early(0, || cuMemcpyDtoD_v2(second, on_device, MIB)),
        );
        facts.fact(
            "memset_behind_legacy_gate",
            returns_early(0, || cuMemsetD8_v2(second, 1, MIB)),
        );
    }
}

/// A code that says whether something was made.
fn made(handle: u64) -> Code {
    Code(u32::from(handle == 0))
}

fn calls(facts: &Facts) {
    ready();
    let own = stream(NON_BLOCKING);
    let (small, large, host, pool) = (device(MIB), device(64 * MIB), pinned(4 * MIB), pooled(MIB));
    let (pool_too, ours, on_device, mark) =
        (pooled(MIB), registered(MIB), device(4 * MIB), event(2));
    let (mut module, mapped) = (0, half_mapped(2 * MIB));
    let ask = |name: &str, call: &dyn Fn() -> Code| facts.fact(name, returns_early(own, call));
    // SAFETY: each memory is freed once; copies are within their memories; the text ends with a zero.
    unsafe {
        cuModuleLoadData(&mut module, crate::kernels::GOOD.as_ptr());
        ask("allocate_1_mib", &|| made(device(MIB)));
        ask("allocate_64_mib", &|| made(device(64 * MIB)));
        ask("free_1_mib", &|| cuMemFree_v2(small));
        ask("free_64_mib", &|| cuMemFree_v2(large));
        ask("allocate_async_1_mib", &|| {
            cuMemAllocAsync(&mut 0, MIB, own)
        });
        ask("free_async", &|| cuMemFreeAsync(pool, own));
        ask("free_of_pool_memory_by_cuMemFree", &|| {
            cuMemFree_v2(pool_too)
        });
        ask("pinned_allocate", &|| made(pinned(4 * MIB)));
        ask("pinned_free", &|| cuMemFreeHost(host));
        ask("register", &|| made(registered(MIB)));
        ask("unregister", &|| cuMemHostUnregister(ours));
        ask("module_load", &|| {
            cuModuleLoadData(&mut 0, crate::kernels::GOOD.as_ptr())
        });
        ask("module_unload", &|| cuModuleUnload(module));
        ask("stream_create", &|| made(stream(NON_BLOCKING)));
        ask("stream_destroy", &|| {
            cuStreamDestroy_v2(stream(NON_BLOCKING))
        });
        ask("event_create", &|| made(event(2)));
        ask("event_destroy", &|| cuEventDestroy_v2(mark));
        ask("ipc_handle", &|| {
            cuIpcGetMemHandle(&mut IpcHandle([0; 64]), on_device)
        });
        ask("virtual_create_reserve_map", &|| made(half_mapped(2 * MIB)));
        ask("virtual_unmap", &|| cuMemUnmap(mapped, 2 * MIB));
        ask("memory_info", &|| cuMemGetInfo_v2(&mut 0, &mut 0));
        ask("synchronous_upload_from_pinned", &|| {
            cuMemcpyHtoD_v2(on_device, pinned(MIB), MIB)
        });
        ask("synchronous_upload_from_pageable", &|| {
            cuMemcpyHtoD_v2(on_device, pages(MIB), MIB)
        });
        ask("synchronous_download", &|| {
            cuMemcpyDtoH_v2(pages(MIB), on_device, MIB)
        });
    }
}

fn late(facts: &Facts) {
    ready();
    let own = stream(NON_BLOCKING);
    let (on_device, host, source) = (device(MIB), pinned(MIB), pinned(MIB));
    // SAFETY: all memories have the copied size; the event is ours.
    unsafe {
        cuMemsetD32_v2(on_device, 7, MIB / 4);
        write(host, 1);
        let gate = Gate::closed(own);
        cuMemcpyDtoHAsync_v2(host, on_device, MIB, own);
        let done = event(2);
        cuEventRecord(done, own);
        facts.code("event_behind_it", cuEventQuery(done));
        facts.fact(
            "download_is_not_seen_before_the_stream_got_there",
            read(host) == 1,
        );
        gate.open();
        cuEventSynchronize(done);
        facts.fact("download_is_seen_after_its_event", read(host));
    }
    let large = 64 * MIB;
    for (name, source, bytes) in [
        ("pinned_4_bytes", source, 4),
        ("pageable_4_bytes", pages(MIB), 4),
        ("pageable_64_kib", pages(MIB), 65536),
        ("pageable_64_mib", pages(large), large),
    ] {
        let (last, to) = (source + bytes as u64 - 4, device(bytes));
        write(last, 1);
        let gate = Gate::closed(own);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(std::time::Duration::from_millis(100));
                gate.open();
            });
            // SAFETY: all memories have the copied size.
            unsafe { cuMemcpyHtoDAsync_v2(to, source, bytes, own) };
            write(last, 2);
        });
        // SAFETY: as above.
        unsafe {
            cuStreamSynchronize(own);
            cuMemcpyDtoH_v2(host, to + bytes as u64 - 4, 4);
        }
        facts.fact(
            &format!("upload_of_{name}_carries_what_was_written_after_the_call"),
            read(host) == 2,
        );
    }
}
