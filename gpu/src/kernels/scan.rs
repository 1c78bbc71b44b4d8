//! Exclusive prefix sums: the operator, and the steps that other operators put into theirs.

use super::arguments::{Address, ScanSums, ScanTiles};
use super::launch::{Grid, Operator, Step, launch, padded};

/// Items of a tile; `THREADS * EACH` in gpu/kernels/scan.cu.
const TILE_ITEMS: u64 = 1024;

/// Bits of what is summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SumWidth {
    /// `u32`; sums wrap around.
    Bits32,
    /// `u64`; sums wrap around.
    Bits64,
}

/// `output[i]` = the sum of `input[..i]`, for `i` up to and with `items`: the last is the sum of all.
#[derive(Debug, Clone)]
pub struct PrefixSum {
    /// Of input and output.
    pub width: SumWidth,
    /// The items.
    pub input: Address,
    /// How many; up to 2^31 tiles of 1024.
    pub items: u64,
    /// One more than there are items. May be where the input is.
    pub output: Address,
}

impl Operator for PrefixSum {
    fn scratch_bytes(&self) -> u64 {
        let tiles = tiles_of(self.items);
        if tiles == 1 {
            return 0;
        }
        let above = self.of_tiles(tiles, Address(0));
        padded((tiles + 1) * self.width.bytes()) + above.scratch_bytes()
    }

    fn steps(&self, scratch: Address, _grid: Grid) -> Vec<Step> {
        self.levels(scratch)
    }
}

impl PrefixSum {
    /// A launch for each level of tiles, and one more for the tiles of the last.
    fn levels(&self, scratch: Address) -> Vec<Step> {
        let tiles = tiles_of(self.items);
        // A device's grid has fewer than 2^31 blocks, and 2^31 tiles of offsets are 16 TiB.
        let blocks = tiles as u32;
        let mut steps = Vec::new();
        let mut carries = None;
        if tiles > 1 {
            let sums = ScanSums {
                input: self.input,
                items: self.items,
                sums: scratch,
            };
            let kernel = self.width.of("scan_sums_u32", "scan_sums_u64");
            steps.push(launch(kernel, blocks, &sums));
            let rest = scratch.plus(padded((tiles + 1) * self.width.bytes()));
            steps.extend(self.of_tiles(tiles, scratch).levels(rest));
            carries = Some(scratch);
        }
        let scan = ScanTiles {
            input: self.input,
            items: self.items,
            carries,
            output: self.output,
        };
        let kernel = self.width.of("scan_tiles_u32", "scan_tiles_u64");
        steps.push(launch(kernel, blocks, &scan));
        steps
    }

    /// The prefix sums of the tiles' sums, in place.
    fn of_tiles(&self, tiles: u64, sums: Address) -> Self {
        Self {
            width: self.width,
            input: sums,
            items: tiles,
            output: sums,
        }
    }
}

impl SumWidth {
    fn bytes(self) -> u64 {
        match self {
            Self::Bits32 => 4,
            Self::Bits64 => 8,
        }
    }

    fn of(self, narrow: &'static str, wide: &'static str) -> &'static str {
        match self {
            Self::Bits32 => narrow,
            Self::Bits64 => wide,
        }
    }
}

/// At least one, which writes the sum of nothing.
fn tiles_of(items: u64) -> u64 {
    items.div_ceil(TILE_ITEMS).max(1)
}
