//! Who gets what, and when.

use transload_protocol::{
    Edges, Event, EventRecord, GraphId, GraphOutcome, InputSpec, Layer, Resources, TaskErrorKind,
    TaskGraph, Tier, TierUsage, WorkerId, WorkerLoad, WorkerMessage,
};

use crate::Config;
use crate::testing::graphs::{chain, gather, independent, shuffle};
use crate::testing::{CLIENT, Cluster, partition, task};

#[test]
fn tasks_wait_until_a_worker_joins() {
    let mut cluster = Cluster::new();
    let graph = cluster.submit(independent(3));
    assert_eq!(cluster.assigned(), []);
    let explanation = cluster.scheduler.explain(task(graph, 0));
    assert!(
        explanation.summary.contains("no worker has joined"),
        "{explanation:?}"
    );
    cluster.join(2);
    assert_eq!(cluster.assigned().len(), 3);
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
}

#[test]
fn a_worker_gets_its_slots_and_a_small_queue_and_no_more() {
    let mut cluster = Cluster::of(1, 2);
    let graph = cluster.submit(independent(10));
    assert_eq!(cluster.assigned().len(), 4);
    cluster.finish(task(graph, 0));
    assert_eq!(cluster.assigned().len(), 4);
    assert_eq!(cluster.scheduler.info().tasks_ready, 5);
}

#[test]
fn a_worker_that_lacks_memory_gets_no_queue() {
    let mut cluster = Cluster::of(1, 2);
    let worker = WorkerId(0);
    let report = |cluster: &mut Cluster, host_bytes, device_bytes| {
        let usage = |(tier, used_bytes, limit_bytes)| TierUsage {
            tier,
            used_bytes,
            limit_bytes,
        };
        let tiers = [
            (Tier::Host, host_bytes, 1_000),
            (Tier::Device, device_bytes, 100),
        ];
        let load = WorkerLoad {
            tiers: tiers.map(usage).to_vec(),
            ..WorkerLoad::default()
        };
        cluster.say(worker, WorkerMessage::Heartbeat { load });
    };
    report(&mut cluster, 950, 0);
    cluster.submit(independent(10));
    assert_eq!(cluster.assigned().len(), 2);
    report(&mut cluster, 600, 99);
    assert_eq!(cluster.assigned().len(), 2, "nor one whose device lacks it");
    report(&mut cluster, 600, 70);
    assert_eq!(cluster.assigned().len(), 4);
}

#[test]
fn free_slots_are_filled_before_queues() {
    let mut cluster = Cluster::of(3, 2);
    cluster.submit(independent(6));
    for worker in cluster.workers.values() {
        assert_eq!(worker.assigned.len(), 2);
    }
}

#[test]
fn a_worker_that_joins_in_the_middle_gets_work() {
    let mut cluster = Cluster::of(1, 1);
    cluster.submit(independent(10));
    let late = cluster.join(2);
    assert_eq!(cluster.workers[&late].assigned.len(), 4);
}

#[test]
fn a_task_goes_where_its_input_lies() {
    let mut cluster = Cluster::of(4, 1);
    let graph = cluster.submit(chain(4));
    for index in 0..4 {
        let holder = cluster.finish_with(task(graph, index), &[1 << 30]);
        assert_eq!(cluster.worker_of(task(graph, 4 + index)), Some(holder));
    }
}

#[test]
fn a_reducer_goes_to_the_worker_with_most_of_its_input() {
    let mut cluster = Cluster::of(3, 1);
    let graph = cluster.submit(shuffle(3, 1));
    let mut heaviest = None;
    for (index, bytes) in [(0, 40), (1, 1 << 20), (2, 50)] {
        let holder = cluster.finish_with(task(graph, index), &[bytes]);
        if index == 1 {
            heaviest = Some(holder);
        }
    }
    assert_eq!(cluster.worker_of(task(graph, 3)), heaviest);
}

/// One task with one output of so many bytes, read by four.
fn one_read_by_four(cluster: &mut Cluster, bytes: u64) -> (GraphId, WorkerId) {
    let mut tasks = TaskGraph::new("fan");
    let a = tasks.push(Layer::new("a", "op", 1));
    let b = tasks.push(Layer::new("b", "op", 4).reading(a, Edges::Broadcast));
    tasks.keep(b);
    let graph = cluster.submit(tasks);
    let holder = cluster.finish_with(task(graph, 0), &[bytes]);
    (graph, holder)
}

