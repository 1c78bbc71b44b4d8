//! What an endpoint leaves behind when it closes: operations that are not over, and memory of devices that the peer may still use.
//!
//! A device writes to its peer's memory, and reads it, without a word of the peer's. Closed without a word, an endpoint ends what is under way at
//! this end alone: what the other was told before, it may do much later. Only when that has closed, too, is the memory nobody else's.

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;

/// Shared by an endpoint and its operations.
#[derive(Default)]
pub(crate) struct Remains {
    kept: RefCell<Vec<Box<dyn Any>>>,
}

impl Remains {
    /// Keeps memory that an operation has not ended well with.
    pub(super) fn keep(&self, memory: impl Any) {
        self.kept.borrow_mut().push(Box::new(memory));
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
