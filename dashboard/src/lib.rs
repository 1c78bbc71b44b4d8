//! Shows a cluster.
#![forbid(unsafe_code)]

pub mod view;
