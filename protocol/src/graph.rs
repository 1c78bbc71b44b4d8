//! Task graphs in symbolic form: layers of alike tasks whose edges are rules, computed when asked and never stored.
//!
//! A shuffle of `m x r` partitions is two layers and one rule, whatever `m` and `r` are. The only stored edges are those
//! of [`Edges::Explicit`], for graphs with no regular shape.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::listed::{ListedInputs, ListedReaders};
use crate::{
    Amount, Blob, Conditions, Fused, LayerIndex, Memory, Placement, Resources, TaskId, TaskRange,
    WorkerRef,
};

/// Most tasks that one graph may have.
pub const MAX_TASKS_PER_GRAPH: u32 = 1 << 24;
/// Most tasks that one gang may have: each worker that runs some of them is told of all.
pub const MAX_TASKS_PER_GANG: u32 = 1 << 10;
/// Most outputs that one task may have.
pub(crate) const MAX_OUTPUTS_PER_TASK: u32 = 1 << 16;
/// What the tasks of a layer run that hands on results of other graphs. Every worker has it.
pub const IMPORT_OPERATOR: &str = "transload-import";

/// What a client submits: layers in topological order, and which of them it wants to keep.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TaskGraph {
    /// Shown to people: in progress bars, logs and errors.
    pub name: String,
    /// Shown to people where there is room for more: of a query, its SQL. May be empty.
    pub description: String,
    /// Layers; a layer reads only from layers before it.
    pub layers: Vec<Layer>,
    /// Layers whose partitions the client holds until it releases them. All others are freed when nobody needs them.
    pub outputs: Vec<LayerIndex>,
    /// The running task that submits it and waits for it: it goes where that one stands in line, and before the rest there. `None`
    /// for a graph of its own.
    pub parent: Option<TaskId>,
    /// So long after it was accepted the graph is cancelled if it has not ended, in milliseconds; `None` for never. A scheduler
    /// that takes another's place counts anew.
    pub cancel_after_ms: Option<u64>,
}

/// Many alike tasks: the same operator, the same arguments, inputs by rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Shown to people.
    pub name: String,
    /// Name of a registered operator.
    pub operator: String,
    /// What the operator is told.
    pub arguments: Arguments,
    /// Number of tasks.
    pub tasks: u32,
    /// Partitions that each task makes, at least 1.
    pub outputs: u32,
    /// What each task reads, in the order in which the operator sees it.
    pub inputs: Vec<LayerInput>,
    /// What each task occupies while it runs.
    pub resources: Resources,
    /// Higher runs first. Ties: clients take turns; of one client the earlier graph, then the deeper layer, then the lower task
    /// index.
    pub priority: i32,
    /// Further attempts after a retryable failure.
    pub retries: u32,
    /// Longest run of one attempt, in milliseconds; `None` for no limit. One that runs longer is cancelled and counts as a failure
    /// that may pass. Time without a slot counts, too; on a worker that lost its connection for a moment, it is counted anew.
    pub time_limit_ms: Option<u32>,
    /// What each task runs before `operator`; `None` for an ordinary layer. Made by [`crate::optimize()`].
    pub fused: Option<Box<Fused>>,
    /// Where its tasks may run; `None` for everywhere.
    pub placement: Option<Box<Placement>>,
    /// Tasks of other graphs whose partitions this layer hands on, each through the task at its place; none for an ordinary
    /// layer. See [`TaskGraph::push_import`].
    pub imports: Vec<TaskRange>,
    /// Its tasks start together or not at all, and are told of each other; when one has to run again, all do.
    pub gang: bool,
    /// Where its tasks work: those in device memory read partitions there, make partitions there, and ask for a GPU.
    pub memory: Memory,
}

/// Arguments of the tasks of one layer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Arguments {
    /// The same for every task of the layer; sent once per worker.
    pub common: Blob,
    /// One for each task, or empty.
    pub per_task: Vec<Blob>,
}

/// One input of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerInput {
    /// Where the partitions come from.
    pub source: Source,
    /// Which of them each task reads.
    pub edges: Edges,
}

/// Where the partitions of an input come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// An earlier layer of the same graph.
    Layer(LayerIndex),
}

/// The rule that says which partitions of its source task `i` of a layer reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Edges {
    /// Output 0 of task `i`. Both layers have the same number of tasks.
    OneToOne,
    /// Output `i` of every task. The source's tasks have as many outputs as this layer has tasks.
    Shuffle,
    /// Output 0 of every task, for each task: a gather when this layer has one task, else a broadcast.
    Broadcast,
    /// Output 0 of tasks `[i * arity, (i + 1) * arity)`: one level of a tree reduction.
    Tree {
        /// Tasks reduced into one, at least 2.
        arity: u32,
    },
    /// Listed one by one.
    Explicit(ExplicitEdges),
}

/// Edges in compressed rows: task `i` reads `partitions[offsets[i]..offsets[i + 1]]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ExplicitEdges {
    /// One more than the layer has tasks, never decreasing, from 0 to the number of partitions.
    pub offsets: Vec<u32>,
    /// Pairs of a task's position in the source layer and its output.
    pub partitions: Vec<(u32, u32)>,
}

/// A partition as seen inside its graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InputRef {
    /// Position of the input in [`Layer::inputs`].
    pub input: u32,
    /// Index of the producing task in the graph.
    pub task: u32,
    /// Its output number.
    pub output: u32,
}

