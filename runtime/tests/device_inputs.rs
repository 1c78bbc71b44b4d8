//! Partitions in device memory that others read than the layers they were made for, on whole clusters whose workers have emulated GPUs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use common::{cluster_by, number};
use cuda_emulator::Emulator;
use futures::FutureExt;
use futures::future::BoxFuture;
use transload_gpu::Stored;
use transload_gpu::device::DevicePartition;
use transload_protocol::{Edges, Layer, TaskGraph, Tier};
use transload_runtime::{Config, DeviceOperator, DeviceTask, OperatorError, OperatorFactory};

const MIB: u64 = 1 << 20;

#[test]
fn run_as_worker() {
    common::worker_entry_with(operators());
}

fn operators() -> OperatorFactory {
    let on_host = common::operators_with(&[]);
    Arc::new(move |environment| {
        let mut registry = on_host(environment);
        registry.register_on_device(Arc::new(Up));
        registry.register_on_device(Arc::new(Twice));
        registry.register_on_device(Arc::new(There));
        registry
    })
}

/// Brings its one input to the device.
struct Up;

impl DeviceOperator for Up {
    fn name(&self) -> &str {
        "up"
    }

    fn run(&self, task: DeviceTask) -> Made {
        async move {
            match task.inputs.iter().flatten().next() {
                Some(Stored::Host(partition)) => {
                    Ok(vec![task.gpu.tiers().upload(partition).await?])
                }
                other => Err(OperatorError::new(format!("not on the host: {other:?}"))),
            }
        }
        .boxed()
    }
}

type Made = BoxFuture<'static, Result<Vec<DevicePartition>, OperatorError>>;

/// What its inputs are that were made on a device.
fn of_device(task: &DeviceTask) -> Result<Vec<DevicePartition>, OperatorError> {
    let inputs = task.inputs.iter().flatten();
    let of_device = inputs.map(|input| match input {
        Stored::Device(partition) => Ok(partition.clone()),
        Stored::Host(partition) => Err(OperatorError::new(format!("on the host: {partition:?}"))),
    });
    of_device.collect()
}

/// Hands on its one input, two times over.
struct Twice;

impl DeviceOperator for Twice {
    fn name(&self) -> &str {
        "twice"
    }

    fn run(&self, task: DeviceTask) -> Made {
        let given = of_device(&task);
        async move { Ok([given.clone()?, given?].concat()) }.boxed()
    }
}

/// Wants its inputs on the device, as it was promised, and hands on the first.
struct There;

impl DeviceOperator for There {
    fn name(&self) -> &str {
        "there"
    }

    fn run(&self, task: DeviceTask) -> Made {
        let given = of_device(&task);
        async move {
            let mut given = given?;
            for partition in &given {
                let tier = partition.tier();
                if tier != Tier::Device {
                    return Err(OperatorError::new(format!("it is on tier {tier:?}")));
                }
            }
            given.truncate(1);
            Ok(given)
        }
        .boxed()
    }
}

/// The words of a command that runs another on a machine.
fn on(machine: &Emulator) -> Vec<String> {
    let set = |(name, value): (OsString, OsString)| {
        let (name, value) = (name.into_string(), value.into_string());
        format!("{}={}", name.expect("text"), value.expect("text"))
    };
    let variables = machine.environment().into_iter().map(set);
    [String::from("env")].into_iter().chain(variables).collect()
}

/// A worker that dies of it would be waited for forever.
async fn in_time<T>(waiting: impl Future<Output = T>) -> T {
    let waiting = tokio::time::timeout(Duration::from_secs(60), waiting);
    waiting.await.expect("in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_device_made_is_imported_where_it_is_and_operators_keep_their_memory() {
    let spill = tempfile::tempdir().expect("a folder");
    let machine = Emulator::new().unwrap().devices(1);
    let change = |config: &mut Config| {
        config.worker.slots = Some(2);
        config.worker.memory_bytes = Some(40 * MIB);
        config.worker.storage_percent = 90;
        config.worker.gpu_memory_bytes = Some(32 * MIB);
        config.worker.pinned_memory_bytes = Some(32 * MIB);
    };
    let cluster = cluster_by(on(&machine), 1, spill.path(), change).await;
    let client = cluster.client().await.expect("connects");
    // Four times what operators have.
    let (tasks, bytes) = (16, MIB as usize);
    let mut graph = TaskGraph::new("made");
    let size = bytes.to_string().into_bytes();
    let made = graph.push(Layer::new("make", "bytes", tasks).with_common(size));
    let up = Layer::new("up", "up", tasks).on_device();
    let up = graph.push(up.reading(made, Edges::OneToOne));
    graph.keep(up);
    let maker = client.submit(graph).await.expect("accepted");
    maker.wait().await.expect("made");

    let mut graph = TaskGraph::new("imports");
    let imported = maker.import_into(&mut graph, up).expect("kept");
    let sum = graph.push(Layer::new("sum", "sum", 1).reading(imported, Edges::Broadcast));
    graph.keep(imported);
    graph.keep(sum);
    let importer = client.submit(graph).await.expect("accepted");
    in_time(importer.wait())
        .await
        .expect("what is there can be read");
    let sum = number(&importer.gather(sum).await.expect("gathered"));
    assert_eq!(sum, common::tree_sum(tasks, bytes));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_hands_on_lives_and_moves_by_itself() {
    let spill = tempfile::tempdir().expect("a folder");
    let machine = Emulator::new().unwrap().devices(1);
    // Device memory for what one task reads, and little more.
    let change = |config: &mut Config| {
        config.worker.storage_percent = 90;
        config.worker.gpu_memory_bytes = Some(8 * MIB);
        config.worker.pinned_memory_bytes = Some(40 * MIB);
    };
    let cluster = cluster_by(on(&machine), 1, spill.path(), change).await;
    let client = cluster.client().await.expect("connects");
    let (tasks, bytes) = (6, MIB as usize);
    let mut graph = TaskGraph::new("handed on");
    let size = bytes.to_string().into_bytes();
    let made = graph.push(Layer::new("make", "bytes", tasks).with_common(size));
    let up = Layer::new("up", "up", tasks).on_device();
    let up = graph.push(up.reading(made, Edges::OneToOne));
    let twice = Layer::new("twice", "twice", tasks).with_outputs(2);
    let twice = graph.push(twice.on_device().reading(up, Edges::OneToOne));
    let there = Layer::new("there", "there", 2).on_device();
    let there = graph.push(there.reading(twice, Edges::Shuffle));
    let sum = graph.push(Layer::new("sum", "sum", 1).reading(up, Edges::Broadcast));
    for kept in [up, there, sum] {
        graph.keep(kept);
    }
    let handle = client.submit(graph).await.expect("accepted");
    in_time(handle.wait())
        .await
        .expect("everything is where it is said to be");
    let sum = number(&handle.gather(sum).await.expect("gathered"));
    assert_eq!(sum, common::tree_sum(tasks, bytes));
    cluster.shutdown().await;
}
