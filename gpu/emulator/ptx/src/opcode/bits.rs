//! Logic, shifts, and whatever takes bits apart.

use super::fields::{extract, funnel, insert, lop3, permute};
use super::lanes::{integers, lanes};
use super::{Mods, operands, row};
use crate::assemble::Assembler;
use crate::ast::{Instruction, Operand};
use crate::code::{Logic, Op, PredUse, RowFn};
use crate::error::PtxError;
use crate::types::Type;

pub(super) fn assemble(
    a: &mut Assembler<'_>,
    instruction: &Instruction,
    name: &str,
    mut mods: Mods<'_>,
) -> Result<Op, PtxError> {
    match name {
        "shf" => return funnel(a, instruction, mods),
        "lop3" => return lop3(a, instruction, mods),
        "prmt" => return permute(a, instruction, mods),
        "fns" | "szext" | "bmsk" | "dp4a" | "dp2a" => return Err(mods.not_emulated()),
        _ => {}
    }
    let ty = mods.ty()?;
    if ty == Type::Pred {
        mods.done()?;
        return predicates(a, instruction, name);
    }
    let wants_bits = !matches!(name, "shr" | "bfind" | "bfe");
    let right = match name {
        "shr" => !ty.is_float(),
        _ => ty.is_bits() == wants_bits && !ty.is_float(),
    };
    if !right || ty.bytes() == 1 {
        return Err(mods.unexpected_type());
    }
    let shift_amount = name == "bfind" && mods.take("shiftamt");
    mods.done()?;
    let u32 = Type::U32;
    let (f, d, sources): (Option<RowFn>, Type, &[Type]) = match name {
        "and" => (integers!(ty, |x, y| x & y), ty, &[ty, ty]),
        "or" => (integers!(ty, |x, y| x | y), ty, &[ty, ty]),
        "xor" => (integers!(ty, |x, y| x ^ y), ty, &[ty, ty]),
        "not" => (integers!(ty, |x| !x), ty, &[ty]),
        "cnot" => (integers!(ty, |x| if x == 0 { 1 } else { 0 }), ty, &[ty]),
        // Beyond the width nothing is left, or the sign alone.
        "shl" => (shift_left(ty), ty, &[ty, u32]),
        "shr" => (shift_right(ty), ty, &[ty, u32]),
        "popc" => (popc(ty), u32, &[ty]),
        "clz" => (clz(ty), u32, &[ty]),
        "bfind" => (bfind(ty, shift_amount), u32, &[ty]),
        "brev" => (brev(ty), ty, &[ty]),
        "bfe" => (extract(ty), ty, &[ty, u32, u32]),
        "bfi" => return insert(a, instruction, ty, &mods),
        _ => (None, ty, &[]),
    };
    let f = f.ok_or_else(|| mods.not_emulated())?;
    row(a, instruction, f, d, sources, 0)
}

fn predicates(a: &Assembler<'_>, instruction: &Instruction, name: &str) -> Result<Op, PtxError> {
    if name == "not" {
        let [d, x] = operands(a, instruction)?;
        let x = a.pred_use(x)?;
        let x = PredUse {
            negated: !x.negated,
            ..x
        };
        return Ok(Op::Logic {
            op: Logic::And,
            d: named_pred(a, d)?,
            a: x,
            b: x,
        });
    }
    let [d, x, y] = operands(a, instruction)?;
    let op = match name {
        "and" => Logic::And,
        "or" => Logic::Or,
        "xor" => Logic::Xor,
        _ => return Err(a.mismatch()),
    };
    Ok(Op::Logic {
        op,
        d: named_pred(a, d)?,
        a: a.pred_use(x)?,
        b: a.pred_use(y)?,
    })
}

pub(super) fn named_pred(a: &Assembler<'_>, operand: &Operand) -> Result<u16, PtxError> {
    a.pred_or_sink(operand)?.ok_or_else(|| a.mismatch())
}

