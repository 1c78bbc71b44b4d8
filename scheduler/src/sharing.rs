//! Who needs a graph's tasks beside the client that submitted it.
//!
//! One record per graph, empty for nearly all of them. Written by `holds` and `imports`. Knows nothing of messages.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use transload_protocol::{ClientId, GraphId, RequestId, TaskId};

use crate::bits::BitSet;
use crate::graph::Graph;

/// No task's id is lower.
const LEAST: TaskId = TaskId {
    graph: GraphId {
        client: ClientId(0),
        sequence: 0,
    },
    index: 0,
};

/// Someone who holds tasks beside their graph's owner.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Holder {
    /// A client, by the call that asked for it.
    Client(ClientId, RequestId),
    /// A name under which they are published.
    Name(String),
}

/// What others than its owner need of a graph.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// What each of them holds.
    pub(crate) holders: BTreeMap<Holder, Range<u32>>,
    /// Held tasks that the owner has let go of.
    pub(crate) disowned: BitSet,
    /// Tasks of other graphs that hand on partitions of this one: our task's index, and theirs. What is still to be done of them
    /// counts among our task's readers. The others stand here for the case that it has to be done again.
    pub(crate) importers: BTreeSet<(u32, TaskId)>,
    /// The owner needs nothing of the graph any more, and does not hear of it.
    pub(crate) is_orphan: bool,
}

impl Shared {
    /// Whether others than the owner keep the graph alive.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.holders.is_empty() || !self.importers.is_empty()
    }

    /// Whether one of them holds the task.
    pub(crate) fn holds(&self, index: u32) -> bool {
        self.holders.values().any(|held| held.contains(&index))
    }

    /// Tasks of other graphs that hand on this one's partitions.
    pub(crate) fn importers_of(&self, index: u32) -> impl Iterator<Item = TaskId> {
        let own = self.importers.range((index, LEAST)..);
        own.take_while(move |(of, _)| *of == index)
            .map(|(_, importer)| *importer)
    }
}

impl Graph {
    /// Whether the owner, or the graph itself for the sake of the task's effect, holds the task.
    pub(crate) fn owner_holds(&self, index: u32) -> bool {
        self.tasks[index as usize].is_held() && !self.shared.disowned.contains(index)
    }

    /// Those who hear of a kept task: its owner, and other clients that hold it.
    pub(crate) fn audience(&self, index: u32) -> BTreeSet<ClientId> {
        let owner = self.owner_holds(index).then_some(self.id.client);
        let holders = self.shared.holders.iter();
        let others = holders.filter_map(|(holder, held)| match holder {
            Holder::Client(client, _) => held.contains(&index).then_some(*client),
            Holder::Name(_) => None,
        });
        owner.into_iter().chain(others).collect()
    }

    /// The owner lets go of a task that it holds. Returns whether nobody holds it now.
    pub(crate) fn disown(&mut self, index: u32) -> bool {
        let is_free = !self.shared.holds(index);
        if is_free {
            self.let_go(index);
        } else {
            self.shared.disowned.insert(index);
        }
        is_free
    }

    /// Somebody else holds these tasks, too.
    pub(crate) fn add_holder(&mut self, holder: Holder, held: Range<u32>) {
        for index in held.clone() {
            let task = &mut self.tasks[index as usize];
            if !task.is_held() {
                task.hold();
                self.held += 1;
                self.shared.disowned.insert(index);
            }
        }
        self.shared.holders.insert(holder, held);
    }

    /// Somebody else lets go. `unneeded` gets the tasks that nobody holds now.
    pub(crate) fn remove_holder(&mut self, holder: &Holder, unneeded: &mut Vec<u32>) {
        for index in self.shared.holders.remove(holder).into_iter().flatten() {
            if self.shared.disowned.contains(index) && !self.shared.holds(index) {
                self.shared.disowned.remove(index);
                self.let_go(index);
                unneeded.push(index);
            }
        }
    }
}
