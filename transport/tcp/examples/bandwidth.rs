//! Bandwidth of partitions over loopback, beside the same bytes over bare TCP in the same run.
//!
//! `cargo run --release -p transload-transport-tcp --example bandwidth`. Prints, for each partition size, MiB/s of both
//! and their ratio: the median of several rounds in which the two take turns. Then CPU milliseconds per GiB of both (sender
//! and receiver together), which say more on a machine with other work. Then the rate of small fetches.
#![allow(
    clippy::unwrap_used,
    reason = "a measurement that cannot be made ends with the reason"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use transload_gpu::{Budget, Partition};
use transload_transport::conformance::{Store, partition_id};
use transload_transport::{Connection, PartitionSource, Transport};
use transload_transport_tcp::TcpTransport;

const MIB: usize = 1 << 20;
const ROUNDS: usize = 7;
const SMALL_FETCHES: u32 = 50_000;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    // On the runtime's own threads, as in a worker.
    tokio::spawn(measure()).await.unwrap();
}

async fn measure() {
    println!("partition    transport     bare TCP    ratio    CPU ms/GiB");
    for (bytes, total, in_flight) in [
        (64 * MIB, 1 << 30, 2),
        (MIB, 1 << 29, 16),
        (64 << 10, 1 << 28, 16),
    ] {
        compare(bytes, total / bytes, in_flight).await;
    }
    small_fetches().await;
}

async fn compare(bytes: usize, count: usize, in_flight: usize) {
    let contents = Bytes::from(vec![1_u8; bytes]);
    let store = Store::new();
    // Sixteen columns, as a batch of a table has.
    let column = contents.slice(..bytes / 16);
    store.insert(0, Partition::new(Bytes::new(), vec![column; 16]));
    let transport = TcpTransport::default();
    let listener = transport
        .listen("127.0.0.1:0", store as Arc<dyn PartitionSource>)
        .await
        .unwrap();
    let connection = transport.connect(listener.address()).await.unwrap();
    let (mut ours, mut bare) = (Measured::default(), Measured::default());
    for _ in 0..ROUNDS {
        ours.add(through_transport(&connection, count, in_flight))
            .await;
        bare.add(through_bare_tcp(&contents, count)).await;
    }
    let mib = (bytes * count) as f64 / MIB as f64;
    let (our_rate, bare_rate) = (ours.rate(mib), bare.rate(mib));
    println!(
        "{:>5} KiB  {our_rate:>6.0} MiB/s  {bare_rate:>6.0} MiB/s     {:.2}    {:.0} and {:.0}",
        bytes >> 10,
        our_rate / bare_rate,
        ours.cpu_ms_per_gib(mib),
        bare.cpu_ms_per_gib(mib)
    );
}

#[derive(Default)]
struct Measured {
    times: Vec<Duration>,
    cpu: Vec<u64>,
}

impl Measured {
    async fn add(&mut self, work: impl Future<Output = Duration>) {
        let before = cpu_ticks();
        self.times.push(work.await);
        self.cpu.push(cpu_ticks() - before);
    }

    fn rate(&mut self, mib: f64) -> f64 {
        self.times.sort();
        mib / self.times[ROUNDS / 2].as_secs_f64()
    }

    fn cpu_ms_per_gib(&mut self, mib: f64) -> f64 {
        self.cpu.sort_unstable();
        self.cpu[ROUNDS / 2] as f64 * 10.0 * 1_024.0 / mib
    }
}

/// CPU time of this process in hundredths of a second; 0 where there is no `/proc`.
fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name in parentheses, user and system time are the 12th and 13th.
    let (_, fields) = stat.rsplit_once(')').unwrap_or_default();
    fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|ticks| ticks.parse::<u64>().ok())
        .sum()
}

/// Fetches the same partition again and again, several at once: one is asked for while another arrives.
async fn through_transport(
    connection: &Arc<dyn Connection>,
    count: usize,
    in_flight: usize,
) -> Duration {
    let budget = Arc::new(Budget::new("received partitions", u64::MAX));
    let started = Instant::now();
    join_all((0..in_flight).map(|_| async {
        for _ in 0..count / in_flight {
            let destination = Arc::clone(&budget) as _;
            connection
                .fetch(partition_id(0), destination)
                .await
                .unwrap();
        }
    }))
    .await;
    started.elapsed()
}

/// The same bytes, pushed without being asked for and read into the same memory again and again.
async fn through_bare_tcp(contents: &Bytes, count: usize) -> Duration {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let contents = contents.clone();
    let bytes = contents.len();
    let started = Instant::now();
    let sender = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        for _ in 0..count {
            stream.write_all(&contents).await.unwrap();
        }
    });
    let receiver = tokio::spawn(async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut received = vec![0; bytes];
        for _ in 0..count {
            stream.read_exact(&mut received).await.unwrap();
            std::hint::black_box(&received);
        }
    });
    sender.await.unwrap();
    receiver.await.unwrap();
    started.elapsed()
}

async fn small_fetches() {
    let store = Store::new();
    store.insert(
        0,
        Partition::new(
            Bytes::from_static(b"metadata"),
            vec![Bytes::from_static(&[1; 1_000])],
        ),
    );
    let transport = TcpTransport::default();
    let listener = transport
        .listen("127.0.0.1:0", store as Arc<dyn PartitionSource>)
        .await
        .unwrap();
    let connection = transport.connect(listener.address()).await.unwrap();
    let budget = Arc::new(Budget::new("received partitions", u64::MAX));
    let fetch = || connection.fetch(partition_id(0), Arc::clone(&budget) as _);
    let started = Instant::now();
    for _ in 0..SMALL_FETCHES / 10 {
        fetch().await.unwrap();
    }
    let alone = started.elapsed() / (SMALL_FETCHES / 10);
    let started = Instant::now();
    join_all((0..1_000).map(|_| async {
        for _ in 0..SMALL_FETCHES / 1_000 {
            fetch().await.unwrap();
        }
    }))
    .await;
    let rate = f64::from(SMALL_FETCHES) / started.elapsed().as_secs_f64();
    println!(
        "1,000 B: {} us one at a time, {rate:.0} fetches/s with 1,000 in flight",
        alone.as_micros()
    );
}
