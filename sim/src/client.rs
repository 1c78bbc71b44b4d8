//! A simulated client: submits graphs, reads what it keeps, releases it, and misbehaves as its script says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use transload_protocol::{
    ClientId, ClientMessage, GraphId, GraphOutcome, OutputLocation, PartitionId, RequestId,
    TaskGraph, TaskId, Time, WorkerId,
};

use crate::graphs::GraphPlan;
use crate::network::{Happening, Link};
use crate::world::{Step, World};

mod messages;
mod reading;
mod script;
mod sharing;

use sharing::Shares;

/// What a client does by its script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Connect,
    Submit {
        graph: usize,
    },
    Cancel {
        graph: usize,
    },
    ReleaseEarly {
        graph: usize,
    },
    Read {
        graph: usize,
    },
    Release {
        graph: usize,
    },
    /// Its handle of a graph is dropped.
    Leave {
        graph: usize,
    },
    /// What was scattered is not offered any more.
    KeepNoCopy {
        graph: usize,
    },
    Share,
    LetGo {
        request: RequestId,
    },
    /// All names are taken away.
    Sweep,
    Chatter,
    Vanish,
    Shutdown,
}

/// How far a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    Planned,
    Connected,
    Gone,
}

/// How far a graph is, as its client knows.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Status {
    Planned,
    Submitted,
    Running,
    /// Finished, and something of it is still held.
    Held,
    /// Nothing more will come of it.
    Over,
}

/// A graph as its client sees it.
struct Submission {
    id: Option<GraphId>,
    /// Its time has come; it is submitted as soon as the client is connected.
    due: bool,
    /// None for a graph that must be refused.
    plan: Option<Arc<GraphPlan>>,
    tasks: TaskGraph,
    status: Status,
    outcome: Option<GraphOutcome>,
    /// Tasks whose outputs are kept and not released.
    held: BTreeSet<u32>,
    located: BTreeMap<u32, OutputLocation>,
    /// Outputs read so far, of tasks not read whole.
    partly_read: BTreeMap<u32, BTreeSet<u32>>,
    /// Tasks of which every output was read and right.
    read: BTreeSet<u32>,
    /// Each output is read and released as soon as it is there.
    streams: bool,
    /// Outputs are read now.
    reading: bool,
    cancelled: bool,
    released_early: bool,
    /// Its handle is dropped: nothing more is said of it that counts.
    left: bool,
    /// It imports what may be gone.
    may_be_refused: bool,
}

impl Submission {
    /// The client knows where all is that it holds.
    fn is_located(&self) -> bool {
        self.held
            .iter()
            .all(|index| self.located.contains_key(index))
    }
}

pub(crate) struct Client {
    pub(crate) index: usize,
    pub(crate) id: Option<ClientId>,
    presence: Presence,
    pub(crate) up: Link,
    pub(crate) down: Link,
    /// What was sent to the scheduler and would arrive later than this is lost.
    pub(crate) up_until: Time,
    /// Where workers that were announced to it are.
    peers: BTreeMap<WorkerId, usize>,
    submissions: Vec<Submission>,
    fetching: BTreeMap<PartitionId, u64>,
    shares: Shares,
    leaves_when_done: bool,
    shuts_down: bool,
    /// Its connection is broken; it will come back.
    pub(crate) is_cut_off: bool,
}

impl Client {
    pub(crate) fn is_connected(&self) -> bool {
        self.presence == Presence::Connected
    }

    /// Whether the client waits for nothing and holds nothing.
    pub(crate) fn is_done(&self) -> bool {
        self.presence == Presence::Gone
            || (self.id.is_some()
                && self.submissions.iter().all(|it| it.status == Status::Over)
                && self.shares.are_over())
    }

    /// Tasks that this client still waits for, for the message of a hang.
    pub(crate) fn waits_for(&self) -> Vec<TaskId> {
        let waiting = self
            .submissions
            .iter()
            .filter(|it| it.status != Status::Over);
        waiting
            .filter_map(|it| Some((it.id?, it.plan.as_ref()?, it)))
            .flat_map(|(graph, plan, it)| {
                (0..plan.compiled.task_count())
                    .filter(|index| !it.located.contains_key(index) && !it.read.contains(index))
                    .map(move |index| TaskId { graph, index })
            })
            .chain(self.shares.waits_for())
            .collect()
    }

