//! Cases about copies and memsets: kinds, bounds, and what is done when the call returns.

use super::cases;
use crate::driver::*;
use crate::facts::Facts;
use crate::tools::{
    MIB, NON_BLOCKING, device, pages, pinned, pooled, read, ready, registered, stream, write,
};

cases! { CASES;
    "copy/kinds", "cuMemcpy and its asynchronous kin between all kinds of pointers", kinds;
    "copy/bounds", "past the end, into the neighbour, zero bytes, null", bounds;
    "copy/overlap", "from and to one memory", overlap;
    "copy/wrong-kind", "calls that name a kind that the pointer is not", wrong_kind;
    "copy/memset", "widths, alignment, bounds, two dimensions", memset;
}

fn all_kinds() -> Vec<(&'static str, u64)> {
    let mut managed = 0;
    // SAFETY: the pointer is of a local.
    unsafe { cuMemAllocManaged(&mut managed, MIB, 1) };
    vec![
        ("legacy", device(MIB)),
        ("pool", pooled(MIB)),
        ("pinned", pinned(MIB)),
        ("registered", registered(MIB)),
        ("pageable", pages(MIB)),
        ("managed", managed),
    ]
}

fn kinds(facts: &Facts) {
    ready();
    let other = stream(NON_BLOCKING);
    let back = pinned(MIB);
    for (from_name, from) in all_kinds() {
        for (to_name, to) in all_kinds() {
            let facts = facts.within(&format!("{from_name}_to_{to_name}"));
            // SAFETY: all memories have the copied size.
            unsafe {
                write(back, 0x0102_0304);
                cuMemcpy(from, back, 4);
                facts.code("cuMemcpy", cuMemcpy(to, from, MIB));
                write(back, 0);
                cuMemcpy(back, to, 4);
                facts.fact("bytes_arrive", read(back) == 0x0102_0304);
                facts.code("cuMemcpyAsync", cuMemcpyAsync(to, from, MIB, other));
                facts.code("synchronize", cuStreamSynchronize(other));
            }
        }
    }
}

fn bounds(facts: &Facts) {
    ready();
    let (small, host) = (device(1000), pinned(4 * MIB));
    let (first, second) = (device(MIB), device(MIB));
    facts.environment("second_follows_first", second == first + MIB as u64);
    // SAFETY: the host side has room for every size; the device side is what is wrong, and is the driver's to judge.
    unsafe {
        facts.code("zero_bytes", cuMemcpyDtoH_v2(host, small, 0));
        facts.code("zero_bytes_null", cuMemcpyHtoD_v2(0, 0, 0));
        facts.code("zero_bytes_nonsense", cuMemcpyHtoD_v2(0x10, host, 0));
        facts.code("null", cuMemcpyHtoD_v2(0, host, 4));
        facts.code("nonsense", cuMemcpyHtoD_v2(0x10, host, 4));
        facts.code(
            "download_past_1000_within_the_block_of_512",
            cuMemcpyDtoH_v2(host, small, 1001),
        );
        facts.code(
            "upload_past_1000_within_the_block_of_512",
            cuMemcpyHtoD_v2(small, host, 1001),
        );
        facts.code("download_past_1024", cuMemcpyDtoH_v2(host, small, 1025));
        facts.code(
            "download_into_neighbour",
            cuMemcpyDtoH_v2(host, first, MIB + 1),
        );
        facts.code(
            "upload_into_neighbour",
            cuMemcpyHtoD_v2(first, host, MIB + 1),
        );
        facts.code("download_over_both", cuMemcpyDtoH_v2(host, first, 2 * MIB));
        facts.code("download_far_past", cuMemcpyDtoH_v2(host, first, 4 * MIB));
        facts.code("unified_into_neighbour", cuMemcpy(host, first, MIB + 1));
        facts.code(
            "device_into_neighbour",
            cuMemcpyDtoD_v2(second, first, MIB + 1),
        );
        facts.code(
            "async_into_neighbour",
            cuMemcpyDtoHAsync_v2(host, first, MIB + 1, 0),
        );
        facts.code("synchronize", cuCtxSynchronize());
        let own = device(64 * MIB);
        let large_host = pinned(65 * MIB);
        facts.code(
            "download_past_64_mib",
            cuMemcpyDtoH_v2(large_host, own, 64 * MIB + 1),
        );
        facts.code(
            "async_download_past_64_mib",
            cuMemcpyDtoHAsync_v2(large_host, own, 64 * MIB + 1, 0),
        );
        facts.code("synchronize_after_that", cuCtxSynchronize());
        facts.code("then_a_right_copy", cuMemcpyDtoH_v2(host, first, MIB));
        facts.code(
            "pinned_source_too_short",
            cuMemcpyHtoD_v2(own, pinned(4096), 2 * MIB),
        );
        facts.code("synchronize_at_last", cuCtxSynchronize());
    }
}

