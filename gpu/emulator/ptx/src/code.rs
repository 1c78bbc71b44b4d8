//! What `assemble` makes of a module and `run` executes: instructions whose names, types and modifiers are resolved.

use crate::types::Space;

/// One value per lane. Values have as many bits as their register; the bits above are zero.
pub(crate) type Row = [u64; 32];

/// A row of the frame. Row 0 of each frame is zero.
pub(crate) type Reg = u16;

/// A predicate of the frame.
pub(crate) type Pred = u16;

/// Up to three sources and a number that is part of the instruction.
pub(crate) struct Sources<'a> {
    pub(crate) a: &'a Row,
    pub(crate) b: &'a Row,
    pub(crate) c: &'a Row,
    pub(crate) imm: u64,
}

/// Computes all lanes, also those whose results are thrown away, and so must stand any value.
pub(crate) type RowFn = fn(&Sources) -> Row;
/// The same for comparisons: one bit per lane.
pub(crate) type MaskFn = fn(&Sources) -> u32;
/// The same for carry chains: carries in, carries out.
pub(crate) type CarryFn = fn(&Sources, u32) -> (Row, u32);
/// One lane of an atomic operation: old value and operands to new value.
pub(crate) type UpdateFn = fn(u64, u64, u64) -> u64;

/// A predicate that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PredUse {
    pub(crate) pred: Pred,
    pub(crate) negated: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Logic {
    And,
    Or,
    Xor,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Address {
    pub(crate) space: Space,
    pub(crate) base: Reg,
    pub(crate) offset: i64,
}

/// How far a memory operation orders what stands around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strength {
    Weak,
    /// Volatile, relaxed, and every atomic operation: no race with its like.
    Strong,
    /// Acquire and release: a fence besides.
    Fence,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clock {
    Cycles,
    CyclesLow,
    CyclesHigh,
    Nanoseconds,
    NanosecondsLow,
    NanosecondsHigh,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shuffle {
    Up,
    Down,
    Butterfly,
    Index,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reduction {
    Add,
    Min,
    Max,
    SignedMin,
    SignedMax,
    And,
    Or,
    Xor,
}

/// What lanes do together. Lanes of one operation wait for each other when these are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Together {
    Barrier,
    Shuffle(Shuffle),
    Ballot,
    Any,
    All,
    Uniform,
    MatchAny { wide: bool },
    MatchAll { wide: bool },
    Reduce(Reduction),
}

/// An operation of lanes together: its operands at each lane.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Meeting {
    pub(crate) what: Together,
    pub(crate) members: Reg,
    pub(crate) sources: [Reg; 3],
    /// For votes.
    pub(crate) vote: Option<PredUse>,
    pub(crate) d: Option<Reg>,
    pub(crate) p: Option<Pred>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BarrierKind {
    Wait,
    Arrive,
    Count,
    And,
    Or,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct BarrierUse {
    pub(crate) kind: BarrierKind,
    /// All lanes of a warp must come together.
    pub(crate) aligned: bool,
    pub(crate) id: Reg,
    pub(crate) threads: Option<Reg>,
    pub(crate) vote: Option<PredUse>,
    pub(crate) d: Option<Reg>,
    pub(crate) p: Option<Pred>,
}

/// Bytes that travel with a call: from the caller's frame of local memory to the callee's, or back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Passed {
    pub(crate) caller: u32,
    pub(crate) callee: u32,
    pub(crate) bytes: u32,
}

#[derive(Debug)]
pub(crate) enum Op {
    Row {
        f: RowFn,
        d: Reg,
        s: [Reg; 3],
        imm: u64,
    },
    Compare {
        f: MaskFn,
        s: [Reg; 2],
        combine: Option<(Logic, PredUse)>,
        p: Option<Pred>,
        q: Option<Pred>,
    },
    /// `set`: `yes` where the comparison holds, else 0.
    Set {
        f: MaskFn,
        s: [Reg; 2],
        combine: Option<(Logic, PredUse)>,
        d: Reg,
        yes: u64,
    },
    Carry {
        f: CarryFn,
        d: Reg,
        s: [Reg; 3],
        reads: bool,
        writes: bool,
    },
    Select {
        d: Reg,
        a: Reg,
        b: Reg,
        p: PredUse,
    },
    Logic {
        op: Logic,
        d: Pred,
        a: PredUse,
        b: PredUse,
    },
    Pack {
        d: Reg,
        parts: Box<[Reg]>,
        bits: u32,
    },
    Unpack {
        parts: Box<[Option<Reg>]>,
        a: Reg,
        bits: u32,
    },
    Clock {
        d: Reg,
        which: Clock,
    },
    ActiveMask {
        d: Reg,
    },
    /// 1 where the generic address in `a` points into `space`.
    IsSpace {
        p: Pred,
        a: Reg,
        space: Space,
    },
    Load {
        from: Address,
        d: Box<[Option<Reg>]>,
        bytes: u32,
        /// Sign-extends to this mask.
        signed: Option<u64>,
        strength: Strength,
    },
    Store {
        to: Address,
        s: Box<[Reg]>,
        bytes: u32,
        strength: Strength,
    },
    Atomic {
        at: Address,
        f: UpdateFn,
        d: Option<Reg>,
        b: Reg,
        c: Reg,
        bytes: u32,
        strength: Strength,
    },
    Fence,
    Meet(Box<Meeting>),
    Barrier(Box<BarrierUse>),
    Branch {
        to: u32,
    },
    BranchIndexed {
        index: Reg,
        to: Box<[u32]>,
    },
    Call {
        /// By its number in `Code::functions`.
        function: usize,
        arguments: Box<[Passed]>,
        results: Box<[Passed]>,
    },
    Return,
    Exit,
    Trap,
    Breakpoint,
    /// `__assertfail`.
    AssertionFailed,
    Sleep,
    Nothing,
}

#[derive(Debug)]
pub(crate) struct Ins {
    pub(crate) line: u32,
    pub(crate) guard: Option<PredUse>,
    pub(crate) op: Op,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Special {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    LaneId,
    WarpId,
    Warps,
    LanesEq,
    LanesLe,
    LanesLt,
    LanesGe,
    LanesGt,
    SmId,
    Sms,
    GridId,
    DynamicShared,
    TotalShared,
}

/// What a hidden register of a frame holds from the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Constant {
    Value(u64),
    Special(Special),
    /// The address of a variable in global memory, by its number in the module, and what is added.
    Global(usize, i64),
    /// The address in shared memory of a variable, by its number in the module, and what is added.
    Shared(usize, i64),
    /// An offset into the frame's part of local memory.
    Local(i64),
    /// An offset behind all shared memory of fixed size.
    DynamicShared(i64),
}

#[derive(Debug)]
pub(crate) struct Code {
    /// All functions of the module, one after the other.
    pub(crate) ins: Vec<Ins>,
    pub(crate) functions: Vec<FunctionCode>,
    /// The names of the module's variables in global memory, as `Constant::Global` counts them.
    pub(crate) global_names: Vec<String>,
    pub(crate) lines: Vec<String>,
}

#[derive(Debug, Clone)]
pub(crate) struct FunctionCode {
    /// Its first instruction, and the one behind its last.
    pub(crate) entry: u32,
    pub(crate) end: u32,
    pub(crate) registers: u16,
    pub(crate) predicates: u16,
    pub(crate) constants: Vec<(Reg, Constant)>,
    /// The predicate that holds in all lanes from the beginning.
    pub(crate) truth: Option<Pred>,
    /// Of one frame: variables, parameters, results, and arguments for others.
    pub(crate) local_bytes: u32,
}

impl Code {
    pub(crate) fn text(&self, line: u32) -> &str {
        (line as usize)
            .checked_sub(1)
            .and_then(|index| self.lines.get(index))
            .map_or("", |text| text.trim())
    }
}
