//! Every invariant of the machine, recomputed from scratch and compared with what is kept.
//!
//! Called after each step by tests and by `sim`. Slow on purpose: it walks all tasks and edges.

use std::collections::{BTreeMap, BTreeSet};

use transload_protocol::{
    Amount, LayerIndex, LayerProgress, Placement, Resources, TaskId, TaskRange,
};

use crate::graph::{Graph, LayerRecord, Phase, Progress};
use crate::machine::Scheduler;
use crate::scope::Scope;
use crate::sharing::Holder;
use crate::slab::{GraphSlot, TaskAt, WorkerSlot};
use crate::task::TaskState;
use crate::worker::{FULL, Reach};

/// What workers should be found with.
#[derive(Debug, Default)]
struct Expected {
    assigned: BTreeMap<WorkerSlot, BTreeSet<TaskAt>>,
    used: BTreeMap<WorkerSlot, Resources>,
    stored: BTreeMap<WorkerSlot, u32>,
    cancelling: BTreeMap<WorkerSlot, u32>,
    preferred: BTreeMap<WorkerSlot, BTreeSet<TaskAt>>,
    open: u32,
    pinned: u32,
    stuck: u32,
    /// Tasks of other graphs that are still to import each task.
    importing: BTreeMap<TaskAt, u32>,
}

/// What a graph's counters should be found with.
#[derive(Debug, Default)]
struct Counted {
    layers: Vec<LayerProgress>,
    ready: Vec<BTreeSet<u32>>,
    goals_left: u32,
    held: u32,
}

pub(crate) fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

impl Scheduler {
    /// Whether everything that is kept agrees with everything else.
    ///
    /// # Errors
    /// The first thing that does not, in words. Always a bug of ours.
    pub fn check(&self) -> Result<(), String> {
        if self.stopped {
            return Ok(());
        }
        let mut expected = Expected::default();
        self.check_sharing(&mut expected)?;
        for (slot, graph) in self.graphs.slab.iter() {
            self.check_graph(slot, graph, &mut expected)
                .map_err(|error| format!("graph {}: {error}", graph.id))?;
        }
        self.check_cancels(&mut expected)?;
        self.check_retries()?;
        self.check_stragglers()?;
        self.check_links()?;
        self.check_limits()?;
        self.check_shares()?;
        self.check_workers(&expected)?;
        self.check_queues(&expected)?;
        self.check_gangs()?;
        self.coordination.check()?;
        self.check_maps()
    }

    fn check_graph(
        &self,
        slot: GraphSlot,
        graph: &Graph,
        expected: &mut Expected,
    ) -> Result<(), String> {
        let mut counted = Counted {
            layers: vec![LayerProgress::default(); graph.layers.len()],
            ready: vec![BTreeSet::new(); graph.layers.len()],
            ..Counted::default()
        };
        for index in 0..graph.compiled.task_count() {
            let at = TaskAt { graph: slot, index };
            self.check_task(at, graph, expected, &mut counted)
                .map_err(|error| format!("task {index}: {error}"))?;
        }
        for (layer, record) in graph.layers.iter().enumerate() {
            let (counts, ready) = (&counted.layers[layer], &counted.ready[layer]);
            ensure(record.counts == *counts, || {
                format!("layer {layer} counts {:?}, not {counts:?}", record.counts)
            })?;
            ensure(record.ready.iter().eq(ready.iter().copied()), || {
                format!("layer {layer} queues {:?}, not {ready:?}", record.ready)
            })?;
            let is_queued = self.ready.layers.contains(&record.rank);
            let is_stuck = self.ready.stuck.layers.contains_key(&record.rank);
            let is_alone = record.gang.is_none();
            ensure(
                is_queued == (is_alone && !ready.is_empty() && !record.is_stuck)
                    && is_stuck == record.is_stuck
                    && !(is_stuck && ready.is_empty()),
                || {
                    format!(
                        "layer {layer} is queued ({is_queued}) or stuck ({is_stuck}, {}) with {} tasks ready",
                        record.is_stuck,
                        ready.len()
                    )
                },
            )?;
            self.check_gang(graph, layer)
                .map_err(|error| format!("layer {layer}: {error}"))?;
            self.check_scope(graph, layer)
                .map_err(|error| format!("layer {layer}: {error}"))?;
            self.check_barriers(graph, layer)
                .map_err(|error| format!("layer {layer}: {error}"))?;
            self.check_families(graph, record)
                .map_err(|error| format!("layer {layer}: {error}"))?;
            for told in record.told.iter() {
                ensure(self.workers.slab.get(WorkerSlot(told)).is_some(), || {
                    format!("layer {layer} was told to worker slot {told}, which is empty")
                })?;
            }
        }
        ensure(
            (graph.goals_left, graph.held) == (counted.goals_left, counted.held),
            || {
                format!(
                    "{} goals left and {} held, not {} and {}",
                    graph.goals_left, graph.held, counted.goals_left, counted.held
                )
            },
        )?;
        match graph.phase {
            Phase::Running => ensure(graph.goals_left > 0, || "it should have ended".to_owned())?,
            Phase::Finished => {
                ensure(graph.held > 0 || !graph.shared.importers.is_empty(), || {
                    "it should be forgotten".to_owned()
                })?
            }
        }
        let due = match graph.progress {
            Progress::Told { .. } => None,
            Progress::Due { at } => Some(at),
        };
        ensure(
            due.is_none_or(|at| self.progress_due.contains(&(at, slot))),
            || "its progress is due, but not in the list".to_owned(),
        )
    }

