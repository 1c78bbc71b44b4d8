//! What client, scheduler and worker say to each other.
//!
//! Each connection opens with a [`Hello`] from the side that connected and a [`Welcome`] from the scheduler; every later
//! frame is one of the four message enums. Messages on one connection arrive in the order in which they were sent.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    Address, Arguments, Attempt, ClientId, ClusterId, CoordinationAnswer, CoordinationCall,
    EventRecord, Fused, GangTable, GraphError, GraphId, LayerIndex, Memory, OutputSizes,
    PartitionId, PeerTable, RequestId, Resources, SessionToken, SharingAnswer, SharingCall,
    SourceTable, TaskError, TaskGraph, TaskId, Tier, WorkerId,
};

/// First frame of a connection to the scheduler. Its first field never changes place, so that every version can be told
/// apart from every other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`crate::PROTOCOL_VERSION`] of the sender.
    pub version: u32,
    /// Who connects.
    pub role: Role,
}

/// Who connects to a scheduler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// A client, which submits graphs.
    Client(ClientHello),
    /// A worker, which runs their tasks.
    Worker(WorkerHello),
    /// A client whose connection broke.
    ReturningClient(ReturningClient),
    /// A worker whose connection broke, with what it holds and runs. Its first message is an `Inventory`.
    ReturningWorker(Box<ReturningWorker>),
}

/// A client that goes on where its broken connection ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReturningClient {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// The id it was given there.
    pub client: ClientId,
    /// What it was given to prove that.
    pub token: SessionToken,
}

/// A worker that comes back after its connection broke.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReturningWorker {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// The id it was given there.
    pub worker: WorkerId,
    /// What it says of itself.
    pub hello: WorkerHello,
}

/// What a client says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientHello {
    /// Shown to people, for example the program's name and process id.
    pub name: String,
}

/// What a worker says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerHello {
    /// Shown to people.
    pub name: String,
    /// Name of its machine.
    pub host: String,
    /// Process id on that machine.
    pub process: u32,
    /// What it offers to tasks.
    pub resources: Resources,
    /// Memory for stored partitions, in bytes.
    pub memory_bytes: u64,
    /// Where other workers and clients fetch its partitions, one address per transport, best first.
    pub addresses: Vec<Address>,
    /// Names by which tasks can ask for workers like it.
    pub labels: BTreeSet<String>,
    /// Named resources of which tasks may ask for fractions here.
    pub shared: BTreeSet<String>,
    /// Its GPU.
    pub gpu: Option<Gpu>,
}

/// A GPU that a worker has for itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// Its number among those that its process sees.
    pub ordinal: u32,
    /// As in "NVIDIA H100 80GB HBM3".
    pub name: String,
    /// All its memory, in bytes.
    pub memory_bytes: u64,
}

impl WorkerHello {
    /// Whether the worker could run a task that asks for this if it had nothing else.
    #[inline]
    pub fn offers(&self, request: &Resources) -> bool {
        self.resources.covers(request)
            && (request.named.is_empty() || request.fraction_of_unshared(&self.shared).is_none())
    }
}

/// The scheduler's answer to a [`Hello`]. `Refused` keeps its place and shape in every version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Welcome {
    /// The connection ends here.
    Refused {
        /// Version of the scheduler.
        version: u32,
        /// Why, in words.
        reason: String,
    },
    /// A client is connected.
    Client {
        /// Its id from now on.
        client: ClientId,
        /// How it can come back when the connection breaks.
        session: Session,
    },
    /// A worker is part of the cluster.
    Worker {
        /// Its id from now on.
        worker: WorkerId,
        /// It must send at least one message in each such interval, or it counts as lost.
        heartbeat_ms: u32,
        /// Under which name it can come back when the connection breaks; `None` when a scheduler that is gone will not be
        /// started again, so that the worker ends with it.
        cluster: Option<ClusterId>,
    },
}

/// How a client comes back after a broken connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// What it shows then.
    pub token: SessionToken,
    /// For so long the scheduler keeps what the client submitted while it is away; 0 for not at all.
    pub grace_ms: u32,
    /// The scheduler keeps a journal: should it be gone, another may take its place.
    pub lasting: bool,
}