    /// Whether a worker may hold a task's partitions at a moment at which nothing is under way.
    pub(crate) fn may_hold(&self, task: TaskId, worker: WorkerId) -> bool {
        if self.presence == Presence::Gone {
            return false;
        }
        let of_graph = |it: &&Submission| it.id == Some(task.graph);
        let Some(submission) = self.submissions.iter().find(of_graph) else {
            return false;
        };
        match submission.status {
            Status::Planned | Status::Over => false,
            Status::Submitted | Status::Running => true,
            // Some of it may be in the making again.
            Status::Held if !submission.is_located() => true,
            Status::Held => {
                let location = submission.located.get(&task.index);
                let is_there = location.is_some_and(|location| location.worker == worker);
                // Copies of what was broadcast stay until it is released.
                let plan = submission.plan.as_ref();
                let is_broadcast = plan.is_some_and(|plan| plan.is_broadcast(task.index));
                submission.held.contains(&task.index) && (is_there || is_broadcast)
            }
        }
    }

    /// Whether a graph of this client that is not over may read results of that one.
    pub(crate) fn imports_from(&self, graph: GraphId) -> bool {
        let live = self.submissions.iter().filter(|it| it.id.is_some());
        let live = live.filter(|it| it.status != Status::Over && self.presence != Presence::Gone);
        live.filter_map(|it| it.plan.as_ref())
            .any(|plan| plan.imports_from(graph))
    }

    /// The partitions that this client was told a worker has, of graphs that are finished and whole.
    pub(crate) fn holds_on(&self, worker: WorkerId) -> Vec<PartitionId> {
        let mut partitions = Vec::new();
        let held = self
            .submissions
            .iter()
            .filter(|it| it.status == Status::Held);
        for submission in held.filter(|it| it.is_located() && self.is_connected()) {
            let Some(graph) = submission.id else {
                continue;
            };
            let here = submission.located.iter();
            let here = here.filter(|(index, location)| {
                submission.held.contains(index) && location.worker == worker
            });
            for (index, location) in here {
                let task = TaskId {
                    graph,
                    index: *index,
                };
                let outputs = 0..location.sizes.outputs;
                partitions.extend(outputs.map(|output| PartitionId { task, output }));
            }
        }
        partitions.extend(self.shared_on(worker));
        partitions
    }

    /// What this client waits for, in words.
    pub(crate) fn describe(&self) -> String {
        let mut text = format!("client {} ({:?})", self.index, self.presence);
        for it in &self.submissions {
            let id = it.id.map(|id| id.to_string()).unwrap_or_default();
            text.push_str(&format!(
                "\n  graph {id}: {:?}, cancelled {}, released early {}, holds {:?}, located {:?}, read {:?}",
                it.status,
                it.cancelled,
                it.released_early,
                it.held,
                it.located.keys().collect::<Vec<_>>(),
                it.read
            ));
        }
        text.push_str(&self.shares.describe());
        text
    }

    fn send(&mut self, world: &mut World, message: ClientMessage) {
        // What is said to nobody is said again after `resume`.
        if self.presence != Presence::Connected || self.is_cut_off {
            return;
        }
        let at = self.up.arrival(world.now, &mut world.random);
        let client = self.index;
        world
            .agenda
            .push(at, Happening::FromClient { client, message });
    }

    /// The connection breaks: what is under way to the scheduler is lost.
    pub(crate) fn cut_off(&mut self, world: &mut World) {
        self.is_cut_off = true;
        let at = self.up.last().max(self.down.last()).max(world.now);
        let later = world.random.below(500_000);
        let client = self.index;
        world.agenda.push(
            at.after_micros(later + 1),
            Happening::ClientReturns { client },
        );
    }

