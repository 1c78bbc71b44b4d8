//! What all parts of a simulation share: the clock, chance, the agenda, fetches under way, and what was done to whom.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use transload_protocol::{
    GraphId, LayerIndex, Memory, PartitionId, TaskErrorKind, TaskId, Time, WorkerId,
};

use crate::gangs::{Gangs, Incarnation};
use crate::graphs::GraphPlan;
use crate::network::{Agenda, FetchAnswer, Happening, Link, TaskRun};
use crate::random::{Random, mix};
use crate::scenario::Scenario;
use crate::trace::{Trace, Tracing};

/// A rule broken, in words; the simulation ends with it.
pub(crate) type Step = Result<(), String>;

/// What happened in a simulation that ended right.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// Things that happened.
    pub steps: u64,
    /// Simulated time at the end.
    pub micros: u64,
    /// Hash of the order of all that happened.
    pub hash: u64,
    /// Hash of every line of the trace; 0 where tracing was off.
    pub text_hash: u64,
    /// Counts by name, as in `workers lost`. Every count but `stragglers told` is made by the simulation itself, not
    /// by the machines.
    pub counts: BTreeMap<&'static str, u64>,
}

/// Who reads a fetched partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    Process(usize),
    Client(usize),
}

/// A fetch under way.
#[derive(Debug, Clone)]
pub(crate) struct Fetch {
    pub(crate) reader: Reader,
    pub(crate) holder: usize,
    /// The id under which the reader knows the holder.
    pub(crate) from: WorkerId,
    pub(crate) partition: PartitionId,
    pub(crate) sent: Time,
    /// The holder has begun to answer.
    pub(crate) flows: bool,
    /// The timer that ends it when nobody answers.
    timer: (Time, u64),
    /// The reader wants it no longer, but the answer comes too late to be stopped; where to it was fetched.
    pub(crate) cancelled: Option<Memory>,
}

/// What was done to a task on purpose: a failure of its graph must be explained by this.
#[derive(Debug, Clone, Default)]
pub(crate) struct Injected {
    /// How often it was started.
    pub(crate) runs: u32,
    /// How often its operator lost one of its gang.
    pub(crate) peers_lost: u32,
    /// The failures that its executor reported.
    pub(crate) failures: Vec<TaskErrorKind>,
    /// How many failures reached the scheduler.
    pub(crate) reported: u32,
    /// How often somebody could not get its outputs.
    pub(crate) losses: u32,
    /// Workers that were lost while they had it.
    pub(crate) deaths: u32,
}

pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) now: Time,
    pub(crate) random: Random,
    pub(crate) agenda: Agenda,
    pub(crate) trace: Trace,
    /// Nothing fails by chance any more.
    pub(crate) calm: bool,
    pub(crate) plans: BTreeMap<GraphId, Arc<GraphPlan>>,
    pub(crate) injected: BTreeMap<TaskId, Injected>,
    pub(crate) fetches: BTreeMap<u64, Fetch>,
    pub(crate) gangs: Gangs,
    /// Graphs that their owners have submitted and still need.
    pub(crate) wanted: BTreeSet<GraphId>,
    /// Graphs that were cancelled by their owners.
    pub(crate) cancelled: BTreeSet<GraphId>,
    /// Graphs of which something may have a name.
    pub(crate) named: BTreeSet<GraphId>,
    /// What was scattered and its client still offers.
    pub(crate) offered: BTreeSet<GraphId>,
    pub(crate) report: Report,
    /// Graphs that tasks may still submit.
    graphs_within_tasks: u32,
    tokens: u64,
}

impl World {
    pub(crate) fn new(scenario: Scenario, tracing: Tracing) -> Self {
        Self {
            now: Time::from_micros(0),
            random: Random::new(scenario.seed),
            agenda: Agenda::default(),
            trace: Trace::new(tracing),
            calm: false,
            plans: BTreeMap::new(),
            injected: BTreeMap::new(),
            fetches: BTreeMap::new(),
            gangs: Gangs::default(),
            wanted: BTreeSet::new(),
            cancelled: BTreeSet::new(),
            named: BTreeSet::new(),
            offered: BTreeSet::new(),
            report: Report {
                seed: scenario.seed,
                ..Report::default()
            },
            graphs_within_tasks: scenario.graphs_within_tasks,
            tokens: 0,
            scenario,
        }
    }

    /// The layer that a task belongs to, and how many tasks that has, if it is a gang.
    pub(crate) fn gang_of(&self, task: TaskId) -> Option<(LayerIndex, u32)> {
        let compiled = &self.plans.get(&task.graph)?.compiled;
        let layer = compiled.layer_of(task.index)?;
        let (index, _) = compiled.locate(task.index)?;
        layer.gang.then_some((index, layer.tasks))
    }

    /// A member of a gang is gone. Some of those that wait for it notice, in their time.
    pub(crate) fn lose_member(&mut self, gang: Incarnation) {
        for run in self.gangs.lose(gang) {
            self.wake(run);
        }
    }

