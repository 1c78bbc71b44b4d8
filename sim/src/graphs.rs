//! Random graphs, what each of their tasks does, and what their outputs must be.
//!
//! An output's value is a hash of everything the task saw, so two runs agree on it only if every input was the right
//! one at the right place.

use std::collections::BTreeSet;

use transload_protocol::{
    Amount, Blob, CompiledGraph, Edges, ExplicitEdges, GraphId, Layer, LayerIndex, Memory,
    Resources, Source, TaskErrorKind, TaskGraph, TaskId, TaskRange, WorkerRef,
};

use crate::random::{Random, mix};
use crate::scenario::Scenario;

/// The label of every other worker.
pub(crate) const LABEL: &str = "odd";
/// Memory that every worker has for its operators, in bytes, where tasks ask for some.
pub(crate) const OPERATOR_MEMORY_BYTES: u64 = 1_000;

/// What becomes of a task when it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It ends well.
    Normal,
    /// It always fails.
    Fails(TaskErrorKind),
    /// It fails the first times with an error that another attempt may cure.
    Flaky { kind: TaskErrorKind, times: u32 },
    /// It kills the process that runs it, the first times.
    Deadly { times: u32 },
    /// It runs out of device memory so often before it ends well; more often than it is helped, in every attempt.
    Hungry { times: u32 },
}

/// How often a task that runs out of device memory is started again where it is: once with the device emptied, once in halves.
pub(crate) const HELPINGS: u32 = 2;

/// A graph with the answers.
#[derive(Debug, Clone)]
pub(crate) struct GraphPlan {
    pub(crate) compiled: CompiledGraph,
    /// By task and output.
    pub(crate) values: Vec<Vec<u64>>,
    /// By task.
    pub(crate) fates: Vec<Fate>,
    /// Bytes of the largest partition.
    partition_bytes: u64,
    pub(crate) sizes_vary: bool,
    /// Its tasks fetch what they make from their client, as long as that offers it.
    pub(crate) is_scattered: bool,
}

impl GraphPlan {
    pub(crate) fn fate(&self, task: u32) -> Fate {
        self.fates
            .get(task as usize)
            .copied()
            .unwrap_or(Fate::Normal)
    }

    /// The right values of a task's outputs.
    pub(crate) fn values_of(&self, task: u32) -> &[u64] {
        self.values.get(task as usize).map_or(&[], Vec::as_slice)
    }

    /// Size of an output that was made in the given run of its task: some are empty, most are of middling size.
    pub(crate) fn bytes_of(&self, value: u64, run: u32) -> u64 {
        let chance = mix(value ^ if self.sizes_vary { u64::from(run) } else { 0 });
        match chance % 8 {
            0 => 0,
            1 => self.partition_bytes,
            _ => mix(chance) % (self.partition_bytes + 1),
        }
    }

    /// Whether an output may have been made without bytes.
    pub(crate) fn may_be_empty(&self, value: u64) -> bool {
        self.sizes_vary || self.partition_bytes == 0 || self.bytes_of(value, 0) == 0
    }

    /// Whether a task's outputs are read by every task of a layer of several.
    pub(crate) fn is_broadcast(&self, task: u32) -> bool {
        let of_task = self.compiled.locate(task).map(|(layer, _)| layer);
        self.compiled.layers().iter().any(|layer| {
            let mut inputs = layer.inputs.iter();
            layer.tasks > 1
                && inputs.any(|input| {
                    let Source::Layer(source) = input.source;
                    Some(source) == of_task && input.edges == Edges::Broadcast
                })
        })
    }

    /// Whether a task makes what it makes in device memory, where it finds any.
    pub(crate) fn works_on_device(&self, task: u32) -> bool {
        let layer = self.compiled.layer_of(task);
        layer.is_some_and(|layer| layer.memory == Memory::Device)
    }

    /// Most bytes that a task may read in device memory.
    pub(crate) fn device_bytes_read(&self, task: u32) -> u64 {
        let mut read = BTreeSet::new();
        self.compiled.for_each_input(task, |input| {
            if self.works_on_device(input.task) {
                read.insert((input.task, input.output));
            }
        });
        let layer = self.compiled.layer_of(task);
        // What is imported may have been made there.
        let imported = layer.filter(|layer| !layer.imports.is_empty());
        let imported = imported.map_or(0, |layer| u64::from(layer.outputs));
        (read.len() as u64 + imported) * self.partition_bytes
    }

