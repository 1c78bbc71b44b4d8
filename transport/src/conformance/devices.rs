//! What every backend must do with partitions of devices, whichever way it has for them.

use std::fmt;
use std::sync::{Arc, Mutex};

use futures::future::{BoxFuture, join_all};
use futures::{FutureExt, poll};
use transload_gpu::device::{
    Device, DeviceMemory, DevicePartition, Landed, Path, PinnedPool, Prepared, Staging, Tiers,
};
use transload_gpu::{
    Budget, HostBuffer, OutOfBudget, Partition, PartitionHeader, SpillDirectory, Stored,
};
use transload_protocol::{PartitionId, Tier};

use super::fixture::{Backend, ample, fetch, partition_id, random_partition, until, within};
use crate::{Connection, Destination, Listener, OnDevice, PartitionSource, TransportError};

const MIB: usize = 1 << 20;

/// A backend, and a device with its tiers at each end: of 64 MiB of device memory, and 16 MiB of page-locked memory.
pub struct DeviceBackend {
    /// The backend.
    pub backend: Backend,
    /// Of the end that serves.
    pub there: Tiers,
    /// Of the end that fetches.
    pub here: Tiers,
}

impl DeviceBackend {
    /// The machine's first device at both ends, which take memory of their own.
    pub fn new(backend: Backend) -> Self {
        let device = Device::open(0).expect("a device");
        let directory = SpillDirectory::create(&std::env::temp_dir()).expect("a directory");
        let directory = Arc::new(directory);
        let tiers = || {
            let memory = DeviceMemory::take(&device, 64 << 20).expect("device memory");
            let pinned = PinnedPool::new(&device, 16 << 20);
            Tiers::new(memory, pinned, Arc::clone(&directory)).expect("tiers")
        };
        Self {
            backend,
            there: tiers(),
            here: tiers(),
        }
    }
}

impl fmt::Debug for DeviceBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} with devices", self.backend)
    }
}

/// Makes one test of each case for devices. The argument is the path of a function that makes a fresh [`DeviceBackend`], or an
/// `Option` of one where a machine may lack it.
#[macro_export]
macro_rules! device_conformance_suite {
    ($backend:path) => {
        $crate::conformance_suite!(@tests $backend;
            every_size_arrives_on_the_device,
            every_tier_is_served,
            what_is_for_the_host_arrives_there,
            without_room_on_the_device_it_lands_beside_it,
            without_page_locked_memory_it_arrives_all_the_same,
            what_is_larger_than_page_locked_memory_passes_through_a_little_of_it,
            a_destination_that_gives_wrong_device_memory_is_told_so,
            many_device_partitions_arrive_at_once,
            a_partition_that_leaves_the_device_while_it_is_sent_arrives_whole,
            a_device_fetch_dropped_after_any_poll_leaves_nothing_behind,
        );
    };
}

/// Device partitions by number.
#[derive(Default)]
struct Held(Mutex<Vec<DevicePartition>>);

impl Held {
    fn get(&self, id: PartitionId) -> Option<DevicePartition> {
        let held = self.0.lock().unwrap();
        held.get(id.task.index as usize).cloned()
    }
}

impl PartitionSource for Held {
    fn open(&self, id: PartitionId) -> BoxFuture<'_, Result<Option<Partition>, String>> {
        async move {
            let Some(held) = self.get(id) else {
                return Ok(None);
            };
            let (tiers, bytes) = (held.tiers(), held.header().payload_bytes());
            if let Ok(viewed) = tiers.viewed(&held).await {
                return Ok(Some(viewed));
            }
            let to = HostBuffer::uncleared(bytes as usize, ample().reserve_over(bytes));
            let copied = tiers.download(&held, to).await;
            copied.map(Some).map_err(|error| error.to_string())
        }
        .boxed()
    }

    fn open_in_place(&self, id: PartitionId) -> BoxFuture<'_, Result<Option<Stored>, String>> {
        match self.get(id) {
            Some(held) if held.tier() == Tier::Device => {
                async move { Ok(Some(held.into())) }.boxed()
            }
            _ => {
                let opened = self.open(id);
                opened.map(|it| Ok(it?.map(Stored::Host))).boxed()
            }
        }
    }
}

