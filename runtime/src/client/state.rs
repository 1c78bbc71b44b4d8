//! What a client knows of its graphs, kept current by the connection and read by the handles.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{broadcast, mpsc, oneshot, watch};
use transload_protocol::{
    Address, ClientMessage, ClusterInfo, CoordinationAnswer, EventRecord, Explanation, GraphError,
    GraphId, GraphOutcome, LayerProgress, OutputLocation, RequestId, SchedulerToClient,
    SharingAnswer, SharingCall, TaskGraph, TaskId, TaskRange, WorkerId,
};

/// Events kept for a subscriber that reads slowly; older ones are skipped.
const EVENT_BACKLOG: usize = 65_536;

/// Everything the connection has been told.
pub(super) struct State {
    inner: Mutex<Inner>,
    events: broadcast::Sender<EventRecord>,
}

#[derive(Default)]
struct Inner {
    graphs: HashMap<GraphId, GraphState>,
    peers: HashMap<WorkerId, Arc<[Address]>>,
    infos: VecDeque<oneshot::Sender<ClusterInfo>>,
    explanations: HashMap<TaskId, Vec<oneshot::Sender<Explanation>>>,
    calls: HashMap<RequestId, mpsc::UnboundedSender<CoordinationAnswer>>,
    holds: HashMap<RequestId, HoldState>,
    /// Questions about sharing that are not answered yet.
    asked: HashMap<RequestId, (SharingCall, oneshot::Sender<SharingAnswer>)>,
    lost: Option<String>,
    /// Where messages go; none while the connection is broken.
    outgoing: Option<mpsc::UnboundedSender<Vec<ClientMessage>>>,
    /// Wants to hear of events.
    subscribed: bool,
    /// Asked for the end of the cluster: a connection that ends then has done what it should.
    shutting_down: bool,
}

/// One submitted graph.
pub(super) struct GraphState {
    /// Whether the scheduler took it.
    pub(super) phase: Phase,
    /// Where finished tasks of kept layers are, by task index.
    pub(super) outputs: BTreeMap<u32, OutputLocation>,
    /// What was submitted, until that is answered.
    submission: Option<TaskGraph>,
    /// The caller wants it cancelled.
    cancelled: bool,
    /// What the caller has let go of.
    released: Vec<TaskId>,
    /// Raised whenever `phase` or `outputs` changed, or the connection was lost.
    changed: watch::Sender<u64>,
    progress: watch::Sender<Vec<LayerProgress>>,
}

/// A hold on tasks of whatever graph.
pub(super) struct HoldState {
    /// What was asked.
    call: SharingCall,
    /// What the scheduler said last: which tasks it is, or how it ended. `None` until it has answered.
    pub(super) answer: Option<SharingAnswer>,
    /// Where finished tasks are, by task index.
    pub(super) outputs: BTreeMap<u32, OutputLocation>,
    /// Raised whenever anything of this changed, or the connection was lost.
    changed: watch::Sender<u64>,
}

impl HoldState {
    fn tasks(&self) -> Option<TaskRange> {
        match &self.answer {
            Some(SharingAnswer::Held { tasks, .. }) => Some(*tasks),
            Some(_) | None => None,
        }
    }

    /// What to say to a scheduler that may not have heard it; nothing where the hold is over.
    fn say_again(&self) -> Option<SharingCall> {
        match (&self.answer, self.tasks()) {
            (None, _) => Some(self.call.clone()),
            (Some(_), tasks) => tasks.map(|tasks| SharingCall::Hold { tasks }),
        }
    }
}

/// Life of a graph as its client sees it.
#[derive(Debug, Clone)]
pub(super) enum Phase {
    /// Sent, not answered yet.
    Submitted,
    /// Accepted, not ended.
    Running,
    /// Refused.
    Rejected(GraphError),
    /// Over.
    Ended(GraphOutcome),
}

