//! Comparisons, and choices by predicates.

use super::lanes::Lane;
use super::{Mods, operands};
use crate::assemble::Assembler;
use crate::ast::{Instruction, Operand};
use crate::code::{Logic, MaskFn, Op, PredUse};
use crate::error::PtxError;
use crate::types::Type;

pub(super) fn assemble(
    a: &mut Assembler<'_>,
    instruction: &Instruction,
    name: &str,
    mut mods: Mods<'_>,
) -> Result<Op, PtxError> {
    match name {
        "selp" => select(a, instruction, mods),
        "setp" => {
            let (comparison, logic) = (comparison(&mut mods)?, logic(&mut mods));
            let ty = mods.ty()?;
            let f = mask(comparison, ty, mods.take("ftz"))
                .filter(|_| fits(&instruction.opcode, ty))
                .ok_or_else(|| mods.unexpected_type())?;
            mods.done()?;
            let (d, s, combine) = sources(a, instruction, ty, logic)?;
            let (p, q) = match d {
                Operand::Pair(p, q) => (a.pred_or_sink(p)?, a.pred_or_sink(q)?),
                p => (a.pred_or_sink(p)?, None),
            };
            Ok(Op::Compare {
                f,
                s,
                combine,
                p,
                q,
            })
        }
        "set" => {
            let (comparison, logic) = (comparison(&mut mods)?, logic(&mut mods));
            let (to, ty) = (mods.ty()?, mods.ty()?);
            let f = mask(comparison, ty, mods.take("ftz"))
                .filter(|_| fits(&instruction.opcode, ty))
                .ok_or_else(|| mods.unexpected_type())?;
            mods.done()?;
            let yes = match to {
                Type::U32 | Type::S32 => u64::from(u32::MAX),
                Type::F32 => 1_f32.bits(),
                _ => return Err(mods.not_emulated()),
            };
            let (d, s, combine) = sources(a, instruction, ty, logic)?;
            Ok(Op::Set {
                f,
                s,
                combine,
                d: a.dst(d, to)?,
                yes,
            })
        }
        _ => Err(mods.not_emulated()),
    }
}

fn select(
    a: &mut Assembler<'_>,
    instruction: &Instruction,
    mut mods: Mods<'_>,
) -> Result<Op, PtxError> {
    let ty = mods.ty()?;
    mods.done()?;
    let [d, x, y, p] = operands(a, instruction)?;
    Ok(Op::Select {
        d: a.dst(d, ty)?,
        a: a.src(x, ty)?,
        b: a.src(y, ty)?,
        p: a.pred_use(p)?,
    })
}

/// The first operand, the two that are compared, and what the result is combined with.
type Compared<'i> = (&'i Operand, [u16; 2], Option<(Logic, PredUse)>);

fn sources<'i>(
    a: &mut Assembler<'_>,
    instruction: &'i Instruction,
    ty: Type,
    logic: Option<Logic>,
) -> Result<Compared<'i>, PtxError> {
    if let Some(logic) = logic {
        let [d, x, y, p] = operands(a, instruction)?;
        let s = [a.src(x, ty)?, a.src(y, ty)?];
        Ok((d, s, Some((logic, a.pred_use(p)?))))
    } else {
        let [d, x, y] = operands(a, instruction)?;
        Ok((d, [a.src(x, ty)?, a.src(y, ty)?], None))
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// The six above, but true for NaN.
    OrUnordered(u8),
    Numbers,
    NotANumber,
}

fn comparison(mods: &mut Mods<'_>) -> Result<Comparison, PtxError> {
    mods.one_of(&[
        ("eq", Comparison::Equal),
        ("ne", Comparison::NotEqual),
        ("lt", Comparison::Less),
        ("lo", Comparison::Less),
        ("le", Comparison::LessOrEqual),
        ("ls", Comparison::LessOrEqual),
        ("gt", Comparison::Greater),
        ("hi", Comparison::Greater),
        ("ge", Comparison::GreaterOrEqual),
        ("hs", Comparison::GreaterOrEqual),
        ("equ", Comparison::OrUnordered(0)),
        ("neu", Comparison::OrUnordered(1)),
        ("ltu", Comparison::OrUnordered(2)),
        ("leu", Comparison::OrUnordered(3)),
        ("gtu", Comparison::OrUnordered(4)),
        ("geu", Comparison::OrUnordered(5)),
        ("num", Comparison::Numbers),
        ("nan", Comparison::NotANumber),
    ])
    .ok_or_else(|| mods.not_emulated())
}

