//! Cases about host memory: page-locked by allocation and by registration.

use super::cases;
use super::pointer::attribute;
use crate::driver::*;
use crate::facts::Facts;
use crate::tools::{
    MIB, device, kernel, launch, map, pages, pinned, read, ready, registered, write,
};

cases! { CASES;
    "host/allocate", "flags of cuMemHostAlloc and what each gives", allocate;
    "host/free", "wrong frees of host memory", free;
    "host/register", "unaligned, twice, overlapping, empty, unmapped", register;
    "host/register-kinds", "shared, file-backed and read-only mappings", register_kinds;
    "host/unregister", "of what is not registered, of the inside, of memory that was unmapped", unregister;
    "host/use", "kernels and copies on registered and pinned memory", use_it;
}

const FLAGS: &[(&str, u32)] = &[
    ("none", 0),
    ("portable", 1),
    ("device_map", 2),
    ("write_combined", 4),
    ("all", 7),
    ("unknown", 64),
];

fn allocate(facts: &Facts) {
    ready();
    // SAFETY: pointers are of locals; sizes and flags are numbers, right or wrong.
    unsafe {
        for (name, flags) in FLAGS {
            let facts = facts.within(name);
            let (mut host, mut device, mut told) = (0, 0, 0);
            let code = cuMemHostAlloc(&mut host, 5000, *flags);
            facts.code("allocate", code);
            if !code.is_ok() {
                continue;
            }
            facts.environment("is_page_aligned", host % 4096 == 0);
            facts.code(
                "device_pointer",
                cuMemHostGetDevicePointer_v2(&mut device, host, 0),
            );
            facts.fact("device_pointer_is_host_pointer", device == host);
            facts.code("flags", cuMemHostGetFlags(&mut told, host));
            facts.fact("flags_are", told);
            facts.fact("is_zero", read(host) == 0);
            facts.code(
                "device_pointer_inside",
                cuMemHostGetDevicePointer_v2(&mut device, host + 100, 0),
            );
            facts.fact(
                "device_pointer_inside_is_host_pointer",
                device == host + 100,
            );
        }
        for bytes in [100, 5000, 65536, MIB, 2 * MIB, 3 * MIB, 64 * MIB] {
            facts.environment(
                &format!("alignment_bits.{bytes}_bytes"),
                pinned(bytes).trailing_zeros(),
            );
        }
        let mut host = 77;
        facts.code("zero_bytes", cuMemHostAlloc(&mut host, 0, 0));
        facts.fact("zero_bytes_gives", host);
        facts.code("one_pebibyte", cuMemHostAlloc(&mut host, 1 << 50, 0));
        facts.code(
            "device_pointer_of_pages",
            cuMemHostGetDevicePointer_v2(&mut 0, pages(4096), 0),
        );
        facts.code(
            "device_pointer_of_device",
            cuMemHostGetDevicePointer_v2(&mut 0, device(4096), 0),
        );
        facts.code("flags_of_pages", cuMemHostGetFlags(&mut 0, pages(4096)));
        facts.code("flags_of_device", cuMemHostGetFlags(&mut 0, device(4096)));
        facts.code("flags_inside", cuMemHostGetFlags(&mut 0, pinned(4096) + 8));
    }
}

fn free(facts: &Facts) {
    ready();
    let address = pinned(MIB);
    // SAFETY: what is freed wrongly is a number that the driver must refuse.
    unsafe {
        facts.code("null", cuMemFreeHost(0));
        facts.code("interior", cuMemFreeHost(address + 4096));
        facts.code("right", cuMemFreeHost(address));
        facts.code("twice", cuMemFreeHost(address));
        facts.code("pages", cuMemFreeHost(pages(4096)));
        facts.code("registered", cuMemFreeHost(registered(MIB)));
        facts.code("unregister_of_allocated", cuMemHostUnregister(pinned(MIB)));
    }
}

fn register(facts: &Facts) {
    ready();
    let start = pages(4 * MIB);
    // SAFETY: the pages are ours and stay mapped; other addresses are numbers that the driver must refuse.
    unsafe {
        facts.code("null", cuMemHostRegister_v2(0, 4096, 0));
        facts.code("nothing", cuMemHostRegister_v2(start, 0, 0));
        facts.code("unmapped", cuMemHostRegister_v2(0x1000_0000, 4096, 0));
        facts.code("unknown_flag", cuMemHostRegister_v2(start, 4096, 64));
        facts.code("unaligned", cuMemHostRegister_v2(start + 100, 1000, 0));
        facts.code(
            "same_page_other_range",
            cuMemHostRegister_v2(start + 2000, 1000, 0),
        );
        facts.fact(
            "pointer_in_page_before_range_is_known",
            attribute(start, 2).0.is_ok(),
        );
        facts.fact(
            "pointer_in_page_behind_range_is_known",
            attribute(start + 1500, 2).0.is_ok(),
        );
        facts.fact(
            "unaligned_range_start_is_the_given_one",
            attribute(start + 200, 11).1 == start + 100,
        );
        facts.fact("unaligned_range_size", attribute(start + 200, 12).1);
        facts.code("unregister_other_range", cuMemHostUnregister(start + 2000));
        facts.code("unregister_unaligned", cuMemHostUnregister(start + 100));
        facts.code("whole", cuMemHostRegister_v2(start, MIB, 3));
        facts.code("whole_twice", cuMemHostRegister_v2(start, MIB, 3));
        facts.code("inside", cuMemHostRegister_v2(start + 4096, 4096, 0));
        facts.code(
            "overlapping",
            cuMemHostRegister_v2(start + MIB as u64 / 2, MIB, 0),
        );
        facts.code(
            "neighbour",
            cuMemHostRegister_v2(start + MIB as u64, MIB, 0),
        );
        facts.code("pinned_memory", cuMemHostRegister_v2(pinned(MIB), MIB, 0));
        facts.code("device_memory", cuMemHostRegister_v2(device(MIB), MIB, 0));
        let mut told = 0;
        facts.code("flags", cuMemHostGetFlags(&mut told, start));
        facts.fact("flags_are", told);
        facts.code(
            "device_pointer",
            cuMemHostGetDevicePointer_v2(&mut 0, start, 0),
        );
        facts.code("read_only_flag", cuMemHostRegister_v2(pages(MIB), MIB, 8));
        facts.code("io_memory_flag", cuMemHostRegister_v2(pages(MIB), MIB, 4));
    }
}

