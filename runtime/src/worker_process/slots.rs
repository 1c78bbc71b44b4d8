//! Which slots of the executor are free, and which tasks wait for them: the machine starts short tasks ahead of their slots.
//!
//! Called by the executor and its slot threads. Gives out slots in the order in which the machine started the tasks, as the
//! machine itself counts them. Knows nothing of what runs.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use transload_protocol::{Attempt, TaskId};

use super::quick::IdMap;

/// An attempt at a task.
pub(super) type Id = (TaskId, Attempt);

/// The slots, and the jobs that wait for some of them.
pub(super) struct Slots<J> {
    inner: Mutex<Inner<J>>,
}

/// What follows from the end of a job.
pub(super) struct Turn<J> {
    /// The job whose turn it is now.
    pub(super) first: Option<J>,
    /// More such jobs.
    pub(super) further: Vec<J>,
    /// None has, or half of those that waited have had theirs: time to ask for more.
    pub(super) is_low: bool,
}

struct Inner<J> {
    /// Negative for a moment when a task gets its slot back while another begins on it, and while members of gangs run beyond
    /// what there is.
    free: i64,
    waiting: VecDeque<(Id, u32, J)>,
    /// So few in waiting are too few, if nobody adds to them.
    low: usize,
    /// Jobs that have begun: how many slots each asked for, and whether it has them now.
    begun: IdMap<Id, (u32, bool)>,
}

impl<J> Slots<J> {
    pub(super) fn new(slots: u32) -> Self {
        Self {
            inner: Mutex::new(Inner {
                free: i64::from(slots),
                waiting: VecDeque::new(),
                low: 0,
                begun: IdMap::default(),
            }),
        }
    }

    /// Takes the slots that a job needs and gives it back to be run now, or keeps it until it is its turn.
    pub(super) fn take(&self, id: Id, slots: u32, job: J) -> Option<J> {
        let mut inner = self.lock();
        let is_its_turn = inner.waiting.is_empty() && inner.free >= i64::from(slots);
        if slots == 0 || is_its_turn {
            inner.begin(id, slots);
            return Some(job);
        }
        inner.waiting.push_back((id, slots, job));
        inner.low = inner.waiting.len() / 2;
        None
    }

    /// Takes the slots that a job needs, whether they are free or not.
    pub(super) fn take_at_once(&self, id: Id, slots: u32) {
        self.lock().begin(id, slots);
    }

    /// A job has ended. Calls `tell` before anyone can begin in its place.
    pub(super) fn end<T>(&self, id: Id, tell: impl FnOnce() -> T) -> (Turn<J>, T) {
        let mut inner = self.lock();
        if let Some((slots, true)) = inner.begun.remove(&id) {
            inner.free += i64::from(slots);
        }
        let told = tell();
        let first = inner.next_one();
        let further = inner.next();
        let is_low = first.is_none() || inner.waiting.len() <= inner.low;
        if is_low {
            inner.low = inner.waiting.len() / 2;
        }
        let turn = Turn {
            first,
            further,
            is_low,
        };
        (turn, told)
    }

    /// Whether any job waits for its turn.
    pub(super) fn has_line(&self) -> bool {
        !self.lock().waiting.is_empty()
    }

    /// A job goes on without its slots, for the time being: the jobs whose turn it is now.
    pub(super) fn lend(&self, id: Id) -> Vec<J> {
        let mut inner = self.lock();
        if let Some((slots, holds @ true)) = inner.begun.get_mut(&id) {
            *holds = false;
            let slots = *slots;
            inner.free += i64::from(slots);
        }
        inner.next()
    }

    /// The machine gives a job its slots back.
    pub(super) fn return_to(&self, id: Id) {
        let mut inner = self.lock();
        if let Some((slots, holds @ false)) = inner.begun.get_mut(&id) {
            *holds = true;
            let slots = *slots;
            inner.free -= i64::from(slots);
        }
    }

    /// Takes out a job that has not had its turn yet.
    pub(super) fn withdraw(&self, id: Id) -> Option<J> {
        let mut inner = self.lock();
        let at = inner.waiting.iter().position(|(other, ..)| *other == id)?;
        inner.waiting.remove(at).map(|(_, _, job)| job)
    }

    fn lock(&self) -> MutexGuard<'_, Inner<J>> {
        // Nothing that holds this lock can leave the counts half-changed.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<J> Inner<J> {
    fn begin(&mut self, id: Id, slots: u32) {
        self.free -= i64::from(slots);
        self.begun.insert(id, (slots, true));
    }

