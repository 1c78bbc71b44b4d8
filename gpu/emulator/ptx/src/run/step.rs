//! The loop that executes instructions for a group of lanes until something makes others run.

use super::Grid;
use super::access::Access;
use super::block::Shared;
use super::warp::{Group, Warp, lanes};
use crate::code::{Clock, Ins, Logic, Op, PredUse, Reg, Row, Sources, Strength};
use crate::counters::Counters;
use crate::fault::Fault;
use crate::types::Space;
use crate::{LOCAL_BASE, SHARED_BASE, WINDOW_BYTES};

/// Whether the group goes on with the next instruction.
#[derive(PartialEq)]
pub(super) enum Next {
    On,
    /// The lanes' places are stored: look who runs next.
    Pick,
    /// All lanes go there.
    Jump(u32),
}

impl Warp {
    /// Executes up to `budget` instructions, fewer if all lanes wait or end.
    pub(crate) fn run(
        &mut self,
        grid: &Grid<'_>,
        shared: &mut Shared,
        counters: &mut Counters,
        mut budget: u32,
    ) -> Result<(), Fault> {
        while budget > 0 {
            let Some(group) = self.pick() else {
                if !self.meet_after_ends(grid, shared) {
                    return Ok(());
                }
                continue;
            };
            self.run_group(grid, shared, counters, group, &mut budget)?;
            // A group that used up its turn may spin until others of its warp come on.
            self.put_aside = if budget == 0 { group.mask } else { 0 };
        }
        // Those that the last instruction left alone must not look as if they waited for somebody.
        if self.runnable() == 0 {
            self.meet_after_ends(grid, shared);
        }
        Ok(())
    }

    /// Meetings that were short only of lanes that have ended meanwhile.
    fn meet_after_ends(&mut self, grid: &Grid<'_>, shared: &mut Shared) -> bool {
        let mut met = 0;
        for lane in lanes(self.meeting) {
            if self.meeting >> lane & 1 == 1 {
                met |= self.try_meet(grid, shared, lane);
            }
        }
        met != 0
    }

    fn run_group(
        &mut self,
        grid: &Grid<'_>,
        shared: &mut Shared,
        counters: &mut Counters,
        group: Group,
        budget: &mut u32,
    ) -> Result<(), Fault> {
        let code = &grid.kernel.code.ins;
        let Group {
            mask: act, stop, ..
        } = group;
        let mut pc = group.pc;
        loop {
            if *budget == 0 {
                self.set_pcs(act, pc);
                return Ok(());
            }
            *budget -= 1;
            let Some(ins) = code.get(pc as usize) else {
                self.alive &= !act;
                return Ok(());
            };
            let mask = match ins.guard {
                Some(guard) => self.guarded(grid, shared, ins, guard, &group)?,
                None => act,
            };
            counters.warp_instructions += 1;
            counters.thread_instructions += u64::from(mask.count_ones());
            counters.coverage.note(pc as usize, mask != 0, mask != act);
            let next = if mask == 0 {
                Next::On
            } else {
                self.execute(grid, shared, counters, ins, &Group { pc, ..group }, mask)?
            };
            match next {
                Next::Pick => return Ok(()),
                Next::On => pc += 1,
                Next::Jump(to) => pc = to,
            }
            if pc >= stop {
                self.set_pcs(act, pc);
                return Ok(());
            }
        }
    }

    #[inline(always)]
    fn guarded(
        &self,
        grid: &Grid<'_>,
        shared: &Shared,
        ins: &Ins,
        guard: PredUse,
        group: &Group,
    ) -> Result<u32, Fault> {
        let (value, defined) = self.predicate(guard, group);
        self.must_be_defined(grid, shared, ins, "the predicate", (defined, group.mask))?;
        Ok(value & group.mask)
    }

    #[inline(always)]
    fn predicate(&self, read: PredUse, group: &Group) -> (u32, u32) {
        let index = group.frame.preds as usize + usize::from(read.pred);
        let value = self.preds[index];
        (
            if read.negated { !value } else { value },
            self.preds_defined[index],
        )
    }