fn register_kinds(facts: &Facts) {
    ready();
    let both = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the files are ours; their mappings stay.
    unsafe {
        let memory = libc::memfd_create(c"conformance".as_ptr(), 0);
        libc::ftruncate(memory, MIB as i64);
        let shared = map(MIB, both, libc::MAP_SHARED, memory);
        write(shared, 3);
        facts.code("memfd_shared", cuMemHostRegister_v2(shared, MIB, 0));
        let again = map(MIB, both, libc::MAP_SHARED, memory);
        facts.code("its_second_mapping", cuMemHostRegister_v2(again, MIB, 0));
        facts.code(
            "kernel_writes_it",
            launch(kernel("store\0"), 1, 1, 0, 0, &mut [shared, 9]),
        );
        cuCtxSynchronize();
        facts.fact("second_mapping_shows_it", read(again));
        facts.code(
            "memfd_private",
            cuMemHostRegister_v2(map(MIB, both, libc::MAP_PRIVATE, memory), MIB, 0),
        );
        let only_read = map(MIB, libc::PROT_READ, libc::MAP_SHARED, memory);
        facts.code("shared_read_only", cuMemHostRegister_v2(only_read, MIB, 0));
        facts.code(
            "shared_read_only_with_flag",
            cuMemHostRegister_v2(only_read, MIB, 8),
        );
        let quiet = map(
            MIB,
            libc::PROT_READ,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
        );
        facts.code("private_read_only", cuMemHostRegister_v2(quiet, MIB, 0));
        facts.code(
            "private_read_only_with_flag",
            cuMemHostRegister_v2(quiet, MIB, 8),
        );
        let none = map(
            MIB,
            libc::PROT_NONE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
        );
        facts.code("no_access", cuMemHostRegister_v2(none, MIB, 0));
        let file = libc::open(c"/tmp".as_ptr(), libc::O_TMPFILE | libc::O_RDWR, 0o600);
        libc::ftruncate(file, MIB as i64);
        facts.environment("file_is_open", file >= 0);
        let anonymous = map(MIB, both, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1);
        facts.code("anonymous_shared", cuMemHostRegister_v2(anonymous, MIB, 0));
        facts.code(
            "file_private",
            cuMemHostRegister_v2(map(MIB, both, libc::MAP_PRIVATE, file), MIB, 0),
        );
        let code = cuMemHostRegister_v2(map(MIB, both, libc::MAP_SHARED, file), MIB, 0);
        facts.environment("file_shared", code.to_string());
        let beyond = map(2 * MIB, both, libc::MAP_SHARED, memory);
        facts.code(
            "beyond_the_end_of_the_file",
            cuMemHostRegister_v2(beyond, 2 * MIB, 0),
        );
    }
}

fn unregister(facts: &Facts) {
    ready();
    let address = registered(MIB);
    // SAFETY: pages are ours; what was unmapped is not touched by the host again.
    unsafe {
        facts.code("pages", cuMemHostUnregister(pages(4096)));
        facts.code("null", cuMemHostUnregister(0));
        facts.code("inside", cuMemHostUnregister(address + 4096));
        facts.code("right", cuMemHostUnregister(address));
        facts.code("twice", cuMemHostUnregister(address));
        let gone = registered(MIB);
        libc::munmap(std::ptr::with_exposed_provenance_mut(gone as usize), MIB);
        facts.code("pointer_of_unmapped_memory", attribute(gone, 2).0);
        let code = cuMemcpyHtoDAsync_v2(device(MIB), gone, MIB, 0);
        facts.environment("copy_from_unmapped_memory", code.to_string());
        facts.environment("synchronize_after_that", cuCtxSynchronize().to_string());
        facts.code("unmapped_memory", cuMemHostUnregister(gone));
    }
}

fn use_it(facts: &Facts) {
    ready();
    for (name, address) in [("pinned", pinned(MIB)), ("registered", registered(MIB))] {
        let facts = facts.within(name);
        // SAFETY: addresses are of memory of their sizes.
        unsafe {
            facts.code(
                "store",
                launch(kernel("store\0"), 1, 1, 0, 0, &mut [address + 8, 11]),
            );
            facts.code("synchronize", cuCtxSynchronize());
            facts.fact("host_reads", read(address + 8));
            facts.code("copy_up", cuMemcpyHtoD_v2(device(MIB), address, MIB));
            facts.code(
                "copy_as_device_pointer",
                cuMemcpyDtoD_v2(device(MIB), address, MIB),
            );
            facts.code("memset", cuMemsetD8_v2(address, 1, 16));
            facts.fact("host_reads_after_memset", read(address));
        }
    }
}
