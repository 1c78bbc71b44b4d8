//! Cases that speak for themselves, by subject.

mod apart;
mod asking;
mod constraints;
mod ending;
mod failing;
mod fair;
mod gangs;
mod held_up;
mod inside;
mod limits;
mod lineage;
mod placement;
mod quality;
mod restart;
mod sharing;
