//! The main loop: takes what happens next from the agenda and hands it to the machine that it concerns.
//!
//! The driver of the scheduler's machine is in `driver`; the driver of the workers' is in `process`.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{self, AssertUnwindSafe};

use transload_protocol::{Attempt, ClientMessage, JournalEntry, TaskId, Time, WorkerId};
use transload_scheduler::{Config, Input, Scheduler};
use transload_worker::Input as WorkerInput;

use crate::client::Client;
use crate::faults::{self, Fault};
use crate::network::{Connection, FetchAnswer, Happening, TaskRun};
use crate::process::{Death, Life, Process};
use crate::scenario::Scenario;
use crate::trace::{Failure, Tracing};
use crate::world::{Reader, Report, Step, World};

mod crash;
mod driver;
mod ending;
mod inside;
mod mishaps;
mod transfers;

/// Most steps of one run: a run that needs more hangs.
const MAX_STEPS: u64 = 1_000_000;

/// One run of a [`Scenario`].
pub struct Simulation {
    world: World,
    scheduler: Scheduler,
    config: Config,
    /// Everything that the schedulers wrote down so far.
    journal: Vec<JournalEntry>,
    /// How many schedulers there were before this one.
    epoch: u32,
    /// The scheduler has taken in something that it has not decided about yet; it will.
    undecided: bool,
    scheduler_tick: Option<(Time, u64)>,
    processes: Vec<Process>,
    clients: Vec<Client>,
    /// Tasks that wait for graphs of their own, and the clients that see to these.
    inside: Vec<(TaskRun, usize)>,
    workers: BTreeMap<WorkerId, usize>,
    /// What each process was told to run and has not answered, as the scheduler's connection sees it.
    assigned: BTreeMap<usize, BTreeSet<(TaskId, Attempt)>>,
    stopped: bool,
    /// Somebody came to take all names away.
    is_swept: bool,
    /// While nothing is on its way: until when to wait for something to come of it.
    rest_until: Option<Time>,
    /// Until when the scheduler does nothing.
    stalled_until: Time,
    steps: u64,
}

impl Simulation {
    /// Runs the scenario of a seed.
    ///
    /// # Errors
    /// A [`Failure`] with the last events before it.
    pub fn run(seed: u64) -> Result<Report, Failure> {
        Self::play(Scenario::from_seed(seed))
    }

    /// Runs a scenario. Where it fails it is run again with tracing, to tell what came before.
    ///
    /// # Errors
    /// A [`Failure`] with the last events before it.
    pub fn play(scenario: Scenario) -> Result<Report, Failure> {
        Self::trace(scenario.clone(), Tracing::Off)
            .or_else(|_| Self::trace(scenario, Tracing::Tail))
    }

    /// Runs a scenario once, with the given tracing.
    ///
    /// # Errors
    /// A [`Failure`] with the last events before it, where tracing is on.
    pub fn trace(scenario: Scenario, tracing: Tracing) -> Result<Report, Failure> {
        let seed = scenario.seed;
        let mut simulation = Self::new(scenario, tracing).map_err(|reason| Failure {
            seed,
            step: 0,
            at: Time::default(),
            reason,
            tail: Vec::new(),
        })?;
        // A panic of a machine is a failure like any other, and must tell its seed.
        let end = panic::catch_unwind(AssertUnwindSafe(|| simulation.run_to_end()));
        let reason = match end {
            Ok(Ok(())) => return Ok(simulation.into_report()),
            Ok(Err(reason)) => reason,
            Err(payload) => {
                let text = payload.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
                format!("panic: {}", text.unwrap_or("of an unknown kind"))
            }
        };
        Err(Failure {
            seed,
            step: simulation.steps,
            at: simulation.world.now,
            reason,
            tail: simulation.world.trace.into_tail(),
        })
    }

