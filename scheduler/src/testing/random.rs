//! Random graphs on random clusters: workers come and die, answers come late, tasks fail, clients change their minds. Whatever
//! happens, every graph ends, outputs are where they are said to be, and nothing is left behind.

use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};
use transload_protocol::{
    ClientId, ClientMessage, Demotion, Event, EventRecord, GraphId, GraphOutcome, OutputSizes,
    PartitionId, Resources, RunningTask, SharingCall, TaskErrorKind, TaskGraph, TaskId, TaskRange,
    Tier, TierUsage, WorkerId, WorkerLoad, WorkerMessage,
};

use super::graphs::any_graph;
use super::sharing::OTHER;
use super::{CLIENT, Cluster, partition};
use crate::Config;

/// What may go wrong.
#[derive(Debug, Clone, Copy)]
struct Trouble {
    deaths: bool,
    failures: bool,
    second_thoughts: bool,
    /// Schedulers that take each other's place, and connections that break.
    restarts: bool,
    /// Clients that hold, name and import each other's results.
    sharing: bool,
}

/// How long tasks wait for a worker that can run them.
const GRACE_MS: u32 = 2_000;

impl Cluster {
    /// A worker with some memory, on one of two hosts; half of them have a GPU that tasks may share.
    fn join_able(&mut self, slots: u32) -> WorkerId {
        let number = self.hellos.len();
        let mut resources = Resources::slots(slots).with_memory(500);
        if number.is_multiple_of(2) {
            resources = resources.with("gpu", 1);
        }
        self.join_as(resources, |hello| {
            hello.shared.insert("gpu".to_owned());
            if number.is_multiple_of(3) {
                hello.host = "there".to_owned();
            }
        })
    }

    fn random_worker(&self, rng: &mut SmallRng) -> Option<WorkerId> {
        self.workers.keys().choose(rng).copied()
    }

    /// A worker does something it could do now; false when it has nothing to do.
    fn random_work(&mut self, worker: WorkerId, rng: &mut SmallRng, trouble: Trouble) -> bool {
        let fake = &self.workers[&worker];
        let task = fake.assigned.keys().choose(rng).copied();
        if !fake.inbox.is_empty() && rng.random_bool(0.5) {
            return self.deliver_one(worker);
        }
        if !fake.cancelling.is_empty() && rng.random_bool(0.5) {
            self.answer_cancel_somehow(worker, rng);
            return true;
        }
        let Some(task) = task else {
            return !fake.inbox.is_empty() || !fake.cancelling.is_empty();
        };
        if rng.random_bool(0.1) {
            // Whether it runs or not, has said so before or not.
            let attempt = fake.assigned[&task].task.attempt;
            self.say(
                worker,
                if rng.random_bool(0.5) {
                    WorkerMessage::Seceded { task, attempt }
                } else {
                    WorkerMessage::Rejoined { task, attempt }
                },
            );
        } else if !fake.assigned[&task].fetched {
            if rng.random_bool(0.02) {
                let others = self.workers[&worker].assigned.keys();
                let by = *others.choose(rng).expect("this one at least");
                self.hold_up(task, by);
            } else {
                self.fetch(worker, task, rng, trouble);
            }
        } else if !self.has_met_its_gang(task) {
            if trouble.deaths && rng.random_bool(0.3) {
                self.start(task);
            }
        } else if trouble.failures && rng.random_bool(0.05) {
            let kinds = [
                TaskErrorKind::OutOfMemory,
                TaskErrorKind::Transient,
                TaskErrorKind::Operator,
            ];
            self.fail(task, *kinds.iter().choose(rng).expect("three"));
        } else if trouble.deaths && rng.random_bool(0.3) {
            self.start(task);
        } else {
            self.finish(task);
        }
        true
    }

