//! Partitions on their way between processes, and from processes to clients.

use super::{FetchAnswer, Happening, Life, Process, Reader, Simulation, Step};

impl Simulation {
    pub(super) fn on_fetch_arrives(&mut self, fetch: u64) {
        let Some(request) = self.world.fetches.get(&fetch).cloned() else {
            return;
        };
        let Some(holder) = self.processes.get(request.holder) else {
            return;
        };
        let answer = match holder.life {
            Life::Dead { silent: true, .. } => return,
            Life::Dead { silent: false, .. } => FetchAnswer::Failed("connection refused"),
            Life::Alive if self.world.are_apart(request.reader, request.holder) => {
                FetchAnswer::Failed("no route to host")
            }
            Life::Alive if self.world.mishap(self.world.scenario.fetch_fails_per_mille) => {
                FetchAnswer::Failed("connection reset")
            }
            Life::Alive => holder.serve(request.partition),
        };
        let transfer = match &answer {
            FetchAnswer::Arrived { bytes, .. } => {
                bytes * 1_000 / self.world.scenario.bytes_per_milli.max(1)
            }
            FetchAnswer::Gone | FetchAnswer::TimedOut | FetchAnswer::Failed(_) => 0,
        };
        let latency = self.world.peer_latency() + transfer;
        self.world.agenda.push(
            self.world.now.after_micros(latency),
            Happening::FetchEnds { fetch, answer },
        );
        if let Some(request) = self.world.fetches.get_mut(&fetch) {
            request.flows = true;
        }
    }

    pub(super) fn on_fetch_ends(&mut self, fetch: u64, mut answer: FetchAnswer) -> Step {
        let Some(request) = self.world.fetches.get(&fetch) else {
            return Ok(());
        };
        let (reader, holder) = (request.reader, request.holder);
        let is_timeout = answer == FetchAnswer::TimedOut;
        if is_timeout && request.flows && self.processes.get(holder).is_some_and(Process::is_alive)
        {
            // Timeouts are for silence, and this one is being answered.
            return Ok(());
        }
        let died = self.processes.get(holder).is_some_and(|it| !it.is_alive());
        if died && matches!(answer, FetchAnswer::Arrived { .. }) {
            answer = FetchAnswer::Failed("the connection broke in the middle");
        }
        match reader {
            Reader::Process(process) => self.with_process(process, |process, world| {
                process.fetch_ended(world, fetch, &answer)
            }),
            Reader::Client(client) => self.with_client(client, |client, world| {
                client.fetch_ended(world, fetch, &answer)
            }),
        }
    }
}
