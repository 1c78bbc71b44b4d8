//! Hashes of rows over key columns. Part of `columns`.

use super::{Column, Region, Values};
use crate::device::compute::{Kernels, Operators};
use crate::device::error::DeviceError;
use crate::device::memory::DeviceBuffer;
use crate::kernels::{Address, HashRows, Key, KeyValues};

/// What hashes rows, and the memory that it works in.
pub(super) struct Hashing {
    pub(super) operators: Operators,
    /// Hashes of the entries of dictionaries.
    pub(super) entries: Vec<DeviceBuffer>,
}

impl Kernels {
    /// Hashes `rows` rows into `hashes`. Equal values have equal hashes, also where one is in a dictionary and the other is not.
    pub(super) fn hash_rows(
        &self,
        keys: &[&Column],
        rows: u64,
        hashes: Address,
    ) -> Result<Hashing, DeviceError> {
        let mut hashing = Hashing {
            operators: Vec::new(),
            entries: Vec::new(),
        };
        let mut of_rows = Vec::new();
        for column in keys {
            of_rows.push(self.key(column, &mut hashing)?);
        }
        hashing.operators.push(Box::new(HashRows {
            keys: of_rows,
            rows,
            hashes,
        }));
        Ok(hashing)
    }

    fn key(&self, column: &Column, hashing: &mut Hashing) -> Result<Key, DeviceError> {
        let values = match &column.values {
            Values::Bits(bits) => KeyValues::Booleans(bits.address()),
            Values::Fixed(width, values) => KeyValues::Fixed(*width, values.address()),
            Values::Floats(width, values) => KeyValues::Floats(*width, values.address()),
            Values::Strings(strings) => KeyValues::Strings {
                width: strings.width,
                offsets: strings.offsets.address(),
                bytes: strings.bytes.address(),
            },
            Values::Dictionary(dictionary) => {
                let rows = dictionary.entries.rows;
                let buffer = self.memory().try_allocate(rows * 8)?;
                let entries = Address(buffer.address());
                hashing.entries.push(buffer);
                // Entries have no dictionary themselves.
                let key = self.key(&dictionary.entries, hashing)?;
                hashing.operators.push(Box::new(HashRows {
                    keys: vec![key],
                    rows,
                    hashes: entries,
                }));
                KeyValues::Dictionary {
                    width: dictionary.width,
                    keys: dictionary.keys.address(),
                    entries,
                }
            }
        };
        Ok(Key {
            values,
            validity: column.validity.as_ref().map(Region::address),
        })
    }
}
