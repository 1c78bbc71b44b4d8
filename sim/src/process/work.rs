//! What a simulated worker's executors and disk do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use transload_protocol::{
    Attempt, GraphId, LayerIndex, LayerSpec, Memory, PartitionId, Resources, TaskErrorKind, TaskId,
    Tier,
};
use transload_worker::{Given, Input};

use super::{Death, Execution, Life, Outcome, Process, Stage, Stored};
use crate::graphs::{Fate, GraphPlan, operate};
use crate::network::Happening;
use crate::world::{Step, World};

impl Process {
    pub(super) fn start(
        &mut self,
        world: &mut World,
        task: TaskId,
        attempt: Attempt,
        (layer, halved): (LayerIndex, bool),
        inputs: &[Vec<Given>],
    ) -> Step {
        let Some(spec) = self.layers.get(&(task.graph, layer)).cloned() else {
            return Err(format!(
                "starts {task} of layer {layer}, which it was not told of"
            ));
        };
        if self.running.contains_key(&(task, attempt)) {
            return Err(format!(
                "starts attempt {} of {task} a second time",
                attempt.0
            ));
        }
        let mut free = self.free();
        let is_behind = spec.resources.slots > 0 && !self.ahead.is_empty();
        // A member of a gang takes what it needs, beyond what is free if need be.
        let is_ahead = !spec.gang && (is_behind || !free.take(&spec.resources));
        if is_ahead && spec.resources != Resources::slots(1) {
            return Err(format!("starts {task} with no slot free for it"));
        }
        // Those of gangs may wait for what starts.
        let mut running = self.running.values();
        let beside_another = running.any(|it| it.holds_its_slot() && it.gang.is_none());
        let on_device = (spec.memory == Memory::Device).then_some(Tier::Device);
        for tier in [Some(Tier::Host), on_device].into_iter().flatten() {
            if beside_another && self.tier_bytes(tier) > self.limit_of(tier) {
                return Err(format!("starts {task} beside another with {tier} overfull"));
            }
        }
        let ran_out = self.check_help(world, (task, attempt), &spec, halved)?;
        if ran_out > 0 {
            self.check_emptied(world, task, inputs)?;
        }
        let plan = world.plans.get(&task.graph).cloned();
        let Some(plan) = plan else {
            return Err(format!("starts {task}, which nobody submitted"));
        };
        self.check_place(world, task, &plan)?;
        let gang = self.join_gang(world, (task, attempt), layer, &spec)?;
        let values = self.compute(task, &spec, &world.plans, inputs)?;
        if plan.values_of(task.index) != values {
            return Err(format!("starts {task} with the wrong inputs"));
        }
        let injected = world.injected(task);
        injected.runs += 1;
        let runs = injected.runs;
        let is_offered = !plan.is_scattered || world.offered.contains(&task.graph);
        let outcome = match plan.fate(task.index) {
            _ if !is_offered => Outcome::Fails(TaskErrorKind::Operator),
            Fate::Fails(kind) => Outcome::Fails(kind),
            Fate::Flaky { kind, times } if runs <= times => Outcome::Fails(kind),
            Fate::Deadly { times } if runs <= times => Outcome::KillsTheProcess,
            // Nothing that ran in a gang is started again alone.
            Fate::Hungry { times } if spec.gang && runs <= times => {
                Outcome::Fails(TaskErrorKind::OutOfMemory)
            }
            Fate::Hungry { times } if !spec.gang && ran_out < times => {
                Outcome::Fails(TaskErrorKind::OutOfMemory)
            }
            Fate::Normal | Fate::Flaky { .. } | Fate::Deadly { .. } | Fate::Hungry { .. } => {
                Outcome::Done { values, runs }
            }
        };
        let token = world.token();
        let waits = Self::draw_waits(world);
        self.running.insert(
            (task, attempt),
            Execution {
                token,
                resources: spec.resources,
                reads: held(inputs),
                memory: self.memory_here(spec.memory),
                outcome,
                stage: if is_ahead { Stage::Ahead } else { Stage::Works },
                waits,
                is_helped: ran_out > 0,
                gang,
                told_to_stop: false,
            },
        );
        world.count("tasks started");
        if is_ahead {
            world.count("tasks started ahead");
            self.ahead.push_back((task, attempt));
        } else {
            let micros = world.scenario.task_micros;
            self.end_later(world, task, attempt, token, micros);
        }
        Ok(())
    }

