//! The machine itself: its records, and which part of it handles which input.
//!
//! Called by the driver in `runtime` and by `sim`. Knows nothing of sockets, bytes and clocks.

use std::collections::{BTreeMap, BTreeSet};

use transload_protocol::{
    Attempt, ClientHello, ClientId, EventRecord, GraphId, GraphOutcome, RequestId, Resources,
    SessionToken, TaskId, TaskRange, Time, WorkerId,
};

use crate::apart::Apart;
use crate::api::{Action, Config, Input};
use crate::bits::BitSet;
use crate::coordination::{Coordination, Step};
use crate::cost::Links;
use crate::follow::Followed;
use crate::gang::Gangs;
use crate::graph::Graph;
use crate::imports::Afterwards;
use crate::pace::QueueLimits;
use crate::place::Gathered;
use crate::ready::ReadyQueue;
use crate::recall::Recalls;
use crate::restore::Recovery;
use crate::session::Presence;
use crate::slab::{GraphSlot, Slab, TaskAt, WorkerSlot};
use crate::steal::Steals;
use crate::timers::Timers;
use crate::traffic::Traffic;
use crate::worker::Workers;

/// Decides where and when each task of each graph runs.
///
/// Feed it with [`Scheduler::handle`] and carry out the actions in order. It never blocks and never fails: what peers do wrong
/// ends in actions, too.
#[derive(Debug)]
pub struct Scheduler {
    pub(crate) config: Config,
    /// The time of the step.
    pub(crate) now: Time,
    /// A client asked for shutdown: nothing is handled any more.
    pub(crate) stopped: bool,
    pub(crate) clients: BTreeMap<ClientId, Client>,
    pub(crate) workers: Workers,
    pub(crate) graphs: Graphs,
    pub(crate) ready: ReadyQueue,
    pub(crate) gangs: Gangs,
    /// Cancelled attempts that their workers have not answered. They outlive their graphs.
    pub(crate) cancels: BTreeMap<TaskId, OpenCancel>,
    /// Graphs that must end in time.
    pub(crate) graph_limits: Timers<GraphSlot>,
    /// Running attempts that must.
    pub(crate) attempt_limits: Timers<TaskAt>,
    /// Tasks that wait before they are tried again.
    pub(crate) retries: Timers<TaskAt>,
    pub(crate) transfers: BTreeMap<(WorkerId, WorkerId), Traffic>,
    pub(crate) links: Links,
    /// Workers that cannot fetch from each other.
    pub(crate) apart: Apart,
    pub(crate) steals: Steals,
    pub(crate) recalls: Recalls,
    pub(crate) coordination: Coordination,
    /// What is published.
    pub(crate) names: BTreeMap<String, TaskRange>,
    /// What this step means for graphs that import from each other, until its end.
    pub(crate) afterwards: Vec<Afterwards>,
    /// Graphs that nobody may need any more, once all of that is done.
    pub(crate) perhaps_over: Vec<GraphId>,
    /// Graphs about which their clients are to be told something, by time.
    pub(crate) progress_due: BTreeSet<(Time, GraphSlot)>,
    /// No worker can have been silent for too long before this.
    pub(crate) liveness_check: Option<Time>,
    /// Counts assignments, to tell reports from before and after.
    pub(crate) assignments: u32,
    /// Counts accepted graphs.
    pub(crate) accepted: u32,
    /// Events of this step, for subscribed clients.
    pub(crate) events: Vec<EventRecord>,
    pub(crate) subscribers: u32,
    /// Workers with tasks handed to them in this step.
    pub(crate) assigning: Vec<WorkerSlot>,
    /// Workers with something to release in this step.
    pub(crate) releasing: Vec<WorkerSlot>,
    /// Scratch: workers that got room, or a task in their own queue, in this step.
    pub(crate) with_room: Vec<WorkerSlot>,
    /// Tasks that are done, and from which something is still to follow in this step.
    pub(crate) followed: Followed,
    /// Scratch: tasks that read something that is done now.
    pub(crate) readers: Vec<u32>,
    /// Scratch: tasks that may have become unneeded.
    pub(crate) unneeded: Vec<u32>,
    /// Scratch of `place`: bytes by worker slot, valid where `weighed` equals `weighing`.
    pub(crate) weights: Vec<u64>,
    pub(crate) weighed: Vec<u32>,
    pub(crate) weighing: u32,
    pub(crate) holders: Vec<WorkerSlot>,
    /// Scratch of `place`: what a task reads.
    pub(crate) gathered: Vec<Gathered>,
    /// Clients whose connection broke, and which may come back.
    pub(crate) away: u32,
    /// Takes the place of another scheduler, and waits for that one's workers.
    pub(crate) recovery: Option<Recovery>,
    /// Attempts up to this one may have been handed out by earlier schedulers.
    pub(crate) attempt_base: u32,
    /// No worker was given this id or a higher one.
    pub(crate) next_worker: u32,
    /// No client was given this id or a higher one.
    pub(crate) next_client: u32,
}

