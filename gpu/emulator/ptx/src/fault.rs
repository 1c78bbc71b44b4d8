//! Why a run ended before its kernel did, for whoever launched it.

use std::fmt;

/// What a kernel did wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The rule that it broke.
    pub kind: FaultKind,
    /// The name of the kernel.
    pub kernel: String,
    /// The line of the PTX text, counted from 1; 0 when no instruction is to blame.
    pub line: u32,
    /// That line.
    pub text: String,
    /// `%ctaid`.
    pub block: [u32; 3],
    /// `%tid`.
    pub thread: [u32; 3],
    /// What the instruction went for, if it went for memory. Of shared and local memory, the offset.
    pub address: Option<u64>,
    /// One sentence.
    pub detail: String,
}

/// Rules that a kernel can break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// An access outside of the memory it is for.
    IllegalAddress,
    /// An access at an address that is no multiple of its size.
    Misaligned,
    /// `trap` or `brkpt`.
    Trap,
    /// `__assertfail`.
    Assertion,
    /// A `.sync` operation of a warp by lanes that are not in its mask, or with masks that contradict each other.
    BadShuffle,
    /// A barrier that the lanes of a warp reach apart, or with other counts, or too often.
    BadBarrier,
    /// A value that was never written decides a branch or an address, or leaves the thread.
    Uninitialised,
    /// Two threads use the same shared memory, one of them to write, with nothing that orders them.
    Race,
    /// Threads wait for each other and none can go on.
    Deadlock,
    /// Calls go deeper than local memory reaches.
    StackOverflow,
    /// The launch does not fit the kernel.
    BadLaunch,
    /// More instructions than [`Options::most_instructions`](crate::Options) allows.
    Endless,
    /// [`Options::cancelled`](crate::Options) was set.
    Cancelled,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            kernel,
            line,
            text,
            block,
            thread,
            address,
            detail,
        } = self;
        write!(f, "{kind:?} in kernel `{kernel}`")?;
        if *line != 0 {
            write!(f, ", PTX line {line} `{text}`")?;
        }
        write!(f, ", block {block:?}, thread {thread:?}")?;
        if let Some(address) = address {
            write!(f, ", address {address:#x}")?;
        }
        write!(f, ": {detail}")
    }
}

impl std::error::Error for Fault {}
