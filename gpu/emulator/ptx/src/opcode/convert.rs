//! Moves and conversions.

use super::float::{FLUSH, finish, flush};
use super::lanes::Lane;
use super::{Mods, operands};
use crate::assemble::Assembler;
use crate::ast::Instruction;
use crate::code::{Op, RowFn, Sources};
use crate::error::PtxError;
use crate::types::Type;

/// Into what a conversion between integers goes: packed into the number of the instruction.
struct IntegerTarget {
    bits: u32,
    signed: bool,
    register_bits: u32,
    saturates: bool,
}

impl IntegerTarget {
    fn pack(&self) -> u64 {
        u64::from(self.bits)
            | u64::from(self.register_bits) << 8
            | u64::from(self.signed) << 16
            | u64::from(self.saturates) << 17
    }

    #[inline(always)]
    fn unpack(imm: u64) -> Self {
        Self {
            bits: imm as u32 & 255,
            register_bits: imm as u32 >> 8 & 255,
            signed: imm >> 16 & 1 == 1,
            saturates: imm >> 17 & 1 == 1,
        }
    }

    /// Cut to the type, widened to the register.
    #[inline(always)]
    fn fit(&self, value: u64) -> u64 {
        let away = 64 - self.bits;
        let value = if self.signed {
            ((value << away) as i64 >> away) as u64
        } else {
            value << away >> away
        };
        value & u64::MAX >> (64 - self.register_bits)
    }
}

/// `value` within what `bits` hold.
fn saturate(value: i128, bits: u32, signed: bool) -> u64 {
    let (least, most) = if signed {
        (-1_i128 << (bits - 1), (1_i128 << (bits - 1)) - 1)
    } else {
        (0, (1_i128 << bits) - 1)
    };
    value.clamp(least, most) as u64
}

/// Conversion of a row whose lanes are widened by `$wide`.
macro_rules! from_integer {
    ($t:ty) => {{
        let f: RowFn = |s: &Sources| {
            let target = IntegerTarget::unpack(s.imm);
            if target.saturates {
                return std::array::from_fn(|lane| {
                    let value = i128::from(<$t as Lane>::of(s.a[lane]));
                    target.fit(saturate(value, target.bits, target.signed))
                });
            }
            std::array::from_fn(|lane| target.fit(<$t as Lane>::of(s.a[lane]) as i64 as u64))
        };
        f
    }};
}

pub(super) fn convert(
    a: &mut Assembler<'_>,
    instruction: &Instruction,
    mut mods: Mods<'_>,
) -> Result<Op, PtxError> {
    let rounding = mods.one_of(&[
        ("rn", 0),
        ("rz", 1),
        ("rm", 2),
        ("rp", 3),
        ("rni", 0),
        ("rzi", 1),
        ("rmi", 2),
        ("rpi", 3),
    ]);
    let to_integral = ["rni", "rzi", "rmi", "rpi"]
        .iter()
        .any(|name| instruction.opcode.contains(&format!(".{name}")));
    let flags = u64::from(mods.take("ftz")) * FLUSH;
    let saturates = mods.take("sat");
    let (to, from) = (mods.ty()?, mods.ty()?);
    mods.done()?;
    if [to, from]
        .iter()
        .any(|ty| ty.is_bits() || *ty == Type::Pred)
    {
        return Err(mods.unexpected_type());
    }
    let [d, x] = operands(a, instruction)?;
    let s = [a.wide_src(x, from)?, 0, 0];
    let (register, d) = a.wide_dst(d, to)?;
    let target = IntegerTarget {
        bits: to.bytes() * 8,
        signed: to.is_signed(),
        register_bits: register.bytes() * 8,
        saturates,
    };
    let (f, imm) = match (to.is_float(), from.is_float()) {
        (false, false) if rounding.is_some() => return Err(mods.unexpected_type()),
        (false, false) => (between_integers(from), target.pack()),
        (false, true) => {
            let rounding = rounding
                .filter(|_| to_integral)
                .ok_or_else(|| mods.not_emulated())?;
            (
                to_integer(from),
                target.pack() | rounding << 32 | flags << 40,
            )
        }
        (true, false) => {
            let rounding = rounding
                .filter(|_| !to_integral)
                .ok_or_else(|| mods.not_emulated())?;
            let signed = from.is_signed();
            (
                from_integers(to, from),
                rounding | u64::from(saturates) << 8 | u64::from(signed) << 9,
            )
        }
        (true, true) => {
            let wanted = from == Type::F64 && to == Type::F32;
            if wanted && rounding.is_none() || !wanted && rounding.is_some() && !to_integral {
                return Err(mods.not_emulated());
            }
            let flags = flags | (u64::from(saturates) * super::float::SATURATE);
            let whole = if to_integral { 4 } else { 0 };
            (
                between_floats(to, from),
                flags | (rounding.unwrap_or(0) | whole) << 8,
            )
        }
    };
    let f = f.ok_or_else(|| mods.not_emulated())?;
    Ok(Op::Row { f, d, s, imm })
}

