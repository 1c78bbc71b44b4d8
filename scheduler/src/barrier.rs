//! Inputs through which every task of a layer reads every task of another: shuffles and broadcasts.
//!
//! They are counted by layer, so that `m x r` edges cost `m + r` steps and no memory of their own. Written by `transition` and
//! `lineage`; summed up for `place`. Knows nothing of the order in which tasks run.

use std::cmp::Reverse;

use transload_protocol::{
    CompiledGraph, Edges, InputSpec, Layer, LayerIndex, LayerInput, Memory, PeerTable, Source,
    SourceTable,
};

use crate::bits::BitSet;
use crate::graph::Graph;
use crate::place::FETCH_COST_BYTES;
use crate::slab::{Slot, WorkerSlot};
use crate::task::TaskState;
use crate::worker::Workers;

/// So many of the largest holders of a layer are considered for those who read all of it.
const HOLDERS_WEIGHED: usize = 8;
/// But none that holds less than such a part of it: where a layer is spread over many workers, all are as good.
const LEAST_PART: u64 = 16;

/// One such input of a layer. It is open when every task that it reads is done.
#[derive(Debug)]
pub(crate) struct Barrier {
    /// Position among the inputs of the layer.
    pub(crate) input: u32,
    /// The layer that is read.
    pub(crate) source: u32,
    /// Each task reads its own output of every source task, and not the first.
    pub(crate) is_column: bool,
    /// Tasks of the source that are not stored. The tasks of the layer miss one input while there are any.
    pub(crate) undone: u32,
    /// Where the source is; made when first needed, dropped when something moves.
    pub(crate) summary: Option<Summary>,
    /// Worker slots that were told where the source is.
    pub(crate) told: BitSet,
}

/// Where a layer is.
#[derive(Debug)]
pub(crate) struct Summary {
    /// What workers are told.
    pub(crate) table: SourceTable,
    /// Everyone who holds some of it.
    pub(crate) holders: BitSet,
    /// How to reach all of these; made when someone knows none of them.
    pub(crate) peers: Option<PeerTable>,
    /// What one reader of it would have to fetch, in bytes, costs of the fetches included.
    pub(crate) total: u64,
    /// How much of that the largest holders have, where that is a part worth going for.
    pub(crate) largest: Vec<(WorkerSlot, u64)>,
}

impl Barrier {
    /// The barriers among the inputs of a layer.
    pub(crate) fn of_layer(compiled: &CompiledGraph, layer: LayerIndex) -> Vec<Self> {
        let inputs = compiled.layers().get(layer.0 as usize);
        (0..)
            .zip(inputs.into_iter().flat_map(|layer| &layer.inputs))
            .filter(|(_, input)| input.edges.reads_all())
            .map(|(position, input)| {
                let Source::Layer(source) = input.source;
                Self {
                    input: position,
                    source: source.0,
                    is_column: input.edges == Edges::Shuffle,
                    undone: u32::try_from(compiled.tasks_of(source).len()).unwrap_or(u32::MAX),
                    summary: None,
                    told: BitSet::default(),
                }
            })
            .collect()
    }

    pub(crate) fn is_open(&self) -> bool {
        self.undone == 0
    }

    /// A task of the source was stored.
    pub(crate) fn one_done(&mut self) {
        self.undone -= 1;
    }

    /// A stored task of the source is not stored any more: what was told about it is out of date.
    pub(crate) fn one_undone(&mut self) {
        self.undone += 1;
        if self.summary.take().is_some() {
            self.told = BitSet::default();
        }
    }
}

impl Graph {
    /// Inputs of a layer through which something is missing for all of its tasks.
    pub(crate) fn closed_barriers(&self, layer: u32) -> u32 {
        let barriers = &self.layers[layer as usize].barriers;
        u32::try_from(barriers.iter().filter(|barrier| !barrier.is_open()).count()).unwrap_or(0)
    }

