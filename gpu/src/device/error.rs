//! What goes wrong with a GPU, in words with the remedy. Called by all of `device`.

use std::io;
use std::path::PathBuf;

use transload_cuda_driver::Code;

use crate::{Budget, HeaderError, OutOfBudget, Reservation};

/// A GPU could not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// There is no driver.
    #[error(
        "there is no CUDA driver here: libcuda.so.1 was not found; install NVIDIA's driver, or do without a GPU"
    )]
    NoDriver,
    /// The driver is there and cannot be used.
    #[error("the CUDA driver here cannot be used: {reason}")]
    Unusable {
        /// Why, in words.
        reason: String,
    },
    /// There are fewer devices.
    #[error(
        "there is no GPU {ordinal}: the driver shows {count}; see nvidia-smi, and CUDA_VISIBLE_DEVICES"
    )]
    NoDevice {
        /// Which was asked for.
        ordinal: u32,
        /// How many there are.
        count: u32,
    },
    /// The budget is exhausted.
    #[error(transparent)]
    OutOfBudget(#[from] OutOfBudget),
    /// The driver has no memory left to give.
    #[error(
        "the driver has not {requested_bytes} B of {what} left; give it a smaller limit, or end other programs that use some"
    )]
    OutOfMemory {
        /// Of which kind.
        what: &'static str,
        /// Bytes that were asked for.
        requested_bytes: u64,
    },
    /// The driver has no memory of its own left for what a call makes: a stream, an event, a module, a launch.
    #[error(
        "the driver has no memory left for {function}: it needs some beside what was taken for partitions; take less of the GPU's \
         memory for those, or end other programs that use it"
    )]
    DriverMemory {
        /// The driver's function.
        function: &'static str,
    },
    /// There is enough in all, and not in one piece.
    #[error(
        "{requested_bytes} B of device memory are not free in one piece: the longest is {longest_bytes} of {free_bytes} B; move \
         partitions off the GPU, or cut the work into smaller pieces"
    )]
    Fragmented {
        /// Bytes that were asked for.
        requested_bytes: u64,
        /// The longest free piece.
        longest_bytes: u64,
        /// All that is free.
        free_bytes: u64,
    },
    /// Kernels could not be loaded.
    #[error("kernels cannot be used on this GPU: {reason}")]
    Module {
        /// Why, in the words of the driver's compiler.
        reason: String,
    },
    /// Columns do not belong together, or are not what they are said to be.
    #[error("columns in device memory: {reason}")]
    Column {
        /// What is wrong, in words.
        reason: String,
    },
    /// Memory of one device was given to what works on another.
    #[error(
        "memory of GPU {actual} was given to what works on GPU {expected}; bring it there by way of host memory"
    )]
    OtherDevice {
        /// Where it would be used.
        expected: u32,
        /// Where it is.
        actual: u32,
    },
    /// Memory was to be made under a reservation of less, or of another budget: a bug in this process.
    #[error("{bytes} B of {budget} under {reservation}; please report this bug")]
    Reservation {
        /// Bytes that are needed.
        bytes: u64,
        /// What they are of.
        budget: String,
        /// What there was for them.
        reservation: String,
    },
    /// Something that was done for a GPU panicked: a bug in this process.
    #[error("work for a GPU panicked: {reason}; please report this bug")]
    Panicked {
        /// The panic's words.
        reason: String,
    },
    /// A copy between places of different sizes: a bug in this process.
    #[error("a copy of {from_bytes} B into {to_bytes} B; please report this bug")]
    Sizes {
        /// Bytes at its source.
        from_bytes: u64,
        /// Bytes at its destination.
        to_bytes: u64,
    },
    /// A file could not be read or written.
    #[error(
        "cannot {verb} spilled device memory, {}: {reason}; {remedy}",
        path.display()
    )]
    Disk {
        /// What was tried.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// [`io::ErrorKind::StorageFull`] for a full disk.
        kind: io::ErrorKind,
        /// What the operating system said.
        reason: String,
        /// What helps, in words.
        remedy: &'static str,
    },
    /// A file is not what was written.
    #[error(
        "spilled device memory, {}, is corrupt: {reason}; check the disk, or choose another spill directory",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, in words.
        reason: String,
    },
    /// A kernel did what it must not, or the hardware failed. Nothing on this device works in this process from then on.
    #[error(
        "the GPU is lost to this process after a fault, {code}: it has to be started anew ({function} told)"
    )]
    Lost {
        /// The call that told so.
        function: &'static str,
        /// The driver's name of the fault.
        code: String,
    },
    /// A call failed that should not.
    #[error(
        "{function} failed with {code}, and may succeed when it is tried again; if not, please report it with what nvidia-smi says"
    )]
    Call {
        /// The driver's function.
        function: &'static str,
        /// What it answered.
        code: String,
    },
}

