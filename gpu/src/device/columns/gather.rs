//! Rows that are picked: by a mask, and by the hash of keys. Part of `columns`.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::layout::Shape;
use super::{ALIGNMENT, Column, Packed, Region, Strings, Values, column, fixed};
use crate::device::compute::{Kernels, Learn, Operators};
use crate::device::error::DeviceError;
use crate::device::memory::DeviceBuffer;
use crate::kernels::{
    Address, GatherBits, GatherFixed, GatherOffsets, GatherStrings, PartitionOrder, SelectRows,
    Width,
};

/// Rows by their numbers, in parts that follow each other.
struct Picked {
    indices: Arc<DeviceBuffer>,
    /// Where each part ends: in this buffer, as `u32` from this byte on.
    ends: (Arc<DeviceBuffer>, u64),
    /// The same, as the host has learnt it, with a 0 before it.
    firsts: Vec<u64>,
}

/// Where picked strings lie among all that are picked.
struct Starts {
    /// Of each row, and the end.
    buffer: Arc<DeviceBuffer>,
    /// Where those of each part end, with a 0 before it.
    firsts: Vec<u64>,
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
        let keep = (mask.clone(), Arc::clone(&indices), Arc::clone(&selected));
        // SAFETY: the mask, and new memory of the documented lengths, are kept.
        let learnt = unsafe { self.run(keep, vec![Box::new(select)], Some(learn)) };
        let count = words(&learnt.await?.1).first().copied().unwrap_or(0);
        let picked = Picked {
            indices,
            ends: (selected, 0),
            firsts: vec![0, count.into()],
        };
        let picked = self.gather(table, &picked).await?;
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
        let keep = (
            table.to_vec(),
            hashes,
            Arc::clone(&indices),
            Arc::clone(&firsts),
        );
        // SAFETY: the table, and new memory of the documented lengths, are kept.
        let learnt = unsafe { self.run(keep, operators, Some(learn)) };
        let learnt = words(&learnt.await?.1);
        let picked = Picked {
            indices,
            ends: (firsts, 4),
            firsts: learnt.into_iter().map(u64::from).collect(),
        };
        self.gather(table, &picked).await
    }

    /// For each part, its rows of the table.
    async fn gather(&self, table: &[Column], picked: &Picked) -> Result<Vec<Packed>, DeviceError> {
        let starts = self.gather_starts(table, picked).await?;
        let mut all = Vec::new();
        let mut operators: Operators = Vec::new();
        for (number, part) in picked.parts().enumerate() {
            let mut lengths = starts.iter().map(|it| it.bytes_of(number));
            let shape = |column| Shape::of(column, || lengths.next().unwrap_or(0));
            let shapes: Vec<Shape> = table.iter().map(shape).collect();
            let packed = self.pack(part.count, &shapes)?;
            let mut starts = starts.iter();
            for (from, to) in table.iter().zip(&packed.columns) {
                let start = from.strings().and_then(|_| starts.next());
                gather_column(from, &part, start, to, &mut operators);
            }
            all.push(packed);
        }
        let buffers: Vec<_> = starts.into_iter().map(|it| it.buffer).collect();
        let keep = (table.to_vec(), Arc::clone(&picked.indices), buffers, all);
        // SAFETY: the table and its row numbers, which are below its rows, and new memory of the needed lengths, are kept.
        let done = unsafe { self.run(keep, operators, None) };
        Ok(done.await?.0.3)
    }

    /// For each column of strings, where each picked string begins, and those of each part.
    async fn gather_starts(
        &self,
        table: &[Column],
        picked: &Picked,
    ) -> Result<Vec<Starts>, DeviceError> {
        let strings: Vec<&Strings> = table.iter().filter_map(Column::strings).collect();
        if strings.is_empty() {
            return Ok(Vec::new());
        }
        let rows = picked.firsts.last().copied().unwrap_or(0);
        let parts = picked.parts().count() as u64;
        let ends_bytes = (parts * 8).next_multiple_of(ALIGNMENT);
        let bytes = ends_bytes * strings.len() as u64;
        let ends = Arc::new(self.memory().try_allocate(bytes)?);
        let mut operators: Operators = Vec::new();
        let mut buffers = Vec::new();
        for (number, strings) in (0..).zip(strings) {
            let starts = Arc::new(self.memory().try_allocate((rows + 1) * 8)?);
            let at = Address(starts.address());
            operators.push(Box::new(GatherOffsets {
                width: strings.width,
                offsets: strings.offsets.address(),
                indices: Address(picked.indices.address()),
                indices_validity: None,
                rows,
                starts: at,
            }));
            let (buffer, first) = &picked.ends;
            operators.push(Box::new(GatherFixed {
                width: Width::Eight,
                input: at,
                indices: Address(buffer.address()).plus(*first),
                indices_validity: None,
                rows: parts,
                output: Address(ends.address()).plus(number * ends_bytes),
            }));
            buffers.push(starts);
        }
        let from = Address(ends.address());
        let indices = (Arc::clone(&picked.indices), Arc::clone(&picked.ends.0));
        let keep = (table.to_vec(), indices, buffers, ends);
        // SAFETY: the table and its row numbers, and new memory of the documented lengths, are kept.
        let learnt = unsafe { self.run(keep, operators, Some(Learn { from, bytes })) };
        let ((_, _, buffers, _), learnt) = learnt.await?;
        let learnt = learnt.chunks_exact(ends_bytes as usize);
        let starts = buffers
            .into_iter()
            .zip(learnt)
            .map(|(buffer, ends)| Starts {
                buffer,
                firsts: [0].into_iter().chain(longs(ends, parts)).collect(),
            });
        Ok(starts.collect())
    }
}

/// Some of the picked rows.
struct Part {
    indices: Address,
    first: u64,
    count: u64,
}

impl Picked {
    fn parts(&self) -> impl Iterator<Item = Part> {
        let indices = Address(self.indices.address());
        self.firsts.windows(2).map(move |ends| Part {
            indices: indices.plus(ends[0] * 4),
            first: ends[0],
            count: ends[1] - ends[0],
        })
    }
}

impl Starts {
    /// Bytes of the strings of a part.
    fn bytes_of(&self, part: usize) -> u64 {
        self.firsts[part + 1] - self.firsts[part]
    }
}

fn gather_column(
    from: &Column,
    rows: &Part,
    starts: Option<&Starts>,
    to: &Column,
    operators: &mut Operators,
) {
    let indices = rows.indices;
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
            operators.push(Box::new(GatherStrings {
                width: from.width,
                offsets: from.offsets.address(),
                bytes: from.bytes.address(),
                indices,
                rows: rows.count,
                starts: Address(starts.buffer.address()).plus(rows.first * 8),
                output: to.bytes.address(),
                output_offsets: to.offsets.address(),
            }));
        }
        // `to` was made in the likeness of `from`.
        _ => {}
    }
}

fn words(bytes: &[u8]) -> Vec<u32> {
    let word = |bytes: &[u8]| u32::from_le_bytes(std::array::from_fn(|at| bytes[at]));
    bytes.chunks_exact(4).map(word).collect()
}

/// The first `count` numbers.
fn longs(bytes: &[u8], count: u64) -> impl Iterator<Item = u64> {
    let long = |bytes: &[u8]| u64::from_le_bytes(std::array::from_fn(|at| bytes[at]));
    bytes.chunks_exact(8).map(long).take(count as usize)
}
