//! The order of rows by partition: with it, each partition's rows are gathered from every column.

use std::num::NonZeroU32;

use super::arguments::{Address, PartitionCounts, PartitionIndices, PartitionStarts};
use super::launch::{Grid, Operator, Step, WARP, padded, strided, zero};
use super::scan::{PrefixSum, SumWidth};

/// Rows that a warp counts by itself, at least.
const LEAST_TILE_ROWS: u32 = 1024;
/// And at most.
const MOST_TILE_ROWS: u32 = 1 << 20;

/// Row numbers ordered by [`partition_of`](super::partition_of) of their hashes; those of one partition in the order of the rows.
#[derive(Debug, Clone)]
pub struct PartitionOrder {
    /// What [`HashRows`](super::HashRows) made.
    pub hashes: Address,
    /// How many.
    pub rows: u32,
    /// How many partitions; some may get no row.
    pub partitions: NonZeroU32,
    /// Where it is written where each partition begins among the row numbers: one `u32` for each partition, and one more, which is the
    /// number of rows.
    pub firsts: Address,
    /// Where the row numbers go, as `u32`.
    pub indices: Address,
}

impl PartitionOrder {
    /// A table of counts has at most about as many as there are rows, or few.
    fn tile_rows(&self) -> u32 {
        self.partitions
            .get()
            .clamp(LEAST_TILE_ROWS, MOST_TILE_ROWS)
            .next_multiple_of(WARP as u32)
    }

    fn tiles(&self) -> u64 {
        u64::from(self.rows.div_ceil(self.tile_rows()).max(1))
    }

    fn counts(&self) -> u64 {
        u64::from(self.partitions.get()) * self.tiles()
    }

    fn counts_bytes(&self) -> u64 {
        padded((self.counts() + 1) * 4)
    }

    fn scan(&self, counts: Address) -> PrefixSum {
        PrefixSum {
            width: SumWidth::Bits32,
            input: counts,
            items: self.counts(),
            output: counts,
        }
    }
}

impl Operator for PartitionOrder {
    fn scratch_bytes(&self) -> u64 {
        self.counts_bytes() + self.scan(Address(0)).scratch_bytes()
    }

    fn steps(&self, scratch: Address, grid: Grid) -> Vec<Step> {
        let (hashes, rows, partitions) = (self.hashes, u64::from(self.rows), self.partitions.get());
        let (tile_rows, tiles) = (self.tile_rows(), self.tiles());
        let counts = PartitionCounts {
            hashes,
            rows,
            partitions,
            tile_rows,
            tiles,
            counts: scratch,
        };
        let starts = PartitionStarts {
            starts: scratch,
            tiles,
            partitions,
            firsts: self.firsts,
        };
        let indices = PartitionIndices {
            hashes,
            rows,
            partitions,
            tile_rows,
            tiles,
            starts: scratch,
            indices: self.indices,
        };
        let warps = if self.rows == 0 { 0 } else { tiles * WARP };
        let rest = scratch.plus(self.counts_bytes());
        let mut steps: Vec<Step> = zero(scratch, self.counts() * 4).into_iter().collect();
        steps.extend(strided("partition_counts", grid, warps, &counts));
        steps.extend(self.scan(scratch).steps(rest, grid));
        let ends = u64::from(partitions) + 1;
        steps.extend(strided("partition_starts", grid, ends, &starts));
        steps.extend(strided("partition_indices", grid, warps, &indices));
        steps
    }
}
