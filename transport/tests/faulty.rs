//! What each rule of the fault wrapper does, and that the same seed does it again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use transload_gpu::{Budget, Partition};
use transload_protocol::PartitionId;
use transload_transport::conformance::{Store, partition_id, random_partition};
use transload_transport::faulty::{Faulty, Operation, Rule, Rules, Verdict};
use transload_transport::memory::MemoryTransport;
use transload_transport::{Connection, Listener, PartitionSource, Transport, TransportError};

struct Peer {
    transport: Faulty<MemoryTransport>,
    listener: Box<dyn Listener>,
    budget: Budget,
}

impl Peer {
    async fn with(rules: Rules) -> Self {
        let transport = Faulty::new(MemoryTransport::new(), rules);
        let store = Store::new();
        for number in 0..10 {
            store.insert(number, random_partition(u64::from(number), &[1_000]));
        }
        let listener = transport
            .listen("", store as Arc<dyn PartitionSource>)
            .await
            .unwrap();
        Self {
            transport,
            listener,
            budget: Budget::new("m", 1 << 20),
        }
    }

    async fn connect(&self) -> Result<Arc<dyn Connection>, TransportError> {
        self.transport.connect(self.listener.address()).await
    }

    async fn fetch(
        &self,
        connection: &Arc<dyn Connection>,
        partition: PartitionId,
    ) -> Result<Partition, TransportError> {
        connection
            .fetch(partition, Arc::new(self.budget.clone()))
            .await
            .map(|fetched| fetched.into_host().expect("host memory was given"))
    }
}

#[tokio::test]
async fn a_refused_connect_is_told_and_the_next_one_passes() {
    let rule = Rule::on(Operation::Connect, Verdict::Refuse).at_most(1);
    let peer = Peer::with(Rules::new(1).rule(rule)).await;
    assert!(matches!(
        peer.connect().await.err(),
        Some(TransportError::Connect { .. })
    ));
    assert!(peer.connect().await.is_ok());
    assert_eq!(peer.transport.faults(), 1);
}

#[tokio::test]
async fn a_rule_about_one_partition_leaves_the_others_alone() {
    let rule = Rule::on(Operation::Fetch, Verdict::Refuse).of_partition(partition_id(3));
    let peer = Peer::with(Rules::new(1).rule(rule)).await;
    let connection = peer.connect().await.unwrap();
    for number in 0..10 {
        let fetched = peer.fetch(&connection, partition_id(number)).await;
        assert_eq!(fetched.is_err(), number == 3);
    }
}

#[tokio::test]
async fn a_lost_request_times_out_and_a_delayed_one_arrives() {
    let short = Duration::from_millis(20);
    let rules = Rules::new(1)
        .rule(Rule::on(Operation::Fetch, Verdict::Drop(short)).at_most(1))
        .rule(Rule::on(Operation::Fetch, Verdict::Delay(short)).at_most(1));
    let peer = Peer::with(rules).await;
    let connection = peer.connect().await.unwrap();
    let error = peer.fetch(&connection, partition_id(0)).await.unwrap_err();
    assert!(matches!(error, TransportError::TimedOut { .. }), "{error}");
    let started = Instant::now();
    peer.fetch(&connection, partition_id(0)).await.unwrap();
    assert!(started.elapsed() >= short);
}

#[tokio::test]
async fn a_cut_ends_every_fetch_of_the_connection_and_returns_the_memory() {
    let slow = Verdict::Delay(Duration::from_secs(3_600));
    let rules = Rules::new(1)
        .rule(Rule::on(Operation::Fetch, Verdict::Cut).of_partition(partition_id(1)))
        .rule(Rule::on(Operation::Fetch, slow).of_partition(partition_id(2)));
    let peer = Peer::with(rules).await;
    let connection = peer.connect().await.unwrap();
    let (beside, cut) = tokio::join!(
        peer.fetch(&connection, partition_id(2)),
        peer.fetch(&connection, partition_id(1))
    );
    for fetched in [beside, cut, peer.fetch(&connection, partition_id(0)).await] {
        let error = fetched.unwrap_err();
        assert!(matches!(error, TransportError::Closed { .. }), "{error}");
    }
    assert!(connection.is_closed());
    assert!(peer.budget.peak_bytes() > 0, "cut after memory was given");
    assert_eq!(peer.budget.used_bytes(), 0);
    let again = peer.connect().await.unwrap();
    peer.fetch(&again, partition_id(0)).await.unwrap();
}

#[tokio::test]
async fn the_same_seed_gives_the_same_faults_again() {
    async fn faults(seed: u64) -> Vec<bool> {
        let rule = Rule::on(Operation::Fetch, Verdict::Refuse).per_thousand(300);
        let peer = Peer::with(Rules::new(seed).rule(rule)).await;
        let connection = peer.connect().await.unwrap();
        let mut outcomes = Vec::new();
        for _ in 0..200 {
            outcomes.push(peer.fetch(&connection, partition_id(0)).await.is_err());
        }
        outcomes
    }
    let first = faults(7).await;
    assert_eq!(first, faults(7).await);
    assert_ne!(first, faults(8).await);
    let failed = first.iter().filter(|failed| **failed).count();
    assert!((30..90).contains(&failed), "{failed} of 200 at 30 %");
}
