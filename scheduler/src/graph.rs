//! The record of one graph: its rules, its tasks, and counters per layer.
//!
//! Made when a client submits; written by `transition` and `lineage`. Edges are computed from the rules, never stored.
//! Knows nothing of workers but the slots that its tasks name.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use transload_protocol::{
    CompiledGraph, Edges, GraphId, Layer, LayerIndex, LayerProgress, LayerSpec, OutputSizes,
    Resources, Source, TaskId, TaskRange, Time, WorkerId,
};

use crate::barrier::{Barrier, input_memory, input_specs};
use crate::bits::BitSet;
use crate::family::Families;
use crate::gang::Gang;
use crate::ready::Rank;
use crate::scope::Scope;
use crate::sharing::Shared;
use crate::slab::{GraphSlot, ShareSlot};
use crate::stragglers::Runs;
use crate::task::{Bytes, Task, TaskState};

/// What the scheduler remembers of a graph.
#[derive(Debug)]
pub(crate) struct Graph {
    pub(crate) id: GraphId,
    /// Counts accepted graphs.
    pub(crate) serial: u32,
    pub(crate) line: Line,
    /// It has something to do, and so competes with the graphs of other clients.
    pub(crate) competes: bool,
    pub(crate) compiled: Arc<CompiledGraph>,
    pub(crate) tasks: Vec<Task>,
    pub(crate) layers: Vec<LayerRecord>,
    /// Layers whose tasks may not run everywhere.
    pub(crate) scoped: Vec<u32>,
    pub(crate) phase: Phase,
    /// Goals that are not settled: the graph ends when there are none.
    pub(crate) goals_left: u32,
    /// Tasks with `held` set.
    pub(crate) held: u32,
    /// What went wrong with tasks, for those few with which something did.
    pub(crate) history: BTreeMap<u32, History>,
    /// Tasks that a worker was asked to give back, ever.
    pub(crate) recalled: BTreeSet<u32>,
    pub(crate) progress: Progress,
    /// What others than its owner need of it.
    pub(crate) shared: Shared,
}

/// A graph's place among all: its own, or within that of the graph whose task waits for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line {
    /// Whose share of the workers it takes.
    pub(crate) share: ShareSlot,
    /// The serial of the outermost graph.
    pub(crate) serial: u32,
    /// How many tasks wait for it, one inside the other.
    pub(crate) nesting: u32,
    /// The priority of the task that waits for it: it has no less, or that one would wait for others of less.
    pub(crate) least_priority: i32,
}

/// Where a graph stands. One that failed, was cancelled or was released has no record any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not all of its goals are reached.
    Running,
    /// They were reached, the client knows, and somebody still holds or imports some of them.
    Finished,
}

/// When the client hears of the graph's progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It knows everything.
    Told {
        /// Since when; `None` when it has heard nothing yet.
        at: Option<Time>,
    },
    /// Something changed; it will be told then.
    Due {
        /// When.
        at: Time,
    },
}

/// What the scheduler remembers of a layer.
#[derive(Debug)]
pub(crate) struct LayerRecord {
    pub(crate) rank: Rank,
    pub(crate) first_task: u32,
    pub(crate) resources: Resources,
    /// Longest run of one attempt.
    pub(crate) time_limit_ms: Option<u32>,
    /// Outputs of each of its tasks.
    pub(crate) outputs: u32,
    /// Where tasks have several outputs: by position, the size of all that the task has stored together.
    pub(crate) total_bytes: Vec<u64>,
    /// Where its tasks may run.
    pub(crate) scope: Scope,
    /// Its tasks in `ready` stand in `Stuck`: no worker in the cluster can run them.
    pub(crate) is_stuck: bool,
    /// The client keeps its partitions.
    pub(crate) kept: bool,
    /// Its tasks are what the graph is run for: kept, or run for their effect where nothing is kept.
    pub(crate) goal: bool,
    /// Several tasks of one layer read the same partition, so that workers keep copies until they are told to drop them.
    pub(crate) broadcast: bool,
    /// Its tasks read something.
    pub(crate) reads: bool,
    /// They read something beside whole layers and other graphs.
    pub(crate) reads_direct: bool,
    /// Its edges are listed one by one: what follows from its tasks is done for many of them at once.
    pub(crate) is_scattered: bool,
    /// Positions of ready tasks that are handed out next, and whose inputs were looked at lately; see `follow`.
    pub(crate) looked_at: Range<u32>,
    /// Tasks that are still to be done.
    pub(crate) to_do: u32,
    /// Inputs through which its tasks read every task of another layer.
    pub(crate) barriers: Vec<Barrier>,
    /// The barriers of other layers behind which this one stands: a layer, and a position in its list.
    pub(crate) feeds: Vec<(u32, u32)>,
    /// Of `feeds`, those whose layer has tasks to do: its tasks are needed while there are any.
    pub(crate) barrier_readers: u32,
    pub(crate) counts: LayerProgress,
    /// Positions of ready tasks that prefer no worker.
    pub(crate) ready: BitSet,
    /// Which of its tasks belong together.
    pub(crate) families: Option<Box<Families>>,
    /// What workers are told of it, the same for all; made when the first is told.
    spec: Option<Arc<LayerSpec>>,
    /// Worker slots that were sent the layer.
    pub(crate) told: BitSet,
    /// The first position of each range of tasks of other graphs that it hands on; none in an ordinary layer.
    pub(crate) imports: Vec<u32>,
    /// Its tasks start together.
    pub(crate) gang: Option<Box<Gang>>,
    /// How long its tasks took.
    pub(crate) runs: Runs,
}

