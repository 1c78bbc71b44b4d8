//! Streams: work of a device in order, and who waits for its end. Called by whatever copies or launches.
//!
//! What was submitted keeps its memory until the driver has said that it ended, also when nobody waits for it any more. A thread of each
//! stream waits for those ends, one after another, as they come in that order.

use std::fmt;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::task::{Context, Poll, Wake};
use std::thread::{self, Thread};

use futures::channel::oneshot;
use transload_cuda_driver::{
    cuEventCreate, cuEventDestroy_v2, cuEventRecord, cuEventSynchronize, cuStreamCreate,
    cuStreamDestroy_v2, cuStreamSynchronize,
};

use super::context::Device;
use super::error::{DeviceError, check};
use super::jobs::caught;

/// `CU_STREAM_NON_BLOCKING`: the legacy stream, which UCX and libraries use, holds nothing up.
const NON_BLOCKING: u32 = 1;
/// `CU_EVENT_BLOCKING_SYNC` and `CU_EVENT_DISABLE_TIMING`: who waits sleeps.
const EVENT_FLAGS: u32 = 1 | 2;

/// A stream of a device. Clones share it.
#[derive(Clone)]
pub struct Stream {
    shared: Arc<Shared>,
}

struct Shared {
    name: &'static str,
    raw: Arc<Raw>,
    ends: Mutex<mpsc::Sender<Under>>,
}

/// The driver's stream. Lives until everything submitted has ended.
struct Raw {
    device: Device,
    stream: u64,
    /// Events that nobody waits for, to be used again.
    events: Mutex<Vec<u64>>,
}

/// Something under way.
struct Under {
    event: Option<u64>,
    end: Box<dyn FnOnce(End) + Send>,
}

/// How something under way ended.
enum End {
    /// It has, in this way.
    Over(Result<(), DeviceError>),
    /// The driver does not say.
    Unknown(DeviceError),
}

/// The end of something submitted: a future, whose value is what was kept for it. Dropping it changes nothing but that nobody waits.
#[must_use = "what was submitted may have failed"]
pub struct Completion<K> {
    end: oneshot::Receiver<Result<K, DeviceError>>,
}

impl Stream {
    /// A stream of its own on this device.
    ///
    /// # Errors
    /// [`DeviceError`], also where no thread can be started.
    pub fn new(device: &Device, name: &'static str) -> Result<Self, DeviceError> {
        device.enter()?;
        let mut stream = 0;
        // SAFETY: the pointer is of a local.
        check("cuStreamCreate", unsafe {
            cuStreamCreate(&mut stream, NON_BLOCKING)
        })?;
        let raw = Arc::new(Raw {
            device: device.clone(),
            stream,
            events: Mutex::default(),
        });
        let (sender, ends) = mpsc::channel();
        let of_thread = Arc::clone(&raw);
        let thread = thread::Builder::new().name(format!("gpu-{name}"));
        let started = thread.spawn(move || wait_for_ends(&of_thread, &ends));
        started.map_err(|error| DeviceError::Unusable {
            reason: format!("no thread for a stream: {error}"),
        })?;
        Ok(Self {
            shared: Arc::new(Shared {
                name,
                raw,
                ends: Mutex::new(sender),
            }),
        })
    }

    /// Its device.
    pub fn device(&self) -> &Device {
        &self.shared.raw.device
    }

    /// Submits what `enqueue` enqueues on the stream it is given, behind all that was submitted before. `keep` is what that reads and
    /// writes: it comes back when it has ended, or is dropped then. Nothing may touch its bytes meanwhile. A panic of `enqueue` is an
    /// error.
    pub(super) fn submit<K: Send + 'static>(
        &self,
        keep: K,
        enqueue: impl FnOnce(&K, u64) -> Result<(), DeviceError>,
    ) -> Completion<K> {
        let (told, end) = oneshot::channel();
        let raw = &self.shared.raw;
        // Whatever happens from here on, and wherever this is dropped: only where its end is known it is freed.
        let keep = ManuallyDrop::new(keep);
        let enqueued = caught(|| {
            raw.device.enter()?;
            enqueue(&keep, raw.stream)
        });
        // Also where that failed: a part of it may be on its way.
        let event = raw.record();
        let marked = event.as_ref().map(|_| ()).map_err(Clone::clone);
        let end_with = move |end: End| {
            let result = match end {
                End::Over(ended) => {
                    let keep = ManuallyDrop::into_inner(keep);
                    enqueued.and(marked).and(ended).map(|()| keep)
                }
                End::Unknown(error) => {
                    tracing::error!(%error, "memory that a GPU may still use is never freed");
                    Err(error)
                }
            };
            // Who waited may be gone, and then it is dropped here.
            let _ = told.send(result);
        };
        let under = Under {
            event: event.ok(),
            end: Box::new(end_with),
        };
        let ends = self.shared.ends.lock();
        let sent = ends.unwrap_or_else(PoisonError::into_inner).send(under);
        if let Err(mpsc::SendError(under)) = sent {
            // Its thread has panicked, which only a bug brings about. What that left behind is never freed.
            under.finish(raw);
        }
        Completion { end }
    }
}

