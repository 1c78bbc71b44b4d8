//! Contexts: the primary one of each device, those that programs create, and which is current in a thread.
//!
//! Exports the functions about contexts. Rules: CUDA Driver API, 6.7 Primary Context Management and 6.8 Context Management, and
//! docs/gpu-facts.md, Start.

use std::cell::RefCell;
use std::sync::{Arc, Mutex};

use crate::call::{Out, functions, lock};
use crate::code::{Answer, Code};
use crate::device::Device;
use crate::driver::Driver;
use crate::handle::Object;
use crate::lanes::Lanes;

/// A context of a device.
#[derive(Debug)]
pub(crate) struct Context {
    handle: u64,
    device: Arc<Device>,
    is_primary: bool,
    state: Mutex<State>,
    /// Its streams.
    pub(crate) lanes: Lanes,
}

#[derive(Debug, Default)]
struct State {
    /// How often it is retained; 1 for one that a program created. 0: destroyed, or never there.
    retained: u32,
    flags: u32,
}

/// The primary contexts, by device; each is made when it is first retained and then keeps its handle.
#[derive(Debug)]
pub(crate) struct Contexts(Vec<Mutex<Option<Arc<Context>>>>);

impl Contexts {
    pub(crate) fn new(devices: usize) -> Self {
        Self((0..devices).map(|_| Mutex::new(None)).collect())
    }

    fn primary(&self, driver: &Driver, device: i32) -> Result<Arc<Context>, Code> {
        let device = driver.device(device)?;
        let place = self.0.get(device.ordinal).ok_or(Code::INVALID_DEVICE)?;
        Ok(Arc::clone(
            lock(place).get_or_insert_with(|| Context::new(driver, device, true)),
        ))
    }

    /// Every context of a device that is there.
    fn all_of(&self, driver: &Driver, device: &Device) -> Vec<Arc<Context>> {
        driver
            .handles
            .contexts()
            .into_iter()
            .filter(|context| context.device.ordinal == device.ordinal)
            .collect()
    }
}

impl Context {
    fn new(driver: &Driver, device: &Arc<Device>, is_primary: bool) -> Arc<Self> {
        let mut made = None;
        driver.handles.add(|handle| {
            let context = Arc::new(Self {
                handle,
                device: Arc::clone(device),
                is_primary,
                state: Mutex::default(),
                lanes: Lanes::new(Arc::clone(device)),
            });
            made = Some(Arc::clone(&context));
            Object::Context(context)
        });
        #[expect(clippy::expect_used, reason = "`add` has called the closure")]
        made.expect("made above")
    }

    /// Its handle.
    pub(crate) fn handle(&self) -> u64 {
        self.handle
    }

    /// Its device.
    pub(crate) fn device(&self) -> &Arc<Device> {
        &self.device
    }

    fn is_alive(&self) -> bool {
        lock(&self.state).retained > 0
    }

    /// Ends it: waits for its work and frees all that belongs to it.
    fn destroy(&self, driver: &Driver) {
        self.lanes.drain();
        driver
            .handles
            .remove_all(|object| object.is_of(self.handle));
        crate::memory::free_all_of(driver, self);
        self.lanes.clear();
        self.device.legacy.trim(0);
    }
}

thread_local! {
    static STACK: RefCell<Vec<Arc<Context>>> = const { RefCell::new(Vec::new()) };
}

/// The context that is current here, alive or not.
pub(crate) fn on_top() -> Result<Arc<Context>, Code> {
    STACK
        .with_borrow(|stack| stack.last().cloned())
        .ok_or(Code::INVALID_CONTEXT)
}

/// The current context, alive, whatever has become of its device.
pub(crate) fn current_even_if_faulted() -> Result<Arc<Context>, Code> {
    let context = on_top()?;
    if context.is_alive() {
        Ok(context)
    } else {
        Err(Code::CONTEXT_IS_DESTROYED)
    }
}

/// The current context with a device that works, as far as that is known without waiting.
pub(crate) fn current() -> Result<Arc<Context>, Code> {
    let context = current_even_if_faulted()?;
    context.device.fault.check()?;
    Ok(context)
}

/// Waits for all work of a device, of every context.
pub(crate) fn drain_device(driver: &Driver, device: &Device) {
    for context in driver.contexts.all_of(driver, device) {
        context.lanes.drain();
    }
}

fn set_current(context: Option<Arc<Context>>) {
    STACK.with_borrow_mut(|stack| {
        stack.pop();
        stack.extend(context);
    });
}

