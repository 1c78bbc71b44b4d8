//! Tasks that ask for more than slots, or for certain workers; and tasks that nobody can run.

use transload_protocol::{
    Amount, Edges, Event, GraphId, GraphOutcome, Layer, Resources, TaskErrorKind, TaskGraph,
    WorkerId, WorkerRef,
};

use crate::Config;
use crate::testing::graphs::independent;
use crate::testing::{Cluster, task};

/// Shorter than silence is allowed for.
const GRACE_MS: u64 = 5_000;

fn config() -> Config {
    Config {
        unschedulable_grace_ms: 5_000,
        max_queue_per_slot: 0,
        ..Config::default()
    }
}

fn cluster(workers: u32, slots: u32) -> Cluster {
    let mut cluster = Cluster::with(config());
    for _ in 0..workers {
        cluster.join(slots);
    }
    cluster
}

/// So many tasks of one layer, which is kept.
fn one(layer: Layer) -> TaskGraph {
    let mut graph = TaskGraph::new("one");
    let layer = graph.push(layer);
    graph.keep(layer);
    graph
}

fn map(tasks: u32) -> Layer {
    Layer::new("map", "op", tasks)
}

fn half_a_gpu() -> Resources {
    Resources::slots(1).with("gpu", Amount::ten_thousandths(5_000))
}

/// The workers that have tasks, by number of these.
fn loads(cluster: &Cluster) -> Vec<(u32, usize)> {
    let workers = cluster.workers.iter();
    let loads = workers.map(|(id, worker)| (id.0, worker.assigned.len()));
    loads.filter(|(_, tasks)| *tasks > 0).collect()
}

