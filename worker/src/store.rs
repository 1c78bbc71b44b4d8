//! Records of the partitions that are here, on their way here, or needed here, and the indexes over them.
//!
//! Called by the parts of `machine`. Every change of a record goes through [`Store::edit`], which keeps the accounting of
//! memory, the order of eviction and the progress of every queued task in step with it. Knows no policy.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use transload_protocol::{GraphId, Memory, PartitionId, TaskId, Tier, Time, WorkerId};

use crate::index::{Indexes, NextUse, Source, Victim};
use crate::memory::Usage;
use crate::tasks::Place;

/// Larger sizes are accounted as this much, so that no sum overflows: 256 TiB.
pub(crate) const MAX_PARTITION_BYTES: u64 = 1 << 48;

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// Its size in memory; expected while it is not here, known once it is.
    pub(crate) bytes: u64,
    /// Where it is read.
    pub(crate) memory: Memory,
    pub(crate) claim: Claim,
    pub(crate) state: State,
    /// Queued tasks that read it.
    pub(crate) needs: BTreeMap<Place, Need>,
}

/// Why a partition is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// A task made it here; kept until the scheduler releases it.
    Output,
    /// Fetched from its holder; dropped when no task here reads it any more.
    Copy,
    /// Fetched from its holder; kept until the scheduler releases it or memory is short.
    SharedCopy,
    /// Was an output. Dropped as soon as no running task reads it and no operation on it is in flight.
    Released,
}

/// Where a partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Not here, and may be asked for now.
    Absent {
        /// Fetches that failed since the last success.
        failed: u32,
    },
    /// Not here; a fetch failed a moment ago.
    Paused {
        /// As in `Absent`.
        failed: u32,
        /// When it may be asked for again.
        until: Time,
    },
    /// Asked for; the driver will answer.
    Fetching {
        /// From whom.
        from: WorkerId,
        /// As in `Absent`.
        failed: u32,
    },
    /// In the memory where it is read.
    Ready {
        /// Running tasks that read it.
        pins: u32,
    },
    /// In that memory, on its way down: to disk or, from a device, to page-locked memory or straight to disk; the driver will answer.
    Spilling {
        /// Where to.
        to: Tier,
    },
    /// In page-locked memory. Only what is read on a device.
    Pinned,
    /// In page-locked memory, on its way to disk; the driver will answer.
    Sinking,
    /// On disk.
    Disk {
        /// Size of its file.
        file_bytes: u64,
    },
    /// On disk, on its way to host memory or, if it is read on a device, to page-locked memory or straight there; the driver will answer.
    Loading {
        /// Size of its file.
        file_bytes: u64,
        /// Where to.
        to: Tier,
    },
    /// In page-locked memory, on its way to the device; the driver will answer.
    Rising,
}

/// Bytes that a partition occupies in one tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Occupied {
    pub(crate) tier: Tier,
    pub(crate) bytes: u64,
    /// They will be free when a move has ended.
    pub(crate) is_leaving: bool,
}

/// A kind of move, of which only so many are under way at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// A file is written or read.
    Disk,
    /// Between device and page-locked memory.
    Copy,
}

/// What one queued task knows of one of its inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Need {
    /// Who holds it, says the scheduler.
    pub(crate) from: WorkerId,
    /// Whether tasks elsewhere read it too.
    pub(crate) shared: bool,
}

/// All partitions that the machine knows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Store {
    records: BTreeMap<PartitionId, Record>,
    indexes: Indexes,
}

/// The tier that partitions are moved to when this one gets short.
pub(crate) fn below(tier: Tier) -> Tier {
    match tier {
        Tier::Device => Tier::PinnedHost,
        Tier::PinnedHost | Tier::Host | Tier::Disk => Tier::Disk,
    }
}