/// What went wrong with a task so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct History {
    /// Retryable failures.
    pub(crate) failures: u32,
    /// Workers that died while they ran it.
    pub(crate) deaths: u32,
    /// Times that its partitions could not be had from a living worker.
    pub(crate) losses: u32,
    /// The worker of the last of these, to be avoided.
    pub(crate) avoid: Option<WorkerId>,
    /// The last of these, in words.
    pub(crate) last: String,
}

impl History {
    /// Attempts that have failed, or whose workers died.
    pub(crate) fn failed_attempts(&self) -> u32 {
        self.failures.saturating_add(self.deaths)
    }
}

impl Graph {
    /// A graph whose needed tasks all wait: those that miss nothing are for the caller to make ready.
    pub(crate) fn new(
        id: GraphId,
        (serial, line): (u32, Line),
        slot: GraphSlot,
        compiled: CompiledGraph,
    ) -> Self {
        let layers = layer_records(&compiled, &line, slot);
        let mut graph = Self {
            id,
            serial,
            line,
            competes: false,
            tasks: Vec::with_capacity(compiled.task_count() as usize),
            compiled: Arc::new(compiled),
            scoped: (0..)
                .zip(&layers)
                .filter(|(_, layer)| !matches!(layer.scope, Scope::Anywhere))
                .map(|(layer, _)| layer)
                .collect(),
            layers,
            phase: Phase::Running,
            goals_left: 0,
            held: 0,
            history: BTreeMap::new(),
            recalled: BTreeSet::new(),
            progress: Progress::Told { at: None },
            shared: Shared::default(),
        };
        graph.cull();
        graph
    }

    /// Walks back from the goals and makes every task that one of them needs wait for what it reads.
    fn cull(&mut self) {
        for (layer, record) in (0_u32..).zip(&self.layers) {
            for _ in self.compiled.tasks_of(LayerIndex(layer)) {
                self.tasks.push(Task::culled(layer, record.goal));
            }
        }
        let compiled = Arc::clone(&self.compiled);
        // Layers read only earlier layers, so every reader of a task has been seen before it.
        for index in (0..compiled.task_count()).rev() {
            let task = &self.tasks[index as usize];
            let layer = task.layer();
            let record = &self.layers[layer as usize];
            let of_gang = || record.gang.is_some() && self.is_gang_wanted(layer);
            if !task.is_held() && task.readers == 0 && record.barrier_readers == 0 && !of_gang() {
                continue;
            }
            let record = &mut self.layers[layer as usize];
            record.counts.total += 1;
            if task.is_held() {
                self.goals_left += 1;
                self.held += 1;
            }
            let (layer, position) = (task.layer(), index - record.first_task);
            record.to_do += 1;
            if record.to_do == 1 {
                self.begin_reading(layer);
            }
            let mut missing = self.closed_barriers(layer);
            compiled.for_each_direct_input(LayerIndex(layer), position, |input| {
                missing += 1;
                self.tasks[input.task as usize].readers += 1;
            });
            self.tasks[index as usize].state = TaskState::Waiting { missing };
        }
    }

    pub(crate) fn task_id(&self, index: u32) -> TaskId {
        TaskId {
            graph: self.id,
            index,
        }
    }

