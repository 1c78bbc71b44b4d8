//! Faults that end the use of a device by its process, and when they are told.
//!
//! Set by streams, asked by every call. Rules: docs/gpu-facts.md, Faults and surprises 1 and 8.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::call::lock;
use crate::code::{Answer, Code};

/// Whether a fault has ended this process's use of a device, and whether that has been told.
///
/// A fault is told late: calls that do not wait for the device succeed for a while (docs/gpu-facts.md, surprise 8).
#[derive(Debug, Default)]
pub(crate) struct FaultState {
    fault: Mutex<Option<Fault>>,
    /// Set with it: kernels that run end then.
    flag: AtomicBool,
}

#[derive(Debug, Clone, Copy)]
struct Fault {
    code: Code,
    since: Instant,
    told: bool,
}

/// How long a fault stays unknown to calls that do not wait.
const LATE: Duration = Duration::from_millis(150);

impl FaultState {
    /// Notes a fault; the first counts.
    pub(crate) fn set(&self, code: Code) {
        lock(&self.fault).get_or_insert(Fault {
            code,
            since: Instant::now(),
            told: false,
        });
        self.flag.store(true, Ordering::SeqCst);
    }

    /// Set when there was one.
    pub(crate) fn flag(&self) -> &AtomicBool {
        &self.flag
    }

    /// What a call answers that waits for the device.
    pub(crate) fn tell(&self) -> Answer {
        match lock(&self.fault).as_mut() {
            Some(fault) => {
                fault.told = true;
                Err(fault.code)
            }
            None => Ok(()),
        }
    }

    /// What a call answers that does not.
    pub(crate) fn check(&self) -> Answer {
        match *lock(&self.fault) {
            Some(fault) if fault.told || fault.since.elapsed() >= LATE => Err(fault.code),
            _ => Ok(()),
        }
    }

    /// Whether there was one, told or not.
    pub(crate) fn happened(&self) -> bool {
        lock(&self.fault).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_told_to_those_who_wait_and_then_to_all() {
        let fault = FaultState::default();
        fault.set(Code::ILLEGAL_ADDRESS);
        fault.set(Code::LAUNCH_FAILED);
        assert_eq!(fault.check(), Ok(()));
        assert_eq!(fault.tell(), Err(Code::ILLEGAL_ADDRESS));
        assert_eq!(fault.check(), Err(Code::ILLEGAL_ADDRESS));
    }
}
