//! What a running operator can do with the cluster: submit graphs, wait without its slot, coordinate with others.
//!
//! Called by operators through their [`TaskContext`], and set up by the worker process. Decides nothing: who gets a slot back,
//! and when, is the worker machine's business.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use transload_gpu::Budget;
use transload_transport::Transport;
use transload_transport_tcp::TcpTransport;

use crate::client::{Client, ClientError, ClientOptions};
use crate::fetcher::Fetcher;
use crate::operator::TaskContext;

/// The connection that all tasks of a worker share: opened by the first that asks for it, closed with the worker.
pub(crate) struct WorkerClient {
    scheduler: String,
    options: ClientOptions,
    /// For the partitions that tasks gather.
    memory: Budget,
    /// For what clients scatter.
    fetcher: Fetcher,
    /// Where the connection lives: the slot threads may be busy for long.
    runtime: Handle,
    state: tokio::sync::Mutex<State>,
}

enum State {
    Closed,
    Unopened,
    Open(Client),
}

impl WorkerClient {
    /// To be called on the runtime on which the connection shall live.
    pub(crate) fn new(scheduler: String, options: ClientOptions, memory: Budget) -> Self {
        let tcp: Arc<dyn Transport> = Arc::new(TcpTransport::new(options.config.tcp.clone()));
        Self {
            fetcher: Fetcher::new(vec![tcp]),
            scheduler,
            options,
            memory,
            runtime: Handle::current(),
            state: tokio::sync::Mutex::new(State::Unopened),
        }
    }

    async fn get(&self) -> Result<Client, ClientError> {
        let mut state = self.state.lock().await;
        let ending = || ClientError::ConnectionLost {
            reason: "the worker is ending".to_owned(),
        };
        match &*state {
            State::Open(client) if client.is_connected() => return Ok(client.clone()),
            State::Open(_) | State::Unopened => {}
            State::Closed => return Err(ending()),
        }
        let (scheduler, options) = (self.scheduler.clone(), self.options.clone());
        let memory = self.memory.clone();
        let opening = self
            .runtime
            .spawn(async move { Client::connect_with_memory(&scheduler, options, memory).await });
        // It neither panics nor is cancelled, unless the worker ends.
        let client = opening.await.map_err(|_| ending())??;
        *state = State::Open(client.clone());
        Ok(client)
    }

    /// Ends the connection as soon as no task uses it any more, and opens no other.
    pub(crate) async fn close(&self) {
        *self.state.lock().await = State::Closed;
    }
}

/// What a task tells its worker about its slot.
#[derive(Debug)]
pub(crate) enum SlotRequest {
    /// It waits: its slot is for others.
    Secede,
    /// It wants its slot back; answered when it has it.
    Rejoin(oneshot::Sender<()>),
}

/// Where such requests go.
pub(crate) type SlotRequests = Box<dyn Fn(SlotRequest) + Send + Sync>;

/// A task's own part of all this.
#[derive(Clone)]
pub(crate) struct Inside {
    client: Arc<WorkerClient>,
    slot: Arc<Slot>,
}

struct Slot {
    requests: SlotRequests,
    /// Waits without the slot that are not over.
    waits: Mutex<u32>,
}

impl Inside {
    pub(crate) fn new(client: Arc<WorkerClient>, requests: SlotRequests) -> Self {
        Self {
            client,
            slot: Arc::new(Slot {
                requests,
                waits: Mutex::new(0),
            }),
        }
    }
}

impl Inside {
    pub(crate) fn fetcher(&self) -> &Fetcher {
        &self.client.fetcher
    }
}

impl Slot {
    // Requests are sent under the lock, so that they arrive in the order of the counts.
    fn lock(&self) -> MutexGuard<'_, u32> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn secede(&self) {
        let mut waits = self.lock();
        if *waits == 0 {
            (self.requests)(SlotRequest::Secede);
        }
        *waits += 1;
    }

    /// The last of several asks for the slot; what comes back tells when it is there.
    fn rejoin(&self) -> Option<oneshot::Receiver<()>> {
        let mut waits = self.lock();
        let was_waiting = *waits > 0;
        *waits = waits.saturating_sub(1);
        if !was_waiting || *waits > 0 {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        (self.requests)(SlotRequest::Rejoin(sender));
        Some(receiver)
    }
}

/// Ends a wait that was dropped.
struct Waiting<'a> {
    slot: Option<&'a Slot>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            // Nobody is there to wait for it: it comes when it comes.
            drop(slot.rejoin());
        }
    }
}

impl TaskContext {
    /// A client of the scheduler that this worker belongs to, shared by the worker's tasks. A graph that the task submits is
    /// cancelled when its handle is dropped, and so when the task ends or is stopped; it counts as work of the task's own client,
    /// and goes before what that one has waiting. Partitions that it gathers count as memory
    /// for operators as long as they live.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn client(&self) -> Result<Client, ClientError> {
        let client = self.inside.client.get().await?;
        Ok(client.within(self.task))
    }

    /// Gives up this task's slot and other resources until [`TaskContext::rejoin`]: others run in its place. To be called
    /// before waiting for anything that may need a slot, such as a graph that this task has submitted. Calls are counted:
    /// each wants its rejoin.
    pub fn secede(&self) {
        self.inside.slot.secede();
    }

    /// Waits until this task has its slot again, before any task that has not started. Returns at once while another part of
    /// the task still waits without it.
    pub async fn rejoin(&self) {
        if let Some(resumed) = self.inside.slot.rejoin() {
            // The sender is dropped unheard only when the task is being stopped.
            let _ = resumed.await;
        }
    }

    /// Waits for `future` without this task's slot, and goes on when both are there.
    pub async fn wait_without_slot<F: Future>(&self, future: F) -> F::Output {
        self.secede();
        let mut waiting = Waiting {
            slot: Some(&self.inside.slot),
        };
        let output = future.await;
        waiting.slot = None;
        self.rejoin().await;
        output
    }
}
