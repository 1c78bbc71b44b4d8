//! The functions of `libcufile.so.0` that we call, each found by name, and what they answer in words. Called by `direct`; knows no buffer of
//! ours.
//!
//! The library is opened once in a process, and only where it does not go through the host behind our back: its compatibility mode, in which
//! it does, is forbidden to it first (cuFile API Reference Guide, 3.3 and 5.1.9).

use std::ffi::{CStr, c_void};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::OnceLock;

const LIBRARY: &CStr = c"libcufile.so.0";
/// `CUFILE_PARAM_PROPERTIES_ALLOW_COMPAT_MODE` and `CUFILE_PARAM_FORCE_COMPAT_MODE`.
const ALLOW_COMPATIBILITY: i32 = 1;
const FORCE_COMPATIBILITY: i32 = 2;
/// `CU_FILE_ALLOW_COMPAT_MODE`, and what later versions have beside it, POSIX and fallback: bits of the control flags.
const THROUGH_HOST: u32 = 1 << 1 | 1 << 2 | 1 << 4;
/// `CU_FILE_HANDLE_TYPE_OPAQUE_FD`.
const FILE_DESCRIPTOR: i32 = 1;
/// The library moves larger parts in several anyway.
const MOST_BYTES: u64 = 1 << 30;

/// `CUfileError_t`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Told {
    own: i32,
    driver: u32,
}

/// `CUfileDescr_t`.
#[repr(C)]
struct Description {
    kind: i32,
    /// One of the two members of a union of eight bytes.
    file: u64,
    operations: u64,
}

/// The beginning of `CUfileDrvProps_t`, and room for what follows in any version.
#[repr(C)]
#[derive(Default)]
struct Properties {
    major_version: u32,
    minor_version: u32,
    _sizes: [usize; 2],
    _status: u32,
    control: u32,
    _rest: [u64; 24],
}

type Open = unsafe extern "C" fn() -> Told;
type SetBool = unsafe extern "C" fn(i32, bool) -> Told;
type GetProperties = unsafe extern "C" fn(&mut Properties) -> Told;
type Register = unsafe extern "C" fn(&mut u64, &mut Description) -> Told;
type Deregister = unsafe extern "C" fn(u64);
type RegisterMemory = unsafe extern "C" fn(u64, usize, i32) -> Told;
type DeregisterMemory = unsafe extern "C" fn(u64) -> Told;
type Transfer = unsafe extern "C" fn(u64, u64, usize, i64, i64) -> isize;

/// The library, open and without its compatibility mode.
pub(super) struct Library {
    register: Register,
    deregister: Deregister,
    register_memory: RegisterMemory,
    deregister_memory: DeregisterMemory,
    read: Transfer,
    write: Transfer,
    /// Of nvidia-fs.
    version: (u32, u32),
}

/// A file that the library moves bytes of.
pub(super) struct Registered<'a> {
    library: &'static Library,
    handle: u64,
    _file: &'a File,
}

/// A part of device memory: an offset into memory that was registered, or 0 and an address.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    pub(super) base: u64,
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

/// A call failed.
#[derive(Debug)]
pub(super) enum Wrong {
    /// The operating system refused.
    System(io::Error),
    /// The library did, or the driver.
    Library {
        function: &'static str,
        own: i32,
        driver: u32,
    },
}

impl Library {
    /// Opens it, once in a process, in a thread with a current context.
    ///
    /// # Errors
    /// A sentence, where it is not there or goes through the host.
    pub(super) fn of_process() -> Result<&'static Self, &'static str> {
        static LIBRARY: OnceLock<Result<Library, String>> = OnceLock::new();
        let library = LIBRARY.get_or_init(Self::open);
        library.as_ref().map_err(String::as_str)
    }

