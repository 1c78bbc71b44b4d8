//! Questions, reports, refusals, and time.

use transload_protocol::{
    ClientId, ClientMessage, Demotion, Edges, Event, EventRecord, GraphId, GraphOutcome, Layer,
    Tier, Time, WorkerId, WorkerLoad, WorkerMessage,
};

use crate::testing::graphs::{chain, gather, independent};
use crate::testing::{CLIENT, Cluster, partition, task};
use crate::{Config, Input};

#[test]
fn a_graph_that_breaks_a_rule_is_rejected_with_the_rule() {
    let mut cluster = Cluster::of(1, 1);
    let mut tasks = independent(1);
    tasks.layers[0].tasks = 0;
    let graph = cluster.submit(tasks);
    let error = cluster.client().rejected[&graph].to_string();
    assert!(error.contains("no tasks"), "{error}");
    cluster.assert_clean();
}

#[test]
fn a_graph_with_too_many_edges_is_rejected_at_once() {
    let mut cluster = Cluster::of(1, 1);
    let mut tasks = independent(1 << 23);
    let map = transload_protocol::LayerIndex(0);
    let mut reader = Layer::new("reads it often", "op", 1 << 23);
    for _ in 0..33 {
        reader = reader.reading(map, Edges::OneToOne);
    }
    tasks.push(reader);
    let graph = cluster.submit(tasks);
    let error = cluster.client().rejected[&graph].to_string();
    assert!(error.contains("number of edges, 276824064,"), "{error}");
}

#[test]
fn a_graph_id_must_be_the_clients_own_and_new() {
    let mut cluster = Cluster::of(1, 1);
    let used = cluster.submit(independent(1));
    let foreign = GraphId {
        client: ClientId(9),
        sequence: 0,
    };
    for (graph, reason) in [(used, "in use"), (foreign, "another client")] {
        cluster.tell(ClientMessage::Submit {
            graph,
            tasks: independent(5),
        });
        let error = cluster.client().rejected[&graph].to_string();
        assert!(error.contains(reason), "{error}");
    }
    assert_eq!(cluster.assigned(), [task(used, 0)]);
    // While a cancelled task is unanswered, its graph's id is still in use.
    cluster.tell(ClientMessage::Cancel { graph: used });
    cluster.tell(ClientMessage::Submit {
        graph: used,
        tasks: independent(1),
    });
    assert_eq!(cluster.assigned(), []);
}

#[test]
fn one_client_cannot_touch_the_graphs_of_another() {
    let mut cluster = Cluster::of(1, 1);
    let graph = cluster.submit(independent(1));
    let other = ClientId(1);
    cluster.join_client(other);
    cluster.finish(task(graph, 0));
    for message in [
        ClientMessage::Cancel { graph },
        ClientMessage::Release {
            tasks: vec![task(graph, 0)],
        },
        ClientMessage::Unreachable {
            task: task(graph, 0),
            worker: WorkerId(0),
            reason: String::new(),
        },
    ] {
        cluster.feed(Input::FromClient {
            client: other,
            message,
        });
    }
    assert!(
        cluster
            .scheduler
            .explain(task(graph, 0))
            .summary
            .contains("is done")
    );
    assert_eq!(cluster.recomputed(), [] as [u32; 0]);
}

#[test]
fn a_silent_worker_is_dropped_and_its_tasks_go_elsewhere() {
    let mut cluster = Cluster::of(2, 1);
    let graph = cluster.submit(independent(2));
    let silent = cluster.worker_of(task(graph, 0)).expect("assigned");
    let lively = cluster.worker_of(task(graph, 1)).expect("assigned");
    let deadline = cluster
        .scheduler
        .next_deadline()
        .expect("workers are watched");
    assert!(deadline <= Time::from_millis(10_001));
    cluster.now = Time::from_millis(9_000);
    let load = WorkerLoad::default();
    cluster.say(lively, WorkerMessage::Heartbeat { load });
    cluster.now = Time::from_millis(10_002);
    cluster.feed(Input::Tick);
    assert_eq!(cluster.dropped, [silent]);
    assert_eq!(cluster.worker_of(task(graph, 0)), Some(lively));
    let deadline = cluster.scheduler.next_deadline().expect("still watched");
    assert!(deadline > Time::from_millis(18_000), "{deadline:?}");
}

#[test]
fn a_scheduler_that_stalled_itself_gives_its_workers_time() {
    let mut cluster = Cluster::of(2, 1);
    cluster.now = Time::from_millis(60_000);
    cluster.feed(Input::Tick);
    assert_eq!(cluster.dropped, []);
    cluster.now = cluster.scheduler.next_deadline().expect("still watched");
    cluster.feed(Input::Tick);
    assert_eq!(cluster.dropped.len(), 2);
}

#[test]
fn a_worker_that_reports_impossible_outputs_is_dropped() {
    let mut cluster = Cluster::of(1, 1);
    let graph = cluster.submit(independent(1));
    cluster.finish_with(task(graph, 0), &[1, 2, 3]);
    assert_eq!(cluster.dropped, [WorkerId(0)]);
    cluster.join(1);
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
}

