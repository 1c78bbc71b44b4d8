//! Results as a table for people.
//!
//! Column widths come from the first rows, so that a result of any size needs little memory; a later cell that is wider
//! pushes its row to the right.

use std::io::Write;

use datafusion::arrow::array::{Array, RecordBatch};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use unicode_width::UnicodeWidthStr;

use super::{Destination, ResultWriter, write_failure};
use crate::failure::Failure;

/// Rows that are held back until the widths are known.
const MEASURED_ROWS: usize = 4_096;

/// The lines of one cell; most cells have one.
type Cell = Vec<String>;

/// Writes batches as a table with a border.
pub(crate) struct TableWriter<'a> {
    destination: &'a mut Destination,
    columns: Vec<Column>,
    /// Rows whose widths count; written at once when they are enough.
    measured: Vec<Vec<Cell>>,
    started: bool,
}

struct Column {
    name: Cell,
    width: usize,
    right: bool,
}

impl<'a> TableWriter<'a> {
    /// Writes nothing yet.
    pub(crate) fn new(schema: &SchemaRef, destination: &'a mut Destination) -> Self {
        let columns = schema.fields().iter().map(|field| {
            let name = cell(field.name());
            Column {
                width: width(&name),
                name,
                right: field.data_type().is_numeric(),
            }
        });
        Self {
            columns: columns.collect(),
            destination,
            measured: Vec::new(),
            started: false,
        }
    }

    fn put(&mut self, text: &str) -> Result<(), Failure> {
        self.destination
            .write_all(text.as_bytes())
            .map_err(|error| write_failure(&error))
    }

    /// Writes the header and the rows held back.
    fn start(&mut self) -> Result<(), Failure> {
        self.started = true;
        let rows = std::mem::take(&mut self.measured);
        for row in &rows {
            for (column, cell) in self.columns.iter_mut().zip(row) {
                column.width = column.width.max(width(cell));
            }
        }
        let names: Vec<Cell> = self
            .columns
            .iter()
            .map(|column| column.name.clone())
            .collect();
        let header = [self.border(), self.row(&names, true), self.border()].concat();
        self.put(&header)?;
        rows.iter().try_for_each(|row| {
            let text = self.row(row, false);
            self.put(&text)
        })
    }

    fn border(&self) -> String {
        let dashes = self
            .columns
            .iter()
            .map(|column| "-".repeat(column.width + 2));
        format!("+{}+\n", dashes.collect::<Vec<_>>().join("+"))
    }

    fn row(&self, cells: &[Cell], header: bool) -> String {
        let height = cells.iter().map(Vec::len).max().unwrap_or(1);
        let mut text = String::new();
        for line in 0..height {
            for (column, cell) in self.columns.iter().zip(cells) {
                let part = cell.get(line).map_or("", String::as_str);
                let blanks = " ".repeat(column.width.saturating_sub(part.width()));
                text.push_str("| ");
                if column.right && !header {
                    text.push_str(&blanks);
                    text.push_str(part);
                } else {
                    text.push_str(part);
                    text.push_str(&blanks);
                }
                text.push(' ');
            }
            text.push_str("|\n");
        }
        text
    }
}

impl ResultWriter for TableWriter<'_> {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), Failure> {
        let options = FormatOptions::default().with_display_error(true);
        let formatters = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column.as_ref(), &options))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| write_failure(&error))?;
        for index in 0..batch.num_rows() {
            let columns = formatters.iter().zip(batch.columns());
            let row: Vec<Cell> = columns
                .map(|(formatter, column)| {
                    if column.is_null(index) {
                        vec!["NULL".to_owned()]
                    } else {
                        cell(&formatter.value(index).to_string())
                    }
                })
                .collect();
            if self.started {
                let text = self.row(&row, false);
                self.put(&text)?;
            } else {
                self.measured.push(row);
                if self.measured.len() >= MEASURED_ROWS {
                    self.start()?;
                }
            }
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(), Failure> {
        if !self.started {
            self.start()?;
        }
        let border = self.border();
        self.put(&border)
    }
}

/// The lines of a text, with everything that could move a terminal's cursor made visible.
fn cell(text: &str) -> Cell {
    text.split('\n')
        .map(|line| {
            if line.contains(char::is_control) {
                let shown = line.chars().map(|character| {
                    if character.is_control() {
                        character.escape_default().to_string()
                    } else {
                        character.to_string()
                    }
                });
                shown.collect()
            } else {
                line.to_owned()
            }
        })
        .collect()
}

fn width(cell: &Cell) -> usize {
    cell.iter().map(|line| line.width()).max().unwrap_or(0)
}
