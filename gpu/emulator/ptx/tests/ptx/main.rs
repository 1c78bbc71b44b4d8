//! Tests of the emulator's PTX: kernels in, memory and faults out.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "tests, also in their helpers"
)]

mod bench;
mod conformance;
#[path = "../../../../conformance/src/kernels.rs"]
mod conformance_kernels;
mod damage;
mod hard;
mod opcodes;
mod query;
mod rig;
mod runs;
mod sanitizer;
mod together;
