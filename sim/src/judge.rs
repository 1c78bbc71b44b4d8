//! Whether a graph's end is the right one, and whether anything is left when all is over.

use transload_protocol::{Resources, TaskError, TaskErrorKind, TaskId};

use crate::graphs::GraphPlan;
use crate::scenario::Scenario;
use crate::world::{Injected, Step, World};

/// As in the scheduler: how often the outputs of one task may be out of reach.
const MAX_LOSSES_PER_TASK: u32 = 8;

/// What was done to a task, or to all of its gang, which runs again and fails together.
fn injected_into(world: &World, plan: Option<&GraphPlan>, task: TaskId) -> Injected {
    let of = |task: &TaskId| world.injected.get(task).cloned().unwrap_or_default();
    let compiled = plan.map(|plan| &plan.compiled);
    let layer = world.gang_of(task).map(|(layer, _)| layer);
    let (Some(compiled), Some(layer)) = (compiled, layer) else {
        return of(&task);
    };
    let mut all = Injected::default();
    for index in compiled.tasks_of(layer) {
        let one = of(&TaskId { index, ..task });
        all.failures.extend(one.failures);
        all.reported += one.reported;
        all.losses += one.losses;
        all.deaths += one.deaths;
        all.peers_lost += one.peers_lost;
    }
    all
}

/// Whether the inputs of a task may not fit into device memory, whatever else is done. What others wait for without their slots
/// stays there, and what page-locked memory is too small for, too, unless it can go straight to disk.
fn may_run_out_of_device_memory(scenario: &Scenario, plan: &GraphPlan, task: u32) -> bool {
    let read = plan.device_bytes_read(task);
    let may_be_in_the_way = scenario.task_waits_per_mille > 0
        || scenario.gang_per_mille > 0
        || scenario.pinned_bytes < scenario.partition_bytes && !scenario.direct_storage
        || scenario.disk_bytes < u64::MAX;
    read > scenario.device_bytes || read > 0 && may_be_in_the_way
}

/// A graph may fail only with a failure that the simulation made happen, or could not be avoided.
pub(crate) fn failure_is_right(world: &World, plan: Option<&GraphPlan>, error: &TaskError) -> Step {
    let wrong = |why: String| Err(format!("a graph failed without reason: {error}: {why}"));
    let Some(layer) = plan.and_then(|plan| plan.compiled.layer_of(error.task.index)) else {
        return wrong("it has no such task".to_owned());
    };
    if layer.name != error.layer || layer.operator != error.operator {
        return wrong(format!(
            "its layer is `{}`, operator `{}`",
            layer.name, layer.operator
        ));
    }
    let injected = injected_into(world, plan, error.task);
    let happened = |name: &str| {
        world
            .report
            .counts
            .get(name)
            .is_some_and(|count| *count > 0)
    };
    let is_deadly = injected.deaths >= world.scenario.worker_deaths_per_task;
    match error.kind {
        TaskErrorKind::Operator | TaskErrorKind::Panic | TaskErrorKind::UnknownOperator => {
            // One that lost another of its gang is the cause of nothing.
            let is_cause = !injected.failures.is_empty() || is_deadly;
            if injected.failures.contains(&error.kind) || injected.peers_lost > 0 && is_cause {
                Ok(())
            } else {
                wrong(format!("its failures were {:?}", injected.failures))
            }
        }
        kind @ (TaskErrorKind::OutOfMemory
        | TaskErrorKind::SpillFailed
        | TaskErrorKind::CorruptPartition
        | TaskErrorKind::Transient) => {
            let may_happen = match kind {
                TaskErrorKind::CorruptPartition => happened("failed loads"),
                TaskErrorKind::OutOfMemory => plan.is_some_and(|plan| {
                    may_run_out_of_device_memory(&world.scenario, plan, error.task.index)
                        || happened("failed copies")
                        || happened("failed spills")
                }),
                TaskErrorKind::SpillFailed => {
                    happened("failed spills") || world.scenario.disk_bytes < u64::MAX
                }
                _ => false,
            };
            if !injected.failures.contains(&kind) && !may_happen {
                wrong(format!("its failures were {:?}", injected.failures))
            } else if injected.reported <= layer.retries && layer.time_limit_ms.is_none() {
                wrong(format!(
                    "it failed {} times and may be retried {} times",
                    injected.reported, layer.retries
                ))
            } else {
                Ok(())
            }
        }
        TaskErrorKind::TimeLimit => match layer.time_limit_ms {
            Some(_) => Ok(()),
            None => wrong("it had all the time that it wanted".to_owned()),
        },
        TaskErrorKind::WorkersLost => {
            if is_deadly || injected.losses > MAX_LOSSES_PER_TASK {
                Ok(())
            } else {
                wrong(format!(
                    "it lost {} workers and its outputs were out of reach {} times",
                    injected.deaths, injected.losses
                ))
            }
        }
        TaskErrorKind::Unschedulable => {
            let is_large = world.scenario.slots_per_task > world.scenario.slots_per_worker.0;
            let may_be_too_many = layer.gang && layer.tasks > 1;
            let asks_for_gpu = layer.resources.named.contains_key(Resources::GPU);
            let may_lack_gpu = asks_for_gpu && world.scenario.worker_has_gpu_per_mille < 1_000;
            if is_large || may_be_too_many || layer.placement.is_some() || may_lack_gpu {
                Ok(())
            } else {
                wrong("every worker can run it".to_owned())
            }
        }
        TaskErrorKind::SourceGone if layer.imports.is_empty() => {
            wrong("it imports nothing".to_owned())
        }
        TaskErrorKind::SourceGone => Ok(()),
    }
}
