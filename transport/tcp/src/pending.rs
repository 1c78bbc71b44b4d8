//! The requests that a client has in flight. Shared by its fetches, which come and go, and by the task that reads the
//! connection; knows no sockets.
//!
//! A buffer is owned by its entry here or, while bytes are read into it, by the reading task: never by the future that waits
//! for it, so that a dropped fetch cannot free memory under a transfer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;
use transload_gpu::device::{Arriving, Tiers};
use transload_gpu::{HostBuffer, Partition, PartitionHeader};
use transload_protocol::PartitionId;
use transload_transport::{Destination, TransportError};

pub(crate) type Reply = oneshot::Sender<Result<Received, TransportError>>;

/// A partition all of whose bytes have been read.
pub(crate) enum Received {
    Host(Partition),
    /// The last of its pieces may still be on their way to the device.
    Device(PartitionHeader, Box<Staged>),
}

/// How far one request is.
pub(crate) enum State {
    /// Asked for.
    Waiting(Waiting),
    /// The header was here; the payload is coming.
    Receiving(Box<Receiving>),
    /// The reading task has it in its hands.
    Busy,
    /// Nobody wants it any more; its answers are thrown away until the last.
    Draining,
}

pub(crate) struct Waiting {
    pub(crate) partition: PartitionId,
    pub(crate) destination: Arc<dyn Destination>,
    pub(crate) reply: Reply,
}

pub(crate) struct Receiving {
    pub(crate) header: PartitionHeader,
    pub(crate) room: Room,
    pub(crate) filled: u64,
    pub(crate) partition: PartitionId,
    pub(crate) reply: Reply,
}

/// Where a payload is received.
pub(crate) enum Room {
    Host(HostBuffer),
    Device(Box<Staged>),
}

/// Memory of a device that is filled by way of page-locked memory, and the tiers it is of.
pub(crate) struct Staged {
    pub(crate) arriving: Arriving,
    pub(crate) tiers: Tiers,
}

impl Room {
    /// Bytes of the payload.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::Host(buffer) => buffer.as_slice().len() as u64,
            Self::Device(staged) => staged.arriving.payload_bytes(),
        }
    }
}

struct Entry {
    state: State,
    // Returns with the last answer, so that the server never has more requests than it allowed.
    _place: OwnedSemaphorePermit,
}

#[derive(Default)]
struct Table {
    entries: HashMap<u32, Entry>,
    next_request: u32,
    busy_since: Option<Instant>,
    closed: Option<TransportError>,
}

/// All requests of one connection.
#[derive(Default)]
pub(crate) struct Pending {
    table: Mutex<Table>,
}

impl Pending {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a request and gives it a number. Fails with what closed the connection.
    pub(crate) fn add(
        &self,
        waiting: Waiting,
        place: OwnedSemaphorePermit,
    ) -> Result<u32, TransportError> {
        let mut table = self.table();
        if let Some(error) = &table.closed {
            return Err(error.clone());
        }
        // Numbers wrap around; one that is still in use is a very old request.
        let mut request = table.next_request;
        while table.entries.contains_key(&request) {
            request = request.wrapping_add(1);
        }
        table.next_request = request.wrapping_add(1);
        if table.entries.is_empty() {
            table.busy_since = Some(Instant::now());
        }
        table.entries.insert(
            request,
            Entry {
                state: State::Waiting(waiting),
                _place: place,
            },
        );
        Ok(request)
    }

    /// Since when there has been a request at any time; `None` when there is none now.
    pub(crate) fn busy_since(&self) -> Option<Instant> {
        let table = self.table();
        if table.entries.is_empty() {
            None
        } else {
            table.busy_since
        }
    }

    /// Takes the state out of its entry, leaving `Busy`; `Draining` stays. `None` for an unknown request.
    pub(crate) fn take(&self, request: u32) -> Option<State> {
        let mut table = self.table();
        let entry = table.entries.get_mut(&request)?;
        Some(match &entry.state {
            State::Draining => State::Draining,
            State::Waiting(_) | State::Receiving(_) | State::Busy => {
                std::mem::replace(&mut entry.state, State::Busy)
            }
        })
    }

    /// Puts back what was taken, unless it was given up meanwhile: then it is dropped.
    pub(crate) fn put_back(&self, request: u32, state: State) {
        let dropped = {
            let mut table = self.table();
            match table.entries.get_mut(&request) {
                Some(entry) if matches!(entry.state, State::Busy) => {
                    std::mem::replace(&mut entry.state, state)
                }
                _ => state,
            }
        };
        // Outside the lock: freeing a large buffer takes time.
        drop(dropped);
    }

    /// The last answer has come.
    pub(crate) fn finish(&self, request: u32) {
        let entry = self.table().entries.remove(&request);
        drop(entry);
    }

    /// Nobody wants it any more: frees its memory. True when the server must be told.
    pub(crate) fn give_up(&self, request: u32) -> bool {
        let given_up = {
            let mut table = self.table();
            match table.entries.get_mut(&request) {
                Some(entry) => std::mem::replace(&mut entry.state, State::Draining),
                None => return false,
            }
        };
        !matches!(given_up, State::Draining)
    }

    /// Ends every request with `error`, and every later one. The first error stands.
    pub(crate) fn close(&self, error: TransportError) {
        let entries = {
            let mut table = self.table();
            if table.closed.is_some() {
                return;
            }
            table.closed = Some(error.clone());
            std::mem::take(&mut table.entries)
        };
        for entry in entries.into_values() {
            let reply = match entry.state {
                State::Waiting(waiting) => waiting.reply,
                State::Receiving(receiving) => receiving.reply,
                State::Busy | State::Draining => continue,
            };
            // A fetch that is gone does not mind.
            let _ = reply.send(Err(error.clone()));
        }
    }

    /// What closed the connection.
    pub(crate) fn closed(&self) -> Option<TransportError> {
        self.table().closed.clone()
    }
}
