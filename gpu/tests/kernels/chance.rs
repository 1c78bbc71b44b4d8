//! Made-up columns: values by a seed, among which the extremes and what others take for markers are common.

use crate::machine::Number;

/// The lengths around which kernels err.
pub(crate) const LENGTHS: &[usize] = &[
    0, 1, 2, 31, 32, 33, 63, 64, 65, 255, 256, 257, 1023, 1024, 1025, 2049, 5000,
];

pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    pub(crate) fn numbers<T: Number>(&mut self, count: usize) -> Vec<T> {
        (0..count).map(|_| T::from_bits(self.bits())).collect()
    }

    fn bits(&mut self) -> u128 {
        let wide = u128::from(self.next()) << 64 | u128::from(self.next());
        match self.below(8) {
            0 => 0,
            1 => u128::MAX,
            2 => 1 << 127 | 1 << 63 | 1 << 31 | 1 << 15 | 1 << 7,
            3 => !(1 << 127 | 1 << 63 | 1 << 31 | 1 << 15 | 1 << 7),
            4 => wide % 4,
            _ => wide,
        }
    }

    /// True in `share` of 8 cases.
    pub(crate) fn booleans(&mut self, count: usize, share: usize) -> Vec<bool> {
        (0..count).map(|_| self.below(8) < share).collect()
    }

    /// No nulls at all, or some, or nothing but nulls.
    pub(crate) fn validity(&mut self, count: usize) -> Option<Vec<bool>> {
        match self.below(4) {
            0 => None,
            1 => Some(vec![false; count]),
            2 => Some(vec![true; count]),
            _ => Some(self.booleans(count, 6)),
        }
    }

    /// Strings of no bytes, few, and more than a warp has lanes.
    pub(crate) fn strings(&mut self, count: usize) -> Vec<Vec<u8>> {
        let string = |chance: &mut Self| {
            let longest = [1, 9, 20, 100][chance.below(4)];
            let length = chance.below(longest);
            (0..length).map(|_| chance.next() as u8 & 3).collect()
        };
        (0..count).map(|_| string(self)).collect()
    }

    /// Numbers of rows of a column of `rows`; those that are null are rubbish.
    pub(crate) fn indices(&mut self, count: usize, rows: usize) -> (Vec<u32>, Option<Vec<bool>>) {
        let validity = match rows {
            0 => Some(vec![false; count]),
            _ => self.validity(count),
        };
        let is_valid = |at: usize| validity.as_ref().is_none_or(|validity| validity[at]);
        let index = |at| {
            if is_valid(at) {
                self.below(rows) as u32
            } else {
                u32::MAX
            }
        };
        ((0..count).map(index).collect(), validity)
    }
}

/// Offsets from `first` on, and the bytes that they point into.
pub(crate) fn offsets_and_bytes(strings: &[Vec<u8>], first: usize) -> (Vec<u64>, Vec<u8>) {
    let mut bytes = vec![0xee; first];
    let mut offsets = vec![first as u64];
    for string in strings {
        bytes.extend_from_slice(string);
        offsets.push(bytes.len() as u64);
    }
    (offsets, bytes)
}

/// The same numbers in fewer bits.
pub(crate) fn narrow(offsets: &[u64]) -> Vec<u32> {
    offsets.iter().map(|offset| *offset as u32).collect()
}
