//! cuFile: files read into device memory and written from it, on a machine with GPUDirect Storage or on one without.
//!
//! Reached as `libcufile.so.0`. Rules: cuFile API Reference Guide, by its chapters. What is not here is not exported, as programs look each
//! function up by name. Takes files of every file system, which hardware does not (docs/gpu-facts.md, Not asked).
//!
//! Without GPUDirect Storage, and for files that are not opened with `O_DIRECT`, transfers go through the host (3.3, compatibility mode), and
//! are counted as copies of pageable memory, unless the program has forbidden that; then they fail.

mod transfer;

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::call::{Out, guarded, lock};
use crate::code::{Answer, Code};
use crate::driver::Driver;

/// What a plan of faults may name.
pub(crate) const FUNCTIONS: [&str; 8] = [
    "cuFileBufRegister",
    "cuFileDriverClose_v2",
    "cuFileDriverGetProperties",
    "cuFileDriverOpen",
    "cuFileHandleRegister",
    "cuFileRead",
    "cuFileSetParameterBool",
    "cuFileWrite",
];

/// `CUfileError_t`: cuFile's own code, 0 for success, and the driver's.
#[repr(C)]
pub(crate) struct Told {
    own: i32,
    driver: u32,
}

/// `CUfileDescr_t` of a file descriptor: the kind 1.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Description {
    kind: i32,
    _gap: u32,
    /// One of the two members of a union of eight bytes.
    file: i32,
    _rest: u32,
    operations: u64,
}

/// `CUfileDrvProps_t`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Properties {
    major_version: u32,
    minor_version: u32,
    poll_kib: usize,
    most_direct_kib: usize,
    status: u32,
    control: u32,
    features: u32,
    device_cache_kib: u32,
    buffer_cache_kib: u32,
    device_pinned_kib: u32,
    batch_timeout_ms: u32,
    batch_size: u32,
}

/// cuFile's own codes (4.1.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Own(i32);

impl Own {
    /// nvidia-fs is not loaded.
    const DRIVER_NOT_INITIALIZED: Self = Self(5001);
    /// GPUDirect Storage is not supported on the file.
    const IO_NOT_SUPPORTED: Self = Self(5008);
    /// The driver of the device answered something else.
    const CUDA_DRIVER_ERROR: Self = Self(5011);
    /// The file is not opened with `O_DIRECT`.
    const NOT_DIRECT: Self = Self(5020);
    const INVALID_VALUE: Self = Self(5022);
    const MEMORY_ALREADY_REGISTERED: Self = Self(5023);
    const MEMORY_NOT_REGISTERED: Self = Self(5024);
    const DRIVER_ALREADY_OPEN: Self = Self(5026);
    const HANDLE_NOT_REGISTERED: Self = Self(5027);
    /// No context is current.
    const INVALID_CONTEXT: Self = Self(5047);
}

/// Why a function failed.
enum Wrong {
    Own(Own),
    Driver(Code),
}

impl From<Own> for Wrong {
    fn from(own: Own) -> Self {
        Self::Own(own)
    }
}

impl From<Code> for Wrong {
    fn from(code: Code) -> Self {
        Self::Driver(code)
    }
}

/// What the process has set and registered.
struct State {
    is_open: bool,
    allows_compatibility: bool,
    forces_compatibility: bool,
    /// Of each registered handle, whether its file takes transfers past the page cache.
    handles: BTreeMap<u64, bool>,
    /// Length of registered device memory, by its start.
    buffers: BTreeMap<u64, u64>,
}

static STATE: Mutex<State> = Mutex::new(State {
    is_open: false,
    allows_compatibility: true,
    forces_compatibility: false,
    handles: BTreeMap::new(),
    buffers: BTreeMap::new(),
});

/// `CUFILE_PARAM_PROPERTIES_ALLOW_COMPAT_MODE` and `CUFILE_PARAM_FORCE_COMPAT_MODE`.
const ALLOW: i32 = 1;
const FORCE: i32 = 2;
/// `CU_FILE_ALLOW_COMPAT_MODE`, a bit of the properties' control flags.
const CONTROL_ALLOW: u32 = 1 << 1;
/// `CU_FILE_NVME_SUPPORTED`, a bit of their status flags.
const STATUS_NVME: u32 = 1 << 4;

impl State {
    /// Opens the driver, where that has not been done. Without nvidia-fs there is nothing but compatibility mode (3.3, 5.1.1).
    fn open(&mut self, driver: &Driver) -> Result<(), Wrong> {
        if !driver.settings.has_direct_storage && !self.allows_compatibility {
            return Err(Own::DRIVER_NOT_INITIALIZED.into());
        }
        self.is_open = true;
        Ok(())
    }

    /// Whether anything goes past the host.
    fn is_direct(&self, driver: &Driver) -> bool {
        driver.settings.has_direct_storage && !self.forces_compatibility
    }
}