    /// Whether it reads results of that graph.
    pub(crate) fn imports_from(&self, graph: GraphId) -> bool {
        let layers = self.compiled.layers().iter();
        let mut imports = layers.flat_map(|layer| &layer.imports);
        imports.any(|range| range.graph == graph)
    }

    /// Some of those that work in device memory and would end well run out of it.
    fn make_hungry(&mut self, scenario: &Scenario, random: &mut Random) {
        for index in 0..self.compiled.task_count() {
            if !self.works_on_device(index) || !random.chance(scenario.task_hungry_per_mille) {
                continue;
            }
            if let Some(fate) = self.fates.get_mut(index as usize)
                && *fate == Fate::Normal
            {
                let times = random.pick(&[1, 1, 1, 2, 2, HELPINGS + 1], 1);
                *fate = Fate::Hungry { times };
            }
        }
    }

    /// Indices of the tasks whose outputs the client keeps.
    pub(crate) fn kept_tasks(&self) -> Vec<u32> {
        let layers = (0_u32..).zip(self.compiled.layers());
        layers
            .map(|(layer, _)| LayerIndex(layer))
            .filter(|layer| self.compiled.is_kept(*layer))
            .flat_map(|layer| self.compiled.tasks_of(layer))
            .collect()
    }
}

/// What the operator of the simulation computes: all outputs of a task, from all it is told and given.
pub(crate) fn operate(
    operator: &str,
    common: &[u8],
    own: Option<&[u8]>,
    position: u32,
    index: u32,
    inputs: &[Vec<u64>],
    outputs: u32,
) -> Vec<u64> {
    let mut state = mix(u64::from(position) << 32 | u64::from(index));
    let mut absorb = |number: u64| state = mix(state.rotate_left(9) ^ number);
    for bytes in [operator.as_bytes(), common, own.unwrap_or(b"none")] {
        absorb(bytes.len() as u64);
        bytes.iter().for_each(|byte| absorb(u64::from(*byte)));
    }
    for input in inputs {
        absorb(input.len() as u64);
        input.iter().for_each(|value| absorb(*value));
    }
    (0..outputs)
        .map(|output| mix(state ^ mix(u64::from(output) + 1)))
        .collect()
}

/// All values of a graph, computed one task after another.
fn evaluate(graph: &CompiledGraph, imported: impl Fn(TaskId) -> Option<Vec<u64>>) -> Vec<Vec<u64>> {
    let mut values: Vec<Vec<u64>> = Vec::new();
    for index in 0..graph.task_count() {
        let Some((layer_index, position)) = graph.locate(index) else {
            break;
        };
        let Some(layer) = graph.layers().get(layer_index.0 as usize) else {
            break;
        };
        if let Some(source) = layer.imported(position) {
            values.push(imported(source).unwrap_or_default());
            continue;
        }
        let mut inputs = vec![Vec::new(); layer.inputs.len()];
        graph.for_each_input(index, |input| {
            let value = values
                .get(input.task as usize)
                .and_then(|outputs| outputs.get(input.output as usize));
            if let (Some(list), Some(value)) = (inputs.get_mut(input.input as usize), value) {
                list.push(*value);
            }
        });
        let own = layer.arguments.per_task.get(position as usize);
        values.push(operate(
            &layer.operator,
            &layer.arguments.common.0,
            own.map(|blob| blob.0.as_ref()),
            position,
            index,
            &inputs,
            layer.outputs,
        ));
    }
    values
}

/// A random graph of every kind of edge, and what its tasks will do.
pub(crate) fn random_graph(scenario: &Scenario, random: &mut Random) -> Result<GraphPlan, String> {
    let mut graph = TaskGraph::new(format!("graph {:x}", random.next()));
    let layers = random.small(1, scenario.layers);
    for number in 0..layers {
        let layer = random_layer(&graph, number, scenario, random);
        graph.push(layer);
    }
    let last = LayerIndex(layers - 1);
    if !random.chance(scenario.nothing_kept_per_mille) {
        graph.keep(last);
        for layer in 0..layers - 1 {
            if random.chance(scenario.layer_kept_per_mille) {
                graph.keep(LayerIndex(layer));
            }
        }
    }
    if random.chance(scenario.deadline_per_mille) {
        graph.cancel_after_ms = Some(random.between(1, 2_000));
    }
    plan_of(graph, scenario, random, |_| None)
}

