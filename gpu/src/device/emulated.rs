//! The device of unit tests: one on the emulated driver, whose streams pause at random. Called by tests of what is not public.

use std::sync::OnceLock;

use cuda_emulator::Emulator;

use super::Device;

pub(super) fn device() -> Device {
    static EMULATOR: OnceLock<Emulator> = OnceLock::new();
    EMULATOR.get_or_init(|| {
        let emulator = Emulator::new().expect("a machine").chaos(1);
        emulator.load().expect("its driver");
        emulator
    });
    Device::open(0).expect("its device")
}