#[test]
fn an_idle_worker_takes_light_work_from_a_busy_one() {
    let mut cluster = Cluster::of(1, 1);
    let (_, busy) = one_read_by_four(&mut cluster, 100);
    let idle = cluster.join(1);
    assert_eq!(cluster.workers[&busy].assigned.len(), 2);
    assert_eq!(cluster.workers[&idle].assigned.len(), 1);
}

#[test]
fn heavy_input_stays_where_it_is_and_light_input_is_moved() {
    let mut cluster = Cluster::of(2, 2);
    let (graph, holder) = one_read_by_four(&mut cluster, 1 << 40);
    assert_eq!(cluster.workers[&holder].assigned.len(), 4);
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
    cluster.now = cluster.now.after_micros(1_000);
    let (_, holder) = one_read_by_four(&mut cluster, 100);
    assert_eq!(cluster.workers[&holder].assigned.len(), 2);
}

/// It is said that this came from one worker to another in so many microseconds, often enough to be believed.
fn tell_of_fetches(
    cluster: &mut Cluster,
    (from, to): (WorkerId, WorkerId),
    bytes: u64,
    micros: u64,
) {
    let event = Event::PartitionFetched {
        partition: partition(
            GraphId {
                client: CLIENT,
                sequence: 9,
            },
            0,
        ),
        from,
        to,
        bytes,
        transport: "tcp".to_owned(),
        micros,
    };
    let at = cluster.now;
    let events = vec![EventRecord { at, event }; 100];
    cluster.say(from, WorkerMessage::Events { events });
}

#[test]
fn what_an_idle_worker_takes_depends_on_its_link() {
    for (micros, stolen) in [(1_000, 1), (1_000_000, 0)] {
        let mut cluster = Cluster::of(1, 1);
        let (_, busy) = one_read_by_four(&mut cluster, 1 << 20);
        let idle = WorkerId(busy.0 + 1);
        // It is known from before how fast bytes come there.
        tell_of_fetches(&mut cluster, (busy, idle), 1 << 20, micros);
        assert_eq!(cluster.join(1), idle);
        assert_eq!(cluster.workers[&idle].assigned.len(), stolen, "{micros} us");
    }
}

#[test]
fn heavy_input_is_moved_when_its_holder_takes_too_long() {
    let mut cluster = Cluster::of(2, 1);
    let (graph, holder) = one_read_by_four(&mut cluster, 256 << 20);
    let idle = WorkerId(1 - holder.0);
    assert_eq!(cluster.workers[&idle].assigned.len(), 0);
    let details = cluster.scheduler.explain(task(graph, 3)).details.join("\n");
    for says in [
        "what it reads weighs 268,439,552 B, 4,096 B for each fetch included: 268,439,552 B on",
        "comes to it in about 20 ms, and to the last task of its queue in about 30 ms",
        "has a free slot, but would get its inputs 134 ms later",
    ] {
        assert!(details.contains(says), "{details}");
    }
    cluster.now = cluster.now.after_micros(5_000_000);
    cluster.say(
        idle,
        WorkerMessage::Heartbeat {
            load: WorkerLoad::default(),
        },
    );
    assert_eq!(cluster.workers[&idle].assigned.len(), 1);
}

/// Time goes by, and the workers say that they live.
fn let_pass(cluster: &mut Cluster, micros: u64) {
    cluster.now = cluster.now.after_micros(micros);
    let workers: Vec<WorkerId> = cluster.workers.keys().copied().collect();
    for worker in workers {
        let load = WorkerLoad::default();
        cluster.say(worker, WorkerMessage::Heartbeat { load });
    }
}

#[test]
fn what_waits_at_a_busy_worker_is_asked_back_for_an_idle_one() {
    let mut cluster = Cluster::of(1, 1);
    let graph = cluster.submit(independent(2));
    let (busy, idle) = (WorkerId(0), cluster.join(1));
    assert_eq!(cluster.workers[&busy].assigned.len(), 2, "one runs");
    cluster.start(task(graph, 0));
    let_pass(&mut cluster, 100_000);
    assert_eq!(cluster.workers[&busy].cancelling.len(), 1);
    let asked_back = cluster.scheduler.explain(task(graph, 1)).details;
    assert!(
        asked_back[0].contains("asked back for worker w1"),
        "{asked_back:?}"
    );
    cluster.answer_cancel(busy);
    assert_eq!(cluster.worker_of(task(graph, 1)), Some(idle));
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
}

