//! Whether offsets of strings can be followed: a kernel that follows wrong ones reads and writes what is not its own.

use super::arguments::{Address, CheckStrings};
use super::launch::{Grid, OffsetWidth, Operator, Step, strided, zero};

/// Whether the offsets of all these columns begin with 0, rise, and end with the length of the bytes that they point into.
#[derive(Debug, Clone)]
pub struct CheckOffsets {
    /// The columns.
    pub columns: Vec<OffsetsOf>,
    /// Where a `u32` is written: 0 when they do.
    pub wrong: Address,
}

/// The offsets of a column of strings.
#[derive(Debug, Clone, Copy)]
pub struct OffsetsOf {
    /// Of each of them.
    pub width: OffsetWidth,
    /// One more than there are rows.
    pub offsets: Address,
    /// How many strings.
    pub rows: u64,
    /// Bytes of all strings.
    pub bytes: u64,
}

impl Operator for CheckOffsets {
    fn scratch_bytes(&self) -> u64 {
        0
    }

    fn steps(&self, _scratch: Address, grid: Grid) -> Vec<Step> {
        let check = |column: &OffsetsOf| {
            let arguments = CheckStrings {
                offsets: column.offsets,
                rows: column.rows,
                bytes: column.bytes,
                wrong: self.wrong,
            };
            let kernel = column.width.of("check_offsets_32", "check_offsets_64");
            strided(kernel, grid, column.rows + 1, &arguments)
        };
        let clear = zero(self.wrong, 4).into_iter();
        clear.chain(self.columns.iter().filter_map(check)).collect()
    }
}
