//! Edges that are listed one by one, packed for walking them from either end.
//!
//! Made by `graph` when a graph is compiled, which has checked every list before. Whoever walks such edges of a large graph waits
//! for memory, so what is read together stands together: all lists of a task, and all readers of a task.

use std::ops::Range;

use crate::{Edges, ExplicitEdges, Layer, LayerInput, Source, TaskGraph};

/// What the tasks of one layer read through those of its inputs that list their edges.
#[derive(Debug, Clone, Default)]
pub(crate) struct ListedInputs {
    /// Of each such input, the first task of the layer that is read.
    first_tasks: Vec<u32>,
    /// Other inputs of the layer than these.
    others: usize,
    /// Where the list of task `i` for input `k` begins: at `i * inputs + k`, there being so many. One entry more than there are lists.
    offsets: Vec<u32>,
    /// Producing tasks, by their index in the graph.
    sources: Vec<u32>,
    /// Of each, which output; empty when all are 0.
    outputs: Vec<u32>,
}

/// Who reads the tasks of one layer through listed edges.
#[derive(Debug, Clone, Default)]
pub(crate) struct ListedReaders {
    /// Where the readers of a task begin. One entry more than the layer has tasks, or none.
    offsets: Vec<u32>,
    /// Indices of reading tasks in the graph.
    readers: Vec<u32>,
}

impl ListedInputs {
    /// Takes the lists out of a layer, whose inputs stay without them. `first_tasks` says where each layer of the graph begins.
    pub(crate) fn take_from(layer: &mut Layer, first_tasks: &[u32]) -> Self {
        let all = layer.inputs.len();
        let inputs = layer.inputs.iter_mut().filter_map(|input| {
            let Source::Layer(source) = input.source;
            let first = first_tasks.get(source.0 as usize).copied();
            list_of(input).map(|edges| (first.unwrap_or(0), std::mem::take(edges)))
        });
        let (first_tasks, lists): (Vec<u32>, Vec<ExplicitEdges>) = inputs.unzip();
        if lists.is_empty() {
            return Self::default();
        }
        let count = lists.iter().map(|edges| edges.partitions.len()).sum();
        let has_outputs = lists
            .iter()
            .flat_map(|edges| &edges.partitions)
            .any(|(_, output)| *output != 0);
        let mut listed = Self {
            first_tasks: Vec::new(),
            others: all - lists.len(),
            offsets: Vec::with_capacity(layer.tasks as usize * lists.len() + 1),
            sources: Vec::with_capacity(count),
            outputs: Vec::with_capacity(if has_outputs { count } else { 0 }),
        };
        for position in 0..layer.tasks {
            for (edges, first) in lists.iter().zip(&first_tasks) {
                listed.end_list();
                let list = edges.of(position);
                listed
                    .sources
                    .extend(list.iter().map(|(source, _)| first + *source));
                if has_outputs {
                    listed
                        .outputs
                        .extend(list.iter().map(|(_, output)| *output));
                }
            }
        }
        listed.end_list();
        listed.first_tasks = first_tasks;
        listed
    }

    fn end_list(&mut self) {
        let end = u32::try_from(self.sources.len()).unwrap_or(u32::MAX);
        self.offsets.push(end);
    }

    /// Edges of all tasks together.
    pub(crate) fn len(&self) -> usize {
        self.sources.len()
    }

    /// Where the lists of a task stand, from one of them up to another.
    #[inline]
    fn range(&self, position: u32, inputs: Range<usize>) -> Range<usize> {
        let first = position as usize * self.first_tasks.len();
        let offset = |at: usize| self.offsets.get(at).map_or(0, |offset| *offset as usize);
        offset(first + inputs.start)..offset(first + inputs.end)
    }

    /// How many partitions a task reads through one such input.
    #[inline]
    pub(crate) fn count_of(&self, position: u32, input: usize) -> usize {
        self.range(position, input..input + 1).len()
    }

    /// What a task reads through one such input, counted among its like: producing tasks, and outputs.
    #[inline]
    pub(crate) fn for_each(&self, position: u32, input: usize, mut visit: impl FnMut(u32, u32)) {
        let range = self.range(position, input..input + 1);
        let sources = self.sources.get(range.clone()).unwrap_or_default();
        if self.outputs.is_empty() {
            sources.iter().for_each(|source| visit(*source, 0));
        } else {
            let outputs = self.outputs.get(range).unwrap_or_default();
            let read = sources.iter().zip(outputs);
            read.for_each(|(source, output)| visit(*source, *output));
        }
    }

    /// The tasks that a task reads, one entry for each partition; `None` where some are not listed.
    #[inline]
    pub(crate) fn all_of(&self, position: u32) -> Option<&[u32]> {
        let all = self.range(position, 0..self.first_tasks.len());
        (self.others == 0 && !self.first_tasks.is_empty())
            .then(|| self.sources.get(all).unwrap_or_default())
    }

