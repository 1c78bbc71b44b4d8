//! Clients whose connection breaks: their graphs go on for a while, and when they come back they are told what they missed.
//!
//! Called by `machine` and `clients`. Only clients with a session can come back; others are gone with their connection.

use std::collections::BTreeSet;

use transload_protocol::{
    ClientId, GraphId, GraphOutcome, JournalEntry, SchedulerToClient, SessionToken, TaskGraph, Time,
};

use crate::api::Action;
use crate::bits::BitSet;
use crate::coordination::Step;
use crate::graph::Phase;
use crate::machine::{Client, Scheduler};
use crate::slab::TaskAt;

/// For so long a client that is back may keep us waiting for its `Resume`.
const RESUME_MICROS: u64 = 30_000_000;

/// Later than this after a deadline, a client that is away gets another chance.
const LATE_MICROS: u64 = 20_000;

/// Whether a client hears what it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// It is connected.
    Here,
    /// Its connection broke.
    Away {
        /// When it counts as gone.
        until: Time,
    },
}

impl Scheduler {
    /// Whether a client with this id and token may come back.
    pub fn knows_client(&self, client: ClientId, token: SessionToken) -> bool {
        let record = self.clients.get(&client);
        record.is_some_and(|record| record.session == Some(token))
    }

    /// No client was ever given this id or a higher one.
    pub fn next_client(&self) -> ClientId {
        ClientId(self.next_client)
    }

    pub(crate) fn on_session_opened(
        &mut self,
        client: ClientId,
        token: SessionToken,
        out: &mut Vec<Action>,
    ) {
        let Some(record) = self.clients.get_mut(&client) else {
            return;
        };
        record.session = Some(token);
        let name = record.name.clone();
        let entry = || JournalEntry::ClientJoined {
            client,
            name,
            token,
        };
        self.record(entry, out);
    }

    pub(crate) fn on_client_lost(&mut self, client: ClientId, out: &mut Vec<Action>) {
        let Some(record) = self.clients.get_mut(&client) else {
            return;
        };
        let grace = u64::from(self.config.client_grace_ms) * 1_000;
        if record.session.is_none() || grace == 0 {
            self.on_client_left(client, out);
            return;
        }
        let until = self.now.after_micros(grace);
        self.set_away(client, until);
        self.end_calls_of(client, out);
    }

    fn set_away(&mut self, client: ClientId, until: Time) {
        let Some(record) = self.clients.get_mut(&client) else {
            return;
        };
        if record.subscribed {
            // It subscribes again when it comes back.
            record.subscribed = false;
            self.subscribers -= 1;
        }
        self.away += u32::from(record.presence == Presence::Here);
        record.presence = Presence::Away { until };
    }

    /// A client of an earlier scheduler, which has not come back yet.
    pub(crate) fn insert_absent(&mut self, id: ClientId, client: Client, until: Time) {
        self.clients.insert(id, client);
        self.set_away(id, until);
    }

    /// Its locks and the like lived with its connection.
    fn end_calls_of(&mut self, client: ClientId, out: &mut Vec<Action>) {
        let step = &mut Step { now: self.now, out };
        self.coordination.on_client_lost(client, step);
    }

    /// It is told nothing before it has said with `Resume` what it knows.
    pub(crate) fn on_client_returned(&mut self, client: ClientId, out: &mut Vec<Action>) {
        // The end of the old connection may not have been seen yet.
        self.set_away(client, self.now.after_micros(RESUME_MICROS));
        self.end_calls_of(client, out);
    }

    /// When the first absent client counts as gone.
    pub(crate) fn next_absence_end(&self) -> Option<Time> {
        if self.away == 0 {
            return None;
        }
        self.absences().map(|(until, _)| until).min()
    }

    fn absences(&self) -> impl Iterator<Item = (Time, ClientId)> {
        self.clients
            .iter()
            .filter_map(|(client, record)| match record.presence {
                Presence::Here => None,
                Presence::Away { until } => Some((until, *client)),
            })
    }

