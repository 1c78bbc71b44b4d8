//! Copies between a device and host memory, and within a device: each way on a stream of its own, so that they overlap with each other and
//! with kernels. Called by moves between tiers and by whoever fills device partitions.

use std::sync::Arc;

use bytes::Bytes;
use transload_cuda_driver::{
    cuMemcpyDtoDAsync_v2, cuMemcpyDtoHAsync_v2, cuMemcpyHtoDAsync_v2, cuMemcpyPeerAsync,
    cuMemsetD8Async,
};

use super::context::Device;
use super::error::{DeviceError, check};
use super::memory::DeviceBuffer;
use super::pinned::PinnedBuffer;
use super::stream::{Completion, Stream};
use super::traffic::Path;
use crate::HostBuffer;

/// The streams that copy. Clones share them.
#[derive(Debug, Clone)]
pub struct Copies {
    to_device: Stream,
    from_device: Stream,
    within: Stream,
}

/// A source and a destination.
type Pair<F, T> = (Arc<F>, T);

impl Copies {
    /// Streams of their own on this device.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn new(device: &Device) -> Result<Self, DeviceError> {
        Ok(Self {
            to_device: Stream::new(device, "upload")?,
            from_device: Stream::new(device, "download")?,
            within: Stream::new(device, "copy")?,
        })
    }

    fn device(&self) -> &Device {
        self.within.device()
    }

    /// Page-locked memory to the device: one copy for each of its pieces.
    pub fn upload(
        &self,
        from: Arc<PinnedBuffer>,
        to: DeviceBuffer,
    ) -> Completion<Pair<PinnedBuffer, DeviceBuffer>> {
        let keep = (from, to);
        self.to_device.submit(keep, |(from, to), stream| {
            same_size(from.bytes(), to.bytes())?;
            // SAFETY: `keep` has both until it has ended, nobody writes a shared source, and nobody else has the destination.
            unsafe { self.up(from, from.bytes(), (to, 0), stream) }
        })
    }

    /// The device to page-locked memory: one copy for each of its pieces.
    pub fn download(
        &self,
        from: Arc<DeviceBuffer>,
        to: PinnedBuffer,
    ) -> Completion<Pair<DeviceBuffer, PinnedBuffer>> {
        let keep = (from, to);
        self.from_device.submit(keep, |(from, to), stream| {
            same_size(from.bytes(), to.bytes())?;
            // SAFETY: `keep` has both until it has ended, and nobody else has the destination.
            unsafe { self.down((from, 0), to, to.bytes(), stream) }
        })
    }

    /// The first `bytes` of page-locked memory to the device, to `at` within the destination.
    ///
    /// # Safety
    /// Nobody else reads or writes that part of the destination until this has ended.
    pub(super) unsafe fn upload_piece(
        &self,
        from: PinnedBuffer,
        bytes: u64,
        to: Arc<DeviceBuffer>,
        at: u64,
    ) -> Completion<(PinnedBuffer, Arc<DeviceBuffer>)> {
        let keep = (from, to);
        self.to_device.submit(keep, |(from, to), stream| {
            // SAFETY: `keep` has both until it has ended, nobody else has the source, and the caller keeps others from the destination.
            unsafe { self.up(from, bytes, (to, at), stream) }
        })
    }

    /// `bytes` of the device from `at` on to the beginning of page-locked memory.
    pub(super) fn download_piece(
        &self,
        from: Arc<DeviceBuffer>,
        at: u64,
        bytes: u64,
        to: PinnedBuffer,
    ) -> Completion<Pair<DeviceBuffer, PinnedBuffer>> {
        let keep = (from, to);
        self.from_device.submit(keep, |(from, to), stream| {
            // SAFETY: `keep` has both until it has ended, and nobody else has the destination.
            unsafe { self.down((from, at), to, bytes, stream) }
        })
    }

    /// Enqueues the copies of page-locked memory to a place in device memory.
    ///
    /// # Safety
    /// Both live until the stream has got so far, and nobody writes the one or touches that part of the other.
    unsafe fn up(
        &self,
        from: &PinnedBuffer,
        bytes: u64,
        (to, at): (&DeviceBuffer, u64),
        stream: u64,
    ) -> Result<(), DeviceError> {
        self.device().check_same(to.device())?;
        fits(at, bytes, to.bytes())?;
        for (host, offset, bytes) in first_pieces(from, bytes)? {
            // SAFETY: the piece lies in both, as was checked; the rest is the caller's.
            check("cuMemcpyHtoDAsync", unsafe {
                cuMemcpyHtoDAsync_v2(to.address() + at + offset, host, bytes as usize, stream)
            })?;
            self.device().traffic().add(Path::PinnedToDevice, bytes);
        }
        Ok(())
    }

    /// The same the other way.
    ///
    /// # Safety
    /// As for `up`.
    unsafe fn down(
        &self,
        (from, at): (&DeviceBuffer, u64),
        to: &PinnedBuffer,
        bytes: u64,
        stream: u64,
    ) -> Result<(), DeviceError> {
        self.device().check_same(from.device())?;
        fits(at, bytes, from.bytes())?;
        for (host, offset, bytes) in first_pieces(to, bytes)? {
            // SAFETY: as for `up`.
            check("cuMemcpyDtoHAsync", unsafe {
                cuMemcpyDtoHAsync_v2(host, from.address() + at + offset, bytes as usize, stream)
            })?;
            self.device().traffic().add(Path::DeviceToPinned, bytes);
        }
        Ok(())
    }

    /// Ordinary memory to the device, as slices that follow each other there, each at a multiple of [`crate::ALIGNMENT_BYTES`]. The driver
    /// stages them, and this may block until it has.
    pub fn upload_slices(
        &self,
        from: Vec<Bytes>,
        to: DeviceBuffer,
    ) -> Completion<(Vec<Bytes>, DeviceBuffer)> {
        let keep = (from, to);
        self.to_device.submit(keep, |(from, to), stream| {
            self.device().check_same(to.device())?;
            let padded =
                |bytes: &Bytes| bytes.len().next_multiple_of(crate::ALIGNMENT_BYTES) as u64;
            same_size(from.iter().map(padded).sum(), to.bytes())?;
            let mut at = to.address();
            for slice in from {
                let padding = padded(slice) - slice.len() as u64;
                if padding > 0 {
                    // Kernels read whole words.
                    let end = at + slice.len() as u64;
                    // SAFETY: the padding lies in the destination, which `keep` has until it has ended.
                    check("cuMemsetD8Async", unsafe {
                        cuMemsetD8Async(end, 0, padding as usize, stream)
                    })?;
                }
                if !slice.is_empty() {
                    // SAFETY: `keep` has both until it has ended, bytes are immutable, and all of them fit, as was just checked.
                    check("cuMemcpyHtoDAsync", unsafe {
                        cuMemcpyHtoDAsync_v2(at, address(slice.as_ptr()), slice.len(), stream)
                    })?;
                    let traffic = self.device().traffic();
                    traffic.add(Path::PageableToDevice, slice.len() as u64);
                }
                at += padded(slice);
            }
            Ok(())
        })
    }

    /// The device to ordinary memory, which the driver stages. Blocks until it has.
    pub fn download_host(
        &self,
        from: Arc<DeviceBuffer>,
        mut to: HostBuffer,
    ) -> Completion<Pair<DeviceBuffer, HostBuffer>> {
        let host = address(to.as_mut_slice().as_mut_ptr());
        let keep = (from, to);
        self.from_device.submit(keep, |(from, to), stream| {
            self.device().check_same(from.device())?;
            same_size(from.bytes(), to.as_slice().len() as u64)?;
            if from.bytes() == 0 {
                return Ok(());
            }
            // SAFETY: `keep` has both until it has ended, nobody else has the destination, and both are of this size.
            check("cuMemcpyDtoHAsync", unsafe {
                cuMemcpyDtoHAsync_v2(host, from.address(), from.bytes() as usize, stream)
            })?;
            let traffic = self.device().traffic();
            traffic.add(Path::DeviceToPageable, from.bytes());
            Ok(())
        })
    }

    /// Within the device.
    pub fn copy(
        &self,
        from: Arc<DeviceBuffer>,
        to: DeviceBuffer,
    ) -> Completion<Pair<DeviceBuffer, DeviceBuffer>> {
        let keep = (from, to);
        self.within.submit(keep, |(from, to), stream| {
            self.device().check_same(from.device())?;
            self.device().check_same(to.device())?;
            same_size(from.bytes(), to.bytes())?;
            if from.bytes() == 0 {
                return Ok(());
            }
            // SAFETY: `keep` has both until it has ended, nobody else has the destination, and both are of this size.
            check("cuMemcpyDtoDAsync", unsafe {
                cuMemcpyDtoDAsync_v2(to.address(), from.address(), from.bytes() as usize, stream)
            })?;
            let traffic = self.device().traffic();
            traffic.add(Path::DeviceToDevice, from.bytes());
            Ok(())
        })
    }

    /// From another device of this process, or from this one. The driver takes the way that there is between them.
    pub fn bring(
        &self,
        from: Arc<DeviceBuffer>,
        to: DeviceBuffer,
    ) -> Completion<Pair<DeviceBuffer, DeviceBuffer>> {
        if from.device().ordinal() == to.device().ordinal() {
            return self.copy(from, to);
        }
        let keep = (from, to);
        self.within.submit(keep, |(from, to), stream| {
            self.device().check_same(to.device())?;
            same_size(from.bytes(), to.bytes())?;
            if from.bytes() == 0 {
                return Ok(());
            }
            let (there, here) = (from.device().context(), to.device().context());
            let bytes = from.bytes() as usize;
            // SAFETY: as for `copy`; the buffers hold their devices, whose contexts these are.
            check("cuMemcpyPeerAsync", unsafe {
                cuMemcpyPeerAsync(to.address(), here, from.address(), there, bytes, stream)
            })?;
            let traffic = self.device().traffic();
            traffic.add(Path::PeerToDevice, from.bytes());
            Ok(())
        })
    }
}

