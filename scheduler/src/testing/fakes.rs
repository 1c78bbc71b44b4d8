//! What a fake worker and a fake client remember, and the rules that every message to them must keep.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use transload_protocol::{
    Attempt, ClusterInfo, CoordinationAnswer, EventRecord, Explanation, GangMember, GraphError,
    GraphId, GraphOutcome, InputSpec, Inventory, LayerIndex, LayerProgress, LayerSpec, OutputSizes,
    PartitionId, RequestId, SchedulerToClient, SchedulerToWorker, SharingAnswer, SharingCall,
    SourceTable, TaskAssignment, TaskId, TaskRange, WorkerId,
};

#[derive(Debug)]
pub(crate) struct FakeTask {
    pub(crate) task: TaskAssignment,
    pub(crate) outputs: u32,
    pub(crate) reads: Vec<(PartitionId, WorkerId)>,
    /// It has everything it reads, whoever dies from now on.
    pub(crate) fetched: bool,
    /// Members of its gang, if it is of one.
    pub(crate) gang: Option<Vec<GangMember>>,
}

#[derive(Debug, Default)]
pub(crate) struct FakeWorker {
    /// Reads its messages only when a test says so.
    pub(crate) slow: bool,
    pub(crate) inbox: VecDeque<SchedulerToWorker>,
    pub(crate) peers: BTreeSet<WorkerId>,
    pub(crate) layers: BTreeMap<(GraphId, LayerIndex), LayerSpec>,
    pub(crate) sources: BTreeMap<(GraphId, LayerIndex, u32), SourceTable>,
    pub(crate) assigned: BTreeMap<TaskId, FakeTask>,
    pub(crate) cancelling: Vec<(TaskId, Attempt)>,
    pub(crate) stored: BTreeSet<TaskId>,
    pub(crate) shutdown: bool,
    /// Every attempt it was ever given.
    attempts: BTreeMap<TaskId, Attempt>,
    /// Outputs of every task it was ever given.
    makes: BTreeMap<TaskId, u32>,
    /// What it was told of gangs.
    gangs: BTreeMap<(GraphId, LayerIndex), (Attempt, Vec<GangMember>)>,
    /// Attempts that made outputs of gangs.
    pub(crate) of_gangs: BTreeMap<TaskId, Attempt>,
}

impl FakeWorker {
    pub(crate) fn receive(&mut self, own: WorkerId, message: SchedulerToWorker) {
        match message {
            SchedulerToWorker::Peers { peers } => {
                for (worker, _) in peers.iter().filter(|(worker, _)| *worker != own) {
                    assert!(self.peers.insert(worker), "{worker} was announced twice");
                }
            }
            SchedulerToWorker::PeerLost { worker } => {
                assert!(self.peers.remove(&worker), "{worker} was never announced");
            }
            SchedulerToWorker::Layer { graph, layer, spec } => {
                let old = self
                    .layers
                    .insert((graph, layer), Arc::unwrap_or_clone(spec));
                assert!(old.is_none(), "layer {layer} of {graph} was sent twice");
            }
            SchedulerToWorker::Sources {
                graph,
                layer,
                input,
                sources,
            } => {
                for (holder, _) in sources.iter() {
                    self.assert_reachable(own, holder);
                }
                self.sources.insert((graph, layer, input), sources);
            }
            SchedulerToWorker::Assign { tasks } => {
                for task in tasks {
                    self.assign(own, task);
                }
            }
            SchedulerToWorker::Cancel { task, attempt } => {
                // It may have ended before the message came; then the end was its answer.
                if self
                    .assigned
                    .get(&task)
                    .is_some_and(|fake| fake.task.attempt == attempt)
                {
                    self.assigned.remove(&task);
                    self.cancelling.push((task, attempt));
                }
            }
            SchedulerToWorker::Recall { task, attempt } => {
                // What has everything it reads may have begun.
                if self
                    .assigned
                    .get(&task)
                    .is_some_and(|fake| fake.task.attempt == attempt && !fake.fetched)
                {
                    self.assigned.remove(&task);
                    self.cancelling.push((task, attempt));
                }
            }
            SchedulerToWorker::Release { tasks } => {
                for task in tasks {
                    self.stored.remove(&task);
                }
            }
            SchedulerToWorker::Forget { graph } => {
                if self.layers.keys().any(|(of, _)| *of == graph) {
                    assert!(
                        self.assigned.keys().all(|task| task.graph != graph),
                        "forgotten before cancelled"
                    );
                } else {
                    // It came back with tasks of a graph that is over.
                    self.assigned.retain(|task, _| task.graph != graph);
                }
                self.layers.retain(|(of, _), _| *of != graph);
                self.sources.retain(|(of, _, _), _| *of != graph);
                self.stored.retain(|task| task.graph != graph);
            }
            SchedulerToWorker::Shutdown => self.shutdown = true,
            SchedulerToWorker::Disown { task, attempt } => {
                if self
                    .assigned
                    .get(&task)
                    .is_some_and(|fake| fake.task.attempt == attempt)
                {
                    self.assigned.remove(&task);
                }
                self.cancelling.retain(|open| *open != (task, attempt));
            }
            SchedulerToWorker::Gang {
                graph,
                layer,
                incarnation,
                members,
            } => {
                let members = members.members().expect("well-formed");
                assert!(members.iter().any(|member| member.worker == own));
                self.gangs.insert((graph, layer), (incarnation, members));
            }
        }
    }

