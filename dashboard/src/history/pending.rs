//! What has happened and nobody was told yet. Where it is much, it is put together: tasks of one layer that ran one behind the other, partitions
//! that went the same way. Part of the history.

use std::collections::BTreeMap;
use std::sync::Arc;

use transload_protocol::{GraphId, PartitionId, TaskId, Tier, WorkerId};

use crate::view::{Assignment, Frame, Move, Note, Sample, Span, Transfer};
use crate::words;

/// More than so many of one kind in one frame are put together.
const MOST_AT_ONCE: usize = 2_000;
/// So many are put together before more of them is dropped: a viewer gets no more than it can draw.
const MOST_PENDING: usize = 65_536;
/// What is closer together than this looks as if there were nothing in between.
const GAP_MICROS: u64 = 1_000;

/// What nobody was told yet.
#[derive(Debug, Default)]
pub(super) struct Pending {
    assigned: BTreeMap<(WorkerId, GraphId, u32), u32>,
    ran: Vec<Ran>,
    carried: Vec<Carried>,
    shifted: Vec<Shifted>,
    notes: Vec<Note>,
    samples: Vec<Sample>,
}

/// A task that has run, or several.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) task: TaskId,
    pub(super) layer: u32,
    pub(super) worker: WorkerId,
    pub(super) lane: u32,
    pub(super) start_us: u64,
    pub(super) end_us: u64,
    pub(super) bytes: u64,
    pub(super) count: u32,
    pub(super) failed: Option<Box<str>>,
}

/// A partition that has come, or several.
#[derive(Debug)]
pub(super) struct Carried {
    pub(super) partition: PartitionId,
    pub(super) pair: (WorkerId, WorkerId),
    pub(super) start_us: u64,
    pub(super) end_us: u64,
    pub(super) bytes: u64,
    pub(super) count: u32,
    pub(super) transport: Arc<str>,
}

/// A partition that has changed tiers, or several.
#[derive(Debug)]
pub(super) struct Shifted {
    pub(super) worker: WorkerId,
    pub(super) tiers: (Tier, Tier),
    pub(super) start_us: u64,
    pub(super) end_us: u64,
    pub(super) bytes: u64,
    pub(super) count: u32,
}

impl Pending {
    pub(super) fn assigned(&mut self, to: (WorkerId, GraphId, u32), count: u32) {
        let sum = self.assigned.entry(to).or_default();
        *sum = sum.saturating_add(count);
    }

    pub(super) fn ran(&mut self, ran: Ran) {
        push(&mut self.ran, ran);
    }

    pub(super) fn carried(&mut self, carried: Carried) {
        push(&mut self.carried, carried);
    }

    pub(super) fn shifted(&mut self, shifted: Shifted) {
        push(&mut self.shifted, shifted);
    }

    pub(super) fn note(&mut self, note: Note) {
        push(&mut self.notes, note);
    }

    pub(super) fn sample(&mut self, sample: Sample) {
        push(&mut self.samples, sample);
    }

    /// All of it, as the lists of a frame.
    pub(super) fn flush(&mut self) -> Frame {
        let taken = std::mem::take(self);
        let assigned = taken.assigned.into_iter();
        let assignments = assigned.map(|((worker, graph, layer), count)| Assignment {
            worker: worker.to_string(),
            graph: graph.to_string(),
            layer,
            count,
        });
        Frame {
            assignments: assignments.collect(),
            spans: together(taken.ran).into_iter().map(span).collect(),
            transfers: together(taken.carried).into_iter().map(transfer).collect(),
            moves: together(taken.shifted).into_iter().map(shift).collect(),
            notes: taken.notes,
            memory: taken.samples,
            ..Frame::default()
        }
    }
}

/// Beyond the bound the new is dropped. What is older comes in the next frame, a tenth of a second later at most.
fn push<T>(all: &mut Vec<T>, new: T) {
    if all.len() < MOST_PENDING {
        all.push(new);
    }
}

/// What several of may be put together.
trait Joint {
    /// Only those alike in this are.
    type Key: Ord;
    fn key(&self) -> Self::Key;
    /// Takes in the other, which is alike; or gives it back, as it is too far away.
    fn join(&mut self, other: Self) -> Option<Self>
    where
        Self: Sized;
}

fn together<T: Joint>(all: Vec<T>) -> Vec<T> {
    if all.len() <= MOST_AT_ONCE {
        return all;
    }
    let mut last: BTreeMap<T::Key, usize> = BTreeMap::new();
    let mut joined: Vec<T> = Vec::new();
    for one in all {
        let key = one.key();
        let rest = match last.get(&key) {
            Some(at) => joined[*at].join(one),
            None => Some(one),
        };
        if let Some(one) = rest {
            last.insert(key, joined.len());
            joined.push(one);
        }
    }
    joined
}

impl Joint for Ran {
    type Key = (WorkerId, u32, GraphId, u32, bool);

    fn key(&self) -> Self::Key {
        let is_failed = self.failed.is_some();
        (
            self.worker,
            self.lane,
            self.task.graph,
            self.layer,
            is_failed,
        )
    }

    fn join(&mut self, other: Self) -> Option<Self> {
        if other.failed.is_some() || other.start_us > self.end_us.saturating_add(GAP_MICROS) {
            return Some(other);
        }
        self.start_us = self.start_us.min(other.start_us);
        self.end_us = self.end_us.max(other.end_us);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.count = self.count.saturating_add(other.count);
        None
    }
}

impl Joint for Carried {
    type Key = ((WorkerId, WorkerId), Arc<str>);

    fn key(&self) -> Self::Key {
        (self.pair, Arc::clone(&self.transport))
    }

    fn join(&mut self, other: Self) -> Option<Self> {
        self.start_us = self.start_us.min(other.start_us);
        self.end_us = self.end_us.max(other.end_us);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.count = self.count.saturating_add(other.count);
        None
    }
}

impl Joint for Shifted {
    type Key = (WorkerId, Tier, Tier);

    fn key(&self) -> Self::Key {
        (self.worker, self.tiers.0, self.tiers.1)
    }

    fn join(&mut self, other: Self) -> Option<Self> {
        self.start_us = self.start_us.min(other.start_us);
        self.end_us = self.end_us.max(other.end_us);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.count = self.count.saturating_add(other.count);
        None
    }
}

fn span(ran: Ran) -> Span {
    Span {
        task: ran.task.to_string(),
        graph: ran.task.graph.to_string(),
        layer: ran.layer,
        worker: ran.worker.to_string(),
        lane: ran.lane,
        start_us: ran.start_us,
        end_us: ran.end_us,
        bytes: ran.bytes,
        count: ran.count,
        failed: ran.failed.map(Into::into),
    }
}

fn transfer(carried: Carried) -> Transfer {
    let (from, to) = carried.pair;
    Transfer {
        partition: carried.partition.to_string(),
        from: from.to_string(),
        to: to.to_string(),
        start_us: carried.start_us,
        end_us: carried.end_us,
        bytes: carried.bytes,
        count: carried.count,
        way: words::way(&carried.transport),
        transport: words::cut(&carried.transport),
    }
}

fn shift(shifted: Shifted) -> Move {
    let (from, to) = shifted.tiers;
    Move {
        worker: shifted.worker.to_string(),
        from: words::tier(from).to_owned(),
        to: words::tier(to).to_owned(),
        start_us: shifted.start_us,
        end_us: shifted.end_us,
        bytes: shifted.bytes,
        count: shifted.count,
    }
}
