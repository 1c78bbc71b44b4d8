//! What lanes of a warp and threads of a block do together.

use super::bits::named_pred;
use super::moves::always;
use super::{Mods, operands};
use crate::assemble::Assembler;
use crate::ast::{Instruction, Operand};
use crate::code::{BarrierKind, BarrierUse, Meeting, Op, Reduction, Shuffle, Together};
use crate::error::PtxError;
use crate::types::Type;

pub(super) fn assemble(
    a: &mut Assembler<'_>,
    instruction: &Instruction,
    name: &str,
    mut mods: Mods<'_>,
) -> Result<Op, PtxError> {
    if name == "activemask" {
        let ty = mods.ty()?;
        mods.done()?;
        let [d] = operands(a, instruction)?;
        return Ok(Op::ActiveMask { d: a.dst(d, ty)? });
    }
    if name == "bar" && mods.take("warp") || matches!(name, "shfl" | "vote" | "match" | "redux") {
        // Without .sync these are of architectures that we do not emulate.
        if !mods.take("sync") {
            return Err(mods.not_emulated());
        }
        let meeting = match name {
            "shfl" => shuffle(a, instruction, mods)?,
            "vote" => vote(a, instruction, mods)?,
            "match" => matched(a, instruction, mods)?,
            "redux" => reduce(a, instruction, mods)?,
            _ => {
                mods.done()?;
                let [members] = operands(a, instruction)?;
                Meeting {
                    members: a.src(members, Type::B32)?,
                    ..EMPTY
                }
            }
        };
        return Ok(Op::Meet(Box::new(meeting)));
    }
    if matches!(name, "bar" | "barrier") {
        return barrier(a, instruction, name == "bar", mods);
    }
    Err(mods.not_emulated())
}

const EMPTY: Meeting = Meeting {
    what: Together::Barrier,
    members: 0,
    sources: [0; 3],
    vote: None,
    d: None,
    p: None,
};

fn shuffle(
    a: &mut Assembler<'_>,
    instruction: &Instruction,
    mut mods: Mods<'_>,
) -> Result<Meeting, PtxError> {
    let how = mods.one_of(&[
        ("up", Shuffle::Up),
        ("down", Shuffle::Down),
        ("bfly", Shuffle::Butterfly),
        ("idx", Shuffle::Index),
    ]);
    let how = how.ok_or_else(|| mods.not_emulated())?;
    let ty = mods.ty()?;
    mods.done()?;
    if ty != Type::B32 {
        return Err(mods.not_emulated());
    }
    let [d, x, lane, clamp, members] = operands(a, instruction)?;
    let (d, p) = match d {
        Operand::Pair(d, p) => (a.dst(d, ty)?, a.pred_or_sink(p)?),
        d => (a.dst(d, ty)?, None),
    };
    Ok(Meeting {
        what: Together::Shuffle(how),
        members: a.src(members, Type::B32)?,
        sources: [
            a.src(x, ty)?,
            a.src(lane, Type::B32)?,
            a.src(clamp, Type::B32)?,
        ],
        d: Some(d),
        p,
        ..EMPTY
    })
}

fn vote(
    a: &mut Assembler<'_>,
    instruction: &Instruction,
    mut mods: Mods<'_>,
) -> Result<Meeting, PtxError> {
    let what = mods.one_of(&[
        ("ballot", Together::Ballot),
        ("any", Together::Any),
        ("all", Together::All),
        ("uni", Together::Uniform),
    ]);
    let what = what.ok_or_else(|| mods.not_emulated())?;
    let ty = mods.ty()?;
    mods.done()?;
    let [d, x, members] = operands(a, instruction)?;
    let members = a.src(members, Type::B32)?;
    let vote = Some(match x {
        Operand::Number(crate::lexer::Number::Integer(value)) => always(a, *value != 0)?,
        x => a.pred_use(x)?,
    });
    match (what, ty) {
        (Together::Ballot, Type::B32) => Ok(Meeting {
            what,
            members,
            vote,
            d: Some(a.dst(d, ty)?),
            ..EMPTY
        }),
        (Together::Any | Together::All | Together::Uniform, Type::Pred) => Ok(Meeting {
            what,
            members,
            vote,
            p: Some(named_pred(a, d)?),
            ..EMPTY
        }),
        _ => Err(mods.not_emulated()),
    }
}

