//! Running an operator once on every worker. Called through [`Client::run_on_all_workers`].

use std::collections::BTreeMap;

use futures::future::join_all;
use transload_gpu::Partition;
use transload_protocol::{Blob, Layer, Resources, TaskGraph, WorkerId};

use super::{Client, ClientError};

impl Client {
    /// Runs an operator once on each worker that is now in the cluster, without a slot, so that it does not wait for tasks that
    /// run there, and once only: nothing is tried again. Returns for each worker the one partition that it made, or why there is
    /// none: the operator failed there, or the worker is gone and did not come back within `scheduler.unschedulable_grace`.
    /// What becomes of one worker is nothing to the others.
    ///
    /// # Errors
    /// [`ClientError::ConnectionLost`] when it is not known which workers there are.
    pub async fn run_on_all_workers(
        &self,
        operator: &str,
        argument: impl Into<Blob>,
    ) -> Result<BTreeMap<WorkerId, Result<Partition, ClientError>>, ClientError> {
        let argument = argument.into();
        let info = self.info().await?;
        // A graph of its own for each: a graph fails as a whole.
        let runs = info.workers.iter().map(|worker| {
            let layer = Layer::new("on every worker", operator, 1)
                .with_common(argument.clone())
                .with_resources(Resources::slots(0))
                .with_priority(i32::MAX)
                .with_retries(0)
                .on_each(vec![worker.worker.into()]);
            let worker = worker.worker;
            async move { (worker, self.run_one(layer).await) }
        });
        Ok(join_all(runs).await.into_iter().collect())
    }

    /// Runs a layer of one task and returns its one partition.
    async fn run_one(&self, layer: Layer) -> Result<Partition, ClientError> {
        let mut graph = TaskGraph::new(layer.name.clone());
        let layer = graph.push(layer);
        graph.keep(layer);
        let handle = self.submit(graph).await?;
        let mut tasks = handle.gather(layer).await?;
        let partition = tasks.pop().and_then(|mut outputs| outputs.pop());
        // A gathered layer of one task with one output has one partition; without it the graph was cancelled.
        partition.ok_or(ClientError::Cancelled)
    }
}