    /// The worker looks for what the task reads: all is there, or some is missing.
    fn fetch(&mut self, worker: WorkerId, task: TaskId, rng: &mut SmallRng, trouble: Trouble) {
        let unlucky = trouble.failures && rng.random_bool(0.01);
        let reads = &self.workers[&worker].assigned[&task].reads;
        let mut missing: Vec<(PartitionId, WorkerId)> = reads.clone();
        missing.retain(|(partition, holder)| unlucky || !self.holds(*holder, *partition));
        if missing.is_empty() {
            let fake = self.workers.get_mut(&worker).expect("alive");
            fake.assigned.get_mut(&task).expect("assigned").fetched = true;
        } else {
            self.miss(task, missing);
        }
    }

    fn answer_cancel_somehow(&mut self, worker: WorkerId, rng: &mut SmallRng) {
        if rng.random_bool(0.5) {
            self.answer_cancel(worker);
            return;
        }
        let fake = self.workers.get_mut(&worker).expect("alive");
        let (task, attempt) = fake.cancelling.remove(0);
        // Too late: it was done. A graph that is forgotten has no place for it, as a real worker knows.
        let layer = fake.layers.iter().find_map(|((graph, _), spec)| {
            (*graph == task.graph && spec.first_task <= task.index).then_some(spec.outputs)
        });
        if layer.is_some() {
            fake.stored.insert(task);
            fake.of_gangs.insert(task, attempt);
        }
        let bytes = vec![1; layer.unwrap_or(1) as usize];
        self.say(
            worker,
            WorkerMessage::Finished {
                task,
                attempt,
                sizes: OutputSizes::of(&bytes),
                run_micros: 1,
            },
        );
    }

    fn random_step(&mut self, rng: &mut SmallRng, trouble: Trouble) {
        match rng.random_range(0..100) {
            0..2 if trouble.deaths => {
                if let Some(worker) = self.random_worker(rng) {
                    self.kill(worker);
                }
            }
            2..5 if self.workers.len() < 4 => {
                let worker = self.join_able(rng.random_range(2..4));
                self.workers.get_mut(&worker).expect("new").slow = true;
            }
            5..8 if trouble.second_thoughts => self.change_mind(rng),
            8 if trouble.second_thoughts => self.complain(rng),
            // Long enough for a retry to be due, now and then.
            9 => self.wait_ms(rng.random_range(0..200)),
            15..22 if trouble.sharing => self.random_sharing(rng, trouble.second_thoughts),
            22..24 => self.report_somehow(rng),
            10 if trouble.restarts => self.break_something(rng),
            11..15 if trouble.restarts => self.mend_something(rng, trouble),
            _ => {
                if let Some(worker) = self.random_worker(rng) {
                    self.random_work(worker, rng, trouble);
                }
            }
        }
    }

    /// A worker says how full its memory is, and how fast something came from another.
    fn report_somehow(&mut self, rng: &mut SmallRng) {
        let (Some(worker), Some(from)) = (self.random_worker(rng), self.random_worker(rng)) else {
            return;
        };
        // Some of what it has runs, some may not yet.
        let assigned = self.workers[&worker].assigned.keys();
        let running = assigned.map(|task| RunningTask {
            task: *task,
            running_ms: rng.random_range(0..3_000),
        });
        let running = running.collect();
        let mut usage = |tier| TierUsage {
            tier,
            used_bytes: rng.random_range(0..1_000),
            limit_bytes: 1_000,
        };
        let load = WorkerLoad {
            tiers: vec![usage(Tier::Host), usage(Tier::Disk)],
            running,
            ..WorkerLoad::default()
        };
        self.say(worker, WorkerMessage::Heartbeat { load });
        let graph = GraphId {
            client: CLIENT,
            sequence: 0,
        };
        let bytes = 1 << rng.random_range(0..40);
        let exponent = rng.random_range(0..30);
        let event = Event::PartitionFetched {
            partition: partition(graph, 0),
            from,
            to: worker,
            bytes,
            transport: "tcp".to_owned(),
            micros: 1 << exponent,
        };
        let at = self.now;
        let mut events = vec![EventRecord { at, event }];
        if exponent % 4 == 0 {
            let demotion = Demotion {
                wanted: "ucx".to_owned(),
                reason: "by chance".to_owned(),
                lasting: exponent % 2 == 0,
            };
            let used = ["tcp", "ucx posix/memory"][exponent % 8 / 4].to_owned();
            let event = Event::LinkDemoted {
                from,
                to: worker,
                demotion,
                used,
            };
            events.push(EventRecord { at, event });
        }
        self.say(worker, WorkerMessage::Events { events });
    }

