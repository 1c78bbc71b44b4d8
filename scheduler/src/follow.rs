//! What follows from tasks that are done, for many of them at once where their edges are listed one by one.
//!
//! Filled by `lineage` while messages are taken in, and emptied before anything but ends and starts of tasks is taken in, and before
//! anything is decided. A task of such a graph has its record, its edges and the tasks at their other ends in memory that nobody has
//! read lately, and one that is followed alone waits for each of them in turn; here all are read first, so that the processor waits
//! for them together. Knows nothing of placement.

use std::hint::black_box;
use std::mem;

use transload_protocol::{GraphId, WorkerMessage};

use crate::api::{Action, Input};
use crate::graph::{Graph, LayerRecord};
use crate::machine::Scheduler;
use crate::slab::{GraphSlot, TaskAt};
use crate::task::TaskState;

/// So many are followed at once: what they touch fits the first level of the cache.
const AT_ONCE: usize = 32;

/// Tasks that are done and have not been followed.
#[derive(Debug, Default)]
pub(crate) struct Followed {
    /// They.
    pub(crate) done: Vec<TaskAt>,
    scratch: Scratch,
}

#[derive(Debug, Default)]
struct Scratch {
    /// Tasks that read those that are done.
    readers: Vec<u32>,
    /// Tasks that some others read.
    sources: Vec<u32>,
    /// Readers that miss nothing now.
    ready: Vec<u32>,
}

impl Input {
    /// Whether it may be taken in while what follows from tasks that are done is still to be done.
    pub(crate) const fn may_go_before_what_follows(&self) -> bool {
        matches!(
            self,
            Self::FromWorker {
                message: WorkerMessage::Started { .. } | WorkerMessage::Finished { .. },
                ..
            }
        )
    }
}

impl Graph {
    /// Reads the records of tasks, and nothing of what they say.
    fn touch(&self, tasks: &[u32]) {
        let records = tasks.iter().map(|index| &self.tasks[*index as usize]);
        black_box(records.fold(0, |sum, task| sum ^ task.readers));
    }

    fn touch_edges(&self, tasks: &[TaskAt]) {
        let edges = tasks.iter().map(|at| {
            let (layer, position) = self.locate(at.index);
            self.compiled.touch_inputs(layer, position)
                ^ self.compiled.touch_consumers(layer, position)
        });
        black_box(edges.fold(0, |sum, edges| sum ^ edges));
    }

    fn touch_inputs(&self, tasks: &[u32]) {
        let inputs = tasks.iter().map(|index| {
            let (layer, position) = self.locate(*index);
            self.compiled.touch_inputs(layer, position)
        });
        black_box(inputs.fold(0, |sum, inputs| sum ^ inputs));
    }

    fn list_inputs(&self, index: u32, sources: &mut Vec<u32>) {
        let (layer, position) = self.locate(index);
        let compiled = &self.compiled;
        if let Some(listed) = compiled.listed_sources(layer, position) {
            sources.extend_from_slice(listed);
        } else {
            compiled.for_each_direct_input(layer, position, |input| sources.push(input.task));
        }
    }

    /// Takes note of what the readers of some tasks miss no more, and of what those tasks read no more.
    fn follow(&mut self, done: &[TaskAt], scratch: &mut Scratch, unneeded: &mut Vec<u32>) {
        let (readers, sources) = (&mut scratch.readers, &mut scratch.sources);
        self.touch_edges(done);
        for at in done {
            let (layer, position) = self.locate(at.index);
            let compiled = &self.compiled;
            compiled.for_each_direct_consumer(layer, position, |reader| readers.push(reader));
            self.list_inputs(at.index, sources);
        }
        self.touch(readers);
        self.touch(sources);
        for index in readers.drain(..) {
            // Others run with what they have, or have no more use for it.
            if let TaskState::Waiting { missing } = &mut self.tasks[index as usize].state {
                *missing = missing.saturating_sub(1);
                if *missing == 0 {
                    scratch.ready.push(index);
                }
            }
        }
        for index in sources.drain(..) {
            let source = &mut self.tasks[index as usize];
            source.readers -= 1;
            if source.readers == 0 && !source.is_held() {
                unneeded.push(index);
            }
        }
        for at in done {
            if !self.layer_of(at.index).kept {
                // Held by the graph itself, until it has run once for its effect.
                self.let_go(at.index);
            }
            if !self.is_needed(at.index) {
                unneeded.push(at.index);
            }
        }
        // They are weighed next.
        self.touch_inputs(&scratch.ready);
        for index in &scratch.ready {
            self.list_inputs(*index, sources);
        }
        self.touch(sources);
        sources.clear();
    }
}

