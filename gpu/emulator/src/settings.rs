//! What the environment asks of the emulator, read once at `cuInit`.
//!
//! A value that cannot be understood ends the process: a test that silently runs without its faults proves nothing.

use std::path::PathBuf;
use std::sync::OnceLock;

use crate::call::say;

/// How many devices there are.
pub(crate) const DEVICES: &str = "CUDA_EMULATOR_DEVICES";
/// Memory of each device, as `256MiB`.
pub(crate) const MEMORY: &str = "CUDA_EMULATOR_MEMORY";
/// The folder that processes share which share devices.
pub(crate) const STATE: &str = "CUDA_EMULATOR_STATE";
/// A seed: streams then pause at random, and blocks run in random order.
pub(crate) const CHAOS: &str = "CUDA_EMULATOR_CHAOS";
/// Which calls fail, and how.
pub(crate) const FAULTS: &str = "CUDA_EMULATOR_FAULTS";
/// The byte that fresh device memory is filled with, in hexadecimal, or `off`.
pub(crate) const POISON: &str = "CUDA_EMULATOR_POISON";
/// `on`: kernels may not read device memory that nobody wrote.
pub(crate) const UNINITIALISED: &str = "CUDA_EMULATOR_UNINITIALISED";
/// How many instructions the warps of one launch may issue together before it counts as endless.
pub(crate) const MOST_INSTRUCTIONS: &str = "CUDA_EMULATOR_MOST_INSTRUCTIONS";
/// `off`: no device may read another's memory.
pub(crate) const PEERS: &str = "CUDA_EMULATOR_PEERS";
/// `direct`: the machine has GPUDirect Storage; `compatible`: cuFile is there and goes through the host.
pub(crate) const STORAGE: &str = "CUDA_EMULATOR_STORAGE";
/// `on`: every call is told on standard error.
pub(crate) const TRACE: &str = "CUDA_EMULATOR_TRACE";

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Devices of the machine, before `CUDA_VISIBLE_DEVICES`.
    pub(crate) devices: usize,
    /// Bytes of each device, a multiple of two mebibytes.
    pub(crate) memory_bytes: u64,
    /// Where devices are shared; `None`: with nobody.
    pub(crate) state: Option<PathBuf>,
    /// The seed of chaos.
    pub(crate) chaos: Option<u64>,
    /// The fault plan's text.
    pub(crate) faults: String,
    /// What fresh memory holds.
    pub(crate) poison: Option<u8>,
    /// Whether it is known of every byte of device memory if somebody wrote it.
    pub(crate) tracks_writes: bool,
    /// After how many instructions of its warps a kernel is endless; `None`: never.
    pub(crate) most_instructions: Option<u64>,
    /// Whether devices may be peers.
    pub(crate) peers: bool,
    /// Whether disks read and write device memory.
    pub(crate) has_direct_storage: bool,
}

impl Settings {
    /// The environment's. Ends the process where it cannot be understood.
    pub(crate) fn of_environment() -> Self {
        Self::read(|name| std::env::var(name).ok()).unwrap_or_else(|sentence| {
            say!("{sentence}");
            std::process::abort()
        })
    }

    fn read(value: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let number = |name: &str| {
            value(name)
                .map(|text| {
                    text.trim()
                        .parse::<u64>()
                        .map_err(|_| format!("{name} is {text:?}: give a number, as in {name}=2"))
                })
                .transpose()
        };
        let switch = |name: &str, otherwise: bool| match value(name).as_deref() {
            None => Ok(otherwise),
            Some("on" | "1") => Ok(true),
            Some("off" | "0") => Ok(false),
            Some(text) => Err(format!("{name} is {text:?}: give on or off")),
        };
        let devices = number(DEVICES)?.unwrap_or(1);
        if devices > crate::machine::MOST_DEVICES as u64 {
            return Err(format!(
                "{DEVICES} is {devices}: at most {} are emulated",
                crate::machine::MOST_DEVICES
            ));
        }
        switch(TRACE, false)?;
        Ok(Self {
            devices: devices as usize,
            memory_bytes: value(MEMORY).map_or(Ok(1 << 30), |text| bytes(&text))?,
            state: value(STATE)
                .filter(|text| !text.is_empty())
                .map(PathBuf::from),
            chaos: number(CHAOS)?,
            faults: value(FAULTS).unwrap_or_default(),
            poison: match value(POISON).as_deref() {
                None => Some(0xcd),
                Some("off") => None,
                Some(text) => Some(
                    u8::from_str_radix(text.trim_start_matches("0x"), 16).map_err(|_| {
                        format!("{POISON} is {text:?}: give a byte, as in {POISON}=0xcd, or off")
                    })?,
                ),
            },
            tracks_writes: switch(UNINITIALISED, false)?,
            most_instructions: number(MOST_INSTRUCTIONS)?,
            peers: switch(PEERS, true)?,
            has_direct_storage: match value(STORAGE).as_deref() {
                None | Some("compatible") => false,
                Some("direct") => true,
                Some(text) => {
                    return Err(format!("{STORAGE} is {text:?}: give direct or compatible"));
                }
            },
        })
    }
}

/// Whether every call is told.
pub(crate) fn traces() -> bool {
    static TRACES: OnceLock<bool> = OnceLock::new();
    *TRACES
        .get_or_init(|| std::env::var(TRACE).is_ok_and(|text| matches!(text.as_str(), "on" | "1")))
}

/// A size with its unit, rounded down to whole blocks of two mebibytes.
fn bytes(text: &str) -> Result<u64, String> {
    let complaint =
        || format!("{MEMORY} is {text:?}: give a size of at least 2MiB, as in {MEMORY}=256MiB");
    let digits = text.trim_end_matches(|letter: char| !letter.is_ascii_digit());
    let unit = match text.get(digits.len()..).unwrap_or_default().trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(complaint()),
    };
    let bytes = digits
        .trim()
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .ok_or_else(complaint)?;
    let whole = bytes - bytes % crate::machine::BLOCK_BYTES;
    if whole == 0 || whole > crate::space::BYTES / 4 {
        Err(complaint())
    } else {
        Ok(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(given: &[(&str, &str)]) -> Result<Settings, String> {
        Settings::read(|name| {
            given
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn nothing_asked_is_one_device_of_one_gibibyte_with_poison() {
        let settings = read(&[]).expect("settings");
        assert_eq!(
            (settings.devices, settings.memory_bytes, settings.poison),
            (1, 1 << 30, Some(0xcd))
        );
        assert_eq!(
            (settings.chaos, settings.state, settings.peers),
            (None, None, true)
        );
    }

    #[test]
    fn sizes_have_units_and_are_whole_blocks() {
        assert_eq!(bytes("256MiB"), Ok(256 << 20));
        assert_eq!(bytes("4194305"), Ok(4 << 20));
        assert!(bytes("1 MB").is_err());
        assert!(bytes("1KiB").is_err());
    }

    #[test]
    fn what_cannot_be_understood_is_named_with_its_remedy() {
        assert!(
            read(&[(DEVICES, "two")])
                .expect_err("a word")
                .contains("give a number")
        );
        assert!(
            read(&[(PEERS, "maybe")])
                .expect_err("a word")
                .contains("on or off")
        );
        assert!(
            read(&[(POISON, "red")])
                .expect_err("a word")
                .contains("give a byte")
        );
        assert!(
            read(&[(STORAGE, "fast")])
                .expect_err("a word")
                .contains("direct or compatible")
        );
    }
}
