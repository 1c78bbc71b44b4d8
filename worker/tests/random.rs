//! The worker machine under arbitrary assignments, answers, failures and releases, against a driver that checks each action.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use transload_protocol::{
    Arguments, Attempt, ClientId, GraphId, InputLocation, InputSpec, LayerIndex, LayerSpec, Memory,
    PartitionId, PeerTable, Resources, SchedulerToWorker, TaskAssignment, TaskErrorKind, TaskId,
    Tier, Time, WorkerId, WorkerMessage,
};
use transload_worker::{Action, Config, FetchFault, Given, GpuConfig, Input, Worker};

const SELF: WorkerId = WorkerId(0);
const GRAPHS: u32 = 2;
/// Tasks below run on this worker, those above on its peers.
const LOCAL_TASKS: u32 = 8;
const REMOTE_TASKS: u32 = 6;

/// The layer whose tasks are members of gangs.
const GANG: u32 = 3;
/// The layer whose tasks work in device memory.
const DEVICE: u32 = 4;
/// The layer whose tasks do so as members of gangs.
const DEVICE_GANG: u32 = 5;

/// What the driver of the test is doing with a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Fetch(WorkerId, Memory),
    Spill(Tier),
    Load(Tier),
}

/// In which memory a task works: every third in that of the device.
fn memory_of(task: TaskId) -> Memory {
    if task.index.is_multiple_of(3) {
        Memory::Device
    } else {
        Memory::Host
    }
}

/// Where an action brings a partition that is not in memory that holds it already.
fn goes_to(action: &Action) -> Option<Tier> {
    match action {
        Action::Fetch { memory, .. } => Some(memory.tier()),
        Action::Load { to, .. } | Action::Spill { to, .. } => Some(*to),
        _ => None,
    }
}

/// A driver and a scheduler as unruly as the protocol allows, and a little more.
struct World {
    worker: Worker,
    now: Time,
    has_gpu: bool,
    has_direct_storage: bool,
    /// Partitions in the driver's store.
    stored: BTreeMap<PartitionId, Tier>,
    /// Of these, those that came to host memory instead of to the device, and stay there.
    fetched_to_host: BTreeSet<PartitionId>,
    operations: BTreeMap<PartitionId, Operation>,
    /// Cancelled fetches that may still answer.
    late: Vec<(PartitionId, WorkerId, Memory)>,
    running: BTreeMap<TaskId, (Attempt, BTreeSet<PartitionId>)>,
    /// Of these, those that wait without a slot, and those of them that want it back.
    seceded: BTreeSet<TaskId>,
    rejoining: BTreeSet<TaskId>,
    /// How often each attempt was answered.
    answers: BTreeMap<(TaskId, Attempt), u32>,
    /// Attempts of members of gangs.
    members: BTreeSet<(TaskId, Attempt)>,
    next_attempt: u32,
    sequence: [u32; GRAPHS as usize],
    peers: BTreeSet<WorkerId>,
    next_peer: u32,
    /// Inputs that arrive together with the next one, before the machine decides.
    holds_back: u32,
    has_left: bool,
    /// The connection to the scheduler is broken.
    is_away: bool,
    /// Attempts of before a broken connection, of which nobody waits for an answer.
    forgiven: BTreeSet<(TaskId, Attempt)>,
}

/// One step: what, and two numbers to choose with.
type Step = (u8, u16, u16);

