//! Writes results: in which format, and where to. Called by the `sql` command and the demo; knows nothing of queries.

pub(crate) mod csv;
mod destination;
mod json;
mod parquet;
mod table;

use std::error::Error;
use std::io;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Schema, SchemaRef};

pub(crate) use destination::{Destination, partial_file, persist};

use crate::failure::{Failure, io_failure};

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// A table for people; numbers right-aligned, NULL where there is no value.
    Table,
    /// Comma-separated with a header; no value is nothing, an empty text is "".
    Csv,
    /// One JSON object per line (NDJSON); no value is null.
    Json,
    /// An Apache Parquet file, zstd-compressed; needs -o or a pipe.
    Parquet,
}

/// Takes the batches of one result in order.
pub(crate) trait ResultWriter {
    /// Writes the rows of one batch.
    fn write(&mut self, batch: &RecordBatch) -> Result<(), Failure>;
    /// Ends the result: whatever is buffered goes to the destination.
    fn finish(self: Box<Self>) -> Result<(), Failure>;
}

/// The writer of one result with this schema.
pub(crate) fn writer<'a>(
    format: Format,
    schema: &SchemaRef,
    destination: &'a mut Destination,
) -> Result<Box<dyn ResultWriter + 'a>, Failure> {
    Ok(match format {
        Format::Table => Box::new(table::TableWriter::new(schema, destination)),
        Format::Csv => Box::new(csv::CsvWriter::new(schema, destination)?),
        Format::Json => Box::new(json::JsonWriter::new(schema, destination)),
        Format::Parquet => Box::new(parquet::ParquetWriter::new(schema, destination)?),
    })
}

/// The same schema with every column name unique, for formats that look columns up by name: a second `x` becomes `x_2`.
fn with_unique_names(schema: &SchemaRef) -> SchemaRef {
    let mut names: Vec<String> = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let mut name = field.name().clone();
        let mut copy = 1;
        while names.contains(&name) {
            copy += 1;
            name = format!("{}_{copy}", field.name());
        }
        names.push(name);
    }
    let fields = schema.fields().iter().zip(names);
    Schema::new_with_metadata(
        fields
            .map(|(field, name)| field.as_ref().clone().with_name(name))
            .collect::<Vec<_>>(),
        schema.metadata().clone(),
    )
    .into()
}

/// A failed write as a failure of the command; the quiet end where a pipe's reader is gone, however deep that lies.
fn write_failure(error: &(dyn Error + 'static)) -> Failure {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return io_failure("cannot write the result", error);
        }
        next = error.source();
    }
    Failure::failed(format!("cannot write the result: {error}"))
}

#[cfg(test)]
mod tests;
