//! The functions of C about streams.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::Arc;

use crate::call::{Out, functions};
use crate::code::{Answer, Code};
use crate::context::{Context, current, current_even_if_faulted, synchronized};
use crate::driver::Driver;
use crate::handle::Object;
use crate::stream::{GREATEST_PRIORITY, Stream, Work, run_host_function};

/// `CU_STREAM_LEGACY` and `CU_STREAM_PER_THREAD`; 0 is the legacy stream as well.
const LEGACY: u64 = 1;
const PER_THREAD: u64 = 2;

thread_local! {
    /// This thread's default stream in each context.
    static OWN: RefCell<BTreeMap<u64, Arc<Stream>>> = const { RefCell::new(BTreeMap::new()) };
}

/// The stream that a handle means in a context.
pub(crate) fn find(driver: &Driver, context: &Context, handle: u64) -> Result<Arc<Stream>, Code> {
    match handle {
        0 | LEGACY => Ok(context.lanes.legacy()),
        PER_THREAD => Ok(per_thread(context)),
        _ => driver.handles.stream(handle),
    }
}

fn per_thread(context: &Context) -> Arc<Stream> {
    OWN.with_borrow_mut(|own| {
        let known = own
            .get(&context.handle())
            .filter(|stream| !stream.is_closed())
            .cloned();
        known.unwrap_or_else(|| {
            let stream = Stream::new(Arc::clone(context.device()), context.handle(), 0, 0);
            context.lanes.add(&stream);
            own.insert(context.handle(), Arc::clone(&stream));
            stream
        })
    })
}

/// The context whose streams keep order with `stream`: its own, or the current one for default streams.
pub(crate) fn home(
    driver: &Driver,
    current: &Arc<Context>,
    stream: &Stream,
) -> Result<Arc<Context>, Code> {
    if stream.context == 0 || stream.context == current.handle() {
        Ok(Arc::clone(current))
    } else {
        driver.handles.context(stream.context)
    }
}

/// Where work of the calling thread goes.
pub(crate) struct Lane {
    pub(crate) context: Arc<Context>,
    pub(crate) stream: Arc<Stream>,
}

impl Lane {
    /// The stream behind `handle`, in the current context or its own.
    pub(crate) fn of(driver: &Driver, handle: u64) -> Result<Self, Code> {
        let current = current()?;
        let stream = find(driver, &current, handle)?;
        Ok(Self {
            context: home(driver, &current, &stream)?,
            stream,
        })
    }

    /// Appends work.
    pub(crate) fn submit(&self, work: impl FnOnce() -> Answer + Send + 'static) {
        self.context
            .lanes
            .submit(&self.stream, Box::new(work) as Work);
    }

    /// Waits for all work so far, and tells of faults.
    pub(crate) fn wait(&self) -> Answer {
        self.context.lanes.drain_stream(&self.stream);
        self.context.device().fault.tell()
    }
}

fn create(driver: &Driver, out: Out<u64>, flags: u32, priority: i32) -> Answer {
    let context = current()?;
    if flags > 1 {
        return Err(Code::INVALID_VALUE);
    }
    let stream = Stream::new(
        Arc::clone(context.device()),
        context.handle(),
        flags,
        priority.clamp(GREATEST_PRIORITY, 0),
    );
    context.lanes.add(&stream);
    out.put(driver.handles.add(|_| Object::Stream(stream)))
}

type Callback = extern "C" fn(u64, u32, *mut c_void);

functions! { driver;
    /// `cuStreamCreate`.
    fn cuStreamCreate(stream: Out<u64>, flags: u32) {
        create(driver, stream, flags, 0)
    }

    /// `cuStreamCreateWithPriority`: a priority beyond the range is the nearest within.
    fn cuStreamCreateWithPriority(stream: Out<u64>, flags: u32, priority: i32) {
        create(driver, stream, flags, priority)
    }

    /// `cuStreamDestroy`: returns at once; work that is pending is done. Default streams are refused.
    fn cuStreamDestroy_v2(stream: u64) {
        let context = current()?;
        let stream = driver.handles.remove_stream(stream)?;
        home(driver, &context, &stream)?.lanes.close(&stream);
        Ok(())
    }

    /// `cuStreamGetPriority`.
    fn cuStreamGetPriority(stream: u64, priority: Out<i32>) {
        priority.put(Lane::of(driver, stream)?.stream.priority)
    }

    /// `cuStreamGetFlags`.
    fn cuStreamGetFlags(stream: u64, flags: Out<u32>) {
        flags.put(Lane::of(driver, stream)?.stream.flags)
    }

    /// `cuStreamGetCtx`.
    fn cuStreamGetCtx(stream: u64, context: Out<u64>) {
        context.put(Lane::of(driver, stream)?.context.handle())
    }

    /// `cuStreamGetDevice`.
    fn cuStreamGetDevice(stream: u64, device: Out<i32>) {
        device.put(Lane::of(driver, stream)?.context.device().ordinal as i32)
    }

    /// `cuStreamGetId`.
    fn cuStreamGetId(stream: u64, id: Out<u64>) {
        let lane = Lane::of(driver, stream)?;
        id.put(Arc::as_ptr(&lane.stream).expose_provenance() as u64)
    }

    /// `cuStreamQuery`.
    fn cuStreamQuery(stream: u64) {
        let context = current_even_if_faulted()?;
        let stream = find(driver, &context, stream)?;
        if context.device().fault.happened() {
            return context.device().fault.tell();
        }
        if home(driver, &context, &stream)?.lanes.is_idle(&stream) { Ok(()) } else { Err(Code::NOT_READY) }
    }

    /// `cuStreamSynchronize`.
    fn cuStreamSynchronize(stream: u64) {
        let context = current_even_if_faulted()?;
        let stream = find(driver, &context, stream)?;
        let home = home(driver, &context, &stream)?;
        home.lanes.drain_stream(&stream);
        synchronized(driver, &home)
    }

    /// `cuStreamWaitEvent`: for the record before the call; for none, nothing.
    fn cuStreamWaitEvent(stream: u64, event: u64, flags: u32) {
        let event = driver.handles.event(event)?;
        let lane = Lane::of(driver, stream)?;
        // CU_EVENT_WAIT_EXTERNAL is 1.
        if flags > 1 {
            return Err(Code::INVALID_VALUE);
        }
        if let Some(mark) = event.latest(driver) {
            let fault = Arc::clone(lane.context.device());
            lane.submit(move || {
                mark.wait(&fault);
                Ok(())
            });
        }
        Ok(())
    }

    /// `cuLaunchHostFunc`: in its turn; CUDA may not be called inside. Not called behind a fault.
    fn cuLaunchHostFunc(stream: u64, function: Option<extern "C" fn(*mut c_void)>, data: u64) {
        let function = function.ok_or(Code::INVALID_VALUE)?;
        Lane::of(driver, stream)?.submit(move || {
            run_host_function(|| function(std::ptr::with_exposed_provenance_mut(data as usize)));
            Ok(())
        });
        Ok(())
    }

    /// `cuStreamAddCallback`.
    fn cuStreamAddCallback(stream: u64, function: Option<Callback>, data: u64, flags: u32) {
        let function = function.ok_or(Code::INVALID_VALUE)?;
        if flags != 0 {
            return Err(Code::INVALID_VALUE);
        }
        Lane::of(driver, stream)?.submit(move || {
            run_host_function(|| function(stream, 0, std::ptr::with_exposed_provenance_mut(data as usize)));
            Ok(())
        });
        Ok(())
    }
}