    /// The record of a task's layer.
    pub(crate) fn layer_of(&self, index: u32) -> &LayerRecord {
        &self.layers[self.tasks[index as usize].layer() as usize]
    }

    pub(crate) fn layer_of_mut(&mut self, index: u32) -> &mut LayerRecord {
        &mut self.layers[self.tasks[index as usize].layer() as usize]
    }

    /// The layer of a task as submitted.
    pub(crate) fn submitted_layer_of(&self, index: u32) -> &Layer {
        &self.compiled.layers()[self.tasks[index as usize].layer() as usize]
    }

    /// Whether anyone wants the task's partitions.
    #[inline]
    pub(crate) fn is_needed(&self, index: u32) -> bool {
        let task = &self.tasks[index as usize];
        let layer = &self.layers[task.layer() as usize];
        task.is_held()
            || task.readers > 0
            || layer.barrier_readers > 0
            || layer.gang.is_some() && layer.to_do > 0 && self.is_gang_wanted(task.layer())
    }

    /// A layer has got its first task to do: what stands behind its barriers is needed from now on.
    pub(crate) fn begin_reading(&mut self, layer: u32) {
        for index in 0..self.layers[layer as usize].barriers.len() {
            let source = self.layers[layer as usize].barriers[index].source;
            self.layers[source as usize].barrier_readers += 1;
        }
    }

    /// A layer has nothing more to do.
    pub(crate) fn end_reading(&mut self, layer: u32) {
        for index in 0..self.layers[layer as usize].barriers.len() {
            let source = self.layers[layer as usize].barriers[index].source;
            self.layers[source as usize].barrier_readers -= 1;
        }
    }

    /// A task and its place: its layer, and its position there.
    pub(crate) fn locate(&self, index: u32) -> (LayerIndex, u32) {
        let layer = self.tasks[index as usize].layer();
        let first = self.layers[layer as usize].first_task;
        (LayerIndex(layer), index - first)
    }

    /// A task has done its reading, or will not do it: `unneeded` gets the sources of which it was the last reader.
    pub(crate) fn stop_reading(&mut self, index: u32, unneeded: &mut Vec<u32>) {
        let (layer, position) = self.locate(index);
        let (tasks, layers) = (&mut self.tasks, &self.layers);
        if layers[layer.0 as usize].reads_direct {
            let compiled = &self.compiled;
            compiled.for_each_direct_input(layer, position, |input| {
                let source = &mut tasks[input.task as usize];
                source.readers -= 1;
                if source.readers == 0 && !source.is_held() {
                    unneeded.push(input.task);
                }
            });
        }
        let record = &layers[layer.0 as usize];
        if record.to_do > 0 {
            return;
        }
        for barrier in &record.barriers {
            let source = &layers[barrier.source as usize];
            if source.barrier_readers == 0 {
                unneeded.extend(self.compiled.tasks_of(LayerIndex(barrier.source)));
            }
        }
    }

    /// Whether nothing of it is to be done.
    pub(crate) fn is_idle(&self) -> bool {
        self.layers.iter().all(|layer| layer.to_do == 0)
    }

    /// Nobody holds the task any more.
    pub(crate) fn let_go(&mut self, index: u32) {
        let task = &mut self.tasks[index as usize];
        if task.is_held() {
            task.let_go();
            self.held -= 1;
        }
    }

    /// Takes note of the sizes of what a task has just stored; returns the part that goes into its state.
    pub(crate) fn note_sizes(&mut self, index: u32, sizes: OutputSizes) -> Bytes {
        let layer = &mut self.layers[self.tasks[index as usize].layer() as usize];
        if layer.outputs > 1 {
            let position = (index - layer.first_task) as usize;
            if layer.total_bytes.len() <= position {
                layer.total_bytes.resize(position + 1, 0);
            }
            layer.total_bytes[position] = sizes.total_bytes;
        }
        sizes.largest_bytes.into()
    }

    /// Sizes of what a task has stored, of which the largest is in its state.
    pub(crate) fn sizes(&self, index: u32, largest: Bytes) -> OutputSizes {
        let layer = self.layer_of(index);
        let position = (index - layer.first_task) as usize;
        let total = layer.total_bytes.get(position).copied();
        OutputSizes {
            outputs: layer.outputs,
            total_bytes: total.unwrap_or_else(|| largest.into()),
            largest_bytes: largest.into(),
            // Told once, and not kept.
            rows: 0,
        }
    }

