//! A CUDA driver on the CPU: `libcuda.so.1`, `libnvidia-ml.so.1` and `libcufile.so.0` in one shared library, for tests.
//!
//! Programs load the library by those names and notice nothing; tests make a machine of it with [`Emulator`] and read afterwards
//! what was copied. Answers as the documentation of CUDA says and as hardware was seen to (`docs/gpu-facts.md`). Never part of the
//! product. `unsafe` is what its borders are made of: pointers of C on one side, mapped memory on the other.

#![allow(
    non_snake_case,
    reason = "functions carry the names that the driver gives them"
)]

mod arena;
mod backing;
mod call;
mod code;
mod context;
mod copy;
mod copy_2d;
mod counters;
mod cufile;
mod device;
mod driver;
mod event;
mod export;
mod fault;
mod file_lock;
mod folder;
mod handle;
mod harness;
mod host;
mod ipc;
mod kernel_memory;
mod lanes;
mod launch;
mod machine;
mod mapped;
mod memory;
mod memset;
mod module;
mod nvml;
mod occupancy;
mod places;
mod plan;
mod pointer;
mod pool;
mod report;
mod settings;
mod shared_memory;
mod side;
mod space;
mod stream;
mod stream_calls;
mod symbols;
mod virtual_memory;
mod written;

pub use counters::{Moved, Movement};
pub use harness::{Emulator, library};
pub use report::Report;
