//! What all processes see that share devices: who lives, who holds which block of memory, events between processes.
//!
//! Used by `backing`, `event` and `ipc`. Lies in the folder `CUDA_EMULATOR_STATE`. A process that dies gives everything back:
//! the kernel drops its lock, and the next process that looks clears what it held. Knows no addresses.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use crate::call::{lock, say};
use crate::file_lock::{self, Bytes};
use crate::folder::Folder;
use crate::mapped::{Words, open};
use crate::shared_memory::SharedMemory;

/// Memory is handed out in blocks of this size (docs/gpu-facts.md, Device memory).
pub(crate) const BLOCK_BYTES: u64 = 2 << 20;
/// Devices a machine can have.
pub(crate) const MOST_DEVICES: usize = 16;
/// Processes that can share devices at once: one bit each in the word of a block.
const MOST_PROCESSES: usize = 64;
/// Events that can be shared between processes at once.
const MOST_EVENTS: usize = 4096;
/// Words of one shared event: processes that have it, records begun, records done, and who began the latest.
const EVENT_WORDS: usize = 4;

/// The shared folder, opened by this process.
#[derive(Debug)]
pub(crate) struct Machine {
    place: Lies,
    /// One word for each process: its id, 0 for none.
    processes: Words,
    events: Words,
    lock_file: File,
    in_process: Mutex<()>,
    /// Which of the processes this one is.
    slot: usize,
    devices: Vec<SharedMemory>,
}

/// Where a machine lies.
#[derive(Debug)]
enum Lies {
    /// Where others can be too.
    Shared(PathBuf),
    /// In a folder of this process alone, which goes with it.
    Alone(Folder),
}

impl Lies {
    fn path(&self) -> &Path {
        match self {
            Self::Shared(path) => path,
            Self::Alone(folder) => folder.path(),
        }
    }
}

/// The machine, held by this thread of this process alone until it is dropped.
pub(crate) struct Held<'a> {
    machine: &'a Machine,
    _in_process: MutexGuard<'a, ()>,
}

/// Where a byte of the lock file is locked: by whom it means.
const WHOLE: i64 = MOST_PROCESSES as i64;

impl Machine {
    /// Joins the machine in `folder`, or one of this process alone.
    pub(crate) fn join(
        folder: Option<&Path>,
        devices: usize,
        memory_bytes: u64,
        tracks_writes: bool,
    ) -> io::Result<Self> {
        let place = match folder {
            Some(path) => Lies::Shared(path.to_path_buf()),
            None => Lies::Alone(Folder::new()?),
        };
        let folder = place.path();
        std::fs::create_dir_all(folder)?;
        let lock_file = open(&folder.join("lock"))?;
        let mut machine = Self {
            processes: Words::of_file(&folder.join("processes"), MOST_PROCESSES)?,
            events: Words::of_file(&folder.join("events"), MOST_EVENTS * EVENT_WORDS)?,
            lock_file,
            in_process: Mutex::new(()),
            slot: 0,
            devices: Vec::new(),
            place,
        };
        for device in 0..devices {
            machine.devices.push(SharedMemory::open(
                machine.place.path(),
                device,
                memory_bytes,
                tracks_writes,
            )?);
        }
        let slot = machine.hold().claim_slot()?;
        machine.slot = slot;
        Ok(machine)
    }

