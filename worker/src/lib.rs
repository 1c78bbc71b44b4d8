//! Pure state machine that decides what a worker fetches, starts, spills and drops.
