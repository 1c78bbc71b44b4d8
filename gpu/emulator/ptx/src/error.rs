//! What is wrong with a PTX text, for whoever loads one.

use std::fmt;

/// Why a PTX text cannot be loaded. Its text begins with the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PtxError {
    /// The line, counted from 1.
    pub line: u32,
    /// What a driver would call it.
    pub kind: PtxErrorKind,
    /// One sentence.
    pub message: String,
}

/// Kinds of errors in PTX texts, as far as drivers tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PtxErrorKind {
    /// The text does not begin with `.version`: it is no PTX at all.
    NotPtx,
    /// It breaks a rule of the language.
    Syntax,
    /// Its `.version` is above 9.0.
    UnsupportedVersion,
    /// Its `.target` is above sm_90, not invented, or newer than its `.version`.
    UnsupportedTarget,
    /// Perhaps right, but the emulator does not have it; the message names the opcode.
    NotEmulated,
}

impl PtxError {
    pub(crate) fn syntax(line: u32, message: impl Into<String>) -> Self {
        Self {
            line,
            kind: PtxErrorKind::Syntax,
            message: message.into(),
        }
    }

    pub(crate) fn not_emulated(line: u32, what: impl fmt::Display) -> Self {
        Self {
            line,
            kind: PtxErrorKind::NotEmulated,
            message: format!(
                "`{what}` is not emulated: add it to transload-ptx, or write the kernel without it"
            ),
        }
    }
}

impl fmt::Display for PtxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

impl std::error::Error for PtxError {}