/// What is used of each piece for the first `used_bytes` of them all: its address, its place in the whole, and its length.
pub(super) fn first_pieces(
    pinned: &PinnedBuffer,
    used_bytes: u64,
) -> Result<Vec<(u64, u64, u64)>, DeviceError> {
    fits(0, used_bytes, pinned.bytes())?;
    let mut at = 0;
    let piece = |(address, bytes): (u64, u64)| {
        let used = bytes.min(used_bytes - at);
        let piece = (address, at, used);
        at += used;
        piece
    };
    let pieces = pinned.pieces().map(piece);
    Ok(pieces.filter(|(_, _, bytes)| *bytes > 0).collect())
}

/// Both ends of a copy are of one size, or nothing is copied.
fn same_size(from_bytes: u64, to_bytes: u64) -> Result<(), DeviceError> {
    if from_bytes == to_bytes {
        return Ok(());
    }
    Err(DeviceError::Sizes {
        from_bytes,
        to_bytes,
    })
}

/// So many bytes from `at` on are part of what there is, or nothing is copied.
fn fits(at: u64, bytes: u64, of_bytes: u64) -> Result<(), DeviceError> {
    match at.checked_add(bytes) {
        Some(end) if end <= of_bytes => Ok(()),
        end => Err(DeviceError::Sizes {
            from_bytes: end.unwrap_or(u64::MAX),
            to_bytes: of_bytes,
        }),
    }
}

fn address<T>(pointer: *const T) -> u64 {
    pointer.expose_provenance() as u64
}
