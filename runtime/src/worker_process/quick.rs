//! Maps whose keys are ids of tasks, layers and partitions: small numbers that are given out in order, by a scheduler that this
//! process trusts. A few instructions for each look-up instead of a keyed hash.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map over ids. Its order means nothing.
pub(super) type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// Multiplies and turns for each number.
#[derive(Default)]
pub(super) struct IdHasher(u64);

/// Odd, with its bits spread evenly.
const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        // The table looks at the highest and the lowest bits; the last number has reached the former alone.
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32((*byte).into());
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = (self.0.rotate_left(23) ^ u64::from(number)).wrapping_mul(FACTOR);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::hash::{BuildHasher, BuildHasherDefault};

    use transload_protocol::{ClientId, GraphId, PartitionId, TaskId};

    use super::*;

    #[test]
    fn neighbours_are_told_apart_in_the_bits_that_a_table_looks_at() {
        let hash = |sequence, index, output| {
            let client = ClientId(1);
            let graph = GraphId { client, sequence };
            let task = TaskId { graph, index };
            BuildHasherDefault::<IdHasher>::default().hash_one(PartitionId { task, output })
        };
        let mut low = BTreeSet::new();
        let mut high = BTreeSet::new();
        for sequence in 0..4 {
            for index in 0..1_000 {
                for output in 0..4 {
                    low.insert(hash(sequence, index, output) & 0xffff);
                    high.insert(hash(sequence, index, output) >> 57);
                }
            }
        }
        // 16,000 ids drawn by chance would take some 14,200 of 65,536 places.
        assert!(low.len() > 13_000, "{}", low.len());
        assert_eq!(high.len(), 128);
    }
}