    /// What a worker needs to know of a layer.
    pub(crate) fn layer_spec(&mut self, layer: u32) -> Arc<LayerSpec> {
        let record = &mut self.layers[layer as usize];
        let submitted = &self.compiled.layers()[layer as usize];
        let spec = record.spec.get_or_insert_with(|| {
            Arc::new(LayerSpec {
                name: submitted.name.clone(),
                operator: submitted.operator.clone(),
                arguments: submitted.arguments.clone(),
                first_task: record.first_task,
                outputs: submitted.outputs,
                inputs: input_specs(&self.compiled, layer),
                resources: submitted.resources.clone(),
                fused: submitted.fused.clone(),
                gang: submitted.gang,
                memory: submitted.memory,
                input_memory: input_memory(&self.compiled, submitted),
            })
        });
        Arc::clone(spec)
    }

    /// Slots of all workers that know any of its layers.
    pub(crate) fn told(&self) -> BitSet {
        let mut all = BitSet::default();
        for slot in self.layers.iter().flat_map(|layer| layer.told.iter()) {
            all.insert(slot);
        }
        all
    }
}

/// Whether several tasks of `reader` read the same partition through this input.
fn is_shared(reader: &Layer, edges: &Edges) -> bool {
    match edges {
        Edges::Broadcast => reader.tasks > 1,
        Edges::OneToOne | Edges::Shuffle | Edges::Tree { .. } | Edges::Explicit(_) => false,
    }
}

/// Where in a layer each range of what it imports begins.
fn starts_of(imports: &[TaskRange]) -> Vec<u32> {
    let start = |next: &mut u32, range: &TaskRange| {
        let start = *next;
        *next += range.count;
        Some(start)
    };
    imports.iter().scan(0, start).collect()
}

fn layer_records(compiled: &CompiledGraph, line: &Line, slot: GraphSlot) -> Vec<LayerRecord> {
    let layers = compiled.layers();
    let mut read = vec![false; layers.len()];
    let mut broadcast = vec![false; layers.len()];
    for layer in layers {
        for input in &layer.inputs {
            let Source::Layer(source) = input.source;
            read[source.0 as usize] = true;
            broadcast[source.0 as usize] |= is_shared(layer, &input.edges);
        }
    }
    let mut feeds = vec![Vec::new(); layers.len()];
    for layer in 0_u32..u32::try_from(layers.len()).unwrap_or(u32::MAX) {
        for (at, barrier) in (0_u32..).zip(&Barrier::of_layer(compiled, LayerIndex(layer))) {
            feeds[barrier.source as usize].push((layer, at));
        }
    }
    let keeps_nothing = compiled.outputs().is_empty();
    (0_u32..)
        .zip(layers)
        .zip(Families::of_graph(compiled))
        .map(|((index, layer), families)| {
            let kept = compiled.is_kept(LayerIndex(index));
            LayerRecord {
                rank: Rank::new(line, slot, layer.priority, index),
                first_task: compiled.first_task(LayerIndex(index)),
                resources: layer.resources.clone(),
                time_limit_ms: layer.time_limit_ms,
                outputs: layer.outputs,
                total_bytes: Vec::new(),
                scope: Scope::new(layer.placement.as_deref()),
                is_stuck: false,
                kept,
                goal: kept || (keeps_nothing && !read[index as usize]),
                broadcast: broadcast[index as usize],
                is_scattered: compiled.has_listed_edges(LayerIndex(index))
                    && layer.imports.is_empty()
                    && !layer.gang
                    && feeds[index as usize].is_empty()
                    && !layer.inputs.iter().any(|input| input.edges.reads_all()),
                looked_at: 0..0,
                reads: !layer.inputs.is_empty() || !layer.imports.is_empty(),
                reads_direct: !layer.inputs.iter().all(|input| input.edges.reads_all()),
                to_do: 0,
                barriers: Barrier::of_layer(compiled, LayerIndex(index)),
                feeds: std::mem::take(&mut feeds[index as usize]),
                barrier_readers: 0,
                counts: LayerProgress::default(),
                ready: BitSet::default(),
                families: families.filter(|_| !layer.gang).map(Box::new),
                spec: None,
                told: BitSet::default(),
                imports: starts_of(&layer.imports),
                gang: layer.gang.then(|| Box::new(Gang::of(layer.tasks))),
                runs: Runs::default(),
            }
        })
        .collect()
}
