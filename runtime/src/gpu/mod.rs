//! Which GPU a worker has for itself, and what it takes of it. Called by the worker process; what a GPU is used for is not known here.

mod lazy;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use transload_gpu::device::{Claim, Device, DeviceError, DeviceInfo};
use transload_protocol::Gpu;

pub(crate) use lazy::LazyGpu;
pub use lazy::WorkerGpu;

/// Which GPU is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum GpuChoice {
    /// The first that no other worker of the machine has, and none where there is none.
    #[default]
    Auto,
    /// None.
    None,
    /// This one of those that are visible, without which the worker does not start. Other workers may have it, too.
    Ordinal(u32),
}

/// A worker's GPU, its own as long as this lives.
#[derive(Debug)]
pub(crate) struct ChosenGpu {
    info: DeviceInfo,
    _claim: Option<Claim>,
}

impl GpuChoice {
    /// The GPU, claimed. Its memory is not touched. Where one is not wanted by its number, that there is none is logged.
    ///
    /// # Errors
    /// Why there is none, where it is.
    pub(crate) fn choose(self) -> Result<Option<ChosenGpu>, String> {
        match self {
            Self::None => Ok(None),
            Self::Auto => Ok(auto(Device::list())),
            Self::Ordinal(ordinal) => {
                let devices = Device::list().map_err(|error| error.to_string())?;
                let count = devices.len() as u32;
                let info = devices.into_iter().find(|it| it.ordinal == ordinal);
                let missing = DeviceError::NoDevice { ordinal, count };
                let info = info.ok_or_else(|| missing.to_string())?;
                let claim = claim(&info);
                if claim.is_none() {
                    tracing::warn!(ordinal, name = %info.name, "another worker of this machine uses the same GPU");
                }
                Ok(Some(ChosenGpu {
                    info,
                    _claim: claim,
                }))
            }
        }
    }
}

fn auto(devices: Result<Vec<DeviceInfo>, DeviceError>) -> Option<ChosenGpu> {
    let devices = match devices {
        Ok(devices) => devices,
        // Most machines have none.
        Err(DeviceError::NoDriver) => Vec::new(),
        Err(error) => {
            tracing::warn!(%error, "no GPU: host memory");
            return None;
        }
    };
    let count = devices.len();
    for info in devices {
        if let Some(claim) = claim(&info) {
            return Some(ChosenGpu {
                info,
                _claim: Some(claim),
            });
        }
    }
    if count == 0 {
        tracing::info!("no GPU: host memory");
    } else {
        tracing::info!(count, "every GPU here has a worker already: host memory");
    }
    None
}

fn claim(info: &DeviceInfo) -> Option<Claim> {
    info.claim().unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot see whether another worker uses a GPU");
        None
    })
}

impl ChosenGpu {
    /// All the memory that it has, in bytes.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.info.total_bytes
    }

    /// Its number among those that are visible.
    pub(crate) fn ordinal(&self) -> u32 {
        self.info.ordinal
    }

    /// What the scheduler is told of it.
    pub(crate) fn told(&self) -> Gpu {
        Gpu {
            ordinal: self.info.ordinal,
            name: self.info.name.clone(),
            memory_bytes: self.info.total_bytes,
        }
    }
}

impl fmt::Display for GpuChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::None => f.write_str("none"),
            Self::Ordinal(ordinal) => ordinal.fmt(f),
        }
    }
}

impl FromStr for GpuChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "none" => Ok(Self::None),
            _ => text.parse().map(Self::Ordinal).map_err(|_| {
                "auto, none, or the number of a GPU, as nvidia-smi counts them from 0".to_owned()
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_read_back_as_they_are_written() {
        for choice in [GpuChoice::Auto, GpuChoice::None, GpuChoice::Ordinal(7)] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        assert!("gpu0".parse::<GpuChoice>().is_err());
        assert!("-1".parse::<GpuChoice>().is_err());
    }

    #[test]
    fn without_a_driver_auto_does_without() {
        assert!(auto(Err(DeviceError::NoDriver)).is_none());
        assert!(auto(Ok(Vec::new())).is_none());
    }

    #[test]
    fn workers_that_choose_for_themselves_have_different_ones() {
        let device = |number: u8| {
            let mut uuid = [number; 16];
            uuid[8..12].copy_from_slice(&std::process::id().to_le_bytes());
            DeviceInfo {
                ordinal: number.into(),
                name: "one".to_owned(),
                uuid,
                total_bytes: 1 << 30,
            }
        };
        let devices = || Ok(vec![device(0), device(1)]);
        let first = auto(devices()).expect("free");
        let second = auto(devices()).expect("free");
        assert_eq!((first.told().ordinal, second.told().ordinal), (0, 1));
        assert!(auto(devices()).is_none());
        drop(first);
        assert_eq!(auto(devices()).expect("free again").told().ordinal, 0);
    }
}
