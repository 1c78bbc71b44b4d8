//! How long the machine takes per task: `cargo run --release -p transload-scheduler --example throughput [TASKS [WORKERS]]`.
//!
//! Workers are fakes that finish whatever they get at once, so that nearly all the time is the machine's own. Prints one JSON
//! object per graph; `cpu_ns` is the thread's own processor time (Linux; 0 elsewhere), which neighbours disturb less than wall time.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a measurement reads the clock and fails by panicking"
)]

use std::collections::VecDeque;
use std::time::Instant;

use transload_protocol::{
    Address, ClientHello, ClientId, ClientMessage, Edges, GraphId, GraphOutcome, Layer,
    OutputSizes, Resources, SchedulerToClient, SchedulerToWorker, TaskAssignment, TaskGraph, Time,
    WorkerHello, WorkerId, WorkerMessage,
};
use transload_scheduler::{Action, Config, Input, Scheduler};

const CLIENT: ClientId = ClientId(0);
/// Tasks on each side of a shuffle.
const SHUFFLE_WIDTH: u32 = 64;

fn merge(tasks: u32) -> TaskGraph {
    let mut graph = TaskGraph::new("merge");
    let map = graph.push(Layer::new("map", "noop", tasks - 1));
    let merge = graph.push(Layer::new("merge", "noop", 1).reading(map, Edges::Broadcast));
    graph.keep(merge);
    graph
}

fn map(tasks: u32) -> TaskGraph {
    let mut graph = TaskGraph::new("map");
    let first = graph.push(Layer::new("first", "noop", tasks / 2));
    let second =
        graph.push(Layer::new("second", "noop", tasks / 2).reading(first, Edges::OneToOne));
    graph.keep(second);
    graph
}

fn shuffle(tasks: u32) -> TaskGraph {
    let mut graph = TaskGraph::new("shuffle");
    for _ in 0..(tasks / (2 * SHUFFLE_WIDTH)).max(1) {
        let map = graph.push(Layer::new("map", "noop", SHUFFLE_WIDTH).with_outputs(SHUFFLE_WIDTH));
        let reduce =
            graph.push(Layer::new("reduce", "noop", SHUFFLE_WIDTH).reading(map, Edges::Shuffle));
        graph.keep(reduce);
    }
    graph
}

fn tree(tasks: u32) -> TaskGraph {
    let mut graph = TaskGraph::new("tree");
    let leaves = graph.push(Layer::new("leaves", "noop", tasks / 2));
    let root = graph.push_tree(leaves, 2, "tree", "noop", &Vec::new().into());
    graph.keep(root);
    graph
}

struct Run {
    scheduler: Scheduler,
    out: Vec<Action>,
    /// What workers have been given and not answered.
    assigned: VecDeque<(WorkerId, Vec<TaskAssignment>)>,
    outputs: Vec<u32>,
    messages: u64,
    finished: bool,
    now: Time,
}

impl Run {
    fn feed(&mut self, input: Input) {
        self.take_in(input);
        self.decide();
    }

    fn take_in(&mut self, input: Input) {
        self.now = self.now.after_micros(1);
        self.scheduler.take_in(self.now, input, &mut self.out);
    }

    fn decide(&mut self) {
        self.scheduler.decide(&mut self.out);
        for action in self.out.drain(..) {
            self.messages += 1;
            match action {
                Action::ToWorker {
                    worker,
                    message: SchedulerToWorker::Assign { tasks },
                } => {
                    self.assigned.push_back((worker, tasks));
                }
                Action::ToClient {
                    message: SchedulerToClient::Ended { outcome, .. },
                    ..
                } => {
                    assert_eq!(outcome, GraphOutcome::Finished);
                    self.finished = true;
                }
                Action::ToWorker { .. }
                | Action::ToClient { .. }
                | Action::DropWorker { .. }
                | Action::Emit(_)
                | Action::Stop
                | Action::Record(_) => {}
            }
        }
    }
}

fn measure(tasks: TaskGraph, workers: u32) {
    let name = tasks.name.clone();
    let compiled = tasks.clone().compile().unwrap();
    let count = compiled.task_count();
    let edges: u64 = (0..count)
        .map(|task| u64::from(compiled.input_count(task)))
        .sum();
    let mut run = Run {
        scheduler: Scheduler::new(Config {
            task_events: false,
            ..Config::default()
        }),
        out: Vec::new(),
        assigned: VecDeque::new(),
        outputs: tasks.layers.iter().map(|layer| layer.outputs).collect(),
        messages: 0,
        finished: false,
        now: Time::default(),
    };
    run.feed(Input::ClientConnected {
        client: CLIENT,
        hello: ClientHello {
            name: "throughput".to_owned(),
        },
    });
    for worker in 0..workers {
        run.feed(Input::WorkerConnected {
            worker: WorkerId(worker),
            hello: WorkerHello {
                name: format!("w{worker}"),
                host: "here".to_owned(),
                process: worker,
                resources: Resources::slots(16),
                memory_bytes: 1 << 30,
                addresses: vec![Address::new("tcp", "127.0.0.1:1")],
            },
        });
    }
    let cpu_before = cpu_nanos();
    let started = Instant::now();
    run.feed(Input::FromClient {
        client: CLIENT,
        message: ClientMessage::Submit {
            graph: GraphId {
                client: CLIENT,
                sequence: 0,
            },
            tasks,
        },
    });
    let submitted = started.elapsed();
    while let Some((worker, tasks)) = run.assigned.pop_front() {
        for assignment in tasks {
            let outputs = run.outputs[assignment.layer.0 as usize];
            let sizes = OutputSizes {
                outputs,
                total_bytes: 8 * u64::from(outputs),
                largest_bytes: 8,
            };
            run.take_in(Input::FromWorker {
                worker,
                message: WorkerMessage::Finished {
                    task: assignment.task,
                    attempt: assignment.attempt,
                    sizes,
                },
            });
        }
        run.decide();
    }
    let total = started.elapsed();
    let cpu = cpu_nanos().saturating_sub(cpu_before);
    assert!(run.finished, "the graph did not end");
    let per_task = |nanos: u128| nanos / u128::from(count);
    println!(
        "{{\"graph\":\"{name}\",\"tasks\":{count},\"edges\":{edges},\"workers\":{workers},\"wall_ns_per_task\":{},\
         \"submit_wall_ns_per_task\":{},\"cpu_ns_per_task\":{},\"cpu_ns_per_task_or_edge\":{},\"actions\":{}}}",
        per_task(total.as_nanos()),
        per_task(submitted.as_nanos()),
        per_task(u128::from(cpu)),
        cpu / (edges + u64::from(count)),
        run.messages
    );
}

/// Processor time of this thread so far.
fn cpu_nanos() -> u64 {
    std::fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|text| text.split(' ').next()?.parse().ok())
        .unwrap_or(0)
}

fn main() {
    let mut numbers = std::env::args()
        .skip(1)
        .map(|text| text.parse::<u32>().unwrap());
    let tasks = numbers.next().unwrap_or(100_000);
    let workers = numbers.next().unwrap_or(24);
    for graph in [merge(tasks), map(tasks), shuffle(tasks), tree(tasks)] {
        measure(graph, workers);
    }
}
