//! Moves partitions between tiers, for the driver: those of the host on threads that may block, those of the device as its streams go.

use std::sync::Arc;

use transload_gpu::device::{DeviceError, DevicePartition};
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

/// Moves a device partition one tier down.
pub(super) async fn sink(
    partition: DevicePartition,
    to: Tier,
    gpu: Option<Arc<LazyGpu>>,
) -> Result<u64, DeviceFailure> {
    let (tiers, payload) = (partition.tiers(), partition.payload());
    let moved = match to {
        Tier::PinnedHost => tiers.to_pinned(payload).await.map(drop),
        Tier::Device | Tier::Host | Tier::Disk => tiers.to_disk(payload).await,
    };
    let moved = moved.map(|()| partition.occupied_bytes());
    moved.map_err(|error| failure(error, gpu))
}

/// Moves a device partition one tier up.
pub(super) async fn rise(
    partition: DevicePartition,
    to: Tier,
    gpu: Option<Arc<LazyGpu>>,
) -> Result<(), DeviceFailure> {
    let (tiers, payload) = (partition.tiers(), partition.payload());
    let moved = match to {
        Tier::Device => tiers.to_device(payload).await.map(drop),
        Tier::PinnedHost | Tier::Host | Tier::Disk => tiers.to_pinned(payload).await.map(drop),
    };
    moved.map_err(|error| DeviceFailure {
        is_unreadable: to == Tier::PinnedHost && !error.is_about_memory(),
        ..failure(error, gpu)
    })
}

fn failure(error: DeviceError, gpu: Option<Arc<LazyGpu>>) -> DeviceFailure {
    DeviceFailure {
        is_unreadable: false,
        lost_gpu: gpu.and_then(|gpu| gpu.opened()?.is_lost()),
        error,
    }
}

fn read(store: &PartitionStore, spilled: &SpilledPartition) -> Result<Partition, String> {
    spilled
        .load_into(|header| overbook(store.memory(), header))
        .map_err(|error| error.to_string())
}
