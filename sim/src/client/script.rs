//! What a client plans to do, and the doing of it when the time comes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use transload_protocol::{
    ClientId, ClientMessage, GraphId, Layer, LayerIndex, TaskGraph, TaskId, Time, WorkerId,
};

use super::{Act, Client, Presence, Shares, Status, Submission};
use crate::graphs::{importing_graph, random_graph, scattered_graph};
use crate::network::Happening;
use crate::world::{Step, World};

impl Client {
    /// A client with its graphs and the times of all that it will do.
    pub(crate) fn new(index: usize, world: &mut World) -> Result<Self, String> {
        let horizon = world.scenario.calm_after_micros;
        let connects = world.random.below(horizon / 10 + 1);
        let mut plan = vec![(connects, Act::Connect)];
        let mut submissions = Vec::new();
        let graphs = world.random.small(1, world.scenario.graphs_per_client);
        for graph in 0..graphs as usize {
            submissions.push(Submission::random(world)?);
            let submits = connects + world.random.below(horizon / 2 + 1);
            plan.push((submits, Act::Submit { graph }));
            if world.random.chance(world.scenario.cancel_per_mille) {
                let later = world.random.below(horizon + 1);
                plan.push((submits + later, Act::Cancel { graph }));
            }
            if world.random.chance(world.scenario.release_early_per_mille) {
                let later = world.random.below(horizon / 2 + 1);
                plan.push((submits + later, Act::ReleaseEarly { graph }));
            }
        }
        plan.extend(plan_to_share(graphs, (connects, horizon), world));
        for _ in 0..world.random.small(0, world.scenario.chatter) {
            plan.push((connects + world.random.below(horizon + 1), Act::Chatter));
        }
        if world.random.chance(world.scenario.vanish_per_mille) {
            plan.push((connects + world.random.below(horizon + 1), Act::Vanish));
        }
        for (at, act) in plan {
            let happening = Happening::ClientActs { client: index, act };
            world.agenda.push(Time::from_micros(at), happening);
        }
        let client = Self::planned(index, submissions, world);
        Ok(Self {
            leaves_when_done: world.random.chance(500),
            shuts_down: index == 0 && world.random.chance(world.scenario.shutdown_per_mille),
            ..client
        })
    }

    /// A client that has not connected, and leaves when it is done.
    fn planned(index: usize, submissions: Vec<Submission>, world: &mut World) -> Self {
        Self {
            index,
            id: None,
            presence: Presence::Planned,
            up: world.link(),
            down: world.link(),
            up_until: Time::from_micros(u64::MAX),
            submissions,
            fetching: BTreeMap::new(),
            peers: BTreeMap::new(),
            shares: Shares::default(),
            leaves_when_done: true,
            shuts_down: false,
            is_cut_off: false,
        }
    }

    /// A client of a task's own, which submits one graph at once, reads all of it, and leaves.
    pub(crate) fn within_task(
        index: usize,
        task: TaskId,
        world: &mut World,
    ) -> Result<Self, String> {
        let scenario = world.scenario.clone();
        let plan = random_graph(&scenario, &mut world.random)?;
        let mut tasks = plan.compiled.to_graph();
        tasks.parent = Some(task);
        let submission = Submission::new(tasks, Some(Arc::new(plan)), world);
        for act in [Act::Connect, Act::Submit { graph: 0 }] {
            let happening = Happening::ClientActs { client: index, act };
            world.agenda.push(world.now, happening);
        }
        Ok(Self::planned(index, vec![submission], world))
    }

    /// A client that comes when all others have what they want, and takes all names away.
    pub(crate) fn sweeper(index: usize, world: &mut World) -> Self {
        for act in [Act::Connect, Act::Sweep] {
            let happening = Happening::ClientActs { client: index, act };
            let later = if act == Act::Sweep { 1_000_000 } else { 0 };
            world.agenda.push(world.now.after_micros(later), happening);
        }
        Self::planned(index, Vec::new(), world)
    }

    /// The scheduler's welcome is here.
    pub(crate) fn welcome(&mut self, world: &mut World, id: ClientId) -> Step {
        self.id = Some(id);
        // What came due while the client was connecting.
        for graph in 0..self.submissions.len() {
            if self
                .submissions
                .get(graph)
                .is_some_and(|it| it.id.is_some())
            {
                continue;
            }
            self.submit_if_due(world, graph);
        }
        Ok(())
    }

