//! Wakes a worker that waits, from any thread, for as long as it lives.

use std::sync::{Arc, Mutex, PoisonError};

use ucx_sys::{Ucx, ucp_worker_h};

/// Wakes one worker. Cheap to clone; of no effect when the worker has ended.
#[derive(Clone)]
pub(crate) struct Signal {
    ucx: &'static Ucx,
    worker: Arc<Mutex<Option<Handle>>>,
}

struct Handle(ucp_worker_h);

// SAFETY: used for `ucp_worker_signal` alone, which UCX allows from any thread.
unsafe impl Send for Handle {}

impl Signal {
    pub(super) fn new(ucx: &'static Ucx, worker: ucp_worker_h) -> Self {
        Self {
            ucx,
            worker: Arc::new(Mutex::new(Some(Handle(worker)))),
        }
    }

    /// Makes the worker return from its wait, or from the next one.
    pub(crate) fn wake(&self) {
        let worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Handle(worker)) = &*worker {
            // SAFETY: the worker lives: it ends only after `end`, which waits for the lock.
            unsafe { self.ucx.ucp_worker_signal(*worker) };
        }
    }

    /// The worker is about to end.
    pub(super) fn end(&self) {
        *self.worker.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