    fn new(scenario: Scenario, tracing: Tracing) -> Result<Self, String> {
        let config = Config {
            queue_per_slot: scenario.queue_per_slot,
            max_queue_per_slot: scenario.max_queue_per_slot,
            worker_timeout_ms: scenario.worker_timeout_ms,
            worker_deaths_per_task: scenario.worker_deaths_per_task,
            retry_backoff_ms: scenario.retry_backoff_ms,
            retry_backoff_limit_ms: 1_000,
            task_events: true,
            progress_interval_ms: 100,
            recovery_grace_ms: 1_000,
            straggler_factor: 1,
            straggler_after_ms: 20,
            unschedulable_grace_ms: scenario.unschedulable_grace_ms,
            journal: scenario.scheduler_crashes > 0,
            ..Config::default()
        };
        let mut world = World::new(scenario, tracing);
        faults::plan(
            &world.scenario.clone(),
            &mut world.random,
            &mut world.agenda,
        );
        let processes = (0..world.scenario.workers as usize)
            .map(|index| Process::new(index, &mut world))
            .collect();
        let clients = (0..world.scenario.clients as usize)
            .map(|index| Client::new(index, &mut world))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            world,
            scheduler: Scheduler::new(config.clone()),
            config,
            journal: Vec::new(),
            epoch: 0,
            scheduler_tick: None,
            undecided: false,
            processes,
            clients,
            inside: Vec::new(),
            workers: BTreeMap::new(),
            assigned: BTreeMap::new(),
            stopped: false,
            is_swept: false,
            rest_until: None,
            stalled_until: Time::default(),
            steps: 0,
        })
    }

    fn into_report(mut self) -> Report {
        self.world.report.steps = self.steps;
        self.world.report.micros = self.world.now.micros;
        self.world.report.hash = self.world.trace.hash();
        self.world.report.text_hash = self.world.trace.text_hash();
        self.world.report
    }

    fn run_to_end(&mut self) -> Step {
        while !self.has_ended()? {
            let Some((at, order, happening)) = self.world.agenda.pop() else {
                return Err(self.picture("hang: nothing will ever happen again"));
            };
            self.world.now = self.world.now.max(at);
            self.steps += 1;
            if self.steps > MAX_STEPS {
                return Err(self.picture("hang: too many steps"));
            }
            if let Some(until) = self.stall_of(&happening) {
                self.world.agenda.defer(until, order, happening);
                continue;
            }
            self.world.trace.mark(happening.mark() ^ (at.micros << 20));
            self.world
                .trace
                .note(self.world.now, || format!("{happening:?}"));
            let is_work = !happening.is_background() && !happening.is_plan();
            self.happen(happening)?;
            self.follow_tasks();
            if is_work && self.world.agenda.is_quiet() {
                self.check_quiet()?;
            }
        }
        self.check_end()
    }

    /// Until when the process that this happens to, or the scheduler, does nothing.
    fn stall_of(&self, happening: &Happening) -> Option<Time> {
        let process = match happening {
            Happening::WorkerWelcome {
                connection: Connection { process, .. },
                ..
            }
            | Happening::ToWorker {
                connection: Connection { process, .. },
                ..
            }
            | Happening::SchedulerGone(Connection { process, .. })
            | Happening::WorkerTick { process, .. }
            | Happening::TaskEnds { process, .. }
            | Happening::TaskSubmits(TaskRun { process, .. })
            | Happening::MoveEnds { process, .. } => *process,
            Happening::FetchArrives { fetch } => self.world.fetches.get(fetch)?.holder,
            Happening::FetchEnds { fetch, .. } => match self.world.fetches.get(fetch)?.reader {
                Reader::Process(process) => process,
                Reader::Client(_) => return None,
            },
            Happening::WorkerHello(_)
            | Happening::ToScheduler { .. }
            | Happening::WorkerGone(_)
            | Happening::ClientHello { .. }
            | Happening::FromClient { .. }
            | Happening::ClientGone { .. }
            | Happening::ClientReturns { .. }
            | Happening::SchedulerTick { .. }
            | Happening::SchedulerDecides => {
                return (self.stalled_until > self.world.now).then_some(self.stalled_until);
            }
            Happening::ClientWelcome { .. }
            | Happening::ToClient { .. }
            | Happening::ClientActs { .. }
            | Happening::Fault(_) => return None,
        };
        let until = self.processes.get(process)?.stalled_until;
        (until > self.world.now).then_some(until)
    }

    fn happen(&mut self, happening: Happening) -> Step {
        match happening {
            Happening::WorkerHello(connection) => self.on_worker_hello(connection),
            Happening::WorkerWelcome { connection, worker } => {
                self.hear(connection, WorkerInput::Connected { worker })
            }
            Happening::ToScheduler {
                connection,
                message,
            } => self.on_worker_message(connection, message),
            Happening::ToWorker {
                connection,
                message,
            } => self.hear(connection, WorkerInput::FromScheduler(message)),
            Happening::WorkerGone(connection) => self.on_worker_gone(connection),
            Happening::SchedulerGone(connection) => {
                let comes_back = self.comes_back();
                self.with_process(connection.process, |process, world| {
                    if process.connection != connection.number {
                        return Ok(());
                    }
                    if comes_back && process.id.is_some() {
                        return process.go_away(world);
                    }
                    // A worker without a scheduler ends, and so does one that was never welcomed.
                    process.die(world, Death::Killed);
                    Ok(())
                })
            }
            Happening::ClientHello { client } => self.on_client_hello(client),
            Happening::ClientWelcome { client, id } => {
                self.with_client(client, |client, world| client.welcome(world, id))
            }
            Happening::FromClient { client, message } => {
                match self
                    .clients
                    .get(client)
                    .filter(|it| !it.is_cut_off)
                    .map(|it| (it.id, it.up_until))
                {
                    Some((Some(client), until)) if self.world.now <= until => {
                        if let ClientMessage::Unreachable { task, .. } = &message {
                            self.world.injected(*task).losses += 1;
                        }
                        self.decide(Input::FromClient { client, message })
                    }
                    _ => Ok(()),
                }
            }
            Happening::ToClient { client, message } => {
                self.with_client(client, |client, world| client.on_message(world, message))
            }
            Happening::ClientGone { client } => {
                match self.clients.get(client).and_then(|client| client.id) {
                    Some(client) if self.comes_back() => self.decide(Input::FromClient {
                        client,
                        message: ClientMessage::Goodbye,
                    }),
                    Some(client) => self.decide(Input::ClientLost { client }),
                    None => Ok(()),
                }
            }
            Happening::ClientReturns { client } => self.on_client_returns(client),
            Happening::SchedulerDecides => {
                self.undecided = false;
                self.conclude(false)
            }
            Happening::SchedulerTick { token } => {
                if self
                    .scheduler_tick
                    .is_some_and(|(_, newest)| newest == token)
                {
                    self.scheduler_tick = None;
                    self.decide(Input::Tick)
                } else {
                    Ok(())
                }
            }
            Happening::WorkerTick { process, token } => {
                self.with_process(process, |process, world| process.tick(world, token))
            }
            Happening::FetchArrives { fetch } => {
                self.on_fetch_arrives(fetch);
                Ok(())
            }
            Happening::FetchEnds { fetch, answer } => self.on_fetch_ends(fetch, answer),
            Happening::TaskEnds {
                process,
                task,
                attempt,
                token,
            } => self.with_process(process, |process, world| {
                process.task_ended(world, task, attempt, token)
            }),
            Happening::TaskSubmits(run) => self.on_task_submits(run),
            Happening::MoveEnds { process, operation } => self
                .with_process(process, |process, world| {
                    process.move_ended(world, operation)
                }),
            Happening::ClientActs { client, act } => {
                self.with_client(client, |client, world| client.act(world, act))
            }
            Happening::Fault(fault) => self.on_fault(fault),
        }
    }

    /// Does something with a process, if it lives; one that dies of it may be replaced.
    fn with_process(
        &mut self,
        process: usize,
        act: impl FnOnce(&mut Process, &mut World) -> Step,
    ) -> Step {
        let Some(process) = self.processes.get_mut(process) else {
            return Ok(());
        };
        if !process.is_alive() {
            return Ok(());
        }
        act(process, &mut self.world)?;
        if !process.is_alive() {
            self.replace();
        }
        Ok(())
    }

    fn with_client(
        &mut self,
        client: usize,
        act: impl FnOnce(&mut Client, &mut World) -> Step,
    ) -> Step {
        match self.clients.get_mut(client) {
            Some(client) => act(client, &mut self.world),
            None => Ok(()),
        }
    }

    /// The scheduler says something to a worker, if the connection still stands.
    fn hear(&mut self, connection: Connection, input: WorkerInput) -> Step {
        self.with_process(connection.process, |process, world| {
            if process.connection != connection.number {
                return Ok(());
            }
            let WorkerInput::Connected { worker } = &input else {
                return process.handle(world, input);
            };
            process.id = Some(*worker);
            process.is_away = false;
            process.handle(world, input)?;
            if process.has_direct_storage() {
                process.handle(world, WorkerInput::HasDirectStorage)?;
            }
            Ok(())
        })
    }
}
