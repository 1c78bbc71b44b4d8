//! Barriers of a block: who waits, when they are complete, and what they hand out.

use super::block::Shared;
use super::warp::{Warp, lanes};
use super::{Grid, Place};
use crate::code::{BarrierKind, BarrierUse, Ins, Op};
use crate::counters::Counters;
use crate::fault::{Fault, FaultKind};

/// Threads that arrived at a barrier and went on.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Arrived {
    pub(crate) threads: u32,
    /// How many threads they expect.
    pub(crate) expected: u32,
    /// Up to when others are ordered behind them, by warp.
    pub(crate) known: [u32; 32],
}

/// A barrier as its waiting lanes see it.
#[derive(Default)]
struct Waiting {
    threads: u32,
    warps: u32,
    expected: Option<u32>,
    votes: u32,
}

impl Warp {
    /// The lanes of `mask` reach a barrier. They wait there, or only arrive.
    pub(crate) fn reach_barrier(
        &mut self,
        grid: &Grid<'_>,
        shared: &mut Shared,
        (ins, barrier): (&Ins, &BarrierUse),
        frame_rows: usize,
        mask: u32,
        pc: u32,
    ) -> Result<(), Fault> {
        let first = lanes(mask).next().unwrap_or(0);
        let fault = |warp: &Self, detail: String| {
            let place = Place {
                ins: Some(ins),
                block: shared.place,
                thread: warp.thread(first),
                address: None,
            };
            Err(grid.fault(FaultKind::BadBarrier, place, detail))
        };
        let row = |reg: u16| {
            self.rows
                .get(frame_rows + usize::from(reg))
                .map_or(0, |row| row[first]) as u32
        };
        let (id, expected) = (row(barrier.id), barrier.threads.map(row));
        if id > 15 {
            return fault(
                self,
                format!("there is no barrier {id}: they go from 0 to 15"),
            );
        }
        if let Some(expected) = expected
            && (expected == 0 || expected % 32 != 0 || expected > grid.threads.next_multiple_of(32))
        {
            return fault(
                self,
                format!(
                    "a barrier of {expected} threads in a block of {}: it must be a multiple of 32",
                    grid.threads
                ),
            );
        }
        if barrier.aligned
            && self.at_barrier != 0
            && lanes(self.at_barrier).any(|lane| self.pcs[lane] != pc)
        {
            return fault(
                self,
                format!(
                    "lanes {:#010x} of the warp wait at another barrier: all lanes of a warp must come to the same",
                    self.at_barrier
                ),
            );
        }
        if barrier.kind == BarrierKind::Arrive {
            let arrived = &mut shared.arrived[id as usize];
            shared
                .races
                .publish(self.number as usize, &mut arrived.known);
            let whole = mask == self.alive;
            arrived.threads += if whole { 32 } else { mask.count_ones() };
            arrived.expected = expected.unwrap_or(0);
            self.set_pcs(mask, pc + 1);
            return Ok(());
        }
        self.set_pcs(mask, pc);
        self.at_barrier |= mask;
        Ok(())
    }

    fn barrier_of<'a>(
        &self,
        grid: &Grid<'a>,
        lane: usize,
    ) -> Option<(&'a Ins, &'a BarrierUse, u32)> {
        let ins = grid.kernel.code.ins.get(self.pcs[lane] as usize)?;
        let Op::Barrier(barrier) = &ins.op else {
            return None;
        };
        let rows = self.frames[lane].rows as usize;
        let id = self.rows.get(rows + usize::from(barrier.id))?[lane] as u32;
        Some((ins, barrier, id))
    }
}

