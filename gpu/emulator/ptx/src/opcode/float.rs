//! Arithmetic of floats. Exact operations round as IEEE 754 says; those that hardware approximates are as near as a
//! host's are, which is nearer than hardware promises.

use super::lanes::{floats, lanes};
use super::rounding::{self, Rounding};
use super::{Mods, row};
use crate::assemble::Assembler;
use crate::ast::Instruction;
use crate::code::{Op, RowFn};
use crate::error::PtxError;
use crate::types::Type;

/// `.ftz`: subnormal numbers count as zeros of their sign.
pub(super) const FLUSH: u64 = 1;
/// `.sat`: results lie between 0 and 1.
pub(super) const SATURATE: u64 = 2;

#[inline(always)]
pub(super) fn flush(x: f32, flags: u64) -> f32 {
    if flags & FLUSH != 0 && x.is_subnormal() {
        0_f32.copysign(x)
    } else {
        x
    }
}

/// What `.ftz` and `.sat` make of a result.
#[inline(always)]
pub(super) fn finish(x: f32, flags: u64) -> f32 {
    let x = flush(x, flags);
    if flags & SATURATE == 0 {
        x
    } else if x > 0.0 {
        x.min(1.0)
    } else {
        0.0
    }
}

/// A float operation, with the flags of `.ftz` and `.sat` looked at only where there are any.
macro_rules! flagged {
    ($ty:expr, $flags:expr, |$a:ident $(, $b:ident $(, $c:ident)?)?| $e:expr) => {
        match ($ty, $flags) {
            (Type::F32, 0) => Some(lanes!(f32: |$a $(, $b $(, $c)?)?| $e)),
            (Type::F32, _) => Some(flagged!(@ |$a $(, $b $(, $c)?)?| $e)),
            (Type::F64, 0) => Some(lanes!(f64: |$a $(, $b $(, $c)?)?| $e)),
            _ => None,
        }
    };
    (@ |$a:ident| $e:expr) => {
        lanes!(f32, f32: |$a, _b: f32, _c: f32, flags| { let $a = flush($a, flags); finish($e, flags) })
    };
    (@ |$a:ident, $b:ident| $e:expr) => {
        lanes!(f32, f32: |$a, $b: f32, _c: f32, flags| { let ($a, $b) = (flush($a, flags), flush($b, flags)); finish($e, flags) })
    };
    (@ |$a:ident, $b:ident, $c:ident| $e:expr) => {
        lanes!(f32, f32: |$a, $b: f32, $c: f32, flags| {
            let ($a, $b, $c) = (flush($a, flags), flush($b, flags), flush($c, flags));
            finish($e, flags)
        })
    };
}

pub(super) fn assemble(
    a: &mut Assembler<'_>,
    instruction: &Instruction,
    name: &str,
    ty: Type,
    mut mods: Mods<'_>,
) -> Result<Op, PtxError> {
    let mut flags = 0;
    if mods.take("ftz") {
        flags |= FLUSH;
    }
    if mods.take("sat") {
        flags |= SATURATE;
    }
    if ty == Type::F64 && flags & SATURATE != 0 {
        return Err(mods.not_emulated());
    }
    let rounding = mods.one_of(&[
        ("rn", Rounding::Nearest),
        ("rz", Rounding::Zero),
        ("rm", Rounding::Down),
        ("rp", Rounding::Up),
    ]);
    let approximate = mods.take("approx") || mods.take("full");
    if rounding.is_some() && matches!(name, "neg" | "abs" | "min" | "max" | "copysign") {
        return Err(mods.unexpected_type());
    }
    let (f, arity): (Option<RowFn>, usize) = match name {
        "neg" => (floats!(ty, |x| -x), 1),
        "abs" => (floats!(ty, |x| x.abs()), 1),
        "min" | "max" => (min_max(name, ty, flags, mods.take("NaN")), 2),
        "copysign" => (floats!(ty, |x, y| y.copysign(x)), 2),
        _ if approximate => (
            approximated(name, ty, flags),
            if name == "div" { 2 } else { 1 },
        ),
        "add" | "sub" | "mul" | "mad" | "fma" | "div" | "sqrt" | "rcp" => {
            let arity = match name {
                "mad" | "fma" => 3,
                "sqrt" | "rcp" => 1,
                _ => 2,
            };
            let needs_rounding = !matches!(name, "add" | "sub" | "mul");
            if needs_rounding && rounding.is_none() {
                return Err(mods.not_emulated());
            }
            let f = match rounding.unwrap_or(Rounding::Nearest) {
                Rounding::Nearest => nearest(name, ty, flags),
                directed => {
                    flags |= (directed as u64) << rounding::SHIFT;
                    rounding::directed(name, ty)
                }
            };
            (f, arity)
        }
        _ => (None, 0),
    };
    mods.done()?;
    let f = f.ok_or_else(|| mods.not_emulated())?;
    row(a, instruction, f, ty, &[ty; 3][..arity], flags)
}

