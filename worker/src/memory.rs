//! Accounting of memory, disk and operations in flight, and the limits they are held against. Used by `store`, which
//! keeps the account, and by `fetch`, `run` and `spill`, which ask it. Knows nothing of tasks.

use std::collections::BTreeMap;
use std::ops::{Index, IndexMut};

use transload_protocol::{Memory, Tier, WorkerId};

use crate::Config;
use crate::store::{Operation, Record, State};
use crate::tasks::Place;

/// Something for each tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ByTier<T>([T; 4]);

/// What partitions occupy in one tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Level {
    /// Stored there, or on the way there.
    pub(crate) bytes: u64,
    /// Of these, on the way to another tier.
    pub(crate) leaving_bytes: u64,
}

/// What the partitions of a worker occupy. Bytes are reserved when an operation starts, not when it ends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Usage {
    pub(crate) tiers: ByTier<Level>,
    /// Fetches in flight, by the peer they come from.
    pub(crate) fetches: BTreeMap<WorkerId, u32>,
    /// Of `fetches`, the sum.
    pub(crate) fetches_in_flight: u32,
    /// Files that are being written or read.
    pub(crate) disk_operations: u32,
    /// Moves between device and page-locked memory.
    pub(crate) copies: u32,
    /// Moves to the device, from wherever.
    pub(crate) rising: u32,
}

/// What may be occupied of one tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Limit {
    /// Never exceeded by fetches and moves, but in host memory for one overcommitted task.
    pub(crate) bytes: u64,
    /// Partitions leave above; prefetching stops here.
    pub(crate) spill_above_bytes: u64,
}

/// Limits that follow from the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) tiers: ByTier<Limit>,
    /// Where partitions of tasks on devices are read.
    pub(crate) device_memory: Memory,
    pub(crate) fetches: u32,
    pub(crate) fetch_attempts: u32,
    pub(crate) disk_operations: u32,
    pub(crate) copies: u32,
}

/// Whether the task at the head of the queue has the memory it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pressure {
    /// As far as anybody knows.
    Calm,
    /// Its inputs do not fit into that tier, and nothing more can be evicted: no other task starts until it has run.
    Starved {
        head: Place,
        tier: Tier,
        cause: Shortage,
    },
    /// Its inputs do not fit even into an otherwise empty host memory: they are brought in nevertheless, for this one
    /// task, and no other starts before it.
    Overcommitted { head: Place },
}

/// Why no memory can be freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shortage {
    /// There is nothing left to evict.
    NothingToEvict,
    /// There is, but the tier below does not take it.
    Refused { by: Tier },
}

impl<T> Index<Tier> for ByTier<T> {
    type Output = T;

    fn index(&self, tier: Tier) -> &T {
        let [device, pinned, host, disk] = &self.0;
        match tier {
            Tier::Device => device,
            Tier::PinnedHost => pinned,
            Tier::Host => host,
            Tier::Disk => disk,
        }
    }
}

impl<T> IndexMut<Tier> for ByTier<T> {
    fn index_mut(&mut self, tier: Tier) -> &mut T {
        let [device, pinned, host, disk] = &mut self.0;
        match tier {
            Tier::Device => device,
            Tier::PinnedHost => pinned,
            Tier::Host => host,
            Tier::Disk => disk,
        }
    }
}

impl Usage {
    pub(crate) fn add(&mut self, record: &Record) {
        for it in record.occupied().into_iter().flatten() {
            let level = &mut self.tiers[it.tier];
            level.bytes += it.bytes;
            level.leaving_bytes += if it.is_leaving { it.bytes } else { 0 };
        }
        match record.operation() {
            Some(Operation::Disk) => self.disk_operations += 1,
            Some(Operation::Copy) => self.copies += 1,
            None => {}
        }
        self.rising += u32::from(record.is_rising());
        if let State::Fetching { from, .. } = record.state {
            self.fetches_in_flight += 1;
            *self.fetches.entry(from).or_insert(0) += 1;
        }
    }

    pub(crate) fn subtract(&mut self, record: &Record) {
        for it in record.occupied().into_iter().flatten() {
            let level = &mut self.tiers[it.tier];
            level.bytes -= it.bytes;
            level.leaving_bytes -= if it.is_leaving { it.bytes } else { 0 };
        }
        match record.operation() {
            Some(Operation::Disk) => self.disk_operations -= 1,
            Some(Operation::Copy) => self.copies -= 1,
            None => {}
        }
        self.rising -= u32::from(record.is_rising());
        if let State::Fetching { from, .. } = record.state {
            self.fetches_in_flight -= 1;
            if let Some(fetches) = self.fetches.get_mut(&from) {
                *fetches -= 1;
                if *fetches == 0 {
                    self.fetches.remove(&from);
                }
            }
        }
    }

    /// A partition moves between tiers here.
    pub(crate) fn is_moving(&self) -> bool {
        self.disk_operations > 0 || self.copies > 0
    }

    /// The driver owes an answer about some partition.
    pub(crate) fn is_in_flight(&self) -> bool {
        self.fetches_in_flight > 0 || self.is_moving()
    }
}

impl Limits {
    /// Zero operations in flight or zero attempts would mean that nothing ever happens; they count as one.
    pub(crate) fn new(config: &Config) -> Self {
        let limit = |bytes| Limit {
            bytes,
            spill_above_bytes: share(bytes, config.spill_above_percent),
        };
        let mut tiers = ByTier::default();
        tiers[Tier::Host] = limit(config.memory_bytes);
        tiers[Tier::Disk].bytes = config.disk_bytes;
        if let Some(gpu) = &config.gpu {
            tiers[Tier::Device] = limit(gpu.device_bytes);
            tiers[Tier::PinnedHost] = limit(gpu.pinned_bytes);
        }
        Self {
            tiers,
            device_memory: match config.gpu {
                Some(_) => Memory::Device,
                None => Memory::Host,
            },
            fetches: config.fetches_in_flight.max(1),
            fetch_attempts: config.fetch_attempts.max(1),
            disk_operations: config.disk_operations_in_flight.max(1),
            copies: config.copies_in_flight.max(1),
        }
    }

    /// Where a partition of a layer that works in that memory is read here: where there is no device, in host memory.
    pub(crate) fn memory_here(&self, memory: Memory) -> Memory {
        match memory {
            Memory::Host => Memory::Host,
            Memory::Device => self.device_memory,
        }
    }
}

fn share(bytes: u64, percent: u8) -> u64 {
    let share = u128::from(bytes) * u128::from(percent.min(100)) / 100;
    u64::try_from(share).unwrap_or(bytes)
}
