//! Operators on columns in device memory: filter, gather, concat, and partition by hash. Called by operators of queries; what a column
//! means is theirs to know.
//!
//! A table's columns are put into one piece of memory, laid out as the payload of a partition is, so that what comes out is a partition
//! without another copy.

mod concat;
mod dictionary;
mod gather;
mod keys;
mod layout;
mod strings;

use std::sync::Arc;

use super::compute::Kernels;
use super::error::DeviceError;
use super::memory::DeviceBuffer;
use crate::ALIGNMENT_BYTES;
use crate::kernels::{Address, FloatWidth, OffsetWidth, Width};

pub use dictionary::Dictionary;
pub use strings::UncheckedStrings;

const ALIGNMENT: u64 = ALIGNMENT_BYTES as u64;

/// A part of device memory that is held.
#[derive(Debug, Clone)]
pub struct Region {
    buffer: Arc<DeviceBuffer>,
    start: u64,
    bytes: u64,
}

/// The values of a column, without their validity.
#[derive(Debug, Clone)]
pub enum Values {
    /// Booleans, as a bitmap.
    Bits(Region),
    /// Values of one width, whose equality is that of their bits.
    Fixed(Width, Region),
    /// Floats, whose zeros and NaNs are alike where they are hashed.
    Floats(FloatWidth, Region),
    /// Strings or binaries.
    Strings(Strings),
    /// Keys of a dictionary.
    Dictionary(Dictionary),
}

/// Strings or binaries, whose first offset is 0.
#[derive(Debug, Clone)]
pub struct Strings {
    width: OffsetWidth,
    offsets: Region,
    bytes: Region,
}

/// A column of so many rows.
#[derive(Debug, Clone)]
pub struct Column {
    rows: u64,
    validity: Option<Region>,
    values: Values,
}

/// Columns in one piece of memory.
#[derive(Debug, Clone)]
pub struct Packed {
    /// All of it.
    pub buffer: Arc<DeviceBuffer>,
    /// Length of each buffer, without padding: for each column its validity, if it has one, its offsets, if it has some, and its values.
    /// Those of a dictionary are its keys; the entries are in memory of their own.
    pub buffer_bytes: Vec<u64>,
    /// How many rows, also where there are no columns.
    pub rows: u64,
    /// The columns.
    pub columns: Vec<Column>,
}

impl Region {
    /// The bytes from `start` on, which is a multiple of 64. What is written or read beyond them, up to the next such multiple, is no
    /// other's.
    ///
    /// # Errors
    /// [`DeviceError::Column`] where it lies elsewhere, or the buffer ends before.
    pub fn new(buffer: &Arc<DeviceBuffer>, start: u64, bytes: u64) -> Result<Self, DeviceError> {
        let end = start.checked_add(bytes);
        let end = end.and_then(|end| end.checked_next_multiple_of(ALIGNMENT));
        // The allocator's pieces reach to a multiple of it.
        let whole = buffer.bytes().next_multiple_of(ALIGNMENT);
        if !start.is_multiple_of(ALIGNMENT) || end.is_none_or(|end| end > whole) {
            return Err(column(format!(
                "{bytes} B from {start} on are no part of {} B",
                buffer.bytes()
            )));
        }
        Ok(Self {
            buffer: Arc::clone(buffer),
            start,
            bytes,
        })
    }

    fn address(&self) -> Address {
        Address(self.buffer.address() + self.start)
    }

    fn holds(&self, bytes: Option<u64>, what: &str) -> Result<(), DeviceError> {
        if bytes.is_some_and(|bytes| bytes <= self.bytes) {
            return Ok(());
        }
        Err(column(format!("its {what} are {} B, too few", self.bytes)))
    }
}

impl Strings {
    /// Strings whose offsets begin with 0, rise, and end with the length of `bytes`. Where nobody vouches for that,
    /// [`Kernels::checked`] makes them.
    ///
    /// # Safety
    /// They do: a kernel reads and writes where they say.
    pub unsafe fn new(width: OffsetWidth, offsets: Region, bytes: Region) -> Self {
        Self {
            width,
            offsets,
            bytes,
        }
    }
}

impl Column {
    /// A column of `rows` rows.
    ///
    /// # Errors
    /// [`DeviceError::Column`] where a part is too short for them.
    pub fn new(rows: u32, validity: Option<Region>, values: Values) -> Result<Self, DeviceError> {
        let rows = u64::from(rows);
        if let Some(validity) = &validity {
            validity.holds(Some(rows.div_ceil(8)), "validity bits")?;
        }
        match &values {
            Values::Bits(bits) => bits.holds(Some(rows.div_ceil(8)), "bits")?,
            Values::Fixed(width, values) => values.holds(Some(rows * width.bytes()), "values")?,
            Values::Floats(width, values) => {
                values.holds(Some(rows * fixed(*width).bytes()), "values")?;
            }
            Values::Dictionary(dictionary) => {
                let bytes = rows * Width::from(dictionary.width).bytes();
                dictionary.keys.holds(Some(bytes), "keys")?;
            }
            Values::Strings(strings) => {
                // Exactly: the bytes are those of all offsets.
                let bytes = (rows + 1) * strings.width.bytes();
                if strings.offsets.bytes != bytes {
                    return Err(column(format!(
                        "{} B of offsets are not those of {rows} rows",
                        strings.offsets.bytes
                    )));
                }
            }
        }
        Ok(Self {
            rows,
            validity,
            values,
        })
    }

    /// How many rows.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Which rows are not null; absent when all are.
    pub fn validity(&self) -> Option<&Region> {
        self.validity.as_ref()
    }

    /// Its values.
    pub fn values(&self) -> &Values {
        &self.values
    }

    /// Its values, if they are strings.
    fn strings(&self) -> Option<&Strings> {
        match &self.values {
            Values::Strings(strings) => Some(strings),
            Values::Bits(_) | Values::Fixed(..) | Values::Floats(..) | Values::Dictionary(_) => {
                None
            }
        }
    }

    /// All parts of it that are in device memory.
    fn regions(&self) -> Vec<&Region> {
        let mut regions: Vec<&Region> = self.validity.iter().collect();
        match &self.values {
            Values::Bits(values) | Values::Fixed(_, values) | Values::Floats(_, values) => {
                regions.push(values);
            }
            Values::Strings(strings) => regions.extend([&strings.offsets, &strings.bytes]),
            Values::Dictionary(dictionary) => {
                regions.push(&dictionary.keys);
                regions.extend(dictionary.entries.regions());
            }
        }
        regions
    }
}

impl Kernels {
    /// The rows that all these columns have, which are on this device.
    fn rows_of<'a>(&self, columns: impl Iterator<Item = &'a Column>) -> Result<u32, DeviceError> {
        let mut rows = None;
        for it in columns {
            for region in it.regions() {
                let device = self.memory().device();
                device.check_same(region.buffer.device())?;
            }
            if *rows.get_or_insert(it.rows) != it.rows {
                return Err(column(
                    "columns of one table have different lengths".to_owned(),
                ));
            }
        }
        let none =
            || column("a table without columns does not say how many rows it has".to_owned());
        // As many as a column can be made with.
        u32::try_from(rows.ok_or_else(none)?).map_err(|_| column("too many rows".to_owned()))
    }
}

fn fixed(width: FloatWidth) -> Width {
    match width {
        FloatWidth::Bits16 => Width::Two,
        FloatWidth::Bits32 => Width::Four,
        FloatWidth::Bits64 => Width::Eight,
    }
}

fn column(reason: String) -> DeviceError {
    DeviceError::Column { reason }
}
