//! Who goes first when several clients have ready tasks of the same priority: the one whose tasks occupy the fewest slots now, and
//! among those the one that has waited longest.
//!
//! Told by `transition` what is ready and what runs, asked by `place`. As long as one client alone has something to do, nothing here
//! is kept up to date, so that it costs that client nothing. Nobody saves up a claim: a client that had nothing to do gets its share from
//! then on, and no more.

use std::collections::{BTreeMap, BTreeSet};

use transload_protocol::{ClientId, Resources};

use crate::machine::Scheduler;
use crate::ready::{Rank, Urgency};
use crate::slab::{GraphSlot, ShareSlot, Slab};

/// One client's share.
#[derive(Debug)]
pub(crate) struct Share {
    pub(crate) client: ClientId,
    /// Its graphs that have a record, and those that its tasks wait for.
    graphs: u32,
    /// Those of them that have something to do.
    competing: u32,
    /// Slots that its tasks occupy, those that only queue at a worker included.
    used: u32,
    /// When it last got one, as a count of all that were given.
    served: u64,
    /// `used` and `served` under which it stands in `Shares::turns`.
    listed: (u32, u64),
    /// Its layers with ready tasks that prefer no worker, counted by priority.
    ready: BTreeMap<Urgency, u32>,
}

/// A claim to the next free slot: lower goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turn {
    urgency: Urgency,
    claim: (u32, u64),
    share: ShareSlot,
}

/// The shares of all clients that have or had graphs.
#[derive(Debug)]
pub(crate) struct Shares {
    pub(crate) slab: Slab<ShareSlot, Share>,
    by_client: BTreeMap<ClientId, ShareSlot>,
    /// Those with graphs that compete.
    sharing: u32,
    /// Those with ready tasks that prefer no worker, once for each priority. Where it is the only one, its claim may be old.
    turns: BTreeSet<Turn>,
    /// Counts what is given.
    given: u64,
    /// Counts tasks within an era; see [`Shares::next_in_era`].
    number: u16,
}

/// What a task counts as in its client's share.
fn slots_of(resources: &Resources) -> u32 {
    resources.slots.max(1)
}

impl Share {
    /// Slots that its tasks occupy, while it shares.
    pub(crate) fn used(&self) -> u32 {
        self.used
    }
}

impl Default for Shares {
    fn default() -> Self {
        Self {
            slab: Slab::new(),
            by_client: BTreeMap::new(),
            sharing: 0,
            turns: BTreeSet::new(),
            given: 0,
            number: 0,
        }
    }
}

impl Shares {
    /// Whether several clients have something to do.
    #[inline]
    pub(crate) fn are_contended(&self) -> bool {
        self.sharing > 1
    }

    /// Whose turn it is at which priority, first one first.
    pub(crate) fn turns(&self) -> impl Iterator<Item = (Urgency, ShareSlot)> {
        self.turns.iter().map(|turn| (turn.urgency, turn.share))
    }

    /// How good the claim of a layer's client is.
    pub(crate) fn turn_of(&self, rank: &Rank) -> Turn {
        let share = &self.slab[rank.share];
        Turn {
            urgency: rank.urgency,
            claim: (share.used, share.served),
            share: rank.share,
        }
    }

    /// Whether `rank` goes before `other`.
    pub(crate) fn goes_before(&self, rank: &Rank, other: &Rank) -> bool {
        if rank.share == other.share || rank.urgency != other.urgency {
            rank < other
        } else {
            self.turn_of(rank) < self.turn_of(other)
        }
    }

    /// A layer has got ready tasks that prefer no worker.
    #[inline]
    pub(crate) fn open(&mut self, rank: &Rank) {
        if self.are_contended() {
            self.open_now(rank);
        }
    }

    fn open_now(&mut self, rank: &Rank) {
        let layers = self.slab[rank.share].ready.entry(rank.urgency);
        let layers = layers.or_insert(0);
        *layers += 1;
        if *layers == 1 {
            if self.turns.len() == 1
                && let Some(alone) = self.turns.first().copied()
            {
                self.relist(alone.share);
            }
            // It may stand there at another priority.
            self.relist(rank.share);
            self.turns.insert(self.turn_of(rank));
        }
    }

