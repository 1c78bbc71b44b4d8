//! Rows that are picked: by a mask, and by the hash of keys. Part of `columns`.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::layout::Shape;
use super::{Column, Packed, Region, Values, column, fixed};
use crate::device::compute::{Kernels, Learn, Operators};
use crate::device::error::DeviceError;
use crate::device::memory::DeviceBuffer;
use crate::kernels::{
    Address, ConcatFixed, GatherBits, GatherFixed, GatherOffsets, GatherStrings, Grid, OffsetWidth,
    Operator, PartitionOrder, SelectRows, Step,
};

/// Rows by their numbers, in device memory.
#[derive(Debug, Clone)]
struct Rows {
    indices: Arc<DeviceBuffer>,
    first: u64,
    count: u64,
}

impl Kernels {
    /// The rows of `table` where `mask`, a column of booleans, is true; null is false. A table without columns is counted.
    ///
    /// # Errors
    /// [`DeviceError`]; the table is as it was.
    pub async fn filter(&self, table: &[Column], mask: &Column) -> Result<Packed, DeviceError> {
        let rows = self.rows_of(table.iter().chain([mask]))?;
        let Values::Bits(bits) = &mask.values else {
            return Err(column("a mask is a column of booleans".to_owned()));
        };
        let indices = Arc::new(self.memory().try_allocate(u64::from(rows) * 4)?);
        let selected = Arc::new(self.memory().try_allocate(4)?);
        let select = SelectRows {
            mask: bits.address(),
            mask_validity: mask.validity.as_ref().map(Region::address),
            rows,
            indices: Address(indices.address()),
            selected: Address(selected.address()),
        };
        let learn = Learn {
            from: Address(selected.address()),
            bytes: 4,
        };
        let keep = (mask.clone(), Arc::clone(&indices), selected);
        // SAFETY: the mask, and new memory of the documented lengths, are kept.
        let learnt = unsafe { self.run(keep, vec![Box::new(select)], Some(learn)) };
        let count = words(&learnt.await?.1).first().copied().unwrap_or(0);
        let rows = Rows {
            indices,
            first: 0,
            count: count.into(),
        };
        let picked = self.gather(table, &[rows]).await?;
        picked
            .into_iter()
            .next()
            .ok_or_else(|| column("nothing was gathered".to_owned()))
    }

    /// The rows of `table` in `partitions` parts, by the hash of the columns `keys`; rows of one part in the order they had.
    ///
    /// # Errors
    /// [`DeviceError`]; the table is as it was.
    pub async fn partition(
        &self,
        table: &[Column],
        keys: &[usize],
        partitions: NonZeroU32,
    ) -> Result<Vec<Packed>, DeviceError> {
        let rows = self.rows_of(table.iter())?;
        let keys: Option<Vec<&Column>> = keys.iter().map(|at| table.get(*at)).collect();
        let keys = keys.ok_or_else(|| column("a key is no column of the table".to_owned()))?;
        let hashes = Arc::new(self.memory().try_allocate(u64::from(rows) * 8)?);
        let indices = Arc::new(self.memory().try_allocate(u64::from(rows) * 4)?);
        let ends_bytes = (u64::from(partitions.get()) + 1) * 4;
        let firsts = Arc::new(self.memory().try_allocate(ends_bytes)?);
        let hashing = self.hash_rows(&keys, rows.into(), Address(hashes.address()))?;
        let order = PartitionOrder {
            hashes: Address(hashes.address()),
            rows,
            partitions,
            firsts: Address(firsts.address()),
            indices: Address(indices.address()),
        };
        let learn = Learn {
            from: Address(firsts.address()),
            bytes: ends_bytes,
        };
        let mut operators = hashing.operators;
        operators.push(Box::new(order));
        let hashes = (hashes, hashing.entries);
        let keep = (table.to_vec(), hashes, Arc::clone(&indices), firsts);
        // SAFETY: the table, and new memory of the documented lengths, are kept.
        let learnt = unsafe { self.run(keep, operators, Some(learn)) };
        let firsts = words(&learnt.await?.1);
        let parts = firsts.windows(2).map(|ends| Rows {
            indices: Arc::clone(&indices),
            first: ends[0].into(),
            count: (ends[1] - ends[0]).into(),
        });
        self.gather(table, &parts.collect::<Vec<_>>()).await
    }

    /// For each of `parts`, its rows of the table.
    async fn gather(&self, table: &[Column], parts: &[Rows]) -> Result<Vec<Packed>, DeviceError> {
        let (starts, lengths) = self.gather_starts(table, parts).await?;
        let strings = table
            .iter()
            .filter(|it| matches!(it.values, Values::Strings(_)));
        let strings = strings.count();
        let mut all = Vec::new();
        let mut operators: Operators = Vec::new();
        for (number, part) in parts.iter().enumerate() {
            let range = number * strings..(number + 1) * strings;
            let mut own_lengths = lengths[range.clone()].iter();
            let shapes: Vec<Shape> = table
                .iter()
                .map(|column| Shape::of(column, || own_lengths.next().copied().unwrap_or(0)))
                .collect();
            let packed = self.pack(part.count, &shapes)?;
            let mut own_starts = starts[range].iter();
            for (from, to) in table.iter().zip(&packed.columns) {
                let start = match from.values {
                    Values::Strings(_) => own_starts.next(),
                    _ => None,
                };
                gather_column(from, part, start, to, &mut operators);
            }
            all.push(packed);
        }
        let keep = (table.to_vec(), parts.to_vec(), starts, all);
        // SAFETY: the table and its row numbers, which are below its rows, and new memory of the needed lengths, are kept.
        let done = unsafe { self.run(keep, operators, None) };
        Ok(done.await?.0.3)
    }

