//! What clients say to coordinate with each other through named things: locks, semaphores, events, queues, variables.
//!
//! Every call carries a number that its client chose. Calls that wait are answered when their turn comes; what a call was
//! granted belongs to that call until it is ended.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Blob;

/// Most bytes of the name of a lock, semaphore, event, queue or variable.
pub const MAX_NAME_BYTES: usize = 512;

/// A call of one client, counted up by the client and never used twice on one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId(pub u64);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

/// What a client wants. Things come into being when they are first used. Locks and semaphores end when nobody holds them or
/// waits for them; all others when they are deleted, or with the connection of the last client that used them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CoordinationCall {
    /// Wait for a lock. Answered by `Granted`; the lock is held until `End`, until the lease is over, or until the client is gone.
    Lock {
        /// Which lock.
        name: String,
        /// How long to wait.
        patience: Patience,
        /// Time without a `Renew` after which the lock is taken away, in milliseconds, at least 1.
        lease_ms: u32,
    },
    /// Wait for one of the permits of a semaphore; otherwise as `Lock`.
    Acquire {
        /// Which semaphore.
        name: String,
        /// How many permits it has. All who use it at a time must say the same.
        permits: u32,
        /// How long to wait.
        patience: Patience,
        /// As in `Lock`.
        lease_ms: u32,
    },
    /// Set an event: all who wait for it, and all who will, are answered until it is cleared. Answered by `Done`.
    SetEvent {
        /// Which event.
        name: String,
    },
    /// Clear an event. Answered by `Done`.
    ClearEvent {
        /// Which event.
        name: String,
    },
    /// Wait until an event is set. Answered by `Done`.
    WaitEvent {
        /// Which event.
        name: String,
        /// How long to wait.
        patience: Patience,
    },
    /// Append to a queue. Answered by `Done` once it is in the queue.
    Put {
        /// Which queue.
        name: String,
        /// What to append.
        item: Blob,
        /// Wait while the queue has so many items, at least 1; `None` for no such limit.
        max_items: Option<u32>,
        /// How long to wait.
        patience: Patience,
    },
    /// Take the oldest item of a queue. Answered by `Value`. It goes back to its place unless the client says `Taken`.
    Get {
        /// Which queue.
        name: String,
        /// How long to wait.
        patience: Patience,
    },
    /// Give a variable a value. Answered by `Done`.
    SetVariable {
        /// Which variable.
        name: String,
        /// The value.
        value: Blob,
    },
    /// Read a variable, once it has a value. Answered by `Value`.
    GetVariable {
        /// Which variable.
        name: String,
        /// How long to wait.
        patience: Patience,
    },
    /// Forget what an event, queue or variable has, and the thing itself unless calls wait for it. Answered by `Done`.
    Delete {
        /// What it is.
        kind: DeletableKind,
        /// Which one.
        name: String,
    },
    /// The lock or permit that this call was granted is still wanted: its lease begins anew. Not answered.
    Renew,
    /// The item that this call got has arrived. Not answered.
    Taken,
    /// This call is over: it waits no more, what it holds is free again, an item that it got goes back. Not answered.
    End,
}

/// A kind of thing that has something of its own, which lasts until it is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeletableKind {
    /// An event.
    Event,
    /// A queue.
    Queue,
    /// A variable.
    Variable,
}

/// How long a call may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Patience {
    /// Until its turn comes.
    Forever,
    /// So many milliseconds, then it is answered by `TimedOut`; 0 for not at all.
    Millis(u64),
}

/// What the scheduler answers to a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CoordinationAnswer {
    /// The lock or permit is held from now on.
    Granted,
    /// The lease is over: the lock or permit that was granted is not held any more.
    Expired,
    /// It is done.
    Done,
    /// What was asked for.
    Value(Blob),
    /// Its turn did not come in time. The call is over.
    TimedOut,
    /// It cannot be. The call is over.
    Refused(CoordinationRefusal),
}

/// Why a call was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum CoordinationRefusal {
    /// The name cannot be used.
    #[error("the name has {bytes} B; 1 to {MAX_NAME_BYTES} are allowed")]
    BadName {
        /// Its length.
        bytes: u64,
    },
    /// An argument makes no sense.
    #[error("{what} must be at least 1")]
    Zero {
        /// Which argument.
        what: String,
    },
    /// Others use the semaphore with another number of permits.
    #[error(
        "the semaphore has {permits} permits while others use it, not {asked}; say the same everywhere"
    )]
    OtherPermits {
        /// As others say.
        permits: u32,
        /// As this call says.
        asked: u32,
    },
    /// Too many names at once.
    #[error(
        "{limit} locks, semaphores, events, queues and variables are in use; delete what is not needed, or raise \
         scheduler.coordination_names"
    )]
    TooManyNames {
        /// As configured.
        limit: u32,
    },
    /// Too many calls that wait or hold something.
    #[error("{limit} calls wait or hold something; raise scheduler.coordination_calls")]
    TooManyCalls {
        /// As configured.
        limit: u32,
    },
    /// One item or value is too large.
    #[error(
        "the item or value has {bytes} B; {limit} are allowed (scheduler.coordination_item). Keep data in partitions, \
         and put their names here"
    )]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// As configured.
        limit: u64,
    },
    /// All items and values together are too large.
    #[error(
        "queues and variables hold {used} B of the {limit} B that the scheduler keeps for them \
         (scheduler.coordination_memory); take items out first"
    )]
    Full {
        /// In use.
        used: u64,
        /// As configured.
        limit: u64,
    },
    /// The number of the call is in use.
    #[error("call {0} is not over; count up for each call")]
    RequestInUse(RequestId),
}
