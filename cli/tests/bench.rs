//! `transload bench`: what is measured can be read by people and programs, and nothing is left running.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use common::Sandbox;
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
