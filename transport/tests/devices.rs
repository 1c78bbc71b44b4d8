//! Partitions of devices in the memory backend, which moves them from device to device, or hands them over.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::sync::OnceLock;

use cuda_emulator::Emulator;
use transload_transport::conformance::{Backend, DeviceBackend};
use transload_transport::memory::MemoryTransport;

/// The machine of this process. Streams pause at random, so that what does not wait is found out.
fn with_devices(backend: Backend) -> DeviceBackend {
    static EMULATOR: OnceLock<Emulator> = OnceLock::new();
    EMULATOR.get_or_init(|| {
        let emulator = Emulator::new().unwrap().chaos(11);
        emulator.load().unwrap();
        emulator
    });
    DeviceBackend::new(backend)
}

mod copying {
    use super::{Backend, DeviceBackend, MemoryTransport, with_devices};

    fn backend() -> DeviceBackend {
        with_devices(Backend::new(MemoryTransport::new(), ""))
    }

    transload_transport::device_conformance_suite!(backend);
}

mod handing_over {
    use super::{Backend, DeviceBackend, MemoryTransport, with_devices};

    fn backend() -> DeviceBackend {
        with_devices(Backend {
            receives_into_destination: false,
            ..Backend::new(MemoryTransport::handing_over(), "")
        })
    }

    transload_transport::device_conformance_suite!(backend);
}
