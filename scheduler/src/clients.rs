//! What clients ask for: submit, cancel, release, and questions.
//!
//! Called by `machine`. Whatever a client sends, only its own graphs are touched; of others' graphs it can hold and import what
//! those keep.

use transload_protocol::{
    ClientId, ClientMessage, CompiledGraph, Edges, Event, GraphError, GraphId, GraphOutcome,
    JournalEntry, LayerIndex, SchedulerToClient, SchedulerToWorker, Source, TaskGraph, TaskId,
    WorkerId,
};

use crate::api::Action;
use crate::coordination::Step;
use crate::graph::{Graph, Line, Phase};
use crate::machine::Scheduler;
use crate::session::Presence;
use crate::sharing::Holder;
use crate::slab::{GraphSlot, TaskAt};
use crate::task::TaskState;

/// Most edges of one graph that are walked one by one, a few times each, while nobody else is served.
const MAX_EDGES_PER_GRAPH: u32 = 1 << 28;

impl Scheduler {
    pub(crate) fn on_client_message(
        &mut self,
        client: ClientId,
        message: ClientMessage,
        out: &mut Vec<Action>,
    ) {
        if !self.clients.contains_key(&client) {
            return;
        }
        let mut answer = |message| out.push(Action::ToClient { client, message });
        match message {
            ClientMessage::Submit { graph, tasks } => self.on_submit(client, graph, tasks, out),
            ClientMessage::Cancel { graph } => self.on_cancel(client, graph, out),
            ClientMessage::Release { tasks } => self.on_release(client, &tasks, out),
            ClientMessage::Unreachable {
                task,
                worker,
                reason,
            } => self.on_unreachable(client, task, worker, &reason, out),
            ClientMessage::Explain { task } => answer(SchedulerToClient::Explained {
                task,
                explanation: self.explain(task),
            }),
            ClientMessage::Info => answer(SchedulerToClient::Info { info: self.info() }),
            ClientMessage::Subscribe => self.on_subscribe(client),
            ClientMessage::Shutdown => self.on_shutdown(out),
            ClientMessage::Resume {
                accepted,
                submitted,
                holds,
            } => {
                self.on_resume(client, &accepted, &submitted, out);
                self.keep_holds(client, &holds, out);
            }
            ClientMessage::Resubmit { graph, tasks } => {
                self.on_resubmit(client, graph, tasks, out);
            }
            ClientMessage::Goodbye => self.on_client_left(client, out),
            ClientMessage::Coordinate { request, call } => {
                let step = &mut Step { now: self.now, out };
                self.coordination.on_call(client, request, call, step);
            }
            ClientMessage::Leave { graph } => {
                if let Some(slot) = self.owned(client, graph) {
                    self.leave(slot, out);
                }
            }
            ClientMessage::Share { request, call } => self.on_share(client, request, call, out),
        }
    }

    /// A client is gone for good.
    pub(crate) fn on_client_left(&mut self, client: ClientId, out: &mut Vec<Action>) {
        let Some(record) = self.clients.remove(&client) else {
            return;
        };
        if record.subscribed {
            self.subscribers -= 1;
        }
        self.away -= u32::from(record.presence != Presence::Here);
        if record.session.is_some() {
            self.record(|| JournalEntry::ClientLeft { client }, out);
        }
        let step = &mut Step { now: self.now, out };
        self.coordination.on_client_lost(client, step);
        for (hold, tasks) in record.holds {
            self.let_go_of(&Holder::Client(client, hold), tasks.graph, out);
        }
        for id in record.graphs {
            if let Some(slot) = self.graphs.by_id.get(&id).copied() {
                self.leave(slot, out);
            }
        }
        self.end_share(client);
    }

