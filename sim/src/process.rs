//! A worker process: the worker machine, and a driver made of fakes (store, disk, executors, sockets).
//!
//! The driver is strict: an action that a real driver could not carry out ends the simulation.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use transload_protocol::{
    Address, Attempt, GangTable, GraphId, InputSpec, LayerIndex, LayerSpec, Memory, PartitionId,
    Resources, SchedulerToWorker, SourceTable, TaskAssignment, TaskErrorKind, TaskId, Time,
    WorkerHello, WorkerId,
};
use transload_worker::{Action, Config, GpuConfig, Input, Worker};

use crate::gangs::Incarnation;
use crate::graphs::{LABEL, OPERATOR_MEMORY_BYTES, host_of, name_of};
use crate::network::{Connection, Happening, Link};
use crate::world::{Step, World};

mod fetching;
mod gangs;
mod helping;
mod limits;
mod moving;
mod waiting;
mod work;

use fetching::Fetching;
use moving::{Move, Stored};

/// Scheme of the addresses of simulated workers; the endpoint is the number of the process.
pub(crate) const SCHEME: &str = "sim";

/// Whether a process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    Alive,
    /// Dead since then. A machine without power does not refuse connections: requests to it are never answered.
    Dead {
        since: Time,
        silent: bool,
    },
}

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Death {
    /// All that it sent arrives, then the connection ends.
    Orderly,
    /// Some of what is under way is lost, then the connection ends.
    Killed,
    /// What is under way is lost and the connection does not end.
    PowerCut,
}

/// A running operator.
#[derive(Debug, Clone)]
struct Execution {
    token: u64,
    resources: Resources,
    /// What it reads stays where it is.
    reads: BTreeSet<PartitionId>,
    /// Where its outputs are made.
    memory: Memory,
    outcome: Outcome,
    stage: Stage,
    /// How often it will still wait without its slot.
    waits: u32,
    /// The device was emptied for it.
    is_helped: bool,
    /// Whom it has to meet, where it is of a gang.
    gang: Option<Membership>,
    told_to_stop: bool,
}

/// What the operator of a gang's member knows.
#[derive(Debug, Clone, Copy)]
struct Membership {
    incarnation: Incarnation,
    members: usize,
    /// It waits without its slot, or fails, before it meets the others.
    is_late: bool,
}

/// Whether an operator works or waits for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Started ahead of time: it waits in `Process::ahead` for a slot.
    Ahead,
    Works,
    /// It waits for others of its gang to start.
    Meets,
    Waits,
    /// It has what it waited for and wants its slot back.
    WantsSlot,
}

