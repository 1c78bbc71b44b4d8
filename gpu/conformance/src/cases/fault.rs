//! Cases about kernels that fault: which code comes when, what every later call answers, and how to go on.

use std::sync::atomic::{AtomicU32, Ordering};

use super::cases;
use super::virtual_memory::half_mapped;
use crate::child::Process;
use crate::driver::*;
use crate::facts::Facts;
use crate::tools::{
    MIB, NON_BLOCKING, device, event, kernel, launch, pages, pinned, pooled, ready, stream,
};

cases! { CASES;
    "fault/trap", "the instruction trap", |facts| faulty(facts, "trap\0", Vec::new);
    "fault/null", "a store to address 0", |facts| faulty(facts, "store\0", || vec![0, 1]);
    "fault/far", "a store to an address that nobody has", |facts| faulty(facts, "store\0", || vec![0x7000_0000_0000, 1]);
    "fault/past-mapped", "a store just past mapped memory", |facts| faulty(facts, "store\0", || vec![half_mapped(2 * MIB) + 2 * MIB as u64, 1]);
    "fault/unseen", "stores past an allocation that hit what lies there: no rule, only what happened", unseen;
    "fault/first-seen", "which call tells first when nobody waits", first_seen;
    "fault/freed", "a store to 64 MiB that were freed", |facts| faulty(facts, "store\0", freed);
    "fault/misaligned", "a store of four bytes to an odd address", |facts| faulty(facts, "store\0", || vec![device(MIB) + 1, 1]);
    "fault/shared", "a store far outside of shared memory", |facts| faulty(facts, "shared_store\0", || vec![1 << 20]);
    "fault/shared-misaligned", "a store of four bytes to an odd place in shared memory", |facts| faulty(facts, "shared_store\0", || vec![1]);
    "fault/pageable", "a store to ordinary pages of the host", |facts| faulty(facts, "store\0", || vec![pages(4096), 1]);
    "fault/bystander", "another process on the device while this one faults", bystander;
    "fault/reset", "reset of the primary context after a fault, in the same process", reset;
    "fault/release", "release of the primary context after a fault, and a new one", release;
    "fault/own-context", "a fault in a context of its own, beside the primary one", own_context;
}

fn freed() -> Vec<u64> {
    let address = device(64 * MIB);
    // SAFETY: the address came from cuMemAlloc.
    unsafe { cuMemFree_v2(address) };
    vec![address, 1]
}

fn faulty(facts: &Facts, name: &str, words: fn() -> Vec<u64>) {
    ready();
    let before = Before::now();
    let function = kernel(name);
    facts.code(
        "launch",
        launch(function, 1, 1, 64, before.stream, &mut words()),
    );
    // SAFETY: the stream and the event are ours; the function takes no data.
    unsafe {
        cuLaunchHostFunc(before.stream, note, std::ptr::null_mut());
        facts.code(
            "record_behind_it",
            cuEventRecord(before.behind, before.stream),
        );
        facts.code("synchronize_stream", cuStreamSynchronize(before.stream));
    }
    facts.fact("host_function_behind_it_ran", RAN.load(Ordering::SeqCst));
    before.aftermath(facts);
}

fn unseen(facts: &Facts) {
    ready();
    for (name, bytes) in [("1000", 1000), ("1_mib", MIB), ("64_mib", 64 * MIB)] {
        let past = device(bytes) + bytes as u64;
        facts.code(
            &format!("launch_{name}"),
            launch(kernel("store\0"), 1, 1, 0, 0, &mut [past, 1]),
        );
        // SAFETY: waits.
        let code = unsafe { cuCtxSynchronize() };
        facts.environment(&format!("store_past_{name}"), code.to_string());
    }
}