    fn check_families(&self, graph: &Graph, record: &LayerRecord) -> Result<(), String> {
        let Some(families) = &record.families else {
            return Ok(());
        };
        let attempt_of = |position: &u32| {
            let index = record.first_task + position;
            graph.tasks[index as usize].attempt
        };
        let returned = record.ready.iter().filter(|at| attempt_of(at) > 0);
        ensure(families.returned().iter().copied().eq(returned), || {
            format!("{:?} are said to have come back", families.returned())
        })?;
        for worker in families.begun() {
            ensure(self.workers.slab.get(worker).is_some(), || {
                format!("worker slot {} has begun a family, and is empty", worker.0)
            })?;
        }
        Ok(())
    }

    /// Whether the workers that may run a layer are those that its client allowed, and what nobody can run is known as such.
    fn check_scope(&self, graph: &Graph, layer: usize) -> Result<(), String> {
        let record = &graph.layers[layer];
        let index = u32::try_from(layer).unwrap_or(u32::MAX);
        ensure(
            graph.scoped.contains(&index) == !matches!(record.scope, Scope::Anywhere),
            || "it is not known that it may not run everywhere".to_owned(),
        )?;
        if let (Scope::Within(within), Some(Placement::Where(conditions))) =
            (&record.scope, graph.placement_of(index))
        {
            let allowed = self.workers.slab.iter();
            let allowed = allowed
                .filter(|(_, worker)| conditions.allow(worker.id, &worker.hello))
                .map(|(slot, _)| slot.0);
            ensure(within.iter().eq(allowed), || {
                format!("it may run only {conditions}, not within {within:?}")
            })?;
        }
        let is_settled = self.recovery.is_none() && !self.workers.slab.is_empty();
        ensure(
            record.ready.is_empty()
                || record.gang.is_some()
                || !is_settled
                || record.is_stuck != self.workers.any_covers(record, |_| true),
            || "it is stuck although a worker can run it, or not although none can".to_owned(),
        )?;
        let first = record
            .ready
            .iter()
            .next()
            .filter(|_| record.scope.is_each());
        let at = first.map(|position| TaskAt {
            graph: record.rank.graph,
            index: record.first_task + position,
        });
        ensure(at.is_none_or(|at| self.pinned_worker(at).is_none()), || {
            "a task waits for its worker, which is there".to_owned()
        })
    }