impl State {
    /// The edges of the state diagram.
    fn may_become(&self, next: &Self) -> bool {
        match self {
            // `Ready`: a task that ran here made it.
            Self::Absent { .. } => matches!(next, Self::Fetching { .. } | Self::Ready { .. }),
            Self::Paused { .. } => matches!(next, Self::Absent { .. } | Self::Ready { .. }),
            Self::Fetching { .. } => matches!(
                next,
                Self::Ready { .. } | Self::Pinned | Self::Absent { .. } | Self::Paused { .. }
            ),
            // `Absent`: dropped, but needed later.
            Self::Ready { pins } => match next {
                Self::Ready { .. } => true,
                Self::Spilling { .. } | Self::Absent { .. } => *pins == 0,
                _ => false,
            },
            Self::Spilling { .. } => {
                matches!(next, Self::Disk { .. } | Self::Pinned | Self::Ready { .. })
            }
            Self::Pinned => matches!(next, Self::Sinking | Self::Rising | Self::Absent { .. }),
            Self::Sinking => matches!(next, Self::Disk { .. } | Self::Pinned),
            Self::Disk { .. } => matches!(next, Self::Loading { .. } | Self::Absent { .. }),
            Self::Loading { .. } => {
                matches!(
                    next,
                    Self::Ready { .. } | Self::Pinned | Self::Disk { .. } | Self::Absent { .. }
                )
            }
            Self::Rising => matches!(next, Self::Ready { .. } | Self::Pinned),
        }
    }
}

impl Record {
    /// A queued task can read it now.
    pub(crate) fn is_readable(&self) -> bool {
        matches!(self.state, State::Ready { .. }) && self.claim != Claim::Released
    }

    /// The tier that it is in, if it is stored at all; of one that moves, the tier it leaves.
    pub(crate) fn tier(&self) -> Option<Tier> {
        match self.state {
            State::Absent { .. } | State::Paused { .. } | State::Fetching { .. } => None,
            State::Ready { .. } | State::Spilling { .. } => Some(self.memory.tier()),
            State::Pinned | State::Sinking | State::Rising => Some(Tier::PinnedHost),
            State::Disk { .. } | State::Loading { .. } => Some(Tier::Disk),
        }
    }

    /// What it occupies: where it is, or is to be fetched to, and, while it moves, where it goes to.
    pub(crate) fn occupied(&self) -> [Option<Occupied>; 2] {
        let (bytes, read_in) = (self.bytes, self.memory.tier());
        let at = |tier, bytes, is_leaving| {
            Some(Occupied {
                tier,
                bytes,
                is_leaving,
            })
        };
        match self.state {
            State::Absent { .. } | State::Paused { .. } => [None, None],
            State::Fetching { .. } | State::Ready { .. } => [at(read_in, bytes, false), None],
            State::Spilling { to } => [at(read_in, bytes, true), at(to, bytes, false)],
            State::Pinned => [at(Tier::PinnedHost, bytes, false), None],
            State::Sinking => [
                at(Tier::PinnedHost, bytes, true),
                at(Tier::Disk, bytes, false),
            ],
            State::Disk { file_bytes } => [at(Tier::Disk, file_bytes, false), None],
            State::Loading { file_bytes, to } => {
                [at(Tier::Disk, file_bytes, true), at(to, bytes, false)]
            }
            State::Rising => [
                at(Tier::PinnedHost, bytes, true),
                at(Tier::Device, bytes, false),
            ],
        }
    }

    /// The move that it is in.
    pub(crate) fn operation(&self) -> Option<Operation> {
        match self.state {
            State::Spilling {
                to: Tier::PinnedHost,
            }
            | State::Rising => Some(Operation::Copy),
            State::Spilling { .. } | State::Sinking | State::Loading { .. } => {
                Some(Operation::Disk)
            }
            State::Absent { .. }
            | State::Paused { .. }
            | State::Fetching { .. }
            | State::Ready { .. }
            | State::Pinned
            | State::Disk { .. } => None,
        }
    }

    /// It is on its way to the device.
    pub(crate) fn is_rising(&self) -> bool {
        match self.state {
            State::Rising => true,
            State::Loading { to, .. } => to == Tier::Device,
            _ => false,
        }
    }

    /// Where it is read to from disk, by what can be done on this machine.
    pub(crate) fn above_disk(&self, has_direct_storage: bool) -> Tier {
        match self.memory {
            Memory::Host => Tier::Host,
            Memory::Device if has_direct_storage => Tier::Device,
            Memory::Device => Tier::PinnedHost,
        }
    }

