//! Cases that speak for themselves, by subject.

mod asking;
mod ending;
mod lineage;
mod placement;
