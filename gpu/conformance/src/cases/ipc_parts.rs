//! The other process of the cases that need one.
//!
//! Started by a case through `child`; its arguments are handles in hexadecimal.

use super::Helper;
use super::pointer::tell_all;
use crate::driver::*;
use crate::facts::Facts;
use crate::tools::{MIB, NON_BLOCKING, device, pinned, read, ready, stream};

pub(super) const HELPERS: &[Helper] = &[
    ("open", open),
    ("open-both", open_both),
    ("open-and-wait", open_and_wait),
    ("open-behind-gate", open_behind_gate),
    ("open-event", open_event),
    ("open-flags", open_flags),
    ("owner", owner),
    ("hog", hog),
    ("bystander", bystander),
    ("bystander-alone", bystander_alone),
    ("opener-timed", opener_timed),
    ("import-file", super::virtual_memory::import_file),
    ("visible", super::surroundings::count_visible),
];

/// A handle as text.
pub(crate) fn to_hex(handle: &IpcHandle) -> String {
    handle.0.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A handle from text; zeros for what is no number.
pub(super) fn from_hex(text: &str) -> IpcHandle {
    let mut handle = IpcHandle([0; 64]);
    for (index, place) in handle.0.iter_mut().enumerate() {
        let digits = text.get(2 * index..2 * index + 2).unwrap_or("0");
        *place = u8::from_str_radix(digits, 16).unwrap_or(0);
    }
    handle
}

fn first_handle(arguments: &[String]) -> IpcHandle {
    from_hex(arguments.first().map_or("", String::as_str))
}

/// Opens a handle in this process.
fn opened(handle: IpcHandle) -> (Code, u64) {
    let mut address = 0;
    // SAFETY: the pointer is of a local.
    let code = unsafe { cuIpcOpenMemHandle_v2(&mut address, handle, 1) };
    (code, address)
}

fn word(facts: &Facts, name: &str, address: u64) {
    let host = pinned(4096);
    // SAFETY: shared memory here has more than four bytes; when its owner is gone, that is the question.
    unsafe { facts.code(&format!("{name}.copy"), cuMemcpyDtoH_v2(host, address, 4)) };
    facts.fact(name, read(host));
}

fn open(facts: &Facts, arguments: &[String]) {
    ready();
    let handle = first_handle(arguments);
    let (code, address) = opened(handle);
    facts.code("open", code);
    if !code.is_ok() {
        return;
    }
    word(facts, "word", address);
    tell_all(&facts.within("pointer"), address, 4 * MIB);
    let (mut base, mut bytes) = (0, 0);
    // SAFETY: pointers are of locals; wrong closes are the driver's to refuse.
    unsafe {
        facts.code(
            "range",
            cuMemGetAddressRange_v2(&mut base, &mut bytes, address),
        );
        facts.fact("range_starts_at_opened_pointer", base == address);
        facts.fact("range_bytes", bytes);
        let (code, second) = opened(handle);
        facts.code("open_twice", code);
        facts.fact("second_open_gives_the_same_pointer", second == address);
        facts.code(
            "handle_of_opened",
            cuIpcGetMemHandle(&mut IpcHandle([0; 64]), address),
        );
        facts.code("free_opened", cuMemFree_v2(address));
        if arguments.len() > 1 {
            facts.code("write", cuMemsetD32_v2(address, 0x88, 1));
            facts.code("synchronize", cuCtxSynchronize());
        }
        facts.code("close_inside", cuIpcCloseMemHandle(address + 4096));
        facts.code("close", cuIpcCloseMemHandle(address));
        facts.code(
            "pointer_after_first_close",
            super::pointer::attribute(address, 2).0,
        );
        facts.code("close_twice", cuIpcCloseMemHandle(address));
        facts.code(
            "pointer_after_second_close",
            super::pointer::attribute(address, 2).0,
        );
        facts.code("close_thrice", cuIpcCloseMemHandle(address));
    }
}

fn open_both(facts: &Facts, arguments: &[String]) {
    ready();
    let text = arguments.first().map_or("", String::as_str);
    let (first, second) = text.split_at_checked(128).unwrap_or((text, ""));
    let ((first_code, first), (second_code, second)) =
        (opened(from_hex(first)), opened(from_hex(second)));
    facts.code("first", first_code);
    facts.code("second", second_code);
    facts.environment("distance", second.abs_diff(first));
    word(facts, "first_word", first);
    word(facts, "second_word", second);
    // SAFETY: what was opened is closed once.
    unsafe {
        facts.code("close_first", cuIpcCloseMemHandle(first));
        word(facts, "second_word_after_closing_first", second);
        facts.code("close_second", cuIpcCloseMemHandle(second));
    }
}

fn open_and_wait(facts: &Facts, arguments: &[String]) {
    ready();
    let (code, address) = opened(first_handle(arguments));
    facts.code("open", code);
    word(facts, "word", address);
    facts.wait();
    word(facts, "word", address);
    // SAFETY: what was opened is closed once.
    unsafe {
        facts.code("memset", cuMemsetD8_v2(address, 1, 4));
        facts.code("synchronize", cuCtxSynchronize());
        facts.code("close", cuIpcCloseMemHandle(address));
    }
}

fn open_behind_gate(facts: &Facts, arguments: &[String]) {
    ready();
    let own = stream(NON_BLOCKING);
    let mut address = 0;
    // SAFETY: pointers are of locals; what was opened is closed once.
    unsafe {
        let open = || cuIpcOpenMemHandle_v2(&mut address, first_handle(arguments), 1);
        facts.fact(
            "open_returns_early",
            super::blocking::returns_early(own, open),
        );
        let close = || cuIpcCloseMemHandle(address);
        facts.fact(
            "close_returns_early",
            super::blocking::returns_early(own, close),
        );
    }
}

fn open_event(facts: &Facts, arguments: &[String]) {
    ready();
    let mut mark = 0;
    let own = stream(NON_BLOCKING);
    let address = device(4096);
    // SAFETY: pointers are of locals; the handle is one or is not, which is asked.
    unsafe {
        let code = cuIpcOpenEventHandle(&mut mark, first_handle(arguments));
        facts.code("open", code);
        if !code.is_ok() {
            return;
        }
        facts.code("query", cuEventQuery(mark));
        facts.code("wait_on_stream", cuStreamWaitEvent(own, mark, 0));
        cuMemsetD8Async(address, 1, 4096, own);
        std::thread::sleep(std::time::Duration::from_millis(50));
        facts.code("stream_behind_it", cuStreamQuery(own));
        facts.wait();
        facts.code("query", cuEventQuery(mark));
        facts.code("synchronize", cuEventSynchronize(mark));
        facts.code("stream_behind_it", cuStreamSynchronize(own));
        facts.code("elapsed", cuEventElapsedTime(&mut 0.0, mark, mark));
        facts.code(
            "handle_of_opened",
            cuIpcGetEventHandle(&mut IpcHandle([0; 64]), mark),
        );
        facts.code("record_here", cuEventRecord(mark, own));
        facts.code("destroy", cuEventDestroy_v2(mark));
    }
}

fn open_flags(facts: &Facts, arguments: &[String]) {
    ready();
    // SAFETY: pointers are of locals.
    unsafe {
        for flags in [0, 2] {
            let mut address = 0;
            let code = cuIpcOpenMemHandle_v2(&mut address, first_handle(arguments), flags);
            facts.code(&format!("open_with_{flags}"), code);
        }
    }
}

fn owner(facts: &Facts, _: &[String]) {
    ready();
    let address = device(4 * MIB);
    let mut handle = IpcHandle([0; 64]);
    // SAFETY: within the memory.
    unsafe {
        cuMemsetD32_v2(address, 0x55, MIB);
        cuCtxSynchronize();
        cuIpcGetMemHandle(&mut handle, address);
    }
    facts.environment("handle", to_hex(&handle));
    facts.wait();
}

fn hog(facts: &Facts, _: &[String]) {
    ready();
    facts.wait();
    device(1 << 30);
    facts.wait();
}

fn bystander(facts: &Facts, arguments: &[String]) {
    ready();
    let address = device(MIB);
    facts.wait();
    // SAFETY: within the memory.
    unsafe {
        facts.code("memset", cuMemsetD8_v2(address, 1, MIB));
        facts.code("synchronize", cuCtxSynchronize());
    }
    bystander_alone(facts, arguments);
}

fn bystander_alone(facts: &Facts, _: &[String]) {
    ready();
    // SAFETY: the pointer is of a local.
    unsafe {
        facts.code("allocate", cuMemAlloc_v2(&mut 0, MIB));
        facts.code("synchronize_at_last", cuCtxSynchronize());
    }
}

/// Opens and closes one handle many times; what that takes.
fn opener_timed(facts: &Facts, arguments: &[String]) {
    ready();
    let handle = first_handle(arguments);
    let open = crate::measures::median_us(20, || {
        let (_, address) = opened(handle);
        // SAFETY: what was opened is closed once.
        unsafe { cuIpcCloseMemHandle(address) };
    });
    facts.measured("open_and_close", open, "us");
    opened(handle);
    let second = crate::measures::median_us(20, || {
        opened(handle);
    });
    facts.measured("open_again_while_open", second, "us");
}
