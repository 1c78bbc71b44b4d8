//! A query cut into stages, ready to be submitted, and its description for people. Made by the session; what `EXPLAIN` shows.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::sink::DataSinkExec;
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec,
};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{ExecutionPlan, displayable};
use transload_protocol::{Edges, Layer, LayerIndex, TaskGraph, codec};

use crate::codec::round_trip;
use crate::device::{PartitionSpec, SQL_CONCAT, SQL_PARTITION};
use crate::operator::SQL_STAGE;
use crate::operator::spec::StageSpec;
use crate::session::Scans;
use crate::stages::{Cut, Exchanges, Input, Layout, Output, Stage, Work};

/// Characters of the statement that name its graph.
const NAME_CHARACTERS: usize = 60;

/// A query as stages of tasks. `Display` tells stages, tasks and exchanges.
#[derive(Debug, Clone)]
pub struct DistributedPlan {
    cut: Cut,
    graph: TaskGraph,
    names: Vec<String>,
    plan_bytes: Vec<usize>,
}

impl DistributedPlan {
    pub(crate) fn new(
        sql: &str,
        cut: Cut,
        context: &TaskContext,
        settings: &[(String, String)],
        scans: &Scans,
    ) -> Result<Self> {
        let words: Vec<&str> = sql.split_whitespace().collect();
        let mut graph = TaskGraph::new(
            words
                .join(" ")
                .chars()
                .take(NAME_CHARACTERS)
                .collect::<String>(),
        );
        graph.description = sql.trim().to_owned();
        let mut names = Vec::new();
        let mut plan_bytes = Vec::new();
        for (index, stage) in cut.stages.iter().enumerate() {
            let name = format!("{}. {}", index + 1, work_of(stage, &scans.names));
            let plan = stage.plan().map(|plan| round_trip(plan, context));
            let plan = plan.transpose()?.unwrap_or_default();
            plan_bytes.push(plan.len());
            graph.push(layer(stage, &name, plan, settings)?);
            names.push(name);
        }
        graph.keep(LayerIndex(small(cut.stages.len().saturating_sub(1))));
        Ok(Self {
            cut,
            graph,
            names,
            plan_bytes,
        })
    }

    /// Types and names of the result's columns.
    pub fn schema(&self) -> SchemaRef {
        self.cut.tail.schema()
    }

    /// The graph that the cluster runs. The last layer holds the result.
    pub fn graph(&self) -> &TaskGraph {
        &self.graph
    }

    /// A name for each stage, in the order of the graph's layers.
    pub fn stage_names(&self) -> &[String] {
        &self.names
    }

    /// The layer whose partitions make the result.
    pub(crate) fn result_layer(&self) -> LayerIndex {
        LayerIndex(small(self.cut.stages.len().saturating_sub(1)))
    }

    /// What the client does with them.
    pub(crate) fn tail(&self) -> &Arc<dyn ExecutionPlan> {
        &self.cut.tail
    }

    /// Whether some of its tasks need a GPU.
    pub fn needs_gpu(&self) -> bool {
        self.cut.stages.iter().any(|stage| stage.plan().is_none())
    }

    pub(crate) fn layout(&self) -> Layout {
        self.cut.layout
    }

    /// Tasks, and partitions of each, in the last stage.
    pub(crate) fn result_shape(&self) -> (usize, usize) {
        self.cut
            .stages
            .last()
            .map_or((0, 0), |stage| (stage.tasks, stage.output.count()))
    }

    /// Bytes of each stage's plan, for `EXPLAIN VERBOSE`.
    pub(crate) fn sizes(&self) -> String {
        self.names
            .iter()
            .zip(&self.plan_bytes)
            .map(|(name, bytes)| format!("  {bytes:>8} B  {name}\n"))
            .collect()
    }
}

