//! How fast bytes move between host and device, and what overlaps.

use std::time::Instant;

use super::median;
use crate::driver::*;
use crate::facts::Facts;
use crate::tools::{Gate, MIB, NON_BLOCKING, device, event, pages, ready, registered, stream};

const LARGEST: usize = 64 * MIB;
const SIZES: &[(&str, usize)] = &[("64KiB", 64 << 10), ("1MiB", MIB), ("64MiB", LARGEST)];

/// Host memory of `CU_MEMHOSTALLOC_*` flags, written once.
fn allocated(flags: u32) -> u64 {
    let mut address = 0;
    // SAFETY: the pointer is of a local.
    unsafe { cuMemHostAlloc(&mut address, LARGEST, flags) };
    touched(address)
}

/// Writes every page, so that no copy has to make it first.
fn touched(address: u64) -> u64 {
    for page in 0..(LARGEST / 4096) as u64 {
        crate::tools::write(address + page * 4096, 1);
    }
    address
}

/// The median bandwidth of `copy` of `bytes`: each run copies at least 64 MiB, then waits.
fn bandwidth(bytes: usize, copy: impl Fn()) -> f64 {
    let repeats = (LARGEST / bytes).clamp(1, 64);
    let run = || {
        let start = Instant::now();
        for _ in 0..repeats {
            copy();
        }
        // SAFETY: waits.
        unsafe { cuCtxSynchronize() };
        (bytes * repeats) as f64 / start.elapsed().as_secs_f64() / 1e9
    };
    run();
    median((0..9).map(|_| run()).collect())
}

/// The median time of one copy of `bytes` and the wait for it, in microseconds.
fn latency(stream: u64, copy: impl Fn()) -> f64 {
    super::median_us(50, || {
        copy();
        // SAFETY: the stream is ours.
        unsafe { cuStreamSynchronize(stream) };
    })
}

/// `measure/copies`.
pub(super) fn run(facts: &Facts) {
    ready();
    let own = stream(NON_BLOCKING);
    let (on_device, second) = (device(LARGEST), device(LARGEST));
    let hosts = [
        ("pinned", allocated(1)),
        ("write_combined", allocated(5)),
        ("registered", touched(registered(LARGEST))),
        ("pageable", touched(pages(LARGEST))),
    ];
    // SAFETY: all memories are as large as the largest size.
    unsafe {
        for (size, bytes) in SIZES {
            for (kind, host) in hosts {
                let up = || {
                    cuMemcpyHtoDAsync_v2(on_device, host, *bytes, own);
                };
                let down = || {
                    cuMemcpyDtoHAsync_v2(host, on_device, *bytes, own);
                };
                facts.measured(
                    &format!("upload.{kind}.{size}"),
                    bandwidth(*bytes, up),
                    "GB/s",
                );
                facts.measured(
                    &format!("download.{kind}.{size}"),
                    bandwidth(*bytes, down),
                    "GB/s",
                );
                facts.measured(
                    &format!("upload_and_wait.{kind}.{size}"),
                    latency(own, up),
                    "us",
                );
                facts.measured(
                    &format!("download_and_wait.{kind}.{size}"),
                    latency(own, down),
                    "us",
                );
            }
            let inside = || {
                cuMemcpyDtoDAsync_v2(second, on_device, *bytes, own);
            };
            facts.measured(
                &format!("device_to_device.{size}"),
                bandwidth(*bytes, inside),
                "GB/s",
            );
            facts.measured(
                &format!("device_to_device_and_wait.{size}"),
                latency(own, inside),
                "us",
            );
        }
    }
    for (kind, address) in hosts {
        host_copies(facts, address, kind);
    }
}

/// How fast the host copies out of memory of a kind and into it: the reason against write-combined spill buffers.
fn host_copies(facts: &Facts, address: u64, kind: &str) {
    let plain = touched(pages(LARGEST));
    for (name, to, from) in [
        ("host_reads", plain, address),
        ("host_writes", address, plain),
    ] {
        let took = super::median_us(5, || {
            let from = std::ptr::with_exposed_provenance::<u8>(from as usize);
            // SAFETY: both memories are as large as what is copied, and apart.
            unsafe {
                let to = std::ptr::with_exposed_provenance_mut::<u8>(to as usize);
                std::ptr::copy_nonoverlapping(from, to, LARGEST);
            }
        });
        facts.measured(
            &format!("{name}.{kind}.64MiB"),
            LARGEST as f64 / took / 1e3,
            "GB/s",
        );
    }
}

/// Milliseconds on the device from a gate's opening to the end of all that `work` put on `streams`.
fn together(streams: &[u64], work: impl Fn()) -> f64 {
    let once = || {
        let first = stream(NON_BLOCKING);
        let (start, end) = (event(0), event(0));
        // SAFETY: streams and events are ours.
        unsafe {
            let gate = Gate::closed(first);
            cuEventRecord(start, first);
            streams.iter().for_each(|other| {
                cuStreamWaitEvent(*other, start, 0);
            });
            work();
            for other in streams {
                let done = event(2);
                cuEventRecord(done, *other);
                cuStreamWaitEvent(first, done, 0);
            }
            cuEventRecord(end, first);
            gate.open();
            cuCtxSynchronize();
            let mut time = 0.0;
            cuEventElapsedTime(&mut time, start, end);
            f64::from(time)
        }
    };
    once();
    median((0..9).map(|_| once()).collect())
}

/// `measure/overlap`: an upload, a download and device work alone and all at once.
pub(super) fn overlap(facts: &Facts) {
    ready();
    let streams = [
        stream(NON_BLOCKING),
        stream(NON_BLOCKING),
        stream(NON_BLOCKING),
    ];
    let (above, below) = (allocated(1), allocated(1));
    let (up_to, down_from, filled) = (device(LARGEST), device(LARGEST), device(LARGEST));
    let [first, second, third] = streams;
    // SAFETY: all memories are as large as what is copied or filled.
    unsafe {
        let up = || {
            cuMemcpyHtoDAsync_v2(up_to, above, LARGEST, first);
        };
        let down = || {
            cuMemcpyDtoHAsync_v2(below, down_from, LARGEST, second);
        };
        let fill = || {
            for _ in 0..50 {
                cuMemsetD8Async(filled, 1, LARGEST, third);
            }
        };
        facts.measured("upload_64MiB_alone", together(&streams, up), "ms");
        facts.measured("download_64MiB_alone", together(&streams, down), "ms");
        facts.measured(
            "fifty_memsets_of_64MiB_alone",
            together(&streams, fill),
            "ms",
        );
        facts.measured(
            "upload_and_download",
            together(&streams, || {
                up();
                down();
            }),
            "ms",
        );
        facts.measured(
            "all_three",
            together(&streams, || {
                up();
                down();
                fill();
            }),
            "ms",
        );
        let two = || {
            up();
            cuMemcpyHtoDAsync_v2(down_from, below, LARGEST, second);
        };
        facts.measured("two_uploads", together(&streams, two), "ms");
    }
}
