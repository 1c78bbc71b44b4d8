//! What others are told as things go on: progress to clients, events to whoever listens.
//!
//! Called by all parts of the machine. Decides nothing.

use transload_protocol::{Event, EventRecord, SchedulerToClient, Tier, Transfer, WorkerId};

use crate::api::Action;
use crate::cost::Traffic;
use crate::graph::Progress;
use crate::machine::Scheduler;
use crate::slab::{GraphSlot, WorkerSlot};

impl Scheduler {
    /// Tells an event of our own.
    pub(crate) fn emit(&mut self, event: Event, out: &mut Vec<Action>) {
        let record = EventRecord {
            at: self.now,
            event,
        };
        if self.subscribers > 0 {
            self.events.push(record.clone());
        }
        out.push(Action::Emit(record));
    }

    /// Whether anyone hears of each task. What nobody hears of is not put together.
    pub(crate) fn tells_tasks(&self) -> bool {
        self.config.task_events || self.subscribers > 0
    }

    /// Passes a worker's events on, and counts those that `info` shows.
    pub(crate) fn forward(
        &mut self,
        worker: WorkerSlot,
        events: Vec<EventRecord>,
        out: &mut Vec<Action>,
    ) {
        for record in events {
            match &record.event {
                Event::PartitionFetched {
                    from,
                    to,
                    bytes,
                    transport,
                    micros,
                    ..
                } => self.on_fetched((*from, *to), *bytes, transport, *micros),
                Event::PartitionMoved {
                    to: Tier::Disk,
                    bytes,
                    ..
                } => {
                    let spilled = &mut self.workers.slab[worker].spilled_bytes;
                    *spilled = spilled.saturating_add(*bytes);
                }
                Event::PartitionMoved { .. }
                | Event::WorkerJoined { .. }
                | Event::WorkerLost { .. }
                | Event::GraphAccepted { .. }
                | Event::GraphEnded { .. }
                | Event::TaskAssigned { .. }
                | Event::TaskUnschedulable { .. }
                | Event::TaskFinished { .. }
                | Event::TaskFailed { .. }
                | Event::TaskRecomputed { .. }
                | Event::TaskStraggles { .. } => {}
            }
            if self.subscribers > 0 {
                self.events.push(record.clone());
            }
            out.push(Action::Emit(record));
        }
    }

    /// Counts what has come from one worker to another, and learns how long it takes.
    fn on_fetched(
        &mut self,
        (from, to): (WorkerId, WorkerId),
        bytes: u64,
        transport: &str,
        micros: u64,
    ) {
        let host = |id: WorkerId| {
            let slot = self.workers.by_id.get(&id)?;
            Some(self.workers.slab[*slot].host)
        };
        let common = self.links.between(host(from) == host(to));
        common.learn(bytes, micros);
        let traffic = self.transfers.entry((from, to)).or_insert_with(|| Traffic {
            transfer: Transfer {
                from,
                to,
                partitions: 0,
                bytes: 0,
                transport: String::new(),
            },
            link: *common,
        });
        traffic.link.learn(bytes, micros);
        let transfer = &mut traffic.transfer;
        transfer.partitions += 1;
        transfer.bytes = transfer.bytes.saturating_add(bytes);
        if transfer.transport != transport {
            transfer.transport = transport.to_owned();
        }
    }

    /// Sends the events of this step to those who subscribed.
    pub(crate) fn flush_events(&mut self, out: &mut Vec<Action>) {
        if self.events.is_empty() {
            return;
        }
        let events = std::mem::take(&mut self.events);
        for (client, _) in self.clients.iter().filter(|(_, client)| client.subscribed) {
            out.push(Action::ToClient {
                client: *client,
                message: SchedulerToClient::Events {
                    events: events.clone(),
                },
            });
        }
    }

    /// Tells clients how far their graphs are, where enough time has passed since they last heard.
    pub(crate) fn flush_progress(&mut self, out: &mut Vec<Action>) {
        while let Some((due, slot)) = self.progress_due.first().copied()
            && due <= self.now
        {
            self.tell_progress(slot, out);
        }
    }

    /// Tells a client how far its graph is, whenever it last heard.
    pub(crate) fn tell_progress(&mut self, slot: GraphSlot, out: &mut Vec<Action>) {
        let now = self.now;
        let graph = &mut self.graphs.slab[slot];
        if let Progress::Due { at } = graph.progress {
            self.progress_due.remove(&(at, slot));
        }
        graph.progress = Progress::Told { at: Some(now) };
        if graph.shared.is_orphan {
            return;
        }
        out.push(Action::ToClient {
            client: graph.id.client,
            message: SchedulerToClient::Progress {
                graph: graph.id,
                layers: graph.layers.iter().map(|layer| layer.counts).collect(),
            },
        });
    }
}
