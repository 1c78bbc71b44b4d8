//! Frames of functions: registers, predicates and local memory, with what they hold at the beginning.

use super::Grid;
use super::block::Shared;
use super::warp::{Warp, lanes};
use crate::code::{Constant, FunctionCode, Op, Passed, Row, Special};

/// Where the registers, predicates and local memory of a running function begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Frame {
    pub(crate) rows: u32,
    pub(crate) preds: u32,
    pub(crate) local: u32,
    /// Its number in `Code::functions`.
    pub(crate) function: u32,
    pub(crate) depth: u32,
}

/// What a thread has besides registers.
#[derive(Debug, Default)]
pub(crate) struct LaneStack {
    /// Where its calls go on, and in which frame.
    pub(crate) calls: Vec<(u32, Frame)>,
    pub(crate) local: Vec<u8>,
    /// Which bytes of it have been written.
    pub(crate) written: Vec<bool>,
}

/// Local memory of one thread. Hardware has 512 KiB.
const MOST_LOCAL_BYTES: u32 = 512 << 10;
/// More calls than any recursion has that ends.
const MOST_CALLS: u32 = 4096;

impl Warp {
    /// Makes room for a frame of `function`, with its constants, for the lanes of `mask`. False if there is no room.
    pub(crate) fn enter(
        &mut self,
        grid: &Grid<'_>,
        shared: &Shared,
        function: &FunctionCode,
        frame: Frame,
        mask: u32,
    ) -> bool {
        let local_end = frame.local + function.local_bytes;
        if local_end > MOST_LOCAL_BYTES || frame.depth > MOST_CALLS {
            return false;
        }
        let rows = (frame.rows + u32::from(function.registers)) as usize;
        if self.rows.len() < rows {
            self.rows.resize(rows, [0; 32]);
            self.defined.resize(rows, 0);
        }
        let preds = (frame.preds + u32::from(function.predicates)) as usize;
        if self.preds.len() < preds {
            self.preds.resize(preds, 0);
            self.preds_defined.resize(preds, 0);
        }
        for defined in self.defined.iter_mut().take(rows).skip(frame.rows as usize) {
            *defined &= !mask;
        }
        for defined in self
            .preds_defined
            .iter_mut()
            .take(preds)
            .skip(frame.preds as usize)
        {
            *defined &= !mask;
        }
        for (reg, constant) in &function.constants {
            let row = self.constant(grid, shared, *constant, frame);
            self.write(
                frame.rows as usize + usize::from(*reg),
                mask,
                &row,
                u32::MAX,
            );
        }
        if let Some(truth) = function.truth {
            let index = frame.preds as usize + usize::from(truth);
            self.preds[index] |= mask;
            self.preds_defined[index] |= mask;
        }
        for lane in lanes(mask) {
            let stack = &mut self.stacks[lane];
            stack.local.resize(local_end as usize, 0);
            stack.written.truncate(frame.local as usize);
            stack.written.resize(local_end as usize, false);
        }
        true
    }

    /// The lanes of `mask` go into a function. False if there is no room.
    pub(crate) fn call(
        &mut self,
        grid: &Grid<'_>,
        shared: &Shared,
        (number, arguments): (usize, &[Passed]),
        frame: Frame,
        mask: u32,
        pc: u32,
    ) -> bool {
        let functions = &grid.kernel.code.functions;
        let (Some(caller), Some(callee)) = (
            functions.get(frame.function as usize),
            functions.get(number),
        ) else {
            return false;
        };
        let inner = Frame {
            rows: frame.rows + u32::from(caller.registers),
            preds: frame.preds + u32::from(caller.predicates),
            local: frame.local + caller.local_bytes,
            function: number as u32,
            depth: frame.depth + 1,
        };
        if !self.enter(grid, shared, callee, inner, mask) {
            return false;
        }
        for lane in lanes(mask) {
            for passed in arguments {
                self.stacks[lane].copy(
                    frame.local + passed.caller,
                    inner.local + passed.callee,
                    passed.bytes,
                );
            }
            self.stacks[lane].calls.push((pc + 1, frame));
            self.frames[lane] = inner;
            self.pcs[lane] = callee.entry;
        }
        true
    }

