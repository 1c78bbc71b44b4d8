//! Carries out the steps of operators on a stream. Called by [`super::columns`]; knows no operator.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use transload_cuda_driver::{cuMemcpyDtoDAsync_v2, cuMemcpyDtoHAsync_v2, cuMemsetD8Async};

use super::copies::first_pieces;
use super::error::{DeviceError, check};
use super::jobs::Jobs;
use super::memory::{DeviceBuffer, DeviceMemory};
use super::module::{Function, Module, Shape};
use super::pinned::{PinnedBuffer, PinnedPool};
use super::stream::{Completion, Stream};
use super::traffic::Path;
use crate::kernels::{Address, Grid, Launch, Operator, Step, modules};

/// Blocks of a launch whose threads go through rows in strides: some for each multiprocessor of the largest devices.
const MOST_BLOCKS: u32 = 1_024;
/// Page-locked memory for numbers that the host is to learn: a page for each.
const NUMBERS_BYTES: u64 = 64 << 10;

/// The kernels of all operators, compiled for a device, and the stream on which they run. Clones share them.
#[derive(Clone)]
pub struct Kernels {
    shared: Arc<Shared>,
}

struct Shared {
    memory: DeviceMemory,
    pinned: PinnedPool,
    stream: Stream,
    /// Hands steps to the driver, and locks memory.
    submits: Jobs,
    functions: BTreeMap<&'static str, Function>,
}

/// Operators, to be carried out one after the other.
pub(super) type Operators = Vec<Box<dyn Operator + Send + Sync>>;

/// What is kept until operators have ended: also scratch, what is learnt, and the modules, which kernels that wait in the stream need.
type Kept<K> = (K, Option<DeviceBuffer>, Option<PinnedBuffer>, Kernels);

/// Numbers that the host is to learn: from where, and how many bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Learn {
    pub(super) from: Address,
    pub(super) bytes: u64,
}

impl Kernels {
    /// Compiles them, which takes milliseconds for each, and is done once.
    ///
    /// # Errors
    /// [`DeviceError::Module`] where the driver refuses one, or one takes other arguments than it is given here.
    pub fn load(memory: &DeviceMemory, pinned: &PinnedPool) -> Result<Self, DeviceError> {
        let mut functions = BTreeMap::new();
        let mismatch = |error: &dyn fmt::Display| DeviceError::Module {
            reason: error.to_string(),
        };
        for module in modules().map_err(|error| mismatch(&error))? {
            let loaded = Module::load(memory.device(), module.ptx)?;
            for kernel in module.kernels {
                functions.insert(kernel, loaded.function(kernel)?);
            }
        }
        Ok(Self {
            shared: Arc::new(Shared {
                memory: memory.clone(),
                pinned: pinned.clone(),
                stream: Stream::new(memory.device(), "compute")?,
                submits: Jobs::start("submit")?,
                functions,
            }),
        })
    }

    /// The same kernels, on another stream, for what does not wait behind operators, and learns no more than a few numbers. Its page-locked
    /// memory is its own, so that it goes on where there is no other.
    pub(super) fn on_a_stream_of_its_own(&self, name: &'static str) -> Result<Self, DeviceError> {
        let memory = self.memory();
        Ok(Self {
            shared: Arc::new(Shared {
                memory: memory.clone(),
                pinned: PinnedPool::new(memory.device(), NUMBERS_BYTES),
                stream: Stream::new(memory.device(), name)?,
                submits: Jobs::start(name)?,
                functions: self.shared.functions.clone(),
            }),
        })
    }

    /// The memory that operators work in.
    pub fn memory(&self) -> &DeviceMemory {
        &self.shared.memory
    }

    /// The stream on which they run.
    pub fn stream(&self) -> &Stream {
        &self.shared.stream
    }

