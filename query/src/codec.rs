//! Stage plans to bytes and back: DataFusion's protobuf, and our own messages for what it lacks. Called by the planner and the
//! stage operator; knows plans, never tasks.
//!
//! What a plan says of orderings, equalities and constants must survive: operators decide from it, when they are decoded,
//! whether they may work on sorted input. [`round_trip`] is the planner's check that it did.

use std::sync::Arc;

use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result, internal_datafusion_err, internal_err};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::equivalence::EquivalenceProperties;
use datafusion::physical_expr::{
    AcrossPartitions, ConstExpr, LexOrdering, Partitioning, PhysicalExpr, PhysicalSortExpr,
};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::work_table::WorkTableExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, PlanProperties};
use datafusion_proto::bytes::{
    physical_plan_from_bytes_with_extension_codec, physical_plan_to_bytes_with_extension_codec,
};
use datafusion_proto::physical_plan::from_proto::{
    parse_physical_exprs, parse_physical_sort_exprs, parse_protobuf_partitioning,
};
use datafusion_proto::physical_plan::to_proto::{
    serialize_partitioning, serialize_physical_exprs, serialize_physical_sort_exprs,
};
use datafusion_proto::physical_plan::{
    PhysicalExtensionCodec, PhysicalPlanDecodeContext, PhysicalProtoConverterExtension,
};
use datafusion_proto::protobuf;
use prost::Message;

use crate::exchange::ExchangeReadExec;

/// Bytes of a stage's plan.
pub(crate) fn encode_plan(plan: &Arc<dyn ExecutionPlan>) -> Result<Vec<u8>> {
    Ok(physical_plan_to_bytes_with_extension_codec(Arc::clone(plan), &StageCodec)?.to_vec())
}

/// The plan of these bytes, with fresh state. `context` resolves functions and settings.
pub(crate) fn decode_plan(bytes: &[u8], context: &TaskContext) -> Result<Arc<dyn ExecutionPlan>> {
    physical_plan_from_bytes_with_extension_codec(bytes, context, &StageCodec)
}

/// Encodes a plan and makes sure that what is decoded is the same plan.
pub(crate) fn round_trip(plan: &Arc<dyn ExecutionPlan>, context: &TaskContext) -> Result<Vec<u8>> {
    let bytes = encode_plan(plan)?;
    let decoded = decode_plan(&bytes, context)?;
    same(plan, &decoded)?;
    Ok(bytes)
}

fn same(plan: &Arc<dyn ExecutionPlan>, decoded: &Arc<dyn ExecutionPlan>) -> Result<()> {
    let orderings =
        |plan: &Arc<dyn ExecutionPlan>| plan.output_ordering().map(|ordering| ordering.to_string());
    let partitions = |plan: &Arc<dyn ExecutionPlan>| plan.output_partitioning().partition_count();
    let children = (plan.children(), decoded.children());
    if plan.name() != decoded.name()
        || orderings(plan) != orderings(decoded)
        || partitions(plan) != partitions(decoded)
        || children.0.len() != children.1.len()
    {
        return internal_err!(
            "a plan changed on its way to the workers: {} with order {:?} became {} with order {:?}",
            plan.name(),
            orderings(plan),
            decoded.name(),
            orderings(decoded)
        );
    }
    children
        .0
        .into_iter()
        .zip(children.1)
        .try_for_each(|(plan, decoded)| same(plan, decoded))
}

/// Encodes the nodes that DataFusion's own codec does not know.
#[derive(Debug)]
struct StageCodec;

#[derive(Clone, PartialEq, prost::Message)]
struct Node {
    #[prost(oneof = "Kind", tags = "1, 2, 3")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Kind {
    #[prost(message, tag = "1")]
    ExchangeRead(ExchangeReadNode),
    #[prost(message, tag = "2")]
    RecursiveQuery(RecursiveQueryNode),
    #[prost(message, tag = "3")]
    WorkTable(WorkTableNode),
}

#[derive(Clone, PartialEq, prost::Message)]
struct ExchangeReadNode {
    #[prost(uint32, tag = "1")]
    input: u32,
    #[prost(message, optional, tag = "2")]
    schema: Option<protobuf::Schema>,
    #[prost(message, optional, tag = "3")]
    partitioning: Option<protobuf::Partitioning>,
    #[prost(message, repeated, tag = "4")]
    orderings: Vec<protobuf::PhysicalSortExprNodeCollection>,
    #[prost(message, repeated, tag = "5")]
    classes: Vec<ClassNode>,
    #[prost(message, optional, tag = "6")]
    merge: Option<protobuf::PhysicalSortExprNodeCollection>,
}

