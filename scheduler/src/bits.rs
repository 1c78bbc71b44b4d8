//! A set of small numbers as bits, with a second level so that the lowest member is found without a long walk.
//!
//! Holds the ready tasks of a layer, and the workers that know a layer. Knows nothing of either.

/// Numbers in `[0, size)`.
#[derive(Debug, Clone, Default)]
pub(crate) struct BitSet {
    words: Vec<u64>,
    /// Bit `i` says that word `i` is not zero.
    summary: Vec<u64>,
    len: u32,
}

impl BitSet {
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many members.
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    #[inline]
    pub(crate) fn contains(&self, member: u32) -> bool {
        self.words
            .get(member as usize / 64)
            .is_some_and(|word| word & bit(member) != 0)
    }

    /// Adds a member; false when it was there already.
    #[inline]
    pub(crate) fn insert(&mut self, member: u32) -> bool {
        if self.contains(member) {
            return false;
        }
        let at = member as usize / 64;
        if at >= self.words.len() {
            self.words.resize(at + 1, 0);
            self.summary.resize(at / 64 + 1, 0);
        }
        self.words[at] |= bit(member);
        self.summary[at / 64] |= 1 << (at % 64);
        self.len += 1;
        true
    }

    /// Removes a member; false when it was not there.
    pub(crate) fn remove(&mut self, member: u32) -> bool {
        let at = member as usize / 64;
        if !self.contains(member) {
            return false;
        }
        self.words[at] &= !bit(member);
        if self.words[at] == 0 {
            self.summary[at / 64] &= !(1 << (at % 64));
        }
        self.len -= 1;
        true
    }

    /// The lowest member at or above `from`.
    pub(crate) fn first_from(&self, from: u32) -> Option<u32> {
        let at = from as usize / 64;
        let rest = self.words.get(at)? & (u64::MAX << (from % 64));
        if rest != 0 {
            return member(at, rest);
        }
        let mut group = (at + 1) / 64;
        let mut mask = u64::MAX << ((at + 1) % 64);
        while let Some(summary) = self.summary.get(group) {
            let found = summary & mask;
            if found != 0 {
                let at = group * 64 + found.trailing_zeros() as usize;
                return member(at, *self.words.get(at)?);
            }
            group += 1;
            mask = u64::MAX;
        }
        None
    }

    /// Members that the other set lacks, in ascending order, found 64 at a time.
    pub(crate) fn difference<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = u32> + 'a {
        (0_u32..).zip(&self.words).flat_map(|(at, word)| {
            let mut rest = word & !other.words.get(at as usize).copied().unwrap_or(0);
            std::iter::from_fn(move || {
                let lowest = (rest != 0).then(|| at * 64 + rest.trailing_zeros());
                rest &= rest.wrapping_sub(1);
                lowest
            })
        })
    }

    /// Members in ascending order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> {
        let mut from = Some(0);
        std::iter::from_fn(move || {
            let found = self.first_from(from?)?;
            from = found.checked_add(1);
            Some(found)
        })
    }
}

const fn bit(member: u32) -> u64 {
    1 << (member % 64)
}

fn member(word: usize, bits: u64) -> Option<u32> {
    u32::try_from(word * 64 + bits.trailing_zeros() as usize).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_behaves_like_an_ordered_set(steps in proptest::collection::vec((any::<bool>(), 0_u32..20_000), 0..300)) {
            let mut bits = BitSet::default();
            let mut model = BTreeSet::new();
            for (insert, member) in steps {
                if insert {
                    prop_assert_eq!(bits.insert(member), model.insert(member));
                } else {
                    let member = bits.first_from(member).unwrap_or(member);
                    prop_assert_eq!(bits.remove(member), model.remove(&member));
                }
                prop_assert_eq!(bits.len as usize, model.len());
                prop_assert_eq!(bits.first_from(member), model.range(member..).next().copied());
            }
            prop_assert_eq!(bits.iter().collect::<Vec<_>>(), model.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn a_difference_is_that_of_sets(
            a in proptest::collection::btree_set(0_u32..500, 0..100),
            b in proptest::collection::btree_set(0_u32..300, 0..100),
        ) {
            let of = |members: &BTreeSet<u32>| {
                let mut bits = BitSet::default();
                for member in members {
                    bits.insert(*member);
                }
                bits
            };
            let found: Vec<u32> = of(&a).difference(&of(&b)).collect();
            prop_assert_eq!(found, a.difference(&b).copied().collect::<Vec<_>>());
        }
    }
}
