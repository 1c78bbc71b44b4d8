//! The dashboard as browsers, scrapers and scripts meet it, in front of a made-up cluster.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use transload_dashboard::view::{Frame, Message};
use transload_dashboard::{Batch, Dashboard, DashboardError, Gone, Options, Source};
use transload_protocol::{
    ClusterInfo, Event, EventRecord, Explanation, GraphId, LayerIndex, TaskId, Time, WorkerId,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster without workers, which may have ended.
#[derive(Default)]
struct Made {
    has_ended: AtomicBool,
}

impl Made {
    fn answer<T: Send + 'static>(&self, value: T) -> BoxFuture<'_, Result<T, Gone>> {
        let has_ended = self.has_ended.load(Ordering::Relaxed);
        async move { if has_ended { Err(Gone) } else { Ok(value) } }.boxed()
    }
}

impl Source for Made {
    fn look(&self) -> BoxFuture<'_, Result<(Time, ClusterInfo), Gone>> {
        let info = ClusterInfo {
            clients: 3,
            ..ClusterInfo::default()
        };
        self.answer((Time::from_micros(5_000_000), info))
    }

    fn explain(&self, task: TaskId) -> BoxFuture<'_, Result<Explanation, Gone>> {
        self.answer(Explanation {
            summary: format!("task {task} waits"),
            details: vec!["for <b>nothing</b>".to_owned()],
        })
    }

    fn explain_layer(
        &self,
        graph: GraphId,
        layer: LayerIndex,
    ) -> BoxFuture<'_, Result<Explanation, Gone>> {
        self.answer(Explanation {
            summary: format!("layer {layer} of {graph}"),
            details: Vec::new(),
        })
    }
}

fn options() -> Options {
    Options {
        host: "127.0.0.1".to_owned(),
        port: 0,
        any_port: false,
        token: None,
        scheduler: "127.0.0.1:8790".to_owned(),
    }
}

async fn start(options: &Options) -> (Dashboard, Arc<Made>) {
    let made = Arc::new(Made::default());
    let dashboard = Dashboard::start(options, Arc::clone(&made) as _).await;
    (dashboard.expect("starts"), made)
}