    /// Waits until no other thread or process has it.
    pub(crate) fn hold(&self) -> Held<'_> {
        let guard = lock(&self.in_process);
        if let Err(error) = file_lock::take(&self.lock_file, WHOLE) {
            say!(
                "the lock in {} cannot be taken: {error}; the process ends here",
                self.place.path().display()
            );
            std::process::abort();
        }
        Held {
            machine: self,
            _in_process: guard,
        }
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        self.place.path()
    }

    /// Whether only this process can be here.
    pub(crate) fn is_private(&self) -> bool {
        matches!(self.place, Lies::Alone(_))
    }

    /// The number of this process among those that share the machine.
    pub(crate) fn slot(&self) -> usize {
        self.slot
    }

    /// The file with the bytes of a device's memory.
    pub(crate) fn memory_file(&self, device: usize) -> Option<&File> {
        self.devices.get(device).map(SharedMemory::file)
    }

    /// Whether the process `id` in place `slot` lives.
    pub(crate) fn lives(&self, slot: usize, id: u64) -> bool {
        let known = self
            .processes
            .all()
            .get(slot)
            .map(|word| word.load(Ordering::SeqCst));
        known == Some(id)
            && (slot == self.slot || file_lock::is_taken(&self.lock_file, Bytes::One(slot as i64)))
    }

    /// In a child that was forked off: lets go of the parent's lock, so that the child does not keep a dead parent alive.
    pub(crate) fn close_in_forked_child(&self) {
        // SAFETY: closing a descriptor is safe in a forked child; nothing here uses it again, as every call is refused.
        unsafe { libc::close(self.lock_file.as_raw_fd()) };
    }

    /// A place among the shared events; `None` when all are taken.
    pub(crate) fn new_event(&self) -> Option<usize> {
        let held = self.hold();
        held.reap();
        let index = (0..MOST_EVENTS).find(|index| {
            self.event(*index)
                .is_some_and(|[holders, ..]| holders.load(Ordering::SeqCst) == 0)
        })?;
        let [holders, begun, done, _] = self.event(index)?;
        begun.store(0, Ordering::SeqCst);
        done.store(0, Ordering::SeqCst);
        holders.store(1 << self.slot, Ordering::SeqCst);
        Some(index)
    }

    /// Holds an event that another process has made; `false` when nobody has it.
    pub(crate) fn join_event(&self, index: usize) -> bool {
        let held = self.hold();
        held.reap();
        let joined = self
            .event(index)
            .filter(|[holders, ..]| holders.load(Ordering::SeqCst) != 0);
        if let Some([holders, ..]) = joined {
            holders.fetch_or(1 << self.slot, Ordering::SeqCst);
        }
        joined.is_some()
    }

    /// Lets go of a shared event.
    pub(crate) fn leave_event(&self, index: usize) {
        if let Some([holders, ..]) = self.event(index) {
            holders.fetch_and(!(1 << self.slot), Ordering::SeqCst);
        }
    }

    /// This process, as a word of a shared event names it.
    pub(crate) fn own_name(&self) -> u64 {
        (self.slot as u64) << 32 | u64::from(std::process::id())
    }

    /// Whether the process of that name lives.
    pub(crate) fn is_alive(&self, name: u64) -> bool {
        self.lives((name >> 32) as usize, name & u64::from(u32::MAX))
    }

    /// The words of a shared event: who has it, records begun, records done, and who began the latest.
    pub(crate) fn event(&self, index: usize) -> Option<[&AtomicU64; EVENT_WORDS]> {
        let start = index.checked_mul(EVENT_WORDS)?;
        let words = self.events.all().get(start..start + EVENT_WORDS)?;
        let [holders, begun, done, by] = words else {
            return None;
        };
        Some([holders, begun, done, by])
    }
}

impl Held<'_> {
    fn claim_slot(&self) -> io::Result<usize> {
        self.reap();
        let words = self.machine.processes.all();
        let free = words
            .iter()
            .position(|word| word.load(Ordering::SeqCst) == 0);
        let slot = free.ok_or_else(|| {
            io::Error::other(format!(
                "{MOST_PROCESSES} processes share these devices already"
            ))
        })?;
        file_lock::take(&self.machine.lock_file, slot as i64)?;
        if let Some(word) = words.get(slot) {
            word.store(u64::from(std::process::id()), Ordering::SeqCst);
        }
        Ok(slot)
    }

    /// Takes from dead processes what they held.
    pub(crate) fn reap(&self) {
        let machine = self.machine;
        for (slot, word) in machine.processes.all().iter().enumerate() {
            let id = word.load(Ordering::SeqCst);
            if id == 0
                || slot == machine.slot && id == u64::from(std::process::id())
                || machine.lives(slot, id)
            {
                continue;
            }
            machine
                .devices
                .iter()
                .for_each(|memory| memory.forget(slot));
            for index in 0..MOST_EVENTS {
                if let Some([holders, ..]) = machine.event(index) {
                    holders.fetch_and(!(1 << slot), Ordering::SeqCst);
                }
            }
            word.store(0, Ordering::SeqCst);
        }
    }

    fn memory(&self, device: usize) -> Option<&SharedMemory> {
        self.machine.devices.get(device)
    }

    /// Takes `count` free blocks of a device; `None` where there are too few.
    pub(crate) fn take(&self, device: usize, count: usize) -> Option<Vec<usize>> {
        self.memory(device)?.take(self.machine.slot, count)
    }

    /// Adds this process to the holders of blocks.
    pub(crate) fn hold_blocks(&self, device: usize, blocks: &[usize]) {
        if let Some(memory) = self.memory(device) {
            memory.hold(self.machine.slot, blocks);
        }
    }

    /// Whether somebody holds every one of the blocks.
    pub(crate) fn are_held(&self, device: usize, blocks: &[usize]) -> bool {
        self.memory(device)
            .is_some_and(|memory| memory.are_held(blocks))
    }

    /// Takes this process from the holders of blocks.
    pub(crate) fn leave_blocks(&self, device: usize, blocks: &[usize]) {
        if let Some(memory) = self.memory(device) {
            memory.leave(self.machine.slot, blocks);
        }
    }

    /// Bytes of a device that nobody holds.
    pub(crate) fn free_bytes(&self, device: usize) -> u64 {
        self.memory(device).map_or(0, SharedMemory::free_bytes)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        file_lock::release(&self.machine.lock_file, WHOLE);
    }
}