fn between_integers(from: Type) -> Option<RowFn> {
    Some(match from {
        Type::U8 | Type::B8 => from_integer!(u8),
        Type::U16 | Type::B16 => from_integer!(u16),
        Type::U32 | Type::B32 => from_integer!(u32),
        Type::U64 | Type::B64 => from_integer!(u64),
        Type::S8 => from_integer!(i8),
        Type::S16 => from_integer!(i16),
        Type::S32 => from_integer!(i32),
        Type::S64 => from_integer!(i64),
        _ => return None,
    })
}

fn integral(x: f64, rounding: u64) -> f64 {
    match rounding & 3 {
        0 => x.round_ties_even(),
        1 => x.trunc(),
        2 => x.floor(),
        _ => x.ceil(),
    }
}

/// Values beyond the target's become its nearest.
fn to_integer(from: Type) -> Option<RowFn> {
    #[inline(always)]
    fn lane(x: f64, imm: u64, nan: u64) -> u64 {
        let target = IntegerTarget::unpack(imm);
        if x.is_nan() {
            return target.fit(nan);
        }
        // `as` saturates at 128 bits, and `saturate` at the target's.
        target.fit(saturate(
            integral(x, imm >> 32) as i128,
            target.bits,
            target.signed,
        ))
    }
    Some(match from {
        // Of NaN comes 0; where 64 bits take part on either side, the highest bit alone.
        Type::F32 => |s| {
            std::array::from_fn(|i| {
                let nan = if s.imm & 255 == 64 { 1 << 63 } else { 0 };
                lane(f64::from(flush(f32::of(s.a[i]), s.imm >> 40)), s.imm, nan)
            })
        },
        Type::F64 => |s| {
            std::array::from_fn(|i| {
                let nan = 1 << ((s.imm & 255) - 1);
                lane(f64::of(s.a[i]), s.imm, nan)
            })
        },
        _ => return None,
    })
}

/// Integers to floats: the number has the rounding, `.sat`, and whether the source is signed.
fn from_integers(to: Type, from: Type) -> Option<RowFn> {
    macro_rules! both {
        ($t:ty) => {
            match to {
                Type::F32 => |s: &Sources| {
                    std::array::from_fn(|lane| {
                        let value = i128::from(<$t as Lane>::of(s.a[lane]));
                        finish(
                            super::rounding::integer_to_f32(value, s.imm & 3),
                            s.imm >> 8 << 1 & 2,
                        )
                        .bits()
                    })
                },
                _ => |s: &Sources| {
                    std::array::from_fn(|lane| {
                        let value = i128::from(<$t as Lane>::of(s.a[lane]));
                        super::rounding::integer_to_f64(value, s.imm & 3).bits()
                    })
                },
            }
        };
    }
    Some(match from {
        Type::U8 => both!(u8),
        Type::U16 => both!(u16),
        Type::U32 => both!(u32),
        Type::U64 => both!(u64),
        Type::S8 => both!(i8),
        Type::S16 => both!(i16),
        Type::S32 => both!(i32),
        Type::S64 => both!(i64),
        _ => return None,
    })
}

fn between_floats(to: Type, from: Type) -> Option<RowFn> {
    Some(match (to, from) {
        (Type::F32, Type::F32) => |s| {
            std::array::from_fn(|lane| {
                let x = flush(f32::of(s.a[lane]), s.imm);
                let x = if s.imm >> 10 & 1 == 1 {
                    integral(f64::from(x), s.imm >> 8) as f32
                } else {
                    x
                };
                finish(x, s.imm & 255).bits()
            })
        },
        (Type::F64, Type::F32) => {
            |s| std::array::from_fn(|lane| f64::from(flush(f32::of(s.a[lane]), s.imm)).bits())
        }
        (Type::F32, Type::F64) => |s| {
            std::array::from_fn(|lane| {
                let x = super::rounding::f64_to_f32(f64::of(s.a[lane]), s.imm >> 8 & 3);
                finish(x, s.imm & 255).bits()
            })
        },
        (Type::F64, Type::F64) => |s| {
            std::array::from_fn(|lane| {
                let x = f64::of(s.a[lane]);
                if s.imm >> 10 & 1 == 1 {
                    integral(x, s.imm >> 8).bits()
                } else {
                    x.bits()
                }
            })
        },
        _ => return None,
    })
}