/// Completes every barrier that can be. True if there was one.
pub(crate) fn release(
    grid: &Grid<'_>,
    shared: &mut Shared,
    warps: &mut [Warp],
    counters: &mut Counters,
) -> Result<bool, Fault> {
    if warps.iter().all(|warp| warp.at_barrier == 0) {
        return Ok(false);
    }
    let mut waiting: [Waiting; 16] = Default::default();
    for warp in warps.iter() {
        gather(grid, shared, warp, &mut waiting)?;
    }
    let alive: u32 = warps.iter().map(|warp| warp.alive.count_ones()).sum();
    let mut released = false;
    for (id, barrier) in waiting
        .iter()
        .enumerate()
        .filter(|(_, barrier)| barrier.threads != 0)
    {
        let arrived = shared.arrived[id];
        let complete = match barrier.expected {
            Some(expected) => barrier.threads + arrived.threads >= expected,
            None => barrier.threads == alive,
        };
        if !complete {
            continue;
        }
        if barrier
            .expected
            .is_some_and(|expected| barrier.threads + arrived.threads > expected)
        {
            let place = Place {
                block: shared.place,
                ..Place::default()
            };
            return Err(grid.fault(
                FaultKind::BadBarrier,
                place,
                format!("more threads came to barrier {id} than it is for"),
            ));
        }
        released = true;
        counters.barriers += 1;
        shared.arrived[id] = Arrived::default();
        shared.races.barrier(barrier.warps, arrived.known);
        for warp in warps.iter_mut() {
            let_go(grid, warp, id as u32, barrier);
        }
    }
    Ok(released)
}

fn gather(
    grid: &Grid<'_>,
    shared: &Shared,
    warp: &Warp,
    waiting: &mut [Waiting; 16],
) -> Result<(), Fault> {
    let mut mine = [0_u32; 16];
    for lane in lanes(warp.at_barrier) {
        let Some((ins, barrier, id)) = warp.barrier_of(grid, lane) else {
            continue;
        };
        let rows = warp.frames[lane].rows as usize;
        let expected = barrier
            .threads
            .and_then(|reg| warp.rows.get(rows + usize::from(reg)))
            .map(|row| row[lane] as u32);
        let entry = &mut waiting[id as usize & 15];
        let arrived = shared.arrived[id as usize & 15];
        let others = if entry.threads == 0 && mine[id as usize & 15] == 0 {
            expected
        } else {
            entry.expected
        };
        if others != expected || arrived.threads != 0 && Some(arrived.expected) != expected {
            let place = Place {
                ins: Some(ins),
                block: shared.place,
                thread: warp.thread(lane),
                address: None,
            };
            return Err(grid.fault(
                FaultKind::BadBarrier,
                place,
                format!("threads expect different numbers at barrier {id}"),
            ));
        }
        entry.expected = expected;
        if let Some(vote) = barrier.vote {
            let pred = warp
                .preds
                .get((warp.frames[lane].preds + u32::from(vote.pred)) as usize)
                .copied()
                .unwrap_or(0);
            entry.votes += u32::from((pred >> lane & 1 == 1) != vote.negated);
        }
        mine[id as usize & 15] |= 1 << lane;
    }
    for (entry, mask) in waiting.iter_mut().zip(mine).filter(|(_, mask)| *mask != 0) {
        // A warp counts whole where numbers are given, as these are in whole warps.
        let whole = entry.expected.is_some() && mask == warp.alive;
        entry.threads += if whole { 32 } else { mask.count_ones() };
        entry.warps |= 1 << warp.number;
    }
    Ok(())
}

/// The lanes that wait at barrier `id` go on with its result.
fn let_go(grid: &Grid<'_>, warp: &mut Warp, id: u32, result: &Waiting) {
    for lane in lanes(warp.at_barrier) {
        let Some((_, barrier, _)) = warp
            .barrier_of(grid, lane)
            .filter(|(_, _, mine)| *mine == id)
        else {
            continue;
        };
        let bit = 1 << lane;
        let (rows, preds) = (
            warp.frames[lane].rows as usize,
            warp.frames[lane].preds as usize,
        );
        if let Some(d) = barrier.d {
            let row = [u64::from(result.votes); 32];
            warp.write(rows + usize::from(d), bit, &row, u32::MAX);
        }
        if let Some(p) = barrier.p {
            let yes = match barrier.kind {
                BarrierKind::And => result.votes == result.threads,
                _ => result.votes != 0,
            };
            warp.write_pred(preds + usize::from(p), bit, if yes { bit } else { 0 }, bit);
        }
        warp.at_barrier &= !bit;
        warp.pcs[lane] += 1;
    }
}
