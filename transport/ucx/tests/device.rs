//! Device partitions between processes, by UCX's CUDA build under the emulated driver: which way their bytes went is seen in the driver's
//! count and in ours.
//!
//! Skipped, with a printed reason, where `TRANSLOAD_LIBUCX_DIR` names no folder with the unpacked PyPI wheel `libucx-cu12`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::io::{BufRead, BufReader, Lines, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{options, start};
use cuda_emulator::{Emulator, Movement, Report};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::Notify;
use transload_gpu::device::{Device, DeviceMemory, DevicePartition, PinnedPool, Tiers};
use transload_gpu::device::{Landed, Path as Way};
use transload_gpu::{
    Budget, HostBuffer, OutOfBudget, Partition, PartitionHeader, SpillDirectory, Stored,
};
use transload_protocol::{Address, PartitionId, Tier};
use transload_transport::conformance::{partition_id, random_partition};
use transload_transport::{
    Connection, Destination, OnDevice, PartitionSource, Transport, TransportError,
};
use transload_transport_ucx::UcxTransport;

const MIB: u64 = 1 << 20;
/// Longest that anything is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// The environment variable that says which end a process is, and what that is to do.
const ROLE: &str = "TRANSLOAD_TEST_ROLE";
/// Where the fetching end finds the other.
const PEER: &str = "TRANSLOAD_TEST_PEER";
/// The holder's process.
const HOLDER: &str = "TRANSLOAD_TEST_HOLDER";
/// Transports of UCX with which device memory goes from process to process by itself.
const CUDA_IPC: &str = "posix,cma,cuda_copy,cuda_ipc";
/// Partitions that are fetched, and the buffers of each.
const COUNT: u32 = 3;
const BUFFERS: [usize; 3] = [(9 << 20) + 5, 1, 100_000];
/// A payload in pieces of 4 MiB.
const PIECES: u64 = 3;

fn partition(number: u32) -> Partition {
    random_partition(u64::from(number) + 1, &BUFFERS)
}

/// A device of this process with its tiers.
struct Bench {
    device: Device,
    tiers: Tiers,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let device = Device::open(0).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let directory = Arc::new(SpillDirectory::create(folder.path()).unwrap());
        let memory = DeviceMemory::take(&device, 64 * MIB).unwrap();
        let pinned = PinnedPool::new(&device, 64 * MIB);
        Self {
            tiers: Tiers::new(memory, pinned, directory).unwrap(),
            device,
            _folder: folder,
        }
    }

    /// A device partition as the host sees it.
    async fn contents(&self, fetched: Stored) -> Partition {
        let Stored::Device(fetched) = fetched else {
            panic!("{fetched:?} is on no device")
        };
        let bytes = fetched.header().payload_bytes();
        let room = Budget::new("host memory", u64::MAX).try_reserve(bytes);
        let to = HostBuffer::uncleared(bytes as usize, room.unwrap());
        self.tiers.download(&fetched, to).await.unwrap()
    }

    /// Copies between the device and the host so far, by our count.
    fn over_the_bus(&self) -> u64 {
        let ways = [
            Way::PinnedToDevice,
            Way::DeviceToPinned,
            Way::PageableToDevice,
            Way::DeviceToPageable,
        ];
        let traffic = self.device.traffic();
        ways.into_iter().map(|way| traffic.over(way).0).sum()
    }
}

/// Device partitions by number.
struct Held(Vec<DevicePartition>);

impl Held {
    fn get(&self, id: PartitionId) -> Option<&DevicePartition> {
        self.0.get(id.task.index as usize)
    }
}

impl PartitionSource for Held {
    fn open(&self, id: PartitionId) -> BoxFuture<'_, Result<Option<Partition>, String>> {
        async move {
            let Some(held) = self.get(id) else {
                return Ok(None);
            };
            let viewed = held.tiers().viewed(held).await;
            viewed.map(Some).map_err(|error| error.to_string())
        }
        .boxed()
    }

    fn open_in_place(&self, id: PartitionId) -> BoxFuture<'_, Result<Option<Stored>, String>> {
        let held = self.get(id).cloned();
        async move { Ok(held.map(Stored::Device)) }.boxed()
    }
}

