//! `transload demo` and `transload data`: what a newcomer sees first.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::process::{Command, Stdio};

use common::{Sandbox, finish, kill, wait_until};

#[test]
fn the_demo_works_and_its_three_commands_work_as_printed() {
    let sandbox = Sandbox::new();
    let said = sandbox.run(&["demo"]);
    assert_eq!(said.code, 0, "{}", said.err);
    for part in [
        "lineitem",
        "revenue",
        "tage",
        "from \\ to",
        "three commands",
    ] {
        assert!(
            said.out.to_lowercase().contains(&part.to_lowercase()),
            "{part}: {}",
            said.out
        );
    }
    sandbox.assert_clean();
    let (_, commands) = said.out.split_once("Three commands to try next:").unwrap();
    let commands: Vec<&str> = commands
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    assert_eq!(commands.len(), 3, "{commands:?}");
    for line in commands {
        let child = Command::new("sh")
            .args(["-c", line])
            .current_dir(sandbox.path(""))
            .env("TMPDIR", sandbox.path("tmp"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = if line.contains(" -c ") || line.contains(" data ") {
            finish(child)
        } else {
            // The last one is a prompt on a terminal; from a pipe it reads a script.
            let mut child = child;
            std::io::Write::write_all(
                &mut child.stdin.take().unwrap(),
                b"SELECT count(*) FROM nation;",
            )
            .unwrap();
            finish(child)
        };
        assert_eq!(said.code, 0, "{line}: {}", said.err);
        assert!(!said.out.is_empty(), "{line}");
    }
}

#[test]
fn a_demo_that_is_interrupted_leaves_nothing_behind() {
    let sandbox = Sandbox::new();
    let child = sandbox.start(&["demo"]);
    wait_until("its workers run", || {
        sandbox.processes("--local").len() == 3
    });
    kill("-INT", child.pid());
    let said = child.finish();
    assert_eq!(said.code, 130, "{said:?}");
    sandbox.assert_clean();
}

#[test]
fn a_demo_that_was_killed_is_cleaned_up_by_the_next() {
    let sandbox = Sandbox::new();
    let child = sandbox.start(&["demo"]);
    wait_until("its workers run", || {
        !sandbox.processes("--local").is_empty()
    });
    kill("-9", child.pid());
    wait_until("no process is left", || {
        sandbox.processes("--local").is_empty()
    });
    drop(child);
    assert_eq!(sandbox.run(&["demo"]).code, 0);
    sandbox.assert_clean();
}

#[test]
fn generated_data_is_whole_or_absent() {
    let sandbox = Sandbox::new();
    let out = sandbox.out(&["data", "tpch", "--scale", "0.001", "--out", "d"]);
    assert!(out.contains("lineitem") && out.contains("6,005"), "{out}");
    let said = sandbox.run(&["data", "tpch", "--scale", "0.001", "--out", "d"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("--force"), "{}", said.err);
    let child = sandbox.start(&["data", "tpch", "--scale", "100", "--out", "big"]);
    wait_until("it writes", || sandbox.path("big").exists());
    kill("-INT", child.pid());
    assert_eq!(child.finish().code, 130);
    assert_eq!(sandbox.path("big").read_dir().unwrap().count(), 0);
}
