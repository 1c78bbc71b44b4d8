//! How a command ends: an exit code, and for a failure one clear line, its causes and a hint.
//!
//! Called by every command. Knows nothing of what the commands do.

use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

/// Why the program ends with something other than success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// A query or another piece of work failed.
    Failed,
    /// The command line asks for something that makes no sense.
    Usage,
    /// No cluster answers at the address, or it was lost on the way.
    Unreachable,
    /// Ctrl-C or SIGTERM.
    Interrupted,
    /// Whoever read standard output is gone. Not an error.
    BrokenPipe,
}

impl Exit {
    /// The process's exit code.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::BrokenPipe => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::Interrupted => 130,
        }
    }
}

/// A command that did not do what was asked.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    /// The class, which decides the exit code.
    pub(crate) exit: Exit,
    /// One sentence without a full stop.
    pub(crate) message: String,
    /// What lies beneath, outermost first.
    pub(crate) causes: Vec<String>,
    /// What the person can do about it.
    pub(crate) hint: Option<String>,
}

impl Failure {
    /// A failure of class `exit`.
    pub(crate) fn new(exit: Exit, message: impl Display) -> Self {
        Self {
            exit,
            message: message.to_string(),
            causes: Vec::new(),
            hint: None,
        }
    }

    /// Work that failed.
    pub(crate) fn failed(message: impl Display) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// A command line that makes no sense.
    pub(crate) fn usage(message: impl Display) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// The end after Ctrl-C.
    pub(crate) fn interrupted() -> Self {
        Self::new(Exit::Interrupted, "interrupted")
    }

    /// The quiet end after the reader of standard output went away.
    pub(crate) fn broken_pipe() -> Self {
        Self::new(Exit::BrokenPipe, "nobody reads standard output any more")
    }

    /// Adds `error` and everything beneath it as causes.
    #[must_use]
    pub(crate) fn because(mut self, error: &(dyn Error + 'static)) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            let text = error.to_string();
            // Many errors print their source as part of themselves; saying it twice helps nobody.
            let said = |earlier: &String| earlier.contains(text.trim());
            if !said(&self.message) && !self.causes.iter().any(said) {
                self.causes.push(text);
            }
            next = error.source();
        }
        self
    }

    /// Adds what the person can do.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The whole text: `error:` line, `caused by:` lines, `hint:` line.
    pub(crate) fn render(&self) -> String {
        let mut text = format!("error: {}\n", indented(&self.message));
        for cause in &self.causes {
            text.push_str(&format!("  caused by: {}\n", indented(cause)));
        }
        if let Some(hint) = &self.hint {
            text.push_str(&format!("hint: {}\n", indented(hint)));
        }
        text
    }

    /// Prints the failure on standard error, unless it is a quiet one.
    pub(crate) fn report(&self) {
        match self.exit {
            Exit::BrokenPipe => {}
            Exit::Interrupted | Exit::Failed | Exit::Usage | Exit::Unreachable => {
                // Nobody is left to tell when standard error is gone too.
                let _ = io::stderr().write_all(self.render().as_bytes());
            }
        }
    }
}

impl From<&Failure> for ExitCode {
    fn from(failure: &Failure) -> Self {
        Self::from(failure.exit.code())
    }
}

/// A failure of reading or writing `what`, or the quiet end when a pipe's reader is gone.
pub(crate) fn io_failure(what: impl Display, error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        Failure::broken_pipe()
    } else {
        Failure::failed(format!("{what}: {error}"))
    }
}

/// Later lines of a text, set in so that they cannot be taken for a new message.
fn indented(text: &str) -> String {
    text.trim().replace('\n', "\n       ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_prints_one_line_its_causes_once_and_a_hint() {
        let source = io::Error::other("disk on fire");
        let failure = Failure::failed("cannot write out.csv")
            .because(&source)
            .because(&source)
            .hint("buy water");
        assert_eq!(
            failure.render(),
            "error: cannot write out.csv\n  caused by: disk on fire\nhint: buy water\n"
        );
    }

    #[test]
    fn a_cause_that_the_message_already_names_is_left_out() {
        let source = io::Error::other("disk on fire");
        let failure = Failure::failed("cannot write: disk on fire").because(&source);
        assert!(failure.causes.is_empty());
    }

    #[test]
    fn a_broken_pipe_is_a_success() {
        let failure = io_failure("stdout", &io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(failure.exit.code(), 0);
    }
}
