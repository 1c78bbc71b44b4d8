//! The driver of this process: what `cuInit` makes and every other function uses.
//!
//! Exports `cuInit` and the functions that need nothing before them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use crate::call::{Out, Text, functions, guarded, lock, say};
use crate::code::{Answer, Code};
use crate::context::Contexts;
use crate::counters::Counters;
use crate::device::Device;
use crate::handle::Handles;
use crate::machine::Machine;
use crate::places::Places;
use crate::plan::Plan;
use crate::settings::Settings;
use crate::space::Space;
use crate::virtual_memory::Reservations;

/// The version that `cuDriverGetVersion` gives: CUDA 13.0, that of the driver whose answers are recorded.
const VERSION: i32 = 13_000;

/// All state of this process.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) settings: Settings,
    pub(crate) machine: Arc<Machine>,
    pub(crate) space: Arc<Space>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) plan: Plan,
    /// The visible ones, by ordinal.
    pub(crate) devices: Vec<Arc<Device>>,
    pub(crate) contexts: Contexts,
    pub(crate) handles: Handles,
    pub(crate) places: Mutex<Places>,
    pub(crate) reservations: Reservations,
}

static DRIVER: OnceLock<Driver> = OnceLock::new();
static STARTING: Mutex<()> = Mutex::new(());
/// This process was forked off one that had started CUDA.
static FORKED: AtomicBool = AtomicBool::new(false);

extern "C" fn in_forked_child() {
    FORKED.store(true, Ordering::SeqCst);
    if let Some(driver) = DRIVER.get() {
        driver.machine.close_in_forked_child();
    }
}

impl Driver {
    /// The driver, after `cuInit`. A child forked after it has none (docs/gpu-facts.md, Start).
    pub(crate) fn get() -> Result<&'static Self, Code> {
        if FORKED.load(Ordering::Relaxed) {
            return Err(Code::NOT_INITIALIZED);
        }
        DRIVER.get().ok_or(Code::NOT_INITIALIZED)
    }

    /// The visible device `ordinal`.
    pub(crate) fn device(&self, ordinal: i32) -> Result<&Arc<Device>, Code> {
        usize::try_from(ordinal)
            .ok()
            .and_then(|ordinal| self.devices.get(ordinal))
            .ok_or(Code::INVALID_DEVICE)
    }

    /// A call was made to fail: a code that ends the use of a device ends that of the current context's.
    pub(crate) fn injected(&self, code: Code) {
        if code.is_sticky()
            && let Ok(context) = crate::context::on_top()
        {
            context.device().fault.set(code);
            // Told at once: the call that fails is the one that says so.
            let _ = context.device().fault.tell();
        }
    }

    fn start() -> Answer {
        let _one = lock(&STARTING);
        if DRIVER.get().is_some() {
            return Ok(());
        }
        let settings = Settings::of_environment();
        let visible = crate::device::visible(settings.devices)?;
        let driver = Self::of(settings, &visible).unwrap_or_else(|error| {
            say!("it cannot start: {error}");
            std::process::abort()
        });
        if DRIVER.set(driver).is_ok() {
            // SAFETY: the function is of this library, which is never unloaded.
            unsafe { libc::pthread_atfork(None, None, Some(in_forked_child)) };
        }
        Ok(())
    }

    fn of(settings: Settings, visible: &[usize]) -> std::io::Result<Self> {
        let plan = Plan::read(&settings.faults, settings.chaos.unwrap_or(0))
            .map_err(std::io::Error::other)?;
        let machine = Arc::new(Machine::join(
            settings.state.as_deref(),
            settings.devices,
            settings.memory_bytes,
            settings.tracks_writes,
        )?);
        let counters = Arc::new(Counters::of_process(machine.folder())?);
        let space = Arc::new(Space::new(settings.tracks_writes)?);
        let devices = visible.iter().enumerate().map(|(ordinal, index)| {
            Arc::new(Device::new(
                ordinal,
                *index,
                &settings,
                Arc::clone(&machine),
                Arc::clone(&space),
            ))
        });
        Ok(Self {
            devices: devices.collect(),
            contexts: Contexts::new(visible.len()),
            handles: Handles::default(),
            places: Mutex::default(),
            reservations: Reservations::default(),
            settings,
            machine,
            space,
            counters,
            plan,
        })
    }
}