fn failure(cluster: &Cluster, graph: GraphId) -> String {
    match cluster.outcome(graph) {
        Some(GraphOutcome::Failed(error)) => {
            assert_eq!(error.kind, TaskErrorKind::Unschedulable, "{error}");
            error.message.clone()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn memory_that_tasks_ask_for_is_never_more_than_the_worker_has_twice() {
    let mut cluster = cluster(0, 0);
    cluster.join_with(Resources::slots(8).with_memory(100));
    let request = Resources::slots(1).with_memory(40);
    let graph = cluster.submit(one(map(10).with_resources(request)));
    assert_eq!(
        cluster.assigned().len(),
        5,
        "two run, and as much as fits in the same memory once more is queued"
    );
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
}

#[test]
fn halves_of_a_shared_resource_add_up_to_it() {
    let mut cluster = Cluster::with(Config {
        queue_per_slot: 0,
        ..config()
    });
    cluster.join_as(Resources::slots(8).with("gpu", 1), |hello| {
        hello.shared.insert("gpu".to_owned());
    });
    let graph = cluster.submit(one(map(5).with_resources(half_a_gpu())));
    assert_eq!(cluster.assigned().len(), 2);
    cluster.finish(task(graph, 0));
    assert_eq!(cluster.assigned().len(), 2);
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
}

#[test]
fn a_fraction_of_what_nobody_shares_is_refused_with_the_remedy() {
    let mut cluster = cluster(0, 0);
    cluster.join_with(Resources::slots(1).with("gpu", 2));
    let graph = cluster.submit(one(map(2).with_resources(half_a_gpu())));
    let explanation = cluster.scheduler.explain(task(graph, 1));
    assert!(
        explanation.summary.contains("--shared-resources gpu"),
        "{explanation:?}"
    );
    cluster.wait_ms(GRACE_MS);
    let message = failure(&cluster, graph);
    assert!(
        message.contains("0.5 gpu") && message.contains("ask for 1 gpu"),
        "{message}"
    );
    cluster.assert_clean();
}

#[test]
fn a_layer_with_a_label_runs_only_where_workers_have_it() {
    let mut cluster = cluster(4, 4);
    let graph = cluster.submit(one(map(6).with_label("odd")));
    assert_eq!(loads(&cluster), [(1, 3), (3, 3)]);
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
}

#[test]
fn hosts_names_and_ids_narrow_down_where_a_layer_runs() {
    let mut cluster = cluster(4, 2);
    let there = cluster.join_as(Resources::slots(2), |hello| {
        hello.host = "there".to_owned();
    });
    for (layer, allowed) in [
        (map(1).on_host("there"), there),
        (map(1).on_worker(WorkerId(2)), WorkerId(2)),
        (map(1).on_worker("worker 3"), WorkerId(3)),
        (
            map(1)
                .on_worker(WorkerId(0))
                .on_worker(WorkerId(1))
                .with_label("odd"),
            WorkerId(1),
        ),
    ] {
        let graph = cluster.submit(one(layer));
        assert_eq!(cluster.worker_of(task(graph, 0)), Some(allowed));
    }
    cluster.run();
}

#[test]
fn inputs_do_not_draw_a_task_to_where_it_may_not_run() {
    let mut cluster = cluster(2, 2);
    let mut tasks = TaskGraph::new("pull");
    let a = tasks.push(map(4).on_worker(WorkerId(0)));
    let b = tasks.push(
        Layer::new("b", "op", 4)
            .reading(a, Edges::OneToOne)
            .on_worker(WorkerId(1)),
    );
    tasks.keep(b);
    let graph = cluster.submit(tasks);
    for index in 0..4 {
        cluster.finish_with(task(graph, index), &[1 << 30]);
        assert_eq!(cluster.worker_of(task(graph, 4 + index)), Some(WorkerId(1)));
    }
}

#[test]
fn each_task_of_a_pinned_layer_runs_on_its_own_worker_and_nobody_takes_it() {
    let mut cluster = cluster(3, 1);
    let busy = cluster.submit(one(map(2).on_worker(WorkerId(2))));
    let workers: Vec<WorkerRef> = vec![WorkerId(2).into(), "worker 1".into(), WorkerId(2).into()];
    let graph = cluster.submit(one(map(3).on_each(workers)));
    assert_eq!(loads(&cluster), [(1, 1), (2, 2)], "worker 0 stays idle");
    let explanation = cluster.scheduler.explain(task(graph, 0));
    assert!(
        explanation.summary.contains("waits for room"),
        "{explanation:?}"
    );
    assert!(
        explanation
            .details
            .contains(&"it may run only on worker w2".to_owned()),
        "{explanation:?}"
    );
    cluster.finish(task(busy, 0));
    cluster.finish(task(busy, 1));
    assert_eq!(cluster.worker_of(task(graph, 0)), Some(WorkerId(2)));
    assert_eq!(cluster.worker_of(task(graph, 2)), Some(WorkerId(2)));
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
}

#[test]
fn workers_of_one_name_share_the_tasks_that_are_pinned_to_it() {
    let mut cluster = cluster(0, 0);
    for _ in 0..2 {
        cluster.join_as(Resources::slots(1), |hello| hello.name = "twin".to_owned());
    }
    cluster.submit(one(map(4).on_each(vec!["twin".into(); 4])));
    assert_eq!(loads(&cluster), [(0, 2), (1, 2)]);
}

#[test]
fn a_pinned_task_waits_for_a_worker_that_is_away() {
    let mut cluster = Cluster::journaled(config());
    let (kept, away) = (cluster.join(1), cluster.join(1));
    let workers = vec![away.into(), kept.into(), away.into()];
    let graph = cluster.submit(one(map(3).on_each(workers)));
    cluster.start(task(graph, 0));
    cluster.cut(away);
    assert_eq!(cluster.assigned(), [task(graph, 1)]);
    let summary = cluster.scheduler.explain(task(graph, 0)).summary;
    assert!(summary.contains("may run only on worker w1"), "{summary}");
    cluster.wait_ms(GRACE_MS / 2);
    cluster.worker_returns(away);
    assert_eq!(loads(&cluster), [(0, 1), (1, 2)]);
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
}

#[test]
fn a_pinned_task_finds_its_worker_after_a_restart() {
    let mut cluster = Cluster::journaled(config());
    let (_, other) = (cluster.join(1), cluster.join(1));
    let graph = cluster.submit(one(map(4).on_each(vec![other.into(); 4])));
    cluster.finish(task(graph, 0));
    cluster.crash();
    cluster.all_return();
    assert_eq!(cluster.assigned(), [task(graph, 1), task(graph, 2)]);
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
    assert_eq!(cluster.recomputed(), []);
}

#[test]
fn what_is_pinned_to_a_worker_that_is_gone_fails_even_when_nobody_is_left() {
    let mut cluster = cluster(1, 1);
    let graph = cluster.submit(one(map(2).on_each(vec![WorkerId(0).into(); 2])));
    cluster.kill(WorkerId(0));
    assert_eq!(cluster.outcome(graph), None);
    cluster.wait_ms(GRACE_MS);
    let message = failure(&cluster, graph);
    assert!(
        message.contains("on worker w0") && message.contains("no workers"),
        "{message}"
    );
    cluster.assert_clean();
}

#[test]
fn a_label_that_nobody_has_is_named_at_once_and_fails_later() {
    let mut cluster = cluster(1, 1);
    let graph = cluster.submit(one(map(3).with_label("ssd")));
    let told = |event: &Event| matches!(event, Event::TaskUnschedulable { message, .. } if message.contains("`ssd`"));
    assert_eq!(cluster.count_events(told), 1, "once for the layer");
    let explanation = cluster.scheduler.explain(task(graph, 2));
    assert!(
        explanation.summary.contains("the label `ssd`"),
        "{explanation:?}"
    );
    assert!(
        explanation
            .details
            .iter()
            .any(|detail| detail.contains("fails in 5000 ms")),
        "{explanation:?}"
    );
    assert_eq!(cluster.outcome(graph), None);
    assert!(cluster.scheduler.next_deadline() <= Some(cluster.now.after_micros(GRACE_MS * 1_000)));
    cluster.wait_ms(GRACE_MS);
    assert!(failure(&cluster, graph).contains("start one"));
    cluster.assert_clean();
}

#[test]
fn a_fitting_worker_that_joins_in_time_runs_what_nobody_could() {
    let mut cluster = cluster(2, 1);
    let wide = cluster.submit(one(map(3).with_resources(Resources::slots(8))));
    let plain = cluster.submit(independent(2));
    assert_eq!(cluster.scheduler.info().tasks_ready, 3, "the wide ones");
    cluster.wait_ms(GRACE_MS - 1_000);
    let large = cluster.join(8);
    assert_eq!(cluster.workers[&large].assigned.len(), 2);
    cluster.run();
    assert_eq!(cluster.outcome(wide), Some(&GraphOutcome::Finished));
    assert_eq!(cluster.outcome(plain), Some(&GraphOutcome::Finished));
    cluster.wait_ms(GRACE_MS / 2);
    assert_eq!(cluster.scheduler.ready.stuck.tasks(), 0);
}

#[test]
fn the_grace_begins_anew_when_the_only_fitting_worker_leaves() {
    let mut cluster = cluster(1, 1);
    let graph = cluster.submit(one(map(3).with_resources(Resources::slots(4))));
    cluster.wait_ms(GRACE_MS - 1_000);
    let large = cluster.join(4);
    cluster.kill(large);
    cluster.wait_ms(GRACE_MS - 1_000);
    assert_eq!(cluster.outcome(graph), None);
    cluster.wait_ms(1_000);
    failure(&cluster, graph);
}

#[test]
fn a_queue_behind_the_slots_is_no_place_for_what_never_fits_there() {
    let mut cluster = cluster(2, 2);
    cluster.join(4);
    cluster.submit(one(map(6).with_resources(Resources::slots(4))));
    assert_eq!(loads(&cluster), [(2, 2)]);
}

#[test]
fn a_task_that_waits_for_inputs_is_said_to_fit_nowhere_already() {
    let mut cluster = cluster(1, 1);
    let mut tasks = TaskGraph::new("later");
    let a = tasks.push(map(1));
    let b = tasks.push(
        Layer::new("b", "op", 1)
            .reading(a, Edges::OneToOne)
            .on_host("nowhere"),
    );
    tasks.keep(b);
    let graph = cluster.submit(tasks);
    let explanation = cluster.scheduler.explain(task(graph, 1));
    assert!(
        explanation.details[0].contains("host `nowhere`"),
        "{explanation:?}"
    );
}

#[test]
fn cancelling_a_graph_that_nobody_can_run_leaves_nothing() {
    let mut cluster = cluster(1, 1);
    let graph = cluster.submit(one(map(3).with_label("ssd")));
    cluster.tell(transload_protocol::ClientMessage::Cancel { graph });
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Cancelled));
    cluster.assert_clean();
    assert_eq!(cluster.scheduler.ready.stuck.layers.len(), 0);
}
