//! What happened, kept so that a failure can be read: a hash of everything, and the last lines when asked for.

use std::collections::VecDeque;
use std::fmt;

use transload_protocol::Time;

use crate::random::mix;

/// Lines that a failure shows.
const TAIL_LINES: usize = 60;
/// Characters of one line in a failure.
const LINE_CHARACTERS: usize = 400;

/// What to do with the lines of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tracing {
    /// Make none: fastest.
    Off,
    /// Keep the last 60 for a failure, and hash all.
    Tail,
    /// Print each to standard output.
    Print,
}

/// A simulation that did not end right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The seed that shows it.
    pub seed: u64,
    /// The step at which it was seen.
    pub step: u64,
    /// The simulated time of that step.
    pub at: Time,
    /// What is wrong.
    pub reason: String,
    /// The last lines of the trace.
    pub tail: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.tail {
            writeln!(f, "{line}")?;
        }
        writeln!(
            f,
            "seed {} failed at step {}, {} us: {}",
            self.seed, self.step, self.at.micros, self.reason
        )?;
        write!(
            f,
            "run it again: cargo run -p transload-sim -- --seed {} --trace",
            self.seed
        )
    }
}

impl std::error::Error for Failure {}

/// The trace of one run.
#[derive(Debug)]
pub(crate) struct Trace {
    tracing: Tracing,
    hash: u64,
    text_hash: u64,
    lines: VecDeque<String>,
}

impl Trace {
    pub(crate) const fn new(tracing: Tracing) -> Self {
        Self {
            tracing,
            hash: 0,
            text_hash: 0,
            lines: VecDeque::new(),
        }
    }

    /// Adds numbers to the hash that is the same with and without lines.
    pub(crate) const fn mark(&mut self, number: u64) {
        self.hash = mix(self.hash.rotate_left(7) ^ number);
    }

    /// Adds a line, which is made only if somebody reads it.
    pub(crate) fn note(&mut self, now: Time, line: impl FnOnce() -> String) {
        if self.tracing == Tracing::Off {
            return;
        }
        let line = format!("{:>10} {}", now.micros, line());
        for byte in line.bytes() {
            self.text_hash = (self.text_hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.tracing == Tracing::Print {
            println!("{line}");
        }
        if self.lines.len() == TAIL_LINES {
            self.lines.pop_front();
        }
        self.lines
            .push_back(line.chars().take(LINE_CHARACTERS).collect());
    }

    pub(crate) const fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) const fn text_hash(&self) -> u64 {
        self.text_hash
    }

    pub(crate) fn into_tail(self) -> Vec<String> {
        self.lines.into()
    }
}
