//! Pure state machine that decides where and when each task runs.
//!
//! `runtime` feeds it [`Input`]s and carries out its [`Action`]s; `sim` does the same under a fake clock and network. It
//! deliberately knows no bytes, sockets or clock: time is an argument.
#![forbid(unsafe_code)]

mod api;

pub use api::{Action, Config, Input};
