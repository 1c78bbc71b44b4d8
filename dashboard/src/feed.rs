//! The way from the scheduler's thread to the dashboard: never blocks, and drops what does not fit. Called by the driver of the scheduler;
//! knows neither what is shown nor who looks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use tokio::sync::mpsc;
use transload_protocol::{EventRecord, GraphId, GraphInfo, LayerIndex, TaskId, Time, WorkerId};

/// Batches that may wait. Each has what one step of the scheduler brought about.
const BATCHES: usize = 1_024;

/// What one step of the scheduler brought about.
#[derive(Debug, Default)]
pub struct Batch {
    /// The scheduler's clock.
    pub now: Time,
    /// Graphs that were accepted, with their layers.
    pub graphs: Vec<GraphInfo>,
    /// What happened, but for single tasks that are handed out or end well. Events that workers tell have the times of their clocks.
    pub events: Vec<EventRecord>,
    /// Tasks that were handed out. Wanted only while somebody looks.
    pub assigned: Vec<AssignedTasks>,
    /// Tasks that have ended well. Wanted only while somebody looks.
    pub ran: Vec<RanTask>,
}

/// Tasks of one layer that were handed to one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AssignedTasks {
    /// To whom.
    pub worker: WorkerId,
    /// Their graph.
    pub graph: GraphId,
    /// Their layer.
    pub layer: LayerIndex,
    /// How many.
    pub count: u32,
}

/// A task that has ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RanTask {
    /// Which.
    pub task: TaskId,
    /// Where.
    pub worker: WorkerId,
    /// Bytes of its outputs.
    pub bytes: u64,
    /// Rows of its outputs; 0 where its operator does not count.
    pub rows: u64,
    /// How long it ran. Of several that ended too close together to be told apart, one has the time of all.
    pub run_micros: u64,
}

impl Batch {
    /// How many things it tells.
    fn len(&self) -> usize {
        self.graphs.len() + self.events.len() + self.assigned.len() + self.ran.len()
    }
}

/// Takes what happens. Clones feed the same dashboard.
#[derive(Debug, Clone)]
pub struct Feed {
    batches: mpsc::Sender<Batch>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
pub(crate) struct Shared {
    viewers: AtomicU32,
    dropped_events: AtomicU64,
}

impl Feed {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Batch>, Arc<Shared>) {
        let (batches, receiver) = mpsc::channel(BATCHES);
        let shared = Arc::<Shared>::default();
        let feed = Self {
            batches,
            shared: Arc::clone(&shared),
        };
        (feed, receiver, shared)
    }

    /// Whether anybody looks: only then every single task is of interest.
    pub fn is_watched(&self) -> bool {
        self.shared.is_watched()
    }

    /// Hands it over, or drops it where nobody takes it soon enough.
    pub fn push(&self, batch: Batch) {
        if batch.len() == 0 {
            return;
        }
        if let Err(error) = self.batches.try_send(batch) {
            let lost = error.into_inner().len() as u64;
            self.shared
                .dropped_events
                .fetch_add(lost, Ordering::Relaxed);
        }
    }
}

impl Shared {
    pub(crate) fn is_watched(&self) -> bool {
        self.viewers.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn viewers(&self) -> u32 {
        self.viewers.load(Ordering::Relaxed)
    }

    pub(crate) fn dropped_events(&self) -> u64 {
        self.dropped_events.load(Ordering::Relaxed)
    }

    /// Somebody looks, as long as this lives.
    pub(crate) fn watch(self: &Arc<Self>) -> Watch {
        self.viewers.fetch_add(1, Ordering::Relaxed);
        Watch(Arc::clone(self))
    }
}

/// Somebody who looks.
#[derive(Debug)]
pub(crate) struct Watch(Arc<Shared>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.viewers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use transload_protocol::{Event, WorkerId};

    use super::*;

    #[test]
    fn what_nobody_takes_is_dropped_and_counted() {
        let (feed, mut receiver, shared) = Feed::new();
        let record = EventRecord {
            at: Time::default(),
            event: Event::WorkerJoined {
                worker: WorkerId(1),
            },
        };
        for _ in 0..BATCHES + 3 {
            feed.push(Batch {
                events: vec![record.clone(); 2],
                ..Batch::default()
            });
        }
        assert_eq!(shared.dropped_events(), 6);
        let taken = std::iter::from_fn(|| receiver.try_recv().ok()).count();
        assert_eq!(taken, BATCHES);
        feed.push(Batch::default());
        assert!(receiver.try_recv().is_err(), "nothing is not worth a batch");
    }

    #[test]
    fn it_is_watched_as_long_as_somebody_looks() {
        let (feed, _receiver, shared) = Feed::new();
        let (one, other) = (shared.watch(), shared.watch());
        drop(one);
        assert!(feed.is_watched());
        drop(other);
        assert!(!feed.is_watched());
    }
}
