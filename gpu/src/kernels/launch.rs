//! What an operator asks of a stream: steps, one after the other. Called by the operators, and by whoever executes the steps.

use super::arguments::{Address, Arguments, Parameters};

/// Threads of a block, of every kernel; `.maxntid` in the PTX says the same.
pub(super) const THREADS: u32 = 256;
/// Threads of a warp.
pub(super) const WARP: u64 = 32;

/// One thing for a stream to do, after the one before it has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A kernel.
    Launch(Launch),
    /// Sets `bytes` bytes to zero.
    Zero {
        /// The first of them.
        at: Address,
        /// At least one.
        bytes: u64,
    },
    /// Copies `bytes` bytes within the device. They do not overlap.
    Copy {
        /// The first byte to read; of any alignment.
        from: Address,
        /// The first byte to write; of any alignment.
        to: Address,
        /// At least one.
        bytes: u64,
    },
}

/// A launch of a kernel of one of the [`modules`](super::modules), in one dimension and without dynamic shared memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The kernel.
    pub kernel: &'static str,
    /// Blocks of the grid; at least one.
    pub blocks: u32,
    /// Threads of each block.
    pub threads: u32,
    /// What it is given.
    pub parameters: Parameters,
}

/// How wide a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// Most blocks of a launch whose threads go through the rows in strides: several for each multiprocessor, so that all are busy,
    /// and no more, so that starting them costs little. At least one is taken. Prefix sums take as many blocks as they have tiles.
    pub most_blocks: u32,
}

/// Something to be done with columns on a device.
///
/// Addresses are at multiples of 64 bytes, but for indices, of which 4 suffice.
pub trait Operator {
    /// Bytes of device memory that the steps need beside what they are given, only until they have ended.
    fn scratch_bytes(&self) -> u64;

    /// What is to be done, in order. Nothing of `scratch` needs to be set.
    fn steps(&self, scratch: Address, grid: Grid) -> Vec<Step>;
}

/// Bytes of a value of a fixed width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// 8 bits.
    One,
    /// 16 bits.
    Two,
    /// 32 bits.
    Four,
    /// 64 bits.
    Eight,
    /// 128 bits.
    Sixteen,
}

impl Width {
    /// The width of values of this many bytes, if kernels know it.
    pub fn of(bytes: u64) -> Option<Self> {
        match bytes {
            1 => Some(Self::One),
            2 => Some(Self::Two),
            4 => Some(Self::Four),
            8 => Some(Self::Eight),
            16 => Some(Self::Sixteen),
            _ => None,
        }
    }

    /// In bytes.
    pub fn bytes(self) -> u64 {
        match self {
            Self::One => 1,
            Self::Two => 2,
            Self::Four => 4,
            Self::Eight => 8,
            Self::Sixteen => 16,
        }
    }
}

/// Bytes of a key of a dictionary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyWidth {
    /// 8 bits.
    One,
    /// 16 bits.
    Two,
    /// 32 bits.
    Four,
    /// 64 bits.
    Eight,
}

impl KeyWidth {
    /// Most entries of a dictionary with such keys, which may have a sign.
    pub fn most_entries(self) -> u64 {
        match self {
            Self::One => 1 << 7,
            Self::Two => 1 << 15,
            Self::Four => 1 << 31,
            Self::Eight => 1 << 63,
        }
    }
}

impl From<KeyWidth> for Width {
    fn from(width: KeyWidth) -> Self {
        match width {
            KeyWidth::One => Self::One,
            KeyWidth::Two => Self::Two,
            KeyWidth::Four => Self::Four,
            KeyWidth::Eight => Self::Eight,
        }
    }
}

/// Bits of the offsets of strings and binaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetWidth {
    /// `Utf8` and `Binary`.
    Bits32,
    /// `LargeUtf8` and `LargeBinary`.
    Bits64,
}

impl OffsetWidth {
    /// In bytes.
    pub fn bytes(self) -> u64 {
        match self {
            Self::Bits32 => 4,
            Self::Bits64 => 8,
        }
    }

    /// The one of two kernels that is for this width.
    pub(super) fn of(self, narrow: &'static str, wide: &'static str) -> &'static str {
        match self {
            Self::Bits32 => narrow,
            Self::Bits64 => wide,
        }
    }
}

/// A launch of exactly these blocks.
pub(super) fn launch<A: Arguments>(kernel: &'static str, blocks: u32, arguments: &A) -> Step {
    debug_assert!(
        A::KERNELS.contains(&kernel),
        "{kernel} takes something else"
    );
    Step::Launch(Launch {
        kernel,
        blocks,
        threads: THREADS,
        parameters: arguments.parameters(),
    })
}

/// A launch with a thread for each item, as far as the grid reaches; none when there are no items.
pub(super) fn strided<A: Arguments>(
    kernel: &'static str,
    grid: Grid,
    items: u64,
    arguments: &A,
) -> Option<Step> {
    let wanted = items.div_ceil(u64::from(THREADS));
    let blocks = wanted.min(u64::from(grid.most_blocks.max(1)));
    // At most `most_blocks`, which is one of 32 bits.
    (blocks > 0).then(|| launch(kernel, blocks as u32, arguments))
}

/// Clears; none when there is nothing to clear.
pub(super) fn zero(at: Address, bytes: u64) -> Option<Step> {
    (bytes > 0).then_some(Step::Zero { at, bytes })
}

/// Copies; none when there is nothing to copy.
pub(super) fn copy(from: Address, to: Address, bytes: u64) -> Option<Step> {
    (bytes > 0).then_some(Step::Copy { from, to, bytes })
}

/// So many bytes, up to where another buffer may begin.
pub(super) fn padded(bytes: u64) -> u64 {
    bytes.next_multiple_of(crate::ALIGNMENT_BYTES as u64)
}