    /// Where `need` can have it from, if somebody has to ask for it first.
    pub(crate) fn source(&self, need: &Need) -> Option<Source> {
        match self.state {
            State::Absent { .. } => Some(Source::Peer(need.from)),
            State::Disk { .. } if self.claim != Claim::Released => Some(Source::Disk),
            State::Pinned if self.claim != Claim::Released => Some(Source::Pinned),
            State::Disk { .. }
            | State::Pinned
            | State::Paused { .. }
            | State::Fetching { .. }
            | State::Ready { .. }
            | State::Spilling { .. }
            | State::Sinking
            | State::Loading { .. }
            | State::Rising => None,
        }
    }

    /// Its place in the order in which partitions leave the tier where it is.
    pub(crate) fn victim(&self, partition: PartitionId) -> Option<(Tier, Victim)> {
        let tier = match self.state {
            State::Ready { pins: 0 } => self.memory.tier(),
            State::Pinned => Tier::PinnedHost,
            State::Ready { .. }
            | State::Absent { .. }
            | State::Paused { .. }
            | State::Fetching { .. }
            | State::Spilling { .. }
            | State::Sinking
            | State::Disk { .. }
            | State::Loading { .. }
            | State::Rising => return None,
        };
        if self.bytes == 0 {
            return None;
        }
        let next_use = match (self.needs.first_key_value(), self.claim) {
            (_, Claim::Released) => return None,
            (Some((place, _)), Claim::Output | Claim::Copy | Claim::SharedCopy) => {
                NextUse::At(*place)
            }
            (None, Claim::Output) => NextUse::NoneOutput,
            (None, Claim::Copy | Claim::SharedCopy) => NextUse::NoneCopy,
        };
        let victim = Victim {
            next_use,
            bytes: self.bytes,
            partition,
        };
        Some((tier, victim))
    }

    /// What a copy of it is to be, if it is fetched for those who need it now.
    pub(crate) fn claim_of_copy(&self) -> Claim {
        if self.needs.values().any(|need| need.shared) {
            Claim::SharedCopy
        } else {
            Claim::Copy
        }
    }
}

