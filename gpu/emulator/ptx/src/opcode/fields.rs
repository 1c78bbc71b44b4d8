//! Instructions that pick bits and bytes out of words: fields, funnels, permutations, tables.

use super::lanes::lanes;
use super::{Mods, operands, row};
use crate::assemble::Assembler;
use crate::ast::{Instruction, Operand};
use crate::code::{Op, RowFn};
use crate::error::PtxError;
use crate::lexer::Number;
use crate::types::Type;

/// `bfe`: `len` bits from `pos` on; beyond the width come zeros, or copies of the sign.
fn extract_bits(x: u64, pos: u32, len: u32, width: u32, signed: bool) -> u64 {
    let (pos, len) = (pos & 255, len & 255);
    let mask = if len >= 64 { u64::MAX } else { (1 << len) - 1 };
    let field = x.checked_shr(pos).unwrap_or(0) & mask;
    if !signed || len == 0 {
        return field;
    }
    let last = (pos + len - 1).min(width - 1);
    if x >> last & 1 == 0 {
        return field;
    }
    // Ones from the sign on: within the field it stands at `last - pos`, or the whole field lies beyond.
    let kept = last.saturating_sub(pos);
    field | u64::MAX.checked_shl(kept).unwrap_or(0)
}

pub(super) fn extract(ty: Type) -> Option<RowFn> {
    Some(match ty {
        Type::U32 => {
            lanes!(u32, u32: |x, p: u32, n: u32, _imm| extract_bits(x.into(), p, n, 32, false) as u32)
        }
        Type::S32 => {
            lanes!(u32, u32: |x, p: u32, n: u32, _imm| extract_bits(x.into(), p, n, 32, true) as u32)
        }
        Type::U64 => lanes!(u64, u64: |x, p: u32, n: u32, _imm| extract_bits(x, p, n, 64, false)),
        Type::S64 => lanes!(u64, u64: |x, p: u32, n: u32, _imm| extract_bits(x, p, n, 64, true)),
        _ => return None,
    })
}

/// `bfi`: the place and length come packed in one row, as there are four sources.
pub(super) fn insert(
    a: &mut Assembler<'_>,
    instruction: &Instruction,
    ty: Type,
    mods: &Mods<'_>,
) -> Result<Op, PtxError> {
    let [d, x, y, pos, len] = operands(a, instruction)?;
    let (Operand::Number(Number::Integer(pos)), Operand::Number(Number::Integer(len))) = (pos, len)
    else {
        return insert_by_registers(a, instruction, ty, mods);
    };
    let imm = (pos & 255) | (len & 255) << 8;
    let f: RowFn = match ty {
        Type::B32 => {
            lanes!(u32, u32: |x, y: u32, _c: u32, imm| insert_bits(x.into(), y.into(), imm as u32 & 255, imm as u32 >> 8, 32) as u32)
        }
        Type::B64 => {
            lanes!(u64, u64: |x, y: u64, _c: u32, imm| insert_bits(x, y, imm as u32 & 255, imm as u32 >> 8, 64))
        }
        _ => return Err(mods.not_emulated()),
    };
    let s = [a.src(x, ty)?, a.src(y, ty)?, 0];
    Ok(Op::Row {
        f,
        d: a.dst(d, ty)?,
        s,
        imm,
    })
}

fn insert_by_registers(
    a: &mut Assembler<'_>,
    instruction: &Instruction,
    ty: Type,
    mods: &Mods<'_>,
) -> Result<Op, PtxError> {
    let [d, x, y, pos, len] = operands(a, instruction)?;
    let join: RowFn =
        lanes!(u64, u32: |p, n: u32, _c: u32, _imm| u64::from(p & 255) | u64::from(n & 255) << 8);
    let packed = a.scratch()?;
    let s = [a.src(pos, Type::U32)?, a.src(len, Type::U32)?, 0];
    a.emit_before(Op::Row {
        f: join,
        d: packed,
        s,
        imm: 0,
    });
    let f: RowFn = match ty {
        Type::B32 => {
            lanes!(u32, u32: |x, y: u32, at: u32, _imm| insert_bits(x.into(), y.into(), at & 255, at >> 8, 32) as u32)
        }
        Type::B64 => {
            lanes!(u64, u64: |x, y: u64, at: u32, _imm| insert_bits(x, y, at & 255, at >> 8, 64))
        }
        _ => return Err(mods.not_emulated()),
    };
    let s = [a.src(x, ty)?, a.src(y, ty)?, packed];
    Ok(Op::Row {
        f,
        d: a.dst(d, ty)?,
        s,
        imm: 0,
    })
}

fn insert_bits(from: u64, into: u64, pos: u32, len: u32, width: u32) -> u64 {
    if len == 0 || pos >= width {
        return into;
    }
    let mask = if len >= 64 { u64::MAX } else { (1 << len) - 1 };
    let mask = mask << pos;
    into & !mask | from << pos & mask
}