/// A destination on a device.
struct ToDevice {
    tiers: Tiers,
    has_room: bool,
    prepared: Mutex<Option<Prepared>>,
    landed: Mutex<Landed>,
}

impl ToDevice {
    /// For a payload of about so many bytes.
    async fn new(tiers: &Tiers, bytes: usize) -> Self {
        Self {
            tiers: tiers.clone(),
            has_room: true,
            prepared: Mutex::new(tiers.prepare(bytes as u64).await.ok()),
            landed: Mutex::default(),
        }
    }
}

impl Destination for ToDevice {
    fn allocate(&self, header: &PartitionHeader) -> Result<HostBuffer, OutOfBudget> {
        drop(self.prepared.lock().unwrap().take());
        match self.tiers.landing(header.payload_bytes()) {
            Some((buffer, landed)) => {
                *self.landed.lock().unwrap() = landed;
                Ok(buffer)
            }
            None => ample().allocate(header),
        }
    }

    fn device(&self) -> Option<&Device> {
        Some(self.tiers.memory().device())
    }

    fn allocate_on_device(&self, header: &PartitionHeader) -> Option<OnDevice> {
        let buffer = self.tiers.memory().try_allocate(header.payload_bytes());
        Some(OnDevice {
            buffer: buffer.ok().filter(|_| self.has_room)?,
            tiers: self.tiers.clone(),
        })
    }

    fn staging(&self) -> Option<Staging> {
        match self.prepared.lock().unwrap().take()? {
            Prepared::Pieces(staging) => Some(staging),
            Prepared::Whole(_) => None,
        }
    }
}

/// A destination that gives memory of another size than it is asked for.
struct Wrong(ToDevice);

impl Destination for Wrong {
    fn allocate(&self, header: &PartitionHeader) -> Result<HostBuffer, OutOfBudget> {
        self.0.allocate(header)
    }

    fn device(&self) -> Option<&Device> {
        self.0.device()
    }

    fn allocate_on_device(&self, _header: &PartitionHeader) -> Option<OnDevice> {
        Some(OnDevice {
            buffer: self.0.tiers.memory().try_allocate(64).ok()?,
            tiers: self.0.tiers.clone(),
        })
    }

    fn staging(&self) -> Option<Staging> {
        self.0.staging()
    }
}

/// Both ends of a case.
struct Bench {
    there: Tiers,
    here: Tiers,
    source: Arc<Held>,
    connection: Arc<dyn Connection>,
    listener: Box<dyn Listener>,
}

impl Bench {
    async fn new(devices: DeviceBackend) -> Self {
        let source = Arc::new(Held::default());
        let DeviceBackend {
            backend,
            there,
            here,
        } = devices;
        let listening = backend
            .transport
            .listen(&backend.bind, Arc::clone(&source) as _);
        let listener = listening.await.expect("listens");
        Self {
            connection: backend.connect(&*listener).await,
            there,
            here,
            source,
            listener,
        }
    }

    /// Serves it under the next number, from the device.
    async fn hold(&self, partition: &Partition) -> DevicePartition {
        let held = self.there.upload(partition).await.expect("room");
        self.source.0.lock().unwrap().push(held.clone());
        held
    }

    async fn fetch_to(&self, number: u32, to: &Arc<ToDevice>) -> Stored {
        let to = Arc::clone(to) as Arc<dyn Destination>;
        let fetched = within(self.connection.fetch(partition_id(number), to)).await;
        fetched.expect("a fetch")
    }

