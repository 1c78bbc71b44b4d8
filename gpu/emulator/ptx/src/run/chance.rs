//! Chance by seed: the same seed gives the same run. Called by `run`; needs no more than to mix well.

/// A stream of numbers.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number (splitmix64).
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `limit`, which is not 0.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(limit.max(1))) >> 64) as u64
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

/// In which order numbers below a count come. Without chance, theirs.
pub(crate) struct Order {
    next: u64,
    count: u64,
    /// A number that has no divisor in common with the count, and where to begin: every number comes once.
    step: u64,
    start: u64,
}

impl Order {
    pub(crate) fn new(count: u64, chance: Option<&mut Chance>) -> Self {
        let (mut step, mut start) = (1, 0);
        if let Some(chance) = chance
            && count > 1
        {
            start = chance.below(count);
            step = 1 + chance.below(count - 1);
            while common_divisor(step, count) != 1 {
                step = step % count + 1;
            }
        }
        Self {
            next: 0,
            count,
            step,
            start,
        }
    }
}

impl Iterator for Order {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        if self.next == self.count {
            return None;
        }
        let place = u128::from(self.next) * u128::from(self.step) + u128::from(self.start);
        self.next += 1;
        Some((place % u128::from(self.count)) as u64)
    }
}

fn common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_comes_once_whatever_the_seed() {
        for seed in 0..50 {
            for count in [1, 2, 3, 12, 97] {
                let mut all: Vec<u64> = Order::new(count, Some(&mut Chance::new(seed))).collect();
                all.sort_unstable();
                assert_eq!(all, (0..count).collect::<Vec<_>>(), "seed {seed}");
            }
        }
    }
}
