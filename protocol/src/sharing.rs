//! What clients say to share results: holds on each other's tasks, names for them, and where their partitions are.
//!
//! Every call carries a number that its client chose. A hold has the number of the call that asked for it.

use serde::{Deserialize, Serialize};

use crate::{GraphId, GraphOutcome, OutputSizes, TaskId, WorkerId};

/// Tasks of one kept layer that follow each other: all of it, or a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskRange {
    /// Their graph.
    pub graph: GraphId,
    /// Index of the first.
    pub first: u32,
    /// How many, at least 1.
    pub count: u32,
}

impl TaskRange {
    /// Their indices.
    pub fn indices(&self) -> std::ops::Range<u32> {
        self.first..self.first.saturating_add(self.count)
    }

    /// Their ids, in order.
    pub fn tasks(&self) -> impl Iterator<Item = TaskId> + use<> {
        let graph = self.graph;
        self.indices().map(move |index| TaskId { graph, index })
    }

    /// Whether a task is one of them.
    pub fn contains(&self, task: TaskId) -> bool {
        task.graph == self.graph && self.indices().contains(&task.index)
    }
}

impl std::fmt::Display for TaskRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let last = self.first.saturating_add(self.count.saturating_sub(1));
        write!(f, "{}.{}..={last}", self.graph, self.first)
    }
}

/// What a client wants. A client that leaves, or stays away too long, lets go of what it holds; names stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SharingCall {
    /// Hold these tasks, whoever else lets go of them. Answered by `Held`; from then on the client is told of their partitions as
    /// the owner of their graph is. Said again with the same number, it is answered anew and counts once.
    Hold {
        /// Which tasks.
        tasks: TaskRange,
    },
    /// As `Hold`, for what was published under a name.
    Lookup {
        /// Which name.
        name: String,
    },
    /// This hold is over. Not answered.
    LetGo,
    /// Give tasks a name, which holds them until it is taken away. Answered by `Done`.
    Publish {
        /// Which name.
        name: String,
        /// Which tasks.
        tasks: TaskRange,
        /// Whether the name may be taken from other tasks.
        replace: bool,
    },
    /// Take a name away, if there is one. Answered by `Done`.
    Unpublish {
        /// Which name.
        name: String,
    },
    /// List all names. Answered by `Names`.
    Published,
    /// Where are the partitions of these tasks? Answered by `Holders`.
    WhoHas {
        /// Which tasks.
        tasks: TaskRange,
    },
}

/// The scheduler's answer to a [`SharingCall`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SharingAnswer {
    /// The client holds them.
    Held {
        /// Which tasks.
        tasks: TaskRange,
        /// Partitions of each.
        outputs: u32,
    },
    /// The graph of a hold was cancelled, or a task of it failed: the hold is over.
    Over {
        /// How the graph ended.
        outcome: GraphOutcome,
    },
    /// It is done.
    Done,
    /// All names, in order.
    Names(Vec<Publication>),
    /// One entry for each task.
    Holders(Vec<Option<Holding>>),
    /// It was not done.
    Refused(SharingRefusal),
}

/// Something published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    /// Its name.
    pub name: String,
    /// Which tasks.
    pub tasks: TaskRange,
    /// Of these, done.
    pub done: u32,
    /// Bytes of all their partitions that are stored.
    pub bytes: u64,
}

/// Where the partitions of a task are. Copies that other workers have fetched are their own business and are not counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// The worker that holds all of them.
    pub worker: WorkerId,
    /// Its name.
    pub name: String,
    /// How many partitions, and their sizes.
    pub sizes: OutputSizes,
}

/// Why a call was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum SharingRefusal {
    /// The graph has no record.
    #[error(
        "graph {graph} is unknown: it has ended and nobody holds anything of it, or it was never submitted"
    )]
    UnknownGraph {
        /// Which graph.
        graph: GraphId,
    },
    /// Tasks that nobody could hold.
    #[error(
        "tasks {tasks} are not of one kept layer; mark the layer with TaskGraph::keep before its graph is submitted"
    )]
    NotKept {
        /// Which tasks.
        tasks: TaskRange,
    },
    /// Its partitions are gone.
    #[error(
        "task {task} was released by all who held it; hold it, or publish it, before the last of them lets go"
    )]
    Released {
        /// Which task.
        task: TaskId,
    },
    /// The name means something else.
    #[error("the name `{name}` is taken; choose another, or ask for it to be replaced")]
    NameTaken {
        /// Which name.
        name: String,
    },
    /// The name means nothing.
    #[error("nothing is published under the name `{name}`")]
    UnknownName {
        /// Which name.
        name: String,
    },
    /// The name is empty or too long.
    #[error("a name has 1 to {limit} bytes, and this one has {bytes}")]
    BadName {
        /// Its bytes.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// There are too many names.
    #[error("{limit} names are published, which is the limit; unpublish some, or raise {setting}")]
    TooManyNames {
        /// The limit.
        limit: u32,
        /// The setting that has it.
        setting: String,
    },
}
