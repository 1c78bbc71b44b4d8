//! What is shown of a cluster, as JSON: by the page, by `transload top`, in reports and in recorded traces. Knows neither sockets nor how it
//! came about.
//!
//! Whoever looks is sent [`Message`]s: one that says whom they see, one with all that is remembered, then one about ten times a second with
//! what is new. A recorded trace is the same messages, one to a line. Times are microseconds on the scheduler's clock, sizes are bytes, ids
//! are written as people write them: `w3`, `1.0`, `1.0.17`.

use serde::{Deserialize, Serialize};

/// What one line, or one message over a WebSocket, is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Message {
    /// Comes first.
    About(About),
    /// The cluster as it is, and what has happened.
    Frame(Box<Frame>),
}

/// Whose dashboard it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Of transload.
    pub version: String,
    /// Of the protocol that its processes share.
    pub protocol: u32,
    /// `HOST:PORT` of the scheduler.
    pub scheduler: String,
    /// The scheduler's clock now.
    pub now_us: u64,
    /// Milliseconds since 1970 at that moment.
    pub unix_ms: u64,
    /// Milliseconds since 1970 when the scheduler began to be shown: no other has the same address and the same start.
    #[serde(default)]
    pub started_unix_ms: u64,
}

/// What has happened since the last frame, and how the cluster is. Everything that is a list may be empty.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Frame {
    /// It has all that is remembered, and takes the place of everything before.
    #[serde(default)]
    pub whole: bool,
    /// The scheduler's clock.
    pub now_us: u64,
    /// Sums over the cluster.
    pub totals: Totals,
    /// All workers, of those that were lost the last; `null` where nothing is said of them this time.
    pub workers: Option<Vec<Worker>>,
    /// Graphs of which something has changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub graphs: Vec<Graph>,
    /// Tasks that were handed out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub assignments: Vec<Assignment>,
    /// Tasks that have ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spans: Vec<Span>,
    /// Partitions that have come from one worker to another.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub transfers: Vec<Transfer>,
    /// Partitions that have changed tiers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moves: Vec<Move>,
    /// What people want to know, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Note>,
    /// What memory was used, once a second.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub memory: Vec<Sample>,
    /// What has moved between each two workers since the scheduler's start; `null` where nothing is said of it this time.
    pub pairs: Option<Vec<Pair>>,
}

/// Sums over the cluster since the scheduler's start, and counts of now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Clients that are connected.
    pub clients: u32,
    /// Graphs that run.
    pub graphs_running: u32,
    /// Tasks that wait for a worker.
    pub tasks_ready: u32,
    /// Tasks that have ended well, on workers that are here or were.
    pub tasks_finished: u64,
    /// Between workers.
    pub moved_bytes: u64,
    /// To disk.
    pub spilled_bytes: u64,
    /// Events that could not be shown, as more came than could be taken in.
    pub dropped_events: u64,
}

/// A worker.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Worker {
    /// As in `w3`.
    pub id: String,
    /// Shown to people.
    pub name: String,
    /// Its machine.
    pub host: String,
    /// Its process there.
    pub pid: u32,
    /// Tasks that it runs at once.
    pub slots: u32,
    /// Its GPU.
    pub gpu: Option<Gpu>,
    /// Memory and disk.
    pub tiers: Vec<Usage>,
    /// Resident memory of its process; 0 where the system does not say.
    pub resident_bytes: u64,
    /// Tasks that run, as of its last report.
    pub running: Vec<Running>,
    /// Tasks that wait there.
    pub queued: u32,
    /// Tasks handed to it and not done.
    pub assigned: u32,
    /// Tasks done.
    pub finished: u64,
    /// To disk.
    pub spilled_bytes: u64,
    /// Of those that run, the ones that take much longer than others of their layers.
    pub stragglers: Vec<String>,
    /// Where its partitions are fetched.
    pub addresses: Vec<String>,
    /// Why it is gone, if it is.
    pub lost: Option<String>,
}

/// A worker's GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// Its number there.
    pub ordinal: u32,
    /// As in "NVIDIA H100 80GB HBM3".
    pub name: String,
    /// All its memory.
    pub memory_bytes: u64,
}

/// What is used of a tier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// `host`, `disk`, `device` or `pinned`.
    pub tier: String,
    /// Bytes in use.
    pub used_bytes: u64,
    /// Bytes it may use; `null` where there is no limit.
    pub limit_bytes: Option<u64>,
}

/// A task that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// As in `1.0.17`.
    pub task: String,
    /// Its graph's layer; `null` where the graph is not known any more.
    pub layer: Option<u32>,
    /// For how long, in milliseconds.
    pub running_ms: u64,
}

