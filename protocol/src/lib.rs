//! The shared nouns of the cluster and their wire format.
//!
//! Every other crate names things with these types: ids, task graphs made of symbolic layers, partitions, resources,
//! messages between client, scheduler and worker, events and errors. This crate deliberately knows no socket, thread or
//! clock: [`Time`] is an argument wherever time matters.
#![forbid(unsafe_code)]

mod amount;
pub mod codec;
mod coordination;
mod error;
mod event;
mod fused;
mod gang;
mod graph;
mod ids;
mod journal;
mod listed;
mod message;
pub mod optimize;
mod peers;
mod place;
mod placement;
mod resources;
mod sharing;
mod sizes;
mod version;
pub mod words;

pub use amount::{Amount, ParseAmountError};
pub use coordination::{
    CoordinationAnswer, CoordinationCall, CoordinationRefusal, DeletableKind, MAX_NAME_BYTES,
    Patience, RequestId,
};
pub use error::{TaskError, TaskErrorKind};
pub use event::{Event, EventRecord};
pub use fused::{Call, Fused, Share, Step, StepInput};
pub use gang::{GangMember, GangTable};
pub use graph::{
    Arguments, CompiledGraph, Edges, ExplicitEdges, GraphError, IMPORT_OPERATOR, InputRef, Layer,
    LayerInput, MAX_TASKS_PER_GANG, MAX_TASKS_PER_GRAPH, Source, TaskGraph,
};
pub use ids::{
    Attempt, ClientId, ClusterId, GraphId, LayerIndex, ParseIdError, PartitionId, SessionToken,
    TaskId, WorkerId,
};
pub use journal::JournalEntry;
pub use message::{
    ClientHello, ClientMessage, ClusterInfo, Demotion, Explanation, Gpu, GraphInfo, GraphOutcome,
    Hello, InputLocation, InputSpec, Inventory, LayerInfo, LayerProgress, LayerSpec, MissingCause,
    OutputLocation, ReturningClient, ReturningWorker, Role, RunningTask, SchedulerToClient,
    SchedulerToWorker, Session, Straggler, TaskAssignment, TierUsage, Transfer, Welcome,
    WorkerHello, WorkerInfo, WorkerLoad, WorkerMessage,
};
pub use optimize::{Optimized, Passes, optimize};
pub use peers::PeerTable;
pub use place::{Address, AddressError, Blob, Memory, Tier, Time};
pub use placement::{Conditions, Placement, WorkerRef};
pub use resources::Resources;
pub use sharing::{Holding, Publication, SharingAnswer, SharingCall, SharingRefusal, TaskRange};
pub use sizes::{OutputSizes, SourceTable};
pub use version::{HelloError, PROTOCOL_VERSION, VersionMismatch, check_version, read_hello};
