//! Workers that cannot fetch from each other, and which of them stand aside meanwhile.
//!
//! Told by `attempts`; asked by `place` and `gang`. As long as both ends of a broken link work, each makes what the other cannot read, and
//! tasks that read from both are tried in vain wherever one of the two gets them. So of each broken link one end gets nothing that
//! others can take, until the link may be tried again. The fewer stand aside, the better.

use std::collections::{BTreeMap, BTreeSet};

use transload_protocol::{Event, LayerIndex, Time, WorkerId, words};

use crate::api::Action;
use crate::graph::LayerRecord;
use crate::machine::Scheduler;
use crate::ready::Rank;
use crate::slab::{TaskAt, WorkerSlot};
use crate::timers::Timers;
use crate::worker::{FULL, Reach};

/// A link that broke is not relied on for so long, in microseconds. Twice as long each time it turns out to be broken still.
const FIRST_PAUSE_MICROS: u64 = 15_000_000;
/// But no longer than this.
const LONGEST_PAUSE_MICROS: u64 = 960_000_000;
/// Of more links nothing is remembered: the tasks that they fail are tried elsewhere all the same.
const MOST_LINKS: usize = 256;
/// Workers that stand aside are asked no more often than this, in microseconds, and for each layer that they are asked about so much
/// later: nearly always there is nothing for them.
const ASK_PAUSE_MICROS: u64 = 20_000;
const ASK_LAYER_MICROS: u64 = 2;

/// Who could not read, and from whom.
type Link = (WorkerSlot, WorkerSlot);

/// Broken links between workers.
#[derive(Debug, Default)]
pub(crate) struct Apart {
    /// Until when they are not relied on.
    broken: Timers<Link>,
    /// For how long they were not last, in microseconds; of all that have broken and over which nothing has come since.
    pauses: BTreeMap<Link, u64>,
    /// Each broken link has one of these at an end.
    aside: BTreeSet<WorkerSlot>,
    /// When these may be asked again whether there is something for them.
    ask_after: Time,
}

impl Apart {
    pub(crate) fn aside(&self) -> impl Iterator<Item = WorkerSlot> {
        self.aside.iter().copied()
    }

    /// Those to whom a worker's link is broken, and until when.
    pub(crate) fn from(&self, worker: WorkerSlot) -> BTreeMap<WorkerSlot, Time> {
        let mut others = BTreeMap::new();
        for link in self.broken.iter() {
            let other = match link {
                (one, other) if one == worker => other,
                (one, other) if other == worker => one,
                _ => continue,
            };
            let until = self.broken.until(link).unwrap_or_default();
            let latest = others.entry(other).or_insert(until);
            *latest = until.max(*latest);
        }
        others
    }

    /// Nothing comes over a link. For how long it is not relied on, in microseconds; `None` if one of its ends stands aside
    /// already.
    fn break_link(&mut self, link: Link, now: Time) -> Option<u64> {
        if self.aside.contains(&link.0) || self.aside.contains(&link.1) {
            return None;
        }
        if self.pauses.len() >= MOST_LINKS && !self.pauses.contains_key(&link) {
            let broken = &self.broken;
            self.pauses.retain(|link, _| broken.until(*link).is_some());
            if self.pauses.len() >= MOST_LINKS {
                return None;
            }
        }
        let pause = self.pauses.entry(link);
        let pause = pause
            .and_modify(|pause| *pause = (*pause * 2).min(LONGEST_PAUSE_MICROS))
            .or_insert(FIRST_PAUSE_MICROS);
        self.broken.begin(link, now.after_micros(*pause));
        Some(*pause)
    }

    /// Something has come over a link. It may have left before the link broke.
    fn on_fetched(&mut self, link: Link) {
        if self.broken.until(link).is_none() {
            self.pauses.remove(&link);
        }
    }

    fn forget(&mut self, worker: WorkerSlot) {
        let is_its = |link: &Link| link.0 == worker || link.1 == worker;
        let of_it: Vec<Link> = self.broken.iter().filter(is_its).collect();
        for link in of_it {
            self.broken.end(link);
        }
        self.pauses.retain(|link, _| !is_its(link));
    }

