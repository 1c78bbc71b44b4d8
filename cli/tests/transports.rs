//! What carries partitions between workers: what can be chosen, what is said where it cannot be had, and that whole queries give the
//! same answers over UCX, also when a worker is killed. What needs UCX is skipped, with a printed reason, where there is none.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::fs;
use std::path::Path;

use common::{ByHand, Sandbox, kill, tpch, wait_until};
use serde_json::Value;

/// Splits small tables, so that the workers have something to tell each other.
const SPLIT: &str = "SET datafusion.execution.target_partitions = 4;
SET datafusion.optimizer.repartition_file_min_size = 1000;
";

/// Whether UCX works here. Says why not.
fn is_ucx_there() -> bool {
    let sandbox = Sandbox::new();
    let few = ["--fetches", "3", "--sizes", "8"];
    let said = sandbox.run(&[&["bench", "transport", "--transport", "ucx"][..], &few].concat());
    let absent = said.code == 1 && said.err.contains("UCX cannot be loaded");
    if absent {
        println!("skipped: {}", said.err);
    } else {
        assert_eq!(said.code, 0, "{}", said.err);
        assert!(said.out.contains("ucx "), "{}", said.out);
    }
    !absent
}

/// The queries derived from TPC-H, as one script.
fn queries() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../query/tests/tpch");
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|it| it.unwrap().path())
        .collect();
    files.sort();
    assert_eq!(files.len(), 22);
    let queries = files.iter().map(|path| fs::read_to_string(path).unwrap());
    let queries = queries.map(|it| format!("{};\n", it.trim().trim_end_matches(';')));
    format!("{SPLIT}{}", queries.collect::<String>())
}

/// A script's arguments for `sql`.
fn script(sandbox: &Sandbox) -> Vec<String> {
    let file = sandbox.file("queries.sql", &queries());
    let tables = tpch().to_str().unwrap();
    ["--tables", tables, "--format", "csv", &file]
        .map(str::to_owned)
        .to_vec()
}

/// Answers to be compared: averages and quotients may differ in the last digits, everything else is decimal.
fn rounded(answers: &str) -> Vec<String> {
    let field = |field: &str| match field.parse::<f64>() {
        Ok(number) if field.contains('.') => format!("{number:.8e}"),
        _ => field.to_owned(),
    };
    let line = |line: &str| line.split(',').map(field).collect::<Vec<_>>().join(",");
    answers.lines().map(line).collect()
}

fn texts(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

/// The answers over a cluster of this command's own.
fn answers(workers: &str, transport: &str) -> Vec<String> {
    let sandbox = Sandbox::new();
    let arguments = script(&sandbox);
    let cluster = ["sql", "--workers", workers, "--transport", transport];
    let out = sandbox.out(&[&cluster[..], &texts(&arguments)].concat());
    sandbox.assert_clean();
    rounded(&out)
}

/// What came from one worker to another, once something has.
fn transfers(cluster: &ByHand) -> Vec<Value> {
    wait_until("workers have told what came to them", || {
        !cluster.info()["transfers"].as_array().unwrap().is_empty()
    });
    cluster.info()["transfers"].as_array().unwrap().clone()
}

#[test]
fn a_transport_that_there_is_not_is_wrong_usage() {
    let sandbox = Sandbox::new();
    for command in [
        &["worker", "127.0.0.1:1"][..],
        &["sql", "-c", "SELECT 1"],
        &["bench", "transport"],
    ] {
        let said = sandbox.run(&[command, &["--transport", "pigeon"]].concat());
        assert_eq!(said.code, 2, "{command:?}: {}", said.err);
        assert!(said.err.contains("auto, tcp or ucx"), "{}", said.err);
    }
    let bench = ["bench", "transport", "--transport", "tcp", "--peer"];
    for peer in ["ucx://127.0.0.1:1", "pigeon://loft"] {
        let said = sandbox.run(&[&bench[..], &[peer]].concat());
        assert_eq!(said.code, 2, "{peer}: {}", said.err);
        assert!(said.err.contains(peer), "{}", said.err);
    }
}

#[test]
fn where_ucx_is_wanted_and_not_there_nothing_starts_and_the_remedy_is_told() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("empty")).unwrap();
    let ucx = ["--transport", "ucx"];
    let folder = ["--ucx-library-dir", "empty"];
    let says_why = |said: common::Said| {
        assert_eq!(said.code, 1, "{}", said.err);
        for part in ["libucp.so.0", "libucx0", "--transport auto"] {
            assert!(said.err.contains(part), "{part}: {}", said.err);
        }
    };
    let query = ["sql", "--workers", "1", "-c", "SELECT 1"];
    says_why(sandbox.run(&[&query[..], &ucx, &folder].concat()));
    let mut scheduler = sandbox.start(&["scheduler", "--port", "0"]);
    let address = scheduler.line();
    let address = address.rsplit(' ').next().unwrap();
    says_why(sandbox.run(&[&["worker", address][..], &ucx, &folder].concat()));
    // From the environment, and for a measurement.
    let mut bench = sandbox.command(&[&["bench", "transport"][..], &ucx].concat());
    bench.env("TRANSLOAD_UCX_LIBRARY_DIR", "empty");
    says_why(common::finish(bench.spawn().unwrap()));
    kill("-TERM", scheduler.pid());
    scheduler.finish();
    sandbox.assert_clean();
}

