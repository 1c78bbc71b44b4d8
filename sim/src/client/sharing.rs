//! What a client holds of others' graphs, and what it gives names to. See `answers` for what comes of it.
//!
//! A client holds what it finds, by itself or by a name, reads all of it or nothing, and lets go after a while.

use std::collections::{BTreeMap, BTreeSet};

use transload_protocol::{
    ClientMessage, GraphId, OutputLocation, PartitionId, RequestId, SharingCall, TaskId, TaskRange,
    WorkerId,
};

use super::{Act, Client, Presence};
use crate::network::Happening;
use crate::world::World;

mod answers;
mod reading;

/// All names that anybody publishes.
const NAMES: [&str; 3] = ["a", "b", "c"];

/// What a client shares with others.
#[derive(Debug, Default)]
pub(super) struct Shares {
    calls: u64,
    holds: BTreeMap<RequestId, Hold>,
    /// Calls that are no holds and have not been answered.
    asked: BTreeMap<RequestId, SharingCall>,
    /// What it held before: news of it may still be on its way.
    past: Vec<TaskRange>,
}

/// One hold, from the call that asks for it until its end.
#[derive(Debug)]
struct Hold {
    call: SharingCall,
    /// What it holds, once that is known.
    tasks: Option<TaskRange>,
    /// It is let go of when everything is read, or else after a while.
    reads: bool,
    located: BTreeMap<u32, OutputLocation>,
    /// Outputs read so far, of tasks not read whole.
    partly_read: BTreeMap<u32, BTreeSet<u32>>,
    /// Tasks read whole.
    read: BTreeSet<u32>,
}

impl Hold {
    fn contains(&self, task: TaskId) -> bool {
        self.tasks.is_some_and(|tasks| tasks.contains(task))
    }
}

impl Shares {
    /// It waits for nothing that others have, and for no answer.
    pub(super) fn are_over(&self) -> bool {
        self.holds.is_empty() && self.asked.is_empty()
    }

    /// The connection ends, and with it all that is held.
    pub(super) fn end(&mut self) {
        self.holds.clear();
        self.asked.clear();
    }

    /// Holds, in words.
    pub(super) fn describe(&self) -> String {
        let line = |(request, hold): (&RequestId, &Hold)| {
            let (tasks, located, read) = (hold.tasks, hold.located.len(), hold.read.len());
            format!("\n  hold {request}: {tasks:?}, {located} located, {read} read")
        };
        self.holds.iter().map(line).collect()
    }

    /// Tasks of others that are still waited for.
    pub(super) fn waits_for(&self) -> impl Iterator<Item = TaskId> {
        let reading = self.holds.values().filter(|hold| hold.reads);
        reading.flat_map(|hold| {
            let tasks = hold.tasks.into_iter().flat_map(|tasks| tasks.tasks());
            tasks.filter(|task| !hold.read.contains(&task.index))
        })
    }
}

impl Client {
    /// Whether this client may keep anything of a graph alive beside its owner.
    pub(crate) fn shares(&self, graph: GraphId) -> bool {
        let mut holds = self.shares.holds.values();
        self.presence != Presence::Gone
            && holds.any(|hold| hold.tasks.is_none_or(|tasks| tasks.graph == graph))
    }

    /// Partitions of what this client holds whole that a worker must have.
    pub(super) fn shared_on(&self, worker: WorkerId) -> Vec<PartitionId> {
        let holds = self.shares.holds.values().filter(|_| self.is_connected());
        let is_whole = |hold: &&Hold| {
            let count = hold.tasks.map_or(0, |tasks| tasks.count);
            count > 0 && hold.located.len() == count as usize
        };
        let located = holds
            .filter(is_whole)
            .flat_map(|hold| hold.located.values());
        let here = located.filter(|location| location.worker == worker);
        here.flat_map(|location| {
            let task = location.task;
            (0..location.sizes.outputs).map(move |output| PartitionId { task, output })
        })
        .collect()
    }

