//! The operator `sql-concat`: the rows of all its inputs as one batch, on the GPU. Part of `device`.

use futures::FutureExt;
use futures::future::BoxFuture;
use transload_gpu::Stored;
use transload_gpu::device::{DevicePartition, Packed};
use transload_runtime::{DeviceOperator, DeviceTask, OperatorError};

use super::columns::{Description, bare, empty, partition_of, tables};
use super::{Gpu, unreadable};

/// Name of the operator in task graphs.
pub(crate) const SQL_CONCAT: &str = "sql-concat";

/// See the module.
pub(crate) struct SqlConcat;

impl DeviceOperator for SqlConcat {
    fn name(&self) -> &str {
        SQL_CONCAT
    }

    fn run(
        &self,
        task: DeviceTask,
    ) -> BoxFuture<'static, Result<Vec<DevicePartition>, OperatorError>> {
        async move {
            let inputs: Vec<Stored> = task.inputs.into_iter().flatten().collect();
            Ok(vec![joined(Gpu::of(&task.gpu), inputs).await?])
        }
        .boxed()
    }
}

/// The rows of all partitions, in their order. Working in halves would need more memory: the halves would be there beside their sum.
pub(super) async fn joined(
    gpu: Gpu<'_>,
    inputs: Vec<Stored>,
) -> Result<DevicePartition, OperatorError> {
    let mut like: Option<Description> = None;
    let mut parts = Vec::new();
    let mut rows = 0_u64;
    for stored in &inputs {
        let described = Description::of(&stored.header()).map_err(unreadable)?;
        if !described.has_rows() {
            continue;
        }
        rows = rows.saturating_add(described.rows());
        parts.extend(tables(gpu, &described, stored).await?);
        match &like {
            Some(first) => first.check_same(&described)?,
            None => like = Some(described),
        }
    }
    let Some(like) = like else {
        return empty(gpu);
    };
    if like.columns() == 0 {
        return bare(gpu, rows, &like);
    }
    if u32::try_from(rows).is_err() {
        return Err(OperatorError::new(format!(
            "{rows} rows are more than a partition on a GPU can have; exchange into more partitions"
        )));
    }
    let packed: Packed = gpu.kernels.concat(&parts).await?;
    partition_of(gpu, packed, &like)
}
