//! Events, within a process and between processes.
//!
//! Exports the functions about events. A record makes a new mark; whoever waits, waits for the mark that was the latest then
//! (CUDA Driver API, 6.19 Event Management; docs/gpu-facts.md, Events).

use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::call::{Out, functions, lock};
use crate::code::{Answer, Code};
use crate::device::Device;
use crate::driver::Driver;
use crate::handle::Object;
use crate::stream_calls::Lane;

/// `CU_EVENT_DISABLE_TIMING` and `CU_EVENT_INTERPROCESS`; 1 is `CU_EVENT_BLOCKING_SYNC`.
const UNTIMED: u32 = 2;
const INTERPROCESS: u32 = 4;

/// An event.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) context: u64,
    flags: u32,
    /// The device of its context: a fault ends every wait.
    device: Arc<Device>,
    latest: Mutex<Option<Arc<Mark>>>,
    shared: Option<Shared>,
}

/// Where an event of several processes lies in the machine.
#[derive(Debug)]
struct Shared {
    index: usize,
    /// Another process made it.
    is_opened: bool,
}

/// One record of an event.
#[derive(Debug)]
pub(crate) enum Mark {
    /// Of this process: when it was reached.
    Own {
        reached: Mutex<Option<Instant>>,
        changed: Condvar,
    },
    /// Of any process: the event and how many of its records must be done.
    Shared { index: usize, record: u64 },
}

impl Mark {
    fn own() -> Self {
        Self::Own {
            reached: Mutex::new(None),
            changed: Condvar::new(),
        }
    }

    fn reach(&self, driver: &Driver) {
        match self {
            Self::Own { reached, changed } => {
                *lock(reached) = Some(Instant::now());
                changed.notify_all();
            }
            Self::Shared { index, record } => {
                if let Some([_, _, done, _]) = driver.machine.event(*index) {
                    done.fetch_max(*record, Ordering::SeqCst);
                }
            }
        }
    }

    fn is_reached(&self) -> bool {
        match self {
            Self::Own { reached, .. } => lock(reached).is_some(),
            Self::Shared { index, record } => {
                let Ok(driver) = Driver::get() else {
                    return true;
                };
                // A record of a process that died will never be done: nobody is to wait for it.
                driver.machine.event(*index).is_none_or(|[_, _, done, by]| {
                    done.load(Ordering::SeqCst) >= *record
                        || !driver.machine.is_alive(by.load(Ordering::SeqCst))
                })
            }
        }
    }

    /// Waits until it is reached or never will be, because `device` has faulted.
    pub(crate) fn wait(&self, device: &Device) {
        while !self.is_reached() && !device.fault.happened() {
            match self {
                Self::Own { reached, changed } => {
                    let guard = lock(reached);
                    if guard.is_none() {
                        drop(
                            changed
                                .wait_timeout(guard, Duration::from_millis(5))
                                .unwrap_or_else(PoisonError::into_inner),
                        );
                    }
                }
                Self::Shared { .. } => std::thread::sleep(Duration::from_micros(100)),
            }
        }
    }

    fn reached_at(&self) -> Option<Instant> {
        match self {
            Self::Own { reached, .. } => *lock(reached),
            Self::Shared { .. } => None,
        }
    }
}

impl Event {
    /// The latest record, by whichever process; `None` where there is none.
    pub(crate) fn latest(&self, driver: &Driver) -> Option<Arc<Mark>> {
        match &self.shared {
            None => lock(&self.latest).clone(),
            Some(Shared { index, .. }) => {
                let [_, begun, ..] = driver.machine.event(*index)?;
                let record = begun.load(Ordering::SeqCst);
                (record > 0).then(|| {
                    Arc::new(Mark::Shared {
                        index: *index,
                        record,
                    })
                })
            }
        }
    }

    fn new_mark(&self, driver: &Driver) -> Arc<Mark> {
        let shared = self
            .shared
            .as_ref()
            .and_then(|shared| Some((shared.index, driver.machine.event(shared.index)?)));
        let mark = Arc::new(match shared {
            None => Mark::own(),
            Some((index, [_, begun, _, by])) => {
                // First, so that nobody sees the record without its process.
                by.store(driver.machine.own_name(), Ordering::SeqCst);
                Mark::Shared {
                    index,
                    record: begun.fetch_add(1, Ordering::SeqCst) + 1,
                }
            }
        });
        *lock(&self.latest) = Some(Arc::clone(&mark));
        mark
    }

    fn is_timed(&self) -> bool {
        self.flags & UNTIMED == 0
    }

