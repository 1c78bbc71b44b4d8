//! Makes a trace or a report of a recording.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

use transload_dashboard::view::Message;
use transload_dashboard::{chrome, otlp, report};

use crate::args::{ExportArgs, TraceFormat};
use crate::failure::{Failure, io_failure};

/// Runs `transload trace export`.
pub(super) fn run(args: &ExportArgs) -> Result<(), Failure> {
    let mut destination = super::destination(args.output.as_deref())?;
    let name = args.recording.display().to_string();
    let messages = if args.recording == Path::new("-") {
        read(io::stdin().lock(), "standard input")?
    } else {
        let file = File::open(&args.recording);
        let file = file.map_err(|error| Failure::failed(format!("cannot read {name}: {error}")))?;
        read(BufReader::new(file), &name)?
    };
    let text = match format_of(args) {
        TraceFormat::Perfetto => chrome(&messages),
        TraceFormat::Report => report(&messages),
        TraceFormat::Otlp => otlp(&messages),
    };
    destination
        .write_all(text.as_bytes())
        .map_err(|error| io_failure("cannot write", &error))?;
    destination.commit()
}

fn format_of(args: &ExportArgs) -> TraceFormat {
    let ending = args.output.as_deref().and_then(Path::extension);
    let is_page = ending.is_some_and(|it| it == "html" || it == "htm");
    args.format.unwrap_or(if is_page {
        TraceFormat::Report
    } else {
        TraceFormat::Perfetto
    })
}

/// The messages of a recording, one to a line. A last line without an end may be half of one: whoever wrote it was cut off.
fn read(mut from: impl BufRead, name: &str) -> Result<Vec<Message>, Failure> {
    let mut messages = Vec::new();
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let read = from.read_until(b'\n', &mut line);
        let bytes =
            read.map_err(|error| Failure::failed(format!("cannot read {name}: {error}")))?;
        if bytes == 0 {
            break;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice(&line) {
            Ok(message) => messages.push(message),
            Err(error) if error.is_eof() && !line.ends_with(b"\n") => {
                // Nobody is left to tell when standard error is gone.
                let _ = writeln!(
                    io::stderr(),
                    "warning: line {number} of {name} is cut off and left out"
                );
            }
            Err(error) => {
                return Err(Failure::failed(format!(
                    "line {number} of {name} is none of a recording: {error}"
                ))
                .hint(
                    "give a file that `transload trace record` or the dashboard's button wrote",
                ));
            }
        }
    }
    let has_frame = messages.iter().any(|it| matches!(it, Message::Frame(_)));
    if !has_frame {
        return Err(
            Failure::failed(format!("{name} shows nothing: it has no frame"))
                .hint("record for at least a second, while something runs"),
        );
    }
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABOUT: &str =
        r#"{"type":"about","version":"0","protocol":1,"scheduler":"a:1","now_us":0,"unix_ms":0}"#;
    const FRAME: &str = r#"{"type":"frame","now_us":5,"totals":{"clients":0,"graphs_running":0,"tasks_ready":0,"tasks_finished":0,"moved_bytes":0,"spilled_bytes":0,"dropped_events":0}}"#;

    fn of(text: &str) -> Result<usize, String> {
        let read = read(text.as_bytes(), "run.jsonl");
        read.map(|it| it.len()).map_err(|it| it.message)
    }

    #[test]
    fn a_recording_is_read_line_by_line() {
        assert_eq!(of(&format!("{ABOUT}\n{FRAME}\n")), Ok(2));
        assert_eq!(of(&format!("{ABOUT}\n\n{FRAME}")), Ok(2));
    }

    #[test]
    fn half_a_line_in_the_end_is_left_out_and_elsewhere_an_error_that_names_it() {
        let half = &FRAME[..40];
        assert_eq!(of(&format!("{ABOUT}\n{FRAME}\n{half}")), Ok(2));
        for bad in [
            format!("{ABOUT}\n{half}\n{FRAME}\n"),
            format!("{ABOUT}\n{half}\n"),
            format!("{ABOUT}\nnonsense"),
            format!("{ABOUT}\n{{\"type\":\"else\"}}\n"),
        ] {
            let said = of(&bad).expect_err("no recording");
            assert!(
                said.starts_with("line 2 of run.jsonl is none of a recording: "),
                "{said}"
            );
        }
    }

    #[test]
    fn a_recording_without_a_frame_shows_nothing() {
        assert_eq!(
            of(ABOUT),
            Err("run.jsonl shows nothing: it has no frame".to_owned())
        );
        assert!(of("").is_err());
    }
}
