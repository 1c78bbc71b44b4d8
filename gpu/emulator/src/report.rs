//! What processes did to devices, as tests read it.
//!
//! Made by `harness` from the counters of each process.

use std::collections::BTreeMap;

use crate::counters::{Counters, Moved, Movement, Number};

/// What processes did to devices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    moved: BTreeMap<Movement, Moved>,
    /// Kernels launched.
    pub launches: u64,
    /// Faults that ended the use of a device.
    pub faults: u64,
    /// Page-locked bytes that are allocated, and the most of them there ever were in one process.
    pub pinned_bytes: u64,
    /// The most page-locked bytes that one process ever had allocated.
    pub peak_pinned_bytes: u64,
    /// By device: bytes that are allocated now.
    pub device_bytes: BTreeMap<usize, u64>,
    /// By device: the most bytes that one process ever had allocated.
    pub peak_device_bytes: BTreeMap<usize, u64>,
}

impl Report {
    /// What one process counted.
    pub(crate) fn of(counters: &Counters) -> Self {
        let mut report = Self {
            moved: Movement::ALL
                .into_iter()
                .map(|movement| (movement, counters.moved(movement)))
                .collect(),
            launches: counters.number(Number::Launches),
            faults: counters.number(Number::Faults),
            pinned_bytes: counters.number(Number::PinnedBytes),
            peak_pinned_bytes: counters.number(Number::PeakPinnedBytes),
            ..Self::default()
        };
        for device in 0..crate::machine::MOST_DEVICES {
            let (now, most) = counters.device_bytes(device);
            if most > 0 {
                report.device_bytes.insert(device, now);
                report.peak_device_bytes.insert(device, most);
            }
        }
        report
    }

    /// What moved bytes in one way.
    #[must_use]
    pub fn moved(&self, movement: Movement) -> Moved {
        self.moved.get(&movement).copied().unwrap_or_default()
    }

    /// Copies with the host on one side, of whichever memory.
    #[must_use]
    pub fn through_host(&self) -> Moved {
        let ways = [
            Movement::UploadPinned,
            Movement::UploadPageable,
            Movement::DownloadPinned,
            Movement::DownloadPageable,
        ];
        ways.into_iter()
            .map(|way| self.moved(way))
            .fold(Moved::default(), Moved::and)
    }

    /// Both added up; of peaks the higher one.
    pub(crate) fn and(mut self, other: &Self) -> Self {
        for (movement, moved) in &other.moved {
            let sum = self.moved(*movement).and(*moved);
            self.moved.insert(*movement, sum);
        }
        self.launches += other.launches;
        self.faults += other.faults;
        self.pinned_bytes += other.pinned_bytes;
        self.peak_pinned_bytes = self.peak_pinned_bytes.max(other.peak_pinned_bytes);
        for (device, bytes) in &other.device_bytes {
            *self.device_bytes.entry(*device).or_default() += bytes;
        }
        for (device, bytes) in &other.peak_device_bytes {
            let peak = self.peak_device_bytes.entry(*device).or_default();
            *peak = (*peak).max(*bytes);
        }
        self
    }
}

impl Moved {
    fn and(self, other: Self) -> Self {
        Self {
            calls: self.calls + other.calls,
            bytes: self.bytes + other.bytes,
        }
    }
}
