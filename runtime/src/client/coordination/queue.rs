//! Queues: items go in at one end and come out at the other, each once.

use std::time::Duration;

use bytes::Bytes;
use transload_protocol::{Blob, CoordinationCall, DeletableKind};

use super::call::Call;
use super::{CoordinationError, Named};
use crate::client::Client;

/// A queue that clients share by its name. It lives until it is deleted or no client that has used it is connected. Items are
/// small (`scheduler.coordination_item`): data belongs in partitions.
#[derive(Debug, Clone)]
pub struct Queue {
    named: Named,
    max_items: Option<u32>,
}

impl Queue {
    pub(super) fn new(client: Client, name: String) -> Self {
        Self {
            named: Named::new(client, "queue", name),
            max_items: None,
        }
    }

    /// Waits no longer than this.
    #[must_use]
    pub const fn within(mut self, patience: Duration) -> Self {
        self.named.patience = Some(patience);
        self
    }

    /// [`Queue::put`] waits while there are so many items, at least 1. Default: no such limit.
    #[must_use]
    pub const fn with_max_items(mut self, items: u32) -> Self {
        self.max_items = Some(items);
        self
    }

    /// Appends an item, once there is room for it. Puts that wait go first come, first served.
    ///
    /// # Errors
    /// [`CoordinationError`].
    pub async fn put(&self, item: impl Into<Bytes>) -> Result<(), CoordinationError> {
        let call = CoordinationCall::Put {
            name: self.named.name.clone(),
            item: Blob(item.into()),
            max_items: self.max_items,
            patience: self.named.patience(),
        };
        Call::send(&self.named, call)?.done().await
    }

    /// Takes the oldest item, once there is one. An item on its way to a future that is dropped, or to a process that dies, goes
    /// back to its place.
    ///
    /// # Errors
    /// [`CoordinationError`].
    pub async fn get(&self) -> Result<Bytes, CoordinationError> {
        let call = CoordinationCall::Get {
            name: self.named.name.clone(),
            patience: self.named.patience(),
        };
        let item = Call::send(&self.named, call)?.value().await?;
        Ok(item.0)
    }

    /// Forgets it and its items.
    ///
    /// # Errors
    /// [`CoordinationError`].
    pub async fn delete(&self) -> Result<(), CoordinationError> {
        let call = CoordinationCall::Delete {
            kind: DeletableKind::Queue,
            name: self.named.name.clone(),
        };
        Call::send(&self.named, call)?.done().await
    }
}
