//! `transload explain` against a cluster of processes: tasks that nobody can run, that are done, and that are unknown.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use common::{ByHand, Sandbox, wait_until};
use transload_protocol::{Amount, Layer, Resources, TaskGraph, TaskId};
use transload_runtime::{Client, ClientOptions};

#[test]
fn what_nobody_can_run_is_explained_until_a_worker_that_can_joins() {
    let cluster = ByHand::new(1);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let client = Client::connect(&cluster.address, ClientOptions::default());
    let client = runtime.block_on(client).unwrap();
    let half = Amount::ten_thousandths(5_000);
    let mut graph = TaskGraph::new("constrained");
    let kept = graph.push(
        Layer::new("train", "noop", 2)
            .with_resources(Resources::slots(1).with("gpu", half))
            .with_label("ssd"),
    );
    graph.keep(kept);
    let handle = runtime.block_on(client.submit(graph)).unwrap();
    let graph = handle.id();
    let task = TaskId { graph, index: 1 }.to_string();

    let explain = |more: &[&str]| {
        let arguments = [&["explain", &task, &cluster.address], more].concat();
        cluster.sandbox.out(&arguments)
    };
    let text = explain(&[]);
    for words in [
        &format!("task {task} is ready, but no worker in the cluster can run it"),
        "the label `ssd`",
        "\n  it asks for 1 slot, 0.5 gpu\n",
        "layer 0 (`train`), operator `noop`",
        "its graph fails in ",
    ] {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
    let json: serde_json::Value = serde_json::from_str(&explain(&["--json"])).unwrap();
    assert_eq!(json["task"], task);
    assert!(text.starts_with(json["summary"].as_str().unwrap()));
    assert!(json["details"].as_array().unwrap().len() >= 3);

    let able = [
        "worker",
        &cluster.address,
        "--resources",
        "gpu=1.5",
        "--shared-resources",
        "gpu",
        "--labels",
        "ssd,new",
    ];
    let able = cluster.sandbox.start(&able);
    runtime.block_on(handle.wait()).unwrap();
    let text = explain(&[]);
    assert!(text.starts_with(&format!("task {task} is done")), "{text}");
    let infos = cluster.worker_infos();
    let info = infos.iter().find(|info| info["pid"] == able.pid()).unwrap();
    assert_eq!(info["resources"]["gpu"], 1.5);
    assert_eq!(info["labels"], serde_json::json!(["new", "ssd"]));

    drop(handle);
    wait_until("the task is forgotten", || explain(&[]).contains("unknown"));
}

#[test]
fn a_task_that_is_none_and_a_cluster_that_is_not_there_are_told_apart() {
    let sandbox = Sandbox::new();
    let said = sandbox.run(&["explain", "1.0", "127.0.0.1:1"]);
    assert_eq!(said.code, 2, "{}", said.err);
    assert!(said.err.contains("CLIENT.GRAPH.TASK"), "{}", said.err);
    let said = sandbox.run(&["explain", "1.0.0"]);
    assert_eq!(said.code, 2, "{}", said.err);
    let said = sandbox.run(&["explain", "1.0.0", "127.0.0.1:1"]);
    assert_eq!(said.code, 3, "{}", said.err);
    assert!(
        sandbox
            .out(&["explain", "--help"])
            .contains("jq -r .summary")
    );
}