/// Ends of the channels that a graph's handle listens to.
pub(super) struct GraphSignals {
    pub(super) changed: watch::Receiver<u64>,
    pub(super) progress: watch::Receiver<Vec<LayerProgress>>,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            inner: Mutex::default(),
            events: broadcast::channel(EVENT_BACKLOG).0,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every critical section leaves the maps whole, so a panic elsewhere does not make them wrong.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add_graph(&self, graph: GraphId, layers: Vec<LayerProgress>) -> GraphSignals {
        let (changed, changed_receiver) = watch::channel(0);
        let (progress, progress_receiver) = watch::channel(layers);
        let state = GraphState {
            phase: Phase::Submitted,
            outputs: BTreeMap::new(),
            submission: None,
            cancelled: false,
            released: Vec::new(),
            changed,
            progress,
        };
        self.lock().graphs.insert(graph, state);
        GraphSignals {
            changed: changed_receiver,
            progress: progress_receiver,
        }
    }

    /// Forgets a graph; later messages about it are ignored. Returns its last phase.
    pub(super) fn remove_graph(&self, graph: GraphId) -> Option<Phase> {
        self.lock().graphs.remove(&graph).map(|state| state.phase)
    }

    /// Asks to hold something; what is returned is raised whenever something about the hold changes.
    pub(super) fn add_hold(&self, request: RequestId, call: SharingCall) -> watch::Receiver<u64> {
        let (changed, receiver) = watch::channel(0);
        let state = HoldState {
            call: call.clone(),
            answer: None,
            outputs: BTreeMap::new(),
            changed,
        };
        self.lock().holds.insert(request, state);
        self.send(ClientMessage::Share { request, call });
        receiver
    }

    /// Lets go of a hold.
    pub(super) fn remove_hold(&self, request: RequestId) {
        let hold = self.lock().holds.remove(&request);
        if hold.is_some_and(|hold| hold.say_again().is_some()) {
            let call = SharingCall::LetGo;
            self.send(ClientMessage::Share { request, call });
        }
    }

    /// Reads a hold's state; `None` when it was let go.
    pub(super) fn with_hold<R>(
        &self,
        request: RequestId,
        read: impl FnOnce(&mut HoldState) -> R,
    ) -> Option<R> {
        self.lock().holds.get_mut(&request).map(read)
    }

    /// Asks something that is answered once; again, should the connection break meanwhile.
    pub(super) fn ask(
        &self,
        request: RequestId,
        call: SharingCall,
    ) -> oneshot::Receiver<SharingAnswer> {
        let (sender, receiver) = oneshot::channel();
        self.lock().asked.insert(request, (call.clone(), sender));
        self.send(ClientMessage::Share { request, call });
        receiver
    }

    /// Reads a graph's state; `None` when it was removed.
    pub(super) fn with_graph<R>(
        &self,
        graph: GraphId,
        read: impl FnOnce(&mut GraphState) -> R,
    ) -> Option<R> {
        self.lock().graphs.get_mut(&graph).map(read)
    }

    pub(super) fn expect_info(&self) -> oneshot::Receiver<ClusterInfo> {
        let (sender, receiver) = oneshot::channel();
        self.lock().infos.push_back(sender);
        receiver
    }

    pub(super) fn expect_explanation(&self, task: TaskId) -> oneshot::Receiver<Explanation> {
        let (sender, receiver) = oneshot::channel();
        self.lock()
            .explanations
            .entry(task)
            .or_default()
            .push(sender);
        receiver
    }

