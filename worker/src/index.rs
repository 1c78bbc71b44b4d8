//! What follows from the records of `store` and is asked for often: usage, order of eviction, progress of queued tasks.

use std::collections::{BTreeMap, BTreeSet};

use transload_protocol::{PartitionId, Tier, Time, WorkerId};

use crate::memory::{ByTier, Usage};
use crate::store::{Record, State};
use crate::tasks::Place;

/// Where a wanted partition can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// Page-locked memory, from where it goes to the device.
    Pinned,
    Disk,
    Peer(WorkerId),
}

impl Source {
    /// The tiers that must have room before a partition is asked for from there. What is on disk comes to page-locked memory only when
    /// the device has room for it, because what makes room there needs page-locked memory, too; with direct storage it comes straight to
    /// the device.
    pub(crate) fn leads_through(
        self,
        record: &Record,
        has_direct_storage: bool,
    ) -> [Option<Tier>; 2] {
        let read_in = record.memory.tier();
        match self {
            Self::Pinned | Self::Peer(_) => [Some(read_in), None],
            Self::Disk => {
                let above = record.above_disk(has_direct_storage);
                [Some(read_in), (above != read_in).then_some(above)]
            }
        }
    }
}

/// How far the inputs of one queued task are. No entry means that all are in memory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Progress {
    /// Inputs that cannot be read now.
    pub(crate) missing: u32,
    /// Of these, the ones that nobody has asked for yet.
    pub(crate) wanted: BTreeMap<Source, BTreeSet<PartitionId>>,
}

/// When a partition in memory is needed here again; the greatest is evicted first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum NextUse {
    /// By the queued task at this place, and by none before it.
    At(Place),
    /// By no task that is queued here; it has to be spilled.
    NoneOutput,
    /// By no task that is queued here; it can be dropped.
    NoneCopy,
}

/// Key in the order of eviction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Victim {
    pub(crate) next_use: NextUse,
    pub(crate) bytes: u64,
    pub(crate) partition: PartitionId,
}

/// What follows from the records; rebuilt and compared by `check`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Indexes {
    pub(crate) usage: Usage,
    /// Partitions that may leave a tier now: read by no running task, at rest, not empty.
    pub(crate) victims: ByTier<BTreeSet<Victim>>,
    pub(crate) progress: BTreeMap<Place, Progress>,
    pub(crate) retries: BTreeSet<(Time, PartitionId)>,
}

impl Indexes {
    pub(crate) fn enter(&mut self, id: PartitionId, record: &Record) {
        self.usage.add(record);
        if let Some((tier, victim)) = record.victim(id) {
            self.victims[tier].insert(victim);
        }
        if let State::Paused { until, .. } = record.state {
            self.retries.insert((until, id));
        }
        if record.is_readable() {
            return;
        }
        for (place, need) in &record.needs {
            let progress = self.progress.entry(*place).or_default();
            progress.missing += 1;
            if let Some(source) = record.source(need) {
                progress.wanted.entry(source).or_default().insert(id);
            }
        }
    }

    pub(crate) fn leave(&mut self, id: PartitionId, record: &Record) {
        self.usage.subtract(record);
        if let Some((tier, victim)) = record.victim(id) {
            self.victims[tier].remove(&victim);
        }
        if let State::Paused { until, .. } = record.state {
            self.retries.remove(&(until, id));
        }
        if record.is_readable() {
            return;
        }
        for (place, need) in &record.needs {
            let Some(progress) = self.progress.get_mut(place) else {
                continue;
            };
            progress.missing = progress.missing.saturating_sub(1);
            if let Some(source) = record.source(need)
                && let Some(wanted) = progress.wanted.get_mut(&source)
            {
                wanted.remove(&id);
                if wanted.is_empty() {
                    progress.wanted.remove(&source);
                }
            }
            if progress.missing == 0 {
                self.progress.remove(place);
            }
        }
    }
}