impl Execution {
    fn holds_its_slot(&self) -> bool {
        matches!(self.stage, Stage::Works | Stage::Meets)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Done {
        values: Vec<u64>,
        runs: u32,
    },
    Fails(TaskErrorKind),
    /// A member of its gang is gone.
    LosesItsPeer,
    Stopped,
    KillsTheProcess,
}

pub(crate) struct Process {
    pub(crate) index: usize,
    pub(crate) machine: Worker,
    config: Config,
    pub(crate) id: Option<WorkerId>,
    pub(crate) life: Life,
    pub(crate) stalled_until: Time,
    pub(crate) up: Link,
    pub(crate) down: Link,
    /// Number of its newest connection to the scheduler.
    pub(crate) connection: u32,
    /// What was sent over that one and would arrive later than this is lost.
    pub(crate) up_until: Time,
    /// The connection over which the scheduler counts this worker in.
    pub(crate) counted_in: Option<u32>,
    peers: BTreeMap<WorkerId, usize>,
    layers: BTreeMap<(GraphId, LayerIndex), LayerSpec>,
    sources: BTreeMap<(GraphId, LayerIndex, u32), SourceTable>,
    /// Gangs that it was told of.
    gangs: BTreeMap<Incarnation, GangTable>,
    store: BTreeMap<PartitionId, Stored>,
    running: BTreeMap<(TaskId, Attempt), Execution>,
    /// Of these, the ones that wait for a slot, in the order in which they get it.
    ahead: VecDeque<(TaskId, Attempt)>,
    /// Fetches in flight.
    fetching: BTreeMap<PartitionId, Fetching>,
    /// What was fetched to a device and ended in host memory.
    strays: BTreeSet<PartitionId>,
    /// How often attempts that are not answered ran out of memory.
    ran_out: BTreeMap<(TaskId, Attempt), u32>,
    /// Attempts that are not answered and were said to have started.
    said_to_run: BTreeSet<(TaskId, Attempt)>,
    /// The inputs of what was assigned and not answered.
    assigned: BTreeMap<(TaskId, Attempt), BTreeSet<PartitionId>>,
    /// Partitions asked for while memory was short.
    overcommitted: BTreeSet<PartitionId>,
    moves: BTreeMap<u64, Move>,
    disks_reach_devices: bool,
    /// Its connection broke, and it was not welcomed over another one yet.
    pub(crate) is_away: bool,
    tick: Option<(Time, u64)>,
}

impl Process {
    pub(crate) fn new(index: usize, world: &mut World) -> Self {
        let (fewest, most) = world.scenario.slots_per_worker;
        let mut resources = Resources::slots(world.random.small(fewest, most));
        let has_gpu = world.scenario.gpus && world.has_gpu(index);
        if has_gpu {
            let gpus = world.random.small(1, 2);
            resources = resources.with(Resources::GPU, gpus);
        }
        let has_device = has_gpu && world.scenario.device_per_mille > 0;
        let gpu = has_device.then_some(GpuConfig {
            device_bytes: world.scenario.device_bytes,
            pinned_bytes: world.scenario.pinned_bytes,
        });
        if has_device {
            world.count("workers with devices");
        }
        if world.scenario.held_per_mille > 0 {
            resources = resources.with_memory(OPERATOR_MEMORY_BYTES);
        }
        let config = Config {
            resources,
            memory_bytes: world.scenario.memory_bytes,
            disk_bytes: world.scenario.disk_bytes,
            gpu,
            copies_in_flight: world.scenario.copies_in_flight,
            spill_above_percent: world.scenario.spill_above_percent,
            fetches_in_flight: world.scenario.fetches_in_flight,
            disk_operations_in_flight: world.scenario.disk_operations_in_flight,
            fetch_attempts: world.scenario.fetch_attempts,
            heartbeat_ms: world.scenario.heartbeat_ms,
        };
        let mut up = world.link();
        let hello = up.arrival(world.now, &mut world.random);
        world.agenda.push(
            hello,
            Happening::WorkerHello(Connection {
                process: index,
                number: 0,
            }),
        );
        world.count("workers started");
        Self {
            index,
            machine: Worker::new(config.clone()),
            config,
            id: None,
            life: Life::Alive,
            stalled_until: world.now,
            up,
            down: world.link(),
            connection: 0,
            up_until: Time::from_micros(u64::MAX),
            counted_in: None,
            peers: BTreeMap::new(),
            layers: BTreeMap::new(),
            sources: BTreeMap::new(),
            gangs: BTreeMap::new(),
            store: BTreeMap::new(),
            running: BTreeMap::new(),
            ahead: VecDeque::new(),
            fetching: BTreeMap::new(),
            strays: BTreeSet::new(),
            ran_out: BTreeMap::new(),
            said_to_run: BTreeSet::new(),
            assigned: BTreeMap::new(),
            overcommitted: BTreeSet::new(),
            moves: BTreeMap::new(),
            disks_reach_devices: world.scenario.direct_storage,
            is_away: false,
            tick: None,
        }
    }

