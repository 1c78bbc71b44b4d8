//! Loads, stores, atomic operations and fences.

use super::lanes::Lane;
use super::{Mods, operands};
use crate::assemble::Assembler;
use crate::ast::{Instruction, Operand};
use crate::code::{Op, Strength, UpdateFn};
use crate::error::PtxError;
use crate::types::{Space, Type};

pub(super) fn assemble(
    a: &mut Assembler<'_>,
    instruction: &Instruction,
    name: &str,
    mods: Mods<'_>,
) -> Result<Op, PtxError> {
    match name {
        "ld" | "ldu" => load(a, instruction, mods),
        "st" => store(a, instruction, mods),
        "atom" | "red" => atomic(a, instruction, name == "red", mods),
        "prefetch" | "prefetchu" => Ok(Op::Nothing),
        _ => fence(mods),
    }
}

fn space(mods: &mut Mods<'_>) -> Space {
    mods.one_of(&[
        ("global", Space::Global),
        ("const", Space::Const),
        ("shared", Space::Shared),
        ("shared::cta", Space::Shared),
        ("local", Space::Local),
        ("param", Space::Param),
        ("param::entry", Space::Param),
        ("param::func", Space::Param),
    ])
    .unwrap_or(Space::Generic)
}

/// What caches do is no matter here.
fn drop_cache_hints(mods: &mut Mods<'_>) {
    for hint in [
        "ca",
        "cg",
        "cs",
        "lu",
        "cv",
        "wb",
        "wt",
        "L1::evict_normal",
        "L1::evict_unchanged",
        "L1::evict_first",
        "L1::evict_last",
        "L1::no_allocate",
        "L2::64B",
        "L2::128B",
        "L2::256B",
        "unified",
    ] {
        mods.take(hint);
    }
}

fn strength(mods: &mut Mods<'_>, otherwise: Strength) -> Strength {
    let found = mods.one_of(&[
        ("volatile", Strength::Strong),
        ("relaxed", Strength::Strong),
        ("acquire", Strength::Fence),
        ("release", Strength::Fence),
        ("acq_rel", Strength::Fence),
        ("weak", Strength::Weak),
    ]);
    if found.is_none_or(|_| mods.opcode_has("volatile")) && otherwise == Strength::Weak {
        return found.unwrap_or(otherwise);
    }
    // Blocks are the emulator's whole world: what is told to them is told to all.
    for scope in ["cta", "cluster", "gpu", "sys"] {
        mods.take(scope);
    }
    found.unwrap_or(otherwise)
}

fn vector(mods: &mut Mods<'_>) -> usize {
    mods.one_of(&[("v2", 2), ("v4", 4)]).unwrap_or(1)
}

fn parts<'a>(
    a: &Assembler<'_>,
    operand: &'a Operand,
    count: usize,
) -> Result<&'a [Operand], PtxError> {
    let parts = match operand {
        Operand::Vector(parts) => parts.as_slice(),
        single => std::slice::from_ref(single),
    };
    if parts.len() != count {
        return Err(a.mismatch());
    }
    Ok(parts)
}

fn load(
    a: &mut Assembler<'_>,
    instruction: &Instruction,
    mut mods: Mods<'_>,
) -> Result<Op, PtxError> {
    let strength = strength(&mut mods, Strength::Weak);
    let space = space(&mut mods);
    let cached = mods.take("nc");
    drop_cache_hints(&mut mods);
    let count = vector(&mut mods);
    let ty = mods.ty()?;
    mods.done()?;
    if cached && space != Space::Global || strength != Strength::Weak && space == Space::Param {
        return Err(a.error(format!(
            "Illegal modifier for the state space of '{}'",
            instruction.opcode
        )));
    }
    if count as u32 * ty.bytes() > 16 || ty == Type::Pred {
        return Err(mods.not_emulated());
    }
    let [d, from] = operands(a, instruction)?;
    let from = a.address(from, space)?;
    let mut rows = Vec::new();
    let mut signed = None;
    for part in parts(a, d, count)? {
        if *part == Operand::Name("_".to_owned(), 0) {
            rows.push(None);
            continue;
        }
        let (register, row) = a.wide_dst(part, ty)?;
        if ty.is_signed() && register.bytes() > ty.bytes() {
            signed = Some(register.mask());
        }
        rows.push(Some(row));
    }
    Ok(Op::Load {
        from,
        d: rows.into(),
        bytes: ty.bytes(),
        signed,
        strength,
    })
}

