//! Tests of the emulator's PTX: kernels in, memory and faults out.

mod bench;
#[path = "../../../../conformance/src/kernels.rs"]
mod conformance_kernels;
mod conformance;
mod query;
mod rig;