    pub(crate) fn act(&mut self, world: &mut World, act: Act) -> Step {
        if self.presence == Presence::Gone {
            return Ok(());
        }
        match act {
            Act::Connect => {
                self.presence = Presence::Connected;
                let at = self.up.arrival(world.now, &mut world.random);
                let client = self.index;
                world.agenda.push(at, Happening::ClientHello { client });
            }
            Act::Submit { graph } => {
                if let Some(submission) = self.submissions.get_mut(graph) {
                    submission.due = true;
                }
                self.submit_if_due(world, graph);
            }
            Act::Cancel { graph } => self.cancel(world, graph),
            Act::ReleaseEarly { graph } => self.release_early(world, graph)?,
            Act::Read { graph } => self.read(world, graph)?,
            Act::Release { graph } => {
                let held = self.submissions.get(graph).map(|it| it.held.clone());
                let held: Vec<u32> = held.into_iter().flatten().collect();
                self.release(world, graph, &held)?;
            }
            Act::Leave { graph } => self.leave(world, graph),
            Act::KeepNoCopy { graph } => {
                let id = self.submissions.get(graph).and_then(|it| it.id);
                if id.is_some_and(|id| world.offered.remove(&id)) {
                    world.count("copies given up");
                }
            }
            Act::Share => self.share(world),
            Act::LetGo { request } => self.let_go(world, request),
            Act::Sweep => self.sweep(world),
            Act::Chatter => self.chatter(world),
            Act::Vanish => {
                world.count("clients vanished");
                self.close(world, false);
            }
            Act::Shutdown => self.send(world, ClientMessage::Shutdown),
        }
        Ok(())
    }

    fn submit_if_due(&mut self, world: &mut World, graph: usize) {
        let Some(client) = self.id else {
            return;
        };
        let Some(submission) = self.submissions.get_mut(graph).filter(|it| it.due) else {
            return;
        };
        let id = GraphId {
            client,
            sequence: u32::try_from(graph).unwrap_or(u32::MAX),
        };
        // What a task waits for must not wait for the task, and nobody here knows what does.
        let is_free = submission.plan.is_some() && submission.tasks.parent.is_none();
        if is_free && world.imports() {
            submission.import_something(world);
        }
        submission.id = Some(id);
        submission.status = Status::Submitted;
        if let Some(plan) = &submission.plan {
            world.plans.insert(id, Arc::clone(plan));
            world.wanted.insert(id);
            if plan.is_scattered {
                world.count("graphs scattered");
                world.offered.insert(id);
            }
        }
        let tasks = submission.tasks.clone();
        world.count("graphs submitted");
        self.send(world, ClientMessage::Submit { graph: id, tasks });
    }

    fn cancel(&mut self, world: &mut World, graph: usize) {
        let Some(submission) = self.submissions.get_mut(graph) else {
            return;
        };
        let Some(id) = submission.id else {
            return;
        };
        if submission.status == Status::Over {
            return;
        }
        submission.cancelled = true;
        world.cancelled.insert(id);
        world.count("graphs cancelled");
        self.send(world, ClientMessage::Cancel { graph: id });
        if world.random.chance(200) {
            self.send(world, ClientMessage::Cancel { graph: id });
        }
        if self
            .submissions
            .get(graph)
            .is_some_and(|it| it.status == Status::Held)
        {
            self.end(world, graph);
        }
    }

    /// Now and then the handle of a graph is dropped some time after the graph was accepted.
    pub(super) fn plan_to_leave(&self, world: &mut World, graph: usize) {
        let is_own = (self.submissions.get(graph)).is_some_and(|it| it.tasks.parent.is_none());
        if world.scenario.share_per_mille > 0 && is_own && world.random.chance(200) {
            let client = self.index;
            let act = Act::Leave { graph };
            world.soon(
                world.scenario.hold_micros,
                Happening::ClientActs { client, act },
            );
        }
    }

    /// Drops its handle of a graph: it goes on as far as others need it.
    fn leave(&mut self, world: &mut World, graph: usize) {
        let Some(submission) = self.submissions.get_mut(graph) else {
            return;
        };
        let (Some(id), Status::Running | Status::Held) = (submission.id, &submission.status) else {
            return;
        };
        submission.left = true;
        world.count("graphs left");
        self.send(world, ClientMessage::Leave { graph: id });
        self.end(world, graph);
    }

    fn release_early(&mut self, world: &mut World, graph: usize) -> Step {
        let Some(submission) = self.submissions.get_mut(graph) else {
            return Ok(());
        };
        if submission.id.is_none() || submission.cancelled {
            return Ok(());
        }
        submission.released_early = true;
        let share = world.random.pick(&[300, 700, 1_000], 500);
        let held = submission.held.iter().copied();
        let some: Vec<u32> = held.filter(|_| world.random.chance(share)).collect();
        world.count("early releases");
        self.release(world, graph, &some)?;
        // What is left may have been read already.
        self.release_if_read(world, graph);
        Ok(())
    }