fn first_seen(facts: &Facts) {
    ready();
    let (own, other, mark) = (stream(NON_BLOCKING), stream(NON_BLOCKING), event(2));
    let (address, host) = (device(MIB), pinned(MIB));
    launch(kernel("empty\0"), 1, 1, 0, other, &mut []);
    // SAFETY: pointers are of locals; handles and memory are ours.
    unsafe {
        cuCtxSynchronize();
        launch(kernel("store\0"), 1, 1, 0, own, &mut [0, 1]);
        std::thread::sleep(std::time::Duration::from_millis(200));
        facts.code("01_cuDeviceGetCount", cuDeviceGetCount(&mut 0));
        facts.code("02_cuEventCreate", cuEventCreate(&mut 0, 2));
        facts.code("03_cuMemAlloc_small", cuMemAlloc_v2(&mut 0, 4096));
        facts.code("04_cuMemAlloc_large", cuMemAlloc_v2(&mut 0, 64 * MIB));
        facts.code("05_cuMemHostAlloc", cuMemHostAlloc(&mut 0, 4 * MIB, 1));
        facts.code("06_cuMemGetInfo", cuMemGetInfo_v2(&mut 0, &mut 0));
        facts.code("07_cuEventRecord_other", cuEventRecord(mark, other));
        facts.code(
            "08_launch_other",
            launch(kernel("empty\0"), 1, 1, 0, other, &mut []),
        );
        facts.code(
            "09_copy_other",
            cuMemcpyDtoHAsync_v2(host, address, MIB, other),
        );
        facts.code("10_cuEventRecord", cuEventRecord(mark, own));
        facts.code(
            "11_launch",
            launch(kernel("empty\0"), 1, 1, 0, own, &mut []),
        );
        facts.code("12_cuEventQuery", cuEventQuery(mark));
        facts.code("13_cuStreamQuery_other", cuStreamQuery(other));
        facts.code("14_cuStreamQuery", cuStreamQuery(own));
        facts.code("15_cuStreamSynchronize", cuStreamSynchronize(own));
        facts.code("16_cuMemAlloc", cuMemAlloc_v2(&mut 0, 4096));
        facts.code("17_cuInit", cuInit(0));
        facts.code("18_cuDeviceGetCount", cuDeviceGetCount(&mut 0));
    }
}

static RAN: AtomicU32 = AtomicU32::new(0);

extern "C" fn note(_: *mut std::ffi::c_void) {
    RAN.fetch_add(1, Ordering::SeqCst);
}

/// What a process had before its fault.
struct Before {
    stream: u64,
    other: u64,
    done: u64,
    behind: u64,
    address: u64,
    pool: u64,
    host: u64,
}

impl Before {
    fn now() -> Self {
        let (stream, other) = (stream(NON_BLOCKING), stream(NON_BLOCKING));
        let before = Self {
            stream,
            other,
            done: event(0),
            behind: event(0),
            address: device(MIB),
            pool: pooled(MIB),
            host: pinned(MIB),
        };
        // SAFETY: the handles are ours.
        unsafe {
            cuEventRecord(before.done, other);
            cuCtxSynchronize();
        }
        before
    }

    /// Asks every call that a runtime makes while it gives up.
    fn aftermath(&self, facts: &Facts) {
        let (mut made, mut free, mut total, mut number) = (0, 0, 0, 0);
        // SAFETY: pointers are of locals; handles and memory are ours and freed once.
        unsafe {
            facts.code("after.cuEventQuery_done_before", cuEventQuery(self.done));
            facts.code("after.cuEventQuery_behind", cuEventQuery(self.behind));
            facts.code("after.cuStreamQuery_other", cuStreamQuery(self.other));
            facts.code(
                "after.cuStreamSynchronize_other",
                cuStreamSynchronize(self.other),
            );
            facts.code("after.cuCtxSynchronize", cuCtxSynchronize());
            facts.code("after.cuMemGetInfo", cuMemGetInfo_v2(&mut free, &mut total));
            facts.code("after.cuMemAlloc", cuMemAlloc_v2(&mut made, MIB));
            facts.code(
                "after.cuMemAllocAsync",
                cuMemAllocAsync(&mut made, MIB, self.other),
            );
            facts.code("after.cuMemHostAlloc", cuMemHostAlloc(&mut made, MIB, 1));
            facts.code(
                "after.cuMemHostRegister",
                cuMemHostRegister_v2(pages(MIB), MIB, 0),
            );
            facts.code(
                "after.cuMemcpyDtoH",
                cuMemcpyDtoH_v2(self.host, self.address, MIB),
            );
            facts.code(
                "after.cuMemcpyDtoHAsync",
                cuMemcpyDtoHAsync_v2(self.host, self.address, MIB, self.other),
            );
            facts.code("after.cuStreamCreate", cuStreamCreate(&mut made, 1));
            facts.code("after.cuEventCreate", cuEventCreate(&mut made, 2));
            facts.code(
                "after.cuModuleLoadData",
                cuModuleLoadData(&mut made, crate::kernels::GOOD.as_ptr()),
            );
            facts.code(
                "after.launch",
                launch(kernel("empty\0"), 1, 1, 0, self.other, &mut []),
            );
            facts.code(
                "after.cuPointerGetAttribute",
                super::pointer::attribute(self.address, 2).0,
            );
            facts.code(
                "after.cuIpcGetMemHandle",
                cuIpcGetMemHandle(&mut IpcHandle([0; 64]), self.address),
            );
            facts.code("after.cuCtxGetCurrent", cuCtxGetCurrent(&mut made));
            facts.code(
                "after.cuDeviceGetAttribute",
                cuDeviceGetAttribute(&mut number, 16, 0),
            );
            facts.fact(
                "after.host_reads_pinned",
                crate::tools::read(self.host) < u32::MAX,
            );
            facts.code("after.cuMemFree", cuMemFree_v2(self.address));
            facts.code(
                "after.cuMemFreeAsync",
                cuMemFreeAsync(self.pool, self.other),
            );
            facts.code("after.cuMemFreeHost", cuMemFreeHost(self.host));
            facts.code("after.cuEventDestroy", cuEventDestroy_v2(self.done));
            facts.code("after.cuStreamDestroy", cuStreamDestroy_v2(self.stream));
            facts.code(
                "after.cuDevicePrimaryCtxRelease",
                cuDevicePrimaryCtxRelease_v2(0),
            );
        }
    }
}

