//! Which tasks that read nothing near belong together: families, each read by one reader later on.
//!
//! Asked by `place`, so that one worker makes what is read together, and families are finished before others are begun. Kept by
//! `transition` and `place`. Knows positions in a layer, and nothing of what its tasks are.

use std::collections::BTreeSet;

use transload_protocol::{CompiledGraph, Edges, LayerIndex, Source};

use crate::bits::BitSet;
use crate::slab::{Slot, WorkerSlot};

/// Larger families are not formed of smaller ones.
const MOST_TASKS: u32 = 4_096;
/// Readers in a list of edges whose partitions lie further apart are no neighbours.
const WIDEST_READER: u32 = 64;
/// There are to be so many families for each worker, or they are made smaller: who is done first takes the next.
const FAMILIES_PER_WORKER: u32 = 4;

/// How a layer falls into families.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Shape {
    /// Into runs of equal length: one of these, ascending. Each is a multiple of the one before, as the levels of a tree are.
    Even(Vec<u32>),
    /// Into runs that begin at these positions.
    Uneven(Vec<u32>),
}

/// Where the families of a layer begin.
#[derive(Debug)]
enum Starts {
    /// Not decided before a task is handed out: so many tasks, or so many.
    Undecided(Vec<u32>),
    Every(u32),
    At(BitSet),
}

/// The families of one layer, and how far each worker is with its own.
#[derive(Debug)]
pub(crate) struct Families {
    tasks: u32,
    starts: Starts,
    /// Every family that begins before this position was begun.
    untouched: u32,
    /// By worker slot: the position after the last task that it got, or 0.
    after_last: Vec<u32>,
    /// Positions of ready tasks that were handed out before. Others wait for them already.
    returned: BTreeSet<u32>,
}

impl Families {
    /// Those of each layer; `None` where it has none, or where its tasks follow their inputs in any case.
    pub(crate) fn of_graph(compiled: &CompiledGraph) -> Vec<Option<Self>> {
        let shapes = shapes(compiled);
        let layers = compiled.layers().iter();
        let reads_near = layers.map(|layer| layer.inputs.iter().any(|it| !it.edges.reads_all()));
        let tasks = compiled.layers().iter().map(|layer| layer.tasks);
        shapes
            .into_iter()
            .zip(tasks.zip(reads_near))
            .map(|(shape, (tasks, reads_near))| match shape {
                Some(shape) if !reads_near => Self::new(tasks, shape),
                Some(_) | None => None,
            })
            .collect()
    }

    fn new(tasks: u32, shape: Shape) -> Option<Self> {
        let starts = match shape {
            Shape::Even(mut sizes) => {
                sizes.retain(|size| *size < tasks);
                (!sizes.is_empty()).then_some(Starts::Undecided(sizes))?
            }
            Shape::Uneven(positions) => {
                let mut starts = BitSet::default();
                for position in positions {
                    starts.insert(position);
                }
                Starts::At(starts)
            }
        };
        Some(Self {
            tasks,
            starts,
            untouched: 0,
            after_last: Vec::new(),
            returned: BTreeSet::new(),
        })
    }

    /// The best task of the layer for a worker among those that it may have: one that came back, the next of the family that it has
    /// begun, the first of one that nobody has begun, any other.
    pub(crate) fn pick(
        &self,
        worker: WorkerSlot,
        ready: &BitSet,
        may_have: impl Fn(u32) -> bool,
    ) -> Option<u32> {
        let mut returned = self.returned.iter().copied();
        if let Some(position) = returned.find(|position| may_have(*position)) {
            return Some(position);
        }
        self.next_of_own(worker, ready)
            .filter(|position| may_have(*position))
            .or_else(|| {
                let first = ready.first_from(self.untouched);
                first.filter(|position| may_have(*position))
            })
            .or_else(|| ready.iter().find(|position| may_have(*position)))
    }

    fn next_of_own(&self, worker: WorkerSlot, ready: &BitSet) -> Option<u32> {
        let after = *self.after_last.get(worker.index())?;
        let last = after.checked_sub(1)?;
        let next = ready.first_from(after)?;
        (next < self.end_after(last)).then_some(next)
    }

    /// Where the family ends that this position belongs to.
    fn end_after(&self, position: u32) -> u32 {
        match &self.starts {
            Starts::Undecided(_) => position + 1,
            Starts::Every(size) => (position / size + 1).saturating_mul(*size),
            Starts::At(starts) => starts.first_from(position + 1).unwrap_or(self.tasks),
        }
    }