    fn check_barriers(&self, graph: &Graph, layer: usize) -> Result<(), String> {
        let record = &graph.layers[layer];
        let count = |layer: u32, wanted: fn(&TaskState) -> bool| {
            let tasks = graph.compiled.tasks_of(LayerIndex(layer));
            tasks
                .filter(|index| wanted(&graph.tasks[*index as usize].state))
                .count()
        };
        let own = u32::try_from(layer).unwrap_or(u32::MAX);
        let to_do = count(own, TaskState::is_to_do);
        ensure(record.to_do as usize == to_do, || {
            format!("{} tasks to do, not {to_do}", record.to_do)
        })?;
        let readers = record
            .feeds
            .iter()
            .filter(|(reader, _)| graph.layers[*reader as usize].to_do > 0)
            .count();
        ensure(record.barrier_readers as usize == readers, || {
            format!("{} layers read it, not {readers}", record.barrier_readers)
        })?;
        for barrier in &record.barriers {
            let undone = count(barrier.source, |state| !state.is_stored());
            ensure(barrier.undone as usize == undone, || {
                format!("a barrier waits for {}, not {undone}", barrier.undone)
            })?;
            ensure(barrier.summary.is_none() || undone == 0, || {
                "a closed barrier has a summary".to_owned()
            })?;
            ensure(barrier.summary.is_some() || barrier.told.is_empty(), || {
                "workers were told what is not known".to_owned()
            })?;
            for told in barrier.told.iter() {
                ensure(self.workers.slab.get(WorkerSlot(told)).is_some(), || {
                    format!("worker slot {told} was told of sources, and is empty")
                })?;
            }
        }
        Ok(())
    }

