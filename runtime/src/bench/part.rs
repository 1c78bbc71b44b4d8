//! The processes of which a measurement consists, and how they are started: the program starts itself again and says in one
//! argument, as JSON, which part it is to play. Parts answer with lines of JSON.

use std::io::{self, Write};
use std::process::Stdio;
use std::thread;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::oneshot;
use transload_protocol::Address;

use super::transport::Holder;
use super::{BenchError, Measured, Program, SchedulerBench, instant, machine, transport};
use crate::SchedulerServer;
use crate::config::SchedulerConfig;

/// A part to play.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Part {
    /// Measures the machine alone; answers with [`Measured`].
    Machine(SchedulerBench),
    /// A scheduler, which answers with [`Listening`] and ends when a client asks for it or its standard input ends.
    Scheduler {
        /// Connections that it takes.
        connections: u32,
    },
    /// Instant workers, which answer with [`Joined`] and, when the scheduler has sent them home, [`Served`].
    Workers {
        /// The scheduler's.
        address: String,
        /// How many.
        workers: u32,
        /// Slots of each.
        slots: u32,
    },
    /// Serves partitions of any size; answers with [`Serving`] and ends when its standard input does.
    Holder(Holder),
}

/// A scheduler is there.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Listening {
    pub(super) address: String,
}

/// Who serves partitions is there.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Serving {
    /// Best first.
    pub(super) addresses: Vec<Address>,
}

/// All workers have joined.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Joined {
    pub(super) workers: u32,
}

/// All workers have ended.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Served {
    /// Sent and received.
    pub(super) messages: u64,
}

/// Plays a part of a measurement in this process, as [`Program`] says. Needs a tokio runtime.
///
/// # Errors
/// [`BenchError`], also for a text that names no part.
pub async fn run_part(text: &str) -> Result<(), BenchError> {
    let part = serde_json::from_str(text).map_err(|error| BenchError::Part {
        what: "a process",
        how: format!("was told to be something unknown: {error}"),
    })?;
    match part {
        Part::Machine(bench) => say(&machine::measure(bench)?),
        Part::Scheduler { connections } => scheduler(connections).await,
        Part::Workers {
            address,
            workers,
            slots,
        } => {
            let joined = || say(&Joined { workers });
            let messages = instant::run(&address, workers, slots, joined).await?;
            say(&Served { messages })
        }
        Part::Holder(holder) => transport::serve(holder, say).await,
    }
}

async fn scheduler(connections: u32) -> Result<(), BenchError> {
    let server = SchedulerServer::start(SchedulerConfig {
        host: "127.0.0.1".to_owned(),
        port: 0,
        file: None,
        connections,
        ..SchedulerConfig::default()
    })
    .await?;
    say(&Listening {
        address: server.address().to_string(),
    })?;
    tokio::select! {
        () = server.ended() => {}
        () = orphaned() => {}
    }
    Ok(())
}

/// Waits until whoever measures is gone: it holds the other end of standard input, and so cannot leave this process behind.
pub(super) async fn orphaned() {
    // A thread that is dropped, not a task, because nothing else ends its waiting.
    let (sender, orphaned) = oneshot::channel::<()>();
    thread::spawn(move || {
        let _sender = sender;
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
    });
    // The sender is dropped, never used.
    let _ = orphaned.await;
}

fn say<T: Serialize>(value: &T) -> Result<(), BenchError> {
    let mut line = serde_json::to_vec(value).map_err(|error| BenchError::Output(error.into()))?;
    line.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&line)
        .and_then(|()| out.flush())
        .map_err(BenchError::Output)
}

/// A process that plays a part. Killed when dropped.
#[derive(Debug)]
pub(super) struct Playing {
    what: &'static str,
    pub(super) child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// Held open for as long as the part is needed.
    _stdin: Option<ChildStdin>,
}

impl Playing {
    /// Starts a process for a part.
    pub(super) fn start(program: &Program, part: &Part) -> Result<Self, BenchError> {
        let what = match part {
            Part::Machine(_) => "the process of the machine",
            Part::Scheduler { .. } => "the scheduler process",
            Part::Workers { .. } => "the process of the workers",
            Part::Holder(_) => "the process that serves partitions",
        };
        let text = serde_json::to_string(part).map_err(|error| BenchError::Output(error.into()))?;
        let spawn = |source| BenchError::Spawn {
            program: program.program.clone(),
            source,
        };
        let mut child = Command::new(&program.program)
            .args(&program.arguments)
            .arg(text)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            // Ctrl-C at a terminal reaches the process that measures alone, which then ends this one.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(spawn)?;
        let stdin = child.stdin.take();
        let Some(stdout) = child.stdout.take() else {
            return Err(spawn(io::Error::other("it has no standard output")));
        };
        Ok(Self {
            what,
            child,
            lines: BufReader::new(stdout).lines(),
            _stdin: stdin,
        })
    }

    /// What the process says next.
    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> Result<T, BenchError> {
        let how = match self.lines.next_line().await {
            Ok(Some(line)) => match serde_json::from_str(&line) {
                Ok(value) => return Ok(value),
                Err(error) => format!("said `{line}`, which makes no sense: {error}"),
            },
            Ok(None) => match self.child.wait().await {
                Ok(status) => format!("ended early with {status}"),
                Err(error) => format!("ended early ({error})"),
            },
            Err(error) => format!("cannot be heard: {error}"),
        };
        Err(BenchError::Part {
            what: self.what,
            how,
        })
    }
}

/// Measures the machine in a process of its own.
pub(super) async fn measure_machine(
    bench: SchedulerBench,
    program: &Program,
) -> Result<Measured, BenchError> {
    Playing::start(program, &Part::Machine(bench))?.next().await
}
