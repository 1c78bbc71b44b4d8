//! Rows picked by number: of fixed width, of bits, and strings in two parts, between which the host learns how many bytes they take.

use super::arguments::{Address, Gather, GatherBytes, GatherLengths, GatherOfBits, Offsets};
use super::launch::{Grid, OffsetWidth, Operator, Step, WARP, Width, strided};
use super::scan::{PrefixSum, SumWidth};

/// `output[i] = input[indices[i]]`; zero where the index is null.
///
/// An index that is not null and not below the rows of the input is the caller's mistake: the device reads elsewhere, or faults. So for
/// all that gather.
#[derive(Debug, Clone)]
pub struct GatherFixed {
    /// Of the values.
    pub width: Width,
    /// The values.
    pub input: Address,
    /// Row numbers, `u32` or `i32`.
    pub indices: Address,
    /// Which indices are not null; absent when all are.
    pub indices_validity: Option<Address>,
    /// How many indices.
    pub rows: u64,
    /// Where the picked values go.
    pub output: Address,
}

impl Operator for GatherFixed {
    fn scratch_bytes(&self) -> u64 {
        0
    }

    fn steps(&self, _scratch: Address, grid: Grid) -> Vec<Step> {
        let kernel = match self.width {
            Width::One => "gather_1",
            Width::Two => "gather_2",
            Width::Four => "gather_4",
            Width::Eight => "gather_8",
            Width::Sixteen => "gather_16",
        };
        let gather = Gather {
            input: self.input,
            indices: self.indices,
            validity: self.indices_validity,
            rows: self.rows,
            output: self.output,
        };
        strided(kernel, grid, self.rows, &gather)
            .into_iter()
            .collect()
    }
}

/// The same of bits: booleans, and validities. Bits behind the last are zero, up to a whole word.
#[derive(Debug, Clone)]
pub struct GatherBits {
    /// The bitmap; absent when all its bits are one, as an absent validity says.
    pub input: Option<Address>,
    /// Row numbers, `u32` or `i32`.
    pub indices: Address,
    /// Which indices are not null; absent when all are.
    pub indices_validity: Option<Address>,
    /// How many indices.
    pub rows: u64,
    /// Where the picked bits go.
    pub output: Address,
}

impl Operator for GatherBits {
    fn scratch_bytes(&self) -> u64 {
        0
    }

    fn steps(&self, _scratch: Address, grid: Grid) -> Vec<Step> {
        let gather = GatherOfBits {
            input: self.input,
            indices: self.indices,
            validity: self.indices_validity,
            rows: self.rows,
            output: self.output,
        };
        let threads = self.rows.next_multiple_of(WARP);
        strided("gather_bits", grid, threads, &gather)
            .into_iter()
            .collect()
    }
}

/// The first part of picking strings: where each picked one begins among the bytes of all. The last number says how many bytes
/// there are; for offsets of 32 bits the caller makes sure that it is at most `i32::MAX`.
#[derive(Debug, Clone)]
pub struct GatherOffsets {
    /// Of `offsets`.
    pub width: OffsetWidth,
    /// Offsets of the strings to pick from.
    pub offsets: Address,
    /// Row numbers, `u32` or `i32`.
    pub indices: Address,
    /// Which indices are not null; absent when all are.
    pub indices_validity: Option<Address>,
    /// How many indices.
    pub rows: u64,
    /// `rows + 1` numbers of 64 bits, whatever the width.
    pub starts: Address,
}

impl GatherOffsets {
    fn scan(&self) -> PrefixSum {
        PrefixSum {
            width: SumWidth::Bits64,
            input: self.starts,
            items: self.rows,
            output: self.starts,
        }
    }
}

impl Operator for GatherOffsets {
    fn scratch_bytes(&self) -> u64 {
        self.scan().scratch_bytes()
    }

    fn steps(&self, scratch: Address, grid: Grid) -> Vec<Step> {
        let lengths = GatherLengths {
            offsets: self.offsets,
            indices: self.indices,
            validity: self.indices_validity,
            rows: self.rows,
            lengths: self.starts,
        };
        let kernel = self.width.of("gather_lengths_32", "gather_lengths_64");
        strided(kernel, grid, self.rows, &lengths)
            .into_iter()
            .chain(self.scan().steps(scratch, grid))
            .collect()
    }
}

/// The second part: the bytes, and the offsets that say where they lie. Of all rows that were given to the first part, or of some that
/// follow each other.
#[derive(Debug, Clone)]
pub struct GatherStrings {
    /// Of `offsets`, and of those that are made.
    pub width: OffsetWidth,
    /// Offsets of the strings to pick from.
    pub offsets: Address,
    /// Their bytes.
    pub bytes: Address,
    /// Row numbers, as given to the first part, from the first of these rows on.
    pub indices: Address,
    /// How many indices.
    pub rows: u64,
    /// What the first part made, from the number of the first of these rows on: at a multiple of 8.
    pub starts: Address,
    /// Where the bytes go: as many as are between the first and the last of the `rows + 1` numbers.
    pub output: Address,
    /// Where the offsets go, the first of which is 0.
    pub output_offsets: Address,
}

impl Operator for GatherStrings {
    fn scratch_bytes(&self) -> u64 {
        0
    }

    fn steps(&self, _scratch: Address, grid: Grid) -> Vec<Step> {
        let bytes = GatherBytes {
            offsets: self.offsets,
            bytes: self.bytes,
            indices: self.indices,
            rows: self.rows,
            starts: self.starts,
            output: self.output,
        };
        let offsets = Offsets {
            starts: self.starts,
            items: self.rows + 1,
            output: self.output_offsets,
        };
        let kernel = |narrow, wide| self.width.of(narrow, wide);
        let gather = kernel("gather_bytes_32", "gather_bytes_64");
        let place = kernel("offsets_32", "offsets_64");
        strided(gather, grid, self.rows * WARP, &bytes)
            .into_iter()
            .chain(strided(place, grid, self.rows + 1, &offsets))
            .collect()
    }
}
