//! Fused layers: several operators that run one after another inside each task. Made by [`crate::optimize`], carried out by
//! worker processes; everything between them only passes them on. Knows no operator and no bytes.
//!
//! A task of a fused layer runs the calls of its steps, in the order of [`Fused::calls`], and then the layer's own operator.
//! A step is a layer that was: its operator sees the position, the arguments and the inputs that it would have seen there.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::graph::MAX_OUTPUTS_PER_TASK;
use crate::{Arguments, Edges, Layer};

/// What each task of a fused layer runs before the layer's own operator.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Fused {
    /// A step reads only earlier ones, and is read by at least one later step or by the layer's own operator.
    pub steps: Vec<Step>,
    /// What the layer's own operator reads: one entry for each input that it sees.
    pub reads: Vec<StepInput>,
}

/// A layer that runs inside the tasks of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Name of the layer that it was, for people.
    pub layer: String,
    /// Name of a registered operator.
    pub operator: String,
    /// What the operator is told; per-task arguments are by the position in the layer that it was.
    pub arguments: Arguments,
    /// Number of tasks of the layer that it was.
    pub tasks: u32,
    /// Partitions that each call makes, at least 1. Only output 0 is read.
    pub outputs: u32,
    /// Task `i` of the fused layer calls the operator at positions `[i * times, (i + 1) * times)`, as far as there are so many.
    /// More than 1 below a reduction.
    pub times: u32,
    /// What each call reads: one entry for each input that the operator sees.
    pub reads: Vec<StepInput>,
}

/// Where a call inside a fused task finds the partitions of one of its inputs. Calls of a step are counted from 0 in each task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepInput {
    /// Among the partitions that the task was given.
    Layer {
        /// Position in [`Layer::inputs`].
        input: u32,
        /// Which of that input's partitions.
        share: Share,
    },
    /// Call `j` reads output 0 of calls `[j * each, (j + 1) * each)` of an earlier step, as far as there are so many.
    Step {
        /// Position in [`Fused::steps`].
        step: u32,
        /// How many calls' outputs, at least 1.
        each: u32,
    },
}

/// Which partitions of a task's input one call reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Share {
    /// Every call reads all of them: the rule of [`Edges::Shuffle`], [`Edges::Broadcast`] and [`Edges::Explicit`].
    All,
    /// Call `j` reads `[j * n, (j + 1) * n)`, as far as there are so many: the rule of [`Edges::OneToOne`] and [`Edges::Tree`].
    Each(u32),
}

/// One call of a step's operator inside a task of a fused layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Call {
    /// Position in [`Fused::steps`].
    pub step: u32,
    /// Which of the step's calls in this task, from 0.
    pub call: u32,
}

impl Step {
    /// Where the step runs inside the fused layer's task at `position`: positions in the layer that it was.
    pub fn positions(&self, position: u32) -> Range<u32> {
        chunk(position, self.times, self.tasks)
    }
}

impl Share {
    /// Which of `count` partitions of the task's input call `call` reads.
    pub fn of(self, call: u32, count: u32) -> Range<u32> {
        match self {
            Self::All => 0..count,
            Self::Each(each) => chunk(call, each, count),
        }
    }
}

impl Fused {
    /// Every call of the task at `position`, each after those that it reads and as late as that allows: what a call makes is
    /// soon read, so that few partitions exist at a time. Costs time and memory in proportion to the calls and their reads.
    pub fn calls(&self, position: u32) -> Vec<Call> {
        let counts: Vec<u32> = self
            .steps
            .iter()
            .map(|step| step.positions(position).len() as u32)
            .collect();
        let mut met: Vec<Vec<bool>> = counts
            .iter()
            .map(|count| vec![false; *count as usize])
            .collect();
        let mut calls = Vec::new();
        let mut stack = Vec::new();
        push_reads(&self.reads, 0, &counts, &mut stack);
        while let Some(visit) = stack.pop() {
            let call = match visit {
                Visit::Leave(call) => {
                    calls.push(call);
                    continue;
                }
                Visit::Enter(call) => call,
            };
            let met = met.get_mut(call.step as usize);
            let Some(met) = met.and_then(|met| met.get_mut(call.call as usize)) else {
                continue;
            };
            if !std::mem::replace(met, true) {
                stack.push(Visit::Leave(call));
                if let Some(step) = self.steps.get(call.step as usize) {
                    push_reads(&step.reads, call.call, &counts, &mut stack);
                }
            }
        }
        calls
    }

