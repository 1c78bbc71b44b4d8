//! The scheduler machine among workers that answer at once.

use std::collections::{BTreeSet, VecDeque};

use transload_protocol::{
    Address, ClientHello, ClientId, ClientMessage, GraphId, GraphOutcome, OutputSizes, Resources,
    SchedulerToClient, SchedulerToWorker, TaskAssignment, TaskGraph, TaskId, Time, WorkerHello,
    WorkerId, WorkerMessage,
};
use transload_scheduler::{Action, Config, Input, Scheduler};

use crate::graphs;

const CLIENT: ClientId = ClientId(1);
const WORKERS: u32 = 24;
const SLOTS: u32 = 4;
const SMALL_GRAPH: u32 = 10;

/// One graph from submission to release.
pub(crate) fn one_graph(graph: TaskGraph) -> Result<(), String> {
    let mut run = Run::new();
    run.submit(graph);
    run.answer(usize::MAX);
    run.end()
}

/// As [`one_graph`], but a worker is lost with what it holds when `answers` tasks have ended.
pub(crate) fn lost_worker(graph: TaskGraph, answers: u32) -> Result<(), String> {
    let mut run = Run::new();
    run.submit(graph);
    run.answer(answers as usize);
    let worker = WorkerId(0);
    run.answers.retain(|(other, _)| *other != worker);
    run.feed(Input::WorkerLost {
        worker,
        reason: "gone".to_owned(),
    });
    run.answer(usize::MAX);
    run.end()
}

/// Many small graphs, one after the other, of `tasks` tasks together.
pub(crate) fn small_graphs(tasks: u32) -> Result<(), String> {
    let mut run = Run::new();
    for _ in 0..tasks / SMALL_GRAPH {
        run.submit(graphs::map(SMALL_GRAPH));
        run.answer(usize::MAX);
        run.end()?;
    }
    Ok(())
}

struct Run {
    scheduler: Scheduler,
    now: Time,
    actions: Vec<Action>,
    /// Answers of workers that the machine has not heard yet.
    answers: VecDeque<(WorkerId, Vec<WorkerMessage>)>,
    /// Outputs of each layer of the graph at work.
    outputs: Vec<u32>,
    graphs: u32,
    /// What the client holds.
    held: Vec<TaskId>,
    outcome: Option<GraphOutcome>,
}

impl Run {
    fn new() -> Self {
        let mut run = Self {
            scheduler: Scheduler::new(Config {
                task_events: false,
                ..Config::default()
            }),
            now: Time::default(),
            actions: Vec::new(),
            answers: VecDeque::new(),
            outputs: Vec::new(),
            graphs: 0,
            held: Vec::new(),
            outcome: None,
        };
        let hello = ClientHello {
            name: "client".to_owned(),
        };
        let client = CLIENT;
        run.feed(Input::ClientConnected { client, hello });
        for process in 0..WORKERS {
            let hello = WorkerHello {
                name: format!("worker-{process}"),
                host: "here".to_owned(),
                process,
                resources: Resources::slots(SLOTS),
                memory_bytes: 1 << 30,
                addresses: vec![Address::new("tcp", "127.0.0.1:1")],
                labels: BTreeSet::new(),
                shared: BTreeSet::new(),
                gpu: None,
            };
            let worker = WorkerId(process);
            run.feed(Input::WorkerConnected { worker, hello });
        }
        run
    }

    fn submit(&mut self, tasks: TaskGraph) {
        self.outputs = tasks.layers.iter().map(|layer| layer.outputs).collect();
        self.outcome = None;
        let graph = GraphId {
            client: CLIENT,
            sequence: self.graphs,
        };
        self.graphs += 1;
        self.say(ClientMessage::Submit { graph, tasks });
    }

    fn say(&mut self, message: ClientMessage) {
        let client = CLIENT;
        self.feed(Input::FromClient { client, message });
    }

    /// Lets workers answer, so many times at most.
    fn answer(&mut self, most: usize) {
        let mut left = most;
        while left > 0 {
            let Some((worker, messages)) = self.answers.pop_front() else {
                return;
            };
            left = left.saturating_sub(messages.len());
            for message in messages {
                self.take_in(Input::FromWorker { worker, message });
            }
            self.decide();
        }
    }

    /// Lets go of what the client holds.
    fn end(&mut self) -> Result<(), String> {
        if self.outcome != Some(GraphOutcome::Finished) {
            return Err(format!("the graph ended as {:?}", self.outcome));
        }
        let tasks = std::mem::take(&mut self.held);
        self.say(ClientMessage::Release { tasks });
        Ok(())
    }

    fn feed(&mut self, input: Input) {
        self.take_in(input);
        self.decide();
    }

    fn take_in(&mut self, input: Input) {
        // Slow enough that progress is told now and then, and fast enough that nobody counts as silent.
        self.now = self.now.after_micros(10);
        self.scheduler.take_in(self.now, input, &mut self.actions);
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
                    // Workers answer assignments and need nothing else.
                    if let SchedulerToWorker::Assign { tasks } = message {
                        let outputs = &self.outputs;
                        let answer = |task: TaskAssignment| {
                            let outputs = outputs.get(task.layer.0 as usize).copied().unwrap_or(1);
                            WorkerMessage::Finished {
                                task: task.task,
                                attempt: task.attempt,
                                sizes: OutputSizes {
                                    outputs,
                                    total_bytes: 8 * u64::from(outputs),
                                    largest_bytes: 8,
                                    rows: 0,
                                },
                                run_micros: 1,
                            }
                        };
                        let answers = tasks.into_iter().map(answer).collect();
                        self.answers.push_back((worker, answers));
                    }
                }
                Action::ToClient { message, .. } => {
                    if let SchedulerToClient::Ended { outcome, .. } = message {
                        self.outcome = Some(outcome);
                    } else if let SchedulerToClient::OutputReady { output } = message {
                        self.held.push(output.task);
                    }
                }
                Action::DropWorker { .. } | Action::Emit(_) | Action::Record(_) | Action::Stop => {}
            }
        }
    }
}