impl Scheduler {
    /// Reads the records of tasks that workers say have ended, before any of these messages is taken in: the processor then waits for
    /// all of them together. Changes nothing.
    pub fn touch_ended(&self, messages: &[WorkerMessage]) {
        let mut known: Option<(GraphId, &Graph)> = None;
        let mut sum = 0;
        for message in messages {
            let WorkerMessage::Finished { task, .. } = message else {
                continue;
            };
            let graph = match known {
                Some((id, graph)) if id == task.graph => graph,
                Some(_) | None => {
                    let Some(slot) = self.graphs.by_id.get(&task.graph) else {
                        continue;
                    };
                    &self.graphs.slab[*slot]
                }
            };
            known = Some((task.graph, graph));
            sum ^= graph
                .tasks
                .get(task.index as usize)
                .map_or(0, |task| task.readers);
        }
        black_box(sum);
    }
}

impl LayerRecord {
    /// Whether what this ready task reads, and what the next ones read, should be looked at before it is handed out.
    #[inline]
    pub(crate) fn wants_a_look_ahead(&self, position: u32) -> bool {
        self.is_scattered && !self.looked_at.contains(&position)
    }
}

impl Scheduler {
    /// Reads what the ready tasks of a layer from this one on read, as many as are likely to be handed out soon.
    #[inline(never)]
    pub(crate) fn look_ahead(&mut self, at: TaskAt) {
        let scratch = &mut self.followed.scratch;
        let graph = &mut self.graphs.slab[at.graph];
        let (layer, position) = graph.locate(at.index);
        let record = &mut graph.layers[layer.0 as usize];
        let mut end = position;
        while scratch.ready.len() < AT_ONCE
            && let Some(next) = record.ready.first_from(end)
        {
            scratch.ready.push(record.first_task + next);
            end = next + 1;
        }
        record.looked_at = position..end;
        graph.touch_inputs(&scratch.ready);
        for index in scratch.ready.drain(..) {
            graph.list_inputs(index, &mut scratch.sources);
        }
        graph.touch(&scratch.sources);
        scratch.sources.clear();
    }

    /// Does what follows from tasks that are done.
    #[inline]
    pub(crate) fn follow_done(&mut self, out: &mut Vec<Action>) {
        if !self.followed.done.is_empty() {
            self.follow_done_now(out);
        }
    }

    #[inline(never)]
    fn follow_done_now(&mut self, out: &mut Vec<Action>) {
        let mut followed = mem::take(&mut self.followed);
        let mut graphs: Vec<GraphSlot> = Vec::new();
        for done in followed.done.chunk_by(|one, next| one.graph == next.graph) {
            if let Some(first) = done.first() {
                graphs.push(first.graph);
                for done in done.chunks(AT_ONCE) {
                    self.follow_some(first.graph, done, &mut followed.scratch, out);
                }
            }
        }
        followed.done.clear();
        self.followed = followed;
        graphs.sort_unstable();
        graphs.dedup();
        for graph in graphs {
            self.end_if_done(graph, out);
        }
        self.follow_imports(out);
    }

    /// Does what follows from some tasks of one graph.
    fn follow_some(
        &mut self,
        graph: GraphSlot,
        done: &[TaskAt],
        scratch: &mut Scratch,
        out: &mut Vec<Action>,
    ) {
        let mut unneeded = mem::take(&mut self.unneeded);
        self.graphs.slab[graph].follow(done, scratch, &mut unneeded);
        self.unneeded = unneeded;
        for index in scratch.ready.drain(..) {
            self.make_ready(TaskAt { graph, index });
        }
        self.drop_unneeded(graph, out);
    }
}
