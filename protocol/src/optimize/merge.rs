//! Builds the program of a layer that other layers run inside of. Used by the passes that merge layers.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::draft::source_of;
use crate::{Edges, Fused, Layer, LayerInput, Share, Step, StepInput};

/// A fused layer in the making: what it runs before its own operator, and what comes from outside.
#[derive(Default)]
pub(super) struct Merge {
    steps: Vec<Step>,
    inputs: Vec<LayerInput>,
    /// Inputs by source and rule, so that two steps which read the same do not make it two inputs.
    known: BTreeMap<(u32, Rule), u32>,
    /// The step that each merged layer became, by its index in the draft.
    became: BTreeMap<u32, u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rule {
    OneToOne,
    Shuffle,
    Broadcast,
    Tree(u32),
}

/// Where the partitions of an input of a layer are found in the merged one.
enum Found {
    Input(u32),
    Step(u32),
}

impl Merge {
    /// Adds a layer that runs `times` times in each task. What it reads of layers added before is found inside the task. With
    /// `times` above 1 all its inputs are one to one, and it has no steps that run more than once.
    pub(super) fn add(&mut self, index: u32, mut layer: Layer, times: u32) {
        let reads = self.add_program(&mut layer, times);
        self.steps.push(Step {
            layer: layer.name,
            operator: layer.operator,
            arguments: layer.arguments,
            tasks: layer.tasks,
            outputs: layer.outputs,
            times,
            reads,
        });
        self.became.insert(index, small(self.steps.len() - 1));
    }

    /// Makes `layer` the one that runs all of it.
    pub(super) fn finish(mut self, layer: &mut Layer) {
        let reads = self.add_program(layer, 1);
        layer.inputs = self.inputs;
        layer.fused = Some(Box::new(Fused {
            steps: self.steps,
            reads,
        }));
    }

    /// Adds the steps of a layer, if it is fused already. Returns what its own operator reads.
    fn add_program(&mut self, layer: &mut Layer, times: u32) -> Vec<StepInput> {
        let fused = layer.fused.take().map_or_else(
            || Fused {
                steps: Vec::new(),
                reads: (0_u32..).zip(&layer.inputs).map(plain_read).collect(),
            },
            |fused| *fused,
        );
        let inputs = std::mem::take(&mut layer.inputs);
        let found: Vec<Found> = inputs
            .into_iter()
            .map(|input| self.find(input, times))
            .collect();
        let first = small(self.steps.len());
        let moved = |read: StepInput| moved(read, &found, first);
        self.steps.extend(fused.steps.into_iter().map(|step| Step {
            times: step.times.saturating_mul(times),
            reads: step.reads.into_iter().map(moved).collect(),
            ..step
        }));
        fused.reads.into_iter().map(moved).collect()
    }

    fn find(&mut self, mut input: LayerInput, times: u32) -> Found {
        if let Some(step) = self.became.get(&source_of(&input)) {
            return Found::Step(*step);
        }
        if times > 1 {
            debug_assert_eq!(input.edges, Edges::OneToOne);
            input.edges = Edges::Tree { arity: times };
        }
        let next = small(self.inputs.len());
        let rule = match &input.edges {
            Edges::OneToOne => Rule::OneToOne,
            Edges::Shuffle => Rule::Shuffle,
            Edges::Broadcast => Rule::Broadcast,
            Edges::Tree { arity } => Rule::Tree(*arity),
            Edges::Explicit(_) => {
                self.inputs.push(input);
                return Found::Input(next);
            }
        };
        match self.known.entry((source_of(&input), rule)) {
            Entry::Occupied(known) => Found::Input(*known.get()),
            Entry::Vacant(unknown) => {
                unknown.insert(next);
                self.inputs.push(input);
                Found::Input(next)
            }
        }
    }
}

/// What the operator of an ordinary layer reads of one of its inputs.
fn plain_read((input, of_layer): (u32, &LayerInput)) -> StepInput {
    let share = match &of_layer.edges {
        Edges::OneToOne => Share::Each(1),
        Edges::Tree { arity } => Share::Each(*arity),
        Edges::Shuffle | Edges::Broadcast | Edges::Explicit(_) => Share::All,
    };
    StepInput::Layer { input, share }
}

/// The same read where its layer is part of another: its steps begin at `first`, its inputs were `found`.
fn moved(read: StepInput, found: &[Found], first: u32) -> StepInput {
    match read {
        StepInput::Step { step, each } => StepInput::Step {
            step: first.saturating_add(step),
            each,
        },
        StepInput::Layer { input, share } => match (found.get(input as usize), share) {
            (Some(Found::Step(step)), Share::Each(each)) => StepInput::Step { step: *step, each },
            (Some(Found::Step(step)), Share::All) => {
                // Only inputs with a rule of single partitions are merged, and those are read by shares.
                debug_assert!(false, "step {step} is read as a whole");
                StepInput::Layer { input, share }
            }
            (Some(Found::Input(input)), share) => StepInput::Layer {
                input: *input,
                share,
            },
            (None, share) => StepInput::Layer { input, share },
        },
    }
}

fn small(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
