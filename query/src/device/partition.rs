//! The operator `sql-partition`: the rows of one partition into as many as its layer has outputs, by the hash of key columns, on the GPU.
//! Rows that stay together keep their order. Part of `device`.

use std::num::NonZeroU32;

use datafusion::arrow::array::RecordBatch;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use transload_gpu::device::{Column, DevicePartition, Packed};
use transload_gpu::{Partition, Stored};
use transload_protocol::codec;
use transload_runtime::{DeviceOperator, DeviceTask, OperatorError};

use super::columns::{Description, empty, partition_of, tables};
use super::{Gpu, unreadable};
use crate::partition::{PartitionError, decode, encode};

/// Name of the operator in task graphs.
pub(crate) const SQL_PARTITION: &str = "sql-partition";

/// The argument that all tasks of a layer share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartitionSpec {
    /// Positions of the columns that are hashed.
    pub(crate) keys: Vec<u32>,
}

/// See the module.
pub(crate) struct SqlPartition;

impl DeviceOperator for SqlPartition {
    fn name(&self) -> &str {
        SQL_PARTITION
    }

    fn run(
        &self,
        task: DeviceTask,
    ) -> BoxFuture<'static, Result<Vec<DevicePartition>, OperatorError>> {
        async move {
            let spec: PartitionSpec = codec::decode(task.context.common_argument())
                .map_err(|error| OperatorError::new(format!("malformed exchange: {error}")))?;
            let keys: Vec<usize> = spec.keys.iter().map(|key| *key as usize).collect();
            let parts = NonZeroU32::new(task.context.layer.outputs)
                .ok_or_else(|| OperatorError::new("an exchange into no partitions"))?;
            let mut inputs = task.inputs.iter().flatten();
            let (Some(stored), None) = (inputs.next(), inputs.next()) else {
                return Err(OperatorError::new("an exchange hashes one partition"));
            };
            partitioned(Gpu::of(&task.gpu), stored, &keys, parts, task.halved).await
        }
        .boxed()
    }
}

/// The rows of `stored` in parts by the hash of their keys. In halves where that is wanted: each is brought to the device and hashed by
/// itself, so that there are never all rows twice beside what is made of them.
pub(super) async fn partitioned(
    gpu: Gpu<'_>,
    stored: &Stored,
    keys: &[usize],
    parts: NonZeroU32,
    halved: bool,
) -> Result<Vec<DevicePartition>, OperatorError> {
    let described = Description::of(&stored.header()).map_err(unreadable)?;
    if !described.has_rows() {
        return (0..parts.get()).map(|_| empty(gpu)).collect();
    }
    if keys.is_empty() || keys.iter().any(|key| *key >= described.columns()) {
        return Err(OperatorError::new("a key of an exchange is no column"));
    }
    let (Stored::Host(whole), true) = (stored, halved) else {
        let split = split(gpu, &described, stored, keys, parts).await?;
        let split = split.into_iter();
        return split.map(|it| partition_of(gpu, it, &described)).collect();
    };
    let mut split_halves = Vec::new();
    for half in halves(whole).map_err(unreadable)? {
        let half = Stored::Host(half);
        let described = Description::of(&half.header()).map_err(unreadable)?;
        let split = split(gpu, &described, &half, keys, parts).await?;
        split_halves.push(split.into_iter());
    }
    let mut made = Vec::new();
    for _ in 0..parts.get() {
        let of_part = split_halves.iter_mut().filter_map(Iterator::next);
        let tables: Vec<Vec<Column>> = of_part.map(|it| it.columns).collect();
        let joined = gpu.kernels.concat(&tables).await?;
        made.push(partition_of(gpu, joined, &described)?);
    }
    Ok(made)
}

/// The first half of a partition's rows, and the others; only these where there is one row.
fn halves(partition: &Partition) -> Result<Vec<Partition>, PartitionError> {
    let batches = decode(partition)?;
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let mut left = rows / 2;
    let (mut first, mut others) = (Vec::new(), Vec::new());
    for batch in batches.iter() {
        let own = left.min(batch.num_rows());
        first.push(batch.slice(0, own));
        others.push(batch.slice(own, batch.num_rows() - own));
        left -= own;
    }
    let halves = [encode(&first)?, encode(&others)?];
    let skipped = usize::from(rows < 2);
    Ok(halves.into_iter().skip(skipped).collect())
}

async fn split(
    gpu: Gpu<'_>,
    described: &Description,
    stored: &Stored,
    keys: &[usize],
    parts: NonZeroU32,
) -> Result<Vec<Packed>, OperatorError> {
    let tables = tables(gpu, described, stored).await?;
    let table = match <[Vec<Column>; 1]>::try_from(tables) {
        Ok([only]) => only,
        Err(several) => gpu.kernels.concat(&several).await?.columns,
    };
    Ok(gpu.kernels.partition(&table, keys, parts).await?)
}