    fn check_task(
        &self,
        at: TaskAt,
        graph: &Graph,
        expected: &mut Expected,
        counted: &mut Counted,
    ) -> Result<(), String> {
        let task = &graph.tasks[at.index as usize];
        let layer = task.layer() as usize;
        let record = &graph.layers[layer];
        let mut readers = 0;
        let place = graph.locate(at.index);
        graph
            .compiled
            .for_each_direct_consumer(place.0, place.1, |reader| {
                readers += u32::from(graph.tasks[reader as usize].state.is_to_do());
            });
        readers += expected.importing.get(&at).copied().unwrap_or(0);
        ensure(task.readers == readers, || {
            format!("{} readers, not {readers}", task.readers)
        })?;
        let mut undone = u32::from(self.cancels.contains_key(&graph.task_id(at.index)))
            + u32::from(self.retries.until(at).is_some());
        let mut freed = 0;
        for barrier in &record.barriers {
            let source = graph.compiled.tasks_of(LayerIndex(barrier.source));
            let states = || {
                source
                    .clone()
                    .map(|index| &graph.tasks[index as usize].state)
            };
            undone += u32::from(states().any(|state| !state.is_stored()));
            freed += u32::from(
                states().any(|state| matches!(state, TaskState::Culled | TaskState::Released)),
            );
        }
        graph
            .compiled
            .for_each_direct_input(place.0, place.1, |input| {
                match graph.tasks[input.task as usize].state {
                    TaskState::Done { .. } => {}
                    TaskState::Culled | TaskState::Released => {
                        freed += 1;
                        undone += 1;
                    }
                    TaskState::Waiting { .. }
                    | TaskState::Ready { .. }
                    | TaskState::Assigned { .. }
                    | TaskState::Ended { .. } => {
                        undone += 1;
                    }
                }
            });
        if record.is_import() {
            undone += self.missing_imports(at);
            let source = self.source_of(at);
            let is_there = source.map(|at| &self.graphs.slab[at.graph].tasks[at.index as usize]);
            let is_freed = is_there.is_some_and(|task| task.state == TaskState::Released);
            // Gone for good it may be only while those are awaited who may have what was made of it.
            freed += u32::from(is_freed || (source.is_none() && self.recovery.is_none()));
        }
        let needed = graph.is_needed(at.index);
        if task.state.is_to_do() {
            ensure(freed == 0, || format!("{freed} of its inputs are freed"))?;
        }
        let counts = &mut counted.layers[layer];
        counts.total += u32::from(task.state != TaskState::Culled);
        counted.held += u32::from(task.is_held());
        counted.goals_left += u32::from(record.goal && !task.state.is_settled());
        let alive = |worker: WorkerSlot| {
            ensure(self.workers.slab.get(worker).is_some(), || {
                format!("{} on a worker that is gone", task.state.name())
            })
        };
        match &task.state {
            TaskState::Culled => ensure(!needed, || "culled but needed".to_owned()),
            TaskState::Waiting { missing } => {
                ensure(needed, || "waiting though nobody needs it".to_owned())?;
                ensure(*missing == undone && undone > 0, || {
                    format!("misses {missing}, not {undone}")
                })
            }
            TaskState::Ready { prefers } => {
                ensure(needed, || "ready though nobody needs it".to_owned())?;
                ensure(undone == 0, || format!("ready, but misses {undone}"))?;
                match prefers {
                    Some(worker) => {
                        alive(*worker)?;
                        ensure(self.workers.covers(*worker, record), || {
                            "queued where it cannot run".to_owned()
                        })?;
                        ensure(self.is_pinned_to(at, *worker), || {
                            "queued at another worker than its own".to_owned()
                        })?;
                        expected.pinned += u32::from(record.scope.is_each());
                        expected.preferred.entry(*worker).or_default().insert(at);
                    }
                    None => {
                        if record.is_stuck {
                            expected.stuck += 1;
                        } else if record.gang.is_none() {
                            expected.open += 1;
                        }
                        counted.ready[layer].insert(at.index - record.first_task);
                    }
                }
                Ok(())
            }
            TaskState::Assigned { worker, .. } => {
                ensure(needed, || "assigned though nobody needs it".to_owned())?;
                alive(*worker)?;
                ensure(
                    record.scope.allows(*worker) && self.is_pinned_to(at, *worker),
                    || "assigned where it may not run".to_owned(),
                )?;
                ensure(record.told.contains(worker.0), || {
                    "assigned to a worker that does not know its layer".to_owned()
                })?;
                counts.running += 1;
                expected.assigned.entry(*worker).or_default().insert(at);
                if !self.workers.slab[*worker].seceded.contains(&at) {
                    expected.used(*worker).give_back(&record.resources);
                }
                Ok(())
            }
            TaskState::Ended { worker } => {
                ensure(needed, || "ended though nobody needs it".to_owned())?;
                ensure(record.gang.is_some(), || "ended, and alone".to_owned())?;
                alive(*worker)?;
                counts.running += 1;
                *expected.stored.entry(*worker).or_default() += 1;
                Ok(())
            }
            TaskState::Done { worker, .. } => {
                ensure(needed, || "stored though nobody needs it".to_owned())?;
                alive(*worker)?;
                let position = (at.index - record.first_task) as usize;
                ensure(
                    (record.outputs > 1) == record.total_bytes.get(position).is_some(),
                    || "the size of all of its outputs is missing, or kept twice".to_owned(),
                )?;
                counts.done += 1;
                *expected.stored.entry(*worker).or_default() += 1;
                Ok(())
            }
            TaskState::Released => {
                counts.done += 1;
                ensure(!needed, || "freed but needed".to_owned())
            }
        }
    }

    /// Whether a task with a worker of its own is with that one; others may be anywhere.
    fn is_pinned_to(&self, at: TaskAt, worker: WorkerSlot) -> bool {
        let worker = &self.workers.slab[worker];
        let pin = self.graphs.slab[at.graph].pin_of(at.index);
        pin.is_none_or(|pin| pin.is(worker.id, &worker.hello))
    }

