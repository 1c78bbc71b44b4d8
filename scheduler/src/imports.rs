//! Results of one graph as inputs of another: edges between graphs.
//!
//! A task of a layer that imports reads one task of another graph, hands its partitions on, and is an ordinary task to all who
//! read it. As long as it is still to be done, it counts among the readers of that task; and as long as its graph has a record,
//! so has the other, so that what was freed and is lost later can be made again. What follows in one graph from what happens in
//! another is done at the end of the step, however many graphs stand in a row.

use std::collections::BTreeSet;

use transload_protocol::{
    CompiledGraph, GraphError, GraphOutcome, LayerIndex, OutputSizes, TaskError, TaskErrorKind,
    TaskId,
};

use crate::api::Action;
use crate::graph::{Graph, LayerRecord};
use crate::machine::Scheduler;
use crate::slab::{GraphSlot, TaskAt, WorkerSlot};
use crate::task::TaskState;

/// What is to be done about a graph because of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Afterwards {
    /// A task has a reader fewer.
    Unneeded(TaskId),
    /// A task that was freed has a reader again.
    Wanted(TaskId),
    /// What a task imports is gone with its graph, and why.
    SourceGone(TaskId, Option<Box<TaskError>>),
}

impl LayerRecord {
    /// Whether its tasks hand on partitions of other graphs.
    #[inline]
    pub(crate) fn is_import(&self) -> bool {
        !self.imports.is_empty()
    }
}

impl Graph {
    fn has_imports(&self) -> bool {
        self.layers.iter().any(LayerRecord::is_import)
    }

    /// Every task of a layer that imports, if it is ever to run, and what it reads.
    pub(crate) fn imports(&self) -> impl Iterator<Item = (u32, TaskId)> {
        let layers = self.layers.iter().zip(self.compiled.layers());
        let importing = layers.filter(|(_, layer)| !layer.imports.is_empty());
        importing.flat_map(|(record, layer)| {
            let sources = layer.imports.iter().flat_map(|range| range.tasks());
            let is_culled = |index: u32| self.tasks[index as usize].state == TaskState::Culled;
            (record.first_task..)
                .zip(sources)
                .filter(move |(index, _)| !is_culled(*index))
        })
    }

    /// The task of another graph whose partitions a task hands on.
    pub(crate) fn imported_by(&self, index: u32) -> Option<TaskId> {
        let record = self.layer_of(index);
        let position = index - record.first_task;
        let range = record.imports.partition_point(|first| *first <= position);
        let range = range.checked_sub(1)?;
        let source = self.submitted_layer_of(index).imports.get(range)?;
        Some(TaskId {
            graph: source.graph,
            index: source.first + (position - record.imports[range]),
        })
    }
}

impl Scheduler {
    /// Whether everything that a graph wants to import can be had.
    pub(crate) fn check_imports(
        &self,
        compiled: CompiledGraph,
    ) -> Result<CompiledGraph, GraphError> {
        for (index, layer) in (0_u32..).zip(compiled.layers()) {
            for range in &layer.imports {
                let reason = match self.shareable(*range) {
                    Ok((_, outputs)) if outputs == layer.outputs => continue,
                    Ok((_, outputs)) => format!(
                        "it imports tasks {range} with {outputs} outputs each and has {} itself",
                        layer.outputs
                    ),
                    Err(refusal) => format!("it imports tasks {range}: {refusal}"),
                };
                return Err(GraphError::BadLayer {
                    graph: compiled.name().to_owned(),
                    layer: LayerIndex(index),
                    name: layer.name.clone(),
                    reason,
                });
            }
        }
        Ok(compiled)
    }

    /// Enters what a new graph imports with those it imports from, before any of its tasks is ready.
    pub(crate) fn enter_imports(&mut self, slot: GraphSlot) {
        if !self.graphs.slab[slot].has_imports() {
            return;
        }
        let imports: Vec<(u32, TaskId)> = self.graphs.slab[slot].imports().collect();
        for (index, source) in imports {
            let importer = self.graphs.slab[slot].task_id(index);
            let mut is_missing = true;
            if let Some(at) = self.graphs.find(source) {
                let graph = &mut self.graphs.slab[at.graph];
                graph.shared.importers.insert((at.index, importer));
                let task = &mut graph.tasks[at.index as usize];
                task.readers += 1;
                is_missing = !task.state.is_stored();
            }
            if is_missing {
                self.one_missing_more(TaskAt { graph: slot, index });
            }
        }
    }