    /// Questions, and messages about what is gone or never was.
    fn chatter(&mut self, world: &mut World) {
        let Some(client) = self.id else {
            return;
        };
        let graph = GraphId {
            client,
            sequence: world.random.small(0, 4),
        };
        let task = TaskId {
            graph,
            index: world.random.small(0, 30),
        };
        let is_live = |it: &Submission| it.id == Some(graph) && it.status != Status::Over;
        let is_known = self.submissions.iter().any(|it| it.id == Some(graph));
        let message = match world.random.below(6) {
            5 if is_known => ClientMessage::Unreachable {
                task,
                worker: WorkerId(world.random.small(0, 5)),
                reason: "perhaps".to_owned(),
            },
            0 => ClientMessage::Info,
            1 => ClientMessage::Subscribe,
            2 if !self.submissions.iter().any(is_live) => {
                ClientMessage::Release { tasks: vec![task] }
            }
            3 if !self.submissions.iter().any(is_live) => {
                // Others may still hold something of it.
                world.cancelled.insert(graph);
                ClientMessage::Cancel { graph }
            }
            _ => ClientMessage::Explain { task },
        };
        self.send(world, message);
    }
}

/// What a client with so many graphs does with others, if it does. No chance is taken where none ever does.
fn plan_to_share(graphs: u32, (from, horizon): (u64, u64), world: &mut World) -> Vec<(u64, Act)> {
    let per_mille = world.scenario.share_per_mille;
    if per_mille == 0 || !world.random.chance(per_mille) {
        return Vec::new();
    }
    let mut plan = Vec::new();
    for _ in 0..world.random.small(1, 8) {
        plan.push((from + world.random.below(horizon + 1), Act::Share));
    }
    for graph in 0..graphs as usize {
        if world.random.chance(300) {
            let at = from + world.random.below(horizon + 1);
            plan.push((at, Act::KeepNoCopy { graph }));
        }
    }
    plan
}

impl Submission {
    /// Reads results of another graph instead, whosever that is; it may be over by now.
    fn import_something(&mut self, world: &mut World) {
        let at = world.random.index(world.plans.len().max(1));
        let source = world.plans.iter().nth(at);
        let Some((id, source)) = source.map(|(id, plan)| (*id, Arc::clone(plan))) else {
            return;
        };
        let scenario = world.scenario.clone();
        let made = importing_graph((id, &source), &scenario, &mut world.random);
        if let Some(Ok(plan)) = made {
            self.tasks = plan.compiled.to_graph();
            self.held = plan.kept_tasks().into_iter().collect();
            self.plan = Some(Arc::new(plan));
            self.may_be_refused = true;
            world.count("graphs importing");
        }
    }

    fn random(world: &mut World) -> Result<Self, String> {
        let is_bad = world.random.chance(world.scenario.bad_graph_per_mille);
        let scenario = world.scenario.clone();
        let plan = if world.scatters() && !is_bad {
            scattered_graph(&scenario, &mut world.random)?
        } else {
            random_graph(&scenario, &mut world.random)?
        };
        let mut tasks = plan.compiled.to_graph();
        if is_bad {
            let past_the_end = LayerIndex(u32::try_from(tasks.layers.len()).unwrap_or(u32::MAX));
            tasks.push(
                Layer::new("bad", "op-0", 1)
                    .reading(past_the_end, transload_protocol::Edges::Broadcast),
            );
        }
        Ok(Self::new(
            tasks,
            if is_bad { None } else { Some(Arc::new(plan)) },
            world,
        ))
    }

    fn new(
        tasks: TaskGraph,
        plan: Option<Arc<crate::graphs::GraphPlan>>,
        world: &mut World,
    ) -> Self {
        let kept = plan.as_ref().map(|plan| plan.kept_tasks());
        Self {
            id: None,
            due: false,
            plan,
            tasks,
            status: Status::Planned,
            outcome: None,
            held: kept.into_iter().flatten().collect(),
            located: BTreeMap::new(),
            partly_read: BTreeMap::new(),
            read: BTreeSet::new(),
            streams: world.random.chance(world.scenario.stream_per_mille),
            reading: false,
            cancelled: false,
            released_early: false,
            left: false,
            may_be_refused: false,
        }
    }
}
