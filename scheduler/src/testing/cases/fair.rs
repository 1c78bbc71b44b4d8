//! Clients that share the workers.

use std::collections::{BTreeMap, BTreeSet};

use transload_protocol::{
    Attempt, ClientHello, ClientId, ClientMessage, Edges, GraphId, Layer, OutputSizes, Resources,
    SchedulerToClient, SchedulerToWorker, TaskGraph, TaskId, Time, WorkerHello, WorkerId,
    WorkerMessage,
};

use crate::testing::graphs::independent;
use crate::testing::{CLIENT, Cluster, task};
use crate::{Action, Config, Input, Scheduler};

const OTHER: ClientId = ClientId(1);
const WORKERS: u32 = 4;
const SLOTS: u32 = 2;

/// Workers that run as many tasks as they have slots in each round, in the order that the scheduler wishes. Without the checks
/// after each step, so that there can be many tasks.
struct Rounds {
    scheduler: Scheduler,
    now: Time,
    queues: BTreeMap<WorkerId, BTreeSet<(u64, TaskId, Attempt)>>,
    /// Tasks that have ended, by graph.
    done: BTreeMap<GraphId, u32>,
    ended: BTreeSet<GraphId>,
}

impl Rounds {
    fn new(config: Config) -> Self {
        let mut rounds = Self {
            scheduler: Scheduler::new(config),
            now: Time::default(),
            queues: BTreeMap::new(),
            done: BTreeMap::new(),
            ended: BTreeSet::new(),
        };
        for client in [CLIENT, OTHER] {
            let name = format!("client {client}");
            let hello = ClientHello { name };
            rounds.feed(Input::ClientConnected { client, hello });
        }
        for worker in (0..WORKERS).map(WorkerId) {
            rounds.queues.insert(worker, BTreeSet::new());
            let hello = WorkerHello {
                name: String::new(),
                host: String::new(),
                process: 0,
                resources: Resources::slots(SLOTS),
                memory_bytes: 0,
                addresses: Vec::new(),
                labels: Default::default(),
                shared: Default::default(),
                gpu: None,
            };
            rounds.feed(Input::WorkerConnected { worker, hello });
        }
        rounds
    }

    fn feed(&mut self, input: Input) {
        let mut out = Vec::new();
        self.scheduler.handle(self.now, input, &mut out);
        for action in out {
            match action {
                Action::ToWorker {
                    worker,
                    message: SchedulerToWorker::Assign { tasks },
                } => {
                    let queue = self.queues.get_mut(&worker).expect("known");
                    let tasks = tasks.into_iter();
                    queue.extend(tasks.map(|task| (task.order, task.task, task.attempt)));
                }
                Action::ToClient {
                    message: SchedulerToClient::Ended { graph, .. },
                    ..
                } => {
                    self.ended.insert(graph);
                }
                _ => {}
            }
        }
    }

    fn submit(&mut self, client: ClientId, sequence: u32, tasks: TaskGraph) -> GraphId {
        let graph = GraphId { client, sequence };
        let message = ClientMessage::Submit { graph, tasks };
        self.feed(Input::FromClient { client, message });
        graph
    }

    /// Every worker runs what its slots allow.
    fn round(&mut self) {
        self.now = self.now.after_micros(1_000);
        for worker in (0..WORKERS).map(WorkerId) {
            for _ in 0..SLOTS {
                let queue = self.queues.get_mut(&worker).expect("known");
                let Some((_, task, attempt)) = queue.pop_first() else {
                    continue;
                };
                *self.done.entry(task.graph).or_default() += 1;
                let message = WorkerMessage::Finished {
                    task,
                    attempt,
                    sizes: OutputSizes::of(&[1_000_000]),
                    run_micros: 0,
                };
                self.feed(Input::FromWorker { worker, message });
            }
        }
    }

    /// How many rounds it takes until a graph has ended.
    fn until_ended(&mut self, graph: GraphId) -> u32 {
        let mut rounds = 0;
        while !self.ended.contains(&graph) {
            self.round();
            rounds += 1;
        }
        self.scheduler.check().expect("sound");
        rounds
    }

    fn done(&self, graph: GraphId) -> u32 {
        self.done.get(&graph).copied().unwrap_or(0)
    }
}

/// `chains` chains of `length` tasks each, which stay where they began.
fn chains(chains: u32, length: u32) -> TaskGraph {
    let mut graph = TaskGraph::new("chains");
    let mut last = graph.push(Layer::new("begin", "op", chains));
    for _ in 1..length {
        last = graph.push(Layer::new("next", "op", chains).reading(last, Edges::OneToOne));
    }
    graph.keep(last);
    graph
}

/// With the short queues and the long ones that workers may have.
fn configs() -> [Config; 2] {
    let with_queue = |max_queue_per_slot| Config {
        max_queue_per_slot,
        task_events: false,
        ..Config::default()
    };
    [with_queue(0), with_queue(64)]
}

#[test]
fn a_small_graph_ends_soon_although_another_client_has_submitted_a_hundred_thousand_tasks() {
    for config in configs() {
        let mut rounds = Rounds::new(config);
        let large = rounds.submit(CLIENT, 0, independent(100_000));
        for _ in 0..100 {
            rounds.round();
        }
        let before = rounds.done(large);
        let small = rounds.submit(OTHER, 0, independent(100));
        let took = rounds.until_ended(small);
        // Alone it would take 13 rounds, with half of the workers 25.
        assert!(took < 40, "{took} rounds");
        let meanwhile = rounds.done(large) - before;
        assert!(meanwhile >= took * WORKERS * SLOTS / 3, "{meanwhile} tasks");
    }
}

