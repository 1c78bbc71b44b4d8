//! Moves partitions between tiers, for the driver: those of the host on threads that may block, those of the device as its streams go.

use std::sync::Arc;

use transload_gpu::device::DevicePartition;
use transload_gpu::{Partition, SpillDirectory, SpilledPartition};
use transload_protocol::{PartitionId, Tier};

use super::completions::{Completion, DeviceFailure};
use super::store::{Held, PartitionStore, overbook};
use crate::gpu::LazyGpu;

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
        Some(Held::Device(_)) => Err("it belongs to the device".to_owned()),
    };
    Completion::Load { id, result }
}

/// Moves a device partition to the next tier, and says how many bytes it takes there.
pub(super) async fn shift(
    partition: DevicePartition,
    to: Tier,
    gpu: Option<Arc<LazyGpu>>,
) -> Result<u64, DeviceFailure> {
    let (tiers, payload) = (partition.tiers(), partition.payload());
    let was_on_disk = payload.tier() == Tier::Disk;
    let moved = match to {
        Tier::Device => tiers.to_device(payload).await.map(drop),
        Tier::PinnedHost => tiers.to_pinned(payload).await.map(drop),
        Tier::Host | Tier::Disk => tiers.to_disk(payload).await,
    };
    moved.map_err(|error| DeviceFailure {
        is_unreadable: was_on_disk && !error.is_about_memory(),
        lost_gpu: gpu.and_then(|gpu| gpu.is_lost()),
        error,
    })?;
    Ok(partition.occupied_bytes())
}

fn read(store: &PartitionStore, spilled: &SpilledPartition) -> Result<Partition, String> {
    spilled
        .load_into(|header| overbook(store.memory(), header))
        .map_err(|error| error.to_string())
}
