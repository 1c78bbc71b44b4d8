//! Tasks that have to do with the worker's GPU: those whose operators work on it, and those on the host that read what such made. Part of
//! the executor; knows neither queues nor slots.

use std::sync::Arc;

use futures::future::try_join_all;
use transload_gpu::device::{DevicePartition, TieredBuffer, Tiers};
use transload_gpu::{Budget, HostBuffer, Partition, Reservation, Stored};
use transload_protocol::{Memory, TaskErrorKind};

use super::executor::{caught, guarded};
use super::fused::{Failure, PreparedLayer};
use crate::gpu::{LazyGpu, WorkerGpu};
use crate::operator::DeviceTask;
use crate::{OperatorError, OperatorRegistry, TaskContext};

/// What a task has made.
#[derive(Debug)]
pub(super) enum Made {
    /// In host memory.
    Host(Vec<Partition>),
    /// On the worker's GPU.
    Device(Vec<DevicePartition>),
}

/// What is needed for a task that reads or makes device partitions.
pub(super) struct DeviceJob {
    pub(super) inputs: Vec<Vec<Stored>>,
    pub(super) gpu: Option<Arc<LazyGpu>>,
    pub(super) halved: bool,
}

impl DeviceJob {
    /// Runs the task, whose context has no inputs.
    pub(super) async fn run(
        self,
        layer: &PreparedLayer,
        operators: &OperatorRegistry,
        context: TaskContext,
    ) -> Result<Made, Failure> {
        let gpu = self.gpu.clone();
        let made = self.make(layer, operators, context);
        let result = caught("what a task on a GPU needs", made).await;
        result.map_err(|mut failure| {
            failure.lost_gpu = gpu.and_then(|gpu| gpu.is_lost());
            failure
        })
    }

    async fn make(
        self,
        layer: &PreparedLayer,
        operators: &OperatorRegistry,
        mut context: TaskContext,
    ) -> Result<Made, Failure> {
        match layer.own().memory {
            Memory::Device => {
                let made = self.on_device(operators, context).await?;
                Ok(Made::Device(made))
            }
            Memory::Host => {
                let (inputs, reserved) = to_host(self.inputs, &context).await?;
                context.inputs = inputs;
                let made = layer.run(operators, context).await;
                drop(reserved);
                made.map(Made::Host)
            }
        }
    }

    async fn on_device(
        self,
        operators: &OperatorRegistry,
        context: TaskContext,
    ) -> Result<Vec<DevicePartition>, OperatorError> {
        let name = &context.layer.operator;
        let Some(operator) = operators.get_on_device(name) else {
            return Err(OperatorError {
                kind: TaskErrorKind::UnknownOperator,
                message: format!(
                    "this worker has no operator `{name}` for device memory; start workers from the same program as the client"
                ),
            });
        };
        let gpu = open(self.gpu.as_deref())?;
        let (cancelled, outputs) = (context.cancelled.clone(), context.layer.outputs);
        let tiers = gpu.tiers().clone();
        let task = DeviceTask {
            context,
            inputs: self.inputs,
            gpu,
            halved: self.halved,
        };
        let running = async move {
            let made = operator.run(task).await?;
            let made = made.into_iter().map(|it| on_its_own(it, &tiers));
            try_join_all(made).await
        };
        guarded(cancelled, outputs, running).await
    }
}

/// The partition as one that is on the device, as the machine believes of what was made there, and moves by itself: an operator may hand on
/// what it was given, or one partition as several. These share memory as long as they are there, for which the machine counts each.
async fn on_its_own(
    made: DevicePartition,
    tiers: &Tiers,
) -> Result<DevicePartition, OperatorError> {
    let place = tiers.to_device(made.payload()).await?;
    let payload = TieredBuffer::on_device(place);
    let own = DevicePartition::new(made.header().clone(), payload, tiers);
    own.map_err(|error| OperatorError::new(error.to_string()))
}

/// Takes the GPU's memory, if nobody has yet. Blocks.
fn open(gpu: Option<&LazyGpu>) -> Result<Arc<WorkerGpu>, OperatorError> {
    let Some(gpu) = gpu else {
        return Err(OperatorError::new(
            "this worker has no GPU, although it offers `gpu`; leave that name to workers that have one, which offer it by themselves",
        ));
    };
    Ok(gpu.open()?)
}

/// Partitions that were copied to the host, and the memory for operators that they take while the task runs: what it hands on of them
/// is a stored partition afterwards, and accounted for as such.
type OnHost = (Vec<Vec<Partition>>, Vec<Reservation>);

/// Copies what is on the device into memory for operators, for one that computes on the host.
async fn to_host(inputs: Vec<Vec<Stored>>, context: &TaskContext) -> Result<OnHost, OperatorError> {
    let memory = &context.environment.execution_memory;
    // `reserved` pays for them.
    let copies = Budget::new("copies of device partitions", u64::MAX);
    let mut here = Vec::with_capacity(inputs.len());
    let mut reserved = Vec::new();
    for input in inputs {
        let mut partitions = Vec::with_capacity(input.len());
        for stored in input {
            partitions.push(match stored {
                Stored::Host(partition) => partition,
                Stored::Device(partition) => {
                    let bytes = partition.header().payload_bytes();
                    reserved.push(memory.try_reserve(bytes)?);
                    // As much as device memory has, which an address space has.
                    let to = HostBuffer::uncleared(bytes as usize, copies.reserve_over(bytes));
                    partition.tiers().download(&partition, to).await?
                }
            });
        }
        here.push(partitions);
    }
    Ok((here, reserved))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::fused::tests::{context, on_device};
    use super::*;

    struct Grumpy;

    impl Drop for Grumpy {
        fn drop(&mut self) {
            panic!("not me");
        }
    }

    #[test]
    fn a_panic_beside_the_operator_is_the_tasks_error_too() {
        let layer = PreparedLayer::new(on_device("filter"));
        let input = Partition::new(Bytes::new(), vec![]).with_decoded(Arc::new(Grumpy));
        let job = DeviceJob {
            inputs: vec![vec![input.into()]],
            gpu: None,
            halved: false,
        };
        let context = context(&layer, 0, &[]);
        let operators = OperatorRegistry::default();
        let ended = futures::executor::block_on(job.run(&layer, &operators, context));
        let error = ended.expect_err("a panic").error;
        assert_eq!(error.kind, TaskErrorKind::Panic);
        assert!(error.message.contains("not me"), "{}", error.message);
    }
}
