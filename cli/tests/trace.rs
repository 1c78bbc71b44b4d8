//! `transload trace` as people use it: a cluster is recorded, and the recording becomes a trace and a page.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
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

/// A collector of OpenTelemetry: what it was sent, with the headers.
struct Collector {
    address: String,
    requests: Arc<Mutex<Vec<(HeaderMap, Value)>>>,
    refused: Arc<AtomicUsize>,
    _runtime: tokio::runtime::Runtime,
}

impl Collector {
    /// It gives these answers first, and then takes everything.
    fn answering(first: Vec<(StatusCode, &'static str)>) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let answers = Arc::new(Mutex::new(first.into_iter()));
        let taken = Arc::clone(&requests);
        let refused = Arc::new(AtomicUsize::new(0));
        let refusing = Arc::clone(&refused);
        let take = move |headers: HeaderMap, body: String| async move {
            let answer = answers.lock().unwrap().next();
            let answer = answer.unwrap_or((StatusCode::OK, "{}"));
            if answer.0 == StatusCode::OK {
                let body = serde_json::from_str(&body).unwrap();
                taken.lock().unwrap().push((headers, body));
            } else {
                refusing.fetch_add(1, Ordering::Relaxed);
            }
            answer
        };
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
        let listener = listener.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let routes = Router::new().route("/v1/traces", post(take));
        runtime.spawn(async move { axum::serve(listener, routes).await });
        Self {
            address,
            requests,
            refused,
            _runtime: runtime,
        }
    }

    fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    fn spans(&self) -> Vec<Value> {
        let requests = self.requests.lock().unwrap();
        let groups = requests
            .iter()
            .flat_map(|(_, body)| body["resourceSpans"].as_array());
        let spans = groups
            .flatten()
            .flat_map(|it| it["scopeSpans"][0]["spans"].as_array());
        spans.flatten().cloned().collect()
    }
}

#[test]
fn spans_of_a_query_come_to_a_collector_that_was_busy_at_first() {
    let cluster = ByHand::new(2);
    let collector = Collector::answering(vec![(StatusCode::SERVICE_UNAVAILABLE, "busy")]);
    let send = [
        "trace",
        "send",
        &cluster.address,
        "--to",
        &collector.address,
    ];
    let mut send = cluster.sandbox.command(&send);
    send.env("OTEL_EXPORTER_OTLP_HEADERS", "api-key=correct%20horse");
    let sending = Background::new(send);
    let tables = tpch().to_str().unwrap();
    // It looks on from when it has connected: until then, queries come and go.
    let of_query = |spans: &[Value]| {
        let fetch = spans.iter().find(|it| it["kind"] == 3)?;
        let graph = spans
            .iter()
            .find(|it| it["spanId"] == fetch["parentSpanId"])?;
        Some((graph.clone(), fetch.clone()))
    };
    wait_until("a query and what it moved were sent", || {
        let partitions = "SET datafusion.execution.target_partitions = 4";
        let said = cluster.sql(&["--tables", tables, "-c", partitions, "-c", JOIN]);
        assert_eq!(said.code, 0, "{}", said.err);
        of_query(&collector.spans()).is_some()
    });
    kill("-INT", sending.pid());
    let said = sending.finish();
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.err.starts_with("sent "), "{}", said.err);

    let spans = collector.spans();
    let (graph, fetch) = of_query(&spans).unwrap();
    assert_eq!(graph["name"], format!("{}…", &JOIN[..80]));
    assert_eq!(graph["traceId"], fetch["traceId"]);
    assert_eq!(graph["status"]["code"], 1);
    let tasks = spans
        .iter()
        .filter(|it| it["kind"] == 1 && it["parentSpanId"] == graph["spanId"]);
    assert!(tasks.count() > 1);
    let requests = collector.requests.lock().unwrap();
    let (headers, _) = &requests[0];
    assert_eq!(headers["api-key"], "correct horse");
    assert_eq!(headers["content-type"], "application/json");
}

#[test]
fn what_is_on_its_way_when_somebody_asks_for_the_end_still_arrives() {
    let cluster = ByHand::new(1);
    let tables = tpch().to_str().unwrap();
    let said = cluster.sql(&["--tables", tables, "-c", JOIN]);
    assert_eq!(said.code, 0, "{}", said.err);
    let busy = (StatusCode::SERVICE_UNAVAILABLE, "busy");
    let collector = Collector::answering(vec![busy]);
    let to = &collector.address;
    let sending = ["trace", "send", &cluster.address, "--to", to];
    let sending = cluster.sandbox.start(&sending);
    wait_until("the first request was refused", || collector.refused() == 1);
    kill("-INT", sending.pid());
    let said = sending.finish();
    assert_eq!(said.code, 0, "{}", said.err);
    let spans = collector.spans();
    let is_query = |it: &Value| {
        it["name"]
            .as_str()
            .is_some_and(|it| it.starts_with("SELECT n_name"))
    };
    assert!(spans.iter().any(is_query), "{spans:?}");
}

#[test]
fn a_collector_that_is_not_there_or_wants_no_spans_is_named_with_its_reason() {
    let cluster = ByHand::new(1);
    let send = |to: &str| {
        cluster
            .sandbox
            .run(&["trace", "send", &cluster.address, "--to", to, "--for", "3s"])
    };
    let said = send("http://127.0.0.1:1");
    assert_eq!(said.code, 3, "{}", said.err);
    assert!(
        said.err
            .starts_with("error: cannot send spans to http://127.0.0.1:1: "),
        "{}",
        said.err
    );
    assert!(said.err.contains("4318"), "{}", said.err);
    let said = send("https://127.0.0.1:1");
    assert_eq!(said.code, 2, "{}", said.err);

    let tables = tpch().to_str().unwrap();
    let said = cluster.sql(&["--tables", tables, "-c", JOIN]);
    assert_eq!(said.code, 0, "{}", said.err);
    let collector = Collector::answering(vec![(StatusCode::BAD_REQUEST, "no \u{1b}[31mspans")]);
    let said = send(&collector.address);
    assert_eq!(said.code, 1, "{}", said.err);
    let reason = "refuses spans: 400 Bad Request: no \u{fffd}[31mspans";
    assert!(said.err.contains(reason), "{}", said.err);
    let some = r#"{"partialSuccess":{"rejectedSpans":"1","errorMessage":"one is too many"}}"#;
    let collector = Collector::answering(vec![(StatusCode::OK, some)]);
    let said = send(&collector.address);
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(
        said.err.contains("did not take 1 span: one is too many"),
        "{}",
        said.err
    );
}
