//! Comma-separated rows with a header. Unlike many writers it keeps "no value" (nothing) and "an empty text" (`""`) apart.

use std::io::Write;

use datafusion::arrow::array::{Array, RecordBatch};
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};

use super::{Destination, ResultWriter, write_failure};
use crate::failure::Failure;

/// Writes batches as lines of comma-separated fields.
pub(crate) struct CsvWriter<'a> {
    destination: &'a mut Destination,
}

impl<'a> CsvWriter<'a> {
    /// Writes the header.
    pub(crate) fn new(
        schema: &SchemaRef,
        destination: &'a mut Destination,
    ) -> Result<Self, Failure> {
        destination
            .write_all(header(schema).as_bytes())
            .map_err(|error| write_failure(&error))?;
        Ok(Self { destination })
    }
}

impl ResultWriter for CsvWriter<'_> {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), Failure> {
        write_rows(batch, self.destination).map_err(|error| write_failure(&error))
    }

    fn finish(self: Box<Self>) -> Result<(), Failure> {
        Ok(())
    }
}

/// The line of column names.
pub(crate) fn header(schema: &Schema) -> String {
    let mut line = String::new();
    for (position, field) in schema.fields().iter().enumerate() {
        if position > 0 {
            line.push(',');
        }
        push_field(&mut line, field.name());
    }
    line.push('\n');
    line
}

/// Writes one line per row.
///
/// # Errors
/// A value that cannot be shown as text, or `out` failed ([`ArrowError::IoError`]).
pub(crate) fn write_rows(batch: &RecordBatch, out: &mut impl Write) -> Result<(), ArrowError> {
    let options = FormatOptions::default().with_display_error(false);
    let formatters = batch
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column.as_ref(), &options))
        .collect::<Result<Vec<_>, _>>()?;
    let mut line = String::new();
    for row in 0..batch.num_rows() {
        line.clear();
        for (position, (formatter, column)) in formatters.iter().zip(batch.columns()).enumerate() {
            if position > 0 {
                line.push(',');
            }
            if column.is_valid(row) {
                push_field(&mut line, &formatter.value(row).try_to_string()?);
            }
        }
        line.push('\n');
        out.write_all(line.as_bytes())?;
    }
    Ok(())
}

/// Appends one field, quoted where it must be.
fn push_field(line: &mut String, text: &str) {
    let plain = !text.is_empty() && !text.contains(['"', ',', '\n', '\r']);
    if plain {
        line.push_str(text);
    } else {
        line.push('"');
        line.push_str(&text.replace('"', "\"\""));
        line.push('"');
    }
}