    /// Makes sure that every open barrier of a layer has its summary.
    #[inline]
    pub(crate) fn summarize(&mut self, layer: u32, workers: &Workers) {
        if !self.layers[layer as usize].barriers.is_empty() {
            self.summarize_now(layer, workers);
        }
    }

    #[inline(never)]
    fn summarize_now(&mut self, layer: u32, workers: &Workers) {
        for index in 0..self.layers[layer as usize].barriers.len() {
            let barrier = &self.layers[layer as usize].barriers[index];
            if barrier.is_open() && barrier.summary.is_none() {
                let summary = self.summary_of(barrier, workers);
                self.layers[layer as usize].barriers[index].summary = Some(summary);
            }
        }
    }

    fn summary_of(&self, barrier: &Barrier, workers: &Workers) -> Summary {
        let mut weights: Vec<u64> = Vec::new();
        let mut holders = BitSet::default();
        let mut total = 0_u64;
        let source = LayerIndex(barrier.source);
        let entries = self.compiled.tasks_of(source).map(|index| {
            let TaskState::Done {
                worker, largest, ..
            } = &self.tasks[index as usize].state
            else {
                return (transload_protocol::WorkerId(u32::MAX), 0);
            };
            let sizes = self.sizes(index, *largest);
            let read = if barrier.is_column {
                sizes.total_bytes / u64::from(sizes.outputs.max(1))
            } else {
                sizes.largest_bytes
            };
            let weight = read.saturating_add(FETCH_COST_BYTES);
            if holders.insert(worker.0) && weights.len() <= worker.index() {
                weights.resize(worker.index() + 1, 0);
            }
            weights[worker.index()] = weights[worker.index()].saturating_add(weight);
            total = total.saturating_add(weight);
            (workers.slab[*worker].id, sizes.largest_bytes)
        });
        let table = entries.collect();
        let mut largest: Vec<(WorkerSlot, u64)> = holders
            .iter()
            .map(|slot| (WorkerSlot(slot), weights[slot as usize]))
            .filter(|(_, weight)| *weight >= total / LEAST_PART)
            .collect();
        largest.sort_unstable_by_key(|(slot, weight)| (Reverse(*weight), *slot));
        largest.truncate(HOLDERS_WEIGHED);
        Summary {
            table,
            holders,
            peers: None,
            total,
            largest,
        }
    }
}

/// In which memory the layers work that a layer reads, by input; empty where that is host memory for all of them.
pub(crate) fn input_memory(compiled: &CompiledGraph, layer: &Layer) -> Vec<Memory> {
    let memory = |input: &LayerInput| {
        let Source::Layer(source) = input.source;
        let source = compiled.layers().get(source.0 as usize);
        source.map_or(Memory::Host, |source| source.memory)
    };
    let all: Vec<Memory> = layer.inputs.iter().map(memory).collect();
    if all.contains(&Memory::Device) {
        all
    } else {
        Vec::new()
    }
}

/// What workers are told of how a layer reads.
pub(crate) fn input_specs(compiled: &CompiledGraph, layer: u32) -> Vec<InputSpec> {
    let Some(layer) = compiled.layers().get(layer as usize) else {
        return Vec::new();
    };
    let spec = |source: &Source, edges: &Edges| {
        let Source::Layer(source) = source;
        let first_task = compiled.first_task(*source);
        match edges {
            Edges::Shuffle => InputSpec::Column { first_task },
            Edges::Broadcast => InputSpec::All {
                first_task,
                shared: layer.tasks > 1,
            },
            Edges::OneToOne | Edges::Tree { .. } | Edges::Explicit(_) => InputSpec::Listed,
        }
    };
    // What is imported is listed, as an input of its own.
    let imports = (!layer.imports.is_empty()).then_some(InputSpec::Listed);
    let inputs = layer
        .inputs
        .iter()
        .map(|input| spec(&input.source, &input.edges));
    inputs.chain(imports).collect()
}
