//! Fetches of a simulated worker, and its store as its peers and clients see it.

use transload_protocol::{Memory, PartitionId, Tier, WorkerId};
use transload_worker::{FetchFault, Input};

use super::{Process, SCHEME, Stored};
use crate::network::{FetchAnswer, Happening};
use crate::world::{Reader, Step, World};

/// A fetch in flight.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fetching {
    fetch: u64,
    /// As expected.
    pub(super) bytes: u64,
    /// Where to.
    pub(super) memory: Memory,
}

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
        for fetch in self.fetches() {
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

    /// The fetches of it that are under way.
    pub(super) fn fetches(&self) -> Vec<u64> {
        self.fetching.values().map(|it| it.fetch).collect()
    }

    /// That a partition is fetched to where it was made, except what had no room there, and what is handed on by an import.
    fn check_memory(&self, world: &World, partition: PartitionId, memory: Memory) -> Step {
        let graph = partition.task.graph;
        let maker = world.plans.get(&graph);
        let made_on_device = maker.is_some_and(|plan| plan.works_on_device(partition.task.index));
        let is_right = match (memory, made_on_device && self.config.gpu.is_some()) {
            (Memory::Device, on_device) => on_device,
            (Memory::Host, false) => true,
            (Memory::Host, true) => {
                let is_imported = || world.plans.values().any(|plan| plan.imports_from(graph));
                self.strays.contains(&partition) || is_imported()
            }
        };
        if is_right {
            Ok(())
        } else {
            Err(format!("fetches {partition} to {memory:?} memory"))
        }
    }

    pub(super) fn fetch(
        &mut self,
        world: &mut World,
        partition: PartitionId,
        from: WorkerId,
        (bytes, memory): (u64, Memory),
    ) -> Step {
        if self.store.contains_key(&partition) {
            return Err(format!("fetches {partition}, which it holds"));
        }
        if self.fetching.contains_key(&partition) {
            return Err(format!("fetches {partition} a second time"));
        }
        self.check_memory(world, partition, memory)?;
        self.check_room(partition, bytes, memory.tier())?;
        let Some(holder) = self.peers.get(&from).copied() else {
            return Err(format!(
                "fetches {partition} from worker {from}, which is no peer of it"
            ));
        };
        let fetch = world.send_fetch(Reader::Process(self.index), holder, from, partition);
        let fetching = Fetching {
            fetch,
            bytes,
            memory,
        };
        self.fetching.insert(partition, fetching);
        world.count("fetches");
        Ok(())
    }

    pub(super) fn cancel_fetch(&mut self, world: &mut World, partition: PartitionId) -> Step {
        let Some(Fetching { fetch, memory, .. }) = self.fetching.remove(&partition) else {
            return Err(format!(
                "cancels the fetch of {partition}, which is not under way"
            ));
        };
        // Some answers are too far on their way to be stopped.
        if world.random.chance(300)
            && let Some(late) = world.fetches.get_mut(&fetch)
        {
            late.cancelled = Some(memory);
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
        let memory = if let Some(memory) = ended.cancelled {
            if self.fetching.contains_key(&partition) || self.store.contains_key(&partition) {
                return Ok(());
            }
            memory
        } else {
            let asked = self.fetching.remove(&partition);
            asked.map_or(Memory::Host, |asked| asked.memory)
        };
        let from = ended.from;
        let input = match answer {
            FetchAnswer::Arrived { value, bytes } => {
                let tier = self.lands_in(world, memory, *bytes);
                let mut stored = Stored::new(*value, *bytes, tier);
                if tier == Tier::PinnedHost {
                    stored.read_in = Tier::Device;
                }
                if tier != memory.tier() {
                    world.count("fetches that strayed");
                }
                if tier == Tier::Host && memory == Memory::Device {
                    self.strays.insert(partition);
                }
                self.store.insert(partition, stored);
                Input::Fetched {
                    partition,
                    from,
                    bytes: *bytes,
                    micros: world.now.micros_since(ended.sent),
                    transport: SCHEME.to_owned(),
                    tier,
                }
            }
            FetchAnswer::Gone => Input::FetchFailed {
                partition,
                from,
                fault: FetchFault::Gone,
                reason: "not here".to_owned(),
            },
            FetchAnswer::TimedOut => Input::FetchFailed {
                partition,
                from,
                fault: FetchFault::Link,
                reason: "timed out".to_owned(),
            },
            FetchAnswer::Failed(reason) => Input::FetchFailed {
                partition,
                from,
                fault: FetchFault::Link,
                reason: (*reason).to_owned(),
            },
        };
        self.handle(world, input)
    }

    /// Where something arrives that was fetched to that memory. There may be no room on the device: it is larger than expected, or
    /// what is free is not in one piece.
    fn lands_in(&self, world: &mut World, memory: Memory, bytes: u64) -> Tier {
        if memory == Memory::Host {
            return Tier::Host;
        }
        let has_room = |tier| self.tier_bytes(tier) + bytes <= self.limit_of(tier);
        let strays = world.mishap(world.scenario.fetch_strays_per_mille);
        if has_room(Tier::Device) && !strays {
            Tier::Device
        } else if has_room(Tier::PinnedHost) && world.random.chance(700) {
            Tier::PinnedHost
        } else {
            Tier::Host
        }
    }
}
