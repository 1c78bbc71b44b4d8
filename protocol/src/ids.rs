//! Identifiers. Plain numbers in newtypes, ordered, printable, and parsable where a person types them.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One client of a cluster, whatever connections it has had; never used twice in a cluster's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClientId(pub u32);

/// One worker of a cluster, whatever connections it has had; never used twice in a cluster's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkerId(pub u32);

/// One cluster: the same as long as its scheduler's journal remembers anything, and no other's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub u64);

/// What a client shows to go on where its broken connection ended; known to it and the scheduler alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionToken(pub u64);

impl fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionToken(..)")
    }
}

/// A submitted graph: the client's id and the client's own count of graphs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GraphId {
    /// Who submitted it.
    pub client: ClientId,
    /// The how-manieth graph of that client, from 0.
    pub sequence: u32,
}

/// Position of a layer in its graph, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LayerIndex(pub u32);

/// One call of an operator: a graph, and the task's index counted through all layers of the graph in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TaskId {
    /// The graph it belongs to.
    pub graph: GraphId,
    /// Index in `[0, task_count)` of that graph.
    pub index: u32,
}

impl TaskId {
    /// Ordered as the fields are, one after the other, and compared at once: machines look tasks up all the time.
    const fn key(self) -> u128 {
        let graph = ((self.graph.client.0 as u128) << 32) | self.graph.sequence as u128;
        (graph << 32) | self.index as u128
    }
}

impl Ord for TaskId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for TaskId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// One output of a task; immutable once it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PartitionId {
    /// The task that makes it.
    pub task: TaskId,
    /// Output number, in `[0, layer.outputs)`.
    pub output: u32,
}

impl PartitionId {
    /// As [`TaskId`]'s.
    const fn key(self) -> u128 {
        (self.task.key() << 32) | self.output as u128
    }
}

impl Ord for PartitionId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for PartitionId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Counts the assignments of one task; messages about an older attempt are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Attempt(pub u32);

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}", self.0)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "w{}", self.0)
    }
}

impl fmt::Display for LayerIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for GraphId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.client.0, self.sequence)
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.graph, self.index)
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.task, self.output)
    }
}

/// A task id that does not read `CLIENT.GRAPH.TASK`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a task id; write CLIENT.GRAPH.TASK, three numbers, as in 1.0.17")]
pub struct ParseIdError(pub String);

impl FromStr for TaskId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseIdError(text.to_owned());
        let mut numbers = text
            .split('.')
            .map(|part| part.parse::<u32>().map_err(|_| bad()));
        let mut next = || numbers.next().unwrap_or_else(|| Err(bad()));
        let (client, sequence, index) = (next()?, next()?, next()?);
        match numbers.next() {
            None => Ok(Self {
                graph: GraphId {
                    client: ClientId(client),
                    sequence,
                },
                index,
            }),
            Some(_) => Err(bad()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_id_reads_back_what_it_prints() {
        let task = TaskId {
            graph: GraphId {
                client: ClientId(1),
                sequence: 2,
            },
            index: 30,
        };
        assert_eq!(task.to_string().parse(), Ok(task));
    }

    #[test]
    fn a_bad_task_id_is_named_in_the_error() {
        for bad in ["", "1", "1.2", "1.2.3.4", "a.b.c", "1.2.-3", "1..3"] {
            let error = bad.parse::<TaskId>().expect_err(bad);
            assert!(error.to_string().contains(&format!("`{bad}`")));
        }
    }
}