    fn break_something(&mut self, rng: &mut SmallRng) {
        match rng.random_range(0..4) {
            0 if !self.is_cut_off() => self.cut_client(),
            1 if !self.cut_off.contains(&OTHER) && rng.random_bool(0.5) => {
                self.cut_off_client(OTHER)
            }
            1 => {
                if let Some(worker) = self.random_worker(rng) {
                    self.cut(worker);
                }
            }
            _ => {
                let stored = self.stored();
                let is_whole = self.absent.is_empty();
                self.crash();
                if is_whole && rng.random_bool(0.3) {
                    self.all_return();
                    let again = |task: &&TaskId| {
                        let state = self.state_of(**task);
                        state.is_some_and(|state| !state.is_settled())
                    };
                    assert_eq!(stored.iter().find(again), None, "held, and yet made again");
                }
            }
        }
        if !self.is_cut_off() && rng.random_bool(0.2) {
            // The answer to the last submission did not arrive.
            let client = self.clients.get_mut(&CLIENT).expect("known");
            if let Some(last) = client.accepted.iter().next_back().copied()
                && !client.ended.contains_key(&last)
                && !client.left.contains(&last)
            {
                client.accepted.remove(&last);
                self.cut_client();
            }
        }
    }

    fn mend_something(&mut self, rng: &mut SmallRng, trouble: Trouble) {
        let worker = self.absent.keys().choose(rng).copied();
        match worker {
            Some(worker) if trouble.deaths && rng.random_bool(0.2) => {
                self.absent.remove(&worker);
            }
            Some(worker) if rng.random_bool(0.6) => self.worker_returns(worker),
            Some(_) | None if rng.random_bool(0.5) => self.client_returns(),
            Some(_) | None => {
                self.client_returns();
                // Those who are not back by now were waited for long enough.
                self.wait_ms(5_001);
            }
        }
    }

    /// One client or the other holds something, names something, imports something, or lets go of it.
    fn random_sharing(&mut self, rng: &mut SmallRng, second_thoughts: bool) {
        let client = if rng.random_bool(0.7) { OTHER } else { CLIENT };
        if self.cut_off.contains(&client) {
            return;
        }
        let name = format!("name {}", rng.random_range(0..3));
        let hold = self.clients[&client].holds.keys().choose(rng).copied();
        match (rng.random_range(0..10), self.random_range(rng)) {
            (0, _) => {
                self.share(client, SharingCall::Lookup { name });
            }
            (1, _) => self.unpublish(client, &name),
            (2 | 3, Some(tasks)) => {
                let replace = rng.random_bool(0.5);
                let call = SharingCall::Publish {
                    name,
                    tasks,
                    replace,
                };
                self.share(client, call);
            }
            (4 | 5, Some(tasks)) => {
                self.hold(client, tasks);
            }
            (6, Some(tasks)) => {
                let graph = self.importing(tasks, rng.random_bool(0.5));
                self.submit_as(client, graph);
            }
            (7, _) => {
                self.share(client, SharingCall::Published);
            }
            (8, Some(tasks)) if second_thoughts => self.leave_somehow(client, tasks.graph),
            _ => {
                if let Some(hold) = hold {
                    self.let_go(client, hold);
                }
            }
        }
    }