impl World {
    fn new(config: Config, has_direct_storage: bool) -> Self {
        let mut world = Self {
            has_gpu: config.gpu.is_some(),
            has_direct_storage: has_direct_storage && config.gpu.is_some(),
            worker: Worker::new(config),
            now: Time::default(),
            stored: BTreeMap::new(),
            fetched_to_host: BTreeSet::new(),
            operations: BTreeMap::new(),
            late: Vec::new(),
            running: BTreeMap::new(),
            seceded: BTreeSet::new(),
            rejoining: BTreeSet::new(),
            answers: BTreeMap::new(),
            members: BTreeSet::new(),
            next_attempt: 0,
            sequence: [0; GRAPHS as usize],
            peers: BTreeSet::new(),
            next_peer: 1,
            holds_back: 0,
            has_left: false,
            is_away: false,
            forgiven: BTreeSet::new(),
        };
        world.input(Input::Connected { worker: SELF });
        if world.has_direct_storage {
            world.input(Input::HasDirectStorage);
        }
        for _ in 0..3 {
            world.add_peer();
        }
        for graph in 0..GRAPHS {
            world.announce_layers(graph);
        }
        world
    }

    fn add_peer(&mut self) {
        let worker = WorkerId(self.next_peer);
        self.next_peer += 1;
        self.peers.insert(worker);
        let peers = PeerTable::of(worker, &[]);
        self.send(SchedulerToWorker::Peers { peers });
    }

    fn announce_layers(&mut self, graph: u32) {
        for (layer, slots) in [
            (0, 1),
            (1, 2),
            (2, 3),
            (GANG, 1),
            (DEVICE, 1),
            (DEVICE_GANG, 1),
        ] {
            let resources = Resources::slots(slots);
            let (memory, resources) = match layer {
                DEVICE | DEVICE_GANG => (Memory::Device, resources.with(Resources::GPU, 1)),
                _ => (Memory::Host, resources),
            };
            let spec = LayerSpec {
                name: format!("layer-{layer}"),
                operator: "op".to_owned(),
                arguments: Arguments::default(),
                first_task: 0,
                outputs: 2,
                inputs: vec![InputSpec::Listed; 2],
                resources,
                fused: None,
                gang: layer == GANG || layer == DEVICE_GANG,
                memory,
                input_memory: vec![Memory::Host, Memory::Device],
            };
            self.send(SchedulerToWorker::Layer {
                graph: self.graph(graph),
                layer: LayerIndex(layer),
                spec: spec.into(),
            });
        }
    }

    fn graph(&self, graph: u32) -> GraphId {
        GraphId {
            client: ClientId(graph),
            sequence: self.sequence[graph as usize],
        }
    }

    fn send(&mut self, message: SchedulerToWorker) {
        self.input(Input::FromScheduler(message));
    }

    fn input(&mut self, input: Input) {
        let mut out = Vec::new();
        let shown = format!("{input:?}");
        self.worker.take_in(self.now, input, &mut out);
        if self.holds_back > 0 {
            // More arrives before it decides. What it says at once is done at once.
            self.holds_back -= 1;
            for action in out {
                self.carry_out(action);
            }
            return;
        }
        self.worker.decide(self.now, &mut out);
        self.worker
            .check()
            .unwrap_or_else(|error| panic!("after {shown}: {error}"));
        let deadline = self.worker.next_deadline();
        assert!(
            deadline.is_none_or(|at| at > self.now),
            "after {shown}: a tick for nothing"
        );
        let asked: BTreeSet<Tier> = out.iter().filter_map(goes_to).collect();
        for action in out {
            self.carry_out(action);
        }
        for tier in self.worker.load(self.now).tiers {
            let mut running = self.running.iter();
            let is_overcommitted = tier.tier == Tier::Host
                && running.all(|(task, (attempt, _))| {
                    self.seceded.contains(task) || self.members.contains(&(*task, *attempt))
                });
            assert!(
                !asked.contains(&tier.tier)
                    || tier.used_bytes <= tier.limit_bytes
                    || is_overcommitted,
                "after {shown}: asks for more than fits, {tier:?}"
            );
        }
    }

