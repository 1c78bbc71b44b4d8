//! What is seen from outside of a process: that it dies of a pointer, what it held when it dies, which faults and chaos it was given.
//!
//! Each test makes a machine and runs this program again on it, in the part that `PART` names; parts are the functions of `parts`.

#![allow(
    clippy::undocumented_unsafe_blocks,
    clippy::expect_used,
    reason = "every call is one of the driver's, with pointers of locals and memory of its size; a test that cannot start fails"
)]

mod parts;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Output, Stdio};

use cuda_emulator::{Emulator, Moved, Movement};

const MIB: u64 = 1 << 20;

fn machine() -> Emulator {
    Emulator::new().expect("a machine").memory_bytes(64 * MIB)
}

/// This program again, in the part `name`.
fn part(machine: &Emulator, name: &str) -> Command {
    let mut command = machine.command(std::env::current_exe().expect("this program"));
    command
        .args([
            "the_part_of_another_test",
            "--exact",
            "--nocapture",
            "--test-threads=1",
        ])
        .env("PART", name);
    command
}

fn run(machine: &Emulator, name: &str) -> Output {
    part(machine, name).output().expect("the part runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn complained(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The handle that a part has told of.
fn handle_among(mut lines: impl Iterator<Item = String>) -> Option<String> {
    lines.find_map(|line| {
        line.split_once("handle ")
            .map(|(_, handle)| handle.to_owned())
    })
}

/// Starts a part that waits for a line on its standard input, and returns when it waits.
fn start_and_wait(machine: &Emulator, name: &str) -> Child {
    let mut child = part(machine, name)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the part starts");
    let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    lines
        .map_while(Result::ok)
        .find(|line| line.ends_with("waits"))
        .expect("it waits");
    child
}

#[test]
fn the_part_of_another_test() {
    if let Ok(name) = std::env::var("PART") {
        parts::run(&name);
    }
}

#[test]
fn a_host_that_follows_a_device_pointer_dies() {
    assert_eq!(run(&machine(), "dereference").status.signal(), Some(11));
}

#[test]
fn a_process_that_is_killed_gives_its_memory_back_and_until_then_it_counts_for_all() {
    let machine = machine();
    let mut holder = start_and_wait(&machine, "hold_40_mib");
    assert!(said(&run(&machine, "allocate_40_mib")).contains("CUDA_ERROR_OUT_OF_MEMORY"));
    holder.kill().expect("killed");
    holder.wait().expect("gone");
    let after = run(&machine, "allocate_40_mib");
    let most = machine.most_held_bytes(0).expect("the machine's memory");
    assert_eq!(most, 40 * MIB, "never more than one of them held at once");
    assert!(
        said(&after).contains("CUDA_SUCCESS"),
        "{} {}",
        said(&after),
        complained(&after)
    );
}

#[test]
fn nobody_waits_for_the_event_of_a_process_that_died() {
    let machine = machine();
    let mut owner = part(&machine, "record_behind_an_endless_kernel");
    owner.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut owner = owner.spawn().expect("the owner starts");
    let lines = BufReader::new(owner.stdout.take().expect("its output")).lines();
    let handle = handle_among(lines.map_while(Result::ok)).expect("a handle");
    let mut waiter = part(&machine, "wait_for_an_event");
    waiter.env("HANDLE", handle).stdout(Stdio::piped());
    let mut waiter = waiter.spawn().expect("the waiter starts");
    let mut lines = BufReader::new(waiter.stdout.take().expect("its output"))
        .lines()
        .map_while(Result::ok);
    assert!(lines.any(|line| line.contains("CUDA_ERROR_NOT_READY")));
    owner.kill().expect("killed");
    owner.wait().expect("gone");
    assert!(lines.any(|line| line.contains("waited: CUDA_SUCCESS")));
    waiter.wait().expect("gone");
}

#[test]
fn counters_are_read_while_the_process_runs_and_after_its_end() {
    let machine = machine();
    let mut process = start_and_wait(&machine, "upload_and_wait");
    let once = Moved {
        calls: 1,
        bytes: MIB,
    };
    let report = machine.report().expect("a report");
    assert_eq!(report.moved(Movement::UploadPageable), once);
    assert_eq!(report.device_bytes.get(&0), Some(&MIB));
    process
        .stdin
        .take()
        .expect("its input")
        .write_all(b"\n")
        .expect("told");
    process.wait().expect("gone");
    assert_eq!(
        machine
            .report()
            .expect("a report")
            .moved(Movement::UploadPageable),
        once
    );
}

#[test]
fn the_nth_allocation_fails_as_planned_and_the_next_does_not() {
    let machine = machine().faults("cuMemAlloc_v2@2=CUDA_ERROR_OUT_OF_MEMORY");
    let output = run(&machine, "allocate_three_times");
    assert!(
        said(&output).contains("CUDA_SUCCESS CUDA_ERROR_OUT_OF_MEMORY CUDA_SUCCESS"),
        "{}",
        said(&output)
    );
    assert!(complained(&output).contains("cuMemAlloc_v2 fails as planned"));
}

#[test]
fn memory_that_is_on_its_way_back_to_a_pool_is_given_out_again() {
    let output = run(&machine().chaos(1), "allocate_and_free_in_one_stream");
    assert!(
        said(&output).contains("CUDA_SUCCESS") && !said(&output).contains("CUDA_ERROR"),
        "{}",
        said(&output)
    );
}

#[test]
fn a_planned_fault_of_a_copy_ends_the_use_of_the_device() {
    let output = run(
        &machine().faults("copy@2=CUDA_ERROR_ECC_UNCORRECTABLE"),
        "copy_twice",
    );
    let answers = "CUDA_SUCCESS CUDA_ERROR_ECC_UNCORRECTABLE CUDA_ERROR_ECC_UNCORRECTABLE";
    assert!(said(&output).contains(answers), "{}", said(&output));
}

#[test]
fn a_bad_plan_ends_the_process_with_a_remedy() {
    let output = run(
        &machine().faults("cuMemAllocate@2=OUT_OF_MEMORY"),
        "allocate_three_times",
    );
    assert!(!output.status.success());
    assert!(
        complained(&output).contains("names no function of the driver"),
        "{}",
        complained(&output)
    );
}

#[test]
fn what_is_not_emulated_says_its_name_and_fails() {
    let output = run(&machine(), "call_what_is_not_emulated");
    assert!(
        said(&output).contains("CUDA_ERROR_NOT_SUPPORTED"),
        "{}",
        said(&output)
    );
    assert!(
        complained(&output).contains("cuArrayCreate_v2 is not emulated"),
        "{}",
        complained(&output)
    );
}

#[test]
fn chaos_finds_a_missing_wait_and_harms_no_program_that_waits() {
    let stale = |name: &str, seed: u64| said(&run(&machine().chaos(seed), name)).contains("stale");
    assert!((0..5).any(|seed| stale("download_without_waiting", seed)));
    assert!((0..5).all(|seed| !stale("download_and_wait", seed)));
}

#[test]
fn a_kernel_reaches_memory_of_a_peer_only_when_it_was_allowed() {
    let machine = machine().devices(2);
    let refused = run(&machine, "store_to_another_device");
    assert!(
        said(&refused).contains("CUDA_ERROR_ILLEGAL_ADDRESS"),
        "{}",
        said(&refused)
    );
    assert!(
        complained(&refused).contains("PTX line"),
        "{}",
        complained(&refused)
    );
    let allowed = run(&machine, "store_to_a_peer");
    assert!(
        said(&allowed).contains("CUDA_SUCCESS, 11 is there"),
        "{} {}",
        said(&allowed),
        complained(&allowed)
    );
}

#[test]
fn a_kernel_that_reads_what_nobody_wrote_is_found_where_that_is_asked_for() {
    let asked = || machine().with("CUDA_EMULATOR_UNINITIALISED", "on");
    let output = run(&asked(), "load_fresh_memory");
    assert!(
        said(&output).contains("CUDA_ERROR_LAUNCH_FAILED"),
        "{}",
        said(&output)
    );
    assert!(
        complained(&output).contains("nobody ever wrote"),
        "{}",
        complained(&output)
    );
    for written in ["load_what_was_copied", "load_what_was_set"] {
        let output = run(&asked(), written);
        assert!(
            said(&output).contains("CUDA_SUCCESS"),
            "{}",
            complained(&output)
        );
    }
    assert!(said(&run(&machine(), "load_fresh_memory")).contains("CUDA_SUCCESS"));
}

#[test]
fn a_handle_means_the_same_device_whatever_number_it_has_in_each_process() {
    let machine = machine().devices(2);
    let mut owner = part(&machine, "export_and_wait");
    owner
        .env("CUDA_VISIBLE_DEVICES", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut owner = owner.spawn().expect("the owner starts");
    let lines = BufReader::new(owner.stdout.take().expect("its output")).lines();
    let handle = handle_among(lines.map_while(Result::ok));
    let open = |visible: &str| {
        let mut command = part(&machine, "open");
        command.env("CUDA_VISIBLE_DEVICES", visible);
        command.env("HANDLE", handle.as_deref().expect("a handle"));
        said(&command.output().expect("the part runs"))
    };
    assert!(
        open("0,1").contains("CUDA_SUCCESS, device 1, byte 77"),
        "{}",
        open("0,1")
    );
    assert!(
        open("1").contains("CUDA_SUCCESS, device 0, byte 77"),
        "{}",
        open("1")
    );
    assert!(
        open("0").contains("CUDA_ERROR_INVALID_DEVICE"),
        "{}",
        open("0")
    );
    owner.kill().expect("killed");
    owner.wait().expect("gone");
}

#[test]
fn an_endless_kernel_is_a_timeout_where_instructions_are_limited() {
    let machine = machine().with("CUDA_EMULATOR_MOST_INSTRUCTIONS", 100_000);
    let output = run(&machine, "run_an_endless_kernel");
    assert!(
        said(&output).contains("CUDA_ERROR_LAUNCH_TIMEOUT"),
        "{}",
        said(&output)
    );
    assert!(
        complained(&output).contains("Endless in kernel `endless`"),
        "{}",
        complained(&output)
    );
}

#[test]
fn rectangles_are_copied_row_by_row_and_counted_once() {
    let machine = machine();
    let output = run(&machine, "copy_a_rectangle");
    assert!(
        said(&output).contains("right"),
        "{} {}",
        said(&output),
        complained(&output)
    );
    let report = machine.report().expect("a report");
    assert_eq!(
        report.moved(Movement::UploadPinned),
        Moved {
            calls: 1,
            bytes: 12
        }
    );
}

#[test]
fn cu_file_moves_bytes_between_files_and_device_memory_without_the_host() {
    let machine = machine().direct_storage();
    write_and_read_a_file(&machine, "strictly");
    let report = machine.report().expect("a report");
    let moved = |movement| (report.moved(movement).calls, report.moved(movement).bytes);
    assert_eq!(moved(Movement::DeviceToFile), (1, MIB));
    // More than there was in the file was asked for.
    assert_eq!(moved(Movement::FileToDevice), (1, MIB));
    assert_eq!(moved(Movement::UploadPageable), (0, 0));
    // The memory that was read into was not registered.
    assert_eq!(moved(Movement::DeviceToDevice), (1, MIB));
}

#[test]
fn without_direct_storage_cu_file_goes_through_the_host_or_not_at_all() {
    let machine = machine();
    write_and_read_a_file(&machine, "compatibly");
    let report = machine.report().expect("a report");
    let moved = |movement| (report.moved(movement).calls, report.moved(movement).bytes);
    assert_eq!(moved(Movement::DeviceToFile), (0, 0));
    assert_eq!(moved(Movement::DownloadPageable), (1, MIB));
    assert_eq!(moved(Movement::UploadPageable), (1, MIB));
    let output = run(&machine, "open_cu_file_strictly");
    assert!(said(&output).contains("5001"), "{}", complained(&output));
}

fn write_and_read_a_file(machine: &Emulator, how: &str) {
    let output = run(machine, &format!("write_and_read_a_file_{how}"));
    assert!(
        said(&output).contains("right"),
        "{} {}",
        said(&output),
        complained(&output)
    );
}

#[test]
fn functions_are_found_by_their_plain_names() {
    let output = run(&machine(), "ask_for_addresses");
    assert!(
        said(&output).contains("right"),
        "{} {}",
        said(&output),
        complained(&output)
    );
}
