//! Graphs that work in device memory, on whole clusters whose workers have emulated GPUs: shuffles of more than all devices hold, with
//! streams that pause at random, memory that is refused now and then, and workers that die.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking, and its numbers are small"
)]

mod common;

use std::ffi::OsString;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use common::{cluster_by, kill, left_in, operators_with, until};
use cuda_emulator::{Emulator, Movement};
use futures::FutureExt;
use futures::future::BoxFuture;
use transload_gpu::device::TieredBuffer;
use transload_gpu::device::{Column, DeviceError, DevicePartition, Packed, Region, Values};
use transload_gpu::kernels::{Width, hash_of, partition_of};
use transload_gpu::{Partition, PartitionHeader, Stored};
use transload_protocol::{Blob, ClusterInfo, Edges, Layer, LayerIndex, TaskGraph, Tier};
use transload_runtime::transports::TransportChoice;
use transload_runtime::{
    Client, Config, DeviceOperator, DeviceTask, LocalCluster, LocalClusterOptions, OperatorError,
    OperatorFactory, TaskContext, WorkerMode,
};

/// Columns of 16 B beside the key of 8 B.
const WIDE_COLUMNS: usize = 5;
const ROW_BYTES: u64 = 8 + 16 * WIDE_COLUMNS as u64;

const MIB: u64 = 1 << 20;

#[test]
fn run_as_worker() {
    common::worker_entry_with(operators());
}

fn operators() -> OperatorFactory {
    let on_host = operators_with(&[("rows", rows), ("check", check)]);
    Arc::new(move |environment| {
        let mut registry = on_host(environment);
        registry.register_on_device(Arc::new(Split));
        registry.register_on_device(Arc::new(Join));
        registry
    })
}

/// What is in a column beside a key.
fn beside(key: u64, column: usize) -> u128 {
    u128::from(key.wrapping_mul(0x9e37_79b9)) << (column * 7) ^ u128::from(key)
}

fn number(argument: &[u8]) -> u64 {
    std::str::from_utf8(argument).unwrap().parse().unwrap()
}

/// Makes so many rows, whose keys no other task of the layer makes.
fn rows(task: TaskContext) -> BoxFuture<'static, common::Outcome> {
    async move {
        let count = number(task.common_argument());
        let first = u64::from(task.position) * count;
        let keys: Vec<u64> = (first..first + count).collect();
        let mut buffers = vec![Bytes::from_iter(
            keys.iter().flat_map(|it| it.to_le_bytes()),
        )];
        for column in 0..WIDE_COLUMNS {
            let values = keys
                .iter()
                .flat_map(|key| beside(*key, column).to_le_bytes());
            buffers.push(Bytes::from_iter(values));
        }
        Ok(vec![Partition::new(metadata(count), buffers)])
    }
    .boxed()
}

fn metadata(rows: u64) -> Bytes {
    rows.to_le_bytes().to_vec().into()
}

fn rows_of(metadata: &[u8]) -> u32 {
    u64::from_le_bytes(metadata.try_into().unwrap()) as u32
}

/// That every row belongs here and is whole. Makes their number and the sum of their keys.
fn check(task: TaskContext) -> BoxFuture<'static, common::Outcome> {
    async move {
        let partitions = number(task.common_argument()) as u32;
        let (mut count, mut sum) = (0_u64, 0_u64);
        for partition in task.inputs.iter().flatten() {
            let [keys, columns @ ..] = partition.buffers() else {
                return Err(OperatorError::new("no keys"));
            };
            let keys = keys
                .chunks(8)
                .map(|it| u64::from_le_bytes(it.try_into().unwrap()));
            for (row, key) in keys.enumerate() {
                let belongs = partition_of(hash_of(key), partitions);
                let wide = |column: &Bytes| {
                    let at = row * 16;
                    u128::from_le_bytes(column[at..at + 16].try_into().unwrap())
                };
                let whole = columns.iter().enumerate();
                let whole = whole.map(|(at, column)| wide(column) == beside(key, at));
                if belongs != task.position || whole.fold(false, |bad, it| bad | !it) {
                    return Err(OperatorError::new(format!("key {key} is wrong here")));
                }
                count += 1;
                sum = sum.wrapping_add(key);
            }
        }
        let made = [count.to_le_bytes(), sum.to_le_bytes()].concat();
        Ok(vec![Partition::new(Bytes::new(), vec![made.into()])])
    }
    .boxed()
}