/// A graph that cannot be run, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum GraphError {
    /// A graph needs at least one layer, and a layer at least one task and one output.
    #[error("graph `{graph}`: {what} is empty")]
    Empty {
        /// The graph's name.
        graph: String,
        /// What is empty.
        what: String,
    },
    /// More tasks or outputs than the limit.
    #[error("graph `{graph}`: {what} exceeds the limit of {limit}; split the graph")]
    TooLarge {
        /// The graph's name.
        graph: String,
        /// What is too large.
        what: String,
        /// The limit.
        limit: u32,
    },
    /// A layer that breaks a rule.
    #[error("graph `{graph}`, layer {layer} (`{name}`): {reason}")]
    BadLayer {
        /// The graph's name.
        graph: String,
        /// The layer's position.
        layer: LayerIndex,
        /// The layer's name.
        name: String,
        /// The rule it breaks.
        reason: String,
    },
}

/// A checked graph, with what is needed to walk its edges both ways. Its layers do not have the lists of [`Edges::Explicit`] any
/// more, which are packed: [`CompiledGraph::to_graph`] is the graph as it was.
///
/// Memory is proportional to the number of layers and explicit edges, never to the implicit ones.
#[derive(Debug, Clone)]
pub struct CompiledGraph {
    graph: TaskGraph,
    /// First task index of each layer, and the total as the last entry.
    first_task: Vec<u32>,
    /// For each layer, who reads it by a rule.
    consumers: Vec<Vec<Consumer>>,
    /// For each layer, its listed edges.
    listed: Vec<ListedInputs>,
    /// For each layer, the listed edges that lead out of it; empty when no edges are listed.
    listed_readers: Vec<ListedReaders>,
}

#[derive(Debug, Clone)]
struct Consumer {
    layer: usize,
    input: usize,
}

impl Layer {
    /// A layer of `tasks` tasks with one output each, one slot per task, no inputs and no arguments.
    pub fn new(name: impl Into<String>, operator: impl Into<String>, tasks: u32) -> Self {
        Self {
            name: name.into(),
            operator: operator.into(),
            arguments: Arguments::default(),
            tasks,
            outputs: 1,
            inputs: Vec::new(),
            resources: Resources::default(),
            priority: 0,
            retries: 2,
            time_limit_ms: None,
            fused: None,
            placement: None,
            imports: Vec::new(),
            gang: false,
            memory: Memory::Host,
        }
    }

    /// The same layer as a gang: see [`Layer::gang`].
    #[must_use]
    pub fn as_gang(mut self) -> Self {
        self.gang = true;
        self
    }

    /// The same layer in device memory, whose tasks have their worker's GPU each for themselves: see [`Layer::memory`].
    #[must_use]
    pub fn on_device(mut self) -> Self {
        self.memory = Memory::Device;
        self.resources = self.resources.with(Resources::GPU, 1);
        self
    }

    /// The task of another graph whose partitions the task at `position` hands on; none in an ordinary layer.
    pub fn imported(&self, position: u32) -> Option<TaskId> {
        let mut left = position;
        for range in &self.imports {
            if left < range.count {
                let (graph, index) = (range.graph, range.first.checked_add(left)?);
                return Some(TaskId { graph, index });
            }
            left -= range.count;
        }
        None
    }

    /// The same layer with `common` as the argument of every task.
    #[must_use]
    pub fn with_common(mut self, common: impl Into<Blob>) -> Self {
        self.arguments.common = common.into();
        self
    }

    /// The same layer with one more argument for each task.
    #[must_use]
    pub fn with_per_task(mut self, per_task: Vec<Blob>) -> Self {
        self.arguments.per_task = per_task;
        self
    }

    /// The same layer with `outputs` partitions per task.
    #[must_use]
    pub fn with_outputs(mut self, outputs: u32) -> Self {
        self.outputs = outputs;
        self
    }

    /// The same layer whose tasks occupy all of this while they run, instead of one slot.
    #[must_use]
    pub fn with_resources(mut self, resources: Resources) -> Self {
        self.resources = resources;
        self
    }

    /// The same layer with another priority than 0: higher runs first.
    #[must_use]
    pub fn with_priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }

    /// The same layer with a limit to how long one attempt may run.
    #[must_use]
    pub fn with_time_limit(mut self, limit: Duration) -> Self {
        self.time_limit_ms = Some(u32::try_from(limit.as_millis()).unwrap_or(u32::MAX));
        self
    }

    /// The same layer with so many further attempts after a retryable failure.
    #[must_use]
    pub fn with_retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// The same layer on this worker alone, or, said several times, on these.
    #[must_use]
    pub fn on_worker(self, worker: impl Into<WorkerRef>) -> Self {
        self.where_also(|conditions| conditions.workers.push(worker.into()))
    }

    /// The same layer on the workers of this host alone, or, said several times, of these.
    #[must_use]
    pub fn on_host(self, host: impl Into<String>) -> Self {
        self.where_also(|conditions| conditions.hosts.push(host.into()))
    }

    /// The same layer on workers with this label alone, or, said several times, with all of these.
    #[must_use]
    pub fn with_label(self, label: impl Into<String>) -> Self {
        self.where_also(|conditions| {
            conditions.labels.insert(label.into());
        })
    }

    /// The same layer with its task at position `i` on worker `i` of this list alone. Takes the place of other conditions.
    #[must_use]
    pub fn on_each(mut self, workers: Vec<WorkerRef>) -> Self {
        self.placement = Some(Box::new(Placement::Each(workers)));
        self
    }

    fn where_also(mut self, add: impl FnOnce(&mut Conditions)) -> Self {
        let mut conditions = match self.placement.take().map(|placement| *placement) {
            Some(Placement::Where(conditions)) => conditions,
            Some(Placement::Each(_)) | None => Conditions::default(),
        };
        add(&mut conditions);
        self.placement = Some(Box::new(Placement::Where(conditions)));
        self
    }

    /// The same layer with one more input.
    #[must_use]
    pub fn reading(mut self, source: LayerIndex, edges: Edges) -> Self {
        self.inputs.push(LayerInput {
            source: Source::Layer(source),
            edges,
        });
        self
    }
}