/// What the scheduler remembers of a client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) name: String,
    pub(crate) subscribed: bool,
    /// Its graphs that have a record and that it has not left.
    pub(crate) graphs: BTreeSet<GraphId>,
    /// Worker slots whose addresses it was told.
    pub(crate) told: BitSet,
    /// What it shows to come back after its connection broke, if it can.
    pub(crate) session: Option<SessionToken>,
    pub(crate) presence: Presence,
    /// How its last graphs ended that have no record any more, should it have missed that. Only with a session.
    pub(crate) ended: BTreeMap<GraphId, GraphOutcome>,
    /// What it holds beside its graphs, by the calls that asked for it.
    pub(crate) holds: BTreeMap<RequestId, TaskRange>,
    /// Its last holds that ended with their graphs, and how. Only with a session.
    pub(crate) over: BTreeMap<RequestId, GraphOutcome>,
}

impl Client {
    pub(crate) fn new(name: String) -> Self {
        Self {
            name,
            subscribed: false,
            graphs: BTreeSet::new(),
            told: BitSet::default(),
            session: None,
            presence: Presence::Here,
            ended: BTreeMap::new(),
            holds: BTreeMap::new(),
            over: BTreeMap::new(),
        }
    }
}

/// An attempt that was cancelled and whose end its worker has not reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OpenCancel {
    pub(crate) worker: WorkerSlot,
    pub(crate) attempt: Attempt,
    /// What it occupies until then.
    pub(crate) resources: Resources,
}

/// All graphs that have a record.
#[derive(Debug)]
pub(crate) struct Graphs {
    pub(crate) slab: Slab<GraphSlot, Graph>,
    pub(crate) by_id: BTreeMap<GraphId, GraphSlot>,
}

impl Graphs {
    /// The task, if its graph has a record and so many tasks.
    pub(crate) fn find(&self, id: TaskId) -> Option<TaskAt> {
        let graph = *self.by_id.get(&id.graph)?;
        ((id.index as usize) < self.slab[graph].tasks.len()).then_some(TaskAt {
            graph,
            index: id.index,
        })
    }
}

impl Scheduler {
    /// A scheduler that knows nobody.
    pub fn new(config: Config) -> Self {
        Self {
            workers: Workers::new(QueueLimits {
                least: config.queue_per_slot,
                most: config.max_queue_per_slot,
            }),
            coordination: Coordination::new(config.coordination),
            config,
            now: Time::default(),
            stopped: false,
            clients: BTreeMap::new(),
            graphs: Graphs {
                slab: Slab::new(),
                by_id: BTreeMap::new(),
            },
            ready: ReadyQueue::default(),
            gangs: Gangs::default(),
            cancels: BTreeMap::new(),
            graph_limits: Timers::default(),
            attempt_limits: Timers::default(),
            retries: Timers::default(),
            transfers: BTreeMap::new(),
            links: Links::default(),
            apart: Apart::default(),
            steals: Steals::default(),
            recalls: Recalls::default(),
            names: BTreeMap::new(),
            afterwards: Vec::new(),
            perhaps_over: Vec::new(),
            progress_due: BTreeSet::new(),
            liveness_check: None,
            assignments: 0,
            accepted: 0,
            events: Vec::new(),
            subscribers: 0,
            assigning: Vec::new(),
            releasing: Vec::new(),
            with_room: Vec::new(),
            followed: Followed::default(),
            readers: Vec::new(),
            unneeded: Vec::new(),
            weights: Vec::new(),
            weighed: Vec::new(),
            weighing: 1,
            holders: Vec::new(),
            gathered: Vec::new(),
            away: 0,
            recovery: None,
            attempt_base: 0,
            next_worker: 0,
            next_client: 0,
        }
    }