    fn check_cancels(&self, expected: &mut Expected) -> Result<(), String> {
        for (task, cancel) in &self.cancels {
            ensure(self.workers.slab.get(cancel.worker).is_some(), || {
                format!("task {task} is being cancelled on a worker that is gone")
            })?;
            *expected.cancelling.entry(cancel.worker).or_default() += 1;
            expected.used(cancel.worker).give_back(&cancel.resources);
            if let Some(at) = self.graphs.find(*task) {
                let state = &self.graphs.slab[at.graph].tasks[at.index as usize].state;
                let idle = match state {
                    TaskState::Waiting { .. } | TaskState::Released => true,
                    TaskState::Culled
                    | TaskState::Ready { .. }
                    | TaskState::Assigned { .. }
                    | TaskState::Ended { .. }
                    | TaskState::Done { .. } => false,
                };
                ensure(idle, || {
                    format!(
                        "task {task} is {} while an attempt is being cancelled",
                        state.name()
                    )
                })?;
            }
        }
        Ok(())
    }

    fn check_workers(&self, expected: &Expected) -> Result<(), String> {
        let mut open = BTreeSet::new();
        for (slot, worker) in self.workers.slab.iter() {
            let id = worker.id;
            ensure(!worker.leaving, || {
                format!("worker {id} has left and is still here")
            })?;
            for known in worker.knows.iter() {
                ensure(self.workers.slab.get(WorkerSlot(known)).is_some(), || {
                    format!("worker {id} knows worker slot {known}, which is empty")
                })?;
            }
            ensure(worker.releases.is_empty(), || {
                format!("worker {id} was not told all releases")
            })?;
            let assigned: BTreeSet<TaskAt> = worker.assigned.iter().copied().collect();
            let should = expected.assigned.get(&slot).cloned().unwrap_or_default();
            ensure(
                assigned == should && worker.assigned.len() == should.len(),
                || format!("worker {id} is said to have {assigned:?}, tasks say {should:?}"),
            )?;
            ensure(worker.seceded.is_subset(&should), || {
                format!(
                    "worker {id} has {:?} that wait without a slot, of {should:?}",
                    worker.seceded
                )
            })?;
            let mut used = worker.used.clone();
            used.named.retain(|_, amount| *amount > Amount::ZERO);
            let mut should = expected
                .used
                .get(&slot)
                .cloned()
                .unwrap_or_else(|| Resources::slots(0));
            should.named.retain(|_, amount| *amount > Amount::ZERO);
            ensure(used == should, || {
                format!("worker {id} uses {used}, its tasks ask for {should}")
            })?;
            let stored = expected.stored.get(&slot).copied().unwrap_or(0);
            let cancelling = expected.cancelling.get(&slot).copied().unwrap_or(0);
            ensure(
                (worker.stored, worker.cancelling) == (stored, cancelling),
                || {
                    format!(
                        "worker {id} stores {} and cancels {}, not {stored} and {cancelling}",
                        worker.stored, worker.cancelling
                    )
                },
            )?;
            let preferred = expected.preferred.get(&slot).cloned().unwrap_or_default();
            let queued: BTreeSet<TaskAt> = worker
                .preferred
                .iter()
                .map(|(rank, index)| TaskAt {
                    graph: rank.graph,
                    index: *index,
                })
                .collect();
            ensure(
                queued == preferred && worker.preferred.len() == queued.len(),
                || format!("worker {id} queues {queued:?}, tasks that prefer it are {preferred:?}"),
            )?;
            ensure(
                // One that asks for no slot may wait until a worker whose slots are all taken has news.
                self.recovery.is_some()
                    || worker.fullness() >= FULL
                    || preferred.iter().all(|at| {
                        let layer = self.graphs.slab[at.graph].layer_of(at.index);
                        !self.workers.fits(slot, layer, Reach::Slot)
                            || self.ready.open > 0
                            || self.workers.is_held_up(slot, *at)
                    }),
                || format!("worker {id} is idle while tasks wait for it"),
            )?;
            open.extend(self.workers.listing(slot).map(|fullness| (fullness, slot)));
        }
        ensure(self.workers.open.iter().eq(open.iter().copied()), || {
            format!(
                "workers with room are {open:?}, not {:?}",
                self.workers.open
            )
        })
    }

