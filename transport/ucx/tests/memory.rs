//! Under valgrind: nothing is read or written after it was freed, and nothing is lost, whatever is dropped when. Skipped, with a printed
//! reason, where there is no valgrind or no UCX.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::process::{Command, Stdio};

use common::{options, start};
use transload_transport::conformance::{self, Backend};

const IS_CHECKED: &str = "TRANSLOAD_TEST_IS_CHECKED";
/// What valgrind ends with where it found something.
const FOUND: i32 = 99;

/// Not a test: what runs under valgrind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_checked() {
    if std::env::var_os(IS_CHECKED).is_none() {
        return;
    }
    let backend = || Backend::new(start(options()).expect("it was there"), "127.0.0.1:0");
    conformance::a_missing_partition_is_not_found_and_harms_nothing(backend()).await;
    conformance::a_destination_that_refuses_harms_nothing(backend()).await;
    conformance::dropped_fetches_return_their_memory_and_leave_the_connection_usable(backend())
        .await;
    conformance::a_listener_that_goes_away_in_a_payload_is_an_error(backend()).await;
    conformance::a_dropped_connection_leaves_the_listener_usable(backend()).await;
}

#[test]
fn no_memory_is_misused_or_lost() {
    if start(options()).is_none() {
        return;
    }
    let there = Command::new("valgrind")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    if there.is_err() {
        return println!("skipped: no valgrind on this machine");
    }
    let checked = Command::new("valgrind")
        .args(["--leak-check=full", "--show-leak-kinds=definite"])
        .args(["--errors-for-leak-kinds=definite", "--num-callers=30"])
        .arg(concat!(
            "--suppressions=",
            env!("CARGO_MANIFEST_DIR"),
            "/tests/valgrind.supp"
        ))
        .arg(format!("--error-exitcode={FOUND}"))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "what_is_checked", "--nocapture"])
        .env(IS_CHECKED, "yes")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{}: {said}", checked.status);
}