fn logic(mods: &mut Mods<'_>) -> Option<Logic> {
    mods.one_of(&[("and", Logic::And), ("or", Logic::Or), ("xor", Logic::Xor)])
}

macro_rules! mask_of {
    ($t:ty: |$x:ident, $y:ident| $e:expr) => {{
        let f: MaskFn = |s| {
            let mut mask = 0;
            for lane in 0..32 {
                let ($x, $y) = (<$t as Lane>::of(s.a[lane]), <$t as Lane>::of(s.b[lane]));
                mask |= u32::from($e) << lane;
            }
            mask
        };
        f
    }};
}

macro_rules! ordered {
    ($t:ty, $comparison:expr) => {
        match $comparison {
            Comparison::Equal => Some(mask_of!($t: |x, y| x == y)),
            Comparison::NotEqual => Some(mask_of!($t: |x, y| x != y)),
            Comparison::Less => Some(mask_of!($t: |x, y| x < y)),
            Comparison::LessOrEqual => Some(mask_of!($t: |x, y| x <= y)),
            Comparison::Greater => Some(mask_of!($t: |x, y| x > y)),
            Comparison::GreaterOrEqual => Some(mask_of!($t: |x, y| x >= y)),
            _ => None,
        }
    };
}

/// Comparisons of floats: `NotEqual` is false for NaN, unlike Rust's.
macro_rules! partly_ordered {
    ($t:ty, $through:expr, $comparison:expr) => {{
        macro_rules! of {
                    ($x:ident, $y:ident, $e:expr) => {
                        Some(mask_of!($t: |x, y| { let ($x, $y) = ($through(x), $through(y)); $e }))
                    };
                }
        match $comparison {
            Comparison::Equal => of!(x, y, x == y),
            Comparison::NotEqual => of!(x, y, x.partial_cmp(&y).is_some_and(|order| order.is_ne())),
            Comparison::Less => of!(x, y, x < y),
            Comparison::LessOrEqual => of!(x, y, x <= y),
            Comparison::Greater => of!(x, y, x > y),
            Comparison::GreaterOrEqual => of!(x, y, x >= y),
            Comparison::OrUnordered(0) => {
                of!(x, y, x.partial_cmp(&y).is_none_or(|order| order.is_eq()))
            }
            Comparison::OrUnordered(1) => of!(x, y, x != y),
            Comparison::OrUnordered(2) => {
                of!(x, y, x.partial_cmp(&y).is_none_or(|order| order.is_lt()))
            }
            Comparison::OrUnordered(3) => {
                of!(x, y, x.partial_cmp(&y).is_none_or(|order| order.is_le()))
            }
            Comparison::OrUnordered(4) => {
                of!(x, y, x.partial_cmp(&y).is_none_or(|order| order.is_gt()))
            }
            Comparison::OrUnordered(_) => {
                of!(x, y, x.partial_cmp(&y).is_none_or(|order| order.is_ge()))
            }
            Comparison::Numbers => of!(x, y, !x.is_nan() && !y.is_nan()),
            Comparison::NotANumber => of!(x, y, x.is_nan() || y.is_nan()),
        }
    }};
}

/// `lo` and its like are for unsigned integers alone.
fn fits(opcode: &str, ty: Type) -> bool {
    let unsigned = ["lo", "ls", "hi", "hs"]
        .iter()
        .any(|name| opcode.contains(&format!(".{name}.")));
    !unsigned || matches!(ty, Type::U16 | Type::U32 | Type::U64)
}

fn mask(comparison: Comparison, ty: Type, flushes: bool) -> Option<MaskFn> {
    let equality = matches!(comparison, Comparison::Equal | Comparison::NotEqual);
    match ty {
        Type::B16 | Type::B32 | Type::B64 if !equality => None,
        _ if flushes && ty != Type::F32 => None,
        Type::U16 | Type::B16 => ordered!(u16, comparison),
        Type::U32 | Type::B32 => ordered!(u32, comparison),
        Type::U64 | Type::B64 => ordered!(u64, comparison),
        Type::S16 => ordered!(i16, comparison),
        Type::S32 => ordered!(i32, comparison),
        Type::S64 => ordered!(i64, comparison),
        Type::F32 if flushes => {
            partly_ordered!(
                f32,
                |x| super::float::flush(x, super::float::FLUSH),
                comparison
            )
        }
        Type::F32 => partly_ordered!(f32, |x: f32| x, comparison),
        Type::F64 => partly_ordered!(f64, |x: f64| x, comparison),
        _ => None,
    }
}