#[test]
fn a_task_is_asked_back_once_and_what_has_begun_never() {
    let mut cluster = Cluster::of(1, 1);
    let graph = cluster.submit(independent(2));
    let busy = WorkerId(0);
    cluster.start(task(graph, 0));
    cluster.start(task(graph, 1));
    cluster.join(1);
    let_pass(&mut cluster, 100_000);
    assert!(cluster.workers[&busy].cancelling.is_empty());
    cluster.run();

    let graph = cluster.submit(independent(4));
    let workers = [busy, WorkerId(1)];
    for worker in workers {
        assert_eq!(cluster.workers[&worker].assigned.len(), 2);
    }
    // Both queued tasks move to a third worker, which then turns out to be the slow one.
    let third = cluster.join(2);
    for _ in 0..3 {
        let_pass(&mut cluster, 100_000);
        for worker in workers {
            if !cluster.workers[&worker].cancelling.is_empty() {
                cluster.answer_cancel(worker);
            }
        }
    }
    assert_eq!(cluster.workers[&third].assigned.len(), 2);
    for worker in workers {
        let first = *cluster.workers[&worker]
            .assigned
            .keys()
            .next()
            .expect("one");
        cluster.finish(first);
    }
    let_pass(&mut cluster, 1_000_000);
    assert!(cluster.workers[&third].cancelling.is_empty());
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
}

#[test]
fn a_reader_of_two_goes_to_the_machine_that_has_more_of_it() {
    // Three workers hold a third each; two of them are on one machine, and all have room.
    let mut cluster = Cluster::new();
    for host in ["one", "other", "other"] {
        cluster.join_on(host, 1);
    }
    let graph = cluster.submit(gather(3));
    for index in [1, 2, 0] {
        cluster.finish_with(task(graph, index), &[1 << 20]);
    }
    let reader = cluster.worker_of(task(graph, 3)).expect("assigned");
    assert_eq!(reader, WorkerId(1));
}

#[test]
fn deeper_tasks_go_first_so_that_memory_is_freed() {
    let mut cluster = Cluster::of(1, 1);
    let graph = cluster.submit(chain(10));
    cluster.finish(task(graph, 0));
    assert_eq!(
        cluster.assigned(),
        [task(graph, 1), task(graph, 10)],
        "the reader of the first root goes before the other eight roots"
    );
}

#[test]
fn higher_priorities_then_earlier_graphs_go_first() {
    let mut cluster = Cluster::of(1, 1);
    cluster.submit(independent(2));
    let early = cluster.submit(independent(1));
    let mut urgent = independent(1);
    urgent.layers[0].priority = 7;
    let urgent = cluster.submit(urgent);
    let first = cluster.assigned()[0];
    cluster.finish(first);
    assert!(cluster.worker_of(task(urgent, 0)).is_some());
    assert!(cluster.worker_of(task(early, 0)).is_none());
    let worker = cluster.worker_of(task(urgent, 0)).expect("assigned");
    let tasks = &cluster.workers[&worker].assigned;
    let order_of = |of| tasks[&of].task.order;
    let other = *tasks.keys().find(|id| id.graph != urgent).expect("two");
    assert!(order_of(task(urgent, 0)) < order_of(other));
}

#[test]
fn tasks_of_many_slots_leave_room_for_small_ones_elsewhere() {
    let mut cluster = Cluster::of(2, 4);
    let mut wide = independent(6);
    wide.layers[0].resources = Resources::slots(4);
    cluster.submit(wide);
    for worker in cluster.workers.values() {
        assert_eq!(worker.assigned.len(), 2, "one runs, one is queued");
    }
}

#[test]
fn a_named_resource_is_given_only_to_those_who_have_it() {
    let mut cluster = Cluster::of(2, 2);
    let gpu = Resources::slots(1).with("gpu", 1);
    let mut tasks = independent(4);
    tasks.layers[0].resources = gpu.clone();
    let mixed = cluster.join_with(Resources { slots: 2, ..gpu });
    let graph = cluster.submit(tasks);
    assert_eq!(
        cluster.workers[&mixed].assigned.len(),
        2,
        "one runs on the gpu, one is queued for it"
    );
    assert_eq!(cluster.assigned().len(), 2);
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
}

fn without_grace() -> Config {
    Config {
        unschedulable_grace_ms: 0,
        ..Config::default()
    }
}

#[test]
fn a_request_that_nobody_can_meet_fails_with_the_largest_offers_named() {
    let mut cluster = Cluster::with(without_grace());
    cluster.join(4);
    cluster.join(4);
    let mut tasks = independent(1);
    tasks.layers[0].resources = Resources::slots(64);
    let graph = cluster.submit(tasks);
    let Some(GraphOutcome::Failed(error)) = cluster.outcome(graph) else {
        panic!("{:?}", cluster.outcome(graph));
    };
    assert_eq!(error.kind, TaskErrorKind::Unschedulable);
    assert!(error.message.contains("64 slots"), "{error}");
    assert!(error.message.contains("4 slots"), "{error}");
    cluster.assert_clean();
}