    /// For each step, how often each of its calls is read inside a task.
    pub fn readers(&self) -> Vec<u32> {
        let mut readers = vec![0_u32; self.steps.len()];
        let by_steps = self.steps.iter().flat_map(|step| &step.reads);
        for read in by_steps.chain(&self.reads) {
            if let StepInput::Step { step, .. } = read
                && let Some(count) = readers.get_mut(*step as usize)
            {
                *count += 1;
            }
        }
        readers
    }

    /// Whether the fused layer keeps the rules of the types above.
    pub(crate) fn check(&self, layer: &Layer) -> Result<(), String> {
        for (index, step) in self.steps.iter().enumerate() {
            let bad = |reason: String| format!("step {index} (`{}`): {reason}", step.layer);
            check_shape(step, layer).map_err(bad)?;
            for read in &step.reads {
                self.check_read(*read, index, step.times, layer)
                    .map_err(bad)?;
            }
        }
        for read in &self.reads {
            self.check_read(*read, self.steps.len(), 1, layer)
                .map_err(|reason| format!("its own operator: {reason}"))?;
        }
        match self.readers().iter().position(|readers| *readers == 0) {
            Some(unread) => Err(format!("step {unread} is read by no other")),
            None => Ok(()),
        }
    }

    /// Whether a call that runs `times` times per task, as part `reader` of the program, may read this.
    fn check_read(
        &self,
        read: StepInput,
        reader: usize,
        times: u32,
        layer: &Layer,
    ) -> Result<(), String> {
        match read {
            StepInput::Step { step, each } => {
                let Some(read) = self
                    .steps
                    .get(step as usize)
                    .filter(|_| (step as usize) < reader)
                else {
                    return Err(format!("it reads step {step}, which is not before it"));
                };
                if u64::from(times) * u64::from(each) == u64::from(read.times) {
                    Ok(())
                } else {
                    Err(format!(
                        "{times} calls that read {each} outputs each do not fit {} calls of step {step}",
                        read.times
                    ))
                }
            }
            StepInput::Layer { input, share } => {
                let Some(of_layer) = layer.inputs.get(input as usize) else {
                    return Err(format!("it reads input {input}, which the layer lacks"));
                };
                let given = match &of_layer.edges {
                    Edges::OneToOne => Some(1),
                    Edges::Tree { arity } => Some(*arity),
                    Edges::Shuffle | Edges::Broadcast | Edges::Explicit(_) => None,
                };
                match (given, share) {
                    (None, Share::All) => Ok(()),
                    (Some(given), Share::Each(each))
                        if u64::from(times) * u64::from(each) == u64::from(given) =>
                    {
                        Ok(())
                    }
                    (None | Some(_), Share::All | Share::Each(_)) => Err(format!(
                        "its share of input {input} does not fit the rule of that input"
                    )),
                }
            }
        }
    }
}

enum Visit {
    /// Its reads come first.
    Enter(Call),
    /// Its reads have come.
    Leave(Call),
}

fn push_reads(reads: &[StepInput], reader: u32, counts: &[u32], stack: &mut Vec<Visit>) {
    // The last on the stack is the first to be visited.
    for read in reads.iter().rev() {
        if let StepInput::Step { step, each } = read {
            let count = counts.get(*step as usize).copied().unwrap_or(0);
            let calls = chunk(reader, *each, count).rev();
            stack.extend(calls.map(|call| Visit::Enter(Call { step: *step, call })));
        }
    }
}

/// Part `index` of `count` things cut into pieces of `size`.
fn chunk(index: u32, size: u32, count: u32) -> Range<u32> {
    let start = index.saturating_mul(size).min(count);
    start..start.saturating_add(size).min(count)
}