    pub(crate) fn on_submit(
        &mut self,
        client: ClientId,
        id: GraphId,
        tasks: TaskGraph,
        out: &mut Vec<Action>,
    ) {
        let refused = self
            .misused_id(client, id)
            .map(|reason| GraphError::BadLayer {
                graph: tasks.name.clone(),
                layer: LayerIndex(0),
                name: tasks
                    .layers
                    .first()
                    .map_or_else(String::new, |layer| layer.name.clone()),
                reason,
            });
        let compiled = refused
            .map_or_else(|| tasks.compile(), Err)
            .and_then(limit_edges)
            .and_then(|compiled| self.check_imports(compiled));
        let compiled = match compiled {
            Ok(compiled) => compiled,
            Err(error) => {
                let message = SchedulerToClient::Rejected { graph: id, error };
                out.push(Action::ToClient { client, message });
                return;
            }
        };
        let accepted = || JournalEntry::Accepted {
            graph: id,
            tasks: compiled.to_graph(),
        };
        self.record(accepted, out);
        let slot = self.insert_graph(id, compiled);
        out.push(Action::ToClient {
            client,
            message: SchedulerToClient::Accepted { graph: id },
        });
        let tasks = self.graphs.slab[slot].compiled.task_count();
        self.emit(Event::GraphAccepted { graph: id, tasks }, out);
        self.start_roots(slot);
    }

    /// Makes the record of an accepted graph, of which nothing has begun.
    pub(crate) fn insert_graph(&mut self, id: GraphId, compiled: CompiledGraph) -> GraphSlot {
        let slot = self.graphs.slab.next_slot();
        let line = self.line_of(id.client, compiled.parent());
        let graph = Graph::new(id, (self.accepted, line), slot, compiled);
        self.accepted = self.accepted.wrapping_add(1);
        self.graphs.slab.insert(graph);
        self.graphs.by_id.insert(id, slot);
        self.admit_workers_to(slot);
        self.enter_imports(slot);
        self.compete(slot);
        self.begin_graph_limit(slot);
        if let Some(record) = self.clients.get_mut(&id.client) {
            record.graphs.insert(id);
            record.ended.remove(&id);
        }
        slot
    }

    /// The place in line of the next graph that a client submits, for itself or for a task that waits for it.
    fn line_of(&mut self, client: ClientId, parent: Option<TaskId>) -> Line {
        let Some(at) = parent.and_then(|task| self.graphs.find(task)) else {
            return Line {
                share: self.join_share(client),
                serial: self.accepted,
                nesting: 0,
                least_priority: i32::MIN,
            };
        };
        let outer = &self.graphs.slab[at.graph];
        let (outer, urgency) = (outer.line, outer.layer_of(at.index).rank.urgency);
        let client = self.ready.shares.slab[outer.share].client;
        Line {
            share: self.join_share(client),
            serial: outer.serial,
            nesting: outer.nesting.saturating_add(1),
            least_priority: urgency.priority(),
        }
    }

    fn misused_id(&self, client: ClientId, id: GraphId) -> Option<String> {
        let first = TaskId {
            graph: id,
            index: 0,
        };
        let unanswered = self
            .cancels
            .range(first..)
            .next()
            .is_some_and(|(task, _)| task.graph == id);
        if id.client != client {
            Some(format!(
                "graph id {id} belongs to another client than {client}"
            ))
        } else if unanswered || self.graphs.by_id.contains_key(&id) {
            Some(format!("graph id {id} is in use; count up for each graph"))
        } else {
            None
        }
    }

    pub(crate) fn start_roots(&mut self, slot: GraphSlot) {
        let tasks = self.graphs.slab[slot].compiled.task_count();
        for index in 0..tasks {
            if self.graphs.slab[slot].tasks[index as usize].state
                == (TaskState::Waiting { missing: 0 })
            {
                self.make_ready(TaskAt { graph: slot, index });
            }
        }
    }

    /// The graph, if this client owns it and has not left it.
    pub(crate) fn owned(&self, client: ClientId, id: GraphId) -> Option<GraphSlot> {
        (id.client == client)
            .then(|| self.graphs.by_id.get(&id).copied())
            .flatten()
            .filter(|slot| !self.graphs.slab[*slot].shared.is_orphan)
    }

