//! The prompt: lines with history and editing, statements over several lines until a semicolon, and a few commands.
//!
//! The line editor blocks, so it has a thread of its own; everything else runs on the command's task.

use std::borrow::Cow;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Config, Editor, Helper};
use tokio::sync::mpsc as async_mpsc;

use super::Runner;
use super::statements;
use crate::failure::{Exit, Failure};
use crate::signals::{Signals, Stop};

const HELP: &str = "\
A statement ends with a semicolon and may span several lines.
  \\d          lists the tables
  \\d NAME     shows the columns of a table
  \\timing     shows times, or stops doing so
  \\?          shows this help
  \\q          leaves, as Ctrl-D does
Ctrl-C empties the line, or stops the running statement. The up key brings back earlier statements.
";

const TABLES: &str = "SELECT table_name AS \"table\", table_type AS \"type\" FROM information_schema.tables \
     WHERE table_schema <> 'information_schema' ORDER BY table_name";

/// What the editor brought.
enum Line {
    Text(String),
    /// Ctrl-C on an unfinished line.
    Emptied,
    /// Ctrl-D.
    End,
    Broken(String),
}

/// Reads and runs statements until the person leaves.
///
/// # Errors
/// The terminal fails, or SIGTERM came. A failing statement is reported and no error.
pub(super) async fn run(runner: &mut Runner<'_>, signals: &Signals) -> Result<(), Failure> {
    let (wanted, mut lines) = start_editor()?;
    say("\\? lists commands, Ctrl-D leaves.\n");
    loop {
        if wanted.send(()).is_err() {
            return Ok(());
        }
        let line = tokio::select! {
            line = lines.recv() => line,
            stop = signals.stop() => match stop {
                // While a line is edited, Ctrl-C is a key; this one was sent from elsewhere.
                Stop::Interrupt => {
                    signals.dealt_with();
                    lines.recv().await
                }
                Stop::Terminate => {
                    restore_terminal();
                    return Err(Failure::interrupted());
                }
            },
        };
        match line {
            None | Some(Line::End) => return Ok(()),
            Some(Line::Broken(reason)) => {
                return Err(Failure::failed(format!(
                    "cannot read from the terminal: {reason}"
                )));
            }
            Some(Line::Emptied) => {}
            Some(Line::Text(text)) => {
                if !obey(text.trim(), runner, signals).await? {
                    return Ok(());
                }
            }
        }
    }
}

/// Runs what was typed; false to leave.
async fn obey(text: &str, runner: &mut Runner<'_>, signals: &Signals) -> Result<bool, Failure> {
    let (command, argument) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let argument = argument.trim().trim_end_matches(';');
    match command.trim_end_matches(';') {
        "\\q" | "exit" | "quit" => return Ok(false),
        "\\?" | "\\h" | "help" => say(HELP),
        "\\timing" => {
            runner.timing = !runner.timing;
            say(if runner.timing {
                "times are shown\n"
            } else {
                "times are not shown\n"
            });
        }
        "\\d" if argument.is_empty() => attempt(TABLES, runner, signals).await?,
        "\\d" => attempt(&format!("DESCRIBE {argument}"), runner, signals).await?,
        unknown if unknown.starts_with('\\') => {
            Failure::usage(format!("no command {unknown}"))
                .hint("\\? lists the commands")
                .report();
        }
        _ => match statements::split(text) {
            Ok(script) => {
                for statement in &script.statements {
                    attempt(statement, runner, signals).await?;
                }
            }
            Err(error) => Failure::failed(error).report(),
        },
    }
    Ok(true)
}