    fn next_one(&mut self) -> Option<J> {
        let (_, slots, _) = self.waiting.front()?;
        if self.free < i64::from(*slots) {
            return None;
        }
        let (id, slots, job) = self.waiting.pop_front()?;
        self.begin(id, slots);
        Some(job)
    }

    fn next(&mut self) -> Vec<J> {
        std::iter::from_fn(|| self.next_one()).collect()
    }
}

#[cfg(test)]
mod tests {
    use transload_protocol::{ClientId, GraphId};

    use super::*;

    fn id(index: u32) -> Id {
        let graph = GraphId {
            client: ClientId(1),
            sequence: 0,
        };
        (TaskId { graph, index }, Attempt(0))
    }

    /// Ends a job; the jobs whose turn it is now.
    fn end(slots: &Slots<u32>, id: Id) -> Vec<u32> {
        let (turn, ()) = slots.end(id, || ());
        turn.first.into_iter().chain(turn.further).collect()
    }

    #[test]
    fn tasks_get_their_slots_in_the_order_in_which_they_came() {
        let slots = Slots::new(2);
        assert_eq!(slots.take(id(0), 1, 0), Some(0));
        assert_eq!(slots.take(id(1), 1, 1), Some(1));
        assert_eq!(slots.take(id(2), 2, 2), None);
        assert_eq!(slots.take(id(3), 1, 3), None);
        assert_eq!(slots.take(id(4), 0, 4), Some(4), "it needs none");
        assert_eq!(end(&slots, id(0)), [0; 0], "task 2 needs both");
        assert_eq!(end(&slots, id(1)), [2]);
        assert_eq!(end(&slots, id(2)), [3]);
        assert_eq!(end(&slots, id(2)), [0; 0], "it has ended already");
    }

    #[test]
    fn more_is_asked_for_when_half_of_the_line_is_gone_and_when_nobody_can_go_on() {
        let slots = Slots::new(1);
        for index in 0..9 {
            slots.take(id(index), 1, index);
        }
        let asked: Vec<u32> = (0..9)
            .filter(|index| slots.end(id(*index), || ()).0.is_low)
            .collect();
        assert_eq!(asked, [3, 5, 6, 7, 8], "4, 2, 1 and 0 wait");
        assert!(!slots.has_line());

        let slots = Slots::new(2);
        for (index, needs) in [(0, 1), (1, 1), (2, 2), (3, 1), (4, 1), (5, 1)] {
            slots.take(id(index), needs, index);
        }
        assert!(slots.end(id(0), || ()).0.is_low, "task 2 needs both");
    }

    #[test]
    fn a_task_that_waits_can_be_withdrawn_and_one_that_runs_cannot() {
        let slots = Slots::new(2);
        for index in 0..4 {
            slots.take(id(index), 1, index);
        }
        assert_eq!(slots.withdraw(id(2)), Some(2));
        assert_eq!(slots.withdraw(id(2)), None);
        assert_eq!(slots.withdraw(id(0)), None);
        assert_eq!(end(&slots, id(0)), [3]);
    }

    #[test]
    fn a_job_that_does_not_wait_makes_those_after_it_wait_longer() {
        let slots = Slots::new(1);
        assert_eq!(slots.take(id(0), 1, 0), Some(0));
        slots.take_at_once(id(1), 1);
        assert_eq!(slots.take(id(2), 1, 2), None);
        assert_eq!(end(&slots, id(0)), [0; 0]);
        assert_eq!(end(&slots, id(1)), [2]);
    }

    #[test]
    fn slots_that_a_task_lends_are_counted_once_however_it_ends() {
        let slots = Slots::new(1);
        assert_eq!(slots.take(id(0), 1, 0), Some(0));
        assert_eq!(slots.take(id(1), 1, 1), None);
        assert_eq!(slots.lend(id(0)), [1]);
        assert_eq!(slots.lend(id(0)), [0; 0], "said twice, it counts once");
        assert_eq!(end(&slots, id(1)), [0; 0]);
        slots.return_to(id(0));
        assert_eq!(slots.take(id(2), 1, 2), None, "task 0 has its slot back");
        slots.lend(id(0));
        assert_eq!(end(&slots, id(0)), [0; 0], "it ends without its slot");
        assert_eq!(slots.take(id(3), 1, 3), None, "task 2 has begun");
        slots.return_to(id(0));
        assert_eq!(end(&slots, id(2)), [3], "what has ended gets nothing back");
    }
}
