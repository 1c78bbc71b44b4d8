//! Which slot of a worker a task ran in, as far as that can be told from when it ran. Called by the history; knows numbers alone.

use std::collections::BTreeMap;

use transload_protocol::WorkerId;

/// When somebody ended is told some time later, and so is when they began: what overlaps for no longer than this, or for no more than a quarter
/// of its time, ran one behind the other.
const SLACK_MICROS: u64 = 20_000;
/// More lanes than any machine has slots: what comes beyond shares the last.
const MOST_LANES: usize = 1_024;

/// When the last task of each lane ended.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    ends: BTreeMap<WorkerId, Vec<u64>>,
}

impl Lanes {
    /// The lane of what ran from `start_us` to `end_us`, and when it began if it began when that lane was free. It is among the first `slots`,
    /// unless it cannot have been in one of these. What ran is told in the order in which it ended.
    pub(crate) fn place(
        &mut self,
        worker: WorkerId,
        slots: usize,
        (start_us, end_us): (u64, u64),
    ) -> (u32, u64) {
        let ends = self.ends.entry(worker).or_default();
        if let Some(lane) = ends.iter().position(|end| *end <= start_us) {
            ends[lane] = end_us;
            return (lane as u32, start_us);
        }
        let slack = SLACK_MICROS.max(end_us.saturating_sub(start_us) / 4);
        let soonest = ends.iter().enumerate().min_by_key(|(_, end)| **end);
        match soonest {
            Some((lane, end))
                if ends.len() >= MOST_LANES
                    || ends.len() >= slots && *end <= start_us.saturating_add(slack) =>
            {
                let start_us = (*end).min(end_us);
                ends[lane] = ends[lane].max(end_us);
                (lane as u32, start_us)
            }
            _ => {
                ends.push(end_us);
                ((ends.len() - 1) as u32, start_us)
            }
        }
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
        let ran = [(0, 10), (0, 20), (10, 25), (20, 40), (1, 50)];
        let ran = ran.map(|(start, end)| (start * 100_000, end * 100_000));
        let placed = ran.map(|ran| lanes.place(worker, 2, ran).0);
        assert_eq!(placed, [0, 1, 0, 1, 2]);
        assert_eq!(lanes.place(WorkerId(2), 2, (0, 5)), (0, 0));
        lanes.forget(worker);
        assert_eq!(lanes.place(worker, 2, (0, 5)), (0, 0));
    }

    #[test]
    fn what_overlaps_for_a_moment_ran_one_behind_the_other_in_as_many_lanes_as_there_are_slots() {
        let mut lanes = Lanes::default();
        let worker = WorkerId(1);
        assert_eq!(lanes.place(worker, 1, (0, 100_000)), (0, 0));
        assert_eq!(lanes.place(worker, 1, (90_000, 130_000)), (0, 100_000));
        assert_eq!(lanes.place(worker, 1, (95_000, 235_000)), (0, 130_000));
        // One that gave up its slot meanwhile.
        assert_eq!(lanes.place(worker, 1, (0, 300_000)), (1, 0));
    }

    #[test]
    fn there_are_no_more_lanes_than_somebody_can_look_at() {
        let mut lanes = Lanes::default();
        let placed = (0..3_000).map(|_| lanes.place(WorkerId(1), 2, (0, 1_000_000)).0);
        assert_eq!(placed.max(), Some(MOST_LANES as u32 - 1));
    }
}
