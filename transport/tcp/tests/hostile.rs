//! Peers that are dead, slow, old, foreign or malicious: always an error in bounded time, never harm to others.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use transload_gpu::{Budget, PartitionHeader};
use transload_protocol::{Address, Blob, PROTOCOL_VERSION, codec};
use transload_transport::conformance::{Store, partition_id, random_partition};
use transload_transport::{Connection, Listener, PartitionSource, Transport, TransportError};
use transload_transport_tcp::{TcpOptions, TcpTransport};

/// Where silence is the case.
const STALL: Duration = Duration::from_millis(500);
/// Where it would only mean that the machine is busy.
const PATIENCE: Duration = Duration::from_secs(120);

fn with_timeouts(timeout: Duration) -> TcpOptions {
    TcpOptions {
        connect_timeout: timeout,
        stall_timeout: timeout,
        ..TcpOptions::default()
    }
}

fn impatient() -> TcpTransport {
    TcpTransport::new(with_timeouts(STALL))
}

fn patient() -> TcpTransport {
    TcpTransport::new(with_timeouts(PATIENCE))
}

async fn listen(transport: &TcpTransport, store: Arc<Store>) -> Box<dyn Listener> {
    transport
        .listen("127.0.0.1:0", store as Arc<dyn PartitionSource>)
        .await
        .unwrap()
}

/// The greeting of a side that speaks `version`.
fn greeting(version: u32) -> Vec<u8> {
    let mut bytes = b"TRANSLOD".to_vec();
    for word in [version, 0, 100] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// Asks for the partition of this number.
fn request(request: u32, number: u32) -> Vec<u8> {
    let id = partition_id(number);
    let graph = id.task.graph;
    [
        1,
        request,
        graph.client.0,
        graph.sequence,
        id.task.index,
        id.output,
    ]
    .iter()
    .flat_map(|word: &u32| word.to_le_bytes())
    .collect()
}

/// A client that has greeted, and has not read the greeting of the server.
async fn greeted(listener: &dyn Listener) -> TcpStream {
    let mut stream = TcpStream::connect(&listener.address().endpoint)
        .await
        .unwrap();
    stream.write_all(&greeting(PROTOCOL_VERSION)).await.unwrap();
    stream
}

fn head(kind: u8, last: bool, request: u32, bytes: u32) -> Vec<u8> {
    let mut head = vec![kind, u8::from(last), 0, 0];
    head.extend_from_slice(&request.to_le_bytes());
    head.extend_from_slice(&bytes.to_le_bytes());
    head
}

fn header_answer(request: u32, buffer_bytes: Vec<u64>) -> Vec<u8> {
    let header = codec::encode(&PartitionHeader {
        metadata: Blob::default(),
        buffer_bytes,
    })
    .unwrap();
    let last = false;
    let mut answer = head(1, last, request, u32::try_from(header.len()).unwrap());
    answer.extend_from_slice(&header);
    answer
}

/// A server that greets, sends `answers` once the first request is there, and then hangs or hangs up.
async fn false_server(answers: Vec<u8>, hangs: bool) -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::new("tcp", listener.local_addr().unwrap().to_string());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_exact(&mut [0; 20]).await.unwrap();
        stream.write_all(&greeting(PROTOCOL_VERSION)).await.unwrap();
        stream.read_exact(&mut [0; 24]).await.unwrap();
        stream.write_all(&answers).await.unwrap();
        if hangs {
            // Reads on, says nothing.
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        }
    });
    address
}

async fn fetch(
    connection: &Arc<dyn Connection>,
    number: u32,
    budget: &Budget,
) -> Result<transload_gpu::Partition, TransportError> {
    let fetched = connection.fetch(partition_id(number), Arc::new(budget.clone()));
    tokio::time::timeout(PATIENCE * 2, fetched)
        .await
        .expect("ends in bounded time")
        .map(|fetched| fetched.into_host().expect("host memory was given"))
}

