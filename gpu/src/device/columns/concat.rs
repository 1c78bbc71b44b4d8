//! Tables put behind each other. Part of `columns`.

use super::layout::{Kind, Shape};
use super::{Column, Packed, Region, Strings, Values, column, fixed, same_rows};
use crate::device::compute::{Kernels, Operators};
use crate::device::error::DeviceError;
use crate::kernels::{ConcatBits, ConcatFixed, ConcatOffsets, OffsetWidth, OffsetsPart};

impl Kernels {
    /// The rows of all tables, which have columns of the same kinds, behind each other.
    ///
    /// # Errors
    /// [`DeviceError`]; the tables are as they were.
    pub async fn concat(&self, tables: &[Vec<Column>]) -> Result<Packed, DeviceError> {
        let columns = tables.first().map_or(0, Vec::len);
        if tables.iter().any(|table| table.len() != columns) {
            return Err(column("tables have different columns".to_owned()));
        }
        let mut rows = 0;
        for table in tables {
            rows += u64::from(same_rows(table.iter())?);
        }
        let mut shapes = Vec::new();
        for at in 0..columns {
            let parts: Vec<&Column> = tables.iter().map(|table| &table[at]).collect();
            shapes.push(concatenated(&parts)?);
        }
        let packed = self.pack(rows, &shapes)?;
        let mut operators: Operators = Vec::new();
        for (at, to) in packed.columns.iter().enumerate() {
            let parts: Vec<&Column> = tables.iter().map(|table| &table[at]).collect();
            concat_column(&parts, to, &mut operators);
        }
        let keep = (tables.to_vec(), packed);
        // SAFETY: the tables, and new memory of the needed lengths, are kept.
        let done = unsafe { self.run(keep, operators, None) };
        Ok(done.await?.0.1)
    }
}

/// The shape of columns behind each other.
fn concatenated(parts: &[&Column]) -> Result<Shape, DeviceError> {
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
    let kind = match first.kind {
        Kind::Bits => Kind::Bits,
        Kind::Fixed(width) => Kind::Fixed(width),
        Kind::Floats(width) => Kind::Floats(width),
        Kind::Strings { width, .. } => {
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
    match &column.values {
        Values::Strings(strings) => strings.bytes.bytes,
        Values::Bits(_) | Values::Fixed(..) | Values::Floats(..) => 0,
    }
}

fn concat_column(parts: &[&Column], to: &Column, operators: &mut Operators) {
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
                Values::Bits(_) | Values::Strings(_) => None,
            };
            operators.push(Box::new(ConcatFixed {
                inputs: parts.iter().filter_map(input).collect(),
                output: to.address(),
            }));
        }
        Values::Strings(to) => {
            let strings: Vec<(&Strings, u64)> = parts
                .iter()
                .filter_map(|part| match &part.values {
                    Values::Strings(strings) => Some((strings, part.rows)),
                    Values::Bits(_) | Values::Fixed(..) | Values::Floats(..) => None,
                })
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
