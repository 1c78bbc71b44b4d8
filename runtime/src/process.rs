//! Partitions handed over within one process: a registry of the sources that live here, so that a fetch from a neighbour in
//! the same process costs no socket and no copy.
//!
//! Called by worker processes (which publish) and the [`crate::fetcher`] (which looks up). Knows no tasks and no memory budgets.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use transload_protocol::Address;
use transload_transport::PartitionSource;

/// The scheme of addresses that are valid within one process alone.
pub const SCHEME: &str = "process";

struct Registry {
    /// Tells this process from every other one, whatever machine or container it runs on.
    token: String,
    next: AtomicU64,
    sources: Mutex<HashMap<String, Arc<dyn PartitionSource>>>,
}

static REGISTRY: LazyLock<Registry> = LazyLock::new(|| Registry {
    token: format!(
        "{}-{:016x}",
        std::process::id(),
        RandomState::new().build_hasher().finish()
    ),
    next: AtomicU64::new(0),
    sources: Mutex::default(),
});

/// A published source. Dropping it takes the source out of the registry.
#[derive(Debug)]
pub struct Published {
    address: Address,
}

/// Makes `source` reachable from everywhere in this process.
pub fn publish(source: Arc<dyn PartitionSource>) -> Published {
    let number = REGISTRY.next.fetch_add(1, Ordering::Relaxed);
    let address = Address::new(SCHEME, format!("{}/{number}", REGISTRY.token));
    sources().insert(address.endpoint.clone(), source);
    Published { address }
}

/// The source behind an address; `None` when it belongs to another process or is gone.
pub fn find(address: &Address) -> Option<Arc<dyn PartitionSource>> {
    (address.scheme == SCHEME)
        .then(|| sources().get(&address.endpoint).cloned())
        .flatten()
}

/// Whether an address belongs to this process, even if nothing is published there any more.
pub fn is_ours(address: &Address) -> bool {
    address.scheme == SCHEME
        && address
            .endpoint
            .split_once('/')
            .is_some_and(|(token, _)| token == REGISTRY.token)
}

impl Published {
    /// Where the source is found.
    pub fn address(&self) -> &Address {
        &self.address
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        sources().remove(&self.address.endpoint);
    }
}

fn sources() -> std::sync::MutexGuard<'static, HashMap<String, Arc<dyn PartitionSource>>> {
    // Nothing that holds this lock can leave the map half-changed.
    REGISTRY
        .sources
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}