    fn carry_out(&mut self, action: Action) {
        assert!(!self.has_left, "{action:?} after the exit");
        match action {
            Action::ToScheduler(message) => self.hear(message),
            Action::AddPeer { .. } => {}
            // Ends fetches from it with an answer, some later time.
            Action::RemovePeer { worker } => assert!(!self.peers.contains(&worker)),
            Action::Fetch {
                partition,
                from,
                memory,
                ..
            } => {
                assert!(!self.stored.contains_key(&partition), "{partition} is here");
                let fetch = Operation::Fetch(from, memory);
                let before = self.operations.insert(partition, fetch);
                assert_eq!(before, None, "{partition} is in flight");
            }
            Action::CancelFetch { partition } => match self.operations.remove(&partition) {
                Some(Operation::Fetch(from, memory)) => self.late.push((partition, from, memory)),
                other => panic!("cancels the fetch of {partition}, which is {other:?}"),
            },
            Action::Start {
                task,
                attempt,
                inputs,
                ..
            } => {
                assert_eq!(inputs.len(), 2);
                let held = |given| match given {
                    Given::Held(partition) => Some(partition),
                    Given::Empty(_) => None,
                };
                let inputs: BTreeSet<_> = inputs.into_iter().flatten().filter_map(held).collect();
                for input in &inputs {
                    let tier = self.stored.get(input);
                    let is_ready = tier == Some(&self.read_in(*input))
                        || tier == Some(&Tier::Host) && self.fetched_to_host.contains(input);
                    assert!(is_ready, "{input} of {task}: {tier:?}");
                    assert_eq!(self.operations.get(input), None, "{input} of {task}");
                }
                let mut left = self.stored.keys().chain(self.operations.keys());
                assert!(left.all(|partition| partition.task != task), "{task} again");
                assert!(self.running.insert(task, (attempt, inputs)).is_none());
            }
            Action::Stop { task, attempt } => assert_eq!(self.running[&task].0, attempt),
            Action::Spill { partition, to } => {
                let from = self.stored[&partition];
                let is_way = match (from, to) {
                    (Tier::Device, Tier::PinnedHost) => true,
                    (Tier::PinnedHost | Tier::Host, Tier::Disk) => true,
                    (Tier::Device, Tier::Disk) => self.has_direct_storage,
                    _ => false,
                };
                assert!(is_way, "{partition} from {from} to {to}");
                self.begin(partition, Operation::Spill(to), from);
                let mut readers = self.running.values();
                assert!(readers.all(|(_, inputs)| !inputs.contains(&partition)));
            }
            Action::Load { partition, to } => {
                let from = self.stored[&partition];
                let is_way = match (from, to) {
                    (Tier::PinnedHost, Tier::Device) | (Tier::Disk, Tier::Host) => true,
                    (Tier::Disk, Tier::PinnedHost) => !self.has_direct_storage,
                    (Tier::Disk, Tier::Device) => self.has_direct_storage,
                    _ => false,
                };
                assert!(is_way, "{partition} from {from} to {to}");
                self.begin(partition, Operation::Load(to), from);
            }
            Action::Drop { partition } => {
                assert_eq!(self.operations.get(&partition), None, "{partition} moves");
                let mut readers = self.running.values();
                assert!(readers.all(|(_, inputs)| !inputs.contains(&partition)));
                self.stored.remove(&partition);
            }
            Action::Exit => self.has_left = true,
            Action::Resume { task, attempt } => {
                assert_eq!(self.running[&task].0, attempt);
                assert!(self.rejoining.remove(&task), "{task} did not ask");
                self.seceded.remove(&task);
            }
        }
    }

    /// Where a partition is read here.
    fn read_in(&self, partition: PartitionId) -> Tier {
        if self.has_gpu {
            memory_of(partition.task).tier()
        } else {
            Tier::Host
        }
    }

    fn begin(&mut self, partition: PartitionId, operation: Operation, from: Tier) {
        assert_eq!(self.stored.get(&partition), Some(&from));
        let before = self.operations.insert(partition, operation);
        assert_eq!(before, None, "{partition} is in flight");
    }