/// Expressions that are equal in every row.
#[derive(Clone, PartialEq, prost::Message)]
struct ClassNode {
    #[prost(message, repeated, tag = "1")]
    exprs: Vec<protobuf::PhysicalExprNode>,
    #[prost(bool, tag = "2")]
    constant: bool,
    #[prost(bool, tag = "3")]
    same_in_all_partitions: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RecursiveQueryNode {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bool, tag = "2")]
    distinct: bool,
    #[prost(message, optional, tag = "3")]
    schema: Option<protobuf::Schema>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WorkTableNode {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    schema: Option<protobuf::Schema>,
}

impl PhysicalExtensionCodec for StageCodec {
    fn try_decode(
        &self,
        bytes: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        context: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let node = Node::decode(bytes)
            .map_err(|error| internal_datafusion_err!("malformed stage plan: {error}"))?;
        match node.kind {
            Some(Kind::ExchangeRead(node)) => decode_read(&node, context, converter),
            Some(Kind::RecursiveQuery(node)) => decode_recursive_query(node, inputs),
            Some(Kind::WorkTable(node)) => {
                let schema = schema_of(node.schema.as_ref())?;
                Ok(Arc::new(WorkTableExec::new(node.name, schema, None)?))
            }
            None => internal_err!("malformed stage plan: an empty node"),
        }
    }

    fn try_encode(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        buffer: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        let kind = if let Some(read) = plan.downcast_ref::<ExchangeReadExec>() {
            Kind::ExchangeRead(encode_read(read, converter)?)
        } else if let Some(query) = plan.downcast_ref::<RecursiveQueryExec>() {
            Kind::RecursiveQuery(RecursiveQueryNode {
                name: query.name().to_owned(),
                distinct: query.is_distinct(),
                schema: Some(schema_node(&query.schema())?),
            })
        } else if let Some(table) = plan.downcast_ref::<WorkTableExec>() {
            Kind::WorkTable(WorkTableNode {
                name: table.name().to_owned(),
                schema: Some(schema_node(&table.schema())?),
            })
        } else {
            return internal_err!("{} cannot be sent to a worker", plan.name());
        };
        buffer.extend(Node { kind: Some(kind) }.encode_to_vec());
        Ok(())
    }
}

fn schema_node(schema: &SchemaRef) -> Result<protobuf::Schema> {
    protobuf::Schema::try_from(schema.as_ref())
        .map_err(|error| internal_datafusion_err!("schema cannot be encoded: {error}"))
}

fn schema_of(node: Option<&protobuf::Schema>) -> Result<SchemaRef> {
    let node = node.ok_or_else(|| internal_datafusion_err!("malformed stage plan: no schema"))?;
    let schema = Schema::try_from(node)
        .map_err(|error| internal_datafusion_err!("malformed schema in stage plan: {error}"))?;
    Ok(Arc::new(schema))
}

fn ordering_node(
    ordering: &LexOrdering,
    converter: &dyn PhysicalProtoConverterExtension,
) -> Result<protobuf::PhysicalSortExprNodeCollection> {
    Ok(protobuf::PhysicalSortExprNodeCollection {
        physical_sort_expr_nodes: serialize_physical_sort_exprs(
            ordering.iter().cloned(),
            &StageCodec,
            converter,
        )?,
    })
}

fn encode_read(
    read: &ExchangeReadExec,
    converter: &dyn PhysicalProtoConverterExtension,
) -> Result<ExchangeReadNode> {
    let properties = read.properties().equivalence_properties();
    let orderings = properties
        .oeq_class()
        .iter()
        .map(|ordering| ordering_node(ordering, converter))
        .collect::<Result<_>>()?;
    let classes = properties
        .eq_group()
        .iter()
        .map(|class| {
            let exprs: Vec<_> = class.iter().cloned().collect();
            // Asked of the class's first expression: the class does not show it.
            let constant = exprs
                .first()
                .and_then(|expr| properties.eq_group().is_expr_constant(expr));
            Ok(ClassNode {
                exprs: serialize_physical_exprs(&exprs, &StageCodec, converter)?,
                constant: constant.is_some(),
                same_in_all_partitions: matches!(constant, Some(AcrossPartitions::Uniform(_))),
            })
        })
        .collect::<Result<_>>()?;
    Ok(ExchangeReadNode {
        input: u32::try_from(read.input())
            .map_err(|_| internal_datafusion_err!("a stage with too many inputs"))?,
        schema: Some(schema_node(&read.schema())?),
        partitioning: Some(serialize_partitioning(
            read.properties().output_partitioning(),
            &StageCodec,
            converter,
        )?),
        orderings,
        classes,
        merge: read
            .merge()
            .map(|ordering| ordering_node(ordering, converter))
            .transpose()?,
    })
}

