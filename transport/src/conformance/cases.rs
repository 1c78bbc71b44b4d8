//! The cases, one function each.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{join_all, try_join_all};
use transload_gpu::{Budget, HostBuffer, OutOfBudget, Partition, PartitionHeader};
use transload_protocol::Address;

use super::fixture::{
    Backend, Probe, Store, ample, assert_aligned, fetch, on_host, partition_id, random_partition,
    until, within,
};
use crate::{Destination, PartitionSource, TransportError};

const MIB: usize = 1 << 20;

/// From no buffer at all to thousands, of lengths around every boundary.
pub async fn every_size_and_layout_arrives_whole_and_aligned(backend: Backend) {
    let many: Vec<usize> = (0..5_000).map(|index| index * 7 % 131).collect();
    let mut layouts: Vec<Vec<usize>> = vec![vec![], vec![0], vec![0, 0, 0], vec![0, 5, 0], many];
    for bytes in [
        1,
        63,
        64,
        65,
        4_095,
        4_096,
        16_383,
        16_384,
        16_385,
        MIB - 64,
        MIB - 1,
        MIB,
        MIB + 1,
        3 * MIB + 17,
    ] {
        layouts.push(vec![bytes]);
        layouts.push(vec![3, bytes, 64, bytes / 2, 1]);
    }
    let store = Store::new();
    let partitions: Vec<_> = layouts
        .iter()
        .enumerate()
        .map(|(index, layout)| random_partition(index as u64, layout))
        .collect();
    for (number, partition) in (0..).zip(&partitions) {
        store.insert(number, partition.clone());
    }
    let listener = backend.listen(&store).await;
    let connection = backend.connect(&*listener).await;
    assert_eq!(connection.peer(), listener.address());
    let budget = ample();
    let check = |number: u32, fetched: &Partition| {
        assert_eq!(fetched, &partitions[number as usize], "partition {number}");
        if backend.receives_into_destination {
            assert_aligned(fetched);
        }
    };
    let numbers = 0..u32::try_from(partitions.len()).unwrap();
    for number in numbers.clone() {
        check(number, &fetch(&*connection, number, &budget).await.unwrap());
    }
    // And all of them at once.
    let all = try_join_all(numbers.map(|number| fetch(&*connection, number, &budget)));
    for (number, fetched) in (0..).zip(&all.await.unwrap()) {
        check(number, fetched);
    }
    assert_eq!(budget.used_bytes(), 0);
}

/// Large payloads, several at once, twice over the same connection.
pub async fn tens_of_mebibytes_arrive_whole(backend: Backend) {
    let store = Store::new();
    let large = [
        random_partition(1, &[40 * MIB + 13]),
        random_partition(2, &[MIB; 24]),
        random_partition(3, &[10 * MIB, 1, 10 * MIB, 0, 9]),
    ];
    for (number, partition) in (0..).zip(&large) {
        store.insert(number, partition.clone());
    }
    let listener = backend.listen(&store).await;
    let connection = backend.connect(&*listener).await;
    let budget = ample();
    for _ in 0..2 {
        let fetches = (0..3).map(|number| fetch(&*connection, number, &budget));
        for (fetched, partition) in join_all(fetches).await.into_iter().zip(&large) {
            assert_eq!(&fetched.unwrap(), partition);
        }
    }
    assert_eq!(budget.used_bytes(), 0);
}

/// More requests than any limit lets through at once: the rest wait and are served in their turn.
pub async fn thousands_of_small_requests_are_in_flight_at_once(backend: Backend) {
    const REQUESTS: u32 = 10_000;
    let store = Store::new();
    let partitions: Vec<_> = (0..100_u32)
        .map(|number| random_partition(u64::from(number), &[number as usize * 3, 20]))
        .collect();
    for (number, partition) in (0..).zip(&partitions) {
        store.insert(number, partition.clone());
    }
    let listener = backend.listen(&store).await;
    let connection = backend.connect(&*listener).await;
    let budget = ample();
    let fetches = (0..REQUESTS).map(|request| {
        let (connection, budget) = (&connection, &budget);
        async move { (request, fetch(&**connection, request % 100, budget).await) }
    });
    for (request, fetched) in within(join_all(fetches)).await {
        assert_eq!(fetched.unwrap(), partitions[request as usize % 100]);
    }
    assert_eq!(budget.used_bytes(), 0);
}

