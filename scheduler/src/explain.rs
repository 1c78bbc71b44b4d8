//! Why a task is where it is, in words for a person.
//!
//! Called for `ClientMessage::Explain` and by the command line. Reads everything, changes nothing.

use transload_protocol::{
    ClientId, Explanation, GraphId, LayerIndex, LayerProgress, TaskId, words,
};

use crate::graph::Graph;
use crate::machine::Scheduler;
use crate::ready::Rank;
use crate::slab::{ShareSlot, TaskAt, WorkerSlot};
use crate::task::TaskState;

/// So many tasks or workers are named before the rest is only counted.
pub(crate) const NAMED: usize = 5;

impl Scheduler {
    /// Why the task is where it is.
    pub fn explain(&self, task: TaskId) -> Explanation {
        let Some(at) = self.graphs.find(task) else {
            return Explanation {
                summary: format!(
                    "task {task} is unknown: its graph has ended and was forgotten, or was never submitted"
                ),
                details: Vec::new(),
            };
        };
        let graph = &self.graphs.slab[at.graph];
        let layer = graph.submitted_layer_of(at.index);
        let mut details = Vec::new();
        let what = match &graph.tasks[at.index as usize].state {
            TaskState::Culled => "never runs: no output that its client keeps needs it".to_owned(),
            TaskState::Waiting { missing } => self.explain_waiting(at, *missing, &mut details),
            TaskState::Ready { prefers } => self.explain_ready(at, *prefers, &mut details),
            TaskState::Assigned {
                worker, started, ..
            } => {
                let is_away = self.workers.slab[*worker].seceded.contains(&at);
                details.extend(self.explain_straggling(at, *worker));
                let worker = self.worker_name(*worker);
                if is_away {
                    format!(
                        "runs on {worker}, without a slot: it waits for graphs that it submitted"
                    )
                } else if *started {
                    format!("runs on {worker}")
                } else {
                    let asked_back = self.recalls.open.get(&task).map(|thief| {
                        let thief = self.worker_name(*thief);
                        format!("it was asked back for {thief}, which has a free slot")
                    });
                    details.extend(asked_back);
                    format!(
                        "was handed to {worker}, which fetches its inputs or has no free slot yet"
                    )
                }
            }
            TaskState::Ended { worker } => {
                self.detail_gang(at, &mut details);
                format!(
                    "has ended well on {}, and is done when the rest of its gang is",
                    self.worker_name(*worker)
                )
            }
            TaskState::Done {
                worker, largest, ..
            } => {
                self.explain_done(at, &mut details);
                format!(
                    "is done: {} B on {}",
                    graph.sizes(at.index, *largest).total_bytes,
                    self.worker_name(*worker)
                )
            }
            TaskState::Released => {
                "is over: nobody needs its partitions, so they were freed or never made".to_owned()
            }
        };
        if let Some(until) = self.attempt_limits.until(at) {
            let left = words::duration(until.micros_since(self.now));
            details.push(format!("its attempt may run for another {left}"));
        }
        if let Some(until) = self.graph_limits.until(at.graph) {
            let left = words::duration(until.micros_since(self.now));
            details.push(format!("its graph has to be done in {left}"));
        }
        details.push(format!(
            "layer {} (`{}`), operator `{}`, attempt {}",
            graph.tasks[at.index as usize].layer(),
            layer.name,
            layer.operator,
            graph.tasks[at.index as usize].attempt
        ));
        if let Some(history) = graph.history.get(&graph.history_key(at.index)) {
            details.push(format!(
                "{} failures, {} deaths of its worker, {} losses of its partitions; last: {}",
                history.failures, history.deaths, history.losses, history.last
            ));
        }
        Explanation {
            summary: format!("task {task} {what}"),
            details,
        }
    }