impl TaskGraph {
    /// A graph with no layers yet.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            layers: Vec::new(),
            outputs: Vec::new(),
            parent: None,
            cancel_after_ms: None,
            description: String::new(),
        }
    }

    /// Adds a layer and returns its index.
    pub fn push(&mut self, layer: Layer) -> LayerIndex {
        self.layers.push(layer);
        LayerIndex(u32::try_from(self.layers.len() - 1).unwrap_or(u32::MAX))
    }

    /// The same graph, cancelled if it has not ended so long after it was accepted.
    #[must_use]
    pub fn cancel_after(mut self, after: Duration) -> Self {
        self.cancel_after_ms = Some(u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// Marks a layer's partitions as kept for the client.
    pub fn keep(&mut self, layer: LayerIndex) {
        self.outputs.push(layer);
    }

    /// Adds a layer that stands for results of other graphs, each with so many outputs per task: kept layers of theirs, or parts of
    /// those, one after the other. They may still be running. Until this graph is over, they are made again where they are lost.
    pub fn push_import(
        &mut self,
        name: impl Into<String>,
        tasks: Vec<TaskRange>,
        outputs: u32,
    ) -> LayerIndex {
        let count = tasks
            .iter()
            .fold(0_u32, |sum, range| sum.saturating_add(range.count));
        let mut layer = Layer::new(name, IMPORT_OPERATOR, count).with_outputs(outputs);
        // Handing on takes no time worth a slot.
        layer.resources = Resources::slots(0);
        layer.imports = tasks;
        self.push(layer)
    }

    /// Adds the levels of a tree reduction of `source` with the given operator; returns the layer with the single
    /// result. A source of one task still gets one level, so that the operator always runs.
    pub fn push_tree(
        &mut self,
        source: LayerIndex,
        arity: u32,
        name: &str,
        operator: &str,
        common: &Blob,
    ) -> LayerIndex {
        let arity = arity.max(2);
        let mut below = source;
        let mut width = self
            .layers
            .get(source.0 as usize)
            .map_or(1, |layer| layer.tasks);
        loop {
            let tasks = width.div_ceil(arity).max(1);
            let layer = Layer::new(format!("{name} {width} to {tasks}"), operator, tasks)
                .with_common(common.clone())
                .reading(below, Edges::Tree { arity });
            below = self.push(layer);
            width = tasks;
            if width == 1 {
                return below;
            }
        }
    }

    /// Checks every rule and prepares the graph for walking.
    ///
    /// # Errors
    /// [`GraphError`] names the first layer that breaks a rule, and the rule.
    pub fn compile(self) -> Result<CompiledGraph, GraphError> {
        CompiledGraph::new(self)
    }
}

impl CompiledGraph {
    fn new(mut graph: TaskGraph) -> Result<Self, GraphError> {
        if graph.layers.is_empty() {
            return Err(GraphError::Empty {
                graph: graph.name,
                what: "the list of layers".to_owned(),
            });
        }
        let mut first_task = vec![0_u32];
        let mut total = 0_u64;
        // Calls of operators: more than tasks where layers are fused.
        let mut calls = 0_u64;
        let mut listed_edges = 0_u64;
        let mut consumers: Vec<Vec<Consumer>> = vec![Vec::new(); graph.layers.len()];
        for (index, layer) in graph.layers.iter().enumerate() {
            let bad = |reason: String| GraphError::BadLayer {
                graph: graph.name.clone(),
                layer: LayerIndex(u32::try_from(index).unwrap_or(u32::MAX)),
                name: layer.name.clone(),
                reason,
            };
            if layer.tasks == 0 || layer.outputs == 0 {
                return Err(bad(
                    "it has no tasks or no outputs; both must be at least 1".to_owned(),
                ));
            }
            if layer.outputs > MAX_OUTPUTS_PER_TASK {
                return Err(bad(format!(
                    "{} outputs per task; the limit is {MAX_OUTPUTS_PER_TASK}",
                    layer.outputs
                )));
            }
            if !layer.arguments.per_task.is_empty()
                && layer.arguments.per_task.len() != layer.tasks as usize
            {
                return Err(bad(format!(
                    "{} per-task arguments for {} tasks; give one for each, or none",
                    layer.arguments.per_task.len(),
                    layer.tasks
                )));
            }
            let misplaced = layer
                .placement
                .as_ref()
                .and_then(|placement| placement.wrong(layer.tasks));
            if let Some(reason) = misplaced.or_else(|| layer.resources.wrong_request()) {
                return Err(bad(reason));
            }
            check_imports(layer).map_err(bad)?;
            if layer.gang {
                check_gang(layer).map_err(bad)?;
            }
            if layer.memory == Memory::Device {
                check_on_device(layer).map_err(bad)?;
            }
            if let Some(fused) = &layer.fused {
                fused.check(layer).map_err(bad)?;
                calls += fused
                    .steps
                    .iter()
                    .map(|step| u64::from(step.tasks))
                    .sum::<u64>();
            }
            calls += u64::from(layer.tasks);
            total += u64::from(layer.tasks);
            if calls > u64::from(MAX_TASKS_PER_GRAPH) {
                return Err(GraphError::TooLarge {
                    graph: graph.name.clone(),
                    what: "the number of tasks".to_owned(),
                    limit: MAX_TASKS_PER_GRAPH,
                });
            }
            for (input_index, input) in layer.inputs.iter().enumerate() {
                let Source::Layer(source) = input.source;
                let source_index = source.0 as usize;
                let Some(below) = graph
                    .layers
                    .get(source_index)
                    .filter(|_| source_index < index)
                else {
                    return Err(bad(format!(
                        "input {input_index} reads layer {source}, which is not before it"
                    )));
                };
                check_edges(layer, below, &input.edges)
                    .map_err(|reason| bad(format!("input {input_index}: {reason}")))?;
                if let Edges::Explicit(edges) = &input.edges {
                    listed_edges += edges.partitions.len() as u64;
                } else if let Some(of_source) = consumers.get_mut(source_index) {
                    of_source.push(Consumer {
                        layer: index,
                        input: input_index,
                    });
                }
            }
            first_task.push(u32::try_from(total).unwrap_or(u32::MAX));
        }
        for output in &graph.outputs {
            if output.0 as usize >= graph.layers.len() {
                return Err(GraphError::Empty {
                    graph: graph.name,
                    what: format!("output layer {output}"),
                });
            }
        }
        if listed_edges > u64::from(u32::MAX) {
            return Err(GraphError::TooLarge {
                graph: graph.name,
                what: format!("the number of listed edges, {listed_edges},"),
                limit: u32::MAX,
            });
        }
        let listed: Vec<ListedInputs> = graph
            .layers
            .iter_mut()
            .map(|layer| ListedInputs::take_from(layer, &first_task))
            .collect();
        let listed_readers = if listed_edges > 0 {
            ListedReaders::of_graph(&graph, &first_task, &listed)
        } else {
            Vec::new()
        };
        Ok(Self {
            graph,
            first_task,
            consumers,
            listed,
            listed_readers,
        })
    }

    /// The graph's name.
    pub fn name(&self) -> &str {
        &self.graph.name
    }

    /// More of what it is.
    pub fn description(&self) -> &str {
        &self.graph.description
    }

    /// [`TaskGraph::cancel_after_ms`].
    pub fn cancel_after_ms(&self) -> Option<u64> {
        self.graph.cancel_after_ms
    }

    /// The running task that submits it, if any.
    pub fn parent(&self) -> Option<TaskId> {
        self.graph.parent
    }

    /// The layers that the client keeps.
    pub fn outputs(&self) -> &[LayerIndex] {
        &self.graph.outputs
    }

    /// The graph as submitted.
    pub fn to_graph(&self) -> TaskGraph {
        let mut graph = self.graph.clone();
        self.give_back(&mut graph);
        graph
    }

    /// The graph as submitted, to be changed.
    pub fn into_graph(mut self) -> TaskGraph {
        let mut graph = std::mem::take(&mut self.graph);
        self.give_back(&mut graph);
        graph
    }

    fn give_back(&self, graph: &mut TaskGraph) {
        for (layer, listed) in graph.layers.iter_mut().zip(&self.listed) {
            listed.give_back(layer);
        }
    }

    /// How many edges of a layer are listed one by one.
    pub fn listed_edges(&self, layer: LayerIndex) -> usize {
        let listed = self.listed.get(layer.0 as usize);
        listed.map_or(0, ListedInputs::len)
    }

    /// The layers, in order, without the lists of explicit edges.
    pub fn layers(&self) -> &[Layer] {
        &self.graph.layers
    }

    /// Number of tasks in all layers.
    pub fn task_count(&self) -> u32 {
        self.first_task.last().copied().unwrap_or(0)
    }

    /// Index of the first task of a layer; `task_count()` for a layer past the end.
    pub fn first_task(&self, layer: LayerIndex) -> u32 {
        self.first_task
            .get(layer.0 as usize)
            .copied()
            .unwrap_or_else(|| self.task_count())
    }

    /// Task indices of a layer.
    pub fn tasks_of(&self, layer: LayerIndex) -> std::ops::Range<u32> {
        self.first_task(layer)..self.first_task(LayerIndex(layer.0.saturating_add(1)))
    }

    /// The layer of a task, and the task's position in it; `None` when the index is past the end.
    pub fn locate(&self, task: u32) -> Option<(LayerIndex, u32)> {
        if task >= self.task_count() {
            return None;
        }
        let layer = self.first_task.partition_point(|first| *first <= task) - 1;
        Some((
            LayerIndex(u32::try_from(layer).ok()?),
            task - self.first_task.get(layer)?,
        ))
    }

    /// The layer that a task belongs to.
    pub fn layer_of(&self, task: u32) -> Option<&Layer> {
        self.locate(task)
            .and_then(|(layer, _)| self.graph.layers.get(layer.0 as usize))
    }

    /// Whether the client keeps the partitions of a layer.
    pub fn is_kept(&self, layer: LayerIndex) -> bool {
        self.graph.outputs.contains(&layer)
    }

    /// Calls `visit` for each partition that a task reads: by input, then by producing task.
    pub fn for_each_input(&self, task: u32, visit: impl FnMut(InputRef)) {
        if let Some((layer, position)) = self.locate(task) {
            self.visit_inputs(layer, position, |_| true, visit);
        }
    }

    /// As [`CompiledGraph::for_each_input`] for the task at `position` of `layer`, but without the inputs through which it
    /// reads every task of another layer ([`Edges::reads_all`]), so that the cost does not depend on how many those are.
    pub fn for_each_direct_input(
        &self,
        layer: LayerIndex,
        position: u32,
        visit: impl FnMut(InputRef),
    ) {
        self.visit_inputs(layer, position, |edges| !edges.reads_all(), visit);
    }

    /// The tasks of which [`CompiledGraph::for_each_direct_input`] tells, in that order, where all of these edges are listed one by one.
    #[inline]
    pub fn listed_sources(&self, layer: LayerIndex, position: u32) -> Option<&[u32]> {
        self.listed.get(layer.0 as usize)?.all_of(position)
    }

    /// Whether what the tasks of a layer read, or who reads them, is listed one by one.
    pub fn has_listed_edges(&self, layer: LayerIndex) -> bool {
        let readers = self.listed_readers.get(layer.0 as usize);
        self.listed_edges(layer) > 0 || readers.is_some_and(|readers| !readers.is_empty())
    }

    /// Reads where the listed inputs of a task stand. Whoever does so for several tasks, one right after the other, before walking
    /// the edges of any of them waits for memory once instead of once for each. The number means nothing.
    #[inline]
    pub fn touch_inputs(&self, layer: LayerIndex, position: u32) -> u32 {
        let listed = self.listed.get(layer.0 as usize);
        listed.map_or(0, |listed| listed.touch(position))
    }

    /// As [`CompiledGraph::touch_inputs`], for the listed readers of a task.
    #[inline]
    pub fn touch_consumers(&self, layer: LayerIndex, position: u32) -> u32 {
        let listed = self.listed_readers.get(layer.0 as usize);
        listed.map_or(0, |readers| readers.touch(position))
    }

    /// How many partitions [`CompiledGraph::for_each_direct_input`] visits.
    pub fn direct_input_count(&self, layer: LayerIndex, position: u32) -> usize {
        let listed = self.listed.get(layer.0 as usize);
        let mut lists = 0_usize..;
        let layer = self.graph.layers.get(layer.0 as usize);
        let inputs = layer.into_iter().flat_map(|layer| &layer.inputs);
        let count = |input: &LayerInput| match &input.edges {
            Edges::OneToOne => 1,
            Edges::Shuffle | Edges::Broadcast => 0,
            Edges::Tree { arity } => {
                let Source::Layer(source) = input.source;
                let below = self.tasks_of(source).len();
                let start = position as usize * *arity as usize;
                below.saturating_sub(start).min(*arity as usize)
            }
            Edges::Explicit(_) => listed
                .zip(lists.next())
                .map_or(0, |(listed, list)| listed.count_of(position, list)),
        };
        inputs.map(count).sum()
    }

    fn visit_inputs(
        &self,
        layer: LayerIndex,
        position: u32,
        wanted: impl Fn(&Edges) -> bool,
        mut visit: impl FnMut(InputRef),
    ) {
        let listed = self.listed.get(layer.0 as usize);
        let mut lists = 0..;
        let Some(layer) = self.graph.layers.get(layer.0 as usize) else {
            return;
        };
        for (input_index, input) in (0_u32..).zip(&layer.inputs) {
            if !wanted(&input.edges) {
                continue;
            }
            let Source::Layer(source) = input.source;
            let mut emit = |task: u32, output: u32| {
                visit(InputRef {
                    input: input_index,
                    task,
                    output,
                })
            };
            match &input.edges {
                Edges::OneToOne => emit(self.first_task(source) + position, 0),
                Edges::Shuffle => self.tasks_of(source).for_each(|task| emit(task, position)),
                Edges::Broadcast => self.tasks_of(source).for_each(|task| emit(task, 0)),
                Edges::Tree { arity } => {
                    let range = self.tasks_of(source);
                    let start = range.start + position * arity;
                    (start..range.end.min(start.saturating_add(*arity)))
                        .for_each(|task| emit(task, 0));
                }
                Edges::Explicit(_) => {
                    if let Some((listed, list)) = listed.zip(lists.next()) {
                        listed.for_each(position, list, emit);
                    }
                }
            }
        }
    }

    /// Calls `visit` with the index of each task that reads any partition of `task`. A task that reads several of its
    /// partitions through one input, or through several inputs, is visited once for each.
    pub fn for_each_consumer(&self, task: u32, visit: impl FnMut(u32)) {
        if let Some((layer, position)) = self.locate(task) {
            self.visit_consumers(layer, position, |_| true, visit);
        }
    }

    /// As [`CompiledGraph::for_each_consumer`] for the task at `position` of `layer`, but without those that read every task
    /// of the layer ([`Edges::reads_all`]).
    pub fn for_each_direct_consumer(
        &self,
        layer: LayerIndex,
        position: u32,
        visit: impl FnMut(u32),
    ) {
        self.visit_consumers(layer, position, |edges| !edges.reads_all(), visit);
    }

    fn visit_consumers(
        &self,
        layer: LayerIndex,
        position: u32,
        wanted: impl Fn(&Edges) -> bool,
        mut visit: impl FnMut(u32),
    ) {
        for consumer in self.consumers.get(layer.0 as usize).into_iter().flatten() {
            let Some(layer) = self.graph.layers.get(consumer.layer) else {
                continue;
            };
            let Some(input) = layer.inputs.get(consumer.input) else {
                continue;
            };
            let Some(first) = self.first_task.get(consumer.layer).copied() else {
                continue;
            };
            if !wanted(&input.edges) {
                continue;
            }
            match &input.edges {
                Edges::OneToOne => visit(first + position),
                Edges::Shuffle | Edges::Broadcast => {
                    (first..first + layer.tasks).for_each(&mut visit)
                }
                Edges::Tree { arity } => visit(first + position / arity),
                // All of these at once, below.
                Edges::Explicit(_) => {}
            }
        }
        if let Some(readers) = self.listed_readers.get(layer.0 as usize) {
            readers.of(position).iter().copied().for_each(visit);
        }
    }

    /// How many partitions a task reads.
    pub fn input_count(&self, task: u32) -> u32 {
        let mut count = 0;
        self.for_each_input(task, |_| count += 1);
        count
    }

    /// How many times a task is visited by [`CompiledGraph::for_each_consumer`].
    pub fn consumer_count(&self, task: u32) -> u32 {
        let mut count = 0;
        self.for_each_consumer(task, |_| count += 1);
        count
    }
}

impl Edges {
    /// Whether each task reads from every task of the source. Such edges are counted by layer, not by task: a task cannot start
    /// before the whole source is done in any case.
    pub const fn reads_all(&self) -> bool {
        match self {
            Self::Shuffle | Self::Broadcast => true,
            Self::OneToOne | Self::Tree { .. } | Self::Explicit(_) => false,
        }
    }
}

impl ExplicitEdges {
    /// Edges from one list of partitions per task.
    pub fn from_lists<'a>(lists: impl IntoIterator<Item = &'a [(u32, u32)]>) -> Self {
        let mut edges = Self {
            offsets: vec![0],
            partitions: Vec::new(),
        };
        for list in lists {
            edges.partitions.extend_from_slice(list);
            edges
                .offsets
                .push(u32::try_from(edges.partitions.len()).unwrap_or(u32::MAX));
        }
        edges
    }

    pub(crate) fn of(&self, position: u32) -> &[(u32, u32)] {
        row(&self.offsets, &self.partitions, position)
    }
}