    fn on_cancel(&mut self, client: ClientId, id: GraphId, out: &mut Vec<Action>) {
        if let Some(slot) = self.owned(client, id) {
            match self.graphs.slab[slot].phase {
                Phase::Running => {
                    self.end_early(slot, Some(GraphOutcome::Cancelled), out);
                }
                // It has been told how the graph ended.
                Phase::Finished => self.leave(slot, out),
            }
        }
    }

    pub(crate) fn on_release(&mut self, client: ClientId, tasks: &[TaskId], out: &mut Vec<Action>) {
        let own = tasks.iter().filter(|task| task.graph.client == client);
        let released = || JournalEntry::Released {
            tasks: own.copied().collect(),
        };
        self.record(released, out);
        for id in tasks {
            let Some(at) = self
                .owned(client, id.graph)
                .and_then(|_| self.graphs.find(*id))
            else {
                continue;
            };
            let graph = &mut self.graphs.slab[at.graph];
            if !graph.layer_of(at.index).kept || !graph.owner_holds(at.index) {
                continue;
            }
            if !graph.disown(at.index) {
                continue;
            }
            self.unneeded.push(at.index);
            self.drop_unneeded(at.graph, out);
            self.end_if_done(at.graph, out);
        }
    }

    fn on_unreachable(
        &mut self,
        client: ClientId,
        id: TaskId,
        worker: WorkerId,
        reason: &str,
        out: &mut Vec<Action>,
    ) {
        let Some(at) = self.hears_of(client, id) else {
            return;
        };
        let task = &self.graphs.slab[at.graph].tasks[at.index as usize];
        let TaskState::Done { worker: holder, .. } = task.state else {
            // It is being made again: the client will hear of it.
            return;
        };
        if self.workers.slab[holder].id == worker {
            self.on_out_of_reach(at, holder, None, reason, out);
        } else {
            self.tell_output(client, at, out);
        }
    }

    fn on_subscribe(&mut self, client: ClientId) {
        if let Some(record) = self.clients.get_mut(&client)
            && !record.subscribed
        {
            record.subscribed = true;
            self.subscribers += 1;
        }
    }

    fn on_shutdown(&mut self, out: &mut Vec<Action>) {
        self.record(|| JournalEntry::Shutdown, out);
        for worker in self.workers.by_id.keys() {
            out.push(Action::ToWorker {
                worker: *worker,
                message: SchedulerToWorker::Shutdown,
            });
        }
        for client in self.clients.keys() {
            out.push(Action::ToClient {
                client: *client,
                message: SchedulerToClient::ShuttingDown,
            });
        }
        out.push(Action::Stop);
        self.stopped = true;
    }
}

fn limit_edges(compiled: CompiledGraph) -> Result<CompiledGraph, GraphError> {
    let tasks_of = |source: &Source| {
        let Source::Layer(source) = source;
        let below = compiled.layers().get(source.0 as usize);
        u64::from(below.map_or(0, |layer| layer.tasks))
    };
    let listed = (0..)
        .take(compiled.layers().len())
        .map(|layer| compiled.listed_edges(LayerIndex(layer)) as u64);
    let edges: u64 = compiled
        .layers()
        .iter()
        .flat_map(|layer| layer.inputs.iter().map(move |input| (layer, input)))
        .map(|(layer, input)| match &input.edges {
            Edges::OneToOne => u64::from(layer.tasks),
            Edges::Tree { .. } => tasks_of(&input.source),
            // Counted by layer.
            Edges::Shuffle | Edges::Broadcast => u64::from(layer.tasks) + tasks_of(&input.source),
            // Below.
            Edges::Explicit(_) => 0,
        })
        .chain(listed)
        .fold(0, u64::saturating_add);
    if edges > u64::from(MAX_EDGES_PER_GRAPH) {
        return Err(GraphError::TooLarge {
            graph: compiled.name().to_owned(),
            what: format!("the number of edges, {edges},"),
            limit: MAX_EDGES_PER_GRAPH,
        });
    }
    Ok(compiled)
}