    /// Carries out operators, one after the other, and gives what was kept for them, and the numbers to be learnt.
    ///
    /// # Safety
    /// Every address in `operators` is of memory in `keep`, as long as the operator says, and nobody else writes it, or reads what is
    /// written, until it has ended. `learn` is of memory in `keep`.
    pub(super) async unsafe fn run<K: Send + 'static>(
        &self,
        keep: K,
        operators: Operators,
        learn: Option<Learn>,
    ) -> Result<(K, Vec<u8>), DeviceError> {
        let kernels = self.clone();
        // SAFETY: the caller's.
        let submit = move || unsafe { kernels.submit(keep, &operators, learn) };
        let submitted = self.shared.submits.run(submit).await?;
        let (keep, _, learnt, _) = submitted.await?;
        Ok((keep, learnt.map_or_else(Vec::new, |it| it.to_vec())))
    }

    /// Not on a thread that runs tasks: there may be thousands of steps, and memory to be locked.
    ///
    /// # Safety
    /// As [`Kernels::run`].
    unsafe fn submit<K: Send + 'static>(
        &self,
        keep: K,
        operators: &Operators,
        learn: Option<Learn>,
    ) -> Result<Completion<Kept<K>>, DeviceError> {
        // One after the other, so they can share it.
        let scratch_bytes = operators.iter().map(|it| it.scratch_bytes()).max();
        let scratch = match scratch_bytes {
            None | Some(0) => None,
            Some(bytes) => Some(self.memory().try_allocate(bytes)?),
        };
        let learnt = match &learn {
            Some(learn) => Some(self.shared.pinned.try_allocate(learn.bytes)?),
            None => None,
        };
        let at = Address(scratch.as_ref().map_or(0, DeviceBuffer::address));
        let grid = Grid {
            most_blocks: MOST_BLOCKS,
        };
        let steps: Vec<Step> = operators.iter().flat_map(|it| it.steps(at, grid)).collect();
        let keep = (keep, scratch, learnt, self.clone());
        let enqueue = |(_, _, learnt, _): &Kept<K>, stream| {
            for step in &steps {
                // SAFETY: the caller's; scratch is as long as each operator asked for.
                unsafe { self.enqueue(step, stream) }?;
            }
            if let (Some(learn), Some(to)) = (&learn, learnt) {
                // SAFETY: the source is in `keep`, the destination as long as was asked for.
                unsafe { self.read(learn, to, stream) }?;
            }
            Ok(())
        };
        Ok(self.shared.stream.submit(keep, enqueue))
    }

    /// # Safety
    /// As [`Kernels::run`].
    unsafe fn enqueue(&self, step: &Step, stream: u64) -> Result<(), DeviceError> {
        match step {
            Step::Launch(launch) => {
                let function = self.function(launch)?;
                let shape = Shape {
                    grid: [launch.blocks, 1, 1],
                    block: [launch.threads, 1, 1],
                    shared_bytes: 0,
                };
                let parameters = &launch.parameters;
                // SAFETY: `modules` has compared the arguments with the kernel's own; the rest is the caller's.
                unsafe { function.launch(stream, shape, parameters.bytes(), parameters.offsets()) }
            }
            Step::Zero { at, bytes } => {
                // SAFETY: the caller's.
                check("cuMemsetD8Async", unsafe {
                    cuMemsetD8Async(at.0, 0, *bytes as usize, stream)
                })
            }
            Step::Copy { from, to, bytes } => {
                // SAFETY: the caller's.
                check("cuMemcpyDtoDAsync", unsafe {
                    cuMemcpyDtoDAsync_v2(to.0, from.0, *bytes as usize, stream)
                })?;
                let traffic = self.memory().device().traffic();
                traffic.add(Path::DeviceToDevice, *bytes);
                Ok(())
            }
        }
    }

    fn function(&self, launch: &Launch) -> Result<&Function, DeviceError> {
        let function = self.shared.functions.get(launch.kernel);
        function.ok_or_else(|| DeviceError::Module {
            reason: format!("there is no kernel {}", launch.kernel),
        })
    }

    /// # Safety
    /// The source is device memory that lives until it has been read.
    unsafe fn read(
        &self,
        learn: &Learn,
        to: &PinnedBuffer,
        stream: u64,
    ) -> Result<(), DeviceError> {
        for (host, at, bytes) in first_pieces(to, learn.bytes)? {
            // SAFETY: the caller's, and the piece is ours.
            check("cuMemcpyDtoHAsync", unsafe {
                cuMemcpyDtoHAsync_v2(host, learn.from.0 + at, bytes as usize, stream)
            })?;
            let traffic = self.memory().device().traffic();
            traffic.add(Path::DeviceToPinned, bytes);
        }
        Ok(())
    }
}

impl fmt::Debug for Kernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kernels(of {:?})", self.memory().device())
    }
}