fn shift_left(ty: Type) -> Option<RowFn> {
    Some(match ty.bytes() {
        2 => lanes!(u16, u16: |x, n: u32, _c: u32, _imm| if n < 16 { x << n } else { 0 }),
        4 => lanes!(u32, u32: |x, n: u32, _c: u32, _imm| if n < 32 { x << n } else { 0 }),
        _ => lanes!(u64, u64: |x, n: u32, _c: u32, _imm| if n < 64 { x << n } else { 0 }),
    })
}

fn shift_right(ty: Type) -> Option<RowFn> {
    Some(match ty {
        Type::S16 => lanes!(i16, i16: |x, n: u32, _c: u32, _imm| x >> n.min(15)),
        Type::S32 => lanes!(i32, i32: |x, n: u32, _c: u32, _imm| x >> n.min(31)),
        Type::S64 => lanes!(i64, i64: |x, n: u32, _c: u32, _imm| x >> n.min(63)),
        Type::U16 | Type::B16 => {
            lanes!(u16, u16: |x, n: u32, _c: u32, _imm| if n < 16 { x >> n } else { 0 })
        }
        Type::U32 | Type::B32 => {
            lanes!(u32, u32: |x, n: u32, _c: u32, _imm| if n < 32 { x >> n } else { 0 })
        }
        _ => lanes!(u64, u64: |x, n: u32, _c: u32, _imm| if n < 64 { x >> n } else { 0 }),
    })
}

fn popc(ty: Type) -> Option<RowFn> {
    match ty {
        Type::B32 => Some(lanes!(u32: |x| x.count_ones())),
        Type::B64 => Some(lanes!(u32, u64: |x, _b: u32, _c: u32, _imm| x.count_ones())),
        _ => None,
    }
}

fn clz(ty: Type) -> Option<RowFn> {
    match ty {
        Type::B32 => Some(lanes!(u32: |x| x.leading_zeros())),
        Type::B64 => Some(lanes!(u32, u64: |x, _b: u32, _c: u32, _imm| x.leading_zeros())),
        _ => None,
    }
}

/// The place of the highest bit that is no copy of the sign; all ones where there is none.
fn bfind(ty: Type, shift_amount: bool) -> Option<RowFn> {
    fn found(zeros: u32, width: u32, shift_amount: bool) -> u32 {
        match zeros {
            zeros if zeros >= width => u32::MAX,
            zeros if shift_amount => zeros,
            zeros => width - 1 - zeros,
        }
    }
    Some(match (ty, shift_amount) {
        (Type::U32, false) => lanes!(u32: |x| found(x.leading_zeros(), 32, false)),
        (Type::U32, true) => lanes!(u32: |x| found(x.leading_zeros(), 32, true)),
        (Type::S32, false) => {
            lanes!(u32: |x| found((x ^ ((x as i32) >> 31) as u32).leading_zeros(), 32, false))
        }
        (Type::S32, true) => {
            lanes!(u32: |x| found((x ^ ((x as i32) >> 31) as u32).leading_zeros(), 32, true))
        }
        (Type::U64, false) => {
            lanes!(u32, u64: |x, _b: u32, _c: u32, _imm| found(x.leading_zeros(), 64, false))
        }
        (Type::U64, true) => {
            lanes!(u32, u64: |x, _b: u32, _c: u32, _imm| found(x.leading_zeros(), 64, true))
        }
        (Type::S64, false) => {
            lanes!(u32, u64: |x, _b: u32, _c: u32, _imm| found((x ^ ((x as i64) >> 63) as u64).leading_zeros(), 64, false))
        }
        (Type::S64, true) => {
            lanes!(u32, u64: |x, _b: u32, _c: u32, _imm| found((x ^ ((x as i64) >> 63) as u64).leading_zeros(), 64, true))
        }
        _ => return None,
    })
}

fn brev(ty: Type) -> Option<RowFn> {
    match ty {
        Type::B32 => Some(lanes!(u32: |x| x.reverse_bits())),
        Type::B64 => Some(lanes!(u64: |x| x.reverse_bits())),
        _ => None,
    }
}
