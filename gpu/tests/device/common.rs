//! A device with its tiers, on the emulated driver, and its counts of copies beside ours.

use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use cuda_emulator::{Emulator, Movement};
use futures::executor::block_on;
use transload_gpu::device::{
    Device, DeviceError, DeviceMemory, Kernels, Path, PinnedPool, TieredBuffer, Tiers,
};
use transload_gpu::{Budget, HostBuffer, SpillDirectory};

/// Set to `hardware`, these tests run on the machine's own GPU, and only our counts are looked at.
const WHERE: &str = "TRANSLOAD_TEST_GPU";

fn is_on_hardware() -> bool {
    std::env::var(WHERE).is_ok_and(|text| text == "hardware")
}

/// The machine of this process. Streams pause at random, so that what does not wait is found out.
fn emulator() -> Option<&'static Emulator> {
    static EMULATOR: OnceLock<Emulator> = OnceLock::new();
    (!is_on_hardware()).then(|| {
        EMULATOR.get_or_init(|| {
            let emulator = Emulator::new()
                .unwrap()
                .devices(2)
                .chaos(1)
                .with("CUDA_EMULATOR_UNINITIALISED", "on");
            let emulator = match std::env::var(PLAN) {
                Ok(plan) => emulator.faults(&plan),
                Err(_) => emulator,
            };
            let emulator = match std::env::var(STORAGE).as_deref() {
                Ok("direct") => emulator.direct_storage(),
                Ok(_) | Err(_) => emulator,
            };
            emulator.load().unwrap();
            emulator
        })
    })
}

/// The plan of faults of a process that was started for one.
const PLAN: &str = "TRANSLOAD_TEST_FAULTS";

/// What the machine of such a process has of cuFile: nothing where this is not set.
const STORAGE: &str = "TRANSLOAD_TEST_STORAGE";

/// Runs this test's body in a process of its own, whose driver fails as planned; the body fails the test.
pub(crate) fn in_a_process_of_its_own(plan: &str, body: impl FnOnce()) {
    run_again(plan, None, body);
}

/// The same, where cuFile is `direct`, `compatible`, which goes through the host, or `absent`.
pub(crate) fn in_a_process_with_cufile(storage: &str, plan: &str, body: impl FnOnce()) {
    run_again(plan, Some(storage), body);
}

fn run_again(plan: &str, storage: Option<&str>, body: impl FnOnce()) {
    if std::env::var_os(PLAN).is_some() {
        return body();
    }
    if is_on_hardware() {
        return println!("skipped: hardware does not fail as planned");
    }
    let thread = thread::current();
    let test = thread.name().unwrap();
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new(program);
    command
        .args([test, "--exact", "--nocapture"])
        .env(PLAN, plan);
    // Only a process that starts with them finds libraries by their names.
    let libraries = Emulator::new().unwrap();
    if storage == Some("absent") {
        let cufile = libraries.libraries().join("libcufile.so.0");
        std::fs::remove_file(&cufile).unwrap();
        // No library, behind which nobody looks for one of the machine's own.
        std::fs::write(&cufile, "").unwrap();
    }
    if let Some(storage) = storage {
        command.envs(libraries.environment()).env(STORAGE, storage);
    }
    let ended = command.output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    let err = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "under {plan}: {said}\n{err}");
    assert!(said.contains("1 passed"), "it ran: {said}");
}

/// The device, for one test at a time: what is counted is of the process.
pub(crate) fn device() -> (Device, MutexGuard<'static, ()>) {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    emulator();
    (Device::open(0).unwrap(), alone)
}

/// What copies there were, by ours and the driver's count, which agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Device to page-locked memory.
    pub(crate) to_pinned: u64,
    pub(crate) from_pinned: u64,
    pub(crate) to_pageable: u64,
    pub(crate) from_pageable: u64,
    pub(crate) within: u64,
    /// Page-locked memory to a file, by whichever way the file system has.
    pub(crate) to_disk: u64,
    pub(crate) from_disk: u64,
    /// The device to a file, past the host.
    pub(crate) directly_to_disk: u64,
    pub(crate) directly_from_disk: u64,
}

impl Counts {
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            to_pinned: self.to_pinned - before.to_pinned,
            from_pinned: self.from_pinned - before.from_pinned,
            to_pageable: self.to_pageable - before.to_pageable,
            from_pageable: self.from_pageable - before.from_pageable,
            within: self.within - before.within,
            to_disk: self.to_disk - before.to_disk,
            from_disk: self.from_disk - before.from_disk,
            directly_to_disk: self.directly_to_disk - before.directly_to_disk,
            directly_from_disk: self.directly_from_disk - before.directly_from_disk,
        }
    }

    /// All copies with the host at one end.
    pub(crate) fn over_the_bus(&self) -> u64 {
        self.to_pinned + self.from_pinned + self.to_pageable + self.from_pageable
    }
}

/// One device, its tiers, and a directory.
pub(crate) struct Bench {
    pub(crate) device: Device,
    pub(crate) tiers: Tiers,
    pub(crate) directory: Arc<SpillDirectory>,
    _folder: tempfile::TempDir,
    /// What was counted before, by path.
    start: Vec<Option<(u64, u64)>>,
    _alone: MutexGuard<'static, ()>,
}

impl Bench {
    pub(crate) fn new(device_bytes: u64, pinned_bytes: u64) -> Self {
        Self::with(device_bytes, pinned_bytes, |tiers| tiers)
    }

