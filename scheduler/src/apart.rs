//! Workers that cannot fetch from each other, and which of them stand aside meanwhile.
//!
//! Told by `attempts`; asked by `place` and `gang`. As long as both ends of a broken link work, each makes what the other cannot read, and
//! tasks that read from both are tried in vain wherever one of the two gets them. So of each broken link one end gets nothing that
//! others can take, until the link may be tried again. The fewer stand aside, the better.

use std::collections::{BTreeMap, BTreeSet};

use transload_protocol::{Event, Time, WorkerId, words};

use crate::api::Action;
use crate::graph::LayerRecord;
use crate::machine::Scheduler;
use crate::slab::WorkerSlot;
use crate::timers::Timers;

/// A link that broke is not relied on for so long, in microseconds. Twice as long each time it turns out to be broken still.
const FIRST_PAUSE_MICROS: u64 = 15_000_000;
/// But no longer than this.
const LONGEST_PAUSE_MICROS: u64 = 960_000_000;
/// Of more links nothing is remembered: the tasks that they fail are tried elsewhere all the same.
const MOST_LINKS: usize = 256;

/// Both ends of a link, the smaller slot first.
type Ends = (WorkerSlot, WorkerSlot);

fn ends(one: WorkerSlot, other: WorkerSlot) -> Ends {
    (one.min(other), one.max(other))
}

/// Broken links between workers.
#[derive(Debug, Default)]
pub(crate) struct Apart {
    /// Until when they are not relied on.
    broken: Timers<Ends>,
    /// For how long they were not last, in microseconds; of all that have broken and over which nothing has come since.
    pauses: BTreeMap<Ends, u64>,
    /// Each broken link has one of these at an end.
    aside: BTreeSet<WorkerSlot>,
    /// The count of assignments when these last changed.
    pub(crate) known_since: Option<u32>,
}

impl Apart {
    /// Whether the worker gets nothing that another can take.
    #[inline]
    pub(crate) fn stands_aside(&self, worker: WorkerSlot) -> bool {
        !self.aside.is_empty() && self.aside.contains(&worker)
    }

    pub(crate) fn aside(&self) -> impl Iterator<Item = WorkerSlot> {
        self.aside.iter().copied()
    }

    /// Those to whom a worker's link is broken, and until when.
    pub(crate) fn from(&self, worker: WorkerSlot) -> impl Iterator<Item = (WorkerSlot, Time)> {
        self.broken.iter().filter_map(move |ends| {
            let other = match ends {
                (one, other) if one == worker => other,
                (one, other) if other == worker => one,
                _ => return None,
            };
            Some((other, self.broken.until(ends)?))
        })
    }

    /// Nothing comes over a link. For how long it is not relied on, in microseconds; `None` if one of its ends stands aside
    /// already.
    fn break_link(&mut self, ends: Ends, now: Time) -> Option<u64> {
        let is_covered = self.stands_aside(ends.0) || self.stands_aside(ends.1);
        if is_covered || self.pauses.len() >= MOST_LINKS && !self.pauses.contains_key(&ends) {
            return None;
        }
        let pause = self.pauses.entry(ends);
        let pause = pause
            .and_modify(|pause| *pause = (*pause * 2).min(LONGEST_PAUSE_MICROS))
            .or_insert(FIRST_PAUSE_MICROS);
        self.broken.begin(ends, now.after_micros(*pause));
        Some(*pause)
    }

    /// Something has come over a link. It may have left before the link broke.
    fn on_fetched(&mut self, ends: Ends) {
        if self.broken.until(ends).is_none() {
            self.pauses.remove(&ends);
        }
    }

    fn forget(&mut self, worker: WorkerSlot) {
        let is_its = |ends: &Ends| ends.0 == worker || ends.1 == worker;
        let of_it: Vec<Ends> = self.broken.iter().filter(is_its).collect();
        for ends in of_it {
            self.broken.end(ends);
        }
        self.pauses.retain(|ends, _| !is_its(ends));
    }