fn check_shape(step: &Step, layer: &Layer) -> Result<(), String> {
    let arguments = step.arguments.per_task.len();
    if step.tasks == 0 || step.outputs == 0 || step.times == 0 {
        Err("it has no tasks, no outputs or no calls; all must be at least 1".to_owned())
    } else if step.outputs > MAX_OUTPUTS_PER_TASK {
        Err(format!(
            "{} outputs per task; the limit is {MAX_OUTPUTS_PER_TASK}",
            step.outputs
        ))
    } else if step.tasks.div_ceil(step.times) != layer.tasks {
        Err(format!(
            "{} tasks in groups of {} do not fit {} tasks",
            step.tasks, step.times, layer.tasks
        ))
    } else if arguments != 0 && arguments != step.tasks as usize {
        Err(format!(
            "{arguments} per-task arguments for {} tasks; give one for each, or none",
            step.tasks
        ))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LayerIndex, TaskGraph};

    fn step(name: &str, tasks: u32, times: u32, reads: Vec<StepInput>) -> Step {
        Step {
            layer: name.to_owned(),
            operator: "op".to_owned(),
            arguments: Arguments::default(),
            tasks,
            outputs: 1,
            times,
            reads,
        }
    }

    const fn from_step(step: u32, each: u32) -> StepInput {
        StepInput::Step { step, each }
    }

    const fn from_layer(input: u32, share: Share) -> StepInput {
        StepInput::Layer { input, share }
    }

    /// Seven tasks in groups of three: read, map, and their sum.
    fn summed() -> Fused {
        Fused {
            steps: vec![
                step("read", 7, 3, vec![from_layer(0, Share::Each(1))]),
                step("map", 7, 3, vec![from_step(0, 1)]),
            ],
            reads: vec![from_step(1, 3)],
        }
    }

    fn compile(fused: Fused, edges: Edges) -> Result<(), String> {
        let mut graph = TaskGraph::new("fused");
        graph.push(Layer::new("source", "op", 7));
        let mut layer = Layer::new("sum", "op", 3).reading(LayerIndex(0), edges);
        layer.fused = Some(Box::new(fused));
        graph.push(layer);
        graph.compile().map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn calls_come_after_what_they_read_and_as_late_as_that_allows() {
        let calls = |position| -> Vec<(u32, u32)> {
            let calls = summed().calls(position);
            calls.iter().map(|call| (call.step, call.call)).collect()
        };
        assert_eq!(calls(0), [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2)]);
        assert_eq!(calls(2), [(0, 0), (1, 0)], "the last group is shorter");
        assert_eq!(summed().steps[0].positions(2), 6..7);
    }

    #[test]
    fn a_step_that_two_others_read_is_called_once() {
        let fused = Fused {
            steps: vec![
                step("read", 3, 1, vec![]),
                step("left", 3, 1, vec![from_step(0, 1)]),
                step("right", 3, 1, vec![from_step(0, 1)]),
            ],
            reads: vec![from_step(2, 1), from_step(1, 1)],
        };
        let steps: Vec<u32> = fused.calls(1).iter().map(|call| call.step).collect();
        assert_eq!(steps, [0, 2, 1]);
        assert_eq!(fused.readers(), [2, 1, 1]);
    }

    #[test]
    fn a_program_that_fits_its_layer_is_accepted() {
        compile(summed(), Edges::Tree { arity: 3 }).expect("a valid program");
    }

    #[test]
    fn broken_programs_are_refused_by_name() {
        let tree = || Edges::Tree { arity: 3 };
        let broken = |change: fn(&mut Fused)| {
            let mut fused = summed();
            change(&mut fused);
            fused
        };
        let cases = [
            ("does not fit the rule", broken(|_| ()), Edges::Broadcast),
            (
                "not before",
                broken(|fused| fused.steps[1].reads = vec![from_step(1, 1)]),
                tree(),
            ),
            (
                "which the layer lacks",
                broken(|fused| fused.steps[0].reads = vec![from_layer(1, Share::All)]),
                tree(),
            ),
            (
                "do not fit 3 tasks",
                broken(|fused| fused.steps[0].tasks = 12),
                tree(),
            ),
            ("no calls", broken(|fused| fused.steps[0].times = 0), tree()),
            (
                "do not fit 3 calls",
                broken(|fused| fused.reads = vec![from_step(1, 2)]),
                tree(),
            ),
            (
                "read by no other",
                broken(|fused| fused.steps[1].reads = vec![]),
                tree(),
            ),
            (
                "limit",
                broken(|fused| fused.steps[0].outputs = u32::MAX),
                tree(),
            ),
            (
                "per-task",
                broken(|fused| fused.steps[0].arguments.per_task = vec![Default::default()]),
                tree(),
            ),
        ];
        for (expected, fused, edges) in cases {
            let text = compile(fused, edges).expect_err(expected);
            assert!(text.contains(expected) && text.contains("`sum`"), "{text}");
        }
    }

    #[test]
    fn more_calls_than_a_graph_may_have_tasks_are_refused() {
        let mut graph = TaskGraph::new("fused");
        let mut layer = Layer::new("sum", "op", 1);
        let tasks = crate::graph::MAX_TASKS_PER_GRAPH;
        layer.fused = Some(Box::new(Fused {
            steps: vec![step("read", tasks, tasks, vec![])],
            reads: vec![from_step(0, tasks)],
        }));
        graph.push(layer);
        let text = graph.compile().expect_err("one too many").to_string();
        assert!(text.contains("limit"), "{text}");
    }
}
