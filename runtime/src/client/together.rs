//! Waiting for several graphs and held layers together.

use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{BoxStream, FuturesUnordered, StreamExt};
use tokio::time::timeout;

use super::{ClientError, GraphHandle, LayerHandle};

/// Something that is over at some time, well or with an error.
pub trait Waited: Sync {
    /// Waits until it is over.
    ///
    /// # Errors
    /// As [`GraphHandle::wait`].
    fn done(&self) -> BoxFuture<'_, Result<(), ClientError>>;
}

impl Waited for GraphHandle {
    fn done(&self) -> BoxFuture<'_, Result<(), ClientError>> {
        Box::pin(self.wait())
    }
}

impl Waited for LayerHandle {
    fn done(&self) -> BoxFuture<'_, Result<(), ClientError>> {
        Box::pin(self.wait())
    }
}

/// Waits until all of them are done, or one of them has failed, but no longer than `patience`, if that is given.
///
/// # Errors
/// The first failure; [`ClientError::TimedOut`].
pub async fn wait_all<'a>(
    handles: impl IntoIterator<Item = &'a dyn Waited>,
    patience: Option<Duration>,
) -> Result<(), ClientError> {
    let mut completed = as_completed(handles);
    let all = async {
        while let Some((_, result)) = completed.next().await {
            result?;
        }
        Ok(())
    };
    match patience {
        None => all.await,
        Some(after) => timeout(after, all)
            .await
            .unwrap_or(Err(ClientError::TimedOut { after })),
    }
}

/// Each of them as soon as it is over: its position among them, and how it ended.
pub fn as_completed<'a>(
    handles: impl IntoIterator<Item = &'a dyn Waited>,
) -> BoxStream<'a, (usize, Result<(), ClientError>)> {
    let waiting: FuturesUnordered<_> = handles
        .into_iter()
        .enumerate()
        .map(|(position, handle)| async move { (position, handle.done().await) })
        .collect();
    waiting.boxed()
}
