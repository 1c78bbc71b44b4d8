//! Moves, and addresses from space to space; conversions of values are in `convert`.

use super::convert::convert;
use super::lanes::lanes;
use super::{Mods, operands};
use crate::assemble::Assembler;
use crate::ast::{Instruction, Operand};
use crate::code::{Constant, Logic, Op, PredUse};
use crate::error::PtxError;
use crate::lexer::Number;
use crate::special;
use crate::types::{Space, Type};

pub(super) fn assemble(
    a: &mut Assembler<'_>,
    instruction: &Instruction,
    name: &str,
    mods: Mods<'_>,
) -> Result<Op, PtxError> {
    match name {
        "mov" => move_value(a, instruction, mods),
        "cvt" => convert(a, instruction, mods),
        "cvta" => convert_address(a, instruction, mods),
        _ => is_space(a, instruction, mods),
    }
}

fn move_value(
    a: &mut Assembler<'_>,
    instruction: &Instruction,
    mut mods: Mods<'_>,
) -> Result<Op, PtxError> {
    let ty = mods.ty()?;
    mods.done()?;
    let [d, x] = operands(a, instruction)?;
    match (d, x) {
        _ if ty == Type::Pred => {
            let x = match x {
                Operand::Number(Number::Integer(value)) => a.constant_predicate(*value != 0)?,
                x => a.pred_use(x)?,
            };
            Ok(Op::Logic {
                op: Logic::And,
                d: super::bits::named_pred(a, d)?,
                a: x,
                b: x,
            })
        }
        (Operand::Vector(_), _) | (_, Operand::Vector(_)) if !ty.is_bits() => Err(a.mismatch()),
        (Operand::Vector(parts), x) => {
            let part = part_type(a, ty, parts.len())?;
            let a_row = a.src(x, ty)?;
            let mut rows = Vec::new();
            for operand in parts {
                let sink = *operand == Operand::Name("_".to_owned(), 0);
                rows.push(if sink {
                    None
                } else {
                    Some(a.dst(operand, part)?)
                });
            }
            Ok(Op::Unpack {
                parts: rows.into(),
                a: a_row,
                bits: part.bytes() * 8,
            })
        }
        (d, Operand::Vector(parts)) => {
            let part = part_type(a, ty, parts.len())?;
            let mut rows = Vec::new();
            for operand in parts {
                rows.push(a.src(operand, part)?);
            }
            Ok(Op::Pack {
                d: a.dst(d, ty)?,
                parts: rows.into(),
                bits: part.bytes() * 8,
            })
        }
        (d, Operand::Name(name, 0)) if special::clock(name).is_some() => {
            let Some((which, kind)) = special::clock(name) else {
                return Err(a.mismatch());
            };
            if !ty.takes(kind) {
                return Err(a.mismatch());
            }
            Ok(Op::Clock {
                d: a.dst(d, ty)?,
                which,
            })
        }
        (d, x) => {
            let s = [a.src(x, ty)?, 0, 0];
            Ok(Op::Row {
                f: lanes!(u64: |x| x),
                d: a.dst(d, ty)?,
                s,
                imm: 0,
            })
        }
    }
}

fn part_type(a: &Assembler<'_>, ty: Type, parts: usize) -> Result<Type, PtxError> {
    match (ty.bytes(), parts) {
        (8, 2) => Ok(Type::B32),
        (8, 4) | (4, 2) => Ok(Type::B16),
        (4, 4) | (2, 2) | (8, 8) => Ok(Type::B8),
        _ => Err(a.mismatch()),
    }
}

fn space_base(space: Space) -> Option<u64> {
    match space {
        Space::Global | Space::Const => Some(0),
        Space::Shared => Some(crate::SHARED_BASE),
        Space::Local => Some(crate::LOCAL_BASE),
        _ => None,
    }
}

fn convert_address(
    a: &mut Assembler<'_>,
    instruction: &Instruction,
    mut mods: Mods<'_>,
) -> Result<Op, PtxError> {
    let from_generic = mods.take("to");
    let space = mods.one_of(&[
        ("global", Space::Global),
        ("const", Space::Const),
        ("shared", Space::Shared),
        ("shared::cta", Space::Shared),
        ("local", Space::Local),
    ]);
    let ty = mods.ty()?;
    mods.done()?;
    let base = space
        .and_then(space_base)
        .ok_or_else(|| mods.not_emulated())?;
    if ty != Type::U64 {
        return Err(mods.not_emulated());
    }
    let [d, x] = operands(a, instruction)?;
    let added = if from_generic {
        base.wrapping_neg()
    } else {
        base
    };
    let s = [a.src(x, ty)?, a.constant(Constant::Value(added))?, 0];
    // Null stays null in windows that do not begin at 0: of a generic null comes no address of shared memory.
    Ok(Op::Row {
        f: lanes!(u64: |x, y| x.wrapping_add(y)),
        d: a.dst(d, ty)?,
        s,
        imm: 0,
    })
}

fn is_space(
    a: &mut Assembler<'_>,
    instruction: &Instruction,
    mut mods: Mods<'_>,
) -> Result<Op, PtxError> {
    let space = mods.one_of(&[
        ("global", Space::Global),
        ("shared", Space::Shared),
        ("shared::cta", Space::Shared),
        ("local", Space::Local),
    ]);
    let space = space.ok_or_else(|| mods.not_emulated())?;
    mods.done()?;
    let [p, x] = operands(a, instruction)?;
    Ok(Op::IsSpace {
        p: super::bits::named_pred(a, p)?,
        a: a.src(x, Type::U64)?,
        space,
    })
}

/// A predicate that is read, for instructions that take a register or a number there.
pub(super) fn always(a: &mut Assembler<'_>, value: bool) -> Result<PredUse, PtxError> {
    a.constant_predicate(value)
}
