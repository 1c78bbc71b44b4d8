//! Tables put behind each other. Part of `columns`.

use std::sync::Arc;

use super::dictionary::Unified;
use super::layout::{Kind, Shape};
use super::{Column, Packed, Region, Strings, Values, column, fixed};
use crate::device::compute::{Kernels, Operators};
use crate::device::error::DeviceError;
use crate::kernels::{
    ConcatBits, ConcatFixed, ConcatKeys, ConcatOffsets, OffsetWidth, OffsetsPart,
};

impl Kernels {
    /// The rows of all tables, which have columns of the same kinds, behind each other. There is a table at least, and a column in it.
    ///
    /// # Errors
    /// [`DeviceError`]; the tables are as they were.
    pub async fn concat(&self, tables: &[Vec<Column>]) -> Result<Packed, DeviceError> {
        let columns = columns_of(tables)?;
        let mut dictionaries = Vec::new();
        for at in 0..columns {
            let parts: Vec<&Column> = tables.iter().map(|table| &table[at]).collect();
            dictionaries.push(self.unified(&parts).await?);
        }
        self.append(tables, &dictionaries).await
    }

    /// The same, where each column that has a dictionary has it in `dictionaries`.
    pub(super) async fn append(
        &self,
        tables: &[Vec<Column>],
        dictionaries: &[Option<Unified>],
    ) -> Result<Packed, DeviceError> {
        let mut rows = 0;
        for table in tables {
            rows += u64::from(self.rows_of(table.iter())?);
        }
        let parts = |at: usize| tables.iter().map(|table| &table[at]).collect::<Vec<_>>();
        let mut shapes = Vec::new();
        for (at, dictionary) in dictionaries.iter().enumerate() {
            shapes.push(concatenated(&parts(at), dictionary.as_ref())?);
        }
        let packed = self.pack(rows, &shapes)?;
        let mut operators: Operators = Vec::new();
        for (at, (to, dictionary)) in packed.columns.iter().zip(dictionaries).enumerate() {
            concat_column(&parts(at), dictionary.as_ref(), to, &mut operators);
        }
        let keep = (tables.to_vec(), packed);
        // SAFETY: the tables, and new memory of the needed lengths, are kept.
        let done = unsafe { self.run(keep, operators, None) };
        Ok(done.await?.0.1)
    }
}

/// How many columns each of the tables has.
fn columns_of(tables: &[Vec<Column>]) -> Result<usize, DeviceError> {
    let first = tables
        .first()
        .ok_or_else(|| column("no table".to_owned()))?;
    if tables.iter().any(|table| table.len() != first.len()) {
        return Err(column("tables have different columns".to_owned()));
    }
    Ok(first.len())
}

/// The shape of columns behind each other.
fn concatenated(parts: &[&Column], dictionary: Option<&Unified>) -> Result<Shape, DeviceError> {
    let shape = |part: &&Column| Shape::of(part, || strings_bytes(part));
    let shapes: Vec<Shape> = parts.iter().map(shape).collect();
    let first = shapes
        .first()
        .ok_or_else(|| column("no table".to_owned()))?;
    if !shapes.iter().all(|shape| shape.is_like(first)) {
        return Err(column(
            "columns behind each other are of different kinds".to_owned(),
        ));
    }
    let has_validity = shapes.iter().any(|shape| shape.has_validity);
    let kind = match &first.kind {
        Kind::Bits => Kind::Bits,
        Kind::Fixed(width) => Kind::Fixed(*width),
        Kind::Floats(width) => Kind::Floats(*width),
        Kind::Dictionary(width, entries) => {
            let entries = dictionary.map_or(entries, |it| &it.entries);
            Kind::Dictionary(*width, Arc::clone(entries))
        }
        Kind::Strings { width, .. } => {
            let width = *width;
            let bytes = parts.iter().map(|part| strings_bytes(part)).sum();
            if width == OffsetWidth::Bits32 && bytes > i32::MAX as u64 {
                return Err(column(format!(
                    "{bytes} B of strings are more than offsets of 32 bits reach; use large strings, or smaller parts"
                )));
            }
            Kind::Strings { width, bytes }
        }
    };
    Ok(Shape { has_validity, kind })
}

fn strings_bytes(column: &Column) -> u64 {
    column.strings().map_or(0, |strings| strings.bytes.bytes)
}

fn concat_column(
    parts: &[&Column],
    dictionary: Option<&Unified>,
    to: &Column,
    operators: &mut Operators,
) {
    if let Some(to) = &to.validity {
        let input = |part: &&Column| (part.validity.as_ref().map(Region::address), part.rows);
        operators.push(Box::new(ConcatBits {
            inputs: parts.iter().map(input).collect(),
            output: to.address(),
        }));
    }
    match &to.values {
        Values::Bits(to) => {
            let input = |part: &&Column| match &part.values {
                Values::Bits(bits) => (Some(bits.address()), part.rows),
                _ => (None, part.rows),
            };
            operators.push(Box::new(ConcatBits {
                inputs: parts.iter().map(input).collect(),
                output: to.address(),
            }));
        }
        Values::Fixed(_, to) | Values::Floats(_, to) => {
            let input = |part: &&Column| match &part.values {
                Values::Fixed(width, values) => Some((values.address(), part.rows * width.bytes())),
                Values::Floats(width, values) => {
                    Some((values.address(), part.rows * fixed(*width).bytes()))
                }
                Values::Bits(_) | Values::Strings(_) | Values::Dictionary(_) => None,
            };
            operators.push(Box::new(ConcatFixed {
                inputs: parts.iter().filter_map(input).collect(),
                output: to.address(),
            }));
        }
        Values::Dictionary(to) => {
            let firsts = dictionary.map_or(&[][..], |it| &it.firsts);
            let input = |(part, first): (&&Column, &u64)| {
                let keys = part.dictionary()?.keys.address();
                Some((keys, part.rows, *first))
            };
            operators.push(Box::new(ConcatKeys {
                width: to.width,
                inputs: parts.iter().zip(firsts).filter_map(input).collect(),
                output: to.keys.address(),
            }));
        }
        Values::Strings(to) => {
            let strings: Vec<(&Strings, u64)> = parts
                .iter()
                .filter_map(|part| Some((part.strings()?, part.rows)))
                .collect();
            let offsets = |(strings, rows): &(&Strings, u64)| OffsetsPart {
                offsets: strings.offsets.address(),
                rows: *rows,
                first: 0,
                bytes: strings.bytes.bytes,
            };
            operators.push(Box::new(ConcatOffsets {
                width: to.width,
                inputs: strings.iter().map(offsets).collect(),
                output: to.offsets.address(),
            }));
            let bytes =
                |(strings, _): &(&Strings, u64)| (strings.bytes.address(), strings.bytes.bytes);
            operators.push(Box::new(ConcatFixed {
                inputs: strings.iter().map(bytes).collect(),
                output: to.bytes.address(),
            }));
        }
    }
}