fn small(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn layer(stage: &Stage, name: &str, plan: Vec<u8>, settings: &[(String, String)]) -> Result<Layer> {
    let tasks = small(stage.tasks);
    let mut layer = match &stage.work {
        Work::Plan(_) => {
            let spec = encoded(&StageSpec::new(stage, plan, settings.to_vec()))?;
            Layer::new(name, SQL_STAGE, tasks).with_common(spec)
        }
        Work::HashOnDevice(keys) => {
            let keys = keys.iter().map(|key| small(key.index())).collect();
            let spec = encoded(&PartitionSpec { keys })?;
            let layer = Layer::new(name, SQL_PARTITION, tasks).on_device();
            layer.with_common(spec)
        }
        Work::ConcatOnDevice => Layer::new(name, SQL_CONCAT, tasks).on_device(),
    };
    layer = layer.with_outputs(small(stage.output.count()));
    for input in &stage.inputs {
        layer = layer.reading(LayerIndex(small(input.source)), input.edges.clone());
    }
    if stage.plan().is_some_and(writes) {
        // A second attempt would write the rows twice.
        layer.retries = 0;
    }
    Ok(layer)
}

fn encoded<T: serde::Serialize>(spec: &T) -> Result<Vec<u8>> {
    codec::encode(spec).map_err(|error| DataFusionError::External(error.into()))
}

fn writes(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.is::<DataSinkExec>() || plan.children().into_iter().any(writes)
}

/// What a stage does in a few words: `scan lineitem, join, aggregate`.
fn work_of(stage: &Stage, tables: &BTreeMap<String, String>) -> String {
    let plan = match &stage.work {
        Work::Plan(plan) => plan,
        Work::HashOnDevice(_) => return "hash on GPU".to_owned(),
        Work::ConcatOnDevice => return "concat on GPU".to_owned(),
    };
    let mut words = Vec::new();
    collect_work(plan, tables, &mut words);
    if words.is_empty() {
        "gather".to_owned()
    } else {
        words.join(", ")
    }
}

fn collect_work(
    plan: &Arc<dyn ExecutionPlan>,
    tables: &BTreeMap<String, String>,
    words: &mut Vec<String>,
) {
    for child in plan.children() {
        collect_work(child, tables, words);
    }
    let word = if let Some(source) = plan.downcast_ref::<DataSourceExec>() {
        format!("scan {}", table_of(source, tables).unwrap_or("values"))
    } else if plan.is::<HashJoinExec>()
        || plan.is::<SortMergeJoinExec>()
        || plan.is::<NestedLoopJoinExec>()
        || plan.is::<CrossJoinExec>()
    {
        "join".to_owned()
    } else if plan.is::<AggregateExec>() {
        "aggregate".to_owned()
    } else if plan.is::<SortExec>() {
        "sort".to_owned()
    } else if plan.is::<SortPreservingMergeExec>() {
        "merge".to_owned()
    } else if plan.is::<WindowAggExec>() || plan.is::<BoundedWindowAggExec>() {
        "window".to_owned()
    } else if plan.is::<DataSinkExec>() {
        "write".to_owned()
    } else {
        return;
    };
    if !words.contains(&word) {
        words.push(word);
    }
}

fn table_of<'a>(source: &DataSourceExec, tables: &'a BTreeMap<String, String>) -> Option<&'a str> {
    let config = source.data_source().downcast_ref::<FileScanConfig>()?;
    let file = config
        .file_groups
        .iter()
        .flat_map(|group| group.iter())
        .next()?;
    tables
        .get(file.object_meta.location.as_ref())
        .map(String::as_str)
}

impl fmt::Display for DistributedPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tasks: usize = self.cut.stages.iter().map(|stage| stage.tasks).sum();
        writeln!(
            f,
            "{}, {}",
            count(self.cut.stages.len(), "stage"),
            count(tasks, "task")
        )?;
        match &self.cut.exchanges {
            Exchanges::Host => {}
            Exchanges::HostBecause(reason) => writeln!(f, "exchanges on the host: {reason}")?,
            Exchanges::Devices => writeln!(f, "exchanges on GPUs")?,
        }
        for (stage, name) in self.cut.stages.iter().zip(&self.names) {
            writeln!(
                f,
                "\nstage {name}: {}{}",
                count(stage.tasks, "task"),
                outputs(stage.output)
            )?;
            if let Some(reason) = &stage.whole {
                writeln!(f, "  runs as one task: {reason}")?;
            }
            for (index, input) in stage.inputs.iter().enumerate() {
                writeln!(f, "  input {index}: {}", self.exchange(stage, input))?;
            }
            match &stage.work {
                Work::Plan(plan) => write!(f, "{}", indented(plan))?,
                Work::HashOnDevice(keys) => {
                    let keys: Vec<String> = keys.iter().map(Column::to_string).collect();
                    writeln!(f, "    HashOnDevice: keys=[{}]", keys.join(", "))?;
                }
                Work::ConcatOnDevice => writeln!(f, "    ConcatOnDevice")?,
            }
        }
        let last = self.cut.stages.len();
        writeln!(f, "\nclient")?;
        writeln!(f, "  input 0: stage {last}, fetched as its tasks complete")?;
        write!(f, "{}", indented(&self.cut.tail))
    }
}

impl DistributedPlan {
    fn exchange(&self, stage: &Stage, input: &Input) -> String {
        let source = input.source + 1;
        let from = self
            .cut
            .stages
            .get(input.source)
            .map_or(0, |stage| stage.tasks);
        match &input.edges {
            Edges::OneToOne => format!("stage {source}, one to one"),
            Edges::Shuffle => format!("stage {source}, shuffle {from} x {}", stage.tasks),
            Edges::Broadcast if stage.tasks == 1 => format!("stage {source}, gather {from} to 1"),
            Edges::Broadcast => format!(
                "stage {source}, broadcast to {}",
                count(stage.tasks, "task")
            ),
            Edges::Tree { arity } => format!("stage {source}, tree of {arity}"),
            Edges::Explicit(edges) => {
                format!(
                    "stage {source}, {} by list",
                    count(edges.partitions.len(), "partition")
                )
            }
        }
    }
}

fn outputs(output: Output) -> String {
    match output {
        Output::One => String::new(),
        Output::Carried => ", as GPUs read it".to_owned(),
        Output::Hashed(partitions) => format!(", hashed into {}", count(partitions, "partition")),
        Output::Each(partitions) => format!(", {}", count(partitions, "partition")),
    }
}

fn count(number: usize, noun: &str) -> String {
    if number == 1 {
        format!("1 {noun}")
    } else {
        format!("{number} {noun}s")
    }
}

fn indented(plan: &Arc<dyn ExecutionPlan>) -> String {
    let text = displayable(plan.as_ref()).indent(false).to_string();
    text.lines().map(|line| format!("    {line}\n")).collect()
}