    /// A task was handed to a worker, one of so many.
    pub(crate) fn on_assigned(&mut self, worker: WorkerSlot, position: u32, workers: usize) {
        if let Starts::Undecided(sizes) = &self.starts {
            let workers = u32::try_from(workers).unwrap_or(u32::MAX);
            let most = self.tasks / workers.saturating_mul(FAMILIES_PER_WORKER).max(1);
            let fitting = sizes.iter().copied().rfind(|size| *size <= most);
            let size = fitting.or_else(|| sizes.first().copied());
            self.starts = Starts::Every(size.unwrap_or(1).max(1));
        }
        if self.after_last.len() <= worker.index() {
            self.after_last.resize(worker.index() + 1, 0);
        }
        self.after_last[worker.index()] = position + 1;
        if position >= self.untouched {
            self.untouched = self.end_after(position);
        }
    }

    /// A task that was handed out before is ready again.
    pub(crate) fn on_returned(&mut self, position: u32) {
        self.returned.insert(position);
    }

    /// A task is not ready any more.
    pub(crate) fn on_taken(&mut self, position: u32) {
        self.returned.remove(&position);
    }

    /// The worker is gone, and another may get its slot.
    pub(crate) fn forget(&mut self, worker: WorkerSlot) {
        if let Some(after) = self.after_last.get_mut(worker.index()) {
            *after = 0;
        }
    }

    /// For the check: positions that came back.
    pub(crate) fn returned(&self) -> &BTreeSet<u32> {
        &self.returned
    }

    /// For the check: workers that have begun a family.
    pub(crate) fn begun(&self) -> impl Iterator<Item = WorkerSlot> {
        (0_u32..)
            .zip(&self.after_last)
            .filter(|(_, after)| **after > 0)
            .map(|(slot, _)| WorkerSlot(slot))
    }
}

/// The shape of each layer, as its readers want it. Later layers first: a tree's upper levels shape its lower ones.
fn shapes(compiled: &CompiledGraph) -> Vec<Option<Shape>> {
    let layers = compiled.layers();
    // Only what roots make, and what is made of it one by one, is worth a look at every edge.
    let mut is_near_root: Vec<bool> = Vec::with_capacity(layers.len());
    for layer in layers {
        let mut near = layer.inputs.iter().filter(|it| !it.edges.reads_all());
        is_near_root.push(near.all(|input| {
            let Source::Layer(source) = input.source;
            input.edges == Edges::OneToOne && is_near_root[source.0 as usize]
        }));
    }
    let mut shapes: Vec<Option<Shape>> = vec![None; layers.len()];
    for (index, layer) in layers.iter().enumerate().rev() {
        for (at, input) in (0_u32..).zip(&layer.inputs) {
            let Source::Layer(source) = input.source;
            let source = source.0 as usize;
            if shapes[source].is_some() {
                continue;
            }
            shapes[source] = match &input.edges {
                Edges::OneToOne => shapes[index].clone(),
                Edges::Tree { arity } => Some(below_tree(*arity, shapes[index].as_ref())),
                Edges::Explicit(_) if is_near_root[source] => below_list(compiled, index, at),
                Edges::Explicit(_) | Edges::Shuffle | Edges::Broadcast => None,
            };
        }
    }
    shapes
}

/// One reader's inputs, or those of all readers of a family above.
fn below_tree(arity: u32, above: Option<&Shape>) -> Shape {
    let above: &[u32] = match above {
        Some(Shape::Even(sizes)) => sizes,
        Some(Shape::Uneven(_)) | None => &[],
    };
    let larger = above.iter().map(|size| size.saturating_mul(arity));
    let larger = larger.take_while(|size| *size <= MOST_TASKS);
    Shape::Even(std::iter::once(arity).chain(larger).collect())
}