    fn leave_somehow(&mut self, client: ClientId, graph: GraphId) {
        if graph.client == client && self.clients[&client].accepted.contains(&graph) {
            self.leave(graph);
        }
    }

    /// A kept layer of any graph, or a part of it.
    fn random_range(&self, rng: &mut SmallRng) -> Option<TaskRange> {
        let graph = self.submitted.keys().choose(rng).copied()?;
        let tasks = self.submitted[&graph].clone();
        let layer = tasks.outputs.iter().choose(rng).copied()?;
        let mut range = self.range(graph, layer.0);
        if rng.random_bool(0.3) {
            let skipped = rng.random_range(0..range.count);
            range.first += skipped;
            range.count -= skipped;
        }
        Some(range)
    }

    /// Everything that is still shared is let go.
    fn share_no_more(&mut self) {
        for client in [CLIENT, OTHER] {
            let holds: Vec<_> = self.clients[&client].holds.keys().copied().collect();
            for hold in holds {
                self.let_go(client, hold);
            }
        }
        let names: Vec<String> = self.scheduler.names.keys().cloned().collect();
        for name in names {
            self.unpublish(CLIENT, &name);
        }
        let graphs: Vec<GraphId> = self.submitted.keys().copied().collect();
        for graph in graphs {
            if graph.client == OTHER || !self.is_of_the_test(graph) {
                self.leave_somehow(graph.client, graph);
            }
        }
    }

    /// Not one that imports.
    fn is_of_the_test(&self, graph: GraphId) -> bool {
        let mut layers = self.submitted[&graph].layers.iter();
        layers.all(|layer| layer.imports.is_empty())
    }

    /// The client releases some outputs, perhaps before they are made, or cancels a graph.
    fn change_mind(&mut self, rng: &mut SmallRng) {
        if self.is_cut_off() {
            return;
        }
        let Some(graph) = self.client().accepted.iter().choose(rng).copied() else {
            return;
        };
        if rng.random_bool(0.1) {
            let client = self.clients.get_mut(&CLIENT).expect("connected");
            if client.ended.contains_key(&graph) {
                client.left.insert(graph);
                client.forget();
            }
            self.tell(ClientMessage::Cancel { graph });
        } else {
            let first = rng.random_range(0..12);
            let tasks = (first..first + 3)
                .map(|index| TaskId { graph, index })
                .collect();
            self.release(tasks);
        }
    }

    fn complain(&mut self, rng: &mut SmallRng) {
        if self.is_cut_off() {
            return;
        }
        let Some((task, worker)) = self.client().outputs.iter().choose(rng) else {
            return;
        };
        self.tell(ClientMessage::Unreachable {
            task: *task,
            worker: *worker,
            reason: "no route".to_owned(),
        });
    }

    /// No more trouble: everything that can end, ends.
    fn settle(&mut self, rng: &mut SmallRng) {
        let calm = Trouble {
            deaths: false,
            failures: false,
            second_thoughts: false,
            restarts: false,
            sharing: false,
        };
        self.all_return();
        self.wait_ms(5_001);
        let worker = self.join_able(4);
        self.workers.get_mut(&worker).expect("new").slow = true;
        for _ in 0..20_000 {
            let busy: Vec<WorkerId> = self
                .workers
                .iter()
                .filter(|(_, fake)| {
                    !fake.inbox.is_empty()
                        || !fake.cancelling.is_empty()
                        || !fake.assigned.is_empty()
                })
                .map(|(id, _)| *id)
                .collect();
            let Some(worker) = busy.iter().choose(rng).copied() else {
                if self.scheduler.retries.next_due().is_some() {
                    self.wait_for_retries();
                } else if self.scheduler.next_stuck_end().is_none() {
                    return;
                } else {
                    // What only a worker that is gone could run fails.
                    self.wait_ms(GRACE_MS.into());
                }
                continue;
            };
            self.random_work(worker, rng, calm);
        }
        panic!("the cluster does not come to rest");
    }

