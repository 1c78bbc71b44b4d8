//! What others are told as things go on: progress to clients, events to whoever listens.
//!
//! Called by all parts of the machine. Decides nothing.

use transload_protocol::{Event, EventRecord, SchedulerToClient, Tier, WorkerId};

use crate::api::Action;
use crate::graph::Progress;
use crate::machine::Scheduler;
use crate::slab::{GraphSlot, WorkerSlot};
use crate::traffic::Traffic;

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
                } => {
                    self.on_reached((*from, *to));
                    let traffic = self.on_fetched((*from, *to), *bytes, *micros);
                    traffic.on_fetched(*bytes, transport, record.at, *micros);
                }
                Event::LinkDemoted {
                    from,
                    to,
                    demotion,
                    used,
                } => self.traffic((*from, *to)).on_demoted(demotion, used),
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
                | Event::TaskStraggles { .. }
                | Event::WorkersApart { .. } => {}
            }
            if self.subscribers > 0 {
                self.events.push(record.clone());
            }
            out.push(Action::Emit(record));
        }
    }

    /// A partition has come from one worker to another: where it is counted, after all pairs like this one have learnt from it.
    fn on_fetched(&mut self, pair: (WorkerId, WorkerId), bytes: u64, micros: u64) -> &mut Traffic {
        let is_near = self.are_near(pair);
        self.links.between(is_near).learn(bytes, micros);
        self.traffic(pair)
    }

    fn traffic(&mut self, (from, to): (WorkerId, WorkerId)) -> &mut Traffic {
        let is_near = self.are_near((from, to));
        let link = *self.links.between(is_near);
        let traffic = self.transfers.entry((from, to));
        traffic.or_insert_with(|| Traffic::new((from, to), link))
    }

    fn are_near(&self, (from, to): (WorkerId, WorkerId)) -> bool {
        let host = |id: WorkerId| {
            let slot = self.workers.by_id.get(&id)?;
            Some(self.workers.slab[*slot].host)
        };
        host(from) == host(to)
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