fn matched(
    a: &mut Assembler<'_>,
    instruction: &Instruction,
    mut mods: Mods<'_>,
) -> Result<Meeting, PtxError> {
    let all = mods
        .one_of(&[("any", false), ("all", true)])
        .ok_or_else(|| mods.not_emulated())?;
    let ty = mods.ty()?;
    mods.done()?;
    let wide = match ty {
        Type::B32 => false,
        Type::B64 => true,
        _ => return Err(mods.not_emulated()),
    };
    let [d, x, members] = operands(a, instruction)?;
    let (d, p) = match d {
        Operand::Pair(d, p) if all => (a.dst(d, Type::B32)?, a.pred_or_sink(p)?),
        d => (a.dst(d, Type::B32)?, None),
    };
    Ok(Meeting {
        what: if all {
            Together::MatchAll { wide }
        } else {
            Together::MatchAny { wide }
        },
        members: a.src(members, Type::B32)?,
        sources: [a.src(x, ty)?, 0, 0],
        d: Some(d),
        p,
        ..EMPTY
    })
}

fn reduce(
    a: &mut Assembler<'_>,
    instruction: &Instruction,
    mut mods: Mods<'_>,
) -> Result<Meeting, PtxError> {
    let name = mods.one_of(&["add", "min", "max", "and", "or", "xor"].map(|name| (name, name)));
    let ty = mods.ty()?;
    mods.done()?;
    let what = match (name, ty) {
        (Some("add"), Type::U32 | Type::S32) => Reduction::Add,
        (Some("min"), Type::U32) => Reduction::Min,
        (Some("max"), Type::U32) => Reduction::Max,
        (Some("min"), Type::S32) => Reduction::SignedMin,
        (Some("max"), Type::S32) => Reduction::SignedMax,
        (Some("and"), Type::B32) => Reduction::And,
        (Some("or"), Type::B32) => Reduction::Or,
        (Some("xor"), Type::B32) => Reduction::Xor,
        _ => return Err(mods.not_emulated()),
    };
    let [d, x, members] = operands(a, instruction)?;
    Ok(Meeting {
        what: Together::Reduce(what),
        members: a.src(members, Type::B32)?,
        sources: [a.src(x, ty)?, 0, 0],
        d: Some(a.dst(d, ty)?),
        ..EMPTY
    })
}

fn barrier(
    a: &mut Assembler<'_>,
    instruction: &Instruction,
    is_bar: bool,
    mut mods: Mods<'_>,
) -> Result<Op, PtxError> {
    mods.take("cta");
    let aligned = mods.take("aligned") || is_bar;
    let kind = mods
        .one_of(&[("sync", 0), ("arrive", 1), ("red", 2)])
        .ok_or_else(|| mods.not_emulated())?;
    let mut barrier = BarrierUse {
        kind: BarrierKind::Wait,
        aligned,
        id: 0,
        threads: None,
        vote: None,
        d: None,
        p: None,
    };
    let mut operands = instruction.operands.as_slice();
    if kind == 2 {
        let name = mods.one_of(&["popc", "and", "or"].map(|name| (name, name)));
        let ty = mods.ty()?;
        let (Some((d, rest)), Some(name)) = (operands.split_first(), name) else {
            return Err(a.mismatch());
        };
        (barrier.kind, barrier.d, barrier.p) = match (name, ty) {
            ("popc", Type::U32) => (BarrierKind::Count, Some(a.dst(d, ty)?), None),
            ("and", Type::Pred) => (BarrierKind::And, None, Some(named_pred(a, d)?)),
            ("or", Type::Pred) => (BarrierKind::Or, None, Some(named_pred(a, d)?)),
            _ => return Err(mods.not_emulated()),
        };
        let Some((vote, rest)) = rest.split_last() else {
            return Err(a.mismatch());
        };
        barrier.vote = Some(a.pred_use(vote)?);
        operands = rest;
    } else if kind == 1 {
        barrier.kind = BarrierKind::Arrive;
    }
    mods.done()?;
    let (id, threads) = match operands {
        [id] if kind != 1 => (id, None),
        [id, threads] => (id, Some(threads)),
        _ => return Err(a.mismatch()),
    };
    barrier.id = a.src(id, Type::U32)?;
    barrier.threads = match threads {
        Some(threads) => Some(a.src(threads, Type::U32)?),
        None => None,
    };
    Ok(Op::Barrier(Box::new(barrier)))
}