    /// Fetches it to the device, where it has to arrive.
    async fn fetch(&self, number: u32, bytes: usize) -> Partition {
        let to = Arc::new(ToDevice::new(&self.here, bytes).await);
        let fetched = self.fetch_to(number, &to).await;
        let Stored::Device(fetched) = fetched else {
            panic!("{fetched:?} is on no device")
        };
        assert_eq!(fetched.tier(), Tier::Device);
        contents(&fetched).await
    }

    /// Ends it. Nothing is left of what was fetched, nor of the page-locked memory that was on its way.
    async fn end_idle(self) {
        let served = Arc::clone(&self.source);
        drop((self.connection, self.listener));
        served.0.lock().unwrap().clear();
        for tiers in [&self.there, &self.here] {
            until("memory is given back", || {
                tiers.memory().budget().used_bytes() == 0
                    && tiers.pinned().budget().used_bytes() == 0
            })
            .await;
        }
    }
}

async fn contents(partition: &DevicePartition) -> Partition {
    let bytes = partition.header().payload_bytes();
    let room = Budget::new("host memory", u64::MAX).reserve_over(bytes);
    let to = HostBuffer::uncleared(bytes as usize, room);
    let copied = partition.tiers().download(partition, to).await;
    copied.expect("a copy")
}

/// From no byte to many pieces, with room announced for less than there is, too.
pub async fn every_size_arrives_on_the_device(devices: DeviceBackend) {
    let bench = Bench::new(devices).await;
    let layouts: [&[usize]; 7] = [
        &[1],
        &[0, 64, 0],
        &[4_096],
        &[MIB],
        &[MIB - 64, 65],
        &[3, 2 * MIB, 100_000, 1],
        &[9 * MIB + 5],
    ];
    for (number, layout) in (0..).zip(layouts) {
        let partition = random_partition(u64::from(number), layout);
        bench.hold(&partition).await;
        let bytes: usize = layout.iter().sum();
        for announced in [bytes, 1, bytes + 5 * MIB] {
            let fetched = bench.fetch(number, announced).await;
            assert_eq!(fetched, partition, "{layout:?}");
        }
    }
    let number = layouts.len() as u32;
    let empty = random_partition(7, &[0]);
    bench.hold(&empty).await;
    let to = Arc::new(ToDevice::new(&bench.here, 0).await);
    let fetched = bench.fetch_to(number, &to).await;
    assert_eq!(
        (fetched.bytes(), fetched.is_empty()),
        (empty.bytes(), false)
    );
    drop((fetched, to));
    bench.end_idle().await;
}

/// Where a partition is makes no difference to who fetches it, and it stays there.
pub async fn every_tier_is_served(devices: DeviceBackend) {
    let bench = Bench::new(devices).await;
    let partition = random_partition(11, &[3 * MIB, 77]);
    for (number, tier) in (0..).zip([Tier::Device, Tier::PinnedHost, Tier::Disk]) {
        let held = bench.hold(&partition).await;
        match tier {
            Tier::Disk => bench.there.to_disk(held.payload()).await.expect("a file"),
            Tier::PinnedHost => drop(bench.there.to_pinned(held.payload()).await.expect("room")),
            _ => {}
        }
        let to = Arc::new(ToDevice::new(&bench.here, 3 * MIB).await);
        let fetched = match bench.fetch_to(number, &to).await {
            Stored::Device(fetched) => contents(&fetched).await,
            Stored::Host(fetched) => fetched,
        };
        assert_eq!((fetched, held.tier()), (partition.clone(), tier));
    }
    bench.end_idle().await;
}

/// A destination without a device is given memory of the host.
pub async fn what_is_for_the_host_arrives_there(devices: DeviceBackend) {
    let bench = Bench::new(devices).await;
    let partition = random_partition(13, &[5 * MIB, 1, 300]);
    bench.hold(&partition).await;
    let fetched = fetch(&*bench.connection, 0, &ample()).await;
    assert_eq!(fetched.expect("a fetch"), partition);
    bench.end_idle().await;
}

