//! PTX on the host: a text in, a module of kernels out, and runs of those with counters or a fault.
//!
//! Called by the emulator of the CUDA driver and by tests of kernels. Knows no driver, no process, and no memory but what
//! [`Memory`] gives it. Stricter than hardware: what hardware lets pass by luck is a [`Fault`] here.

#![forbid(unsafe_code)]

mod assemble;
mod ast;
mod code;
mod counters;
mod error;
mod fault;
mod lexer;
mod memory;
mod module;
mod names;
mod opcode;
mod parser;
mod run;
mod special;
mod statements;
mod types;
mod variables;

pub use counters::{Counters, Coverage, Outcome, Uncovered};
pub use error::{PtxError, PtxErrorKind};
pub use fault::{Fault, FaultKind};
pub use memory::{AccessError, Memory};
pub use module::{Global, GlobalSpace, Kernel, Module, Parameter, Relocation};
pub use run::{Launch, Options, run};

/// Where the window of shared memory begins among generic addresses. No memory of a [`Memory`] may lie there.
pub const SHARED_BASE: u64 = 1 << 56;
/// The same for local memory.
pub const LOCAL_BASE: u64 = 2 << 56;
/// How long both windows are.
pub const WINDOW_BYTES: u64 = 1 << 32;
