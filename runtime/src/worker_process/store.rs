//! The partition store: what this worker holds, by id, in memory or on disk.
//!
//! Filled and emptied by the driver as the machine says; read by the servers of partitions at the same time. A partition is
//! immutable and shared, so that serving one and spilling it do not disturb each other.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use transload_gpu::device::{Device, DevicePartition, Landed, Prepared, Staging, Tiers};
use transload_gpu::{
    Budget, HostBuffer, OutOfBudget, Partition, PartitionHeader, SpilledPartition, Stored,
};
use transload_protocol::{PartitionId, Tier};
use transload_transport::{Destination, OnDevice, PartitionSource};

use super::quick::IdMap;
use crate::fetcher::Fetched;

/// So long what is on disk waits for page-locked memory, and looks for it so often.
const PATIENCE: Duration = Duration::from_secs(10);
const WAIT: Duration = Duration::from_millis(5);

/// Where a partition is.
#[derive(Clone)]
pub(super) enum Held {
    /// In host memory.
    Host(Partition),
    /// In a file.
    Disk(Arc<SpilledPartition>),
    /// On the worker's GPU, or where it went from there.
    Device(DevicePartition),
}

/// All partitions of one worker.
pub(super) struct PartitionStore {
    held: Mutex<IdMap<PartitionId, Held>>,
    /// Counts what is stored. The machine decides what may be stored, and overbooks for a task that needs more than there is.
    memory: Budget,
    /// Counts what is read back only to be sent, which is bounded by `loads`.
    serving: Budget,
    loads: Semaphore,
}

impl PartitionStore {
    pub(super) fn new(memory_bytes: u64, served_loads: u32) -> Self {
        Self {
            held: Mutex::default(),
            memory: Budget::new("memory for stored partitions", memory_bytes),
            serving: Budget::new("memory for spilled partitions being sent", u64::MAX),
            loads: Semaphore::new(served_loads.max(1) as usize),
        }
    }

    /// The store as the servers of partitions see it.
    pub(super) fn source(self: &Arc<Self>) -> Arc<dyn PartitionSource> {
        Arc::new(Source(Arc::clone(self)))
    }

    /// Keeps an output that an operator made.
    pub(super) fn insert_output(&self, id: PartitionId, partition: Stored) {
        let partition = match partition {
            Stored::Host(partition) => {
                let reservation = self.memory.reserve_over(partition.bytes());
                partition.attach_reservation(reservation).into()
            }
            // What is on the device was taken from what there is of it.
            Stored::Device(_) => partition,
        };
        self.insert(id, partition);
    }

    /// Keeps a partition whose memory is accounted for already.
    pub(super) fn insert(&self, id: PartitionId, partition: Stored) {
        let held = match partition {
            Stored::Host(partition) => Held::Host(partition),
            Stored::Device(partition) => Held::Device(partition),
        };
        self.held().insert(id, held);
    }

    pub(super) fn get(&self, id: PartitionId) -> Option<Held> {
        self.held().get(&id).cloned()
    }

    /// The partition, if it is in host memory.
    pub(super) fn in_memory(&self, id: PartitionId) -> Option<Partition> {
        match self.held().get(&id) {
            Some(Held::Host(partition)) => Some(partition.clone()),
            Some(Held::Disk(_) | Held::Device(_)) | None => None,
        }
    }

    /// The partition, if it can be read as it is.
    pub(super) fn ready(&self, id: PartitionId) -> Option<Stored> {
        match self.held().get(&id) {
            Some(Held::Host(partition)) => Some(partition.clone().into()),
            Some(Held::Device(partition)) => Some(partition.clone().into()),
            Some(Held::Disk(_)) | None => None,
        }
    }

    /// The partition, if it is one that was made or fetched on the device.
    pub(super) fn of_device(&self, id: PartitionId) -> Option<DevicePartition> {
        match self.held().get(&id) {
            Some(Held::Device(partition)) => Some(partition.clone()),
            Some(Held::Host(_) | Held::Disk(_)) | None => None,
        }
    }

    /// Swaps the tier of a partition that is still here. Gives `held` back when it is not.
    pub(super) fn replace(&self, id: PartitionId, held: Held) -> Result<(), Held> {
        match self.held().get_mut(&id) {
            Some(place) => {
                *place = held;
                Ok(())
            }
            None => Err(held),
        }
    }

    pub(super) fn remove(&self, id: PartitionId) -> Option<Held> {
        self.held().remove(&id)
    }