/// Carries out a function of cuFile that needs CUDA, unless the plan of faults has something for it.
fn enter(
    name: &'static str,
    body: impl FnOnce(&'static Driver, &mut State) -> Result<(), Wrong>,
) -> Told {
    let mut told = Told { own: 0, driver: 0 };
    let answer = || -> Result<(), Wrong> {
        let driver = Driver::get()?;
        planned(driver, name)?;
        body(driver, &mut lock(&STATE))
    };
    guarded(name, || {
        match answer() {
            Ok(()) => {}
            Err(Wrong::Own(own)) => told.own = own.0,
            Err(Wrong::Driver(Code::NOT_SUPPORTED)) => told.own = Own::IO_NOT_SUPPORTED.0,
            Err(Wrong::Driver(code)) => {
                told = Told {
                    own: Own::CUDA_DRIVER_ERROR.0,
                    driver: code.0,
                }
            }
        }
        Ok(())
    });
    told
}

fn planned(driver: &'static Driver, name: &str) -> Answer {
    let planned = driver.plan.at_call(name);
    planned.inspect_err(|code| driver.injected(*code))
}

/// `cuFileSetParameterBool` (5.1.9): before the driver is open.
#[unsafe(no_mangle)]
extern "C" fn cuFileSetParameterBool(parameter: i32, value: bool) -> Told {
    enter("cuFileSetParameterBool", |_, state| {
        if state.is_open {
            return Err(Own::DRIVER_ALREADY_OPEN.into());
        }
        match parameter {
            ALLOW => state.allows_compatibility = value,
            FORCE => state.forces_compatibility = value,
            _ => return Err(Own::INVALID_VALUE.into()),
        }
        Ok(())
    })
}

/// `cuFileDriverOpen`.
#[unsafe(no_mangle)]
extern "C" fn cuFileDriverOpen() -> Told {
    enter("cuFileDriverOpen", |driver, state| state.open(driver))
}

/// `cuFileDriverClose`.
#[unsafe(no_mangle)]
extern "C" fn cuFileDriverClose() -> Told {
    cuFileDriverClose_v2()
}

/// `cuFileDriverClose` of CUDA 12: what was registered is no longer.
#[unsafe(no_mangle)]
extern "C" fn cuFileDriverClose_v2() -> Told {
    enter("cuFileDriverClose_v2", |_, state| {
        if !state.is_open {
            return Err(Own::DRIVER_NOT_INITIALIZED.into());
        }
        state.is_open = false;
        state.handles.clear();
        state.buffers.clear();
        Ok(())
    })
}

/// `cuFileDriverGetProperties` (5.1.3). Without nvidia-fs its version is 0.
#[unsafe(no_mangle)]
extern "C" fn cuFileDriverGetProperties(properties: Out<Properties>) -> Told {
    enter("cuFileDriverGetProperties", |driver, state| {
        if !state.is_open {
            return Err(Own::DRIVER_NOT_INITIALIZED.into());
        }
        let is_there = driver.settings.has_direct_storage;
        properties.put(Properties {
            major_version: if is_there { 2 } else { 0 },
            minor_version: if is_there { 25 } else { 0 },
            poll_kib: 4,
            most_direct_kib: 16_384,
            status: if is_there { STATUS_NVME } else { 0 },
            control: if state.allows_compatibility {
                CONTROL_ALLOW
            } else {
                0
            },
            ..Properties::default()
        })?;
        Ok(())
    })
}

/// `cuFileHandleRegister`: the handle is the descriptor and one, so that null is none.
#[unsafe(no_mangle)]
extern "C" fn cuFileHandleRegister(handle: Out<u64>, description: Out<Description>) -> Told {
    enter("cuFileHandleRegister", |driver, state| {
        let description = description.get()?;
        // SAFETY: asks for the flags of a descriptor, which may be none.
        let flags = unsafe { libc::fcntl(description.file, libc::F_GETFL) };
        if description.kind != 1 || flags < 0 {
            return Err(Own::INVALID_VALUE.into());
        }
        state.open(driver)?;
        let is_direct = flags & libc::O_DIRECT != 0;
        if !state.allows_compatibility && !state.is_direct(driver) {
            return Err(Own::IO_NOT_SUPPORTED.into());
        }
        if !state.allows_compatibility && !is_direct {
            return Err(Own::NOT_DIRECT.into());
        }
        let number = description.file as u64 + 1;
        handle.put(number)?;
        state.handles.insert(number, is_direct);
        Ok(())
    })
}

/// `cuFileHandleDeregister`.
#[unsafe(no_mangle)]
extern "C" fn cuFileHandleDeregister(handle: u64) {
    lock(&STATE).handles.remove(&handle);
}

/// `cuFileBufRegister`: the memory must be a device's.
#[unsafe(no_mangle)]
extern "C" fn cuFileBufRegister(address: u64, bytes: usize, _flags: i32) -> Told {
    enter("cuFileBufRegister", |driver, state| {
        transfer::memory(driver, address, bytes as u64)?;
        state.open(driver)?;
        if state.buffers.contains_key(&address) {
            return Err(Own::MEMORY_ALREADY_REGISTERED.into());
        }
        state.buffers.insert(address, bytes as u64);
        Ok(())
    })
}

/// `cuFileBufDeregister`.
#[unsafe(no_mangle)]
extern "C" fn cuFileBufDeregister(address: u64) -> Told {
    enter("cuFileBufDeregister", |_, state| {
        let was = state.buffers.remove(&address);
        was.map(|_| ()).ok_or(Own::MEMORY_NOT_REGISTERED.into())
    })
}
