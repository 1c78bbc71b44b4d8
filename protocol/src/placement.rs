//! Where the tasks of a layer may run, when that is not everywhere. Said by clients, kept by the scheduler.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{WorkerHello, WorkerId};

/// Where the tasks of a layer may run. They wait as long as no such worker is there, and never run elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Placement {
    /// Each task on any worker for which all of this holds.
    Where(Conditions),
    /// The task at position `i` on worker `i` of this list.
    Each(Vec<WorkerRef>),
}

/// What must hold for a worker. An empty list allows every worker.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Conditions {
    /// It is one of these.
    pub workers: Vec<WorkerRef>,
    /// It runs on one of these hosts.
    pub hosts: Vec<String>,
    /// It has all of these labels.
    pub labels: BTreeSet<String>,
}

/// A worker, as a person or a program names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum WorkerRef {
    /// By the id that the scheduler gave it.
    Id(WorkerId),
    /// By its name. Where several share it, any of them.
    Name(String),
}

impl Conditions {
    /// Whether a worker meets them.
    pub fn allow(&self, worker: WorkerId, hello: &WorkerHello) -> bool {
        (self.workers.is_empty() || self.workers.iter().any(|named| named.is(worker, hello)))
            && (self.hosts.is_empty() || self.hosts.contains(&hello.host))
            && self.labels.is_subset(&hello.labels)
    }
}

impl WorkerRef {
    /// Whether it names this worker.
    pub fn is(&self, worker: WorkerId, hello: &WorkerHello) -> bool {
        match self {
            Self::Id(id) => *id == worker,
            Self::Name(name) => *name == hello.name,
        }
    }
}

impl Placement {
    /// What is wrong with it for a layer of so many tasks, if anything.
    pub(crate) fn wrong(&self, tasks: u32) -> Option<String> {
        match self {
            Self::Where(_) => None,
            Self::Each(workers) if workers.len() == tasks as usize => None,
            Self::Each(workers) => Some(format!(
                "{} workers for {tasks} tasks; name one for each",
                workers.len()
            )),
        }
    }
}

impl From<WorkerId> for WorkerRef {
    fn from(id: WorkerId) -> Self {
        Self::Id(id)
    }
}

impl From<&str> for WorkerRef {
    fn from(name: &str) -> Self {
        Self::Name(name.to_owned())
    }
}

impl fmt::Display for WorkerRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Name(name) => write!(f, "`{name}`"),
        }
    }
}

/// Completes the sentence "it may run only ...".
impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if !self.workers.is_empty() {
            parts.push(format!("on worker {}", one_of(&self.workers)));
        }
        if !self.hosts.is_empty() {
            let hosts: Vec<String> = self.hosts.iter().map(|host| format!("`{host}`")).collect();
            parts.push(format!("on host {}", one_of(&hosts)));
        }
        if !self.labels.is_empty() {
            let labels: Vec<String> = self
                .labels
                .iter()
                .map(|label| format!("`{label}`"))
                .collect();
            parts.push(format!(
                "where workers have the label {}",
                labels.join(" and ")
            ));
        }
        f.write_str(&parts.join(", "))
    }
}

fn one_of(things: &[impl fmt::Display]) -> String {
    let things: Vec<String> = things.iter().map(ToString::to_string).collect();
    things.join(" or ")
}
