//! What comes to our ports and does not belong there: other versions, other protocols, peers that say nothing; and our own
//! connections to such.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use transload_protocol::{ClientHello, Hello, PROTOCOL_VERSION, Role, Welcome, WorkerHello, codec};
use transload_runtime::config::SchedulerConfig;
use transload_runtime::control::{ControlError, connect};
use transload_runtime::transports::TransportChoice;
use transload_runtime::{
    CancellationToken, Config, RuntimeError, SchedulerServer, builtin_operators, run_worker,
};

async fn scheduler() -> SchedulerServer {
    let mut config = SchedulerConfig {
        port: 0,
        ..SchedulerConfig::default()
    };
    config.control.handshake_timeout = Duration::from_millis(500);
    SchedulerServer::start(config).await.expect("starts")
}

fn client() -> Role {
    Role::Client(ClientHello {
        name: "test".to_owned(),
    })
}

async fn greet(address: &str) -> Result<(), ControlError> {
    let patience = Duration::from_millis(800);
    connect(address, client(), patience, patience)
        .await
        .map(drop)
}

/// Everything that the peer sends until it closes.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let reading = stream.read_to_end(&mut bytes);
    // A connection that is reset ends just as well.
    let _ = tokio::time::timeout(Duration::from_secs(5), reading)
        .await
        .expect("closed in time");
    bytes
}

#[tokio::test]
async fn a_peer_of_another_version_is_refused_with_both_versions_named() {
    let server = scheduler().await;
    let mut stream = TcpStream::connect(server.address())
        .await
        .expect("connects");
    let mut frame = Vec::new();
    codec::encode_frame(&(4711_u32, "whatever 4711 says"), &mut frame).expect("encodes");
    stream.write_all(&frame).await.expect("sent");
    let answer = rest(&mut stream).await;
    let Ok(Welcome::Refused { version, reason }) = codec::decode(&answer[4..]) else {
        panic!("refused, not {answer:?}");
    };
    assert_eq!(version, PROTOCOL_VERSION);
    assert!(
        reason.contains("4711") && reason.contains(&format!("version {PROTOCOL_VERSION}")),
        "{reason}"
    );
    greet(&server.address().to_string())
        .await
        .expect("the right version is welcome");
}

#[tokio::test]
async fn a_scheduler_of_another_version_is_reported_with_both_versions_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let address = listener.local_addr().expect("bound").to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut frame = Vec::new();
            let refused = Welcome::Refused {
                version: 4711,
                reason: "other words".to_owned(),
            };
            codec::encode_frame(&refused, &mut frame).expect("encodes");
            stream.write_all(&frame).await.expect("sent");
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    });
    let text = greet(&address).await.expect_err("refused").to_string();
    assert!(
        text.contains("version 4711") && text.contains(&format!("version {PROTOCOL_VERSION}")),
        "{text}"
    );
    let mut config = Config::default().worker;
    config.scheduler = Some(address);
    let spill = tempfile::tempdir().expect("a folder");
    config.spill_dir = Some(spill.path().to_owned());
    let error = run_worker(config, builtin_operators(), CancellationToken::new())
        .await
        .expect_err("refused");
    assert!(
        matches!(error, RuntimeError::Control(ControlError::Version { .. })),
        "{error}"
    );
    assert_eq!(std::fs::read_dir(spill.path()).expect("read").count(), 0);
}

#[tokio::test]
async fn garbage_on_the_control_port_is_closed_and_harms_nobody() {
    let server = scheduler().await;
    for garbage in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        &[0xFF; 100],
        &[3, 0, 0, 0, 0xFF, 0xFF, 0xFF],
        &[0; 64],
    ] {
        let mut stream = TcpStream::connect(server.address())
            .await
            .expect("connects");
        stream.write_all(garbage).await.expect("sent");
        assert!(rest(&mut stream).await.is_empty());
    }
    // Garbage after a good hello loses that connection alone.
    let mut stream = TcpStream::connect(server.address())
        .await
        .expect("connects");
    let mut frame = Vec::new();
    let hello = Hello {
        version: PROTOCOL_VERSION,
        role: client(),
    };
    codec::encode_frame(&hello, &mut frame).expect("encodes");
    frame.extend_from_slice(&[5, 0, 0, 0, 99, 99, 99, 99, 99]);
    stream.write_all(&frame).await.expect("sent");
    assert!(!rest(&mut stream).await.is_empty(), "it was welcomed first");
    greet(&server.address().to_string())
        .await
        .expect("unharmed");
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_closed_after_the_handshake_timeout() {
    let server = scheduler().await;
    let start = Instant::now();
    let mut stream = TcpStream::connect(server.address())
        .await
        .expect("connects");
    assert!(rest(&mut stream).await.is_empty());
    assert!(start.elapsed() >= Duration::from_millis(400));
}

#[tokio::test]
async fn whatever_is_no_scheduler_is_reported_with_a_remedy() {
    // Nothing listens.
    let free = TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let address = free.local_addr().expect("bound").to_string();
    drop(free);
    let text = greet(&address).await.expect_err("nobody there").to_string();
    assert!(
        text.contains(&address) && text.contains("is a scheduler running there?"),
        "{text}"
    );

    // A web server.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let address = listener.local_addr().expect("bound").to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let error = greet(&address).await.expect_err("a web server");
    assert!(
        matches!(error, ControlError::NotTransload { .. }),
        "{error}"
    );

    // Something that accepts and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let address = listener.local_addr().expect("bound").to_string();
    let error = greet(&address).await.expect_err("silence");
    assert!(matches!(error, ControlError::Silent { .. }), "{error}");

    for text in ["", "localhost", "localhost:", ":1", "localhost:99999"] {
        let error = greet(text).await.expect_err(text);
        assert!(matches!(error, ControlError::BadAddress { .. }), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_a_workers_data_port_harms_nobody() {
    let server = scheduler().await;
    let stop = CancellationToken::new();
    let spill = tempfile::tempdir().expect("a folder");
    let mut config = Config::default().worker;
    config.scheduler = Some(server.address().to_string());
    config.spill_dir = Some(spill.path().to_owned());
    config.transport = TransportChoice::Tcp;
    config.slots = Some(1);
    config.memory_bytes = Some(16 << 20);
    config.tcp.connect_timeout = Duration::from_millis(500);
    let worker = tokio::spawn(run_worker(config, builtin_operators(), stop.clone()));
    let hello: WorkerHello = loop {
        if let Some(worker) = server.info().await.expect("info").workers.pop() {
            break worker.hello;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let data = hello
        .addresses
        .iter()
        .find(|address| address.scheme == "tcp")
        .expect("a tcp address");
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xFF; 100], &[0; 100]] {
        let mut stream = TcpStream::connect(&data.endpoint).await.expect("connects");
        stream.write_all(garbage).await.expect("sent");
        let _ = rest(&mut stream).await;
    }
    assert_eq!(server.info().await.expect("info").workers.len(), 1);
    stop.cancel();
    worker.await.expect("no panic").expect("ends well");
}
