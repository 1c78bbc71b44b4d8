//! Locks and semaphores. What is held is renewed in the background and given back when dropped.

use std::fmt;
use std::time::Duration;

use tokio::task::AbortHandle;
use transload_protocol::{CoordinationAnswer, CoordinationCall};

use super::call::{Call, say};
use super::{CoordinationError, DEFAULT_LEASE, Named};
use crate::client::Client;

/// Renewals in the time of one lease: so many may be late.
const RENEWALS_PER_LEASE: u32 = 3;

/// A lock that clients share by its name. First come, first served.
#[derive(Debug, Clone)]
pub struct Lock {
    named: Named,
    lease: Duration,
}

/// A semaphore that clients share by its name. First come, first served.
#[derive(Debug, Clone)]
pub struct Semaphore {
    named: Named,
    permits: u32,
    lease: Duration,
}

/// A lock or a permit of a semaphore that is held until this is dropped, while this process and its connection live.
pub struct Permit {
    call: Call,
    renewing: AbortHandle,
}

impl Lock {
    pub(super) fn new(client: Client, name: String) -> Self {
        Self {
            named: Named::new(client, "lock", name),
            lease: DEFAULT_LEASE,
        }
    }

    /// Waits no longer than this.
    #[must_use]
    pub const fn within(mut self, patience: Duration) -> Self {
        self.named.patience = Some(patience);
        self
    }

    /// The scheduler takes the lock from a holder that it has not heard of for so long. Default [`DEFAULT_LEASE`].
    #[must_use]
    pub const fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Waits for the lock. A future that is dropped before its end gives up its turn.
    ///
    /// # Errors
    /// [`CoordinationError`].
    pub async fn acquire(&self) -> Result<Permit, CoordinationError> {
        let call = CoordinationCall::Lock {
            name: self.named.name.clone(),
            patience: self.named.patience(),
            lease_ms: lease_ms(self.lease),
        };
        acquire(&self.named, call, self.lease).await
    }
}

impl Semaphore {
    pub(super) fn new(client: Client, name: String, permits: u32) -> Self {
        Self {
            named: Named::new(client, "semaphore", name),
            permits,
            lease: DEFAULT_LEASE,
        }
    }

    /// Waits no longer than this.
    #[must_use]
    pub const fn within(mut self, patience: Duration) -> Self {
        self.named.patience = Some(patience);
        self
    }

    /// The scheduler takes the permit from a holder that it has not heard of for so long. Default [`DEFAULT_LEASE`].
    #[must_use]
    pub const fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Waits for a permit. A future that is dropped before its end gives up its turn.
    ///
    /// # Errors
    /// [`CoordinationError`].
    pub async fn acquire(&self) -> Result<Permit, CoordinationError> {
        let call = CoordinationCall::Acquire {
            name: self.named.name.clone(),
            permits: self.permits,
            patience: self.named.patience(),
            lease_ms: lease_ms(self.lease),
        };
        acquire(&self.named, call, self.lease).await
    }
}

impl Permit {
    /// Waits until it is held no more although it was not dropped: the lease is over, or the connection. What it protects
    /// should not be touched from then on.
    pub async fn lost(&mut self) -> CoordinationError {
        match self.call.answer().await {
            Err(error) => error,
            Ok(_) => self.call.wrong_answer(),
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Permit").field(&self.call.request()).finish()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

async fn acquire(
    named: &Named,
    call: CoordinationCall,
    lease: Duration,
) -> Result<Permit, CoordinationError> {
    let mut call = Call::send(named, call)?;
    let CoordinationAnswer::Granted = call.answer().await? else {
        return Err(call.wrong_answer());
    };
    let (client, request) = (named.client.clone(), call.request());
    let pause = (lease / RENEWALS_PER_LEASE).max(Duration::from_millis(1));
    // On the client's own runtime: the caller's threads may be busy with something that takes longer than the lease.
    let renewing = named.client.inner.runtime.spawn(async move {
        loop {
            tokio::time::sleep(pause).await;
            if say(&client, request, CoordinationCall::Renew).is_err() {
                return;
            }
        }
    });
    Ok(Permit {
        call,
        renewing: renewing.abort_handle(),
    })
}

fn lease_ms(lease: Duration) -> u32 {
    u32::try_from(lease.as_millis()).unwrap_or(u32::MAX).max(1)
}
