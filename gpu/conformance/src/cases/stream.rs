//! Cases about streams: the legacy default stream, order, priorities, functions on the host.

use std::ffi::c_void;
use std::sync::atomic::{AtomicU32, Ordering};

use super::cases;
use crate::driver::*;
use crate::facts::Facts;
use crate::tools::{Gate, MIB, NON_BLOCKING, device, event, pinned, ready, stream};

cases! { CASES;
    "stream/legacy", "who waits for the legacy default stream and whom it waits for", legacy;
    "stream/per-thread", "the per-thread default stream beside the legacy one", per_thread;
    "stream/wait", "waiting for events: unrecorded, recorded later, recorded again", wait;
    "stream/host-function", "order of host functions, and CUDA called inside one", host_function;
    "stream/destroy", "destroyed with work pending; used afterwards", destroy;
    "stream/properties", "priorities, flags, context, wrong handles", properties;
}

/// `CU_STREAM_LEGACY` and `CU_STREAM_PER_THREAD`.
const LEGACY: u64 = 1;
const PER_THREAD: u64 = 2;

fn query(stream: u64) -> Code {
    // SAFETY: the stream is one of ours or of the driver's own.
    unsafe { cuStreamQuery(stream) }
}

/// Work that is short once it may run.
fn work(stream: u64, address: u64) {
    // SAFETY: the memory has 4096 bytes.
    unsafe { cuMemsetD8Async(address, 1, 4096, stream) };
}

/// Long enough for short work to be done, when nothing holds it back.
fn a_while() {
    std::thread::sleep(std::time::Duration::from_millis(50));
}

/// Whether work on `second` waits for a gate on `first`.
fn waits(first: u64, second: u64, address: u64) -> bool {
    let gate = Gate::closed(first);
    work(second, address);
    a_while();
    let waits = !query(second).is_ok();
    gate.open();
    // SAFETY: both streams exist.
    unsafe { cuCtxSynchronize() };
    waits
}

fn legacy(facts: &Facts) {
    ready();
    let address = device(4096);
    let (blocking, other, free) = (stream(0), stream(0), stream(NON_BLOCKING));
    facts.fact("legacy_waits_for_blocking", waits(blocking, 0, address));
    facts.fact("legacy_waits_for_non_blocking", waits(free, 0, address));
    facts.fact("blocking_waits_for_legacy", waits(0, blocking, address));
    facts.fact("non_blocking_waits_for_legacy", waits(0, free, address));
    facts.fact(
        "blocking_waits_for_blocking",
        waits(blocking, other, address),
    );
    facts.fact("handle_1_is_legacy_too", waits(0, LEGACY, address));
    let gate = Gate::closed(blocking);
    facts.code("empty_legacy_while_blocking_is_busy", query(0));
    gate.open();
    // SAFETY: streams exist.
    unsafe {
        cuCtxSynchronize();
        let gate = Gate::closed(blocking);
        work(0, address);
        work(other, address);
        a_while();
        facts.code("blocking_behind_legacy_behind_blocking", query(other));
        gate.open();
        facts.code("synchronize", cuCtxSynchronize());
    }
}

fn per_thread(facts: &Facts) {
    ready();
    let address = device(4096);
    let (blocking, free) = (stream(0), stream(NON_BLOCKING));
    facts.fact("per_thread_waits_for_legacy", waits(0, PER_THREAD, address));
    facts.fact("legacy_waits_for_per_thread", waits(PER_THREAD, 0, address));
    facts.fact(
        "per_thread_waits_for_blocking",
        waits(blocking, PER_THREAD, address),
    );
    facts.fact(
        "per_thread_waits_for_non_blocking",
        waits(free, PER_THREAD, address),
    );
    // SAFETY: the handle is the driver's own.
    unsafe {
        facts.code("destroy", cuStreamDestroy_v2(PER_THREAD));
        facts.code("destroy_legacy", cuStreamDestroy_v2(LEGACY));
        facts.code("destroy_null", cuStreamDestroy_v2(0));
    }
}

fn wait(facts: &Facts) {
    ready();
    let address = device(4096);
    let (first, second) = (stream(NON_BLOCKING), stream(NON_BLOCKING));
    // SAFETY: streams and events are ours; 0 is no event.
    unsafe {
        let unrecorded = event(2);
        facts.code("for_unrecorded", cuStreamWaitEvent(second, unrecorded, 0));
        work(second, address);
        facts.code("then_work_goes_on", cuStreamSynchronize(second));
        let mark = event(2);
        let gate = Gate::closed(first);
        cuEventRecord(mark, first);
        facts.code("for_recorded", cuStreamWaitEvent(second, mark, 0));
        work(second, address);
        a_while();
        facts.code("then_work_waits", query(second));
        facts.code("destroy_event_that_is_waited_for", cuEventDestroy_v2(mark));
        a_while();
        facts.code("work_still_waits", query(second));
        gate.open();
        facts.code("synchronize", cuStreamSynchronize(second));
        let again = event(2);
        cuEventRecord(again, first);
        cuStreamSynchronize(first);
        let gate = Gate::closed(first);
        cuStreamWaitEvent(second, again, 0);
        cuEventRecord(again, first);
        work(second, address);
        facts.code(
            "waits_for_the_record_before_the_call_only",
            cuStreamSynchronize(second),
        );
        facts.code("gate_was_closed_all_the_time", query(first));
        gate.open();
        facts.code("on_its_own_stream", cuStreamWaitEvent(first, again, 0));
        facts.code("unknown_flag", cuStreamWaitEvent(first, again, 64));
        facts.code("null_event", cuStreamWaitEvent(first, 0, 0));
        facts.code("synchronize_all", cuCtxSynchronize());
    }
}

