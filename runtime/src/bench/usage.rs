//! What a process or thread has used, as Linux tells in `/proc`. Knows nothing of what is measured.

use std::fs;
use std::io;
use std::thread;
use std::time::Duration;

use super::BenchError;

/// Long enough for the system to have put a thread aside, which is when it adds up the thread's time; until then the files
/// below lag by up to a tick.
const SETTLE: Duration = Duration::from_millis(2);

/// CPU time of the calling thread so far, in nanoseconds.
pub(super) fn thread_cpu_nanos() -> Result<u64, BenchError> {
    thread::sleep(SETTLE);
    let path = "/proc/thread-self/schedstat".to_owned();
    first_number(path)
}

/// CPU time of all threads of a process that still live, in nanoseconds. Exact to a tick for threads that run at this moment.
pub(super) fn process_cpu_nanos(pid: u32) -> Result<u64, BenchError> {
    let path = format!("/proc/{pid}/task");
    let mut sum = 0;
    for entry in fs::read_dir(&path).map_err(unreadable(&path))? {
        let thread = entry.map_err(unreadable(&path))?.path();
        match first_number(format!("{}/schedstat", thread.display())) {
            Ok(nanos) => sum += nanos,
            // A thread that has ended between the two lines above.
            Err(_) if !thread.exists() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sum)
}

/// Resident memory of a process now, in bytes. `pid` is a process id or `self`.
pub(super) fn resident_bytes(pid: &str) -> Result<u64, BenchError> {
    status(pid, "VmRSS:")
}

/// The most resident memory that a process ever had, in bytes. `pid` is a process id or `self`.
pub(super) fn peak_resident_bytes(pid: &str) -> Result<u64, BenchError> {
    status(pid, "VmHWM:")
}

/// How many files a process like this one may have open at once; `u64::MAX` for no limit.
pub(super) fn open_files_limit() -> Result<u64, BenchError> {
    let path = "/proc/self/limits";
    let text = fs::read_to_string(path).map_err(unreadable(path))?;
    text.lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|rest| rest.split_whitespace().next())
        .map(|soft| soft.parse().unwrap_or(u64::MAX))
        .ok_or_else(|| malformed(path))
}

fn status(pid: &str, key: &str) -> Result<u64, BenchError> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).map_err(unreadable(&path))?;
    text.lines()
        .find_map(|line| line.strip_prefix(key))
        .and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok())
        .map(|kib| kib * 1024)
        .ok_or_else(|| malformed(&path))
}

fn first_number(path: String) -> Result<u64, BenchError> {
    let text = fs::read_to_string(&path).map_err(unreadable(&path))?;
    text.split_whitespace()
        .next()
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| malformed(&path))
}

fn unreadable(path: &str) -> impl FnOnce(io::Error) -> BenchError {
    let path = path.to_owned();
    |source| BenchError::Usage { path, source }
}

fn malformed(path: &str) -> BenchError {
    unreadable(path)(io::Error::from(io::ErrorKind::InvalidData))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn work_and_memory_of_this_process_are_seen() {
        let cpu = thread_cpu_nanos().expect("readable");
        let all = process_cpu_nanos(std::process::id()).expect("readable");
        let peak = peak_resident_bytes("self").expect("readable");
        let mut memory = vec![1_u8; 64 << 20];
        for (at, byte) in memory.iter_mut().enumerate() {
            *byte = byte.wrapping_add(at as u8);
        }
        std::hint::black_box(&memory);
        assert!(resident_bytes("self").expect("readable") > 64 << 20);
        assert!(peak_resident_bytes("self").expect("readable") > peak + (32 << 20));
        assert!(thread_cpu_nanos().expect("readable") > cpu + 100_000);
        assert!(process_cpu_nanos(std::process::id()).expect("readable") > all);
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error_with_the_file() {
        let error = process_cpu_nanos(u32::MAX).expect_err("no such process");
        assert!(error.to_string().contains("/proc/4294967295"), "{error}");
    }
}