    /// What running tasks leave; members of gangs may occupy more than there is.
    pub(super) fn free(&self) -> Resources {
        let mut free = self.config.resources.clone();
        let running = self.running.values();
        for execution in running.filter(|running| running.holds_its_slot()) {
            free.set_aside(&execution.resources);
        }
        free
    }

    /// Those that were started ahead run as soon as slots are free.
    pub(super) fn run_those_ahead(&mut self, world: &mut World) {
        let mut free = self.free();
        while let Some((task, attempt)) = self.ahead.front().copied()
            && let Some(execution) = self.running.get_mut(&(task, attempt))
            && free.take(&execution.resources)
        {
            execution.stage = Stage::Works;
            let token = execution.token;
            self.ahead.pop_front();
            let micros = world.scenario.task_micros;
            self.end_later(world, task, attempt, token, micros);
        }
    }

    pub(super) fn end_later(
        &self,
        world: &mut World,
        task: TaskId,
        attempt: Attempt,
        token: u64,
        micros: u64,
    ) {
        let process = self.index;
        world.soon(
            micros,
            Happening::TaskEnds {
                process,
                task,
                attempt,
                token,
            },
        );
    }

    /// What the operator makes of the inputs as they are in this worker's memory.
    fn compute(
        &self,
        task: TaskId,
        spec: &LayerSpec,
        plans: &BTreeMap<GraphId, Arc<GraphPlan>>,
        inputs: &[Vec<Given>],
    ) -> Result<Vec<u64>, String> {
        let mut values = Vec::new();
        for list in inputs {
            let mut of_input = Vec::new();
            for given in list {
                let partition = match given {
                    Given::Held(partition) => partition,
                    Given::Empty(partition) => {
                        // Of another graph where it is imported.
                        let value = plans.get(&partition.task.graph).and_then(|plan| {
                            let values = plan.values_of(partition.task.index);
                            let value = values.get(partition.output as usize).copied();
                            value.filter(|value| plan.may_be_empty(*value))
                        });
                        of_input.push(value.ok_or_else(|| {
                            format!("starts {task} as if {partition} were empty")
                        })?);
                        continue;
                    }
                };
                match self.store.get(partition) {
                    Some(stored) if stored.is_readable() => of_input.push(stored.value),
                    Some(stored) => {
                        return Err(format!(
                            "starts {task}: {partition} is in {}, moves {:?}, and is read in {}",
                            stored.tier, stored.moves, stored.read_in
                        ));
                    }
                    None => return Err(format!("starts {task}: {partition} is not here")),
                }
            }
            values.push(of_input);
        }
        let Some(position) = task.index.checked_sub(spec.first_task) else {
            return Err(format!(
                "starts {task} as if it were of layer `{}`",
                spec.name
            ));
        };
        if spec.operator == transload_protocol::IMPORT_OPERATOR {
            return Ok(values.concat());
        }
        let own = spec.arguments.per_task.get(position as usize);
        Ok(operate(
            &spec.operator,
            &spec.arguments.common.0,
            own.map(|blob| blob.0.as_ref()),
            position,
            task.index,
            &values,
            spec.outputs,
        ))
    }

    pub(super) fn stop(&mut self, world: &mut World, task: TaskId, attempt: Attempt) -> Step {
        let token = world.token();
        let heeds = world.random.chance(700);
        let Some(execution) = self.running.get_mut(&(task, attempt)) else {
            return Err(format!(
                "stops attempt {} of {task}, which does not run",
                attempt.0
            ));
        };
        world.count("tasks stopped");
        execution.told_to_stop = true;
        if execution.stage == Stage::Ahead {
            // It has not begun, and never will.
            execution.outcome = Outcome::Stopped;
            execution.token = token;
            self.ahead.retain(|waiting| *waiting != (task, attempt));
            self.end_later(world, task, attempt, token, 1);
            return Ok(());
        }
        // Some operators notice at once, some only when they are done. One that waits is never too busy, and none begins to.
        execution.waits = 0;
        if heeds || !execution.holds_its_slot() || execution.stage == Stage::Meets {
            execution.outcome = Outcome::Stopped;
            execution.token = token;
            self.end_later(world, task, attempt, token, 2_000);
        }
        Ok(())
    }