impl Under {
    fn finish(self, raw: &Raw) {
        let waited = match self.event {
            Some(event) => raw.wait_for(event),
            None => raw.synchronize(),
        };
        let ended = match waited {
            // That the wait failed does not say that the work ended.
            Err(error) if !error.is_lost() => raw.synchronize(),
            waited => waited,
        };
        let end = match ended {
            Err(error) if !error.is_lost() => End::Unknown(error),
            ended => End::Over(ended),
        };
        // What was kept is dropped there, and others wait behind it: a panic of it is not this thread's end.
        if catch_unwind(AssertUnwindSafe(|| (self.end)(end))).is_err() {
            tracing::error!("what was kept for a GPU panicked when it was dropped");
        }
    }
}

/// Until the last handle of the stream is gone and everything has ended.
fn wait_for_ends(raw: &Raw, ends: &mpsc::Receiver<Under>) {
    while let Ok(under) = ends.recv() {
        under.finish(raw);
    }
}

impl Raw {
    fn events(&self) -> MutexGuard<'_, Vec<u64>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An event that comes after all that was submitted until now.
    fn record(&self) -> Result<u64, DeviceError> {
        self.device.enter()?;
        let kept = self.events().pop();
        let event = match kept {
            Some(event) => event,
            None => {
                let mut event = 0;
                // SAFETY: the pointer is of a local.
                check("cuEventCreate", unsafe {
                    cuEventCreate(&mut event, EVENT_FLAGS)
                })?;
                event
            }
        };
        // SAFETY: both handles are live.
        let recorded = check("cuEventRecord", unsafe {
            cuEventRecord(event, self.stream)
        });
        if recorded.is_err() {
            self.events().push(event);
        }
        recorded.map(|()| event)
    }

    fn wait_for(&self, event: u64) -> Result<(), DeviceError> {
        self.device.enter()?;
        // SAFETY: the handle is live.
        let code = unsafe { cuEventSynchronize(event) };
        self.events().push(event);
        check("cuEventSynchronize", code)
    }

    fn synchronize(&self) -> Result<(), DeviceError> {
        self.device.enter()?;
        // SAFETY: the handle is live.
        check("cuStreamSynchronize", unsafe {
            cuStreamSynchronize(self.stream)
        })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Err(error) = self.device.enter() {
            return tracing::debug!(%error, "a stream is left to the driver");
        }
        for event in std::mem::take(&mut *self.events()) {
            // SAFETY: made by `record`, and nobody else has it.
            unsafe { cuEventDestroy_v2(event) };
        }
        // SAFETY: made by `Stream::new`; nothing is submitted any more.
        unsafe { cuStreamDestroy_v2(self.stream) };
    }
}

impl<K> Completion<K> {
    /// Blocks this thread until it has ended, also where the thread runs futures.
    ///
    /// # Errors
    /// [`DeviceError`], with which what was kept is dropped.
    pub fn wait(mut self) -> Result<K, DeviceError> {
        // Executors refuse to run within each other; this is none.
        let waker = Arc::new(Parked(thread::current())).into();
        let mut context = Context::from_waker(&waker);
        loop {
            if let Poll::Ready(ended) = Pin::new(&mut self).poll(&mut context) {
                return ended;
            }
            thread::park();
        }
    }
}

/// A thread that sleeps until it is woken.
struct Parked(Thread);

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl<K> Future for Completion<K> {
    type Output = Result<K, DeviceError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let ended = Pin::new(&mut self.end).poll(context);
        ended.map(|end| {
            end.unwrap_or_else(|_| {
                Err(DeviceError::Unusable {
                    reason: "the thread of a stream has ended".to_owned(),
                })
            })
        })
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({} of {:?})", self.shared.name, self.device())
    }
}

impl<K> fmt::Debug for Completion<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completion").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use transload_cuda_driver::cuMemcpyHtoDAsync_v2;

    use super::*;
    use crate::device::{Copies, DeviceMemory, PinnedPool, emulated};
    use crate::{Budget, HostBuffer};

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_is_kept_is_freed_after_the_end_also_where_the_enqueueing_panics() {
        let device = emulated::device();
        let memory = DeviceMemory::take(&device, 2 * MIB).expect("memory");
        let pinned = PinnedPool::new(&device, MIB);
        let stream = Stream::new(&device, "test").expect("a stream");
        let copies = Copies::new(&device).expect("streams");
        let budget = Budget::new("host", MIB);
        let to = Arc::new(memory.try_allocate(MIB).expect("room"));
        for round in 1..20 {
            let mut from = pinned.try_allocate(MIB).expect("it was freed");
            for slice in from.page_slices_mut() {
                slice.fill(round);
            }
            let ending = stream.submit((from, Arc::clone(&to)), |(from, to), stream| {
                for (host, bytes) in from.pieces() {
                    // SAFETY: `keep` has both until it has ended, and both are of one size.
                    let code =
                        unsafe { cuMemcpyHtoDAsync_v2(to.address(), host, bytes as usize, stream) };
                    check("cuMemcpyHtoDAsync", code)?;
                }
                panic!("after a part of it");
            });
            let error = ending.wait().expect_err("it panicked");
            assert!(error.to_string().contains("after a part of it"), "{error}");
            // Another stream would be early.
            let room = budget.try_reserve(MIB).expect("room");
            let read = copies.download_host(Arc::clone(&to), HostBuffer::uncleared(1 << 20, room));
            let (_, read) = read.wait().expect("a copy");
            assert!(read.as_slice().iter().all(|byte| *byte == round));
        }
    }
}
