//! Cases about `cuMemAlloc` and `cuMemFree`: sizes, alignment, wrong frees, what memory is left.

use super::cases;
use crate::driver::*;
use crate::facts::Facts;
use crate::tools::{MIB, device, ready};

cases! { CASES;
    "allocate/sizes", "zero, one byte, more than there is; alignment", sizes;
    "allocate/granularity", "how much memory small and large allocations take", granularity;
    "allocate/free", "twice, inside, null, host memory", free;
    "allocate/range", "cuMemGetAddressRange of pointers inside and outside", range;
    "allocate/fresh", "whether fresh memory is zero, and what a freed pointer answers", fresh;
}

fn sizes(facts: &Facts) {
    ready();
    // SAFETY: pointers are of locals; sizes are numbers, right or wrong.
    unsafe {
        let mut address = 77;
        facts.code("zero_bytes", cuMemAlloc_v2(&mut address, 0));
        facts.fact("zero_bytes_gives", address);
        facts.code("one_exbibyte", cuMemAlloc_v2(&mut address, 1 << 60));
        facts.fact("failed_gives", address);
        facts.code("all_ones", cuMemAlloc_v2(&mut address, usize::MAX));
        let (mut free, mut total) = (0, 0);
        facts.code("get_info", cuMemGetInfo_v2(&mut free, &mut total));
        facts.code("more_than_total", cuMemAlloc_v2(&mut address, total + MIB));
        facts.code("after_failures_one_byte", cuMemAlloc_v2(&mut address, 1));
        facts.environment("total_bytes", total);
        facts.environment("free_bytes_in_a_fresh_context", free);
    }
    for bytes in [1, 255, 256, 257, 4096, 4097, MIB, 2 * MIB, 3 * MIB + 1] {
        let zeros = device(bytes).trailing_zeros();
        facts.fact(&format!("aligned_to_512.{bytes}_bytes"), zeros >= 9);
        facts.environment(&format!("alignment_bits.{bytes}_bytes"), zeros);
    }
    let (first, second) = (device(1), device(1));
    facts.environment(
        "distance_of_two_one_byte_allocations",
        second.abs_diff(first),
    );
    let (first, second) = (device(513), device(513));
    facts.environment(
        "distance_of_two_513_byte_allocations",
        second.abs_diff(first),
    );
}

fn granularity(facts: &Facts) {
    ready();
    let left = || {
        let (mut free, mut total) = (0, 0);
        // SAFETY: pointers are of locals.
        unsafe { cuMemGetInfo_v2(&mut free, &mut total) };
        free
    };
    let first = device(1);
    for bytes in [1, 4096, MIB, 2 * MIB, 2 * MIB + 1, 64 * MIB, 64 * MIB + 1] {
        let before = left();
        let address = device(bytes);
        let taken = before - left();
        // SAFETY: the address came from cuMemAlloc.
        unsafe { cuMemFree_v2(address) };
        facts.environment(&format!("taken_by.{bytes}_bytes"), taken);
        facts.environment(
            &format!("given_back_by_free.{bytes}_bytes"),
            before == left(),
        );
    }
    let before = left();
    let many: Vec<u64> = (0..1000).map(|_| device(1000)).collect();
    facts.environment("taken_by.1000_of_1000_bytes", before - left());
    facts.fact(
        "all_addresses_differ",
        many.windows(2).all(|pair| pair.first() != pair.last()),
    );
    facts.fact("first_is_not_null", first != 0);
}

fn free(facts: &Facts) {
    let context = ready();
    // SAFETY: what is freed wrongly is a number that the driver must refuse; the pages are ours.
    unsafe {
        facts.code("null", cuMemFree_v2(0));
        facts.code("never_allocated", cuMemFree_v2(0x7000_0000_0000));
        let address = device(MIB);
        facts.code("interior", cuMemFree_v2(address + 512));
        facts.code("right", cuMemFree_v2(address));
        facts.code("twice", cuMemFree_v2(address));
        facts.code("host_pages", cuMemFree_v2(crate::tools::pages(4096)));
        let pinned = crate::tools::pinned(4096);
        facts.code("pinned", cuMemFree_v2(pinned));
        facts.code("pinned_is_still_freed_by_its_own", cuMemFreeHost(pinned));
        facts.code("device_by_free_host", cuMemFreeHost(device(MIB)));
        let address = device(MIB);
        cuCtxSetCurrent(0);
        facts.code("without_current_context", cuMemFree_v2(address));
        cuCtxSetCurrent(context);
        facts.code("after_that_with_context", cuMemFree_v2(address));
        facts.code("synchronize_after_all_that", cuCtxSynchronize());
    }
}

fn range(facts: &Facts) {
    ready();
    let size = 3 * MIB + 100;
    let address = device(size);
    // SAFETY: pointers are of locals; addresses outside are numbers that the driver must refuse.
    unsafe {
        for (name, offset) in [("start", 0), ("inside", 1000), ("last", size as u64 - 1)] {
            let (mut base, mut bytes) = (0, 0);
            facts.code(
                name,
                cuMemGetAddressRange_v2(&mut base, &mut bytes, address + offset),
            );
            facts.fact(&format!("{name}_gives_base"), base == address);
            facts.fact(&format!("{name}_gives_asked_size"), bytes == size);
        }
        let (mut base, mut bytes) = (0, 0);
        facts.code(
            "first_behind_the_asked_size",
            cuMemGetAddressRange_v2(&mut base, &mut bytes, address + size as u64),
        );
        facts.code(
            "far_away",
            cuMemGetAddressRange_v2(&mut base, &mut bytes, 0x10),
        );
        facts.code(
            "host_pages",
            cuMemGetAddressRange_v2(&mut base, &mut bytes, crate::tools::pages(4096)),
        );
        let pinned = crate::tools::pinned(5000);
        facts.code(
            "pinned",
            cuMemGetAddressRange_v2(&mut base, &mut bytes, pinned + 10),
        );
        facts.fact("pinned_gives_base", base == pinned);
        facts.fact("pinned_gives_size", bytes);
        let pooled = crate::tools::pooled(5000);
        facts.code(
            "pool",
            cuMemGetAddressRange_v2(&mut base, &mut bytes, pooled + 10),
        );
        facts.fact("pool_gives_base", base == pooled);
        facts.fact("pool_gives_size", bytes);
        cuMemFree_v2(address);
        facts.code(
            "freed",
            cuMemGetAddressRange_v2(&mut base, &mut bytes, address),
        );
    }
}

fn fresh(facts: &Facts) {
    ready();
    let host = crate::tools::pinned(MIB);
    // SAFETY: both memories have the copied size; the freed address is a number that the driver may refuse.
    unsafe {
        let address = device(MIB);
        cuMemcpyDtoH_v2(host, address, MIB);
        facts.environment("first_word_of_first_memory", crate::tools::read(host));
        facts.code("fill", cuMemsetD8_v2(address, 0xa5, MIB));
        cuMemFree_v2(address);
        let again = device(MIB);
        facts.environment("same_address_again", again == address);
        cuMemcpyDtoH_v2(host, again, MIB);
        facts.environment(
            "reused_memory_keeps_old_bytes",
            crate::tools::read(host) == 0xa5a5_a5a5,
        );
        let large = device(64 * MIB);
        cuMemFree_v2(large);
        facts.code("copy_from_freed_large", cuMemcpyDtoH_v2(host, large, 4096));
        facts.code("memset_of_freed_large", cuMemsetD8_v2(large, 1, 4096));
        facts.code("synchronize_after", cuCtxSynchronize());
    }
}
