//! Loads, stores and atomic operations of a warp: where each lane's address points, whether it may go there, and what
//! it finds.

use super::block::Shared;
use super::race::By;
use super::spot::{Spot, Touched, spot};
use super::warp::{Group, Warp, lanes, lanes_from};
use super::{Grid, Place};
use crate::code::{Address, Ins, Reg, Row, Strength, UpdateFn};
use crate::counters::Counters;
use crate::fault::{Fault, FaultKind};
use crate::types::Space;

/// An instruction that accesses memory, where it runs.
#[derive(Clone, Copy)]
pub(crate) struct Access<'a> {
    pub(crate) ins: &'a Ins,
    pub(crate) address: Address,
    pub(crate) group: Group,
    pub(crate) mask: u32,
    /// Of one element.
    pub(crate) bytes: u32,
    pub(crate) strength: Strength,
}

impl Warp {
    fn place<'a>(
        &self,
        shared: &Shared,
        ins: &'a Ins,
        lane: usize,
        address: Option<u64>,
    ) -> Place<'a> {
        Place {
            ins: Some(ins),
            block: shared.place,
            thread: self.thread(lane),
            address,
        }
    }

    /// A fault unless `what` has been written in all lanes of `mask`.
    #[inline(always)]
    pub(crate) fn must_be_defined(
        &self,
        grid: &Grid<'_>,
        shared: &Shared,
        ins: &Ins,
        what: &str,
        (defined, mask): (u32, u32),
    ) -> Result<(), Fault> {
        if defined & mask == mask || !grid.options.find_uninitialised {
            return Ok(());
        }
        Err(self.undefined(grid, shared, ins, what, mask & !defined))
    }

    #[cold]
    fn undefined(
        &self,
        grid: &Grid<'_>,
        shared: &Shared,
        ins: &Ins,
        what: &str,
        missing: u32,
    ) -> Fault {
        let lane = lanes(missing).next().unwrap_or(0);
        let mut detail = format!("{what} comes from a register or memory that was never written");
        if let Some((line, at)) = self.unwritten[lane] {
            let text = grid.kernel.code.text(line);
            detail +=
                &format!("; the thread last loaded such bytes in line {line} `{text}`, at {at:#x}");
        }
        let place = self.place(shared, ins, lane, None);
        grid.fault(FaultKind::Uninitialised, place, detail)
    }

    fn resolve(
        &self,
        grid: &Grid<'_>,
        shared: &Shared,
        access: &Access<'_>,
        lane: usize,
        length: u32,
    ) -> Result<Spot, Fault> {
        let base =
            self.rows[access.group.frame.rows as usize + usize::from(access.address.base)][lane];
        let address = base.wrapping_add_signed(access.address.offset);
        // Addresses of 32 bits end there.
        let address = match access.address.space {
            Space::Shared | Space::Local => address & u64::from(u32::MAX),
            _ => address,
        };
        if address % u64::from(length) != 0 {
            let place = self.place(shared, access.ins, lane, Some(address));
            return Err(grid.fault(
                FaultKind::Misaligned,
                place,
                format!("the address is no multiple of {length}"),
            ));
        }
        let spot = spot(access.address.space, address);
        let (at, end, what) = match spot {
            Spot::Global(_) => return Ok(spot),
            Spot::Shared(at) => (at, shared.bytes.len(), "shared memory of the block"),
            Spot::Local(at) => (
                at,
                self.stacks[lane].local.len(),
                "local memory of the thread",
            ),
            Spot::Parameter(at) => (at, grid.launch.parameters.len(), "parameters"),
        };
        if at.saturating_add(u64::from(length)) > end as u64 {
            let place = self.place(shared, access.ins, lane, Some(at));
            return Err(grid.fault(
                FaultKind::IllegalAddress,
                place,
                format!("{length} bytes at {at:#x} do not lie in the {end} bytes of {what}"),
            ));
        }
        Ok(spot)
    }

    fn refused(
        &self,
        grid: &Grid<'_>,
        shared: &Shared,
        access: &Access<'_>,
        lane: usize,
        address: u64,
        error: crate::AccessError,
    ) -> Fault {
        grid.fault(
            error.kind,
            self.place(shared, access.ins, lane, Some(address)),
            error.detail,
        )
    }

    /// Faults if the lane's access races with an earlier one.
    fn check_race(
        &self,
        grid: &Grid<'_>,
        shared: &mut Shared,
        access: &Access<'_>,
        (lane, at, length): (usize, usize, usize),
        (writes, same): (bool, bool),
    ) -> Result<(), Fault> {
        let by = By {
            warp: self.number as usize,
            lane,
            writes,
            strong: access.strength != Strength::Weak,
            line: access.ins.line,
            instance: self.instance,
            same,
        };
        let Some(conflict) = shared.races.access(at, length, by) else {
            return Ok(());
        };
        let place = self.place(shared, access.ins, lane, Some(at as u64));
        let verb = if conflict.writes { "writes" } else { "reads" };
        Err(grid.fault(FaultKind::Race, place, format!(
            "thread {} of the block {verb} the same byte of shared memory in line {} `{}`, and no barrier lies between",
            conflict.thread,
            conflict.line,
            grid.kernel.code.text(conflict.line)
        )))
    }

    fn address_is_defined(
        &self,
        grid: &Grid<'_>,
        shared: &Shared,
        access: &Access<'_>,
    ) -> Result<(), Fault> {
        let base = access.group.frame.rows as usize + usize::from(access.address.base);
        self.must_be_defined(
            grid,
            shared,
            access.ins,
            "the address",
            (self.defined[base], access.mask),
        )
    }

    pub(crate) fn load(
        &mut self,
        grid: &Grid<'_>,
        shared: &mut Shared,
        counters: &mut Counters,
        access: &Access<'_>,
        (d, signed): (&[Option<Reg>], Option<u64>),
    ) -> Result<(), Fault> {
        self.address_is_defined(grid, shared, access)?;
        self.instance = self.instance.wrapping_add(1);
        let width = access.bytes as usize;
        let length = width * d.len();
        let mut rows: [Row; 4] = [[0; 32]; 4];
        let mut defined = [0_u32; 4];
        let mut touched = Touched::default();
        for lane in lanes(access.mask) {
            let spot = self.resolve(grid, shared, access, lane, length as u32)?;
            touched.note(spot);
            let mut buffer = [0_u8; 16];
            let Some(buffer) = buffer.get_mut(..length) else {
                continue;
            };
            let mut written = 0xffff_u32;
            match spot {
                Spot::Global(address) => {
                    if let Err(error) = grid.memory.read(address, buffer) {
                        return Err(self.refused(grid, shared, access, lane, address, error));
                    }
                }
                Spot::Shared(at) => {
                    let at = at as usize;
                    self.check_race(grid, shared, access, (lane, at, length), (false, false))?;
                    buffer.copy_from_slice(&shared.bytes[at..at + length]);
                    written = bits(&shared.written[at..at + length]);
                }
                Spot::Local(at) => {
                    let (at, stack) = (at as usize, &self.stacks[lane]);
                    buffer.copy_from_slice(&stack.local[at..at + length]);
                    written = bits(&stack.written[at..at + length]);
                }
                Spot::Parameter(at) => {
                    let at = at as usize;
                    buffer.copy_from_slice(&grid.launch.parameters[at..at + length]);
                }
            }
            let full = (1 << width) - 1;
            if written.count_ones() < length as u32 {
                let (Spot::Shared(at) | Spot::Local(at) | Spot::Global(at) | Spot::Parameter(at)) =
                    spot;
                self.unwritten[lane] = Some((access.ins.line, at));
            }
            for (part, chunk) in buffer.chunks_exact(width).enumerate().take(4) {
                rows[part][lane] = extended(chunk, signed);
                let whole = written >> (part * width) & full == full;
                defined[part] |= u32::from(whole) << lane;
            }
        }
        for (part, d) in d.iter().enumerate().take(4) {
            if let Some(d) = d {
                let index = access.group.frame.rows as usize + usize::from(*d);
                self.write(index, access.mask, &rows[part], defined[part]);
            }
        }
        if touched.globals != 0 {
            counters.global_loads += 1;
            counters.global_load_sectors += touched.sectors();
        }
        counters.shared_requests += u64::from(touched.shared);
        Ok(())
    }

    pub(crate) fn store(
        &mut self,
        grid: &Grid<'_>,
        shared: &mut Shared,
        counters: &mut Counters,
        access: &Access<'_>,
        s: &[Reg],
    ) -> Result<(), Fault> {
        self.address_is_defined(grid, shared, access)?;
        self.instance = self.instance.wrapping_add(1);
        let width = access.bytes as usize;
        let length = width * s.len();
        let rows = access.group.frame.rows as usize;
        let mut touched = Touched::default();
        for lane in lanes_from(access.mask, self.first_lane) {
            let spot = self.resolve(grid, shared, access, lane, length as u32)?;
            touched.note(spot);
            let mut buffer = [0_u8; 16];
            let mut defined = [false; 16];
            for (part, reg) in s.iter().enumerate() {
                let index = rows + usize::from(*reg);
                let value = self.rows[index][lane].to_le_bytes();
                let whole = self.defined[index] >> lane & 1 == 1;
                for (byte, value) in value.iter().enumerate().take(width) {
                    buffer[part * width + byte] = *value;
                    defined[part * width + byte] = whole;
                }
            }
            let (Some(buffer), Some(defined)) = (buffer.get(..length), defined.get(..length))
            else {
                continue;
            };
            match spot {
                Spot::Global(address) => {
                    let whole = if defined.iter().all(|byte| *byte) {
                        1 << lane
                    } else {
                        0
                    };
                    self.must_be_defined(
                        grid,
                        shared,
                        access.ins,
                        "the value",
                        (whole, 1 << lane),
                    )?;
                    if let Err(error) = grid.memory.write(address, buffer) {
                        return Err(self.refused(grid, shared, access, lane, address, error));
                    }
                }
                Spot::Shared(at) => {
                    let at = at as usize;
                    let same = &shared.bytes[at..at + length] == buffer;
                    self.check_race(grid, shared, access, (lane, at, length), (true, same))?;
                    shared.bytes[at..at + length].copy_from_slice(buffer);
                    shared.written[at..at + length].copy_from_slice(defined);
                }
                Spot::Local(at) => {
                    let (at, stack) = (at as usize, &mut self.stacks[lane]);
                    stack.local[at..at + length].copy_from_slice(buffer);
                    stack.written[at..at + length].copy_from_slice(defined);
                }
                // Refused when the module is loaded.
                Spot::Parameter(_) => {}
            }
        }
        if touched.globals != 0 {
            counters.global_stores += 1;
            counters.global_store_sectors += touched.sectors();
        }
        counters.shared_requests += u64::from(touched.shared);
        Ok(())
    }

    pub(crate) fn atomic(
        &mut self,
        grid: &Grid<'_>,
        shared: &mut Shared,
        counters: &mut Counters,
        access: &Access<'_>,
        (f, d, [b, c]): (UpdateFn, Option<Reg>, [Reg; 2]),
    ) -> Result<(), Fault> {
        self.address_is_defined(grid, shared, access)?;
        self.instance = self.instance.wrapping_add(1);
        let rows = access.group.frame.rows as usize;
        let (b, c) = (rows + usize::from(b), rows + usize::from(c));
        let defined = self.defined[b] & self.defined[c];
        self.must_be_defined(
            grid,
            shared,
            access.ins,
            "the value",
            (defined, access.mask),
        )?;
        let length = access.bytes;
        let mut old: Row = [0; 32];
        let mut defined = u32::MAX;
        let mut shared_once = false;
        for lane in lanes_from(access.mask, self.first_lane) {
            let (b, c) = (self.rows[b][lane], self.rows[c][lane]);
            match self.resolve(grid, shared, access, lane, length)? {
                Spot::Global(address) => {
                    counters.global_atomics += 1;
                    old[lane] = grid
                        .memory
                        .update(address, length, &mut |old| f(old, b, c))
                        .map_err(|error| {
                            self.refused(grid, shared, access, lane, address, error)
                        })?;
                }
                Spot::Shared(at) => {
                    shared_once = true;
                    let (at, length) = (at as usize, length as usize);
                    self.check_race(grid, shared, access, (lane, at, length), (true, false))?;
                    if bits(&shared.written[at..at + length]).count_ones() as usize != length {
                        defined &= !(1 << lane);
                    }
                    let mut bytes = [0_u8; 8];
                    bytes[..length].copy_from_slice(&shared.bytes[at..at + length]);
                    old[lane] = u64::from_le_bytes(bytes);
                    let new = f(old[lane], b, c).to_le_bytes();
                    shared.bytes[at..at + length].copy_from_slice(&new[..length]);
                }
                Spot::Local(at) | Spot::Parameter(at) => {
                    let place = self.place(shared, access.ins, lane, Some(at));
                    return Err(grid.fault(
                        FaultKind::IllegalAddress,
                        place,
                        "an atomic operation on local memory".to_owned(),
                    ));
                }
            }
        }
        // A counter that nobody set to zero counts nothing: told here, as results of `red` are never looked at.
        self.must_be_defined(
            grid,
            shared,
            access.ins,
            "what it changes",
            (defined, access.mask),
        )?;
        if let Some(d) = d {
            self.write(rows + usize::from(d), access.mask, &old, u32::MAX);
        }
        counters.shared_requests += u64::from(shared_once);
        Ok(())
    }
}

fn bits(written: &[bool]) -> u32 {
    written
        .iter()
        .enumerate()
        .fold(0, |bits, (index, written)| {
            bits | u32::from(*written) << index
        })
}

/// The value of one element; `signed` is the mask of the register that its sign fills.
#[inline(always)]
fn extended(chunk: &[u8], signed: Option<u64>) -> u64 {
    let mut bytes = [0_u8; 8];
    for (to, from) in bytes.iter_mut().zip(chunk) {
        *to = *from;
    }
    let value = u64::from_le_bytes(bytes);
    match signed {
        Some(mask) => {
            let away = 64 - 8 * chunk.len() as u32;
            ((value << away) as i64 >> away) as u64 & mask
        }
        None => value,
    }
}
