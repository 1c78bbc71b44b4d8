//! Broken connections and schedulers that take each other's place, among the fakes.

use std::collections::BTreeSet;

use transload_protocol::{
    ClientId, ClientMessage, ClusterId, GraphId, JournalEntry, SessionToken, TaskId, WorkerId,
};

use super::{CLIENT, Cluster};
use crate::task::TaskState;
use crate::{Config, Facts, Input, Scheduler};

fn token_of(client: ClientId) -> SessionToken {
    SessionToken(7 + u64::from(client.0))
}

impl Cluster {
    /// A scheduler that keeps a journal, with one client that can come back and no workers.
    pub(crate) fn journaled(config: Config) -> Self {
        let mut cluster = Self::with(Config {
            journal: true,
            ..config
        });
        cluster.journal.push(JournalEntry::Begin {
            cluster: ClusterId(1),
            epoch: 0,
            next_client: 0,
            next_worker: 0,
        });
        cluster.open_session(CLIENT);
        cluster
    }

    /// The client can come back.
    pub(crate) fn open_session(&mut self, client: ClientId) {
        let token = token_of(client);
        self.feed(Input::SessionOpened { client, token });
    }

    pub(crate) fn is_cut_off(&self) -> bool {
        self.cut_off.contains(&CLIENT)
    }

    /// The journal, all entries taken together.
    pub(crate) fn facts(&self) -> Facts {
        let mut facts = Facts::default();
        for entry in self.journal.iter().cloned() {
            facts.add(entry);
        }
        facts
    }

    /// Stored tasks that somebody still needs.
    pub(crate) fn stored(&self) -> BTreeSet<TaskId> {
        let graphs = self.scheduler.graphs.slab.iter();
        let tasks = graphs.flat_map(|(_, graph)| {
            let is_stored = |index: &u32| graph.tasks[*index as usize].state.is_stored();
            let tasks = 0..graph.compiled.task_count();
            tasks.filter(is_stored).map(|index| graph.task_id(index))
        });
        tasks.collect()
    }

    pub(crate) fn state_of(&self, task: TaskId) -> Option<&TaskState> {
        let at = self.scheduler.graphs.find(task)?;
        Some(&self.scheduler.graphs.slab[at.graph].tasks[at.index as usize].state)
    }

    /// The scheduler is gone, and another one takes its place, made of nothing but the journal.
    pub(crate) fn crash(&mut self) {
        let facts = self.facts();
        let mut again = Facts::default();
        // What is left after the journal is made shorter says the same.
        for entry in self.scheduler.facts() {
            again.add(entry);
        }
        (again.cluster, again.epoch) = (facts.cluster, facts.epoch);
        again.next_client = facts.next_client;
        again.next_worker = facts.next_worker;
        assert_eq!(simplified(again), simplified(facts.clone()));

        let epoch = facts.epoch + 1;
        self.journal.push(JournalEntry::Begin {
            cluster: ClusterId(1),
            epoch,
            next_client: facts.next_client,
            next_worker: facts.next_worker,
        });
        let config = self.scheduler.config.clone();
        let mut actions = Vec::new();
        self.scheduler =
            Scheduler::restore(config, self.now, facts, &mut actions).expect("valid graphs");
        self.scheduler.check().expect("sound");
        for (id, mut worker) in std::mem::take(&mut self.workers) {
            worker.disconnect();
            self.absent.insert(id, worker);
        }
        self.cut_off = self.clients.keys().copied().collect();
        for action in actions {
            self.carry_out(action);
        }
    }

    /// A worker's connection breaks, and the scheduler sees it.
    pub(crate) fn cut(&mut self, worker: WorkerId) {
        let mut fake = self.workers.remove(&worker).expect("alive");
        fake.disconnect();
        self.absent.insert(worker, fake);
        self.feed(Input::WorkerLost {
            worker,
            reason: "broken connection".to_owned(),
        });
    }

    pub(crate) fn worker_returns(&mut self, worker: WorkerId) {
        let fake = self.absent.remove(&worker).expect("away");
        assert!(self.scheduler.knows_worker(worker));
        let inventory = fake.inventory();
        self.workers.insert(worker, fake);
        for client in self.clients.values_mut() {
            client.peers.remove(&worker);
        }
        self.feed(Input::WorkerReturned {
            worker,
            hello: self.hellos[&worker].clone(),
            inventory,
        });
    }

    pub(crate) fn all_return(&mut self) {
        while let Some(worker) = self.absent.keys().next().copied() {
            self.worker_returns(worker);
        }
        self.client_returns();
    }

    pub(crate) fn cut_client(&mut self) {
        self.cut_off_client(CLIENT);
    }

    pub(crate) fn cut_off_client(&mut self, client: ClientId) {
        self.cut_off.insert(client);
        self.feed(Input::ClientLost { client });
    }

    /// All clients come back that are away.
    pub(crate) fn client_returns(&mut self) {
        while let Some(client) = self.cut_off.pop_first() {
            self.returns(client);
        }
    }

    pub(crate) fn returns(&mut self, client: ClientId) {
        self.cut_off.remove(&client);
        let token = token_of(client);
        assert!(self.scheduler.knows_client(client, token));
        assert!(!self.scheduler.knows_client(client, SessionToken(99)));
        assert!(!self.scheduler.knows_client(ClientId(99), token));
        let fake = self.clients.get_mut(&client).expect("known");
        fake.peers.clear();
        fake.outputs.clear();
        let all = (0..fake.submitted).map(|sequence| GraphId { client, sequence });
        let (accepted, submitted): (Vec<GraphId>, Vec<GraphId>) = all
            .filter(|graph| !fake.rejected.contains_key(graph) && !fake.left.contains(graph))
            .partition(|graph| fake.accepted.contains(graph));
        fake.retold = accepted.iter().chain(&submitted).copied().collect();
        let holds = fake.holds.clone();
        self.feed(Input::ClientReturned { client });
        let resume = ClientMessage::Resume {
            accepted,
            submitted: submitted.clone(),
            holds: holds.keys().copied().collect(),
        };
        self.tell_as(client, resume);
        for graph in submitted {
            let tasks = self.submitted[&graph].clone();
            self.tell_as(client, ClientMessage::Resubmit { graph, tasks });
        }
        for (request, call) in holds {
            self.tell_as(client, ClientMessage::Share { request, call });
        }
    }

    /// So much time passes.
    pub(crate) fn wait_ms(&mut self, millis: u64) {
        self.now = self.now.after_micros(millis * 1_000);
        self.feed(Input::Tick);
    }
}

/// Without what does not matter: numbers of graphs, releases of what is released already, and releases that had nobody's ear.
fn simplified(facts: Facts) -> (Facts, Vec<(GraphId, BTreeSet<TaskId>)>) {
    let mut rest = facts;
    let graphs = std::mem::take(&mut rest.graphs);
    let mut plain = Facts::default();
    (plain.cluster, plain.epoch) = (rest.cluster, rest.epoch);
    (plain.next_client, plain.next_worker) = (rest.next_client, rest.next_worker);
    (plain.clients, plain.workers) = (rest.clients, rest.workers);
    let graphs = graphs.into_values().map(|graph| {
        let compiled = graph.tasks.clone().compile().expect("valid");
        let is_kept = |task: &TaskId| {
            let place = compiled.locate(task.index);
            place.is_some_and(|(layer, _)| compiled.is_kept(layer))
        };
        let released = graph.released.into_iter().filter(is_kept);
        (graph.id, released.collect())
    });
    (plain, graphs.collect())
}