/// Device memory where there is some, else page-locked memory.
struct ToDevice {
    tiers: Tiers,
    has_room: bool,
    landed: Mutex<Landed>,
    /// Told when memory of the device was given.
    asked: Notify,
}

impl ToDevice {
    fn new(tiers: &Tiers, has_room: bool) -> Self {
        Self {
            tiers: tiers.clone(),
            has_room,
            landed: Mutex::default(),
            asked: Notify::new(),
        }
    }
}

impl Destination for ToDevice {
    fn allocate(&self, header: &PartitionHeader) -> Result<HostBuffer, OutOfBudget> {
        let landing = self.tiers.landing(header.payload_bytes());
        let (buffer, landed) = landing.expect("page-locked memory was made ready");
        *self.landed.lock().unwrap() = landed;
        Ok(buffer)
    }

    fn device(&self) -> Option<&Device> {
        Some(self.tiers.memory().device())
    }

    fn allocate_on_device(&self, header: &PartitionHeader) -> Option<OnDevice> {
        let buffer = self.tiers.memory().try_allocate(header.payload_bytes());
        self.asked.notify_one();
        let buffer = buffer.ok().filter(|_| self.has_room)?;
        Some(OnDevice {
            buffer,
            tiers: self.tiers.clone(),
        })
    }
}

/// Not a test: the end that has the partitions, in the tier that its role names.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holder() {
    let Some(role) = role("holder") else { return };
    let transport = start(options()).expect("the test has looked");
    let bench = Bench::new();
    let mut held = Vec::new();
    for number in 0..COUNT {
        let partition = bench.tiers.upload(&partition(number)).await.unwrap();
        if role == "pinned" {
            bench.tiers.to_pinned(partition.payload()).await.unwrap();
        }
        held.push(partition);
    }
    let before = bench.over_the_bus();
    let source = Arc::new(Held(held));
    let listener = transport
        .listen("127.0.0.1:0", Arc::clone(&source) as _)
        .await
        .unwrap();
    println!("at {}", listener.address().endpoint);
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()))
        .await
        .unwrap()
        .unwrap();
    assert!(source.0.iter().all(|it| it.tier() == source.0[0].tier()));
    println!("copies {}", bench.over_the_bus() - before);
}

/// Other partitions, as many as there is room for.
async fn fill(bench: &Bench) -> Vec<DevicePartition> {
    let mut others = Vec::new();
    while let Ok(other) = bench.tiers.upload(&partition(7)).await {
        others.push(other);
    }
    assert!(others.len() > 3, "there is little memory");
    others
}

/// Not a test: the end that fetches them, to where its role says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fetcher() {
    let Some(role) = role("fetcher") else { return };
    let transport = start(options()).expect("the test has looked");
    let peer = Address::new("ucx", std::env::var(PEER).unwrap());
    let connection = transport.connect(&peer).await.unwrap();
    println!("link {}", connection.link());
    let memory = Arc::new(Budget::new("host memory", u64::MAX));
    if role == "host" {
        for number in 0..COUNT {
            let fetched = connection
                .fetch(partition_id(number), Arc::clone(&memory) as _)
                .await;
            assert_eq!(fetched.unwrap().into_host(), Some(partition(number)));
        }
        return;
    }
    let bench = Bench::new();
    match role.as_str() {
        "cancels" => return cancels(&*connection, &bench).await,
        "is bereaved" => return is_bereaved(connection, &bench).await,
        "closes" => return closes(&transport, connection, &bench).await,
        _ => {}
    }
    let mut all = Vec::new();
    for number in 0..COUNT {
        let payload_bytes = partition(number).header().payload_bytes();
        drop(bench.tiers.pinned().try_allocate(payload_bytes).unwrap());
        let to = Arc::new(ToDevice::new(&bench.tiers, role == "device"));
        let fetched = connection
            .fetch(partition_id(number), Arc::clone(&to) as _)
            .await;
        all.push(match fetched.unwrap() {
            Stored::Device(partition) => partition,
            Stored::Host(partition) => {
                let landed = to.landed.lock().unwrap();
                bench.tiers.adopt(&partition, &landed).unwrap()
            }
        });
    }
    println!("copies {}", bench.over_the_bus());
    println!(
        "straight {}",
        bench.device.traffic().over(Way::PeerToDevice).0
    );
    println!("tier {}", all[0].tier());
    for (number, fetched) in (0..).zip(all) {
        assert_eq!(bench.contents(fetched.into()).await, partition(number));
    }
}

