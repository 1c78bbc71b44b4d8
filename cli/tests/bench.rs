//! `transload bench`: what is measured can be read by people and programs, and nothing is left running.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use common::{Sandbox, kill};
use serde_json::Value;

#[test]
fn each_graph_is_one_json_object_in_both_modes() {
    let sandbox = Sandbox::new();
    for mode in ["machine", "sockets"] {
        let out = sandbox.out(&[
            "bench",
            "scheduler",
            "--tasks",
            "300",
            "--workers",
            "3",
            "--graph",
            "all",
            "--mode",
            mode,
            "--json",
        ]);
        let runs: Vec<Value> = out
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let graphs: Vec<&str> = runs
            .iter()
            .map(|run| run["graph"].as_str().unwrap())
            .collect();
        assert_eq!(graphs, ["merge", "tree", "map", "shuffle", "random"]);
        for run in &runs {
            let tasks = run["tasks"].as_u64().unwrap();
            assert!(tasks.abs_diff(300) < 20, "{run}");
            // Each task is said to be finished, and assigned together with others, whatever else is said.
            assert!(run["messages"].as_u64().unwrap() > tasks, "{run}");
            for number in ["wall_s", "scheduler_cpu_us_per_task"] {
                assert!(run[number].as_f64().unwrap() > 0.0, "{number}: {run}");
            }
            assert_eq!(run["workers"], 3);
        }
    }
    sandbox.assert_clean();
}

#[test]
fn a_table_is_for_people_and_a_wrong_name_is_wrong_usage() {
    let sandbox = Sandbox::new();
    let out = sandbox.out(&["bench", "scheduler", "--tasks", "100", "--runs", "3"]);
    for part in ["CPU us/task", "merge", "medians of 3 runs"] {
        assert!(out.contains(part), "{part}: {out}");
    }
    assert_eq!(
        sandbox
            .run(&["bench", "scheduler", "--graph", "circle"])
            .code,
        2
    );
    let part = sandbox.run(&["bench", "part", "nonsense"]);
    assert_eq!(part.code, 1);
    assert!(part.err.contains("something unknown"), "{}", part.err);
}

#[test]
fn partitions_come_from_another_process_and_every_size_is_told() {
    let sandbox = Sandbox::new();
    let few = ["--transport", "tcp", "--fetches", "5", "--sizes", "8,64KiB"];
    let out = sandbox.out(&[&["bench", "transport", "--json"][..], &few].concat());
    let sizes: Vec<Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(sizes.len(), 2);
    for (measured, bytes) in sizes.iter().zip([8, 64 << 10]) {
        assert_eq!(measured["size_bytes"], bytes);
        assert_eq!(measured["transport"], "tcp");
        assert!(measured["latency_us"]["p50"].as_f64().unwrap() > 0.0);
        assert!(measured["bandwidth_bytes_per_s"].as_f64().unwrap() > 0.0);
    }
    let table = sandbox.out(&[&["bench", "transport"][..], &few].concat());
    for part in ["p99 us", "64 KiB", "4 fetches"] {
        assert!(table.contains(part), "{part}: {table}");
    }
    sandbox.assert_clean();
}

#[test]
fn what_one_worker_holds_reaches_the_tasks_of_another_as_often_as_asked_for() {
    let sandbox = Sandbox::new();
    let few = ["--partitions", "6", "--size", "100KiB", "--runs", "2"];
    let bench = [&["bench", "transfer", "--transport", "tcp"][..], &few].concat();
    let out = sandbox.out(&[&bench[..], &["--json"]].concat());
    let measured: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(measured["partitions"], 6);
    assert_eq!(measured["size_bytes"], 102_400);
    assert_eq!(measured["transport"], "tcp");
    assert!(measured["bytes_per_s"].as_f64().unwrap() > 0.0);
    assert!(measured["best_wall_s"].as_f64() <= measured["wall_s"].as_f64());
    let table = sandbox.out(&bench);
    assert!(
        table.contains("100 KiB") && table.contains("tcp"),
        "{table}"
    );
    sandbox.assert_clean();
}

#[test]
fn one_machine_serves_and_another_measures_until_ctrl_c() {
    let sandbox = Sandbox::new();
    let serve = ["bench", "transport", "--transport", "tcp", "--serve"];
    let mut serving = sandbox.start(&[&serve[..], &["127.0.0.1:0"]].concat());
    let line = serving.line();
    let address = line.strip_prefix("serving at ").expect("it says where");
    let address = address.split(';').next().unwrap();
    for _ in 0..2 {
        let peer = ["bench", "transport", "--peer", address];
        let out = sandbox.out(&[&peer[..], &["--fetches", "3", "--sizes", "1MiB"]].concat());
        assert!(out.contains("1.0 MiB"), "{out}");
    }
    kill("-INT", serving.pid());
    assert_eq!(serving.finish().code, 130);
    sandbox.assert_clean();
}

#[test]
fn where_nobody_serves_partitions_the_error_says_what_to_start_there() {
    let sandbox = Sandbox::new();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap().to_string();
    drop(nobody);
    let said = sandbox.run(&["bench", "transport", "--peer", &address]);
    assert_eq!(said.code, 1);
    for part in [address.as_str(), "bench transport --serve"] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    let large = sandbox.run(&["bench", "transport", "--sizes", "5GiB"]);
    assert_eq!(large.code, 2);
    assert!(large.err.contains("more than 4GiB"), "{}", large.err);
    let both = sandbox.run(&[
        "bench",
        "transport",
        "--serve",
        "127.0.0.1:0",
        "--peer",
        &address,
    ]);
    assert_eq!(both.code, 2);
}
