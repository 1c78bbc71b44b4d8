//! Workers that finish whatever they get at once. They read of a message what they need and ignore the rest, inputs included.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Barrier, mpsc};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use transload_protocol::{
    Address, OutputSizes, Resources, Role, SchedulerToWorker, Welcome, WorkerHello, WorkerId,
    WorkerLoad, WorkerMessage,
};

use super::BenchError;
use crate::control::{self, Connected};

/// Bytes that each output is said to have.
const OUTPUT_BYTES: u64 = 8;
const PATIENCE: Duration = Duration::from_secs(60);

/// What an instant worker must remember: the number of outputs of each layer. One graph at a time.
#[derive(Debug, Default)]
pub(super) struct Memory {
    outputs: Vec<u32>,
}

impl Memory {
    /// Appends the answers to a message, if it asks for any.
    pub(super) fn answer(&mut self, message: &SchedulerToWorker, answers: &mut Vec<WorkerMessage>) {
        if let SchedulerToWorker::Assign { tasks } = message {
            answers.extend(tasks.iter().map(|task| {
                let outputs = self.outputs.get(task.layer.0 as usize).copied();
                let outputs = outputs.unwrap_or(1);
                WorkerMessage::Finished {
                    task: task.task,
                    attempt: task.attempt,
                    sizes: OutputSizes {
                        outputs,
                        total_bytes: OUTPUT_BYTES * u64::from(outputs),
                        largest_bytes: OUTPUT_BYTES,
                        rows: 0,
                    },
                    run_micros: 0,
                }
            }));
        }
        if let SchedulerToWorker::Layer { layer, spec, .. } = message {
            let index = layer.0 as usize;
            if self.outputs.len() <= index {
                self.outputs.resize(index + 1, 1);
            }
            if let Some(outputs) = self.outputs.get_mut(index) {
                *outputs = spec.outputs;
            }
        }
    }
}

/// What an instant worker says of itself.
pub(super) fn hello(number: u32, slots: u32) -> WorkerHello {
    WorkerHello {
        name: format!("instant-{number}"),
        host: "here".to_owned(),
        process: std::process::id(),
        resources: Resources::slots(slots),
        memory_bytes: 1 << 30,
        // Nobody ever fetches from it.
        addresses: vec![Address::new(
            "tcp",
            format!("127.0.0.1:{}", number % 65_535 + 1),
        )],
        labels: BTreeSet::new(),
        shared: BTreeSet::new(),
        gpu: None,
    }
}

/// Runs instant workers over control connections until the scheduler sends them home. Calls `joined` when all are part of the
/// cluster; returns the number of messages sent and received.
pub(super) async fn run(
    address: &str,
    workers: u32,
    slots: u32,
    joined: impl FnOnce() -> Result<(), BenchError>,
) -> Result<u64, BenchError> {
    let (failed, mut failures) = mpsc::channel(1);
    let start = Arc::new(Barrier::new(workers as usize + 1));
    let mut running = JoinSet::new();
    for number in 0..workers {
        let (address, start, failed) = (address.to_owned(), Arc::clone(&start), failed.clone());
        running.spawn(async move {
            let served = serve(&address, number, slots, &start).await;
            if let Err(error) = &served {
                // The first failure is enough.
                let _ = failed.try_send(error.to_string());
            }
            served
        });
    }
    tokio::select! {
        biased;
        Some(how) = failures.recv() => {
            return Err(BenchError::Part { what: "a worker", how: format!("could not join: {how}") });
        }
        _ = start.wait() => {}
    }
    joined()?;
    let mut messages = 0;
    while let Some(served) = running.join_next().await {
        messages += served.map_err(|error| BenchError::Part {
            what: "a worker",
            how: error.to_string(),
        })??;
    }
    Ok(messages)
}

async fn serve(address: &str, number: u32, slots: u32, start: &Barrier) -> Result<u64, BenchError> {
    let role = Role::Worker(hello(number, slots));
    let Connected {
        welcome,
        mut reader,
        mut writer,
    } = control::connect(address, role, PATIENCE, PATIENCE).await?;
    let Welcome::Worker { heartbeat_ms, .. } = welcome else {
        return Err(BenchError::Part {
            what: "the scheduler",
            how: "did not take a worker for one".to_owned(),
        });
    };
    start.wait().await;
    let mut heartbeat = interval(Duration::from_millis(u64::from(heartbeat_ms / 3).max(1)));
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    heartbeat.tick().await;
    let mut memory = Memory::default();
    let mut messages: Vec<SchedulerToWorker> = Vec::new();
    let mut answers = Vec::new();
    let mut count = 0;
    loop {
        tokio::select! {
            biased;
            read = reader.read_many(&mut messages) => read?,
            _ = heartbeat.tick() => {
                writer.push(&WorkerMessage::Heartbeat { load: WorkerLoad::default() })?;
                count += 1;
            }
        }
        for message in messages.drain(..) {
            if message == SchedulerToWorker::Shutdown {
                return Ok(count);
            }
            count += 1;
            memory.answer(&message, &mut answers);
            for answer in answers.drain(..) {
                writer.push(&answer)?;
                count += 1;
            }
        }
        writer.flush().await?;
    }
}

/// The worker with this number where ids are not given out by a scheduler process.
pub(super) fn id(number: u32) -> WorkerId {
    WorkerId(number)
}
