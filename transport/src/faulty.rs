//! A wrapper that injects faults into any backend by seeded rules. Used by tests and by anyone who wants to see what a bad
//! network does to a cluster; knows the trait alone, so it can wrap every backend.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{Notify, watch};
use transload_gpu::{HostBuffer, OutOfBudget, PartitionHeader, Stored};
use transload_protocol::{Address, PartitionId};

use crate::{Connection, Destination, Listener, PartitionSource, Transport, TransportError};

/// What happens to one connect or fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing unusual.
    Deliver,
    /// It starts this much later.
    Delay(Duration),
    /// A connect is refused; a fetch is answered with [`TransportError::Source`].
    Refuse,
    /// The request is lost: [`TransportError::TimedOut`] after this long.
    Drop(Duration),
    /// The connection dies once the fetch has its memory and not yet its payload, and every other fetch on it dies too. A
    /// connect is refused.
    Cut,
}

/// What a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Connecting to a peer.
    Connect,
    /// Fetching from it.
    Fetch,
}

/// When to give which verdict.
#[derive(Debug, Clone)]
pub struct Rule {
    operation: Operation,
    verdict: Verdict,
    peer: Option<Address>,
    partition: Option<PartitionId>,
    per_thousand: u16,
    left: u64,
}

impl Rule {
    /// Gives `verdict` on every `operation`.
    pub fn on(operation: Operation, verdict: Verdict) -> Self {
        Self {
            operation,
            verdict,
            peer: None,
            partition: None,
            per_thousand: 1_000,
            left: u64::MAX,
        }
    }

    /// Only with this peer.
    #[must_use]
    pub fn with_peer(mut self, peer: Address) -> Self {
        self.peer = Some(peer);
        self
    }

    /// Only fetches of this partition.
    #[must_use]
    pub fn of_partition(mut self, partition: PartitionId) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Only with this chance, out of 1,000.
    #[must_use]
    pub fn per_thousand(mut self, chance: u16) -> Self {
        self.per_thousand = chance;
        self
    }

    /// Only so many times.
    #[must_use]
    pub fn at_most(mut self, times: u64) -> Self {
        self.left = times;
        self
    }

    fn matches(
        &self,
        operation: Operation,
        peer: &Address,
        partition: Option<PartitionId>,
    ) -> bool {
        self.left > 0
            && self.operation == operation
            && self.peer.as_ref().is_none_or(|wanted| wanted == peer)
            && self
                .partition
                .is_none_or(|wanted| Some(wanted) == partition)
    }
}

/// Rules and the seed of their dice. The first rule that matches and whose dice fall gives the verdict. The same operations
/// in the same order get the same verdicts.
#[derive(Debug, Clone)]
pub struct Rules {
    seed: u64,
    rules: Vec<Rule>,
    faults: u64,
}

impl Rules {
    /// No rules: everything is delivered.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            rules: Vec::new(),
            faults: 0,
        }
    }

    /// Adds a rule after those there are.
    #[must_use]
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    fn verdict(
        &mut self,
        operation: Operation,
        peer: &Address,
        partition: Option<PartitionId>,
    ) -> Verdict {
        for rule in &mut self.rules {
            if rule.matches(operation, peer, partition)
                && next_random(&mut self.seed) % 1_000 < u64::from(rule.per_thousand)
            {
                rule.left -= 1;
                self.faults += 1;
                return rule.verdict;
            }
        }
        Verdict::Deliver
    }
}

/// SplitMix64: small, and good enough for dice.
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A backend with faults. Listening is left alone; connecting and fetching obey the rules.
#[derive(Clone)]
pub struct Faulty<T> {
    inner: T,
    rules: Arc<Mutex<Rules>>,
}

impl<T: Transport> Faulty<T> {
    /// Wraps a backend.
    pub fn new(inner: T, rules: Rules) -> Self {
        Self {
            inner,
            rules: Arc::new(Mutex::new(rules)),
        }
    }

    /// How many verdicts other than [`Verdict::Deliver`] were given.
    pub fn faults(&self) -> u64 {
        self.rules
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .faults
    }
}

impl<T: fmt::Debug> fmt::Debug for Faulty<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Faulty").field(&self.inner).finish()
    }
}

fn verdict(
    rules: &Mutex<Rules>,
    operation: Operation,
    peer: &Address,
    partition: Option<PartitionId>,
) -> Verdict {
    rules
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .verdict(operation, peer, partition)
}

