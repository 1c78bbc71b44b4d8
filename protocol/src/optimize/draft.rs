//! A graph while the passes work on it: layers keep their submitted indices, and leave gaps when they go. Used by the passes.

use super::report::{Fate, LayerName, Size};
use crate::{Layer, LayerIndex, LayerInput, Memory, Source, TaskGraph};

/// See the module.
pub(super) struct Draft {
    /// The graph without its layers and outputs.
    rest: TaskGraph,
    outputs: Vec<LayerIndex>,
    kept: Vec<bool>,
    slots: Vec<Slot>,
}

enum Slot {
    Here(Box<Layer>),
    /// It runs inside a later layer, which may be gone in turn.
    MergedInto(u32),
    Dropped,
}

impl Draft {
    pub(super) fn new(mut graph: TaskGraph) -> Self {
        let mut kept = vec![false; graph.layers.len()];
        for output in &graph.outputs {
            if let Some(kept) = kept.get_mut(output.0 as usize) {
                *kept = true;
            }
        }
        let layers = std::mem::take(&mut graph.layers);
        Self {
            outputs: std::mem::take(&mut graph.outputs),
            rest: graph,
            kept,
            slots: layers
                .into_iter()
                .map(|layer| Slot::Here(Box::new(layer)))
                .collect(),
        }
    }

    /// Indices of all layers, present or gone.
    pub(super) fn indices(&self) -> std::ops::Range<u32> {
        0..u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    /// A layer that is still there.
    pub(super) fn get(&self, index: u32) -> Option<&Layer> {
        match self.slots.get(index as usize)? {
            Slot::Here(layer) => Some(layer),
            Slot::MergedInto(_) | Slot::Dropped => None,
        }
    }

    /// Layers that are still there, in order.
    pub(super) fn layers(&self) -> impl DoubleEndedIterator<Item = (u32, &Layer)> {
        self.indices()
            .filter_map(|index| Some((index, self.get(index)?)))
    }

    pub(super) fn is_kept(&self, index: u32) -> bool {
        self.kept.get(index as usize).copied().unwrap_or(false)
    }

    pub(super) fn keeps_nothing(&self) -> bool {
        self.outputs.is_empty()
    }

    pub(super) fn name_of(&self, index: u32) -> LayerName {
        LayerName {
            index: LayerIndex(index),
            name: self
                .get(index)
                .map(|layer| layer.name.clone())
                .unwrap_or_default(),
        }
    }

    pub(super) fn drop_layer(&mut self, index: u32) {
        if let Some(slot) = self.slots.get_mut(index as usize) {
            *slot = Slot::Dropped;
        }
    }

    /// Takes a layer out, to run inside a later one.
    pub(super) fn take_into(&mut self, index: u32, target: u32) -> Option<Layer> {
        let slot = self.slots.get_mut(index as usize)?;
        match std::mem::replace(slot, Slot::MergedInto(target)) {
            Slot::Here(layer) => Some(*layer),
            gone @ (Slot::MergedInto(_) | Slot::Dropped) => {
                *slot = gone;
                None
            }
        }
    }

    /// Changes a layer in its place.
    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Layer> {
        match self.slots.get_mut(index as usize)? {
            Slot::Here(layer) => Some(layer),
            Slot::MergedInto(_) | Slot::Dropped => None,
        }
    }

    pub(super) fn size(&self) -> Size {
        let mut size = Size {
            layers: 0,
            tasks: 0,
        };
        for (_, layer) in self.layers() {
            size.layers += 1;
            size.tasks += layer.tasks;
        }
        size
    }

    /// The graph without gaps, and what became of each submitted layer.
    pub(super) fn finish(self) -> (TaskGraph, Vec<Fate>) {
        let mut fates = Vec::with_capacity(self.slots.len());
        let mut next = 0;
        for slot in &self.slots {
            fates.push(match slot {
                Slot::Here(_) => {
                    next += 1;
                    Fate::Layer(LayerIndex(next - 1))
                }
                Slot::MergedInto(target) => Fate::Step(LayerIndex(*target)),
                Slot::Dropped => Fate::Dropped,
            });
        }
        // Layers merge into later ones only, so a target's own fate is settled before it is asked for.
        for index in (0..fates.len()).rev() {
            if let Some(Fate::Step(target)) = fates.get(index).copied()
                && let Some(Fate::Layer(now) | Fate::Step(now)) =
                    fates.get(target.0 as usize).copied()
            {
                fates[index] = Fate::Step(now);
            }
        }
        let now = |old: LayerIndex| match fates.get(old.0 as usize) {
            Some(Fate::Layer(now)) => *now,
            // Nobody reads or keeps a layer that is gone.
            Some(Fate::Step(_) | Fate::Dropped) | None => LayerIndex(u32::MAX),
        };
        let layers = self.slots.into_iter().filter_map(|slot| match slot {
            Slot::Here(mut layer) => {
                for input in &mut layer.inputs {
                    let Source::Layer(source) = &mut input.source;
                    *source = now(*source);
                }
                Some(*layer)
            }
            Slot::MergedInto(_) | Slot::Dropped => None,
        });
        let graph = TaskGraph {
            layers: layers.collect(),
            outputs: self.outputs.into_iter().map(now).collect(),
            ..self.rest
        };
        (graph, fates)
    }
}

/// Index of the layer that an input reads.
pub(super) fn source_of(input: &LayerInput) -> u32 {
    let Source::Layer(source) = input.source;
    source.0
}

/// Whether tasks of both layers can be one task: they ask for the same, may run in the same places, are repeated alike, import
/// nothing, start when they like, and work in host memory.
pub(super) fn alike(one: &Layer, other: &Layer) -> bool {
    let is_plain =
        |layer: &Layer| layer.imports.is_empty() && !layer.gang && layer.memory == Memory::Host;
    is_plain(one)
        && is_plain(other)
        && one.resources == other.resources
        && one.priority == other.priority
        && one.retries == other.retries
        // Together they would have no more time than each alone.
        && one.time_limit_ms.is_none()
        && other.time_limit_ms.is_none()
        && one.placement == other.placement
}
