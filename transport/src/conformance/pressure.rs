//! The cases of peers that stall, of fetches dropped at every point, of limits, and of the largest partitions.

use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, join_all, poll_fn};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use transload_gpu::Partition;

use super::fixture::{
    Backend, Probe, Store, ample, fetch, on_host, partition_id, random_partition, until, within,
};
use crate::TransportError;
use crate::faulty::{Faulty, Operation, Rule, Rules, Verdict};

const MIB: usize = 1 << 20;
/// Set to anything, has [`more_than_four_gibibytes_arrive_whole`] run: it takes as much memory, and seconds.
const LARGE: &str = "TRANSLOAD_TEST_4_GIB";

/// No order is promised between fetches: whichever can be answered is, and with its own partition.
pub async fn answers_come_in_any_order_and_each_reaches_its_own_fetch(backend: Backend) {
    const FETCHES: u32 = 10;
    let store = Store::new();
    let partitions: Vec<_> = (0..FETCHES)
        .map(|number| random_partition(u64::from(number) + 1, &[1_000, 70_000]))
        .collect();
    let gates: Vec<_> = (0..)
        .zip(&partitions)
        .map(|(number, partition)| store.insert_behind_gate(number, partition.clone()))
        .collect();
    let listener = backend.listen(&store).await;
    let connection = backend.connect(&*listener).await;
    let budget = ample();
    let mut fetches: FuturesUnordered<_> = (0..FETCHES)
        .map(|number| fetch(&*connection, number, &budget).map(move |fetched| (number, fetched)))
        .collect();
    tokio::select! {
        _ = fetches.next() => panic!("the gates are closed"),
        () = until("all are asked for", || gates.iter().all(|gate| gate.waiting() == 1)) => {}
    }
    for number in (0..FETCHES).rev() {
        gates[number as usize].open();
        let (answered, fetched) = within(fetches.next()).await.unwrap();
        assert_eq!(answered, number, "only this one can be answered");
        assert_eq!(fetched.unwrap(), partitions[number as usize]);
    }
    drop(fetches);
    assert_eq!(budget.used_bytes(), 0);
}

/// Lengths and offsets beyond 32 bits. Runs only where [`LARGE`] is set.
pub async fn more_than_four_gibibytes_arrive_whole(backend: Backend) {
    if std::env::var_os(LARGE).is_none() {
        eprintln!("skipped: set {LARGE}=1 to move more than 4 GiB");
        return;
    }
    let store = Store::new();
    let piece = random_partition(1, &[64 * MIB]).buffers()[0].clone();
    let odd = piece.slice(..MIB + 1);
    let mut buffers = vec![piece; 64];
    buffers.insert(63, odd);
    let partition = Partition::new(Bytes::from_static(b"large"), buffers);
    assert!(partition.bytes() > 1 << 32);
    store.insert(1, partition.clone());
    let listener = backend.listen(&store).await;
    let connection = backend.connect(&*listener).await;
    let budget = ample();
    let fetched = fetch(&*connection, 1, &budget).await.unwrap();
    assert!(fetched == partition, "the same bytes");
    drop(fetched);
    assert_eq!(budget.used_bytes(), 0);
}

/// Nor any later one.
pub async fn a_source_that_never_answers_holds_up_no_other_fetch(backend: Backend) {
    let store = Store::new();
    let gate = store.insert_behind_gate(1, random_partition(1, &[100]));
    let (small, large) = (
        random_partition(2, &[999]),
        random_partition(3, &[5 * MIB, 7]),
    );
    store.insert(2, small.clone());
    store.insert(3, large.clone());
    let listener = backend.listen(&store).await;
    let connection = backend.connect(&*listener).await;
    let budget = ample();
    let stalled = join_all((0..5).map(|_| fetch(&*connection, 1, &budget)));
    let others = async {
        until("the source is asked", || gate.waiting() == 5).await;
        for _ in 0..50 {
            assert_eq!(fetch(&*connection, 2, &budget).await.unwrap(), small);
        }
        let large_ones = (0..5).map(|_| fetch(&*connection, 3, &budget));
        for fetched in join_all(large_ones).await {
            assert_eq!(fetched.unwrap(), large);
        }
    };
    tokio::select! {
        _ = stalled => panic!("the gate is closed"),
        () = others => {}
    }
    assert!(!connection.is_closed());
    assert_eq!(budget.used_bytes(), 0);
}

