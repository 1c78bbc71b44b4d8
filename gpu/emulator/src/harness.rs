//! For tests: a machine with emulated devices, programs that run on it, and what they did to the devices.
//!
//! The library itself is a file beside the test's program, as cargo builds it for every package that has this one among its
//! dev-dependencies.

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::Command;

use crate::counters::{Counters, FILE_PREFIX};
use crate::folder::Folder;
use crate::report::Report;
use crate::settings;

/// The file that cargo builds, and the variable that names it where it lies elsewhere.
const LIBRARY: &str = "libcuda_emulator.so";
const LIBRARY_VARIABLE: &str = "CUDA_EMULATOR_LIBRARY";
/// Names under which programs ask for it.
const NAMES: [&str; 5] = [
    "libcuda.so.1",
    "libcuda.so",
    "libnvidia-ml.so.1",
    "libcufile.so.0",
    "libcufile.so",
];

/// A machine with emulated devices. It ends when this is dropped, or with the process.
#[derive(Debug)]
pub struct Emulator {
    folder: Folder,
    variables: BTreeMap<&'static str, String>,
}

/// Where the shared library lies.
///
/// # Errors
///
/// Says where it was looked for, when it is not there.
pub fn library() -> io::Result<PathBuf> {
    if let Some(path) = std::env::var_os(LIBRARY_VARIABLE) {
        return std::fs::canonicalize(path);
    }
    let program = std::env::current_exe()?;
    // Tests lie in `deps`, programs above it and examples beside it.
    let folders = program
        .ancestors()
        .skip(1)
        .take(3)
        .flat_map(|folder| [folder.join("deps"), folder.to_path_buf()]);
    folders.map(|folder| folder.join(LIBRARY)).find(|path| path.is_file()).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            format!(
                "{LIBRARY} is not near {}: build it with `cargo build -p transload-cuda-emulator`, or name it in {LIBRARY_VARIABLE}",
                program.display()
            ),
        )
    })
}

impl Emulator {
    /// A machine with one device of one gibibyte.
    ///
    /// # Errors
    ///
    /// Where the library is missing, or no folder can be made.
    pub fn new() -> io::Result<Self> {
        let folder = Folder::new()?;
        let (library, names) = (library()?, folder.path().join("lib"));
        std::fs::create_dir(&names)?;
        for name in NAMES {
            std::os::unix::fs::symlink(&library, names.join(name))?;
        }
        let state = folder.path().join("state");
        std::fs::create_dir(&state)?;
        let variables = BTreeMap::from([(settings::STATE, state.to_string_lossy().into_owned())]);
        Ok(Self { folder, variables })
    }

    /// With so many devices.
    #[must_use]
    pub fn devices(self, count: usize) -> Self {
        self.with(settings::DEVICES, count)
    }

    /// With so many bytes in each device.
    #[must_use]
    pub fn memory_bytes(self, bytes: u64) -> Self {
        self.with(settings::MEMORY, bytes)
    }

    /// With pauses in streams and blocks in random order, by a seed.
    #[must_use]
    pub fn chaos(self, seed: u64) -> Self {
        self.with(settings::CHAOS, seed)
    }

    /// With faults, as `docs/testing-without-a-gpu.md` describes them.
    #[must_use]
    pub fn faults(self, plan: &str) -> Self {
        self.with(settings::FAULTS, plan)
    }

    /// With zeros in memory that nobody used yet, and no time spent on poison.
    #[must_use]
    pub fn without_poison(self) -> Self {
        self.with(settings::POISON, "off")
    }

    /// With GPUDirect Storage, for programs that find `libcufile.so.0` among [`Emulator::libraries`].
    #[must_use]
    pub fn direct_storage(self) -> Self {
        self.with(settings::STORAGE, "direct")
    }

