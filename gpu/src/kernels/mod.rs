//! The first operators on columns in device memory, as data: which kernels are launched with what, and which bytes are copied and
//! cleared before and after. Called by whoever executes that on a stream, and by tests that do so on the PTX interpreter.
//!
//! Columns are laid out as Arrow has them, in buffers that begin at multiples of 64 bytes and reach to one. Bits are read and written
//! as whole words of 32, so what lies behind the last bit of a bitmap is read and ignored, and is zero in what is written; nothing else
//! behind a length is touched. Knows no driver: an [`Address`] is a number here.

mod append;
mod arguments;
mod check;
mod checksum;
mod gather;
mod hash;
mod launch;
mod offsets;
mod partition;
mod ptx;
mod row_hash;
mod scan;
mod select;

pub use append::{ConcatBits, ConcatFixed, ConcatKeys, ConcatOffsets, OffsetsPart};
pub use arguments::{Address, Parameters};
pub use check::{KernelModule, SignatureError, modules};
pub use checksum::{Checksum, checksum_of};
pub use gather::{GatherBits, GatherFixed, GatherOffsets, GatherStrings};
pub use hash::{
    NULL_HASH, canonical_f16, canonical_f32, canonical_f64, combined, hash_of, hash_of_bytes,
    hash_of_wide, partition_of,
};
pub use launch::{Grid, KeyWidth, Launch, OffsetWidth, Operator, Step, Width};
pub use offsets::{CheckOffsets, OffsetsOf};
pub use partition::PartitionOrder;
pub use row_hash::{FloatWidth, HashRows, Key, KeyValues};
pub use scan::{PrefixSum, SumWidth};
pub use select::{CountOnes, SelectRows};
