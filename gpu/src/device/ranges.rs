//! Which parts of some stretches of memory are free: best fit, with neighbours joined. Pure: called by device and pinned memory, knows
//! offsets and never the bytes.
//!
//! Small pieces come from the upper end of the range that fits best, large ones from its lower end, so that small ones that live long do
//! not cut up what large ones need. A piece never crosses from one stretch into the next.

use std::collections::{BTreeMap, BTreeSet};

/// Free ranges, in units of `granule_bytes`.
#[derive(Debug)]
pub(crate) struct Ranges {
    granule_bytes: u64,
    /// Start and length of every free range.
    by_start: BTreeMap<u64, u64>,
    /// The same as length and start.
    by_length: BTreeSet<(u64, u64)>,
    /// Starts of stretches: ranges are not joined across them.
    borders: BTreeSet<u64>,
    /// Pieces below this are small.
    small_bytes: u64,
    free_bytes: u64,
}

/// A piece that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) start: u64,
    /// What was asked for, rounded up to the granule.
    pub(crate) bytes: u64,
}

/// Small is what is at most this part of a stretch.
const SMALL_PART: u64 = 256;

/// What `bytes` take where pieces are multiples of `granule_bytes`: one at least.
pub(crate) fn rounded(bytes: u64, granule_bytes: u64) -> u64 {
    let granules = bytes.max(1).div_ceil(granule_bytes);
    granules.saturating_mul(granule_bytes)
}

impl Ranges {
    /// Nothing, of which pieces are to be multiples of `granule_bytes`.
    pub(crate) fn new(granule_bytes: u64) -> Self {
        Self {
            granule_bytes,
            by_start: BTreeMap::new(),
            by_length: BTreeSet::new(),
            borders: BTreeSet::new(),
            small_bytes: 0,
            free_bytes: 0,
        }
    }

    /// Adds a stretch that is free. It overlaps none that was added before.
    pub(crate) fn add(&mut self, start: u64, bytes: u64) {
        let bytes = bytes - bytes % self.granule_bytes;
        self.borders.insert(start);
        self.small_bytes = self.small_bytes.max(bytes / SMALL_PART);
        self.free_bytes += bytes;
        self.insert(start, bytes);
    }

    /// A piece of at least `bytes`, from the shortest range that has so many.
    pub(crate) fn take(&mut self, bytes: u64) -> Option<Range> {
        let bytes = rounded(bytes, self.granule_bytes);
        let &(length, start) = self.by_length.range((bytes, 0)..).next()?;
        self.remove(start, length);
        let rest = length - bytes;
        let taken = if bytes <= self.small_bytes {
            self.insert(start, rest);
            start + rest
        } else {
            self.insert(start + bytes, rest);
            start
        };
        self.free_bytes -= bytes;
        Some(Range {
            start: taken,
            bytes,
        })
    }

    /// Pieces that are at least `bytes` together: one where a range has so many, else the longest there are.
    pub(crate) fn take_scattered(&mut self, bytes: u64) -> Option<Vec<Range>> {
        let mut missing = rounded(bytes, self.granule_bytes);
        if self.free_bytes < missing {
            return None;
        }
        let mut taken = Vec::new();
        while missing > 0 {
            let piece = missing.min(self.longest_bytes());
            let range = self.take(piece)?;
            missing -= range.bytes;
            taken.push(range);
        }
        Some(taken)
    }

    /// Gives a piece back.
    pub(crate) fn free(&mut self, range: Range) {
        let Range {
            mut start,
            mut bytes,
        } = range;
        self.free_bytes += bytes;
        if !self.borders.contains(&start)
            && let Some((&before, &length)) = self.by_start.range(..start).next_back()
            && before + length == start
        {
            self.remove(before, length);
            (start, bytes) = (before, bytes + length);
        }
        let end = start + bytes;
        if !self.borders.contains(&end)
            && let Some(&length) = self.by_start.get(&end)
        {
            self.remove(end, length);
            bytes += length;
        }
        self.insert(start, bytes);
    }