/// The columns of a partition that `rows` made, or that was made of such.
async fn columns(task: &DeviceTask, stored: &Stored) -> Result<Vec<Column>, OperatorError> {
    let tiers = task.gpu.tiers();
    let partition = match stored {
        Stored::Host(partition) => tiers.upload(partition).await?,
        Stored::Device(partition) => partition.clone(),
    };
    let place = tiers.to_device(partition.payload()).await?;
    let rows = rows_of(&partition.header().metadata.0);
    let column = |(at, (start, bytes))| {
        let width = if at == 0 {
            Width::Eight
        } else {
            Width::Sixteen
        };
        let values = Values::Fixed(width, Region::new(&place, start, bytes)?);
        Column::new(rows, None, values)
    };
    let columns = partition.buffers().enumerate().map(column);
    Ok(columns.collect::<Result<Vec<_>, DeviceError>>()?)
}

fn packed(task: &DeviceTask, packed: Packed) -> Result<DevicePartition, OperatorError> {
    let header = PartitionHeader {
        metadata: Blob(metadata(packed.rows)),
        buffer_bytes: packed.buffer_bytes,
    };
    let payload = TieredBuffer::on_device(packed.buffer);
    let partition = DevicePartition::new(header, payload, task.gpu.tiers());
    partition.map_err(|error| OperatorError::new(error.to_string()))
}

type Made = BoxFuture<'static, Result<Vec<DevicePartition>, OperatorError>>;

/// Rows by the hash of their keys.
struct Split;

impl DeviceOperator for Split {
    fn name(&self) -> &str {
        "split"
    }

    fn run(&self, task: DeviceTask) -> Made {
        async move {
            let parts = NonZeroU32::new(task.context.layer.outputs).expect("some");
            let table = columns(&task, &task.inputs[0][0]).await?;
            let made = task.gpu.kernels().partition(&table, &[0], parts).await?;
            made.into_iter().map(|it| packed(&task, it)).collect()
        }
        .boxed()
    }
}

/// Rows behind each other.
struct Join;

impl DeviceOperator for Join {
    fn name(&self) -> &str {
        "join"
    }

    fn run(&self, task: DeviceTask) -> Made {
        async move {
            let mut tables = Vec::new();
            for stored in task.inputs.iter().flatten() {
                tables.push(columns(&task, stored).await?);
            }
            Ok(vec![packed(
                &task,
                task.gpu.kernels().concat(&tables).await?,
            )?])
        }
        .boxed()
    }
}

/// `tasks` partitions of so many rows each, through a shuffle on devices to `parts` tasks that check them.
fn shuffle(tasks: u32, rows: u64, parts: u32) -> (TaskGraph, LayerIndex) {
    let mut graph = TaskGraph::new("device shuffle");
    let text = |number: u64| number.to_string().into_bytes();
    let made = graph.push(Layer::new("make", "rows", tasks).with_common(text(rows)));
    let split = Layer::new("split", "split", tasks).with_outputs(parts);
    let split = graph.push(
        split
            .on_device()
            .with_retries(20)
            .reading(made, Edges::OneToOne),
    );
    let join = Layer::new("join", "join", parts)
        .on_device()
        .with_retries(20);
    let join = graph.push(join.reading(split, Edges::Shuffle));
    let check = Layer::new("check", "check", parts).with_common(text(parts.into()));
    let check = graph.push(check.reading(join, Edges::OneToOne));
    graph.keep(check);
    (graph, check)
}

