//! The GPU of a worker: what can be chosen, and what is said where there is none.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use common::{Background, ByHand, Said, Sandbox, kill, wait_until};
use cuda_emulator::Emulator;

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
fn more_memory_than_a_gpu_has_is_refused_when_the_worker_starts() {
    let emulator = Emulator::new().unwrap().memory_bytes(64 << 20);
    let cluster = ByHand::new(0);
    let arguments = ["worker", &cluster.address, "--gpu-memory", "65MiB"];
    let mut worker = cluster.sandbox.command(&arguments);
    worker.envs(emulator.environment());
    let said = Background::new(worker).finish();
    assert_eq!(said.code, 1, "{}", said.err);
    for part in ["--gpu-memory", "67108864 B", "leave it out"] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
}

#[test]
fn a_worker_without_a_gpu_says_so_and_works() {
    let cluster = ByHand::new(0);
    let mut worker = cluster.sandbox.command(&["worker", &cluster.address]);
    // Also where there is one.
    worker.env("CUDA_VISIBLE_DEVICES", "");
    let worker = Background::new(worker);
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

#[test]
fn workers_of_one_machine_choose_different_gpus_and_cluster_info_shows_them() {
    let emulator = Emulator::new().unwrap().devices(2).memory_bytes(64 << 20);
    let cluster = ByHand::new(0);
    let start = |gpu: &str, name: &str| {
        let arguments = ["worker", &cluster.address, "--gpu", gpu, "--name", name];
        let mut worker = cluster.sandbox.command(&arguments);
        worker.envs(emulator.environment());
        let before = cluster.worker_infos().len();
        let worker = Background::new(worker);
        wait_until("it has joined", || {
            cluster.worker_infos().len() == before + 1
        });
        worker
    };
    let mut auto = Vec::from(["first", "second", "third"].map(|name| start("auto", name)));
    let third = auto.pop().unwrap();
    let shares = start("1", "shares");
    let gpu_of = |name: &str| {
        let infos = cluster.worker_infos();
        let info = infos.iter().find(|it| it["name"] == name).unwrap();
        info["gpu"].clone()
    };
    assert_eq!(gpu_of("first")["ordinal"], 0);
    assert_eq!(gpu_of("second")["ordinal"], 1);
    assert_eq!(gpu_of("second")["memory_bytes"], 64 << 20);
    assert!(gpu_of("third").is_null());
    assert_eq!(gpu_of("shares")["ordinal"], 1);
    let shown = cluster.sandbox.out(&["cluster", "info", &cluster.address]);
    assert!(shown.contains("64 MiB"), "{shown}");
    // Whoever comes after one that has ended, however, has its GPU.
    kill("-KILL", auto[0].pid());
    wait_until("it is gone", || cluster.worker_infos().len() == 3);
    let fourth = start("auto", "fourth");
    assert_eq!(gpu_of("fourth")["ordinal"], 0);
    let ends = |worker: Background, line: &str| {
        kill("-TERM", worker.pid());
        let said = worker.finish();
        assert!(said.err.contains(line), "{line}: {}", said.err);
    };
    ends(third, "every GPU here has a worker already: host memory");
    ends(shares, "another worker of this machine uses the same GPU");
    ends(fourth, "worker joined");
}
