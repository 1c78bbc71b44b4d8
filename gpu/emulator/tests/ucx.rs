//! UCX's CUDA build, unmodified, between two processes under the emulator: which way device memory took is seen in the counters.
//!
//! Needs the PyPI wheel `libucx-cu12`, unpacked in a folder that `TRANSLOAD_LIBUCX_DIR` names (`pip download libucx-cu12==1.22.0
//! --no-deps && unzip *.whl`), and a C compiler. Without them the tests say so and end.

#![allow(
    clippy::expect_used,
    reason = "a test that cannot start fails; one that lacks UCX ends before"
)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use cuda_emulator::{Emulator, Movement, Report};

const COUNT: u64 = 5;
const BYTES: u64 = 8 << 20;

/// The wheel's folder `libucx`, or why there is none.
fn wheel() -> Result<PathBuf, String> {
    let folder = std::env::var_os("TRANSLOAD_LIBUCX_DIR").map(PathBuf::from);
    let found = folder.unwrap_or_default().join("libucx");
    if found.join("lib/ucx/libuct_cuda.so").exists() {
        Ok(found)
    } else {
        Err(format!(
            "skipped: no UCX with CUDA in {}: unpack the wheel libucx-cu12 and name its folder in TRANSLOAD_LIBUCX_DIR",
            found.display()
        ))
    }
}

/// Adds UCX to a machine's libraries.
fn with_ucx(mut command: Command, machine: &Emulator, wheel: &Path) -> Command {
    let path = format!(
        "{}:{}",
        machine.libraries().display(),
        wheel.join("lib").display()
    );
    command
        .env("LD_LIBRARY_PATH", path)
        .env("UCX_MODULE_DIR", wheel.join("lib/ucx"))
        // What sets off the program of this repository is not set for these.
        .env_remove("UCX_TCP_TX_SEG_SIZE")
        .env_remove("UCX_TCP_RX_SEG_SIZE");
    command
}

/// Compiles `ucx.c`; `None` without a compiler.
fn compile(wheel: &Path, machine: &Emulator) -> Option<PathBuf> {
    let program = machine.state().join("ucx");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ucx.c");
    let mut compiler = Command::new("cc");
    compiler
        .arg("-o")
        .arg(&program)
        .arg(source)
        .arg("-I")
        .arg(wheel.join("include"));
    compiler
        .arg("-L")
        .arg(wheel.join("lib"))
        .args(["-lucp", "-lucs"]);
    compiler
        .arg("-L")
        .arg(machine.libraries())
        .args(["-lcuda", "-Wl,--allow-shlib-undefined"]);
    match compiler.status() {
        Ok(status) => {
            assert!(status.success(), "tests/ucx.c was not compiled");
            Some(program)
        }
        Err(error) => {
            println!("skipped: there is no C compiler: {error}");
            None
        }
    }
}

fn start(
    program: &Path,
    arguments: [&str; 2],
    transports: &str,
    machine: &Emulator,
    wheel: &Path,
    input: Stdio,
    output: Stdio,
) -> Child {
    let [role, kind] = arguments;
    let mut command = with_ucx(machine.command(program), machine, wheel);
    command
        .args([role, &COUNT.to_string(), &BYTES.to_string(), kind])
        .env("UCX_TLS", transports);
    command
        .stdin(input)
        .stdout(output)
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts")
}

/// Moves device memory of `kind` from one process to another by `transports`, and returns what both did to the device.
fn transfer(transports: &str, kind: &str) -> Option<Report> {
    let wheel = wheel().map_err(|why| println!("{why}")).ok()?;
    let machine = Emulator::new().expect("a machine");
    let program = compile(&wheel, &machine)?;
    let (there, from_sender) = std::io::pipe().expect("a pipe");
    let (back, from_receiver) = std::io::pipe().expect("a pipe");
    let sender = start(
        &program,
        ["send", kind],
        transports,
        &machine,
        &wheel,
        back.into(),
        from_sender.into(),
    );
    let receiver = start(
        &program,
        ["receive", kind],
        transports,
        &machine,
        &wheel,
        there.into(),
        from_receiver.into(),
    );
    for end in [sender, receiver] {
        let output = end.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && said.contains("right"), "{said}");
        assert!(!said.contains("is not emulated"), "{said}");
    }
    Some(machine.report().expect("a report"))
}

#[test]
fn ucx_finds_its_cuda_transports() {
    let Ok(wheel) = wheel().map_err(|why| println!("{why}")) else {
        return;
    };
    let machine = Emulator::new().expect("a machine");
    // What is in a wheel may lack the right to be run: the loader runs it all the same.
    let command = machine.command("/lib64/ld-linux-x86-64.so.2");
    let mut command = with_ucx(command, &machine, &wheel);
    let output = command
        .arg(wheel.join("bin/ucx_info"))
        .arg("-d")
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    for transport in ["Transport: cuda_copy", "Transport: cuda_ipc"] {
        assert!(said.contains(transport), "{said}");
    }
}

/// Both ends upload once to have bytes, and download once to look at them.
const TO_LOOK: u64 = 2;

#[test]
fn device_memory_moves_by_cuda_ipc_in_one_copy_each_and_none_through_the_host() {
    let Some(report) = transfer("posix,cma,cuda_copy,cuda_ipc", "legacy") else {
        return;
    };
    assert_eq!(
        (
            report.moved(Movement::Ipc).calls,
            report.moved(Movement::Ipc).bytes
        ),
        (COUNT, COUNT * BYTES)
    );
    assert_eq!(report.through_host().bytes, 2 * TO_LOOK * BYTES);
}

#[test]
fn without_cuda_ipc_every_byte_goes_down_and_up_again() {
    let Some(report) = transfer("posix,cma,cuda_copy", "legacy") else {
        return;
    };
    assert_eq!(report.moved(Movement::Ipc).calls, 0);
    assert_eq!(report.through_host().bytes, 2 * (TO_LOOK + COUNT) * BYTES);
}

#[test]
fn memory_of_a_pool_goes_through_the_host_as_it_does_on_hardware() {
    let Some(report) = transfer("posix,cma,cuda_copy,cuda_ipc", "pool") else {
        return;
    };
    assert_eq!(report.moved(Movement::Ipc).calls, 0);
    assert_eq!(report.through_host().bytes, 2 * (TO_LOOK + COUNT) * BYTES);
}
