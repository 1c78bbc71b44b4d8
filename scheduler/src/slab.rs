//! Records in one vector, found by a 32-bit slot that is used again after its record is gone.
//!
//! Holds graphs and workers for the machine. Knows nothing of either.

use std::marker::PhantomData;
use std::ops::{Index, IndexMut};

/// A place in a [`Slab`]; one type per kind of record, so that they cannot be mixed up.
pub(crate) trait Slot: Copy {
    /// The slot at this position.
    fn from_index(index: u32) -> Self;
    /// Its position.
    fn index(self) -> usize;
}

macro_rules! slot {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) struct $name(pub(crate) u32);

        impl Slot for $name {
            fn from_index(index: u32) -> Self {
                Self(index)
            }

            fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}

slot! {
    /// A graph that the scheduler knows now.
    GraphSlot
}
slot! {
    /// A worker that is in the cluster now.
    WorkerSlot
}

slot! {
    /// The share of a client that has graphs now.
    ShareSlot
}

/// A task of a known graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TaskAt {
    /// Its graph.
    pub(crate) graph: GraphSlot,
    /// Its index in the graph.
    pub(crate) index: u32,
}

/// The records.
#[derive(Debug)]
pub(crate) struct Slab<S, T> {
    entries: Vec<Option<T>>,
    free: Vec<u32>,
    slot: PhantomData<S>,
}

impl<S: Slot, T> Slab<S, T> {
    pub(crate) fn new() -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            slot: PhantomData,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The slot that the next [`Slab::insert`] will use.
    pub(crate) fn next_slot(&self) -> S {
        S::from_index(
            self.free
                .last()
                .copied()
                .unwrap_or_else(|| u32::try_from(self.entries.len()).unwrap_or(u32::MAX)),
        )
    }

    pub(crate) fn insert(&mut self, value: T) -> S {
        let slot = self.next_slot();
        if self.free.pop().is_none() {
            self.entries.push(None);
        }
        self.entries[slot.index()] = Some(value);
        slot
    }

    pub(crate) fn remove(&mut self, slot: S) -> Option<T> {
        let value = self.entries.get_mut(slot.index())?.take()?;
        self.free.push(u32::try_from(slot.index()).ok()?);
        Some(value)
    }

    #[inline]
    pub(crate) fn get(&self, slot: S) -> Option<&T> {
        self.entries.get(slot.index())?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, slot: S) -> Option<&mut T> {
        self.entries.get_mut(slot.index())?.as_mut()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (S, &T)> {
        (0_u32..)
            .zip(&self.entries)
            .filter_map(|(index, entry)| Some((S::from_index(index), entry.as_ref()?)))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (S, &mut T)> {
        (0_u32..)
            .zip(&mut self.entries)
            .filter_map(|(index, entry)| Some((S::from_index(index), entry.as_mut()?)))
    }
}

impl<S: Slot, T> Index<S> for Slab<S, T> {
    type Output = T;

    #[expect(
        clippy::expect_used,
        reason = "slots are kept only while their record lives; Scheduler::check proves it"
    )]
    #[inline]
    fn index(&self, slot: S) -> &T {
        self.entries[slot.index()].as_ref().expect("a live slot")
    }
}

impl<S: Slot, T> IndexMut<S> for Slab<S, T> {
    #[expect(
        clippy::expect_used,
        reason = "slots are kept only while their record lives; Scheduler::check proves it"
    )]
    #[inline]
    fn index_mut(&mut self, slot: S) -> &mut T {
        self.entries[slot.index()].as_mut().expect("a live slot")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_slot_is_used_again_and_its_neighbours_stay() {
        let mut slab: Slab<WorkerSlot, &str> = Slab::new();
        let a = slab.insert("a");
        let b = slab.insert("b");
        assert_eq!(slab.remove(a), Some("a"));
        assert_eq!(slab.remove(a), None);
        assert_eq!(slab.next_slot(), a);
        assert_eq!(slab.insert("c"), a);
        assert_eq!((slab[a], slab[b], slab.len()), ("c", "b", 2));
    }
}