/// Where the device has no room, page-locked memory takes it as a whole.
pub async fn without_room_on_the_device_it_lands_beside_it(devices: DeviceBackend) {
    let receives = devices.backend.receives_into_destination;
    let bench = Bench::new(devices).await;
    let partition = random_partition(17, &[2 * MIB + 1, 9]);
    bench.hold(&partition).await;
    // Locked, so that there is some.
    drop(bench.here.pinned().try_allocate(3 << 20).expect("room"));
    let mut to = ToDevice::new(&bench.here, 2 * MIB).await;
    to.has_room = false;
    let to = Arc::new(to);
    let fetched = bench.fetch_to(0, &to).await;
    let fetched = fetched.into_host().expect("there was no room");
    assert_eq!(fetched, partition);
    if receives {
        let landed = to.landed.lock().unwrap().clone();
        let adopted = bench
            .here
            .adopt(&fetched, &landed)
            .expect("it landed there");
        assert_eq!(adopted.tier(), Tier::PinnedHost);
    }
    drop((fetched, to));
    bench.end_idle().await;
}

/// Page-locked memory is faster, and not needed.
pub async fn without_page_locked_memory_it_arrives_all_the_same(devices: DeviceBackend) {
    let bench = Bench::new(devices).await;
    let partition = random_partition(19, &[4 * MIB, 4 * MIB]);
    bench.hold(&partition).await;
    for taken in [
        vec![&bench.there],
        vec![&bench.here],
        vec![&bench.there, &bench.here],
    ] {
        let full = |tiers: &&Tiers| {
            tiers
                .pinned()
                .try_allocate(tiers.pinned().budget().free_bytes())
        };
        let taken: Vec<_> = taken.iter().map(full).collect();
        let to = Arc::new(ToDevice::new(&bench.here, 8 * MIB).await);
        let fetched = match bench.fetch_to(0, &to).await {
            Stored::Device(fetched) => contents(&fetched).await,
            Stored::Host(fetched) => fetched,
        };
        assert_eq!(fetched, partition);
        drop(taken);
    }
    bench.end_idle().await;
}

/// It goes through a little of that, and through no other memory of the host.
pub async fn what_is_larger_than_page_locked_memory_passes_through_a_little_of_it(
    devices: DeviceBackend,
) {
    let bench = Bench::new(devices).await;
    let partition = random_partition(37, &[20 * MIB + 100, 12 * MIB]);
    bench.hold(&partition).await;
    let traffic = bench.here.memory().device().traffic();
    let through_others =
        || [Path::PageableToDevice, Path::DeviceToPageable].map(|path| traffic.over(path));
    let before = through_others();
    let to = Arc::new(ToDevice::new(&bench.here, 32 * MIB).await);
    let fetched = bench.fetch_to(0, &to).await;
    assert_eq!(through_others(), before);
    for tiers in [&bench.there, &bench.here] {
        let most = tiers.pinned().budget().peak_bytes();
        assert!(most <= 2 * MIB as u64, "{most} B");
    }
    let Stored::Device(fetched) = fetched else {
        panic!("{fetched:?} is on no device")
    };
    assert_eq!(contents(&fetched).await, partition);
    drop((fetched, to));
    bench.end_idle().await;
}

/// Not in the suite, as it takes a driver that fails in the middle of a payload, once: the second of many copies down, or the seventh up.
pub async fn a_copy_that_fails_ends_its_fetch_alone(devices: DeviceBackend) {
    let bench = Bench::new(devices).await;
    let partition = random_partition(41, &[7 * MIB, 9]);
    bench.hold(&partition).await;
    let to = Arc::new(ToDevice::new(&bench.here, 7 * MIB).await) as Arc<dyn Destination>;
    let error = within(bench.connection.fetch(partition_id(0), to)).await;
    let error = error.expect_err("the driver fails");
    assert!(
        error.is_retryable() && !error.is_about_the_link(),
        "{error}"
    );
    assert!(error.to_string().contains("ILLEGAL_STATE"), "{error}");
    assert!(!bench.connection.is_closed());
    assert_eq!(bench.fetch(0, 7 * MIB).await, partition);
    bench.end_idle().await;
}

