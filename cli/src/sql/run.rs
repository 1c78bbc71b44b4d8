//! Runs one statement: shows its progress, writes its result as it arrives, and says how long it took.

use std::io::{self, IsTerminal, Write};
use std::time::Instant;

use futures::StreamExt;
use transload_query::{QueryError, SqlSession};

use crate::cluster::{client_failure, with_hint};
use crate::failure::{Exit, Failure, io_failure};
use crate::output::{Destination, Format, writer};
use crate::progress::{self, QueryProgress};
use crate::show;

/// Runs statements one after another.
pub(crate) struct Runner<'a> {
    /// Where they run.
    pub(crate) session: &'a SqlSession,
    /// How results are written.
    pub(crate) format: Format,
    /// Where to.
    pub(crate) destination: &'a mut Destination,
    /// Most rows of one result, if there is a limit.
    pub(crate) max_rows: Option<u64>,
    /// Neither progress nor row counts.
    pub(crate) quiet: bool,
    /// Times with the row counts.
    pub(crate) timing: bool,
    /// Results written so far.
    pub(crate) results: u32,
}

/// How a result ended.
struct Written {
    rows: u64,
    /// Whether rows beyond the limit were left out.
    cut: bool,
}

impl Runner<'_> {
    /// Runs one statement to its end. Dropping the future stops the statement's work on the cluster.
    ///
    /// # Errors
    /// The statement is wrong, its work failed, or its result cannot be written.
    pub(crate) async fn run(&mut self, statement: &str) -> Result<(), Failure> {
        let started = Instant::now();
        let execution = self
            .session
            .execute(statement)
            .await
            .map_err(|error| query_failure(&error))?;
        let schema = execution.schema();
        let shown = progress::is_shown(self.quiet);
        let names = execution
            .plan()
            .map_or_else(Vec::new, |plan| plan.stage_names().to_vec());
        let progress = QueryProgress::follow(names, execution.progress(), shown);
        let mut stream = execution.stream();
        if schema.fields().is_empty() {
            // A statement that has an effect and no result.
            while let Some(batch) = stream.next().await {
                batch.map_err(|error| query_failure(&error))?;
            }
            drop(progress);
            return Ok(());
        }
        if self.format == Format::Parquet && self.results > 0 {
            return Err(
                Failure::usage("one Parquet file holds one result, and there are several")
                    .hint("run the queries one by one, each with its own -o"),
            );
        }
        self.results += 1;
        let mut written = Written {
            rows: 0,
            cut: false,
        };
        let mut out = writer(self.format, &schema, self.destination)?;
        while let Some(batch) = stream.next().await {
            let mut batch = batch.map_err(|error| query_failure(&error))?;
            if let Some(limit) = self.max_rows {
                let room = usize::try_from(limit - written.rows).unwrap_or(usize::MAX);
                if batch.num_rows() > room {
                    batch = batch.slice(0, room);
                    written.cut = true;
                }
            }
            written.rows += batch.num_rows() as u64;
            tokio::task::block_in_place(|| progress.suspend(|| out.write(&batch)))?;
            if written.cut {
                break;
            }
        }
        // Dropped first: what is not needed any more stops while the last rows are being written.
        drop(stream);
        drop(progress);
        tokio::task::block_in_place(|| out.finish())?;
        self.destination
            .flush()
            .map_err(|error| io_failure("cannot write the result", &error))?;
        self.tell(&written, started);
        Ok(())
    }

    /// Row count and time, for people.
    fn tell(&self, written: &Written, started: Instant) {
        let wanted = self.format == Format::Table || io::stderr().is_terminal();
        if self.quiet || !wanted {
            return;
        }
        let mut text = if written.cut {
            format!(
                "first {}, the rest was not computed (--max-rows 0 shows all)",
                show::count(written.rows, "row")
            )
        } else {
            show::count(written.rows, "row")
        };
        if self.timing {
            text.push_str(&format!(" in {}", show::time(started.elapsed())));
        }
        // Nobody is left to tell when standard error is gone.
        let _ = writeln!(io::stderr(), "{text}");
    }
}

/// A query's error as a failure of the command.
pub(crate) fn query_failure(error: &QueryError) -> Failure {
    match error {
        QueryError::Client(error) => client_failure(error),
        QueryError::UnknownTable { similar: None, .. } => Failure::failed(error)
            .hint("name its files with --table NAME=PATH, or with CREATE EXTERNAL TABLE"),
        QueryError::UnknownTable { .. }
        | QueryError::UnknownColumn { .. }
        | QueryError::Internal(_) => with_hint(Exit::Failed, error),
        QueryError::Parse { .. }
        | QueryError::Plan(_)
        | QueryError::File { .. }
        | QueryError::Task(_)
        | QueryError::Cancelled
        | QueryError::Execution(_) => Failure::failed(error).because(error),
    }
}
