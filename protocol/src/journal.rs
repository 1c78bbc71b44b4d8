//! What a scheduler writes down to go on after its own end: facts that nobody else knows, and no others.
//!
//! Made by the scheduler's machine, stored by its driver, and given back to a machine that takes the place of one that is gone.
//! Which tasks are done is not among them: workers know what they hold.

use serde::{Deserialize, Serialize};

use crate::{
    ClientId, ClusterId, GraphId, GraphOutcome, RequestId, SessionToken, TaskGraph, TaskId,
    TaskRange, WorkerId,
};

/// One fact. Later ones change what earlier ones said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum JournalEntry {
    /// A scheduler began.
    Begin {
        /// Its cluster.
        cluster: ClusterId,
        /// How many schedulers this cluster has had before.
        epoch: u32,
        /// No client had this id or a higher one.
        next_client: u32,
        /// No worker had this id or a higher one.
        next_worker: u32,
    },
    /// A client connected for the first time.
    ClientJoined {
        /// Its id.
        client: ClientId,
        /// Shown to people.
        name: String,
        /// What it shows to come back.
        token: SessionToken,
    },
    /// A client left, or stayed away too long. Its holds are over. What becomes of its graphs follows.
    ClientLeft {
        /// Its id.
        client: ClientId,
    },
    /// A worker joined, or came back.
    WorkerJoined {
        /// Its id.
        worker: WorkerId,
    },
    /// A worker left or was lost. It may still come back.
    WorkerLeft {
        /// Its id.
        worker: WorkerId,
    },
    /// A graph was accepted.
    Accepted {
        /// Its id.
        graph: GraphId,
        /// What it runs.
        tasks: TaskGraph,
    },
    /// The client needs these tasks' partitions no longer.
    Released {
        /// Tasks of kept layers of one graph.
        tasks: Vec<TaskId>,
    },
    /// A graph is over, and forgotten.
    Ended {
        /// Its id.
        graph: GraphId,
        /// How, for a client that was away.
        outcome: GraphOutcome,
    },
    /// The cluster was shut down: nothing that was said before counts any more.
    Shutdown,
    /// The client needs nothing of its graph any more, but others do.
    Orphaned {
        /// Which graph.
        graph: GraphId,
    },
    /// A client holds tasks, of whatever graph.
    Held {
        /// Who.
        client: ClientId,
        /// The call that asked for it.
        hold: RequestId,
        /// What.
        tasks: TaskRange,
    },
    /// A hold is over.
    LetGo {
        /// Whose.
        client: ClientId,
        /// The call that asked for it.
        hold: RequestId,
        /// How its graph ended, where that is why, for a client that was away.
        outcome: Option<GraphOutcome>,
    },
    /// Tasks have a name, which they may have taken from others.
    Published {
        /// The name.
        name: String,
        /// What.
        tasks: TaskRange,
    },
    /// A name is free again.
    Unpublished {
        /// The name.
        name: String,
    },
    /// A graph has reached all its goals before its deadline, which counts no more.
    InTime {
        /// Which graph.
        graph: GraphId,
    },
}