    /// A graph is about to be forgotten: it imports nothing any more.
    pub(crate) fn leave_imports(&mut self, slot: GraphSlot) {
        let graph = &self.graphs.slab[slot];
        if !graph.has_imports() {
            return;
        }
        let imports: Vec<(u32, TaskId)> = graph.imports().collect();
        let mut sources = BTreeSet::new();
        for (index, source) in imports {
            let graph = &self.graphs.slab[slot];
            let importer = graph.task_id(index);
            if graph.tasks[index as usize].state.is_to_do() {
                self.stop_importing(TaskAt { graph: slot, index });
            }
            if let Some(at) = self.graphs.find(source) {
                let shared = &mut self.graphs.slab[at.graph].shared;
                shared.importers.remove(&(at.index, importer));
                sources.insert(source.graph);
            }
        }
        self.perhaps_over.extend(sources);
    }

    /// What a task imports, where that is still known.
    pub(crate) fn source_of(&self, at: TaskAt) -> Option<TaskAt> {
        let source = self.graphs.slab[at.graph].imported_by(at.index)?;
        self.graphs.find(source)
    }

    /// Where that is what a task imports, and how large.
    #[inline]
    pub(crate) fn imported_from(&self, at: TaskAt) -> Option<(WorkerSlot, OutputSizes)> {
        let is_import = self.graphs.slab[at.graph].layer_of(at.index).is_import();
        is_import.then(|| self.import_of(at)).flatten()
    }

    #[inline(never)]
    fn import_of(&self, at: TaskAt) -> Option<(WorkerSlot, OutputSizes)> {
        let source = self.source_of(at)?;
        let graph = &self.graphs.slab[source.graph];
        match graph.tasks[source.index as usize].state {
            TaskState::Done {
                worker, largest, ..
            } => Some((worker, graph.sizes(source.index, largest))),
            TaskState::Culled
            | TaskState::Waiting { .. }
            | TaskState::Ready { .. }
            | TaskState::Assigned { .. }
            | TaskState::Ended { .. }
            | TaskState::Released => None,
        }
    }

    /// One where what the task imports is not stored.
    pub(crate) fn missing_imports(&self, at: TaskAt) -> u32 {
        if !self.graphs.slab[at.graph].layer_of(at.index).is_import() {
            return 0;
        }
        u32::from(self.import_of(at).is_none())
    }

    /// A task has done its importing, or will not do it.
    pub(crate) fn stop_importing(&mut self, at: TaskAt) {
        if let Some(source) = self.source_of(at) {
            let graph = &mut self.graphs.slab[source.graph];
            graph.tasks[source.index as usize].readers -= 1;
            if !graph.is_needed(source.index) {
                let source = graph.task_id(source.index);
                self.afterwards.push(Afterwards::Unneeded(source));
            }
        }
    }

    /// A task is to import (again).
    pub(crate) fn begin_importing(&mut self, at: TaskAt) {
        if !self.graphs.slab[at.graph].layer_of(at.index).is_import() {
            return;
        }
        let Some(source) = self.source_of(at) else {
            let task = self.graphs.slab[at.graph].task_id(at.index);
            self.afterwards.push(Afterwards::SourceGone(task, None));
            return;
        };
        let graph = &mut self.graphs.slab[source.graph];
        let task = &mut graph.tasks[source.index as usize];
        task.readers += 1;
        if task.state == TaskState::Released {
            let source = graph.task_id(source.index);
            self.afterwards.push(Afterwards::Wanted(source));
        }
    }

    /// Does something for every task of another graph that imports this one.
    #[inline]
    pub(crate) fn for_importers(&mut self, at: TaskAt, mut change: impl FnMut(&mut Self, TaskAt)) {
        if self.graphs.slab[at.graph].shared.importers.is_empty() {
            return;
        }
        let shared = &self.graphs.slab[at.graph].shared;
        let importers: Vec<TaskId> = shared.importers_of(at.index).collect();
        for importer in importers {
            if let Some(importer) = self.graphs.find(importer) {
                change(self, importer);
            }
        }
    }

