//! The special registers of PTX by name. Called by `assemble`.

use crate::code::{Clock, Special};
use crate::types::Type;

/// Registers that keep their value while a thread runs.
pub(crate) fn named(name: &str) -> Option<(Special, Type)> {
    let special = match name {
        "%laneid" => Special::LaneId,
        "%warpid" => Special::WarpId,
        "%nwarpid" => Special::Warps,
        "%lanemask_eq" => Special::LanesEq,
        "%lanemask_le" => Special::LanesLe,
        "%lanemask_lt" => Special::LanesLt,
        "%lanemask_ge" => Special::LanesGe,
        "%lanemask_gt" => Special::LanesGt,
        "%smid" => Special::SmId,
        "%nsmid" => Special::Sms,
        "%gridid" => return Some((Special::GridId, Type::U64)),
        "%dynamic_smem_size" => Special::DynamicShared,
        "%total_smem_size" => Special::TotalShared,
        _ => {
            let (name, axis) = name.rsplit_once('.')?;
            let axis = match axis {
                "x" => 0,
                "y" => 1,
                "z" => 2,
                _ => return None,
            };
            match name {
                "%tid" => Special::Tid(axis),
                "%ntid" => Special::Ntid(axis),
                "%ctaid" => Special::Ctaid(axis),
                "%nctaid" => Special::Nctaid(axis),
                _ => return None,
            }
        }
    };
    Some((special, Type::U32))
}

/// Registers that change by themselves.
pub(crate) fn clock(name: &str) -> Option<(Clock, Type)> {
    Some(match name {
        "%clock64" => (Clock::Cycles, Type::U64),
        "%clock" => (Clock::CyclesLow, Type::U32),
        "%clock_hi" => (Clock::CyclesHigh, Type::U32),
        "%globaltimer" => (Clock::Nanoseconds, Type::U64),
        "%globaltimer_lo" => (Clock::NanosecondsLow, Type::U32),
        "%globaltimer_hi" => (Clock::NanosecondsHigh, Type::U32),
        _ => return None,
    })
}