    /// Who is to stand aside: again and again the end of most of the links that are left, and of those that broke before.
    fn choose(&self) -> BTreeSet<WorkerSlot> {
        let count = |links: &[Link]| {
            let mut ends: BTreeMap<WorkerSlot, usize> = BTreeMap::new();
            for (one, other) in links {
                *ends.entry(*one).or_default() += 1;
                *ends.entry(*other).or_default() += 1;
            }
            ends
        };
        let known: Vec<Link> = self.pauses.keys().copied().collect();
        let known = count(&known);
        let mut left: Vec<Link> = self.broken.iter().collect();
        let mut aside = BTreeSet::new();
        loop {
            let ends = count(&left).into_iter();
            let worst = ends.map(|(it, links)| (links, known.get(&it).copied(), it));
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
        let Some(pause) = self.apart.break_link((reader, holder), self.now) else {
            return;
        };
        self.set_aside();
        let both = [reader, holder].into_iter();
        let aside = both.filter(|worker| self.workers.slab[*worker].aside);
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
            self.apart.on_fetched((to, from));
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

    /// Chooses anew who stands aside. What waits in the queue of one that does now may go elsewhere.
    fn set_aside(&mut self) {
        let before = std::mem::take(&mut self.apart.aside);
        self.apart.aside = self.apart.choose();
        for worker in before.symmetric_difference(&self.apart.aside.clone()) {
            let is_aside = !before.contains(worker);
            self.workers.slab[*worker].aside = is_aside;
            self.workers.change(*worker);
            if is_aside {
                self.empty_queue_of(*worker);
            }
        }
    }

    fn empty_queue_of(&mut self, worker: WorkerSlot) {
        let queue = self.workers.slab[worker].preferred.iter();
        let queue: Vec<TaskAt> = queue
            .map(|(rank, index)| TaskAt {
                graph: rank.graph,
                index: *index,
            })
            .filter(|at| {
                let layer = self.graphs.slab[at.graph].layer_of(at.index);
                !layer.scope.is_each()
            })
            .collect();
        for at in queue {
            self.make_ready(at);
        }
    }

    /// When a link may be tried again, or those who stand aside are asked, if something waits.
    pub(crate) fn next_apart_due(&self) -> Option<Time> {
        let ask = self.apart.ask_after;
        let is_wanted = |worker: &WorkerSlot| self.workers.slab[*worker].fullness() < FULL;
        let waits = self.ready.runnable() > 0 && self.recovery.is_none();
        let is_asked = waits && self.apart.aside.iter().any(is_wanted);
        let ask = is_asked.then_some(ask.max(self.now));
        self.apart.broken.next_due().into_iter().chain(ask).min()
    }

    /// Gives those who stand aside what nobody else can take, now and then.
    pub(crate) fn serve_aside(&mut self, out: &mut Vec<Action>) {
        if self.apart.aside.is_empty() || self.now < self.apart.ask_after {
            return;
        }
        let aside: Vec<WorkerSlot> = self.apart.aside().collect();
        let asked = aside.len() as u64 * self.ready.layers.len() as u64;
        let pause = ASK_PAUSE_MICROS.saturating_add(asked.saturating_mul(ASK_LAYER_MICROS));
        self.apart.ask_after = self.now.after_micros(pause);
        for worker in aside {
            for reach in [Reach::Slot, Reach::Queue] {
                self.serve_fully(worker, reach, out);
            }
        }
    }

    /// Whether the worker stands aside, and another that does not could run tasks of this layer.
    pub(crate) fn is_aside_for(&self, layer: &LayerRecord, worker: WorkerSlot) -> bool {
        self.workers.slab[worker].aside
            && (self.workers).any_covers(layer, |it| !self.workers.slab[it].aside)
    }

    /// Of a layer that others could run, the first ready task that those have to leave to a worker which stands aside.
    pub(crate) fn pick_exception(&self, rank: &Rank, worker: WorkerSlot) -> Option<(Rank, TaskAt)> {
        let graph = &self.graphs.slab[rank.graph];
        let layer = &graph.layers[rank.layer() as usize];
        let tasks = graph.compiled.tasks_of(LayerIndex(rank.layer()));
        let failed = graph.history.range(tasks.clone()).map(|(index, _)| *index);
        let held_up = self.workers.held_up.keys();
        let held_up = held_up.filter(|(_, at)| at.graph == rank.graph && tasks.contains(&at.index));
        let mut exceptions = failed
            .chain(held_up.map(|(_, at)| at.index))
            .filter(|index| {
                let at = TaskAt {
                    graph: rank.graph,
                    index: *index,
                };
                layer.ready.contains(index - layer.first_task) && !self.avoids(at, worker)
            });
        let index = exceptions.next()?;
        let graph = rank.graph;
        Some((*rank, TaskAt { graph, index }))
    }

    /// Whether a task that a worker has given back will be read for elsewhere: that one stands aside, and others can take it.
    pub(crate) fn is_left_by(&self, at: TaskAt, worker: WorkerSlot) -> bool {
        self.workers.slab[worker].aside
            && !self.graphs.slab[at.graph].is_of_gang(at.index)
            && self.avoids(at, worker)
    }

    /// Which workers stand aside, and why, in words.
    pub(crate) fn explain_aside(&self) -> impl Iterator<Item = String> {
        self.apart.aside().map(|worker| {
            let others = self.apart.from(worker);
            let until = others.values().max().copied().unwrap_or(self.now);
            let others = others.into_keys().map(|other| self.worker_name(other));
            format!(
                "{} gets nothing that others can take, for {}: fetching between it and {} failed",
                self.worker_name(worker),
                words::duration(until.micros_since(self.now)),
                others.collect::<Vec<_>>().join(", ")
            )
        })
    }

    /// For the check: each broken link is between members, and nobody stands aside without one.
    pub(crate) fn check_links(&self) -> Result<(), String> {
        let is_here = |worker: &WorkerSlot| self.workers.slab.get(*worker).is_some();
        let stand_aside = self.workers.slab.iter().filter(|(_, worker)| worker.aside);
        let are_sound = self.apart.broken.are_consistent()
            && (self.apart.pauses.keys()).all(|(one, other)| is_here(one) && is_here(other))
            && (self.apart.broken.iter()).all(|link| self.apart.pauses.contains_key(&link))
            && self.apart.pauses.len() <= MOST_LINKS
            && self.apart.aside == self.apart.choose()
            && stand_aside.map(|(slot, _)| slot).collect::<BTreeSet<_>>() == self.apart.aside;
        if are_sound {
            Ok(())
        } else {
            Err(format!("broken links make no sense: {:?}", self.apart))
        }
    }
}
