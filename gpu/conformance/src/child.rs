//! Runs cases and their helpers as processes of this same program, each within a time limit.
//!
//! Called by `main` for cases and by cases for helpers. Knows lines and processes, no CUDA.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::facts::{Facts, Line};

/// A process of this program that tells lines.
pub(crate) struct Process {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<Line>,
    deadline: Instant,
}

impl Process {
    /// Starts this program with `arguments`; it must end within `limit`.
    pub(crate) fn start(arguments: &[&str], limit: Duration) -> std::io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (tell, lines) = channel();
        if let Some(output) = child.stdout.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    if let Ok(line) = serde_json::from_str(&line) {
                        let _ = tell.send(line);
                    }
                }
            });
        }
        Ok(Self {
            input: child.stdin.take(),
            child,
            lines,
            deadline: Instant::now() + limit,
        })
    }

    /// Starts the helper `name` of a case; see `cases::HELPERS`.
    pub(crate) fn helper(name: &str, arguments: &[&str]) -> std::io::Result<Self> {
        let all: Vec<&str> = ["--helper", name]
            .iter()
            .chain(arguments)
            .copied()
            .collect();
        Self::start(&all, Duration::from_secs(10))
    }

    /// Hands on what the process tells, until it waits (`true`), ends, or is out of time.
    pub(crate) fn until_it_waits(&mut self, facts: &Facts) -> bool {
        loop {
            match self.next() {
                Some(Line::Waits) => return true,
                Some(line) => facts.pass_on(line),
                None => return false,
            }
        }
    }

    /// Lets a process go on that waits.
    pub(crate) fn go_on(&mut self) {
        if let Some(input) = &mut self.input {
            let _ = input.write_all(b"\n").and_then(|()| input.flush());
        }
    }

    /// The next line, `None` after the last or when time is out.
    pub(crate) fn next(&mut self) -> Option<Line> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        self.lines.recv_timeout(left).ok()
    }

    /// Kills the process as by SIGKILL, and waits for its end.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Hands on all further lines and says how the process ended.
    pub(crate) fn finish(mut self, facts: &Facts) -> String {
        self.input = None;
        while let Some(line) = self.next() {
            facts.pass_on(line);
        }
        self.end()
    }

    /// How the process ends: "exit 0", "signal 11" or "out of time".
    pub(crate) fn end(&mut self) -> String {
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => {
                    let code = status.code().map(|code| format!("exit {code}"));
                    let signal = status.signal().map(|signal| format!("signal {signal}"));
                    return code.or(signal).unwrap_or_else(|| "unknown".to_owned());
                }
                Ok(None) if Instant::now() < self.deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Ok(None) => {
                    self.kill();
                    return "out of time".to_owned();
                }
                Err(error) => return error.to_string(),
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
