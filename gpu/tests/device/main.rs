//! Device memory, page-locked memory and disk, on the emulated driver, or on hardware with TRANSLOAD_TEST_GPU=hardware.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod columns;
mod common;
mod dictionaries;
mod direct;
mod faults;
mod landing;
mod strings;
mod tiers;