    fn hear(&mut self, message: WorkerMessage) {
        let answered = match message {
            WorkerMessage::Finished { task, attempt, .. }
            | WorkerMessage::MissingInputs { task, attempt, .. }
            | WorkerMessage::Cancelled { task, attempt }
            | WorkerMessage::HeldUp { task, attempt, .. } => (task, attempt),
            WorkerMessage::Failed { attempt, error, .. } => (error.task, attempt),
            WorkerMessage::Inventory(inventory) => {
                let running = inventory.running.iter();
                assert!(
                    running
                        .into_iter()
                        .all(|(task, attempt)| self.running[task].0 == *attempt)
                );
                return;
            }
            WorkerMessage::Started { .. }
            | WorkerMessage::Lost { .. }
            | WorkerMessage::Heartbeat { .. }
            | WorkerMessage::Events { .. }
            | WorkerMessage::Seceded { .. }
            | WorkerMessage::Rejoined { .. }
            | WorkerMessage::Goodbye => return,
        };
        assert!(!self.is_away, "{answered:?} is told to nobody");
        let times = self.answers.get_mut(&answered).expect("was assigned");
        *times += 1;
        assert_eq!(*times, 1, "{answered:?} is answered again");
    }

    fn any_task(&self, a: u16) -> TaskId {
        let index = u32::from(a) / GRAPHS % (LOCAL_TASKS + REMOTE_TASKS);
        TaskId {
            graph: self.graph(u32::from(a) % GRAPHS),
            index,
        }
    }

    fn step(&mut self, (kind, a, b): Step) {
        if self.holds_back == 0 && (a ^ b) % 4 == 0 {
            self.holds_back = u32::from(b % 3);
        }
        if self.is_away {
            match kind % 16 {
                0 | 1 => self.come_back(),
                2..=8 => {
                    self.now = self.now.after_micros(u64::from(a) * 20);
                    self.input(Input::Tick);
                }
                9..=11 => self.end_a_task(a, b % 8 == 0, b),
                12 => self.wait_or_go_on(a, b),
                _ => self.end_an_operation(a, b % 8 == 0, b / 8),
            }
            return;
        }
        match kind % 16 {
            13 if a % 32 == 0 => self.go_away(),
            13 if a % 8 == 1 => {
                let task = self.any_task(b);
                let attempts = self.answers.keys();
                let attempt = attempts.rev().find(|(it, _)| *it == task);
                let attempt = attempt.map_or(Attempt(0), |(_, attempt)| *attempt);
                if b % 4 == 0 {
                    self.send(SchedulerToWorker::Disown { task, attempt });
                } else {
                    self.send(SchedulerToWorker::Recall { task, attempt });
                }
            }
            0..=3 => self.assign(a, b),
            4 if a % 2 == 0 => {
                let task = self.any_task(a);
                let attempts = self.answers.keys();
                let attempt = attempts.rev().find(|(it, _)| *it == task);
                let attempt = attempt.map_or(Attempt(0), |(_, attempt)| *attempt);
                self.send(SchedulerToWorker::Cancel { task, attempt });
            }
            5 if a % 4 == 0 => {
                let tasks = vec![self.any_task(a), self.any_task(b)];
                self.send(SchedulerToWorker::Release { tasks });
            }
            6 if a % 16 == 0 => {
                let graph = u32::from(b) % GRAPHS;
                let forgotten = self.graph(graph);
                self.send(SchedulerToWorker::Forget { graph: forgotten });
                self.sequence[graph as usize] += 1;
                self.announce_layers(graph);
            }
            7 if a % 4 == 0 => {
                let gone = self.peers.iter().nth(usize::from(b) % self.peers.len());
                let gone = *gone.expect("there are always some");
                self.peers.remove(&gone);
                self.send(SchedulerToWorker::PeerLost { worker: gone });
                self.add_peer();
            }
            8 => {
                self.now = self.now.after_micros(u64::from(a) * 20);
                self.input(Input::Tick);
            }
            9..=10 => self.end_a_task(a, b % 8 == 0, b),
            12 if a % 2 == 0 => self.wait_or_go_on(a, b),
            11 if !self.late.is_empty() => {
                let late = self.late.swap_remove(usize::from(a) % self.late.len());
                // After a broken connection it may have been asked for again: a driver tells these apart.
                let id = &late.0;
                if !self.operations.contains_key(id) && !self.stored.contains_key(id) {
                    self.answer_fetch(late, b % 2 == 0, b);
                }
            }
            _ => self.end_an_operation(a, b % 8 == 0, b / 8),
        }
    }

