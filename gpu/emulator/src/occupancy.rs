//! What programs ask to choose the shape of a launch, and limits of a context that mean nothing here.
//!
//! Rules: CUDA Driver API, 6.26 Occupancy and 6.8 (`cuCtxGetLimit`). The numbers are those of the device's attributes, with registers
//! left out, as nothing here has any.

use crate::call::{Out, functions};
use crate::code::Code;
use crate::context::current;
use crate::driver::Driver;
use crate::module::Function;

/// Threads, blocks and bytes of shared memory that a multiprocessor has, and of the last what each block costs besides its own.
const THREADS: u32 = 2048;
const BLOCKS: u32 = 32;
const SHARED_BYTES: u64 = 233_472;
const SHARED_BYTES_OF_BLOCK: u64 = 1024;

fn blocks_at_once(function: &Function, threads: u32, dynamic_bytes: u64) -> Result<u32, Code> {
    if threads == 0 || threads > function.most_threads() {
        return Err(Code::INVALID_VALUE);
    }
    if dynamic_bytes > u64::from(function.most_dynamic_shared_bytes()) {
        return Ok(0);
    }
    let of_block =
        u64::from(function.kernel.static_shared_bytes()) + dynamic_bytes + SHARED_BYTES_OF_BLOCK;
    let by_shared = u32::try_from(SHARED_BYTES / of_block).unwrap_or(BLOCKS);
    Ok((THREADS / threads.next_multiple_of(32))
        .min(BLOCKS)
        .min(by_shared))
}

fn active_blocks(
    driver: &Driver,
    blocks: Out<i32>,
    function: u64,
    threads: i32,
    dynamic_bytes: u64,
) -> Result<(), Code> {
    let function = driver.handles.function(function)?;
    let threads = u32::try_from(threads).map_err(|_| Code::INVALID_VALUE)?;
    blocks.put(blocks_at_once(&function, threads, dynamic_bytes)? as i32)
}

/// `CUlimit`: stack, printf's and malloc's room, depth and launches of kernels' own launches, fetches of the L2 cache, persisting lines.
const LIMITS: [u64; 7] = [1024, 7 << 20, 8 << 20, 2, 2048, 64, 0];

functions! { driver;
    /// `cuOccupancyMaxActiveBlocksPerMultiprocessor`.
    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks: Out<i32>, function: u64, threads: i32, dynamic_bytes: u64) {
        active_blocks(driver, blocks, function, threads, dynamic_bytes)
    }

    /// `cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags`.
    fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks: Out<i32>, function: u64, threads: i32, dynamic_bytes: u64, _flags: u32) {
        active_blocks(driver, blocks, function, threads, dynamic_bytes)
    }

    /// `cuOccupancyMaxPotentialBlockSize`: the largest block of those that fill a multiprocessor best.
    fn cuOccupancyMaxPotentialBlockSize(
        grid: Out<i32>,
        block: Out<i32>,
        function: u64,
        shared_bytes_of: Option<extern "C" fn(i32) -> u64>,
        dynamic_bytes: u64,
        most_threads: i32,
    ) {
        let function = driver.handles.function(function)?;
        let asked = u32::try_from(most_threads).ok().filter(|most| *most > 0).unwrap_or(u32::MAX);
        let most = function.most_threads().min(asked);
        let sizes = (1..=most.div_ceil(32)).map(|warps| (warps * 32).min(most));
        let filled = |threads: u32| {
            let bytes = shared_bytes_of.map_or(dynamic_bytes, |bytes| bytes(threads as i32));
            blocks_at_once(&function, threads, bytes).map_or(0, |blocks| blocks * threads)
        };
        let best = sizes.max_by_key(|threads| filled(*threads)).ok_or(Code::INVALID_VALUE)?;
        let multiprocessors = crate::device::MULTIPROCESSORS as u32;
        grid.put((filled(best) / best * multiprocessors) as i32)?;
        block.put(best as i32)
    }

    /// `cuCtxGetLimit`.
    fn cuCtxGetLimit(value: Out<u64>, limit: u32) {
        current()?;
        value.put(*LIMITS.get(limit as usize).ok_or(Code::UNSUPPORTED_LIMIT)?)
    }

    /// `cuCtxSetLimit`: nothing here is limited by them.
    fn cuCtxSetLimit(limit: u32, _value: u64) {
        current()?;
        LIMITS.get(limit as usize).map(|_| ()).ok_or(Code::UNSUPPORTED_LIMIT)
    }
}
