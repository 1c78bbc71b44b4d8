//! Instructions that do not simply go on with the next: branches, calls, ends, barriers and meetings.

use super::block::Shared;
use super::step::Next;
use super::warp::{Group, Warp, lanes};
use super::{Grid, Place};
use crate::code::{Ins, Meeting, Op};
use crate::fault::{Fault, FaultKind};

impl Warp {
    /// Whatever does not simply go on with the next instruction.
    pub(super) fn control(
        &mut self,
        grid: &Grid<'_>,
        shared: &mut Shared,
        ins: &Ins,
        group: &Group,
        mask: u32,
    ) -> Result<Next, Fault> {
        let rest = group.mask & !mask;
        let first = lanes(mask).next().unwrap_or(0);
        let place = Place {
            ins: Some(ins),
            block: shared.place,
            thread: self.thread(first),
            address: None,
        };
        let fault = |kind, detail: &str| Err(grid.fault(kind, place, detail.to_owned()));
        match &ins.op {
            Op::Branch { to } if rest == 0 => return Ok(Next::Jump(*to)),
            Op::Branch { to } => {
                self.set_pcs(rest, group.pc + 1);
                self.set_pcs(mask, *to);
            }
            Op::BranchIndexed { index, to } => {
                let row = Self::index(group, *index);
                self.must_be_defined(grid, shared, ins, "the index", (self.defined[row], mask))?;
                self.set_pcs(rest, group.pc + 1);
                for lane in lanes(mask) {
                    let index = self.rows[row][lane] as usize;
                    let Some(to) = to.get(index) else {
                        return fault(
                            FaultKind::IllegalAddress,
                            "a branch behind the last of its targets",
                        );
                    };
                    self.pcs[lane] = *to;
                }
            }
            Op::Call {
                function,
                arguments,
                ..
            } => {
                self.set_pcs(rest, group.pc + 1);
                if !self.call(
                    grid,
                    shared,
                    (*function, arguments),
                    group.frame,
                    mask,
                    group.pc,
                ) {
                    return fault(
                        FaultKind::StackOverflow,
                        "calls go deeper than local memory reaches",
                    );
                }
            }
            Op::Return => {
                self.set_pcs(rest, group.pc + 1);
                self.go_back(grid, mask);
            }
            Op::Exit => {
                self.set_pcs(rest, group.pc + 1);
                self.alive &= !mask;
            }
            Op::Trap => return fault(FaultKind::Trap, "the kernel gave up"),
            Op::Breakpoint => return fault(FaultKind::Trap, "a breakpoint, and no debugger"),
            Op::AssertionFailed => {
                return fault(
                    FaultKind::Assertion,
                    "an assertion of the kernel does not hold",
                );
            }
            Op::Barrier(barrier) => {
                self.set_pcs(rest, group.pc + 1);
                let rows = group.frame.rows as usize;
                self.reach_barrier(grid, shared, (ins, barrier), rows, mask, group.pc)?;
            }
            Op::Meet(meeting) => return self.meet(grid, shared, (ins, meeting), group, mask),
            // All others are executed above.
            _ => return Ok(Next::On),
        }
        Ok(Next::Pick)
    }

    fn meet(
        &mut self,
        grid: &Grid<'_>,
        shared: &mut Shared,
        (ins, meeting): (&Ins, &Meeting),
        group: &Group,
        mask: u32,
    ) -> Result<Next, Fault> {
        let row = Self::index(group, meeting.members);
        self.must_be_defined(grid, shared, ins, "the mask", (self.defined[row], mask))?;
        for lane in lanes(mask) {
            let members = self.rows[row][lane] as u32;
            if members >> lane & 1 == 0 {
                let place = Place {
                    ins: Some(ins),
                    block: shared.place,
                    thread: self.thread(lane),
                    address: None,
                };
                return Err(grid.fault(
                    FaultKind::BadShuffle,
                    place,
                    format!("lane {lane} is not in the mask {members:#010x}"),
                ));
            }
        }
        self.set_pcs(group.mask & !mask, group.pc + 1);
        self.set_pcs(mask, group.pc);
        self.arrive(
            meeting,
            group.frame.rows as usize,
            group.frame.preds as usize,
            mask,
        );
        let mut met_all = false;
        for lane in lanes(mask) {
            if self.meeting >> lane & 1 == 1 {
                let met = self.try_meet(grid, shared, lane);
                met_all |= met == group.mask;
            }
            if self.meeting & mask == 0 {
                break;
            }
        }
        // Nobody was left behind, and nobody joins: the group goes on as it is.
        Ok(if met_all { Next::On } else { Next::Pick })
    }
}
