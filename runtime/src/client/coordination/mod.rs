//! Locks, semaphores, events, queues and variables that all clients of a scheduler share by name, also inside tasks.
//!
//! The scheduler decides whose turn it is; this module waits, renews leases, and gives back what is dropped. A future that is
//! dropped before its end has no effect later.

mod call;
mod error;
mod event;
mod permit;
mod queue;
mod variable;

use std::time::Duration;

use transload_protocol::Patience;

use super::Client;

pub use error::CoordinationError;
pub use event::Event;
pub use permit::{Lock, Permit, Semaphore};
pub use queue::Queue;
pub use variable::Variable;

/// Time after which the scheduler takes a lock or permit from a client that has fallen silent, unless told otherwise.
pub const DEFAULT_LEASE: Duration = Duration::from_secs(30);

impl Client {
    /// The lock of this name: one holder at a time.
    pub fn lock(&self, name: impl Into<String>) -> Lock {
        Lock::new(self.clone(), name.into())
    }

    /// The semaphore of this name: at most `permits` holders at a time. All who use it at a time must say the same number.
    pub fn semaphore(&self, name: impl Into<String>, permits: u32) -> Semaphore {
        Semaphore::new(self.clone(), name.into(), permits)
    }

    /// The event of this name: set or not, and not before it is set for the first time.
    pub fn event(&self, name: impl Into<String>) -> Event {
        Event::new(self.clone(), name.into())
    }

    /// The queue of this name: what is put in comes out once, in the same order.
    pub fn queue(&self, name: impl Into<String>) -> Queue {
        Queue::new(self.clone(), name.into())
    }

    /// The variable of this name: a value, or none yet.
    pub fn variable(&self, name: impl Into<String>) -> Variable {
        Variable::new(self.clone(), name.into())
    }
}

/// A thing by its name, as a client uses it.
#[derive(Clone)]
struct Named {
    client: Client,
    /// For people: `lock`, `queue`.
    kind: &'static str,
    name: String,
    patience: Option<Duration>,
}

impl Named {
    fn new(client: Client, kind: &'static str, name: String) -> Self {
        Self {
            client,
            kind,
            name,
            patience: None,
        }
    }

    fn patience(&self) -> Patience {
        self.patience.map_or(Patience::Forever, |patience| {
            Patience::Millis(u64::try_from(patience.as_millis()).unwrap_or(u64::MAX))
        })
    }
}

impl std::fmt::Debug for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} `{}`", self.kind, self.name)
    }
}
