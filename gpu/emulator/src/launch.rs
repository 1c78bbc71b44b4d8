//! Launches of kernels: what is checked at the call, and the run in a stream.
//!
//! Rules: CUDA Driver API, 6.22 Execution Control, and docs/gpu-facts.md, Launches and Faults. What a kernel does is in `transload-ptx`.

use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};

use transload_ptx::{Fault, FaultKind, Launch, Options};

use crate::call::{Out, functions, say};
use crate::code::{Answer, Code};
use crate::counters::Number;
use crate::driver::Driver;
use crate::kernel_memory::KernelMemory;
use crate::module::Function;
use crate::stream_calls::Lane;

/// Blocks, threads of a block, and shared memory.
struct Shape {
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
}

impl Shape {
    /// `INVALID_VALUE` for every shape that the kernel or any device refuses.
    fn check(&self, function: &Function) -> Answer {
        let within = |given: [u32; 3], most: [u32; 3]| {
            given
                .iter()
                .zip(most)
                .all(|(given, most)| (1..=most).contains(given))
        };
        let threads = self
            .block
            .iter()
            .try_fold(1_u32, |product, size| product.checked_mul(*size));
        let fits = within(self.grid, [i32::MAX as u32, 65_535, 65_535])
            && within(self.block, [1024, 1024, 64])
            && threads.is_some_and(|threads| threads <= function.most_threads())
            && self.shared_bytes <= function.most_dynamic_shared_bytes();
        if fits {
            Ok(())
        } else {
            Err(Code::INVALID_VALUE)
        }
    }
}

/// The kernel's parameters, from a list of pointers or from a buffer. Neither, where it has some, and both are `INVALID_VALUE`.
fn parameters(
    function: &Function,
    list: Out<Out<u8>>,
    extra: Out<Out<u8>>,
) -> Result<Vec<u8>, Code> {
    let mut bytes = vec![0; function.kernel.parameter_bytes() as usize];
    match (list.is_null(), extra.is_null()) {
        (false, false) => return Err(Code::INVALID_VALUE),
        (true, true) if bytes.is_empty() => {}
        (true, true) => return Err(Code::INVALID_VALUE),
        (false, true) => {
            for (index, parameter) in function.kernel.parameters().iter().enumerate() {
                let from = list.at(index).get()?;
                for offset in 0..parameter.bytes as usize {
                    if let Some(byte) = bytes.get_mut(parameter.offset as usize + offset) {
                        *byte = from.at(offset).get()?;
                    }
                }
            }
        }
        (true, false) => from_buffer(&mut bytes, extra)?,
    }
    Ok(bytes)
}

/// `CU_LAUNCH_PARAM_BUFFER_POINTER` (1), `_BUFFER_SIZE` (2) and `_END` (0), each but the last followed by its value.
fn from_buffer(bytes: &mut [u8], extra: Out<Out<u8>>) -> Answer {
    let (mut buffer, mut size) = (None, 0_u64);
    let mut index = 0;
    loop {
        let value = extra.at(index + 1);
        match extra.at(index).get()?.address() {
            0 => break,
            1 => buffer = Some(value.get()?),
            2 => size = value.get()?.cast::<u64>().get()?,
            _ => return Err(Code::INVALID_VALUE),
        }
        index += 2;
    }
    let buffer = buffer.ok_or(Code::INVALID_VALUE)?;
    if size < bytes.len() as u64 {
        // Hardware does not check it either (recorded), and reads what lies behind.
        say!(
            "a kernel with {} bytes of parameters was given {size}: the rest is zero here and chance elsewhere",
            bytes.len()
        );
    }
    for (offset, byte) in bytes.iter_mut().enumerate().take(size as usize) {
        *byte = buffer.at(offset).get()?;
    }
    Ok(())
}

fn launch(
    driver: &'static Driver,
    function: u64,
    shape: Shape,
    stream: u64,
    list: Out<Out<u8>>,
    extra: Out<Out<u8>>,
) -> Answer {
    static LAUNCHES: AtomicU64 = AtomicU64::new(0);
    let function = driver.handles.function(function)?;
    let lane = Lane::of(driver, stream)?;
    shape.check(&function)?;
    let parameters = parameters(&function, list, extra)?;
    let number = LAUNCHES.fetch_add(1, Ordering::SeqCst);
    driver.counters.add(Number::Launches);
    let device = std::sync::Arc::clone(lane.context.device());
    lane.submit(move || {
        driver.plan.at_call("launch")?;
        let memory = KernelMemory::of(driver, &device);
        let launch = Launch {
            grid: shape.grid,
            block: shape.block,
            dynamic_shared_bytes: shape.shared_bytes,
            parameters: &parameters,
            globals: &|name| function.variables.get(name).map(|(address, _)| *address),
        };
        let seed = driver.settings.chaos.map(|seed| seed.wrapping_add(number));
        let options = Options {
            seed,
            most_instructions: driver.settings.most_instructions,
            ..Options::new(device.fault.flag())
        };
        transload_ptx::run(&function.kernel, &launch, &memory, &options)
            .map(|_| ())
            .map_err(|fault| code_of(&fault))
    });
    Ok(())
}

/// The code of a fault, which is told in full.
fn code_of(fault: &Fault) -> Code {
    if fault.kind != FaultKind::Cancelled {
        say!("a kernel faulted: {fault}");
    }
    match fault.kind {
        FaultKind::IllegalAddress => Code::ILLEGAL_ADDRESS,
        FaultKind::Misaligned => Code::MISALIGNED_ADDRESS,
        FaultKind::Assertion => Code::ASSERT,
        FaultKind::StackOverflow => Code::HARDWARE_STACK_ERROR,
        FaultKind::Deadlock | FaultKind::Endless => Code::LAUNCH_TIMEOUT,
        // What hardware may let pass, or answers by chance, ends a kernel here.
        FaultKind::Trap
        | FaultKind::BadShuffle
        | FaultKind::BadBarrier
        | FaultKind::Uninitialised
        | FaultKind::Race => Code::LAUNCH_FAILED,
        FaultKind::BadLaunch | FaultKind::Cancelled => Code::LAUNCH_FAILED,
    }
}

/// `CUlaunchConfig`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Config {
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    stream: u64,
    attributes: *const c_void,
    count: u32,
}

functions! { driver;
    /// `cuLaunchKernel`: the function is judged before the context. Parameters are copied before it returns.
    fn cuLaunchKernel(
        function: u64,
        grid_x: u32,
        grid_y: u32,
        grid_z: u32,
        block_x: u32,
        block_y: u32,
        block_z: u32,
        shared_bytes: u32,
        stream: u64,
        list: Out<Out<u8>>,
        extra: Out<Out<u8>>,
    ) {
        let shape = Shape { grid: [grid_x, grid_y, grid_z], block: [block_x, block_y, block_z], shared_bytes };
        launch(driver, function, shape, stream, list, extra)
    }

    /// `cuLaunchKernelEx`, without attributes.
    fn cuLaunchKernelEx(config: Out<Config>, function: u64, list: Out<Out<u8>>, extra: Out<Out<u8>>) {
        let Config { grid, block, shared_bytes, stream, count, .. } = config.get()?;
        if count != 0 {
            say!("cuLaunchKernelEx with attributes is not emulated: it answers CUDA_ERROR_NOT_SUPPORTED");
            return Err(Code::NOT_SUPPORTED);
        }
        launch(driver, function, Shape { grid, block, shared_bytes }, stream, list, extra)
    }
}