/// Runs one statement and reports its failure. Only what makes going on pointless is an error.
async fn attempt(
    statement: &str,
    runner: &mut Runner<'_>,
    signals: &Signals,
) -> Result<(), Failure> {
    let done = tokio::select! {
        done = runner.run(statement) => done,
        stop = signals.stop() => match stop {
            Stop::Interrupt => Err(Failure::new(Exit::Interrupted, "interrupted, the statement was stopped")),
            Stop::Terminate => return Err(Failure::interrupted()),
        },
    };
    signals.dealt_with();
    match done {
        Err(failure) if failure.exit == Exit::BrokenPipe || failure.exit == Exit::Unreachable => {
            Err(failure)
        }
        Err(failure) => {
            failure.report();
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// Starts the editor's thread. It reads one line for each `()` it is sent.
fn start_editor() -> Result<(mpsc::Sender<()>, async_mpsc::UnboundedReceiver<Line>), Failure> {
    let config = Config::builder()
        .history_ignore_space(true)
        .auto_add_history(false)
        .build();
    let broken =
        |error: &dyn std::fmt::Display| Failure::failed(format!("cannot open a prompt: {error}"));
    let (wanted, requests) = mpsc::channel::<()>();
    let (answers, lines) = async_mpsc::unbounded_channel();
    let edit = move || {
        let mut editor = match Editor::<Statements, FileHistory>::with_config(config) {
            Ok(editor) => editor,
            Err(error) => {
                let _ = answers.send(Line::Broken(error.to_string()));
                return;
            }
        };
        editor.set_helper(Some(Statements));
        let history = history_file();
        if let Some(path) = &history {
            // There is none the first time.
            let _ = editor.load_history(path);
        }
        while requests.recv().is_ok() {
            let line = match editor.readline("transload> ") {
                Ok(text) => {
                    let fresh = !text.trim().is_empty()
                        && editor.add_history_entry(text.as_str()).unwrap_or(false);
                    if let (true, Some(path)) = (fresh, &history) {
                        // A history that cannot be kept is no reason to stop.
                        let _ = editor.append_history(path);
                    }
                    Line::Text(text)
                }
                Err(ReadlineError::Interrupted) => Line::Emptied,
                Err(ReadlineError::Eof) => Line::End,
                Err(error) => Line::Broken(error.to_string()),
            };
            if answers.send(line).is_err() {
                return;
            }
        }
    };
    thread::Builder::new()
        .name("prompt".to_owned())
        .spawn(edit)
        .map_err(|error| broken(&error))?;
    Ok((wanted, lines))
}

/// `$TRANSLOAD_HISTORY`, or `history` in the person's state folder; none where there is no home.
fn history_file() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("TRANSLOAD_HISTORY") {
        return (!path.is_empty()).then(|| path.into());
    }
    let state = std::env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .or_else(|| {
            std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"))
        })?;
    let folder = state.join("transload");
    fs::create_dir_all(&folder).ok()?;
    Some(folder.join("history"))
}

/// The editor left the terminal in its own mode when its thread is not given time to end.
fn restore_terminal() {
    // Where there is no stty there is nothing better to do.
    let _ = Command::new("stty").arg("sane").status();
}

fn say(text: &str) {
    // Nobody is left to tell when the terminal is gone.
    let _ = io::stdout().write_all(text.as_bytes());
}

/// Tells the editor when what was typed is complete.
struct Statements;

impl Validator for Statements {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(if is_complete(context.input()) {
            ValidationResult::Valid(None)
        } else {
            ValidationResult::Incomplete
        })
    }
}

/// Whether what was typed can be run: a command, nothing, or statements that all end with a semicolon.
fn is_complete(text: &str) -> bool {
    let text = text.trim();
    if text.starts_with('\\') || ["exit", "quit", "help"].contains(&text) {
        return true;
    }
    // An error is an open string or comment.
    statements::split(text).is_ok_and(|script| !script.ends_open)
}

impl Helper for Statements {}

impl Highlighter for Statements {
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(
        &'s self,
        prompt: &'p str,
        _default: bool,
    ) -> Cow<'b, str> {
        Cow::Borrowed(prompt)
    }
}

impl Hinter for Statements {
    type Hint = String;
}

impl Completer for Statements {
    type Candidate = String;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_complete_when_its_semicolon_is_there() {
        for complete in [
            "",
            "  ",
            "\\d",
            "\\d orders",
            "quit",
            "select 1;",
            "select 1; -- x",
        ] {
            assert!(is_complete(complete), "{complete}");
        }
        for open in [
            "select 1",
            "select ';",
            "select 1; select 2",
            "/* ",
            "select \";\"",
        ] {
            assert!(!is_complete(open), "{open}");
        }
    }
}
