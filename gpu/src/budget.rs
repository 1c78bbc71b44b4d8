//! Budgets and reservations: who may allocate how much. Called before every allocation of partition memory; knows numbers of
//! bytes, never the bytes.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A named limit on bytes. Clones share the same count.
#[derive(Clone)]
pub struct Budget {
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    limit_bytes: u64,
    used_bytes: AtomicU64,
    peak_bytes: AtomicU64,
}

/// A budget has fewer bytes left than were asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not enough {budget}: {requested_bytes} B asked for, {used_bytes} of {limit_bytes} B in use; \
     give it more memory, or cut the work into smaller pieces"
)]
pub struct OutOfBudget {
    /// Name of the budget.
    pub budget: String,
    /// Bytes that were asked for.
    pub requested_bytes: u64,
    /// Bytes in use at that moment.
    pub used_bytes: u64,
    /// The limit.
    pub limit_bytes: u64,
}

impl Budget {
    /// A budget of `limit_bytes`, all free. The name appears in errors, for example "partition memory".
    pub fn new(name: impl Into<String>, limit_bytes: u64) -> Self {
        Self {
            shared: Arc::new(Shared {
                name: name.into(),
                limit_bytes,
                used_bytes: AtomicU64::new(0),
                peak_bytes: AtomicU64::new(0),
            }),
        }
    }

    /// Takes `bytes` out of the budget until the reservation is dropped.
    ///
    /// # Errors
    /// [`OutOfBudget`] when fewer are left; nothing is taken then.
    pub fn try_reserve(&self, bytes: u64) -> Result<Reservation, OutOfBudget> {
        self.shared.try_take(bytes)?;
        Ok(Reservation {
            shared: Arc::clone(&self.shared),
            bytes,
        })
    }

    /// Takes `bytes` even where the limit forbids it: for what exists already and must be accounted for.
    pub fn reserve_over(&self, bytes: u64) -> Reservation {
        self.shared.take(bytes);
        Reservation {
            shared: Arc::clone(&self.shared),
            bytes,
        }
    }

    /// Name given at creation.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Bytes reserved now; more than the limit after [`Budget::reserve_over`].
    pub fn used_bytes(&self) -> u64 {
        self.shared.used_bytes.load(Ordering::Acquire)
    }

    /// The limit given at creation.
    pub fn limit_bytes(&self) -> u64 {
        self.shared.limit_bytes
    }

    /// Most bytes that were ever reserved at once.
    pub fn peak_bytes(&self) -> u64 {
        self.shared.peak_bytes.load(Ordering::Acquire)
    }

    /// Bytes that can still be reserved.
    pub fn free_bytes(&self) -> u64 {
        self.limit_bytes().saturating_sub(self.used_bytes())
    }
}

impl Shared {
    fn try_take(&self, bytes: u64) -> Result<(), OutOfBudget> {
        let taken = self
            .used_bytes
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                used.checked_add(bytes)
                    .filter(|after| *after <= self.limit_bytes)
            });
        match taken {
            Ok(before) => {
                self.peak_bytes.fetch_max(before + bytes, Ordering::AcqRel);
                Ok(())
            }
            // Nothing is always there, also in a budget that is overbooked.
            Err(_) if bytes == 0 => Ok(()),
            Err(used_bytes) => Err(OutOfBudget {
                budget: self.name.clone(),
                requested_bytes: bytes,
                used_bytes,
                limit_bytes: self.limit_bytes,
            }),
        }
    }

    fn take(&self, bytes: u64) {
        let before = self.used_bytes.fetch_add(bytes, Ordering::AcqRel);
        self.peak_bytes
            .fetch_max(before.saturating_add(bytes), Ordering::AcqRel);
    }

    fn give_back(&self, bytes: u64) {
        let before = self.used_bytes.fetch_sub(bytes, Ordering::AcqRel);
        debug_assert!(before >= bytes, "more given back than was taken");
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Budget({}: {} of {} B)",
            self.name(),
            self.used_bytes(),
            self.limit_bytes()
        )
    }
}

/// Bytes taken out of a [`Budget`]; dropping it returns them.
#[must_use = "dropping a reservation returns its bytes at once"]
pub struct Reservation {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Reservation {
    /// Bytes it holds.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether its bytes are of this budget, or of a clone of it.
    pub fn is_of(&self, budget: &Budget) -> bool {
        Arc::ptr_eq(&self.shared, &budget.shared)
    }

    /// Takes `bytes` more from the same budget.
    ///
    /// # Errors
    /// [`OutOfBudget`] when fewer are left; the reservation is as it was.
    pub fn try_grow(&mut self, bytes: u64) -> Result<(), OutOfBudget> {
        self.shared.try_take(bytes)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Returns `bytes`, or all there are when it holds fewer.
    pub fn shrink(&mut self, bytes: u64) {
        drop(self.split(bytes));
    }

    /// Moves `bytes`, or all there are when it holds fewer, into a reservation of their own.
    pub fn split(&mut self, bytes: u64) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self {
            shared: Arc::clone(&self.shared),
            bytes,
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shared.give_back(self.bytes);
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reservation({} B of {})", self.bytes, self.shared.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_full_budget_refuses_and_says_by_how_much() {
        let budget = Budget::new("partition memory", 100);
        let held = budget.try_reserve(80).expect("fits");
        let error = budget.try_reserve(30).expect_err("does not fit");
        assert_eq!(
            error,
            OutOfBudget {
                budget: "partition memory".to_owned(),
                requested_bytes: 30,
                used_bytes: 80,
                limit_bytes: 100,
            }
        );
        assert!(error.to_string().contains("80 of 100 B in use"));
        drop(held);
        assert_eq!((budget.used_bytes(), budget.peak_bytes()), (0, 80));
    }

    #[test]
    fn overbooking_is_accounted_and_blocks_others() {
        let budget = Budget::new("m", 10);
        let over = budget.reserve_over(25);
        assert_eq!((budget.used_bytes(), budget.free_bytes()), (25, 0));
        assert!(budget.try_reserve(1).is_err());
        assert!(budget.try_reserve(0).is_ok(), "nothing always fits");
        assert!(budget.try_reserve(u64::MAX).is_err(), "no overflow");
        drop(over);
        assert_eq!(budget.peak_bytes(), 25);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn threads_never_exceed_the_limit_together() {
        let budget = Budget::new("m", 1_000);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        drop(budget.try_reserve(300));
                    }
                });
            }
        });
        assert!(budget.peak_bytes() <= 1_000);
        assert_eq!(budget.used_bytes(), 0);
    }

    proptest! {
        #[test]
        fn growing_shrinking_and_splitting_lose_no_byte(steps in proptest::collection::vec((0_u8..3, 0_u64..50), 0..40)) {
            let budget = Budget::new("m", 200);
            let mut held = vec![budget.try_reserve(20).expect("fits")];
            for (what, bytes) in steps {
                let last = held.last_mut().expect("one at least");
                match what {
                    0 => drop(last.try_grow(bytes)),
                    1 => last.shrink(bytes),
                    _ => { let part = last.split(bytes); held.push(part); }
                }
                prop_assert_eq!(held.iter().map(Reservation::bytes).sum::<u64>(), budget.used_bytes());
                prop_assert!(budget.used_bytes() <= 200);
            }
            held.clear();
            prop_assert_eq!(budget.used_bytes(), 0);
        }
    }
}