    /// The connection breaks: nobody waits for what was assigned before.
    fn go_away(&mut self) {
        self.is_away = true;
        self.peers.clear();
        self.forgiven.extend(self.answers.keys().copied());
        self.input(Input::Disconnected);
    }

    fn come_back(&mut self) {
        self.is_away = false;
        self.input(Input::Connected { worker: SELF });
        for _ in 0..3 {
            self.add_peer();
        }
        for graph in 0..GRAPHS {
            self.announce_layers(graph);
        }
    }

    fn assign(&mut self, a: u16, b: u16) {
        let task = TaskId {
            graph: self.graph(u32::from(a) % GRAPHS),
            index: u32::from(a) / 2 % LOCAL_TASKS,
        };
        let mut bits = (u32::from(b) << 16) | u32::from(a);
        let mut draw = |below: u32| {
            bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (bits >> 8) % below
        };
        let here: Vec<_> = self.stored.keys().copied().collect();
        let peers: Vec<_> = self.peers.iter().copied().collect();
        let mut inputs = Vec::new();
        for _ in 0..draw(5) {
            // Mostly the truth: a partition that is here, or one that a peer has.
            let is_wild = draw(16) == 0;
            let index = if is_wild {
                draw(LOCAL_TASKS + REMOTE_TASKS)
            } else {
                LOCAL_TASKS + draw(REMOTE_TASKS)
            };
            let mut partition = PartitionId {
                task: TaskId {
                    graph: task.graph,
                    index,
                },
                output: draw(2),
            };
            let mut worker = if is_wild && draw(2) == 0 {
                WorkerId(draw(self.next_peer))
            } else {
                peers[draw(3) as usize]
            };
            if !is_wild && !here.is_empty() && draw(2) == 0 {
                let held = here[draw(u32::try_from(here.len()).expect("small")) as usize];
                if held.task.graph == task.graph && held.task != task {
                    partition = held;
                    worker = if held.task.index < LOCAL_TASKS {
                        SELF
                    } else {
                        worker
                    };
                }
            }
            inputs.push(InputLocation {
                input: u32::from(memory_of(partition.task) == Memory::Device),
                partition,
                worker,
                bytes: u64::from(draw(5) * 13),
                shared: draw(3) == 0,
            });
        }
        let attempt = Attempt(self.next_attempt);
        self.next_attempt += 1;
        self.answers.insert((task, attempt), 0);
        let layer = LayerIndex(match draw(12) {
            0 => 2,
            1 | 2 => GANG,
            _ => draw(2),
        });
        let layer = match memory_of(task) {
            Memory::Device if self.has_gpu && draw(8) == 0 => LayerIndex(DEVICE_GANG),
            Memory::Device if self.has_gpu => LayerIndex(DEVICE),
            Memory::Device | Memory::Host => layer,
        };
        if layer.0 == GANG || layer.0 == DEVICE_GANG {
            self.members.insert((task, attempt));
        }
        self.send(SchedulerToWorker::Assign {
            tasks: vec![TaskAssignment {
                task,
                attempt,
                layer,
                order: u64::from(draw(6)),
                inputs,
            }],
        });
    }

