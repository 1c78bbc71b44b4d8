//! Sizes and places of many partitions in little space: what a scheduler keeps of them, and tells workers.
//!
//! A shuffle of `m x r` partitions is described by `m` records, whatever `r` is.

use serde::{Deserialize, Serialize};

use crate::{Blob, WorkerId};

/// Sizes of the outputs of one task: their number, their sum and the largest, in bytes. Enough to place readers and to
/// reserve memory, and the same few bytes for one output as for thousands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OutputSizes {
    /// How many outputs.
    pub outputs: u32,
    /// Bytes of all of them.
    pub total_bytes: u64,
    /// Bytes of the largest.
    pub largest_bytes: u64,
    /// Rows of all of them, for people; 0 where the operator does not count.
    pub rows: u64,
}

impl OutputSizes {
    /// Of outputs with these sizes, in bytes.
    pub fn of(bytes: &[u64]) -> Self {
        Self {
            outputs: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            total_bytes: bytes
                .iter()
                .fold(0, |sum, bytes| sum.saturating_add(*bytes)),
            largest_bytes: bytes.iter().copied().max().unwrap_or(0),
            rows: 0,
        }
    }
}

/// Bytes of one entry: a worker and a size.
const ENTRY_BYTES: usize = 12;

/// For each task of a layer, who holds its outputs, and how many bytes the largest of them has. Packed, and cheap to clone, so that
/// the same table can go to a thousand workers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SourceTable(Blob);

impl FromIterator<(WorkerId, u64)> for SourceTable {
    fn from_iter<I: IntoIterator<Item = (WorkerId, u64)>>(entries: I) -> Self {
        let entries = entries.into_iter();
        let mut bytes = Vec::with_capacity(entries.size_hint().0 * ENTRY_BYTES);
        for (worker, size) in entries {
            bytes.extend_from_slice(&worker.0.to_le_bytes());
            bytes.extend_from_slice(&size.to_le_bytes());
        }
        Self(bytes.into())
    }
}

impl SourceTable {
    /// Number of tasks. What a peer may have sent beyond the last whole entry does not count.
    pub fn len(&self) -> usize {
        self.0.0.len() / ENTRY_BYTES
    }

    /// Whether it has no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Holder and bytes of the largest output, by position of the task in its layer.
    pub fn iter(&self) -> impl Iterator<Item = (WorkerId, u64)> {
        self.0.0.chunks_exact(ENTRY_BYTES).filter_map(|entry| {
            let (worker, size) = entry.split_first_chunk::<4>()?;
            let size = size.first_chunk::<8>()?;
            Some((
                WorkerId(u32::from_le_bytes(*worker)),
                u64::from_le_bytes(*size),
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_gives_back_what_was_put_in() {
        let entries = [(WorkerId(7), 1), (WorkerId(u32::MAX), u64::MAX)];
        let table: SourceTable = entries.into_iter().collect();
        assert_eq!(table.len(), 2);
        assert!(table.iter().eq(entries));
        assert!(SourceTable::default().is_empty());
    }

    #[test]
    fn a_torn_entry_of_a_peer_is_not_read() {
        let table = SourceTable(vec![0; ENTRY_BYTES + 5].into());
        assert_eq!((table.len(), table.iter().count()), (1, 1));
    }
}
