//! What is remembered of a cluster, within bounds, and what is new since somebody was last told. Fed by the dashboard's task; knows neither
//! sockets nor clocks.

mod pending;
mod remembered;

use std::collections::{BTreeMap, VecDeque};

use transload_protocol::{ClusterInfo, Event, EventRecord, TaskId, Time, WorkerId};

use crate::feed::{AssignedTasks, Batch, RanTask};
use crate::lanes::Lanes;
use crate::view::{Frame, Note, Pair, Sample, Totals, Worker};
use crate::words;

use pending::{Carried, Pending, Ran, Shifted};
use remembered::Remembered;

/// Most of each that is remembered. All together some 30 MB, where texts are not long.
const MOST_SPANS: usize = 65_536;
const MOST_TRANSFERS: usize = 16_384;
const MOST_MOVES: usize = 16_384;
const MOST_NOTES: usize = 1_000;
const MOST_SAMPLES: usize = 60_000;
const MOST_LOST: usize = 64;
/// Most pairs of workers of which is told what has moved between them.
const MOST_PAIRS: usize = 4_096;

/// What is remembered.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// From a worker's clock to the scheduler's, in microseconds: the least difference seen, as messages take their time.
    offsets: BTreeMap<WorkerId, i64>,
    graphs: Remembered,
    workers: Vec<Worker>,
    /// Oldest first.
    lost: VecDeque<Worker>,
    lanes: Lanes,
    slots: BTreeMap<WorkerId, u32>,
    pairs: Vec<Pair>,
    totals: Totals,
    /// Of workers that are gone.
    finished_before: u64,
    spilled_before: u64,
    last_sample_us: Option<u64>,
    pending: Pending,
    told: Told,
}

/// What others have been told.
#[derive(Debug, Default)]
struct Told {
    spans: VecDeque<crate::view::Span>,
    transfers: VecDeque<crate::view::Transfer>,
    moves: VecDeque<crate::view::Move>,
    notes: VecDeque<Note>,
    memory: VecDeque<Sample>,
}

impl History {
    /// What one step of the scheduler brought about.
    pub(crate) fn take(&mut self, batch: Batch) {
        for info in &batch.graphs {
            self.graphs.accept(info, batch.now.micros);
        }
        for AssignedTasks {
            worker,
            graph,
            layer,
            count,
        } in batch.assigned
        {
            self.pending.assigned((worker, graph, layer.0), count);
        }
        for RanTask {
            task,
            worker,
            bytes,
            rows,
            run_micros,
        } in batch.ran
        {
            self.ran(batch.now, (task, worker), run_micros, (bytes, rows), None);
        }
        for record in batch.events {
            self.take_event(batch.now, record);
        }
    }

    fn take_event(&mut self, now: Time, record: EventRecord) {
        match &record.event {
            Event::TaskFailed {
                task,
                worker,
                message,
                run_micros,
            } => {
                let failed = Some(words::cut(message));
                self.ran(now, (*task, *worker), *run_micros, (0, 0), failed);
            }
            Event::PartitionFetched {
                partition,
                from,
                to,
                bytes,
                transport,
                micros,
            } => {
                let end_us = self.on_our_clock(*to, now, record.at);
                self.totals.moved_bytes = self.totals.moved_bytes.saturating_add(*bytes);
                self.pending.carried(Carried {
                    partition: *partition,
                    pair: (*from, *to),
                    start_us: end_us.saturating_sub(*micros),
                    end_us,
                    bytes: *bytes,
                    count: 1,
                    transport: transport.as_str().into(),
                });
            }
            Event::PartitionMoved {
                worker,
                from,
                to,
                bytes,
                micros,
                ..
            } => {
                let end_us = self.on_our_clock(*worker, now, record.at);
                self.pending.shifted(Shifted {
                    worker: *worker,
                    tiers: (*from, *to),
                    start_us: end_us.saturating_sub(*micros),
                    end_us,
                    bytes: *bytes,
                    count: 1,
                });
            }
            Event::GraphEnded { graph, outcome } => {
                self.graphs.end(*graph, outcome, now.micros);
            }
            Event::WorkerLost { worker, reason } => self.lose(*worker, reason),
            // Of single tasks the batch tells otherwise.
            Event::TaskAssigned { .. }
            | Event::TaskFinished { .. }
            | Event::WorkerJoined { .. }
            | Event::GraphAccepted { .. }
            | Event::TaskRecomputed { .. }
            | Event::TaskUnschedulable { .. }
            | Event::TaskStraggles { .. }
            | Event::WorkersApart { .. }
            | Event::LinkDemoted { .. } => {}
        }
        if let Some(note) = words::note(&record.event, now.micros) {
            self.pending.note(note);
        }
    }

    fn ran(
        &mut self,
        now: Time,
        (task, worker): (TaskId, WorkerId),
        run_micros: u64,
        (bytes, rows): (u64, u64),
        failed: Option<String>,
    ) {
        // What failed is not part of what a task takes.
        let counted_micros = if failed.is_none() { run_micros } else { 0 };
        let Some(layer) = self.graphs.ran(task, counted_micros, (bytes, rows)) else {
            return;
        };
        let end_us = now.micros;
        let slots = self.slots.get(&worker).copied().unwrap_or(1);
        let time = (end_us.saturating_sub(run_micros), end_us);
        let (lane, start_us) = self.lanes.place(worker, slots as usize, time);
        self.pending.ran(Ran {
            task,
            layer,
            worker,
            lane,
            start_us,
            end_us,
            bytes,
            count: 1,
            failed: failed.map(Into::into),
        });
    }