/// Families of what neighbours read: where their inputs do not overlap, one for each reader; where they do, runs of some length.
/// `None` when readers are no neighbours.
fn below_list(compiled: &CompiledGraph, layer: usize, input: u32) -> Option<Shape> {
    let reader = compiled.layers().get(layer)?;
    let Source::Layer(source) = reader.inputs.get(input as usize)?.source;
    let first_task = compiled.first_task(source);
    let layer = LayerIndex(u32::try_from(layer).ok()?);
    // The first and the last that a reader reads.
    let ends_of = |reader: u32| {
        let mut ends: Option<(u32, u32)> = None;
        compiled.for_each_direct_input(layer, reader, |read| {
            if read.input == input {
                let at = read.task - first_task;
                let (first, last) = ends.unwrap_or((at, at));
                ends = Some((first.min(at), last.max(at)));
            }
        });
        ends
    };
    let mut starts: Vec<u32> = Vec::new();
    let mut widest = 1;
    let mut end = 0;
    for (first, last) in (0..reader.tasks).filter_map(ends_of) {
        let width = last - first + 1;
        if width > WIDEST_READER || end > first.saturating_add(WIDEST_READER) {
            return None;
        }
        widest = widest.max(width);
        if first >= end || starts.is_empty() {
            starts.push(first);
        }
        end = end.max(last + 1);
        if starts
            .last()
            .is_some_and(|start| end - start > WIDEST_READER)
        {
            let doubled = std::iter::successors(Some(widest * 4), |size| size.checked_mul(2));
            return Some(Shape::Even(
                doubled.take_while(|size| *size <= MOST_TASKS).collect(),
            ));
        }
    }
    (starts.len() > 1).then_some(Shape::Uneven(starts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::graphs::explicit;
    use transload_protocol::{Blob, Layer, TaskGraph};

    fn shapes_of(graph: TaskGraph) -> Vec<Option<Shape>> {
        shapes(&graph.compile().expect("valid"))
    }

    fn listed(tasks: u32, lists: &[Vec<u32>]) -> Option<Shape> {
        let mut graph = TaskGraph::new("listed");
        let below = graph.push(Layer::new("below", "op", tasks));
        let lists: Vec<Vec<(u32, u32)>> = lists
            .iter()
            .map(|list| list.iter().map(|task| (*task, 0)).collect())
            .collect();
        let readers = u32::try_from(lists.len()).expect("few");
        graph.push(Layer::new("above", "op", readers).reading(below, explicit(&lists)));
        shapes_of(graph).swap_remove(0)
    }

    #[test]
    fn what_a_tree_or_a_chain_below_it_reads_is_a_family_at_every_level() {
        let mut graph = TaskGraph::new("tree");
        let roots = graph.push(Layer::new("roots", "op", 100));
        let mapped = Layer::new("mapped", "op", 100).reading(roots, Edges::OneToOne);
        let mapped = graph.push(mapped);
        graph.push_tree(mapped, 4, "tree", "op", &Blob::default());
        let shapes = shapes_of(graph);
        let of_roots = Some(Shape::Even(vec![4, 16, 64, 256]));
        assert_eq!(shapes[0], of_roots);
        assert_eq!(shapes[1], of_roots);
        assert_eq!(shapes.last(), Some(&None));
    }

    #[test]
    fn what_neighbours_read_is_a_family_and_what_strangers_read_is_none() {
        let uneven = listed(9, &[vec![0, 1, 2], vec![4, 3], vec![], vec![5, 6, 7, 8]]);
        assert_eq!(uneven, Some(Shape::Uneven(vec![0, 3, 5])));
        let overlapping: Vec<Vec<u32>> = (0..200).map(|at| vec![at, at + 1]).collect();
        let Some(Shape::Even(sizes)) = listed(201, &overlapping) else {
            panic!("neighbours overlap");
        };
        assert_eq!(sizes[..3], [8, 16, 32]);
        let scattered: Vec<Vec<u32>> = (0..200).map(|at| vec![at, (at * 77) % 201]).collect();
        assert_eq!(listed(201, &scattered), None);
        let backwards: Vec<Vec<u32>> = (0..200).map(|at| vec![200 - at]).collect();
        assert_eq!(listed(201, &backwards), None);
    }

    #[test]
    fn where_all_read_all_and_where_inputs_decide_there_are_no_families() {
        let mut graph = TaskGraph::new("mixed");
        let a = graph.push(Layer::new("a", "op", 8).with_outputs(8));
        let b = graph.push(Layer::new("b", "op", 8).reading(a, Edges::Shuffle));
        let c = graph.push(Layer::new("c", "op", 8).reading(b, Edges::OneToOne));
        graph.push(Layer::new("d", "op", 4).reading(c, Edges::Tree { arity: 2 }));
        let compiled = graph.compile().expect("valid");
        let has: Vec<bool> = Families::of_graph(&compiled)
            .iter()
            .map(Option::is_some)
            .collect();
        assert_eq!(has, [false, true, false, false]);
        assert_eq!(compiled.tasks_of(LayerIndex(1)).len(), 8);
    }

    #[test]
    fn a_worker_finishes_its_family_then_begins_another_then_helps() {
        let mut ready = BitSet::default();
        (0..8).for_each(|position| {
            ready.insert(position);
        });
        let mut families = Families::new(8, Shape::Even(vec![4])).expect("two families");
        let mut next = |worker| {
            let worker = WorkerSlot(worker);
            let position = families.pick(worker, &ready, |_| true)?;
            families.on_assigned(worker, position, 1);
            ready.remove(position);
            Some(position)
        };
        let picks: Vec<u32> = [0, 1, 0, 1, 0, 0, 0, 1]
            .into_iter()
            .filter_map(&mut next)
            .collect();
        assert_eq!(picks, [0, 4, 1, 5, 2, 3, 6, 7]);
        assert_eq!(next(0), None);
    }

    #[test]
    fn a_task_that_came_back_goes_before_new_families() {
        let mut ready = BitSet::default();
        (0..8).for_each(|position| {
            ready.insert(position);
        });
        let mut families = Families::new(8, Shape::Even(vec![4])).expect("two families");
        families.on_returned(3);
        assert_eq!(families.pick(WorkerSlot(0), &ready, |_| true), Some(3));
        let other = |position| position != 3;
        assert_eq!(families.pick(WorkerSlot(0), &ready, other), Some(0));
    }
}
