//! One builder and one check for the tests of the worker machine: [`Bench`] sends inputs, collects actions, and checks every
//! invariant after each step.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "shared by several test programs, each of which uses a part; a test fails by panicking"
)]

use transload_protocol::{
    Arguments, Attempt, ClientId, Event, GraphId, InputLocation, InputSpec, LayerIndex, LayerSpec,
    Memory, MissingCause, PartitionId, PeerTable, Resources, SchedulerToWorker, TaskAssignment,
    TaskErrorKind, TaskId, Tier, Time, WorkerId, WorkerMessage,
};
use transload_worker::{Action, Config, FetchFault, Input, Worker};

/// The worker under test.
pub const SELF: WorkerId = WorkerId(0);
/// Its peers.
pub const PEER: WorkerId = WorkerId(1);
pub const OTHER: WorkerId = WorkerId(2);

pub const GRAPH: GraphId = GraphId {
    client: ClientId(1),
    sequence: 0,
};
/// The first attempt of every task.
pub const FIRST: Attempt = Attempt(0);

pub fn task(index: u32) -> TaskId {
    TaskId {
        graph: GRAPH,
        index,
    }
}

/// Output 0 of a task.
pub fn part(index: u32) -> PartitionId {
    output(index, 0)
}

pub fn output(index: u32, output: u32) -> PartitionId {
    PartitionId {
        task: task(index),
        output,
    }
}

/// An input of `bytes` that `worker` holds and only one worker reads.
pub fn from(worker: WorkerId, partition: PartitionId, bytes: u64) -> InputLocation {
    InputLocation {
        input: 0,
        partition,
        worker,
        bytes,
        shared: false,
    }
}

/// As [`from`], but worth keeping.
pub fn shared(worker: WorkerId, partition: PartitionId, bytes: u64) -> InputLocation {
    InputLocation {
        shared: true,
        ..from(worker, partition, bytes)
    }
}

/// 100 B of memory, spilling above 70, one slot.
pub fn small() -> Config {
    Config::new(Resources::slots(1), 100)
}

/// A worker and all it has wanted so far.
pub struct Bench {
    pub worker: Worker,
    pub now: Time,
}

impl Bench {
    /// A connected worker with two peers, and layers 0, 1 and 2 whose tasks take as many slots as their number says, but at
    /// least one. Each has one input.
    pub fn new(config: Config) -> Self {
        let mut bench = Self {
            worker: Worker::new(config),
            now: Time::default(),
        };
        bench.input(Input::Connected { worker: SELF });
        for worker in [PEER, OTHER] {
            let peers = PeerTable::of(worker, &[]);
            bench.send(SchedulerToWorker::Peers { peers });
        }
        for layer in 0..3 {
            let spec = LayerSpec {
                name: format!("layer-{layer}"),
                operator: "op".to_owned(),
                arguments: Arguments::default(),
                first_task: 0,
                outputs: 1,
                inputs: vec![InputSpec::Listed],
                resources: Resources::slots(layer.max(1)),
                fused: None,
                gang: false,
                memory: Memory::Host,
                input_memory: Vec::new(),
            };
            bench.send(SchedulerToWorker::Layer {
                graph: GRAPH,
                layer: LayerIndex(layer),
                spec: spec.into(),
            });
        }
        bench
    }

    pub fn input(&mut self, input: Input) -> Vec<Action> {
        let mut out = Vec::new();
        let shown = format!("{input:?}");
        self.worker.handle(self.now, input, &mut out);
        if let Err(error) = self.worker.check() {
            panic!("after {shown}: {error}");
        }
        out
    }

    /// Several inputs that arrive together.
    pub fn inputs(&mut self, inputs: Vec<Input>) -> Vec<Action> {
        let mut out = Vec::new();
        for input in inputs {
            self.worker.take_in(self.now, input, &mut out);
        }
        self.worker.decide(self.now, &mut out);
        self.worker.check().expect("holds");
        out
    }

    pub fn send(&mut self, message: SchedulerToWorker) -> Vec<Action> {
        self.input(Input::FromScheduler(message))
    }

    pub fn recall(&mut self, index: u32, attempt: Attempt) -> Vec<Action> {
        let task = task(index);
        self.send(SchedulerToWorker::Recall { task, attempt })
    }