/// Faults, and returns what waiting for it answers.
fn fault() -> Code {
    launch(kernel("store\0"), 1, 1, 0, 0, &mut [0, 1]);
    // SAFETY: waits.
    unsafe { cuCtxSynchronize() }
}

fn bystander(facts: &Facts) {
    let Ok(mut other) = Process::helper("bystander", &[]) else {
        return facts.fact("helper", "did not start");
    };
    other.until_it_waits(&facts.within("before"));
    ready();
    facts.code("fault", fault());
    other.go_on();
    let end = other.finish(&facts.within("other"));
    facts.fact("other_process", end);
    let Ok(later) = Process::helper("bystander-alone", &[]) else {
        return facts.fact("helper", "did not start");
    };
    let end = later.finish(&facts.within("later"));
    facts.fact("later_process", end);
}

/// Whether a fresh retain gives a context that works.
fn starts_anew(facts: &Facts) {
    let mut context = 0;
    // SAFETY: pointers are of locals.
    unsafe {
        facts.code("anew.retain", cuDevicePrimaryCtxRetain(&mut context, 0));
        facts.code("anew.set_current", cuCtxSetCurrent(context));
        facts.code("anew.allocate", cuMemAlloc_v2(&mut 0, MIB));
        facts.code("anew.synchronize", cuCtxSynchronize());
        let (mut module, mut function) = (0, 0);
        facts.code(
            "anew.load",
            cuModuleLoadData(&mut module, crate::kernels::GOOD.as_ptr()),
        );
        facts.code(
            "anew.function",
            cuModuleGetFunction(&mut function, module, c"empty".as_ptr().cast()),
        );
        if function != 0 {
            facts.code("anew.launch", launch(function, 1, 1, 0, 0, &mut []));
        }
        facts.code("anew.synchronize_again", cuCtxSynchronize());
    }
}

fn reset(facts: &Facts) {
    ready();
    facts.code("fault", fault());
    // SAFETY: nothing of the old context is used again.
    unsafe { facts.code("reset", cuDevicePrimaryCtxReset_v2(0)) };
    starts_anew(facts);
}

fn release(facts: &Facts) {
    ready();
    facts.code("fault", fault());
    // SAFETY: nothing of the old context is used again.
    unsafe {
        facts.code("release", cuDevicePrimaryCtxRelease_v2(0));
        cuCtxSetCurrent(0);
    }
    starts_anew(facts);
}

fn own_context(facts: &Facts) {
    let primary = ready();
    let mut own = 0;
    // SAFETY: pointers are of locals; the destroyed context is not used again.
    unsafe {
        facts.code("create", cuCtxCreate_v2(&mut own, 0, 0));
        facts.code("fault_there", fault());
        cuCtxSetCurrent(primary);
        facts.code("primary_synchronizes", cuCtxSynchronize());
        facts.code("primary_allocates", cuMemAlloc_v2(&mut 0, MIB));
        facts.code("destroy", cuCtxDestroy_v2(own));
        facts.code(
            "primary_allocates_after_destroy",
            cuMemAlloc_v2(&mut 0, MIB),
        );
    }
}