/// That all rows were counted, once.
fn assert_all(outputs: &[Vec<Partition>], rows: u64) {
    let (mut count, mut sum) = (0_u64, 0_u64);
    for partition in outputs.iter().flatten() {
        let numbers: Vec<u64> = partition.buffers()[0]
            .chunks(8)
            .map(|it| u64::from_le_bytes(it.try_into().unwrap()))
            .collect();
        count += numbers[0];
        sum += numbers[1];
    }
    assert_eq!((count, sum), (rows, rows * (rows - 1) / 2));
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

/// Two workers, each with a GPU of its own, of whose memory they take 4 MiB, and half as much page-locked memory.
async fn two_workers(words: Vec<String>, spill: &Path) -> LocalCluster {
    let change = |config: &mut Config| {
        config.worker.slots = Some(2);
        config.worker.gpu_memory_bytes = Some(DEVICE_BYTES);
        config.worker.pinned_memory_bytes = Some(2 * MIB);
    };
    cluster_by(words, 2, spill, change).await
}

const DEVICE_BYTES: u64 = 4 * MIB;

async fn assert_tiers_are_empty(client: &Client) {
    until(client, "nothing is left on devices", |info| {
        let tiers = info.workers.iter().flat_map(|worker| &worker.load.tiers);
        let mut tiers = tiers.filter(|it| it.tier != Tier::Host);
        tiers.all(|it| it.used_bytes == 0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shuffle_with_room_copies_no_more_than_its_way_needs() {
    let spill = tempfile::tempdir().expect("a folder");
    let machine = Emulator::new().unwrap().devices(2).chaos(6);
    let change = |config: &mut Config| {
        config.worker.gpu_memory_bytes = Some(32 * MIB);
        config.worker.pinned_memory_bytes = Some(32 * MIB);
    };
    let cluster = cluster_by(on(&machine), 2, spill.path(), change).await;
    let client = cluster.client().await.expect("connects");
    let (tasks, rows) = (8, 2_048);
    let all_bytes = u64::from(tasks) * rows * ROW_BYTES;
    let (graph, kept) = shuffle(tasks, rows, 4);
    let outputs = common::run(&client, graph, kept).await;
    assert_all(&outputs, u64::from(tasks) * rows);
    let report = machine.report().unwrap();
    let bytes = |movement| report.moved(movement).bytes;
    // The shuffle, and what the tasks before and behind it are given of other workers.
    let moved = |info: &ClusterInfo| {
        let transfers = info.transfers.iter();
        let transfers = transfers.filter(|it| it.transport == "tcp page-locked");
        transfers.map(|it| it.bytes).sum::<u64>()
    };
    until(&client, "all that moved is told", |info| {
        moved(info) >= bytes(Movement::UploadPinned).max(1)
    })
    .await;
    let info = client.info().await.expect("info");
    assert!(info.workers.iter().all(|worker| worker.spilled_bytes == 0));
    // Each row goes up once, where it is made, and down once, where it is checked: from ordinary memory and to it.
    assert_eq!(bytes(Movement::UploadPageable), all_bytes);
    let with_padding = all_bytes..all_bytes + 4 * 64 * (1 + WIDE_COLUMNS as u64);
    assert!(with_padding.contains(&bytes(Movement::DownloadPageable)));
    // What goes to another worker goes down and up once more.
    let (up, down) = (
        bytes(Movement::UploadPinned),
        bytes(Movement::DownloadPinned),
    );
    assert!(up > 0, "{report:?}");
    // What was on its way for a task that then ran elsewhere went down for nothing; and operators tell the host a little.
    assert!(
        (up..all_bytes + 64 * 1024).contains(&down),
        "{up} {down}: {report:?}"
    );
    cluster.shutdown().await;
}

/// The folder `libucx` of the unpacked PyPI wheel `libucx-cu12`, or why there is none.
fn ucx_with_cuda() -> Result<PathBuf, String> {
    let folder = std::env::var_os("TRANSLOAD_LIBUCX_DIR").map(PathBuf::from);
    let found = folder.unwrap_or_default().join("libucx");
    if found.join("lib/ucx/libuct_cuda.so").exists() {
        return Ok(found);
    }
    Err(format!(
        "skipped: no UCX with CUDA in {}: unpack the wheel libucx-cu12 and name its folder in TRANSLOAD_LIBUCX_DIR",
        found.display()
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn over_ucx_a_shuffle_goes_from_device_to_device() {
    let ucx = match ucx_with_cuda() {
        Ok(ucx) => ucx,
        Err(why) => return println!("{why}"),
    };
    let spill = tempfile::tempdir().expect("a folder");
    let machine = Emulator::new().unwrap().devices(2).chaos(9);
    let mut words = on(&machine);
    let libraries = [machine.libraries(), ucx.join("lib")].map(|it| it.display().to_string());
    words.push(format!("LD_LIBRARY_PATH={}", libraries.join(":")));
    words.push(format!("UCX_MODULE_DIR={}", ucx.join("lib/ucx").display()));
    words.push("UCX_TLS=posix,cma,cuda_copy,cuda_ipc".to_owned());
    let change = |config: &mut Config| {
        config.worker.gpu_memory_bytes = Some(32 * MIB);
        config.worker.pinned_memory_bytes = Some(32 * MIB);
        config.worker.transport = TransportChoice::Ucx;
    };
    let cluster = cluster_by(words, 2, spill.path(), change).await;
    let client = cluster.client().await.expect("connects");
    let (tasks, rows) = (8, 2_048);
    let (graph, kept) = shuffle(tasks, rows, 4);
    let outputs = common::run(&client, graph, kept).await;
    assert_all(&outputs, u64::from(tasks) * rows);
    let report = machine.report().unwrap();
    let bytes = |movement| report.moved(movement).bytes;
    // From the one device to the other, by handles of the other process.
    let straight = bytes(Movement::Ipc) + bytes(Movement::Peer);
    assert!(straight > 0, "{report:?}");
    let is_straight = |it: &str| it.contains("cuda_ipc") && it.ends_with(" device");
    until(&client, "how it moved is told", |info| {
        let mut transfers = info.transfers.iter();
        transfers.any(|it| is_straight(&it.transport))
    })
    .await;
    // Each row goes up once, where it is made, and down once, where it is checked; none in between. Operators tell the host a little.
    let all_bytes = u64::from(tasks) * rows * ROW_BYTES + 64 * 1024;
    let up = bytes(Movement::UploadPageable) + bytes(Movement::UploadPinned);
    let down = bytes(Movement::DownloadPageable) + bytes(Movement::DownloadPinned);
    assert!(up <= all_bytes && down <= all_bytes, "{report:?}");
    cluster.shutdown().await;
}

/// Set in the process that is the whole cluster.
const IS_CLUSTER: &str = "TRANSLOAD_TEST_IS_CLUSTER";

/// Not a test: workers that are threads of this process, with a device each.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_threads() {
    if std::env::var_os(IS_CLUSTER).is_none() {
        return;
    }
    let spill = tempfile::tempdir().expect("a folder");
    let mut config = Config::default();
    config.worker.slots = Some(2);
    config.worker.memory_bytes = Some(256 * MIB);
    config.worker.spill_dir = Some(spill.path().to_owned());
    config.worker.gpu_memory_bytes = Some(32 * MIB);
    config.worker.pinned_memory_bytes = Some(32 * MIB);
    let options = LocalClusterOptions {
        workers: 2,
        slots_per_worker: None,
        memory_per_worker_bytes: None,
        spill_dir: None,
        mode: WorkerMode::Threads {
            operators: operators(),
        },
        config,
    };
    let cluster = LocalCluster::start(options).await.expect("starts");
    let client = cluster.client().await.expect("connects");
    let (tasks, rows) = (8, 2_048);
    let (graph, kept) = shuffle(tasks, rows, 4);
    let outputs = common::run(&client, graph, kept).await;
    assert_all(&outputs, u64::from(tasks) * rows);
    until(&client, "how it moved is told", |info| {
        let mut transfers = info.transfers.iter();
        transfers.any(|it| it.transport == "process device")
    })
    .await;
    cluster.shutdown().await;
}

#[test]
fn workers_of_one_process_bring_partitions_from_device_to_device() {
    let machine = Emulator::new().unwrap().devices(2).chaos(10);
    let ended = machine
        .command(std::env::current_exe().unwrap())
        .args(["a_cluster_of_threads", "--exact", "--nocapture"])
        .env(IS_CLUSTER, "yes")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    let errors = String::from_utf8_lossy(&ended.stderr);
    let passed = ended.status.success() && said.contains("1 passed");
    assert!(passed, "{said}\n{errors}");
    let report = machine.report().unwrap();
    let bytes = |movement| report.moved(movement).bytes;
    assert!(bytes(Movement::Peer) > 0, "{report:?}");
    assert_eq!(bytes(Movement::UploadPinned), 0, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shuffle_of_twice_what_all_devices_hold_has_the_right_rows() {
    let spill = tempfile::tempdir().expect("a folder");
    let machine = Emulator::new().unwrap().devices(2).chaos(7);
    let cluster = two_workers(on(&machine), spill.path()).await;
    let client = cluster.client().await.expect("connects");
    let (tasks, rows) = (16, MIB / ROW_BYTES);
    assert!(u64::from(tasks) * rows * ROW_BYTES > 2 * DEVICE_BYTES - MIB);
    let (graph, kept) = shuffle(tasks, rows, 16);
    let outputs = common::run(&client, graph, kept).await;
    assert_all(&outputs, u64::from(tasks) * rows);
    let info = client.info().await.expect("info");
    for worker in &info.workers {
        assert!(worker.spilled_bytes > 0, "it went to disk: {worker:?}");
    }
    let report = machine.report().unwrap();
    for device in 0..2 {
        let most = machine.most_held_bytes(device).unwrap();
        assert!(
            most <= DEVICE_BYTES + 4 * MIB,
            "{most} B on device {device}"
        );
    }
    assert!(report.moved(Movement::DownloadPinned).bytes > 0);
    assert_tiers_are_empty(&client).await;
    cluster.shutdown().await;
    assert_eq!(left_in(spill.path()), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn with_direct_storage_a_shuffle_of_more_than_memory_holds_goes_to_disk_past_the_host() {
    // Beside the program, as folders for temporary files are often in memory, where nothing goes past the page cache.
    let program = std::env::current_exe().unwrap();
    let spill = tempfile::tempdir_in(program.parent().unwrap()).expect("a folder");
    let machine = Emulator::new()
        .unwrap()
        .devices(2)
        .chaos(7)
        .direct_storage();
    let cluster = two_workers(on(&machine), spill.path()).await;
    let client = cluster.client().await.expect("connects");
    let (tasks, rows) = (16, MIB / ROW_BYTES);
    let all_bytes = u64::from(tasks) * rows * ROW_BYTES;
    assert!(all_bytes > 2 * (DEVICE_BYTES + 2 * MIB));
    let (graph, kept) = shuffle(tasks, rows, 16);
    let outputs = common::run(&client, graph, kept).await;
    assert_all(&outputs, u64::from(tasks) * rows);
    let report = machine.report().unwrap();
    for way in [Movement::DeviceToFile, Movement::FileToDevice] {
        // Each worker tries it out with a page.
        assert!(report.moved(way).bytes > MIB, "{way:?} of {report:?}");
    }
    assert_tiers_are_empty(&client).await;
    cluster.shutdown().await;
    assert_eq!(left_in(spill.path()), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn direct_storage_that_fails_now_and_then_costs_time_and_no_row() {
    let program = std::env::current_exe().unwrap();
    let spill = tempfile::tempdir_in(program.parent().unwrap()).expect("a folder");
    // A read that the operating system refuses is tried by the host; so is what cuFile refuses.
    let plan = "cuFileWrite%20=CUDA_ERROR_INVALID_VALUE, cuFileRead%20=CUDA_ERROR_OPERATING_SYSTEM, \
        cuFileHandleRegister%5=CUDA_ERROR_NOT_SUPPORTED, cuLaunchKernel%1=CUDA_ERROR_OUT_OF_MEMORY, seed=3";
    let machine = Emulator::new().unwrap().devices(2).chaos(8);
    let machine = machine.direct_storage().faults(plan);
    let cluster = two_workers(on(&machine), spill.path()).await;
    let client = cluster.client().await.expect("connects");
    let (tasks, rows) = (16, MIB / ROW_BYTES);
    let (graph, kept) = shuffle(tasks, rows, 16);
    let outputs = common::run(&client, graph, kept).await;
    assert_all(&outputs, u64::from(tasks) * rows);
    assert!(
        machine
            .report()
            .unwrap()
            .moved(Movement::FileToDevice)
            .bytes
            > MIB
    );
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_that_is_refused_now_and_then_costs_time_and_no_row() {
    let spill = tempfile::tempdir().expect("a folder");
    let plan = "cuLaunchKernel%2=CUDA_ERROR_OUT_OF_MEMORY, cuMemHostAlloc%20=CUDA_ERROR_OUT_OF_MEMORY, seed=3";
    let machine = Emulator::new().unwrap().devices(2).chaos(8).faults(plan);
    let cluster = two_workers(on(&machine), spill.path()).await;
    let client = cluster.client().await.expect("connects");
    let (tasks, rows) = (8, MIB / 2 / ROW_BYTES);
    let (graph, kept) = shuffle(tasks, rows, 8);
    let outputs = common::run(&client, graph, kept).await;
    assert_all(&outputs, u64::from(tasks) * rows);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_in_the_middle_takes_its_device_with_it_and_costs_no_row() {
    let spill = tempfile::tempdir().expect("a folder");
    let machine = Emulator::new().unwrap().devices(2).chaos(9);
    let cluster = two_workers(on(&machine), spill.path()).await;
    let client = cluster.client().await.expect("connects");
    let (tasks, rows) = (16, MIB / ROW_BYTES);
    let (graph, kept) = shuffle(tasks, rows, 16);
    let handle = client.submit(graph).await.expect("accepted");
    until(&client, "both have device partitions", |info| {
        let holds = |worker: &transload_protocol::WorkerInfo| {
            let mut tiers = worker.load.tiers.iter();
            tiers.any(|it| it.tier == Tier::PinnedHost && it.used_bytes > 0)
        };
        info.workers.iter().filter(|worker| holds(worker)).count() == 2
    })
    .await;
    let info = client.info().await.expect("info");
    kill(info.workers[1].hello.process);
    handle.wait().await.expect("the other one does it all");
    let outputs = handle.gather(kept).await.expect("gathered");
    assert_all(&outputs, u64::from(tasks) * rows);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_of_the_gpu_ends_its_worker_and_the_work_goes_on_elsewhere() {
    a_gpu_is_lost_by("launch@20=CUDA_ERROR_ILLEGAL_ADDRESS").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gpu_that_is_lost_while_others_read_from_it_ends_its_worker_too() {
    // Copies down are for other workers and for what is spilled.
    a_gpu_is_lost_by("cuMemcpyDtoHAsync_v2@9=CUDA_ERROR_ECC_UNCORRECTABLE").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gpu_with_a_fault_before_it_is_open_ends_its_worker_too() {
    a_gpu_is_lost_by("cuMemAlloc_v2@1=CUDA_ERROR_ECC_UNCORRECTABLE").await;
}

/// One of two workers, to whose driver this happens.
async fn a_gpu_is_lost_by(plan: &str) {
    let spill = tempfile::tempdir().expect("a folder");
    let machine = Emulator::new().unwrap().devices(2);
    let fault = format!(
        "[ \"$TRANSLOAD_WORKER_NAME\" = local-0 ] && export CUDA_EMULATOR_FAULTS={plan}; exec \"$@\""
    );
    let words = ["sh", "-c", &fault, "sh"].map(str::to_owned).into_iter();
    let cluster = two_workers(words.chain(on(&machine)).collect(), spill.path()).await;
    let client = cluster.client().await.expect("connects");
    let (graph, kept) = shuffle(16, 2_000, 8);
    let outputs = common::run(&client, graph, kept).await;
    assert_all(&outputs, 32_000);
    until(&client, "the worker with the fault is gone", |info| {
        let names = info.workers.iter().map(|it| it.hello.name.as_str());
        names.eq(["local-1"])
    })
    .await;
    cluster.shutdown().await;
}
