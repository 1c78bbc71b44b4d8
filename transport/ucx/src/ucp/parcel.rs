//! What is sent as the body of a message: bytes of the host, or a part of a device's memory, with what keeps them there.

use std::ptr;
use std::sync::Arc;

use bytes::Bytes;
use transload_gpu::device::{Device, DeviceBuffer};

/// A body. Its bytes stay, and stay the same, as long as it lives.
pub(crate) enum Parcel {
    Host(Bytes),
    Device(DevicePart),
}

/// A part of a device's memory that nobody writes any more.
pub(crate) struct DevicePart {
    memory: Arc<DeviceBuffer>,
    start: usize,
    bytes: usize,
}

impl DevicePart {
    /// So many bytes from `offset` on; `None` where they are not all within.
    pub(crate) fn new(memory: &Arc<DeviceBuffer>, offset: u64, bytes: u64) -> Option<Self> {
        let end = offset.checked_add(bytes)?;
        (end <= memory.bytes()).then(|| Self {
            memory: Arc::clone(memory),
            start: (memory.address() + offset) as usize,
            bytes: bytes as usize,
        })
    }
}

impl From<Bytes> for Parcel {
    fn from(bytes: Bytes) -> Self {
        Self::Host(bytes)
    }
}

impl Parcel {
    /// How long it is.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Host(bytes) => bytes.len(),
            Self::Device(part) => part.bytes,
        }
    }

    /// The device where it is, if it is not in the host's memory.
    pub(crate) fn device(&self) -> Option<&Device> {
        match self {
            Self::Host(_) => None,
            Self::Device(part) => Some(part.memory.device()),
        }
    }

    /// Where it begins; nowhere, if it is empty.
    pub(super) fn start(&self) -> *const u8 {
        match self {
            Self::Host(bytes) if bytes.is_empty() => ptr::null(),
            Self::Host(bytes) => bytes.as_ptr(),
            Self::Device(part) => ptr::with_exposed_provenance(part.start),
        }
    }
}
