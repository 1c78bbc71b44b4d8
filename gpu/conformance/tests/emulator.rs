//! The emulator answers as hardware did: every case runs under it and is compared with what an H100 answered.
//!
//! Lies here and not with the emulator, because cargo builds this package's program for this package's tests. What may differ is
//! listed with its reason in `gpu/emulator/differences.md`.

#![allow(clippy::expect_used, reason = "a test that cannot start fails")]

use std::collections::BTreeSet;
use std::path::Path;

use cuda_emulator::Emulator;

/// One test for each part, so that they run beside each other.
macro_rules! parts {
    ($($test:ident, $part:literal;)*) => {
        const PARTS: &[&str] = &[$($part),*];

        $(
            #[test]
            fn $test() {
                answers_as_recorded($part);
            }
        )*
    };
}

parts! {
    devices_answer_as_an_h100_did, "device/";
    contexts_answer_as_an_h100_did, "context/";
    allocations_answer_as_an_h100_did, "allocate/";
    pools_answer_as_an_h100_did, "pool/";
    pointers_answer_as_an_h100_did, "pointer/";
    virtual_memory_answers_as_an_h100_did, "virtual/";
    host_memory_answers_as_an_h100_did, "host/";
    copies_answer_as_an_h100_did, "copy/";
    calls_wait_as_an_h100_did, "blocking/";
    streams_answer_as_an_h100_did, "stream/";
    events_answer_as_an_h100_did, "event/";
    modules_answer_as_an_h100_did, "module/";
    launches_answer_as_an_h100_did, "launch/";
    faults_answer_as_an_h100_did, "fault/";
    shared_memory_answers_as_an_h100_did, "ipc/";
    a_full_device_answers_as_an_h100_did, "limits/";
}

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What is listed as different, as `case: name`.
fn expected_differences() -> BTreeSet<String> {
    let text = std::fs::read_to_string(folder().join("../emulator/differences.md"))
        .expect("the list of differences");
    text.lines()
        .filter_map(|line| line.strip_prefix("- `")?.split('`').next())
        .map(str::to_owned)
        .collect()
}

/// Runs the conformance suite under a machine of its own, and returns what it prints.
fn run(arguments: &[&str]) -> String {
    // Some cases want one gibibyte in one piece, and some fill the device: without poison, as that touches every page.
    let machine = Emulator::new()
        .expect("a machine")
        .memory_bytes(1088 << 20)
        .without_poison();
    let mut command = machine.command(env!("CARGO_BIN_EXE_gpu-conformance"));
    let output = command
        .args(arguments)
        .current_dir(folder())
        .output()
        .expect("the suite runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("defect of the emulator"), "{said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The differences, as `case: name`, of the cases whose names begin with `part`, and all that the suite printed.
fn differences(part: &str) -> (BTreeSet<String>, String) {
    let output = run(&["--only", part, "--expect", "recorded/h100.json"]);
    assert!(
        output.contains(" cases, "),
        "the suite compared nothing: {output}"
    );
    let name_of = |line: &str| line.splitn(3, ": ").take(2).collect::<Vec<_>>().join(": ");
    let told = output
        .lines()
        .filter_map(|line| line.strip_prefix("differs: "));
    (told.map(name_of).collect(), output)
}

fn answers_as_recorded(part: &str) {
    let listed: BTreeSet<String> = expected_differences()
        .into_iter()
        .filter(|name| name.starts_with(part))
        .collect();
    let (mut found, mut output) = differences(part);
    // Some cases tell "returned early" from "waited" by 150 ms of a clock, which a busy machine misses: what differs by that is
    // asked again, and what differs each time is a difference.
    for _ in 0..3 {
        if found == listed {
            return;
        }
        eprintln!("asked again: {found:?} differ");
        let (again, text) = differences(part);
        found.retain(|name| again.contains(name));
        output = text;
    }
    assert_eq!(
        found, listed,
        "differences found, and differences listed; the suite says:\n{output}"
    );
}

#[test]
fn every_case_belongs_to_a_part_that_is_compared() {
    for line in run(&["--list"])
        .lines()
        .filter(|line| !line.starts_with("measure/"))
    {
        assert!(PARTS.iter().any(|part| line.starts_with(part)), "{line}");
    }
}
