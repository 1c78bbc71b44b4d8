//! The worker machine, whose tasks, spills and loads end at once.

use std::collections::VecDeque;
use std::ops::Range;

use transload_protocol::{
    Arguments, Attempt, ClientId, GraphId, InputLocation, InputSpec, LayerIndex, LayerSpec, Memory,
    PartitionId, Resources, SchedulerToWorker, TaskAssignment, TaskId, Time, WorkerId,
    WorkerMessage,
};
use transload_worker::{Action, Config, Input, Worker};

const SELF: WorkerId = WorkerId(0);
const GRAPH: GraphId = GraphId {
    client: ClientId(1),
    sequence: 0,
};
/// Bytes of each output, so that a number of them is a memory.
const OUTPUT_BYTES: u64 = 1_000;
/// Assignments that reach the worker together.
const BATCH: u32 = 32;
/// A task that reads reads the output of the task so many before it, which has been spilled by then.
const DISTANCE: u32 = 100;

/// Tasks without inputs: assigned, run, finished, released.
pub(crate) fn run(tasks: u32) -> Result<(), String> {
    let mut run = Run::new(u64::MAX / 2);
    for first in (0..tasks).step_by(BATCH as usize) {
        let batch = first..(first + BATCH).min(tasks);
        run.assign(batch.clone(), |_| None);
        run.settle();
        run.release(batch);
    }
    run.end(tasks)
}

/// Memory for twenty outputs: older ones are spilled, and read back by the tasks that need them.
pub(crate) fn spill(tasks: u32) -> Result<(), String> {
    let mut run = Run::new(20 * OUTPUT_BYTES);
    for index in 0..tasks {
        run.assign(index..index + 1, |index| index.checked_sub(DISTANCE));
        run.settle();
        if let Some(read) = index.checked_sub(DISTANCE) {
            run.release(read..read + 1);
        }
    }
    if run.spills == 0 {
        return Err("nothing was spilled".to_owned());
    }
    run.end(tasks)
}

struct Run {
    worker: Worker,
    now: Time,
    actions: Vec<Action>,
    /// What follows from actions and has not been told to the machine yet.
    pending: VecDeque<Input>,
    finished: u32,
    spills: u32,
}

impl Run {
    fn new(memory_bytes: u64) -> Self {
        let mut run = Self {
            worker: Worker::new(Config::new(Resources::slots(4), memory_bytes)),
            now: Time::default(),
            actions: Vec::new(),
            pending: VecDeque::new(),
            finished: 0,
            spills: 0,
        };
        run.feed(Input::Connected { worker: SELF });
        for inputs in [0_u32, 1] {
            let spec = LayerSpec {
                name: "layer".to_owned(),
                operator: "noop".to_owned(),
                arguments: Arguments::default(),
                first_task: 0,
                outputs: 1,
                inputs: vec![InputSpec::Listed; inputs as usize],
                resources: Resources::slots(1),
                fused: None,
                gang: false,
                memory: Memory::Host,
                input_memory: Vec::new(),
            };
            run.feed(Input::FromScheduler(SchedulerToWorker::Layer {
                graph: GRAPH,
                layer: LayerIndex(inputs),
                spec: spec.into(),
            }));
        }
        run
    }

    /// Assigns tasks that read nothing (layer 0), or each the output of another one (layer 1).
    fn assign(&mut self, indices: Range<u32>, reads: impl Fn(u32) -> Option<u32>) {
        let tasks = indices.map(|index| assignment(index, reads(index)));
        let tasks = tasks.collect();
        self.feed(Input::FromScheduler(SchedulerToWorker::Assign { tasks }));
    }

    fn release(&mut self, tasks: Range<u32>) {
        let tasks = tasks.map(task).collect();
        self.feed(Input::FromScheduler(SchedulerToWorker::Release { tasks }));
    }

    /// Ends whatever has begun, and what follows from that: all that has ended meanwhile is told together.
    fn settle(&mut self) {
        while !self.pending.is_empty() {
            self.now = self.now.after_micros(10);
            for input in std::mem::take(&mut self.pending) {
                self.worker.take_in(self.now, input, &mut self.actions);
            }
            self.worker.decide(self.now, &mut self.actions);
            self.carry_out();
        }
    }

    fn end(self, tasks: u32) -> Result<(), String> {
        if self.finished == tasks {
            Ok(())
        } else {
            Err(format!("{} of {tasks} tasks finished", self.finished))
        }
    }

    fn feed(&mut self, input: Input) {
        self.now = self.now.after_micros(10);
        self.worker.handle(self.now, input, &mut self.actions);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        for action in self.actions.drain(..) {
            let input = match action {
                Action::Start { task, attempt, .. } => Input::TaskDone {
                    task,
                    attempt,
                    bytes: vec![OUTPUT_BYTES],
                    rows: 0,
                },
                Action::Spill { partition, .. } => {
                    self.spills += 1;
                    Input::Spilled {
                        partition,
                        bytes: OUTPUT_BYTES,
                    }
                }
                Action::Load { partition, .. } => Input::Loaded { partition },
                Action::ToScheduler(message) => {
                    if let WorkerMessage::Finished { .. } = message {
                        self.finished += 1;
                    }
                    continue;
                }
                Action::AddPeer { .. }
                | Action::Resume { .. }
                | Action::RemovePeer { .. }
                | Action::Fetch { .. }
                | Action::CancelFetch { .. }
                | Action::Stop { .. }
                | Action::Drop { .. }
                | Action::Exit => continue,
            };
            self.pending.push_back(input);
        }
    }
}

fn assignment(index: u32, reads: Option<u32>) -> TaskAssignment {
    let location = |source| InputLocation {
        input: 0,
        partition: PartitionId {
            task: task(source),
            output: 0,
        },
        worker: SELF,
        bytes: OUTPUT_BYTES,
        shared: false,
    };
    TaskAssignment {
        task: task(index),
        attempt: Attempt(0),
        layer: LayerIndex(u32::from(reads.is_some())),
        order: index.into(),
        inputs: reads.map(location).into_iter().collect(),
    }
}

fn task(index: u32) -> TaskId {
    TaskId {
        graph: GRAPH,
        index,
    }
}
