//! What is measured, never compared: bandwidths and times, each the median of several runs.
//!
//! Called by `main` with `--measure`. Each runs in a process of its own, as the cases do.

mod calls;
mod copies;

use std::time::Instant;

use crate::cases::cases;

cases! { ALL;
    "measure/copies", "bandwidth by direction, kind of host memory and size", copies::run;
    "measure/overlap", "both directions and a kernel at once", copies::overlap;
    "measure/memory-calls", "allocate, free, register", calls::memory;
    "measure/small-calls", "launch, event, stream and context calls", calls::small;
    "measure/start", "cuInit, primary context, module load", calls::start;
    "measure/ipc", "handles and opening them elsewhere", calls::ipc;
}

/// The median time of `times` calls in microseconds.
pub(crate) fn median_us(times: usize, mut call: impl FnMut()) -> f64 {
    let took = (0..times.max(1)).map(|_| {
        let start = Instant::now();
        call();
        start.elapsed().as_secs_f64() * 1e6
    });
    median(took.collect())
}

/// The middle one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