/// A large payload on the way is no reason for a small one to wait until its end.
pub async fn a_small_fetch_passes_a_large_one(backend: Backend) {
    let store = Store::new();
    store.insert(0, random_partition(1, &[100]));
    // So large that a busy machine, too, finds time for the small one meanwhile.
    let buffer = random_partition(2, &[4 * MIB]).buffers()[0].clone();
    store.insert(1, Partition::new(Bytes::new(), vec![buffer; 64]));
    let listener = backend.listen(&store).await;
    let connection = backend.connect(&*listener).await;
    let budget = ample();
    let probe = Probe::new(&budget);
    let large = connection.fetch(partition_id(1), Arc::clone(&probe) as Arc<dyn Destination>);
    let small = async {
        if backend.receives_into_destination {
            probe.asked.notified().await;
        }
        fetch(&*connection, 0, &budget).await.unwrap();
    };
    let (mut large, mut small) = (large.fuse(), std::pin::pin!(small.fuse()));
    // In a backend that moves a payload in one go there is nothing to pass.
    let passed = within(async {
        tokio::select! {
            biased;
            () = &mut small => true,
            fetched = &mut large => { fetched.unwrap(); false }
        }
    })
    .await;
    if passed {
        within(large).await.unwrap();
    } else {
        assert_eq!(
            backend.transport.scheme(),
            "memory",
            "the large one was first"
        );
        within(small).await;
    }
    assert_eq!(budget.used_bytes(), 0);
}

/// Many listeners and many connections to each.
pub async fn many_peers_are_served_at_once(backend: Backend) {
    let peers = (0..8_u32).map(|peer| {
        let backend = &backend;
        async move {
            let store = Store::new();
            let partition = random_partition(u64::from(peer), &[MIB / 2 + peer as usize, 9]);
            store.insert(peer, partition.clone());
            let listener = backend.listen(&store).await;
            let budget = ample();
            join_all((0..6).map(|_| async {
                let connection = backend.connect(&*listener).await;
                let fetches = (0..4).map(|_| fetch(&*connection, peer, &budget));
                for fetched in join_all(fetches).await {
                    assert_eq!(fetched.unwrap(), partition);
                }
            }))
            .await;
            assert_eq!(budget.used_bytes(), 0);
        }
    });
    within(join_all(peers)).await;
}

/// `NotFound` names the partition and the peer.
pub async fn a_missing_partition_is_not_found_and_harms_nothing(backend: Backend) {
    let store = Store::new();
    store.insert(1, random_partition(1, &[MIB]));
    let listener = backend.listen(&store).await;
    let connection = backend.connect(&*listener).await;
    let budget = ample();
    let (missing, present) = tokio::join!(
        fetch(&*connection, 404, &budget),
        fetch(&*connection, 1, &budget)
    );
    let error = missing.unwrap_err();
    assert!(error.is_gone() && !error.is_retryable(), "{error}");
    let text = error.to_string();
    assert!(
        text.contains(&partition_id(404).to_string())
            && text.contains(&listener.address().to_string()),
        "{text}"
    );
    drop(present.unwrap());
    assert!(!connection.is_closed());
    assert_eq!(budget.used_bytes(), 0);
}

/// The source's words reach the fetcher, however long they are.
pub async fn a_source_that_fails_says_why_and_harms_nothing(backend: Backend) {
    let store = Store::new();
    store.insert(1, random_partition(1, &[10]));
    store.insert_unreadable(2, "the disk is gone");
    store.insert_unreadable(3, &"ü".repeat(100_000));
    let listener = backend.listen(&store).await;
    let connection = backend.connect(&*listener).await;
    let budget = ample();
    let error = fetch(&*connection, 2, &budget).await.unwrap_err();
    assert!(matches!(error, TransportError::Source { .. }), "{error}");
    assert!(error.to_string().contains("the disk is gone"), "{error}");
    assert!(!error.is_gone() && error.is_retryable());
    let long = fetch(&*connection, 3, &budget).await.unwrap_err();
    assert!(long.to_string().contains("üüü"));
    fetch(&*connection, 1, &budget).await.unwrap();
    assert_eq!(budget.used_bytes(), 0);
}

/// A bug in one source is one failed fetch. (Where peers share a process and a task, the panic is the fetcher's own.)
pub async fn a_source_that_panics_fails_that_fetch_alone(backend: Backend) {
    let store = Store::new();
    store.insert(1, random_partition(1, &[10]));
    store.insert_panicking(2);
    let listener = backend.listen(&store).await;
    let connection = backend.connect(&*listener).await;
    let budget = ample();
    let fetched = std::panic::AssertUnwindSafe(fetch(&*connection, 2, &budget))
        .catch_unwind()
        .await;
    if let Ok(fetched) = fetched {
        assert!(matches!(fetched, Err(TransportError::Source { .. })));
    }
    fetch(&*connection, 1, &budget).await.unwrap();
    assert_eq!(budget.used_bytes(), 0);
}