/// Drops fetches as soon as they have memory, and after whatever time; then fetches all.
async fn cancels(connection: &dyn Connection, bench: &Bench) {
    for round in 0..8_u64 {
        let to = Arc::new(ToDevice::new(&bench.tiers, true));
        let asked = async {
            to.asked.notified().await;
            tokio::time::sleep(Duration::from_micros(round * 150)).await;
        };
        let fetching = connection.fetch(partition_id(0), Arc::clone(&to) as _);
        tokio::select! {
            biased;
            () = asked => {}
            fetched = fetching => drop(fetched.unwrap()),
        }
    }
    until_free(bench).await;
    let to = Arc::new(ToDevice::new(&bench.tiers, true));
    let fetched = connection.fetch(partition_id(1), to as _).await.unwrap();
    assert_eq!(bench.contents(fetched).await, partition(1));
    assert!(!connection.is_closed());
}

/// Fetches from a holder that is killed meanwhile.
async fn is_bereaved(connection: Arc<dyn Connection>, bench: &Bench) {
    let (mut all, to) = (Vec::new(), Arc::new(ToDevice::new(&bench.tiers, true)));
    for number in 0..COUNT {
        let (connection, to) = (Arc::clone(&connection), Arc::clone(&to));
        all.push(tokio::spawn(async move {
            loop {
                connection
                    .fetch(partition_id(number), Arc::clone(&to) as _)
                    .await?;
            }
        }));
    }
    to.asked.notified().await;
    println!("fetching");
    for fetches in all {
        let error: TransportError = match fetches.await.unwrap() {
            Ok(never) => never,
            Err(error) => error,
        };
        assert!(error.is_retryable(), "{error}");
    }
    drop((to, connection));
    until_free(bench).await;
}

