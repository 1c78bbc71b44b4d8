//! What a task occupies while it runs and what a worker has to offer.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Amounts of named resources. A task asks for some, a worker offers some.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Resources {
    /// CPU slots (threads).
    pub slots: u32,
    /// Any other named, countable resource.
    pub named: BTreeMap<String, u32>,
}

impl Default for Resources {
    /// One slot, which is what an ordinary task occupies.
    fn default() -> Self {
        Self::slots(1)
    }
}

impl Resources {
    /// Only CPU slots.
    pub const fn slots(slots: u32) -> Self {
        Self {
            slots,
            named: BTreeMap::new(),
        }
    }

    /// Whether `request` fits in these amounts.
    pub fn covers(&self, request: &Self) -> bool {
        self.slots >= request.slots
            && (request.named.is_empty()
                || request
                    .named
                    .iter()
                    .all(|(name, amount)| self.named.get(name).copied().unwrap_or(0) >= *amount))
    }

    /// Takes `request` out of these amounts, or changes nothing and returns false where it does not fit.
    pub fn take(&mut self, request: &Self) -> bool {
        if !self.covers(request) {
            return false;
        }
        self.slots -= request.slots;
        for (name, amount) in &request.named {
            if let Some(left) = self.named.get_mut(name) {
                *left -= amount;
            }
        }
        true
    }

    /// Puts back what [`Resources::take`] took.
    pub fn give_back(&mut self, request: &Self) {
        self.slots = self.slots.saturating_add(request.slots);
        for (name, amount) in &request.named {
            let left = self.named.entry(name.clone()).or_insert(0);
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
            .try_for_each(|(name, amount)| write!(f, ", {amount} {name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back_whole() {
        let mut free = Resources {
            slots: 4,
            named: [("gpu".to_owned(), 1)].into(),
        };
        let request = Resources {
            slots: 2,
            named: [("gpu".to_owned(), 1)].into(),
        };
        let before = free.clone();
        assert!(free.take(&request));
        assert!(!free.take(&request), "the gpu is taken");
        free.give_back(&request);
        assert_eq!(free, before);
    }
}
