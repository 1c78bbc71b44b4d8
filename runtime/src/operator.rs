//! Operators: what tasks run. Named, registered implementations; called by the worker process's executor.
//!
//! An operator knows its arguments and its inputs' bytes; it does not know where they came from or who reads its outputs.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use transload_gpu::device::{DeviceError, DevicePartition};
use transload_gpu::{OutOfBudget, Partition, Stored};
use transload_protocol::{Attempt, LayerSpec, TaskErrorKind, TaskId};

use crate::client::coordination::CoordinationError;
use crate::gang::Gang;
use crate::gpu::WorkerGpu;
use crate::inside::Inside;
use crate::{ClientError, WorkerEnvironment};

/// A named implementation of a task kind.
pub trait Operator: Send + Sync + 'static {
    /// The name that layers refer to.
    fn name(&self) -> &str;

    /// Runs one task and returns its partitions, exactly as many as its layer has outputs. The future runs on a slot thread of
    /// its own and may compute without yielding; it is dropped at an await point, or should look at `cancelled`, when the task is stopped.
    ///
    /// # Errors
    /// [`OperatorError`], whose kind decides whether the task is tried again. A panic is caught and becomes
    /// [`TaskErrorKind::Panic`].
    fn run(&self, task: TaskContext) -> BoxFuture<'static, Result<Vec<Partition>, OperatorError>>;
}

/// A named implementation of a task kind that works on the worker's GPU: of layers in device memory
/// ([`Layer::on_device`](transload_protocol::Layer::on_device)).
pub trait DeviceOperator: Send + Sync + 'static {
    /// The name that layers refer to.
    fn name(&self) -> &str;

    /// Runs one task, as [`Operator::run`] does, and returns partitions on the task's GPU. Where device memory ran out
    /// ([`TaskErrorKind::OutOfMemory`]) it is called again with the device emptied but for its inputs, and then once more to work
    /// in halves ([`DeviceTask::halved`]).
    ///
    /// # Errors
    /// As [`Operator::run`].
    fn run(
        &self,
        task: DeviceTask,
    ) -> BoxFuture<'static, Result<Vec<DevicePartition>, OperatorError>>;
}

/// What an operator on a GPU gets to see of its task.
#[derive(Debug, Clone)]
pub struct DeviceTask {
    /// As every operator sees it; its inputs are not there.
    pub context: TaskContext,
    /// For each input of the layer, its partitions in order: what other such layers have made is on the device, unless there was no room
    /// for it when it was fetched; what layers on the host have made is in host memory.
    pub inputs: Vec<Vec<Stored>>,
    /// The worker's GPU.
    pub gpu: Arc<WorkerGpu>,
    /// Whether the operator is to work on its inputs in two halves, one after the other, because device memory was too small for it in
    /// one go. One that cannot works as ever.
    pub halved: bool,
}

/// What an operator gets to see of its task.
#[derive(Clone)]
pub struct TaskContext {
    /// Which task.
    pub task: TaskId,
    /// Which attempt at it.
    pub attempt: Attempt,
    /// Position in the layer, from 0: of the task, or of this call where the layer runs inside the tasks of another.
    pub position: u32,
    /// The layer whose operator this is.
    pub layer: Arc<LayerSpec>,
    /// Which step of a fused layer this is; `None` for the layer's own operator. Together with the graph and
    /// `layer.first_task` it tells layers apart.
    pub step: Option<u32>,
    /// For each input of the layer, its partitions in order.
    pub inputs: Vec<Vec<Partition>>,
    /// Cancelled when the task is to stop.
    pub cancelled: CancellationToken,
    /// The worker that runs it.
    pub environment: Arc<WorkerEnvironment>,
    /// Who runs beside it: see [`TaskContext::gang`].
    pub(crate) gang: Option<Arc<Gang>>,
    /// Its way to the cluster: see [`TaskContext::client`] and [`TaskContext::wait_without_slot`].
    pub(crate) inside: Inside,
    /// See [`TaskContext::add_rows`].
    pub(crate) rows: Arc<AtomicU64>,
}

impl fmt::Debug for TaskContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskContext")
            .field("task", &self.task)
            .field("attempt", &self.attempt)
            .field("layer", &self.layer.name)
            .finish_non_exhaustive()
    }
}

impl TaskContext {
    /// The argument that every task of the layer gets.
    pub fn common_argument(&self) -> &Bytes {
        &self.layer.arguments.common.0
    }

