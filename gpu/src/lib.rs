//! Holds the bytes of partitions in memory tiers.
//!
//! Every allocation is preceded by a [`Reservation`] from a [`Budget`]; spilling is mechanism here ([`SpillDirectory`]) and
//! policy elsewhere (`worker`). Host and disk tiers are built; device and pinned host memory have their names in
//! [`transload_protocol::Tier`] and their rooms to come. Knows no tasks, schedulers or network.
#![forbid(unsafe_code)]

mod budget;
mod buffer;
mod partition;
mod pool;
mod spill;

pub use budget::{Budget, OutOfBudget, Reservation};
pub use buffer::{ALIGNMENT_BYTES, HostBuffer};
pub use partition::{HeaderError, Partition, PartitionHeader};
pub use spill::{LoadError, SpillDirectory, SpillError, SpilledPartition};