#[test]
fn tasks_that_stay_with_their_input_leave_room_for_those_of_another_client() {
    for config in configs() {
        let mut rounds = Rounds::new(config);
        let large = rounds.submit(CLIENT, 0, chains(1_000, 20));
        for _ in 0..200 {
            rounds.round();
        }
        let small = rounds.submit(OTHER, 0, chains(16, 10));
        let took = rounds.until_ended(small);
        assert!(took < 80, "{took} rounds, of 20 alone");
        assert!(!rounds.ended.contains(&large));
    }
}

#[test]
fn a_client_that_had_nothing_to_do_has_not_saved_anything_up() {
    for config in configs() {
        let mut rounds = Rounds::new(config);
        let first = rounds.submit(CLIENT, 0, independent(4_000));
        for _ in 0..200 {
            rounds.round();
        }
        let second = rounds.submit(OTHER, 0, independent(4_000));
        let before = rounds.done(first);
        for _ in 0..100 {
            rounds.round();
        }
        let (of_first, of_second) = (rounds.done(first) - before, rounds.done(second));
        assert!(of_first.abs_diff(of_second) < 200, "{of_first} {of_second}");
    }
}

#[test]
fn a_higher_priority_goes_before_anybodys_share() {
    for config in configs() {
        let mut rounds = Rounds::new(config);
        let mut urgent = independent(400);
        urgent.layers[0].priority = 1;
        rounds.submit(CLIENT, 0, independent(10_000));
        let urgent = rounds.submit(CLIENT, 1, urgent);
        let other = rounds.submit(OTHER, 0, independent(100));
        rounds.until_ended(urgent);
        assert!(rounds.done(other) < 50, "{}", rounds.done(other));
    }
}

#[test]
fn many_clients_are_served_alike_whoever_came_first() {
    let [short, _] = configs();
    let mut rounds = Rounds::new(short);
    let graphs: Vec<GraphId> = (2..22)
        .map(|client| {
            let client = ClientId(client);
            let name = String::new();
            let hello = ClientHello { name };
            rounds.feed(Input::ClientConnected { client, hello });
            rounds.submit(client, 0, independent(1_000))
        })
        .collect();
    for _ in 0..100 {
        rounds.round();
    }
    let done: Vec<u32> = graphs.iter().map(|graph| rounds.done(*graph)).collect();
    // The first one filled the workers while it was alone.
    let others = &done[1..];
    let (least, most) = (others.iter().min(), others.iter().max());
    assert!(most.unwrap() - least.unwrap() <= 2, "{done:?}");
    rounds.scheduler.check().expect("sound");
}

#[test]
fn explain_says_how_many_tasks_go_first_and_whose_turn_it_is() {
    let mut cluster = Cluster::of(1, 1);
    let first = cluster.submit(independent(10));
    let details = cluster.scheduler.explain(task(first, 9)).details.join("; ");
    assert!(
        details.contains("7 ready tasks go before it, of 8"),
        "{details}"
    );
    assert!(!details.contains("share"), "nobody shares: {details}");
    cluster.join_client(OTHER);
    let second = cluster.submit_as(OTHER, independent(3));
    let details = cluster
        .scheduler
        .explain(task(second, 1))
        .details
        .join("; ");
    assert!(
        details.contains("1 ready tasks go before it, of 11"),
        "{details}"
    );
    assert!(
        details.contains("the next slot is for client c1 (`client 1`), whose tasks occupy 0"),
        "{details}"
    );
    let details = cluster.scheduler.explain(task(first, 9)).details.join("; ");
    assert!(
        details.contains("those of client c0 (`client 0`) occupy 2"),
        "{details}"
    );
    cluster.run();
}

/// Graphs of tasks that wait for them.
fn within(parent: TaskId, tasks: u32) -> TaskGraph {
    TaskGraph {
        parent: Some(parent),
        ..independent(tasks)
    }
}

#[test]
fn what_a_task_waits_for_goes_before_the_rest_of_its_graph_and_counts_for_its_client() {
    let mut cluster = Cluster::of(1, 1);
    // The client of the worker, in whose name tasks submit.
    cluster.join_client(OTHER);
    let outer = cluster.submit(independent(10));
    let waiting = task(outer, 0);
    let worker = cluster.worker_of(waiting).expect("assigned");
    let attempt = cluster.workers[&worker].assigned[&waiting].task.attempt;
    let inner = cluster.submit_as(OTHER, within(waiting, 3));
    assert!(
        !cluster.scheduler.ready.shares.are_contended(),
        "one client"
    );
    cluster.say(
        worker,
        WorkerMessage::Seceded {
            task: waiting,
            attempt,
        },
    );
    let queue = &cluster.workers[&worker].assigned;
    let first = queue.values().min_by_key(|fake| fake.task.order);
    let first = first.map(|fake| fake.task.task);
    assert_eq!(
        first,
        Some(task(inner, 0)),
        "it overtakes at the worker, too"
    );
    // And what that one waits for goes before its own rest.
    let innermost = cluster.submit_as(OTHER, within(task(inner, 0), 1));
    cluster.finish(task(outer, 1));
    assert!(cluster.worker_of(task(innermost, 0)).is_some());
    cluster.run();
    assert!(cluster.outcome(innermost).is_some() && cluster.outcome(inner).is_some());
}

#[test]
fn what_an_urgent_task_waits_for_is_urgent() {
    let mut cluster = Cluster::of(1, 1);
    cluster.join_client(OTHER);
    let mut urgent = independent(1);
    urgent.layers[0].priority = 9;
    let outer = cluster.submit(urgent);
    let mut other = independent(10);
    other.layers[0].priority = 5;
    let other = cluster.submit(other);
    let inner = cluster.submit_as(OTHER, within(task(outer, 0), 1));
    cluster.finish(task(other, 0));
    assert!(cluster.worker_of(task(inner, 0)).is_some());
    cluster.run();
}