    /// Takes in what happened at `now` and appends what is to be done about it, in order: [`Scheduler::take_in`] and then
    /// [`Scheduler::decide`].
    pub fn handle(&mut self, now: Time, input: Input, out: &mut Vec<Action>) {
        self.take_in(now, input, out);
        self.decide(out);
    }

    /// Takes in what happened at `now`, and appends what follows from that alone. When all that has arrived is taken in,
    /// [`Scheduler::decide`] must be called.
    pub fn take_in(&mut self, now: Time, input: Input, out: &mut Vec<Action>) {
        if self.stopped {
            return;
        }
        self.now = self.now.max(now);
        if !input.may_go_before_what_follows() {
            self.follow_done(out);
        }
        match input {
            Input::ClientConnected { client, hello } => self.on_client_connected(client, hello),
            Input::FromClient { client, message } => self.on_client_message(client, message, out),
            Input::ClientLost { client } => self.on_client_lost(client, out),
            Input::WorkerConnected { worker, hello } => {
                self.on_worker_connected(worker, hello, out)
            }
            Input::FromWorker { worker, message } => self.on_worker_message(worker, message, out),
            Input::WorkerLost { worker, reason } => self.on_worker_lost(worker, &reason, out),
            Input::Tick => self.on_tick(out),
            Input::SessionOpened { client, token } => self.on_session_opened(client, token, out),
            Input::ClientReturned { client } => self.on_client_returned(client, out),
            Input::WorkerReturned {
                worker,
                hello,
                inventory,
            } => self.on_worker_returned(worker, hello, inventory, out),
        }
        self.follow_imports(out);
        self.spare_the_absent(out);
    }

    /// Decides what follows from everything that was taken in: which tasks go where, what is dropped, who is told. Costs the same for
    /// one input as for many, beside the tasks that it hands out.
    pub fn decide(&mut self, out: &mut Vec<Action>) {
        if self.stopped {
            return;
        }
        self.follow_done(out);
        self.pronounce_verdicts(out);
        self.flush_releases(out);
        if self.recovery.is_none() {
            self.place(out);
        }
        self.workers.relist(self.now);
        self.flush_releases(out);
        self.flush_assignments(out);
        self.recall(out);
        self.flush_progress(out);
        self.flush_events(out);
        self.spare_the_absent(out);
    }

    /// When an [`Input::Tick`] is wanted, if nothing else happens before.
    pub fn next_deadline(&self) -> Option<Time> {
        let progress = self.progress_due.first().map(|(due, _)| *due);
        let recovery = self.recovery.as_ref().map(|recovery| recovery.until);
        let absence = self.next_absence_end();
        let coordination = self.coordination.next_deadline();
        let stuck = self.next_stuck_end();
        let members = [
            self.liveness_check,
            recovery,
            absence,
            self.next_apart_due(),
        ];
        let others = [progress, coordination, self.retries.next_due(), stuck];
        let limits = [self.graph_limits.next_due(), self.attempt_limits.next_due()];
        let all = members.into_iter().chain(others).chain(limits);
        all.flatten().min()
    }

    fn on_client_connected(&mut self, client: ClientId, hello: ClientHello) {
        self.next_client = self.next_client.max(client.0.saturating_add(1));
        self.clients
            .entry(client)
            .or_insert_with(|| Client::new(hello.name));
    }

    fn on_tick(&mut self, out: &mut Vec<Action>) {
        if let Some(due) = self.liveness_check
            && due <= self.now
        {
            self.drop_silent_workers(due, out);
        }
        self.end_recovery_if_due(out);
        self.end_absences(out);
        self.end_waits_before_retries();
        self.end_limits(out);
        self.end_breaks();
        let now = self.now;
        self.coordination.on_tick(&mut Step { now, out });
    }
}
