//! Events: set or not, and everyone can wait for it.

use std::time::Duration;

use transload_protocol::{CoordinationCall, DeletableKind};

use super::call::Call;
use super::{CoordinationError, Named};
use crate::client::Client;

/// An event that clients share by its name. It lives until it is deleted or no client that has used it is connected.
#[derive(Debug, Clone)]
pub struct Event {
    named: Named,
}

impl Event {
    pub(super) fn new(client: Client, name: String) -> Self {
        Self {
            named: Named::new(client, "event", name),
        }
    }

    /// Waits no longer than this.
    #[must_use]
    pub const fn within(mut self, patience: Duration) -> Self {
        self.named.patience = Some(patience);
        self
    }

    /// Sets it: whoever waits goes on, and so does whoever comes until it is cleared.
    ///
    /// # Errors
    /// [`CoordinationError`].
    pub async fn set(&self) -> Result<(), CoordinationError> {
        let name = self.named.name.clone();
        Call::send(&self.named, CoordinationCall::SetEvent { name })?
            .done()
            .await
    }

    /// Clears it: whoever comes waits again.
    ///
    /// # Errors
    /// [`CoordinationError`].
    pub async fn clear(&self) -> Result<(), CoordinationError> {
        let name = self.named.name.clone();
        Call::send(&self.named, CoordinationCall::ClearEvent { name })?
            .done()
            .await
    }

    /// Waits until it is set.
    ///
    /// # Errors
    /// [`CoordinationError`].
    pub async fn wait(&self) -> Result<(), CoordinationError> {
        let call = CoordinationCall::WaitEvent {
            name: self.named.name.clone(),
            patience: self.named.patience(),
        };
        Call::send(&self.named, call)?.done().await
    }

    /// Whether it is set now.
    ///
    /// # Errors
    /// [`CoordinationError`].
    pub async fn is_set(&self) -> Result<bool, CoordinationError> {
        match self.clone().within(Duration::ZERO).wait().await {
            Ok(()) => Ok(true),
            Err(CoordinationError::TimedOut { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Forgets it.
    ///
    /// # Errors
    /// [`CoordinationError`].
    pub async fn delete(&self) -> Result<(), CoordinationError> {
        let call = CoordinationCall::Delete {
            kind: DeletableKind::Event,
            name: self.named.name.clone(),
        };
        Call::send(&self.named, call)?.done().await
    }
}
