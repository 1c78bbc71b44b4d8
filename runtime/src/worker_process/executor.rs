//! Runs operators on slot threads of their own, catches their panics, and stops them.
//!
//! Called by the driver, which knows what may run; sockets and disks are on other threads.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use transload_gpu::Partition;
use transload_protocol::{Attempt, IMPORT_OPERATOR, TaskErrorKind, TaskId};

use super::completions::Completion;
use super::fused::{Failure, PreparedLayer};
use super::inbox::Inbox;
use super::on_device::{DeviceJob, Made};
use super::quick::IdMap;
use super::slots::{Id, Slots};
use crate::gang::Gang;
use crate::inside::{Inside, WorkerClient};
use crate::scatter::{SCATTER_OPERATOR, fetch_offered};
use crate::{
    Operator, OperatorError, OperatorRegistry, RuntimeError, TaskContext, WorkerEnvironment,
};

/// Deep expressions and plans recurse deeply.
const STACK_BYTES: usize = 16 << 20;

/// Tasks that a slot thread runs one after the other before it looks at what else there is to do on it.
const TASKS_IN_A_ROW: u32 = 32;

/// The slot threads and what runs on them. Dropping it asks all tasks to stop and waits for none.
pub(super) struct Executor {
    /// There until [`Executor::stop`] or the drop takes it.
    runtime: Option<Runtime>,
    operators: Arc<OperatorRegistry>,
    environment: Arc<WorkerEnvironment>,
    /// For tasks that submit graphs of their own.
    client: Arc<WorkerClient>,
    running: IdMap<(TaskId, Attempt), CancellationToken>,
    slots: Arc<Slots<Job>>,
}

/// A task on its way to the slot threads.
struct Job {
    layer: Arc<PreparedLayer>,
    operators: Arc<OperatorRegistry>,
    context: TaskContext,
    completions: Arc<Inbox<Completion>>,
    /// Of a task that reads or makes device partitions.
    device: Option<Box<DeviceJob>>,
}

/// What a task is given.
pub(super) enum Inputs {
    /// In host memory, all of them.
    Host(Vec<Vec<Partition>>),
    /// Some on the worker's GPU, or for an operator that works there.
    Device(Box<DeviceJob>),
}

impl Executor {
    pub(super) fn start(
        environment: &Arc<WorkerEnvironment>,
        operators: OperatorRegistry,
        client: Arc<WorkerClient>,
    ) -> Result<Self, RuntimeError> {
        let number = AtomicU32::new(0);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(environment.slots.max(1) as usize)
            .thread_name_fn(move || format!("slot-{}", number.fetch_add(1, Ordering::Relaxed)))
            .thread_stack_size(STACK_BYTES)
            .enable_all()
            .build()
            .map_err(|source| RuntimeError::Threads {
                what: "the slot threads",
                source,
            })?;
        Ok(Self {
            runtime: Some(runtime),
            operators: Arc::new(operators),
            environment: Arc::clone(environment),
            client,
            running: IdMap::default(),
            slots: Arc::new(Slots::new(environment.slots.max(1))),
        })
    }

    /// Starts a task as soon as its slots are free, after those that were here before, but a member of a gang at once; its end
    /// arrives at `completions`.
    pub(super) fn run(
        &mut self,
        (task, attempt): (TaskId, Attempt),
        layer: Arc<PreparedLayer>,
        gang: Option<Arc<Gang>>,
        inputs: Inputs,
        completions: &Arc<Inbox<Completion>>,
    ) {
        let (inputs, device) = match inputs {
            Inputs::Host(inputs) => (inputs, None),
            Inputs::Device(device) => (Vec::new(), Some(device)),
        };
        let cancelled = CancellationToken::new();
        self.running.insert((task, attempt), cancelled.clone());
        let own = Arc::clone(layer.own());
        let context = TaskContext {
            task,
            attempt,
            position: task.index.saturating_sub(own.first_task),
            layer: Arc::clone(&own),
            step: None,
            inputs,
            cancelled,
            environment: Arc::clone(&self.environment),
            gang,
            inside: self.inside(task, attempt, completions),
            rows: Arc::default(),
        };
        let slots = own.resources.slots;
        let is_member = context.gang.is_some();
        let job = Job {
            layer,
            operators: Arc::clone(&self.operators),
            context,
            completions: Arc::clone(completions),
            device,
        };
        if is_member {
            self.slots.take_at_once((task, attempt), slots);
            self.begin([job]);
        } else {
            self.begin(self.slots.take((task, attempt), slots, job));
        }
    }

    fn inside(
        &self,
        task: TaskId,
        attempt: Attempt,
        completions: &Arc<Inbox<Completion>>,
    ) -> Inside {
        let completions = Arc::clone(completions);
        let requests = move |request| {
            completions.push(Completion::Slot {
                task,
                attempt,
                request,
            });
        };
        Inside::new(Arc::clone(&self.client), Box::new(requests))
    }

    /// Whether this attempt was started and has not ended.
    pub(super) fn runs(&self, task: TaskId, attempt: Attempt) -> bool {
        self.running.contains_key(&(task, attempt))
    }

    /// Asks a task to stop. It still ends by a completion.
    pub(super) fn cancel(&self, task: TaskId, attempt: Attempt) {
        if let Some(cancelled) = self.running.get(&(task, attempt)) {
            cancelled.cancel();
        }
        if let Some(job) = self.slots.withdraw((task, attempt)) {
            let result = Err(Failure::of_own(stopped()));
            job.completions.push(ended(job.id(), result, 0));
        }
    }

    /// A running task waits without its slot.
    pub(super) fn lend_slot(&self, task: TaskId, attempt: Attempt) {
        self.begin(self.slots.lend((task, attempt)));
    }

