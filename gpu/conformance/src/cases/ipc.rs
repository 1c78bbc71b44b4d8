//! Cases about memory and events shared between processes. The other process is in `ipc_parts`.

use super::cases;
use super::ipc_parts::to_hex;
use crate::child::Process;
use crate::driver::*;
use crate::facts::{Facts, Line};
use crate::tools::{Gate, MIB, NON_BLOCKING, device, event, pinned, read, ready, stream};

cases! { CASES;
    "ipc/memory", "open elsewhere, read, write, twice, close, close twice", memory;
    "ipc/same-process", "open a handle where it was made", same_process;
    "ipc/inside", "handles of pointers inside, and of small allocations that share a block", inside;
    "ipc/kinds", "which memory has a handle", kinds;
    "ipc/owner-frees", "the owner frees while another has it open", owner_frees;
    "ipc/owner-dies", "the owner is killed while this process has it open", owner_dies;
    "ipc/importer-dies", "the importer is killed; the owner goes on", importer_dies;
    "ipc/owner-faults", "the owner's context breaks while another has it open", owner_faults;
    "ipc/blocking", "whether opening and closing wait for a stream that is held back", blocking;
    "ipc/event", "events across processes", events;
    "ipc/accounting", "free memory seen by one process as another allocates", accounting;
    "ipc/bad-handles", "handles that nobody made, and of freed memory", bad_handles;
}

fn handle_of(address: u64) -> IpcHandle {
    let mut handle = IpcHandle([0; 64]);
    // SAFETY: the handle has its 64 bytes.
    unsafe { cuIpcGetMemHandle(&mut handle, address) };
    handle
}

/// Memory of `bytes` filled with `word`.
fn filled(bytes: usize, word: u32) -> u64 {
    let address = device(bytes);
    // SAFETY: within the memory.
    unsafe {
        cuMemsetD32_v2(address, word, bytes / 4);
        cuCtxSynchronize();
    }
    address
}

fn first_word(address: u64) -> u32 {
    let host = pinned(4096);
    // SAFETY: the memory has more than four bytes.
    unsafe { cuMemcpyDtoH_v2(host, address, 4) };
    read(host)
}

fn helper(facts: &Facts, name: &str, arguments: &[&str]) -> Option<Process> {
    let started = Process::helper(name, arguments);
    if started.is_err() {
        facts.fact("helper", "did not start");
    }
    started.ok()
}

fn memory(facts: &Facts) {
    ready();
    let address = filled(4 * MIB, 0x77);
    let handle = handle_of(address);
    facts.fact(
        "two_handles_of_one_memory_are_equal",
        handle.0 == handle_of(address).0,
    );
    let Some(other) = helper(facts, "open", &[&to_hex(&handle), "write"]) else {
        return;
    };
    let end = other.finish(&facts.within("importer"));
    facts.fact("importer_process", end);
    facts.fact("owner_sees_the_write", first_word(address));
    // SAFETY: the address came from cuMemAlloc.
    unsafe { facts.code("owner_frees", cuMemFree_v2(address)) };
}

fn same_process(facts: &Facts) {
    ready();
    let mut opened = 0;
    // SAFETY: pointers are of locals.
    unsafe {
        facts.code(
            "open",
            cuIpcOpenMemHandle_v2(&mut opened, handle_of(device(MIB)), 1),
        );
        facts.code("close_of_own_memory", cuIpcCloseMemHandle(device(MIB)));
        facts.code("close_of_null", cuIpcCloseMemHandle(0));
    }
}

