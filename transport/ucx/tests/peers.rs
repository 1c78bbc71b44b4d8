//! Peers that are other processes: they die, stop, or have another UCX. Skipped, with a printed reason, where there is no UCX.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{options, start};
use futures::future::join_all;
use tokio::sync::Notify;
use transload_gpu::{Budget, HostBuffer, OutOfBudget, Partition, PartitionHeader};
use transload_protocol::Address;
use transload_transport::conformance::{Store, partition_id, random_partition};
use transload_transport::{Connection, Destination, PartitionSource, Transport, TransportError};
use transload_transport_ucx::{UcxOptions, UcxTransport};

const MIB: usize = 1 << 20;
/// Partitions of every peer: small, large, and one that never opens.
const SMALL: u32 = 1;
const LARGE: u32 = 2;
const NEVER: u32 = 3;
/// Memory for this one is given to the next that wants as much.
const MIDDLE: u32 = 4;
/// The environment variable that makes a test process a peer.
const IS_PEER: &str = "TRANSLOAD_TEST_IS_PEER";
/// The one that makes it a process that closes connections.
const IS_CLOSING: &str = "TRANSLOAD_TEST_IS_CLOSING";
/// Far less than the patience with silence, and far more than a busy machine needs to notice a death.
const NOTICED_WITHIN: Duration = Duration::from_secs(20);

/// Not a test: what a peer process runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_peer() {
    if std::env::var_os(IS_PEER).is_none() {
        return;
    }
    let store = Store::new();
    store.insert(SMALL, random_partition(1, &[100]));
    store.insert(LARGE, large());
    store.insert(MIDDLE, middle());
    store.insert_behind_gate(NEVER, random_partition(3, &[1]));
    let transport = UcxTransport::start(options()).expect("the other process has it");
    let source = store as Arc<dyn PartitionSource>;
    let listener = transport.listen("127.0.0.1:0", source).await;
    println!(
        "at {}",
        listener.as_ref().expect("a port").address().endpoint
    );
    // Its end is this one's.
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()))
        .await
        .unwrap()
        .unwrap();
}

/// So large that it is on its way for long.
fn large() -> Partition {
    let buffer = random_partition(2, &[4 * MIB]).buffers()[0].clone();
    Partition::new(Bytes::new(), vec![buffer; 64])
}

fn middle() -> Partition {
    random_partition(4, &[4 * MIB; 8])
}

struct Peer {
    process: Child,
    address: Address,
}