    /// Answers to a call, until the connection ends.
    pub(super) fn expect_answers(
        &self,
        request: RequestId,
    ) -> mpsc::UnboundedReceiver<CoordinationAnswer> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut inner = self.lock();
        if inner.lost.is_none() {
            inner.calls.insert(request, sender);
        }
        receiver
    }

    pub(super) fn expect_no_answers(&self, request: RequestId) {
        self.lock().calls.remove(&request);
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<EventRecord> {
        self.events.subscribe()
    }

    /// Where a worker serves its partitions; nowhere, when the scheduler has not said so.
    pub(super) fn addresses_of(&self, worker: WorkerId) -> Arc<[Address]> {
        let peers = &self.lock().peers;
        peers.get(&worker).cloned().unwrap_or_default()
    }

    /// Why the connection ended, if it has.
    pub(super) fn lost(&self) -> Option<String> {
        self.lock().lost.clone()
    }

    /// Sends a message, or keeps in mind what it asks for until the connection is back. Nothing is sent after the end.
    pub(super) fn send(&self, message: ClientMessage) {
        let mut inner = self.lock();
        inner.note(&message);
        if let Some(outgoing) = &inner.outgoing {
            // A connection that has just broken is made again, and then everything is said again.
            let _ = outgoing.send(vec![message]);
        }
    }

    /// A connection is there. On one that was made again, everything that may have been lost with the old one is said first.
    pub(super) fn on_connected(
        &self,
        outgoing: mpsc::UnboundedSender<Vec<ClientMessage>>,
        is_back: bool,
    ) {
        let mut inner = self.lock();
        if is_back {
            // The scheduler tells anew where outputs are.
            for graph in inner.graphs.values_mut() {
                graph.outputs.clear();
            }
            for hold in inner.holds.values_mut() {
                hold.outputs.clear();
            }
            let _ = outgoing.send(inner.say_again());
        }
        inner.outgoing = Some(outgoing);
    }

    /// The connection broke. Returns whether it is worth coming back.
    pub(super) fn on_broken(&self) -> bool {
        let mut inner = self.lock();
        inner.outgoing = None;
        // Locks and the like end with the connection.
        inner.calls.clear();
        inner.lost.is_none() && !inner.shutting_down
    }

    /// No more messages: what is queued still leaves, and then the connection ends.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        if let Some(outgoing) = inner.outgoing.take() {
            let _ = outgoing.send(vec![ClientMessage::Goodbye]);
        }
        // The end of the connection that follows is no break, and nobody shall come back.
        inner
            .lost
            .get_or_insert_with(|| "the client was closed".to_owned());
    }

    /// The connection ended: everyone who waits is woken and finds out why.
    pub(super) fn on_lost(&self, reason: String) {
        let mut inner = self.lock();
        inner.lost.get_or_insert(reason);
        inner.outgoing = None;
        inner.infos.clear();
        inner.explanations.clear();
        inner.calls.clear();
        inner.asked.clear();
        let graphs = inner.graphs.values().map(|graph| &graph.changed);
        let holds = inner.holds.values().map(|hold| &hold.changed);
        for changed in graphs.chain(holds) {
            changed.send_modify(|version| *version += 1);
        }
    }

    pub(super) fn on_message(&self, message: SchedulerToClient) {
        let mut inner = self.lock();
        match message {
            SchedulerToClient::Peer { worker, addresses } => {
                inner.peers.insert(worker, addresses.into());
            }
            SchedulerToClient::Accepted { graph } => {
                inner.update(graph, |state| {
                    state.phase = Phase::Running;
                    state.submission = None;
                });
            }
            SchedulerToClient::Rejected { graph, error } => {
                inner.update(graph, |state| {
                    state.phase = Phase::Rejected(error);
                    state.submission = None;
                });
            }
            SchedulerToClient::OutputReady { output } => {
                inner.update_holds(output.task, |hold| {
                    hold.outputs.insert(output.task.index, output.clone());
                });
                inner.update(output.task.graph, |state| {
                    state.outputs.insert(output.task.index, output);
                });
            }
            SchedulerToClient::OutputLost { task } => {
                inner.update_holds(task, |hold| {
                    hold.outputs.remove(&task.index);
                });
                inner.update(task.graph, |state| {
                    state.outputs.remove(&task.index);
                });
            }
            SchedulerToClient::Ended { graph, outcome } => {
                inner.update(graph, |state| state.phase = Phase::Ended(outcome));
            }
            SchedulerToClient::Progress { graph, layers } => {
                if let Some(state) = inner.graphs.get(&graph) {
                    state.progress.send_replace(layers);
                }
            }
            SchedulerToClient::Explained { task, explanation } => {
                for waiting in inner.explanations.remove(&task).unwrap_or_default() {
                    // A caller that no longer waits is no error.
                    let _ = waiting.send(explanation.clone());
                }
            }
            SchedulerToClient::Info { info } => {
                if let Some(waiting) = inner.infos.pop_front() {
                    let _ = waiting.send(info);
                }
            }
            SchedulerToClient::Events { events } => {
                for event in events {
                    // No subscriber any more is no error.
                    let _ = self.events.send(event);
                }
            }
            SchedulerToClient::Coordinated { request, answer } => {
                if let Some(call) = inner.calls.get(&request) {
                    // A call that was dropped says so itself.
                    let _ = call.send(answer);
                }
            }
            SchedulerToClient::Shared { request, answer } => {
                if let Some((_, waiting)) = inner.asked.remove(&request) {
                    // A caller that no longer waits is no error.
                    let _ = waiting.send(answer);
                } else if let Some(hold) = inner.holds.get_mut(&request) {
                    hold.answer = Some(answer);
                    hold.changed.send_modify(|version| *version += 1);
                }
            }
            SchedulerToClient::ShuttingDown => {
                drop(inner);
                self.on_lost("the scheduler was shut down".to_owned());
            }
        }
    }
}

