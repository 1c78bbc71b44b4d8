//! Memory of GPUs, page-locked memory beside it, and the moves between them and disk. Called by workers that have a GPU; knows bytes and
//! streams, never what the bytes mean.
//!
//! What is under way owns what it reads and writes until the driver has said that it ended ([`Stream::submit`]); so memory that is dropped
//! is idle, and can be given to the next at once, whatever stream asks.

mod block;
mod claim;
mod columns;
mod compute;
mod context;
mod copies;
mod cufile;
mod direct;
mod disk;
mod error;
mod jobs;
mod landing;
mod memory;
mod module;
mod partition;
mod pinned;
mod ranges;
mod staging;
mod stream;
mod tiered;
mod traffic;

#[cfg(test)]
mod emulated;

pub use claim::Claim;
pub use columns::{Column, Dictionary, Packed, Region, Strings, UncheckedStrings, Values};
pub use compute::Kernels;
pub use context::{Device, DeviceInfo};
pub use copies::Copies;
pub use error::DeviceError;
pub(crate) use landing::share;
pub use landing::{Landed, Prepared};
pub use memory::{DeviceBuffer, DeviceMemory};
pub use module::{Function, Module, Shape};
pub use partition::DevicePartition;
pub use pinned::{PinnedBuffer, PinnedPool};
pub use staging::{Arriving, Departing, Piece, Staging};
pub use stream::{Completion, Stream};
pub use tiered::{TieredBuffer, Tiers};
pub use traffic::{Path, Traffic};
