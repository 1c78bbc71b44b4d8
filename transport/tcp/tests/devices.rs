//! Partitions of devices over TCP: through page-locked memory, a piece at a time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use cuda_emulator::Emulator;
use transload_transport::conformance::{
    Backend, DeviceBackend, a_copy_that_fails_ends_its_fetch_alone,
};
use transload_transport_tcp::{TcpOptions, TcpTransport};

fn options() -> TcpOptions {
    TcpOptions {
        connect_timeout: Duration::from_secs(120),
        stall_timeout: Duration::from_secs(120),
        ..TcpOptions::default()
    }
}

/// On the machine of this process. Streams pause at random, so that what does not wait is found out.
fn over(options: TcpOptions) -> DeviceBackend {
    static EMULATOR: OnceLock<Emulator> = OnceLock::new();
    EMULATOR.get_or_init(|| {
        let mut emulator = Emulator::new().unwrap().chaos(12);
        if let Ok(plan) = std::env::var(PLAN) {
            emulator = emulator.faults(&plan);
        }
        emulator.load().unwrap();
        emulator
    });
    DeviceBackend::new(Backend::new(TcpTransport::new(options), "127.0.0.1:0"))
}

mod with_defaults {
    use super::{DeviceBackend, options, over};

    fn backend() -> DeviceBackend {
        over(options())
    }

    transload_transport::device_conformance_suite!(backend);
}

mod with_tight_limits {
    use super::{DeviceBackend, TcpOptions, options, over};

    fn backend() -> DeviceBackend {
        over(TcpOptions {
            max_open_per_connection: 3,
            max_bytes_in_flight_per_connection: 1,
            chunk_bytes: 16 << 10,
            ..options()
        })
    }

    transload_transport::device_conformance_suite!(backend);
}

/// The plan of faults of a process that was started for one.
const PLAN: &str = "TRANSLOAD_TEST_FAULTS";

/// Not a test: the case, in a process whose driver fails as planned.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_driver_that_fails() {
    if std::env::var_os(PLAN).is_some() {
        a_copy_that_fails_ends_its_fetch_alone(over(options())).await;
    }
}

#[test]
fn a_copy_that_fails_at_either_end_ends_its_fetch_alone() {
    for call in ["cuMemcpyDtoHAsync_v2@2", "cuMemcpyHtoDAsync_v2@7"] {
        let ended = Command::new(std::env::current_exe().unwrap())
            .args(["with_a_driver_that_fails", "--exact", "--nocapture"])
            .env(PLAN, format!("{call}=CUDA_ERROR_ILLEGAL_STATE"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ended.stdout);
        let errors = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success(), "{call}: {said}\n{errors}");
        assert!(said.contains("1 passed"), "it ran: {said}");
    }
}
