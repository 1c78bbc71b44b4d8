//! A thread for what blocks, so that no thread that runs tasks does. Called by moves between tiers and by whoever submits kernels; knows
//! nothing of what it is given to do.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;

use futures::channel::oneshot;

use super::error::DeviceError;

/// A thread that carries out jobs, one after another, until nobody can send any. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Jobs {
    sender: mpsc::Sender<Job>,
}

type Job = Box<dyn FnOnce() + Send>;

impl Jobs {
    pub(super) fn start(name: &str) -> Result<Self, DeviceError> {
        let (sender, jobs) = mpsc::channel::<Job>();
        let thread = thread::Builder::new().name(format!("gpu-{name}"));
        let started = thread.spawn(move || jobs.into_iter().for_each(carry_out));
        started.map_err(|error| DeviceError::Unusable {
            reason: format!("no thread {name} can be started: {error}; raise the limit on threads"),
        })?;
        Ok(Self { sender })
    }

    /// Carries it out when those before it are done, also where nobody waits for its end any more. A panic of it is an error.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, DeviceError> + Send + 'static,
    ) -> Result<T, DeviceError> {
        let (told, end) = oneshot::channel();
        self.send(move || {
            // Who waited may be gone, and then what was made is dropped here.
            let _ = told.send(caught(job));
        });
        end.await.unwrap_or_else(|_| {
            Err(DeviceError::Unusable {
                reason: "a thread for it has ended".to_owned(),
            })
        })
    }

    /// The same, where nobody waits for its end.
    pub(super) fn send(&self, job: impl FnOnce() + Send + 'static) {
        // The thread ends when nobody can send: it is there.
        let _ = self.sender.send(Box::new(job));
    }
}

/// Others wait behind it: a panic of it is not the thread's end.
fn carry_out(job: Job) {
    if catch_unwind(AssertUnwindSafe(job)).is_err() {
        tracing::error!("what nobody waits for panicked, or what was made when it was dropped");
    }
}

/// What `job` gives; a panic is an error.
pub(super) fn caught<T>(job: impl FnOnce() -> Result<T, DeviceError>) -> Result<T, DeviceError> {
    catch_unwind(AssertUnwindSafe(job)).unwrap_or_else(|panic| {
        let reason = words_of(panic.as_ref()).to_owned();
        tracing::error!(reason, "work for a GPU panicked");
        Err(DeviceError::Panicked { reason })
    })
}

fn words_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&'static str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without words")
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::*;

    #[test]
    fn a_job_that_panics_is_an_error_and_the_next_is_carried_out() {
        let jobs = Jobs::start("test").expect("a thread");
        let error = block_on(jobs.run::<()>(|| panic!("in a job"))).expect_err("a panic");
        assert!(error.to_string().contains("in a job"), "{error}");
        jobs.send(|| panic!("nobody waits"));
        assert_eq!(block_on(jobs.run(|| Ok(7))), Ok(7));
    }
}
