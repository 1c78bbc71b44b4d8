//! A scheduler process measured from outside, with real control connections: this process is its only client, and a third process
//! holds all the instant workers.

use std::time::{Duration, Instant};

use transload_protocol::{
    ClientHello, ClientMessage, GraphId, GraphOutcome, Role, SchedulerToClient, Welcome,
};

use super::part::{Joined, Listening, Part, Playing, Served};
use super::usage::{open_files_limit, peak_resident_bytes, process_cpu_nanos, resident_bytes};
use super::{BenchError, Measured, Program, SchedulerBench, edge_count};
use crate::control::{self, Connected};

const PATIENCE: Duration = Duration::from_secs(60);
/// Clients, and a few connections to spare.
const FURTHER_CONNECTIONS: u32 = 16;
/// Files that a process has open besides its connections to workers, generously.
const FURTHER_FILES: u64 = 64;

/// Measures once.
pub(super) async fn measure(
    bench: SchedulerBench,
    program: &Program,
) -> Result<Measured, BenchError> {
    let files = open_files_limit()?;
    if files < u64::from(bench.workers) + FURTHER_FILES {
        return Err(BenchError::TooManyWorkers {
            workers: bench.workers,
            files,
        });
    }
    let connections = bench.workers.saturating_add(FURTHER_CONNECTIONS);
    let mut scheduler = Playing::start(program, &Part::Scheduler { connections })?;
    let Listening { address } = scheduler.next().await?;
    let part = Part::Workers {
        address: address.clone(),
        workers: bench.workers,
        slots: bench.slots,
    };
    let mut workers = Playing::start(program, &part)?;
    let Joined { .. } = workers.next().await?;
    let mut client = Client::connect(&address).await?;

    let graph = bench.graph.graph(bench.tasks, bench.seed);
    let tasks: u32 = graph.layers.iter().map(|layer| layer.tasks).sum();
    let edges = edge_count(&graph);
    let pid = scheduler.child.id().unwrap_or_default();
    let bytes_before = resident_bytes(&pid.to_string())?;
    let cpu_before = process_cpu_nanos(pid)?;
    let started = Instant::now();
    tokio::select! {
        ended = client.run(graph) => ended?,
        // Without workers the graph would wait for ever.
        early = workers.next::<Served>() => {
            return Err(early.err().unwrap_or(BenchError::Ended(None)));
        }
    }
    let wall_s = started.elapsed().as_secs_f64();
    let cpu_nanos = process_cpu_nanos(pid)?.saturating_sub(cpu_before);
    let bytes = peak_resident_bytes(&pid.to_string())?.saturating_sub(bytes_before);

    client.send(&ClientMessage::Shutdown).await?;
    let served: Served = workers.next().await?;
    let messages = served.messages + client.messages;
    Ok(Measured::new(
        bench, tasks, edges, wall_s, cpu_nanos, bytes, messages,
    ))
}

/// A client that does nothing with what it is told but count it.
struct Client {
    connection: Connected,
    messages: u64,
}

impl Client {
    async fn connect(address: &str) -> Result<Self, BenchError> {
        let role = Role::Client(ClientHello {
            name: "bench".to_owned(),
        });
        Ok(Self {
            connection: control::connect(address, role, PATIENCE, PATIENCE).await?,
            messages: 0,
        })
    }

    async fn send(&mut self, message: &ClientMessage) -> Result<(), BenchError> {
        self.connection.writer.push(message)?;
        self.connection.writer.flush().await?;
        Ok(())
    }

    /// Submits a graph and waits for its end.
    async fn run(&mut self, tasks: transload_protocol::TaskGraph) -> Result<(), BenchError> {
        let Welcome::Client { client, .. } = self.connection.welcome else {
            return Err(BenchError::Ended(None));
        };
        let graph = GraphId {
            client,
            sequence: 0,
        };
        self.send(&ClientMessage::Submit { graph, tasks }).await?;
        self.messages += 1;
        let mut heard: Vec<SchedulerToClient> = Vec::new();
        loop {
            self.connection.reader.read_many(&mut heard).await?;
            for message in heard.drain(..) {
                self.messages += 1;
                if let SchedulerToClient::Rejected { error, .. } = message {
                    return Err(error.into());
                }
                if let SchedulerToClient::Ended { outcome, .. } = message {
                    return match outcome {
                        GraphOutcome::Finished => Ok(()),
                        GraphOutcome::Failed(_)
                        | GraphOutcome::Cancelled
                        | GraphOutcome::TimedOut { .. } => {
                            Err(BenchError::Ended(Some(outcome.into())))
                        }
                    };
                }
            }
        }
    }
}