    /// Counts so many more rows of its outputs. For people who look at the task; nothing is decided by it.
    pub fn add_rows(&self, rows: u64) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
    }

    /// The argument of this task alone; `None` when its layer has none.
    pub fn own_argument(&self) -> Option<&Bytes> {
        self.layer
            .arguments
            .per_task
            .get(self.position as usize)
            .map(|argument| &argument.0)
    }
}

/// Why an operator failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct OperatorError {
    /// The class; decides whether another attempt can help.
    pub kind: TaskErrorKind,
    /// The cause in words, with its remedy where one is known.
    pub message: String,
}

impl OperatorError {
    /// A deterministic failure of the operator itself. [`OperatorError::because`] adds its causes.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            kind: TaskErrorKind::Operator,
            message: message.into(),
        }
    }

    /// A failure that may pass by itself: a service that did not answer, a file that is locked. The task is tried again after a
    /// while, as often as its layer's `retries` say.
    pub fn transient(message: impl Into<String>) -> Self {
        Self {
            kind: TaskErrorKind::Transient,
            message: message.into(),
        }
    }

    /// Adds why: the words of `cause` and of everything beneath it, but what the message says already.
    #[must_use]
    pub fn because(mut self, cause: &(dyn Error + 'static)) -> Self {
        let mut next = Some(cause);
        while let Some(error) = next {
            let text = error.to_string();
            // Many errors print their source as part of themselves.
            if !self.message.contains(text.trim()) {
                self.message.push_str(": ");
                self.message.push_str(text.trim());
            }
            next = error.source();
        }
        self
    }

    /// The task needs more memory than there is.
    pub fn out_of_memory(message: impl Into<String>) -> Self {
        Self {
            kind: TaskErrorKind::OutOfMemory,
            message: message.into(),
        }
    }
}

impl From<OutOfBudget> for OperatorError {
    fn from(error: OutOfBudget) -> Self {
        Self::out_of_memory(error.to_string())
    }
}

impl From<DeviceError> for OperatorError {
    fn from(error: DeviceError) -> Self {
        if error.is_about_memory() {
            Self::out_of_memory(error.to_string())
        } else {
            Self::new(error.to_string()).because(&error)
        }
    }
}

impl From<ClientError> for OperatorError {
    /// A task that failed inside fails the one that waits for it, in the same class. A broken connection may be whole again at the
    /// next attempt.
    fn from(error: ClientError) -> Self {
        let kind = match &error {
            ClientError::Task(inner) => inner.kind,
            ClientError::Connect(_)
            | ClientError::ConnectionLost { .. }
            | ClientError::Fetch { .. } => TaskErrorKind::Transient,
            ClientError::UnexpectedWelcome { .. }
            | ClientError::SchedulerFile(_)
            | ClientError::Rejected(_)
            | ClientError::Cancelled
            | ClientError::NotKept { .. }
            | ClientError::Refused(_)
            | ClientError::TimedOut { .. }
            | ClientError::Deadline { .. }
            | ClientError::Listen { .. } => TaskErrorKind::Operator,
        };
        Self {
            kind,
            message: error.to_string(),
        }
        .because(&error)
    }
}

impl From<CoordinationError> for OperatorError {
    fn from(error: CoordinationError) -> Self {
        Self::new(error.to_string()).because(&error)
    }
}

/// The operators of one worker, by name.
#[derive(Clone, Default)]
pub struct OperatorRegistry {
    operators: HashMap<String, Arc<dyn Operator>>,
    on_device: HashMap<String, Arc<dyn DeviceOperator>>,
}

/// Makes the operators of a worker when it starts, from its environment.
pub type OperatorFactory = Arc<dyn Fn(&Arc<WorkerEnvironment>) -> OperatorRegistry + Send + Sync>;

impl OperatorRegistry {
    /// A registry with no operators.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an operator under its own name; one of the same name is replaced.
    pub fn register(&mut self, operator: Arc<dyn Operator>) {
        self.operators.insert(operator.name().to_owned(), operator);
    }

    /// The operator of this name.
    pub fn get(&self, name: &str) -> Option<Arc<dyn Operator>> {
        self.operators.get(name).cloned()
    }

    /// Adds an operator for layers in device memory under its own name; one of the same name is replaced.
    pub fn register_on_device(&mut self, operator: Arc<dyn DeviceOperator>) {
        self.on_device.insert(operator.name().to_owned(), operator);
    }

    /// The operator of this name for layers in device memory.
    pub fn get_on_device(&self, name: &str) -> Option<Arc<dyn DeviceOperator>> {
        self.on_device.get(name).cloned()
    }

    /// All names, sorted, but those for layers in device memory.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.operators.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }
}

impl fmt::Debug for OperatorRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OperatorRegistry")
            .field(&self.names())
            .finish()
    }
}