    fn open() -> Result<Self, String> {
        // SAFETY: the name ends with a zero; NVIDIA's library runs initializers of its own, which is what it is loaded for.
        let handle = unsafe { libc::dlopen(LIBRARY.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() {
            return Err(why_not_loaded());
        }
        // SAFETY: the library exports these functions with these types and is never closed.
        unsafe {
            let open: Open = function(handle, c"cuFileDriverOpen")?;
            let properties: GetProperties = function(handle, c"cuFileDriverGetProperties")?;
            let set: Result<SetBool, _> = function(handle, c"cuFileSetParameterBool");
            let mut library = Self {
                register: function(handle, c"cuFileHandleRegister")?,
                deregister: function(handle, c"cuFileHandleDeregister")?,
                register_memory: function(handle, c"cuFileBufRegister")?,
                deregister_memory: function(handle, c"cuFileBufDeregister")?,
                read: function(handle, c"cuFileRead")?,
                write: function(handle, c"cuFileWrite")?,
                version: (0, 0),
            };
            // Older ones than 1.14 have no such function, and somebody else may have opened it before: what holds then is looked at.
            if let Ok(set) = set {
                set(ALLOW_COMPATIBILITY, false);
                set(FORCE_COMPATIBILITY, false);
            }
            answered("cuFileDriverOpen", open()).map_err(|wrong| wrong.to_string())?;
            let mut told = Properties::default();
            answered("cuFileDriverGetProperties", properties(&mut told))
                .map_err(|wrong| wrong.to_string())?;
            going_past_the_host(told.control)?;
            library.version = (told.major_version, told.minor_version);
            Ok(library)
        }
    }

    /// Of nvidia-fs, the driver of the kernel; 0.0 where the kernel itself does its work.
    pub(super) fn version(&self) -> (u32, u32) {
        self.version
    }

    /// Makes a file known that is open for reading and writing, with `O_DIRECT`. Fails where its file system or disk cannot do it.
    pub(super) fn register<'a>(&'static self, file: &'a File) -> Result<Registered<'a>, Wrong> {
        let mut description = Description {
            kind: FILE_DESCRIPTOR,
            file: u64::from(file.as_raw_fd().cast_unsigned()),
            operations: 0,
        };
        let mut handle = 0;
        // SAFETY: both pointers are of locals, and the descriptor is open as long as `file`, which outlives the handle.
        let told = unsafe { (self.register)(&mut handle, &mut description) };
        answered("cuFileHandleRegister", told)?;
        Ok(Registered {
            library: self,
            handle,
            _file: file,
        })
    }

    /// Lets disks reach device memory themselves. Without that the library copies within the device.
    ///
    /// # Safety
    /// The memory stays until it is deregistered.
    pub(super) unsafe fn register_memory(&self, address: u64, bytes: u64) -> Result<(), Wrong> {
        // SAFETY: the caller's.
        let told = unsafe { (self.register_memory)(address, bytes as usize, 0) };
        answered("cuFileBufRegister", told)
    }

    pub(super) fn deregister_memory(&self, address: u64) -> Result<(), Wrong> {
        // SAFETY: the library looks up what it is given.
        let told = unsafe { (self.deregister_memory)(address) };
        answered("cuFileBufDeregister", told)
    }
}

impl Registered<'_> {
    /// Reads the file from its beginning, and says how many bytes there were. Blocks.
    ///
    /// # Safety
    /// The part is of device memory that nobody else reads or writes.
    pub(super) unsafe fn read(&self, to: Part) -> Result<u64, Wrong> {
        // SAFETY: the caller's.
        unsafe { self.transfer("cuFileRead", self.library.read, to) }
    }

    /// Writes the file from its beginning, and says how many bytes were written. Blocks.
    ///
    /// # Safety
    /// The part is of device memory that nobody writes.
    pub(super) unsafe fn write(&self, from: Part) -> Result<u64, Wrong> {
        // SAFETY: the caller's.
        unsafe { self.transfer("cuFileWrite", self.library.write, from) }
    }

    unsafe fn transfer(
        &self,
        function: &'static str,
        with: Transfer,
        part: Part,
    ) -> Result<u64, Wrong> {
        let mut moved = 0;
        while moved < part.bytes {
            let bytes = (part.bytes - moved).min(MOST_BYTES);
            let offset = (part.offset + moved) as i64;
            // SAFETY: the caller's; the handle is registered.
            let count =
                unsafe { with(self.handle, part.base, bytes as usize, moved as i64, offset) };
            match u64::try_from(count) {
                Ok(0) => break,
                Ok(count) => {
                    moved += count;
                    if count < bytes {
                        break;
                    }
                }
                Err(_) if count == -1 => return Err(Wrong::System(io::Error::last_os_error())),
                Err(_) => {
                    return Err(Wrong::Library {
                        function,
                        own: i32::try_from(-count).unwrap_or(i32::MAX),
                        driver: 0,
                    });
                }
            }
        }
        Ok(moved)
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        // SAFETY: registered by `register`, and nobody else has it.
        unsafe { (self.library.deregister)(self.handle) };
    }
}

/// The loader's words.
fn why_not_loaded() -> String {
    // SAFETY: takes nothing.
    let said = unsafe { libc::dlerror() };
    if said.is_null() {
        return "libcufile.so.0 was not loaded".to_owned();
    }
    // SAFETY: the text ends with a zero, and is this thread's until its next call of such a function.
    let said = unsafe { CStr::from_ptr(said) };
    said.to_string_lossy().into_owned()
}

/// # Safety
/// `F` is the type of the library's function of this name.
unsafe fn function<F: Copy>(library: *mut c_void, name: &CStr) -> Result<F, String> {
    // SAFETY: the library is open, and the name ends with a zero.
    let found = unsafe { libc::dlsym(library, name.as_ptr()) };
    if found.is_null() {
        let name = name.to_string_lossy();
        return Err(format!(
            "libcufile.so.0 has no {name}; install that of CUDA 12 or later"
        ));
    }
    // SAFETY: the caller's; a function is passed as its address.
    Ok(unsafe { std::mem::transmute_copy::<*mut c_void, F>(&found) })
}

/// Whether these control flags leave no way through the host.
fn going_past_the_host(control: u32) -> Result<(), String> {
    if control & THROUGH_HOST == 0 {
        return Ok(());
    }
    Err(
        "this libcufile.so.0 goes through the host where it cannot do better (compatibility mode), and cannot be told not to; set \
         allow_compat_mode to false in cufile.json, or install that of CUDA 12.9 or later"
            .to_owned(),
    )
}

fn answered(function: &'static str, told: Told) -> Result<(), Wrong> {
    if told.own == 0 {
        return Ok(());
    }
    Err(Wrong::Library {
        function,
        own: told.own,
        driver: told.driver,
    })
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(error) => write!(f, "{error}"),
            Self::Library {
                function,
                own,
                driver,
            } => {
                write!(f, "{function} answered {own}")?;
                match (own, meaning(*own)) {
                    (_, Some(meaning)) => write!(f, ", {meaning}"),
                    (5011, None) => write!(f, " and CUDA {driver}"),
                    (_, None) => Ok(()),
                }
            }
        }
    }
}

