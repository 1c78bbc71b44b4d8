//! What this machine has to share out.

use std::fs;
use std::os::unix::fs::MetadataExt;

/// Where nothing can be found out.
const FALLBACK_MEMORY_BYTES: u64 = 4 << 30;

/// CPUs that this process may use.
pub fn machine_slots() -> u32 {
    std::thread::available_parallelism()
        .ok()
        .and_then(|count| u32::try_from(count.get()).ok())
        .unwrap_or(1)
}

/// Memory of this machine in bytes, or of the container that this process is confined to when that is less.
pub fn machine_memory_bytes() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| kib_line(&text, "MemTotal:"));
    let container = [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ]
    .iter()
    .filter_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok())
    .min();
    machine
        .into_iter()
        .chain(container)
        .min()
        .unwrap_or(FALLBACK_MEMORY_BYTES)
}

/// Resident memory of this process in bytes; 0 where the system does not say.
pub(crate) fn resident_bytes() -> u64 {
    fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|text| kib_line(&text, "VmRSS:"))
        .unwrap_or(0)
}

/// The user that this process runs as; folders in shared places are named after it.
pub(super) fn user_id() -> u32 {
    fs::metadata("/proc/self").map_or(0, |process| process.uid())
}

fn kib_line(text: &str, label: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(label))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_something_to_share_out() {
        assert!(machine_slots() >= 1);
        assert!(machine_memory_bytes() > 64 << 20);
        assert!(resident_bytes() > 0);
        assert_eq!(
            kib_line("A: 1 kB\nVmRSS:\t  12 kB\n", "VmRSS:"),
            Some(12 << 10)
        );
        assert_eq!(kib_line("VmRSS:\t  x kB\n", "VmRSS:"), None);
    }
}