fn decode_read(
    node: &ExchangeReadNode,
    context: &TaskContext,
    converter: &dyn PhysicalProtoConverterExtension,
) -> Result<Arc<dyn ExecutionPlan>> {
    let schema = schema_of(node.schema.as_ref())?;
    let decode = PhysicalPlanDecodeContext::new(context, &StageCodec);
    let sort_exprs =
        |node: &protobuf::PhysicalSortExprNodeCollection| -> Result<Vec<PhysicalSortExpr>> {
            parse_physical_sort_exprs(&node.physical_sort_expr_nodes, &decode, &schema, converter)
        };
    let orderings = node
        .orderings
        .iter()
        .map(sort_exprs)
        .collect::<Result<Vec<_>>>()?;
    let mut properties = EquivalenceProperties::new_with_orderings(Arc::clone(&schema), orderings);
    for class in &node.classes {
        let exprs: Vec<Arc<dyn PhysicalExpr>> =
            parse_physical_exprs(&class.exprs, &decode, &schema, converter)?;
        for pair in exprs.windows(2) {
            if let [left, right] = pair {
                properties.add_equal_conditions(Arc::clone(left), Arc::clone(right))?;
            }
        }
        if let (true, Some(expr)) = (class.constant, exprs.first()) {
            let across = if class.same_in_all_partitions {
                AcrossPartitions::Uniform(None)
            } else {
                AcrossPartitions::Heterogeneous
            };
            properties.add_constants([ConstExpr::new(Arc::clone(expr), across)])?;
        }
    }
    let partitioning =
        parse_protobuf_partitioning(node.partitioning.as_ref(), &decode, &schema, converter)?
            .ok_or_else(|| internal_datafusion_err!("malformed stage plan: no partitioning"))?;
    let merge = node
        .merge
        .as_ref()
        .map(sort_exprs)
        .transpose()?
        .and_then(LexOrdering::new);
    Ok(Arc::new(ExchangeReadExec::new(
        node.input as usize,
        merge,
        read_properties(properties, partitioning),
    )))
}

/// Properties of a read that stands for a plan with these.
pub(crate) fn read_properties(
    properties: EquivalenceProperties,
    partitioning: Partitioning,
) -> Arc<PlanProperties> {
    Arc::new(PlanProperties::new(
        properties,
        partitioning,
        EmissionType::Incremental,
        Boundedness::Bounded,
    ))
}

/// A work table says only which columns it reads; which positions these have in the whole row, the query around it knows.
fn decode_recursive_query(
    node: RecursiveQueryNode,
    inputs: &[Arc<dyn ExecutionPlan>],
) -> Result<Arc<dyn ExecutionPlan>> {
    let [start, step] = inputs else {
        return internal_err!("malformed stage plan: a recursive query has two inputs");
    };
    let whole = schema_of(node.schema.as_ref())?;
    let step = Arc::clone(step).transform_up(|plan| {
        let Some(table) = plan.downcast_ref::<WorkTableExec>() else {
            return Ok(Transformed::no(plan));
        };
        if table.name() != node.name {
            return Ok(Transformed::no(plan));
        }
        let positions = table
            .schema()
            .fields()
            .iter()
            .map(|field| Ok(whole.index_of(field.name())?))
            .collect::<Result<Vec<_>>>()?;
        let table = WorkTableExec::new(node.name.clone(), Arc::clone(&whole), Some(positions))?;
        Ok(Transformed::yes(Arc::new(table) as Arc<dyn ExecutionPlan>))
    })?;
    Ok(Arc::new(RecursiveQueryExec::try_new(
        node.name,
        whole,
        Arc::clone(start),
        step.data,
        node.distinct,
    )?))
}
