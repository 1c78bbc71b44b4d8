//! Pure state machine that decides where and when each task runs.