    /// With direct storage, where the machine has some.
    pub(crate) fn direct(device_bytes: u64, pinned_bytes: u64) -> Self {
        Self::with(device_bytes, pinned_bytes, |tiers| {
            let kernels = Kernels::load(tiers.memory(), tiers.pinned()).unwrap();
            tiers.with_direct_storage(&kernels)
        })
    }

    fn with(device_bytes: u64, pinned_bytes: u64, change: impl FnOnce(Tiers) -> Tiers) -> Self {
        let (device, alone) = device();
        // Beside the program, as folders for temporary files are often in memory, where nothing goes past the page cache.
        let program = std::env::current_exe().unwrap();
        let folder = tempfile::tempdir_in(program.parent().unwrap()).unwrap();
        let directory = Arc::new(SpillDirectory::create(folder.path()).unwrap());
        let memory = DeviceMemory::take(&device, device_bytes).unwrap();
        let pinned = PinnedPool::new(&device, pinned_bytes);
        let tiers = change(Tiers::new(memory, pinned, Arc::clone(&directory)).unwrap());
        let start = MOVEMENTS.iter().map(|(_, it)| moved(*it)).collect();
        Self {
            device,
            tiers,
            directory,
            _folder: folder,
            start,
            _alone: alone,
        }
    }

    /// What was copied so far. Ours and the driver's counts agree, copies and bytes.
    pub(crate) fn counts(&self) -> Counts {
        let traffic = self.device.traffic();
        let mut copies = Vec::new();
        for ((path, movement), start) in MOVEMENTS.iter().zip(&self.start) {
            let ours = traffic.over(*path);
            if let (Some(theirs), Some(start)) = (moved(*movement), start) {
                assert_eq!(ours, (theirs.0 - start.0, theirs.1 - start.1), "{path:?}");
            }
            copies.push(ours.0);
        }
        let files = |direct, cached| traffic.over(direct).0 + traffic.over(cached).0;
        Counts {
            to_pinned: copies[0],
            from_pinned: copies[1],
            to_pageable: copies[2],
            from_pageable: copies[3],
            within: copies[4],
            to_disk: files(Path::PinnedToDisk, Path::PinnedToDiskCached),
            from_disk: files(Path::DiskToPinned, Path::DiskToPinnedCached),
            directly_to_disk: copies[5],
            directly_from_disk: copies[6],
        }
    }

    /// A buffer on the device with a pattern in it.
    pub(crate) fn filled(&self, bytes: u64, seed: u64) -> TieredBuffer {
        self.try_filled(bytes, seed).unwrap()
    }

    /// The same, where it may fail.
    pub(crate) fn try_filled(&self, bytes: u64, seed: u64) -> Result<TieredBuffer, DeviceError> {
        let to = self.tiers.memory().try_allocate(bytes)?;
        let uploading = self
            .tiers
            .copies()
            .upload_slices(vec![pattern(bytes, seed).into()], to);
        Ok(TieredBuffer::on_device(uploading.wait()?.1))
    }

    /// Its bytes, read by way of the device. Tried again and again where faults are planned.
    pub(crate) fn contents(&self, buffer: &TieredBuffer) -> Vec<u8> {
        let attempts = if std::env::var_os(PLAN).is_some() {
            100
        } else {
            1
        };
        let mut error = None;
        for _ in 0..attempts {
            match self.try_contents(buffer) {
                Ok(contents) => return contents,
                Err(failed) => error = Some(failed),
            }
        }
        panic!("{error:?}");
    }

    fn try_contents(&self, buffer: &TieredBuffer) -> Result<Vec<u8>, DeviceError> {
        let place = block_on(self.tiers.to_device(buffer))?;
        let budget = Budget::new("host", u64::MAX);
        let reservation = budget.try_reserve(buffer.bytes()).unwrap();
        let to = HostBuffer::uncleared(buffer.bytes() as usize, reservation);
        let (_, to) = self.tiers.copies().download_host(place, to).wait()?;
        Ok(to.as_slice().to_vec())
    }

    /// Until nothing is under way, and what it held has come back.
    pub(crate) fn wait_until_idle(&self) {
        let budgets = [self.tiers.memory().budget(), self.tiers.pinned().budget()];
        let used = || (budgets.map(Budget::used_bytes), self.directory.used_bytes());
        let mut before = None;
        // What nobody waits for ends soon; no number that stays for so long is still going down.
        let mut same = 0;
        while same < 20 {
            let now = used();
            same = if before == Some(now) { same + 1 } else { 0 };
            before = Some(now);
            thread::sleep(Duration::from_millis(10));
        }
    }
}

const MOVEMENTS: [(Path, Movement); 7] = [
    (Path::DeviceToPinned, Movement::DownloadPinned),
    (Path::PinnedToDevice, Movement::UploadPinned),
    (Path::DeviceToPageable, Movement::DownloadPageable),
    (Path::PageableToDevice, Movement::UploadPageable),
    (Path::DeviceToDevice, Movement::DeviceToDevice),
    (Path::DeviceToDisk, Movement::DeviceToFile),
    (Path::DiskToDevice, Movement::FileToDevice),
];

/// Copies and bytes, by the driver's count.
fn moved(movement: Movement) -> Option<(u64, u64)> {
    let moved = emulator()?.report().unwrap().moved(movement);
    Some((moved.calls, moved.bytes))
}

/// Bytes that differ from place to place and from seed to seed.
pub(crate) fn pattern(bytes: u64, seed: u64) -> Vec<u8> {
    (0..bytes)
        .map(|at| (at.wrapping_mul(31) ^ (at >> 8) ^ seed.wrapping_mul(97)) as u8)
        .collect()
}
