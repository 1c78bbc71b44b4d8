//! Drops layers that no kept layer needs. The scheduler would not run them either, but they would be sent to it, and their
//! readings would keep the layers before them from being merged.

use super::draft::{Draft, source_of};
use super::report::Change;

/// Runs the pass. A graph that keeps nothing is run for its effects, so nothing of it is dropped.
pub(super) fn cull(draft: &mut Draft) -> Vec<Change> {
    if draft.keeps_nothing() {
        return Vec::new();
    }
    let mut needed: Vec<bool> = draft.indices().map(|index| draft.is_kept(index)).collect();
    // Layers read only earlier layers, so every reader of a layer has been seen before it.
    for (index, layer) in draft.layers().rev() {
        if needed[index as usize] {
            for input in &layer.inputs {
                needed[source_of(input) as usize] = true;
            }
        }
    }
    let mut changes = Vec::new();
    for index in draft.indices().filter(|index| !needed[*index as usize]) {
        if let Some(layer) = draft.get(index) {
            changes.push(Change::Dropped {
                layer: draft.name_of(index),
                tasks: layer.tasks,
            });
            draft.drop_layer(index);
        }
    }
    changes
}
