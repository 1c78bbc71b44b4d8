//! Writes what a dashboard says, line by line, as it comes.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use tokio::time::sleep;

use super::End;
use crate::args::RecordArgs;
use crate::failure::{Failure, io_failure};
use crate::output::Destination;
use crate::progress;
use crate::show;
use crate::signals::Signals;
use crate::viewer::Viewer;

/// Whose dashboard it is, and everything: less than that is no recording.
const LEAST_MESSAGES: u64 = 2;

/// What has been written.
struct Recorded {
    messages: u64,
    bytes: u64,
    since: Instant,
}

/// Runs `transload trace record`.
pub(super) async fn run(args: &RecordArgs, signals: &Signals) -> Result<(), Failure> {
    let mut destination = super::destination(args.output.as_deref())?;
    let mut viewer = tokio::select! {
        opened = super::open(&args.watch) => opened?,
        _ = signals.stop() => return Err(Failure::interrupted()),
    };
    let bar = progress::waiting_line(progress::is_shown(args.watch.quiet));
    let mut recorded = Recorded {
        messages: 0,
        bytes: 0,
        since: Instant::now(),
    };
    let ended = tokio::select! {
        ended = recorded.all(&mut viewer, &mut destination, &bar) => ended,
        () = sleep(args.watch.limit.unwrap_or(Duration::MAX)) => Ok(End::Time),
        _ = signals.stop() => Ok(End::Asked),
    };
    bar.finish_and_clear();
    let end = ended?;
    if recorded.messages < LEAST_MESSAGES {
        return Err(match end {
            End::Asked => Failure::interrupted(),
            End::Time | End::ClusterEnded => Failure::failed("nothing was recorded"),
        });
    }
    tokio::task::block_in_place(|| destination.commit())?;
    if !args.watch.quiet {
        let hint = args.output.as_ref().map_or_else(String::new, |path| {
            let path = path.display();
            format!("\nto look at it: transload trace export {path} -o {path}.html")
        });
        // Nobody is left to tell when standard error is gone.
        let _ = writeln!(
            io::stderr(),
            "{}recorded {}{hint}",
            end.words(),
            recorded.words()
        );
    }
    Ok(())
}

impl Recorded {
    /// Until the cluster ends.
    async fn all(
        &mut self,
        viewer: &mut Viewer,
        destination: &mut Destination,
        bar: &ProgressBar,
    ) -> Result<End, Failure> {
        while let Some(mut line) = viewer.next().await? {
            line.push('\n');
            // At once: whoever reads a pipe wants to see what happens now.
            let written = tokio::task::block_in_place(|| {
                destination.write_all(line.as_bytes())?;
                destination.flush()
            });
            written.map_err(|error| io_failure("cannot write the recording", &error))?;
            self.messages += 1;
            self.bytes += line.len() as u64;
            bar.set_message(format!("recording: {}; Ctrl-C ends it", self.words()));
        }
        Ok(End::ClusterEnded)
    }

    fn words(&self) -> String {
        format!(
            "{}, {} in {}",
            show::count(self.messages, "message"),
            show::bytes(self.bytes),
            show::time(self.since.elapsed()),
        )
    }
}
