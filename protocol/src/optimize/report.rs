//! What the optimizer did, as data and as text. Made by the passes, read by clients and people.

use std::fmt;

use crate::LayerIndex;

/// Changes of one pass that are printed; the others are counted.
const SHOWN: usize = 20;
/// Names of merged layers that are printed in one line; the others are counted.
const NAMED: usize = 6;

/// What the passes did to one graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The graph's name.
    pub graph: String,
    /// What became of each layer, by its index before.
    pub fates: Vec<Fate>,
    /// The passes that ran, in order.
    pub passes: Vec<PassReport>,
}

/// What became of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is this layer of the optimized graph; others may run inside it.
    Layer(LayerIndex),
    /// It runs inside the tasks of this layer of the optimized graph.
    Step(LayerIndex),
    /// No output needs it.
    Dropped,
}

/// One pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Drops layers that no output needs.
    Cull,
    /// Runs layers inside the tasks of their only reader.
    Fuse,
    /// Runs what a tree reduction reads inside the tasks of its first level.
    Reduce,
}

/// What one pass did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassReport {
    /// Which pass.
    pub pass: Pass,
    /// The graph before it.
    pub before: Size,
    /// The graph after it.
    pub after: Size,
    /// What it did and, where only the number of tasks spoke against it, what it did not.
    pub changes: Vec<Change>,
}

/// Size of a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Number of layers.
    pub layers: u32,
    /// Number of tasks in all layers.
    pub tasks: u32,
}

/// A layer as it was submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerName {
    /// Its index before any pass.
    pub index: LayerIndex,
    /// Its name.
    pub name: String,
}

/// One thing that a pass did or decided against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// No output needs the layer.
    Dropped {
        /// Which layer.
        layer: LayerName,
        /// Its tasks, which are gone.
        tasks: u32,
    },
    /// Layers run once inside each task of their only reader.
    Fused {
        /// Which layers, in the order in which they run.
        layers: Vec<LayerName>,
        /// The reader.
        into: LayerName,
    },
    /// A layer runs several times inside each task of the reduction that reads it.
    Pushed {
        /// Which layer.
        layer: LayerName,
        /// The level of the reduction.
        into: LayerName,
        /// How many times; the last task may run it fewer times.
        times: u32,
    },
    /// It could have been merged, had it left enough tasks to run side by side.
    LeftAlone {
        /// Which layer.
        layer: LayerName,
        /// Its reader.
        reader: LayerName,
        /// Tasks that would be left.
        tasks: u32,
        /// Tasks that must be left: [`super::Passes::fewest_tasks`].
        fewest_tasks: u32,
    },
}

impl Report {
    /// Where a layer is now; `None` when it has no tasks and partitions of its own any more, which never happens to a kept one.
    pub fn layer(&self, before: LayerIndex) -> Option<LayerIndex> {
        match self.fates.get(before.0 as usize)? {
            Fate::Layer(now) => Some(*now),
            Fate::Step(_) | Fate::Dropped => None,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Some(first), Some(last)) = (self.passes.first(), self.passes.last()) else {
            return write!(f, "graph `{}`: no pass was asked for", self.graph);
        };
        let (before, after) = (first.before, last.after);
        writeln!(f, "graph `{}`: {before} -> {after}\n", self.graph)?;
        let rows: Vec<[String; 3]> = self.passes.iter().map(row).collect();
        let header = ["pass", "layers", "tasks"].map(str::to_owned);
        let rows: Vec<&[String; 3]> = std::iter::once(&header).chain(&rows).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
        let (first, second) = (width(0), width(1));
        for [pass, layers, tasks] in rows {
            writeln!(f, "{pass:first$}  {layers:second$}  {tasks}")?;
        }
        for pass in self.passes.iter().filter(|pass| !pass.changes.is_empty()) {
            write!(f, "\n{}:\n", pass.pass)?;
            for change in pass.changes.iter().take(SHOWN) {
                writeln!(f, "  {change}")?;
            }
            if let Some(more) = pass.changes.len().checked_sub(SHOWN + 1) {
                writeln!(f, "  and {} more", more + 1)?;
            }
        }
        Ok(())
    }
}

fn row(report: &PassReport) -> [String; 3] {
    let change = |before: u32, after: u32| {
        if before == after {
            before.to_string()
        } else {
            format!("{before} -> {after}")
        }
    };
    [
        report.pass.to_string(),
        change(report.before.layers, report.after.layers),
        change(report.before.tasks, report.after.tasks),
    ]
}

impl fmt::Display for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cull => "cull",
            Self::Fuse => "fuse",
            Self::Reduce => "reduce",
        })
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, {}",
            counted(self.layers, "layer"),
            counted(self.tasks, "task")
        )
    }
}

impl fmt::Display for LayerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", self.index, self.name)
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dropped { layer, tasks } => write!(
                f,
                "{layer} is dropped, {} with it: no output needs it",
                counted(*tasks, "task")
            ),
            Self::Fused { layers, into } => {
                write!(f, "{into} runs first in each of its tasks: ")?;
                for (index, layer) in layers.iter().take(NAMED).enumerate() {
                    write!(f, "{}{layer}", if index == 0 { "" } else { ", " })?;
                }
                match layers.len().checked_sub(NAMED + 1) {
                    Some(more) => write!(f, " and {} more", more + 1),
                    None => Ok(()),
                }
            }
            Self::Pushed { layer, into, times } => {
                write!(f, "{into} runs {layer} {times} times in each of its tasks")
            }
            Self::LeftAlone {
                layer,
                reader,
                tasks,
                fewest_tasks,
            } => write!(
                f,
                "{layer} stays apart from {reader}: {} would be left side by side, and {fewest_tasks} are wanted",
                counted(*tasks, "task")
            ),
        }
    }
}

fn counted(count: u32, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
