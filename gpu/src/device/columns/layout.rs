//! Memory for columns that are to be made: how long each buffer is, and where it lies in the one piece. Part of `columns`.

use std::sync::Arc;

use super::{ALIGNMENT, Column, Dictionary, Packed, Region, Strings, Values, column, fixed};
use crate::device::compute::Kernels;
use crate::device::error::DeviceError;
use crate::kernels::{FloatWidth, KeyWidth, OffsetWidth, Width};

/// What a column will be.
pub(super) struct Shape {
    pub(super) has_validity: bool,
    pub(super) kind: Kind,
}

pub(super) enum Kind {
    Bits,
    Fixed(Width),
    Floats(FloatWidth),
    Strings { width: OffsetWidth, bytes: u64 },
    Dictionary(KeyWidth, Arc<Column>),
}

impl Shape {
    /// Like that one, where strings take so many bytes.
    pub(super) fn of(column: &Column, string_bytes: impl FnOnce() -> u64) -> Self {
        let kind = match &column.values {
            Values::Bits(_) => Kind::Bits,
            Values::Fixed(width, _) => Kind::Fixed(*width),
            Values::Floats(width, _) => Kind::Floats(*width),
            Values::Strings(strings) => Kind::Strings {
                width: strings.width,
                bytes: string_bytes(),
            },
            Values::Dictionary(it) => Kind::Dictionary(it.width, Arc::clone(&it.entries)),
        };
        Self {
            has_validity: column.validity.is_some(),
            kind,
        }
    }

    pub(super) fn is_like(&self, other: &Self) -> bool {
        match (&self.kind, &other.kind) {
            (Kind::Bits, Kind::Bits) => true,
            (Kind::Fixed(a), Kind::Fixed(b)) => a == b,
            (Kind::Floats(a), Kind::Floats(b)) => a == b,
            (Kind::Strings { width: a, .. }, Kind::Strings { width: b, .. }) => a == b,
            // What entries are is looked at where these are put behind each other.
            (Kind::Dictionary(a, _), Kind::Dictionary(b, _)) => a == b,
            _ => false,
        }
    }

    /// Lengths of its buffers.
    fn buffers(&self, rows: u64) -> Vec<u64> {
        let bits = rows.div_ceil(8);
        let validity = self.has_validity.then_some(bits);
        let values = match self.kind {
            Kind::Bits => vec![bits],
            Kind::Fixed(width) => vec![rows * width.bytes()],
            Kind::Floats(width) => vec![rows * fixed(width).bytes()],
            Kind::Strings { width, bytes } => vec![(rows + 1) * width.bytes(), bytes],
            Kind::Dictionary(width, _) => vec![rows * Width::from(width).bytes()],
        };
        validity.into_iter().chain(values).collect()
    }
}

impl Kernels {
    /// Memory for columns of these shapes, with whatever it holds.
    pub(super) fn pack(&self, rows: u64, shapes: &[Shape]) -> Result<Packed, DeviceError> {
        let buffer_bytes: Vec<u64> = shapes.iter().flat_map(|it| it.buffers(rows)).collect();
        let mut starts = Vec::new();
        let mut end = 0_u64;
        for bytes in &buffer_bytes {
            starts.push((end, *bytes));
            end += bytes.next_multiple_of(ALIGNMENT);
        }
        let buffer = Arc::new(self.memory().try_allocate(end)?);
        let mut regions = starts
            .into_iter()
            .map(|(start, bytes)| Region::new(&buffer, start, bytes));
        let mut next = || {
            let region = regions.next();
            region.unwrap_or_else(|| Err(column("a column without memory".to_owned())))
        };
        let mut columns = Vec::new();
        for shape in shapes {
            let validity = shape.has_validity.then(&mut next).transpose()?;
            let values = match &shape.kind {
                Kind::Bits => Values::Bits(next()?),
                Kind::Fixed(width) => Values::Fixed(*width, next()?),
                Kind::Floats(width) => Values::Floats(*width, next()?),
                Kind::Strings { width, .. } => Values::Strings(Strings {
                    width: *width,
                    offsets: next()?,
                    bytes: next()?,
                }),
                Kind::Dictionary(width, entries) => Values::Dictionary(Dictionary {
                    width: *width,
                    keys: next()?,
                    entries: Arc::clone(entries),
                }),
            };
            columns.push(Column {
                rows,
                validity,
                values,
            });
        }
        Ok(Packed {
            buffer: Arc::clone(&buffer),
            buffer_bytes,
            rows,
            columns,
        })
    }
}
