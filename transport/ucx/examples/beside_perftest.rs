//! Partitions between two processes of one machine over UCX, beside `ucx_perftest`'s active messages with the same settings.
//!
//! `cargo run --release -p transload-transport-ucx --example beside_perftest [-- SPIN_US]`. Settings of UCX come from the environment, as in
//! `UCX_TLS=tcp`. Prints, for each size, the latency of one fetch alone, awaited as usual and polled again and again, and the bandwidth with several
//! under way, medians of several rounds; where `ucx_perftest` is installed, it takes turns, and the ratio is that of each round.
#![allow(
    clippy::unwrap_used,
    reason = "a measurement that cannot be made ends with the reason"
)]

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::join_all;
use transload_gpu::{Budget, Partition};
use transload_protocol::Address;
use transload_transport::conformance::{Store, partition_id};
use transload_transport::{Connection, PartitionSource, Transport};
use transload_transport_ucx::{UcxOptions, UcxTransport, prepare_environment};

const SIZES: [usize; 5] = [8, 64 << 10, 1 << 20, 8 << 20, 64 << 20];
const ROUNDS: usize = 5;
/// In each round.
const BYTES: usize = 1 << 30;
const MOST_FETCHES: usize = 5_000;

fn main() {
    // While there is one thread; what is started from here inherits it.
    prepare_environment();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    match arguments.first().map(String::as_str) {
        Some("serve") => runtime.block_on(serve(&arguments[1])),
        spin => runtime.block_on(measure(spin.unwrap_or("0").to_owned())),
    }
}

fn options(spin: &str) -> UcxOptions {
    UcxOptions {
        spin: Duration::from_micros(spin.parse().unwrap()),
        ..UcxOptions::default()
    }
}

/// Until standard input ends.
async fn serve(spin: &str) {
    let store = Store::new();
    for (number, bytes) in (0..).zip(SIZES) {
        let buffer = Bytes::from(vec![number as u8; bytes]);
        store.insert(number, Partition::new(Bytes::new(), vec![buffer]));
    }
    let transport = UcxTransport::start(options(spin)).unwrap();
    let source = store as Arc<dyn PartitionSource>;
    let listener = transport.listen("127.0.0.1:0", source).await.unwrap();
    println!("{}", listener.address().endpoint);
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

async fn measure(spin: String) {
    let (mut server, endpoint) = start_server(&spin);
    let transport = UcxTransport::start(options(&spin)).unwrap();
    let peer = Address::new("ucx", endpoint);
    let connection = transport.connect(&peer).await.unwrap();
    println!("over {}, spinning for {spin} us", connection.link());
    println!(
        "{:>10} {:>10} {:>10} {:>10} {:>12} {:>12} {:>22}",
        "bytes", "us", "us polled", "MiB/s", "perftest us", "perftest", "ratio (least to most)"
    );
    for (number, bytes) in (0..).zip(SIZES) {
        measure_size(&connection, number, bytes).await;
    }
    drop((connection, transport));
    drop(server.stdin.take());
    server.wait().unwrap();
}

fn start_server(spin: &str) -> (Child, String) {
    let mut server = Command::new(std::env::current_exe().unwrap())
        .args(["serve", spin])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut endpoint = String::new();
    let mut output = BufReader::new(server.stdout.take().unwrap());
    output.read_line(&mut endpoint).unwrap();
    (server, endpoint.trim().to_owned())
}

/// In turn with `ucx_perftest`, which sends without being asked, and from the same buffer into the same buffer each time: what a machine
/// carries changes from minute to minute.
async fn measure_size(connection: &Arc<dyn Connection>, number: u32, bytes: usize) {
    let memory = Arc::new(Budget::new("received partitions", u64::MAX));
    let fetch = || connection.fetch(partition_id(number), Arc::clone(&memory) as _);
    let count = (BYTES / bytes).min(MOST_FETCHES);
    // As many as hide what one alone waits for.
    let in_flight = if bytes < 1 << 20 { 16 } else { 4 };
    for _ in 0..count.min(20) {
        assert_eq!(fetch().await.unwrap().bytes() as usize, bytes);
    }
    let (mut awaited, mut polled, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    let (mut one_way, mut perftest_rates, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        for _ in 0..count.min(500) {
            let started = Instant::now();
            fetch().await.unwrap();
            awaited.push(started.elapsed().as_secs_f64() * 1e6);
            let started = Instant::now();
            let mut fetching = fetch();
            while (&mut fetching).now_or_never().is_none() {
                std::thread::yield_now();
            }
            polled.push(started.elapsed().as_secs_f64() * 1e6);
        }
        let started = Instant::now();
        join_all((0..in_flight).map(|_| async {
            for _ in 0..count / in_flight {
                fetch().await.unwrap();
            }
        }))
        .await;
        let mib = (count / in_flight * in_flight * bytes) as f64 / f64::from(1 << 20);
        let rate = mib / started.elapsed().as_secs_f64();
        rates.push(rate);
        let port = 13_400 + (20 * number as usize + 2 * round) as u16;
        let latency = perftest("ucp_am_lat", bytes, count, port);
        let bandwidth = perftest("ucp_am_bw", bytes, count, port + 1);
        if let (Some(latency), Some(bandwidth)) = (latency, bandwidth) {
            one_way.push(latency.0);
            perftest_rates.push(bandwidth.1);
            ratios.push(rate / bandwidth.1);
        }
    }
    let (awaited, polled) = (median(&mut awaited), median(&mut polled));
    print!(
        "{bytes:>10} {awaited:>10.1} {polled:>10.1} {:>10.0} ",
        median(&mut rates)
    );
    if ratios.len() < ROUNDS {
        return println!("no ucx_perftest to compare with (Debian: ucx-utils)");
    }
    println!(
        "{:>12.2} {:>12.0} {:>8.2} ({:.2} to {:.2})",
        median(&mut one_way),
        median(&mut perftest_rates),
        median(&mut ratios),
        ratios[0],
        ratios[ROUNDS - 1],
    );
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Latency of one way in us, and MiB/s.
fn perftest(test: &str, bytes: usize, count: usize, port: u16) -> Option<(f64, f64)> {
    let port = port.to_string();
    let mut server = Command::new("ucx_perftest")
        .args(["-e", "-p", &port])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    std::thread::sleep(Duration::from_millis(500));
    let (bytes, count) = (bytes.to_string(), count.to_string());
    let client = Command::new("ucx_perftest")
        .args(["127.0.0.1", "-e", "-f", "-v", "-t", test, "-p", &port])
        .args(["-s", &bytes, "-n", &count, "-w", "20"])
        .stderr(Stdio::null())
        .output()
        .ok()?;
    server.wait().ok()?;
    // Iterations, then percentile, average and overall latency, then average and overall bandwidth.
    let text = String::from_utf8_lossy(&client.stdout).into_owned();
    let last = text.lines().rfind(|line| line.contains(','))?;
    let fields: Vec<f64> = last
        .split(',')
        .filter_map(|it| it.trim().parse().ok())
        .collect();
    Some((*fields.get(1)?, *fields.get(5)?))
}