pub(super) fn funnel(
    a: &mut Assembler<'_>,
    instruction: &Instruction,
    mut mods: Mods<'_>,
) -> Result<Op, PtxError> {
    let ty = mods.ty()?;
    let left = mods
        .one_of(&[("l", true), ("r", false)])
        .ok_or_else(|| mods.not_emulated())?;
    let clamp = mods
        .one_of(&[("clamp", true), ("wrap", false)])
        .ok_or_else(|| mods.not_emulated())?;
    mods.done()?;
    if ty != Type::B32 {
        return Err(mods.not_emulated());
    }
    fn joined(low: u32, high: u32) -> u64 {
        u64::from(high) << 32 | u64::from(low)
    }
    let f: RowFn = match (left, clamp) {
        (true, true) => lanes!(u32: |x, y, n| (joined(x, y) << n.min(32) >> 32) as u32),
        (true, false) => lanes!(u32: |x, y, n| (joined(x, y) << (n & 31) >> 32) as u32),
        (false, true) => lanes!(u32: |x, y, n| (joined(x, y) >> n.min(32)) as u32),
        (false, false) => lanes!(u32: |x, y, n| (joined(x, y) >> (n & 31)) as u32),
    };
    row(a, instruction, f, ty, &[ty, ty, Type::U32], 0)
}

fn number(a: &Assembler<'_>, operand: &Operand) -> Result<u64, PtxError> {
    match operand {
        Operand::Number(Number::Integer(value)) => Ok(*value),
        _ => Err(a.mismatch()),
    }
}

pub(super) fn lop3(
    a: &mut Assembler<'_>,
    instruction: &Instruction,
    mut mods: Mods<'_>,
) -> Result<Op, PtxError> {
    let ty = mods.ty()?;
    mods.done()?;
    if ty != Type::B32 {
        return Err(mods.not_emulated());
    }
    let [d, x, y, z, table] = operands(a, instruction)?;
    let imm = number(a, table)?;
    if imm > 255 {
        return Err(a.error("the table of `lop3` has eight bits"));
    }
    let f = lanes!(u32, u32: |x, y: u32, z: u32, imm| {
        let mut result = 0;
        for row in 0..8 {
            let term = (if row & 4 != 0 { x } else { !x }) & (if row & 2 != 0 { y } else { !y }) & (if row & 1 != 0 { z } else { !z });
            result |= if imm >> row & 1 == 1 { term } else { 0 };
        }
        result
    });
    let s = [a.src(x, ty)?, a.src(y, ty)?, a.src(z, ty)?];
    Ok(Op::Row {
        f,
        d: a.dst(d, ty)?,
        s,
        imm,
    })
}

pub(super) fn permute(
    a: &mut Assembler<'_>,
    instruction: &Instruction,
    mut mods: Mods<'_>,
) -> Result<Op, PtxError> {
    let ty = mods.ty()?;
    let names = ["f4e", "b4e", "rc8", "ecl", "ecr", "rc16"];
    let mode = names.iter().position(|name| mods.take(name));
    mods.done()?;
    if ty != Type::B32 {
        return Err(mods.not_emulated());
    }
    let f: RowFn = match mode {
        None => lanes!(u32: |x, y, z| pick(x, y, z & 0xffff)),
        Some(0) => {
            lanes!(u32: |x, y, z| pick(x, y, [0x3210, 0x4321, 0x5432, 0x6543][z as usize & 3]))
        }
        Some(1) => {
            lanes!(u32: |x, y, z| pick(x, y, [0x5670, 0x6701, 0x7012, 0x0123][z as usize & 3]))
        }
        Some(2) => {
            lanes!(u32: |x, y, z| pick(x, y, [0x0000, 0x1111, 0x2222, 0x3333][z as usize & 3]))
        }
        Some(3) => {
            lanes!(u32: |x, y, z| pick(x, y, [0x3210, 0x3211, 0x3222, 0x3333][z as usize & 3]))
        }
        Some(4) => {
            lanes!(u32: |x, y, z| pick(x, y, [0x0000, 0x1110, 0x2210, 0x3210][z as usize & 3]))
        }
        Some(_) => {
            lanes!(u32: |x, y, z| pick(x, y, [0x1010, 0x3232, 0x1010, 0x3232][z as usize & 3]))
        }
    };
    row(a, instruction, f, ty, &[ty, ty, Type::B32], 0)
}

/// Each nibble of `selector` picks a byte, or its sign eight times.
fn pick(x: u32, y: u32, selector: u32) -> u32 {
    let bytes = u64::from(y) << 32 | u64::from(x);
    let mut result = 0;
    for place in 0..4 {
        let choice = selector >> (4 * place) & 15;
        let byte = (bytes >> (8 * (choice & 7)) & 255) as u32;
        let byte = if choice & 8 == 0 {
            byte
        } else if byte & 128 != 0 {
            255
        } else {
            0
        };
        result |= byte << (8 * place);
    }
    result
}
