//! Partitions that a client offers and workers fetch from it: they never pass through the scheduler.
//!
//! [`Offers`] is the client's side, [`fetch_offered`] the worker's: an operator that every worker has. A scattered partition is the
//! output of an ordinary task, so it is held, imported and made again as any other, as long as the client still offers it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use transload_gpu::{Budget, HostBuffer, OutOfBudget, Partition, PartitionHeader, Reservation};
use transload_protocol::{Address, GraphId, PartitionId, TaskErrorKind, TaskId};
use transload_transport::{Destination, PartitionSource};

use crate::fetcher::{Fetched, Fetcher};
use crate::{OperatorError, TaskContext};

/// What the tasks of scattered layers run.
pub(crate) const SCATTER_OPERATOR: &str = "transload-scatter";
/// How often a partition is asked for before the scheduler hears of it.
const ATTEMPTS: u32 = 3;

/// What a client offers, by the number of the offer and the place in it.
#[derive(Default)]
pub(crate) struct Offers {
    offered: Mutex<HashMap<u32, Arc<[Partition]>>>,
}

impl Offers {
    pub(crate) fn insert(&self, number: u32, partitions: Vec<Partition>) {
        self.lock().insert(number, partitions.into());
    }

    pub(crate) fn remove(&self, number: u32) {
        self.lock().remove(&number);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Arc<[Partition]>>> {
        // Nothing that holds this lock can leave the map half-changed.
        self.offered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PartitionSource for Offers {
    fn open(&self, partition: PartitionId) -> BoxFuture<'_, Result<Option<Partition>, String>> {
        let offer = self.lock().get(&partition.task.graph.sequence).cloned();
        let index = partition.task.index as usize;
        let found = offer.and_then(|offer| offer.get(index).cloned());
        async move { Ok(found) }.boxed()
    }
}

/// What the tasks of an offer are told: its number, and where the client is.
pub(crate) fn argument(number: u32, addresses: &[Address]) -> Bytes {
    let mut text = number.to_string();
    for address in addresses {
        text.push('\n');
        text.push_str(&address.to_string());
    }
    text.into()
}

/// The worker's side: fetches what the task's place in the offer has.
///
/// # Errors
/// A [`TaskErrorKind::Transient`] one where the client cannot be reached, another where it offers this no longer.
pub(crate) async fn fetch_offered(
    context: &TaskContext,
    fetcher: &Fetcher,
) -> Result<Vec<Partition>, OperatorError> {
    let bad = || OperatorError::new("the argument is no offer; use Client::scatter");
    let text = std::str::from_utf8(context.common_argument()).map_err(|_| bad())?;
    let mut lines = text.lines();
    let number = lines.next().and_then(|number| number.parse().ok());
    let sequence: u32 = number.ok_or_else(bad)?;
    let addresses: Result<Vec<Address>, _> = lines.map(str::parse).collect();
    let addresses = addresses.map_err(|_| bad())?;
    let client = context.task.graph.client;
    let partition = PartitionId {
        task: TaskId {
            graph: GraphId { client, sequence },
            index: context.position,
        },
        output: 0,
    };
    let room: Arc<dyn Destination> = Arc::new(Room {
        working: context.environment.execution_memory.clone(),
        stored: Budget::new("scattered partitions on their way", u64::MAX),
        held: Mutex::default(),
    });
    let mut attempt = 1;
    loop {
        let fetched = fetcher.fetch(&addresses, partition, &room).await;
        let error = match fetched.and_then(Fetched::into_host) {
            Ok(partition) => return Ok(vec![partition]),
            Err(error) => error,
        };
        if error.is_gone() {
            return Err(OperatorError::new(format!(
                "client {client} offers this partition no longer, and it is needed again; keep the handle that Client::scatter returned"
            )));
        }
        if attempt == ATTEMPTS {
            let message = format!(
                "client {client} cannot be reached for what it scattered: {error}; workers must reach it, see ScatterOptions::host"
            );
            let kind = TaskErrorKind::Transient;
            return Err(OperatorError { kind, message });
        }
        attempt += 1;
    }
}

/// Takes memory for operators while a partition arrives; the store accounts for it afterwards.
struct Room {
    working: Budget,
    stored: Budget,
    held: Mutex<Option<Reservation>>,
}

impl Destination for Room {
    fn allocate(&self, header: &PartitionHeader) -> Result<HostBuffer, OutOfBudget> {
        let bytes = header.payload_bytes();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        // What an attempt before this one took is free again.
        drop(held.take());
        *held = Some(self.working.try_reserve(bytes)?);
        let reservation = self.stored.try_reserve(bytes)?;
        Ok(HostBuffer::uncleared(bytes as usize, reservation))
    }
}
