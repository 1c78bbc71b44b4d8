//! What the cases are built from: a backend under test, a source with partitions, and seeded contents.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{Notify, Semaphore};
use transload_gpu::{
    ALIGNMENT_BYTES, Budget, HostBuffer, OutOfBudget, Partition, PartitionHeader, Stored,
};
use transload_protocol::{ClientId, GraphId, PartitionId, TaskId};

use crate::{Connection, Destination, Listener, PartitionSource, Transport, TransportError};

/// Longest that any case waits for anything: a hang is found in any case, a busy machine is not one.
const PATIENCE: Duration = Duration::from_secs(300);

/// A backend under test.
pub struct Backend {
    /// The backend.
    pub transport: Arc<dyn Transport>,
    /// What to bind a listener to, such that every listener gets an address of its own.
    pub bind: String,
    /// Whether payloads are received into the destination's memory. False only for backends within a process that hand the
    /// holder's partition over.
    pub receives_into_destination: bool,
    /// Partitions that a listener opens at once for one connection. `None` where there is no such limit, within a process.
    pub most_open: Option<u32>,
}

impl Backend {
    /// A backend that receives into the destination's memory.
    pub fn new(transport: impl Transport, bind: impl Into<String>) -> Self {
        Self {
            transport: Arc::new(transport),
            bind: bind.into(),
            receives_into_destination: true,
            most_open: None,
        }
    }

    /// The same, held to this limit of [`Backend::most_open`].
    #[must_use]
    pub fn with_most_open(mut self, most: u32) -> Self {
        self.most_open = Some(most);
        self
    }

    pub(super) async fn listen(&self, source: &Arc<Store>) -> Box<dyn Listener> {
        self.transport
            .listen(&self.bind, Arc::clone(source) as Arc<dyn PartitionSource>)
            .await
            .expect("listens")
    }

    pub(super) async fn connect(&self, listener: &dyn Listener) -> Arc<dyn Connection> {
        self.transport
            .connect(listener.address())
            .await
            .expect("connects")
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Backend({} at `{}`)", self.transport.scheme(), self.bind)
    }
}

/// The id of the partition that cases call by this number.
pub fn partition_id(number: u32) -> PartitionId {
    PartitionId {
        task: TaskId {
            graph: GraphId {
                client: ClientId(1),
                sequence: 2,
            },
            index: number,
        },
        output: number % 3,
    }
}

/// A partition with these buffer lengths; contents and metadata are made from `seed`. Every page of every buffer differs.
pub fn random_partition(seed: u64, buffer_bytes: &[usize]) -> Partition {
    const PAGE_BYTES: usize = 4 << 10;
    let mut state = seed | 1;
    let mut page = Vec::with_capacity(PAGE_BYTES);
    while page.len() < PAGE_BYTES {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        page.extend_from_slice(&state.to_le_bytes());
    }
    let mut count = seed << 32;
    let mut random = |bytes: usize| {
        let mut contents = Vec::with_capacity(bytes + PAGE_BYTES);
        while contents.len() < bytes {
            page[..8].copy_from_slice(&count.to_le_bytes());
            count += 1;
            contents.extend_from_slice(&page);
        }
        contents.truncate(bytes);
        Bytes::from(contents)
    };
    let metadata = random((seed % 100) as usize);
    let buffers = buffer_bytes.iter().map(|bytes| random(*bytes)).collect();
    Partition::new(metadata, buffers)
}

/// How many there are of something, and how many there ever were at once.
#[derive(Debug, Default)]
pub struct Count {
    now: AtomicU64,
    most: AtomicU64,
}

impl Count {
    /// How many there are.
    pub fn now(&self) -> u64 {
        self.now.load(Ordering::Acquire)
    }

    /// How many there were at once, at most.
    pub fn most(&self) -> u64 {
        self.most.load(Ordering::Acquire)
    }

    fn one_more(self: &Arc<Self>) -> Counted {
        let now = self.now.fetch_add(1, Ordering::AcqRel) + 1;
        self.most.fetch_max(now, Ordering::AcqRel);
        Counted(Arc::clone(self))
    }
}

