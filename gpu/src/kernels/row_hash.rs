//! Hashes of rows over their key columns: the operator. Which numbers these are is in [`hash`](super::hash).

use super::arguments::{Address, HashBytes, HashEntries, HashValues};
use super::launch::{Grid, KeyWidth, OffsetWidth, Operator, Step, Width, strided, zero};

/// Bits of a float.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FloatWidth {
    /// Half precision.
    Bits16,
    /// Single precision.
    Bits32,
    /// Double precision.
    Bits64,
}

/// The values of a key column.
#[derive(Debug, Clone, Copy)]
pub enum KeyValues {
    /// A bitmap.
    Booleans(Address),
    /// Anything whose equality is that of its bits: integers, dates, times, decimals.
    Fixed(Width, Address),
    /// Floats: both zeros are alike, and so are all NaNs.
    Floats(FloatWidth, Address),
    /// Strings or binaries.
    Strings {
        /// Of the offsets.
        width: OffsetWidth,
        /// One more than there are rows.
        offsets: Address,
        /// What they point into.
        bytes: Address,
    },
    /// A column with a dictionary.
    Dictionary {
        /// Of a key.
        width: KeyWidth,
        /// The keys.
        keys: Address,
        /// The hashes of the dictionary's entries: what [`HashRows`] makes of its values as the only key.
        entries: Address,
    },
}

/// A key column.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its values.
    pub values: KeyValues,
    /// Its validity; absent when there are no nulls.
    pub validity: Option<Address>,
}

/// The hash of each row over all keys. Rows whose keys are equal have equal hashes; null equals null.
#[derive(Debug, Clone)]
pub struct HashRows {
    /// The key columns, in the order that all who take part agree on.
    pub keys: Vec<Key>,
    /// How many rows they have.
    pub rows: u64,
    /// Where the hashes go, as `u64`.
    pub hashes: Address,
}

impl Operator for HashRows {
    fn scratch_bytes(&self) -> u64 {
        0
    }

    fn steps(&self, _scratch: Address, grid: Grid) -> Vec<Step> {
        let clear = zero(self.hashes, self.rows * 8);
        let columns = self.keys.iter().filter_map(|key| self.column(key, grid));
        clear.into_iter().chain(columns).collect()
    }
}

impl HashRows {
    fn column(&self, key: &Key, grid: Grid) -> Option<Step> {
        let (validity, rows, hashes) = (key.validity, self.rows, self.hashes);
        let (kernel, input) = match key.values {
            KeyValues::Strings {
                width,
                offsets,
                bytes,
            } => {
                let arguments = HashBytes {
                    offsets,
                    bytes,
                    validity,
                    rows,
                    hashes,
                };
                return strided(
                    width.of("hash_bytes_32", "hash_bytes_64"),
                    grid,
                    rows,
                    &arguments,
                );
            }
            KeyValues::Dictionary {
                width,
                keys,
                entries,
            } => {
                let arguments = HashEntries {
                    keys,
                    validity,
                    rows,
                    entries,
                    hashes,
                };
                return strided(entries_kernel(width), grid, rows, &arguments);
            }
            KeyValues::Booleans(input) => ("hash_bits", input),
            KeyValues::Fixed(width, input) => (fixed_kernel(width), input),
            KeyValues::Floats(width, input) => (float_kernel(width), input),
        };
        let arguments = HashValues {
            input,
            validity,
            rows,
            hashes,
        };
        strided(kernel, grid, rows, &arguments)
    }
}

fn fixed_kernel(width: Width) -> &'static str {
    match width {
        Width::One => "hash_1",
        Width::Two => "hash_2",
        Width::Four => "hash_4",
        Width::Eight => "hash_8",
        Width::Sixteen => "hash_16",
    }
}

fn float_kernel(width: FloatWidth) -> &'static str {
    match width {
        FloatWidth::Bits16 => "hash_f16",
        FloatWidth::Bits32 => "hash_f32",
        FloatWidth::Bits64 => "hash_f64",
    }
}

fn entries_kernel(width: KeyWidth) -> &'static str {
    match width {
        KeyWidth::One => "hash_entries_1",
        KeyWidth::Two => "hash_entries_2",
        KeyWidth::Four => "hash_entries_4",
        KeyWidth::Eight => "hash_entries_8",
    }
}
