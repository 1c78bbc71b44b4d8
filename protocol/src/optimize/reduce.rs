//! Pushes the first level of a tree reduction into its producers: each of its tasks makes the partitions that it reduces, so
//! that they are neither stored, nor announced to the scheduler, nor moved.
//!
//! Only the first level, and only where enough tasks are left: each push makes the work of `arity` tasks one.

use super::draft::{Draft, alike, source_of};
use super::merge::Merge;
use super::report::Change;
use crate::{Edges, Layer};

/// Runs the pass.
pub(super) fn reduce(draft: &mut Draft, fewest_tasks: u32) -> Vec<Change> {
    let mut readers = vec![0_u32; draft.indices().len()];
    for (_, layer) in draft.layers() {
        for input in &layer.inputs {
            readers[source_of(input) as usize] += 1;
        }
    }
    let mut changes = Vec::new();
    for index in draft.indices() {
        let Some((producer, arity)) = pushable(draft, index, &readers) else {
            continue;
        };
        let tasks = draft.get(index).map_or(0, |layer| layer.tasks);
        if tasks < fewest_tasks {
            changes.push(Change::LeftAlone {
                layer: draft.name_of(producer),
                reader: draft.name_of(index),
                tasks,
                fewest_tasks,
            });
            continue;
        }
        changes.push(Change::Pushed {
            layer: draft.name_of(producer),
            into: draft.name_of(index),
            times: arity,
        });
        let mut merge = Merge::default();
        if let Some(layer) = draft.take_into(producer, index) {
            merge.add(producer, layer, arity);
        }
        if let Some(layer) = draft.get_mut(index) {
            merge.finish(layer);
        }
    }
    changes
}

/// The producer that can run inside the reduction at `index`, and how often in each task.
fn pushable(draft: &Draft, index: u32, readers: &[u32]) -> Option<(u32, u32)> {
    let level = draft.get(index)?;
    let [input] = level.inputs.as_slice() else {
        return None;
    };
    let arity = match &input.edges {
        Edges::Tree { arity } => *arity,
        Edges::OneToOne | Edges::Shuffle | Edges::Broadcast | Edges::Explicit(_) => return None,
    };
    let producer = source_of(input);
    let below = draft.get(producer)?;
    let is_free = readers.get(producer as usize) == Some(&1) && !draft.is_kept(producer);
    let can_repeat = below
        .inputs
        .iter()
        .all(|input| input.edges == Edges::OneToOne);
    (is_free && can_repeat && alike(below, level) && !has_groups(below) && !has_groups(level))
        .then_some((producer, arity))
}

/// Whether a level was pushed into it already.
fn has_groups(layer: &Layer) -> bool {
    let fused = layer.fused.iter();
    fused
        .flat_map(|fused| &fused.steps)
        .any(|step| step.times > 1)
}