    pub(crate) fn hello(&self) -> WorkerHello {
        WorkerHello {
            name: name_of(self.index),
            host: host_of(self.index),
            process: u32::try_from(self.index).unwrap_or(0),
            resources: self.config.resources.clone(),
            memory_bytes: self.config.memory_bytes,
            addresses: vec![Address::new(SCHEME, self.index.to_string())],
            labels: (self.index % 2 == 1)
                .then(|| LABEL.to_owned())
                .into_iter()
                .collect(),
            shared: BTreeSet::from([Resources::GPU.to_owned()]),
            gpu: None,
        }
    }

    /// Whether device memory goes to disk without memory of the host in between.
    pub(crate) fn has_direct_storage(&self) -> bool {
        self.config.gpu.is_some() && self.disks_reach_devices
    }

    /// Its newest connection to the scheduler.
    pub(crate) fn connection(&self) -> Connection {
        Connection {
            process: self.index,
            number: self.connection,
        }
    }

    /// The scheduler counts this worker in.
    pub(crate) fn in_cluster(&self) -> bool {
        self.counted_in.is_some()
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.life == Life::Alive
    }

    /// Everything that a task reads.
    fn inputs_of(&self, task: &TaskAssignment) -> BTreeSet<PartitionId> {
        let mut inputs: BTreeSet<_> = task.inputs.iter().map(|input| input.partition).collect();
        let graph = task.task.graph;
        let Some(spec) = self.layers.get(&(graph, task.layer)) else {
            return inputs;
        };
        for (input, reads) in (0..).zip(&spec.inputs) {
            let (first_task, output) = match reads {
                InputSpec::Listed => continue,
                InputSpec::Column { first_task } => {
                    (*first_task, task.task.index - spec.first_task)
                }
                InputSpec::All { first_task, .. } => (*first_task, 0),
            };
            let table = self.sources.get(&(graph, task.layer, input));
            let sources = table.map_or(0, |table| u32::try_from(table.len()).unwrap_or(0));
            inputs.extend((0..sources).map(|position| PartitionId {
                task: TaskId {
                    graph,
                    index: first_task + position,
                },
                output,
            }));
        }
        inputs
    }

    /// The connection to the scheduler broke: the process keeps what it has, and comes back after a while.
    pub(crate) fn go_away(&mut self, world: &mut World) -> Step {
        if self.is_away {
            return Err(format!(
                "process {} loses a connection that it does not have",
                self.index
            ));
        }
        world.count("workers cut off");
        self.handle(world, Input::Disconnected)?;
        self.layers.clear();
        self.sources.clear();
        self.gangs.clear();
        self.assigned.clear();
        self.overcommitted.clear();
        self.said_to_run.clear();
        self.is_away = true;
        self.connection += 1;
        self.up_until = Time::from_micros(u64::MAX);
        let later = world.random.below(400_000);
        let at = self
            .up
            .arrival(world.now.after_micros(later), &mut world.random);
        let hello = Happening::WorkerHello(self.connection());
        world.agenda.push(at, hello);
        Ok(())
    }

    /// Feeds the machine, checks it, and carries out what it wants.
    pub(crate) fn handle(&mut self, world: &mut World, input: Input) -> Step {
        let mut actions = Vec::new();
        let ticked = input == Input::Tick;
        let forgotten = match &input {
            Input::FromScheduler(SchedulerToWorker::Forget { graph }) => Some(*graph),
            _ => None,
        };
        if let Input::FromScheduler(SchedulerToWorker::Sources {
            graph,
            layer,
            input,
            sources,
        }) = &input
        {
            self.sources
                .insert((*graph, *layer, *input), sources.clone());
        }
        if let Input::FromScheduler(SchedulerToWorker::Gang {
            graph,
            layer,
            incarnation,
            members,
        }) = &input
        {
            self.gangs
                .insert((*graph, *layer, *incarnation), members.clone());
        }
        if let Input::FromScheduler(SchedulerToWorker::Layer { graph, layer, spec }) = &input {
            self.layers.insert((*graph, *layer), (**spec).clone());
        }
        if let Input::FromScheduler(SchedulerToWorker::Assign { tasks }) = &input {
            for task in tasks {
                let inputs = self.inputs_of(task);
                self.assigned.insert((task.task, task.attempt), inputs);
            }
        }
        self.machine.handle(world.now, input, &mut actions);
        self.machine
            .check()
            .map_err(|error| format!("process {}: check: {error}", self.index))?;
        for action in actions {
            world
                .trace
                .note(world.now, || format!("    p{} {action:?}", self.index));
            self.act(world, action)
                .map_err(|error| format!("process {}: {error}", self.index))?;
            if !self.is_alive() {
                return Ok(());
            }
        }
        if let Some(graph) = forgotten {
            self.layers.retain(|(of, _), _| *of != graph);
            self.gangs.retain(|(of, ..), _| *of != graph);
        }
        self.check_limits()
            .map_err(|error| format!("process {}: {error}", self.index))?;
        self.set_tick(world, ticked)
    }

