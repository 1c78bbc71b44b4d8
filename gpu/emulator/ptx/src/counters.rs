//! What a run did, in numbers that do not depend on the machine, and which outcomes of its branches it saw.

use crate::code::Op;
use crate::module::Kernel;

/// Counted over all threads of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Instructions as warps issue them: one for all lanes that run it together.
    pub warp_instructions: u64,
    /// Instructions as threads execute them, without those that a predicate suppressed.
    pub thread_instructions: u64,
    /// Loads from global memory, one for all lanes together.
    pub global_loads: u64,
    /// Sectors of 32 bytes that those loads touched.
    pub global_load_sectors: u64,
    /// Stores to global memory, one for all lanes together.
    pub global_stores: u64,
    /// Sectors of 32 bytes that those stores touched.
    pub global_store_sectors: u64,
    /// Atomic operations on global memory, one for each lane.
    pub global_atomics: u64,
    /// Loads, stores and atomic operations on shared memory, one for all lanes together.
    pub shared_requests: u64,
    /// Barriers of a block that were completed.
    pub barriers: u64,
    /// Which outcomes were seen.
    pub coverage: Coverage,
}

/// For each instruction of the module whether it ran, and whether its predicate held and failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    outcomes: Vec<u8>,
}

/// An outcome that no run saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Uncovered {
    /// The line of the PTX text.
    pub line: u32,
    /// What never happened there.
    pub outcome: Outcome,
}

/// What can happen at an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It was reached.
    Reached,
    /// Its predicate held.
    Taken,
    /// Its predicate failed.
    NotTaken,
}

const TAKEN: u8 = 1;
const NOT_TAKEN: u8 = 2;

impl Coverage {
    pub(crate) fn for_instructions(count: usize) -> Self {
        Self {
            outcomes: vec![0; count],
        }
    }

    #[inline(always)]
    pub(crate) fn note(&mut self, pc: usize, taken: bool, not_taken: bool) {
        if let Some(outcome) = self.outcomes.get_mut(pc) {
            *outcome |= (u8::from(taken) * TAKEN) | (u8::from(not_taken) * NOT_TAKEN);
        }
    }

    /// Adds what another run of a kernel of the same module saw.
    pub fn merge(&mut self, other: &Self) {
        if self.outcomes.len() < other.outcomes.len() {
            self.outcomes.resize(other.outcomes.len(), 0);
        }
        for (mine, others) in self.outcomes.iter_mut().zip(&other.outcomes) {
            *mine |= others;
        }
    }

    /// What `kernel` and the functions that it calls have and no run saw, by line.
    pub fn uncovered(&self, kernel: &Kernel) -> Vec<Uncovered> {
        let mut uncovered = Vec::new();
        let functions = kernel.reaches.iter();
        for function in functions.filter_map(|number| kernel.code.functions.get(*number)) {
            // The last is the return that every function ends with, written or not.
            for pc in function.entry as usize..(function.end as usize).saturating_sub(1) {
                let seen = self.outcomes.get(pc).copied().unwrap_or(0);
                let Some(ins) = kernel.code.ins.get(pc) else {
                    continue;
                };
                let mut miss = |outcome| {
                    uncovered.push(Uncovered {
                        line: ins.line,
                        outcome,
                    });
                };
                let conditional = ins.guard.is_some() && !matches!(ins.op, Op::Nothing);
                if seen == 0 {
                    miss(Outcome::Reached);
                } else if conditional && seen & TAKEN == 0 {
                    miss(Outcome::Taken);
                } else if conditional && seen & NOT_TAKEN == 0 {
                    miss(Outcome::NotTaken);
                }
            }
        }
        uncovered.sort_unstable();
        uncovered.dedup();
        uncovered
    }
}

impl Counters {
    /// Adds another run's.
    pub fn merge(&mut self, other: &Self) {
        self.warp_instructions += other.warp_instructions;
        self.thread_instructions += other.thread_instructions;
        self.global_loads += other.global_loads;
        self.global_load_sectors += other.global_load_sectors;
        self.global_stores += other.global_stores;
        self.global_store_sectors += other.global_store_sectors;
        self.global_atomics += other.global_atomics;
        self.shared_requests += other.shared_requests;
        self.barriers += other.barriers;
        self.coverage.merge(&other.coverage);
    }
}
