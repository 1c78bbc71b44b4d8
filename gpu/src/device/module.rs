//! Kernels, from their text to their launch. Called by operators on device partitions; knows no kernel.

use std::ffi::{CString, c_void};
use std::fmt;
use std::sync::Arc;

use transload_cuda_driver::{
    Code, cuLaunchKernel, cuModuleGetFunction, cuModuleLoadDataEx, cuModuleUnload,
};

use super::context::Device;
use super::error::{DeviceError, check};

/// What `cuModuleGetFunction` answers where there is no such kernel.
const NOT_FOUND: u32 = 500;
/// `CU_JIT_ERROR_LOG_BUFFER` and the size of it.
const LOG: [u32; 2] = [5, 6];
const LOG_BYTES: usize = 4 << 10;

/// Kernels that the driver has compiled for a device. Clones share them. To load them waits for kernels that run, so it is done at the
/// start.
#[derive(Clone)]
pub struct Module {
    shared: Arc<Shared>,
}

struct Shared {
    device: Device,
    module: u64,
}

/// One kernel of a module.
#[derive(Clone)]
pub struct Function {
    _module: Module,
    function: u64,
    name: String,
}

/// How many threads: blocks, and threads of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Bytes of shared memory that each block has on top of what the kernel declares.
    pub shared_bytes: u32,
}

impl Module {
    /// Compiles PTX for this device.
    ///
    /// # Errors
    /// [`DeviceError::Module`] with the compiler's words.
    pub fn load(device: &Device, ptx: &str) -> Result<Self, DeviceError> {
        device.enter()?;
        let text = CString::new(ptx).map_err(|_| DeviceError::Module {
            reason: "its text has a zero byte".to_owned(),
        })?;
        let mut log = vec![0_u8; LOG_BYTES];
        // The driver takes a size as if it were a pointer.
        let mut values = [
            log.as_mut_ptr().expose_provenance() as u64,
            LOG_BYTES as u64,
        ];
        let mut module = 0;
        // SAFETY: the text ends with a zero, the log has the length that is said, and both options have their value.
        let code = unsafe {
            cuModuleLoadDataEx(
                &mut module,
                text.as_ptr().cast(),
                LOG.len() as u32,
                LOG.as_ptr(),
                values.as_mut_ptr(),
            )
        };
        let said = log.split(|byte| *byte == 0).next().unwrap_or_default();
        refused(code, &String::from_utf8_lossy(said))?;
        Ok(Self {
            shared: Arc::new(Shared {
                device: device.clone(),
                module,
            }),
        })
    }

    /// The kernel of this name.
    ///
    /// # Errors
    /// [`DeviceError::Module`] where there is none, and what else is wrong.
    pub fn function(&self, name: &str) -> Result<Function, DeviceError> {
        self.shared.device.enter()?;
        let missing = || DeviceError::Module {
            reason: format!("it has no kernel {name}"),
        };
        let text = CString::new(name).map_err(|_| missing())?;
        let mut function = 0;
        // SAFETY: the name ends with a zero, and the pointer is of a local.
        let code =
            unsafe { cuModuleGetFunction(&mut function, self.shared.module, text.as_ptr().cast()) };
        if code.0 == NOT_FOUND {
            return Err(missing());
        }
        check("cuModuleGetFunction", code)?;
        Ok(Function {
            _module: self.clone(),
            function,
            name: name.to_owned(),
        })
    }
}

/// The compiler's words where it refused a text.
fn refused(code: Code, said: &str) -> Result<(), DeviceError> {
    check("cuModuleLoadDataEx", code).map_err(|error| match error {
        DeviceError::Call { code, .. } => DeviceError::Module {
            reason: format!("{code}: {}", said.trim()),
        },
        other => other,
    })
}

impl Function {
    /// Enqueues it. `arguments` are the bytes of all, and each begins at one of `offsets`, in the order of its parameters.
    ///
    /// # Safety
    /// They are as many, as long and of the meaning that the kernel declares; what it reads and writes lives until it has ended, and nobody
    /// else writes it, or reads what it writes, meanwhile.
    pub(super) unsafe fn launch(
        &self,
        stream: u64,
        shape: Shape,
        arguments: &[u8],
        offsets: &[u32],
    ) -> Result<(), DeviceError> {
        let mut pointers: Vec<*mut c_void> = offsets
            .iter()
            .map(|at| arguments[*at as usize..].as_ptr().cast_mut().cast())
            .collect();
        let ([grid_x, grid_y, grid_z], [x, y, z]) = (shape.grid, shape.block);
        // SAFETY: the driver copies the arguments before it returns; the rest is the caller's.
        let code = unsafe {
            cuLaunchKernel(
                self.function,
                grid_x,
                grid_y,
                grid_z,
                x,
                y,
                z,
                shape.shared_bytes,
                stream,
                pointers.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        };
        check("cuLaunchKernel", code)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.device.enter().is_ok() {
            // SAFETY: loaded by `load`, and no function of it is left.
            unsafe { cuModuleUnload(self.module) };
        }
    }
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Module(of {:?})", self.shared.device)
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Function({})", self.name)
    }
}