/// What a fetch from such a server ends with. All memory is back afterwards.
async fn fetch_from_false_server(
    transport: TcpTransport,
    answers: Vec<u8>,
    hangs: bool,
) -> TransportError {
    let address = false_server(answers, hangs).await;
    let connection = transport.connect(&address).await.unwrap();
    let budget = Budget::new("m", 1 << 30);
    let error = fetch(&connection, 1, &budget).await.unwrap_err();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert!(connection.is_closed());
    assert_eq!(budget.used_bytes(), 0);
    error
}

#[tokio::test]
async fn a_server_of_another_version_is_refused_with_both_versions_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::new("tcp", listener.local_addr().unwrap().to_string());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(&greeting(77)).await.unwrap();
        let _ = stream.read_exact(&mut [0; 20]).await;
    });
    let error = patient().connect(&address).await.err().unwrap();
    let text = error.to_string();
    assert!(
        text.contains("version 77") && text.contains(&format!("speaks version {PROTOCOL_VERSION}")),
        "{text}"
    );
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn a_client_of_another_version_hears_the_servers_version() {
    let listener = listen(&patient(), Store::new()).await;
    let mut stream = TcpStream::connect(&listener.address().endpoint)
        .await
        .unwrap();
    stream.write_all(&greeting(77)).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer[..8], *b"TRANSLOD");
    assert_eq!(answer[8..12], PROTOCOL_VERSION.to_le_bytes());
}

#[tokio::test]
async fn a_port_that_is_no_data_port_is_named_as_such() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::new("tcp", listener.local_addr().unwrap().to_string());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        let _ = stream.read_exact(&mut [0; 20]).await;
    });
    let error = patient().connect(&address).await.err().unwrap();
    assert!(matches!(error, TransportError::Protocol { .. }), "{error}");
}

#[tokio::test]
async fn a_server_that_never_greets_times_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::new("tcp", listener.local_addr().unwrap().to_string());
    let started = Instant::now();
    let error = impatient().connect(&address).await.err().unwrap();
    assert!(matches!(error, TransportError::TimedOut { .. }), "{error}");
    assert!((STALL..PATIENCE).contains(&started.elapsed()));
}

#[tokio::test]
async fn a_server_that_never_answers_times_out_within_the_option() {
    let started = Instant::now();
    let error = fetch_from_false_server(impatient(), vec![], true).await;
    assert!(matches!(error, TransportError::TimedOut { .. }), "{error}");
    assert!(error.is_retryable());
    assert!((STALL..PATIENCE).contains(&started.elapsed()));
}

#[tokio::test]
async fn a_server_that_stalls_in_a_payload_times_out() {
    let mut answers = header_answer(0, vec![1_000_000]);
    answers.extend(head(2, false, 0, 500_000));
    answers.extend(vec![7; 100_000]);
    let error = fetch_from_false_server(impatient(), answers, true).await;
    assert!(matches!(error, TransportError::TimedOut { .. }), "{error}");
}

#[tokio::test]
async fn a_server_that_dies_anywhere_in_an_answer_is_an_error() {
    let mut answers = header_answer(0, vec![1_000]);
    answers.extend(head(2, true, 0, 1_024));
    answers.extend(vec![7; 1_024]);
    for end in [0, 5, 12, 14, 16, 20, 30, 600, answers.len() - 1] {
        let error = fetch_from_false_server(patient(), answers[..end].to_vec(), false).await;
        assert!(
            matches!(error, TransportError::Closed { .. }),
            "{end}: {error}"
        );
        assert!(error.is_retryable());
    }
}

#[tokio::test]
async fn answers_that_make_no_sense_are_errors() {
    let chunk_of = |bytes: u32, last: bool| {
        let mut answers = header_answer(0, vec![1_000]);
        answers.extend(head(2, last, 0, bytes));
        answers.extend(vec![7; bytes as usize]);
        answers
    };
    let cases: [(&str, Vec<u8>); 10] = [
        ("unknown kind", head(9, false, 0, 0)),
        ("exceeds its limit", head(1, false, 0, u32::MAX)),
        ("not in flight", head(3, true, 55, 0)),
        ("out of turn", head(2, false, 0, 10)),
        ("malformed", [head(1, false, 0, 1), vec![255]].concat()),
        ("limit", header_answer(0, vec![u64::MAX, u64::MAX, 1 << 50])),
        ("limit", header_answer(0, vec![])),
        ("2000 B of a payload of 1024 B", chunk_of(2_000, true)),
        ("1000 of 1024 B", chunk_of(1_000, true)),
        ("1024 of 1024 B", chunk_of(1_024, false)),
    ];
    for (expected, answers) in cases {
        let error = fetch_from_false_server(patient(), answers, true).await;
        assert!(matches!(error, TransportError::Protocol { .. }), "{error}");
        assert!(
            error.to_string().contains(expected),
            "`{expected}` in: {error}"
        );
    }
}

