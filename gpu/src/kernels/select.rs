//! Filters: a mask becomes the numbers of the rows that it keeps, with which columns are gathered.

use super::arguments::{Address, BitsSum, MaskCounts, MaskIndices};
use super::launch::{Grid, Operator, Step, WARP, copy, padded, strided, zero};
use super::scan::{PrefixSum, SumWidth};

/// The numbers of the rows where a boolean column is true, in order. Null counts as false.
#[derive(Debug, Clone)]
pub struct SelectRows {
    /// The column's values, as a bitmap.
    pub mask: Address,
    /// Its validity; absent when there are no nulls.
    pub mask_validity: Option<Address>,
    /// Rows of the mask.
    pub rows: u32,
    /// Where the numbers go, as `u32`: there must be room for `rows` of them.
    pub indices: Address,
    /// Where it is written how many there are, as `u32`.
    pub selected: Address,
}

impl SelectRows {
    fn words(&self) -> u64 {
        u64::from(self.rows).div_ceil(WARP)
    }

    fn starts_bytes(&self) -> u64 {
        padded((self.words() + 1) * 4)
    }

    /// Where the rows of each word begin, in place of their counts.
    fn scan(&self, starts: Address) -> PrefixSum {
        PrefixSum {
            width: SumWidth::Bits32,
            input: starts,
            items: self.words(),
            output: starts,
        }
    }
}

impl Operator for SelectRows {
    fn scratch_bytes(&self) -> u64 {
        self.starts_bytes() + self.scan(Address(0)).scratch_bytes()
    }

    fn steps(&self, scratch: Address, grid: Grid) -> Vec<Step> {
        let rows = u64::from(self.rows);
        let counts = MaskCounts {
            mask: self.mask,
            validity: self.mask_validity,
            rows,
            counts: scratch,
        };
        let indices = MaskIndices {
            mask: self.mask,
            validity: self.mask_validity,
            rows,
            starts: scratch,
            indices: self.indices,
        };
        let rest = scratch.plus(self.starts_bytes());
        let mut steps = Vec::new();
        steps.extend(strided("mask_counts", grid, self.words(), &counts));
        steps.extend(self.scan(scratch).steps(rest, grid));
        let total = scratch.plus(self.words() * 4);
        steps.extend(copy(total, self.selected, 4));
        steps.extend(strided("mask_indices", grid, self.words() * WARP, &indices));
        steps
    }
}

/// How many ones there are among the first `bits` of a bitmap.
#[derive(Debug, Clone)]
pub struct CountOnes {
    /// The bitmap.
    pub input: Address,
    /// Its length.
    pub bits: u64,
    /// Where the number goes, as `u64`.
    pub ones: Address,
}

impl Operator for CountOnes {
    fn scratch_bytes(&self) -> u64 {
        0
    }

    fn steps(&self, _scratch: Address, grid: Grid) -> Vec<Step> {
        let sum = BitsSum {
            words: self.input,
            bits: self.bits,
            total: self.ones,
        };
        let words = self.bits.div_ceil(WARP);
        let clear = zero(self.ones, 8);
        clear
            .into_iter()
            .chain(strided("bits_sum", grid, words, &sum))
            .collect()
    }
}
