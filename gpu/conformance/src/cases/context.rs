//! Cases about starting CUDA and contexts: before `cuInit`, without one, retained, reset, after `fork`.

use super::cases;
use crate::driver::*;
use crate::facts::Facts;
use crate::tools::{MIB, device, ready};

cases! { CASES;
    "context/before-init", "calls before cuInit", before_init;
    "context/none", "calls after cuInit without a current context", none;
    "context/primary", "retain and release counts, state, what becomes of memory", primary;
    "context/reset", "cuDevicePrimaryCtxReset and what is left after it", reset;
    "context/stack", "set, push, pop, other threads, own contexts", stack;
    "context/fork", "CUDA in a child after cuInit in its parent", fork;
}

fn before_init(facts: &Facts) {
    let (mut number, mut address, mut context) = (0, 0, 0);
    let (mut free, mut total) = (0, 0);
    // SAFETY: pointers are of locals; 0 is no stream, context or memory.
    unsafe {
        facts.code("cuDriverGetVersion", cuDriverGetVersion(&mut number));
        facts.code("cuDeviceGetCount", cuDeviceGetCount(&mut number));
        facts.code("cuDeviceGet", cuDeviceGet(&mut number, 0));
        facts.code(
            "cuDeviceGetAttribute",
            cuDeviceGetAttribute(&mut number, 16, 0),
        );
        facts.code("cuCtxGetCurrent", cuCtxGetCurrent(&mut context));
        facts.code("cuCtxSetCurrent_null", cuCtxSetCurrent(0));
        facts.code(
            "cuDevicePrimaryCtxRetain",
            cuDevicePrimaryCtxRetain(&mut context, 0),
        );
        facts.code("cuMemAlloc", cuMemAlloc_v2(&mut address, MIB));
        facts.code("cuMemFree_null", cuMemFree_v2(0));
        facts.code("cuMemGetInfo", cuMemGetInfo_v2(&mut free, &mut total));
        facts.code(
            "cuPointerGetAttribute",
            super::pointer::attribute(0x10, 2).0,
        );
        facts.code("cuMemHostAlloc", cuMemHostAlloc(&mut address, MIB, 0));
        facts.code("cuStreamCreate", cuStreamCreate(&mut address, 0));
        facts.code("cuCtxSynchronize", cuCtxSynchronize());
        facts.code("cuInit_with_flags", cuInit(1));
        facts.code("cuInit", cuInit(0));
        facts.code("cuInit_again", cuInit(0));
    }
}

fn none(facts: &Facts) {
    let (mut number, mut address, mut context) = (0, 0, 77);
    let (mut free, mut total) = (0, 0);
    // SAFETY: pointers are of locals; 0 is no stream or memory.
    unsafe {
        cuInit(0);
        facts.code("cuCtxGetCurrent", cuCtxGetCurrent(&mut context));
        facts.fact("current_context_is_null", context == 0);
        facts.code("cuDeviceGetCount", cuDeviceGetCount(&mut number));
        facts.code("cuDeviceGet_out_of_range", cuDeviceGet(&mut number, 99));
        facts.code("cuDeviceGet_negative", cuDeviceGet(&mut number, -1));
        facts.code(
            "attribute_of_no_device",
            cuDeviceGetAttribute(&mut number, 16, 99),
        );
        facts.code("no_attribute", cuDeviceGetAttribute(&mut number, 9999, 0));
        facts.code("cuMemAlloc", cuMemAlloc_v2(&mut address, MIB));
        facts.code("cuMemAllocAsync", cuMemAllocAsync(&mut address, MIB, 0));
        facts.code("cuMemHostAlloc", cuMemHostAlloc(&mut address, MIB, 0));
        facts.code(
            "cuMemHostRegister",
            cuMemHostRegister_v2(crate::tools::pages(MIB), MIB, 0),
        );
        facts.code("cuMemFree_null", cuMemFree_v2(0));
        facts.code("cuMemGetInfo", cuMemGetInfo_v2(&mut free, &mut total));
        facts.code("cuStreamCreate", cuStreamCreate(&mut address, 0));
        facts.code("cuStreamSynchronize_legacy", cuStreamSynchronize(0));
        facts.code("cuEventCreate", cuEventCreate(&mut address, 0));
        facts.code("cuCtxSynchronize", cuCtxSynchronize());
        facts.code("cuCtxGetDevice", cuCtxGetDevice(&mut number));
        facts.code(
            "cuModuleLoadData",
            cuModuleLoadData(&mut address, crate::kernels::GOOD.as_ptr()),
        );
        facts.code(
            "cuPointerGetAttribute_of_pages",
            super::pointer::attribute(crate::tools::pages(4096), 2).0,
        );
        facts.code("cuCtxPopCurrent", cuCtxPopCurrent_v2(&mut context));
    }
}

