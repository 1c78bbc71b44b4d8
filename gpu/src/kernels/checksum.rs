//! The checksum of spilled device memory, which a device and the host compute alike: a file that one wrote is checked by the other. Called by
//! moves to disk and back.
//!
//! A sum over words of 64 bits, each mixed with its place: a word that changed is always seen, and words that changed places, or are
//! missing, but for one case in 2^64 or so. It is no defence against those who choose bytes on purpose.

use super::arguments::{Address, SumWords};
use super::launch::{Grid, Operator, Step, strided, zero};

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
const WORD_BYTES: usize = 8;

/// The checksum of so many bytes.
#[derive(Debug, Clone)]
pub struct Checksum {
    /// Where they begin.
    pub input: Address,
    /// How many.
    pub bytes: u64,
    /// Where it is written, as `u64`.
    pub sum: Address,
}

impl Operator for Checksum {
    fn scratch_bytes(&self) -> u64 {
        0
    }

    fn steps(&self, _scratch: Address, grid: Grid) -> Vec<Step> {
        let sum = SumWords {
            words: self.input,
            bytes: self.bytes,
            total: self.sum,
        };
        let words = self.bytes.div_ceil(WORD_BYTES as u64);
        let clear = zero(self.sum, WORD_BYTES as u64).into_iter();
        clear
            .chain(strided("checksum", grid, words, &sum))
            .collect()
    }
}

/// The checksum of bytes that come in slices, all of which but the last are whole words.
pub fn checksum_of<'a>(slices: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let (mut sum, mut place) = (0_u64, 0_u64);
    for slice in slices {
        let (words, rest) = slice.as_chunks::<WORD_BYTES>();
        for word in words {
            sum = sum.wrapping_add(counted(u64::from_le_bytes(*word), place));
            place += 1;
        }
        if !rest.is_empty() {
            let mut word = [0; WORD_BYTES];
            word[..rest.len()].copy_from_slice(rest);
            sum = sum.wrapping_add(counted(u64::from_le_bytes(word), place));
            place += 1;
        }
    }
    sum
}

/// For each place another number for each word.
fn counted(word: u64, place: u64) -> u64 {
    let x = word.wrapping_add((place + 1).wrapping_mul(STEP));
    let x = (x ^ (x >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let x = (x ^ (x >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(bytes: &[u8]) -> u64 {
        checksum_of([bytes])
    }

    proptest! {
        #[test]
        fn a_flipped_bit_is_seen(bytes in proptest::collection::vec(any::<u8>(), 1..200), at: prop::sample::Index, bit in 0..8) {
            let mut changed = bytes.clone();
            changed[at.index(bytes.len())] ^= 1_u8 << bit;
            prop_assert_ne!(of(&bytes), of(&changed));
        }

        #[test]
        fn swapped_and_missing_words_are_seen(
            words in proptest::collection::vec(prop_oneof![0..4_u64, any::<u64>()], 2..40),
            one: prop::sample::Index,
            other: prop::sample::Index,
        ) {
            let bytes = |words: &[u64]| words.iter().flat_map(|it| it.to_le_bytes()).collect::<Vec<_>>();
            let (one, other) = (one.index(words.len()), other.index(words.len()));
            let mut swapped = words.clone();
            swapped.swap(one, other);
            prop_assert_eq!(of(&bytes(&words)) == of(&bytes(&swapped)), words == swapped);
            // What lay there before, where a word was not written.
            let mut missing = words.clone();
            missing[one] = 0;
            prop_assert_eq!(of(&bytes(&words)) == of(&bytes(&missing)), words == missing);
            // All behind it one place on.
            let mut shifted = words.clone();
            shifted.remove(one);
            prop_assert_ne!(of(&bytes(&words)), of(&bytes(&shifted)));
        }

        #[test]
        fn slices_count_as_what_they_are_together(
            bytes in proptest::collection::vec(any::<u8>(), 0..300), at: prop::sample::Index,
        ) {
            let middle = at.index(bytes.len() / 8 + 1) * 8;
            let (head, tail) = bytes.split_at(middle);
            prop_assert_eq!(checksum_of([head, tail]), of(&bytes));
        }
    }
}