    /// A graph has failed or was cancelled: those that still import from it fail, too.
    pub(crate) fn end_importers(&mut self, slot: GraphSlot, outcome: &GraphOutcome) {
        let importers = std::mem::take(&mut self.graphs.slab[slot].shared.importers);
        let cause = match outcome {
            GraphOutcome::Failed(error) => Some(Box::new(error.clone())),
            GraphOutcome::Cancelled | GraphOutcome::TimedOut { .. } | GraphOutcome::Finished => {
                None
            }
        };
        for (source, importer) in importers {
            let Some(at) = self.graphs.find(importer) else {
                continue;
            };
            let task = &self.graphs.slab[at.graph].tasks[at.index as usize];
            if task.state.is_to_do() {
                let source = &self.graphs.slab[slot].tasks[source as usize];
                if self.recovery.is_some() && source.state.is_stored() {
                    // Somebody may yet come back with what was made of it; until then it must not run.
                    self.one_missing_more(at);
                }
                let gone = Afterwards::SourceGone(importer, cause.clone());
                self.afterwards.push(gone);
            }
        }
    }

    /// Does what follows in one graph from what has happened in another.
    #[inline]
    pub(crate) fn follow_imports(&mut self, out: &mut Vec<Action>) {
        if !self.afterwards.is_empty() || !self.perhaps_over.is_empty() {
            self.follow_imports_now(out);
        }
    }

    #[inline(never)]
    fn follow_imports_now(&mut self, out: &mut Vec<Action>) {
        loop {
            let Some(next) = self.afterwards.pop() else {
                let Some(graph) = self.perhaps_over.pop() else {
                    return;
                };
                if let Some(slot) = self.graphs.by_id.get(&graph).copied() {
                    self.end_if_done(slot, out);
                }
                continue;
            };
            match next {
                Afterwards::Unneeded(task) => {
                    if let Some(at) = self.graphs.find(task) {
                        self.unneeded.push(at.index);
                        self.drop_unneeded(at.graph, out);
                        self.end_if_done(at.graph, out);
                    }
                }
                Afterwards::Wanted(task) => {
                    if let Some(at) = self.graphs.find(task)
                        && self.graphs.slab[at.graph].is_needed(at.index)
                    {
                        self.make_again(at, out);
                    }
                }
                Afterwards::SourceGone(task, cause) => self.on_source_gone(task, cause, out),
            }
        }
    }

    fn on_source_gone(
        &mut self,
        task: TaskId,
        cause: Option<Box<TaskError>>,
        out: &mut Vec<Action>,
    ) {
        let Some(at) = self.graphs.find(task) else {
            return;
        };
        // The end of the old scheduler may have come between two ends; see `end_recovery_if_due`.
        let is_to_do = self.graphs.slab[at.graph].tasks[at.index as usize]
            .state
            .is_to_do();
        if !is_to_do || self.source_of(at).is_some() || self.recovery.is_some() {
            return;
        }
        let graph = &self.graphs.slab[at.graph];
        let layer = graph.submitted_layer_of(at.index).name.clone();
        let name = graph.compiled.name().to_owned();
        let Some(source) = graph.imported_by(at.index) else {
            return;
        };
        match cause {
            Some(mut error) => {
                error.message = format!(
                    "{} (graph {} imports it: `{name}`, layer `{layer}`)",
                    error.message, task.graph
                );
                self.end_early(at.graph, Some(GraphOutcome::Failed(*error)), out);
            }
            None => {
                let message = format!(
                    "it imports task {source}, whose graph was cancelled, or is over and cannot make it again"
                );
                // It may run, with what it has fetched.
                self.cancel_assignment(at, out);
                self.set_state(at, TaskState::Waiting { missing: 0 });
                self.fail_task(at, None, TaskErrorKind::SourceGone, message, out);
            }
        }
    }

    /// The workers of an earlier scheduler had their time: what was to be imported from graphs that ended with it will not come.
    pub(crate) fn find_sources_gone(&mut self) {
        for (_, graph) in self.graphs.slab.iter() {
            let is_to_do = |index: u32| graph.tasks[index as usize].state.is_to_do();
            let mut gone = graph
                .imports()
                .filter(|(index, source)| is_to_do(*index) && self.graphs.find(*source).is_none());
            if let Some((index, _)) = gone.next() {
                let task = graph.task_id(index);
                self.afterwards.push(Afterwards::SourceGone(task, None));
            }
        }
    }
}