    /// Reads where a task's lists begin, and their first entry; see [`CompiledGraph::touch_inputs`](crate::CompiledGraph::touch_inputs).
    #[inline]
    pub(crate) fn touch(&self, position: u32) -> u32 {
        touch(
            &self.offsets,
            &self.sources,
            position as usize * self.first_tasks.len(),
        )
    }

    /// Puts the lists back.
    pub(crate) fn give_back(&self, layer: &mut Layer) {
        let lists = layer.inputs.iter_mut().filter_map(list_of);
        for (input, (edges, first)) in lists.zip(&self.first_tasks).enumerate() {
            edges.offsets.push(0);
            for position in 0..layer.tasks {
                self.for_each(position, input, |source, output| {
                    edges.partitions.push((source - first, output));
                });
                let end = u32::try_from(edges.partitions.len()).unwrap_or(u32::MAX);
                edges.offsets.push(end);
            }
        }
    }
}

impl ListedReaders {
    /// For each layer of a graph, who reads its tasks.
    pub(crate) fn of_graph(
        graph: &TaskGraph,
        first_task: &[u32],
        listed: &[ListedInputs],
    ) -> Vec<Self> {
        let mut all = vec![Self::default(); graph.layers.len()];
        // A counting sort: how many readers each task has, then where each list begins, then the readers themselves.
        for_each_edge(graph, first_task, listed, |source_layer, source, _| {
            let Some(readers) = all.get_mut(source_layer) else {
                return;
            };
            if readers.offsets.is_empty() {
                let tasks = graph
                    .layers
                    .get(source_layer)
                    .map_or(0, |layer| layer.tasks);
                readers.offsets = vec![0; tasks as usize + 1];
            }
            count_up(&mut readers.offsets, source.saturating_add(1));
        });
        for readers in &mut all {
            let mut sum = 0;
            for offset in &mut readers.offsets {
                sum += *offset;
                *offset = sum;
            }
            readers.readers = vec![0; sum as usize];
        }
        for_each_edge(graph, first_task, listed, |source_layer, source, reader| {
            if let Some(readers) = all.get_mut(source_layer)
                && let Some(at) = count_up(&mut readers.offsets, source)
                && let Some(slot) = readers.readers.get_mut(at as usize)
            {
                *slot = reader;
            }
        });
        // Now each says where its own list ends, which is where the next one begins.
        for readers in &mut all {
            if let [.., last] = readers.offsets.as_mut_slice() {
                *last = 0;
                readers.offsets.rotate_right(1);
            }
        }
        all
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.readers.is_empty()
    }

    /// Who reads a task; whoever reads several of its outputs stands there several times.
    #[inline]
    pub(crate) fn of(&self, position: u32) -> &[u32] {
        crate::graph::row(&self.offsets, &self.readers, position)
    }

    /// As [`ListedInputs::touch`].
    #[inline]
    pub(crate) fn touch(&self, position: u32) -> u32 {
        touch(&self.offsets, &self.readers, position as usize)
    }
}

#[inline]
fn touch(offsets: &[u32], entries: &[u32], at: usize) -> u32 {
    let begin = offsets.get(at).copied().unwrap_or(0);
    entries.get(begin as usize).copied().unwrap_or(0)
}

fn list_of(input: &mut LayerInput) -> Option<&mut ExplicitEdges> {
    match &mut input.edges {
        Edges::Explicit(edges) => Some(edges),
        Edges::OneToOne | Edges::Shuffle | Edges::Broadcast | Edges::Tree { .. } => None,
    }
}

/// Adds one and returns what was there before.
fn count_up(counts: &mut [u32], at: u32) -> Option<u32> {
    let count = counts.get_mut(at as usize)?;
    *count += 1;
    Some(*count - 1)
}

/// Calls `visit` for each listed edge of a graph with the source's layer, the source's position there, and the reader's index.
fn for_each_edge(
    graph: &TaskGraph,
    first_task: &[u32],
    listed: &[ListedInputs],
    mut visit: impl FnMut(usize, u32, u32),
) {
    for ((layer, first), listed) in graph.layers.iter().zip(first_task).zip(listed) {
        if listed.first_tasks.is_empty() {
            continue;
        }
        let sources: Vec<usize> = layer
            .inputs
            .iter()
            .filter(|input| matches!(input.edges, Edges::Explicit(_)))
            .map(|input| {
                let Source::Layer(source) = input.source;
                source.0 as usize
            })
            .collect();
        for position in 0..layer.tasks {
            for (input, (source_layer, begin)) in
                sources.iter().zip(&listed.first_tasks).enumerate()
            {
                listed.for_each(position, input, |source, _| {
                    visit(*source_layer, source - begin, first + position);
                });
            }
        }
    }
}
