//! Fetches of a simulated worker, and its store as its peers and clients see it.

use transload_protocol::{PartitionId, Tier, WorkerId};
use transload_worker::Input;

use super::{Process, SCHEME, Stored};
use crate::network::{FetchAnswer, Happening};
use crate::world::{Reader, Step, World};

impl Process {
    /// What a peer or client that asks for a partition is answered.
    pub(crate) fn serve(&self, partition: PartitionId) -> FetchAnswer {
        match self.store.get(&partition) {
            Some(stored) if stored.corrupt => FetchAnswer::Failed("cannot be read"),
            Some(stored) => FetchAnswer::Arrived {
                value: stored.value,
                bytes: stored.bytes,
            },
            None => FetchAnswer::Gone,
        }
    }

    pub(super) fn remove_peer(&mut self, world: &mut World, worker: WorkerId) {
        let Some(gone) = self.peers.remove(&worker) else {
            return;
        };
        for fetch in self.fetching.values().map(|(fetch, _)| *fetch) {
            if world
                .fetches
                .get(&fetch)
                .is_some_and(|it| it.holder == gone)
            {
                let answer = FetchAnswer::Failed("the peer was removed");
                world.soon(1_000, Happening::FetchEnds { fetch, answer });
            }
        }
    }

    pub(super) fn fetch(
        &mut self,
        world: &mut World,
        partition: PartitionId,
        from: WorkerId,
        bytes: u64,
    ) -> Step {
        if self.store.contains_key(&partition) {
            return Err(format!("fetches {partition}, which it holds"));
        }
        if self.fetching.contains_key(&partition) {
            return Err(format!("fetches {partition} a second time"));
        }
        self.check_room(partition, bytes)?;
        let Some(holder) = self.peers.get(&from).copied() else {
            return Err(format!(
                "fetches {partition} from worker {from}, which is no peer of it"
            ));
        };
        let fetch = world.send_fetch(Reader::Process(self.index), holder, from, partition);
        self.fetching.insert(partition, (fetch, bytes));
        world.count("fetches");
        Ok(())
    }

    pub(super) fn cancel_fetch(&mut self, world: &mut World, partition: PartitionId) -> Step {
        let Some((fetch, _)) = self.fetching.remove(&partition) else {
            return Err(format!(
                "cancels the fetch of {partition}, which is not under way"
            ));
        };
        // Some answers are too far on their way to be stopped.
        if world.random.chance(300)
            && let Some(late) = world.fetches.get_mut(&fetch)
        {
            late.cancelled = true;
        } else {
            world.end_fetch(fetch);
        }
        world.count("fetches cancelled");
        Ok(())
    }

    /// The answer to a fetch is here.
    pub(crate) fn fetch_ended(
        &mut self,
        world: &mut World,
        fetch: u64,
        answer: &FetchAnswer,
    ) -> Step {
        let Some(ended) = world.end_fetch(fetch) else {
            return Ok(());
        };
        let partition = ended.partition;
        if ended.cancelled {
            if self.fetching.contains_key(&partition) || self.store.contains_key(&partition) {
                return Ok(());
            }
        } else {
            self.fetching.remove(&partition);
        }
        let from = ended.from;
        let input = match answer {
            FetchAnswer::Arrived { value, bytes } => {
                let stored = Stored {
                    value: *value,
                    bytes: *bytes,
                    on_disk: false,
                    operation: None,
                    corrupt: false,
                };
                self.store.insert(partition, stored);
                Input::Fetched {
                    partition,
                    from,
                    bytes: *bytes,
                    micros: world.now.micros_since(ended.sent),
                    transport: SCHEME.to_owned(),
                    tier: Tier::Host,
                }
            }
            FetchAnswer::Gone => Input::FetchFailed {
                partition,
                from,
                gone: true,
                reason: "not here".to_owned(),
            },
            FetchAnswer::TimedOut => Input::FetchFailed {
                partition,
                from,
                gone: false,
                reason: "timed out".to_owned(),
            },
            FetchAnswer::Failed(reason) => Input::FetchFailed {
                partition,
                from,
                gone: false,
                reason: (*reason).to_owned(),
            },
        };
        self.handle(world, input)
    }
}