    /// The machine gives a task its slot back.
    pub(super) fn return_slot(&self, task: TaskId, attempt: Attempt) {
        self.slots.return_to((task, attempt));
    }

    /// Whether tasks wait for slots that others occupy, which is when slot threads report ends together.
    pub(super) fn has_line(&self) -> bool {
        self.slots.has_line()
    }

    fn begin(&self, jobs: impl IntoIterator<Item = Job>) {
        if let Some(runtime) = &self.runtime {
            for job in jobs {
                runtime.spawn(occupy(Arc::clone(&self.slots), job));
            }
        }
    }

    /// To be called when a task's completion has arrived.
    pub(super) fn forget(&mut self, task: TaskId, attempt: Attempt) {
        self.running.remove(&(task, attempt));
    }

    /// Stops all tasks and waits for the slot threads, but no longer than `patience`.
    pub(super) async fn stop(mut self, patience: Duration) {
        self.running.values().for_each(CancellationToken::cancel);
        self.client.close().await;
        if let Some(runtime) = self.runtime.take() {
            // A runtime waits for its threads, which must not happen on a thread of another one.
            let waiting = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(patience));
            // It does not panic, and being cancelled means that our own runtime ends, too.
            let _ = waiting.await;
        }
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.running.values().for_each(CancellationToken::cancel);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Job {
    fn id(&self) -> Id {
        (self.context.task, self.context.attempt)
    }

    async fn run(self) -> Completion {
        let id = self.id();
        let rows = Arc::clone(&self.context.rows);
        let result = match self.device {
            None => {
                let made = self.layer.run(&self.operators, self.context).await;
                made.map(Made::Host)
            }
            Some(device) => {
                // Larger than those of other tasks, which have no need of it.
                Box::pin(device.run(&self.layer, &self.operators, self.context)).await
            }
        };
        ended(id, result, rows.load(Ordering::Relaxed))
    }
}

fn ended((task, attempt): Id, result: Result<Made, Failure>, rows: u64) -> Completion {
    Completion::Task {
        task,
        attempt,
        result,
        rows,
    }
}

/// Runs a task, and then those that waited for its slots.
fn occupy(slots: Arc<Slots<Job>>, mut job: Job) -> BoxFuture<'static, ()> {
    async move {
        let mut in_a_row = 0;
        loop {
            let (id, completions) = (job.id(), Arc::clone(&job.completions));
            let completion = job.run().await;
            // Told before anyone begins in its place, who may have something to tell as well.
            let (turn, is_awaited) = slots.end(id, || completions.put(completion));
            if is_awaited || turn.is_low {
                completions.wake();
            }
            for further in turn.further {
                tokio::spawn(occupy(Arc::clone(&slots), further));
            }
            let Some(first) = turn.first else {
                return;
            };
            job = first;
            in_a_row += 1;
            if in_a_row == TASKS_IN_A_ROW {
                in_a_row = 0;
                tokio::task::yield_now().await;
            }
        }
    }
    .boxed()
}

fn stopped() -> OperatorError {
    OperatorError::new("the task was stopped")
}

/// Runs the operator that a context's layer names, unless the task was stopped before.
pub(super) async fn run_operator(
    operators: &OperatorRegistry,
    context: TaskContext,
) -> Result<Vec<Partition>, OperatorError> {
    if context.layer.operator == IMPORT_OPERATOR {
        // Results of another graph, handed on as they are: no byte is copied.
        return Ok(context.inputs.into_iter().flatten().collect());
    }
    if context.layer.operator == SCATTER_OPERATOR {
        let running = async { fetch_offered(&context, context.inside.fetcher()).await };
        return tokio::select! {
            biased;
            () = context.cancelled.cancelled() => Err(stopped()),
            fetched = running => fetched,
        };
    }
    match operators.get(&context.layer.operator) {
        Some(operator) => call(operator, context).await,
        None => Err(OperatorError {
            kind: TaskErrorKind::UnknownOperator,
            message: format!(
                "this worker has no operator `{}`, only {}; start workers from the same program as the client",
                context.layer.operator,
                operators.names().join(", ")
            ),
        }),
    }
}

async fn call(
    operator: Arc<dyn Operator>,
    context: TaskContext,
) -> Result<Vec<Partition>, OperatorError> {
    let (cancelled, outputs) = (context.cancelled.clone(), context.layer.outputs);
    guarded(
        cancelled,
        outputs,
        async move { operator.run(context).await },
    )
    .await
}

/// Runs an operator until the task is stopped. A panic is its error, and so is another number of partitions than the layer has outputs.
pub(super) async fn guarded<T>(
    cancelled: CancellationToken,
    outputs: u32,
    operator: impl Future<Output = Result<Vec<T>, OperatorError>>,
) -> Result<Vec<T>, OperatorError> {
    let running = async move {
        tokio::select! {
            biased;
            () = cancelled.cancelled() => Err(stopped()),
            result = operator => result,
        }
    };
    let made = caught("the operator", running).await?;
    if made.len() != outputs as usize {
        return Err(OperatorError::new(format!(
            "the operator made {} partitions; its layer has {outputs} outputs",
            made.len()
        )));
    }
    Ok(made)
}

/// A panic of `what` is its error: a task ends in every case.
pub(super) async fn caught<T, E: From<OperatorError>>(
    what: &str,
    running: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    match AssertUnwindSafe(running).catch_unwind().await {
        Ok(result) => result,
        Err(panic) => Err(E::from(OperatorError {
            kind: TaskErrorKind::Panic,
            message: format!("{what} panicked: {}", panic_message(panic.as_ref())),
        })),
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