    pub(super) fn clear(&self) {
        let all = std::mem::take(&mut *self.held());
        drop(all);
    }

    /// Memory for a partition that is brought here because the machine decided so.
    pub(super) fn destination(&self, expected_bytes: u64) -> Arc<dyn Destination> {
        Arc::new(Expected {
            memory: self.memory.clone(),
            bytes: expected_bytes,
        })
    }

    /// The budget of stored partitions.
    pub(super) fn memory(&self) -> &Budget {
        &self.memory
    }

    fn held(&self) -> MutexGuard<'_, IdMap<PartitionId, Held>> {
        // Nothing that holds this lock can leave the map half-changed.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes memory for a payload and its metadata, beyond the limit if need be: somebody has decided that it shall be there.
pub(super) fn overbook(
    budget: &Budget,
    header: &PartitionHeader,
) -> Result<HostBuffer, OutOfBudget> {
    buffer(header, budget.reserve_over(memory_of(header)))
}

/// Memory that a partition takes when it is received: its payload with padding, and its metadata.
fn memory_of(header: &PartitionHeader) -> u64 {
    header
        .payload_bytes()
        .saturating_add(header.metadata.0.len() as u64)
}

fn buffer(
    header: &PartitionHeader,
    reservation: transload_gpu::Reservation,
) -> Result<HostBuffer, OutOfBudget> {
    let bytes = usize::try_from(header.payload_bytes()).map_err(|_| OutOfBudget {
        budget: "address space".to_owned(),
        requested_bytes: header.payload_bytes(),
        used_bytes: 0,
        limit_bytes: usize::MAX as u64,
    })?;
    Ok(HostBuffer::uncleared(bytes, reservation))
}

/// A fetch of a partition that is to come to the device: straight to it where the transport can do that, else through page-locked memory;
/// into page-locked memory as a whole where the device has no room, from where it is moved on; and into host memory where there is none of
/// that, either.
pub(super) struct ToDevice {
    tiers: Tiers,
    otherwise: Arc<dyn Destination>,
    prepared: Mutex<Option<Prepared>>,
    /// Page-locked memory is on the way that was chosen.
    is_staged: AtomicBool,
    landed: Mutex<Option<Landed>>,
}

impl ToDevice {
    /// Takes page-locked memory for a partition of about so many bytes, and does without where there is none.
    pub(super) async fn new(tiers: Tiers, otherwise: Arc<dyn Destination>, bytes: u64) -> Self {
        let prepared = tiers.prepare(bytes).await.inspect_err(
            |error| tracing::debug!(%error, bytes, "no page-locked memory for a partition"),
        );
        Self {
            tiers,
            otherwise,
            prepared: Mutex::new(prepared.ok()),
            is_staged: AtomicBool::new(false),
            landed: Mutex::default(),
        }
    }

    /// What arrived, as a partition of the device if that is where it landed: the way that it took there is then part of what carried it.
    pub(super) fn adopted(&self, mut fetched: Fetched) -> Fetched {
        let way = match &fetched.partition {
            Stored::Device(_) if self.is_staged.load(Ordering::Relaxed) => "page-locked",
            Stored::Device(_) => "device",
            Stored::Host(partition) => {
                let landed = self.landed().take();
                match landed.and_then(|landed| self.tiers.adopt(partition, &landed)) {
                    Some(adopted) => fetched.partition = adopted.into(),
                    None => return fetched,
                }
                "page-locked"
            }
        };
        fetched.transport = format!("{} {way}", fetched.transport);
        fetched
    }

    fn prepared(&self) -> Option<Prepared> {
        let prepared = self.prepared.lock();
        prepared.unwrap_or_else(PoisonError::into_inner).take()
    }