/// Of the codes that tell what is missing (cuFile API Reference Guide, 4.1.3).
fn meaning(own: i32) -> Option<&'static str> {
    Some(match own {
        5001 => "nvidia-fs, the driver of the kernel, is not loaded",
        5004 => "nvidia-fs is of another version than the library",
        5007 => "this machine has no GPUDirect Storage",
        5008 | 5018 | 5027 => "this file system has no GPUDirect Storage",
        5009 => "this GPU has no GPUDirect Storage",
        5025 => "/dev/nvidia-fs may not be opened",
        5034 => "it is disabled for this file in cufile.json",
        5049 => "there is compatibility mode alone, which was forbidden",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_may_go_through_the_host_is_refused_with_the_remedy() {
        assert_eq!(going_past_the_host(0), Ok(()));
        // Polling is no way through the host.
        assert_eq!(going_past_the_host(1), Ok(()));
        for control in [1 << 1, 1 << 2, 1 << 4, 0b11] {
            let reason = going_past_the_host(control).expect_err("through the host");
            assert!(reason.contains("allow_compat_mode"), "{reason}");
        }
    }

    #[test]
    fn what_the_library_answers_is_told_in_words() {
        let of = |own, driver| {
            answered("cuFileDriverOpen", Told { own, driver })
                .expect_err("not 0")
                .to_string()
        };
        assert!(of(5001, 0).contains("nvidia-fs"), "{}", of(5001, 0));
        assert_eq!(of(5011, 2), "cuFileDriverOpen answered 5011 and CUDA 2");
        assert_eq!(of(5030, 0), "cuFileDriverOpen answered 5030");
    }
}