/// From client to scheduler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientMessage {
    /// Run this graph. `graph.client` must be the sender's id.
    Submit {
        /// The id the client chose.
        graph: GraphId,
        /// What to run.
        tasks: TaskGraph,
    },
    /// Stop the graph's work and free its partitions, also for others who hold or import some of them. Where it has ended, it is
    /// left, as by `Leave`. Ignored when it is unknown.
    Cancel {
        /// Which graph.
        graph: GraphId,
    },
    /// The client needs these tasks' partitions no longer. When none is held any more, the graph is forgotten.
    Release {
        /// Tasks of kept layers.
        tasks: Vec<TaskId>,
    },
    /// A held partition could not be fetched from the worker said to hold it; answered by a new `OutputReady` for the task.
    Unreachable {
        /// Which task.
        task: TaskId,
        /// The worker that did not serve it.
        worker: WorkerId,
        /// Why, in words.
        reason: String,
    },
    /// Why is this task waiting? Answered by `Explained`.
    Explain {
        /// Which task.
        task: TaskId,
    },
    /// Answered by `Info`.
    Info,
    /// Send every event from now on.
    Subscribe,
    /// Stop the scheduler and all its workers.
    Shutdown,
    /// First message after a broken connection: all graphs that the client still knows. The scheduler forgets its others, and
    /// tells anew what it knows of each of these.
    Resume {
        /// Those that were accepted.
        accepted: Vec<GraphId>,
        /// Those whose submission was not answered. A `Resubmit` of each follows.
        submitted: Vec<GraphId>,
        /// Its holds, by the calls that asked for them. A `Hold` or `Lookup` of each follows; all others are let go.
        holds: Vec<RequestId>,
    },
    /// As `Submit`, after a broken connection: ignored when the graph has been accepted before.
    Resubmit {
        /// The id the client chose.
        graph: GraphId,
        /// What to run.
        tasks: TaskGraph,
    },
    /// The client leaves in good order: everything of its is freed at once.
    Goodbye,
    /// Use a lock, semaphore, event, queue or variable. Answered by `Coordinated` where the call says so.
    Coordinate {
        /// The call; for `Renew`, `Taken` and `End` the earlier one that they are about.
        request: RequestId,
        /// What to do.
        call: CoordinationCall,
    },
    /// The client needs nothing of this graph any more: only what others hold or import of it goes on. Ignored when it is unknown.
    Leave {
        /// Which graph.
        graph: GraphId,
    },
    /// Hold, name or find results. Answered by `Shared` where the call says so.
    Share {
        /// The call; for `LetGo` the one that asked for the hold.
        request: RequestId,
        /// What to do.
        call: SharingCall,
    },
}

/// From scheduler to client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SchedulerToClient {
    /// The graph is accepted.
    Accepted {
        /// Which graph.
        graph: GraphId,
    },
    /// The graph is refused; nothing of it was started.
    Rejected {
        /// Which graph.
        graph: GraphId,
        /// Why.
        error: GraphError,
    },
    /// How to reach a worker. Precedes every message that names it.
    Peer {
        /// Its id.
        worker: WorkerId,
        /// Where to fetch its partitions.
        addresses: Vec<Address>,
    },
    /// A task that the client holds, of a graph of its own or by a `Share`, is done. Sent again with another location when it was recomputed.
    OutputReady {
        /// Where its partitions are.
        output: OutputLocation,
    },
    /// A held partition is lost and is being made again; wait for another `OutputReady`.
    OutputLost {
        /// Which task.
        task: TaskId,
    },
    /// The graph has ended.
    Ended {
        /// Which graph.
        graph: GraphId,
        /// How.
        outcome: GraphOutcome,
    },
    /// How far a graph is; sent when something changed, at most a few times per second.
    Progress {
        /// Which graph.
        graph: GraphId,
        /// One entry per layer.
        layers: Vec<LayerProgress>,
    },
    /// Answer to `Explain`.
    Explained {
        /// The task that was asked about.
        task: TaskId,
        /// The answer.
        explanation: Explanation,
    },
    /// Answer to `Info`.
    Info {
        /// The cluster now.
        info: ClusterInfo,
    },
    /// Events, to those who subscribed.
    Events {
        /// In the order in which they happened.
        events: Vec<EventRecord>,
    },
    /// The scheduler is going away.
    ShuttingDown,
    /// Answer to `Coordinate`.
    Coordinated {
        /// Which call.
        request: RequestId,
        /// The answer.
        answer: CoordinationAnswer,
    },
    /// Answer to `Share`, or news of a hold.
    Shared {
        /// Which call.
        request: RequestId,
        /// The answer.
        answer: SharingAnswer,
    },
}

/// How a graph ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GraphOutcome {
    /// All tasks of all kept layers are done.
    Finished,
    /// A task failed for good; the rest was cancelled and freed.
    Failed(TaskError),
    /// The client cancelled it.
    Cancelled,
    /// It was not done in the time that its client gave it, and was cancelled.
    TimedOut {
        /// That time, in milliseconds.
        after_ms: u64,
        /// Tasks that were done.
        done: u32,
        /// Tasks that were to be done.
        total: u32,
    },
}

