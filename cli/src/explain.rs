//! `transload explain`: why a task waits, or what became of it.

use std::io::{self, Write};

use serde_json::json;
use transload_protocol::{Explanation, TaskId};

use crate::args::ExplainArgs;
use crate::cluster::client_failure;
use crate::failure::{Failure, io_failure};
use crate::info;
use crate::show::plain;
use crate::signals::Signals;

/// Runs `transload explain`.
pub(crate) async fn run(args: &ExplainArgs, signals: &Signals) -> Result<(), Failure> {
    tokio::select! {
        done = explain(args) => done,
        _ = signals.stop() => Err(Failure::interrupted()),
    }
}

async fn explain(args: &ExplainArgs) -> Result<(), Failure> {
    let cluster = info::open(&args.cluster).await?;
    let explanation = cluster
        .client
        .explain(args.task)
        .await
        .map_err(|error| client_failure(&error))?;
    let text = if args.json {
        as_json(args.task, &explanation)
    } else {
        as_text(&explanation)
    };
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| io_failure("cannot write to standard output", &error))
}

/// The sentence, and below it one line for each further fact.
fn as_text(explanation: &Explanation) -> String {
    let details = explanation.details.iter().map(|detail| plain(detail));
    let lines: String = details.map(|detail| format!("  {detail}\n")).collect();
    format!("{}\n{lines}", plain(&explanation.summary))
}

fn as_json(task: TaskId, explanation: &Explanation) -> String {
    let value = json!({
        "task": task.to_string(),
        "summary": explanation.summary,
        "details": explanation.details,
    });
    format!("{value:#}\n")
}
