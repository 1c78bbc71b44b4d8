//! What the optimizer's tests share: an interpreter of graphs whose operators are hash functions, and random graphs.

use std::collections::BTreeMap;

use transload_protocol::{
    Arguments, CompiledGraph, Edges, ExplicitEdges, Fused, Layer, LayerIndex, Step, StepInput,
    TaskGraph, WorkerId,
};

/// What a graph computes: for each layer its tasks' outputs, and every call of an operator by layer name and position.
pub(crate) struct Results {
    pub(crate) layers: Vec<Vec<Vec<u64>>>,
    pub(crate) calls: Vec<(String, u32)>,
}

/// Runs a graph. An operator's outputs depend on everything that an operator can see.
pub(crate) fn interpret(graph: &TaskGraph) -> Results {
    let graph = graph.clone().compile().expect("a valid graph");
    let mut made: Vec<Vec<u64>> = Vec::new();
    let mut calls = Vec::new();
    for task in 0..graph.task_count() {
        let (index, position) = graph.locate(task).expect("a task");
        let layer = &graph.layers()[index.0 as usize];
        let given = inputs_of(&graph, task, layer.inputs.len(), &made);
        let inputs = match &layer.fused {
            Some(fused) => run_steps(fused, position, &given, &mut calls),
            None => given,
        };
        calls.push((layer.name.clone(), position));
        made.push(operate(
            (&layer.name, &layer.operator, &layer.arguments),
            position,
            layer.outputs,
            &inputs,
        ));
    }
    let layers = (0_u32..).zip(graph.layers());
    Results {
        layers: layers
            .map(|(index, _)| {
                let tasks = graph.tasks_of(LayerIndex(index));
                made[tasks.start as usize..tasks.end as usize].to_vec()
            })
            .collect(),
        calls,
    }
}

fn inputs_of(graph: &CompiledGraph, task: u32, inputs: usize, made: &[Vec<u64>]) -> Vec<Vec<u64>> {
    let mut given = vec![Vec::new(); inputs];
    graph.for_each_input(task, |input| {
        given[input.input as usize].push(made[input.task as usize][input.output as usize]);
    });
    given
}

/// Makes the steps' calls. Returns what the layer's own operator reads. What is read the last time is dropped, as a worker
/// would do it, so that a wrong count of readers is a panic here.
fn run_steps(
    fused: &Fused,
    position: u32,
    given: &[Vec<u64>],
    calls: &mut Vec<(String, u32)>,
) -> Vec<Vec<u64>> {
    let readers = fused.readers();
    let mut between: BTreeMap<(u32, u32), (u64, u32)> = BTreeMap::new();
    for call in fused.calls(position) {
        let step: &Step = &fused.steps[call.step as usize];
        let at = step.positions(position).start + call.call;
        assert!(step.positions(position).contains(&at), "{call:?}");
        let inputs = read(
            &step.reads,
            call.call,
            (fused, position),
            given,
            &mut between,
        );
        calls.push((step.layer.clone(), at));
        let outputs = operate(
            (&step.layer, &step.operator, &step.arguments),
            at,
            step.outputs,
            &inputs,
        );
        let left = readers[call.step as usize];
        let again = between.insert((call.step, call.call), (outputs[0], left));
        assert_eq!(again, None, "{call:?} is made twice");
    }
    let inputs = read(&fused.reads, 0, (fused, position), given, &mut between);
    assert!(between.is_empty(), "made and never read: {between:?}");
    inputs
}

fn read(
    reads: &[StepInput],
    call: u32,
    (fused, position): (&Fused, u32),
    given: &[Vec<u64>],
    between: &mut BTreeMap<(u32, u32), (u64, u32)>,
) -> Vec<Vec<u64>> {
    let one = |read: &StepInput| match *read {
        StepInput::Layer { input, share } => {
            let given = &given[input as usize];
            let range = share.of(call, u32::try_from(given.len()).expect("few"));
            given[range.start as usize..range.end as usize].to_vec()
        }
        StepInput::Step { step, each } => {
            let count = fused.steps[step as usize].positions(position).len() as u32;
            (call * each..((call + 1) * each).min(count))
                .map(|call| {
                    let (value, left) = between[&(step, call)];
                    if left == 1 {
                        between.remove(&(step, call));
                    } else {
                        between.insert((step, call), (value, left - 1));
                    }
                    value
                })
                .collect()
        }
    };
    reads.iter().map(one).collect()
}

