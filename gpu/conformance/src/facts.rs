//! What a case finds out, told line by line on standard output, so that a case that dies keeps what it knew.
//!
//! Called by cases and measurements in a process of their own; `child` reads the lines in the parent.

use std::fmt::Display;
use std::io::Write;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One line from a case to whoever runs it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Line {
    /// An answer that every driver must give.
    Fact(String, Value),
    /// An answer that differs between devices, machines or driver versions.
    Environment(String, Value),
    /// A time or a rate, with its unit.
    Measured(String, f64, String),
    /// The process waits for a line on its standard input.
    Waits,
}

/// Where a case writes what it finds.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    prefix: String,
}

impl Facts {
    /// The same place, every name preceded by `prefix` and a dot.
    pub(crate) fn within(&self, prefix: &str) -> Self {
        Self {
            prefix: format!("{}{prefix}.", self.prefix),
        }
    }

    /// A result code, by its name.
    pub(crate) fn code(&self, name: &str, code: impl Display) {
        self.fact(name, code.to_string());
    }

    /// Any fact.
    pub(crate) fn fact(&self, name: &str, value: impl Into<Value>) {
        self.tell(&Line::Fact(self.full(name), value.into()));
    }

    /// What is no rule, but true of this device, machine or driver.
    pub(crate) fn environment(&self, name: &str, value: impl Into<Value>) {
        self.tell(&Line::Environment(self.full(name), value.into()));
    }

    /// A measured number.
    pub(crate) fn measured(&self, name: &str, value: f64, unit: &str) {
        self.tell(&Line::Measured(self.full(name), value, unit.to_owned()));
    }

    /// Tells the parent that this process waits, and waits for a line or for the parent's end.
    pub(crate) fn wait(&self) {
        self.tell(&Line::Waits);
        let _ = std::io::stdin().read_line(&mut String::new());
    }

    /// Passes on a line of a helper.
    pub(crate) fn pass_on(&self, line: Line) {
        match line {
            Line::Fact(name, value) => self.fact(&name, value),
            Line::Environment(name, value) => self.environment(&name, value),
            Line::Measured(name, value, unit) => self.measured(&name, value, &unit),
            Line::Waits => {}
        }
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    #[expect(clippy::unused_self, reason = "facts are told through a `Facts` alone")]
    fn tell(&self, line: &Line) {
        if let Ok(text) = serde_json::to_string(line) {
            let mut out = std::io::stdout().lock();
            // Nobody reads any more: then there is nobody to tell that.
            let _ = writeln!(out, "{text}").and_then(|()| out.flush());
        }
    }
}
