//! The optimizer over layers: fewer layers and fewer tasks with the same results. Called by clients before they submit, and by
//! people who ask what it would do. Knows edges and arguments, never operators; the cluster it runs on is unknown to it.
//!
//! Three passes, each in its own file: `cull` drops what no output needs, `fuse` lets layers run inside the tasks of their
//! only reader, `reduce` does the same below the first level of a tree reduction. Each costs time in proportion to layers,
//! edges between layers, and arguments, whatever the number of tasks.

mod cull;
mod draft;
mod fuse;
mod merge;
mod reduce;
mod report;

pub use report::{Change, Fate, LayerName, Pass, PassReport, Report, Size};

use crate::{CompiledGraph, GraphError, TaskGraph};
use draft::Draft;

/// Which passes run, and how far they may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passes {
    /// Drop layers that no output needs.
    pub cull: bool,
    /// Run layers inside the tasks of their only reader.
    pub fuse: bool,
    /// Run what a tree reduction reads inside the tasks of its first level.
    pub reduce: bool,
    /// Work that could run at the same time is put one after another only where at least so many tasks are left to run side by
    /// side. Default 64: raise it to a few times the slots of a larger cluster; lower it when tasks are tiny.
    pub fewest_tasks: u32,
}

impl Passes {
    /// Every pass.
    pub const ALL: Self = Self {
        cull: true,
        fuse: true,
        reduce: true,
        fewest_tasks: 64,
    };

    /// No pass: a place to start from when only some are wanted.
    pub const NONE: Self = Self {
        cull: false,
        fuse: false,
        reduce: false,
        ..Self::ALL
    };
}

impl Default for Passes {
    fn default() -> Self {
        Self::ALL
    }
}

/// A graph that does the same with less.
#[derive(Debug, Clone)]
pub struct Optimized {
    /// What to submit. It keeps the rules of [`TaskGraph::compile`], and keeps the same layers for its client, whose indices may
    /// have changed: [`Report::layer`] says how.
    pub graph: TaskGraph,
    /// What was done.
    pub report: Report,
}

/// Runs the passes over a graph.
pub fn optimize(graph: CompiledGraph, passes: &Passes) -> Optimized {
    let mut draft = Draft::new(graph.into_graph());
    let mut reports = Vec::new();
    let mut run = |pass: Pass, work: &dyn Fn(&mut Draft) -> Vec<Change>| {
        let before = draft.size();
        let changes = work(&mut draft);
        reports.push(PassReport {
            pass,
            before,
            after: draft.size(),
            changes,
        });
    };
    if passes.cull {
        run(Pass::Cull, &cull::cull);
    }
    if passes.fuse {
        run(Pass::Fuse, &|draft| fuse::fuse(draft, passes.fewest_tasks));
    }
    if passes.reduce {
        run(Pass::Reduce, &|draft| {
            reduce::reduce(draft, passes.fewest_tasks)
        });
    }
    let (graph, fates) = draft.finish();
    let report = Report {
        graph: graph.name.clone(),
        fates,
        passes: reports,
    };
    debug_assert!(
        graph.clone().compile().is_ok(),
        "an optimized graph breaks a rule"
    );
    Optimized { graph, report }
}

impl TaskGraph {
    /// What [`optimize`] with its default passes does to this graph; printing it tells in words and tables.
    ///
    /// # Errors
    /// As [`TaskGraph::compile`].
    pub fn explain(&self) -> Result<Report, GraphError> {
        let compiled = self.clone().compile()?;
        Ok(optimize(compiled, &Passes::ALL).report)
    }
}
