//! How long calls take.

use std::time::Instant;

use super::median_us;
use crate::cases::to_hex;
use crate::child::Process;
use crate::driver::*;
use crate::facts::Facts;
use crate::tools::{
    MIB, NON_BLOCKING, device, event, kernel, launch, map, pages, pinned, ready, stream,
};

const GIB: usize = 1 << 30;

/// Tells the median time of `make`, and that of `undo` of what it made.
fn pair(
    facts: &Facts,
    names: (&str, &str),
    times: usize,
    make: impl Fn() -> u64,
    undo: impl Fn(u64),
) {
    let mut made = Vec::new();
    let making = median_us(times, || made.push(make()));
    let mut left = made.into_iter();
    let undoing = median_us(times, || left.by_ref().take(1).for_each(&undo));
    facts.measured(names.0, making, "us");
    facts.measured(names.1, undoing, "us");
}

/// `measure/memory-calls`.
pub(super) fn memory(facts: &Facts) {
    ready();
    // SAFETY: every memory is freed once, and as what it was made.
    unsafe {
        for (size, bytes, times) in [
            ("4KiB", 4096, 200),
            ("1MiB", MIB, 200),
            ("64MiB", 64 * MIB, 20),
            ("1GiB", GIB, 9),
        ] {
            let names = (format!("cuMemAlloc.{size}"), format!("cuMemFree.{size}"));
            pair(
                facts,
                (&names.0, &names.1),
                times,
                || device(bytes),
                |address| {
                    cuMemFree_v2(address);
                },
            );
        }
        let own = stream(NON_BLOCKING);
        let mut pool = 0;
        cuDeviceGetDefaultMemPool(&mut pool, 0);
        cuMemPoolSetAttribute(pool, 4, &mut u64::MAX.clone());
        for (size, bytes) in [("1MiB", MIB), ("1GiB", GIB)] {
            let once = || {
                let mut address = 0;
                cuMemAllocAsync(&mut address, bytes, own);
                cuMemFreeAsync(address, own);
            };
            once();
            cuStreamSynchronize(own);
            facts.measured(
                &format!("cuMemAllocAsync_and_free_reused.{size}"),
                median_us(50, once),
                "us",
            );
        }
        for (size, bytes, times) in [("1MiB", MIB, 20), ("64MiB", 64 * MIB, 5), ("1GiB", GIB, 3)] {
            let names = (
                format!("cuMemHostAlloc.{size}"),
                format!("cuMemFreeHost.{size}"),
            );
            pair(
                facts,
                (&names.0, &names.1),
                times,
                || pinned(bytes),
                |address| {
                    cuMemFreeHost(address);
                },
            );
        }
        register(facts);
    }
}

/// Registering memory whose pages exist, do not exist yet, and are huge.
fn register(facts: &Facts) {
    let bytes = GIB;
    let huge = || {
        let address = map(
            bytes + 2 * MIB,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
        );
        let address = address.next_multiple_of(2 * MIB as u64);
        // SAFETY: the range is a mapping of ours.
        unsafe {
            libc::madvise(
                std::ptr::with_exposed_provenance_mut(address as usize),
                bytes,
                libc::MADV_HUGEPAGE,
            )
        };
        address
    };
    let kinds: [(&str, bool, &dyn Fn() -> u64); 3] = [
        ("untouched", false, &|| pages(bytes)),
        ("touched", true, &|| pages(bytes)),
        ("huge_touched", true, &huge),
    ];
    for (kind, touch, make) in kinds {
        let address = make();
        if touch {
            (0..bytes as u64)
                .step_by(4096)
                .for_each(|offset| crate::tools::write(address + offset, 1));
        }
        let start = Instant::now();
        // SAFETY: the range is a mapping of ours.
        let code = unsafe { cuMemHostRegister_v2(address, bytes, 1) };
        facts.measured(
            &format!("cuMemHostRegister.1GiB.{kind}"),
            start.elapsed().as_secs_f64() * 1e6,
            "us",
        );
        let start = Instant::now();
        // SAFETY: as above; the mapping is not used again.
        unsafe {
            cuMemHostUnregister(address);
            facts.measured(
                &format!("cuMemHostUnregister.1GiB.{kind}"),
                start.elapsed().as_secs_f64() * 1e6,
                "us",
            );
            libc::munmap(
                std::ptr::with_exposed_provenance_mut(address as usize),
                bytes,
            );
        }
        if !code.is_ok() {
            facts.environment(kind, code.to_string());
        }
    }
}

