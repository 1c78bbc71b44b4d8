//! Workers with room, emptiest first.
//!
//! Kept by `worker`, read by whoever hands tasks out. Few workers of a busy cluster differ in fullness, so that they stand together by
//! it: one that changes moves from one set of bits to another. No set is empty.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::bits::BitSet;
use crate::slab::WorkerSlot;

/// Workers by fullness.
#[derive(Debug, Default)]
pub(crate) struct Open {
    by_fullness: BTreeMap<u32, BitSet>,
    /// Empty sets, to be used again.
    spare: Vec<BitSet>,
}

impl Open {
    /// Adds a worker.
    pub(crate) fn insert(&mut self, fullness: u32, worker: WorkerSlot) {
        let spare = &mut self.spare;
        let alike = self.by_fullness.entry(fullness);
        let alike = alike.or_insert_with(|| spare.pop().unwrap_or_default());
        alike.insert(worker.0);
    }

    /// Takes a worker out.
    pub(crate) fn remove(&mut self, fullness: u32, worker: WorkerSlot) {
        if let Entry::Occupied(mut alike) = self.by_fullness.entry(fullness) {
            alike.get_mut().remove(worker.0);
            if alike.get().is_empty() {
                self.spare.push(alike.remove());
            }
        }
    }

    /// The emptiest.
    pub(crate) fn first(&self) -> Option<(u32, WorkerSlot)> {
        let (fullness, alike) = self.by_fullness.first_key_value()?;
        alike
            .first_from(0)
            .map(|first| (*fullness, WorkerSlot(first)))
    }

    /// The first at or behind such a place.
    pub(crate) fn first_from(
        &self,
        (fullness, worker): (u32, WorkerSlot),
    ) -> Option<(u32, WorkerSlot)> {
        let mut sets = self.by_fullness.range(fullness..);
        sets.find_map(|(found, alike)| {
            let from = if *found == fullness { worker.0 } else { 0 };
            let first = alike.first_from(from)?;
            Some((*found, WorkerSlot(first)))
        })
    }

    /// All of them, emptiest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, WorkerSlot)> {
        self.by_fullness.iter().flat_map(|(fullness, alike)| {
            let slots = alike.iter().map(WorkerSlot);
            slots.map(|slot| (*fullness, slot))
        })
    }

    /// Those that are less full than that.
    pub(crate) fn below(&self, fullness: u32) -> impl Iterator<Item = WorkerSlot> {
        let all = self.iter().take_while(move |(found, _)| *found < fullness);
        all.map(|(_, worker)| worker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn workers_come_in_order(steps in proptest::collection::vec((any::<bool>(), 0_u32..40, 0_u32..50), 0..300)) {
            let mut open = Open::default();
            let mut model = BTreeSet::new();
            for (insert, fullness, worker) in steps {
                let entry = (fullness, WorkerSlot(worker));
                if insert {
                    open.insert(entry.0, entry.1);
                    model.insert(entry);
                } else {
                    open.remove(entry.0, entry.1);
                    model.remove(&entry);
                }
                prop_assert_eq!(open.first(), model.first().copied());
                prop_assert_eq!(open.first_from(entry), model.range(entry..).next().copied());
            }
            let below: Vec<WorkerSlot> = open.below(20).collect();
            let expected = model.iter().filter(|entry| entry.0 < 20);
            prop_assert_eq!(below, expected.map(|entry| entry.1).collect::<Vec<_>>());
            prop_assert_eq!(open.iter().collect::<Vec<_>>(), model.into_iter().collect::<Vec<_>>());
        }
    }
}