    fn assert_settled(&mut self, graphs: &[TaskGraph]) {
        let of_the_test = self.submitted.keys().copied();
        let of_the_test = of_the_test.filter(|id| id.client == CLIENT && self.is_of_the_test(*id));
        let ids: Vec<GraphId> = of_the_test.collect();
        assert_eq!(ids.len(), graphs.len());
        for (id, graph) in ids.into_iter().zip(graphs) {
            assert!(self.client().accepted.contains(&id));
            if self.client().left.contains(&id) {
                continue;
            }
            let compiled = graph.clone().compile().expect("valid");
            let outcome = self.outcome(id).expect("ended").clone();
            if outcome == GraphOutcome::Finished {
                for (task, worker) in self
                    .client()
                    .outputs
                    .iter()
                    .filter(|(task, _)| task.graph == id)
                {
                    assert!(
                        self.workers[worker].stored.contains(task),
                        "{task} is not on {worker}"
                    );
                }
                self.release(
                    (0..compiled.task_count())
                        .map(|index| TaskId { graph: id, index })
                        .collect(),
                );
            }
        }
        self.share_no_more();
        let workers: Vec<WorkerId> = self.workers.keys().copied().collect();
        for worker in workers {
            self.deliver_all(worker);
            while !self.workers[&worker].cancelling.is_empty() {
                self.answer_cancel(worker);
            }
        }
        self.assert_clean();
        assert!(self.scheduler.graphs.slab.is_empty() && self.scheduler.cancels.is_empty());
    }
}

fn play(graphs: &[TaskGraph], seed: u64, trouble: Trouble) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let config = Config {
        worker_deaths_per_task: 4,
        unschedulable_grace_ms: GRACE_MS,
        ..Config::default()
    };
    let mut cluster = if trouble.restarts {
        Cluster::journaled(config)
    } else {
        Cluster::with(config)
    };
    cluster.join_client(OTHER);
    if trouble.restarts {
        cluster.open_session(OTHER);
    }
    for graph in graphs {
        cluster.client_returns();
        cluster.submit(graph.clone());
        for _ in 0..rng.random_range(0..150) {
            cluster.random_step(&mut rng, trouble);
        }
    }
    cluster.settle(&mut rng);
    cluster.assert_settled(graphs);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_graph_finishes_on_a_calm_cluster(
        graphs in proptest::collection::vec(any_graph(), 1..3),
        seed in any::<u64>(),
    ) {
        play(&graphs, seed, Trouble { deaths: false, failures: false, second_thoughts: false, restarts: false, sharing: true });
    }

    #[test]
    fn every_graph_ends_whoever_dies(
        graphs in proptest::collection::vec(any_graph(), 1..3),
        seed in any::<u64>(),
    ) {
        play(&graphs, seed, Trouble { deaths: true, failures: false, second_thoughts: false, restarts: false, sharing: true });
    }

    #[test]
    fn every_graph_ends_whatever_happens(
        graphs in proptest::collection::vec(any_graph(), 1..4),
        seed in any::<u64>(),
    ) {
        play(&graphs, seed, Trouble { deaths: true, failures: true, second_thoughts: true, restarts: false, sharing: true });
    }

    #[test]
    fn every_graph_finishes_whoever_takes_the_schedulers_place(
        graphs in proptest::collection::vec(any_graph(), 1..4),
        seed in any::<u64>(),
    ) {
        play(&graphs, seed, Trouble { deaths: false, failures: false, second_thoughts: false, restarts: true, sharing: true });
    }

    #[test]
    fn every_graph_ends_whatever_happens_and_whoever_takes_the_schedulers_place(
        graphs in proptest::collection::vec(any_graph(), 1..4),
        seed in any::<u64>(),
    ) {
        play(&graphs, seed, Trouble { deaths: true, failures: true, second_thoughts: true, restarts: true, sharing: true });
    }
}
