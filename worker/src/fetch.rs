//! Inputs on their way to memory: which to ask for next, and what their arrival or failure means. Part of `machine`.

use std::ops::Bound::{Excluded, Unbounded};

use transload_protocol::{Demotion, Event, Memory, MissingCause, PartitionId, Tier, WorkerId};

use crate::index::Source;
use crate::machine::{Turn, Worker};
use crate::memory::Pressure;
use crate::spill::Room;
use crate::store::{Claim, State};
use crate::tasks::{Help, Place};
use crate::{Action, FetchFault};

/// A fetch that failed is tried again after this time, which doubles with every failure.
const FETCH_RETRY_MICROS: u64 = 20_000;

impl Worker {
    /// Asks for inputs of queued tasks, in order of the queue, as far as limits allow. Only the task at the head may use
    /// memory up to the limit and have others' inputs evicted; those behind it prefetch below the spill threshold.
    pub(crate) fn request_inputs(&mut self, turn: &mut Turn<'_>) -> Pressure {
        let Some(head) = self.head() else {
            return Pressure::Calm;
        };
        let overcommitted = Pressure::Overcommitted { head };
        // A task that came in between and runs now has to end first.
        let is_unlimited = self.pressure == overcommitted && !self.is_working();
        let calm = if is_unlimited {
            overcommitted
        } else {
            Pressure::Calm
        };
        let is_given_up = self.is_device_given_up();
        let mut cursor = Some(head);
        while let Some(place) = cursor {
            // A device that is being emptied for a task is not filled meanwhile.
            let is_device_closed = is_given_up || place != head && self.helped > 0;
            'wanted: while let Some((source, partition)) = self.next_wanted(place) {
                let Some(record) = self.store.get(partition) else {
                    break;
                };
                let tiers = source.leads_through(record, self.has_direct_storage);
                let bytes = record.bytes;
                for tier in tiers.into_iter().flatten() {
                    if tier == Tier::Device && is_device_closed {
                        // Those behind it may want nothing of the device.
                        break 'wanted;
                    }
                    if place != head {
                        if !self.is_below_threshold_with(bytes, tier) {
                            return calm;
                        }
                    } else if !(is_unlimited && tier == Tier::Host) {
                        match self.make_room(bytes, tier, Some(head), turn) {
                            Room::Free => {}
                            Room::Coming => return calm,
                            Room::None(cause) => return Pressure::Starved { head, tier, cause },
                        }
                    }
                }
                self.request(source, partition, turn);
            }
            let usage = self.store.usage();
            if usage.fetches_in_flight >= self.limits.fetches
                && usage.disk_operations >= self.limits.disk_operations
                && (self.config.gpu.is_none() || usage.copies >= self.limits.copies)
            {
                break;
            }
            // Tasks whose inputs are all here want nothing.
            let incomplete = &self.store.indexes().progress;
            let mut behind = incomplete.range((Excluded(place), Unbounded));
            cursor = behind.next().map(|(place, _)| *place);
        }
        calm
    }

    /// A device was emptied for a task that runs now: nothing is brought there before it has ended, or waits without its slot.
    fn is_device_given_up(&self) -> bool {
        let mut running = self.running.values();
        self.config.gpu.is_some()
            && running.any(|running| running.help > Help::None && running.is_working())
    }

    fn is_below_threshold_with(&self, bytes: u64, tier: Tier) -> bool {
        let used = self.store.usage().tiers[tier].bytes;
        used.saturating_add(bytes) <= self.limits.tiers[tier].spill_above_bytes
    }

    /// The next input to ask for: from page-locked memory if it is there, which makes room for what is on disk; then from disk; else
    /// from the peer that is asked least at the moment. Among equals each worker begins with its next higher neighbour, so that not
    /// all ask the same one first.
    fn next_wanted(&self, place: Place) -> Option<(Source, PartitionId)> {
        let progress = self.store.indexes().progress.get(&place)?;
        let usage = self.store.usage();
        let own = self.own_id().map_or(0, |worker| worker.0);
        progress
            .wanted
            .iter()
            .filter_map(|(source, partitions)| {
                let rank = match source {
                    Source::Pinned if self.may_rise() => None,
                    Source::Disk if usage.disk_operations < self.limits.disk_operations => None,
                    Source::Peer(peer) if usage.fetches_in_flight < self.limits.fetches => {
                        let busy = usage.fetches.get(peer).copied().unwrap_or(0);
                        Some((busy, peer.0.wrapping_sub(own)))
                    }
                    Source::Pinned | Source::Disk | Source::Peer(_) => return None,
                };
                // What a task that runs here is about to make is not fetched beside it.
                let mut partitions = partitions.iter();
                let next = partitions.find(|next| {
                    let is_paused = *source == Source::Disk && self.is_paused(**next);
                    !is_paused && !self.running.contains_key(&next.task)
                })?;
                Some((rank, *source, *next))
            })
            .min()
            .map(|(_, source, partition)| (source, partition))
    }

    fn request(&mut self, source: Source, partition: PartitionId, turn: &mut Turn<'_>) {
        let Some(record) = self.store.get(partition) else {
            return;
        };
        // Making room may have taken the operation that this load was to have; it gets the next one.
        let is_disk_free = self.store.usage().disk_operations < self.limits.disk_operations;
        match (source, record.state) {
            (Source::Disk, State::Disk { file_bytes }) if is_disk_free => {
                let to = record.above_disk(self.has_direct_storage);
                self.store
                    .set_state(partition, State::Loading { file_bytes, to });
                self.moving.insert(partition, turn.now);
                turn.out.push(Action::Load { partition, to });
            }
            (Source::Pinned, State::Pinned) if self.may_rise() => {
                self.store.set_state(partition, State::Rising);
                let to = Tier::Device;
                self.moving.insert(partition, turn.now);
                turn.out.push(Action::Load { partition, to });
            }
            (Source::Peer(from), State::Absent { failed }) => {
                let (bytes, memory) = (record.bytes, record.memory);
                self.store
                    .set_state(partition, State::Fetching { from, failed });
                turn.out.push(Action::Fetch {
                    partition,
                    from,
                    bytes,
                    memory,
                });
            }
            (Source::Pinned | Source::Disk | Source::Peer(_), _) => {}
        }
    }

    pub(crate) fn on_fetched(
        &mut self,
        (partition, tier): (PartitionId, Tier),
        from: WorkerId,
        bytes: u64,
        (micros, transport): (u64, String),
        turn: &mut Turn<'_>,
    ) {
        match self.store.get(partition).map(|record| record.state) {
            Some(State::Fetching { from: asked, .. }) if asked == from => {}
            // Late, and the driver has put it into its store.
            None | Some(State::Absent { .. } | State::Paused { .. }) => {
                turn.out.push(Action::Drop { partition });
                return;
            }
            // Late, and the same partition is here or comes from elsewhere.
            Some(
                State::Fetching { .. }
                | State::Ready { .. }
                | State::Spilling { .. }
                | State::Pinned
                | State::Sinking
                | State::Disk { .. }
                | State::Loading { .. }
                | State::Rising,
            ) => return,
        }
        self.store.set_bytes(partition, bytes);
        match tier {
            Tier::PinnedHost => self.store.set_state(partition, State::Pinned),
            Tier::Device | Tier::Host | Tier::Disk => {
                if tier == Tier::Host {
                    self.store.set_memory(partition, Memory::Host);
                }
                self.store.set_state(partition, State::Ready { pins: 0 });
            }
        }
        if let Some(to) = self.own_id() {
            let event = Event::PartitionFetched {
                partition,
                from,
                to,
                bytes,
                transport,
                micros,
            };
            self.note(event, turn);
        }
        self.settle(partition, turn);
    }

    pub(crate) fn on_link_demoted(
        &mut self,
        from: WorkerId,
        demotion: Demotion,
        used: String,
        turn: &mut Turn<'_>,
    ) {
        if let Some(to) = self.own_id() {
            let event = Event::LinkDemoted {
                from,
                to,
                demotion,
                used,
            };
            self.note(event, turn);
        }
    }

    pub(crate) fn on_fetch_failed(
        &mut self,
        partition: PartitionId,
        from: WorkerId,
        (fault, reason): (FetchFault, String),
        turn: &mut Turn<'_>,
    ) {
        let failed = match self.store.get(partition).map(|record| record.state) {
            Some(State::Fetching {
                from: asked,
                failed,
            }) if asked == from => failed + 1,
            _ => return,
        };
        let is_gone = fault == FetchFault::Gone || !self.peers.contains(&from);
        if is_gone || failed >= self.limits.fetch_attempts {
            // Whoever was told of another holder tries that one next.
            self.store.set_state(partition, State::Absent { failed: 0 });
            let readers = self.readers(&[partition], |holder| holder == from);
            let cause = match fault {
                _ if is_gone => MissingCause::Gone,
                FetchFault::Link => MissingCause::Unreached { reason },
                FetchFault::Gone | FetchFault::Other => MissingCause::Failed { reason },
            };
            self.give_back(readers, &cause, turn);
        } else {
            let delay = FETCH_RETRY_MICROS << failed.min(10);
            let until = turn.now.after_micros(delay);
            self.store
                .set_state(partition, State::Paused { failed, until });
        }
        self.give_back_unreachable(&[partition], turn);
        self.settle(partition, turn);
    }

    /// Fetches from a lost peer have failed as far as tasks are concerned; the driver's answers follow.
    pub(crate) fn on_peer_lost(&mut self, peer: WorkerId, turn: &mut Turn<'_>) {
        if !self.peers.remove(&peer) {
            return;
        }
        turn.out.push(Action::RemovePeer { worker: peer });
        let lost: Vec<_> = self
            .store
            .iter()
            .filter(|(_, record)| match record.state {
                State::Absent { .. } | State::Paused { .. } => true,
                State::Fetching { from, .. } => from == peer,
                State::Ready { .. }
                | State::Spilling { .. }
                | State::Pinned
                | State::Sinking
                | State::Disk { .. }
                | State::Loading { .. }
                | State::Rising => record.claim == Claim::Released,
            })
            .map(|(partition, _)| partition)
            .collect();
        let readers = self.readers(&lost, |holder| holder == peer);
        self.give_back(readers, &MissingCause::Gone, turn);
    }

    /// Ends pauses whose time is over.
    pub(crate) fn wake(&mut self, turn: &mut Turn<'_>) {
        while let Some((until, partition)) = self.store.indexes().retries.first().copied() {
            if until > turn.now {
                break;
            }
            let Some(State::Paused { failed, .. }) =
                self.store.get(partition).map(|record| record.state)
            else {
                break;
            };
            self.store.set_state(partition, State::Absent { failed });
        }
        for obstacle in [&mut self.obstacle, &mut self.lock_obstacle] {
            obstacle.take_if(|obstacle| obstacle.until <= turn.now);
        }
        self.rise.until.take_if(|until| *until <= turn.now);
    }
}