    /// With any other variable of the emulator's.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.variables.insert(name, value.to_string());
        self
    }

    /// The folder that processes share.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// The folder with the libraries, by the names under which programs ask for them.
    #[must_use]
    pub fn libraries(&self) -> PathBuf {
        self.folder.path().join("lib")
    }

    /// What a process needs in its environment to run on this machine. Puts the libraries before those of `LD_LIBRARY_PATH`.
    #[must_use]
    pub fn environment(&self) -> Vec<(OsString, OsString)> {
        let mut path = self.libraries().into_os_string();
        if let Some(others) =
            std::env::var_os("LD_LIBRARY_PATH").filter(|others| !others.is_empty())
        {
            path.push(":");
            path.push(others);
        }
        let own = self
            .variables
            .iter()
            .map(|(name, value)| (OsString::from(name), OsString::from(value)));
        own.chain([(OsString::from("LD_LIBRARY_PATH"), path)])
            .collect()
    }

    /// A command that runs `program` on this machine.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.envs(self.environment());
        command
    }

    /// Loads the driver into this process, for all who ask for `libcuda.so.1` from now on. Before anything calls CUDA, and once: a
    /// process has one machine, and cannot leave it.
    ///
    /// # Errors
    ///
    /// Where the library cannot be loaded.
    pub fn load(&self) -> io::Result<()> {
        for (name, value) in &self.variables {
            set_variable(name, value)?;
        }
        let path = CString::new(library()?.as_os_str().as_bytes()).map_err(io::Error::other)?;
        // SAFETY: the library is this package's own; loading it runs no code of it.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
        if handle.is_null() {
            Err(io::Error::other(format!(
                "{} cannot be loaded",
                path.to_string_lossy()
            )))
        } else {
            Ok(())
        }
    }

    /// What every process did so far, by its id; also those that have ended.
    ///
    /// # Errors
    ///
    /// Where the folder cannot be read.
    pub fn processes(&self) -> io::Result<BTreeMap<u32, Report>> {
        let mut reports = BTreeMap::new();
        for entry in std::fs::read_dir(self.state())? {
            let entry = entry?;
            let name = entry.file_name();
            let id = name
                .to_str()
                .and_then(|name| name.strip_prefix(FILE_PREFIX))
                .and_then(|id| id.parse().ok());
            if let Some(id) = id {
                reports.insert(id, Report::of(&Counters::at(&entry.path())?));
            }
        }
        Ok(reports)
    }

    /// The most bytes of a device that all processes together ever held at once, in whole blocks of two mebibytes.
    ///
    /// # Errors
    ///
    /// Where the folder cannot be read, as when no process has started CUDA.
    pub fn most_held_bytes(&self, device: usize) -> io::Result<u64> {
        let path = crate::shared_memory::words_path(&self.state(), device);
        let count = std::fs::metadata(&path)?.len() as usize / size_of::<u64>();
        let words = crate::mapped::Words::of_file(&path, count)?;
        let most = words.all().last();
        Ok(
            most.map_or(0, |most| most.load(std::sync::atomic::Ordering::SeqCst))
                * crate::machine::BLOCK_BYTES,
        )
    }

    /// What all processes did so far, added up.
    ///
    /// # Errors
    ///
    /// Where the folder cannot be read.
    pub fn report(&self) -> io::Result<Report> {
        Ok(self
            .processes()?
            .values()
            .fold(Report::default(), |sum, report| sum.and(report)))
    }
}

/// Sets a variable of this process's environment.
fn set_variable(name: &str, value: &str) -> io::Result<()> {
    let (name, value) = (
        CString::new(name).map_err(io::Error::other)?,
        CString::new(value).map_err(io::Error::other)?,
    );
    // SAFETY: both texts end with a zero. Tests of one process call this before they start CUDA; Rust's readers of the
    // environment take a lock that C's writer does not, so no other thread may use it meanwhile, as `load` says.
    if unsafe { libc::setenv(name.as_ptr(), value.as_ptr(), 1) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
