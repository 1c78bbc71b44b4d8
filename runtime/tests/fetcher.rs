//! The fetcher over two transports, of which the better one has faults: what is fetched over the other, for how long, and what is
//! said of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;
use std::time::Duration;

use transload_gpu::Budget;
use transload_protocol::Address;
use transload_runtime::fetcher::{FetchError, Fetched, Fetcher};
use transload_transport::conformance::{Store, partition_id, random_partition};
use transload_transport::faulty::{Faulty, Operation, Rule, Rules, Verdict};
use transload_transport::memory::MemoryTransport;
use transload_transport::{Destination, Listener, PartitionSource, Transport, TransportError};
use transload_transport_tcp::TcpTransport;

/// Longer than any test.
const LONG: Duration = Duration::from_secs(24 * 3600);
const SHORT: Duration = Duration::from_millis(1);
const PARTITIONS: u32 = 10;

/// A holder that serves at two addresses, and a fetcher that has both transports.
struct Pair {
    better: Faulty<MemoryTransport>,
    listeners: Vec<Box<dyn Listener>>,
    addresses: Vec<Address>,
    fetcher: Fetcher,
    memory: Budget,
}

impl Pair {
    async fn with(rules: Rules, retry: Duration) -> Self {
        let better = Faulty::new(MemoryTransport::new(), rules);
        let transports: Vec<Arc<dyn Transport>> = vec![
            Arc::new(better.clone()),
            Arc::new(TcpTransport::new(Default::default())),
        ];
        let store = Store::new();
        for number in 0..PARTITIONS {
            store.insert(number, random_partition(number.into(), &[100_000]));
        }
        let mut listeners = Vec::new();
        for (transport, bind) in transports.iter().zip(["", "127.0.0.1:0"]) {
            let source = Arc::clone(&store) as Arc<dyn PartitionSource>;
            listeners.push(transport.listen(bind, source).await.unwrap());
        }
        Self {
            better,
            addresses: listeners.iter().map(|it| it.address().clone()).collect(),
            listeners,
            fetcher: Fetcher::new(transports).retrying_links_after(retry),
            memory: Budget::new("memory", 1 << 30),
        }
    }

    async fn fetch(&self, number: u32) -> Result<Fetched, FetchError> {
        let memory: Arc<dyn Destination> = Arc::new(self.memory.clone());
        let id = partition_id(number);
        self.fetcher.fetch(&self.addresses, id, &memory).await
    }

    /// Fetches one, which must be the right one, and says what carried it and what was said of a better transport.
    async fn carried(&self, number: u32) -> (String, Option<String>) {
        let fetched = self.fetch(number).await.unwrap();
        let held = random_partition(number.into(), &[100_000]);
        assert_eq!(
            fetched.clone().into_host().unwrap().buffers(),
            held.buffers()
        );
        let reason = fetched.demotion.map(|demotion| {
            assert_eq!(demotion.wanted, "memory");
            demotion.reason
        });
        (fetched.transport, reason)
    }
}

fn always(operation: Operation, verdict: Verdict) -> Rules {
    Rules::new(1).rule(Rule::on(operation, verdict))
}

#[tokio::test]
async fn the_best_transport_that_both_sides_have_is_used() {
    let mut pair = Pair::with(Rules::new(1), LONG).await;
    assert_eq!(pair.carried(0).await, ("memory".to_owned(), None));
    pair.addresses.remove(0);
    assert_eq!(pair.carried(0).await, ("tcp".to_owned(), None));
    pair.addresses.clear();
    let error = pair.fetch(0).await.unwrap_err().to_string();
    assert!(error.contains("this process has memory, tcp"), "{error}");
}

#[tokio::test]
async fn whatever_goes_wrong_with_a_link_the_same_partition_comes_over_the_next() {
    for (operation, verdict, said) in [
        (Operation::Connect, Verdict::Refuse, "cannot connect"),
        (Operation::Connect, Verdict::Drop(SHORT), "sent nothing"),
        (Operation::Fetch, Verdict::Drop(SHORT), "sent nothing"),
        (Operation::Fetch, Verdict::Cut, "is closed: cut"),
    ] {
        let pair = Pair::with(always(operation, verdict), LONG).await;
        let (carried, reason) = pair.carried(3).await;
        assert_eq!(carried, "tcp");
        let reason = reason.expect("it is told why");
        assert!(reason.contains(said), "{operation:?} {verdict:?}: {reason}");
        let faults = pair.better.faults();
        for number in 0..PARTITIONS {
            assert_eq!(pair.carried(number).await, ("tcp".to_owned(), None));
        }
        assert_eq!(pair.better.faults(), faults, "it is left alone");
        assert_eq!(pair.memory.used_bytes(), 0);
    }
}

