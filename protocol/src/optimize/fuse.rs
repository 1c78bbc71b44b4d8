//! Lets layers run inside the tasks of their only reader: chains of one-to-one edges, and several such layers below one.
//!
//! A task that waits for an input of another kind (a shuffle, say) waits for many tasks; what could run meanwhile is not put
//! behind it. So a layer takes in what it reads only where all its inputs are one to one, and beside others only layers that
//! wait for nothing else either. And where there are few tasks, only chains are fused: layers side by side would lose
//! tasks that could run at the same time.

use super::draft::{Draft, alike, source_of};
use super::merge::Merge;
use super::report::Change;
use crate::{Edges, Layer};

/// The layers that will run inside one, called the group's root, and how a layer belongs to it.
#[derive(Clone, Copy)]
struct Membership {
    root: u32,
    /// From here to the root each layer is all that the next one reads.
    is_chain: bool,
}

/// Who reads a layer, as far as that was seen.
#[derive(Clone, Copy)]
enum Readers {
    None,
    /// Members of one group, all one to one, none of which waits for anything else than single partitions.
    Group {
        root: u32,
        /// One of them.
        reader: u32,
        /// There are others.
        several: bool,
    },
    /// It cannot be merged.
    Others,
}

/// Runs the pass.
pub(super) fn fuse(draft: &mut Draft, fewest_tasks: u32) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut left_alone = Vec::new();
    let groups = groups(draft, fewest_tasks, &mut left_alone);
    // Into each root in turn: roots stand after their members.
    for (root, members) in draft.indices().zip(groups) {
        if members.is_empty() {
            continue;
        }
        changes.push(Change::Fused {
            layers: members
                .iter()
                .map(|member| draft.name_of(*member))
                .collect(),
            into: draft.name_of(root),
        });
        let mut merge = Merge::default();
        for member in members {
            if let Some(layer) = draft.take_into(member, root) {
                merge.add(member, layer, 1);
            }
        }
        if let Some(layer) = draft.get_mut(root) {
            merge.finish(layer);
        }
    }
    // Found from the last layer to the first.
    changes.extend(left_alone.into_iter().rev());
    changes
}

/// For each layer, those that are to run inside it, in order.
fn groups(draft: &Draft, fewest_tasks: u32, left_alone: &mut Vec<Change>) -> Vec<Vec<u32>> {
    let mut readers = vec![Readers::None; draft.indices().len()];
    let mut memberships: Vec<Option<Membership>> = vec![None; readers.len()];
    let mut groups = vec![Vec::new(); readers.len()];
    // Layers read only earlier layers, so all readers of a layer are in their groups before it.
    for (index, layer) in draft.layers().rev() {
        let joined = match readers[index as usize] {
            Readers::Group {
                root,
                reader,
                several,
            } if !draft.is_kept(index) && may_join(draft, layer, root) => {
                let below = memberships[reader as usize].is_some_and(|reader| reader.is_chain);
                let is_only = !several && draft.get(reader).is_some_and(has_one_source);
                let is_chain = below && is_only;
                let is_wide = layer.tasks >= fewest_tasks;
                let waits_for_few = layer.inputs.iter().all(|input| is_one_to_one(&input.edges));
                if !is_chain && waits_for_few && !is_wide {
                    left_alone.push(Change::LeftAlone {
                        layer: draft.name_of(index),
                        reader: draft.name_of(reader),
                        tasks: layer.tasks,
                        fewest_tasks,
                    });
                }
                (is_chain || waits_for_few && is_wide).then_some(Membership { root, is_chain })
            }
            Readers::Group { .. } | Readers::None | Readers::Others => None,
        };
        let own = Membership {
            root: index,
            is_chain: true,
        };
        let membership = joined.unwrap_or(own);
        memberships[index as usize] = Some(membership);
        if joined.is_some() {
            groups[membership.root as usize].push(index);
        }
        let takes_in = layer.inputs.iter().all(|input| is_one_to_one(&input.edges));
        for input in &layer.inputs {
            let of_source = &mut readers[source_of(input) as usize];
            *of_source = seen(*of_source, index, takes_in.then_some(membership.root));
        }
    }
    groups.iter_mut().for_each(|members| members.reverse());
    groups
}

/// What is known of a layer's readers when one more was seen, of the group of `root` where that one may take it in.
fn seen(before: Readers, reader: u32, root: Option<u32>) -> Readers {
    match (before, root) {
        (Readers::None, Some(root)) => Readers::Group {
            root,
            reader,
            several: false,
        },
        (
            Readers::Group {
                root: same,
                reader: other,
                several,
            },
            Some(root),
        ) if same == root => Readers::Group {
            root,
            reader: other,
            several: several || reader != other,
        },
        (Readers::None | Readers::Group { .. } | Readers::Others, _) => Readers::Others,
    }
}

fn may_join(draft: &Draft, layer: &Layer, root: u32) -> bool {
    draft.get(root).is_some_and(|root| alike(layer, root))
}

fn has_one_source(layer: &Layer) -> bool {
    let mut sources = layer.inputs.iter().map(source_of);
    let first = sources.next();
    first.is_some() && sources.all(|source| Some(source) == first)
}

fn is_one_to_one(edges: &Edges) -> bool {
    match edges {
        Edges::OneToOne => true,
        Edges::Shuffle | Edges::Broadcast | Edges::Tree { .. } | Edges::Explicit(_) => false,
    }
}
