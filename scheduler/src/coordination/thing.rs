//! The records: named things, and the calls that wait for them or hold something of them.
//!
//! Written by the other modules of `coordination`. Things know calls by their owners; what a call brought or got is with the call.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use transload_protocol::{Blob, ClientId, RequestId, Time};

/// A call, as everyone else knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Owner {
    pub(super) client: ClientId,
    pub(super) request: RequestId,
}

/// What there is. Each kind has its own names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Lock,
    Semaphore,
    Event,
    Queue,
    Variable,
}

/// A thing's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) kind: Kind,
    pub(super) name: Arc<str>,
}

/// Calls that wait, in the order in which they came: by ticket.
pub(super) type Line = BTreeMap<u64, Owner>;

/// A thing that someone uses.
#[derive(Debug)]
pub(super) struct Thing {
    pub(super) state: State,
    /// Calls that wait for it; of a queue, those that wait for an item.
    pub(super) waiting: Line,
    /// Clients that have used it. When none is left, it is dropped with all that it has.
    pub(super) users: BTreeSet<ClientId>,
}

/// What a thing has.
#[derive(Debug)]
pub(super) enum State {
    /// A lock, which has one permit, or a semaphore.
    Permits { total: u32, held: BTreeSet<Owner> },
    /// An event.
    Event { is_set: bool },
    /// A queue.
    Queue {
        /// By number, oldest first.
        items: BTreeMap<u64, Blob>,
        next_number: u64,
        /// Items that were delivered and have not been said to have arrived.
        delivered: u32,
        /// Calls that wait for room.
        putting: Line,
    },
    /// A variable.
    Variable { value: Option<Blob> },
}

impl State {
    pub(super) fn permits(total: u32) -> Self {
        Self::Permits {
            total,
            held: BTreeSet::new(),
        }
    }

    pub(super) fn queue() -> Self {
        Self::Queue {
            items: BTreeMap::new(),
            next_number: 0,
            delivered: 0,
            putting: Line::new(),
        }
    }
}

impl Thing {
    pub(super) fn new(state: State) -> Self {
        Self {
            state,
            waiting: Line::new(),
            users: BTreeSet::new(),
        }
    }

    /// Forgets what it has itself, not what calls have of it.
    pub(super) fn clear(&mut self) {
        match &mut self.state {
            State::Permits { .. } => {}
            State::Event { is_set } => *is_set = false,
            State::Queue { items, .. } => items.clear(),
            State::Variable { value } => *value = None,
        }
    }

    /// Whether nothing has to be remembered of it, whoever has used it.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Permits { .. }) && self.is_blank()
    }

    /// Whether it is as if it had never been used.
    pub(super) fn is_blank(&self) -> bool {
        self.waiting.is_empty()
            && match &self.state {
                State::Permits { held, .. } => held.is_empty(),
                State::Event { is_set } => !is_set,
                State::Queue {
                    items,
                    delivered,
                    putting,
                    ..
                } => items.is_empty() && *delivered == 0 && putting.is_empty(),
                State::Variable { value } => value.is_none(),
            }
    }

    /// Bytes of items and values that it has itself.
    pub(super) fn bytes(&self) -> u64 {
        match &self.state {
            State::Permits { .. } | State::Event { .. } => 0,
            State::Queue { items, .. } => items.values().map(length).sum(),
            State::Variable { value } => value.as_ref().map_or(0, length),
        }
    }
}

/// A call that is not over.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) key: Key,
    pub(super) state: CallState,
    /// When its patience or its lease is over.
    pub(super) deadline: Option<Time>,
}

/// Where a call stands.
#[derive(Debug)]
pub(super) enum CallState {
    /// Its turn has not come.
    Waiting { ticket: u64, wants: Wants },
    /// It holds a lock or permit.
    Holding { lease_micros: u64 },
    /// An item of this number is on its way to it.
    Delivered { number: u64, item: Blob },
}

/// What a call waits for.
#[derive(Debug)]
pub(super) enum Wants {
    /// A lock or permit.
    Permit { lease_micros: u64 },
    /// An event that is set.
    Event,
    /// An item of a queue.
    Item,
    /// Room in a queue for this item.
    Room { item: Blob, max_items: Option<u32> },
    /// The value of a variable.
    Value,
}

impl CallState {
    /// Bytes of an item that it has.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Waiting {
                wants: Wants::Room { item, .. },
                ..
            }
            | Self::Delivered { item, .. } => length(item),
            Self::Waiting {
                wants: Wants::Permit { .. } | Wants::Event | Wants::Item | Wants::Value,
                ..
            }
            | Self::Holding { .. } => 0,
        }
    }
}

pub(super) fn length(blob: &Blob) -> u64 {
    blob.0.len() as u64
}