    /// For each part, and in it for each column of strings, where each picked string begins, and how long all are.
    async fn gather_starts(
        &self,
        table: &[Column],
        parts: &[Rows],
    ) -> Result<(Vec<Arc<DeviceBuffer>>, Vec<u64>), DeviceError> {
        let mut starts = Vec::new();
        let mut operators: Operators = Vec::new();
        let mut ends = Vec::new();
        for part in parts {
            for column in table {
                let Values::Strings(strings) = &column.values else {
                    continue;
                };
                let start = Arc::new(self.memory().try_allocate((part.count + 1) * 8)?);
                operators.push(Box::new(GatherOffsets {
                    width: strings.width,
                    offsets: strings.offsets.address(),
                    indices: part.address(),
                    indices_validity: None,
                    rows: part.count,
                    starts: Address(start.address()),
                }));
                ends.push(Address(start.address()).plus(part.count * 8));
                starts.push(start);
            }
        }
        if starts.is_empty() {
            return Ok((starts, Vec::new()));
        }
        let bytes = ends.len() as u64 * 8;
        let lengths = Arc::new(self.memory().try_allocate(bytes)?);
        let from = Address(lengths.address());
        operators.push(Box::new(Collect { ends, to: from }));
        let keep = (table.to_vec(), parts.to_vec(), starts, lengths);
        // SAFETY: the table and its row numbers, and new memory of the documented lengths, are kept.
        let learnt = unsafe { self.run(keep, operators, Some(Learn { from, bytes })) };
        let ((_, _, starts, _), learnt) = learnt.await?;
        let lengths = learnt.chunks_exact(8);
        let length = |bytes: &[u8]| u64::from_le_bytes(std::array::from_fn(|at| bytes[at]));
        Ok((starts, lengths.map(length).collect()))
    }
}

/// Puts numbers from here and there behind each other.
struct Collect {
    ends: Vec<Address>,
    to: Address,
}

impl Operator for Collect {
    fn scratch_bytes(&self) -> u64 {
        0
    }

    fn steps(&self, _scratch: Address, _grid: Grid) -> Vec<Step> {
        let copy = |(number, from): (u64, &Address)| Step::Copy {
            from: *from,
            to: self.to.plus(number * 8),
            bytes: 8,
        };
        (0..).zip(&self.ends).map(copy).collect()
    }
}

impl Rows {
    fn address(&self) -> Address {
        Address(self.indices.address() + self.first * 4)
    }
}

fn gather_column(
    from: &Column,
    rows: &Rows,
    starts: Option<&Arc<DeviceBuffer>>,
    to: &Column,
    operators: &mut Operators,
) {
    let indices = rows.address();
    let bits = |input: &Region, output: &Region| GatherBits {
        input: Some(input.address()),
        indices,
        indices_validity: None,
        rows: rows.count,
        output: output.address(),
    };
    if let (Some(from), Some(to)) = (&from.validity, &to.validity) {
        operators.push(Box::new(bits(from, to)));
    }
    let values = |width, input: &Region, output: &Region| GatherFixed {
        width,
        input: input.address(),
        indices,
        indices_validity: None,
        rows: rows.count,
        output: output.address(),
    };
    match (&from.values, &to.values) {
        (Values::Bits(from), Values::Bits(to)) => operators.push(Box::new(bits(from, to))),
        (Values::Fixed(width, from), Values::Fixed(_, to)) => {
            operators.push(Box::new(values(*width, from, to)));
        }
        (Values::Floats(width, from), Values::Floats(_, to)) => {
            operators.push(Box::new(values(fixed(*width), from, to)));
        }
        (Values::Dictionary(from), Values::Dictionary(to)) => {
            operators.push(Box::new(values(from.width.into(), &from.keys, &to.keys)));
        }
        (Values::Strings(from), Values::Strings(to)) => {
            let Some(starts) = starts else { return };
            let narrow = match from.width {
                OffsetWidth::Bits32 => Some(to.offsets.address()),
                OffsetWidth::Bits64 => None,
            };
            let starts = Address(starts.address());
            operators.push(Box::new(GatherStrings {
                offsets: from.offsets.address(),
                bytes: from.bytes.address(),
                indices,
                rows: rows.count,
                starts,
                output: to.bytes.address(),
                narrow_offsets: narrow,
            }));
            if narrow.is_none() {
                let bytes = (rows.count + 1) * 8;
                operators.push(Box::new(ConcatFixed {
                    inputs: vec![(starts, bytes)],
                    output: to.offsets.address(),
                }));
            }
        }
        // `to` was made in the likeness of `from`.
        _ => {}
    }
}

fn words(bytes: &[u8]) -> Vec<u32> {
    let word = |bytes: &[u8]| u32::from_le_bytes(std::array::from_fn(|at| bytes[at]));
    bytes.chunks_exact(4).map(word).collect()
}
