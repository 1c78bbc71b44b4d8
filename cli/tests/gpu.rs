//! The GPU of a worker: what can be chosen, and what is said where there is none.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use common::{ByHand, Said, Sandbox, kill, wait_until};

#[test]
fn a_gpu_that_is_no_number_is_wrong_usage() {
    for command in [&["worker", "127.0.0.1:1"][..], &["sql", "-c", "SELECT 1"]] {
        let said = Sandbox::new().run(&[command, &["--gpu", "big"]].concat());
        assert_eq!(said.code, 2, "{command:?}: {}", said.err);
        assert!(
            said.err.contains("auto, none, or the number"),
            "{}",
            said.err
        );
    }
}

#[test]
fn where_a_gpu_is_wanted_that_is_not_there_nothing_starts_and_the_remedy_is_told() {
    // No machine has so many.
    let gpu = ["--gpu", "4000"];
    let says_why = |said: Said| {
        assert_eq!(said.code, 1, "{}", said.err);
        for part in ["--gpu 4000: there is no", "--gpu auto"] {
            assert!(said.err.contains(part), "{part}: {}", said.err);
        }
    };
    let query = ["sql", "--workers", "1", "-c", "SELECT 1"];
    says_why(Sandbox::new().run(&[&query[..], &gpu].concat()));
    let cluster = ByHand::new(0);
    let worker = ["worker", &cluster.address];
    says_why(cluster.sandbox.run(&[&worker[..], &gpu].concat()));
    assert!(cluster.worker_infos().is_empty());
}

#[test]
fn a_worker_without_a_gpu_says_so_and_works() {
    let cluster = ByHand::new(0);
    let mut worker = cluster.sandbox.command(&["worker", &cluster.address]);
    // Also where there is one.
    worker.env("CUDA_VISIBLE_DEVICES", "");
    let worker = common::Background::new(worker);
    wait_until("it has joined", || cluster.worker_infos().len() == 1);
    assert!(cluster.worker_infos()[0]["gpu"].is_null());
    let said = cluster.sql(&["-c", "SELECT 1 + 1 AS two", "--format", "csv"]);
    assert_eq!((said.code, said.out.trim()), (0, "two\n2"), "{}", said.err);
    kill("-TERM", worker.pid());
    let said = worker.finish();
    let lines = said
        .err
        .lines()
        .filter(|line| line.contains("no GPU: host memory"));
    assert_eq!(lines.count(), 1, "{}", said.err);
}