#[test]
fn progress_is_told_at_most_so_often_and_once_more_before_the_end() {
    let mut cluster = Cluster::with(Config {
        progress_interval_ms: 100,
        ..Config::default()
    });
    cluster.join(1);
    cluster.submit(independent(50));
    for _ in 0..49 {
        let first = cluster.assigned()[0];
        cluster.finish(first);
    }
    assert_eq!(
        cluster.client().progress.len(),
        1,
        "all within a millisecond"
    );
    let due = cluster.scheduler.next_deadline().expect("more to tell");
    assert!(due <= Time::from_millis(101));
    cluster.now = due;
    cluster.feed(Input::Tick);
    assert_eq!(cluster.client().progress.len(), 2);
    cluster.run();
    let (_, layers) = cluster.client().progress.last().expect("told");
    assert_eq!(
        (layers[0].done, layers[0].running, layers[0].total),
        (50, 0, 50)
    );
}

#[test]
fn subscribers_hear_every_event_and_others_none() {
    let mut cluster = Cluster::of(1, 1);
    cluster.join_client(ClientId(1));
    cluster.tell(ClientMessage::Subscribe);
    cluster.tell(ClientMessage::Subscribe);
    cluster.submit(independent(1));
    cluster.run();
    let heard: Vec<Event> = cluster
        .client()
        .events
        .iter()
        .map(|record| record.event.clone())
        .collect();
    assert!(cluster.events.ends_with(&heard));
    assert!(
        heard
            .iter()
            .any(|event| matches!(event, Event::TaskFinished { .. }))
    );
    assert!(cluster.clients[&ClientId(1)].events.is_empty());
}

#[test]
fn info_adds_up_what_workers_report() {
    let mut cluster = Cluster::of(2, 1);
    let graph = cluster.submit(gather(2));
    let fetched = Event::PartitionFetched {
        partition: partition(graph, 0),
        from: WorkerId(0),
        to: WorkerId(1),
        bytes: 70,
        transport: "tcp".to_owned(),
        micros: 5,
    };
    let demotion = Demotion {
        wanted: "ucx".to_owned(),
        reason: "another version".to_owned(),
        lasting: false,
    };
    let demoted = Event::LinkDemoted {
        from: WorkerId(0),
        to: WorkerId(1),
        demotion: demotion.clone(),
        used: "tcp".to_owned(),
    };
    let moved = |to| Event::PartitionMoved {
        partition: partition(graph, 0),
        worker: WorkerId(1),
        from: Tier::Host,
        to,
        bytes: 11,
        micros: 3,
    };
    let events = [
        demoted,
        fetched.clone(),
        fetched,
        moved(Tier::Disk),
        moved(Tier::Host),
    ]
    .into_iter()
    .map(|event| EventRecord {
        at: Time::default(),
        event,
    })
    .collect();
    cluster.say(WorkerId(1), WorkerMessage::Events { events });
    cluster.tell(ClientMessage::Info);
    let info = cluster.client().info.last().expect("answered");
    assert_eq!(info.transfers.len(), 1);
    assert_eq!(
        (info.transfers[0].bytes, info.transfers[0].partitions),
        (140, 2)
    );
    assert_eq!(info.transfers[0].transport, "tcp");
    assert_eq!(info.transfers[0].demotion, Some(demotion));
    assert_eq!(info.workers[1].spilled_bytes, 11);
    assert_eq!((info.clients, info.graphs_running), (1, 1));
    assert_eq!(
        info.workers
            .iter()
            .map(|worker| worker.assigned)
            .sum::<u32>(),
        2
    );
}

#[test]
fn every_state_is_explained() {
    let mut cluster = Cluster::of(1, 1);
    let graph = cluster.submit(chain(3));
    let ask = |cluster: &Cluster, index| cluster.scheduler.explain(task(graph, index)).summary;
    assert!(ask(&cluster, 0).contains("was handed to worker w0"));
    cluster.start(task(graph, 0));
    assert!(ask(&cluster, 0).contains("runs on worker w0"));
    assert!(ask(&cluster, 2).contains("is ready and waits for room"));
    assert!(ask(&cluster, 3).contains("waits for 1 of the 1"));
    cluster.finish(task(graph, 0));
    assert!(ask(&cluster, 0).contains("is done: 100 B on worker w0"));
    cluster.finish(task(graph, 3));
    assert!(ask(&cluster, 0).contains("is over"));
    assert!(ask(&cluster, 99).contains("unknown"));
    cluster.tell(ClientMessage::Explain {
        task: task(graph, 0),
    });
    assert_eq!(cluster.client().explained.len(), 1);
}

#[test]
fn shutdown_is_told_to_all_and_ends_everything() {
    let mut cluster = Cluster::of(2, 1);
    cluster.submit(independent(4));
    cluster.tell(ClientMessage::Shutdown);
    assert!(cluster.stopped && cluster.clients[&CLIENT].shutting_down);
    assert!(cluster.workers.values().all(|worker| worker.shutdown));
    cluster.kill(WorkerId(0));
    assert_eq!(cluster.scheduler.check(), Ok(()));
}

#[test]
fn strangers_and_repeated_joins_change_nothing() {
    let mut cluster = Cluster::of(1, 1);
    cluster.feed(Input::FromClient {
        client: ClientId(7),
        message: ClientMessage::Shutdown,
    });
    cluster.say(WorkerId(7), WorkerMessage::Goodbye);
    cluster.feed(Input::ClientLost {
        client: ClientId(7),
    });
    cluster.feed(Input::WorkerLost {
        worker: WorkerId(7),
        reason: String::new(),
    });
    assert!(!cluster.stopped);
    assert_eq!(cluster.scheduler.info().workers.len(), 1);
}
