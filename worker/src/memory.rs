//! Accounting of memory, disk and operations in flight, and the limits they are held against. Used by `store`, which
//! keeps the account, and by `fetch`, `run` and `spill`, which ask it. Knows nothing of tasks.

use std::collections::BTreeMap;

use transload_protocol::WorkerId;

use crate::Config;
use crate::store::{Record, State};
use crate::tasks::Place;

/// What the partitions of a worker occupy. Bytes are reserved when an operation starts, not when it ends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Usage {
    /// Stored in memory, or on the way there.
    pub(crate) host_bytes: u64,
    /// Of these, on the way to disk.
    pub(crate) leaving_bytes: u64,
    /// Stored on disk, or on the way there.
    pub(crate) disk_bytes: u64,
    /// Fetches in flight, by the peer they come from.
    pub(crate) fetches: BTreeMap<WorkerId, u32>,
    /// Of `fetches`, the sum.
    pub(crate) fetches_in_flight: u32,
    /// Spills and loads in flight.
    pub(crate) disk_operations: u32,
}

/// Limits that follow from the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Never exceeded by fetches and loads, but for one overcommitted task.
    pub(crate) host_bytes: u64,
    /// Spilling starts above; prefetching stops here.
    pub(crate) spill_above_bytes: u64,
    pub(crate) disk_bytes: u64,
    pub(crate) fetches: u32,
    pub(crate) fetch_attempts: u32,
    pub(crate) disk_operations: u32,
}

/// Whether the task at the head of the queue has the memory it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pressure {
    /// As far as anybody knows.
    Calm,
    /// Its inputs do not fit, and nothing more can be evicted: no other task starts until it has run.
    Starved { head: Place, cause: Shortage },
    /// Its inputs do not fit even into an otherwise empty memory: they are brought in nevertheless, for this one
    /// task, and no other starts before it.
    Overcommitted { head: Place },
}

/// Why no memory can be freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shortage {
    /// There is nothing left to evict.
    NothingToEvict,
    /// There is, but the disk does not take it.
    DiskRefuses,
}

impl Usage {
    pub(crate) fn add(&mut self, record: &Record) {
        match record.state {
            State::Absent { .. } | State::Paused { .. } => {}
            State::Fetching { from, .. } => {
                self.host_bytes += record.bytes;
                self.fetches_in_flight += 1;
                *self.fetches.entry(from).or_insert(0) += 1;
            }
            State::Host { .. } => self.host_bytes += record.bytes,
            State::Spilling => {
                self.host_bytes += record.bytes;
                self.leaving_bytes += record.bytes;
                self.disk_bytes += record.bytes;
                self.disk_operations += 1;
            }
            State::Disk { file_bytes } => self.disk_bytes += file_bytes,
            State::Loading { file_bytes } => {
                self.host_bytes += record.bytes;
                self.disk_bytes += file_bytes;
                self.disk_operations += 1;
            }
        }
    }

    pub(crate) fn subtract(&mut self, record: &Record) {
        match record.state {
            State::Absent { .. } | State::Paused { .. } => {}
            State::Fetching { from, .. } => {
                self.host_bytes -= record.bytes;
                self.fetches_in_flight -= 1;
                if let Some(fetches) = self.fetches.get_mut(&from) {
                    *fetches -= 1;
                    if *fetches == 0 {
                        self.fetches.remove(&from);
                    }
                }
            }
            State::Host { .. } => self.host_bytes -= record.bytes,
            State::Spilling => {
                self.host_bytes -= record.bytes;
                self.leaving_bytes -= record.bytes;
                self.disk_bytes -= record.bytes;
                self.disk_operations -= 1;
            }
            State::Disk { file_bytes } => self.disk_bytes -= file_bytes,
            State::Loading { file_bytes } => {
                self.host_bytes -= record.bytes;
                self.disk_bytes -= file_bytes;
                self.disk_operations -= 1;
            }
        }
    }

    /// The driver owes an answer about some partition.
    pub(crate) fn is_in_flight(&self) -> bool {
        self.fetches_in_flight > 0 || self.disk_operations > 0
    }
}

impl Limits {
    /// Zero operations in flight or zero attempts would mean that nothing ever happens; they count as one.
    pub(crate) fn new(config: &Config) -> Self {
        let share =
            u128::from(config.memory_bytes) * u128::from(config.spill_above_percent.min(100)) / 100;
        Self {
            host_bytes: config.memory_bytes,
            spill_above_bytes: u64::try_from(share).unwrap_or(config.memory_bytes),
            disk_bytes: config.disk_bytes,
            fetches: config.fetches_in_flight.max(1),
            fetch_attempts: config.fetch_attempts.max(1),
            disk_operations: config.disk_operations_in_flight.max(1),
        }
    }
}