/// No memory for one partition is no reason to fail others, before, beside or after it.
pub async fn a_destination_that_refuses_harms_nothing(backend: Backend) {
    if !backend.receives_into_destination {
        return;
    }
    let store = Store::new();
    let (large, small) = (
        random_partition(1, &[20 * MIB, 3]),
        random_partition(2, &[MIB]),
    );
    store.insert(1, large.clone());
    store.insert(2, small.clone());
    let listener = backend.listen(&store).await;
    let connection = backend.connect(&*listener).await;
    let tight = Budget::new("a tight budget", 3 * MIB as u64);
    for _ in 0..5 {
        let (refused, beside) = tokio::join!(
            fetch(&*connection, 1, &tight),
            fetch(&*connection, 2, &tight)
        );
        let error = refused.unwrap_err();
        assert!(matches!(error, TransportError::NoMemory(_)), "{error}");
        assert!(error.to_string().contains("a tight budget"), "{error}");
        assert_eq!(beside.unwrap(), small);
    }
    assert_eq!(tight.used_bytes(), 0);
    let budget = ample();
    assert_eq!(fetch(&*connection, 1, &budget).await.unwrap(), large);
    assert!(!connection.is_closed());
}

/// A destination with a bug gets an error of its own.
pub async fn a_destination_that_gives_a_wrong_buffer_is_told_so(backend: Backend) {
    struct Wrong(Budget);
    impl Destination for Wrong {
        fn allocate(&self, header: &PartitionHeader) -> Result<HostBuffer, OutOfBudget> {
            let bytes = header.payload_bytes() - 1;
            Ok(HostBuffer::uncleared(
                bytes as usize,
                self.0.try_reserve(bytes)?,
            ))
        }
    }
    if !backend.receives_into_destination {
        return;
    }
    let store = Store::new();
    store.insert(1, random_partition(1, &[5 * MIB]));
    let listener = backend.listen(&store).await;
    let connection = backend.connect(&*listener).await;
    let budget = ample();
    let fetched = within(connection.fetch(partition_id(1), Arc::new(Wrong(budget.clone())))).await;
    assert!(matches!(fetched, Err(TransportError::WrongBuffer { .. })));
    fetch(&*connection, 1, &budget).await.unwrap();
    assert_eq!(budget.used_bytes(), 0);
}

/// Fetches dropped at every stage, many times: nothing leaks, nothing hangs, bytes stay right.
pub async fn dropped_fetches_return_their_memory_and_leave_the_connection_usable(backend: Backend) {
    let store = Store::new();
    let (large, small) = (
        random_partition(1, &[12 * MIB, 5]),
        random_partition(2, &[999]),
    );
    store.insert(1, large.clone());
    store.insert(2, small.clone());
    let listener = backend.listen(&store).await;
    let connection = backend.connect(&*listener).await;
    let budget = ample();
    for round in 0..60_u64 {
        let fetches = join_all((0..3).map(|_| fetch(&*connection, 1, &budget)));
        let cut = Duration::from_micros(round * 97);
        let _ = tokio::time::timeout(cut, fetches).await;
        assert_eq!(fetch(&*connection, 2, &budget).await.unwrap(), small);
    }
    if backend.receives_into_destination {
        let asked = Probe::new(&budget);
        // Dropped right after memory was given, before any payload.
        tokio::select! {
            biased;
            () = asked.asked.notified() => {}
            fetched = connection.fetch(partition_id(1), Arc::clone(&asked) as Arc<dyn Destination>) => drop(fetched),
        }
    }
    until("dropped fetches have returned their memory", || {
        budget.used_bytes() == 0
    })
    .await;
    assert_eq!(fetch(&*connection, 1, &budget).await.unwrap(), large);
    assert!(!connection.is_closed());
    assert_eq!(budget.used_bytes(), 0);
}

/// The source's future is dropped with the fetch.
pub async fn a_fetch_dropped_while_the_source_is_slow_frees_the_source(backend: Backend) {
    let store = Store::new();
    let gate = store.insert_behind_gate(1, random_partition(1, &[100]));
    store.insert(2, random_partition(2, &[100]));
    let listener = backend.listen(&store).await;
    let connection = backend.connect(&*listener).await;
    let budget = ample();
    let slow = join_all((0..20).map(|_| fetch(&*connection, 1, &budget)));
    tokio::select! {
        _ = slow => panic!("the gate is closed"),
        () = until("the source is asked", || gate.waiting() == 20) => {}
    }
    until("the source is freed", || gate.waiting() == 0).await;
    fetch(&*connection, 2, &budget).await.unwrap();
    gate.open();
    fetch(&*connection, 1, &budget).await.unwrap();
    assert_eq!(budget.used_bytes(), 0);
}