/// The answer to a request, head and body.
async fn ask(address: SocketAddr, path: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let host = if headers.contains("Host:") {
        String::new()
    } else {
        format!("Host: {address}\r\n")
    };
    let request = format!("GET {path} HTTP/1.1\r\n{host}{headers}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .expect("an answer")
        .unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn watch(address: SocketAddr) -> Socket {
    let opened = connect_async(format!("ws://{address}/ws")).await;
    opened.expect("a WebSocket").0
}

async fn next(socket: &mut Socket) -> Message {
    let said = timeout(PATIENCE, socket.next()).await.expect("in time");
    let text = said.expect("more").unwrap().into_text().unwrap();
    serde_json::from_str(&text).expect("a message")
}

async fn next_frame(socket: &mut Socket) -> Frame {
    match next(socket).await {
        Message::Frame(frame) => *frame,
        Message::About(about) => panic!("{about:?} comes first"),
    }
}

fn joined(number: u32) -> Batch {
    Batch {
        now: Time::from_micros(6_000_000),
        events: vec![EventRecord {
            at: Time::default(),
            event: Event::WorkerJoined {
                worker: WorkerId(number),
            },
        }],
        ..Batch::default()
    }
}

#[tokio::test]
async fn a_viewer_is_told_whom_it_sees_then_everything_then_what_is_new_and_nothing_twice() {
    let (dashboard, _made) = start(&options()).await;
    let feed = dashboard.feed();
    feed.push(joined(1));
    let mut early = watch(dashboard.address()).await;
    let Message::About(about) = next(&mut early).await else {
        panic!("not whom");
    };
    assert_eq!(about.scheduler, "127.0.0.1:8790");
    let mut seen = Vec::new();
    let whole = next_frame(&mut early).await;
    assert!(whole.whole && whole.now_us >= 5_000_000);
    seen.extend(whole.notes);
    assert!(feed.is_watched());
    feed.push(joined(2));
    let mut late = watch(dashboard.address()).await;
    while seen.len() < 2 {
        let frame = next_frame(&mut early).await;
        assert!(!frame.whole);
        seen.extend(frame.notes);
    }
    let texts: Vec<_> = seen.iter().map(|it| it.text.as_str()).collect();
    assert_eq!(texts, ["w1 has joined", "w2 has joined"]);
    next(&mut late).await;
    let mut notes = next_frame(&mut late).await.notes;
    while notes.len() < 2 {
        notes.extend(next_frame(&mut late).await.notes);
    }
    assert_eq!(notes, seen);
    drop((early, late));
    while feed.is_watched() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn the_page_and_its_files_are_there_and_safe() {
    let (dashboard, _made) = start(&options()).await;
    for (path, kind, part) in [
        ("/", "text/html", "<!doctype html>"),
        ("/style.css", "text/css", "{"),
        ("/app.js", "text/javascript", "use strict"),
    ] {
        let answer = ask(dashboard.address(), path, "").await;
        assert_eq!(status(&answer), "200", "{path}");
        let head = answer.to_lowercase();
        assert!(head.contains(&format!("content-type: {kind}")), "{path}");
        assert!(head.contains("content-security-policy: default-src 'self'"));
        assert!(answer.contains(part), "{path}");
    }
    for path in ["/nothing", "/../Cargo.toml", "/api/v1/nothing"] {
        let answer = ask(dashboard.address(), path, "").await;
        assert_eq!(status(&answer), "404", "{path}");
    }
}

#[tokio::test]
async fn questions_are_answered_and_wrong_ones_told_how_to_ask() {
    let (dashboard, made) = start(&options()).await;
    let address = dashboard.address();
    let answer = ask(address, "/api/v1/explain?task=1.0.17", "").await;
    assert!(
        answer.contains(r#"{"summary":"task 1.0.17 waits","details":["for <b>nothing</b>"]}"#),
        "{answer}"
    );
    assert!(
        answer
            .to_lowercase()
            .contains("content-type: application/json")
    );
    let answer = ask(address, "/api/v1/explain?graph=1.0&layer=2", "").await;
    assert!(answer.contains("layer 2 of 1.0"), "{answer}");
    for wrong in [
        "",
        "?task=1",
        "?task=x.y.z",
        "?graph=1.0",
        "?graph=x&layer=1",
        "?graph=1.0&layer=-1",
        "?task=1.0.1&graph=1.0",
    ] {
        let answer = ask(address, &format!("/api/v1/explain{wrong}"), "").await;
        assert_eq!(status(&answer), "400", "{wrong}: {answer}");
    }
    let answer = ask(address, "/api/v1/cluster", "").await;
    assert!(answer.contains(r#""clients":3"#), "{answer}");
    let answer = ask(address, "/metrics", "").await;
    assert!(answer.contains("\ntransload_clients 3\n"), "{answer}");
    let answer = ask(address, "/health", "").await;
    assert!(answer.ends_with("ok\n"));
    for (path, part) in [
        ("/api/v1/record", r#"{"type":"about""#),
        ("/api/v1/trace", "traceEvents"),
    ] {
        let answer = ask(address, path, "").await;
        assert!(
            answer.contains(part) && answer.contains("attachment"),
            "{answer}"
        );
    }
    made.has_ended.store(true, Ordering::Relaxed);
    for path in ["/metrics", "/api/v1/cluster", "/api/v1/explain?task=1.0.1"] {
        let answer = ask(address, path, "").await;
        assert_eq!(status(&answer), "503", "{path}");
        assert!(answer.contains("the scheduler has ended"));
    }
}

#[tokio::test]
async fn only_who_may_look_does() {
    let (dashboard, _made) = start(&options()).await;
    let address = dashboard.address();
    let answer = ask(address, "/", "Host: example.org\r\n").await;
    assert_eq!(status(&answer), "403");
    let answer = ask(address, "/health", "Host: example.org\r\n").await;
    assert_eq!(status(&answer), "200");
    let mut request = format!("ws://{address}/ws").into_client_request().unwrap();
    let elsewhere = "http://example.org".parse().unwrap();
    request.headers_mut().insert("Origin", elsewhere);
    assert!(connect_async(request).await.is_err());

    let token = Some("a-good-token".to_owned());
    let (guarded, _made) = start(&Options { token, ..options() }).await;
    let address = guarded.address();
    for (path, headers, expected) in [
        ("/", "", "401"),
        ("/metrics", "", "401"),
        ("/ws", "", "401"),
        ("/metrics", "Authorization: Bearer a-good-token\r\n", "200"),
        ("/metrics", "Authorization: Bearer a-bad-token\r\n", "401"),
        ("/", "Cookie: transload_token=a-good-token\r\n", "200"),
        ("/health", "", "200"),
    ] {
        let answer = ask(address, path, headers).await;
        assert_eq!(status(&answer), expected, "{path} {headers}");
        assert!(!answer.contains("a-good-token"), "it is not told");
    }
    let answer = ask(address, "/?token=a-good-token", "")
        .await
        .to_lowercase();
    assert!(
        answer.contains(
            "set-cookie: transload_token=a-good-token; path=/; httponly; samesite=strict"
        )
    );
}

#[tokio::test]
async fn where_others_can_reach_it_a_token_is_needed_and_bad_ones_are_refused() {
    let made = Arc::new(Made::default());
    let mut open = options();
    open.host = "0.0.0.0".to_owned();
    let refused = Dashboard::start(&open, Arc::clone(&made) as _).await;
    let error = refused.expect_err("everybody could look");
    assert!(matches!(error, DashboardError::Open { .. }), "{error}");
    assert!(error.to_string().contains("wants a token"));
    open.token = Some("has spaces in it".to_owned());
    let refused = Dashboard::start(&open, Arc::clone(&made) as _).await;
    assert!(matches!(refused, Err(DashboardError::Token)));
    open.token = Some("a-good-token".to_owned());
    Dashboard::start(&open, made).await.expect("starts");
}

#[tokio::test]
async fn where_its_port_is_taken_it_takes_another_if_any_will_do() {
    let (first, made) = start(&options()).await;
    let mut second = options();
    second.port = first.address().port();
    let refused = Dashboard::start(&second, Arc::clone(&made) as _).await;
    assert!(matches!(refused, Err(DashboardError::Listen { .. })));
    second.any_port = true;
    let other = Dashboard::start(&second, made).await.expect("starts");
    assert_ne!(other.address(), first.address());
}

#[tokio::test]
async fn when_it_ends_its_port_is_free_and_its_viewers_hear_of_it() {
    let (dashboard, made) = start(&options()).await;
    let address = dashboard.address();
    let mut viewer = watch(address).await;
    next(&mut viewer).await;
    drop(dashboard);
    let ended = async { while viewer.next().await.is_some_and(|it| it.is_ok()) {} };
    timeout(PATIENCE, ended).await.expect("it ends");
    let mut again = options();
    again.port = address.port();
    Dashboard::start(&again, made).await.expect("it is free");
}
