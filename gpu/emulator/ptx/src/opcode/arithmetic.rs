//! Integer arithmetic; floats go on to `float`.

use super::lanes::{integers, lanes};
use super::{Mods, float, operands, row};
use crate::assemble::Assembler;
use crate::ast::Instruction;
use crate::code::{CarryFn, Op, RowFn};
use crate::error::PtxError;
use crate::types::Type;

pub(super) fn assemble(
    a: &mut Assembler<'_>,
    instruction: &Instruction,
    name: &str,
    mut mods: Mods<'_>,
) -> Result<Op, PtxError> {
    let ty = mods.ty()?;
    if ty.is_bits() || ty == Type::Pred || ty.bytes() == 1 {
        return Err(mods.unexpected_type());
    }
    if ty.is_float() {
        return float::assemble(a, instruction, name, ty, mods);
    }
    let carries = mods.take("cc") || matches!(name, "addc" | "subc" | "madc");
    if carries {
        return carry(a, instruction, name, ty, mods);
    }
    if matches!(name, "mul" | "mad" | "mul24" | "mad24") {
        return multiply(a, instruction, name, ty, mods);
    }
    let saturates = mods.take("sat");
    mods.done()?;
    let arity = match name {
        "abs" | "neg" => 1,
        "sad" => 3,
        _ => 2,
    };
    let f: Option<RowFn> = match (name, saturates) {
        ("add", true) if ty == Type::S32 => Some(lanes!(i32: |x, y| x.saturating_add(y))),
        ("sub", true) if ty == Type::S32 => Some(lanes!(i32: |x, y| x.saturating_sub(y))),
        (_, true) => None,
        ("add", _) => integers!(ty, |x, y| x.wrapping_add(y)),
        ("sub", _) => integers!(ty, |x, y| x.wrapping_sub(y)),
        // Hardware does not fault: a division by zero has all bits set, a remainder is the dividend.
        ("div", _) => divide(ty),
        ("rem", _) => integers!(ty, |x, y| if y == 0 { x } else { x.wrapping_rem(y) }),
        ("min", _) => integers!(ty, |x, y| x.min(y)),
        ("max", _) => integers!(ty, |x, y| x.max(y)),
        ("abs", _) if ty.is_signed() => integers!(ty, |x| if x < 1 { x.wrapping_neg() } else { x }),
        ("neg", _) if ty.is_signed() => integers!(ty, |x| x.wrapping_neg()),
        ("sad", _) => integers!(ty, |x, y, z| z.wrapping_add(if x < y {
            y.wrapping_sub(x)
        } else {
            x.wrapping_sub(y)
        })),
        _ => None,
    };
    let f = f.ok_or_else(|| mods.not_emulated())?;
    row(a, instruction, f, ty, &[ty; 3][..arity], 0)
}

fn divide(ty: Type) -> Option<RowFn> {
    Some(match ty {
        Type::U16 => lanes!(u16: |x, y| x.checked_div(y).unwrap_or(u16::MAX)),
        Type::U32 => lanes!(u32: |x, y| x.checked_div(y).unwrap_or(u32::MAX)),
        Type::U64 => lanes!(u64: |x, y| x.checked_div(y).unwrap_or(u64::MAX)),
        Type::S16 => lanes!(i16: |x, y| if y == 0 { -1 } else { x.wrapping_div(y) }),
        Type::S32 => lanes!(i32: |x, y| if y == 0 { -1 } else { x.wrapping_div(y) }),
        Type::S64 => lanes!(i64: |x, y| if y == 0 { -1 } else { x.wrapping_div(y) }),
        _ => return None,
    })
}

#[derive(Clone, Copy, PartialEq)]
enum Half {
    Low,
    High,
    Wide,
}