fn store(
    a: &mut Assembler<'_>,
    instruction: &Instruction,
    mut mods: Mods<'_>,
) -> Result<Op, PtxError> {
    let strength = strength(&mut mods, Strength::Weak);
    let space = space(&mut mods);
    drop_cache_hints(&mut mods);
    let count = vector(&mut mods);
    let ty = mods.ty()?;
    mods.done()?;
    if count as u32 * ty.bytes() > 16 || ty == Type::Pred {
        return Err(mods.not_emulated());
    }
    if space == Space::Const {
        return Err(a.error("constant memory cannot be written"));
    }
    let [to, s] = operands(a, instruction)?;
    let to = a.address(to, space)?;
    if to.space == Space::Param {
        return Err(a.error("the parameters of a kernel cannot be written"));
    }
    let mut rows = Vec::new();
    for part in parts(a, s, count)? {
        rows.push(a.wide_src(part, ty)?);
    }
    Ok(Op::Store {
        to,
        s: rows.into(),
        bytes: ty.bytes(),
        strength,
    })
}

fn fence(mut mods: Mods<'_>) -> Result<Op, PtxError> {
    for modifier in [
        "cta", "gl", "sys", "gpu", "cluster", "sc", "acq_rel", "acquire", "release",
    ] {
        mods.take(modifier);
    }
    mods.done()?;
    Ok(Op::Fence)
}

fn atomic(
    a: &mut Assembler<'_>,
    instruction: &Instruction,
    is_reduction: bool,
    mut mods: Mods<'_>,
) -> Result<Op, PtxError> {
    let strength = strength(&mut mods, Strength::Strong);
    let space = space(&mut mods);
    mods.take("noftz");
    let operation = mods
        .one_of(
            &[
                "add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec",
            ]
            .map(|name| (name, name)),
        )
        .ok_or_else(|| mods.not_emulated())?;
    let ty = mods.ty()?;
    mods.done()?;
    let f = update(operation, ty).ok_or_else(|| mods.not_emulated())?;
    if !matches!(space, Space::Generic | Space::Global | Space::Shared) {
        return Err(mods.not_emulated());
    }
    let mut operands = instruction.operands.as_slice();
    let mut next = || match operands.split_first() {
        Some((first, rest)) => {
            operands = rest;
            Ok(first)
        }
        None => Err(a.mismatch()),
    };
    let d = if is_reduction { None } else { Some(next()?) };
    let (at, b) = (next()?, next()?);
    let c = if operation == "cas" {
        Some(next()?)
    } else {
        None
    };
    if !operands.is_empty() {
        return Err(a.mismatch());
    }
    let d = match d {
        Some(Operand::Name(name, 0)) if name == "_" => None,
        Some(d) => Some(a.dst(d, ty)?),
        None => None,
    };
    Ok(Op::Atomic {
        at: a.address(at, space)?,
        f,
        d,
        b: a.src(b, ty)?,
        c: match c {
            Some(c) => a.src(c, ty)?,
            None => 0,
        },
        bytes: ty.bytes(),
        strength,
    })
}

macro_rules! update_of {
    ($t:ty: |$old:ident, $b:ident, $c:ident| $e:expr) => {{
        let f: UpdateFn = |old, b, c| {
            let ($old, $b, $c) = (
                <$t as Lane>::of(old),
                <$t as Lane>::of(b),
                <$t as Lane>::of(c),
            );
            <$t as Lane>::bits($e)
        };
        Some(f)
    }};
}

fn update(operation: &str, ty: Type) -> Option<UpdateFn> {
    macro_rules! typed {
        ($e:ident) => {
            match ty {
                Type::U32 => $e!(u32),
                Type::S32 => $e!(i32),
                Type::U64 => $e!(u64),
                Type::S64 => $e!(i64),
                _ => None,
            }
        };
    }
    macro_rules! untyped {
        (|$old:ident, $b:ident, $c:ident| $e:expr) => {
            match ty {
                Type::B32 => update_of!(u32: |$old, $b, $c| $e),
                Type::B64 => update_of!(u64: |$old, $b, $c| $e),
                _ => None,
            }
        };
    }
    macro_rules! add { ($t:ty) => { update_of!($t: |old, b, _c| old.wrapping_add(b)) }; }
    macro_rules! min { ($t:ty) => { update_of!($t: |old, b, _c| old.min(b)) }; }
    macro_rules! max { ($t:ty) => { update_of!($t: |old, b, _c| old.max(b)) }; }
    match operation {
        "add" if ty == Type::F32 => update_of!(f32: |old, b, _c| old + b),
        "add" if ty == Type::F64 => update_of!(f64: |old, b, _c| old + b),
        "add" => typed!(add),
        "min" => typed!(min),
        "max" => typed!(max),
        "and" => untyped!(|old, b, _c| old & b),
        "or" => untyped!(|old, b, _c| old | b),
        "xor" => untyped!(|old, b, _c| old ^ b),
        "exch" => untyped!(|_old, b, _c| b),
        "cas" if ty == Type::B16 => update_of!(u16: |old, b, c| if old == b { c } else { old }),
        "cas" => untyped!(|old, b, c| if old == b { c } else { old }),
        "inc" if ty == Type::U32 => {
            update_of!(u32: |old, b, _c| if old >= b { 0 } else { old + 1 })
        }
        "dec" if ty == Type::U32 => {
            update_of!(u32: |old, b, _c| if old == 0 || old > b { b } else { old - 1 })
        }
        _ => None,
    }
}