    /// Holds something, names something, takes a name away, or asks.
    pub(super) fn share(&mut self, world: &mut World) {
        if self.id.is_none() {
            return;
        }
        let name = world.random.pick(&NAMES, "a").to_owned();
        let tasks = self.some_tasks(world);
        let call = match (world.random.below(10), tasks) {
            (0..4, Some(tasks)) if Some(tasks.graph.client) != self.id => {
                SharingCall::Hold { tasks }
            }
            (0..7, Some(tasks)) => SharingCall::Publish {
                name,
                tasks,
                replace: world.random.chance(500),
            },
            (7, _) => SharingCall::Unpublish { name },
            (8, Some(tasks)) => SharingCall::WhoHas { tasks },
            (8, None) => SharingCall::Published,
            _ => SharingCall::Lookup { name },
        };
        self.call(world, call);
    }

    /// Takes all names away.
    pub(super) fn sweep(&mut self, world: &mut World) {
        world.named.clear();
        for name in NAMES {
            let name = name.to_owned();
            self.call(world, SharingCall::Unpublish { name });
        }
    }

    fn call(&mut self, world: &mut World, call: SharingCall) {
        let request = RequestId(self.shares.calls);
        self.shares.calls += 1;
        match &call {
            SharingCall::Hold { .. } | SharingCall::Lookup { .. } => {
                world.count("holds");
                let hold = Hold {
                    call: call.clone(),
                    tasks: None,
                    reads: world.random.chance(700),
                    located: BTreeMap::new(),
                    partly_read: BTreeMap::new(),
                    read: BTreeSet::new(),
                };
                self.shares.holds.insert(request, hold);
            }
            SharingCall::Publish { tasks, .. } => {
                world.count("names given");
                world.named.insert(tasks.graph);
                self.shares.asked.insert(request, call.clone());
            }
            SharingCall::Unpublish { .. }
            | SharingCall::Published
            | SharingCall::WhoHas { .. }
            | SharingCall::LetGo => {
                self.shares.asked.insert(request, call.clone());
            }
        }
        self.send(world, ClientMessage::Share { request, call });
    }

    /// Some tasks of a kept layer of any graph, mostly one that its owner still needs.
    fn some_tasks(&self, world: &mut World) -> Option<TaskRange> {
        let graphs: Vec<GraphId> = if world.random.chance(900) {
            world.wanted.iter().copied().collect()
        } else {
            world.plans.keys().copied().collect()
        };
        let graph = *graphs.get(world.random.index(graphs.len()))?;
        let plan = world.plans.get(&graph)?.clone();
        let kept = plan.compiled.outputs();
        let layer = *kept.get(world.random.index(kept.len().max(1)))?;
        let tasks = plan.compiled.tasks_of(layer);
        let first = tasks.start + world.random.small(0, tasks.end - tasks.start - 1);
        let count = world.random.small(1, tasks.end - first);
        Some(TaskRange {
            graph,
            first,
            count,
        })
    }

    /// After a broken connection: holds that are still wanted, and everything to be said again.
    pub(super) fn share_again(&mut self) -> (Vec<RequestId>, Vec<ClientMessage>) {
        let mut again = Vec::new();
        for (request, hold) in &mut self.shares.holds {
            hold.located.clear();
            again.push((*request, hold.call.clone()));
        }
        let holds = again.iter().map(|(request, _)| *request).collect();
        let asked = self.shares.asked.iter();
        again.extend(asked.map(|(request, call)| (*request, call.clone())));
        let say = |(request, call)| ClientMessage::Share { request, call };
        (holds, again.into_iter().map(say).collect())
    }

    fn let_go_later(&self, world: &mut World, request: RequestId) {
        let client = self.index;
        let act = Act::LetGo { request };
        world.soon(
            world.scenario.hold_micros,
            Happening::ClientActs { client, act },
        );
    }

    pub(super) fn let_go(&mut self, world: &mut World, request: RequestId) {
        if self.end_hold(world, request) {
            let call = SharingCall::LetGo;
            self.send(world, ClientMessage::Share { request, call });
            self.leave_if_done(world);
        }
    }

    /// A hold is over. Whether there was one.
    fn end_hold(&mut self, world: &mut World, request: RequestId) -> bool {
        let Some(hold) = self.shares.holds.remove(&request) else {
            return false;
        };
        self.shares.past.extend(hold.tasks);
        if hold.reads {
            for task in hold.tasks.into_iter().flat_map(|tasks| tasks.tasks()) {
                self.forget_fetches(world, task);
            }
        }
        true
    }
}
