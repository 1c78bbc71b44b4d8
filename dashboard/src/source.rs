//! What the dashboard asks of the cluster that it shows. Implemented by the server of the scheduler.

use futures::future::BoxFuture;
use transload_protocol::{ClusterInfo, Explanation, GraphId, LayerIndex, TaskId, Time};

/// The cluster has ended, and answers no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the scheduler has ended")]
pub struct Gone;

/// A cluster that can be asked. Answers may take as long as the scheduler's thread has something else to do.
pub trait Source: Send + Sync + 'static {
    /// How it is, and the scheduler's clock at that moment.
    ///
    /// # Errors
    /// [`Gone`].
    fn look(&self) -> BoxFuture<'_, Result<(Time, ClusterInfo), Gone>>;

    /// Why a task is where it is.
    ///
    /// # Errors
    /// [`Gone`].
    fn explain(&self, task: TaskId) -> BoxFuture<'_, Result<Explanation, Gone>>;

    /// What most of a layer's tasks that are not done wait for: of the first of them, and how many there are.
    ///
    /// # Errors
    /// [`Gone`].
    fn explain_layer(
        &self,
        graph: GraphId,
        layer: LayerIndex,
    ) -> BoxFuture<'_, Result<Explanation, Gone>>;
}