    fn on_our_clock(&mut self, worker: WorkerId, now: Time, theirs: Time) -> u64 {
        let difference = now.micros.wrapping_sub(theirs.micros) as i64;
        let offset = self.offsets.entry(worker).or_insert(difference);
        *offset = difference.min(*offset);
        theirs.micros.saturating_add_signed(*offset)
    }

    fn lose(&mut self, worker: WorkerId, reason: &str) {
        self.lanes.forget(worker);
        self.slots.remove(&worker);
        self.offsets.remove(&worker);
        let id = worker.to_string();
        let Some(at) = self.workers.iter().position(|it| it.id == id) else {
            return;
        };
        let gone = Worker {
            lost: Some(words::cut(reason)),
            running: Vec::new(),
            ..self.workers.remove(at)
        };
        self.finished_before = self.finished_before.saturating_add(gone.finished);
        self.spilled_before = self.spilled_before.saturating_add(gone.spilled_bytes);
        self.lost.push_back(gone);
        bound(&mut self.lost, MOST_LOST);
    }

    /// The cluster as it is at that moment.
    pub(crate) fn see(&mut self, info: &ClusterInfo, now_us: u64, dropped_events: u64) {
        self.graphs.see(&info.graphs, now_us);
        let layer_of = |task| self.graphs.layer_of(task);
        let workers = info.workers.iter();
        self.slots = workers
            .clone()
            .map(|it| (it.worker, it.hello.resources.slots))
            .collect();
        self.workers = workers.map(|it| words::worker(it, layer_of)).collect();
        let pairs = info.transfers.iter().take(MOST_PAIRS);
        self.pairs = pairs.map(words::pair).collect();
        let sum = |value: fn(&Worker) -> u64| {
            let values = self.workers.iter().map(value);
            values.fold(0, u64::saturating_add)
        };
        self.totals = Totals {
            clients: info.clients,
            graphs_running: info.graphs_running,
            tasks_ready: info.tasks_ready,
            tasks_finished: self.finished_before.saturating_add(sum(|it| it.finished)),
            moved_bytes: self.totals.moved_bytes,
            spilled_bytes: self
                .spilled_before
                .saturating_add(sum(|it| it.spilled_bytes)),
            dropped_events,
        };
        self.sample(now_us);
    }

    /// Once a second.
    fn sample(&mut self, now_us: u64) {
        if self
            .last_sample_us
            .is_some_and(|last| now_us < last + 1_000_000)
        {
            return;
        }
        self.last_sample_us = Some(now_us);
        let used = |worker: &Worker, tier: &str| {
            let usage = worker.tiers.iter().find(|it| it.tier == tier);
            usage.map_or(0, |it| it.used_bytes)
        };
        for worker in &self.workers {
            self.pending.sample(Sample {
                at_us: now_us,
                worker: worker.id.clone(),
                used_bytes: ["host", "disk", "device", "pinned"].map(|tier| used(worker, tier)),
                resident_bytes: worker.resident_bytes,
            });
        }
    }

    /// What is new. From now on it is old. With the workers where that is asked for.
    pub(crate) fn news(&mut self, now_us: u64, with_workers: bool) -> Frame {
        let frame = Frame {
            now_us,
            totals: self.totals,
            workers: with_workers.then(|| self.all_workers()),
            pairs: with_workers.then(|| self.pairs.clone()),
            graphs: self.graphs.changed(),
            ..self.pending.flush()
        };
        remember(&mut self.told.spans, &frame.spans, MOST_SPANS);
        remember(&mut self.told.transfers, &frame.transfers, MOST_TRANSFERS);
        remember(&mut self.told.moves, &frame.moves, MOST_MOVES);
        remember(&mut self.told.notes, &frame.notes, MOST_NOTES);
        remember(&mut self.told.memory, &frame.memory, MOST_SAMPLES);
        frame
    }

    /// All that is remembered, but for what is new.
    pub(crate) fn whole(&self, now_us: u64) -> Frame {
        Frame {
            whole: true,
            now_us,
            totals: self.totals,
            workers: Some(self.all_workers()),
            graphs: self.graphs.all(),
            assignments: Vec::new(),
            spans: self.told.spans.iter().cloned().collect(),
            transfers: self.told.transfers.iter().cloned().collect(),
            moves: self.told.moves.iter().cloned().collect(),
            notes: self.told.notes.iter().cloned().collect(),
            memory: self.told.memory.iter().cloned().collect(),
            pairs: Some(self.pairs.clone()),
        }
    }

    fn all_workers(&self) -> Vec<Worker> {
        self.workers.iter().chain(&self.lost).cloned().collect()
    }
}

fn remember<T: Clone>(told: &mut VecDeque<T>, new: &[T], most: usize) {
    told.extend(new.iter().cloned());
    bound(told, most);
}

fn bound<T>(all: &mut VecDeque<T>, most: usize) {
    let surplus = all.len().saturating_sub(most);
    all.drain(..surplus);
}

#[cfg(test)]
mod tests;
