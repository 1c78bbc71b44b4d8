//! A layer as the executor runs it: its own operator, and before it the steps of a fused layer, with what passes between them.
//! Knows which calls follow which from the protocol, and nothing of where a task's inputs came from.

use std::collections::HashMap;
use std::sync::Arc;

use transload_gpu::{Budget, Partition, Reservation};
use transload_protocol::{Call, Fused, InputSpec, LayerSpec, Memory, Share, StepInput};

use super::executor::run_operator;
use crate::{OperatorError, OperatorRegistry, TaskContext};

/// A layer that this worker was told of.
pub(super) struct PreparedLayer {
    /// As its own operator sees it.
    own: Arc<LayerSpec>,
    program: Option<Program>,
}

/// The steps of a fused layer.
struct Program {
    /// Without arguments, which `steps` has.
    fused: Fused,
    /// Each step as its operator sees it: a layer of its own.
    steps: Vec<Arc<LayerSpec>>,
    /// How often each call of a step is read.
    readers: Vec<u32>,
}

/// Why a task failed, and in which step.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: OperatorError,
    /// `None` for the layer's own operator.
    pub(super) step: Option<u32>,
    /// Why nothing works on the worker's GPU any more, if that is so.
    pub(super) lost_gpu: Option<String>,
}

impl Failure {
    /// Of the layer's own operator.
    pub(super) fn of_own(error: OperatorError) -> Self {
        Self {
            error,
            step: None,
            lost_gpu: None,
        }
    }
}

impl From<OperatorError> for Failure {
    fn from(error: OperatorError) -> Self {
        Self::of_own(error)
    }
}

impl PreparedLayer {
    pub(super) fn new(mut spec: LayerSpec) -> Self {
        let program = spec.fused.take().map(|fused| {
            spec.inputs = listed(&fused.reads);
            Program::new(*fused, &spec)
        });
        Self {
            own: Arc::new(spec),
            program,
        }
    }

    /// What the layer's own operator is told of it.
    pub(super) fn own(&self) -> &Arc<LayerSpec> {
        &self.own
    }

    /// Runs a task of the layer, whose context has the layer's own operator: its steps one after another, then its own operator.
    pub(super) async fn run(
        &self,
        operators: &OperatorRegistry,
        mut context: TaskContext,
    ) -> Result<Vec<Partition>, Failure> {
        let reserved = match &self.program {
            Some(program) => {
                let given = std::mem::take(&mut context.inputs);
                let read = program.run(operators, &context, &given).await?;
                context.inputs = read.inputs;
                read.reserved
            }
            None => Vec::new(),
        };
        let result = run_operator(operators, context).await;
        drop(reserved);
        result.map_err(Failure::of_own)
    }
}

impl Program {
    fn new(mut fused: Fused, own: &LayerSpec) -> Self {
        let steps = fused.steps.iter_mut().map(|step| {
            Arc::new(LayerSpec {
                name: step.layer.clone(),
                operator: step.operator.clone(),
                arguments: std::mem::take(&mut step.arguments),
                first_task: own.first_task,
                outputs: step.outputs,
                inputs: listed(&step.reads),
                resources: own.resources.clone(),
                fused: None,
                gang: false,
                memory: Memory::Host,
                input_memory: Vec::new(),
            })
        });
        let steps = steps.collect();
        Self {
            readers: fused.readers(),
            fused,
            steps,
        }
    }

    /// Makes all calls of one task. Returns what the layer's own operator reads.
    async fn run(
        &self,
        operators: &OperatorRegistry,
        task: &TaskContext,
        given: &[Vec<Partition>],
    ) -> Result<Read, Failure> {
        let mut between = Between {
            program: self,
            position: task.position,
            given,
            made: HashMap::new(),
        };
        for call in self.fused.calls(task.position) {
            let failed = |error| self.failure(call, task, error);
            let (Some(step), Some(layer)) = (
                self.fused.steps.get(call.step as usize),
                self.steps.get(call.step as usize),
            ) else {
                return Err(failed(lost()));
            };
            let read = between.read(&step.reads, call.call).map_err(failed)?;
            let context = TaskContext {
                position: step.positions(task.position).start + call.call,
                layer: Arc::clone(layer),
                step: Some(call.step),
                inputs: read.inputs,
                // Those of the layer's own operator are told.
                rows: Arc::default(),
                ..task.clone()
            };
            let outputs = run_operator(operators, context).await.map_err(failed)?;
            drop(read.reserved);
            between.keep(call, outputs, &task.environment.execution_memory);
        }
        between.read(&self.fused.reads, 0).map_err(Failure::of_own)
    }