    /// A layer has no more of them.
    #[inline]
    pub(crate) fn close(&mut self, rank: &Rank) {
        if self.are_contended() {
            self.close_now(rank);
        }
    }

    fn close_now(&mut self, rank: &Rank) {
        let share = &mut self.slab[rank.share];
        let Some(layers) = share.ready.get_mut(&rank.urgency) else {
            return;
        };
        *layers -= 1;
        if *layers == 0 {
            share.ready.remove(&rank.urgency);
            self.turns.remove(&Turn {
                urgency: rank.urgency,
                claim: share.listed,
                share: rank.share,
            });
        }
    }

    /// The number of the next task that is handed out, of which 0 begins a new era; `None` while nobody shares.
    pub(crate) fn next_in_era(&mut self) -> Option<u16> {
        if !self.are_contended() {
            return None;
        }
        self.number = self.number.wrapping_add(1);
        Some(self.number)
    }

    /// A task was handed out.
    #[inline]
    pub(crate) fn charge(&mut self, share: ShareSlot, resources: &Resources) {
        if self.are_contended() {
            self.charge_now(share, slots_of(resources));
        }
    }

    fn charge_now(&mut self, share: ShareSlot, slots: u32) {
        self.given += 1;
        let record = &mut self.slab[share];
        record.used += slots;
        record.served = self.given;
        self.relist_if_it_matters(share);
    }

    /// A task that was handed out occupies nothing any more.
    #[inline]
    pub(crate) fn refund(&mut self, share: ShareSlot, resources: &Resources) {
        if self.are_contended() {
            self.refund_now(share, slots_of(resources));
        }
    }

    fn refund_now(&mut self, share: ShareSlot, slots: u32) {
        let record = &mut self.slab[share];
        record.used = record.used.saturating_sub(slots);
        self.relist_if_it_matters(share);
    }

    /// One client is left with something to do: nothing is counted any more.
    fn end_sharing(&mut self) {
        self.turns.clear();
        for (_, share) in self.slab.iter_mut() {
            share.ready.clear();
            (share.used, share.served, share.listed) = (0, 0, (0, 0));
        }
    }

    fn relist_if_it_matters(&mut self, share: ShareSlot) {
        if self.turns.len() > 1 {
            self.relist(share);
        }
    }

    fn relist(&mut self, slot: ShareSlot) {
        let share = &mut self.slab[slot];
        let claim = (share.used, share.served);
        let old = std::mem::replace(&mut share.listed, claim);
        if old == claim {
            return;
        }
        for urgency in share.ready.keys().copied() {
            let turn = |claim| Turn {
                urgency,
                claim,
                share: slot,
            };
            if self.turns.remove(&turn(old)) {
                self.turns.insert(turn(claim));
            }
        }
    }
}

impl Scheduler {
    /// The share of a client that has one more graph.
    pub(crate) fn join_share(&mut self, client: ClientId) -> ShareSlot {
        let shares = &mut self.ready.shares;
        let slot = *shares.by_client.entry(client).or_insert_with(|| {
            shares.slab.insert(Share {
                client,
                graphs: 0,
                competing: 0,
                used: 0,
                served: 0,
                listed: (0, 0),
                ready: BTreeMap::new(),
            })
        });
        shares.slab[slot].graphs += 1;
        slot
    }

    /// A graph is forgotten.
    pub(crate) fn leave_share(&mut self, slot: ShareSlot) {
        let share = &mut self.ready.shares.slab[slot];
        share.graphs -= 1;
        let client = share.client;
        if share.graphs == 0 && !self.clients.contains_key(&client) {
            self.end_share(client);
        }
    }

    /// A graph has something to do.
    pub(crate) fn compete(&mut self, slot: GraphSlot) {
        let graph = &mut self.graphs.slab[slot];
        if std::mem::replace(&mut graph.competes, true) {
            return;
        }
        let shares = &mut self.ready.shares;
        let share = &mut shares.slab[graph.line.share];
        share.competing += 1;
        if share.competing == 1 {
            shares.sharing += 1;
            if shares.sharing == 2 {
                self.begin_sharing();
            }
        }
    }

