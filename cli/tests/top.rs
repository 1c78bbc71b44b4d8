//! `transload top` on a real terminal, and without one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use common::{Background, ByHand, Sandbox, kill, wait_until};

/// What brings back the screen that was there before.
const BACK: &str = "\u{1b}[?1049l";

/// On a terminal of a usual size, once the first worker is drawn.
fn start(cluster: &ByHand) -> Background {
    let arguments = format!("top {} --interval 100ms", cluster.address);
    let mut top = cluster.sandbox.on_sized_terminal(100, 30, &arguments);
    top.until("queued");
    top
}

#[test]
fn a_person_looks_sorts_asks_for_help_pauses_and_leaves() {
    let cluster = ByHand::new(1);
    let mut top = start(&cluster);
    top.type_in("?");
    top.until("keys");
    top.type_in("s");
    top.until("running");
    top.type_in("p");
    top.until("paused");
    top.type_in("\u{1b}q");
    let said = top.finish();
    assert_eq!(said.code, 0, "{}", said.out);
    assert!(said.out.contains(BACK), "{:?}", said.out);
}

#[test]
fn a_query_is_seen_to_run() {
    let cluster = ByHand::new(2);
    let mut top = start(&cluster);
    let (slow, _) = cluster.slow();
    let slow: Vec<&str> = slow.iter().map(String::as_str).collect();
    let query = cluster.start_sql(&slow);
    top.until("pairs");
    assert_eq!(query.finish().code, 0);
    top.type_in("\u{3}");
    assert_eq!(top.finish().code, 0);
}

#[test]
fn a_signal_gives_the_terminal_back() {
    let cluster = ByHand::new(1);
    let top = start(&cluster);
    // The first of them is the shell of the terminal's own program.
    let own = |it: &&u32| {
        std::fs::read_to_string(format!("/proc/{it}/comm")).is_ok_and(|it| it == "transload\n")
    };
    let processes = cluster.sandbox.processes(" top ");
    kill("-TERM", *processes.iter().find(own).unwrap());
    let said = top.finish();
    assert_eq!(said.code, 130, "{}", said.out);
    let (_, after) = said.out.split_once(BACK).unwrap();
    assert!(after.contains("interrupted"), "{after:?}");
}

#[test]
fn a_cluster_that_ends_is_told_on_the_screen_that_was_there_before() {
    let cluster = ByHand::new(1);
    let mut top = start(&cluster);
    top.type_in("p");
    top.until("paused");
    kill("-TERM", cluster.scheduler.pid());
    let said = top.finish();
    assert_eq!(said.code, 3, "{}", said.out);
    let (_, after) = said.out.split_once(BACK).unwrap();
    assert!(after.contains("error: "), "{after:?}");
}

#[test]
fn without_a_terminal_it_names_what_works_there() {
    let said = Sandbox::new().run(&["top", "127.0.0.1:1"]);
    assert_eq!(said.code, 2);
    assert!(
        said.err.contains("hint: `transload cluster info`"),
        "{}",
        said.err
    );
}

#[test]
fn without_a_cluster_nothing_is_drawn() {
    let sandbox = Sandbox::new();
    let top = sandbox.on_sized_terminal(80, 24, "top 127.0.0.1:1");
    let said = top.finish();
    assert_eq!(said.code, 3, "{}", said.out);
    assert!(!said.out.contains(BACK), "{:?}", said.out);
    wait_until("it is gone", || sandbox.processes(" top ").is_empty());
}