fn multiply(
    a: &mut Assembler<'_>,
    instruction: &Instruction,
    name: &str,
    ty: Type,
    mut mods: Mods<'_>,
) -> Result<Op, PtxError> {
    let half = mods
        .one_of(&[("lo", Half::Low), ("hi", Half::High), ("wide", Half::Wide)])
        .ok_or_else(|| mods.not_emulated())?;
    mods.done()?;
    let adds = name.starts_with("mad");
    let f: Option<RowFn> = match half {
        _ if name.ends_with("24") => match (ty, half) {
            // The upper bytes are not looked at; what is computed is a product of 24 bits.
            (Type::U32, Half::Low) => Some(
                lanes!(u32: |x, y, z| (x & 0xff_ffff).wrapping_mul(y & 0xff_ffff).wrapping_add(z)),
            ),
            (Type::S32, Half::Low) => {
                Some(lanes!(i32: |x, y, z| (x << 8 >> 8).wrapping_mul(y << 8 >> 8).wrapping_add(z)))
            }
            _ => None,
        },
        Half::Low => integers!(ty, |x, y, z| x.wrapping_mul(y).wrapping_add(z)),
        Half::High => high(ty),
        Half::Wide => match ty {
            Type::U16 => Some(
                lanes!(u32, u16: |x, y: u16, z: u32, _imm| (u32::from(x) * u32::from(y)).wrapping_add(z)),
            ),
            Type::S16 => Some(
                lanes!(i32, i16: |x, y: i16, z: i32, _imm| (i32::from(x) * i32::from(y)).wrapping_add(z)),
            ),
            Type::U32 => Some(
                lanes!(u64, u32: |x, y: u32, z: u64, _imm| (u64::from(x) * u64::from(y)).wrapping_add(z)),
            ),
            Type::S32 => Some(
                lanes!(i64, i32: |x, y: i32, z: i64, _imm| (i64::from(x) * i64::from(y)).wrapping_add(z)),
            ),
            _ => None,
        },
    };
    let f = f.ok_or_else(|| mods.not_emulated())?;
    let d = if half == Half::Wide { twice(ty) } else { ty };
    // Without a third operand its row is that of zeros.
    let sources = [ty, ty, d];
    row(a, instruction, f, d, &sources[..2 + usize::from(adds)], 0)
}

fn high(ty: Type) -> Option<RowFn> {
    Some(match ty {
        Type::U16 => {
            lanes!(u16: |x, y, z| (((u32::from(x) * u32::from(y)) >> 16) as u16).wrapping_add(z))
        }
        Type::S16 => {
            lanes!(i16: |x, y, z| (((i32::from(x) * i32::from(y)) >> 16) as i16).wrapping_add(z))
        }
        Type::U32 => {
            lanes!(u32: |x, y, z| (((u64::from(x) * u64::from(y)) >> 32) as u32).wrapping_add(z))
        }
        Type::S32 => {
            lanes!(i32: |x, y, z| (((i64::from(x) * i64::from(y)) >> 32) as i32).wrapping_add(z))
        }
        Type::U64 => {
            lanes!(u64: |x, y, z| (((u128::from(x) * u128::from(y)) >> 64) as u64).wrapping_add(z))
        }
        Type::S64 => {
            lanes!(i64: |x, y, z| (((i128::from(x) * i128::from(y)) >> 64) as i64).wrapping_add(z))
        }
        _ => return None,
    })
}

pub(super) fn twice(ty: Type) -> Type {
    match ty {
        Type::U16 => Type::U32,
        Type::S16 => Type::S32,
        Type::U32 => Type::U64,
        _ => Type::S64,
    }
}

/// A carry function from an expression that gives the value and whether it carries.
macro_rules! carry {
    ($t:ty: |$a:ident, $b:ident, $c:ident, $carry:ident| $e:expr) => {{
        let f: CarryFn = |s, carries| {
            let mut out = 0;
            let row = std::array::from_fn(|lane| {
                let ($a, $b, $c) = (s.a[lane] as $t, s.b[lane] as $t, s.c[lane] as $t);
                let $carry = <$t>::from(carries >> lane & 1 == 1);
                let (value, carried): ($t, bool) = $e;
                out |= u32::from(carried) << lane;
                u64::from(value)
            });
            (row, out)
        };
        f
    }};
}