/// Where the partitions of a finished task are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputLocation {
    /// Which task.
    pub task: TaskId,
    /// The worker that holds all its outputs; a `Peer` message has said how to reach it.
    pub worker: WorkerId,
    /// How many outputs, and their sizes.
    pub sizes: OutputSizes,
}

/// Progress of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LayerProgress {
    /// Tasks in the layer.
    pub total: u32,
    /// Of these, done.
    pub done: u32,
    /// Of these, handed to a worker and not done.
    pub running: u32,
}

/// Why a task is where it is, in words for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// One sentence.
    pub summary: String,
    /// Further facts, most important first.
    pub details: Vec<String>,
}

/// From scheduler to worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SchedulerToWorker {
    /// How to reach other workers. Precedes every message that names them. The worker itself may be among them.
    Peers {
        /// Where to fetch their partitions.
        peers: PeerTable,
    },
    /// A worker is gone; fetches from it are pointless.
    PeerLost {
        /// Its id.
        worker: WorkerId,
    },
    /// A layer that tasks will come from. Precedes the first of them.
    Layer {
        /// Its graph.
        graph: GraphId,
        /// Its position there.
        layer: LayerIndex,
        /// What the worker needs to know of it.
        spec: Arc<LayerSpec>,
    },
    /// Where the partitions of a whole layer are, for the tasks of another layer that read all of it. Precedes the first
    /// of them, and is sent anew when something moved.
    Sources {
        /// Their graph.
        graph: GraphId,
        /// The layer that reads.
        layer: LayerIndex,
        /// Through which of its inputs.
        input: u32,
        /// One entry for each task of the layer that is read.
        sources: SourceTable,
    },
    /// Run these tasks, each when its inputs are there.
    Assign {
        /// The tasks and their inputs.
        tasks: Vec<TaskAssignment>,
    },
    /// Do not run, or stop running, this attempt. Answered by `Cancelled`, or by `Finished` when it came too late.
    Cancel {
        /// Which task.
        task: TaskId,
        /// Which attempt.
        attempt: Attempt,
    },
    /// Nobody needs the partitions of these tasks: drop them, own outputs and fetched copies alike.
    Release {
        /// The tasks.
        tasks: Vec<TaskId>,
    },
    /// The graph is over: drop its layers, tasks and partitions.
    Forget {
        /// Which graph.
        graph: GraphId,
    },
    /// Finish nothing more, clean up, and exit.
    Shutdown,
    /// Stop running this attempt and drop what it makes. Nobody waits for an answer.
    Disown {
        /// Which task.
        task: TaskId,
        /// Which attempt.
        attempt: Attempt,
    },
    /// Give this attempt back if it has not begun: another worker idles. Answered by `Cancelled`, or by nothing when it has begun or
    /// ended.
    Recall {
        /// Which task.
        task: TaskId,
        /// Which attempt.
        attempt: Attempt,
    },
    /// Who runs the tasks of a gang. Precedes those of them that this worker is to run.
    Gang {
        /// Its graph.
        graph: GraphId,
        /// Its layer.
        layer: LayerIndex,
        /// Which of its starts: the attempt of each of its tasks.
        incarnation: Attempt,
        /// One for each task of the layer, in order.
        members: GangTable,
    },
}

/// What a worker needs to know of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerSpec {
    /// Shown to people.
    pub name: String,
    /// Name of a registered operator.
    pub operator: String,
    /// What the operator is told.
    pub arguments: Arguments,
    /// Index of the layer's first task in its graph.
    pub first_task: u32,
    /// Partitions that each task makes.
    pub outputs: u32,
    /// What each task reads, input by input; of a fused layer, what comes from outside.
    pub inputs: Vec<InputSpec>,
    /// What each task occupies while it runs.
    pub resources: Resources,
    /// What each task runs before `operator`; `None` for an ordinary layer.
    pub fused: Option<Box<Fused>>,
    /// Its tasks start together: `Gang` says with whom.
    pub gang: bool,
    /// Where its tasks work.
    pub memory: Memory,
    /// In which memory the partitions of each input were made, for as many inputs as it says; in host memory those of all others.
    pub input_memory: Vec<Memory>,
}

