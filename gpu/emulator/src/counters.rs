//! What this process did to devices, counted where other processes can read it.
//!
//! Written by `copy`, `launch` and the allocators; read by the harness from the folder `CUDA_EMULATOR_STATE`, while the process runs
//! and after it. The layout is the harness's and this file's alone.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::machine::MOST_DEVICES;
use crate::mapped::Words;

/// What moved bytes. Pinned and pageable name the host's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Movement {
    /// From page-locked host memory to a device.
    UploadPinned,
    /// From pageable host memory to a device.
    UploadPageable,
    /// From a device to page-locked host memory.
    DownloadPinned,
    /// From a device to pageable host memory.
    DownloadPageable,
    /// Within one device, all of it this process's own memory.
    DeviceToDevice,
    /// From one device to another.
    Peer,
    /// Within one device, at least one side opened by an IPC handle.
    Ipc,
    /// Between host memories.
    HostToHost,
    /// A memset of device memory.
    Memset,
    /// From a file to device memory, by cuFile, without memory of the host in between.
    FileToDevice,
    /// From device memory to a file, likewise.
    DeviceToFile,
}

impl Movement {
    /// All of them, in the order in which they are stored.
    pub const ALL: [Self; 11] = [
        Self::UploadPinned,
        Self::UploadPageable,
        Self::DownloadPinned,
        Self::DownloadPageable,
        Self::DeviceToDevice,
        Self::Peer,
        Self::Ipc,
        Self::HostToHost,
        Self::Memset,
        Self::FileToDevice,
        Self::DeviceToFile,
    ];
}

/// How often something moved, and how many bytes in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moved {
    /// Calls.
    pub calls: u64,
    /// Bytes of all calls.
    pub bytes: u64,
}

/// Single numbers, stored behind the movements.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Number {
    /// Kernels launched.
    Launches,
    /// Faults that ended the use of a device.
    Faults,
    /// Bytes of page-locked memory allocated now.
    PinnedBytes,
    /// The most of it there ever was.
    PeakPinnedBytes,
}

const MOVEMENTS: usize = Movement::ALL.len() * 2;
const NUMBERS: usize = 4;
const WORDS: usize = MOVEMENTS + NUMBERS + MOST_DEVICES * 2;

/// The name of a process's file, before its id.
pub(crate) const FILE_PREFIX: &str = "counters-";

/// This process's counters, or another's.
#[derive(Debug)]
pub(crate) struct Counters(Words);

impl Counters {
    /// Those of this process, from 0 on.
    pub(crate) fn of_process(folder: &Path) -> io::Result<Self> {
        let path = folder.join(format!("{FILE_PREFIX}{}", std::process::id()));
        // A process of the same number may have been here before.
        let _ = std::fs::remove_file(&path);
        Self::at(&path)
    }

    /// Those in a file.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        Words::of_file(path, WORDS).map(Self)
    }

    fn word(&self, index: usize) -> Option<&AtomicU64> {
        self.0.all().get(index)
    }

    fn read(&self, index: usize) -> u64 {
        self.word(index)
            .map_or(0, |word| word.load(Ordering::SeqCst))
    }

    /// Counts one movement of `bytes`.
    pub(crate) fn count(&self, movement: Movement, bytes: u64) {
        for (offset, value) in [(0, 1), (1, bytes)] {
            if let Some(word) = self.word(movement as usize * 2 + offset) {
                word.fetch_add(value, Ordering::SeqCst);
            }
        }
    }

    /// What was counted of a movement.
    pub(crate) fn moved(&self, movement: Movement) -> Moved {
        let index = movement as usize * 2;
        Moved {
            calls: self.read(index),
            bytes: self.read(index + 1),
        }
    }

    /// Adds one to a number.
    pub(crate) fn add(&self, number: Number) {
        if let Some(word) = self.word(MOVEMENTS + number as usize) {
            word.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A number.
    pub(crate) fn number(&self, number: Number) -> u64 {
        self.read(MOVEMENTS + number as usize)
    }

    /// Page-locked memory was allocated (above 0) or freed.
    pub(crate) fn pinned(&self, bytes: i64) {
        self.grow(
            MOVEMENTS + Number::PinnedBytes as usize,
            MOVEMENTS + Number::PeakPinnedBytes as usize,
            bytes,
        );
    }

    /// Memory of a device was allocated (above 0) or freed: bytes as asked for.
    pub(crate) fn allocated(&self, device: usize, bytes: i64) {
        let index = MOVEMENTS + NUMBERS + device * 2;
        self.grow(index, index + 1, bytes);
    }

    /// Bytes of a device that this process has allocated now, and the most it ever had.
    pub(crate) fn device_bytes(&self, device: usize) -> (u64, u64) {
        let index = MOVEMENTS + NUMBERS + device * 2;
        (self.read(index), self.read(index + 1))
    }

    fn grow(&self, now: usize, most: usize, bytes: i64) {
        if let (Some(now), Some(most)) = (self.word(now), self.word(most)) {
            let before = now.fetch_add(bytes as u64, Ordering::SeqCst);
            if bytes > 0 {
                most.fetch_max(before.wrapping_add(bytes as u64), Ordering::SeqCst);
            }
        }
    }
}
