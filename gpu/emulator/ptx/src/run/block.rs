//! One block: its warps in turn, its shared memory, its barriers.

use super::barrier::{Arrived, release};
use super::chance::Chance;
use super::frame::Frame;
use super::race::Races;
use super::warp::{Warp, lanes};
use super::{Grid, Place, QUANTUM};
use crate::code::Op;
use crate::counters::Counters;
use crate::fault::{Fault, FaultKind};

/// What the warps of a block share.
#[derive(Default)]
pub(crate) struct Shared {
    /// Its number in the grid.
    pub(crate) number: u64,
    /// `%ctaid`.
    pub(crate) place: [u32; 3],
    pub(crate) bytes: Vec<u8>,
    /// Which bytes have been written.
    pub(crate) written: Vec<bool>,
    pub(crate) races: Races,
    /// Threads that arrived at barriers without waiting there.
    pub(crate) arrived: [Arrived; 16],
}

#[derive(Default)]
pub(crate) struct Block {
    warps: Vec<Warp>,
    shared: Shared,
    order: Vec<usize>,
    /// The most instructions that a warp executes before another has its turn, if chance decides.
    longest_turn: u64,
    /// How many rounds it took so far.
    pub(crate) rounds: u32,
}

impl Block {
    /// Starts block `number`, in the memory of whatever ran here before.
    pub(crate) fn begin(&mut self, grid: &Grid<'_>, number: u64, chance: Option<&mut Chance>) {
        // Blocks with short turns show orders that those with long turns hide, and the other way round.
        self.longest_turn =
            chance.map_or(1, |chance| 1 << chance.below(u64::from(QUANTUM.ilog2())));
        let [x, y, _] = grid.launch.grid.map(u64::from);
        let shared = &mut self.shared;
        shared.number = number;
        shared.place = [number % x, number / x % y, number / x / y].map(|n| n as u32);
        shared.bytes.clear();
        shared.bytes.resize(grid.shared_bytes as usize, 0);
        shared.written.clear();
        shared.written.resize(grid.shared_bytes as usize, false);
        shared.arrived = Default::default();
        let warps = grid.threads.div_ceil(32) as usize;
        shared
            .races
            .begin(warps, grid.shared_bytes as usize, grid.options.find_races);
        self.warps.resize_with(warps, Warp::default);
        self.order = (0..warps).collect();
        self.rounds = 0;
        let Some(function) = grid.kernel.code.functions.get(grid.kernel.function) else {
            return;
        };
        let frame = Frame {
            function: grid.kernel.function as u32,
            ..Frame::default()
        };
        for (index, warp) in self.warps.iter_mut().enumerate() {
            warp.number = index as u32;
            let threads = (grid.threads - warp.number * 32).min(32);
            warp.alive = u32::MAX >> (32 - threads);
            (warp.meeting, warp.at_barrier, warp.put_aside) = (0, 0, 0);
            (warp.carries, warp.carries_defined) = (0, 0);
            warp.unwritten = [None; 32];
            warp.first_lane = 0;
            warp.defined.fill(0);
            warp.preds_defined.fill(0);
            for stack in &mut warp.stacks {
                stack.calls.clear();
                stack.local.clear();
                stack.written.clear();
            }
            // A kernel's own frame always fits: its size is checked when it is loaded.
            warp.enter(grid, &self.shared, function, frame, u32::MAX);
            warp.frames = [frame; 32];
            warp.pcs = [function.entry; 32];
        }
    }

    pub(crate) fn place(&self) -> Place<'static> {
        Place {
            block: self.shared.place,
            ..Place::default()
        }
    }

    /// Lets every warp that can run have its turn, then completes barriers. True when all threads have ended.
    pub(crate) fn round(
        &mut self,
        grid: &Grid<'_>,
        counters: &mut Counters,
        mut chance: Option<&mut Chance>,
    ) -> Result<bool, Fault> {
        self.rounds = self.rounds.saturating_add(1);
        if let Some(chance) = chance.as_deref_mut() {
            chance.shuffle(&mut self.order);
        }
        let mut progress = false;
        for index in &self.order {
            let Some(warp) = self.warps.get_mut(*index) else {
                continue;
            };
            if warp.runnable() != 0 {
                progress = true;
                let quantum = match chance.as_deref_mut() {
                    Some(chance) => {
                        warp.first_lane = chance.below(32) as u32;
                        1 + chance.below(self.longest_turn) as u32
                    }
                    None => QUANTUM,
                };
                warp.run(grid, &mut self.shared, counters, quantum)?;
            }
        }
        if self.warps.iter().all(|warp| warp.alive == 0) {
            return Ok(true);
        }
        progress |= release(grid, &mut self.shared, &mut self.warps, counters)?;
        if progress {
            return Ok(false);
        }
        Err(self.stuck(grid))
    }

    /// The fault of a block whose threads all wait.
    fn stuck(&self, grid: &Grid<'_>) -> Fault {
        let waiting = |warp: &&Warp| warp.meeting != 0;
        let warp = self
            .warps
            .iter()
            .find(waiting)
            .or_else(|| self.warps.iter().find(|warp| warp.alive != 0));
        let Some(warp) = warp else {
            return grid.fault(
                FaultKind::Deadlock,
                self.place(),
                "no thread can go on".to_owned(),
            );
        };
        let mask = if warp.meeting != 0 {
            warp.meeting
        } else {
            warp.alive
        };
        let lane = lanes(mask).next().unwrap_or(0);
        let ins = grid.kernel.code.ins.get(warp.pcs[lane] as usize);
        let place = Place {
            ins,
            thread: warp.thread(lane),
            ..self.place()
        };
        if warp.meeting == 0 {
            let (waiting, alive) = self.warps.iter().fold((0, 0), |(waiting, alive), warp| {
                (
                    waiting + warp.at_barrier.count_ones(),
                    alive + warp.alive.count_ones(),
                )
            });
            return grid.fault(FaultKind::Deadlock, place, format!(
                "{waiting} of the {alive} threads that have not ended wait at barriers, and none is complete"
            ));
        }
        let members = warp.arrivals[lane].members;
        let missing = members & warp.alive & !warp.same_meeting(lane);
        // Lanes that are named and wait for a meeting of other lanes, or of another kind, can never come.
        let elsewhere = missing & warp.meeting;
        if elsewhere != 0 {
            return grid.fault(FaultKind::BadShuffle, place, format!(
                "lanes {missing:#010x} of its mask {members:#010x} wait at another operation or with another mask"
            ));
        }
        let what = match ins.map(|ins| &ins.op) {
            Some(Op::Meet(_)) => "its operation",
            _ => "it",
        };
        grid.fault(FaultKind::Deadlock, place, format!(
            "lanes {missing:#010x} of its mask {members:#010x} never come to {what}: they wait at a barrier"
        ))
    }
}
