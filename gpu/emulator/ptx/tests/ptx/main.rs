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
mod hard;
mod query;
mod rig;
mod sanitizer;