macro_rules! add_carry {
    ($t:ty, $product:expr) => {
        carry!($t: |x, y, z, c| {
            let product: fn($t, $t) -> $t = $product;
            let (sum, first) = product(x, y).overflowing_add(z);
            let (sum, second) = sum.overflowing_add(c);
            (sum, first || second)
        })
    };
}

fn carry(
    a: &mut Assembler<'_>,
    instruction: &Instruction,
    name: &str,
    ty: Type,
    mut mods: Mods<'_>,
) -> Result<Op, PtxError> {
    let reads = name.ends_with('c');
    // `.cc` was taken by the caller for those that do not read.
    let writes = !reads || instruction.opcode.contains(".cc");
    let half = mods.one_of(&[("lo", Half::Low), ("hi", Half::High)]);
    mods.done()?;
    let wide = ty.bytes() == 8;
    let f =
        match (name, half, wide) {
            ("add" | "addc", None, false) => carry!(u32: |x, y, _z, c| {
                let (sum, first) = x.overflowing_add(y);
                let (sum, second) = sum.overflowing_add(c);
                (sum, first || second)
            }),
            ("add" | "addc", None, true) => carry!(u64: |x, y, _z, c| {
                let (sum, first) = x.overflowing_add(y);
                let (sum, second) = sum.overflowing_add(c);
                (sum, first || second)
            }),
            ("sub", None, false) => carry!(u32: |x, y, _z, _c| (x.wrapping_sub(y), x >= y)),
            ("sub", None, true) => carry!(u64: |x, y, _z, _c| (x.wrapping_sub(y), x >= y)),
            ("subc", None, false) => carry!(u32: |x, y, _z, c| {
                let (sum, first) = x.overflowing_add(!y);
                let (sum, second) = sum.overflowing_add(c);
                (sum, first || second)
            }),
            ("subc", None, true) => carry!(u64: |x, y, _z, c| {
                let (sum, first) = x.overflowing_add(!y);
                let (sum, second) = sum.overflowing_add(c);
                (sum, first || second)
            }),
            ("mad" | "madc", Some(Half::Low), false) => add_carry!(u32, |x, y| x.wrapping_mul(y)),
            ("mad" | "madc", Some(Half::Low), true) => add_carry!(u64, |x, y| x.wrapping_mul(y)),
            ("mad" | "madc", Some(Half::High), false) if ty.is_signed() => add_carry!(
                u32,
                |x, y| ((i64::from(x as i32) * i64::from(y as i32)) >> 32) as u32
            ),
            ("mad" | "madc", Some(Half::High), true) if ty.is_signed() => add_carry!(
                u64,
                |x, y| ((i128::from(x as i64) * i128::from(y as i64)) >> 64) as u64
            ),
            ("mad" | "madc", Some(Half::High), false) => {
                add_carry!(u32, |x, y| ((u64::from(x) * u64::from(y)) >> 32) as u32)
            }
            ("mad" | "madc", Some(Half::High), true) => {
                add_carry!(u64, |x, y| ((u128::from(x) * u128::from(y)) >> 64) as u64)
            }
            _ => return Err(mods.not_emulated()),
        };
    if ty.bytes() < 4 {
        return Err(mods.not_emulated());
    }
    let mut s = [0; 3];
    let d = if half.is_some() {
        let [d, x, y, z] = operands(a, instruction)?;
        s = [a.src(x, ty)?, a.src(y, ty)?, a.src(z, ty)?];
        a.dst(d, ty)?
    } else {
        let [d, x, y] = operands(a, instruction)?;
        s[0] = a.src(x, ty)?;
        s[1] = a.src(y, ty)?;
        a.dst(d, ty)?
    };
    Ok(Op::Carry {
        f,
        d,
        s,
        reads,
        writes,
    })
}