/// A graph that imports a kept layer of another, or a part of it, and reads it once or twice; none where nothing is kept there.
pub(crate) fn importing_graph(
    source: (GraphId, &GraphPlan),
    scenario: &Scenario,
    random: &mut Random,
) -> Option<Result<GraphPlan, String>> {
    let (id, plan) = source;
    let kept = plan.compiled.outputs();
    let layer = *kept.get(random.index(kept.len().max(1)))?;
    let tasks = plan.compiled.tasks_of(layer);
    let first = tasks.start + random.small(0, tasks.end - tasks.start - 1);
    let outputs = plan.compiled.layer_of(first)?.outputs;
    let mut graph = TaskGraph::new(format!("importing {:x}", random.next()));
    let range = TaskRange {
        graph: id,
        first,
        count: tasks.end - first,
    };
    let imported = graph.push_import("imported", vec![range], outputs);
    let read = Layer::new("read", "op-0", range.count).reading(imported, Edges::OneToOne);
    let read = graph.push(on_device(read, scenario, random));
    graph.keep(read);
    if random.chance(500) {
        let all = Layer::new("all", "op-1", 1).reading(imported, Edges::Broadcast);
        let all = graph.push(all);
        graph.keep(all);
    }
    if random.chance(300) {
        graph.keep(imported);
    }
    let values = |task: TaskId| Some(plan.values_of(task.index).to_vec());
    Some(plan_of(graph, scenario, random, values))
}

/// A client's own partitions, to be spread among the workers.
pub(crate) fn scattered_graph(
    scenario: &Scenario,
    random: &mut Random,
) -> Result<GraphPlan, String> {
    let mut graph = TaskGraph::new(format!("scattered {:x}", random.next()));
    let tasks = random.small(1, scenario.tasks_per_layer);
    let mut layer = Layer::new("scattered", "op-0", tasks);
    layer.retries = random.small(0, scenario.retries);
    let layer = graph.push(layer);
    graph.keep(layer);
    let plan = plan_of(graph, scenario, random, |_| None)?;
    Ok(GraphPlan {
        is_scattered: true,
        ..plan
    })
}

fn plan_of(
    graph: TaskGraph,
    scenario: &Scenario,
    random: &mut Random,
    imported: impl Fn(TaskId) -> Option<Vec<u64>>,
) -> Result<GraphPlan, String> {
    let compiled = graph.compile().map_err(|error| error.to_string())?;
    let fates = (0..compiled.task_count())
        .map(|_| random_fate(scenario, random))
        .collect();
    let mut plan = GraphPlan {
        values: evaluate(&compiled, imported),
        compiled,
        fates,
        partition_bytes: scenario.partition_bytes,
        sizes_vary: scenario.sizes_vary,
        is_scattered: false,
    };
    plan.make_hungry(scenario, random);
    Ok(plan)
}

fn random_layer(graph: &TaskGraph, number: u32, scenario: &Scenario, random: &mut Random) -> Layer {
    let mut tasks = random.small(1, scenario.tasks_per_layer);
    let mut inputs = Vec::new();
    // The first edge may decide how many tasks the layer has; the others must fit.
    let wanted = if number == 0 {
        0
    } else {
        random.pick(&[0, 1, 1, 2, 2, 3], 1)
    };
    for _ in 0..wanted {
        let source = if random.chance(600) {
            LayerIndex(number - 1)
        } else {
            LayerIndex(random.small(0, number - 1))
        };
        let Some(below) = graph.layers.get(source.0 as usize) else {
            continue;
        };
        let arity = random.small(2, 4);
        let (needed, edges) = match random.below(5) {
            0 => (below.tasks, Edges::OneToOne),
            1 => (below.outputs, Edges::Shuffle),
            2 => (below.tasks.div_ceil(arity), Edges::Tree { arity }),
            3 => (tasks, Edges::Broadcast),
            _ => (tasks, random_edges(tasks, below, random)),
        };
        if inputs.is_empty() && !matches!(edges, Edges::Explicit(_)) {
            tasks = needed;
        }
        if needed == tasks {
            inputs.push((source, edges));
        }
    }
    let mut layer = Layer::new(
        format!("layer {number}"),
        format!("op-{}", random.below(3)),
        tasks,
    )
    .with_outputs(random.small(1, 5))
    .with_common(random.next().to_le_bytes().to_vec());
    if random.chance(300) {
        let own = |_| Blob::from(random.next().to_le_bytes().to_vec());
        layer = layer.with_per_task((0..tasks).map(own).collect());
    }
    for (source, edges) in inputs {
        layer = layer.reading(source, edges);
    }
    layer.priority = i32::try_from(random.below(3)).unwrap_or(0) - 1;
    layer.retries = random.small(0, scenario.retries);
    if random.chance(scenario.time_limit_per_mille) {
        layer.time_limit_ms = Some(random.small(1, 200));
    }
    layer.resources = Resources::slots(random.small(1, scenario.slots_per_task));
    if scenario.gpus && random.chance(300) {
        layer.resources = layer.resources.with("gpu", 1);
    }
    layer = on_device(layer, scenario, random);
    layer = gathered(layer, scenario, random);
    if scenario.held_per_mille > 0 {
        layer = held(layer, scenario, random);
    }
    layer
}