/// `cuInit`. Flags must be 0 (CUDA Driver API, 6.3 Initialization).
#[unsafe(no_mangle)]
extern "C" fn cuInit(flags: u32) -> u32 {
    guarded("cuInit", || {
        if FORKED.load(Ordering::Relaxed) {
            return Err(Code::NOT_INITIALIZED);
        }
        if flags != 0 {
            return Err(Code::INVALID_VALUE);
        }
        Driver::start()?;
        Driver::get()?.plan.at_call("cuInit")
    })
}

/// `cuDriverGetVersion`, before `cuInit` too.
#[unsafe(no_mangle)]
extern "C" fn cuDriverGetVersion(version: Out<i32>) -> u32 {
    guarded("cuDriverGetVersion", || version.put(VERSION))
}

/// `cuGetErrorName`: `INVALID_VALUE` and null for a number that is no code (6.2 Error Handling).
#[unsafe(no_mangle)]
extern "C" fn cuGetErrorName(code: u32, name: Out<u64>) -> u32 {
    guarded("cuGetErrorName", || put_static(name, Code::name(code)))
}

/// `cuGetErrorString`.
#[unsafe(no_mangle)]
extern "C" fn cuGetErrorString(code: u32, words: Out<u64>) -> u32 {
    guarded("cuGetErrorString", || put_static(words, Code::words(code)))
}

fn put_static(out: Out<u64>, text: Option<&'static std::ffi::CStr>) -> Answer {
    out.put(text.map_or(0, |text| text.as_ptr().expose_provenance() as u64))?;
    text.map(|_| ()).ok_or(Code::INVALID_VALUE)
}

/// `cuGetExportTable`: there are no private tables. NVRTC asks for one and is content (docs/gpu-facts.md).
#[unsafe(no_mangle)]
extern "C" fn cuGetExportTable(table: Out<u64>, _id: u64) -> u32 {
    guarded("cuGetExportTable", || {
        table.put(0)?;
        Err(Code::NOT_FOUND)
    })
}

/// `cuGetProcAddress`: the newest version of a function (6.32 Driver Entry Point Access).
#[unsafe(no_mangle)]
extern "C" fn cuGetProcAddress_v2(
    name: Text,
    function: Out<u64>,
    version: i32,
    _flags: u64,
    status: Out<u32>,
) -> u32 {
    guarded("cuGetProcAddress_v2", || {
        let found = newest(&name.get()?);
        function.put(found.unwrap_or(0))?;
        // CU_GET_PROC_ADDRESS_SUCCESS, _SYMBOL_NOT_FOUND.
        status.put_if_wanted(u32::from(found.is_none()));
        let _ = version;
        found.map(|_| ()).ok_or(Code::NOT_FOUND)
    })
}

/// `cuGetProcAddress` as it was before CUDA 12.
#[unsafe(no_mangle)]
extern "C" fn cuGetProcAddress(name: Text, function: Out<u64>, _version: i32, _flags: u64) -> u32 {
    guarded("cuGetProcAddress", || {
        let found = newest(&name.get()?);
        function.put(found.unwrap_or(0))?;
        found.map(|_| ()).ok_or(Code::NOT_FOUND)
    })
}

/// The function of this name in this very library, in the version that `cuda.h` means by the plain name.
fn newest(name: &str) -> Option<u64> {
    // Where `_v3` exists beside `_v2` it belongs to functions that are not emulated.
    ["_v2", ""]
        .iter()
        .find_map(|suffix| own_symbol(&format!("{name}{suffix}\0")))
}

fn own_symbol(name: &str) -> Option<u64> {
    // SAFETY: the address is one of this library; the name ends with a zero; what is found is not called here.
    unsafe {
        let mut place: libc::Dl_info = std::mem::zeroed();
        if libc::dladdr(
            (cuInit as extern "C" fn(u32) -> u32 as *const ()).cast(),
            &mut place,
        ) == 0
        {
            return None;
        }
        let library = libc::dlopen(place.dli_fname, libc::RTLD_NOW | libc::RTLD_NOLOAD);
        if library.is_null() {
            return None;
        }
        let found = libc::dlsym(library, name.as_ptr().cast());
        (!found.is_null()).then(|| found.expose_provenance() as u64)
    }
}

functions! { driver;
    /// `cuDeviceGetCount`.
    fn cuDeviceGetCount(count: Out<i32>) {
        count.put(driver.devices.len() as i32)
    }

    /// `cuDeviceGet`: a device is its ordinal.
    fn cuDeviceGet(device: Out<i32>, ordinal: i32) {
        driver.device(ordinal)?;
        device.put(ordinal)
    }
}