    pub(crate) fn end_absences(&mut self, out: &mut Vec<Action>) {
        if self.away == 0 {
            return;
        }
        let over: Vec<(Time, ClientId)> = self
            .absences()
            .filter(|(until, _)| *until <= self.now)
            .collect();
        let grace = u64::from(self.config.client_grace_ms) * 1_000;
        for (until, client) in over {
            if self.now.micros_since(until) > LATE_MICROS {
                // We were busy or asleep ourselves, and it may be waiting at the door.
                self.set_away(client, self.now.after_micros(grace));
            } else {
                self.on_client_left(client, out);
            }
        }
    }

    /// Takes back what was said to clients that are not there to hear it; they are told again when they come back.
    #[inline]
    pub(crate) fn spare_the_absent(&self, out: &mut Vec<Action>) {
        if self.away > 0 {
            self.drop_what_absent_miss(out);
        }
    }

    fn drop_what_absent_miss(&self, out: &mut Vec<Action>) {
        out.retain(|action| match action {
            Action::ToClient { client, .. } => self
                .clients
                .get(client)
                .is_none_or(|record| record.presence == Presence::Here),
            Action::ToWorker { .. }
            | Action::DropWorker { .. }
            | Action::Emit(_)
            | Action::Stop
            | Action::Record(_) => true,
        });
    }

    /// A client that came back names all graphs it knows: the others are of no use to anybody, and of these it is told
    /// everything anew.
    pub(crate) fn on_resume(
        &mut self,
        client: ClientId,
        accepted: &[GraphId],
        submitted: &[GraphId],
        out: &mut Vec<Action>,
    ) {
        let Some(record) = self.clients.get_mut(&client) else {
            return;
        };
        if record.presence != Presence::Here {
            self.away -= 1;
            record.presence = Presence::Here;
            record.told = BitSet::default();
        }
        let known: BTreeSet<&GraphId> = accepted.iter().chain(submitted).collect();
        let mut dropped: Vec<GraphId> = record.graphs.iter().copied().collect();
        dropped.retain(|graph| !known.contains(graph));
        for graph in dropped {
            if let Some(slot) = self.owned(client, graph) {
                self.leave(slot, out);
            }
        }
        for graph in submitted {
            if self.is_remembered(client, *graph) {
                let message = SchedulerToClient::Accepted { graph: *graph };
                out.push(Action::ToClient { client, message });
                self.tell_anew(client, *graph, out);
            }
        }
        for graph in accepted {
            self.tell_anew(client, *graph, out);
        }
    }

    pub(crate) fn on_resubmit(
        &mut self,
        client: ClientId,
        id: GraphId,
        tasks: TaskGraph,
        out: &mut Vec<Action>,
    ) {
        if !self.is_remembered(client, id) {
            self.on_submit(client, id, tasks, out);
        }
    }

    /// Whether the graph was accepted, as far as anything is left of it.
    fn is_remembered(&self, client: ClientId, graph: GraphId) -> bool {
        let ended = |client: &Client| client.ended.contains_key(&graph);
        self.owned(client, graph).is_some() || self.clients.get(&client).is_some_and(ended)
    }

    /// Tells everything about a graph to a client that may have missed it: where its outputs are, how far it is, how it
    /// ended. One of which nobody knows anything counts as cancelled.
    fn tell_anew(&mut self, client: ClientId, graph: GraphId, out: &mut Vec<Action>) {
        let Some(slot) = self.owned(client, graph) else {
            let record = self.clients.get(&client);
            let outcome = record.and_then(|record| record.ended.get(&graph).cloned());
            let outcome = outcome.unwrap_or(GraphOutcome::Cancelled);
            let message = SchedulerToClient::Ended { graph, outcome };
            out.push(Action::ToClient { client, message });
            return;
        };
        for index in 0..self.graphs.slab[slot].compiled.task_count() {
            self.announce(TaskAt { graph: slot, index }, out);
        }
        self.tell_progress(slot, out);
        match self.graphs.slab[slot].phase {
            Phase::Running => {}
            Phase::Finished => {
                let outcome = GraphOutcome::Finished;
                let message = SchedulerToClient::Ended { graph, outcome };
                out.push(Action::ToClient { client, message });
            }
        }
    }
}