#[test]
fn where_ucx_is_not_there_a_worker_says_so_and_uses_tcp() {
    let cluster = ByHand::new(0);
    fs::create_dir(cluster.sandbox.path("empty")).unwrap();
    let folder = ["--ucx-library-dir", "empty"];
    let worker = [&["worker", &cluster.address][..], &folder].concat();
    let worker = cluster.sandbox.start(&worker);
    wait_until("it has joined", || cluster.worker_infos().len() == 1);
    let addresses = cluster.worker_infos()[0]["addresses"].clone();
    let addresses: Vec<&str> = addresses
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it.as_str().unwrap())
        .collect();
    assert_eq!(addresses.len(), 2, "{addresses:?}");
    assert!(addresses[1].starts_with("tcp://"), "{addresses:?}");
    kill("-TERM", worker.pid());
    let said = worker.finish();
    let reasons = said.err.lines().filter(|line| line.contains("no UCX"));
    assert_eq!(
        reasons.filter(|line| line.contains("libucp.so.0")).count(),
        1,
        "{}",
        said.err
    );
}

#[test]
fn a_process_that_serves_says_an_address_for_each_transport_and_each_can_be_measured() {
    if !is_ucx_there() {
        return;
    }
    let sandbox = Sandbox::new();
    let mut serving = sandbox.start(&["bench", "transport", "--serve", "127.0.0.1:0"]);
    let line = serving.line();
    let places = line.strip_prefix("serving at ").expect("it says where");
    let places = places.split(';').next().unwrap();
    let (ucx, tcp) = places.split_once(" and ").expect("two");
    for (peer, transport) in [(ucx, "ucx "), (tcp, "tcp")] {
        let few = ["--fetches", "3", "--sizes", "64KiB", "--json"];
        let out = sandbox.out(&[&["bench", "transport", "--peer", peer][..], &few].concat());
        let measured: Value = serde_json::from_str(&out).unwrap();
        let used = measured["transport"].as_str().unwrap();
        assert!(used.starts_with(transport), "{peer}: {used}");
    }
    kill("-INT", serving.pid());
    serving.finish();
    sandbox.assert_clean();
}

#[test]
fn queries_give_the_same_answers_over_ucx_on_two_and_on_four_workers() {
    if !is_ucx_there() {
        return;
    }
    let expected = answers("2", "tcp");
    assert!(expected.len() > 22, "{expected:?}");
    for workers in ["2", "4"] {
        assert_eq!(answers(workers, "ucx"), expected, "{workers} workers");
    }
}

#[test]
fn queries_over_ucx_survive_the_death_of_a_worker_and_every_pair_says_what_it_uses() {
    if !is_ucx_there() {
        return;
    }
    let expected = answers("1", "tcp");
    let cluster = ByHand::with(3, &["--transport", "ucx"]);
    let arguments = script(&cluster.sandbox);
    let client = cluster.start_sql(&texts(&arguments));
    wait_until("partitions have come over UCX", || {
        let info = cluster.info();
        let mut transfers = info["transfers"].as_array().unwrap().iter();
        transfers.any(|it| it["transport"].as_str().unwrap().starts_with("ucx "))
    });
    let victim = cluster.workers[1].pid();
    wait_until("the victim works", || cluster.is_busy(victim));
    kill("-9", victim);
    let said = client.finish();
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(rounded(&said.out), expected);
    let left: Vec<Value> = cluster
        .worker_infos()
        .iter()
        .map(|it| it["id"].clone())
        .collect();
    assert_eq!(left.len(), 2);
    let mut between = transfers(&cluster);
    between.retain(|it| left.contains(&it["from"]) && left.contains(&it["to"]));
    assert!(!between.is_empty());
    for pair in between {
        assert!(
            pair["transport"].as_str().unwrap().starts_with("ucx "),
            "{pair}"
        );
        assert_eq!(pair["instead_of"], Value::Null, "{pair}");
    }
}

#[test]
fn workers_whose_ucx_differs_use_tcp_and_cluster_info_says_why() {
    if !is_ucx_there() {
        return;
    }
    let mut cluster = ByHand::with(1, &["--transport", "ucx"]);
    let other = ["worker", &cluster.address, "--transport", "ucx"];
    let mut other = cluster.sandbox.command(&other);
    other.env("UCX_TCP_TX_SEG_SIZE", "64k");
    cluster.workers.push(common::Background::new(other));
    wait_until("both joined", || cluster.worker_infos().len() == 2);
    let arguments = script(&cluster.sandbox);
    let said = cluster.sql(&texts(&arguments));
    assert_eq!(said.code, 0, "{}", said.err);
    for pair in transfers(&cluster) {
        assert_eq!(pair["transport"], "tcp", "{pair}");
        assert_eq!(pair["instead_of"]["transport"], "ucx", "{pair}");
    }
    let info = cluster.sandbox.out(&["cluster", "info", &cluster.address]);
    assert!(
        info.contains("instead of") && info.contains("ucx: "),
        "{info}"
    );
}
