//! A cluster started by hand, and what happens to it when its processes are killed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::time::Duration;

use common::{ByHand, Sandbox, kill, wait_until, within};

fn texts(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

#[test]
fn workers_and_clients_find_the_scheduler_by_its_file() {
    let sandbox = Sandbox::new();
    let file = sandbox.path("scheduler.json");
    let file = file.to_str().unwrap();
    // The workers come first, as on a batch system.
    let workers = [0, 1].map(|_| sandbox.start(&["worker", "--scheduler-file", file]));
    let scheduler = sandbox.start(&["scheduler", "--port", "0", "--scheduler-file", file]);
    wait_until("the scheduler file is there", || {
        sandbox.path("scheduler.json").exists()
    });
    wait_until("both workers joined", || {
        sandbox
            .out(&["cluster", "info", "--scheduler-file", file])
            .starts_with("2 workers")
    });
    let out = sandbox.out(&[
        "sql",
        "--scheduler-file",
        file,
        "--format",
        "csv",
        "-c",
        "SELECT 6 * 7 AS answer",
    ]);
    assert_eq!(out, "answer\n42\n");
    sandbox.out(&["cluster", "shutdown", "--scheduler-file", file]);
    assert_eq!(scheduler.finish().code, 0);
    for worker in workers {
        worker.finish();
    }
    assert!(!sandbox.path("scheduler.json").exists());
    sandbox.assert_clean();
}

#[test]
fn a_worker_killed_in_the_middle_of_a_query_does_not_change_its_answer() {
    let cluster = ByHand::new(3);
    let (arguments, answer) = cluster.slow();
    let client = cluster.start_sql(&texts(&arguments));
    let victim = cluster.workers[1].pid();
    wait_until("the victim works", || cluster.is_busy(victim));
    kill("-9", victim);
    let said = client.finish();
    assert_eq!(
        (said.code, said.out.as_str()),
        (0, answer.as_str()),
        "{}",
        said.err
    );
    assert_eq!(cluster.worker_infos().len(), 2);
}

#[test]
fn a_worker_told_to_end_drains_and_the_query_goes_on_elsewhere() {
    let mut cluster = ByHand::new(2);
    let (arguments, answer) = cluster.slow();
    let client = cluster.start_sql(&texts(&arguments));
    let leaving = cluster.workers.remove(0);
    wait_until("it works", || cluster.is_busy(leaving.pid()));
    kill("-TERM", leaving.pid());
    let left = leaving.finish();
    assert_eq!(left.code, 0, "{left:?}");
    let said = client.finish();
    assert_eq!(
        (said.code, said.out.as_str()),
        (0, answer.as_str()),
        "{}",
        said.err
    );
}

#[test]
fn the_work_of_a_killed_client_stops_and_its_partitions_are_freed() {
    let cluster = ByHand::new(2);
    let (arguments, _) = cluster.slow();
    let client = cluster.start_sql(&texts(&arguments));
    wait_until("both workers work", || {
        cluster
            .workers
            .iter()
            .all(|worker| cluster.is_busy(worker.pid()))
    });
    kill("-9", client.pid());
    within(
        Duration::from_secs(5),
        "work stopped and memory is free",
        || {
            let info = cluster.info();
            let idle = info["workers"].as_array().unwrap().iter().all(|worker| {
                let tiers = worker["memory"].as_array().unwrap();
                worker["running"].as_array().unwrap().is_empty()
                    && worker["queued"] == 0
                    && worker["assigned"] == 0
                    && tiers.iter().all(|tier| tier["used_bytes"] == 0)
            });
            idle && info["graphs_running"] == 0
        },
    );
    let next = cluster.sql(&["--format", "csv", "-c", "SELECT 1 AS one"]);
    assert_eq!(next.out, "one\n1\n", "{}", next.err);
}

#[test]
fn nothing_outlives_the_killed_parent_of_a_local_cluster() {
    let cluster = ByHand::new(0);
    let (arguments, _) = cluster.slow();
    let sandbox = &cluster.sandbox;
    let parent =
        sandbox.start(&[&["sql", "--workers", "2"], texts(&arguments).as_slice()].concat());
    wait_until("both workers run", || {
        sandbox.processes("--local").len() == 2
    });
    kill("-9", parent.pid());
    wait_until("no worker is left", || {
        sandbox.processes("--local").is_empty()
    });
    wait_until("no spill file is left", || sandbox.leftovers().is_empty());
}

#[test]
fn a_scheduler_told_to_end_takes_its_workers_along() {
    let cluster = ByHand::new(2);
    kill("-TERM", cluster.scheduler.pid());
    assert_eq!(cluster.scheduler.finish().code, 0);
    for worker in cluster.workers {
        worker.finish();
    }
    cluster.sandbox.assert_clean();
}

#[test]
fn the_cluster_shows_its_workers_memory_and_transports() {
    let cluster = ByHand::new(2);
    wait_until("all is shown, once the workers have reported", || {
        let text = cluster.sandbox.out(&["cluster", "info", &cluster.address]);
        ["2 workers", "2 slots", "host", "disk", "tcp://"]
            .iter()
            .all(|word| text.contains(word))
    });
    let workers = cluster.worker_infos();
    let pids: Vec<u64> = workers
        .iter()
        .map(|worker| worker["pid"].as_u64().unwrap())
        .collect();
    for worker in &cluster.workers {
        assert!(pids.contains(&u64::from(worker.pid())));
    }
}
