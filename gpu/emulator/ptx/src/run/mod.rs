//! Runs a kernel: blocks one after the other or a few at once, each as warps of 32 lanes. Called by whoever launches.
//!
//! Deterministic without a seed. With one, blocks and warps take turns by chance, so that results which depend on the
//! order differ from seed to seed.

mod access;
mod barrier;
mod block;
mod chance;
mod control;
mod frame;
mod meet;
mod race;
mod spot;
mod step;
mod warp;

use std::sync::atomic::{AtomicBool, Ordering};

use crate::code::Ins;
use crate::counters::{Counters, Coverage};
use crate::fault::{Fault, FaultKind};
use crate::memory::Memory;
use crate::module::Kernel;
use block::Block;
use chance::Chance;

/// How a kernel is launched.
pub struct Launch<'a> {
    /// Blocks of the grid, by dimension.
    pub grid: [u32; 3],
    /// Threads of a block, by dimension.
    pub block: [u32; 3],
    /// Shared memory behind what the kernel has by itself.
    pub dynamic_shared_bytes: u32,
    /// All parameters at their offsets.
    pub parameters: &'a [u8],
    /// Where the variables of the module lie in global memory.
    pub globals: &'a dyn Fn(&str) -> Option<u64>,
}

/// How a run behaves.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// Chance for the order of blocks and warps; none for the order of their numbers.
    pub seed: Option<u64>,
    /// Ends the run with [`FaultKind::Cancelled`] soon after it is set.
    pub cancelled: &'a AtomicBool,
    /// Ends the run with [`FaultKind::Endless`] once its warps have issued more. Default none.
    pub most_instructions: Option<u64>,
    /// Whether races on shared memory are faults. Default true.
    pub find_races: bool,
    /// Whether values that were never written are faults. Default true.
    pub find_uninitialised: bool,
}

impl<'a> Options<'a> {
    /// All checks, no chance.
    pub fn new(cancelled: &'a AtomicBool) -> Self {
        Self {
            seed: None,
            cancelled,
            most_instructions: None,
            find_races: true,
            find_uninitialised: true,
        }
    }
}

/// What all blocks of a launch share.
pub(crate) struct Grid<'a> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) launch: &'a Launch<'a>,
    pub(crate) memory: &'a dyn Memory,
    pub(crate) options: &'a Options<'a>,
    /// The addresses of the module's variables, by their numbers.
    pub(crate) globals: Vec<u64>,
    pub(crate) threads: u32,
    pub(crate) shared_bytes: u32,
    /// Where dynamic shared memory begins.
    pub(crate) dynamic_shared: u32,
}

/// Threads of a block that any device allows.
const MOST_THREADS: u32 = 1024;
/// Shared memory of a block that any device allows, with some room.
const MOST_SHARED_BYTES: u32 = 256 << 10;
/// Instructions of a warp before another has its turn, without chance.
const QUANTUM: u32 = 4096;
/// Rounds that a block may take before the next joins it: more than most blocks take, fewer than anyone waits for.
const PATIENCE: u32 = 512;
/// Blocks that run at once at most: as many as wait for another.
const MOST_BLOCKS_AT_ONCE: usize = 64;

/// Runs all blocks. Errors: the first fault, after which memory is as the kernel left it.
pub fn run(
    kernel: &Kernel,
    launch: &Launch<'_>,
    memory: &dyn Memory,
    options: &Options<'_>,
) -> Result<Counters, Fault> {
    let grid = Grid::new(kernel, launch, memory, options)?;
    let mut counters = Counters {
        coverage: Coverage::for_instructions(kernel.code.ins.len()),
        ..Counters::default()
    };
    let mut chance = options.seed.map(Chance::new);
    let blocks: u64 = launch.grid.iter().map(|n| u64::from(*n)).product();
    let mut order = chance::Order::new(blocks, chance.as_mut());
    let mut at_once = Vec::new();
    let mut spare: Vec<Block> = Vec::new();
    let wanted = |chance: &mut Option<Chance>| match chance {
        Some(chance) => 1 + chance.below(4) as usize,
        None => 1,
    };
    let mut room = wanted(&mut chance);
    loop {
        while at_once.len() < room
            && let Some(number) = order.next()
        {
            let mut block = spare.pop().unwrap_or_default();
            block.begin(&grid, number, chance.as_mut());
            at_once.push(block);
        }
        if at_once.is_empty() {
            return Ok(counters);
        }
        let mut index = 0;
        while let Some(block) = at_once.get_mut(index) {
            grid.may_go_on(block, &counters)?;
            if block.round(&grid, &mut counters, chance.as_mut())? {
                spare.push(at_once.swap_remove(index));
                room = wanted(&mut chance).max(at_once.len());
            } else {
                index += 1;
            }
        }
        // Somebody may wait for a block that has not begun, or for the host.
        if !at_once.is_empty() && at_once.iter().all(|block| block.rounds > PATIENCE) {
            room = (at_once.len() + 1).min(MOST_BLOCKS_AT_ONCE);
            std::thread::yield_now();
        }
    }
}