    /// Who holds and imports what, and that both sides say the same of it.
    fn check_sharing(&self, expected: &mut Expected) -> Result<(), String> {
        let mut importers: BTreeMap<GraphSlot, BTreeSet<(u32, TaskId)>> = BTreeMap::new();
        for (_, graph) in self.graphs.slab.iter() {
            for (index, source) in graph.imports() {
                if let Some(at) = self.graphs.find(source) {
                    let of_source = importers.entry(at.graph).or_default();
                    of_source.insert((at.index, graph.task_id(index)));
                    let is_to_do = graph.tasks[index as usize].state.is_to_do();
                    *expected.importing.entry(at).or_default() += u32::from(is_to_do);
                }
            }
        }
        let mut holders = BTreeMap::new();
        for (slot, graph) in self.graphs.slab.iter() {
            let shared = &graph.shared;
            let should = importers.remove(&slot).unwrap_or_default();
            ensure(shared.importers == should, || {
                format!(
                    "graph {} is imported by {:?}, not {should:?}",
                    graph.id, shared.importers
                )
            })?;
            for (index, task) in (0_u32..).zip(&graph.tasks) {
                let is_shared = shared.holds(index);
                let is_disowned = shared.disowned.contains(index);
                ensure(task.is_held() || !(is_shared || is_disowned), || {
                    format!(
                        "task {} is held by others only in part",
                        graph.task_id(index)
                    )
                })?;
                ensure(!is_disowned || is_shared, || {
                    format!("task {} is held by nobody", graph.task_id(index))
                })?;
                ensure(!shared.is_orphan || !graph.owner_holds(index), || {
                    format!("task {} is held by one who left", graph.task_id(index))
                })?;
            }
            holders.extend(shared.holders.iter().map(|(holder, held)| {
                let (graph, first, count) = (graph.id, held.start, held.end - held.start);
                (
                    holder.clone(),
                    TaskRange {
                        graph,
                        first,
                        count,
                    },
                )
            }));
        }
        let names = self.names.iter();
        let names = names.map(|(name, tasks)| (Holder::Name(name.clone()), *tasks));
        let clients = self.clients.iter().flat_map(|(client, record)| {
            let holds = record.holds.iter();
            holds.map(|(hold, tasks)| (Holder::Client(*client, *hold), *tasks))
        });
        let should: BTreeMap<Holder, TaskRange> = names.chain(clients).collect();
        ensure(holders == should, || {
            format!("others hold {holders:?}, not {should:?}")
        })
    }

    fn check_queues(&self, expected: &Expected) -> Result<(), String> {
        let queued: usize = expected.preferred.values().map(BTreeSet::len).sum();
        let preferring = u32::try_from(queued).unwrap_or(u32::MAX) - expected.pinned;
        let ready = &self.ready;
        let kept = (
            ready.open,
            ready.preferring,
            ready.pinned,
            ready.stuck.tasks(),
        );
        let should = (expected.open, preferring, expected.pinned, expected.stuck);
        ensure(kept == should, || {
            format!("(open, preferring, pinned, stuck) tasks are ready: {kept:?}, not {should:?}")
        })?;
        let due = ready.stuck.layers.iter().map(|(rank, due)| (*due, *rank));
        ensure(due.collect::<BTreeSet<_>>() == ready.stuck.due, || {
            format!(
                "layers are stuck until {:?}, not {:?}",
                ready.stuck.layers, ready.stuck.due
            )
        })?;
        for rank in ready.stuck.layers.keys() {
            let serial = self.graphs.slab.get(rank.graph);
            let serial = serial.map(|graph| graph.line.serial);
            ensure(serial == Some(rank.graph_serial), || {
                "a forgotten graph is still stuck".to_owned()
            })?;
        }
        for rank in &self.ready.layers {
            let serial = self.graphs.slab.get(rank.graph);
            let serial = serial.map(|graph| graph.line.serial);
            ensure(serial == Some(rank.graph_serial), || {
                "a forgotten graph is still queued".to_owned()
            })?;
        }
        for (at, slot) in &self.progress_due {
            let progress = self.graphs.slab.get(*slot).map(|graph| graph.progress);
            ensure(progress == Some(Progress::Due { at: *at }), || {
                "progress is due for a graph that has none".to_owned()
            })?;
        }
        ensure(
            self.events.is_empty()
                && self.releasing.is_empty()
                && self.unneeded.is_empty()
                && self.readers.is_empty()
                && self.afterwards.is_empty()
                && self.perhaps_over.is_empty()
                && self.assigning.is_empty(),
            || "a step left something undone".to_owned(),
        )
    }

