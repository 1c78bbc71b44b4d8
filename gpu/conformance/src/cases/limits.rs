//! Cases about a device whose memory is full.

use super::cases;
use crate::driver::*;
use crate::facts::Facts;
use crate::tools::{MIB, device, event, kernel, launch, pinned, pooled, ready, stream};

cases! { CASES;
    "limits/full", "every call with no device memory left, and after some is freed", full;
    "limits/pool-full", "the pool when legacy allocations took all, and back", pool_full;
}

/// Takes all device memory down to pieces of two mebibytes.
fn take_all() -> Vec<u64> {
    let mut taken = Vec::new();
    for bytes in [1 << 30, 64 * MIB, 2 * MIB] {
        while let address @ 1.. = device(bytes) {
            taken.push(address);
        }
    }
    taken
}

fn full(facts: &Facts) {
    ready();
    kernel("store\0");
    let (own, host) = (stream(1), pinned(MIB));
    let mut taken = take_all();
    let (mut free, mut total) = (0, 0);
    // SAFETY: pointers are of locals; memory is used within its size.
    unsafe {
        cuMemGetInfo_v2(&mut free, &mut total);
        facts.environment("free_bytes_when_full", free);
        facts.code("two_mebibytes", cuMemAlloc_v2(&mut 0, 2 * MIB));
        facts.environment("one_byte", cuMemAlloc_v2(&mut 0, 1).to_string());
        facts.code("pool", cuMemAllocAsync(&mut 0, 64 * MIB, own));
        facts.code("synchronize", cuCtxSynchronize());
        let last = taken.last().copied().unwrap_or(0);
        facts.code(
            "launch",
            launch(kernel("store\0"), 1, 1, 0, own, &mut [last, 5]),
        );
        facts.code(
            "launch_wide",
            launch(kernel("empty\0"), 10_000, 1024, 0, own, &mut []),
        );
        facts.code("download", cuMemcpyDtoHAsync_v2(host, last, MIB, own));
        facts.code("synchronize_stream", cuStreamSynchronize(own));
        facts.fact("kernel_wrote", crate::tools::read(host));
        facts.code("pinned", if pinned(MIB) == 0 { Code(2) } else { Code(0) });
        facts.environment("stream", if stream(1) == 0 { "refused" } else { "made" });
        facts.environment("event", if event(2) == 0 { "refused" } else { "made" });
        facts.environment(
            "module",
            cuModuleLoadData(&mut 0, crate::kernels::GOOD.as_ptr()).to_string(),
        );
        facts.code("free", cuMemFree_v2(taken.pop().unwrap_or(0)));
        facts.code("two_mebibytes_after_free", cuMemAlloc_v2(&mut 0, 2 * MIB));
        facts.code("synchronize_at_last", cuCtxSynchronize());
    }
}

fn pool_full(facts: &Facts) {
    ready();
    let mut taken = take_all();
    let (mut address, mut pool, mut reserved) = (0, 0, 0);
    // SAFETY: pointers are of locals; each memory is freed once.
    unsafe {
        facts.code(
            "pool_when_full",
            cuMemAllocAsync(&mut address, 256 * MIB, 0),
        );
        facts.code("synchronize", cuStreamSynchronize(0));
        facts.code("free_1_gib", cuMemFree_v2(taken.swap_remove(0)));
        facts.code(
            "pool_after_free",
            cuMemAllocAsync(&mut address, 256 * MIB, 0),
        );
        facts.code("synchronize_after_that", cuStreamSynchronize(0));
        cuDeviceGetDefaultMemPool(&mut pool, 0);
        cuMemPoolSetAttribute(pool, 4, &mut u64::MAX.clone());
        let second = pooled(512 * MIB);
        cuMemFreeAsync(second, 0);
        cuMemFreeAsync(address, 0);
        cuStreamSynchronize(0);
        cuMemPoolGetAttribute(pool, 5, &mut reserved);
        facts.environment("pool_reserves_before_that", reserved);
        facts.code(
            "legacy_512_mib_while_the_pool_keeps_its_memory",
            cuMemAlloc_v2(&mut address, 512 * MIB),
        );
        cuMemPoolGetAttribute(pool, 5, &mut reserved);
        facts.environment("pool_reserves_after_that", reserved);
        facts.code("trim", cuMemPoolTrimTo(pool, 0));
        facts.code(
            "legacy_64_mib_after_trim",
            cuMemAlloc_v2(&mut address, 64 * MIB),
        );
        facts.code("synchronize_at_last", cuCtxSynchronize());
    }
}