impl Inner {
    /// Keeps in mind what must be said again should the connection break.
    fn note(&mut self, message: &ClientMessage) {
        match message {
            ClientMessage::Submit { graph, tasks } => {
                if let Some(state) = self.graphs.get_mut(graph) {
                    state.submission = Some(tasks.clone());
                }
            }
            ClientMessage::Cancel { graph } => {
                if let Some(state) = self.graphs.get_mut(graph) {
                    state.cancelled = true;
                }
            }
            ClientMessage::Release { tasks } => {
                for task in tasks {
                    if let Some(state) = self.graphs.get_mut(&task.graph) {
                        state.released.push(*task);
                    }
                }
            }
            ClientMessage::Subscribe => self.subscribed = true,
            ClientMessage::Shutdown => self.shutting_down = true,
            // Answers to these are waited for, or need not be; and calls end with the connection.
            ClientMessage::Unreachable { .. }
            | ClientMessage::Leave { .. }
            | ClientMessage::Share { .. }
            | ClientMessage::Explain { .. }
            | ClientMessage::Info
            | ClientMessage::Coordinate { .. }
            | ClientMessage::Resume { .. }
            | ClientMessage::Resubmit { .. }
            | ClientMessage::Goodbye => {}
        }
    }

    fn say_again(&self) -> Vec<ClientMessage> {
        let mut accepted = Vec::new();
        let mut submitted = Vec::new();
        let mut rest = Vec::new();
        let mut graphs: Vec<_> = self.graphs.iter().collect();
        graphs.sort_unstable_by_key(|(id, _)| **id);
        for (id, state) in graphs {
            match (&state.phase, &state.submission) {
                (Phase::Submitted, Some(tasks)) => {
                    submitted.push(*id);
                    rest.push(ClientMessage::Resubmit {
                        graph: *id,
                        tasks: tasks.clone(),
                    });
                }
                // It is about to be sent.
                (Phase::Submitted, None) | (Phase::Rejected(_), _) => continue,
                (Phase::Running | Phase::Ended(GraphOutcome::Finished), _) => accepted.push(*id),
                (
                    Phase::Ended(
                        GraphOutcome::Failed(_)
                        | GraphOutcome::Cancelled
                        | GraphOutcome::TimedOut { .. },
                    ),
                    _,
                ) => continue,
            }
            if state.cancelled {
                rest.push(ClientMessage::Cancel { graph: *id });
            }
            if !state.released.is_empty() {
                let tasks = state.released.clone();
                rest.push(ClientMessage::Release { tasks });
            }
        }
        let mut holds = Vec::new();
        for (request, hold) in &self.holds {
            if let Some(call) = hold.say_again() {
                let request = *request;
                holds.push(request);
                rest.push(ClientMessage::Share { request, call });
            }
        }
        rest.extend(self.asked.iter().map(|(request, (call, _))| {
            let (request, call) = (*request, call.clone());
            ClientMessage::Share { request, call }
        }));
        if self.subscribed {
            rest.push(ClientMessage::Subscribe);
        }
        rest.extend(self.infos.iter().map(|_| ClientMessage::Info));
        let asked = self.explanations.keys();
        rest.extend(asked.map(|task| ClientMessage::Explain { task: *task }));
        let resume = ClientMessage::Resume {
            accepted,
            submitted,
            holds,
        };
        std::iter::once(resume).chain(rest).collect()
    }

    fn update_holds(&mut self, task: TaskId, change: impl Fn(&mut HoldState)) {
        for hold in self.holds.values_mut() {
            if hold.tasks().is_some_and(|tasks| tasks.contains(task)) {
                change(hold);
                hold.changed.send_modify(|version| *version += 1);
            }
        }
    }

    fn update(&mut self, graph: GraphId, change: impl FnOnce(&mut GraphState)) {
        if let Some(state) = self.graphs.get_mut(&graph) {
            change(state);
            state.changed.send_modify(|version| *version += 1);
        }
    }
}