    fn check_maps(&self) -> Result<(), String> {
        let graphs: Vec<_> = self.graphs.by_id.iter().collect();
        ensure(
            graphs.len() == self.graphs.slab.len()
                && graphs.iter().all(|(id, slot)| {
                    self.graphs
                        .slab
                        .get(**slot)
                        .is_some_and(|graph| graph.id == **id)
                        && self.graphs.slab[**slot].shared.is_orphan
                            != self
                                .clients
                                .get(&id.client)
                                .is_some_and(|client| client.graphs.contains(id))
                }),
            || "graphs, their ids and their clients do not agree".to_owned(),
        )?;
        let of_clients: usize = self
            .clients
            .values()
            .map(|client| client.graphs.len())
            .sum();
        let orphans = self.graphs.slab.iter();
        let orphans = orphans.filter(|(_, graph)| graph.shared.is_orphan).count();
        ensure(of_clients + orphans == graphs.len(), || {
            "a client is said to own a graph that is gone".to_owned()
        })?;
        ensure(
            self.workers.by_id.len() == self.workers.slab.len()
                && self.workers.by_id.iter().all(|(id, slot)| {
                    self.workers
                        .slab
                        .get(*slot)
                        .is_some_and(|worker| worker.id == *id)
                }),
            || "workers and their ids do not agree".to_owned(),
        )?;
        let named = self.workers.by_name.iter();
        let named: BTreeSet<_> = named
            .flat_map(|(name, slots)| slots.iter().map(move |slot| (name, *slot)))
            .collect();
        let workers = self.workers.slab.iter();
        ensure(
            workers
                .map(|(slot, worker)| (&worker.hello.name, slot))
                .collect::<BTreeSet<_>>()
                == named
                && self.workers.by_name.values().all(|slots| !slots.is_empty()),
            || "workers and their names do not agree".to_owned(),
        )?;
        let mut hosts: BTreeMap<String, (u32, u32)> = BTreeMap::new();
        for (_, worker) in self.workers.slab.iter() {
            let host = hosts.entry(worker.hello.host.clone()).or_default();
            *host = (worker.host, host.1 + 1);
        }
        ensure(hosts == *self.workers.hosts(), || {
            format!("workers are on {hosts:?}, not {:?}", self.workers.hosts())
        })?;
        for ((worker, at), by) in &self.workers.held_up {
            let is_known = self.graphs.slab.get(at.graph).is_some();
            ensure(self.workers.slab.get(*worker).is_some() && is_known, || {
                format!("a task or worker that is gone is still held up by task {by}")
            })?;
        }
        for (task, thief) in &self.recalls.open {
            ensure(self.workers.slab.get(*thief).is_some(), || {
                format!("task {task} is asked back for a worker that is gone")
            })?;
            if let Some(at) = self.graphs.find(*task) {
                ensure(
                    self.graphs.slab[at.graph].recalled.contains(&at.index),
                    || format!("task {task} may be asked back again and again"),
                )?;
            }
        }
        for (pair, traffic) in &self.transfers {
            ensure(traffic.is_sound(*pair), || {
                format!(
                    "what came from {} to {} makes no sense: {traffic:?}",
                    pair.0, pair.1
                )
            })?;
        }
        ensure(
            self.workers.slab.is_empty() || self.liveness_check.is_some(),
            || "nobody watches whether workers are alive".to_owned(),
        )
    }
}

impl Expected {
    fn used(&mut self, worker: WorkerSlot) -> &mut Resources {
        self.used
            .entry(worker)
            .or_insert_with(|| Resources::slots(0))
    }
}