fn overlap(facts: &Facts) {
    ready();
    let (address, host) = (device(MIB), pinned(MIB));
    // SAFETY: all ranges are within their memories.
    unsafe {
        for index in 0..MIB as u64 / 4 {
            write(host + 4 * index, index as u32);
        }
        cuMemcpyHtoD_v2(address, host, MIB);
        facts.code("onto_itself", cuMemcpyDtoD_v2(address, address, MIB));
        facts.code(
            "up_by_4_bytes",
            cuMemcpyDtoD_v2(address + 4, address, MIB - 4),
        );
        facts.code("synchronize", cuCtxSynchronize());
        cuMemcpyDtoH_v2(host, address, MIB);
        let as_memmove =
            (1..MIB as u64 / 4).all(|index| read(host + 4 * index) == index as u32 - 1);
        facts.environment("overlap_went_as_memmove", as_memmove);
    }
}

fn wrong_kind(facts: &Facts) {
    ready();
    let (on_device, on_pages, on_pinned) = (device(MIB), pages(MIB), pinned(MIB));
    // SAFETY: all memories have the copied size.
    unsafe {
        facts.code(
            "HtoD_from_device",
            cuMemcpyHtoD_v2(device(MIB), on_device, MIB),
        );
        facts.code("HtoD_to_pages", cuMemcpyHtoD_v2(on_pages, on_pinned, MIB));
        facts.code("HtoD_to_pinned", cuMemcpyHtoD_v2(on_pinned, on_pages, MIB));
        facts.code("DtoH_from_pages", cuMemcpyDtoH_v2(on_pinned, on_pages, MIB));
        facts.code(
            "DtoH_from_pinned",
            cuMemcpyDtoH_v2(on_pages, on_pinned, MIB),
        );
        facts.code(
            "DtoH_to_device",
            cuMemcpyDtoH_v2(device(MIB), on_device, MIB),
        );
        facts.code("DtoD_from_pages", cuMemcpyDtoD_v2(on_device, on_pages, MIB));
        facts.code("DtoD_to_pages", cuMemcpyDtoD_v2(on_pages, on_device, MIB));
        facts.code(
            "DtoD_pinned_to_pinned",
            cuMemcpyDtoD_v2(on_pinned, pinned(MIB), MIB),
        );
        facts.code("synchronize", cuCtxSynchronize());
    }
}

fn memset(facts: &Facts) {
    ready();
    let (address, host) = (device(MIB), pinned(MIB));
    // SAFETY: what is out of bounds or unaligned is the driver's to judge.
    unsafe {
        facts.code("bytes", cuMemsetD8_v2(address, 0x11, MIB));
        facts.code("words_of_2", cuMemsetD16_v2(address, 0x2222, 8));
        facts.code("words_of_4", cuMemsetD32_v2(address, 0x3333_3333, 2));
        cuMemcpyDtoH_v2(host, address, 32);
        facts.fact(
            "words_are",
            [0, 4, 8, 12, 16]
                .map(|offset| format!("{:x}", read(host + offset)))
                .to_vec(),
        );
        facts.code("words_of_2_unaligned", cuMemsetD16_v2(address + 1, 0, 8));
        facts.code("words_of_4_unaligned", cuMemsetD32_v2(address + 2, 0, 8));
        facts.code("nothing", cuMemsetD8_v2(address, 0, 0));
        facts.code("nothing_at_null", cuMemsetD8_v2(0, 0, 0));
        facts.code("null", cuMemsetD8_v2(0, 0, 4));
        let last = device(64 * MIB);
        facts.code("past_the_end", cuMemsetD8_v2(last, 0, 64 * MIB + 1));
        facts.code("pageable", cuMemsetD8_v2(pages(4096), 0, 4));
        facts.code("two_dimensions", cuMemsetD2D8_v2(address, 512, 0x44, 4, 4));
        cuMemcpyDtoH_v2(host, address + 512, 8);
        facts.fact(
            "second_row_is",
            format!("{:x} {:x}", read(host), read(host + 4)),
        );
        facts.code(
            "two_dimensions_pitch_below_width",
            cuMemsetD2D8_v2(address, 2, 0x44, 4, 4),
        );
        facts.code("synchronize", cuCtxSynchronize());
    }
}