fn state(facts: &Facts, name: &str) {
    let (mut flags, mut active) = (99, 99);
    // SAFETY: pointers are of locals.
    let code = unsafe { cuDevicePrimaryCtxGetState(0, &mut flags, &mut active) };
    facts.code(&format!("{name}.state"), code);
    facts.fact(&format!("{name}.flags"), flags);
    facts.fact(&format!("{name}.active"), active);
}

fn primary(facts: &Facts) {
    let (mut first, mut second, mut current) = (0, 0, 77);
    // SAFETY: pointers are of locals; a released context is only named afterwards.
    unsafe {
        cuInit(0);
        state(facts, "at_first");
        facts.code("release_without_retain", cuDevicePrimaryCtxRelease_v2(0));
        facts.code("set_flags_before", cuDevicePrimaryCtxSetFlags_v2(0, 4));
        facts.code("retain", cuDevicePrimaryCtxRetain(&mut first, 0));
        state(facts, "retained");
        cuCtxGetCurrent(&mut current);
        facts.fact("retain_makes_it_current", current == first);
        facts.code("retain_again", cuDevicePrimaryCtxRetain(&mut second, 0));
        facts.fact("both_are_one", first == second);
        facts.code(
            "set_flags_while_active",
            cuDevicePrimaryCtxSetFlags_v2(0, 0),
        );
        cuCtxSetCurrent(first);
        let address = device(MIB);
        facts.code("release_one_of_two", cuDevicePrimaryCtxRelease_v2(0));
        state(facts, "released_once");
        facts.code("memory_is_still_there", cuMemsetD8_v2(address, 0, 16));
        facts.code("release_the_last", cuDevicePrimaryCtxRelease_v2(0));
        state(facts, "released");
        cuCtxGetCurrent(&mut current);
        facts.fact("released_context_is_still_current", current == first);
        facts.code("use_after_release", cuMemAlloc_v2(&mut 0, MIB));
        facts.code("free_after_release", cuMemFree_v2(address));
        facts.code("release_once_more", cuDevicePrimaryCtxRelease_v2(0));
        facts.code("retain_anew", cuDevicePrimaryCtxRetain(&mut second, 0));
        facts.environment("new_one_has_the_same_handle", first == second);
        facts.code("old_memory_in_the_new_one", cuMemsetD8_v2(address, 0, 16));
        facts.code(
            "allocate_without_setting_it_current_again",
            cuMemAlloc_v2(&mut 0, MIB),
        );
        facts.code("release_of_no_device", cuDevicePrimaryCtxRelease_v2(99));
    }
}

