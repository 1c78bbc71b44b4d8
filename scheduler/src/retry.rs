//! Tasks that wait for a while before they are tried again, longer after each failure.
//!
//! Called by `attempts` and `members` when an attempt has failed, and by the clock. A task that waits misses one more, whatever
//! else it misses; what becomes of it meanwhile is nobody's business here.

use crate::api::Config;
use crate::graph::History;
use crate::machine::Scheduler;
use crate::slab::TaskAt;

/// How long a task waits that has failed, or whose worker died, in microseconds. Losing one worker is rarely the task's doing, so
/// the first death costs no wait.
fn backoff_micros(config: &Config, history: &History) -> u64 {
    let failed = history.failed_attempts();
    let counted = failed - u32::from(history.deaths > 0);
    let Some(doublings) = counted.checked_sub(1) else {
        return 0;
    };
    let first = u64::from(config.retry_backoff_ms);
    let grown = first.saturating_mul(1 << doublings.min(32));
    grown.min(u64::from(config.retry_backoff_limit_ms)) * 1_000
}

impl Scheduler {
    /// An attempt has failed, as its history says already: the task comes back, and waits before it is tried again.
    pub(crate) fn take_back_for_later(&mut self, at: TaskAt) {
        self.put_off(at);
        self.take_back(at);
    }

    /// A task that is about to come back waits, as its history says. The first of a gang waits for all.
    pub(crate) fn put_off(&mut self, at: TaskAt) {
        let graph = &self.graphs.slab[at.graph];
        let index = graph.history_key(at.index);
        let history = graph.history.get(&index);
        let micros = history.map_or(0, |history| backoff_micros(&self.config, history));
        if micros > 0 {
            let at = TaskAt { index, ..at };
            self.retries.begin(at, self.now.after_micros(micros));
        }
    }

    pub(crate) fn end_waits_before_retries(&mut self) {
        while let Some(at) = self.retries.pop_due(self.now) {
            self.one_missing_less(at);
        }
    }

    /// Every wait is of a task that there is, and will end.
    pub(crate) fn check_retries(&self) -> Result<(), String> {
        for at in self.retries.iter() {
            let graph = self.graphs.slab.get(at.graph);
            if graph.is_none_or(|graph| at.index >= graph.compiled.task_count()) {
                return Err(format!("{at:?} waits for a retry and does not exist"));
            }
        }
        if self.retries.are_consistent() {
            Ok(())
        } else {
            Err("a wait before a retry will not end when it should".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_the_first_death_costs_none() {
        let config = Config {
            retry_backoff_ms: 100,
            retry_backoff_limit_ms: 1_000,
            ..Config::default()
        };
        let millis = |failures, deaths| {
            let history = History {
                failures,
                deaths,
                ..History::default()
            };
            backoff_micros(&config, &history) / 1_000
        };
        let failures: Vec<u64> = (1..7).map(|failures| millis(failures, 0)).collect();
        assert_eq!(failures, [100, 200, 400, 800, 1_000, 1_000]);
        let deaths: Vec<u64> = (1..5).map(|deaths| millis(0, deaths)).collect();
        assert_eq!(deaths, [0, 100, 200, 400]);
        assert_eq!((millis(1, 1), millis(2, 1), millis(1, 2)), (100, 200, 200));
        assert_eq!((millis(u32::MAX, 0), millis(0, 0)), (1_000, 0));
    }
}