/// `measure/small-calls`.
pub(super) fn small(facts: &Facts) {
    let context = ready();
    let own = stream(NON_BLOCKING);
    let (empty, mark, timed) = (kernel("empty\0"), event(2), event(0));
    let address = device(MIB);
    let ask = |name: &str, call: &dyn Fn()| facts.measured(name, median_us(500, call), "us");
    // SAFETY: handles are ours.
    unsafe {
        launch(empty, 1, 1, 0, own, &mut []);
        cuCtxSynchronize();
        ask("launch", &|| {
            launch(empty, 1, 1, 0, own, &mut []);
        });
        cuCtxSynchronize();
        ask("launch_and_wait_for_stream", &|| {
            launch(empty, 1, 1, 0, own, &mut []);
            cuStreamSynchronize(own);
        });
        ask("launch_and_poll_event", &|| {
            launch(empty, 1, 1, 0, own, &mut []);
            cuEventRecord(mark, own);
            while !cuEventQuery(mark).is_ok() {}
        });
        ask("cuStreamSynchronize_idle", &|| {
            cuStreamSynchronize(own);
        });
        ask("cuCtxSynchronize_idle", &|| {
            cuCtxSynchronize();
        });
        ask("cuStreamQuery_idle", &|| {
            cuStreamQuery(own);
        });
        ask("cuEventRecord", &|| {
            cuEventRecord(mark, own);
        });
        ask("cuEventRecord_timed", &|| {
            cuEventRecord(timed, own);
        });
        cuCtxSynchronize();
        ask("cuEventQuery", &|| {
            cuEventQuery(mark);
        });
        ask("cuStreamWaitEvent", &|| {
            cuStreamWaitEvent(own, mark, 0);
        });
        ask("cuMemsetD8Async", &|| {
            cuMemsetD8Async(address, 1, MIB, own);
        });
        cuCtxSynchronize();
        ask("cuCtxSetCurrent", &|| {
            cuCtxSetCurrent(context);
        });
        ask("cuPointerGetAttribute", &|| {
            let mut kind = 0_u64;
            cuPointerGetAttribute((&raw mut kind).cast(), 2, address);
        });
        ask("cuMemGetInfo", &|| {
            cuMemGetInfo_v2(&mut 0, &mut 0);
        });
        ask("cuEventCreate_and_destroy", &|| {
            cuEventDestroy_v2(event(2));
        });
        facts.measured(
            "cuStreamCreate_and_destroy",
            median_us(50, || {
                cuStreamDestroy_v2(stream(NON_BLOCKING));
            }),
            "us",
        );
    }
}

/// `measure/start`.
pub(super) fn start(facts: &Facts) {
    let tell = |name: &str, start: Instant| {
        facts.measured(name, start.elapsed().as_secs_f64() * 1e3, "ms")
    };
    let (mut context, mut module) = (0, 0);
    // SAFETY: pointers are of locals; the text ends with a zero.
    unsafe {
        let begun = Instant::now();
        cuInit(0);
        tell("cuInit", begun);
        let begun = Instant::now();
        cuDevicePrimaryCtxRetain(&mut context, 0);
        tell("cuDevicePrimaryCtxRetain", begun);
        cuCtxSetCurrent(context);
        let begun = Instant::now();
        cuModuleLoadData(&mut module, crate::kernels::GOOD.as_ptr());
        tell("module_load_first", begun);
        facts.measured(
            "module_load_again",
            median_us(9, || {
                cuModuleLoadData(&mut 0, crate::kernels::GOOD.as_ptr());
            }),
            "us",
        );
        let mut number = 0;
        let fresh = median_us(9, || {
            number += 1;
            // A text that no cache has seen.
            let text = crate::kernels::with_line(&format!(
                "mov.u32 %r1, {};",
                std::process::id() * 100 + number
            ));
            cuModuleLoadData(&mut 0, text.as_ptr());
        });
        facts.measured("module_load_of_a_new_small_text", fresh, "us");
        let begun = Instant::now();
        cuDevicePrimaryCtxReset_v2(0);
        tell("cuDevicePrimaryCtxReset", begun);
    }
}

/// `measure/ipc`.
pub(super) fn ipc(facts: &Facts) {
    ready();
    for (size, bytes) in [("2MiB", 2 * MIB), ("1GiB", GIB)] {
        let address = device(bytes);
        let mut handle = IpcHandle([0; 64]);
        // SAFETY: the handle has its 64 bytes.
        let took = median_us(50, || unsafe {
            cuIpcGetMemHandle(&mut handle, address);
        });
        facts.measured(&format!("cuIpcGetMemHandle.{size}"), took, "us");
        if let Ok(other) = Process::helper("opener-timed", &[&to_hex(&handle)]) {
            other.finish(&facts.within(size));
        }
    }
}