    /// How far a layer is, and why the first of its tasks that is neither done nor running is where it is.
    pub fn explain_layer(&self, graph: GraphId, layer: LayerIndex) -> Explanation {
        let unknown = |what: String| Explanation {
            summary: what,
            details: Vec::new(),
        };
        let Some(slot) = self.graphs.by_id.get(&graph) else {
            return unknown(format!(
                "graph {graph} is unknown: it has ended and was forgotten, or was never submitted"
            ));
        };
        let record = &self.graphs.slab[*slot];
        let layers = record.compiled.layers().iter().zip(&record.layers);
        let Some((described, counted)) = layers.clone().nth(layer.0 as usize) else {
            let layers = layers.len();
            return unknown(format!(
                "graph {graph} has {layers} layers, and no layer {layer}"
            ));
        };
        let LayerProgress {
            total,
            done,
            running,
        } = counted.counts;
        let summary = format!(
            "layer {layer} (`{}`): {done} of {total} tasks are done, {running} were handed to workers",
            described.name
        );
        let mut tasks = (counted.first_task..).take(described.tasks as usize);
        let is_held_up = |index: &u32| {
            matches!(
                record.tasks[*index as usize].state,
                TaskState::Waiting { .. } | TaskState::Ready { .. }
            )
        };
        let details = match tasks.find(is_held_up) {
            None => Vec::new(),
            Some(index) => {
                let explained = self.explain(record.task_id(index));
                std::iter::once(explained.summary)
                    .chain(explained.details)
                    .collect()
            }
        };
        Explanation { summary, details }
    }

    fn explain_waiting(&self, at: TaskAt, missing: u32, details: &mut Vec<String>) -> String {
        let graph = &self.graphs.slab[at.graph];
        let mut sources = Vec::new();
        let mut reads = 0;
        graph.compiled.for_each_input(at.index, |input| {
            reads += 1;
            if !matches!(
                graph.tasks[input.task as usize].state,
                TaskState::Done { .. }
            ) && sources.last() != Some(&input.task)
            {
                sources.push(input.task);
            }
        });
        if let Some(source) = graph.imported_by(at.index) {
            reads += 1;
            details.push(match self.graphs.find(source) {
                Some(source) => self.describe_source(&self.graphs.slab[source.graph], source.index),
                None => format!("task {source}, which it imports, is gone with its graph"),
            });
        }
        details.extend(
            sources
                .iter()
                .take(NAMED)
                .map(|source| self.describe_source(graph, *source)),
        );
        if sources.len() > NAMED {
            details.push(format!("and {} more", sources.len() - NAMED));
        }
        if !self.workers.slab.is_empty() && !self.can_be_run(at) {
            details.insert(
                0,
                format!(
                    "no worker now in the cluster could run it: {}",
                    self.why_nobody(at)
                ),
            );
        }
        if let Some(cancel) = self.cancels.get(&graph.task_id(at.index)) {
            details.insert(
                0,
                format!(
                    "{} has not yet answered that it stopped attempt {}",
                    self.worker_name(cancel.worker),
                    cancel.attempt.0
                ),
            );
        }
        let retry = self.retries.until(at).map(|until| {
            let history = graph.history.get(&graph.history_key(at.index));
            let failed = history.map_or(0, |history| history.failed_attempts());
            let left = words::duration(until.micros_since(self.now));
            format!("waits {left} before attempt {}", failed + 1)
        });
        match retry {
            Some(retry) if missing == 1 => retry,
            retry => {
                details.extend(retry);
                let missing = missing - u32::from(self.retries.until(at).is_some());
                format!("waits for {missing} of the {reads} partitions that it reads")
            }
        }
    }

    /// Whether any worker of the cluster could run the task if it had nothing else.
    fn can_be_run(&self, at: TaskAt) -> bool {
        let layer = self.graphs.slab[at.graph].layer_of(at.index);
        self.workers.any_covers(layer, |_| true) || self.pinned_worker(at).is_some()
    }

    fn describe_source(&self, graph: &Graph, source: u32) -> String {
        let layer = &graph.submitted_layer_of(source).name;
        let id = graph.task_id(source);
        match &graph.tasks[source as usize].state {
            TaskState::Assigned { worker, .. } => {
                format!(
                    "task {id} (`{layer}`) is with {}",
                    self.worker_name(*worker)
                )
            }
            TaskState::Culled
            | TaskState::Waiting { .. }
            | TaskState::Ready { .. }
            | TaskState::Ended { .. }
            | TaskState::Done { .. }
            | TaskState::Released => format!(
                "task {id} (`{layer}`) is {}",
                graph.tasks[source as usize].state.name()
            ),
        }
    }