/// Where a fault happened.
#[derive(Clone, Copy, Default)]
pub(crate) struct Place<'a> {
    pub(crate) ins: Option<&'a Ins>,
    pub(crate) block: [u32; 3],
    /// The number of the thread in its block.
    pub(crate) thread: u32,
    pub(crate) address: Option<u64>,
}

impl<'a> Grid<'a> {
    fn new(
        kernel: &'a Kernel,
        launch: &'a Launch<'a>,
        memory: &'a dyn Memory,
        options: &'a Options<'a>,
    ) -> Result<Self, Fault> {
        let dynamic_shared = kernel.static_shared_bytes.next_multiple_of(16);
        let threads = launch
            .block
            .iter()
            .fold(1_u32, |product, n| product.saturating_mul(*n));
        let shared_bytes = dynamic_shared.saturating_add(launch.dynamic_shared_bytes);
        let grid = Self {
            kernel,
            launch,
            memory,
            options,
            globals: Vec::new(),
            threads,
            shared_bytes,
            dynamic_shared,
        };
        let bad = |detail: String| Err(grid.fault(FaultKind::BadLaunch, Place::default(), detail));
        if threads == 0 || launch.grid.contains(&0) {
            return bad("a grid or block has no threads".to_owned());
        }
        let most = kernel
            .max_threads()
            .unwrap_or(MOST_THREADS)
            .min(MOST_THREADS);
        if threads > most {
            return bad(format!(
                "a block of {threads} threads, where {most} are the most"
            ));
        }
        if shared_bytes > MOST_SHARED_BYTES {
            return bad(format!(
                "{shared_bytes} bytes of shared memory, more than any device has"
            ));
        }
        let wanted = kernel.parameter_bytes() as usize;
        if launch.parameters.len() < wanted {
            return bad(format!(
                "{} bytes of parameters, where the kernel wants {wanted}",
                launch.parameters.len()
            ));
        }
        let mut globals = Vec::new();
        for name in &kernel.code.global_names {
            match (launch.globals)(name) {
                Some(address) => globals.push(address),
                None => return bad(format!("the variable `{name}` has no address")),
            }
        }
        Ok(Self { globals, ..grid })
    }

    fn may_go_on(&self, block: &Block, counters: &Counters) -> Result<(), Fault> {
        if self.options.cancelled.load(Ordering::Relaxed) {
            let detail = "the run was cancelled".to_owned();
            return Err(self.fault(FaultKind::Cancelled, block.place(), detail));
        }
        match self.options.most_instructions {
            Some(most) if counters.warp_instructions > most => {
                let detail = format!("its warps issued more than {most} instructions");
                Err(self.fault(FaultKind::Endless, block.place(), detail))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn fault(&self, kind: FaultKind, place: Place<'_>, detail: String) -> Fault {
        let [x, y, _] = self.launch.block.map(|n| n.max(1));
        let line = place.ins.map_or(0, |ins| ins.line);
        Fault {
            kind,
            kernel: self.kernel.name.clone(),
            line,
            text: self.kernel.code.text(line).to_owned(),
            block: place.block,
            thread: [place.thread % x, place.thread / x % y, place.thread / x / y],
            address: place.address,
            detail,
        }
    }
}