impl Peer {
    fn start(environment: &[(&str, &str)]) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_peer", "--nocapture"])
            .env(IS_PEER, "yes")
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let endpoint = lines
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once("at 127.0.0.1:")?.1.to_owned()))
            .expect("the peer says where it is");
        Self {
            process,
            address: Address::new("ucx", format!("127.0.0.1:{endpoint}")),
        }
    }

    fn signal(&self, signal: &str) {
        let pid = self.process.id().to_string();
        let status = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Stopped, ended or not: it leaves nothing behind.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn fetch(
    connection: &dyn Connection,
    number: u32,
    budget: &Arc<Budget>,
) -> Result<Partition, TransportError> {
    connection
        .fetch(partition_id(number), Arc::clone(budget) as _)
        .await
        .map(|fetched| fetched.into_host().expect("host memory was given"))
}

fn ample() -> Arc<Budget> {
    Arc::new(Budget::new("test memory", u64::MAX))
}

async fn until_free(budget: &Budget) {
    let started = Instant::now();
    while budget.used_bytes() > 0 {
        assert!(
            started.elapsed() < NOTICED_WITHIN,
            "memory is not given back"
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_killed_ends_every_fetch_whatever_its_state() {
    let Some(transport) = start(options()) else {
        return;
    };
    let mut peer = Peer::start(&[]);
    let connection = transport.connect(&peer.address).await.unwrap();
    assert!(
        connection.link().starts_with("ucx "),
        "{}",
        connection.link()
    );
    let budget = ample();
    drop(fetch(&*connection, SMALL, &budget).await.unwrap());
    let fetches = (0..12).map(|at| {
        fetch(
            &*connection,
            if at % 3 == 0 { NEVER } else { LARGE },
            &budget,
        )
    });
    let fetches = join_all(fetches);
    let kill = async {
        while budget.used_bytes() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        peer.process.kill().unwrap();
    };
    let (ended, ()) = tokio::time::timeout(NOTICED_WITHIN, async { tokio::join!(fetches, kill) })
        .await
        .expect("it is noticed");
    let failed: Vec<_> = ended.into_iter().filter_map(Result::err).collect();
    assert!(failed.len() >= 4, "those that never open cannot end well");
    for error in failed {
        assert!(matches!(error, TransportError::Closed { .. }), "{error}");
    }
    until_free(&budget).await;
    assert!(connection.is_closed());
    let again = transport.connect(&peer.address).await.err();
    assert!(
        matches!(again, Some(TransportError::Connect { .. })),
        "{again:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_killed_while_nothing_is_asked_is_noticed() {
    let Some(transport) = start(options()) else {
        return;
    };
    let mut peer = Peer::start(&[]);
    let connection = transport.connect(&peer.address).await.unwrap();
    peer.process.kill().unwrap();
    let started = Instant::now();
    while !connection.is_closed() {
        assert!(started.elapsed() < NOTICED_WITHIN, "it is not noticed");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let error = fetch(&*connection, SMALL, &ample()).await.unwrap_err();
    assert!(matches!(error, TransportError::Closed { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_stops_in_mid_payload_is_given_up_after_the_time_of_patience() {
    let Some(transport) = start(UcxOptions {
        stall_timeout: Duration::from_secs(2),
        ..options()
    }) else {
        return;
    };
    let peer = Peer::start(&[]);
    let connection = transport.connect(&peer.address).await.unwrap();
    let budget = ample();
    let fetches = join_all((0..2).map(|_| fetch(&*connection, LARGE, &budget)));
    let stop = async {
        while budget.used_bytes() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        peer.signal("-STOP");
    };
    let both = async { tokio::join!(fetches, stop) };
    let (ended, ()) = tokio::time::timeout(10 * NOTICED_WITHIN, both)
        .await
        .expect("patience ends");
    for error in ended.into_iter().filter_map(Result::err) {
        assert!(matches!(error, TransportError::TimedOut { .. }), "{error}");
        assert!(error.is_retryable());
    }
    until_free(&budget).await;
    // And when it goes on, it is as good as ever.
    peer.signal("-CONT");
    let connection = transport.connect(&peer.address).await.unwrap();
    drop(fetch(&*connection, SMALL, &budget).await.unwrap());
    assert_eq!(fetch(&*connection, LARGE, &budget).await.unwrap(), large());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_with_other_settings_of_ucx_do_not_speak_it_with_each_other_and_say_why() {
    let Some(transport) = start(options()) else {
        return;
    };
    let peer = Peer::start(&[("UCX_TLS", "tcp")]);
    let refused = transport.connect(&peer.address).await.err();
    let refused = refused.expect("another setting");
    assert!(
        matches!(refused, TransportError::Refused { .. }),
        "{refused}"
    );
    assert!(refused.to_string().contains("UCX_TLS=tcp"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_may_be_dropped_in_any_order() {
    let Some(transport) = start(options()) else {
        return;
    };
    let peer = Peer::start(&[]);
    let budget = ample();
    for order in 0..6 {
        let ours = UcxTransport::start(options()).unwrap();
        let source = Store::new();
        source.insert(SMALL, random_partition(1, &[MIB]));
        let listener = ours.listen("127.0.0.1:0", source).await.unwrap();
        let to_us = transport.connect(listener.address()).await.unwrap();
        let to_peer = ours.connect(&peer.address).await.unwrap();
        let kept = fetch(&*to_us, SMALL, &budget).await.unwrap();
        let large = fetch(&*to_peer, LARGE, &budget);
        // Under way, and then not.
        assert!(
            tokio::time::timeout(Duration::from_millis(5), large)
                .await
                .is_err()
        );
        match order {
            0 => drop((ours, listener, to_us, to_peer)),
            1 => drop((to_peer, to_us, listener, ours)),
            2 => drop((listener, ours, to_peer, to_us)),
            3 => drop((to_us, listener, to_peer, ours)),
            4 => drop((to_peer, ours, to_us, listener)),
            _ => drop((ours, to_peer, listener, to_us)),
        }
        assert_eq!(kept, random_partition(1, &[MIB]));
    }
    until_free(&budget).await;
}

/// Memory of the host, before which the peer is stopped.
struct Stopping {
    peer: Peer,
    budget: Arc<Budget>,
    asked: Notify,
}

impl Destination for Stopping {
    fn allocate(&self, header: &PartitionHeader) -> Result<HostBuffer, OutOfBudget> {
        self.peer.signal("-STOP");
        self.asked.notify_one();
        self.budget.allocate(header)
    }
}

/// Not a test: closes a connection while its peer is stopped in mid payload, fills the memory with something else, and looks at that when
/// the peer has gone on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_closes() {
    if std::env::var_os(IS_CLOSING).is_none() {
        return;
    }
    let Some(transport) = start(options()) else {
        return;
    };
    let to = Arc::new(Stopping {
        peer: Peer::start(&[]),
        budget: ample(),
        asked: Notify::new(),
    });
    let connection = transport.connect(&to.peer.address).await.unwrap();
    println!("link {}", connection.link());
    let fetching = connection.fetch(partition_id(MIDDLE), Arc::clone(&to) as _);
    let asked = async {
        to.asked.notified().await;
        // For UCX to tell the peer where to write.
        tokio::time::sleep(Duration::from_millis(300)).await;
    };
    tokio::select! {
        biased;
        () = asked => {}
        fetched = fetching => panic!("it came from a peer that is stopped: {fetched:?}"),
    }
    drop(connection);
    // For it to be closed.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let others = ample();
    let mut other = others.allocate(&middle().header()).unwrap();
    other.as_mut_slice().fill(7);
    to.peer.signal("-CONT");
    let connection = transport.connect(&to.peer.address).await.unwrap();
    let again = fetch(&*connection, MIDDLE, &others).await.unwrap();
    assert_eq!(again, middle());
    let is_whole = other.as_slice().iter().all(|byte| *byte == 7);
    assert!(is_whole, "a peer has written into memory of others");
    until_free(&to.budget).await;
}

#[test]
fn nobody_writes_to_host_memory_that_a_closed_connection_has_given_back() {
    let closes = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "one_that_closes", "--nocapture"])
        .env(IS_CLOSING, "yes")
        // A peer's kernel writes, and asks nobody who has closed what.
        .envs([
            ("UCX_CMA_MEMORY_INVALIDATE", "y"),
            ("UCX_RNDV_SCHEME", "put_zcopy"),
        ])
        .output()
        .unwrap();
    let said = [closes.stdout, closes.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    println!("{said}");
    assert!(closes.status.success(), "{said}");
}