/// Who does not get to look at what it fetched holds up nobody, and finds it later.
pub async fn a_fetch_that_nobody_polls_holds_up_no_other(backend: Backend) {
    let store = Store::new();
    let (small, large) = (
        random_partition(1, &[100]),
        random_partition(2, &[20 * MIB, 9]),
    );
    store.insert(1, small.clone());
    store.insert(2, large.clone());
    let listener = backend.listen(&store).await;
    let connection = backend.connect(&*listener).await;
    let budget = ample();
    let mut unpolled = pin!(fetch(&*connection, 2, &budget));
    let at_once = unpolled.as_mut().now_or_never();
    for _ in 0..20 {
        assert_eq!(fetch(&*connection, 1, &budget).await.unwrap(), small);
    }
    assert_eq!(fetch(&*connection, 2, &budget).await.unwrap(), large);
    let fetched = match at_once {
        Some(fetched) => fetched,
        None => unpolled.await,
    };
    assert_eq!(fetched.unwrap(), large);
    assert_eq!(budget.used_bytes(), 0);
}

/// Before it is polled at all, after each poll that leaves it waiting, and when its result is there and not taken.
pub async fn a_fetch_dropped_after_any_poll_leaves_nothing_behind(backend: Backend) {
    let store = Store::new();
    let partitions = [
        random_partition(1, &[100]),
        random_partition(2, &[6 * MIB, 9]),
    ];
    for (number, partition) in (0..).zip(&partitions) {
        store.insert(number, partition.clone());
    }
    let listener = backend.listen(&store).await;
    let connection = backend.connect(&*listener).await;
    let budget = ample();
    for polls in 0..6 {
        for number in 0..2 {
            let dropped = connection.fetch(partition_id(number), Arc::new(budget.clone()));
            within(polled(dropped, polls)).await;
            let fetched = fetch(&*connection, number, &budget).await.unwrap();
            assert_eq!(fetched, partitions[number as usize]);
        }
    }
    // Dropped unpolled while its answer comes.
    let mut unpolled = connection.fetch(partition_id(1), Arc::new(budget.clone()));
    drop((&mut unpolled).now_or_never());
    fetch(&*connection, 0, &budget).await.unwrap();
    drop(unpolled);
    until("all memory is back", || budget.used_bytes() == 0).await;
    assert!(!connection.is_closed());
}