fn operate(
    (layer, operator, arguments): (&str, &str, &Arguments),
    position: u32,
    outputs: u32,
    inputs: &[Vec<u64>],
) -> Vec<u64> {
    let own = arguments.per_task.get(position as usize);
    let mut seen = layer.bytes().map(u64::from).collect::<Vec<_>>();
    seen.extend(operator.bytes().map(u64::from));
    seen.extend(arguments.common.0.iter().map(|byte| u64::from(*byte)));
    seen.push(own.map_or(1, |own| own.0.iter().map(|byte| u64::from(*byte)).sum()));
    seen.extend([u64::from(position), u64::from(outputs)]);
    for input in inputs {
        seen.push(input.len() as u64);
        seen.extend(input);
    }
    let all = seen.into_iter().fold(0, |hash, value| mix(hash ^ value));
    (0..outputs)
        .map(|output| mix(all ^ u64::from(output)))
        .collect()
}

const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 31)).wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = value.wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value ^ (value >> 29)
}

/// Numbers that follow from a seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(mix(seed))
    }

    /// A number in `[0, limit)`.
    pub(crate) fn below(&mut self, limit: u32) -> u32 {
        self.0 = mix(self.0);
        u32::try_from((self.0 >> 8) % u64::from(limit.max(1))).expect("below a u32")
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.below(100) < percent
    }
}

/// A graph of every kind of edge, with chains and trees more often than a fair coin would make them.
pub(crate) fn random_graph(random: &mut Random) -> TaskGraph {
    let mut graph = TaskGraph::new("random");
    let layers = 1 + random.below(14);
    for number in 0..layers {
        let mut layer = random_layer(&graph, number, random);
        layer.outputs = 1 + random.below(3);
        layer.retries = if random.chance(5) { 7 } else { 2 };
        layer.priority = i32::from(random.chance(5));
        layer.resources.slots = 1 + u32::from(random.chance(5));
        if random.chance(4) {
            layer = match random.below(2) {
                0 => layer.with_label("ssd"),
                _ => {
                    let workers = (0..layer.tasks).map(|task| WorkerId(task % 3).into());
                    let workers = workers.collect();
                    layer.on_each(workers)
                }
            };
        }
        layer = layer.with_common(number.to_le_bytes().to_vec());
        if random.chance(30) {
            let own = (0..layer.tasks).map(|task| task.to_le_bytes().to_vec().into());
            layer.arguments.per_task = own.collect();
        }
        let index = graph.push(layer);
        if random.chance(if number + 1 == layers { 70 } else { 8 }) {
            graph.keep(index);
        }
    }
    graph
}

fn random_layer(graph: &TaskGraph, number: u32, random: &mut Random) -> Layer {
    let name = format!("layer-{number}");
    let operator = format!("op-{}", random.below(3));
    let Some(last) = number.checked_sub(1).filter(|_| !random.chance(20)) else {
        return Layer::new(name, operator, 1 + random.below(12));
    };
    let first = if random.chance(60) {
        last
    } else {
        random.below(number)
    };
    let (tasks, edges) = random_edges(&graph.layers[first as usize], random);
    let mut layer = Layer::new(name, operator, tasks).reading(LayerIndex(first), edges);
    for _ in 0..random.below(3) {
        let other = random.below(number);
        let below = &graph.layers[other as usize];
        let edges = if below.tasks == tasks && random.chance(80) {
            Edges::OneToOne
        } else if below.outputs == tasks {
            Edges::Shuffle
        } else if random.chance(20) {
            Edges::Broadcast
        } else {
            continue;
        };
        layer = layer.reading(LayerIndex(other), edges);
    }
    layer
}

fn random_edges(below: &Layer, random: &mut Random) -> (u32, Edges) {
    match random.below(10) {
        0..=4 => (below.tasks, Edges::OneToOne),
        5..=7 => {
            let arity = 2 + random.below(4);
            (below.tasks.div_ceil(arity), Edges::Tree { arity })
        }
        8 if random.chance(50) => (below.outputs, Edges::Shuffle),
        8 => (1 + random.below(6), Edges::Broadcast),
        _ => {
            let tasks = 1 + random.below(6);
            let lists: Vec<Vec<(u32, u32)>> = (0..tasks)
                .map(|_| {
                    (0..random.below(4))
                        .map(|_| (random.below(below.tasks), random.below(below.outputs)))
                        .collect()
                })
                .collect();
            let lists = lists.iter().map(Vec::as_slice);
            (tasks, Edges::Explicit(ExplicitEdges::from_lists(lists)))
        }
    }
}
