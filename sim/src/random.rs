//! The one source of chance: a number generator that gives the same numbers for the same seed, for ever and everywhere.
//!
//! Every draw of a simulation comes from here. It is our own (SplitMix64), because the seeds in the list of regressions
//! must mean the same run after every update of a library.

/// A stream of numbers from a seed.
#[derive(Debug, Clone)]
pub(crate) struct Random {
    state: u64,
}

/// Spreads the bits of a number over the whole word.
pub(crate) const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self { state: mix(seed) }
    }

    /// Any number.
    pub(crate) const fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// A number in `[0, end)`; 0 when `end` is 0.
    pub(crate) const fn below(&mut self, end: u64) -> u64 {
        let next = self.next();
        if end == 0 { 0 } else { next % end }
    }

    /// A number in `[low, high]`.
    pub(crate) const fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// As [`Random::between`], for small numbers.
    pub(crate) fn small(&mut self, low: u32, high: u32) -> u32 {
        u32::try_from(self.between(u64::from(low), u64::from(high))).unwrap_or(high)
    }

    /// An index in `[0, len)`; 0 when `len` is 0.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    /// True in `per_mille` of 1,000 cases.
    pub(crate) const fn chance(&mut self, per_mille: u32) -> bool {
        self.below(1_000) < per_mille as u64
    }

    /// One of the values.
    pub(crate) fn pick<T: Copy>(&mut self, values: &[T], otherwise: T) -> T {
        values
            .get(self.index(values.len()))
            .copied()
            .unwrap_or(otherwise)
    }
}
