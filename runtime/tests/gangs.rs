//! Gangs over real sockets: members that open connections to each other, in a ring, and what happens when one of them is killed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::time::Duration;

use common::{Outcome, cluster, kill, left_in, until};
use futures::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use transload_gpu::Partition;
use transload_protocol::{Layer, LayerIndex, TaskErrorKind, TaskGraph, TaskId};
use transload_runtime::{Client, ClientError, OperatorError, OperatorFactory, TaskContext};

/// How long any of these may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn run_as_worker() {
    common::worker_entry_with(operators());
}

fn operators() -> OperatorFactory {
    common::operators_with(&[
        ("ring", |task| ring(task, false).boxed()),
        ("patient-ring", |task| ring(task, true).boxed()),
        ("one-fails", |task| one_fails(task).boxed()),
    ])
}

fn broken(error: impl ToString) -> OperatorError {
    OperatorError::new(error.to_string())
}

/// A connection to the next member and one from the member before: each finds the next by a variable with its rank.
async fn neighbours(task: &TaskContext) -> Result<(TcpStream, TcpStream), OperatorError> {
    let gang = task.gang().expect("a member of a gang");
    let client = task.client().await?;
    let place = |rank: u32| {
        let incarnation = gang.incarnation().0;
        client.variable(format!("{} {incarnation} {rank}", task.task.graph))
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(broken)?;
    let own = listener.local_addr().map_err(broken)?.to_string();
    place(gang.rank()).set(own).await?;
    let address = place((gang.rank() + 1) % gang.size()).get().await?;
    let address = String::from_utf8(address.to_vec()).map_err(broken)?;
    let (next, before) =
        futures::future::join(TcpStream::connect(address), listener.accept()).await;
    Ok((next.map_err(broken)?, before.map_err(broken)?.0))
}

/// What a member tells the next one when it leaves in good order.
const GOODBYE: u32 = u32::MAX;

/// Sends its rank around the ring and adds up what comes by. With `waits`, it stays in the ring until somebody says that it may go.
async fn ring(task: TaskContext, waits: bool) -> Outcome {
    let (mut next, mut before) = neighbours(&task).await?;
    let gang = task.gang().expect("a member of a gang");
    let mut sum = 0;
    let mut passing = gang.rank();
    for _ in 0..gang.size() {
        sum += passing;
        next.write_u32(passing).await.map_err(broken)?;
        passing = before.read_u32().await.map_err(broken)?;
    }
    if waits {
        let client = task.client().await?;
        client.event("in the ring").set().await?;
        let go = client.event("go");
        let heard = tokio::select! {
            went = go.wait() => { went?; Ok(GOODBYE) }
            heard = before.read_u32() => heard,
        };
        // Who hears nothing more has lost the member before.
        if !matches!(heard, Ok(GOODBYE)) {
            return Err(broken(format!("the ring broke: {heard:?}")));
        }
        // The next may have left already.
        let _ = next.write_u32(GOODBYE).await;
    }
    let workers: std::collections::BTreeSet<_> =
        gang.members().iter().map(|member| member.process).collect();
    let own = &gang.members()[gang.rank() as usize];
    assert_eq!(own.process, std::process::id());
    assert!(!own.addresses.is_empty());
    let numbers = [
        sum,
        gang.size(),
        u32::try_from(workers.len()).unwrap(),
        gang.incarnation().0,
    ];
    let bytes: Vec<u8> = numbers
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect();
    Ok(vec![Partition::new(Default::default(), vec![bytes.into()])])
}

/// The last member fails; the others would wait for ever.
async fn one_fails(task: TaskContext) -> Outcome {
    let (_next, _before) = neighbours(&task).await?;
    let gang = task.gang().expect("a member of a gang");
    if gang.rank() + 1 == gang.size() {
        return Err(OperatorError::new("it is the last"));
    }
    std::future::pending().await
}

fn gang(operator: &str, members: u32) -> (TaskGraph, LayerIndex) {
    let mut graph = TaskGraph::new(operator);
    let kept = graph.push(Layer::new("members", operator, members).as_gang());
    graph.keep(kept);
    (graph, kept)
}

/// What each member of a ring made: the sum of ranks, the number of members and of workers, and the incarnation.
async fn gathered(client: &Client, graph: TaskGraph, kept: LayerIndex) -> Vec<[u32; 4]> {
    let handle = client.submit(graph).await.expect("accepted");
    let outputs = tokio::time::timeout(PATIENCE, handle.gather(kept)).await;
    read(&outputs.expect("in time").expect("gathered"))
}

fn read(outputs: &[Vec<Partition>]) -> Vec<[u32; 4]> {
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four bytes"));
    outputs
        .iter()
        .flatten()
        .map(|partition| {
            let numbers: Vec<u32> = partition.buffers()[0].chunks(4).map(number).collect();
            numbers.try_into().expect("four numbers")
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn members_on_several_workers_meet_and_connect_while_small_tasks_crowd_in() {
    let spill = tempfile::tempdir().expect("a folder");
    let cluster = cluster(2, spill.path(), |_| {}).await;
    let client = cluster.client().await.expect("connects");
    let mut small = TaskGraph::new("small");
    let pauses = small.push(Layer::new("pause", "sleep", 400).with_common(b"2".to_vec()));
    small.keep(pauses);
    let crowd = client.submit(small).await.expect("accepted");
    for _ in 0..3 {
        let (graph, kept) = gang("ring", 4);
        let made = gathered(&client, graph, kept).await;
        assert_eq!(made.len(), 4);
        for [sum, size, workers, _] in made {
            assert_eq!((sum, size, workers), (6, 4, 2));
        }
    }
    crowd.wait().await.expect("all of them have their turn");
    drop(crowd);
    cluster.shutdown().await;
    assert_eq!(left_in(spill.path()), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gang_whose_member_is_killed_runs_again_as_a_whole() {
    let spill = tempfile::tempdir().expect("a folder");
    let cluster = cluster(3, spill.path(), |_| {}).await;
    let client = cluster.client().await.expect("connects");
    let (graph, kept) = gang("patient-ring", 4);
    let handle = client.submit(graph).await.expect("accepted");
    let in_the_ring = client.event("in the ring");
    tokio::time::timeout(PATIENCE, in_the_ring.wait())
        .await
        .expect("in time")
        .expect("set");
    let info = client.info().await.expect("info");
    let busy = info.workers.iter().find(|worker| worker.assigned > 0);
    kill(busy.expect("a member's worker").hello.process);
    until(&client, "it runs again", |info| {
        info.workers.len() == 2 && info.workers.iter().all(|worker| worker.assigned == 2)
    })
    .await;
    client.event("go").set().await.expect("set");
    let outputs = tokio::time::timeout(PATIENCE, handle.gather(kept)).await;
    let made = read(&outputs.expect("in time").expect("gathered"));
    let incarnations: std::collections::BTreeSet<u32> =
        made.iter().map(|[.., incarnation]| *incarnation).collect();
    assert_eq!(incarnations.len(), 1, "{made:?}");
    assert!(incarnations.iter().all(|it| *it > 1), "{made:?}");
    assert!(made.iter().all(|[sum, ..]| *sum == 6), "{made:?}");
    drop(handle);
    cluster.shutdown().await;
    assert_eq!(left_in(spill.path()), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_fails_for_good_ends_the_others_and_is_named() {
    let spill = tempfile::tempdir().expect("a folder");
    let cluster = cluster(2, spill.path(), |_| {}).await;
    let client = cluster.client().await.expect("connects");
    let (graph, _) = gang("one-fails", 3);
    let handle = client.submit(graph).await.expect("accepted");
    let ended = tokio::time::timeout(PATIENCE, handle.wait()).await;
    match ended.expect("in time") {
        Err(ClientError::Task(error)) => {
            assert_eq!(error.kind, TaskErrorKind::Operator);
            assert_eq!(error.task.index, 2);
            assert!(error.to_string().contains("it is the last"), "{error}");
        }
        other => panic!("a task error was expected, not {other:?}"),
    }
    until(&client, "nobody waits any more", |info| {
        let is_idle = |worker: &transload_protocol::WorkerInfo| {
            worker.assigned == 0 && worker.load.running.is_empty()
        };
        info.graphs_running == 0 && info.workers.iter().all(is_idle)
    })
    .await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gang_that_waits_for_room_says_what_it_waits_for() {
    let spill = tempfile::tempdir().expect("a folder");
    let cluster = cluster(2, spill.path(), |_| {}).await;
    let client = cluster.client().await.expect("connects");
    let mut hour = TaskGraph::new("hour");
    hour.push(Layer::new("hour", "sleep", 1).with_common(b"3600000".to_vec()));
    let hour = client.submit(hour).await.expect("accepted");
    until(&client, "it sleeps", |info| {
        info.workers.iter().any(|worker| worker.assigned == 1)
    })
    .await;
    let (graph, kept) = gang("ring", 4);
    let handle = client.submit(graph).await.expect("accepted");
    let task = TaskId {
        graph: handle.id(),
        index: 1,
    };
    let explained = client.explain(task).await.expect("explained");
    assert!(
        explained.summary.contains("3 of 4 members fit now"),
        "{explained:?}"
    );
    hour.cancel();
    let outputs = tokio::time::timeout(PATIENCE, handle.gather(kept)).await;
    assert_eq!(outputs.expect("in time").expect("gathered").len(), 4);
    drop((hour, handle));
    cluster.shutdown().await;
}