/// Waiting fetches fail, later ones too, and so does connecting.
pub async fn a_dropped_listener_closes_its_connections(backend: Backend) {
    let store = Store::new();
    let gate = store.insert_behind_gate(1, random_partition(1, &[100]));
    let listener = backend.listen(&store).await;
    let address = listener.address().clone();
    let connection = backend.connect(&*listener).await;
    let budget = ample();
    let waiting = fetch(&*connection, 1, &budget);
    let drop_listener = async {
        until("the source is asked", || gate.waiting() == 1).await;
        drop(listener);
    };
    let (fetched, ()) = tokio::join!(waiting, drop_listener);
    let error = fetched.unwrap_err();
    assert!(matches!(error, TransportError::Closed { .. }), "{error}");
    assert!(error.is_retryable() && !error.is_gone());
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    until("the connection knows", || connection.is_closed()).await;
    let later = fetch(&*connection, 1, &budget).await.unwrap_err();
    assert!(matches!(later, TransportError::Closed { .. }), "{later}");
    until("the source is freed", || gate.waiting() == 0).await;
    let again = within(backend.transport.connect(&address)).await;
    assert!(matches!(again.err(), Some(TransportError::Connect { .. })));
    assert_eq!(budget.used_bytes(), 0);
}

/// The peer goes away with memory allocated and the payload not there.
pub async fn a_listener_that_goes_away_in_a_payload_is_an_error(backend: Backend) {
    let store = Store::new();
    let partition = random_partition(1, &[64 * MIB]);
    store.insert(1, partition.clone());
    let listener = backend.listen(&store).await;
    let connection = backend.connect(&*listener).await;
    let budget = ample();
    let probe = Probe::doing(&budget, move || drop(listener));
    match within(connection.fetch(partition_id(1), probe)).await {
        // It may all have been on its way already.
        Ok(fetched) => assert_eq!(on_host(fetched), partition),
        Err(error) => assert!(matches!(error, TransportError::Closed { .. }), "{error}"),
    }
    // What was being written is freed once nobody writes to it any more.
    until("all memory is back", || budget.used_bytes() == 0).await;
}

/// A fetcher that goes away is no harm to others.
pub async fn a_dropped_connection_leaves_the_listener_usable(backend: Backend) {
    let store = Store::new();
    let gate = store.insert_behind_gate(1, random_partition(1, &[100]));
    let large = random_partition(2, &[30 * MIB]);
    store.insert(2, large.clone());
    let listener = backend.listen(&store).await;
    let budget = ample();
    for _ in 0..3 {
        let connection = backend.connect(&*listener).await;
        tokio::select! {
            _ = fetch(&*connection, 1, &budget) => panic!("the gate is closed"),
            _ = fetch(&*connection, 2, &budget) => {}
            () = until("the source is asked", || gate.waiting() > 0) => {}
        }
        drop(connection);
        until("the source is freed", || gate.waiting() == 0).await;
    }
    let connection = backend.connect(&*listener).await;
    assert_eq!(fetch(&*connection, 2, &budget).await.unwrap(), large);
    until("all memory is back", || budget.used_bytes() == 0).await;
}

/// `Connect` names the address.
pub async fn an_address_where_nobody_listens_is_an_error(backend: Backend) {
    let listener = backend.listen(&Store::new()).await;
    let address = listener.address().clone();
    drop(listener);
    until("the address is free", || {
        within(backend.transport.connect(&address))
            .now_or_never()
            .is_none_or(|connected| connected.is_err())
    })
    .await;
    let error = within(backend.transport.connect(&address))
        .await
        .err()
        .unwrap();
    assert!(matches!(error, TransportError::Connect { .. }), "{error}");
    assert!(error.is_retryable());
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

/// `Address` names the address and the transport.
pub async fn an_address_of_another_transport_is_an_error(backend: Backend) {
    let address = Address::new("pigeon", "loft:7");
    let error = within(backend.transport.connect(&address))
        .await
        .err()
        .unwrap();
    assert!(matches!(error, TransportError::Address { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("pigeon://loft:7") && text.contains(backend.transport.scheme()),
        "{text}"
    );
}

/// `Listen` names what was asked for.
pub async fn a_listener_cannot_take_an_address_that_is_taken(backend: Backend) {
    let listener = backend.listen(&Store::new()).await;
    let taken = listener.address().endpoint.clone();
    let error = backend
        .transport
        .listen(&taken, Store::new() as Arc<dyn PartitionSource>)
        .await
        .err()
        .unwrap();
    assert!(matches!(error, TransportError::Listen { .. }), "{error}");
    assert!(error.to_string().contains(&taken), "{error}");
}
