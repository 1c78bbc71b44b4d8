//! What a worker tells the scheduler: answers, events in batches, heartbeats. Called by every part of `machine`.

use transload_protocol::{
    Attempt, Event, EventRecord, RunningTask, TaskError, TaskErrorKind, TaskId, Tier, TierUsage,
    Time, WorkerLoad, WorkerMessage,
};

use crate::machine::{Link, Turn, Worker};
use crate::{Action, Config};

/// Events are sent with the next message, with the next heartbeat, or when there are so many.
const EVENTS_PER_BATCH: usize = 256;

impl Worker {
    /// Sends a message, after the events that led to it.
    pub(crate) fn tell(&mut self, message: WorkerMessage, turn: &mut Turn<'_>) {
        self.flush_events(turn);
        if !self.is_away() {
            turn.out.push(Action::ToScheduler(message));
        }
    }

    /// Reports the end of an attempt that failed before it ran. `layer` is what failed: the names of a layer and its operator.
    pub(crate) fn tell_failed(
        &mut self,
        attempt: (TaskId, Attempt),
        layer: Option<(&str, &str)>,
        error: (TaskErrorKind, String),
        turn: &mut Turn<'_>,
    ) {
        self.tell_failed_after(0, attempt, layer, error, turn);
    }

    /// As [`Worker::tell_failed`], after it ran for so many microseconds.
    pub(crate) fn tell_failed_after(
        &mut self,
        run_micros: u64,
        (task, attempt): (TaskId, Attempt),
        layer: Option<(&str, &str)>,
        (kind, message): (TaskErrorKind, String),
        turn: &mut Turn<'_>,
    ) {
        let (layer, operator) = layer.unwrap_or_default();
        let error = TaskError {
            task,
            layer: layer.to_owned(),
            operator: operator.to_owned(),
            worker: self.own_id(),
            kind,
            message,
            // The scheduler knows both.
            place: String::new(),
            attempts: 0,
        };
        let error = Box::new(error);
        let message = WorkerMessage::Failed {
            attempt,
            error,
            run_micros,
        };
        self.tell(message, turn);
    }

    pub(crate) fn note(&mut self, event: Event, turn: &mut Turn<'_>) {
        self.events.push(EventRecord {
            at: turn.now,
            event,
        });
        if self.events.len() >= EVENTS_PER_BATCH {
            self.flush_events(turn);
        }
    }

    fn flush_events(&mut self, turn: &mut Turn<'_>) {
        if !self.events.is_empty() {
            let events = std::mem::take(&mut self.events);
            if !self.is_away() {
                turn.out
                    .push(Action::ToScheduler(WorkerMessage::Events { events }));
            }
        }
    }

    pub(crate) fn beat_if_due(&mut self, turn: &mut Turn<'_>) {
        let Link::Connected { worker, beat_at } = self.link else {
            return;
        };
        if turn.now >= beat_at {
            let load = self.load(turn.now);
            self.tell(WorkerMessage::Heartbeat { load }, turn);
            self.link = Link::Connected {
                worker,
                beat_at: next_beat(&self.config, turn.now),
            };
        }
    }

    /// The load now, as heartbeats report it.
    pub fn load(&self, now: Time) -> WorkerLoad {
        let usage = self.store.usage();
        let running = self.running.iter();
        let tiers: &[Tier] = match self.config.gpu {
            Some(_) => &[Tier::Device, Tier::PinnedHost, Tier::Host, Tier::Disk],
            None => &[Tier::Host, Tier::Disk],
        };
        WorkerLoad {
            running: running
                .map(|(task, running)| RunningTask {
                    task: *task,
                    running_ms: running.run_micros(now) / 1_000,
                })
                .collect(),
            queued: u32::try_from(self.queue.len()).unwrap_or(u32::MAX),
            tiers: tiers
                .iter()
                .map(|tier| TierUsage {
                    tier: *tier,
                    used_bytes: usage.tiers[*tier].bytes,
                    limit_bytes: self.limits.tiers[*tier].bytes,
                })
                .collect(),
            resident_bytes: self.resident_bytes,
        }
    }
}

/// When the heartbeat after one at `now` is due.
pub(crate) fn next_beat(config: &Config, now: Time) -> Time {
    now.after_micros(u64::from(config.heartbeat_ms.max(1)) * 1_000)
}