fn reset(facts: &Facts) {
    let context = ready();
    let (address, pinned) = (device(MIB), crate::tools::pinned(MIB));
    let mut again = 0;
    // SAFETY: what belonged to the old context is only named, or asked about.
    unsafe {
        facts.code("reset", cuDevicePrimaryCtxReset_v2(0));
        state(facts, "after");
        facts.code("allocate", cuMemAlloc_v2(&mut again, MIB));
        facts.code("old_memory", cuMemsetD8_v2(address, 0, 16));
        facts.code("synchronize", cuCtxSynchronize());
        facts.code("retain", cuDevicePrimaryCtxRetain(&mut again, 0));
        facts.environment("same_handle", again == context);
        facts.code("set_current", cuCtxSetCurrent(again));
        facts.code(
            "old_memory_after_retain",
            super::pointer::attribute(address, 2).0,
        );
        facts.code(
            "old_pinned_after_retain",
            super::pointer::attribute(pinned, 2).0,
        );
        facts.code("allocate_after_retain", cuMemAlloc_v2(&mut again, MIB));
        facts.code("synchronize_after_retain", cuCtxSynchronize());
    }
}

fn stack(facts: &Facts) {
    let context = ready();
    let (mut popped, mut current, mut own, mut number) = (0, 77, 0, 77);
    // SAFETY: pointers are of locals; contexts are the driver's own.
    unsafe {
        facts.code("push", cuCtxPushCurrent_v2(context));
        facts.code("pop", cuCtxPopCurrent_v2(&mut popped));
        facts.fact("popped_is_pushed", popped == context);
        cuCtxGetCurrent(&mut current);
        facts.fact("the_one_below_is_current", current == context);
        let elsewhere = std::thread::spawn(|| {
            let mut current = 77;
            cuCtxGetCurrent(&mut current);
            (current, cuMemAlloc_v2(&mut 0, MIB))
        });
        if let Ok((current, code)) = elsewhere.join() {
            facts.fact("another_thread_has_none", current == 0);
            facts.code("another_thread_allocates", code);
        }
        facts.code("device", cuCtxGetDevice(&mut number));
        facts.fact("device_is", number);
        facts.code("create_own", cuCtxCreate_v2(&mut own, 0, 0));
        cuCtxGetCurrent(&mut current);
        facts.fact("own_is_current", current == own);
        let address = device(MIB);
        cuCtxSetCurrent(context);
        facts.code("memory_of_own_from_primary", cuMemsetD8_v2(address, 1, MIB));
        facts.code("free_from_primary", cuMemFree_v2(address));
        facts.code("destroy_own", cuCtxDestroy_v2(own));
        facts.code("destroy_primary", cuCtxDestroy_v2(context));
        facts.code("set_null", cuCtxSetCurrent(0));
    }
}

/// Runs `ask` in a forked child and returns the code that it got, or that the child died.
fn in_child(ask: impl FnOnce() -> Code) -> String {
    // SAFETY: the child calls the driver, which is the question, then `_exit`; other threads are none.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            libc::alarm(10);
            let code = ask().0;
            libc::_exit(if code > 250 {
                200 + (code % 50) as i32
            } else {
                code as i32
            });
        }
        let mut status = 0;
        libc::waitpid(child, &mut status, 0);
        if libc::WIFEXITED(status) {
            Code(libc::WEXITSTATUS(status) as u32).to_string()
        } else {
            format!("signal {}", libc::WTERMSIG(status))
        }
    }
}

fn fork(facts: &Facts) {
    // SAFETY: pointers are of locals.
    unsafe {
        facts.code("init_in_child_of_untouched", in_child(|| cuInit(0)));
        cuInit(0);
        facts.code("init_in_child", in_child(|| cuInit(0)));
        facts.code("count_in_child", in_child(|| cuDeviceGetCount(&mut 0)));
        facts.code(
            "retain_in_child",
            in_child(|| cuDevicePrimaryCtxRetain(&mut 0, 0)),
        );
        ready();
        facts.code(
            "allocate_in_child_of_ready",
            in_child(|| cuMemAlloc_v2(&mut 0, MIB)),
        );
        facts.code(
            "synchronize_in_child_of_ready",
            in_child(|| cuCtxSynchronize()),
        );
        facts.code(
            "current_in_child_of_ready",
            in_child(|| cuCtxGetCurrent(&mut 0)),
        );
        facts.code("parent_allocates_after_all", cuMemAlloc_v2(&mut 0, MIB));
    }
}