    /// The connection broke: all that was said is forgotten but what runs, and what is stored.
    pub(crate) fn disconnect(&mut self) {
        self.inbox.clear();
        self.peers.clear();
        self.layers.clear();
        self.sources.clear();
        self.cancelling.clear();
        self.assigned.retain(|_, fake| fake.fetched);
    }

    pub(crate) fn inventory(&self) -> Inventory {
        let sizes = |task| OutputSizes::of(&vec![100; self.makes[task] as usize]);
        let running = self.assigned.iter();
        Inventory {
            stored: self
                .stored
                .iter()
                .map(|task| (*task, sizes(task)))
                .collect(),
            running: running
                .map(|(task, fake)| (*task, fake.task.attempt))
                .collect(),
            of_gangs: (self.of_gangs.iter())
                .filter(|(task, _)| self.stored.contains(task))
                .map(|(task, attempt)| (*task, *attempt))
                .collect(),
        }
    }

    fn assert_reachable(&self, own: WorkerId, holder: WorkerId) {
        assert!(
            holder == own || self.peers.contains(&holder),
            "{own} was told to fetch from {holder} without an address"
        );
    }

    /// Everything that a task reads, and where that was said to be when the task was assigned.
    fn reads(&self, fake: &TaskAssignment, spec: &LayerSpec) -> Vec<(PartitionId, WorkerId)> {
        let task = fake.task;
        let mut reads: Vec<_> = fake
            .inputs
            .iter()
            .map(|input| (input.partition, input.worker))
            .collect();
        for (input, how) in (0..).zip(&spec.inputs) {
            let (first_task, output) = match how {
                InputSpec::Listed => continue,
                InputSpec::Column { first_task } => (*first_task, task.index - spec.first_task),
                InputSpec::All { first_task, .. } => (*first_task, 0),
            };
            let table = &self.sources[&(task.graph, fake.layer, input)];
            reads.extend(
                (first_task..)
                    .zip(table.iter())
                    .map(|(index, (worker, _))| {
                        let task = TaskId { index, ..task };
                        (PartitionId { task, output }, worker)
                    }),
            );
        }
        reads
    }

    fn assign(&mut self, own: WorkerId, task: TaskAssignment) {
        let id = task.task;
        let spec = self
            .layers
            .get(&(id.graph, task.layer))
            .expect("a layer precedes its tasks");
        for input in &task.inputs {
            self.assert_reachable(own, input.worker);
        }
        assert!(task.inputs.is_sorted_by_key(|input| input.input));
        for (input, reads) in (0..).zip(&spec.inputs) {
            let has_table = self.sources.contains_key(&(id.graph, task.layer, input));
            assert_eq!(
                *reads != InputSpec::Listed,
                has_table,
                "tables precede the tasks that need them"
            );
        }
        let reads = self.reads(&task, spec);
        let last = self.attempts.insert(id, task.attempt);
        assert!(last < Some(task.attempt), "an attempt was used twice");
        assert!(
            !self
                .cancelling
                .iter()
                .any(|(cancelled, _)| *cancelled == id),
            "{id} came back before its cancel was answered"
        );
        self.makes.insert(id, spec.outputs);
        let gang = spec.gang.then(|| {
            let (incarnation, members) = &self.gangs[&(id.graph, task.layer)];
            assert_eq!(*incarnation, task.attempt, "told of another incarnation");
            let own_place = &members[(id.index - spec.first_task) as usize];
            assert_eq!(own_place.worker, own, "told that {id} runs elsewhere");
            members.clone()
        });
        let fake = FakeTask {
            gang,
            outputs: spec.outputs,
            reads,
            task,
            fetched: false,
        };
        let old = self.assigned.insert(id, fake);
        assert!(old.is_none(), "{id} was assigned twice");
    }

    /// The task is done and stored; its attempt.
    pub(crate) fn finish(&mut self, task: TaskId) -> Attempt {
        self.stored.insert(task);
        if self.assigned[&task].gang.is_some() {
            let attempt = self.assigned[&task].task.attempt;
            self.of_gangs.insert(task, attempt);
        }
        self.drop_task(task)
    }