impl Store {
    pub(crate) fn get(&self, id: PartitionId) -> Option<&Record> {
        self.records.get(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (PartitionId, &Record)> {
        self.records.iter().map(|(id, record)| (*id, record))
    }

    pub(crate) fn indexes(&self) -> &Indexes {
        &self.indexes
    }

    pub(crate) fn usage(&self) -> &Usage {
        &self.indexes.usage
    }

    /// All inputs of the task at `place` are in memory.
    pub(crate) fn is_ready(&self, place: Place) -> bool {
        !self.indexes.progress.contains_key(&place)
    }

    /// Partitions of one task that have a record here.
    pub(crate) fn of_task(&self, task: TaskId) -> Vec<PartitionId> {
        let id = |output| PartitionId { task, output };
        self.keys_between(id(0), id(u32::MAX))
    }

    /// Whether any partition of a task has a record here.
    pub(crate) fn has_any_of(&self, task: TaskId) -> bool {
        let id = |output| PartitionId { task, output };
        self.records.range(id(0)..=id(u32::MAX)).next().is_some()
    }

    /// Partitions of one graph that have a record here.
    pub(crate) fn of_graph(&self, graph: GraphId) -> Vec<PartitionId> {
        let id = |index, output| PartitionId {
            task: TaskId { graph, index },
            output,
        };
        self.keys_between(id(0, 0), id(u32::MAX, u32::MAX))
    }

    fn keys_between(&self, first: PartitionId, last: PartitionId) -> Vec<PartitionId> {
        let range = self.records.range(first..=last);
        range.map(|(id, _)| *id).collect()
    }

    /// A task has made this partition in the memory where it works. A record that exists is of a queued task that expected it from
    /// elsewhere.
    pub(crate) fn add_output(&mut self, id: PartitionId, bytes: u64, memory: Memory) {
        let bytes = bytes.min(MAX_PARTITION_BYTES);
        let (claim, state) = (Claim::Output, State::Ready { pins: 0 });
        match self.records.entry(id) {
            Entry::Vacant(place) => {
                let record = Record {
                    bytes,
                    memory,
                    claim,
                    state,
                    needs: BTreeMap::new(),
                };
                self.indexes.enter(id, &record);
                place.insert(record);
            }
            Entry::Occupied(_) => {
                self.set_claim(id, claim);
                self.set_bytes(id, bytes);
                self.set_memory(id, memory);
                self.set_state(id, state);
            }
        }
    }

    /// Forgets a partition that is in memory and that nobody reads. Returns whether there was one such.
    pub(crate) fn take_idle(&mut self, id: PartitionId) -> bool {
        let Entry::Occupied(found) = self.records.entry(id) else {
            return false;
        };
        let record = found.get();
        let is_idle = record.state == State::Ready { pins: 0 } && record.needs.is_empty();
        if is_idle {
            self.indexes.leave(id, &found.remove());
        }
        is_idle
    }

    /// Forgets a record.
    pub(crate) fn remove(&mut self, id: PartitionId) {
        if let Some(record) = self.records.remove(&id) {
            self.indexes.leave(id, &record);
        }
    }

    /// The only way to change a record: its share in every index is taken out before and put back after.
    fn edit(&mut self, id: PartitionId, change: impl FnOnce(&mut Record)) {
        if let Some(record) = self.records.get_mut(&id) {
            self.indexes.leave(id, record);
            change(record);
            self.indexes.enter(id, record);
        }
    }

    /// The one function that changes the state of a partition.
    pub(crate) fn set_state(&mut self, id: PartitionId, next: State) {
        self.edit(id, |record| {
            debug_assert!(
                record.state.may_become(&next),
                "{id}: {:?} -> {next:?}",
                record.state
            );
            record.state = next;
        });
    }

    pub(crate) fn set_claim(&mut self, id: PartitionId, claim: Claim) {
        self.edit(id, |record| record.claim = claim);
    }

    pub(crate) fn set_bytes(&mut self, id: PartitionId, bytes: u64) {
        self.edit(id, |record| record.bytes = bytes.min(MAX_PARTITION_BYTES));
    }

    pub(crate) fn set_memory(&mut self, id: PartitionId, memory: Memory) {
        self.edit(id, |record| record.memory = memory);
    }

    /// A queued task reads it. Makes a record where there is none, of a partition of that size that is read in that memory.
    pub(crate) fn add_need(
        &mut self,
        id: PartitionId,
        place: Place,
        need: Need,
        (bytes, memory): (u64, Memory),
    ) {
        if !self.records.contains_key(&id) {
            let record = Record {
                bytes: bytes.min(MAX_PARTITION_BYTES),
                memory,
                claim: Claim::Copy,
                state: State::Absent { failed: 0 },
                needs: BTreeMap::new(),
            };
            self.indexes.enter(id, &record);
            self.records.insert(id, record);
        }
        self.edit(id, |record| {
            record.needs.insert(place, need);
            record.claim = match record.claim {
                Claim::Copy if need.shared => Claim::SharedCopy,
                claim @ (Claim::Copy | Claim::SharedCopy | Claim::Output | Claim::Released) => {
                    claim
                }
            };
        });
    }

    pub(crate) fn remove_need(&mut self, id: PartitionId, place: Place) {
        self.edit(id, |record| {
            record.needs.remove(&place);
        });
    }

    /// One more running task reads it.
    pub(crate) fn pin(&mut self, id: PartitionId) {
        if let Some(State::Ready { pins }) = self.get(id).map(|record| record.state) {
            self.set_state(id, State::Ready { pins: pins + 1 });
        }
    }

    /// One running task fewer reads it.
    pub(crate) fn unpin(&mut self, id: PartitionId) {
        if let Some(State::Ready { pins }) = self.get(id).map(|record| record.state) {
            let pins = pins.saturating_sub(1);
            self.set_state(id, State::Ready { pins });
        }
    }

    /// The indexes as they follow from the records alone.
    pub(crate) fn rebuilt_indexes(&self) -> Indexes {
        let mut indexes = Indexes::default();
        for (id, record) in &self.records {
            indexes.enter(*id, record);
        }
        indexes
    }
}