functions! { driver;
    /// `cuDevicePrimaryCtxRetain`: makes nothing current. A device that faulted has no more contexts for this process.
    fn cuDevicePrimaryCtxRetain(context: Out<u64>, device: i32) {
        let primary = driver.contexts.primary(driver, device)?;
        primary.device.fault.tell()?;
        lock(&primary.state).retained += 1;
        context.put(primary.handle)
    }

    /// `cuDevicePrimaryCtxRelease`: the last one destroys it and resets its flags.
    fn cuDevicePrimaryCtxRelease_v2(device: i32) {
        let primary = driver.contexts.primary(driver, device)?;
        let mut state = lock(&primary.state);
        match state.retained {
            0 => return Err(Code::INVALID_CONTEXT),
            1 => *state = State::default(),
            _ => state.retained -= 1,
        }
        let ends = state.retained == 0;
        drop(state);
        if ends {
            primary.destroy(driver);
        }
        Ok(())
    }

    /// `cuDevicePrimaryCtxReset`: destroys it however often it is retained.
    fn cuDevicePrimaryCtxReset_v2(device: i32) {
        let primary = driver.contexts.primary(driver, device)?;
        *lock(&primary.state) = State::default();
        primary.destroy(driver);
        Ok(())
    }

    /// `cuDevicePrimaryCtxGetState`.
    fn cuDevicePrimaryCtxGetState(device: i32, flags: Out<u32>, active: Out<i32>) {
        let primary = driver.contexts.primary(driver, device)?;
        let state = lock(&primary.state);
        flags.put_if_wanted(state.flags);
        active.put_if_wanted(i32::from(state.retained > 0));
        Ok(())
    }

    /// `cuDevicePrimaryCtxSetFlags`: scheduling flags, which mean nothing here.
    fn cuDevicePrimaryCtxSetFlags_v2(device: i32, flags: u32) {
        let primary = driver.contexts.primary(driver, device)?;
        lock(&primary.state).flags = flags;
        Ok(())
    }

    /// `cuCtxCreate`: makes it current.
    fn cuCtxCreate_v2(context: Out<u64>, flags: u32, device: i32) {
        let device = driver.device(device)?;
        device.fault.tell()?;
        let made = Context::new(driver, device, false);
        *lock(&made.state) = State { retained: 1, flags };
        context.put(made.handle)?;
        STACK.with_borrow_mut(|stack| stack.push(made));
        Ok(())
    }

    /// `cuCtxDestroy`: also of a device that faulted; a primary context is refused.
    fn cuCtxDestroy_v2(context: u64) {
        let context = driver.handles.context(context)?;
        if context.is_primary {
            return Err(Code::INVALID_CONTEXT);
        }
        driver.handles.remove_context(context.handle)?;
        *lock(&context.state) = State::default();
        context.destroy(driver);
        STACK.with_borrow_mut(|stack| {
            if stack.last().is_some_and(|top| top.handle == context.handle) {
                stack.pop();
            }
        });
        Ok(())
    }

    /// `cuCtxGetCurrent`: null where none is.
    fn cuCtxGetCurrent(context: Out<u64>) {
        context.put(on_top().map_or(0, |top| top.handle))
    }

    /// `cuCtxSetCurrent`: takes the place of the top of the stack; null leaves none.
    fn cuCtxSetCurrent(context: u64) {
        set_current(if context == 0 { None } else { Some(driver.handles.context(context)?) });
        Ok(())
    }

    /// `cuCtxPushCurrent`.
    fn cuCtxPushCurrent_v2(context: u64) {
        let context = driver.handles.context(context)?;
        STACK.with_borrow_mut(|stack| stack.push(context));
        Ok(())
    }

    /// `cuCtxPopCurrent`.
    fn cuCtxPopCurrent_v2(context: Out<u64>) {
        let popped = STACK.with_borrow_mut(Vec::pop).ok_or(Code::INVALID_CONTEXT)?;
        context.put_if_wanted(popped.handle);
        Ok(())
    }

    /// `cuCtxGetDevice`.
    fn cuCtxGetDevice(device: Out<i32>) {
        device.put(on_top()?.device.ordinal as i32)
    }

    /// `cuCtxGetId`: one that no other context of the process ever has.
    fn cuCtxGetId(context: u64, id: Out<u64>) {
        let context = if context == 0 { on_top()? } else { driver.handles.context(context)? };
        id.put(context.handle)
    }

    /// `cuCtxGetApiVersion`.
    fn cuCtxGetApiVersion(context: u64, version: Out<u32>) {
        if context != 0 {
            driver.handles.context(context)?;
        }
        version.put(3020)
    }

    /// `cuCtxGetFlags`.
    fn cuCtxGetFlags(flags: Out<u32>) {
        flags.put(lock(&current()?.state).flags)
    }

    /// `cuCtxSetFlags`.
    fn cuCtxSetFlags(flags: u32) {
        lock(&current()?.state).flags = flags;
        Ok(())
    }

    /// `cuCtxSynchronize`: waits for all streams of the context, and tells of faults.
    fn cuCtxSynchronize() {
        let context = current_even_if_faulted()?;
        context.lanes.drain();
        synchronized(driver, &context)
    }

    /// `cuCtxGetStreamPriorityRange`.
    fn cuCtxGetStreamPriorityRange(least: Out<i32>, greatest: Out<i32>) {
        current()?;
        least.put_if_wanted(0);
        greatest.put_if_wanted(crate::stream::GREATEST_PRIORITY);
        Ok(())
    }
}

/// After a wait: pools give back what they need not keep, and a fault is told.
pub(crate) fn synchronized(driver: &Driver, context: &Context) -> Answer {
    crate::pool::settle(driver, context.device());
    context.device.fault.tell()
}