fn nearest(name: &str, ty: Type, flags: u64) -> Option<RowFn> {
    match name {
        "add" => flagged!(ty, flags, |x, y| x + y),
        "sub" => flagged!(ty, flags, |x, y| x - y),
        "mul" => flagged!(ty, flags, |x, y| x * y),
        "div" => flagged!(ty, flags, |x, y| x / y),
        "mad" | "fma" => flagged!(ty, flags, |x, y, z| x.mul_add(y, z)),
        "sqrt" => flagged!(ty, flags, |x| x.sqrt()),
        "rcp" => flagged!(ty, flags, |x| 1.0 / x),
        _ => None,
    }
}

/// Of a number and a NaN the number; -0 is less than +0.
fn min_max(name: &str, ty: Type, flags: u64, keeps_nan: bool) -> Option<RowFn> {
    macro_rules! choose {
        ($x:ident, $y:ident, $less:expr) => {
            if $x.is_nan() {
                $y
            } else if $y.is_nan() {
                $x
            } else if $x == $y {
                if $x.is_sign_negative() == $less {
                    $x
                } else {
                    $y
                }
            } else if ($x < $y) == $less {
                $x
            } else {
                $y
            }
        };
    }
    match (name, keeps_nan) {
        ("min", false) => flagged!(ty, flags, |x, y| choose!(x, y, true)),
        ("max", false) => flagged!(ty, flags, |x, y| choose!(x, y, false)),
        ("min", true) => flagged!(ty, flags, |x, y| if x.is_nan() || y.is_nan() {
            x + y
        } else {
            choose!(x, y, true)
        }),
        _ => flagged!(ty, flags, |x, y| if x.is_nan() || y.is_nan() {
            x + y
        } else {
            choose!(x, y, false)
        }),
    }
}

/// The upper half of a double, as the approximations of doubles give it.
fn upper_half(x: f64) -> f64 {
    f64::from_bits(x.to_bits() & 0xffff_ffff_0000_0000)
}

fn flush_double(x: f64) -> f64 {
    if x.is_subnormal() {
        0_f64.copysign(x)
    } else {
        x
    }
}

fn approximated(name: &str, ty: Type, flags: u64) -> Option<RowFn> {
    if ty == Type::F64 {
        return match name {
            "rcp" => Some(lanes!(f64: |x| flush_double(upper_half(1.0 / flush_double(x))))),
            "rsqrt" if flags & FLUSH == 0 => Some(lanes!(f64: |x| 1.0 / x.sqrt())),
            "rsqrt" => Some(lanes!(f64: |x| upper_half(1.0 / flush_double(x).sqrt()))),
            _ => None,
        };
    }
    // Through doubles, so that the last bit is right nearly always.
    macro_rules! single {
        (|$x:ident| $e:expr) => {
            Some(lanes!(f32, f32: |x, _b: f32, _c: f32, flags| {
                let $x = f64::from(flush(x, flags));
                finish($e as f32, flags)
            }))
        };
    }
    match name {
        "rcp" => single!(|x| 1.0 / x),
        "rsqrt" => single!(|x| 1.0 / x.sqrt()),
        "sqrt" => single!(|x| x.sqrt()),
        "ex2" => single!(|x| x.exp2()),
        "lg2" => single!(|x| x.log2()),
        "sin" => single!(|x| x.sin()),
        "cos" => single!(|x| x.cos()),
        "tanh" => single!(|x| x.tanh()),
        "div" => flagged!(ty, flags, |x, y| x / y),
        _ => None,
    }
}