    /// Who is to stand aside: again and again the end of most of the links that are left, and of those that broke before.
    fn choose(&self) -> BTreeSet<WorkerSlot> {
        let mut known: BTreeMap<WorkerSlot, usize> = BTreeMap::new();
        for (one, other) in self.pauses.keys() {
            *known.entry(*one).or_default() += 1;
            *known.entry(*other).or_default() += 1;
        }
        let known = |worker: WorkerSlot| known.get(&worker).copied().unwrap_or(0);
        let mut left: Vec<Ends> = self.broken.iter().collect();
        let mut aside = BTreeSet::new();
        loop {
            let mut links: BTreeMap<WorkerSlot, usize> = BTreeMap::new();
            for (one, other) in &left {
                *links.entry(*one).or_default() += 1;
                *links.entry(*other).or_default() += 1;
            }
            let worst = links.into_iter().map(|(it, links)| (links, known(it), it));
            let Some((_, _, worst)) = worst.max() else {
                return aside;
            };
            left.retain(|(one, other)| *one != worst && *other != worst);
            aside.insert(worst);
        }
    }
}

impl Scheduler {
    /// A worker could not fetch from another that is a member still.
    pub(crate) fn on_unreached(
        &mut self,
        reader: WorkerSlot,
        holder: WorkerSlot,
        reason: &str,
        out: &mut Vec<Action>,
    ) {
        if reader == holder {
            return;
        }
        let Some(pause) = self.apart.break_link(ends(reader, holder), self.now) else {
            return;
        };
        self.set_aside();
        let both = [reader, holder].into_iter();
        let aside = both.filter(|worker| self.apart.stands_aside(*worker));
        let id = |worker: WorkerSlot| self.workers.slab[worker].id;
        let event = Event::WorkersApart {
            reader: id(reader),
            holder: id(holder),
            reason: reason.to_owned(),
            aside: aside.map(id).collect(),
            pause_ms: pause / 1_000,
        };
        self.emit(event, out);
    }

    /// A partition has come from one worker to another.
    pub(crate) fn on_reached(&mut self, (from, to): (WorkerId, WorkerId)) {
        if self.apart.pauses.is_empty() {
            return;
        }
        let slot = |id: WorkerId| self.workers.by_id.get(&id).copied();
        if let (Some(from), Some(to)) = (slot(from), slot(to)) {
            self.apart.on_fetched(ends(from, to));
        }
    }

    /// Links that may be tried again are.
    pub(crate) fn end_breaks(&mut self) {
        let mut any = false;
        while self.apart.broken.pop_due(self.now).is_some() {
            any = true;
        }
        if any {
            self.set_aside();
        }
    }

    /// The worker is gone, and its links with it.
    pub(crate) fn forget_links_of(&mut self, worker: WorkerSlot) {
        self.apart.forget(worker);
        self.set_aside();
    }

    fn set_aside(&mut self) {
        let before = std::mem::take(&mut self.apart.aside);
        self.apart.aside = self.apart.choose();
        if before != self.apart.aside {
            self.apart.known_since = Some(self.assignments);
        }
        for worker in before.difference(&self.apart.aside) {
            self.workers.change(*worker);
        }
    }

    pub(crate) fn next_link_due(&self) -> Option<Time> {
        self.apart.broken.next_due()
    }

    /// Whether the worker stands aside, and another that does not could run tasks of this layer.
    pub(crate) fn stands_aside_for(&self, layer: &LayerRecord, worker: WorkerSlot) -> bool {
        self.apart.stands_aside(worker)
            && (self.workers).any_covers(layer, |it| !self.apart.stands_aside(it))
    }

    /// Which workers stand aside, and why, in words.
    pub(crate) fn explain_aside(&self) -> impl Iterator<Item = String> {
        self.apart.aside().map(|worker| {
            let (others, until): (Vec<String>, Vec<Time>) = (self.apart.from(worker))
                .map(|(other, until)| (self.worker_name(other), until))
                .unzip();
            let until = until.into_iter().max().unwrap_or(self.now);
            format!(
                "{} gets nothing that others can take, for {}: fetching between it and {} failed",
                self.worker_name(worker),
                words::duration(until.micros_since(self.now)),
                others.join(", ")
            )
        })
    }

    /// For the check: each broken link is between members, and nobody stands aside without one.
    pub(crate) fn check_links(&self) -> Result<(), String> {
        let is_here = |worker: &WorkerSlot| self.workers.slab.get(*worker).is_some();
        let are_sound = self.apart.broken.are_consistent()
            && (self.apart.pauses.keys()).all(|(one, other)| is_here(one) && is_here(other))
            && (self.apart.broken.iter()).all(|ends| self.apart.pauses.contains_key(&ends))
            && self.apart.pauses.len() <= MOST_LINKS
            && self.apart.aside == self.apart.choose();
        if are_sound {
            Ok(())
        } else {
            Err(format!("broken links make no sense: {:?}", self.apart))
        }
    }
}
