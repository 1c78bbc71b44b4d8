//! Exchanges that stay on GPUs: rows are hashed, and put together again, in device memory. Its operators are registered on every worker;
//! knows Arrow's layouts and the kernels, never which exchange goes this way.
//!
//! A partition on a device has the header and the payload of one on the host ([`crate::partition`]), so whoever reads it on the host
//! decodes it as any other. Nothing that a partition says is believed: lengths are compared with its buffers, and a kernel looks at
//! offsets before another follows them ([`Kernels::checked`]).

mod columns;
mod concat;
mod form;
mod partition;
#[cfg(test)]
mod tests;

use transload_gpu::device::{Kernels, Tiers};
use transload_runtime::OperatorError;
use transload_runtime::gpu::WorkerGpu;

use crate::partition::PartitionError;
pub(crate) use concat::{SQL_CONCAT, SqlConcat};
pub(crate) use form::{carried, carried_schema, restored};
pub(crate) use partition::{PartitionSpec, SQL_PARTITION, SqlPartition};

/// What operators need of a GPU.
#[derive(Debug, Clone, Copy)]
struct Gpu<'a> {
    tiers: &'a Tiers,
    kernels: &'a Kernels,
}

impl<'a> Gpu<'a> {
    fn of(worker: &'a WorkerGpu) -> Self {
        Self {
            tiers: worker.tiers(),
            kernels: worker.kernels(),
        }
    }
}

fn unreadable(error: PartitionError) -> OperatorError {
    OperatorError::new(error.to_string())
}
