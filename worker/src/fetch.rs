//! Inputs on their way to memory: which to ask for next, and what their arrival or failure means. Part of `machine`.

use std::ops::Bound::{Excluded, Unbounded};

use transload_protocol::{Demotion, Event, PartitionId, WorkerId};

use crate::Action;
use crate::index::Source;
use crate::machine::{Turn, Worker};
use crate::memory::Pressure;
use crate::spill::Room;
use crate::store::{Claim, State};
use crate::tasks::Place;

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
        let mut cursor = Some(head);
        while let Some(place) = cursor {
            while let Some((source, partition)) = self.next_wanted(place) {
                let Some(bytes) = self.store.get(partition).map(|record| record.bytes) else {
                    break;
                };
                if place == head && !is_unlimited {
                    match self.make_room(bytes, head, turn) {
                        Room::Free => {}
                        Room::Coming => return calm,
                        Room::None(cause) => return Pressure::Starved { head, cause },
                    }
                } else if place != head && !self.is_below_threshold_with(bytes) {
                    return calm;
                }
                self.request(source, partition, turn);
            }
            let usage = self.store.usage();
            if usage.fetches_in_flight >= self.limits.fetches
                && usage.disk_operations >= self.limits.disk_operations
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

    fn is_below_threshold_with(&self, bytes: u64) -> bool {
        self.store.usage().host_bytes.saturating_add(bytes) <= self.limits.spill_above_bytes
    }

    /// The next input to ask for: from disk if it is there, else from the peer that is asked least at the moment. Among
    /// equals each worker begins with its next higher neighbour, so that not all ask the same one first.
    fn next_wanted(&self, place: Place) -> Option<(Source, PartitionId)> {
        let progress = self.store.indexes().progress.get(&place)?;
        let usage = self.store.usage();
        let own = self.own_id().map_or(0, |worker| worker.0);
        progress
            .wanted
            .iter()
            .filter_map(|(source, partitions)| {
                let rank = match source {
                    Source::Disk if usage.disk_operations < self.limits.disk_operations => None,
                    Source::Peer(peer) if usage.fetches_in_flight < self.limits.fetches => {
                        let busy = usage.fetches.get(peer).copied().unwrap_or(0);
                        Some((busy, peer.0.wrapping_sub(own)))
                    }
                    Source::Disk | Source::Peer(_) => return None,
                };
                // What a task that runs here is about to make is not fetched beside it.
                let mut partitions = partitions.iter();
                let next = partitions.find(|next| !self.running.contains_key(&next.task))?;
                Some((rank, *source, *next))
            })
            .min()
            .map(|(_, source, partition)| (source, partition))
    }

    fn request(&mut self, source: Source, partition: PartitionId, turn: &mut Turn<'_>) {
        let Some(record) = self.store.get(partition) else {
            return;
        };
        // Making room may have taken the disk operation that this load was to have; it gets the next one.
        let is_disk_free = self.store.usage().disk_operations < self.limits.disk_operations;
        match (source, record.state) {
            (Source::Disk, State::Disk { file_bytes }) if is_disk_free => {
                self.store
                    .set_state(partition, State::Loading { file_bytes });
                turn.out.push(Action::Load { partition });
            }
            (Source::Peer(from), State::Absent { failed }) => {
                let bytes = record.bytes;
                self.store
                    .set_state(partition, State::Fetching { from, failed });
                turn.out.push(Action::Fetch {
                    partition,
                    from,
                    bytes,
                });
            }
            (Source::Disk | Source::Peer(_), _) => {}
        }
    }

    pub(crate) fn on_fetched(
        &mut self,
        partition: PartitionId,
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
                | State::Host { .. }
                | State::Spilling
                | State::Disk { .. }
                | State::Loading { .. },
            ) => return,
        }
        self.store.set_bytes(partition, bytes);
        self.store.set_state(partition, State::Host { pins: 0 });
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
        gone: bool,
        turn: &mut Turn<'_>,
    ) {
        let failed = match self.store.get(partition).map(|record| record.state) {
            Some(State::Fetching {
                from: asked,
                failed,
            }) if asked == from => failed + 1,
            _ => return,
        };
        if gone || failed >= self.limits.fetch_attempts || !self.peers.contains(&from) {
            // Whoever was told of another holder tries that one next.
            self.store.set_state(partition, State::Absent { failed: 0 });
            let readers = self.readers(&[partition], |holder| holder == from);
            self.give_back(readers, turn);
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
                State::Host { .. }
                | State::Spilling
                | State::Disk { .. }
                | State::Loading { .. } => record.claim == Claim::Released,
            })
            .map(|(partition, _)| partition)
            .collect();
        let readers = self.readers(&lost, |holder| holder == peer);
        self.give_back(readers, turn);
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
        if self
            .obstacle
            .as_ref()
            .is_some_and(|obstacle| obstacle.until <= turn.now)
        {
            self.obstacle = None;
        }
    }
}