    pub(crate) fn drop_task(&mut self, task: TaskId) -> Attempt {
        self.assigned.remove(&task).expect("assigned").task.attempt
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.assigned.is_empty()
            && self.cancelling.is_empty()
            && self.stored.is_empty()
            && self.layers.is_empty()
    }
}

/// Notes of a client.
#[derive(Debug, Default)]
pub(crate) struct FakeClient {
    /// Graphs about which it was told anew.
    pub(crate) retold: BTreeSet<GraphId>,
    pub(crate) submitted: u32,
    /// Tasks of its own that it has released.
    pub(crate) released: BTreeSet<TaskId>,
    /// Graphs that it has left.
    pub(crate) left: BTreeSet<GraphId>,
    pub(crate) peers: BTreeSet<WorkerId>,
    pub(crate) accepted: BTreeSet<GraphId>,
    pub(crate) rejected: BTreeMap<GraphId, GraphError>,
    /// Held outputs and where they are.
    pub(crate) outputs: BTreeMap<TaskId, WorkerId>,
    pub(crate) lost: Vec<TaskId>,
    pub(crate) ended: BTreeMap<GraphId, GraphOutcome>,
    pub(crate) progress: Vec<(GraphId, Vec<LayerProgress>)>,
    pub(crate) explained: Vec<Explanation>,
    pub(crate) info: Vec<ClusterInfo>,
    pub(crate) events: Vec<EventRecord>,
    pub(crate) shutting_down: bool,
    pub(crate) coordinated: Vec<(RequestId, CoordinationAnswer)>,
    /// Calls about sharing.
    pub(crate) calls: u64,
    /// What it asked to hold and was not refused, and has not let go of.
    pub(crate) holds: BTreeMap<RequestId, SharingCall>,
    /// What it holds, as it was told.
    pub(crate) held: BTreeMap<RequestId, TaskRange>,
    /// All other answers.
    pub(crate) shared: Vec<(RequestId, SharingAnswer)>,
}

impl FakeClient {
    fn receive_shared(&mut self, request: RequestId, answer: SharingAnswer) {
        match answer {
            SharingAnswer::Held { tasks, .. } => {
                assert!(
                    self.holds.contains_key(&request),
                    "it asked for no such hold"
                );
                self.held.insert(request, tasks);
            }
            SharingAnswer::Over { .. } | SharingAnswer::Refused(_) => {
                self.holds.remove(&request);
                self.held.remove(&request);
                self.forget();
                self.shared.push((request, answer));
            }
            SharingAnswer::Done | SharingAnswer::Names(_) | SharingAnswer::Holders(_) => {
                self.shared.push((request, answer));
            }
        }
    }

    /// It has let go of something: it hears of what it owns and has not released, and of what it holds.
    pub(crate) fn forget(&mut self) {
        let Self {
            outputs,
            accepted,
            left,
            released,
            held,
            ..
        } = self;
        outputs.retain(|task, _| {
            let owns = accepted.contains(&task.graph) && !left.contains(&task.graph);
            let is_held = held.values().any(|held| held.contains(*task));
            owns && !released.contains(task) || is_held
        });
    }

    pub(crate) fn receive(&mut self, message: SchedulerToClient) {
        match message {
            SchedulerToClient::Accepted { graph } => assert!(self.accepted.insert(graph)),
            SchedulerToClient::Rejected { graph, error } => {
                self.rejected.insert(graph, error);
            }
            SchedulerToClient::Peer { worker, .. } => {
                assert!(self.peers.insert(worker), "{worker} was announced twice");
            }
            SchedulerToClient::OutputReady { output } => {
                assert!(
                    self.peers.contains(&output.worker),
                    "the client was not told how to reach {}",
                    output.worker
                );
                self.outputs.insert(output.task, output.worker);
            }
            SchedulerToClient::OutputLost { task } => {
                assert!(self.outputs.remove(&task).is_some(), "{task} was not ready");
                self.lost.push(task);
            }
            SchedulerToClient::Ended { graph, outcome } => {
                if !self.retold.contains(&graph) {
                    let (last, _) = self.progress.last().expect("progress precedes the end");
                    assert_eq!(*last, graph, "the last progress precedes the end");
                }
                if outcome != GraphOutcome::Finished {
                    self.outputs.retain(|task, _| task.graph != graph);
                }
                self.ended.insert(graph, outcome);
            }
            SchedulerToClient::Progress { graph, layers } => self.progress.push((graph, layers)),
            SchedulerToClient::Explained { explanation, .. } => self.explained.push(explanation),
            SchedulerToClient::Info { info } => self.info.push(info),
            SchedulerToClient::Events { events } => self.events.extend(events),
            SchedulerToClient::ShuttingDown => self.shutting_down = true,
            SchedulerToClient::Coordinated { request, answer } => {
                self.coordinated.push((request, answer));
            }
            SchedulerToClient::Shared { request, answer } => self.receive_shared(request, answer),
        }
    }
}