/// Polls as often as it is woken, so many times at most, and drops it.
async fn polled<T>(mut future: BoxFuture<'_, T>, times: usize) {
    let mut left = times;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(());
        }
        left -= 1;
        let is_over = future.poll_unpin(context).is_ready() || left == 0;
        if is_over {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

/// The fetch is dropped by another task at the very moment at which it is given memory.
pub async fn a_fetch_aborted_while_it_gets_its_memory_returns_it(backend: Backend) {
    if !backend.receives_into_destination {
        return;
    }
    let store = Store::new();
    let partition = random_partition(1, &[8 * MIB, 3]);
    store.insert(1, partition.clone());
    let listener = backend.listen(&store).await;
    let connection = backend.connect(&*listener).await;
    let budget = ample();
    for _ in 0..10 {
        let task = Arc::new(OnceLock::<tokio::task::AbortHandle>::new());
        let to_abort = Arc::clone(&task);
        let probe = Probe::doing(&budget, move || {
            // Not yet known: then it is not aborted, and arrives.
            if let Some(task) = to_abort.get() {
                task.abort();
            }
        });
        let (start, started) = tokio::sync::oneshot::channel();
        let fetching = Arc::clone(&connection);
        let fetch = tokio::spawn(async move {
            started.await.unwrap();
            fetching.fetch(partition_id(1), probe).await
        });
        task.set(fetch.abort_handle()).unwrap();
        start.send(()).unwrap();
        match within(fetch).await {
            Ok(fetched) => assert_eq!(on_host(fetched.unwrap()), partition),
            Err(error) => assert!(error.is_cancelled(), "{error}"),
        }
        until("the memory is back", || budget.used_bytes() == 0).await;
    }
    assert!(!connection.is_closed());
    assert_eq!(fetch(&*connection, 1, &budget).await.unwrap(), partition);
}

/// The fault wrapper cuts this backend's connection between memory and payload: every fetch on it ends, another connection works.
pub async fn a_connection_cut_in_a_payload_ends_every_fetch_and_returns_the_memory(
    backend: Backend,
) {
    let store = Store::new();
    let partition = random_partition(1, &[8 * MIB, 3]);
    store.insert(1, partition.clone());
    let gate = store.insert_behind_gate(2, random_partition(2, &[100]));
    let cut = Rule::on(Operation::Fetch, Verdict::Cut).of_partition(partition_id(1));
    let faulty = Backend {
        transport: Arc::new(Faulty::new(
            Arc::clone(&backend.transport),
            Rules::new(1).rule(cut.at_most(1)),
        )),
        bind: backend.bind.clone(),
        ..backend
    };
    let listener = faulty.listen(&store).await;
    let connection = faulty.connect(&*listener).await;
    let budget = ample();
    let waiting = fetch(&*connection, 2, &budget);
    let cut = async {
        until("the source is asked", || gate.waiting() == 1).await;
        fetch(&*connection, 1, &budget).await
    };
    let (waiting, cut) = tokio::join!(waiting, cut);
    for ended in [waiting, cut] {
        let error = ended.unwrap_err();
        assert!(matches!(error, TransportError::Closed { .. }), "{error}");
    }
    assert!(connection.is_closed());
    drop(connection);
    until("all memory is back", || budget.used_bytes() == 0).await;
    until("the source is freed", || gate.waiting() == 0).await;
    let again = faulty.connect(&*listener).await;
    assert_eq!(fetch(&*again, 1, &budget).await.unwrap(), partition);
}

/// Hundreds of fetches behind sources that do not answer: most wait for their turn, and all are dropped. Then as many are answered in one go.
pub async fn fetches_that_wait_for_their_turn_may_be_dropped(backend: Backend) {
    const FETCHES: u32 = 600;
    let store = Store::new();
    let gate = store.insert_behind_gate(1, random_partition(1, &[100]));
    store.insert(2, random_partition(2, &[1_000]));
    let listener = backend.listen(&store).await;
    let connection = backend.connect(&*listener).await;
    let budget = ample();
    let behind_gate = || join_all((0..FETCHES).map(|_| fetch(&*connection, 1, &budget)));
    for _ in 0..3 {
        tokio::select! {
            _ = behind_gate() => panic!("the gate is closed"),
            () = until("sources are asked", || gate.waiting() > 0) => {}
        }
        until("the sources are freed", || gate.waiting() == 0).await;
    }
    let waiting = async {
        until("sources are asked", || gate.waiting() > 0).await;
        let small = join_all((0..FETCHES).map(|_| fetch(&*connection, 2, &budget)));
        tokio::join!(small, async { gate.open() }).0
    };
    let (opened, small) = within(async { tokio::join!(behind_gate(), waiting) }).await;
    for fetched in opened.into_iter().chain(small) {
        fetched.unwrap();
    }
    assert_eq!(budget.used_bytes(), 0);
}

/// However many are asked for: what a peer can make a source load is bounded, and the rest gets its turn.
pub async fn no_more_partitions_are_opened_at_once_than_the_limit_allows(backend: Backend) {
    let Some(most) = backend.most_open.map(u64::from) else {
        return;
    };
    let store = Store::new();
    let gate = store.insert_behind_gate(1, random_partition(1, &[100]));
    let listener = backend.listen(&store).await;
    let connection = backend.connect(&*listener).await;
    let budget = ample();
    let fetches = join_all((0..most * 3).map(|_| fetch(&*connection, 1, &budget)));
    let open_gate = async {
        until("as many are open as may be", || gate.waiting() == most).await;
        // Time for one too many.
        tokio::time::sleep(Duration::from_millis(50)).await;
        gate.open();
    };
    let (fetched, ()) = within(async { tokio::join!(fetches, open_gate) }).await;
    assert!(fetched.iter().all(Result::is_ok));
    assert_eq!(gate.most_waiting(), most);
    drop(fetched);
    assert_eq!(budget.used_bytes(), 0);
}

/// Also once they are read, until they are sent: a sender holds no more of them than may be open, and those just leaving.
pub async fn a_sender_holds_no_more_partitions_than_the_limit_allows(backend: Backend) {
    const FETCHES: u32 = 300;
    let Some(most) = backend.most_open.map(u64::from) else {
        return;
    };
    let store = Store::new();
    let count = store.insert_counted(1, Bytes::from(vec![7; 300_000]));
    let listener = backend.listen(&store).await;
    let connection = backend.connect(&*listener).await;
    let budget = ample();
    let fetches = (0..FETCHES).map(|_| async {
        let fetched = fetch(&*connection, 1, &budget).await.unwrap();
        assert_eq!(fetched.bytes(), 300_000);
    });
    within(join_all(fetches)).await;
    assert!(
        (1..=most * 2).contains(&count.most()),
        "{} of at most {most}",
        count.most()
    );
    until("the sender holds none", || count.now() == 0).await;
    assert_eq!(budget.used_bytes(), 0);
}
