//! Streams: each runs its work in order in a thread of its own, and waits for others where the rules of default streams say so.
//!
//! Used by everything that is done "in a stream". Knows work as closures. Rules: CUDA Driver API, 5 Stream synchronization
//! behavior, and docs/gpu-facts.md, Streams. The functions of C are in `stream_calls`.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::call::{lock, say};
use crate::code::{Answer, Code};
use crate::device::Device;
use crate::plan::Random;

/// The greatest priority; the least is 0 (recorded).
pub(crate) const GREATEST_PRIORITY: i32 = -5;

/// What a stream does when its turn comes.
pub(crate) type Work = Box<dyn FnOnce() -> Answer + Send>;

/// A stream.
pub(crate) struct Stream {
    /// The context it belongs to.
    pub(crate) context: u64,
    /// Of `cuStreamCreate`: bit 0 says non-blocking.
    pub(crate) flags: u32,
    pub(crate) priority: i32,
    device: Arc<Device>,
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Stream")
            .field("flags", &self.flags)
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    submitted: u64,
    completed: u64,
    has_thread: bool,
    /// No more work will come: its thread ends when all is done.
    is_closed: bool,
}

/// Work, and what comes before it.
pub(crate) struct Job {
    /// Work of other streams that must be done before.
    pub(crate) after: Vec<(Arc<Stream>, u64)>,
    pub(crate) work: Work,
}

thread_local! {
    static IN_HOST_FUNCTION: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread runs a function that `cuLaunchHostFunc` was given: CUDA may not be called there.
pub(crate) fn inside_host_function() -> bool {
    IN_HOST_FUNCTION.get()
}

/// Runs a function of the program's.
pub(crate) fn run_host_function(function: impl FnOnce()) {
    IN_HOST_FUNCTION.set(true);
    function();
    IN_HOST_FUNCTION.set(false);
}

impl Stream {
    pub(crate) fn new(device: Arc<Device>, context: u64, flags: u32, priority: i32) -> Arc<Self> {
        Arc::new(Self {
            context,
            flags,
            priority,
            device,
            queue: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    /// Whether it and the legacy default stream wait for each other.
    pub(crate) fn is_blocking(&self) -> bool {
        self.flags & 1 == 0
    }

    /// How much work it was ever given.
    pub(crate) fn submitted(&self) -> u64 {
        lock(&self.queue).submitted
    }

    /// Whether the work with this ticket is done.
    pub(crate) fn is_done(&self, ticket: u64) -> bool {
        lock(&self.queue).completed >= ticket
    }

    /// Waits for that.
    pub(crate) fn wait(&self, ticket: u64) {
        let mut queue = lock(&self.queue);
        while queue.completed < ticket {
            queue = self
                .changed
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Appends work.
    pub(crate) fn push(self: &Arc<Self>, job: Job) {
        let mut queue = lock(&self.queue);
        queue.jobs.push_back(job);
        queue.submitted += 1;
        if !queue.has_thread {
            queue.has_thread = true;
            let stream = Arc::clone(self);
            if let Err(error) = std::thread::Builder::new()
                .name("cuda-stream".to_owned())
                .spawn(move || stream.run())
            {
                say!("a stream has no thread: {error}; the process ends here");
                std::process::abort();
            }
        }
        self.changed.notify_all();
    }

    fn run(&self) {
        let mut pauses = Pauses::of_stream();
        while let Some(job) = self.next() {
            for (other, ticket) in job.after {
                other.wait(ticket);
            }
            pauses.pause();
            if !self.device.fault.happened() {
                let number = crate::call::guarded("the work of a stream", job.work);
                if number != 0 {
                    self.device.fault.set(Code(number));
                    if let Ok(driver) = crate::driver::Driver::get() {
                        driver.counters.add(crate::counters::Number::Faults);
                    }
                }
            }
            lock(&self.queue).completed += 1;
            self.changed.notify_all();
        }
    }

    fn next(&self) -> Option<Job> {
        let mut queue = lock(&self.queue);
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            if queue.is_closed {
                return None;
            }
            queue = self
                .changed
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether it takes no more work.
    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.queue).is_closed
    }

    /// No more work will come; what there is is still done.
    pub(crate) fn close(&self) {
        lock(&self.queue).is_closed = true;
        self.changed.notify_all();
    }
}

/// Chaos: pauses of random length between the works of a stream.
struct Pauses(Option<Random>);

impl Pauses {
    fn of_stream() -> Self {
        static STREAMS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = STREAMS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let seed = crate::driver::Driver::get()
            .ok()
            .and_then(|driver| driver.settings.chaos);
        Self(seed.map(|seed| Random::new(seed.wrapping_add(number.wrapping_mul(104_729)))))
    }

    fn pause(&mut self) {
        if let Some(random) = &mut self.0 {
            std::thread::sleep(Duration::from_micros(random.below(2_000)));
        }
    }
}
