//! Cases about `cuPointerGetAttribute`: what the driver knows of each kind of pointer.

use std::ffi::c_void;

use super::cases;
use crate::driver::*;
use crate::facts::Facts;
use crate::tools::{MIB, device, pages, pinned, pooled, ready, registered};

cases! { CASES;
    "pointer/legacy", "of cuMemAlloc", |facts| { ready(); tell_all(facts, device(MIB), MIB); };
    "pointer/legacy-inside", "4096 bytes behind the start of such memory", |facts| { ready(); tell_all(facts, device(MIB) + 4096, MIB); };
    "pointer/pool", "of cuMemAllocAsync", |facts| { ready(); tell_all(facts, pooled(MIB), MIB); };
    "pointer/pinned", "of cuMemHostAlloc", |facts| { ready(); tell_all(facts, pinned(MIB), MIB); };
    "pointer/registered", "of cuMemHostRegister", |facts| { ready(); tell_all(facts, registered(MIB), MIB); };
    "pointer/pageable", "of mmap", |facts| { ready(); tell_all(facts, pages(MIB), MIB); };
    "pointer/managed", "of cuMemAllocManaged", managed;
    "pointer/freed", "of memory that is no more, and of none", freed;
    "pointer/settings", "buffer ids, and SYNC_MEMOPS by pointer kind", settings;
}

/// What [`tell_all`] asks for: name, number, and whether the value is a fact. Of the others only sizes and abilities are told,
/// as addresses and ids differ each time.
const ATTRIBUTES: &[(&str, u32, bool)] = &[
    ("memory_type", 2, true),
    ("device_pointer", 3, false),
    ("host_pointer", 4, false),
    ("sync_memops", 6, true),
    ("buffer_id", 7, false),
    ("is_managed", 8, true),
    ("device_ordinal", 9, true),
    ("is_legacy_ipc_capable", 10, true),
    ("range_start", 11, false),
    ("range_size", 12, true),
    ("mapped", 13, true),
    ("allowed_handle_types", 14, true),
    ("is_gpu_direct_rdma_capable", 15, false),
    ("access_flags", 16, true),
    ("mempool_handle", 17, false),
    ("mapping_size", 18, false),
    ("mapping_base", 19, false),
    ("memory_block_id", 20, false),
];

/// One attribute: the code, and what is in the low eight bytes of the answer (zeros where the driver writes fewer).
pub(super) fn attribute(address: u64, number: u32) -> (Code, u64) {
    let mut value = [0_u64; 8];
    // SAFETY: no attribute is larger than 64 bytes.
    let code =
        unsafe { cuPointerGetAttribute(value.as_mut_ptr().cast::<c_void>(), number, address) };
    (code, value.first().copied().unwrap_or(0))
}

/// Tells every attribute of `address`, in memory of `size` bytes.
pub(super) fn tell_all(facts: &Facts, address: u64, size: usize) {
    for (name, number, is_rule) in ATTRIBUTES {
        let (code, value) = attribute(address, *number);
        facts.code(&format!("{name}.code"), code);
        if *is_rule && code.is_ok() {
            facts.fact(name, value as i64);
        } else if code.is_ok() && matches!(*number, 15 | 18) {
            facts.environment(name, value);
        }
    }
    facts.fact("context_is_set", attribute(address, 1).1 != 0);
    facts.fact(
        "device_pointer_is_the_pointer",
        attribute(address, 3).1 == address,
    );
    facts.fact(
        "host_pointer_is_the_pointer",
        attribute(address, 4).1 == address,
    );
    facts.fact(
        "range_starts_at_or_before",
        (1..=address).contains(&attribute(address, 11).1),
    );
    facts.fact(
        "range_size_is_the_asked_size",
        attribute(address, 12).1 == size as u64,
    );
    facts.fact("has_a_pool", attribute(address, 17).1 != 0);
    facts.fact("buffer_id_is_not_0", attribute(address, 7).1 != 0);
}

fn managed(facts: &Facts) {
    ready();
    let mut address = 0;
    // SAFETY: the pointer is of a local.
    unsafe { facts.code("allocate", cuMemAllocManaged(&mut address, MIB, 1)) };
    tell_all(facts, address, MIB);
}

fn freed(facts: &Facts) {
    ready();
    let address = device(8 * MIB);
    // SAFETY: the address came from cuMemAlloc and is only asked about afterwards.
    unsafe { cuMemFree_v2(address) };
    for (name, address) in [("freed", address), ("null", 0), ("nonsense", 0x10)] {
        facts.code(&format!("{name}.memory_type"), attribute(address, 2).0);
        facts.code(&format!("{name}.is_managed"), attribute(address, 8).0);
        facts.code(&format!("{name}.device_ordinal"), attribute(address, 9).0);
        facts.fact(
            &format!("{name}.device_ordinal_value"),
            attribute(address, 9).1 as i32,
        );
    }
    facts.code("unknown_attribute", attribute(device(MIB), 9999).0);
}

fn settings(facts: &Facts) {
    ready();
    let (first, second) = (device(MIB), device(MIB));
    let id = attribute(first, 7).1;
    facts.fact("ids_of_two_memories_differ", id != attribute(second, 7).1);
    facts.fact("id_inside_is_the_same", id == attribute(first + 100, 7).1);
    // SAFETY: the address came from cuMemAlloc; the value is of a constant.
    unsafe {
        cuMemFree_v2(first);
        let again = device(MIB);
        facts.environment("address_is_reused", again == first);
        facts.fact("id_is_never_reused", attribute(again, 7).1 != id);
        facts.code(
            "sync_memops_of_legacy",
            cuPointerSetAttribute(&1, 6, second),
        );
        facts.fact("sync_memops_is_then", attribute(second, 6).1);
        facts.code(
            "sync_memops_of_pool",
            cuPointerSetAttribute(&1, 6, pooled(MIB)),
        );
        facts.code(
            "sync_memops_of_pinned",
            cuPointerSetAttribute(&1, 6, pinned(MIB)),
        );
        facts.code(
            "sync_memops_of_pages",
            cuPointerSetAttribute(&1, 6, pages(MIB)),
        );
        facts.code(
            "sync_memops_inside",
            cuPointerSetAttribute(&1, 6, second + 4096),
        );
        facts.code("set_memory_type", cuPointerSetAttribute(&1, 2, second));
    }
}
