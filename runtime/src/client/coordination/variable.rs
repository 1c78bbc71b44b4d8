//! Variables: one value that all see.

use std::time::Duration;

use bytes::Bytes;
use transload_protocol::{Blob, CoordinationCall, DeletableKind};

use super::call::Call;
use super::{CoordinationError, Named};
use crate::client::Client;

/// A variable that clients share by its name. It lives until it is deleted or no client that has used it is connected. Values
/// are small (`scheduler.coordination_item`): data belongs in partitions.
#[derive(Debug, Clone)]
pub struct Variable {
    named: Named,
}

impl Variable {
    pub(super) fn new(client: Client, name: String) -> Self {
        Self {
            named: Named::new(client, "variable", name),
        }
    }

    /// Waits no longer than this.
    #[must_use]
    pub const fn within(mut self, patience: Duration) -> Self {
        self.named.patience = Some(patience);
        self
    }

    /// Gives it a value.
    ///
    /// # Errors
    /// [`CoordinationError`].
    pub async fn set(&self, value: impl Into<Bytes>) -> Result<(), CoordinationError> {
        let call = CoordinationCall::SetVariable {
            name: self.named.name.clone(),
            value: Blob(value.into()),
        };
        Call::send(&self.named, call)?.done().await
    }

    /// Its value, once it has one.
    ///
    /// # Errors
    /// [`CoordinationError`].
    pub async fn get(&self) -> Result<Bytes, CoordinationError> {
        let call = CoordinationCall::GetVariable {
            name: self.named.name.clone(),
            patience: self.named.patience(),
        };
        let value = Call::send(&self.named, call)?.value().await?;
        Ok(value.0)
    }

    /// Forgets it and its value.
    ///
    /// # Errors
    /// [`CoordinationError`].
    pub async fn delete(&self) -> Result<(), CoordinationError> {
        let call = CoordinationCall::Delete {
            kind: DeletableKind::Variable,
            name: self.named.name.clone(),
        };
        Call::send(&self.named, call)?.done().await
    }
}
