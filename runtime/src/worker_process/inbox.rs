//! What has ended in this process, on its way to the driver, which is woken as seldom as can be.
//!
//! Filled by slot threads, fetches and disk operations; emptied by the driver. Knows nothing of what it holds.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Values for one reader.
pub(super) struct Inbox<T> {
    inner: Mutex<Inner<T>>,
    arrived: Notify,
}

struct Inner<T> {
    values: Vec<T>,
    /// The reader will not look by itself.
    is_asleep: bool,
}

impl<T> Inbox<T> {
    pub(super) fn new() -> Self {
        Self {
            inner: Mutex::new(Inner {
                values: Vec::new(),
                is_asleep: true,
            }),
            arrived: Notify::new(),
        }
    }

    /// Hands over a value, and wakes the reader.
    pub(super) fn push(&self, value: T) {
        self.lock().values.push(value);
        self.wake();
    }

    /// Hands over a value. Returns whether [`Inbox::wake`] must follow, because the reader would not look soon by itself.
    #[must_use]
    pub(super) fn put(&self, value: T) -> bool {
        let mut inner = self.lock();
        inner.values.push(value);
        inner.is_asleep
    }

    pub(super) fn wake(&self) {
        self.arrived.notify_one();
    }

    /// Whether the reader will look by itself, and soon: then whoever puts something need not wake it.
    pub(super) fn look_soon(&self, soon: bool) {
        self.lock().is_asleep = !soon;
    }

    /// Takes what is there, in the order in which it came; `into` must be empty. Returns whether there was something.
    pub(super) fn take(&self, into: &mut Vec<T>) -> bool {
        std::mem::swap(&mut self.lock().values, into);
        !into.is_empty()
    }

    /// Waits until something is there, and takes it. Dropping the future loses nothing.
    pub(super) async fn next(&self, into: &mut Vec<T>) {
        while !self.take(into) {
            self.arrived.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        // Nothing that holds this lock can leave the list half-changed.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn values_come_in_order_and_wake_the_reader() {
        let inbox = Arc::new(Inbox::new());
        let filling = Arc::clone(&inbox);
        tokio::spawn(async move {
            for value in 0..3 {
                filling.push(value);
            }
        });
        let (mut all, mut some) = (Vec::new(), Vec::new());
        while all.len() < 3 {
            inbox.next(&mut some).await;
            all.append(&mut some);
        }
        assert_eq!(all, [0, 1, 2]);
    }

    #[tokio::test]
    async fn a_reader_that_looks_by_itself_is_not_woken() {
        let inbox = Inbox::new();
        assert!(inbox.put(1), "nobody knows that it looks");
        inbox.look_soon(true);
        assert!(!inbox.put(2));
        let mut found = Vec::new();
        assert!(inbox.take(&mut found));
        assert_eq!(found, [1, 2]);
        found.clear();
        let nothing = timeout(Duration::from_millis(1), inbox.next(&mut found));
        nothing.await.expect_err("nothing there");
        inbox.look_soon(false);
        assert!(inbox.put(3));
    }
}
