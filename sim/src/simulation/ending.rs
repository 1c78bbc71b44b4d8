//! When a run is over, and whether everything is as it must be then.

use std::collections::BTreeSet;

use transload_protocol::{GraphId, TaskId};

use super::{Client, Process, Simulation, Step};

/// Most tasks that the message of a hang explains.
const EXPLAINED_TASKS: usize = 12;
/// Rest after the last work beyond the worker timeout, within which silent deaths are found. Longer than the second for
/// which a worker leaves a full disk alone.
const REST_MICROS: u64 = 1_500_000;

impl Simulation {
    /// Whether the run is over: every client is content, nothing is on its way, and nothing came of waiting a while.
    pub(super) fn has_ended(&mut self) -> Result<bool, String> {
        self.sweep_names();
        if self.world.agenda.has_work() || !self.world.calm {
            self.rest_until = None;
            return Ok(false);
        }
        // A scheduler that was itself silent gives its workers the timeout once more.
        let timeouts = 1 + u64::from(self.world.scenario.scheduler_stalls.min(1));
        let timeout = u64::from(self.world.scenario.worker_timeout_ms) * 1_000;
        // What nobody can run may fail, and others may run then.
        let grace = u64::from(self.world.scenario.unschedulable_grace_ms) * 1_000;
        let rest = timeout * timeouts + grace + REST_MICROS;
        let awake = self.stalled_until.max(self.world.now);
        let until = *self.rest_until.get_or_insert(awake.after_micros(rest));
        if self.world.now < until && !self.stopped {
            return Ok(false);
        }
        if self.clients.iter().all(Client::is_done) || self.stopped {
            Ok(true)
        } else {
            Err(self.picture("hang: nobody does anything any more"))
        }
    }

    /// Has all names taken away as soon as nobody else wants anything: they outlive their clients.
    fn sweep_names(&mut self) {
        let is_swept = self.is_swept || self.world.scenario.share_per_mille == 0;
        if is_swept || !self.world.calm || !self.clients.iter().all(Client::is_done) {
            return;
        }
        self.is_swept = true;
        let client = Client::sweeper(self.clients.len(), &mut self.world);
        self.clients.push(client);
    }

    /// What is stuck, and why, in the scheduler's own words.
    pub(super) fn picture(&self, what: &str) -> String {
        let mut text = what.to_owned();
        for client in self.clients.iter().filter(|client| !client.is_done()) {
            text.push_str(&format!("\n{}", client.describe()));
            for task in client.waits_for().into_iter().take(EXPLAINED_TASKS) {
                let explanation = self.scheduler.explain(task);
                text.push_str(&format!(
                    "\n  {task}: {}; {}",
                    explanation.summary,
                    explanation.details.join("; ")
                ));
            }
        }
        for process in self.processes.iter().filter(|process| process.is_alive()) {
            text.push_str(&format!(
                "\nprocess {} ({:?}): {:?}",
                process.index,
                process.id,
                process.machine.load(self.world.now)
            ));
        }
        text
    }

    /// While nothing is under way: workers hold what clients hold of finished graphs, and nothing else of them.
    pub(super) fn check_quiet(&mut self) -> Step {
        self.world.count("quiet moments");
        for process in &self.processes {
            let (true, true, Some(worker)) = (process.is_alive(), process.in_cluster(), process.id)
            else {
                continue;
            };
            let stored = process.stored();
            for (partition, _) in &stored {
                let task = partition.task;
                let owner = self
                    .clients
                    .iter()
                    .find(|it| it.id == Some(task.graph.client));
                let Some(owner) = owner else {
                    return Err(format!(
                        "process {} holds {partition} of nobody",
                        process.index
                    ));
                };
                // What is found of gangs is settled when all workers are back.
                let is_unsettled =
                    self.scheduler.is_recovering() && self.world.gang_of(task).is_some();
                let is_needed =
                    owner.may_hold(task, worker) || self.is_needed_by_others(task.graph);
                if !is_needed && !is_unsettled {
                    return Err(format!(
                        "process {} holds {partition}, which nobody needs there\n{}",
                        process.index,
                        owner.describe()
                    ));
                }
            }
            let expected = self
                .clients
                .iter()
                .flat_map(|client| client.holds_on(worker));
            for partition in expected {
                if !stored.iter().any(|(id, _)| *id == partition) {
                    return Err(format!(
                        "process {} does not hold {partition}, which a client was told it has",
                        process.index
                    ));
                }
            }
        }
        Ok(())
    }

    /// Whether a graph that is not over may read results of that one, be it through others that are, or somebody may hold some.
    fn is_needed_by_others(&self, graph: GraphId) -> bool {
        let mut seen = BTreeSet::from([graph]);
        let mut sources = vec![graph];
        while let Some(source) = sources.pop() {
            let needs = |it: &Client| it.imports_from(source) || it.shares(source);
            if self.world.named.contains(&source) || self.clients.iter().any(needs) {
                return true;
            }
            let plans = self.world.plans.iter();
            let importers = plans.filter(|(_, plan)| plan.imports_from(source));
            sources.extend(importers.map(|(id, _)| *id).filter(|id| seen.insert(*id)));
        }
        false
    }

    /// Nothing is left anywhere.
    pub(super) fn check_end(&self) -> Step {
        let living = || self.processes.iter().filter(|process| process.is_alive());
        if self.stopped {
            return match living().find(|process| process.in_cluster()) {
                Some(process) => Err(format!("process {} outlives the shutdown", process.index)),
                None => Ok(()),
            };
        }
        let info = self.scheduler.info();
        let busy = info.workers.iter().find(|worker| worker.assigned > 0);
        if info.graphs_running > 0 || info.tasks_ready > 0 || busy.is_some() {
            return Err(format!("the scheduler is not idle: {info:?}"));
        }
        let connected = self.clients.iter().filter(|it| it.is_connected()).count();
        if info.clients as usize != connected {
            return Err(format!(
                "the scheduler counts {} clients, not {connected}",
                info.clients
            ));
        }
        let members = living().filter(|process| process.in_cluster()).count();
        if info.workers.len() != members {
            return Err(format!(
                "the scheduler counts {} workers, not {members}",
                info.workers.len()
            ));
        }
        for graph in self.world.plans.keys() {
            let task = TaskId {
                graph: *graph,
                index: 0,
            };
            let summary = self.scheduler.explain(task).summary;
            if !summary.contains("is unknown") {
                return Err(format!("graph {graph} was never forgotten: {summary}"));
            }
        }
        living().try_for_each(Process::check_empty)
    }
}
