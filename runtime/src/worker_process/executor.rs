//! Runs operators on slot threads of their own, catches their panics, and stops them.
//!
//! Called by the driver, which knows what may run; sockets and disks are on other threads.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use transload_gpu::Partition;
use transload_protocol::{Attempt, LayerSpec, TaskErrorKind, TaskId};

use super::completions::Completion;
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
    operators: OperatorRegistry,
    environment: Arc<WorkerEnvironment>,
    running: HashMap<(TaskId, Attempt), CancellationToken>,
    slots: Arc<Slots>,
}

/// A task on its way to the slot threads.
struct Job {
    operator: Result<Arc<dyn Operator>, OperatorError>,
    context: TaskContext,
    completions: mpsc::UnboundedSender<Completion>,
}

/// Which slots are free, and who waits for them: tasks that the machine has started ahead of time, in its order.
struct Slots {
    inner: Mutex<Inner>,
}

struct Inner {
    free: u32,
    waiting: VecDeque<Job>,
}

impl Executor {
    pub(super) fn start(
        environment: &Arc<WorkerEnvironment>,
        operators: OperatorRegistry,
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
            operators,
            environment: Arc::clone(environment),
            running: HashMap::new(),
            slots: Arc::new(Slots {
                inner: Mutex::new(Inner {
                    free: environment.slots.max(1),
                    waiting: VecDeque::new(),
                }),
            }),
        })
    }

    /// Starts a task as soon as its slots are free, after those that were here before; its end arrives at `completions`.
    pub(super) fn run(
        &mut self,
        task: TaskId,
        attempt: Attempt,
        layer: Arc<LayerSpec>,
        inputs: Vec<Vec<Partition>>,
        completions: &mpsc::UnboundedSender<Completion>,
    ) {
        let cancelled = CancellationToken::new();
        self.running.insert((task, attempt), cancelled.clone());
        let operator = self.operators.get(&layer.operator);
        let context = TaskContext {
            task,
            attempt,
            position: task.index.saturating_sub(layer.first_task),
            layer,
            inputs,
            cancelled,
            environment: Arc::clone(&self.environment),
        };
        let Some(runtime) = &self.runtime else {
            return;
        };
        let job = Job {
            operator: operator.ok_or_else(|| self.unknown(&context.layer.operator)),
            context,
            completions: completions.clone(),
        };
        if let Some(job) = self.slots.take(job) {
            runtime.spawn(occupy(Arc::clone(&self.slots), job));
        }
    }

    fn unknown(&self, name: &str) -> OperatorError {
        let names = self.operators.names().join(", ");
        OperatorError {
            kind: TaskErrorKind::UnknownOperator,
            message: format!(
                "this worker has no operator `{name}`, only {names}; start workers from the same program as the client"
            ),
        }
    }

    /// Asks a task to stop. It still ends by a completion.
    pub(super) fn cancel(&self, task: TaskId, attempt: Attempt) {
        if let Some(cancelled) = self.running.get(&(task, attempt)) {
            cancelled.cancel();
        }
        if let Some(job) = self.slots.withdraw(task, attempt) {
            job.end(Err(stopped()));
        }
    }

    /// To be called when a task's completion has arrived.
    pub(super) fn forget(&mut self, task: TaskId, attempt: Attempt) {
        self.running.remove(&(task, attempt));
    }

    /// Stops all tasks and waits for the slot threads, but no longer than `patience`.
    pub(super) async fn stop(mut self, patience: Duration) {
        self.running.values().for_each(CancellationToken::cancel);
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

impl Slots {
    /// Takes the slots that a task needs, or keeps it until it is its turn.
    fn take(&self, job: Job) -> Option<Job> {
        let mut inner = self.lock();
        let slots = job.slots();
        let is_its_turn = inner.waiting.is_empty() && inner.free >= slots;
        if slots == 0 || is_its_turn {
            inner.free -= slots;
            return Some(job);
        }
        inner.waiting.push_back(job);
        None
    }

    /// Gives slots back and takes the tasks whose turn it is now.
    fn give_back(&self, slots: u32) -> Vec<Job> {
        let mut inner = self.lock();
        inner.free += slots;
        let mut next = Vec::new();
        while let Some(wanted) = inner.waiting.front().map(Job::slots)
            && inner.free >= wanted
        {
            inner.free -= wanted;
            next.extend(inner.waiting.pop_front());
        }
        next
    }

    /// Takes out a task that has not had its turn yet.
    fn withdraw(&self, task: TaskId, attempt: Attempt) -> Option<Job> {
        let mut inner = self.lock();
        let is_it = |job: &Job| job.context.task == task && job.context.attempt == attempt;
        let at = inner.waiting.iter().position(is_it)?;
        inner.waiting.remove(at)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing that holds this lock can leave the counts half-changed.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Job {
    async fn run(self) {
        let (task, attempt) = (self.context.task, self.context.attempt);
        let result = match self.operator {
            Ok(operator) => run_operator(operator, self.context).await,
            Err(error) => Err(error),
        };
        tell(&self.completions, task, attempt, result);
    }

    /// Ends without having run.
    fn end(self, result: Result<Vec<Partition>, OperatorError>) {
        let (task, attempt) = (self.context.task, self.context.attempt);
        tell(&self.completions, task, attempt, result);
    }

    fn slots(&self) -> u32 {
        self.context.layer.resources.slots
    }
}

fn tell(
    completions: &mpsc::UnboundedSender<Completion>,
    task: TaskId,
    attempt: Attempt,
    result: Result<Vec<Partition>, OperatorError>,
) {
    // A worker that is ending listens no more.
    let _ = completions.send(Completion::Task {
        task,
        attempt,
        result,
    });
}

/// Runs a task, and then those that waited for its slots.
fn occupy(slots: Arc<Slots>, mut job: Job) -> BoxFuture<'static, ()> {
    async move {
        let mut in_a_row = 0;
        loop {
            let freed = job.slots();
            job.run().await;
            let mut next = slots.give_back(freed).into_iter();
            let Some(first) = next.next() else {
                return;
            };
            job = first;
            for further in next {
                tokio::spawn(occupy(Arc::clone(&slots), further));
            }
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

async fn run_operator(
    operator: Arc<dyn Operator>,
    context: TaskContext,
) -> Result<Vec<Partition>, OperatorError> {
    let cancelled = context.cancelled.clone();
    let outputs = context.layer.outputs as usize;
    let running = async move {
        tokio::select! {
            biased;
            () = cancelled.cancelled() => Err(stopped()),
            result = async { operator.run(context).await } => result,
        }
    };
    match AssertUnwindSafe(running).catch_unwind().await {
        Ok(Ok(made)) if made.len() != outputs => Err(OperatorError::new(format!(
            "the operator made {} partitions; its layer has {outputs} outputs",
            made.len()
        ))),
        Ok(result) => result,
        Err(panic) => Err(OperatorError {
            kind: TaskErrorKind::Panic,
            message: format!("the operator panicked: {}", panic_message(panic.as_ref())),
        }),
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use transload_gpu::Budget;
    use transload_protocol::{ClientId, GraphId, Resources};

    use super::*;

    fn job(index: u32, slots: u32) -> Job {
        let graph = GraphId {
            client: ClientId(1),
            sequence: 0,
        };
        let layer = LayerSpec {
            name: "layer".to_owned(),
            operator: "noop".to_owned(),
            arguments: Default::default(),
            first_task: 0,
            outputs: 1,
            inputs: 0,
            resources: Resources::slots(slots),
        };
        Job {
            operator: Err(stopped()),
            context: TaskContext {
                task: TaskId { graph, index },
                attempt: Attempt(0),
                position: index,
                layer: Arc::new(layer),
                inputs: Vec::new(),
                cancelled: CancellationToken::new(),
                environment: Arc::new(WorkerEnvironment {
                    name: "worker".to_owned(),
                    slots: 2,
                    execution_memory: Budget::new("memory", 0),
                    scratch_dir: "/".into(),
                }),
            },
            completions: mpsc::unbounded_channel().0,
        }
    }

    fn two_slots() -> Slots {
        Slots {
            inner: Mutex::new(Inner {
                free: 2,
                waiting: VecDeque::new(),
            }),
        }
    }

    fn indices(jobs: Vec<Job>) -> Vec<u32> {
        jobs.iter().map(|job| job.context.task.index).collect()
    }

    #[test]
    fn tasks_get_their_slots_in_the_order_in_which_they_came() {
        let slots = two_slots();
        assert!(slots.take(job(0, 1)).is_some());
        assert!(slots.take(job(1, 1)).is_some());
        for (index, wanted) in [(2, 2), (3, 1)] {
            assert!(slots.take(job(index, wanted)).is_none());
        }
        assert!(slots.take(job(4, 0)).is_some(), "it needs none");
        assert_eq!(indices(slots.give_back(1)), [0; 0], "task 2 needs both");
        assert_eq!(indices(slots.give_back(1)), [2]);
        assert_eq!(indices(slots.give_back(2)), [3]);
    }

    #[test]
    fn a_task_that_waits_can_be_withdrawn_and_one_that_runs_cannot() {
        let slots = two_slots();
        for index in 0..4 {
            slots.take(job(index, 1));
        }
        let task = |index| job(index, 1).context.task;
        assert!(slots.withdraw(task(2), Attempt(0)).is_some());
        assert!(slots.withdraw(task(2), Attempt(0)).is_none());
        assert!(slots.withdraw(task(0), Attempt(0)).is_none());
        assert_eq!(indices(slots.give_back(1)), [3]);
    }
}