pub(crate) fn row<'a, T>(offsets: &[u32], values: &'a [T], position: u32) -> &'a [T] {
    let at = |index: usize| offsets.get(index).map_or(0, |offset| *offset as usize);
    values
        .get(at(position as usize)..at(position as usize + 1))
        .unwrap_or(&[])
}

fn check_imports(layer: &Layer) -> Result<(), String> {
    let is_import = layer.operator == IMPORT_OPERATOR;
    if layer.imports.is_empty() {
        return if is_import {
            Err(format!(
                "`{IMPORT_OPERATOR}` is for layers that import; use TaskGraph::push_import"
            ))
        } else {
            Ok(())
        };
    }
    if !is_import || !layer.inputs.is_empty() || layer.fused.is_some() {
        return Err(
            "a layer that imports does nothing else; use TaskGraph::push_import, and a layer that reads it"
                .to_owned(),
        );
    }
    let is_empty =
        |range: &TaskRange| range.count == 0 || range.first.checked_add(range.count).is_none();
    if let Some(range) = layer.imports.iter().find(|range| is_empty(range)) {
        return Err(format!(
            "it imports {} tasks from index {} on, which cannot be",
            range.count, range.first
        ));
    }
    let count: u64 = layer
        .imports
        .iter()
        .map(|range| u64::from(range.count))
        .sum();
    if count != u64::from(layer.tasks) {
        return Err(format!(
            "it imports {count} tasks and has {} of its own",
            layer.tasks
        ));
    }
    Ok(())
}

