//! Results as a Parquet file, written as they arrive.

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::{Compression, ZstdLevel};
use datafusion::parquet::file::properties::WriterProperties;

use super::{Destination, ResultWriter, with_unique_names, write_failure};
use crate::failure::Failure;

/// Rows in one row group, so that later scans can be split.
const ROW_GROUP_ROWS: usize = 250_000;

/// Writes batches as a Parquet file.
pub(crate) struct ParquetWriter<'a> {
    schema: SchemaRef,
    writer: ArrowWriter<&'a mut Destination>,
}

impl<'a> ParquetWriter<'a> {
    /// Writes the file's first bytes.
    pub(crate) fn new(
        schema: &SchemaRef,
        destination: &'a mut Destination,
    ) -> Result<Self, Failure> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
            .build();
        let schema = with_unique_names(schema);
        let writer = ArrowWriter::try_new(destination, schema.clone(), Some(properties))
            .map_err(|error| write_failure(&error))?;
        Ok(Self { schema, writer })
    }
}

impl ResultWriter for ParquetWriter<'_> {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), Failure> {
        let batch = RecordBatch::try_new(self.schema.clone(), batch.columns().to_vec())
            .map_err(|error| write_failure(&error))?;
        self.writer
            .write(&batch)
            .map_err(|error| write_failure(&error))
    }

    fn finish(self: Box<Self>) -> Result<(), Failure> {
        self.writer
            .close()
            .map(drop)
            .map_err(|error| write_failure(&error))
    }
}