    /// An event that another process made, at `index` of the machine.
    pub(crate) fn opened(driver: &Driver, index: usize) -> Result<u64, Code> {
        let context = crate::context::current()?;
        let event = Self {
            context: context.handle(),
            flags: UNTIMED | INTERPROCESS,
            device: Arc::clone(context.device()),
            latest: Mutex::default(),
            shared: Some(Shared {
                index,
                is_opened: true,
            }),
        };
        Ok(driver.handles.add(|_| Object::Event(Arc::new(event))))
    }

    /// Where it lies in the machine; `INVALID_HANDLE` for one that was not made to be shared, or was opened.
    pub(crate) fn shared_index(&self) -> Result<usize, Code> {
        self.shared
            .as_ref()
            .filter(|shared| !shared.is_opened)
            .map(|shared| shared.index)
            .ok_or(Code::INVALID_HANDLE)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if let (Some(shared), Ok(driver)) = (&self.shared, Driver::get()) {
            driver.machine.leave_event(shared.index);
        }
    }
}

fn record(driver: &'static Driver, event: u64, stream: u64) -> Answer {
    let event = driver.handles.event(event)?;
    let lane = Lane::of(driver, stream)?;
    let mark = event.new_mark(driver);
    lane.submit(move || {
        mark.reach(driver);
        // The event lives until its record is done, also when it was destroyed meanwhile.
        drop(event);
        Ok(())
    });
    Ok(())
}

fn elapsed(driver: &Driver, milliseconds: Out<f32>, start: u64, end: u64) -> Answer {
    let (start, end) = (driver.handles.event(start)?, driver.handles.event(end)?);
    start.device.fault.check()?;
    let latest = |event: &Event| {
        event
            .latest(driver)
            .filter(|_| event.is_timed())
            .ok_or(Code::INVALID_HANDLE)
    };
    let (start, end) = (latest(&start)?, latest(&end)?);
    let (Some(from), Some(to)) = (start.reached_at(), end.reached_at()) else {
        return Err(Code::NOT_READY);
    };
    let forward = to.saturating_duration_since(from).as_secs_f32();
    milliseconds.put((forward - from.saturating_duration_since(to).as_secs_f32()) * 1e3)
}

functions! { driver;
    /// `cuEventCreate`: an interprocess one must be untimed.
    fn cuEventCreate(event: Out<u64>, flags: u32) {
        let context = crate::context::current()?;
        let is_shared = flags & INTERPROCESS != 0;
        if flags > 7 || is_shared && flags & UNTIMED == 0 {
            return Err(Code::INVALID_VALUE);
        }
        let shared = match is_shared {
            true => Some(Shared { index: driver.machine.new_event().ok_or(Code::OUT_OF_MEMORY)?, is_opened: false }),
            false => None,
        };
        let device = Arc::clone(context.device());
        let made = Event { context: context.handle(), flags, device, latest: Mutex::default(), shared };
        event.put(driver.handles.add(|_| Object::Event(Arc::new(made))))
    }

    /// `cuEventRecord`.
    fn cuEventRecord(event: u64, stream: u64) {
        record(driver, event, stream)
    }

    /// `cuEventRecordWithFlags`.
    fn cuEventRecordWithFlags(event: u64, stream: u64, flags: u32) {
        if flags > 1 {
            return Err(Code::INVALID_VALUE);
        }
        record(driver, event, stream)
    }

    /// `cuEventQuery`: success for one that was never recorded.
    fn cuEventQuery(event: u64) {
        let event = driver.handles.event(event)?;
        if event.device.fault.happened() {
            return event.device.fault.tell();
        }
        if event.latest(driver).is_none_or(|mark| mark.is_reached()) { Ok(()) } else { Err(Code::NOT_READY) }
    }

    /// `cuEventSynchronize`.
    fn cuEventSynchronize(event: u64) {
        let event = driver.handles.event(event)?;
        if let Some(mark) = event.latest(driver) {
            mark.wait(&event.device);
        }
        event.device.fault.tell()
    }

    /// `cuEventElapsedTime`: `INVALID_HANDLE` for unrecorded and untimed events, `NOT_READY` for pending ones.
    fn cuEventElapsedTime(milliseconds: Out<f32>, start: u64, end: u64) {
        elapsed(driver, milliseconds, start, end)
    }

    /// `cuEventElapsedTime` of CUDA 12.8 and later.
    fn cuEventElapsedTime_v2(milliseconds: Out<f32>, start: u64, end: u64) {
        elapsed(driver, milliseconds, start, end)
    }

    /// `cuEventDestroy`: also of one that is waited for.
    fn cuEventDestroy_v2(event: u64) {
        driver.handles.event(event)?.device.fault.check()?;
        driver.handles.remove_event(event).map(|_| ())
    }
}
