//! A device, and its context in this process. Called first by whoever wants a GPU; knows no memory.

use std::fmt;
use std::sync::Arc;

use transload_cuda_driver::{
    self as driver, Code, cuCtxSetCurrent, cuDeviceGet, cuDeviceGetCount, cuDeviceGetName,
    cuDeviceGetUuid_v2, cuDevicePrimaryCtxRelease_v2, cuDevicePrimaryCtxRetain,
    cuDeviceTotalMem_v2, cuDriverGetVersion, cuInit, cuMemGetInfo_v2,
};

use super::error::{DeviceError, check};
use super::traffic::Traffic;

/// The oldest driver that is used: what it lacks is not tried out.
const OLDEST_VERSION: i32 = 12_000;
/// What `cuInit` answers where no device is visible.
const NO_DEVICE: u32 = 100;
const NAME_BYTES: usize = 256;

/// A GPU that this process uses. Clones share it; with the last one, and the last of what was made from it, the process lets go of it.
#[derive(Clone)]
pub struct Device {
    shared: Arc<Shared>,
}

struct Shared {
    ordinal: i32,
    context: u64,
    name: String,
    traffic: Traffic,
}

/// What is known of a device that nobody has opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its number among those that are visible to this process.
    pub ordinal: u32,
    /// As in "NVIDIA H100 80GB HBM3".
    pub name: String,
    /// The same in every process, whatever is visible to it.
    pub uuid: [u8; 16],
    /// All its memory, in bytes.
    pub total_bytes: u64,
}

impl Device {
    /// The devices that are visible, in order. Takes no memory of theirs, as an open device does.
    ///
    /// # Errors
    /// As [`Device::count`].
    pub fn list() -> Result<Vec<DeviceInfo>, DeviceError> {
        (0..Self::count()?).map(describe).collect()
    }

    /// How many devices the driver shows to this process, which `CUDA_VISIBLE_DEVICES` can make fewer. 0 where it shows none.
    ///
    /// # Errors
    /// [`DeviceError::NoDriver`], and what is wrong with a driver that is there.
    pub fn count() -> Result<u32, DeviceError> {
        if !driver::is_present() {
            return Err(DeviceError::NoDriver);
        }
        // SAFETY: takes no address.
        match unsafe { cuInit(0) } {
            Code(NO_DEVICE) => return Ok(0),
            code => check("cuInit", code)?,
        }
        let mut version = 0;
        // SAFETY: the pointer is of a local.
        check("cuDriverGetVersion", unsafe {
            cuDriverGetVersion(&mut version)
        })?;
        if version < OLDEST_VERSION {
            return Err(DeviceError::Unusable {
                reason: format!(
                    "it is for CUDA {}.{}; install one for CUDA 12 or later",
                    version / 1_000,
                    version % 1_000 / 10
                ),
            });
        }
        let mut count = 0;
        // SAFETY: the pointer is of a local.
        check("cuDeviceGetCount", unsafe { cuDeviceGetCount(&mut count) })?;
        Ok(u32::try_from(count).unwrap_or(0))
    }

    /// The device of this number among those that are visible.
    ///
    /// # Errors
    /// As [`Device::count`], and [`DeviceError::NoDevice`].
    pub fn open(ordinal: u32) -> Result<Self, DeviceError> {
        let count = Self::count()?;
        let number = i32::try_from(ordinal).ok().filter(|_| ordinal < count);
        let number = number.ok_or(DeviceError::NoDevice { ordinal, count })?;
        let name = describe(ordinal)?.name;
        let (mut device, mut context) = (0, 0);
        // SAFETY: the pointers are of locals.
        unsafe {
            check("cuDeviceGet", cuDeviceGet(&mut device, number))?;
            check(
                "cuDevicePrimaryCtxRetain",
                cuDevicePrimaryCtxRetain(&mut context, device),
            )?;
        }
        let device = Self {
            shared: Arc::new(Shared {
                ordinal: device,
                context,
                name,
                traffic: Traffic::default(),
            }),
        };
        tracing::debug!(?device, "opened a GPU");
        Ok(device)
    }

    /// As in "NVIDIA H100 80GB HBM3".
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Its number among those that are visible.
    pub fn ordinal(&self) -> u32 {
        self.shared.ordinal.unsigned_abs()
    }

    /// Bytes of its memory that no process uses now, and all it has.
    ///
    /// # Errors
    /// [`DeviceError::Lost`].
    pub fn memory(&self) -> Result<(u64, u64), DeviceError> {
        self.enter()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: the pointers are of locals.
        check("cuMemGetInfo", unsafe {
            cuMemGetInfo_v2(&mut free, &mut total)
        })?;
        Ok((free as u64, total as u64))
    }

    /// What was copied from, to and within it by this process.
    pub fn traffic(&self) -> &Traffic {
        &self.shared.traffic
    }

    /// Its context, for calls that name it.
    pub(super) fn context(&self) -> u64 {
        self.shared.context
    }

    /// What is of `other` can be used here.
    pub(super) fn check_same(&self, other: &Self) -> Result<(), DeviceError> {
        let (expected, actual) = (self.ordinal(), other.ordinal());
        if expected == actual {
            return Ok(());
        }
        Err(DeviceError::OtherDevice { expected, actual })
    }

    /// Makes its context the current one of this thread, as nearly every call wants, also of libraries that are given its memory.
    ///
    /// # Errors
    /// [`DeviceError::Lost`].
    pub fn enter(&self) -> Result<(), DeviceError> {
        // SAFETY: the context was retained and is released after the last clone is gone.
        check("cuCtxSetCurrent", unsafe {
            cuCtxSetCurrent(self.shared.context)
        })
    }
}

/// A visible device by its number.
fn describe(ordinal: u32) -> Result<DeviceInfo, DeviceError> {
    let (mut device, mut name, mut uuid, mut total_bytes) = (0, [0; NAME_BYTES], [0; 16], 0);
    // SAFETY: the pointers are of locals, and the name has the length that is said.
    unsafe {
        check("cuDeviceGet", cuDeviceGet(&mut device, ordinal as i32))?;
        check(
            "cuDeviceGetName",
            cuDeviceGetName(name.as_mut_ptr(), NAME_BYTES as i32, device),
        )?;
        check("cuDeviceGetUuid", cuDeviceGetUuid_v2(&mut uuid, device))?;
        check(
            "cuDeviceTotalMem",
            cuDeviceTotalMem_v2(&mut total_bytes, device),
        )?;
    }
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(DeviceInfo {
        ordinal,
        name: String::from_utf8_lossy(name).into_owned(),
        uuid,
        total_bytes: total_bytes as u64,
    })
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: retained once by `open`. Whatever was made in the context holds a clone and is gone.
        let code = unsafe { cuDevicePrimaryCtxRelease_v2(self.ordinal) };
        if let Err(error) = check("cuDevicePrimaryCtxRelease", code) {
            tracing::debug!(%error, "a GPU could not be let go of");
        }
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({}: {})", self.shared.ordinal, self.shared.name)
    }
}