    /// A running task gives up its slot, wants it back, or says so again.
    fn wait_or_go_on(&mut self, a: u16, b: u16) {
        let mut running = self.running.iter();
        let Some((task, (attempt, _))) =
            running.nth(usize::from(a / 2) % self.running.len().max(1))
        else {
            return;
        };
        let (task, attempt) = (*task, *attempt);
        // Now and then, what an attempt of long ago says arrives late.
        let attempt = Attempt(attempt.0 - u32::from(b.is_multiple_of(16) && attempt.0 > 0));
        let is_current = self.running[&task].0 == attempt;
        if b.is_multiple_of(2) {
            if is_current {
                self.seceded.insert(task);
                self.rejoining.remove(&task);
            }
            self.input(Input::Secede { task, attempt });
        } else {
            if is_current {
                self.rejoining.insert(task);
            }
            self.input(Input::Rejoin { task, attempt });
        }
    }

    fn end_a_task(&mut self, a: u16, fails: bool, b: u16) {
        if self.running.is_empty() {
            return;
        }
        let task = *self
            .running
            .keys()
            .nth(usize::from(a) % self.running.len())
            .expect("not empty");
        let (attempt, _) = self.running.remove(&task).expect("it runs");
        self.seceded.remove(&task);
        self.rejoining.remove(&task);
        if fails {
            let kind = if b.is_multiple_of(3) {
                TaskErrorKind::OutOfMemory
            } else {
                TaskErrorKind::Operator
            };
            let message = "bad row".to_owned();
            self.input(Input::TaskFailed {
                task,
                attempt,
                kind,
                message,
                step: None,
            });
        } else {
            let bytes = vec![u64::from(b % 70), u64::from(b / 70 % 40)];
            for output in 0..2 {
                let partition = PartitionId { task, output };
                self.fetched_to_host.remove(&partition);
                self.stored.insert(partition, self.read_in(partition));
            }
            self.input(Input::TaskDone {
                task,
                attempt,
                bytes,
                rows: 0,
            });
        }
    }

    fn end_an_operation(&mut self, a: u16, fails: bool, b: u16) {
        if self.operations.is_empty() {
            return;
        }
        let operations = self.operations.iter();
        let (partition, operation) = operations
            .map(|(partition, operation)| (*partition, *operation))
            .nth(usize::from(a) % self.operations.len())
            .expect("not empty");
        self.operations.remove(&partition);
        let reason = "broken".to_owned();
        match operation {
            Operation::Fetch(from, memory) => {
                // What once came to host memory is expected there.
                let is_expected =
                    memory == Memory::Host || memory.tier() == self.read_in(partition);
                assert!(is_expected, "{partition} to {memory:?}");
                self.answer_fetch((partition, from, memory), fails, b);
            }
            Operation::Spill(_) if fails => self.input(Input::SpillFailed { partition, reason }),
            Operation::Spill(to) => {
                self.stored.insert(partition, to);
                let bytes = u64::from(b % 60);
                self.input(Input::Spilled { partition, bytes });
            }
            Operation::Load(_) if fails => self.input(Input::LoadFailed {
                partition,
                is_lost: b.is_multiple_of(2),
                reason,
            }),
            Operation::Load(to) => {
                self.stored.insert(partition, to);
                self.input(Input::Loaded { partition });
            }
        }
    }

    fn answer_fetch(
        &mut self,
        (partition, from, memory): (PartitionId, WorkerId, Memory),
        fails: bool,
        b: u16,
    ) {
        if fails {
            self.input(Input::FetchFailed {
                partition,
                from,
                fault: [FetchFault::Gone, FetchFault::Link, FetchFault::Other][usize::from(b % 3)],
                reason: "broken".to_owned(),
            });
        } else {
            // On a device there may be no room for it in one piece.
            let tier = match (memory.tier(), b % 5) {
                (Tier::Device, 0) => Tier::PinnedHost,
                (Tier::Device, 1) => Tier::Host,
                (tier, _) => tier,
            };
            if tier == Tier::Host {
                self.fetched_to_host.insert(partition);
            } else {
                self.fetched_to_host.remove(&partition);
            }
            self.stored.insert(partition, tier);
            self.input(Input::Fetched {
                tier,
                partition,
                from,
                bytes: u64::from(b % 60),
                micros: 1,
                transport: "memory".to_owned(),
            });
        }
    }