    fn explain_ready(
        &self,
        at: TaskAt,
        prefers: Option<WorkerSlot>,
        details: &mut Vec<String>,
    ) -> String {
        let layer = self.graphs.slab[at.graph].layer_of(at.index);
        details.push(format!("it asks for {}", layer.resources));
        details.extend(self.place_of(at));
        if self.workers.slab.is_empty() {
            return "is ready, but no worker has joined".to_owned();
        }
        details.extend(self.explain_hold_ups(at));
        details.extend(self.explain_aside());
        if self.graphs.slab[at.graph].is_of_gang(at.index) {
            return self.explain_ready_member(at, details);
        }
        if prefers.is_none() && !self.workers.any_covers(layer, |_| true) {
            if let Some(due) = self.ready.stuck.layers.get(&layer.rank) {
                details.push(format!(
                    "its graph fails in {} ms, unless a worker that can run it joins before",
                    due.micros_since(self.now).div_ceil(1_000)
                ));
            }
            return format!(
                "is ready, but no worker in the cluster can run it: {}",
                self.why_nobody(at)
            );
        }
        if let Some(worker) = prefers {
            details.push(format!(
                "{} on {}",
                if layer.scope.is_each() {
                    "it queues"
                } else {
                    "most of what it reads is"
                },
                self.worker_name(worker)
            ));
        }
        details.extend(self.explain_weights(at, prefers));
        details.extend(self.explain_turn(at));
        for (slot, worker) in self.workers.slab.iter().take(NAMED) {
            details.push(format!(
                "{} has {} tasks for {}",
                self.worker_name(slot),
                worker.assigned.len() + worker.cancelling as usize,
                worker.hello.resources
            ));
        }
        "is ready and waits for room on a worker".to_owned()
    }

    /// How many ready tasks go before this one, and, where several clients have some, whose turn it is.
    fn explain_turn(&self, at: TaskAt) -> Vec<String> {
        let layer = self.graphs.slab[at.graph].layer_of(at.index);
        let (rank, position) = (layer.rank, at.index - layer.first_task);
        let is_before = |other: &Rank, index: u32| {
            let is_in_line = other.share == rank.share || other.urgency != rank.urgency;
            is_in_line && (*other, index) < (rank, position)
        };
        let mut before = 0_u32;
        for other in &self.ready.layers {
            let ready = &self.graphs.slab[other.graph].layers[other.layer() as usize].ready;
            let tasks = ready.iter().filter(|index| is_before(other, *index));
            before += u32::try_from(tasks.count()).unwrap_or(u32::MAX);
        }
        for (_, worker) in self.workers.slab.iter() {
            let tasks = worker.preferred.iter();
            let tasks = tasks.filter(|(other, index)| {
                let layer = &self.graphs.slab[other.graph].layers[other.layer() as usize];
                is_before(other, index - layer.first_task)
            });
            before += u32::try_from(tasks.count()).unwrap_or(u32::MAX);
        }
        let mut lines = vec![format!(
            "{} ready tasks go before it, of {} in all",
            words::count(before),
            words::count(self.ready.len())
        )];
        let shares = &self.ready.shares;
        if let Some((_, next)) = shares.turns().next()
            && shares.are_contended()
        {
            let of = |slot: ShareSlot| {
                let share = &shares.slab[slot];
                (self.client_name(share.client), share.used())
            };
            let (name, used) = of(next);
            let mut line = format!(
                "clients share the workers: the next slot is for {name}, whose tasks occupy {used}"
            );
            if next != rank.share {
                let (name, used) = of(rank.share);
                line.push_str(&format!("; those of {name} occupy {used}"));
            }
            lines.push(line);
        }
        lines
    }

    fn client_name(&self, client: ClientId) -> String {
        let record = self.clients.get(&client);
        let name = record.map_or("?", |client| client.name.as_str());
        format!("client {client} (`{name}`)")
    }

    fn explain_done(&self, at: TaskAt, details: &mut Vec<String>) {
        let graph = &self.graphs.slab[at.graph];
        let task = &graph.tasks[at.index as usize];
        if task.readers > 0 {
            details.push(format!("{} reads of it are still to come", task.readers));
        }
        if graph.owner_holds(at.index) {
            details.push(format!("{} holds it", self.client_name(graph.id.client)));
        }
        details.extend(self.holders_of(at));
    }

    pub(crate) fn worker_name(&self, slot: WorkerSlot) -> String {
        let worker = &self.workers.slab[slot];
        format!("worker {} (`{}`)", worker.id, worker.hello.name)
    }
}