    fn set_tick(&mut self, world: &mut World, ticked: bool) -> Step {
        let wanted = self.machine.next_deadline();
        if let Some(deadline) = wanted.filter(|deadline| ticked && *deadline <= world.now) {
            return Err(format!(
                "process {}: wants a tick at {} us right after one at {} us",
                self.index, deadline.micros, world.now.micros
            ));
        }
        if wanted == self.tick.map(|(deadline, _)| deadline) {
            return Ok(());
        }
        self.tick = wanted.map(|deadline| {
            let token = world.token();
            let late = world.random.below(500);
            world.agenda.push(
                deadline.max(world.now).after_micros(late),
                Happening::WorkerTick {
                    process: self.index,
                    token,
                },
            );
            (deadline, token)
        });
        Ok(())
    }

    /// A timer went off; timers that were set before a later one mean nothing.
    pub(crate) fn tick(&mut self, world: &mut World, token: u64) -> Step {
        if self.tick.is_none_or(|(_, newest)| newest != token) {
            return Ok(());
        }
        self.tick = None;
        self.handle(world, Input::Tick)
    }

    fn act(&mut self, world: &mut World, action: Action) -> Step {
        match action {
            Action::ToScheduler(message) => {
                self.note_answer(&message)?;
                let at = self.up.arrival(world.now, &mut world.random);
                let connection = self.connection();
                world.agenda.push(
                    at,
                    Happening::ToScheduler {
                        connection,
                        message,
                    },
                );
                Ok(())
            }
            Action::AddPeer { worker, addresses } => {
                let process = process_at(&addresses)
                    .ok_or_else(|| format!("no usable address of worker {worker}"))?;
                self.peers.insert(worker, process);
                Ok(())
            }
            Action::RemovePeer { worker } => {
                self.remove_peer(world, worker);
                Ok(())
            }
            Action::Fetch {
                partition,
                from,
                bytes,
                memory,
            } => self.fetch(world, partition, from, (bytes, memory)),
            Action::CancelFetch { partition } => self.cancel_fetch(world, partition),
            Action::Start {
                task,
                attempt,
                layer,
                inputs,
                halved,
            } => self.start(world, task, attempt, (layer, halved), &inputs),
            Action::Stop { task, attempt } => self.stop(world, task, attempt),
            Action::Spill { partition, to } => self.move_partition(world, partition, (true, to)),
            Action::Load { partition, to } => self.move_partition(world, partition, (false, to)),
            Action::Drop { partition } => self.drop_stored(partition),
            Action::Resume { task, attempt } => self.resume(world, task, attempt),
            Action::Exit => {
                self.die(world, Death::Orderly);
                Ok(())
            }
        }
    }
}

/// The process that listens at one of the addresses.
pub(crate) fn process_at(addresses: &[Address]) -> Option<usize> {
    addresses
        .iter()
        .find(|address| address.scheme == SCHEME)
        .and_then(|address| address.endpoint.parse().ok())
}
