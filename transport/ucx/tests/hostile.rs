//! What does not greet as a peer does harms nobody. Skipped, with a printed reason, where there is no UCX.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{options, start};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use transload_gpu::Budget;
use transload_protocol::{Address, PROTOCOL_VERSION};
use transload_transport::conformance::{Store, partition_id, random_partition};
use transload_transport::{Listener, PartitionSource, Transport, TransportError};
use transload_transport_ucx::{UcxOptions, UcxTransport};

const MAGIC: &[u8] = b"TRANSLUX";

/// A transport that loses patience soon, and a listener of it.
async fn listening() -> Option<(UcxTransport, Box<dyn Listener>)> {
    let transport = start(UcxOptions {
        connect_timeout: Duration::from_secs(2),
        ..options()
    })?;
    let store = Store::new();
    store.insert(1, random_partition(1, &[1_000]));
    let source = store as Arc<dyn PartitionSource>;
    let listener = transport.listen("127.0.0.1:0", source).await.unwrap();
    Some((transport, listener))
}

async fn still_serves(transport: &UcxTransport, listener: &dyn Listener) {
    let connection = transport.connect(listener.address()).await.unwrap();
    let memory = Arc::new(Budget::new("test memory", u64::MAX));
    let fetched = connection.fetch(partition_id(1), memory).await.unwrap();
    assert_eq!(fetched.into_host(), Some(random_partition(1, &[1_000])));
}

/// Sends these bytes and reads what comes until the other side closes.
async fn answer_to(address: &Address, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(&address.endpoint).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A reset is as good an end as any.
    let _ = stream.read_to_end(&mut answer).await;
    answer
}

fn prefix(version: u32, bytes: u32) -> Vec<u8> {
    [MAGIC, &version.to_le_bytes(), &bytes.to_le_bytes()].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn greetings_that_are_none_are_closed_and_harm_nobody() {
    let Some((transport, listener)) = listening().await else {
        return;
    };
    let too_long = prefix(PROTOCOL_VERSION, u32::MAX);
    let other_version = prefix(PROTOCOL_VERSION + 1, 8);
    let nonsense = [prefix(PROTOCOL_VERSION, 40), vec![0xff; 40]].concat();
    for bytes in [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".as_slice(),
        &too_long,
        &other_version,
        &nonsense,
    ] {
        assert_eq!(answer_to(listener.address(), bytes).await, b"");
        still_serves(&transport, &*listener).await;
    }
    // Cut short, half closed, and silent for too long.
    let mut half = TcpStream::connect(&listener.address().endpoint)
        .await
        .unwrap();
    half.write_all(&MAGIC[..5]).await.unwrap();
    half.shutdown().await.unwrap();
    let silent = TcpStream::connect(&listener.address().endpoint)
        .await
        .unwrap();
    still_serves(&transport, &*listener).await;
    let mut nothing = Vec::new();
    for mut stream in [half, silent] {
        let _ = stream.read_to_end(&mut nothing).await;
    }
    assert_eq!(nothing, b"");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_answers_and_is_no_peer_is_an_error_that_says_so() {
    let Some((transport, _listener)) = listening().await else {
        return;
    };
    for (answer, expected) in [
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
            "does not greet",
        ),
        (prefix(PROTOCOL_VERSION + 1, 0), "version"),
        (prefix(PROTOCOL_VERSION, 2 << 20), "does not greet"),
        (
            [prefix(PROTOCOL_VERSION, 3), vec![9; 3]].concat(),
            "does not greet",
        ),
        (Vec::new(), "cannot connect"),
    ] {
        let false_peer = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::new("ucx", false_peer.local_addr().unwrap().to_string());
        let serve = async {
            let (mut stream, _) = false_peer.accept().await.unwrap();
            stream.write_all(&answer).await.unwrap();
            // Not before it is read.
            let _ = stream.shutdown().await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        };
        let (connected, ()) = tokio::join!(transport.connect(&address), serve);
        let error = connected.err().expect("no peer").to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_never_answers_is_given_up() {
    let Some((transport, _listener)) = listening().await else {
        return;
    };
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::new("ucx", silent.local_addr().unwrap().to_string());
    let error = transport.connect(&address).await.err().unwrap();
    assert!(matches!(error, TransportError::TimedOut { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_no_place_is_refused_with_the_reason() {
    let Some(transport) = start(UcxOptions {
        max_connections: 1,
        ..options()
    }) else {
        return;
    };
    let listener = transport.listen("127.0.0.1:0", Store::new()).await.unwrap();
    let _first = transport.connect(listener.address()).await.unwrap();
    let error = transport.connect(listener.address()).await.err().unwrap();
    assert!(matches!(error, TransportError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("as many connections"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_tcp_is_all_that_ucx_found_it_can_be_declined() {
    let Some(transport) = start(UcxOptions {
        accept_tcp_lanes: false,
        ..options()
    }) else {
        return;
    };
    let listener = transport.listen("127.0.0.1:0", Store::new()).await.unwrap();
    // Which it is depends on the machine, and on UCX_TLS.
    match transport.connect(listener.address()).await {
        Ok(connection) => assert!(
            !connection.link().starts_with("ucx tcp/"),
            "{}",
            connection.link()
        ),
        Err(error) => assert!(
            matches!(error, TransportError::NothingBetter { .. }),
            "{error}"
        ),
    }
}
