//! What a task occupies while it runs and what a worker has to offer.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Amount;

/// Amounts of resources. A task asks for some, a worker offers some.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Resources {
    /// CPU slots (threads).
    pub slots: u32,
    /// Any other named, countable resource. What a worker offers is the sum over its units, and a task's fraction is a share of
    /// that sum: which unit it comes from is not decided here.
    pub named: BTreeMap<String, Amount>,
    /// Memory that a task is expected to need while it runs, in bytes; 0 when it does not say. A worker offers what it has for
    /// running operators.
    pub memory_bytes: u64,
}

impl Default for Resources {
    /// One slot, which is what an ordinary task occupies.
    fn default() -> Self {
        Self::slots(1)
    }
}

impl Resources {
    /// The name under which a worker offers its GPU, as one unit, and tasks ask for it.
    pub const GPU: &str = "gpu";

    /// Only CPU slots.
    pub const fn slots(slots: u32) -> Self {
        Self {
            slots,
            named: BTreeMap::new(),
            memory_bytes: 0,
        }
    }

    /// The same with so many bytes of memory.
    #[must_use]
    pub const fn with_memory(mut self, bytes: u64) -> Self {
        self.memory_bytes = bytes;
        self
    }

    /// The same with an amount of something named, as in `with("gpu", 1)`.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, amount: impl Into<Amount>) -> Self {
        self.named.insert(name.into(), amount.into());
        self
    }

    /// How much there is of something named.
    pub fn amount_of(&self, name: &str) -> Amount {
        self.named.get(name).copied().unwrap_or_default()
    }

    /// Whether `request` fits in these amounts.
    #[inline]
    pub fn covers(&self, request: &Self) -> bool {
        self.slots >= request.slots
            && self.memory_bytes >= request.memory_bytes
            && (request.named.is_empty() || self.covers_named(request))
    }

    fn covers_named(&self, request: &Self) -> bool {
        let mut named = request.named.iter();
        named.all(|(name, amount)| self.amount_of(name) >= *amount)
    }

    /// The first name of which a fraction is asked for and that is not in `shared`.
    pub fn fraction_of_unshared(&self, shared: &BTreeSet<String>) -> Option<&str> {
        self.named
            .iter()
            .find(|(name, amount)| !amount.is_whole() && !shared.contains(*name))
            .map(|(name, _)| name.as_str())
    }

    /// What is wrong with these amounts as the request of a task, if anything.
    pub(crate) fn wrong_request(&self) -> Option<String> {
        self.named
            .iter()
            .find(|(_, amount)| !amount.is_whole() && **amount > Amount::whole(1))
            .map(|(name, amount)| {
                format!(
                    "it asks for {amount} {name}; a fraction is a share of one unit, so ask for less than 1 or for whole units"
                )
            })
    }

    /// Takes `request` out of these amounts, or changes nothing and returns false where it does not fit.
    #[inline]
    pub fn take(&mut self, request: &Self) -> bool {
        if !self.covers(request) {
            return false;
        }
        self.set_aside(request);
        true
    }

    /// Takes as much of `request` out of these amounts as is there.
    #[inline]
    pub fn set_aside(&mut self, request: &Self) {
        self.slots = self.slots.saturating_sub(request.slots);
        self.memory_bytes = self.memory_bytes.saturating_sub(request.memory_bytes);
        if !request.named.is_empty() {
            self.set_aside_named(request);
        }
    }

    fn set_aside_named(&mut self, request: &Self) {
        for (name, amount) in &request.named {
            if let Some(left) = self.named.get_mut(name) {
                *left = left.saturating_sub(*amount);
            }
        }
    }

    /// Puts back what [`Resources::take`] took.
    #[inline]
    pub fn give_back(&mut self, request: &Self) {
        self.slots = self.slots.saturating_add(request.slots);
        self.memory_bytes = self.memory_bytes.saturating_add(request.memory_bytes);
        if !request.named.is_empty() {
            self.give_back_named(request);
        }
    }

    fn give_back_named(&mut self, request: &Self) {
        for (name, amount) in &request.named {
            let left = self.named.entry(name.clone()).or_default();
            *left = left.saturating_add(*amount);
        }
    }
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} slot{}",
            self.slots,
            if self.slots == 1 { "" } else { "s" }
        )?;
        self.named
            .iter()
            .try_for_each(|(name, amount)| write!(f, ", {amount} {name}"))?;
        if self.memory_bytes > 0 {
            write!(f, ", {} of memory", InBytes(self.memory_bytes))?;
        }
        Ok(())
    }
}

/// Bytes in the largest binary unit of which there is at least one, with one decimal place where it is not whole.
struct InBytes(u64);

impl fmt::Display for InBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        let Some((shift, unit)) = units.into_iter().find(|(shift, _)| self.0 >> shift > 0) else {
            return write!(f, "{} B", self.0);
        };
        let (whole, rest) = (self.0 >> shift, self.0 & ((1 << shift) - 1));
        if rest == 0 {
            write!(f, "{whole} {unit}")
        } else {
            write!(f, "{whole}.{} {unit}", (rest * 10) >> shift)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back_whole() {
        let half: Amount = "0.5".parse().expect("an amount");
        let mut free = Resources::slots(4).with("gpu", 1).with_memory(100);
        let request = Resources::slots(2).with("gpu", half).with_memory(60);
        let before = free.clone();
        assert!(free.take(&request));
        assert!(!free.take(&request), "the memory is taken");
        assert_eq!(free.amount_of("gpu"), half);
        free.give_back(&request);
        assert_eq!(free, before);
    }

    #[test]
    fn requests_print_as_people_say_them() {
        let half: Amount = "0.5".parse().expect("an amount");
        let request = Resources::slots(1).with("gpu", half).with_memory(3 << 29);
        assert_eq!(request.to_string(), "1 slot, 0.5 gpu, 1.5 GiB of memory");
        assert_eq!(
            Resources::slots(2).with_memory(7).to_string(),
            "2 slots, 7 B of memory"
        );
    }

    #[test]
    fn a_fraction_needs_a_shared_resource_and_only_that_one() {
        let half: Amount = "0.5".parse().expect("an amount");
        let request = Resources::slots(1).with("gpu", half).with("licence", 2);
        assert_eq!(request.fraction_of_unshared(&BTreeSet::new()), Some("gpu"));
        assert_eq!(
            request.fraction_of_unshared(&["gpu".to_owned()].into()),
            None
        );
        assert_eq!(request.wrong_request(), None);
        let more: Amount = "1.5".parse().expect("an amount");
        let reason = Resources::slots(1).with("gpu", more).wrong_request();
        assert!(reason.is_some_and(|reason| reason.contains("1.5 gpu")));
    }
}
