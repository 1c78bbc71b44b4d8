//! Holds the bytes of partitions in memory tiers.
//!
//! Every allocation is preceded by a [`Reservation`] from a [`Budget`]; spilling is mechanism here ([`SpillDirectory`]) and
//! policy elsewhere (`worker`). What concerns a GPU, which few machines have, is in [`device`]. Knows no tasks, schedulers or network.
#![deny(unsafe_code)]

mod budget;
mod buffer;
#[allow(
    unsafe_code,
    reason = "CUDA's driver is a C library, and devices write where they are told"
)]
pub mod device;
pub mod kernels;
mod partition;
mod pool;
mod spill;
mod stored;

pub use budget::{Budget, OutOfBudget, Reservation};
pub use buffer::{ALIGNMENT_BYTES, HostBuffer};
pub use partition::{HeaderError, Partition, PartitionHeader};
pub use spill::{LoadError, SpillDirectory, SpillError, SpilledPartition};
pub use stored::Stored;