/// It is told so, and the peer is not to blame.
pub async fn a_destination_that_gives_wrong_device_memory_is_told_so(devices: DeviceBackend) {
    let bench = Bench::new(devices).await;
    let partition = random_partition(43, &[2 * MIB]);
    bench.hold(&partition).await;
    let to = Arc::new(Wrong(ToDevice::new(&bench.here, 2 * MIB).await));
    let error = within(bench.connection.fetch(partition_id(0), to)).await;
    let error = error.expect_err("it gave 64 B");
    assert!(
        matches!(error, TransportError::WrongBuffer { .. }),
        "{error}"
    );
    assert_eq!(bench.fetch(0, 2 * MIB).await, partition);
    bench.end_idle().await;
}

/// More than there is page-locked memory for at once.
pub async fn many_device_partitions_arrive_at_once(devices: DeviceBackend) {
    let bench = Bench::new(devices).await;
    let mut partitions = Vec::new();
    for number in 0..24 {
        let partition = random_partition(number, &[MIB + number as usize, 500]);
        bench.hold(&partition).await;
        partitions.push(partition);
    }
    let fetches = (0..24).map(|number| {
        let bench = &bench;
        async move {
            let to = Arc::new(ToDevice::new(&bench.here, MIB + 600).await);
            match bench.fetch_to(number, &to).await {
                Stored::Device(fetched) => contents(&fetched).await,
                Stored::Host(fetched) => fetched,
            }
        }
    });
    assert_eq!(join_all(fetches).await, partitions);
    bench.end_idle().await;
}

/// Moved down and up again and again while it is fetched.
pub async fn a_partition_that_leaves_the_device_while_it_is_sent_arrives_whole(
    devices: DeviceBackend,
) {
    let bench = Bench::new(devices).await;
    let partition = random_partition(23, &[6 * MIB + 3, 1_000]);
    let held = bench.hold(&partition).await;
    let (there, payload) = (&bench.there, held.payload());
    let moving = async {
        loop {
            there.to_disk(payload).await.expect("a file");
            there.to_device(payload).await.expect("room");
            there.to_pinned(payload).await.expect("room");
            there.to_device(payload).await.expect("room");
        }
    };
    let fetching = async {
        for _ in 0..20 {
            let to = Arc::new(ToDevice::new(&bench.here, 6 * MIB).await);
            let fetched = match bench.fetch_to(0, &to).await {
                Stored::Device(fetched) => contents(&fetched).await,
                Stored::Host(fetched) => fetched,
            };
            assert_eq!(fetched, partition);
        }
    };
    tokio::select! {
        () = fetching => {}
        () = moving => {}
    }
    drop(held);
    bench.end_idle().await;
}

/// Given up at every stage that a fetch may be in.
pub async fn a_device_fetch_dropped_after_any_poll_leaves_nothing_behind(devices: DeviceBackend) {
    let bench = Bench::new(devices).await;
    let partition = random_partition(29, &[3 * MIB, 8]);
    bench.hold(&partition).await;
    for polls in 0..20 {
        let to = Arc::new(ToDevice::new(&bench.here, 3 * MIB).await);
        let mut fetch = bench.connection.fetch(partition_id(0), to);
        for _ in 0..polls {
            if poll!(&mut fetch).is_ready() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_micros(200)).await;
        }
        drop(fetch);
        if polls % 5 == 0 {
            assert_eq!(bench.fetch(0, 3 * MIB).await, partition);
        }
    }
    bench.end_idle().await;
}