/// Counts as long as it lives.
struct Counted(Arc<Count>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The bytes of a partition that is counted while anybody holds it.
struct CountedBytes {
    bytes: Bytes,
    _counted: Counted,
}

impl AsRef<[u8]> for CountedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Holds opens back until it is opened, and counts how many wait.
#[derive(Debug)]
pub struct Gate {
    passes: Semaphore,
    waiting: Arc<Count>,
}

impl Gate {
    fn new() -> Self {
        Self {
            passes: Semaphore::new(0),
            waiting: Arc::default(),
        }
    }

    /// Lets everyone through from now on.
    pub fn open(&self) {
        self.passes.close();
    }

    /// How many wait now.
    pub fn waiting(&self) -> u64 {
        self.waiting.now()
    }

    /// How many waited at once, at most.
    pub fn most_waiting(&self) -> u64 {
        self.waiting.most()
    }

    async fn pass(&self) {
        let _counted = self.waiting.one_more();
        // An error is how it looks when the gate is open.
        let _ = self.passes.acquire().await;
    }
}

enum Held {
    Here(Partition),
    Unreadable(String),
    Panics,
    Behind(Arc<Gate>, Partition),
    Counted(Arc<Count>, Bytes),
}

/// A source with partitions in memory, some of them troublesome.
#[derive(Default)]
pub struct Store {
    held: Mutex<HashMap<PartitionId, Held>>,
}

impl Store {
    /// An empty source.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    fn put(&self, number: u32, held: Held) {
        self.held.lock().unwrap().insert(partition_id(number), held);
    }

    /// Serves `partition` under this number.
    pub fn insert(&self, number: u32, partition: Partition) {
        self.put(number, Held::Here(partition));
    }

    /// Answers with an error.
    pub fn insert_unreadable(&self, number: u32, reason: &str) {
        self.put(number, Held::Unreadable(reason.to_owned()));
    }

    /// Panics when it is opened.
    pub fn insert_panicking(&self, number: u32) {
        self.put(number, Held::Panics);
    }

    /// Serves `partition` once the gate is open.
    pub fn insert_behind_gate(&self, number: u32, partition: Partition) -> Arc<Gate> {
        let gate = Arc::new(Gate::new());
        self.put(number, Held::Behind(Arc::clone(&gate), partition));
        gate
    }

    /// Serves a partition of these bytes, made anew each time it is opened, and counts how many of them anybody holds.
    pub fn insert_counted(&self, number: u32, bytes: Bytes) -> Arc<Count> {
        let count = Arc::<Count>::default();
        self.put(number, Held::Counted(Arc::clone(&count), bytes));
        count
    }

    fn look_up(&self, id: PartitionId) -> Result<Option<Found>, String> {
        let held = self.held.lock().unwrap();
        let (partition, gate) = match held.get(&id) {
            None => return Ok(None),
            Some(Held::Unreadable(reason)) => return Err(reason.clone()),
            Some(Held::Panics) => {
                // The lock must not be poisoned by what is a panic on purpose.
                drop(held);
                panic!("this source panics on purpose")
            }
            Some(Held::Here(partition)) => (partition.clone(), None),
            Some(Held::Behind(gate, partition)) => (partition.clone(), Some(Arc::clone(gate))),
            Some(Held::Counted(count, bytes)) => {
                let counted = CountedBytes {
                    bytes: bytes.clone(),
                    _counted: count.one_more(),
                };
                let buffers = vec![Bytes::from_owner(counted)];
                (Partition::new(Bytes::new(), buffers), None)
            }
        };
        Ok(Some(Found { partition, gate }))
    }
}

struct Found {
    partition: Partition,
    gate: Option<Arc<Gate>>,
}

impl PartitionSource for Store {
    fn open(&self, partition: PartitionId) -> BoxFuture<'_, Result<Option<Partition>, String>> {
        async move {
            let Some(found) = self.look_up(partition)? else {
                return Ok(None);
            };
            if let Some(gate) = found.gate {
                gate.pass().await;
            }
            Ok(Some(found.partition))
        }
        .boxed()
    }
}

/// A destination that tells when it is asked, and may do something at that moment.
pub(super) struct Probe {
    budget: Budget,
    pub(super) asked: Notify,
    on_ask: Mutex<Option<OnAsk>>,
}

type OnAsk = Box<dyn FnOnce() + Send>;

impl Probe {
    pub(super) fn new(budget: &Budget) -> Arc<Self> {
        Self::doing(budget, || {})
    }

    /// Does this when it is asked for the first time, with the memory taken.
    pub(super) fn doing(budget: &Budget, on_ask: impl FnOnce() + Send + 'static) -> Arc<Self> {
        Arc::new(Self {
            budget: budget.clone(),
            asked: Notify::new(),
            on_ask: Mutex::new(Some(Box::new(on_ask))),
        })
    }
}

impl Destination for Probe {
    fn allocate(&self, header: &PartitionHeader) -> Result<HostBuffer, OutOfBudget> {
        let buffer = self.budget.allocate(header);
        if let Some(on_ask) = self.on_ask.lock().unwrap().take() {
            on_ask();
        }
        self.asked.notify_one();
        buffer
    }
}

/// A budget that never refuses.
pub(super) fn ample() -> Budget {
    Budget::new("test memory", u64::MAX)
}

pub(super) async fn fetch(
    connection: &dyn Connection,
    number: u32,
    budget: &Budget,
) -> Result<Partition, TransportError> {
    let fetched = within(connection.fetch(partition_id(number), Arc::new(budget.clone()))).await;
    fetched.map(on_host)
}

/// What was received into host memory.
pub(super) fn on_host(fetched: Stored) -> Partition {
    fetched.into_host().expect("host memory was given")
}

/// Fails the case where `future` takes longer than anything should.
pub(super) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("nothing happened within {PATIENCE:?}"))
}

/// Waits until `condition` holds.
pub(super) async fn until(what: &str, condition: impl Fn() -> bool) {
    let started = std::time::Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub(super) fn assert_aligned(partition: &Partition) {
    for buffer in partition
        .buffers()
        .iter()
        .filter(|buffer| !buffer.is_empty())
    {
        assert_eq!(buffer.as_ptr().align_offset(ALIGNMENT_BYTES), 0);
    }
}