/// How the tasks of a layer read through one of their inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum InputSpec {
    /// The partitions are listed with each task.
    Listed,
    /// The task at position `i` reads output `i` of every task of a layer; `Sources` says where they are.
    Column {
        /// Index of that layer's first task.
        first_task: u32,
    },
    /// Every task reads output 0 of every task of a layer; `Sources` says where they are.
    All {
        /// Index of that layer's first task.
        first_task: u32,
        /// Whether several tasks do so, so that a fetched copy is worth keeping until `Release`.
        shared: bool,
    },
}

/// A task on its way to a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskAssignment {
    /// Which task.
    pub task: TaskId,
    /// Which attempt.
    pub attempt: Attempt,
    /// Its layer, announced before.
    pub layer: LayerIndex,
    /// Lower runs first on this worker.
    pub order: u64,
    /// The partitions that it reads through [`InputSpec::Listed`] inputs: by input, then by producing task.
    pub inputs: Vec<InputLocation>,
}

/// A partition that a task reads, and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputLocation {
    /// Position of the input in the layer.
    pub input: u32,
    /// Which partition.
    pub partition: PartitionId,
    /// Who holds it.
    pub worker: WorkerId,
    /// Its size, or more: of several outputs of one task only the largest is known. 0 when there is nothing in it: then it is
    /// never fetched.
    pub bytes: u64,
    /// Whether tasks on several workers read it, so that a fetched copy is worth keeping until `Release`.
    pub shared: bool,
}

/// From worker to scheduler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkerMessage {
    /// The task began to run.
    Started {
        /// Which task.
        task: TaskId,
        /// Which attempt.
        attempt: Attempt,
    },
    /// The task is done and its partitions are stored here.
    Finished {
        /// Which task.
        task: TaskId,
        /// Which attempt.
        attempt: Attempt,
        /// How many outputs it made, and their sizes.
        sizes: OutputSizes,
        /// How long it ran, in microseconds. Of several that ended too close together to be told apart, one has the time of all.
        run_micros: u64,
    },
    /// The task failed.
    Failed {
        /// Which attempt.
        attempt: Attempt,
        /// The failure; boxed, since it is rare and large.
        error: Box<TaskError>,
        /// How long it ran, in microseconds; 0 where it did not begin.
        run_micros: u64,
    },
    /// The task cannot run because these inputs are not where they were said to be. The worker has dropped the task.
    MissingInputs {
        /// Which task.
        task: TaskId,
        /// Which attempt.
        attempt: Attempt,
        /// Partitions that could not be had, and from whom.
        missing: Vec<(PartitionId, WorkerId)>,
        /// Why.
        cause: MissingCause,
    },
    /// The attempt was cancelled and will not run.
    Cancelled {
        /// Which task.
        task: TaskId,
        /// Which attempt.
        attempt: Attempt,
    },
    /// Partitions that this worker held are gone: unreadable on disk, for example.
    Lost {
        /// Tasks whose outputs are gone.
        tasks: Vec<TaskId>,
    },
    /// Signs of life and load.
    Heartbeat {
        /// The load now.
        load: WorkerLoad,
    },
    /// What happened on this worker since the last such message.
    Events {
        /// In the order in which they happened.
        events: Vec<EventRecord>,
    },
    /// The worker leaves in good order; nothing more follows.
    Goodbye,
    /// A running task waits for graphs that it submitted, and has given its resources back meanwhile.
    Seceded {
        /// Which task.
        task: TaskId,
        /// Which attempt.
        attempt: Attempt,
    },
    /// A task that had seceded occupies its resources again.
    Rejoined {
        /// Which task.
        task: TaskId,
        /// Which attempt.
        attempt: Attempt,
    },
    /// First message of a worker that comes back. Whatever else it was given before it has dropped.
    Inventory(Inventory),
    /// A task that has not begun is given back: it would have to wait for one that waits itself without its resources, and that
    /// may be waiting for the room that this one would occupy.
    HeldUp {
        /// Which task.
        task: TaskId,
        /// Which attempt.
        attempt: Attempt,
        /// The task that it would have to wait for.
        by: TaskId,
    },
}

/// What a worker still has after its connection to the scheduler broke.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Inventory {
    /// Tasks whose outputs it stores, all of them, and their sizes.
    pub stored: Vec<(TaskId, OutputSizes)>,
    /// Attempts that run there.
    pub running: Vec<(TaskId, Attempt)>,
    /// Of `stored`, those of gangs, and the attempts that made them.
    pub of_gangs: Vec<(TaskId, Attempt)>,
}

