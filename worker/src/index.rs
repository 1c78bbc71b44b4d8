//! What follows from the records of `store` and is asked for often: usage, order of eviction, progress of queued tasks.

use std::collections::{BTreeMap, BTreeSet};

use transload_protocol::{PartitionId, Time, WorkerId};

use crate::memory::Usage;
use crate::store::{Record, State};
use crate::tasks::Place;

/// Where a wanted partition can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    Disk,
    Peer(WorkerId),
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
    /// Partitions that may be evicted now: in memory, unpinned, not empty.
    pub(crate) victims: BTreeSet<Victim>,
    pub(crate) progress: BTreeMap<Place, Progress>,
    pub(crate) retries: BTreeSet<(Time, PartitionId)>,
}

impl Indexes {
    pub(crate) fn enter(&mut self, id: PartitionId, record: &Record) {
        self.usage.add(record);
        self.victims.extend(record.victim(id));
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
        if let Some(victim) = record.victim(id) {
            self.victims.remove(&victim);
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