fn inside(facts: &Facts) {
    ready();
    let large = filled(4 * MIB, 1);
    // SAFETY: within the memory.
    unsafe { cuMemsetD32_v2(large + MIB as u64, 2, 1) };
    facts.fact(
        "handle_inside_is_handle_of_start",
        handle_of(large + MIB as u64).0 == handle_of(large).0,
    );
    let (first, second) = (filled(1024, 3), filled(1024, 4));
    facts.environment("distance_of_small_ones", second.abs_diff(first));
    facts.fact(
        "small_neighbours_have_different_handles",
        handle_of(first).0 != handle_of(second).0,
    );
    // SAFETY: waits.
    unsafe { cuCtxSynchronize() };
    let handles = [
        ("inside", handle_of(large + MIB as u64)),
        ("small_first", handle_of(first)),
        ("small_second", handle_of(second)),
    ];
    for (name, handle) in handles {
        if let Some(other) = helper(facts, "open", &[&to_hex(&handle)]) {
            let end = other.finish(&facts.within(name));
            facts.fact(&format!("{name}.process"), end);
        }
    }
    let both = format!(
        "{}{}",
        to_hex(&handle_of(first)),
        to_hex(&handle_of(second))
    );
    if let Some(other) = helper(facts, "open-both", &[&both]) {
        other.finish(&facts.within("both_small"));
    }
}

fn kinds(facts: &Facts) {
    ready();
    let mut managed = 0;
    let get = |name: &str, address| {
        // SAFETY: the handle has its 64 bytes.
        facts.code(name, unsafe {
            cuIpcGetMemHandle(&mut IpcHandle([0; 64]), address)
        });
    };
    get("legacy", device(MIB));
    get("legacy_one_byte", device(1));
    get("pool", crate::tools::pooled(MIB));
    get("pinned", pinned(MIB));
    get("registered", crate::tools::registered(MIB));
    get("pageable", crate::tools::pages(MIB));
    get("null", 0);
    // SAFETY: the pointer is of a local.
    unsafe { cuMemAllocManaged(&mut managed, MIB, 1) };
    get("managed", managed);
}

fn owner_frees(facts: &Facts) {
    ready();
    let address = filled(4 * MIB, 0x77);
    let Some(mut other) = helper(facts, "open-and-wait", &[&to_hex(&handle_of(address))]) else {
        return;
    };
    other.until_it_waits(&facts.within("before"));
    let left = || {
        let (mut free, mut total) = (0, 0);
        // SAFETY: pointers are of locals.
        unsafe { cuMemGetInfo_v2(&mut free, &mut total) };
        free
    };
    let before = left();
    // SAFETY: the address came from cuMemAlloc.
    unsafe { facts.code("owner_frees", cuMemFree_v2(address)) };
    facts.fact("memory_comes_back_while_open_elsewhere", left() > before);
    other.go_on();
    let end = other.finish(&facts.within("after"));
    facts.fact("importer_process", end);
    facts.fact("memory_is_back_after_close", left() > before);
}

fn owner_dies(facts: &Facts) {
    ready();
    let Some(mut owner) = helper(facts, "owner", &[]) else {
        return;
    };
    let mut handle = IpcHandle([0; 64]);
    while let Some(line) = owner.next() {
        match line {
            Line::Environment(_, value) => {
                handle = super::ipc_parts::from_hex(value.as_str().unwrap_or_default())
            }
            Line::Waits => break,
            _ => {}
        }
    }
    let mut opened = 0;
    // SAFETY: pointers are of locals; what was opened is closed once.
    unsafe {
        facts.code("open", cuIpcOpenMemHandle_v2(&mut opened, handle, 1));
        facts.fact("word", first_word(opened));
        owner.kill();
        facts.code(
            "copy_after_owner_was_killed",
            cuMemcpyDtoH_v2(pinned(4096), opened, 4),
        );
        facts.fact("word_after_owner_was_killed", first_word(opened));
        facts.code("memset_after_that", cuMemsetD8_v2(opened, 1, 4));
        facts.code("synchronize", cuCtxSynchronize());
        facts.code("close", cuIpcCloseMemHandle(opened));
        facts.code("open_again", cuIpcOpenMemHandle_v2(&mut opened, handle, 1));
        facts.code("allocate_after_all", cuMemAlloc_v2(&mut 0, MIB));
    }
}

fn importer_dies(facts: &Facts) {
    ready();
    let address = filled(4 * MIB, 0x77);
    let Some(mut other) = helper(facts, "open-and-wait", &[&to_hex(&handle_of(address))]) else {
        return;
    };
    other.until_it_waits(&facts.within("before"));
    other.kill();
    facts.fact("word", first_word(address));
    // SAFETY: the address came from cuMemAlloc.
    unsafe {
        facts.code("free", cuMemFree_v2(address));
        facts.code("synchronize", cuCtxSynchronize());
    }
}