static SEEN: AtomicU32 = AtomicU32::new(0);
static INSIDE: [AtomicU32; 8] = [const { AtomicU32::new(99_999) }; 8];

extern "C" fn note(_: *mut c_void) {
    SEEN.fetch_add(1, Ordering::SeqCst);
}

extern "C" fn call_cuda(_: *mut c_void) {
    let (mut address, mut free, mut total, mut current) = (0, 0, 0, 0);
    // SAFETY: pointers are of locals. Calling here is what documentation forbids and this asks about.
    unsafe {
        let codes = [
            cuMemAlloc_v2(&mut address, 4096),
            cuStreamQuery(0),
            cuMemGetInfo_v2(&mut free, &mut total),
            cuCtxGetCurrent(&mut current),
            cuEventCreate(&mut address, 0),
            cuStreamCreate(&mut address, 1),
            cuDeviceGetCount(&mut 0),
            super::pointer::attribute(0x10, 2).0,
        ];
        for (place, code) in INSIDE.iter().zip(codes) {
            place.store(code.0, Ordering::SeqCst);
        }
    }
}

fn host_function(facts: &Facts) {
    ready();
    let (own, other) = (stream(NON_BLOCKING), stream(NON_BLOCKING));
    let seen = || SEEN.load(Ordering::SeqCst);
    // SAFETY: the functions take no data and do not unwind.
    unsafe {
        let gate = Gate::closed(own);
        facts.code("launch", cuLaunchHostFunc(own, note, std::ptr::null_mut()));
        cuLaunchHostFunc(own, note, std::ptr::null_mut());
        a_while();
        facts.fact("runs_while_gate_is_closed", seen());
        cuLaunchHostFunc(other, note, std::ptr::null_mut());
        cuStreamSynchronize(other);
        facts.fact("one_on_another_stream_ran", seen());
        gate.open();
        cuStreamSynchronize(own);
        facts.fact("all_ran_when_synchronized", seen());
        cuLaunchHostFunc(own, call_cuda, std::ptr::null_mut());
        facts.code("synchronize_after_cuda_inside", cuStreamSynchronize(own));
        let names = [
            "cuMemAlloc",
            "cuStreamQuery",
            "cuMemGetInfo",
            "cuCtxGetCurrent",
            "cuEventCreate",
            "cuStreamCreate",
            "cuDeviceGetCount",
            "cuPointerGetAttribute",
        ];
        for (name, place) in names.iter().zip(&INSIDE) {
            facts.code(
                &format!("inside.{name}"),
                Code(place.load(Ordering::SeqCst)),
            );
        }
        facts.code("allocate_afterwards", cuMemAlloc_v2(&mut 0, MIB));
    }
}

fn destroy(facts: &Facts) {
    ready();
    let (host, address) = (pinned(MIB), device(MIB));
    // SAFETY: memories have their sizes. A destroyed handle is not used again: the driver does not check it.
    unsafe {
        cuMemsetD8_v2(address, 9, MIB);
        crate::tools::write(host, 0);
        let own = stream(NON_BLOCKING);
        let gate = Gate::closed(own);
        cuMemcpyDtoHAsync_v2(host, address, MIB, own);
        let done = event(2);
        cuEventRecord(done, own);
        facts.code("destroy_with_work", cuStreamDestroy_v2(own));
        facts.code("its_event_is_then", cuEventQuery(done));
        gate.open();
        facts.code("wait_for_its_event", cuEventSynchronize(done));
        facts.fact("the_work_was_done", crate::tools::read(host) == 0x0909_0909);
        facts.code("free_memory", cuMemFree_v2(address));
    }
}

fn properties(facts: &Facts) {
    let context = ready();
    let (mut least, mut greatest, mut own, mut priority, mut flags, mut of) = (9, 9, 0, 9, 9, 0);
    // SAFETY: pointers are of locals.
    unsafe {
        facts.code(
            "range",
            cuCtxGetStreamPriorityRange(&mut least, &mut greatest),
        );
        facts.environment("least", least);
        facts.environment("greatest", greatest);
        facts.fact("greatest_is_below_least", greatest < least);
        facts.code(
            "create_beyond_range",
            cuStreamCreateWithPriority(&mut own, 1, -1000),
        );
        facts.code("get", cuStreamGetPriority(own, &mut priority));
        facts.fact("beyond_is_clamped", priority == greatest);
        facts.code("flags", cuStreamGetFlags(own, &mut flags));
        facts.fact("flags_are", flags);
        facts.code("context", cuStreamGetCtx(own, &mut of));
        facts.fact("context_is_current", of == context);
        facts.code("create_unknown_flag", cuStreamCreate(&mut own, 64));
        facts.code("flags_of_legacy", cuStreamGetFlags(0, &mut flags));
        facts.fact("flags_of_legacy_are", flags);
        facts.code("priority_of_legacy", cuStreamGetPriority(0, &mut priority));
        facts.fact("priority_of_legacy_is", priority);
    }
}