/// Load of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WorkerLoad {
    /// Tasks that run now.
    pub running: Vec<RunningTask>,
    /// Tasks that wait for inputs, memory or a slot.
    pub queued: u32,
    /// Partitions stored, by tier.
    pub tiers: Vec<TierUsage>,
    /// Resident memory of the process, in bytes; 0 where the system does not say.
    pub resident_bytes: u64,
}

/// A task that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningTask {
    /// Which task.
    pub task: TaskId,
    /// For how long, in milliseconds; 0 while it waits for its slot.
    pub running_ms: u64,
}

/// A task that runs much longer than others of its layer took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Straggler {
    /// Which task.
    pub task: TaskId,
    /// For how long it has run, in milliseconds.
    pub running_ms: u64,
    /// How long those took on average that had ended when it was noticed, in milliseconds.
    pub typical_ms: u64,
}

/// Use of one tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierUsage {
    /// Which tier.
    pub tier: Tier,
    /// Bytes in use.
    pub used_bytes: u64,
    /// Bytes it may use; `u64::MAX` where there is no limit.
    pub limit_bytes: u64,
}

/// The cluster at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClusterInfo {
    /// Workers now in the cluster, by id.
    pub workers: Vec<WorkerInfo>,
    /// Clients now connected.
    pub clients: u32,
    /// Graphs accepted and not ended.
    pub graphs_running: u32,
    /// Tasks that are ready and wait for a worker.
    pub tasks_ready: u32,
    /// Bytes moved between workers since the scheduler's start, by pair.
    pub transfers: Vec<Transfer>,
    /// Graphs that run, the latest [`ClusterInfo::MOST_GRAPHS`] of them, oldest first.
    pub graphs: Vec<GraphInfo>,
    /// `HOST:PORT` of its dashboard; empty where there is none.
    pub dashboard: String,
}

impl ClusterInfo {
    /// Graphs of which something is said at once.
    pub const MOST_GRAPHS: usize = 200;
}

/// A graph in [`ClusterInfo`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GraphInfo {
    /// Which graph.
    pub graph: GraphId,
    /// What its client calls it.
    pub name: String,
    /// More of that, if there is more.
    pub description: String,
    /// What the client calls itself.
    pub client: String,
    /// Its layers, in order.
    pub layers: Vec<LayerInfo>,
}

/// A layer in [`GraphInfo`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerInfo {
    /// Shown to people.
    pub name: String,
    /// Name of a registered operator.
    pub operator: String,
    /// Index of its first task in the graph.
    pub first_task: u32,
    /// Layers whose partitions it reads.
    pub reads: Vec<LayerIndex>,
    /// How far it is.
    pub progress: LayerProgress,
}

/// One worker in [`ClusterInfo`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// Its id.
    pub worker: WorkerId,
    /// What it said of itself.
    pub hello: WorkerHello,
    /// Its last report.
    pub load: WorkerLoad,
    /// Tasks handed to it and not done.
    pub assigned: u32,
    /// Tasks it has finished.
    pub finished: u64,
    /// Bytes it has written to disk tiers.
    pub spilled_bytes: u64,
    /// Tasks that run there much longer than others of their layers took.
    pub stragglers: Vec<Straggler>,
    /// Workers with which it exchanges no partitions for now, because fetching failed.
    pub apart_from: Vec<WorkerId>,
    /// For that reason it gets no task that another can take.
    pub aside: bool,
}

/// Why inputs of a task could not be had where they were said to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MissingCause {
    /// They are not there, or their holder is gone.
    Gone,
    /// Their holder is still a member of the cluster, and nothing comes from it.
    Unreached {
        /// How it failed last, in words.
        reason: String,
    },
    /// Fetching failed each time, for a reason that is not the way to the holder.
    Failed {
        /// How it failed last, in words.
        reason: String,
    },
}

/// Traffic from one worker to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// Who held the partitions.
    pub from: WorkerId,
    /// Who read them.
    pub to: WorkerId,
    /// Partitions moved.
    pub partitions: u64,
    /// Payload bytes moved.
    pub bytes: u64,
    /// What carried the last of them: the name of a transport and what that chose, as in `tcp` or `ucx posix/memory`.
    pub transport: String,
    /// Payload bytes in each second in which large ones were under way, since that transport is used. 0 as long as none came.
    pub bytes_per_s: u64,
    /// Why a better transport is not used, where one failed.
    pub demotion: Option<Demotion>,
}

/// A transport that is not used between two workers, for a while where it failed, although both have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demotion {
    /// Name of the transport: the scheme of its addresses.
    pub wanted: String,
    /// Why it is not used, in words.
    pub reason: String,
    /// It works and has nothing to offer between these two; not tried again.
    pub lasting: bool,
}