    #[inline(always)]
    fn combined(
        &self,
        (value, defined): (u32, u32),
        with: Option<(Logic, PredUse)>,
        group: &Group,
    ) -> (u32, u32, u32) {
        let Some((logic, read)) = with else {
            return (value, !value, defined);
        };
        let (other, other_defined) = self.predicate(read, group);
        let join = |value: u32| match logic {
            Logic::And => value & other,
            Logic::Or => value | other,
            Logic::Xor => value ^ other,
        };
        (join(value), join(!value), defined & other_defined)
    }

    #[inline(always)]
    pub(super) fn index(group: &Group, reg: Reg) -> usize {
        group.frame.rows as usize + usize::from(reg)
    }

    #[inline(always)]
    fn sources(&self, group: &Group, s: [Reg; 3], imm: u64) -> (Sources<'_>, u32) {
        let [a, b, c] = s.map(|reg| Self::index(group, reg));
        let sources = Sources {
            a: &self.rows[a],
            b: &self.rows[b],
            c: &self.rows[c],
            imm,
        };
        (sources, self.defined[a] & self.defined[b] & self.defined[c])
    }

    /// Executes one instruction for the lanes of `mask`, which is not empty.
    #[inline(always)]
    fn execute(
        &mut self,
        grid: &Grid<'_>,
        shared: &mut Shared,
        counters: &mut Counters,
        ins: &Ins,
        group: &Group,
        mask: u32,
    ) -> Result<Next, Fault> {
        match &ins.op {
            Op::Row { f, d, s, imm } => {
                let (sources, defined) = self.sources(group, *s, *imm);
                let values = f(&sources);
                self.write(Self::index(group, *d), mask, &values, defined);
            }
            Op::Compare {
                f,
                s: [a, b],
                combine,
                p,
                q,
            } => {
                let (sources, defined) = self.sources(group, [*a, *b, 0], 0);
                let (yes, no, defined) = self.combined((f(&sources), defined), *combine, group);
                let preds = group.frame.preds as usize;
                if let Some(p) = p {
                    self.write_pred(preds + usize::from(*p), mask, yes, defined);
                }
                if let Some(q) = q {
                    self.write_pred(preds + usize::from(*q), mask, no, defined);
                }
            }
            Op::Set {
                f,
                s: [a, b],
                combine,
                d,
                yes,
            } => {
                let (sources, defined) = self.sources(group, [*a, *b, 0], 0);
                let (value, _, defined) = self.combined((f(&sources), defined), *combine, group);
                let values =
                    std::array::from_fn(|lane| if value >> lane & 1 == 1 { *yes } else { 0 });
                self.write(Self::index(group, *d), mask, &values, defined);
            }
            Op::Carry {
                f,
                d,
                s,
                reads,
                writes,
            } => {
                let (sources, mut defined) = self.sources(group, *s, 0);
                let (values, carries) = f(&sources, if *reads { self.carries } else { 0 });
                if *reads {
                    defined &= self.carries_defined;
                }
                if *writes {
                    self.carries = self.carries & !mask | carries & mask;
                    self.carries_defined = self.carries_defined & !mask | defined & mask;
                }
                self.write(Self::index(group, *d), mask, &values, defined);
            }
            Op::Select { d, a, b, p } => {
                let (value, defined) = self.predicate(*p, group);
                let (a, b) = (Self::index(group, *a), Self::index(group, *b));
                let (x, y) = (&self.rows[a], &self.rows[b]);
                let values: Row = std::array::from_fn(|lane| {
                    if value >> lane & 1 == 1 {
                        x[lane]
                    } else {
                        y[lane]
                    }
                });
                // Only the chosen value counts.
                let defined = defined & (self.defined[a] & value | self.defined[b] & !value);
                self.write(Self::index(group, *d), mask, &values, defined);
            }
            Op::Logic { op, d, a, b } => {
                let ((x, x_defined), (y, y_defined)) =
                    (self.predicate(*a, group), self.predicate(*b, group));
                let (value, decided) = match op {
                    Logic::And => (x & y, x_defined & !x | y_defined & !y),
                    Logic::Or => (x | y, x_defined & x | y_defined & y),
                    Logic::Xor => (x ^ y, 0),
                };
                self.write_pred(
                    group.frame.preds as usize + usize::from(*d),
                    mask,
                    value,
                    x_defined & y_defined | decided,
                );
            }
            Op::Pack { d, parts, bits } => {
                let mut values: Row = [0; 32];
                let mut defined = u32::MAX;
                for (number, part) in parts.iter().enumerate() {
                    let index = Self::index(group, *part);
                    let shift = *bits * number as u32;
                    for (value, part) in values.iter_mut().zip(&self.rows[index]) {
                        *value |= part << shift;
                    }
                    defined &= self.defined[index];
                }
                self.write(Self::index(group, *d), mask, &values, defined);
            }
            Op::Unpack { parts, a, bits } => {
                let index = Self::index(group, *a);
                let (whole, defined) = (self.rows[index], self.defined[index]);
                for (number, part) in parts.iter().enumerate() {
                    let Some(part) = part else {
                        continue;
                    };
                    let shift = *bits * number as u32;
                    let values = whole.map(|value| value >> shift & u64::MAX >> (64 - *bits));
                    self.write(Self::index(group, *part), mask, &values, defined);
                }
            }
            Op::Clock { d, which } => {
                let values = [clock(*which, counters); 32];
                self.write(Self::index(group, *d), mask, &values, u32::MAX);
            }
            Op::ActiveMask { d } => {
                self.write(
                    Self::index(group, *d),
                    mask,
                    &[u64::from(mask); 32],
                    u32::MAX,
                );
            }
            Op::IsSpace { p, a, space } => {
                let index = Self::index(group, *a);
                let inside = |address: u64| {
                    let shared = address.wrapping_sub(SHARED_BASE) < WINDOW_BYTES;
                    let local = address.wrapping_sub(LOCAL_BASE) < WINDOW_BYTES;
                    match space {
                        Space::Shared => shared,
                        Space::Local => local,
                        _ => !shared && !local,
                    }
                };
                let values = (0..32).fold(0, |values, lane| {
                    values | u32::from(inside(self.rows[index][lane])) << lane
                });
                let defined = self.defined[index];
                self.write_pred(
                    group.frame.preds as usize + usize::from(*p),
                    mask,
                    values,
                    defined,
                );
            }
            Op::Load {
                from,
                d,
                bytes,
                signed,
                strength,
            } => {
                let access = Access {
                    ins,
                    address: *from,
                    group: *group,
                    mask,
                    bytes: *bytes,
                    strength: *strength,
                };
                self.load(grid, shared, counters, &access, (d, *signed))?;
                if *strength == Strength::Fence {
                    shared.races.fence(self.number as usize);
                }
            }
            Op::Store {
                to,
                s,
                bytes,
                strength,
            } => {
                if *strength == Strength::Fence {
                    shared.races.fence(self.number as usize);
                }
                let access = Access {
                    ins,
                    address: *to,
                    group: *group,
                    mask,
                    bytes: *bytes,
                    strength: *strength,
                };
                self.store(grid, shared, counters, &access, s)?;
            }
            Op::Atomic {
                at,
                f,
                d,
                b,
                c,
                bytes,
                strength,
            } => {
                if *strength == Strength::Fence {
                    shared.races.fence(self.number as usize);
                }
                let access = Access {
                    ins,
                    address: *at,
                    group: *group,
                    mask,
                    bytes: *bytes,
                    strength: *strength,
                };
                self.atomic(grid, shared, counters, &access, (*f, *d, [*b, *c]))?;
                if *strength == Strength::Fence {
                    shared.races.fence(self.number as usize);
                }
            }
            Op::Fence => shared.races.fence(self.number as usize),
            Op::Sleep => std::thread::yield_now(),
            Op::Nothing => {}
            _ => return self.control(grid, shared, ins, group, mask),
        }
        Ok(Next::On)
    }
}

fn clock(which: Clock, counters: &Counters) -> u64 {
    let nanoseconds = || {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos() as u64)
    };
    match which {
        Clock::Cycles => counters.warp_instructions,
        Clock::CyclesLow => counters.warp_instructions & u64::from(u32::MAX),
        Clock::CyclesHigh => counters.warp_instructions >> 32,
        Clock::Nanoseconds => nanoseconds(),
        Clock::NanosecondsLow => nanoseconds() & u64::from(u32::MAX),
        Clock::NanosecondsHigh => nanoseconds() >> 32,
    }
}