/// Now and then the layer works in device memory.
fn on_device(layer: Layer, scenario: &Scenario, random: &mut Random) -> Layer {
    if scenario.device_per_mille > 0 && random.chance(scenario.device_per_mille) {
        layer.on_device()
    } else {
        layer
    }
}

/// Now and then the layer becomes a gang; one that is more than the cluster can hold by far, seldom.
fn gathered(layer: Layer, scenario: &Scenario, random: &mut Random) -> Layer {
    if scenario.gang_per_mille == 0 || !random.chance(scenario.gang_per_mille) {
        return layer;
    }
    let slots = scenario.slots_per_worker.0;
    let room = scenario.workers * (slots / layer.resources.slots.max(1));
    if layer.tasks <= room + random.small(0, 1) || random.chance(20) {
        layer.as_gang()
    } else {
        layer
    }
}

/// Now and then the layer's tasks may not run everywhere, or ask for more than slots.
fn held(mut layer: Layer, scenario: &Scenario, random: &mut Random) -> Layer {
    if random.chance(scenario.held_per_mille) {
        layer.resources.memory_bytes = random.between(1, OPERATOR_MEMORY_BYTES);
    }
    if layer.resources.named.contains_key("gpu") && random.chance(500) {
        layer.resources = layer.resources.with("gpu", Amount::ten_thousandths(5_000));
    }
    if !random.chance(scenario.held_per_mille) {
        return layer;
    }
    let workers = scenario.workers.max(1);
    match random.below(20) {
        0 => layer.with_label("nowhere"),
        1..10 => layer.with_label(LABEL),
        10..16 => layer.on_host(host_of(random.index(workers as usize))),
        _ if layer.gang => layer.on_worker(name_of(random.index(workers as usize)).as_str()),
        _ => {
            let each = (0..layer.tasks).map(|_| {
                let process = random.index(workers as usize);
                WorkerRef::Name(name_of(process))
            });
            let each = each.collect();
            layer.on_each(each)
        }
    }
}

/// The host that a process runs on.
pub(crate) fn host_of(process: usize) -> String {
    format!("host {}", process / 3)
}

/// What a process is called.
pub(crate) fn name_of(process: usize) -> String {
    format!("process {process}")
}

fn random_edges(tasks: u32, below: &Layer, random: &mut Random) -> Edges {
    let lists: Vec<Vec<(u32, u32)>> = (0..tasks)
        .map(|_| {
            (0..random.small(0, 4))
                .map(|_| {
                    (
                        random.small(0, below.tasks - 1),
                        random.small(0, below.outputs - 1),
                    )
                })
                .collect()
        })
        .collect();
    Edges::Explicit(ExplicitEdges::from_lists(lists.iter().map(Vec::as_slice)))
}

fn random_fate(scenario: &Scenario, random: &mut Random) -> Fate {
    if random.chance(scenario.task_fails_per_mille) {
        let kinds = [
            TaskErrorKind::Operator,
            TaskErrorKind::Panic,
            TaskErrorKind::UnknownOperator,
        ];
        Fate::Fails(random.pick(&kinds, TaskErrorKind::Operator))
    } else if random.chance(scenario.task_flaky_per_mille) {
        let kinds = [
            TaskErrorKind::OutOfMemory,
            TaskErrorKind::SpillFailed,
            TaskErrorKind::CorruptPartition,
            TaskErrorKind::Transient,
        ];
        Fate::Flaky {
            kind: random.pick(&kinds, TaskErrorKind::OutOfMemory),
            times: random.small(1, 3),
        }
    } else if random.chance(scenario.task_deadly_per_mille) {
        Fate::Deadly {
            times: random.small(1, 4),
        }
    } else {
        Fate::Normal
    }
}