    /// Assigns the first attempt of a task; its index is its order.
    pub fn assign(&mut self, index: u32, inputs: &[InputLocation]) -> Vec<Action> {
        self.assign_as(index, FIRST, 0, inputs)
    }

    pub fn assign_as(
        &mut self,
        index: u32,
        attempt: Attempt,
        layer: u32,
        inputs: &[InputLocation],
    ) -> Vec<Action> {
        self.send(SchedulerToWorker::Assign {
            tasks: vec![TaskAssignment {
                task: task(index),
                attempt,
                layer: LayerIndex(layer),
                order: u64::from(index),
                inputs: inputs.to_vec(),
            }],
        })
    }

    pub fn cancel(&mut self, index: u32) -> Vec<Action> {
        let (task, attempt) = (task(index), FIRST);
        self.send(SchedulerToWorker::Cancel { task, attempt })
    }

    pub fn release(&mut self, index: u32) -> Vec<Action> {
        let tasks = vec![task(index)];
        self.send(SchedulerToWorker::Release { tasks })
    }

    pub fn forget(&mut self) -> Vec<Action> {
        self.send(SchedulerToWorker::Forget { graph: GRAPH })
    }

    pub fn peer_lost(&mut self, worker: WorkerId) -> Vec<Action> {
        self.send(SchedulerToWorker::PeerLost { worker })
    }

    pub fn fetched(&mut self, partition: PartitionId, from: WorkerId, bytes: u64) -> Vec<Action> {
        self.input(Input::Fetched {
            partition,
            from,
            bytes,
            micros: 5,
            transport: "memory".to_owned(),
            tier: Tier::Host,
        })
    }

    pub fn fetch_failed(
        &mut self,
        partition: PartitionId,
        from: WorkerId,
        fault: FetchFault,
    ) -> Vec<Action> {
        let reason = "broken".to_owned();
        self.input(Input::FetchFailed {
            partition,
            from,
            fault,
            reason,
        })
    }

    pub fn done(&mut self, index: u32, bytes: &[u64]) -> Vec<Action> {
        self.input(Input::TaskDone {
            task: task(index),
            attempt: FIRST,
            bytes: bytes.to_vec(),
            rows: 0,
        })
    }

    pub fn failed(&mut self, index: u32) -> Vec<Action> {
        self.input(Input::TaskFailed {
            task: task(index),
            attempt: FIRST,
            kind: TaskErrorKind::Operator,
            message: "bad row".to_owned(),
            step: None,
        })
    }

    pub fn spilled(&mut self, partition: PartitionId, bytes: u64) -> Vec<Action> {
        self.input(Input::Spilled { partition, bytes })
    }

    pub fn spill_failed(&mut self, partition: PartitionId) -> Vec<Action> {
        let reason = "no space left on device".to_owned();
        self.input(Input::SpillFailed { partition, reason })
    }

    pub fn loaded(&mut self, partition: PartitionId) -> Vec<Action> {
        self.input(Input::Loaded { partition })
    }

    pub fn load_failed(&mut self, partition: PartitionId) -> Vec<Action> {
        let reason = "checksum".to_owned();
        self.input(Input::LoadFailed {
            partition,
            is_lost: true,
            reason,
        })
    }

    /// Lets time pass and tells the worker.
    pub fn pass_millis(&mut self, millis: u64) -> Vec<Action> {
        self.now = self.now.after_micros(millis * 1_000);
        self.input(Input::Tick)
    }

    /// Runs a task without inputs that makes one output of each size, and forgets what it said.
    pub fn make(&mut self, index: u32, bytes: &[u64]) -> Vec<Action> {
        let started = self.assign(index, &[]);
        assert!(starts(&started, index), "{started:?}");
        self.done(index, bytes)
    }

    /// As [`Bench::make`], and the outputs are spilled at once.
    pub fn make_on_disk(&mut self, index: u32, bytes: u64) {
        assert!(spills(&self.make(index, &[bytes]), part(index)));
        self.spilled(part(index), bytes);
    }

    pub fn tier(&self, partition: PartitionId) -> Option<Tier> {
        let holds = self.worker.holds();
        let found = holds.into_iter().find(|(held, _)| *held == partition);
        found.map(|(_, tier)| tier)
    }

    pub fn memory_used(&self) -> u64 {
        self.worker.load(self.now).tiers[0].used_bytes
    }

    pub fn disk_used(&self) -> u64 {
        self.worker.load(self.now).tiers[1].used_bytes
    }
}