#[tokio::test]
async fn a_server_that_closes_its_side_in_a_payload_and_reads_on_is_an_error_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::new("tcp", listener.local_addr().unwrap().to_string());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_exact(&mut [0; 20]).await.unwrap();
        stream.write_all(&greeting(PROTOCOL_VERSION)).await.unwrap();
        stream.read_exact(&mut [0; 24]).await.unwrap();
        let mut answers = header_answer(0, vec![1_000_000]);
        answers.extend(head(2, false, 0, 500_000));
        stream.write_all(&answers).await.unwrap();
        stream.shutdown().await.unwrap();
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    });
    let connection = patient().connect(&address).await.unwrap();
    let budget = Budget::new("m", 1 << 30);
    // Its patience would last much longer.
    let error = tokio::time::timeout(PATIENCE / 2, fetch(&connection, 1, &budget)).await;
    let error = error.expect("ends at once").unwrap_err();
    assert!(matches!(error, TransportError::Closed { .. }), "{error}");
    assert_eq!(budget.used_bytes(), 0);
}

#[tokio::test]
async fn a_client_that_closes_its_side_frees_what_is_held_for_it() {
    let store = Store::new();
    let gate = store.insert_behind_gate(1, random_partition(1, &[10]));
    let listener = listen(&patient(), store).await;
    let mut stream = greeted(&*listener).await;
    stream.write_all(&request(0, 1)).await.unwrap();
    while gate.waiting() == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(PATIENCE / 2, stream.read_to_end(&mut rest)).await;
    let _ = ended.expect("the server closes its side too");
    assert_eq!(rest.len(), 20, "the greeting and no answer");
    while gate.waiting() > 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn no_more_bytes_are_in_flight_than_the_limit_allows() {
    const PARTITIONS: u32 = 12;
    let transport = TcpTransport::new(TcpOptions {
        max_bytes_in_flight_per_connection: 3 << 20,
        chunk_bytes: 64 << 10,
        ..with_timeouts(PATIENCE)
    });
    let store = Store::new();
    store.insert(1, random_partition(1, &[1 << 20]));
    let listener = listen(&transport, store).await;
    let mut stream = greeted(&*listener).await;
    for number in 0..PARTITIONS {
        stream.write_all(&request(number, 1)).await.unwrap();
    }
    stream.read_exact(&mut [0; 20]).await.unwrap();
    // Those whose header was here and whose last piece was not: what a client must have memory for at once.
    let (mut arriving, mut most, mut arrived) = (0, 0, 0);
    while arrived < PARTITIONS {
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        let bytes = u32::from_le_bytes(std::array::from_fn(|index| head[8 + index]));
        let mut piece = vec![0; bytes as usize];
        stream.read_exact(&mut piece).await.unwrap();
        arriving += u32::from(head[0] == 1);
        most = most.max(arriving);
        if head[1] == 1 {
            arriving -= 1;
            arrived += 1;
        }
    }
    assert_eq!(most, 3, "partitions of 1 MiB at once");
}

#[tokio::test]
async fn an_idle_connection_never_times_out() {
    let transport = impatient();
    let store = Store::new();
    store.insert(1, random_partition(1, &[1_000]));
    let listener = listen(&transport, store).await;
    let connection = transport.connect(listener.address()).await.unwrap();
    let budget = Budget::new("m", 1 << 30);
    for _ in 0..3 {
        tokio::time::sleep(STALL * 3 / 2).await;
        fetch(&connection, 1, &budget).await.unwrap();
    }
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_dropped_and_its_partition_with_it() {
    let transport = impatient();
    let store = Store::new();
    let buffer = Bytes::from(vec![1; 4 << 20]);
    store.insert(
        1,
        transload_gpu::Partition::new(Bytes::new(), vec![buffer; 16]),
    );
    let listener = listen(&transport, store).await;
    let mut stream = greeted(&*listener).await;
    stream.write_all(&request(0, 1)).await.unwrap();
    tokio::time::sleep(STALL * 4).await;
    // What the operating system had taken still comes; then the connection has ended long before the whole payload.
    let mut received = 0;
    let mut piece = vec![0; 1 << 20];
    while let Ok(bytes @ 1..) = stream.read(&mut piece).await {
        received += bytes;
    }
    assert!(received < 60 << 20, "{received} B");
}

#[tokio::test]
async fn too_many_connections_are_refused_with_the_reason() {
    let transport = TcpTransport::new(TcpOptions {
        max_connections: 2,
        ..with_timeouts(PATIENCE)
    });
    let store = Store::new();
    store.insert(1, random_partition(1, &[10]));
    let listener = listen(&transport, store).await;
    let budget = Budget::new("m", 1 << 20);
    let first = transport.connect(listener.address()).await.unwrap();
    let second = transport.connect(listener.address()).await.unwrap();
    let error = transport.connect(listener.address()).await.err().unwrap();
    assert!(matches!(error, TransportError::Refused { .. }), "{error}");
    fetch(&first, 1, &budget).await.unwrap();
    fetch(&second, 1, &budget).await.unwrap();
    drop(first);
    let started = Instant::now();
    while transport.connect(listener.address()).await.is_err() {
        assert!(started.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_client_above_its_limit_of_requests_loses_its_connection_alone() {
    let transport = TcpTransport::new(TcpOptions {
        max_requests_per_connection: 10,
        ..with_timeouts(PATIENCE)
    });
    let store = Store::new();
    let _gate = store.insert_behind_gate(1, random_partition(1, &[10]));
    store.insert(2, random_partition(2, &[10]));
    let listener = listen(&transport, store).await;
    let other = transport.connect(listener.address()).await.unwrap();
    let mut stream = greeted(&*listener).await;
    for number in 0..11 {
        stream.write_all(&request(number, 1)).await.unwrap();
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert_eq!(answer.len(), 20, "the greeting and no answer");
    fetch(&other, 2, &Budget::new("m", 1 << 20)).await.unwrap();
}

/// Sends bytes to a listener that serves another client at the same time.
async fn survives(garbage: &[Vec<u8>], greeted: bool) {
    let transport = patient();
    let store = Store::new();
    let partition = random_partition(5, &[100_000, 3]);
    store.insert(1, partition.clone());
    let listener = listen(&transport, store).await;
    let connection = transport.connect(listener.address()).await.unwrap();
    let budget = Budget::new("m", 1 << 30);
    for bytes in garbage {
        let mut stream = TcpStream::connect(&listener.address().endpoint)
            .await
            .unwrap();
        if greeted {
            stream.write_all(&greeting(PROTOCOL_VERSION)).await.unwrap();
        }
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        assert_eq!(fetch(&connection, 1, &budget).await.unwrap(), partition);
    }
    assert_eq!(budget.used_bytes(), 0);
}

fn on_a_runtime<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    #[test]
    fn garbage_on_the_port_harms_nobody(
        garbage in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..2_000), 1..8),
        greeted in any::<bool>(),
    ) {
        on_a_runtime(survives(&garbage, greeted));
    }

    #[test]
    fn garbage_in_answers_is_an_error(
        garbage in proptest::collection::vec(any::<u8>(), 1..2_000),
        after_header in any::<bool>(),
    ) {
        let mut answers = if after_header { header_answer(0, vec![1_000_000]) } else { vec![] };
        answers.extend(garbage);
        // A few random bytes can be a valid answer (`not found`), but never a partition.
        let _ = on_a_runtime(async {
            let address = false_server(answers, false).await;
            let connection = patient().connect(&address).await.unwrap();
            let budget = Budget::new("m", 1 << 30);
            let error = fetch(&connection, 1, &budget).await.unwrap_err();
            assert_eq!(budget.used_bytes(), 0);
            error
        });
    }
}