fn owner_faults(facts: &Facts) {
    ready();
    let address = filled(4 * MIB, 0x77);
    let Some(mut other) = helper(facts, "open-and-wait", &[&to_hex(&handle_of(address))]) else {
        return;
    };
    other.until_it_waits(&facts.within("before"));
    crate::tools::launch(crate::tools::kernel("store\0"), 1, 1, 0, 0, &mut [0, 1]);
    // SAFETY: waits.
    unsafe { facts.code("fault", cuCtxSynchronize()) };
    other.go_on();
    let end = other.finish(&facts.within("after"));
    facts.fact("importer_process", end);
}

fn blocking(facts: &Facts) {
    ready();
    let address = filled(4 * MIB, 0x77);
    if let Some(other) = helper(facts, "open-behind-gate", &[&to_hex(&handle_of(address))]) {
        other.finish(facts);
    }
}

fn events(facts: &Facts) {
    ready();
    let own = stream(NON_BLOCKING);
    let mark = event(6);
    let mut handle = IpcHandle([0; 64]);
    // SAFETY: the handles are ours.
    unsafe {
        facts.code("handle", cuIpcGetEventHandle(&mut handle, mark));
        facts.code("open_in_same_process", cuIpcOpenEventHandle(&mut 0, handle));
        let gate = Gate::closed(own);
        cuEventRecord(mark, own);
        let Some(mut other) = helper(facts, "open-event", &[&to_hex(&handle)]) else {
            return;
        };
        other.until_it_waits(&facts.within("while_pending"));
        gate.open();
        cuEventSynchronize(mark);
        other.go_on();
        let end = other.finish(&facts.within("when_done"));
        facts.fact("importer_process", end);
        facts.code("destroy", cuEventDestroy_v2(mark));
    }
}

fn accounting(facts: &Facts) {
    ready();
    let left = || {
        let (mut free, mut total) = (0, 0);
        // SAFETY: pointers are of locals.
        unsafe { cuMemGetInfo_v2(&mut free, &mut total) };
        free
    };
    let before = left();
    let Some(mut other) = helper(facts, "hog", &[]) else {
        return;
    };
    other.until_it_waits(facts);
    let context = before.saturating_sub(left());
    facts.environment("bytes_of_another_process_context", context);
    other.go_on();
    other.until_it_waits(facts);
    let taken = before.saturating_sub(left()).saturating_sub(context);
    facts.fact("another_process_takes_1_gib", taken == 1 << 30);
    other.kill();
    std::thread::sleep(std::time::Duration::from_millis(300));
    facts.fact("all_is_back_when_it_is_dead", left() >= before);
}

fn bad_handles(facts: &Facts) {
    ready();
    let mut opened = 0;
    let address = device(4 * MIB);
    let handle = handle_of(address);
    // SAFETY: pointers are of locals; the address came from cuMemAlloc.
    unsafe {
        facts.code(
            "zeros",
            cuIpcOpenMemHandle_v2(&mut opened, IpcHandle([0; 64]), 1),
        );
        facts.code(
            "ones",
            cuIpcOpenMemHandle_v2(&mut opened, IpcHandle([255; 64]), 1),
        );
        facts.code(
            "event_zeros",
            cuIpcOpenEventHandle(&mut opened, IpcHandle([0; 64])),
        );
        cuMemFree_v2(address);
    }
    if let Some(other) = helper(facts, "open", &[&to_hex(&handle)]) {
        let end = other.finish(&facts.within("of_freed_memory"));
        facts.fact("of_freed_memory.process", end);
    }
    let event_as_memory = to_hex(&handle_of(device(MIB)));
    if let Some(other) = helper(facts, "open-event", &[&event_as_memory]) {
        other.finish(&facts.within("memory_handle_as_event"));
    }
    if let Some(other) = helper(facts, "open-flags", &[&to_hex(&handle_of(device(MIB)))]) {
        other.finish(&facts.within("flags"));
    }
}
