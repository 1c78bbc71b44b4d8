//! The machine alone: the scheduler and instant workers take turns on one thread, with no socket or codec between them.

use std::collections::VecDeque;
use std::time::Instant;

use transload_protocol::{
    ClientHello, ClientId, ClientMessage, GraphId, GraphOutcome, SchedulerToClient, Time, WorkerId,
    WorkerMessage,
};
use transload_scheduler::{Action, Config, Input, Scheduler};

use super::usage::{peak_resident_bytes, resident_bytes, thread_cpu_nanos};
use super::{BenchError, Measured, SchedulerBench, edge_count, instant};

const CLIENT: ClientId = ClientId(1);
const GRAPH: GraphId = GraphId {
    client: CLIENT,
    sequence: 0,
};
/// Arrivals that are taken in before the machine decides, as the driver does it.
const BATCH: usize = 256;

/// The machine, and what stands in for the world.
struct Run {
    scheduler: Scheduler,
    actions: Vec<Action>,
    /// All instant workers at once: they know the same layers.
    memory: instant::Memory,
    /// What they have answered and the machine has not heard yet.
    answers: VecDeque<(WorkerId, Vec<WorkerMessage>)>,
    messages: u64,
    outcome: Option<Result<GraphOutcome, BenchError>>,
    started: Instant,
}

/// Measures in this process, which should have measured nothing before.
///
/// # Errors
/// [`BenchError::Usage`], [`BenchError::Rejected`], [`BenchError::Ended`].
pub(super) fn measure(bench: SchedulerBench) -> Result<Measured, BenchError> {
    let mut run = Run::new(bench.workers, bench.slots);
    let before = resident_bytes("self")?;
    let graph = bench.graph.graph(bench.tasks, bench.seed);
    let tasks: u32 = graph.layers.iter().map(|layer| layer.tasks).sum();
    let edges = edge_count(&graph);
    let cpu_before = thread_cpu_nanos()?;
    let messages_before = run.messages;
    let started = Instant::now();
    run.submit(graph);
    run.talk_to_the_end();
    let wall_s = started.elapsed().as_secs_f64();
    let cpu_nanos = thread_cpu_nanos()?.saturating_sub(cpu_before);
    let bytes = peak_resident_bytes("self")?.saturating_sub(before);
    match run.outcome.transpose()? {
        Some(GraphOutcome::Finished) => Ok(Measured::new(
            bench,
            tasks,
            edges,
            wall_s,
            cpu_nanos,
            bytes,
            run.messages - messages_before,
        )),
        outcome => Err(BenchError::Ended(outcome.map(Box::new))),
    }
}

impl Run {
    fn new(workers: u32, slots: u32) -> Self {
        let config = Config {
            // Nobody dies here.
            worker_timeout_ms: u32::MAX,
            // As in a scheduler process that logs no more than usual.
            task_events: false,
            ..Config::default()
        };
        let mut run = Self {
            scheduler: Scheduler::new(config),
            actions: Vec::new(),
            memory: instant::Memory::default(),
            answers: VecDeque::new(),
            messages: 0,
            outcome: None,
            started: Instant::now(),
        };
        let hello = ClientHello {
            name: "bench".to_owned(),
        };
        let now = run.now();
        let client = CLIENT;
        run.feed(now, Input::ClientConnected { client, hello });
        for number in 0..workers {
            let (worker, hello) = (instant::id(number), instant::hello(number, slots));
            run.feed(now, Input::WorkerConnected { worker, hello });
        }
        run
    }

    fn submit(&mut self, tasks: transload_protocol::TaskGraph) {
        let message = ClientMessage::Submit {
            graph: GRAPH,
            tasks,
        };
        let client = CLIENT;
        self.messages += 1;
        self.feed(self.now(), Input::FromClient { client, message });
    }

    /// Lets workers and machine talk until nobody has anything to say.
    fn talk_to_the_end(&mut self) {
        while !self.answers.is_empty() {
            let now = self.now();
            for (_, messages) in self.answers.iter().take(BATCH) {
                self.scheduler.touch_ended(messages);
            }
            for _ in 0..BATCH {
                let Some((worker, messages)) = self.answers.pop_front() else {
                    break;
                };
                for message in messages {
                    self.messages += 1;
                    self.take_in(now, Input::FromWorker { worker, message });
                }
            }
            if self
                .scheduler
                .next_deadline()
                .is_some_and(|time| time <= now)
            {
                self.take_in(now, Input::Tick);
            }
            self.decide();
        }
    }

    fn now(&self) -> Time {
        let micros = self.started.elapsed().as_micros();
        Time::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    fn feed(&mut self, now: Time, input: Input) {
        self.take_in(now, input);
        self.decide();
    }

    fn take_in(&mut self, now: Time, input: Input) {
        self.scheduler.take_in(now, input, &mut self.actions);
        self.carry_out();
    }

    fn decide(&mut self) {
        self.scheduler.decide(&mut self.actions);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        for action in self.actions.drain(..) {
            match action {
                Action::ToWorker { worker, message } => {
                    self.messages += 1;
                    let mut answers = Vec::new();
                    self.memory.answer(&message, &mut answers);
                    if !answers.is_empty() {
                        self.answers.push_back((worker, answers));
                    }
                }
                Action::ToClient { message, .. } => {
                    self.messages += 1;
                    if let SchedulerToClient::Ended { outcome, .. } = message {
                        self.outcome = Some(Ok(outcome));
                    } else if let SchedulerToClient::Rejected { error, .. } = message {
                        self.outcome = Some(Err(error.into()));
                    }
                }
                Action::DropWorker { .. } | Action::Emit(_) | Action::Stop | Action::Record(_) => {}
            }
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::super::{Mode, Shape};
    use super::*;

    #[test]
    fn every_graph_ends_and_every_task_is_assigned_and_finished() {
        for graph in Shape::ALL {
            let measured = measure(SchedulerBench {
                graph,
                tasks: 300,
                workers: 7,
                slots: 3,
                seed: 1,
                mode: Mode::Machine,
            })
            .expect("measured");
            let tasks = u64::from(measured.bench.tasks);
            assert!(tasks.abs_diff(300) < 20, "{measured:?}");
            assert!(measured.messages > tasks, "{measured:?}");
            assert!(measured.scheduler_cpu_us_per_task > 0.0, "{measured:?}");
        }
    }
}