    /// An operator that waits for others looks again.
    pub(crate) fn wake(&mut self, run: TaskRun) {
        let TaskRun {
            process,
            task,
            attempt,
            token,
        } = run;
        self.soon(
            1_000,
            Happening::TaskEnds {
                process,
                task,
                attempt,
                token,
            },
        );
    }

    /// A number never used before in this run.
    pub(crate) const fn token(&mut self) -> u64 {
        self.tokens += 1;
        self.tokens
    }

    pub(crate) fn count(&mut self, name: &'static str) {
        *self.report.counts.entry(name).or_insert(0) += 1;
    }

    /// A chance that is zero once the run is calm.
    pub(crate) const fn mishap(&mut self, per_mille: u32) -> bool {
        !self.calm && self.random.chance(per_mille)
    }

    /// Whether a reader never reaches a process. Takes no chance, so that what else happens is the same.
    pub(crate) const fn are_apart(&self, reader: Reader, holder: usize) -> bool {
        match reader {
            Reader::Process(reader) if reader != holder && self.scenario.apart_per_mille > 0 => {
                let (low, high) = if reader < holder {
                    (reader, holder)
                } else {
                    (holder, reader)
                };
                let pair = mix((low as u64) << 32 | high as u64);
                mix(pair ^ self.scenario.seed) % 1_000 < self.scenario.apart_per_mille as u64
            }
            Reader::Process(_) | Reader::Client(_) => false,
        }
    }

    /// Whether a task that waits does so for a graph of its own.
    pub(crate) const fn submits_a_graph(&mut self) -> bool {
        let per_mille = self.scenario.task_submits_per_mille;
        if per_mille == 0 || self.graphs_within_tasks == 0 || !self.random.chance(per_mille) {
            return false;
        }
        self.graphs_within_tasks -= 1;
        true
    }

    /// Whether a graph that is submitted now imports something. No chance is taken where none ever does.
    pub(crate) const fn imports(&mut self) -> bool {
        let per_mille = self.scenario.import_per_mille;
        per_mille > 0 && self.random.chance(per_mille)
    }

    /// The owner of a graph needs nothing of it any more, and offers nothing for it.
    pub(crate) fn no_longer_wanted(&mut self, graph: GraphId) {
        self.wanted.remove(&graph);
        self.offered.remove(&graph);
    }

    /// Whether a process has a GPU, where there are any. No chance is taken where all have.
    pub(crate) const fn has_gpu(&mut self, process: usize) -> bool {
        let per_mille = self.scenario.worker_has_gpu_per_mille;
        process == 0 || per_mille >= 1_000 || self.random.chance(per_mille)
    }

    /// Whether a client scatters something instead of having it made. No chance is taken where none ever does.
    pub(crate) const fn scatters(&mut self) -> bool {
        let per_mille = self.scenario.scatter_per_mille;
        per_mille > 0 && self.random.chance(per_mille)
    }

    /// Schedules something up to `micros` from now.
    pub(crate) fn soon(&mut self, micros: u64, happening: Happening) {
        let at = self.now.after_micros(self.random.below(micros + 1));
        self.agenda.push(at, happening);
    }

    /// A new direction of a connection.
    pub(crate) fn link(&mut self) -> Link {
        let slow = self.random.chance(self.scenario.slow_link_per_mille);
        let factor = if slow { 50 } else { 1 };
        let base = self.random.below(self.scenario.latency_micros + 1) * factor;
        Link::new(base.min(100_000), self.scenario.jitter_micros)
    }

    /// One way of a message between two processes that are not the scheduler.
    pub(crate) const fn peer_latency(&mut self) -> u64 {
        self.random
            .below(self.scenario.latency_micros + self.scenario.jitter_micros + 1)
    }

    /// Sends a request for a partition; the answer is a `FetchEnds` in any case.
    pub(crate) fn send_fetch(
        &mut self,
        reader: Reader,
        holder: usize,
        from: WorkerId,
        partition: PartitionId,
    ) -> u64 {
        let fetch = self.token();
        let timer = self.agenda.push(
            self.now.after_micros(self.scenario.fetch_timeout_micros),
            Happening::FetchEnds {
                fetch,
                answer: FetchAnswer::TimedOut,
            },
        );
        self.fetches.insert(
            fetch,
            Fetch {
                reader,
                holder,
                from,
                partition,
                sent: self.now,
                flows: false,
                timer,
                cancelled: None,
            },
        );
        let latency = self.peer_latency();
        self.agenda.push(
            self.now.after_micros(latency),
            Happening::FetchArrives { fetch },
        );
        fetch
    }

    /// A fetch is over, or nobody wants it any more. None where it was over before.
    pub(crate) fn end_fetch(&mut self, fetch: u64) -> Option<Fetch> {
        let ended = self.fetches.remove(&fetch)?;
        self.agenda.take_back(ended.timer);
        Some(ended)
    }

    pub(crate) fn injected(&mut self, task: TaskId) -> &mut Injected {
        self.injected.entry(task).or_default()
    }
}