/// Closes the connection while the holder is stopped in mid payload, fills all the memory that it has with other partitions, and looks at
/// them when the holder has gone on.
async fn closes(transport: &UcxTransport, connection: Arc<dyn Connection>, bench: &Bench) {
    let to = Arc::new(Stopping(ToDevice::new(&bench.tiers, true)));
    let peer = connection.peer().clone();
    let fetching = connection.fetch(partition_id(0), Arc::clone(&to) as _);
    let asked = async {
        to.0.asked.notified().await;
        // For UCX to tell the holder where to write.
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    tokio::select! {
        biased;
        () = asked => {}
        fetched = fetching => panic!("it came from a holder that is stopped: {fetched:?}"),
    }
    drop((to, connection));
    // For it to be closed.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let others = fill(bench).await;
    signal_holder("-CONT");
    let connection = transport.connect(&peer).await.unwrap();
    let memory = Arc::new(Budget::new("host memory", u64::MAX));
    for number in 0..COUNT {
        let fetched = connection.fetch(partition_id(number), Arc::clone(&memory) as _);
        assert_eq!(fetched.await.unwrap().into_host(), Some(partition(number)));
    }
    for (number, other) in others.into_iter().enumerate() {
        let is_whole = bench.contents(other.into()).await == partition(7);
        assert!(is_whole, "a peer has written into partition {number}");
    }
    until_free(bench).await;
}

/// Device memory; the holder is stopped before it is given.
struct Stopping(ToDevice);

impl Destination for Stopping {
    fn allocate(&self, header: &PartitionHeader) -> Result<HostBuffer, OutOfBudget> {
        self.0.allocate(header)
    }

    fn device(&self) -> Option<&Device> {
        self.0.device()
    }

    fn allocate_on_device(&self, header: &PartitionHeader) -> Option<OnDevice> {
        signal_holder("-STOP");
        self.0.allocate_on_device(header)
    }
}

fn signal_holder(signal: &str) {
    let holder = std::env::var(HOLDER).unwrap();
    let status = Command::new("kill").args([signal, &holder]).status();
    assert!(status.unwrap().success());
}

async fn until_free(bench: &Bench) {
    let started = Instant::now();
    while bench.tiers.memory().budget().used_bytes() > 0 {
        assert!(started.elapsed() < PATIENCE, "memory is not given back");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// What this process is to do at that end.
fn role(end: &str) -> Option<String> {
    let role = std::env::var(ROLE).ok()?;
    Some(role.strip_prefix(end)?.trim().to_owned())
}

/// The wheel's folder `libucx`, or why there is none.
fn wheel() -> Result<PathBuf, String> {
    let folder = std::env::var_os("TRANSLOAD_LIBUCX_DIR").map(PathBuf::from);
    let found = folder.unwrap_or_default().join("libucx");
    if found.join("lib/ucx/libuct_cuda.so").exists() {
        Ok(found)
    } else {
        Err(format!(
            "skipped: no UCX with CUDA in {}: unpack the wheel libucx-cu12 and name its folder in TRANSLOAD_LIBUCX_DIR",
            found.display()
        ))
    }
}

/// This program as one end.
fn end(end: &str, role: &str, tls: &str, wheel: &Path, machine: Option<&Emulator>) -> Command {
    let mut path = wheel.join("lib").into_os_string();
    if let Some(machine) = machine {
        path.push(":");
        path.push(machine.libraries());
    }
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new(&program);
    if let Some(machine) = machine {
        command = machine.command(&program);
    }
    // A name of a test, or of a module of some.
    if end != "conformance" {
        command.arg("--exact");
    }
    command
        .args([end, "--nocapture"])
        .env("LD_LIBRARY_PATH", path)
        .env("UCX_MODULE_DIR", wheel.join("lib/ucx"))
        .env("UCX_TLS", tls)
        .env(ROLE, format!("{end} {role}"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// What an end has said in a line that begins so.
fn said(text: &str, what: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.strip_prefix(what))?;
    Some(line.trim().to_owned())
}

/// What became of the fetches.
struct Fetched {
    /// Copies over the bus while partitions were sent and received, by our count at both ends.
    copies: u64,
    straight: u64,
    link: String,
    tier: String,
    /// What the driver has counted at both ends.
    report: Report,
}

impl Fetched {
    /// What the driver has copied to make the partitions, and to look at them: not to send them.
    fn through_host_in_between(&self, looked_at: u64) -> u64 {
        let made = u64::from(COUNT) * BUFFERS.iter().sum::<usize>() as u64;
        self.report.through_host().bytes - made - looked_at
    }
}

/// Starts an end, and waits until it says what begins so.
fn start_end(command: &mut Command, what: &str) -> (Child, Lines<BufReader<ChildStdout>>, String) {
    let mut end = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(end.stdout.take().unwrap()).lines();
    match lines.find_map(|line| said(&line.unwrap(), what)) {
        Some(said) => (end, lines, said),
        None => panic!("it has ended: {:?}", end.wait_with_output()),
    }
}

/// Fetches all partitions from one process to another, which has a device or not.
fn fetch(from: &str, to: &str, tls: &str, to_has_device: bool) -> Option<Fetched> {
    let wheel = wheel().map_err(|why| println!("{why}")).ok()?;
    let machine = Emulator::new().unwrap().chaos(3);
    let mut command = end("holder", from, tls, &wheel, Some(&machine));
    let (holder, lines, address) = start_end(&mut command, "at ");
    let fetcher = end(
        "fetcher",
        to,
        tls,
        &wheel,
        to_has_device.then_some(&machine),
    )
    .env(PEER, address)
    .env(HOLDER, holder.id().to_string())
    .stdin(Stdio::null())
    .output()
    .unwrap();
    let text = String::from_utf8_lossy(&fetcher.stdout).into_owned();
    let errors = String::from_utf8_lossy(&fetcher.stderr).into_owned();
    assert!(
        fetcher.status.success() && text.contains("1 passed"),
        "{text}\n{errors}"
    );
    assert_no_complaint(&errors);
    let rest = finish(holder, lines);
    let number = |text: &str, what| said(text, what).map_or(0, |it| it.parse::<u64>().unwrap());
    Some(Fetched {
        copies: number(&text, "copies ") + number(&rest, "copies "),
        straight: number(&text, "straight "),
        link: said(&text, "link ").unwrap(),
        tier: said(&text, "tier ").unwrap_or_default(),
        report: machine.report().unwrap(),
    })
}

/// The rest of what the holder says when it is to end.
fn finish(mut holder: Child, lines: impl Iterator<Item = std::io::Result<String>>) -> String {
    drop(holder.stdin.take());
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    let ended = holder.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success(), "{rest:?}\n{errors}");
    assert_no_complaint(&errors);
    rest.join("\n")
}

/// UCX found nothing wrong, and did nothing that the emulated driver does not know.
fn assert_no_complaint(errors: &str) {
    for complaint in ["UCX  ERROR", "is not emulated"] {
        assert!(!errors.contains(complaint), "{errors}");
    }
}

const ALL_BYTES: u64 = COUNT as u64 * (9 * MIB + 64 + 64 + 100_032);

#[test]
fn device_memory_goes_to_device_memory_in_one_copy_for_each_piece_and_none_by_the_host() {
    let Some(fetched) = fetch("device", "device", CUDA_IPC, true) else {
        return;
    };
    println!("{:?} {}", fetched.report, fetched.link);
    let by_ipc = fetched.report.moved(Movement::Ipc);
    assert_eq!(
        (by_ipc.calls, by_ipc.bytes),
        (u64::from(COUNT) * PIECES, ALL_BYTES)
    );
    assert_eq!(fetched.through_host_in_between(ALL_BYTES), 0);
    assert_eq!((fetched.copies, fetched.straight), (0, u64::from(COUNT)));
    assert_eq!(fetched.tier, Tier::Device.to_string());
    assert!(fetched.link.contains("cuda_ipc"), "{}", fetched.link);
}

#[test]
fn fetches_that_are_dropped_in_mid_payload_give_their_device_memory_back() {
    for tls in [CUDA_IPC, "posix,cuda_copy"] {
        if fetch("device", "cancels", tls, true).is_none() {
            return;
        }
    }
}

#[test]
fn nobody_writes_to_device_memory_that_a_closed_connection_has_given_back() {
    for tls in [CUDA_IPC, "posix,cuda_copy"] {
        if fetch("device", "closes", tls, true).is_none() {
            return;
        }
    }
}

#[test]
fn a_holder_that_is_killed_in_mid_payload_is_an_error_and_device_memory_comes_back() {
    let Ok(wheel) = wheel().map_err(|why| println!("{why}")) else {
        return;
    };
    let machine = Emulator::new().unwrap().chaos(4);
    for tls in [CUDA_IPC, "posix,cuda_copy"] {
        let mut command = end("holder", "device", tls, &wheel, Some(&machine));
        let (mut holder, _lines, address) = start_end(&mut command, "at ");
        let mut command = end("fetcher", "is bereaved", tls, &wheel, Some(&machine));
        let (fetcher, lines, _) = start_end(command.env(PEER, address), "fetching");
        holder.kill().unwrap();
        holder.wait().unwrap();
        let rest: Vec<String> = lines.map(Result::unwrap).collect();
        let ended = fetcher.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(ended.status.success(), "{rest:?}\n{errors}");
    }
}

#[test]
fn without_cuda_ipc_device_memory_still_arrives_in_device_memory() {
    for tls in ["posix,cma,cuda_copy", "tcp,cuda_copy"] {
        let Some(fetched) = fetch("device", "device", tls, true) else {
            return;
        };
        assert_eq!(fetched.report.moved(Movement::Ipc).calls, 0, "{tls}");
        assert_eq!(
            fetched.through_host_in_between(ALL_BYTES),
            2 * ALL_BYTES,
            "{tls}"
        );
        assert_eq!(
            (fetched.copies, fetched.straight),
            (0, u64::from(COUNT)),
            "{tls}"
        );
    }
}

#[test]
fn where_there_is_no_room_on_the_device_page_locked_memory_is_received_into() {
    for tls in [CUDA_IPC, "tcp,cuda_copy"] {
        let Some(fetched) = fetch("device", "pinned", tls, true) else {
            return;
        };
        assert_eq!(fetched.tier, Tier::PinnedHost.to_string(), "{tls}");
        assert_eq!(
            (fetched.copies, fetched.straight),
            (0, 0),
            "{tls}: UCX copies it"
        );
        assert_eq!(fetched.through_host_in_between(0), ALL_BYTES, "{tls}");
    }
}

#[test]
fn what_is_page_locked_is_sent_from_there() {
    let Some(fetched) = fetch("pinned", "device", CUDA_IPC, true) else {
        return;
    };
    assert_eq!(fetched.tier, Tier::PinnedHost.to_string());
    assert_eq!((fetched.copies, fetched.straight), (0, 0));
}

#[test]
fn who_has_no_device_is_sent_the_same_bytes() {
    for has_device in [true, false] {
        let fetched = fetch("device", "host", CUDA_IPC, has_device);
        let Some(fetched) = fetched else { return };
        assert_eq!(fetched.copies, u64::from(COUNT), "one down for each");
        assert_eq!(fetched.through_host_in_between(0), ALL_BYTES);
    }
}

#[test]
fn a_ucx_that_leaves_devices_alone_is_given_page_locked_memory() {
    let Some(fetched) = fetch("device", "device", "posix,cma", true) else {
        return;
    };
    assert_eq!(fetched.tier, Tier::PinnedHost.to_string());
    assert_eq!((fetched.copies, fetched.straight), (u64::from(COUNT), 0));
    assert_eq!(
        fetched.report.moved(Movement::DownloadPinned).calls,
        u64::from(COUNT)
    );
}

/// Tests that do something only in a process that was started for them, which has the device and the libraries that they want.
mod conformance {
    use transload_transport::conformance::{Backend, DeviceBackend};

    fn backend() -> Option<DeviceBackend> {
        super::role("conformance")?;
        let transport = super::start(super::options())?;
        Some(DeviceBackend::new(Backend::new(transport, "127.0.0.1:0")))
    }

    transload_transport::device_conformance_suite!(backend);
}

#[test]
fn with_devices_ucx_keeps_to_what_every_backend_must_do() {
    let Ok(wheel) = wheel().map_err(|why| println!("{why}")) else {
        return;
    };
    for tls in [CUDA_IPC, "tcp,cuda_copy"] {
        let machine = Emulator::new().unwrap().chaos(13);
        let mut command = end("conformance", "", tls, &wheel, Some(&machine));
        let ended = command.output().unwrap();
        let said = String::from_utf8_lossy(&ended.stdout);
        let errors = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success(), "{tls}: {said}\n{errors}");
        assert!(
            said.contains("every_size_arrives_on_the_device ... ok"),
            "{said}"
        );
        assert!(!said.contains("skipped"), "{said}");
    }
}
