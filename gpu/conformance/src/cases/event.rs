//! Cases about events.

use super::cases;
use crate::driver::*;
use crate::facts::Facts;
use crate::tools::{Gate, NON_BLOCKING, event, ready, stream};

cases! { CASES;
    "event/states", "unrecorded, pending, done, recorded again", states;
    "event/elapsed", "each reason for which there is no time", elapsed;
    "event/flags", "flags that exist and do not", flags;
}

fn states(facts: &Facts) {
    ready();
    let own = stream(NON_BLOCKING);
    let mark = event(0);
    // SAFETY: streams and events are ours; 0 is no event.
    unsafe {
        facts.code("query_unrecorded", cuEventQuery(mark));
        facts.code("synchronize_unrecorded", cuEventSynchronize(mark));
        let gate = Gate::closed(own);
        facts.code("record", cuEventRecord(mark, own));
        facts.code("query_pending", cuEventQuery(mark));
        gate.open();
        facts.code("synchronize", cuEventSynchronize(mark));
        facts.code("query_done", cuEventQuery(mark));
        let gate = Gate::closed(own);
        facts.code("record_again", cuEventRecord(mark, own));
        facts.code("query_again", cuEventQuery(mark));
        facts.code("destroy_pending", cuEventDestroy_v2(mark));
        gate.open();
        facts.code("query_null", cuEventQuery(0));
        facts.code("destroy_null", cuEventDestroy_v2(0));
        facts.code("synchronize_all", cuCtxSynchronize());
    }
}

fn elapsed(facts: &Facts) {
    ready();
    let own = stream(NON_BLOCKING);
    let (start, end, untimed) = (event(0), event(0), event(2));
    let mut time = -1.0;
    // SAFETY: events are ours; the pointer is of a local.
    unsafe {
        facts.code("unrecorded", cuEventElapsedTime(&mut time, start, end));
        cuEventRecord(start, own);
        facts.code("end_unrecorded", cuEventElapsedTime(&mut time, start, end));
        let gate = Gate::closed(own);
        cuEventRecord(end, own);
        cuEventRecord(untimed, own);
        facts.code("end_pending", cuEventElapsedTime(&mut time, start, end));
        facts.code(
            "end_pending_untimed",
            cuEventElapsedTime(&mut time, start, untimed),
        );
        gate.open();
        cuStreamSynchronize(own);
        facts.code("done", cuEventElapsedTime(&mut time, start, end));
        facts.fact("is_positive", time > 0.0);
        facts.code("backwards", cuEventElapsedTime(&mut time, end, start));
        facts.fact("backwards_is_negative", time < 0.0);
        facts.code("untimed", cuEventElapsedTime(&mut time, start, untimed));
        facts.code("with_itself", cuEventElapsedTime(&mut time, start, start));
        facts.fact("with_itself_is_zero", time == 0.0);
    }
}

fn flags(facts: &Facts) {
    ready();
    let mut mark = 0;
    // SAFETY: pointers are of locals.
    unsafe {
        for (name, flags) in [
            ("default", 0),
            ("blocking", 1),
            ("untimed", 2),
            ("interprocess_untimed", 6),
            ("interprocess", 4),
            ("unknown", 64),
        ] {
            facts.code(name, cuEventCreate(&mut mark, flags));
        }
        cuEventCreate(&mut mark, 2);
        facts.code(
            "ipc_handle_without_interprocess",
            cuIpcGetEventHandle(&mut IpcHandle([0; 64]), mark),
        );
        cuEventCreate(&mut mark, 6);
        facts.code(
            "ipc_handle",
            cuIpcGetEventHandle(&mut IpcHandle([0; 64]), mark),
        );
    }
}