    /// Answers everything until all tasks are through; nothing new is assigned.
    fn finish(&mut self, how: u16) {
        self.holds_back = 0;
        if self.is_away {
            self.come_back();
        }
        self.input(Input::Tick);
        for round in 0..10_000_u16 {
            if !self.operations.is_empty() {
                self.end_an_operation(round, how == 1, how.wrapping_mul(round));
            } else if !self.running.is_empty() {
                self.end_a_task(round, how == 2, how.wrapping_mul(round));
            } else if !self.worker.is_idle() {
                self.now = self.worker.next_deadline().expect("something is to come");
                self.input(Input::Tick);
            } else {
                return;
            }
        }
        panic!("tasks never end: {:?}", self.worker.load(self.now));
    }
}

fn any_config() -> impl Strategy<Value = Config> {
    let memory = prop_oneof![1 => Just(0_u64), 3 => Just(60), 4 => Just(100), 3 => Just(200), 1 => Just(10_000)];
    let disk = prop_oneof![1 => Just(0_u64), 2 => Just(100), 4 => Just(u64::MAX)];
    let limits = (1_u32..4, 1_u32..3, 1_u32..3, 0_u8..=100);
    let bytes = || prop_oneof![1 => Just(20_u64), 3 => Just(100), 2 => Just(200)];
    let gpu = proptest::option::of((bytes(), bytes(), 1_u32..3, 1_u32..3));
    (memory, disk, limits, gpu).prop_map(|(memory_bytes, disk_bytes, limits, gpu)| Config {
        resources: match gpu {
            Some((.., gpus)) => Resources::slots(2).with(Resources::GPU, gpus),
            None => Resources::slots(2),
        },
        memory_bytes,
        disk_bytes,
        copies_in_flight: gpu.map_or(1, |(_, _, copies, _)| copies),
        gpu: gpu.map(|(device_bytes, pinned_bytes, ..)| GpuConfig {
            device_bytes,
            pinned_bytes,
        }),
        spill_above_percent: limits.3,
        fetches_in_flight: limits.0,
        disk_operations_in_flight: limits.1,
        fetch_attempts: limits.2,
        heartbeat_ms: 500,
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_happens_every_task_is_answered_once_and_nothing_leaks(
        config in any_config(),
        steps in proptest::collection::vec(any::<Step>(), 0..250),
        how in 0_u16..5,
        has_direct_storage: bool,
    ) {
        let mut world = World::new(config, has_direct_storage);
        for step in steps {
            world.step(step);
        }
        world.finish(how);
        let is_answered = |(it, times): (_, &u32)| *times == 1 || world.forgiven.contains(it);
        prop_assert!(world.answers.iter().all(is_answered), "{:?}", world.answers);

        let held: BTreeMap<_, _> = world.worker.holds().into_iter().collect();
        prop_assert_eq!(held, world.stored.clone());

        for graph in 0..GRAPHS {
            let graph = world.graph(graph);
            world.send(SchedulerToWorker::Forget { graph });
        }
        world.finish(how);
        for late in std::mem::take(&mut world.late) {
            world.answer_fetch(late, how == 1, 0);
        }
        prop_assert_eq!(world.worker.holds(), vec![]);
        prop_assert!(world.stored.is_empty(), "{:?}", world.stored);
        prop_assert!(world.worker.load(world.now).tiers.iter().all(|tier| tier.used_bytes == 0));

        world.send(SchedulerToWorker::Shutdown);
        prop_assert!(world.has_left && world.worker.is_idle());
    }
}
