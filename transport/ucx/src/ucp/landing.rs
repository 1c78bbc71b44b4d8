//! Memory that bodies are received into, several at once, each into a place of its own: of the host, or of a device.

use std::any::Any;
use std::cell::UnsafeCell;
use std::ptr;
use std::rc::Rc;

use transload_gpu::device::Device;
use transload_transport::OnDevice;

/// Memory with places that are taken one by one and written by UCX. The memory comes back when no place is being written.
pub(crate) struct Landing<M> {
    shared: Rc<UnsafeCell<M>>,
    start: *mut u8,
    bytes: usize,
    /// Whose memory it is, if not the host's.
    device: Option<Device>,
    /// Start and end of every place taken, in order.
    taken: Vec<(usize, usize)>,
}

/// A place in a landing: nobody else reads or writes it as long as this lives.
pub(crate) struct Claim {
    start: *mut u8,
    bytes: usize,
    device: Option<Device>,
    _memory: Rc<dyn Any>,
}

impl<M: AsMut<[u8]> + 'static> Landing<M> {
    pub(crate) fn new(memory: M) -> Self {
        let shared = Rc::new(UnsafeCell::new(memory));
        // SAFETY: just made, so nobody else has it. The bytes stay where they are: in the memory's own allocation, or in that of `shared`,
        // and nobody touches the memory itself before it is taken out again.
        let memory = unsafe { &mut *shared.get() }.as_mut();
        let (start, bytes) = (memory.as_mut_ptr(), memory.len());
        Self {
            shared,
            start,
            bytes,
            device: None,
            taken: Vec::new(),
        }
    }
}

impl Landing<OnDevice> {
    /// Memory of a device, which UCX alone writes.
    pub(crate) fn on_device(memory: OnDevice) -> Self {
        let buffer = &memory.buffer;
        Self {
            start: ptr::with_exposed_provenance_mut(buffer.address() as usize),
            bytes: buffer.bytes() as usize,
            device: Some(buffer.device().clone()),
            shared: Rc::new(UnsafeCell::new(memory)),
            taken: Vec::new(),
        }
    }
}

impl<M: 'static> Landing<M> {
    /// The place of so many bytes from `offset`; `None` where it is not within, or not free any more.
    pub(crate) fn claim(&mut self, offset: u64, bytes: usize) -> Option<Claim> {
        let from = usize::try_from(offset).ok()?;
        let to = from.checked_add(bytes).filter(|to| *to <= self.bytes)?;
        let at = self.taken.partition_point(|(start, _)| *start < from);
        let free_before = at == 0 || self.taken[at - 1].1 <= from;
        let free_behind = self.taken.get(at).is_none_or(|(start, _)| to <= *start);
        if bytes == 0 || !free_before || !free_behind {
            return None;
        }
        self.taken.insert(at, (from, to));
        Some(Claim {
            start: self.start.wrapping_add(from),
            bytes,
            device: self.device.clone(),
            _memory: Rc::clone(&self.shared) as Rc<dyn Any>,
        })
    }

    /// The memory. `None` while a place is claimed.
    pub(crate) fn finish(self) -> Option<M> {
        Rc::try_unwrap(self.shared).ok().map(UnsafeCell::into_inner)
    }
}

impl Claim {
    pub(super) fn start(&self) -> *mut u8 {
        self.start
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The device whose memory it is, if it is not the host's.
    pub(super) fn device(&self) -> Option<&Device> {
        self.device.as_ref()
    }

    /// Copies what has arrived elsewhere into its place; false where it is not as long, or on a device, where the host cannot write.
    pub(crate) fn fill(self, from: &[u8]) -> bool {
        if from.len() != self.bytes || self.device.is_some() {
            return false;
        }
        // SAFETY: the place is within the host's memory that `_memory` holds, as long, and ours alone; `from` is no part of it.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), self.start, self.bytes) };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_once_and_only_within_the_memory() {
        let mut landing = Landing::new(vec![0_u8; 100]);
        let middle = landing.claim(40, 20).expect("free");
        for (offset, bytes) in [
            (40, 20),
            (39, 2),
            (59, 1),
            (0, 41),
            (0, 100),
            (100, 1),
            (99, 2),
            (5, 0),
            (u64::MAX, 2),
            (1 << 40, 1),
        ] {
            assert!(landing.claim(offset, bytes).is_none(), "{offset} {bytes}");
        }
        let before = landing.claim(0, 40).expect("free");
        let behind = landing.claim(60, 40).expect("free");
        assert!(before.fill(&[1; 40]) && behind.fill(&[3; 40]) && middle.fill(&[2; 20]));
        let memory = landing.finish().expect("nobody writes");
        assert_eq!(
            (memory[39], memory[40], memory[59], memory[60]),
            (1, 2, 2, 3)
        );
    }

    #[test]
    fn the_memory_does_not_come_back_while_a_place_is_written() {
        let mut landing = Landing::new(vec![0_u8; 10]);
        let claim = landing.claim(0, 5).expect("free");
        assert!(landing.finish().is_none());
        assert!(!claim.fill(&[1; 4]), "of another length");
    }
}
