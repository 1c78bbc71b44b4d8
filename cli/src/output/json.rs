//! Results as NDJSON: one object per line, every column in every line.

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::json::writer::{LineDelimited, Writer, WriterBuilder};

use super::{Destination, ResultWriter, with_unique_names, write_failure};
use crate::failure::Failure;

/// Writes batches as lines of JSON.
pub(crate) struct JsonWriter<'a> {
    schema: SchemaRef,
    writer: Writer<&'a mut Destination, LineDelimited>,
}

impl<'a> JsonWriter<'a> {
    /// Writes nothing yet.
    pub(crate) fn new(schema: &SchemaRef, destination: &'a mut Destination) -> Self {
        Self {
            schema: with_unique_names(schema),
            writer: WriterBuilder::new()
                .with_explicit_nulls(true)
                .build(destination),
        }
    }
}

impl ResultWriter for JsonWriter<'_> {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), Failure> {
        RecordBatch::try_new(self.schema.clone(), batch.columns().to_vec())
            .and_then(|batch| self.writer.write(&batch))
            .map_err(|error| write_failure(&error))
    }

    fn finish(mut self: Box<Self>) -> Result<(), Failure> {
        self.writer.finish().map_err(|error| write_failure(&error))
    }
}