    /// The lanes of `mask` go back to where they were called, or end.
    pub(crate) fn go_back(&mut self, grid: &Grid<'_>, mask: u32) {
        for lane in lanes(mask) {
            let Some((pc, frame)) = self.stacks[lane].calls.pop() else {
                self.alive &= !(1 << lane);
                continue;
            };
            let inner = self.frames[lane];
            if let Some(Op::Call { results, .. }) =
                grid.kernel.code.ins.get(pc as usize - 1).map(|ins| &ins.op)
            {
                for passed in results {
                    self.stacks[lane].copy(
                        inner.local + passed.callee,
                        frame.local + passed.caller,
                        passed.bytes,
                    );
                }
            }
            self.stacks[lane].local.truncate(inner.local as usize);
            self.stacks[lane].written.truncate(inner.local as usize);
            self.frames[lane] = frame;
            self.pcs[lane] = pc;
        }
    }

    /// Replaces the lanes of `mask`; `defined` says which of them are worth something.
    #[inline(always)]
    pub(crate) fn write(&mut self, index: usize, mask: u32, values: &Row, defined: u32) {
        if mask == u32::MAX {
            self.rows[index] = *values;
        } else {
            let row = &mut self.rows[index];
            for lane in 0..32 {
                row[lane] = if mask >> lane & 1 == 1 {
                    values[lane]
                } else {
                    row[lane]
                };
            }
        }
        self.defined[index] = self.defined[index] & !mask | defined & mask;
    }

    fn constant(&self, grid: &Grid<'_>, shared: &Shared, constant: Constant, frame: Frame) -> Row {
        match constant {
            Constant::Value(value) => [value; 32],
            Constant::Special(special) => self.special(grid, shared, special),
            Constant::Global(number, added) => {
                let address = grid.globals.get(number).copied().unwrap_or(0);
                [address.wrapping_add_signed(added); 32]
            }
            Constant::Shared(number, added) => {
                let offset = grid.kernel.shared_offsets.get(number).copied().unwrap_or(0);
                [u64::from(offset).wrapping_add_signed(added); 32]
            }
            Constant::DynamicShared(added) => {
                [u64::from(grid.dynamic_shared).wrapping_add_signed(added); 32]
            }
            Constant::Local(offset) => [u64::from(frame.local).wrapping_add_signed(offset); 32],
        }
    }

    fn special(&self, grid: &Grid<'_>, shared: &Shared, special: Special) -> Row {
        let [x, y, _] = grid.launch.block;
        let axis = |values: [u32; 3], axis: u8| [u64::from(values[usize::from(axis % 3)]); 32];
        match special {
            Special::Tid(axis) => std::array::from_fn(|lane| {
                let thread = self.thread(lane);
                u64::from(match axis {
                    0 => thread % x,
                    1 => thread / x % y,
                    _ => thread / x / y,
                })
            }),
            Special::Ntid(which) => axis(grid.launch.block, which),
            Special::Ctaid(which) => axis(shared.place, which),
            Special::Nctaid(which) => axis(grid.launch.grid, which),
            Special::LaneId => std::array::from_fn(|lane| lane as u64),
            Special::WarpId => [u64::from(self.number); 32],
            Special::Warps => [u64::from(grid.threads.div_ceil(32)); 32],
            Special::LanesEq => std::array::from_fn(|lane| 1 << lane),
            Special::LanesLt => std::array::from_fn(|lane| (1 << lane) - 1),
            Special::LanesLe => std::array::from_fn(|lane| (2 << lane) - 1),
            Special::LanesGt => {
                std::array::from_fn(|lane| u64::from(u32::MAX) & !((2 << lane) - 1))
            }
            Special::LanesGe => {
                std::array::from_fn(|lane| u64::from(u32::MAX) & !((1 << lane) - 1))
            }
            // As many multiprocessors as an H100 has, taken in turn.
            Special::SmId => [shared.number % 132; 32],
            Special::Sms => [132; 32],
            Special::GridId => [1; 32],
            Special::DynamicShared => [u64::from(grid.launch.dynamic_shared_bytes); 32],
            Special::TotalShared => [u64::from(grid.shared_bytes); 32],
        }
    }
}

impl LaneStack {
    fn copy(&mut self, from: u32, to: u32, bytes: u32) {
        let (from, to, bytes) = (from as usize, to as usize, bytes as usize);
        let end = self.local.len();
        if from + bytes <= end && to + bytes <= end {
            self.local.copy_within(from..from + bytes, to);
            self.written.copy_within(from..from + bytes, to);
        }
    }
}