    fn landed(&self) -> MutexGuard<'_, Option<Landed>> {
        self.landed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Destination for ToDevice {
    fn allocate(&self, header: &PartitionHeader) -> Result<HostBuffer, OutOfBudget> {
        drop(self.prepared());
        match self.tiers.landing(header.payload_bytes()) {
            Some((buffer, landed)) => {
                *self.landed() = Some(landed);
                Ok(buffer)
            }
            None => self.otherwise.allocate(header),
        }
    }

    fn device(&self) -> Option<&Device> {
        Some(self.tiers.memory().device())
    }

    fn allocate_on_device(&self, header: &PartitionHeader) -> Option<OnDevice> {
        let buffer = self.tiers.memory().try_allocate(header.payload_bytes());
        Some(OnDevice {
            buffer: buffer.ok()?,
            tiers: self.tiers.clone(),
        })
    }

    fn staging(&self) -> Option<Staging> {
        match self.prepared()? {
            Prepared::Pieces(staging) => {
                self.is_staged.store(true, Ordering::Relaxed);
                Some(staging)
            }
            Prepared::Whole(_) => None,
        }
    }
}

/// A fetch whose size the machine has accounted for.
struct Expected {
    memory: Budget,
    bytes: u64,
}

impl Destination for Expected {
    fn allocate(&self, header: &PartitionHeader) -> Result<HostBuffer, OutOfBudget> {
        // Metadata is here already, and no part of what is announced of a partition on a device.
        let payload: u64 = header
            .buffer_bytes
            .iter()
            .copied()
            .fold(0, u64::saturating_add);
        if payload <= self.bytes {
            return overbook(&self.memory, header);
        }
        // Larger than announced, because it was made again or because the peer is wrong: only as far as the memory goes.
        buffer(header, self.memory.try_reserve(memory_of(header))?)
    }
}

struct Source(Arc<PartitionStore>);

impl PartitionSource for Source {
    fn open(&self, partition: PartitionId) -> BoxFuture<'_, Result<Option<Partition>, String>> {
        async move {
            match self.0.get(partition) {
                None => Ok(None),
                Some(Held::Host(partition)) => Ok(Some(partition)),
                // Read for this one reader; where the store keeps it is the machine's decision.
                Some(Held::Disk(spilled)) => self.0.read_to_serve(spilled).await.map(Some),
                Some(Held::Device(partition)) => self.0.copy_to_serve(&partition).await.map(Some),
            }
        }
        .boxed()
    }

    fn open_in_place(
        &self,
        partition: PartitionId,
    ) -> BoxFuture<'_, Result<Option<Stored>, String>> {
        match self.0.of_device(partition) {
            Some(there) if there.tier() == Tier::Device => {
                async move { Ok(Some(there.into())) }.boxed()
            }
            Some(_) | None => {
                let opened = self.open(partition);
                opened.map(|it| Ok(it?.map(Stored::Host))).boxed()
            }
        }
    }
}

impl PartitionStore {
    /// Sent from page-locked memory. Where others have all of that, from ordinary memory, but for what is on disk, which is read through
    /// page-locked memory and waits for some.
    async fn copy_to_serve(&self, partition: &DevicePartition) -> Result<Partition, String> {
        let _permit = self
            .loads
            .acquire()
            .await
            .map_err(|error| error.to_string())?;
        let tiers = partition.tiers();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let error = match tiers.viewed(partition).await {
                Ok(view) => return Ok(view),
                Err(error) => error,
            };
            let is_on_disk = partition.tier() == Tier::Disk;
            if !error.is_about_memory() || is_on_disk && Instant::now() > deadline {
                return Err(error.to_string());
            }
            if is_on_disk {
                sleep(WAIT).await;
                continue;
            }
            let to = overbook(&self.serving, partition.header());
            let to = to.map_err(|error| error.to_string())?;
            let copied = tiers.download(partition, to).await;
            return copied.map_err(|error| error.to_string());
        }
    }

    async fn read_to_serve(&self, spilled: Arc<SpilledPartition>) -> Result<Partition, String> {
        let _permit = self
            .loads
            .acquire()
            .await
            .map_err(|error| error.to_string())?;
        let budget = self.serving.clone();
        tokio::task::spawn_blocking(move || spilled.load_into(|header| overbook(&budget, header)))
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use transload_protocol::Blob;

    use super::*;

    #[test]
    fn what_was_made_on_a_device_is_as_large_as_it_was_announced_whatever_its_metadata() {
        let store = PartitionStore::new(4 << 10, 1);
        let _full = store.memory().reserve_over(4 << 10);
        // Of a device partition pages of payload are announced, and 1 B where there is none.
        for (announced, buffer_bytes) in [(4 << 10, vec![4 << 10]), (1, vec![])] {
            let metadata = Blob(vec![7; 100].into());
            let header = PartitionHeader {
                metadata,
                buffer_bytes,
            };
            let destination = store.destination(announced);
            destination
                .allocate(&header)
                .expect("booked by the machine");
        }
        let larger = PartitionHeader {
            metadata: Blob::default(),
            buffer_bytes: vec![4 << 10],
        };
        let refused = store.destination(4 << 9).allocate(&larger);
        refused.map(drop).expect_err("nobody has booked it");
    }
}
