//! Record batches to partitions and back: metadata that says types and lengths, and one buffer per Arrow buffer. Called by
//! the stage operator and the client; knows Arrow's layouts, never where a partition travels.
//!
//! Both ways are free of copies: encoding shares the batches' own buffers (after `compact` has made sure that they hold
//! nothing else), decoding uses the bytes in place. Decoding validates everything, so that damaged bytes are an error.

mod array;
mod compact;

use std::sync::Arc;

use datafusion::arrow::array::{Array, RecordBatch, RecordBatchOptions, make_array};
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::arrow::error::ArrowError;
use datafusion_proto::protobuf;
use prost::Message;
use serde::{Deserialize, Serialize};
use transload_gpu::Partition;
use transload_protocol::{Blob, codec};

pub(crate) use array::Node;
use array::{Decoder, Encoder};
pub(crate) use compact::compact;

/// Why a partition could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum PartitionError {
    /// The batches hold something that has no encoding.
    #[error("these record batches cannot be encoded: {0}")]
    Unencodable(String),
    /// The bytes are not a partition of record batches, or are damaged.
    #[error("malformed partition of record batches: {0}")]
    Malformed(String),
}

/// What [`Partition::metadata`] holds.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Metadata {
    /// The schema as DataFusion's protobuf message; empty where there are no batches.
    pub(crate) schema: Blob,
    /// Rows of each batch.
    pub(crate) rows: Vec<u64>,
    /// The arrays of all batches, depth first.
    pub(crate) nodes: Vec<Node>,
}

impl Metadata {
    /// # Errors
    /// [`PartitionError::Malformed`] when the bytes are no metadata. What they say is not looked at.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, PartitionError> {
        codec::decode(bytes).map_err(|error| malformed(&error))
    }

    /// # Errors
    /// [`PartitionError::Unencodable`] when it is too large.
    pub(crate) fn encode(&self) -> Result<Blob, PartitionError> {
        let encoded = codec::encode(self).map_err(|error| unencodable(&error))?;
        Ok(encoded.into())
    }

    /// The columns; an error where there are no batches.
    ///
    /// # Errors
    /// [`PartitionError::Malformed`] when it is not the schema of record batches.
    pub(crate) fn schema(&self) -> Result<SchemaRef, PartitionError> {
        schema_of(&self.schema).map_err(|error| malformed(&error))
    }
}

fn malformed(error: &dyn std::fmt::Display) -> PartitionError {
    PartitionError::Malformed(error.to_string())
}

fn unencodable(error: &dyn std::fmt::Display) -> PartitionError {
    PartitionError::Unencodable(error.to_string())
}

/// The partition of these batches, in order. Its decoded form is the batches themselves, without spare memory.
///
/// # Errors
/// [`PartitionError::Unencodable`] when the batches differ in schema, or a type has no encoding.
pub fn encode(batches: &[RecordBatch]) -> Result<Partition, PartitionError> {
    let compacted = batches
        .iter()
        .filter(|batch| batch.num_rows() > 0)
        .map(compact)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unencodable(&error))?;
    let mut encoder = Encoder::default();
    let mut schema = Blob::default();
    if let Some(first) = compacted.first() {
        let message = protobuf::Schema::try_from(first.schema().as_ref())
            .map_err(|error| unencodable(&error))?;
        schema = message.encode_to_vec().into();
    }
    for batch in &compacted {
        let types = |batch: &RecordBatch| -> Vec<_> {
            let fields = batch.schema();
            fields
                .fields()
                .iter()
                .map(|field| field.data_type().clone())
                .collect()
        };
        if compacted
            .first()
            .is_some_and(|first| types(first) != types(batch))
        {
            return Err(PartitionError::Unencodable(
                "batches of several schemas".to_owned(),
            ));
        }
        for column in batch.columns() {
            encoder
                .push(&column.to_data())
                .map_err(|error| unencodable(&error))?;
        }
    }
    let metadata = Metadata {
        schema,
        rows: compacted
            .iter()
            .map(|batch| batch.num_rows() as u64)
            .collect(),
        nodes: encoder.nodes,
    };
    let metadata = metadata.encode()?.0;
    Ok(Partition::new(metadata, encoder.buffers).with_decoded(Arc::new(compacted)))
}

/// The batches of a partition: those it was made of when it was made in this process, else views of its buffers.
///
/// # Errors
/// [`PartitionError::Malformed`] when its bytes are not what [`encode`] makes; nothing of them is believed unchecked.
pub fn decode(partition: &Partition) -> Result<Arc<Vec<RecordBatch>>, PartitionError> {
    if let Some(decoded) = partition.decoded::<Vec<RecordBatch>>() {
        return Ok(decoded);
    }
    let metadata = Metadata::decode(partition.metadata())?;
    if metadata.rows.is_empty() {
        return Ok(Arc::new(Vec::new()));
    }
    let schema = metadata.schema()?;
    let mut decoder = Decoder::new(metadata.nodes, partition.buffers().to_vec());
    let batches = metadata
        .rows
        .iter()
        .map(|rows| decode_batch(&schema, *rows, &mut decoder))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| malformed(&error))?;
    decoder.finish().map_err(|error| malformed(&error))?;
    Ok(Arc::new(batches))
}

fn schema_of(message: &Blob) -> Result<SchemaRef, ArrowError> {
    let message = protobuf::Schema::decode(message.0.clone())
        .map_err(|error| ArrowError::SchemaError(error.to_string()))?;
    let schema =
        Schema::try_from(&message).map_err(|error| ArrowError::SchemaError(error.to_string()))?;
    for field in schema.fields() {
        array::check_type(field.data_type())?;
    }
    Ok(Arc::new(schema))
}

fn decode_batch(
    schema: &SchemaRef,
    rows: u64,
    decoder: &mut Decoder,
) -> Result<RecordBatch, ArrowError> {
    let rows = array::length(rows)?;
    let columns = schema
        .fields()
        .iter()
        .map(|field| Ok(make_array(decoder.array(field.data_type())?)))
        .collect::<Result<Vec<_>, ArrowError>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}

#[cfg(test)]
mod tests;
