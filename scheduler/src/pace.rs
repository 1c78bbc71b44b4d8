//! How many tasks may wait at a worker behind those that run: as many as it gets through while a message travels there and back.
//!
//! Kept by `worker`, fed by `attempts`. Where tasks take long, one in waiting is enough, and more would only pin memory and
//! bind tasks to a worker too early. Where they take microseconds, a short queue would run empty between any two messages.

use transload_protocol::Time;

/// The queue is to last so long, in microseconds: some round trips between processes on busy machines.
const LASTING_MICROS: u64 = 2_000;
/// The pace is measured over at least so long, in microseconds.
const SAMPLE_MICROS: u64 = 500;

/// A worker that has not ended a task is taken to need so long for each, in microseconds.
const GUESSED_MICROS: u64 = 10_000;

/// How fast a worker ends tasks, and the queue that follows from it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Tasks that may wait for each of its slots.
    per_slot: u32,
    /// When the sample began, moved on by the time in which the worker had nothing to do.
    since: Time,
    /// Tasks that have ended since.
    ended: u32,
    /// Between the ends of two tasks, in microseconds, while it had something to do; 0 before any has ended.
    micros_per_task: u64,
    /// It has had nothing to do since then.
    idle_since: Option<Time>,
}

/// Between which limits queues are kept, in tasks for each slot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueLimits {
    pub(crate) least: u32,
    pub(crate) most: u32,
}

impl Pace {
    pub(crate) fn new(limits: QueueLimits, now: Time) -> Self {
        Self {
            per_slot: limits.least,
            since: now,
            ended: 0,
            micros_per_task: 0,
            idle_since: Some(now),
        }
    }

    /// Tasks that may wait for each slot.
    pub(crate) fn queue_per_slot(&self) -> u32 {
        self.per_slot
    }

    /// As [`Pace::micros_per_task`], but at least so long: 0 while nothing is known.
    pub(crate) fn seen_micros_per_task(&self, now: Time) -> u64 {
        let elapsed = self.idle_since.unwrap_or(now).micros_since(self.since);
        let so_far = elapsed / u64::from(self.ended.saturating_add(1));
        self.micros_per_task.max(so_far)
    }

    /// How long the worker takes from the end of one task to that of the next.
    pub(crate) fn micros_per_task(&self, now: Time) -> u64 {
        let seen = self.seen_micros_per_task(now);
        match self.micros_per_task {
            0 => seen.max(GUESSED_MICROS),
            _ => seen,
        }
    }

    /// The worker got something to do.
    pub(crate) fn on_assigned(&mut self, now: Time) {
        if let Some(idle_since) = self.idle_since.take() {
            self.since = self.since.after_micros(now.micros_since(idle_since));
        }
    }

    /// The worker has ended a task, and was or was not left without any.
    pub(crate) fn on_ended(&mut self, now: Time, is_idle: bool) {
        self.ended = self.ended.saturating_add(1);
        if is_idle {
            self.idle_since = Some(now);
        }
    }

    /// Adapts the queue of a worker with so many slots. To be called after all that has arrived was taken in: what arrives in
    /// one message has not ended at one time.
    pub(crate) fn adapt(&mut self, now: Time, slots: u32, limits: QueueLimits) {
        let elapsed = self.idle_since.unwrap_or(now).micros_since(self.since);
        if self.ended == 0 || elapsed < SAMPLE_MICROS {
            return;
        }
        let sample = (elapsed / u64::from(self.ended)).max(1);
        self.micros_per_task = match self.micros_per_task {
            0 => sample,
            known => (known.saturating_mul(3).saturating_add(sample)) / 4,
        };
        let lasting = u64::from(self.ended) * LASTING_MICROS / elapsed / u64::from(slots.max(1));
        let lasting = u32::try_from(lasting).unwrap_or(u32::MAX);
        let wanted = lasting.clamp(limits.least, limits.most.max(limits.least));
        self.since = self.idle_since.unwrap_or(now);
        self.ended = 0;
        // Growing at once costs little when it was wrong; one slow sample among fast ones must not starve the worker.
        self.per_slot = if wanted >= self.per_slot {
            wanted
        } else {
            self.per_slot - (self.per_slot - wanted).div_ceil(4)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: QueueLimits = QueueLimits { least: 1, most: 64 };

    /// The queue after so many messages, so long after each other, each of which tells of so many tasks that have ended.
    fn after(pace: &mut Pace, now: &mut Time, (messages, micros): (u32, u64), tasks: u32) -> u32 {
        for _ in 0..messages {
            pace.on_assigned(*now);
            *now = now.after_micros(micros);
            for left in (0..tasks).rev() {
                pace.on_ended(*now, left == 0);
            }
            pace.adapt(*now, 2, LIMITS);
        }
        pace.queue_per_slot()
    }

    #[test]
    fn short_tasks_get_a_long_queue_and_long_ones_a_short_one() {
        let mut now = Time::default();
        let mut pace = Pace::new(LIMITS, now);
        assert_eq!(after(&mut pace, &mut now, (10, 100_000), 1), 1);
        assert_eq!(after(&mut pace, &mut now, (100, 100), 1), 10);
        assert_eq!(
            after(&mut pace, &mut now, (10, 1_000), 20),
            20,
            "in batches"
        );
        assert_eq!(after(&mut pace, &mut now, (1_000, 1), 1), 64);
        assert_eq!(after(&mut pace, &mut now, (100, 100_000), 1), 1);
    }

    #[test]
    fn the_time_in_which_a_worker_had_nothing_to_do_says_nothing() {
        let mut now = Time::default();
        let mut pace = Pace::new(LIMITS, now);
        let long = after(&mut pace, &mut now, (1_000, 100), 1);
        assert_eq!(long, 10);
        now = now.after_micros(60_000_000);
        assert_eq!(after(&mut pace, &mut now, (100, 100), 1), long);
    }

    #[test]
    fn how_long_a_task_takes_is_guessed_then_known_then_seen_to_be_more() {
        let mut now = Time::default();
        let mut pace = Pace::new(LIMITS, now);
        assert_eq!(pace.micros_per_task(now), GUESSED_MICROS);
        after(&mut pace, &mut now, (100, 600), 1);
        assert_eq!(pace.micros_per_task(now), 600);
        pace.on_assigned(now);
        assert_eq!(pace.micros_per_task(now.after_micros(5_000)), 5_000);
    }

    #[test]
    fn a_fixed_queue_stays_as_it_is() {
        let limits = QueueLimits { least: 3, most: 0 };
        let mut pace = Pace::new(limits, Time::default());
        pace.on_assigned(Time::default());
        pace.on_ended(Time::from_millis(1), true);
        pace.adapt(Time::from_millis(1), 1, limits);
        assert_eq!(pace.queue_per_slot(), 3);
    }
}
