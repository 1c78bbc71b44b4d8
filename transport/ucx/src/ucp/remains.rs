//! What an endpoint leaves behind when it closes: operations that are not over, and memory that the peer may still use.
//!
//! A device writes to its peer's memory, and reads it, without a word of the peer's, and so does a kernel to memory of another process of
//! its machine. Closed without a word, an endpoint ends what is under way at
//! this end alone: what the other was told before, it may do much later. Only when that has closed, too, is the memory nobody else's.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Shared by an endpoint and its operations.
#[derive(Default)]
pub(crate) struct Remains {
    kept: RefCell<Vec<Box<dyn Any>>>,
    kept_bytes: Cell<u64>,
    /// The peer's kernel reaches the host's memory, too.
    is_host_reached: Cell<bool>,
}

impl Remains {
    /// The endpoint goes over these; as in [`super::Endpoint::transports`].
    pub(super) fn learn(&self, transports: &str) {
        if reaches_host(transports) {
            self.is_host_reached.set(true);
        }
    }

    /// Whether the peer may use memory after this end has closed: that of a device, or of the host.
    pub(super) fn may_be_used(&self, is_on_device: bool) -> bool {
        is_on_device || self.is_host_reached.get()
    }

    /// Keeps memory that an operation on so many bytes of it has not ended well with.
    pub(crate) fn keep(&self, memory: impl Any, bytes: usize) {
        self.kept.borrow_mut().push(Box::new(memory));
        let kept_bytes = self.kept_bytes.get().saturating_add(bytes as u64);
        self.kept_bytes.set(kept_bytes);
    }

    /// Of what is kept, the bytes that operations were about.
    pub(crate) fn kept_bytes(&self) -> u64 {
        self.kept_bytes.get()
    }

    /// Whether endpoint and operations are over at this end: nothing of this process reads or writes the peer's memory any more.
    pub(crate) fn is_over(self: &Rc<Self>) -> bool {
        Rc::strong_count(self) == 1
    }

    /// Whether there is memory that the peer may still use.
    pub(crate) fn holds_memory(&self) -> bool {
        !self.kept.borrow().is_empty()
    }
}

/// Whether over one of these a process reads and writes memory of another by the kernel, which asks for no word of the other's.
fn reaches_host(transports: &str) -> bool {
    let mut names = transports.split('+').filter_map(|it| it.split('/').next());
    names.any(|name| matches!(name, "cma" | "knem" | "xpmem"))
}

#[cfg(test)]
mod tests {
    use super::reaches_host;

    #[test]
    fn what_copies_between_processes_by_the_kernel_is_known_by_its_name() {
        for reached in [
            "cma/memory+sysv/memory",
            "posix/memory+xpmem/memory",
            "knem/memory",
        ] {
            assert!(reaches_host(reached), "{reached}");
        }
        for not in [
            "posix/memory",
            "cuda_ipc/cuda+tcp/lo",
            "rc_mlx5/mlx5_0:1",
            "",
        ] {
            assert!(!reaches_host(not), "{not}");
        }
    }
}