    /// The connection is there again: everything that may have been lost is said once more.
    pub(crate) fn resume(&mut self, world: &mut World) {
        self.is_cut_off = false;
        let mut accepted = Vec::new();
        let mut submitted = Vec::new();
        let mut rest = Vec::new();
        for it in &mut self.submissions {
            let Some(graph) = it.id else {
                continue;
            };
            it.located.clear();
            match it.status {
                Status::Planned | Status::Over => continue,
                Status::Submitted => {
                    submitted.push(graph);
                    let tasks = it.tasks.clone();
                    rest.push(ClientMessage::Resubmit { graph, tasks });
                }
                Status::Running | Status::Held => accepted.push(graph),
            }
            if it.cancelled {
                rest.push(ClientMessage::Cancel { graph });
            }
            let kept = it.plan.iter().flat_map(|plan| plan.kept_tasks());
            let released = kept.filter(|index| !it.held.contains(index));
            let tasks: Vec<TaskId> = released.map(|index| TaskId { graph, index }).collect();
            if !tasks.is_empty() {
                rest.push(ClientMessage::Release { tasks });
            }
        }
        let (holds, shared) = self.share_again();
        rest.extend(shared);
        self.send(
            world,
            ClientMessage::Resume {
                accepted,
                submitted,
                holds,
            },
        );
        for message in rest {
            self.send(world, message);
        }
    }

    fn release(&mut self, world: &mut World, graph: usize, tasks: &[u32]) -> Step {
        let Some(submission) = self.submissions.get_mut(graph) else {
            return Ok(());
        };
        let Some(id) = submission.id else {
            return Ok(());
        };
        for index in tasks {
            submission.held.remove(index);
            submission.partly_read.remove(index);
        }
        let is_over = submission.held.is_empty() && submission.status == Status::Held;
        if is_over {
            submission.status = Status::Over;
            world.no_longer_wanted(id);
        }
        let task = |index: &u32| TaskId {
            graph: id,
            index: *index,
        };
        // In one message, or in two.
        let (first, second) = tasks.split_at(world.random.index(tasks.len() + 1));
        for part in [first, second] {
            if !part.is_empty() {
                let tasks: Vec<TaskId> = part.iter().map(task).collect();
                for task in &tasks {
                    self.forget_fetches(world, *task);
                }
                self.send(world, ClientMessage::Release { tasks });
            }
        }
        self.leave_if_done(world);
        Ok(())
    }

    fn forget_fetches(&mut self, world: &mut World, task: TaskId) {
        self.fetching.retain(|partition, fetch| {
            let stays = partition.task != task;
            if !stays {
                world.end_fetch(*fetch);
            }
            stays
        });
    }

    /// A graph is over for this client: it reads and holds nothing of it any more.
    fn end(&mut self, world: &mut World, graph: usize) {
        let Some(submission) = self.submissions.get_mut(graph) else {
            return;
        };
        submission.status = Status::Over;
        submission.held.clear();
        submission.located.clear();
        submission.partly_read.clear();
        if let Some(id) = submission.id {
            world.no_longer_wanted(id);
            self.fetching.retain(|partition, fetch| {
                let stays = partition.task.graph != id;
                if !stays {
                    world.end_fetch(*fetch);
                }
                stays
            });
        }
        self.leave_if_done(world);
    }

    fn leave_if_done(&mut self, world: &mut World) {
        if !self.is_done() || !self.is_connected() {
            return;
        }
        if self.shuts_down {
            self.shuts_down = false;
            let client = self.index;
            world.soon(
                10_000,
                Happening::ClientActs {
                    client,
                    act: Act::Shutdown,
                },
            );
        } else if self.leaves_when_done {
            self.close(world, true);
        }
    }

    /// The task whose client this is waits no more.
    pub(crate) fn abandon(&mut self, world: &mut World) {
        if self.presence == Presence::Planned {
            self.presence = Presence::Gone;
        }
        self.close(world, false);
    }

    /// The connection ends, from this side: in good order, or in the middle of what was said last.
    pub(crate) fn close(&mut self, world: &mut World, orderly: bool) {
        if self.presence != Presence::Connected {
            return;
        }
        self.presence = Presence::Gone;
        self.shares.end();
        world.wanted.retain(|graph| Some(graph.client) != self.id);
        world.offered.retain(|graph| Some(graph.client) != self.id);
        self.up_until = if orderly {
            self.up.last()
        } else {
            world.now.after_micros(world.random.below(2_000))
        };
        for fetch in std::mem::take(&mut self.fetching).into_values() {
            world.end_fetch(fetch);
        }
        let seen = self.up_until.max(world.now).after_micros(1);
        let client = self.index;
        world.agenda.push(
            seen.after_micros(world.random.below(10_000)),
            Happening::ClientGone { client },
        );
    }
}