/// A graph, as far as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Graph {
    /// As in `1.0`.
    pub id: String,
    /// What its client calls it: of a query, its SQL.
    pub name: String,
    /// Whose it is.
    pub client: String,
    /// `running`, `finished`, `failed`, `cancelled` or `timed_out`.
    pub state: String,
    /// Why it failed.
    pub reason: Option<String>,
    /// When it was accepted.
    pub start_us: u64,
    /// When it ended.
    pub end_us: Option<u64>,
    /// Its layers in order.
    pub layers: Vec<Layer>,
}

/// A layer of a graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Shown to people: of a query's stage, what it does.
    pub name: String,
    /// Name of a registered operator.
    pub operator: String,
    /// Index of its first task in the graph.
    pub first_task: u32,
    /// Layers whose partitions it reads.
    pub reads: Vec<u32>,
    /// Its tasks.
    pub total: u32,
    /// Of these, done.
    pub done: u32,
    /// Of these, handed to a worker and not done.
    pub running: u32,
    /// Time that tasks of it have run that ended well, all together. Counted while somebody looks.
    pub run_us: u64,
    /// Bytes that they have made. Counted while somebody looks.
    pub bytes: u64,
    /// Rows that they have made; 0 where their operator does not count. Counted while somebody looks.
    #[serde(default)]
    pub rows: u64,
}

/// Tasks of one layer that were handed to one worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// To whom.
    pub worker: String,
    /// Their graph.
    pub graph: String,
    /// Their layer.
    pub layer: u32,
    /// How many.
    pub count: u32,
}

/// A task that has run, or several of one layer, one right behind the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The first of them.
    pub task: String,
    /// Its graph.
    pub graph: String,
    /// Its layer.
    pub layer: u32,
    /// Where.
    pub worker: String,
    /// Which of the worker's slots, from 0. Spans of one lane do not overlap, but for what clocks differ.
    pub lane: u32,
    /// When it began.
    pub start_us: u64,
    /// When it ended.
    pub end_us: u64,
    /// Bytes of its outputs.
    pub bytes: u64,
    /// How many tasks.
    pub count: u32,
    /// Why it failed, if it did.
    pub failed: Option<String>,
}

/// A partition that has come from one worker to another, or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// The first of them, as in `1.0.17/2`.
    pub partition: String,
    /// Who held it.
    pub from: String,
    /// Who read it.
    pub to: String,
    /// When it was asked for.
    pub start_us: u64,
    /// When its last byte was there.
    pub end_us: u64,
    /// Bytes of all.
    pub bytes: u64,
    /// How many.
    pub count: u32,
    /// What carried it, as in `tcp` or `ucx posix/memory`.
    pub transport: String,
    /// Which kind of way that is.
    pub way: Way,
}

/// Kinds of ways, which are told apart by colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// TCP.
    Tcp,
    /// UCX within a machine.
    UcxShm,
    /// UCX over a fabric.
    UcxRdma,
    /// From device to device: NVLink, or `cuda_ipc`.
    Device,
    /// Within a process.
    Process,
    /// Something else.
    Other,
}

/// A partition that has changed tiers on a worker, or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// Where.
    pub worker: String,
    /// The tier it left.
    pub from: String,
    /// The tier it is in now.
    pub to: String,
    /// When it began.
    pub start_us: u64,
    /// When it was over.
    pub end_us: u64,
    /// Bytes of all.
    pub bytes: u64,
    /// How many.
    pub count: u32,
}

/// Something that people want to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// When.
    pub at_us: u64,
    /// What it is about.
    pub kind: NoteKind,
    /// In words.
    pub text: String,
    /// The worker that it is about.
    pub worker: Option<String>,
    /// The graph that it is about.
    pub graph: Option<String>,
    /// The task that it is about.
    pub task: Option<String>,
}

/// Kinds of notes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoteKind {
    /// A worker has joined.
    WorkerJoined,
    /// A worker has left or died.
    WorkerLost,
    /// A graph was accepted.
    GraphAccepted,
    /// A graph has ended.
    GraphEnded,
    /// A task has failed.
    TaskFailed,
    /// A task has to run again, as its partitions were lost.
    TaskRecomputed,
    /// A task takes much longer than others of its layer.
    Straggler,
    /// No worker can run a task.
    Unschedulable,
    /// A transport is not used between two workers.
    Link,
    /// A worker cannot fetch from another.
    Apart,
}

/// Memory of one worker at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// When.
    pub at_us: u64,
    /// Where.
    pub worker: String,
    /// Bytes in use of `host`, `disk`, `device` and `pinned`.
    pub used_bytes: [u64; 4],
    /// Resident memory of the process.
    pub resident_bytes: u64,
}

/// What has come from one worker to another since the scheduler's start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// Who held it.
    pub from: String,
    /// Who read it.
    pub to: String,
    /// Partitions.
    pub partitions: u64,
    /// Bytes.
    pub bytes: u64,
    /// Bytes in each second in which large ones were under way; 0 as long as none came.
    pub bytes_per_s: u64,
    /// What carried the last of them.
    pub transport: String,
    /// Why a better transport is not used, where one failed.
    pub demoted: Option<String>,
}