    /// An operator returns.
    pub(crate) fn task_ended(
        &mut self,
        world: &mut World,
        task: TaskId,
        attempt: Attempt,
        token: u64,
    ) -> Step {
        let key = (task, attempt);
        if self.running.get(&key).is_none_or(|it| it.token != token) {
            return Ok(());
        }
        if self.meets_first(world, key) || self.waits_first(world, key)? {
            return Ok(());
        }
        let Some(execution) = self.running.remove(&key) else {
            return Ok(());
        };
        self.run_those_ahead(world);
        let is_done = matches!(execution.outcome, Outcome::Done { .. });
        if let Some(gang) = execution.gang.filter(|_| !is_done) {
            world.lose_member(gang.incarnation);
        }
        match execution.outcome {
            Outcome::KillsTheProcess => {
                world.count("workers killed by a task");
                self.die(world, Death::Killed);
                Ok(())
            }
            Outcome::LosesItsPeer => self.lose_peer(world, key),
            Outcome::Stopped => {
                let (kind, message) = (TaskErrorKind::Operator, "stopped".to_owned());
                self.handle(
                    world,
                    Input::TaskFailed {
                        task,
                        attempt,
                        kind,
                        message,
                        step: None,
                    },
                )
            }
            Outcome::Fails(kind) => {
                world.injected(task).failures.push(kind);
                world.count("task failures");
                if kind == TaskErrorKind::OutOfMemory {
                    *self.ran_out.entry(key).or_insert(0) += 1;
                }
                let message = "as planned".to_owned();
                self.handle(
                    world,
                    Input::TaskFailed {
                        task,
                        attempt,
                        kind,
                        message,
                        step: None,
                    },
                )
            }
            Outcome::Done { values, runs } => {
                let mut sizes = Vec::new();
                for (output, value) in (0_u32..).zip(values) {
                    let bytes = world
                        .plans
                        .get(&task.graph)
                        .map_or(0, |plan| plan.bytes_of(value, runs));
                    sizes.push(bytes);
                    let tier = execution.memory.tier();
                    let stored = Stored::new(value, bytes, tier);
                    self.store.insert(PartitionId { task, output }, stored);
                }
                self.handle(
                    world,
                    Input::TaskDone {
                        task,
                        attempt,
                        bytes: sizes,
                        rows: 0,
                    },
                )
            }
        }
    }

    /// The process ends, and everything in it with it.
    pub(crate) fn die(&mut self, world: &mut World, death: Death) {
        self.life = Life::Dead {
            since: world.now,
            silent: death == Death::PowerCut,
        };
        if death != Death::PowerCut {
            let members = self.running.values().filter_map(|it| it.gang);
            members.for_each(|gang| world.lose_member(gang.incarnation));
        }
        self.store.clear();
        self.running.clear();
        self.ahead.clear();
        self.moves.clear();
        self.tick = None;
        for fetch in self.fetches() {
            world.end_fetch(fetch);
        }
        self.fetching.clear();
        self.up_until = match death {
            Death::Orderly => self.up.last(),
            Death::Killed => world
                .now
                .after_micros(world.random.below(world.scenario.latency_micros + 1)),
            Death::PowerCut => world.now,
        };
        if death != Death::PowerCut {
            let seen = self.up_until.max(world.now).after_micros(1);
            world.agenda.push(
                seen.after_micros(world.random.below(10_000)),
                Happening::WorkerGone(self.connection()),
            );
        }
    }
}

/// The partitions that are given, each once.
pub(super) fn held(inputs: &[Vec<Given>]) -> BTreeSet<PartitionId> {
    let held = |given: &Given| match given {
        Given::Held(partition) => Some(*partition),
        Given::Empty(_) => None,
    };
    inputs.iter().flatten().filter_map(held).collect()
}