pub fn starts(actions: &[Action], index: u32) -> bool {
    actions.iter().any(
        |action| matches!(action, Action::Start { task: started, .. } if *started == task(index)),
    )
}

pub fn fetches(actions: &[Action]) -> Vec<(PartitionId, WorkerId)> {
    let fetch = |action: &Action| match action {
        Action::Fetch {
            partition, from, ..
        } => Some((*partition, *from)),
        _ => None,
    };
    actions.iter().filter_map(fetch).collect()
}

pub fn spills(actions: &[Action], partition: PartitionId) -> bool {
    let is_spill = |action: &&Action| matches!(action, Action::Spill { partition: spilled, .. } if *spilled == partition);
    actions.iter().any(|action| is_spill(&action))
}

pub fn loads(actions: &[Action], partition: PartitionId) -> bool {
    let is_load = |action: &&Action| matches!(action, Action::Load { partition: loaded, .. } if *loaded == partition);
    actions.iter().any(|action| is_load(&action))
}

pub fn drops(actions: &[Action], partition: PartitionId) -> bool {
    actions.contains(&Action::Drop { partition })
}

pub fn stops(actions: &[Action], index: u32) -> bool {
    let (task, attempt) = (task(index), FIRST);
    actions.contains(&Action::Stop { task, attempt })
}

/// What was told to the scheduler, in order.
pub fn messages(actions: &[Action]) -> Vec<&WorkerMessage> {
    let mut messages = Vec::new();
    for action in actions {
        if let Action::ToScheduler(message) = action {
            messages.push(message);
        }
    }
    messages
}

pub fn events(actions: &[Action]) -> Vec<Event> {
    let events = |message: &WorkerMessage| match message {
        WorkerMessage::Events { events } => events.clone(),
        _ => vec![],
    };
    let records = messages(actions).into_iter().flat_map(events);
    records.map(|record| record.event).collect()
}

pub fn says(actions: &[Action], message: &WorkerMessage) -> bool {
    messages(actions).contains(&message)
}

pub fn says_cancelled(actions: &[Action], index: u32) -> bool {
    let (task, attempt) = (task(index), FIRST);
    says(actions, &WorkerMessage::Cancelled { task, attempt })
}

pub fn says_finished(actions: &[Action], index: u32) -> bool {
    messages(actions).iter().any(
        |message| matches!(message, WorkerMessage::Finished { task: it, .. } if *it == task(index)),
    )
}

pub fn says_missing(actions: &[Action], index: u32, missing: &[(PartitionId, WorkerId)]) -> bool {
    says_missing_for(actions, index, missing, MissingCause::Gone)
}

/// As [`says_missing`], for that cause.
pub fn says_missing_for(
    actions: &[Action],
    index: u32,
    missing: &[(PartitionId, WorkerId)],
    cause: MissingCause,
) -> bool {
    let message = WorkerMessage::MissingInputs {
        task: task(index),
        attempt: FIRST,
        missing: missing.to_vec(),
        cause,
    };
    says(actions, &message)
}

/// Kind and text of the failure of a task, if one was told.
pub fn failure(actions: &[Action], index: u32) -> Option<(TaskErrorKind, String)> {
    messages(actions)
        .into_iter()
        .find_map(|message| match message {
            WorkerMessage::Failed { error, .. } if error.task == task(index) => {
                Some((error.kind, error.message.clone()))
            }
            _ => None,
        })
}

/// The operator of a task waits for something, without its slots.
pub fn secede(bench: &mut Bench, index: u32) -> Vec<Action> {
    bench.input(Input::Secede {
        task: task(index),
        attempt: FIRST,
    })
}

/// It has what it waited for.
pub fn rejoin(bench: &mut Bench, index: u32) -> Vec<Action> {
    bench.input(Input::Rejoin {
        task: task(index),
        attempt: FIRST,
    })
}

/// Whether it goes on, and the scheduler hears of that.
pub fn resumes(actions: &[Action], index: u32) -> bool {
    let resume = Action::Resume {
        task: task(index),
        attempt: FIRST,
    };
    let rejoined = WorkerMessage::Rejoined {
        task: task(index),
        attempt: FIRST,
    };
    let resumed = actions.contains(&resume);
    assert_eq!(resumed, messages(actions).contains(&&rejoined));
    resumed
}
