//! `transload trace` as people use it: a cluster is recorded, and the recording becomes a trace and a page.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::fs;

use common::{Background, ByHand, Sandbox, kill, tpch, wait_until};
use serde_json::Value;

const JOIN: &str = "SELECT n_name, count(*) AS customers FROM customer JOIN nation ON c_nationkey = n_nationkey GROUP BY n_name";

/// What has been recorded so far for the file `run.jsonl`, which is not there yet.
fn recorded_so_far(sandbox: &Sandbox) -> String {
    let partial = fs::read_dir(sandbox.path(""))
        .unwrap()
        .flatten()
        .find(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.starts_with(".run.jsonl") && name.ends_with(".partial")
        });
    partial.map_or_else(String::new, |it| {
        fs::read_to_string(it.path()).unwrap_or_default()
    })
}

/// A recording that has begun.
fn start_recording(cluster: &ByHand) -> Background {
    let arguments = ["trace", "record", &cluster.address, "-o", "run.jsonl"];
    let recording = cluster.sandbox.start(&arguments);
    wait_until("the recording has begun", || {
        recorded_so_far(&cluster.sandbox).lines().count() >= 2
    });
    recording
}

#[test]
fn a_recorded_query_becomes_a_trace_and_a_page() {
    let cluster = ByHand::new(2);
    let sandbox = &cluster.sandbox;
    let recording = start_recording(&cluster);
    let tables = tpch().to_str().unwrap();
    let partitions = "SET datafusion.execution.target_partitions = 4";
    let said = cluster.sql(&["--tables", tables, "-c", partitions, "-c", JOIN]);
    assert_eq!(said.code, 0, "{}", said.err);
    wait_until("the end of the query is recorded", || {
        recorded_so_far(sandbox).contains(r#""state":"finished""#)
    });
    assert!(!sandbox.path("run.jsonl").exists());
    kill("-INT", recording.pid());
    let said = recording.finish();
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(
        said.err.starts_with("recorded ") && said.err.contains("transload trace export run.jsonl"),
        "{}",
        said.err
    );

    let text = fs::read_to_string(sandbox.path("run.jsonl")).unwrap();
    let kinds: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["type"].clone())
        .collect();
    assert_eq!(kinds[0], "about");
    assert!(kinds[1..].iter().all(|kind| kind == "frame"));

    assert_eq!(
        sandbox.out(&["trace", "export", "run.jsonl", "-o", "run.json"]),
        ""
    );
    let trace: Value =
        serde_json::from_slice(&fs::read(sandbox.path("run.json")).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let count =
        |is_counted: &dyn Fn(&Value) -> bool| events.iter().filter(|it| is_counted(it)).count();
    assert_eq!(
        count(&|it| it["name"] == "process_name"),
        3,
        "two workers, and queries"
    );
    assert!(count(&|it| it["cat"] == "task") > 1);
    assert_eq!(count(&|it| it["cat"] == "graph" && it["name"] == JOIN), 1);
    let arrows = count(&|it| it["ph"] == "s");
    assert!(arrows > 0);
    assert_eq!(arrows, count(&|it| it["ph"] == "f"));

    sandbox.out(&["trace", "export", "run.jsonl", "-o", "run.html"]);
    let page = fs::read_to_string(sandbox.path("run.html")).unwrap();
    assert!(page.contains("id=\"recording\"") && page.contains("n_nationkey"));
    let piped = sandbox.out(&["trace", "export", "run.jsonl", "--format", "report"]);
    assert!(piped == page, "a pipe takes the same");
}

#[test]
fn a_recording_ends_with_its_cluster_and_says_so() {
    let cluster = ByHand::new(1);
    let recording = start_recording(&cluster);
    kill("-TERM", cluster.scheduler.pid());
    let said = recording.finish();
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(
        said.err.starts_with("the cluster has ended; recorded "),
        "{}",
        said.err
    );
    assert!(cluster.sandbox.path("run.jsonl").exists());
}

#[test]
fn a_recording_for_a_time_ends_by_itself_and_goes_down_a_pipe() {
    let cluster = ByHand::new(0);
    let arguments = [
        "trace",
        "record",
        &cluster.address,
        "--for",
        "500ms",
        "--quiet",
    ];
    let said = cluster.sandbox.run(&arguments);
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    assert!(said.out.lines().count() >= 2, "{}", said.out);
}

#[test]
fn a_dashboard_with_a_token_wants_it() {
    let sandbox = Sandbox::new();
    sandbox.file("token", "correct-horse\n");
    let dashboard = [
        "--dashboard",
        "127.0.0.1:0",
        "--dashboard-token-file",
        "token",
    ];
    let mut scheduler = sandbox.start(&[&["scheduler", "--port", "0"][..], &dashboard].concat());
    let line = scheduler.line();
    let address = line.rsplit(' ').next().unwrap();
    let record = [
        "trace",
        "record",
        address,
        "--for",
        "300ms",
        "-o",
        "run.jsonl",
    ];
    let said = sandbox.run(&record);
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(
        said.err.contains("wants its token") && said.err.contains("hint: "),
        "{}",
        said.err
    );
    assert!(!sandbox.path("run.jsonl").exists());
    sandbox.out(&[&record[..], &["--token-file", "token"]].concat());
    assert!(sandbox.path("run.jsonl").exists());
}

#[test]
fn without_a_dashboard_or_a_cluster_there_is_nothing_to_record() {
    let sandbox = Sandbox::new();
    let mut scheduler = sandbox.start(&["scheduler", "--port", "0", "--dashboard", "off"]);
    let line = scheduler.line();
    let address = line.rsplit(' ').next().unwrap();
    let said = sandbox.run(&["trace", "record", address, "-o", "run.jsonl"]);
    assert_eq!(said.code, 1);
    assert!(
        said.err
            .starts_with("error: the cluster has no dashboard to look at\n"),
        "{}",
        said.err
    );
    kill("-TERM", scheduler.pid());
    assert_eq!(scheduler.finish().code, 0);
    let said = sandbox.run(&["trace", "record", address, "-o", "run.jsonl"]);
    assert_eq!(said.code, 3, "{}", said.err);
    assert!(!sandbox.path("run.jsonl").exists());
}

#[test]
fn what_is_no_recording_is_named_with_its_line() {
    let sandbox = Sandbox::new();
    let about =
        r#"{"type":"about","version":"0","protocol":1,"scheduler":"a:1","now_us":0,"unix_ms":0}"#;
    let frame = r#"{"type":"frame","now_us":5,"totals":{"clients":0,"graphs_running":0,"tasks_ready":0,"tasks_finished":0,"moved_bytes":0,"spilled_bytes":0,"dropped_events":0},"workers":null,"pairs":null}"#;
    let export = |text: String| {
        sandbox.file("run.jsonl", &text);
        sandbox.run(&["trace", "export", "run.jsonl", "-o", "run.json"])
    };
    let said = export(format!("{about}\nnonsense\n{frame}\n"));
    assert_eq!(said.code, 1);
    assert!(
        said.err
            .starts_with("error: line 2 of run.jsonl is none of a recording"),
        "{}",
        said.err
    );
    assert!(!sandbox.path("run.json").exists());
    let said = export(format!("{about}\n{frame}\n{}", &frame[..50]));
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(
        said.err,
        "warning: line 3 of run.jsonl is cut off and left out\n"
    );
    assert!(sandbox.path("run.json").exists());
    let said = sandbox.run(&["trace", "export", "nowhere.jsonl"]);
    assert!(
        said.code == 1 && said.err.contains("cannot read nowhere.jsonl"),
        "{}",
        said.err
    );
}
