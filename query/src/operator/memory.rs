//! DataFusion's memory accounting on the worker's budget for running operators. Called by DataFusion's operators; knows
//! bytes and who can spill, never tasks.
//!
//! Operators that can spill share what the others leave, in equal parts, so that one slot's sort cannot starve another's.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::{
    MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
};
use transload_gpu::{Budget, Reservation};

/// A [`MemoryPool`] whose bytes come out of a [`Budget`].
#[derive(Debug)]
pub(crate) struct BudgetPool {
    budget: Budget,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Operators that can spill, now alive.
    spillers: u64,
    spillable_bytes: u64,
    unspillable_bytes: u64,
    reserved: Reservation,
    /// Taken beyond the limit for what exists already.
    overbooked: Vec<Reservation>,
}

impl BudgetPool {
    pub(crate) fn new(budget: Budget) -> Self {
        let reserved = budget.reserve_over(0);
        Self {
            budget,
            state: Mutex::new(State {
                spillers: 0,
                spillable_bytes: 0,
                unspillable_bytes: 0,
                reserved,
                overbooked: Vec::new(),
            }),
        }
    }

    fn with_state<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        // Counters stay consistent whatever panicked while they were held.
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn exhausted(
        &self,
        reservation: &MemoryReservation,
        more: usize,
        left: u64,
    ) -> DataFusionError {
        DataFusionError::ResourcesExhausted(format!(
            "{} needs {more} B more than its {} B, of {} B for the worker's operators {left} B are left for it",
            reservation.consumer().name(),
            reservation.size(),
            self.budget.limit_bytes(),
        ))
    }
}

impl State {
    fn count(&mut self, can_spill: bool, bytes: usize) {
        let counter = if can_spill {
            &mut self.spillable_bytes
        } else {
            &mut self.unspillable_bytes
        };
        *counter += bytes as u64;
    }

    fn give_back(&mut self, can_spill: bool, bytes: usize) {
        let counter = if can_spill {
            &mut self.spillable_bytes
        } else {
            &mut self.unspillable_bytes
        };
        *counter = counter.saturating_sub(bytes as u64);
        let mut left = bytes as u64;
        while let (Some(last), true) = (self.overbooked.last_mut(), left > 0) {
            let taken = last.bytes().min(left);
            last.shrink(taken);
            left -= taken;
            if last.bytes() == 0 {
                self.overbooked.pop();
            }
        }
        self.reserved.shrink(left);
    }
}

impl MemoryPool for BudgetPool {
    fn name(&self) -> &str {
        "worker budget"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        if consumer.can_spill() {
            self.with_state(|state| state.spillers += 1);
        }
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        if consumer.can_spill() {
            self.with_state(|state| state.spillers = state.spillers.saturating_sub(1));
        }
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.with_state(|state| {
            state.count(reservation.consumer().can_spill(), additional);
            if additional > 0 && state.reserved.try_grow(additional as u64).is_err() {
                state
                    .overbooked
                    .push(self.budget.reserve_over(additional as u64));
            }
        });
    }

    fn shrink(&self, reservation: &MemoryReservation, bytes: usize) {
        self.with_state(|state| state.give_back(reservation.consumer().can_spill(), bytes));
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let can_spill = reservation.consumer().can_spill();
        self.with_state(|state| {
            if can_spill {
                let shared = self
                    .budget
                    .limit_bytes()
                    .saturating_sub(state.unspillable_bytes);
                let share = shared / state.spillers.max(1);
                if (reservation.size() + additional) as u64 > share {
                    let left = share.saturating_sub(reservation.size() as u64);
                    return Err(self.exhausted(reservation, additional, left));
                }
            }
            state
                .reserved
                .try_grow(additional as u64)
                .map_err(|_| self.exhausted(reservation, additional, self.budget.free_bytes()))?;
            state.count(can_spill, additional);
            Ok(())
        })
    }

    fn reserved(&self) -> usize {
        self.with_state(|state| {
            usize::try_from(state.spillable_bytes + state.unspillable_bytes).unwrap_or(usize::MAX)
        })
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(usize::try_from(self.budget.limit_bytes()).unwrap_or(usize::MAX))
    }
}

impl fmt::Display for BudgetPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.budget)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn pool(limit: u64) -> (Budget, Arc<dyn MemoryPool>) {
        let budget = Budget::new("memory of running operators", limit);
        (budget.clone(), Arc::new(BudgetPool::new(budget)))
    }

    #[test]
    fn spillers_share_what_the_others_leave() {
        let (budget, pool) = pool(100);
        let join = MemoryConsumer::new("join").register(&pool);
        let one = MemoryConsumer::new("sort 1")
            .with_can_spill(true)
            .register(&pool);
        let two = MemoryConsumer::new("sort 2")
            .with_can_spill(true)
            .register(&pool);
        join.try_grow(40).expect("fits");
        one.try_grow(30).expect("its half of the rest");
        let error = one.try_grow(1).expect_err("more than its half").to_string();
        assert!(
            error.contains("sort 1") && error.contains("100 B"),
            "{error}"
        );
        two.try_grow(30).expect("the other half");
        assert_eq!(budget.used_bytes(), 100);
        assert!(join.try_grow(1).is_err());
        drop((one, two, join));
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn what_exists_already_is_counted_beyond_the_limit_and_returned() {
        let (budget, pool) = pool(10);
        let output = MemoryConsumer::new("output").register(&pool);
        output.grow(8);
        output.grow(8);
        assert_eq!((budget.used_bytes(), pool.reserved()), (16, 16));
        output.shrink(10);
        assert_eq!((budget.used_bytes(), pool.reserved()), (6, 6));
        drop(output);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn the_budget_may_be_shared_with_others() {
        let (budget, pool) = pool(10);
        let other = budget.try_reserve(8).expect("fits");
        let join = MemoryConsumer::new("join").register(&pool);
        assert!(join.try_grow(3).is_err());
        drop(other);
        join.try_grow(3).expect("fits now");
    }
}
