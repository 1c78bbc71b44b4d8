//! Which slot of a worker a task ran in, as far as that can be told from when it ran. Called by the history; knows numbers alone.

use std::collections::BTreeMap;

use transload_protocol::WorkerId;

/// Clocks of two processes differ by so much, and tasks that end together are told together.
const SLACK_MICROS: u64 = 2_000;
/// More lanes than any machine has slots: what comes beyond shares the last.
const MOST_LANES: usize = 1_024;

/// When the last task of each lane ended.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    ends: BTreeMap<WorkerId, Vec<u64>>,
}

impl Lanes {
    /// The first lane that was free when it began; tasks are told in the order in which they ended.
    pub(crate) fn place(&mut self, worker: WorkerId, start_us: u64, end_us: u64) -> u32 {
        let ends = self.ends.entry(worker).or_default();
        let is_free =
            |end: &u64| *end <= start_us.saturating_add(SLACK_MICROS.min((end_us - start_us) / 2));
        let free = ends.iter().position(is_free);
        let lane = match free {
            Some(lane) => lane,
            None if ends.len() < MOST_LANES => {
                ends.push(0);
                ends.len() - 1
            }
            None => MOST_LANES - 1,
        };
        ends[lane] = ends[lane].max(end_us);
        lane as u32
    }

    pub(crate) fn forget(&mut self, worker: WorkerId) {
        self.ends.remove(&worker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ran_at_once_is_in_different_lanes_and_what_ran_later_in_the_first_free_one() {
        let mut lanes = Lanes::default();
        let worker = WorkerId(1);
        let ran = [
            (0, 10_000),
            (0, 20_000),
            (10_000, 25_000),
            (20_500, 40_000),
            (1_000, 50_000),
        ];
        let placed = ran.map(|(start, end)| lanes.place(worker, start, end));
        assert_eq!(placed, [0, 1, 0, 1, 2]);
        assert_eq!(lanes.place(WorkerId(2), 0, 5), 0);
        lanes.forget(worker);
        assert_eq!(lanes.place(worker, 0, 5), 0);
    }

    #[test]
    fn there_are_no_more_lanes_than_somebody_can_look_at() {
        let mut lanes = Lanes::default();
        let last = (0..3_000)
            .map(|_| lanes.place(WorkerId(1), 0, 1_000_000))
            .max();
        assert_eq!(last, Some(MOST_LANES as u32 - 1));
    }
}