#[tokio::test]
async fn a_link_that_dies_under_many_fetches_is_told_once_and_loses_none() {
    let cut = Rule::on(Operation::Fetch, Verdict::Cut).of_partition(partition_id(7));
    let slow = Rule::on(Operation::Fetch, Verdict::Delay(LONG));
    let dead = Rule::on(Operation::Connect, Verdict::Refuse);
    let first = Rule::on(Operation::Connect, Verdict::Delay(SHORT)).at_most(1);
    let rules = Rules::new(1).rule(cut).rule(slow).rule(first).rule(dead);
    let pair = Pair::with(rules, LONG).await;
    let all = futures::future::join_all((0..PARTITIONS).map(|number| pair.carried(number))).await;
    assert!(all.iter().all(|(carried, _)| carried == "tcp"), "{all:?}");
    assert_eq!(all.iter().filter(|(_, reason)| reason.is_some()).count(), 1);
}

#[tokio::test]
async fn a_kept_connection_that_has_died_is_opened_again_before_anything_is_given_up() {
    let cut = Rule::on(Operation::Fetch, Verdict::Cut).of_partition(partition_id(1));
    let pair = Pair::with(Rules::new(1).rule(cut.at_most(1)), LONG).await;
    for number in [0, 1, 2] {
        assert_eq!(pair.carried(number).await, ("memory".to_owned(), None));
    }
}

#[tokio::test]
async fn what_the_holder_answers_is_not_asked_again_elsewhere() {
    let refuse = Rule::on(Operation::Fetch, Verdict::Refuse).of_partition(partition_id(2));
    let pair = Pair::with(Rules::new(1).rule(refuse), LONG).await;
    let gone = pair.fetch(PARTITIONS).await.unwrap_err();
    assert!(gone.is_gone(), "{gone}");
    assert!(gone.to_string().contains("memory://"), "{gone}");
    let source = pair.fetch(2).await.unwrap_err();
    assert!(
        matches!(source, FetchError::Transport(TransportError::Source { .. })),
        "{source}"
    );
    let small: Arc<dyn Destination> = Arc::new(Budget::new("little memory", 10));
    let asked = pair.fetcher.fetch(&pair.addresses, partition_id(0), &small);
    let error = asked.await.unwrap_err();
    assert!(
        matches!(error, FetchError::Transport(TransportError::NoMemory(_))),
        "{error}"
    );
    assert_eq!(pair.carried(0).await, ("memory".to_owned(), None));
}

#[tokio::test]
async fn a_link_is_tried_again_after_its_time_and_told_anew_when_it_fails_again() {
    let twice = Rule::on(Operation::Connect, Verdict::Refuse).at_most(2);
    let pair = Pair::with(Rules::new(1).rule(twice), SHORT).await;
    for _ in 0..2 {
        let (carried, reason) = pair.carried(0).await;
        assert_eq!(carried, "tcp");
        assert!(reason.is_some());
        tokio::time::sleep(SHORT * 5).await;
    }
    assert_eq!(pair.carried(0).await, ("memory".to_owned(), None));
    assert_eq!(pair.carried(1).await, ("memory".to_owned(), None));
}

#[tokio::test]
async fn a_peer_that_is_forgotten_begins_anew() {
    let once = Rule::on(Operation::Connect, Verdict::Refuse).at_most(1);
    let pair = Pair::with(Rules::new(1).rule(once), LONG).await;
    assert_eq!(pair.carried(0).await.0, "tcp");
    pair.fetcher.forget(&pair.addresses);
    assert_eq!(pair.carried(0).await, ("memory".to_owned(), None));
}

#[tokio::test]
async fn a_peer_that_is_dead_fails_over_every_transport() {
    let mut pair = Pair::with(Rules::new(1), LONG).await;
    pair.listeners.clear();
    let error = pair.fetch(0).await.unwrap_err();
    assert!(
        matches!(error, FetchError::Transport(TransportError::Connect { .. })),
        "{error}"
    );
    assert!(error.to_string().contains("tcp://"), "{error}");
}
