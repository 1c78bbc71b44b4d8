//! Columns put behind each other. Values of a fixed width and the bytes of strings are copied; bitmaps are shifted; offsets and keys of
//! dictionaries get something added.

use super::arguments::{Address, Append, BitsAppend};
use super::launch::{Grid, KeyWidth, OffsetWidth, Operator, Step, WARP, copy, strided, zero};

/// Bytes behind each other: values of a fixed width, or what offsets point into.
#[derive(Debug, Clone)]
pub struct ConcatFixed {
    /// Where each column's values begin, and how many bytes they are.
    pub inputs: Vec<(Address, u64)>,
    /// Where all go.
    pub output: Address,
}

impl Operator for ConcatFixed {
    fn scratch_bytes(&self) -> u64 {
        0
    }

    fn steps(&self, _scratch: Address, _grid: Grid) -> Vec<Step> {
        let mut to = self.output;
        let mut steps = Vec::new();
        for (from, bytes) in &self.inputs {
            steps.extend(copy(*from, to, *bytes));
            to = to.plus(*bytes);
        }
        steps
    }
}

/// Bitmaps behind each other. Bits behind the last are zero, up to a whole word.
#[derive(Debug, Clone)]
pub struct ConcatBits {
    /// Each bitmap and its length in bits; an absent one is all ones, as an absent validity says.
    pub inputs: Vec<(Option<Address>, u64)>,
    /// Where all go.
    pub output: Address,
}

impl Operator for ConcatBits {
    fn scratch_bytes(&self) -> u64 {
        0
    }

    fn steps(&self, _scratch: Address, grid: Grid) -> Vec<Step> {
        let mut at = 0;
        let mut steps = Vec::new();
        for (input, bits) in &self.inputs {
            let append = BitsAppend {
                input: *input,
                bits: *bits,
                at,
                output: self.output,
            };
            // Nothing to append writes nothing.
            let first = at / WARP;
            let words = (at + bits).div_ceil(WARP) - first;
            if *bits > 0 {
                steps.extend(strided("bits_append", grid, words, &append));
            }
            at += bits;
        }
        steps
    }
}

/// A column of strings among those of a concat.
#[derive(Debug, Clone, Copy)]
pub struct OffsetsPart {
    /// One more than there are rows; may be anything when there are none.
    pub offsets: Address,
    /// How many.
    pub rows: u64,
    /// The first offset; 0 where the column is not a slice.
    pub first: u64,
    /// From the first offset to the last.
    pub bytes: u64,
}

/// Offsets of strings whose bytes are put behind each other, each column's from its first offset to its last.
#[derive(Debug, Clone)]
pub struct ConcatOffsets {
    /// Of all offsets. For those of 32 bits, the caller makes sure that all bytes together are at most `i32::MAX`.
    pub width: OffsetWidth,
    /// The columns.
    pub inputs: Vec<OffsetsPart>,
    /// Where the offsets go: one more than there are rows.
    pub output: Address,
}

impl Operator for ConcatOffsets {
    fn scratch_bytes(&self) -> u64 {
        0
    }

    fn steps(&self, _scratch: Address, grid: Grid) -> Vec<Step> {
        let kernel = self.width.of("append_4", "append_8");
        // The offset before all rows, also when there are none. Each column writes one more than it has rows, which the next one
        // writes again.
        let mut steps: Vec<Step> = zero(self.output, self.width.bytes()).into_iter().collect();
        let (mut at, mut start) = (0, 0u64);
        for part in self.inputs.iter().filter(|part| part.rows > 0) {
            let append = Append {
                input: part.offsets,
                items: part.rows + 1,
                added: start.wrapping_sub(part.first),
                at,
                output: self.output,
            };
            steps.extend(strided(kernel, grid, part.rows + 1, &append));
            at += part.rows;
            start += part.bytes;
        }
        steps
    }
}

/// Keys of dictionaries that are put behind each other, or of one that all share.
#[derive(Debug, Clone)]
pub struct ConcatKeys {
    /// Of a key.
    pub width: KeyWidth,
    /// Each column's keys, how many, and the entries of dictionaries before its own: 0 when all share one. The caller makes sure that
    /// the last entry's number fits a key; keys of null rows wrap around.
    pub inputs: Vec<(Address, u64, u64)>,
    /// Where the keys go.
    pub output: Address,
}

impl Operator for ConcatKeys {
    fn scratch_bytes(&self) -> u64 {
        0
    }

    fn steps(&self, _scratch: Address, grid: Grid) -> Vec<Step> {
        let kernel = match self.width {
            KeyWidth::One => "append_1",
            KeyWidth::Two => "append_2",
            KeyWidth::Four => "append_4",
            KeyWidth::Eight => "append_8",
        };
        let mut at = 0;
        let mut steps = Vec::new();
        for (input, rows, added) in &self.inputs {
            let append = Append {
                input: *input,
                items: *rows,
                added: *added,
                at,
                output: self.output,
            };
            steps.extend(strided(kernel, grid, *rows, &append));
            at += rows;
        }
        steps
    }
}