#[test]
fn a_request_that_nobody_can_meet_waits_while_there_is_nobody() {
    let mut cluster = Cluster::with(without_grace());
    let mut tasks = independent(1);
    tasks.layers[0].resources = Resources::slots(64);
    let graph = cluster.submit(tasks);
    assert_eq!(cluster.outcome(graph), None);
    cluster.join(1);
    assert!(matches!(
        cluster.outcome(graph),
        Some(GraphOutcome::Failed(_))
    ));
}

#[test]
fn partitions_are_freed_as_soon_as_nobody_needs_them() {
    let mut cluster = Cluster::of(1, 4);
    let graph = cluster.submit(gather(3));
    for index in 0..3 {
        cluster.finish(task(graph, index));
    }
    let worker = cluster.finish(task(graph, 3));
    let stored = &cluster.workers[&worker].stored;
    assert_eq!(stored.iter().copied().collect::<Vec<_>>(), [task(graph, 3)]);
}

#[test]
fn a_broadcast_partition_is_shared_and_freed_on_all_workers() {
    let mut tasks = TaskGraph::new("broadcast");
    let build = tasks.push(Layer::new("build", "op", 1));
    let probe = tasks.push(Layer::new("probe", "op", 4).reading(build, Edges::Broadcast));
    tasks.keep(probe);
    let mut cluster = Cluster::of(2, 2);
    let graph = cluster.submit(tasks);
    cluster.finish(task(graph, 0));
    for worker in cluster.workers.values() {
        for (id, fake) in &worker.assigned {
            let reads = &worker.layers[&(id.graph, fake.task.layer)].inputs;
            let is_shared =
                |reads: &InputSpec| matches!(reads, InputSpec::All { shared: true, .. });
            assert!(reads.iter().all(is_shared));
        }
    }
    // Both workers have a copy now.
    for worker in cluster.workers.values_mut() {
        worker.stored.insert(task(graph, 0));
    }
    cluster.run();
    for worker in cluster.workers.values() {
        assert!(!worker.stored.contains(&task(graph, 0)));
    }
}

#[test]
fn what_no_kept_output_needs_never_runs() {
    let mut tasks = chain(2);
    let unused = tasks.push(
        Layer::new("unused", "op", 5).reading(transload_protocol::LayerIndex(0), Edges::Broadcast),
    );
    assert_eq!(unused.0, 3);
    let mut cluster = Cluster::of(1, 8);
    let graph = cluster.submit(tasks);
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
    let (_, layers) = cluster.client().progress.last().expect("told");
    assert_eq!(layers.iter().map(|layer| layer.done).sum::<u32>(), 6);
    assert_eq!(layers[3].total, 0);
    assert!(
        cluster
            .scheduler
            .explain(task(graph, 6))
            .summary
            .contains("never runs")
    );
}

#[test]
fn where_nothing_is_kept_everything_runs_for_its_effect_and_is_freed() {
    let mut tasks = chain(3);
    tasks.outputs.clear();
    let mut cluster = Cluster::of(2, 2);
    let graph = cluster.submit(tasks);
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
    assert!(cluster.client().outputs.is_empty());
    cluster.assert_clean();
}

#[test]
fn a_wide_task_does_not_block_a_narrow_one_behind_it() {
    // Two readers of one output: the deeper one asks for more slots than its holder has room for.
    let mut tasks = TaskGraph::new("behind");
    let a = tasks.push(Layer::new("a", "op", 1));
    let narrow = tasks.push(Layer::new("narrow", "op", 1).reading(a, Edges::OneToOne));
    let mut wide = Layer::new("wide", "op", 1).reading(a, Edges::OneToOne);
    wide.resources = Resources::slots(2);
    let wide = tasks.push(wide);
    tasks.keep(narrow);
    tasks.keep(wide);
    let mut blocker = independent(3);
    blocker.layers[0].priority = 1;
    let mut cluster = Cluster::of(1, 2);
    cluster.submit(blocker);
    let graph = cluster.submit(tasks);
    let holder = cluster.finish(task(graph, 0));
    assert_eq!(cluster.worker_of(task(graph, 2)), None);
    assert_eq!(cluster.worker_of(task(graph, 1)), Some(holder));
    let thief = cluster.join(2);
    assert_eq!(cluster.worker_of(task(graph, 2)), Some(thief));
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
}