/// Codes after which a device is of no use to the process (docs/gpu-facts.md, "Faults").
const LOST: [u32; 14] = [
    214, // ECC_UNCORRECTABLE
    220, // NVLINK_UNCORRECTABLE
    226, // CONTAINED
    700, // ILLEGAL_ADDRESS
    702, // LAUNCH_TIMEOUT
    709, // CONTEXT_IS_DESTROYED
    710, // ASSERT
    714, // HARDWARE_STACK_ERROR
    715, // ILLEGAL_INSTRUCTION
    716, // MISALIGNED_ADDRESS
    717, // INVALID_ADDRESS_SPACE
    718, // INVALID_PC
    719, // LAUNCH_FAILED
    999, // UNKNOWN
];
const OUT_OF_MEMORY: u32 = 2;

impl From<HeaderError> for DeviceError {
    fn from(error: HeaderError) -> Self {
        Self::Unusable {
            reason: error.to_string(),
        }
    }
}

impl DeviceError {
    /// Whether it may succeed once somebody, here or in another program, has given memory free.
    pub fn is_about_memory(&self) -> bool {
        matches!(
            self,
            Self::OutOfBudget(_)
                | Self::OutOfMemory { .. }
                | Self::DriverMemory { .. }
                | Self::Fragmented { .. }
        )
    }

    /// The same, of a request for so much as a whole.
    pub(super) fn of(self, requested_bytes: u64) -> Self {
        match self {
            Self::OutOfMemory { what, .. } => Self::OutOfMemory {
                what,
                requested_bytes,
            },
            other => other,
        }
    }

    /// Whether nothing on this device will work any more.
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Lost { .. })
    }
}

/// The answer of `function` as a result.
pub(super) fn check(function: &'static str, code: Code) -> Result<(), DeviceError> {
    if code.is_ok() {
        return Ok(());
    }
    if code == Code::ABSENT {
        return Err(DeviceError::Unusable {
            reason: format!("it has no {function}; install a driver for CUDA 12 or later"),
        });
    }
    if code.0 == OUT_OF_MEMORY {
        return Err(DeviceError::DriverMemory { function });
    }
    let name = code.to_string();
    Err(if LOST.contains(&code.0) {
        DeviceError::Lost {
            function,
            code: name,
        }
    } else {
        DeviceError::Call {
            function,
            code: name,
        }
    })
}

/// The same of a call that takes so much memory.
pub(super) fn check_memory(
    function: &'static str,
    code: Code,
    what: &'static str,
    requested_bytes: u64,
) -> Result<(), DeviceError> {
    if code.0 == OUT_OF_MEMORY {
        return Err(DeviceError::OutOfMemory {
            what,
            requested_bytes,
        });
    }
    check(function, code)
}

/// What there is for `bytes` of this budget is of it, and enough.
pub(super) fn check_reservation(
    bytes: u64,
    budget: &Budget,
    reservation: &Reservation,
) -> Result<(), DeviceError> {
    if reservation.bytes() >= bytes && reservation.is_of(budget) {
        return Ok(());
    }
    Err(DeviceError::Reservation {
        bytes,
        budget: budget.name().to_owned(),
        reservation: format!("{reservation:?}"),
    })
}