impl<T: Transport> Transport for Faulty<T> {
    fn scheme(&self) -> &'static str {
        self.inner.scheme()
    }

    fn listen<'a>(
        &'a self,
        bind: &'a str,
        source: Arc<dyn PartitionSource>,
    ) -> BoxFuture<'a, Result<Box<dyn Listener>, TransportError>> {
        self.inner.listen(bind, source)
    }

    fn connect<'a>(
        &'a self,
        peer: &'a Address,
    ) -> BoxFuture<'a, Result<Arc<dyn Connection>, TransportError>> {
        async move {
            match verdict(&self.rules, Operation::Connect, peer, None) {
                Verdict::Deliver => {}
                Verdict::Delay(time) => tokio::time::sleep(time).await,
                Verdict::Refuse | Verdict::Cut => {
                    return Err(TransportError::Connect {
                        peer: peer.clone(),
                        source: Arc::new(io::ErrorKind::ConnectionRefused.into()),
                    });
                }
                Verdict::Drop(after) => return Err(lost(peer, after).await),
            }
            Ok(Arc::new(FaultyConnection {
                inner: self.inner.connect(peer).await?,
                rules: Arc::clone(&self.rules),
                cut: watch::Sender::new(false),
            }) as Arc<dyn Connection>)
        }
        .boxed()
    }
}

async fn lost(peer: &Address, after: Duration) -> TransportError {
    tokio::time::sleep(after).await;
    TransportError::TimedOut {
        peer: peer.clone(),
        after,
        waiting_for: "an answer (lost by an injected fault)",
    }
}

struct FaultyConnection {
    inner: Arc<dyn Connection>,
    rules: Arc<Mutex<Rules>>,
    cut: watch::Sender<bool>,
}

impl FaultyConnection {
    fn cut_error(&self) -> TransportError {
        TransportError::Closed {
            peer: self.inner.peer().clone(),
            reason: "cut by an injected fault".to_owned(),
        }
    }

    async fn fetch_by_the_rules(
        &self,
        partition: PartitionId,
        destination: Arc<dyn Destination>,
    ) -> Result<Stored, TransportError> {
        let peer = self.inner.peer();
        match verdict(&self.rules, Operation::Fetch, peer, Some(partition)) {
            Verdict::Deliver => {}
            Verdict::Delay(time) => tokio::time::sleep(time).await,
            Verdict::Refuse => {
                return Err(TransportError::Source {
                    peer: peer.clone(),
                    partition,
                    reason: "refused by an injected fault".to_owned(),
                });
            }
            Verdict::Drop(after) => return Err(lost(peer, after).await),
            Verdict::Cut => {
                let watched = Arc::new(Watched {
                    inner: destination,
                    allocated: Notify::new(),
                });
                // Dropping the inner fetch here is what leaves it in the middle of its payload.
                tokio::select! {
                    biased;
                    () = watched.allocated.notified() => {}
                    fetched = self.inner.fetch(partition, Arc::clone(&watched) as Arc<dyn Destination>) => {
                        fetched?;
                    }
                }
                self.cut.send_replace(true);
                return Err(self.cut_error());
            }
        }
        self.inner.fetch(partition, destination).await
    }
}

impl Connection for FaultyConnection {
    fn peer(&self) -> &Address {
        self.inner.peer()
    }

    fn link(&self) -> &str {
        self.inner.link()
    }

    fn is_closed(&self) -> bool {
        *self.cut.borrow() || self.inner.is_closed()
    }

    fn fetch(
        &self,
        partition: PartitionId,
        destination: Arc<dyn Destination>,
    ) -> BoxFuture<'_, Result<Stored, TransportError>> {
        async move {
            let mut cut = self.cut.subscribe();
            if *cut.borrow() {
                return Err(self.cut_error());
            }
            tokio::select! {
                biased;
                fetched = self.fetch_by_the_rules(partition, destination) => fetched,
                _ = cut.wait_for(|cut| *cut) => Err(self.cut_error()),
            }
        }
        .boxed()
    }
}

/// A destination that tells when it was asked, for memory of the host: what is cut goes there.
struct Watched {
    inner: Arc<dyn Destination>,
    allocated: Notify,
}

impl Destination for Watched {
    fn allocate(&self, header: &PartitionHeader) -> Result<HostBuffer, OutOfBudget> {
        let buffer = self.inner.allocate(header)?;
        self.allocated.notify_one();
        Ok(buffer)
    }
}