    fn failure(&self, call: Call, task: &TaskContext, mut error: OperatorError) -> Failure {
        if let Some(step) = self.fused.steps.get(call.step as usize) {
            let position = step.positions(task.position).start + call.call;
            error.message = format!(
                "{} (in step `{}`, operator `{}`, at position {position}, which runs inside `{}`)",
                error.message, step.layer, step.operator, task.layer.name
            );
        }
        Failure {
            step: Some(call.step),
            ..Failure::of_own(error)
        }
    }
}

/// What steps of one task have made and others have not read yet.
struct Between<'a> {
    program: &'a Program,
    position: u32,
    /// The task's inputs.
    given: &'a [Vec<Partition>],
    made: HashMap<Call, Made>,
}

struct Made {
    partition: Partition,
    readers_left: u32,
    reserved: Reservation,
}

/// The inputs of one call.
struct Read {
    inputs: Vec<Vec<Partition>>,
    /// For partitions that are read for the last time: memory that is in use until that call has ended.
    reserved: Vec<Reservation>,
}

impl Between<'_> {
    /// Keeps output 0 for its readers; others have none. It exists already and nothing can spill it, so that it is accounted for
    /// even where there is no memory left: what operators ask for after that is refused.
    fn keep(&mut self, call: Call, outputs: Vec<Partition>, memory: &Budget) {
        let readers_left = self.program.readers.get(call.step as usize);
        if let (Some(partition), Some(readers_left)) = (outputs.into_iter().next(), readers_left) {
            let made = Made {
                reserved: memory.reserve_over(partition.bytes()),
                partition,
                readers_left: *readers_left,
            };
            self.made.insert(call, made);
        }
    }

    /// What call `call` of a step reads. The last reader of a partition takes it away.
    fn read(&mut self, reads: &[StepInput], call: u32) -> Result<Read, OperatorError> {
        let mut reserved = Vec::new();
        let inputs = reads
            .iter()
            .map(|read| match read {
                StepInput::Layer { input, share } => {
                    let given = self.given.get(*input as usize).ok_or_else(lost)?;
                    let range = share.of(call, count(given));
                    let range = range.start as usize..range.end as usize;
                    Ok(given.get(range).ok_or_else(lost)?.to_vec())
                }
                StepInput::Step { step, each } => self.take(*step, *each, call, &mut reserved),
            })
            .collect::<Result<_, OperatorError>>()?;
        Ok(Read { inputs, reserved })
    }

    fn take(
        &mut self,
        step: u32,
        each: u32,
        reader: u32,
        reserved: &mut Vec<Reservation>,
    ) -> Result<Vec<Partition>, OperatorError> {
        let steps = &self.program.fused.steps;
        let read = steps.get(step as usize).ok_or_else(lost)?;
        let made = count_of(read.positions(self.position));
        let calls = Share::Each(each).of(reader, made);
        calls
            .map(|call| {
                let call = Call { step, call };
                let made = self.made.get_mut(&call).ok_or_else(lost)?;
                made.readers_left = made.readers_left.saturating_sub(1);
                if made.readers_left > 0 {
                    return Ok(made.partition.clone());
                }
                let made = self.made.remove(&call).ok_or_else(lost)?;
                reserved.push(made.reserved);
                Ok(made.partition)
            })
            .collect()
    }
}

/// The program reads what it has not made, which its check forbids.
fn lost() -> OperatorError {
    debug_assert!(false, "a fused task reads what it has not made");
    OperatorError::new("a fused task reads what it has not made; this is a fault of transload")
}

/// The inputs of an operator that is handed its partitions one by one.
fn listed(reads: &[StepInput]) -> Vec<InputSpec> {
    vec![InputSpec::Listed; reads.len()]
}

fn count<T>(list: &[T]) -> u32 {
    u32::try_from(list.len()).unwrap_or(u32::MAX)
}

fn count_of(range: std::ops::Range<u32>) -> u32 {
    range.end.saturating_sub(range.start)
}

#[cfg(test)]
pub(super) mod tests;