fn check_on_device(layer: &Layer) -> Result<(), String> {
    if layer.resources.amount_of(Resources::GPU) == Amount::default() {
        return Err("it works in device memory and asks for no gpu; let it ask for 1".to_owned());
    }
    if !layer.imports.is_empty() {
        return Err("it imports into device memory; let it read a layer that imports".to_owned());
    }
    match &layer.fused {
        Some(_) => Err("what works in device memory runs nothing else inside its tasks".to_owned()),
        None => Ok(()),
    }
}

fn check_gang(layer: &Layer) -> Result<(), String> {
    if layer.tasks > MAX_TASKS_PER_GANG {
        return Err(format!(
            "a gang of {} tasks; the limit is {MAX_TASKS_PER_GANG}, so let each task do more, or use several gangs",
            layer.tasks
        ));
    }
    if let Some(Placement::Each(_)) = layer.placement.as_deref() {
        return Err(
            "a gang with a worker for each of its tasks; say for all of them together where they may run"
                .to_owned(),
        );
    }
    if !layer.imports.is_empty() {
        return Err("a gang that imports; let it read a layer that does".to_owned());
    }
    match &layer.fused {
        Some(_) => Err("a gang runs nothing else inside its tasks; fuse other layers".to_owned()),
        None => Ok(()),
    }
}

