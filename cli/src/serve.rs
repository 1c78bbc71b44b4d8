//! `transload scheduler` and `transload worker`: processes that run until they are told to end.

use std::io::{self, Write};

use transload_runtime::{CancellationToken, RuntimeError, SchedulerServer, run_worker};

use crate::args::{SchedulerArgs, WorkerArgs};
use crate::cluster::{config_failure, runtime_failure};
use crate::failure::{Failure, io_failure};
use crate::signals::Signals;

/// Runs a scheduler until a signal or a client ends it.
pub(crate) async fn scheduler(args: SchedulerArgs, signals: &Signals) -> Result<(), Failure> {
    let config = args.flags.load().map_err(|error| config_failure(&error))?;
    let file = config.scheduler.file.clone();
    let server = SchedulerServer::start(config.scheduler)
        .await
        .map_err(|error| runtime_failure(&error))?;
    let contact = server.contact();
    let mut text = format!("scheduler listens at {contact}\n");
    if let Some(address) = server.dashboard() {
        text.push_str(&format!("dashboard at http://{address}/\n"));
    }
    text.push_str(&match file {
        Some(file) => format!(
            "workers join with: transload worker --scheduler-file {}\n",
            file.display()
        ),
        None => format!("workers join with: transload worker {contact}\n"),
    });
    say(&text)?;
    tokio::select! {
        () = server.ended() => match server.take_failure() {
            Some(error) => return Err(runtime_failure(&error)),
            None => tracing::info!("a client asked the scheduler to end"),
        },
        stop = signals.stop() => tracing::info!(?stop, "the scheduler ends"),
    }
    server.shutdown().await;
    Ok(())
}

/// Runs a worker until a signal or its scheduler ends it.
pub(crate) async fn worker(args: WorkerArgs, signals: &Signals) -> Result<(), Failure> {
    let config = args.flags.load().map_err(|error| config_failure(&error))?;
    let mut worker = config.worker;
    if args.scheduler.is_some() {
        worker.scheduler = args.scheduler;
    }
    let stop = CancellationToken::new();
    let running = run_worker(worker, transload_query::operators(), stop.clone());
    tokio::pin!(running);
    let ended = tokio::select! {
        ended = &mut running => ended,
        signal = signals.stop() => {
            tracing::info!(stop = ?signal, "the worker ends");
            stop.cancel();
            running.await
        }
    };
    match ended {
        // The command that started a local cluster was killed: nobody is left who could be told.
        Err(RuntimeError::SchedulerLost { .. }) if args.local => Ok(()),
        ended => ended.map_err(|error| runtime_failure(&error)),
    }
}

/// Tells on standard output, at once.
fn say(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| io_failure("cannot write to standard output", &error))
}
