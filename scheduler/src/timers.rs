//! What is to end by itself, and when.
//!
//! Holds the limits of graphs and attempts, and the waits before retries. Knows nothing of what ends.

use std::collections::{BTreeMap, BTreeSet};

use transload_protocol::Time;

use crate::slab::{GraphSlot, TaskAt};

/// Until when something lasts.
#[derive(Debug)]
pub(crate) struct Timers<T> {
    until: BTreeMap<T, Time>,
    /// The same, by time.
    due: BTreeSet<(Time, T)>,
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self {
            until: BTreeMap::new(),
            due: BTreeSet::new(),
        }
    }
}

impl<T: Copy + Ord> Timers<T> {
    /// Begins one, in place of any that the same has already.
    pub(crate) fn begin(&mut self, what: T, until: Time) {
        self.end(what);
        self.until.insert(what, until);
        self.due.insert((until, what));
    }

    /// Ends one early, if there is one.
    pub(crate) fn end(&mut self, what: T) {
        if let Some(until) = self.until.remove(&what) {
            self.due.remove(&(until, what));
        }
    }

    /// When the first of them ends.
    pub(crate) fn next_due(&self) -> Option<Time> {
        self.due.first().map(|(until, _)| *until)
    }

    /// When that of something ends, if it has one.
    pub(crate) fn until(&self, what: T) -> Option<Time> {
        self.until.get(&what).copied()
    }

    /// What has one.
    pub(crate) fn iter(&self) -> impl Iterator<Item = T> {
        self.until.keys().copied()
    }

    /// Takes out the first of those that end at this time or before.
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<T> {
        let (until, what) = self.due.first().copied()?;
        if until > now {
            return None;
        }
        self.end(what);
        Some(what)
    }

    /// For the check: each ends when it should.
    pub(crate) fn are_consistent(&self) -> bool {
        let by_time: BTreeSet<(Time, T)> = self
            .until
            .iter()
            .map(|(what, until)| (*until, *what))
            .collect();
        by_time == self.due
    }
}

impl Timers<TaskAt> {
    /// The graph is over.
    pub(crate) fn forget(&mut self, graph: GraphSlot) {
        let task = |index| TaskAt { graph, index };
        while let Some((at, _)) = self.until.range(task(0)..=task(u32::MAX)).next() {
            self.end(*at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_end_in_the_order_of_their_times_and_only_those_that_were_not_ended_before() {
        let at = |graph, index| TaskAt {
            graph: GraphSlot(graph),
            index,
        };
        let mut timers = Timers::default();
        for (index, millis) in [(0, 30), (1, 10), (2, 20), (3, 5), (1, 25)] {
            timers.begin(at(0, index), Time::from_millis(millis));
        }
        timers.begin(at(1, 0), Time::from_millis(1));
        timers.end(at(0, 3));
        assert_eq!(timers.until(at(0, 1)), Some(Time::from_millis(25)));
        assert_eq!(timers.until(at(0, 3)), None);
        timers.forget(GraphSlot(1));
        assert_eq!(timers.next_due(), Some(Time::from_millis(20)));
        assert!(timers.are_consistent());
        let late = Time::from_millis(29);
        let ended: Vec<_> = std::iter::from_fn(|| timers.pop_due(late)).collect();
        assert_eq!(ended, [at(0, 2), at(0, 1)]);
        assert_eq!(timers.iter().collect::<Vec<_>>(), [at(0, 0)]);
    }
}