    /// Free in all.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.free_bytes
    }

    /// The longest free range.
    pub(crate) fn longest_bytes(&self) -> u64 {
        self.by_length.last().map_or(0, |(length, _)| *length)
    }

    fn insert(&mut self, start: u64, length: u64) {
        if length > 0 {
            self.by_start.insert(start, length);
            self.by_length.insert((length, start));
        }
    }

    fn remove(&mut self, start: u64, length: u64) {
        self.by_start.remove(&start);
        self.by_length.remove(&(length, start));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GRANULE: u64 = 512;

    fn of(stretches: &[(u64, u64)]) -> Ranges {
        let mut ranges = Ranges::new(GRANULE);
        for (start, bytes) in stretches {
            ranges.add(*start, *bytes);
        }
        ranges
    }

    #[test]
    fn stretches_that_touch_are_not_joined() {
        let mut ranges = of(&[(0, 4096), (4096, 4096)]);
        assert_eq!(ranges.take(4608), None);
        let all = ranges.take_scattered(8192).expect("all of it");
        assert_eq!(all.len(), 2);
        for range in all {
            ranges.free(range);
        }
        assert_eq!((ranges.longest_bytes(), ranges.free_bytes()), (4096, 8192));
    }

    #[test]
    fn small_pieces_that_stay_do_not_cut_up_what_large_ones_need() {
        let mut ranges = of(&[(0, 1 << 30)]);
        let mut small = Vec::new();
        for _ in 0..100 {
            let large = ranges.take(100 << 20).expect("fits");
            small.push(ranges.take(1_000).expect("fits"));
            ranges.free(large);
        }
        assert!(ranges.longest_bytes() >= (1 << 30) - (1 << 20));
        assert!(small.iter().all(|it| it.bytes == 1024));
    }

    /// Sizes as of partitions, from some kilobytes to an eighth of all.
    fn size() -> impl Strategy<Value = u64> {
        (9_u32..24, 0.0..1.0_f64)
            .prop_map(|(power, part)| ((1 << power) as f64 * (1.0 + part)) as u64)
    }

    proptest! {
        #[test]
        fn what_is_taken_never_overlaps_and_comes_back_whole(
            steps in proptest::collection::vec((any::<bool>(), size(), any::<prop::sample::Index>()), 1..300),
        ) {
            const STRETCHES: [(u64, u64); 2] = [(1 << 40, 128 << 20), ((1 << 40) + (128 << 20), 64 << 20)];
            let mut ranges = of(&STRETCHES);
            let all = ranges.free_bytes();
            let mut taken: Vec<Range> = Vec::new();
            for (frees, bytes, which) in steps {
                if frees && !taken.is_empty() {
                    ranges.free(taken.swap_remove(which.index(taken.len())));
                } else if let Some(range) = ranges.take(bytes) {
                    prop_assert!(range.bytes >= bytes && range.bytes < bytes + GRANULE);
                    prop_assert_eq!(range.start % GRANULE, 0);
                    let inside = |(start, length): &(u64, u64)| range.start >= *start && range.start + range.bytes <= start + length;
                    prop_assert!(STRETCHES.iter().any(inside));
                    let apart = |it: &Range| it.start + it.bytes <= range.start || range.start + range.bytes <= it.start;
                    prop_assert!(taken.iter().all(apart));
                    taken.push(range);
                } else {
                    prop_assert!(ranges.longest_bytes() < bytes.next_multiple_of(GRANULE));
                }
                prop_assert_eq!(ranges.free_bytes(), all - taken.iter().map(|it| it.bytes).sum::<u64>());
            }
            for range in taken {
                ranges.free(range);
            }
            prop_assert_eq!(ranges.by_start.len(), STRETCHES.len());
        }
    }

    #[test]
    fn with_a_quarter_free_pieces_up_to_a_128th_of_all_fit_however_long_others_live() {
        const ALL: u64 = 1 << 30;
        let mut random = proptest::test_runner::TestRng::deterministic_rng(
            proptest::test_runner::RngAlgorithm::ChaCha,
        );
        let mut ranges = of(&[(0, ALL)]);
        let mut taken: Vec<Range> = Vec::new();
        for _ in 0..200_000 {
            let power = 12 + random.next_u32() % 11;
            let bytes = (1_u64 << power) + u64::from(random.next_u32()) % (1 << power);
            while ALL - ranges.free_bytes() + bytes > ALL / 4 * 3 {
                let which = random.next_u32() as usize % taken.len();
                ranges.free(taken.swap_remove(which));
            }
            taken.push(ranges.take(bytes).expect("a quarter is free"));
        }
    }
}
