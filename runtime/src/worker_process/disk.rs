//! Moves partitions between memory and disk on blocking threads, for the driver.

use std::sync::Arc;

use transload_gpu::{Partition, SpillDirectory, SpilledPartition};
use transload_protocol::PartitionId;

use super::completions::Completion;
use super::store::{Held, PartitionStore, overbook};

/// Writes a partition. Blocks.
pub(super) fn spill(
    directory: &SpillDirectory,
    store: &PartitionStore,
    id: PartitionId,
) -> Completion {
    let result = match store.in_memory(id) {
        None => Err("it is not in memory".to_owned()),
        Some(partition) => directory
            .spill(id, partition)
            .map(Arc::new)
            .map_err(|error| error.to_string()),
    };
    Completion::Spill { id, result }
}

/// Reads a partition back. Blocks.
pub(super) fn load(store: &PartitionStore, id: PartitionId) -> Completion {
    let result = match store.get(id) {
        None => Err("it is not here".to_owned()),
        Some(Held::Host(partition)) => Ok(partition),
        Some(Held::Disk(spilled)) => read(store, &spilled),
    };
    Completion::Load { id, result }
}

fn read(store: &PartitionStore, spilled: &SpilledPartition) -> Result<Partition, String> {
    spilled
        .load_into(|header| overbook(store.memory(), header))
        .map_err(|error| error.to_string())
}