    /// A graph has nothing more to do, for all we know.
    pub(crate) fn stop_competing(&mut self, slot: GraphSlot) {
        let graph = &mut self.graphs.slab[slot];
        if !std::mem::replace(&mut graph.competes, false) {
            return;
        }
        let shares = &mut self.ready.shares;
        let share = &mut shares.slab[graph.line.share];
        share.competing -= 1;
        if share.competing == 0 {
            shares.sharing -= 1;
            if shares.sharing == 1 {
                shares.end_sharing();
            }
        }
    }

    /// A client is gone. What tasks of its graphs have submitted may take a moment longer.
    pub(crate) fn end_share(&mut self, client: ClientId) {
        let shares = &mut self.ready.shares;
        if let Some(slot) = shares.by_client.get(&client).copied()
            && shares.slab[slot].graphs == 0
        {
            shares.by_client.remove(&client);
            shares.slab.remove(slot);
        }
    }

    /// There is a second client with something to do: from now on it is counted who has what.
    fn begin_sharing(&mut self) {
        for (slot, used) in self.used_by_shares() {
            self.ready.shares.slab[slot].used = used;
        }
        for rank in &self.ready.layers {
            self.ready.shares.open(rank);
        }
    }

    /// Slots that the tasks of each share occupy, from scratch.
    fn used_by_shares(&self) -> BTreeMap<ShareSlot, u32> {
        let mut used = BTreeMap::new();
        for (_, worker) in self.workers.slab.iter() {
            for at in &worker.assigned {
                if !worker.seceded.contains(at) {
                    let layer = self.graphs.slab[at.graph].layer_of(at.index);
                    *used.entry(layer.rank.share).or_insert(0) += slots_of(&layer.resources);
                }
            }
        }
        used
    }

    /// Every share is that of a client with graphs, and counts what there is.
    pub(crate) fn check_shares(&self) -> Result<(), String> {
        let shares = &self.ready.shares;
        let mut graphs: BTreeMap<ShareSlot, (u32, u32)> = BTreeMap::new();
        for (_, graph) in self.graphs.slab.iter() {
            let (all, competing) = graphs.entry(graph.line.share).or_default();
            *all += 1;
            *competing += u32::from(graph.competes);
            if graph.goals_left > 0 && !graph.competes {
                return Err(format!("graph {} does not compete", graph.id));
            }
        }
        let mut ready: BTreeMap<ShareSlot, BTreeMap<Urgency, u32>> = BTreeMap::new();
        for rank in &self.ready.layers {
            let of_share = ready.entry(rank.share).or_default();
            *of_share.entry(rank.urgency).or_default() += 1;
        }
        let used = self.used_by_shares();
        let is_kept = shares.are_contended();
        let mut turns = BTreeSet::new();
        let mut sharing = 0;
        for (slot, share) in shares.slab.iter() {
            let of_graphs = (share.graphs, share.competing);
            let counted = (of_graphs, share.used, share.ready.clone());
            let should = (
                graphs.remove(&slot).unwrap_or_default(),
                used.get(&slot).copied().filter(|_| is_kept).unwrap_or(0),
                ready.remove(&slot).filter(|_| is_kept).unwrap_or_default(),
            );
            if counted != should {
                return Err(format!("a share counts {counted:?}, not {should:?}"));
            }
            let is_old = shares.turns.len() > 1 && share.listed != (share.used, share.served);
            if is_old && !share.ready.is_empty() {
                return Err(format!(
                    "a share stands in line with an old claim: {share:?}"
                ));
            }
            if share.graphs == 0 && !self.clients.contains_key(&share.client) {
                return Err("a share outlives its client".to_owned());
            }
            sharing += u32::from(share.competing > 0);
            turns.extend(share.ready.keys().map(|urgency| Turn {
                urgency: *urgency,
                claim: share.listed,
                share: slot,
            }));
        }
        let is_found =
            |(slot, share): (ShareSlot, &Share)| shares.by_client.get(&share.client) == Some(&slot);
        if !graphs.is_empty()
            || shares.sharing != sharing
            || shares.slab.len() != shares.by_client.len()
            || !shares.slab.iter().all(is_found)
        {
            return Err("shares, their clients and their graphs do not agree".to_owned());
        }
        if turns != shares.turns {
            return Err(format!(
                "it is the turn of {:?}, not {turns:?}",
                shares.turns
            ));
        }
        Ok(())
    }
}