fn check_edges(layer: &Layer, source: &Layer, edges: &Edges) -> Result<(), String> {
    match edges {
        Edges::OneToOne if layer.tasks != source.tasks => Err(format!(
            "one-to-one needs as many tasks on both sides, not {} from {}",
            layer.tasks, source.tasks
        )),
        Edges::Shuffle if layer.tasks != source.outputs => Err(format!(
            "a shuffle into {} tasks needs as many outputs per source task, not {}",
            layer.tasks, source.outputs
        )),
        Edges::Tree { arity } if *arity < 2 => Err("the arity of a tree is at least 2".to_owned()),
        Edges::Tree { arity } if layer.tasks != source.tasks.div_ceil(*arity) => Err(format!(
            "a tree level of arity {arity} over {} tasks has {} tasks, not {}",
            source.tasks,
            source.tasks.div_ceil(*arity),
            layer.tasks
        )),
        Edges::Explicit(edges) => check_explicit(layer, source, edges),
        Edges::OneToOne | Edges::Shuffle | Edges::Broadcast | Edges::Tree { .. } => Ok(()),
    }
}

fn check_explicit(layer: &Layer, source: &Layer, edges: &ExplicitEdges) -> Result<(), String> {
    let ends_match = edges.offsets.first() == Some(&0)
        && edges.offsets.last().map(|last| *last as usize) == Some(edges.partitions.len());
    if edges.offsets.len() != layer.tasks as usize + 1 || !ends_match || !edges.offsets.is_sorted()
    {
        return Err(format!(
            "explicit edges need {} sorted offsets from 0 to the number of partitions",
            u64::from(layer.tasks) + 1
        ));
    }
    match edges
        .partitions
        .iter()
        .find(|(task, output)| *task >= source.tasks || *output >= source.outputs)
    {
        Some((task, output)) => Err(format!(
            "explicit edge to output {output} of task {task}, which its source lacks"
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Amount;
    use proptest::prelude::*;

    fn explicit(lists: &[Vec<(u32, u32)>]) -> Edges {
        Edges::Explicit(ExplicitEdges::from_lists(lists.iter().map(Vec::as_slice)))
    }

    fn inputs(graph: &CompiledGraph, task: u32) -> Vec<(u32, u32, u32)> {
        let mut seen = Vec::new();
        graph.for_each_input(task, |input| {
            seen.push((input.input, input.task, input.output))
        });
        seen
    }

    #[test]
    fn every_rule_names_the_partitions_it_promises() {
        let mut graph = TaskGraph::new("rules");
        let source = graph.push(Layer::new("source", "op", 5).with_outputs(3));
        graph.push(Layer::new("map", "op", 5).reading(source, Edges::OneToOne));
        graph.push(Layer::new("shuffle", "op", 3).reading(source, Edges::Shuffle));
        graph.push(Layer::new("gather", "op", 1).reading(source, Edges::Broadcast));
        graph.push(Layer::new("tree", "op", 3).reading(source, Edges::Tree { arity: 2 }));
        graph.push(
            Layer::new("explicit", "op", 2)
                .reading(source, explicit(&[vec![(4, 2), (0, 1)], vec![]])),
        );
        let graph = graph.compile().expect("a valid graph");
        assert_eq!(inputs(&graph, 5 + 2), [(0, 2, 0)]);
        assert_eq!(
            inputs(&graph, 10 + 1),
            (0..5).map(|task| (0, task, 1)).collect::<Vec<_>>()
        );
        assert_eq!(
            inputs(&graph, 13),
            (0..5).map(|task| (0, task, 0)).collect::<Vec<_>>()
        );
        assert_eq!(inputs(&graph, 14 + 2), [(0, 4, 0)]);
        assert_eq!(inputs(&graph, 17), [(0, 4, 2), (0, 0, 1)]);
        assert_eq!(inputs(&graph, 18), []);
    }

    #[test]
    fn a_tree_ends_in_one_task() {
        let mut graph = TaskGraph::new("tree");
        let leaves = graph.push(Layer::new("leaves", "op", 100));
        let root = graph.push_tree(leaves, 4, "sum", "op", &Blob::default());
        assert_eq!(
            graph
                .layers
                .iter()
                .map(|layer| layer.tasks)
                .collect::<Vec<_>>(),
            [100, 25, 7, 2, 1]
        );
        assert_eq!(root, LayerIndex(4));
        graph.compile().expect("a valid tree");
    }

    #[test]
    fn a_large_shuffle_is_a_small_message() {
        let mut graph = TaskGraph::new("shuffle");
        let map = graph.push(Layer::new("map", "op", 2_000).with_outputs(2_000));
        let reduce = graph.push(Layer::new("reduce", "op", 2_000).reading(map, Edges::Shuffle));
        graph.keep(reduce);
        assert!(crate::codec::encode(&graph).expect("encodes").len() < 1_000);
        assert_eq!(graph.compile().expect("valid").input_count(2_000), 2_000);
    }

    #[test]
    fn broken_rules_are_refused_by_name() {
        let cases: Vec<(&str, Layer)> = vec![
            (
                "as many tasks",
                Layer::new("bad", "op", 4).reading(LayerIndex(0), Edges::OneToOne),
            ),
            (
                "as many outputs",
                Layer::new("bad", "op", 4).reading(LayerIndex(0), Edges::Shuffle),
            ),
            (
                "arity",
                Layer::new("bad", "op", 4).reading(LayerIndex(0), Edges::Tree { arity: 1 }),
            ),
            (
                "has 2 tasks",
                Layer::new("bad", "op", 4).reading(LayerIndex(0), Edges::Tree { arity: 2 }),
            ),
            (
                "not before",
                Layer::new("bad", "op", 4).reading(LayerIndex(1), Edges::Broadcast),
            ),
            (
                "not before",
                Layer::new("bad", "op", 4).reading(LayerIndex(u32::MAX), Edges::Broadcast),
            ),
            (
                "lacks",
                Layer::new("bad", "op", 1).reading(LayerIndex(0), explicit(&[vec![(3, 0)]])),
            ),
            (
                "offsets",
                Layer::new("bad", "op", 2).reading(LayerIndex(0), explicit(&[vec![]])),
            ),
            ("no tasks", Layer::new("bad", "op", 0)),
            (
                "a gang of 1025 tasks; the limit is 1024",
                Layer::new("bad", "op", 1025).as_gang(),
            ),
            (
                "per-task",
                Layer::new("bad", "op", 2).with_per_task(vec![Blob::default()]),
            ),
            (
                "1 workers for 2 tasks",
                Layer::new("bad", "op", 2).on_each(vec!["a".into()]),
            ),
            (
                "asks for no gpu",
                Layer::new("bad", "op", 2)
                    .on_device()
                    .with_resources(Resources::slots(1)),
            ),
            (
                "asks for 2.5 gpu",
                Layer::new("bad", "op", 2).with_resources(
                    Resources::slots(1).with("gpu", Amount::ten_thousandths(25_000)),
                ),
            ),
        ];
        for (expected, layer) in cases {
            let mut graph = TaskGraph::new("g");
            graph.push(Layer::new("source", "op", 3).with_outputs(2));
            graph.push(layer);
            let text = graph.compile().expect_err(expected).to_string();
            assert!(text.contains(expected) && text.contains("`bad`"), "{text}");
        }
    }

    /// Random graphs of every kind of edge.
    fn any_graph() -> impl Strategy<Value = TaskGraph> {
        proptest::collection::vec((1_u32..6, 0_u8..5, any::<u64>()), 1..6).prop_map(|recipe| {
            let mut graph = TaskGraph::new("random");
            graph.push(Layer::new("root", "op", 4).with_outputs(3));
            for (size, kind, bits) in recipe {
                let source =
                    LayerIndex(u32::try_from(bits % graph.layers.len() as u64).expect("small"));
                let below = graph.layers[source.0 as usize].clone();
                let (tasks, edges) = match kind {
                    0 => (below.tasks, Edges::OneToOne),
                    1 => (below.outputs, Edges::Shuffle),
                    2 => (size, Edges::Broadcast),
                    3 => (
                        below.tasks.div_ceil(size + 1),
                        Edges::Tree { arity: size + 1 },
                    ),
                    _ => {
                        let lists: Vec<Vec<(u32, u32)>> = (0..size)
                            .map(|row| {
                                (0..below.tasks)
                                    .filter(|task| (bits >> ((row * 7 + task) % 64)) & 1 == 1)
                                    .map(|task| (task, task % below.outputs))
                                    .collect()
                            })
                            .collect();
                        (size, explicit(&lists))
                    }
                };
                graph.push(
                    Layer::new("layer", "op", tasks)
                        .with_outputs(size)
                        .reading(source, edges),
                );
            }
            graph
        })
    }

    proptest! {
        #[test]
        fn a_compiled_graph_gives_back_what_was_submitted(graph in any_graph()) {
            let compiled = graph.clone().compile().expect("generated graphs are valid");
            prop_assert_eq!(&compiled.to_graph(), &graph);
            prop_assert_eq!(compiled.into_graph(), graph);
        }

        #[test]
        fn edges_read_the_same_from_both_ends(graph in any_graph()) {
            let graph = graph.compile().expect("built to be valid");
            let mut forward = Vec::new();
            let mut backward = Vec::new();
            for task in 0..graph.task_count() {
                graph.for_each_input(task, |input| forward.push((input.task, task)));
                graph.for_each_consumer(task, |reader| backward.push((task, reader)));
                let (layer, position) = graph.locate(task).expect("in range");
                prop_assert_eq!(graph.first_task(layer) + position, task);
            }
            forward.sort_unstable();
            backward.sort_unstable();
            prop_assert_eq!(forward, backward);
        }

        #[test]
        fn listed_sources_are_what_is_read_one_by_one(graph in any_graph()) {
            let graph = graph.compile().expect("built to be valid");
            for task in 0..graph.task_count() {
                let (layer, position) = graph.locate(task).expect("in range");
                let mut read = Vec::new();
                graph.for_each_direct_input(layer, position, |input| read.push(input.task));
                let inputs = &graph.layers()[layer.0 as usize].inputs;
                let all_listed = inputs.iter().all(|it| matches!(it.edges, Edges::Explicit(_)));
                let expected = (all_listed && !inputs.is_empty()).then_some(read.as_slice());
                prop_assert_eq!(graph.listed_sources(layer, position), expected);
            }
        }
    }
}
