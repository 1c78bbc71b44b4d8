//! Sends what a dashboard says to a collector of OpenTelemetry, as it comes. What a span is, is `transload_dashboard`'s to know.

use std::env;
use std::io::{self, Write};
use std::pin::pin;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{self, BoxFuture};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use indicatif::ProgressBar;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use transload_dashboard::OtlpSpans;
use transload_dashboard::view::Message;

use super::End;
use crate::args::SendArgs;
use crate::failure::{Exit, Failure};
use crate::progress;
use crate::show;
use crate::signals::Signals;
use crate::viewer::Viewer;

/// Where collectors listen, and below which path they take traces.
const USUAL_ENDPOINT: &str = "http://localhost:4318";
const TRACES: &str = "/v1/traces";
/// What is new is sent this often.
const PAUSE: Duration = Duration::from_secs(1);
/// A collector that has not answered after this does not.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// One that cannot be reached, or asks to be left alone, is tried again for so long, after pauses that grow from this.
const PATIENCE: Duration = Duration::from_secs(30);
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// After a person has asked for the end, for so long.
const GRACE: Duration = Duration::from_secs(3);
/// A collector that takes spans so much slower than they come never catches up.
const MOST_WAITING: usize = 500_000;
/// Of an answer, more than this is not read.
const MOST_ANSWER_BYTES: usize = 64 << 10;

/// A collector.
struct Collector {
    /// As it was written, for people.
    name: String,
    host: String,
    port: u16,
    path: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// Why a collector did not take something.
enum Refusal {
    /// It may take it later; where it said when, after so long.
    Later(String, Option<Duration>),
    /// It never will.
    Never(String),
}

/// What is sent, and what has been.
struct Sending<'a> {
    collector: &'a Collector,
    signals: &'a Signals,
    bar: &'a ProgressBar,
    spans: OtlpSpans,
    sent: u64,
    refused: u64,
    /// What the collector said of these last.
    refusal: String,
    requests: u64,
    since: Instant,
}

/// What a collector said to a request: how many spans it did not take, and why.
type Answer = (u64, String);

/// A request on its way: how many spans it has, and what will come of it.
type Flight<'a> = (u64, BoxFuture<'a, Result<Answer, Failure>>);

/// Runs `transload trace send`.
pub(super) async fn run(args: &SendArgs, signals: &Signals) -> Result<(), Failure> {
    let collector = Collector::of(args.to.as_deref(), |name| env::var(name).ok())?;
    tokio::select! {
        found = collector.find() => found?,
        _ = signals.stop() => return Err(Failure::interrupted()),
    }
    let mut viewer = tokio::select! {
        opened = super::open(&args.watch) => opened?,
        _ = signals.stop() => return Err(Failure::interrupted()),
    };
    let bar = progress::waiting_line(progress::is_shown(args.watch.quiet));
    let mut sending = Sending {
        collector: &collector,
        signals,
        bar: &bar,
        spans: OtlpSpans::default(),
        sent: 0,
        refused: 0,
        refusal: String::new(),
        requests: 0,
        since: Instant::now(),
    };
    let ended = sending.all(&mut viewer, args.watch.limit).await;
    bar.finish_and_clear();
    let end = ended?;
    if !args.watch.quiet {
        // Nobody is left to tell when standard error is gone.
        let _ = writeln!(
            io::stderr(),
            "{}sent {} to {}",
            end.words(),
            sending.words(),
            collector.name
        );
    }
    if sending.refused > 0 {
        let refused = show::count(sending.refused, "span");
        return Err(Failure::failed(format!(
            "{} did not take {refused}: {}",
            collector.name, sending.refusal
        )));
    }
    Ok(())
}

impl<'a> Sending<'a> {
    /// Until somebody asks, the time is over or the cluster has ended, and all that was seen until then is sent.
    async fn all(&mut self, viewer: &mut Viewer, limit: Option<Duration>) -> Result<End, Failure> {
        let mut times = interval(PAUSE);
        times.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut over = pin!(sleep(limit.unwrap_or(Duration::MAX)));
        // One request at a time. The dashboard is listened to meanwhile: it does not wait for those who do not.
        let mut flight: Option<Flight<'a>> = None;
        let mut end = None;
        let mut is_due = true;
        loop {
            if flight.is_none() && (is_due || end.is_some()) {
                flight = self.next_request();
                // What is left of the same time follows at once.
                is_due = !self.spans.is_empty();
            }
            if let (Some(end), None) = (end, &flight) {
                return Ok(end);
            }
            if self.spans.len() > MOST_WAITING {
                let waiting = show::count(self.spans.len() as u64, "span");
                let name = &self.collector.name;
                let message = format!("{name} is too slow: {waiting} wait for it");
                return Err(Failure::failed(message));
            }
            let ended = tokio::select! {
                (spans, answer) = landed(&mut flight) => {
                    flight = None;
                    self.on_answer(spans, answer?);
                    None
                }
                said = viewer.next(), if end.is_none() => match said? {
                    Some(line) => {
                        self.hear(&line)?;
                        None
                    }
                    None => Some(End::ClusterEnded),
                },
                _ = times.tick() => {
                    is_due = true;
                    None
                }
                () = &mut over, if end.is_none() => Some(End::Time),
                _ = self.signals.stop(), if end.is_none() => Some(End::Asked),
            };
            if ended.is_some() {
                end = ended;
                self.spans.end();
            }
        }
    }

    fn hear(&mut self, line: &str) -> Result<(), Failure> {
        let message: Message = serde_json::from_str(line).map_err(|error| {
            Failure::failed("the dashboard says something that is not known here")
                .because(&error)
                .hint("use the version of transload that the scheduler has")
        })?;
        self.spans.take(&message);
        Ok(())
    }

    /// The next request, and how many spans it has.
    fn next_request(&mut self) -> Option<Flight<'a>> {
        let before = self.spans.len();
        let request = self.spans.request()?;
        let spans = (before - self.spans.len()) as u64;
        let (collector, signals, bar) = (self.collector, self.signals, self.bar);
        let sending = async move { collector.send(&request, signals, bar).await };
        Some((spans, sending.boxed()))
    }

    fn on_answer(&mut self, spans: u64, (refused, why): Answer) {
        if refused > 0 {
            self.refused += refused;
            self.refusal = why;
        }
        self.sent += spans.saturating_sub(refused);
        self.requests += 1;
        let words = self.words();
        self.bar
            .set_message(format!("sending: {words}; Ctrl-C ends it"));
    }

    fn words(&self) -> String {
        format!(
            "{} in {}, {}",
            show::count(self.sent, "span"),
            show::count(self.requests, "request"),
            show::time(self.since.elapsed()),
        )
    }
}

/// The answer to a request, if one is on its way.
async fn landed(flight: &mut Option<Flight<'_>>) -> (u64, Result<Answer, Failure>) {
    match flight {
        Some((spans, sending)) => (*spans, sending.await),
        None => future::pending().await,
    }
}

impl Collector {
    /// The one that was named, or that the variables of OpenTelemetry name.
    fn of(to: Option<&str>, variable: impl Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let traces = || set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").map(|url| (url, true));
        let all = || set("OTEL_EXPORTER_OTLP_ENDPOINT").map(|url| (url, false));
        let named = to.map(|url| (url.to_owned(), false)).or_else(traces);
        let (url, is_whole) = named
            .or_else(all)
            .unwrap_or_else(|| (USUAL_ENDPOINT.to_owned(), false));
        let variables = [
            "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
            "OTEL_EXPORTER_OTLP_HEADERS",
        ];
        let mut headers = variables.into_iter().filter_map(|it| Some((it, set(it)?)));
        let headers = headers.next();
        let headers = headers.map(|(name, text)| headers_of(name, &text));
        let headers = headers.transpose()?.unwrap_or_default();
        Self::at(url.trim(), is_whole, headers)
    }

    fn at(
        url: &str,
        is_whole: bool,
        headers: Vec<(HeaderName, HeaderValue)>,
    ) -> Result<Self, Failure> {
        if url.contains('@') {
            // Who it is may be secret.
            return Err(
                Failure::usage("a collector's URL may have no user and no password").hint(
                    "put them into OTEL_EXPORTER_OTLP_HEADERS, as in authorization=Basic%20...",
                ),
            );
        }
        let wrong = |why: &str| {
            Failure::usage(format!("`{url}` is no collector: {why}"))
                .hint("give an address like http://localhost:4318")
        };
        let uri: Uri = url.parse().map_err(|_| wrong("it is no URL"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(wrong("HTTPS is not spoken here")
                    .hint("let a collector on this machine pass the spans on"));
            }
            Some(_) | None => return Err(wrong("it does not begin with http://")),
        }
        let host = uri.host().ok_or_else(|| wrong("it names no host"))?;
        let base = uri.path().trim_end_matches('/');
        let path = if is_whole {
            uri.path().to_owned()
        } else if base.ends_with(TRACES) {
            base.to_owned()
        } else {
            format!("{base}{TRACES}")
        };
        let query = uri.query().map(|it| format!("?{it}")).unwrap_or_default();
        Ok(Self {
            name: url.to_owned(),
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(80),
            path: format!("{path}{query}"),
            headers,
        })
    }

    /// Whether anybody is there: whoever has mistyped its address wants to know at once.
    async fn find(&self) -> Result<(), Failure> {
        let connected = timeout(ANSWER_TIMEOUT, self.connect()).await;
        match connected {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.out_of_reach(&error.to_string())),
            Err(_) => Err(self.out_of_reach("it does not answer")),
        }
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        TcpStream::connect((host, self.port)).await
    }

    fn out_of_reach(&self, why: &str) -> Failure {
        let message = format!("cannot send spans to {}: {why}", self.name);
        Failure::new(Exit::Unreachable, message)
            .hint("collectors listen for OTLP over HTTP on port 4318, unless told otherwise")
    }

    /// Sends a request, again and again where it may help.
    async fn send(
        &self,
        request: &Value,
        signals: &Signals,
        bar: &ProgressBar,
    ) -> Result<Answer, Failure> {
        let body = Bytes::from(request.to_string());
        let since = Instant::now();
        let mut pause = FIRST_RETRY;
        loop {
            let posted = timeout(ANSWER_TIMEOUT, self.post(body.clone())).await;
            let (why, after) = match posted {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(Refusal::Never(why))) => {
                    let message = format!("the collector at {} refuses spans: {why}", self.name);
                    return Err(Failure::failed(message));
                }
                Ok(Err(Refusal::Later(why, after))) => (why, after),
                Err(_) => {
                    let seconds = ANSWER_TIMEOUT.as_secs();
                    (format!("it has not answered for {seconds} s"), None)
                }
            };
            let wait = after.unwrap_or(pause).max(FIRST_RETRY);
            let is_asked = signals.stop().now_or_never().is_some();
            let patience = if is_asked { GRACE } else { PATIENCE };
            if since.elapsed().saturating_add(wait) > patience {
                return Err(self.out_of_reach(&why));
            }
            bar.set_message(format!("waiting for {}: {why}", self.name));
            tokio::select! {
                () = sleep(wait) => {}
                // Whoever wants to go is not kept for long.
                _ = signals.stop(), if !is_asked => {}
            }
            pause *= 2;
        }
    }

    async fn post(&self, body: Bytes) -> Result<Answer, Refusal> {
        let later = |error: &dyn std::fmt::Display| Refusal::Later(error.to_string(), None);
        let stream = self.connect().await.map_err(|error| later(&error))?;
        let (mut sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|error| later(&error))?;
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(&self.path)
            .header(HOST, format!("{}:{}", self.host, self.port))
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("transload/", env!("CARGO_PKG_VERSION")));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body));
        let request = request.map_err(|error| Refusal::Never(error.to_string()))?;
        let mut connection = pin!(connection);
        let answer = async {
            let answer = sender.send_request(request).await?;
            let (head, body) = answer.into_parts();
            // What is longer than expected says nothing that is understood here.
            let body = Limited::new(body, MOST_ANSWER_BYTES).collect().await;
            let body = body.map(|it| it.to_bytes()).unwrap_or_default();
            Ok::<_, hyper::Error>((head, body))
        };
        let mut answer = pin!(answer);
        let answered = tokio::select! {
            answered = &mut answer => answered,
            // It is over when the answer is there, or never will be.
            _ = &mut connection => answer.await,
        };
        let (head, body) = answered.map_err(|error| later(&error))?;
        if head.status.is_success() {
            return Ok(rejected(&body));
        }
        let said = String::from_utf8_lossy(&body);
        let why = show::plain(&format!("{}: {said}", head.status));
        let after = head.headers.get(RETRY_AFTER);
        let after = after.and_then(|it| it.to_str().ok()?.parse().ok());
        // What OTLP says may be tried again.
        match head.status {
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => {
                Err(Refusal::Later(why, after.map(Duration::from_secs)))
            }
            _ => Err(Refusal::Never(why)),
        }
    }
}

/// How many spans a collector says it did not take, and why.
fn rejected(answer: &[u8]) -> Answer {
    let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
    let partial = &answer["partialSuccess"];
    let rejected = &partial["rejectedSpans"];
    let text = rejected.as_str().and_then(|it| it.parse().ok());
    let spans = text.or_else(|| rejected.as_u64()).unwrap_or(0);
    let why = partial["errorMessage"]
        .as_str()
        .unwrap_or("it does not say why");
    (spans, show::plain(why))
}

/// As OpenTelemetry's variables have them: `name=value,name=value`, values with `%20` for what cannot stand there.
fn headers_of(variable: &str, text: &str) -> Result<Vec<(HeaderName, HeaderValue)>, Failure> {
    let mut headers = Vec::new();
    for pair in text.split(',').filter(|pair| !pair.trim().is_empty()) {
        // The value may be secret.
        let wrong = |name: &str| {
            Failure::usage(format!(
                "{variable} has a header `{name}` that cannot be sent"
            ))
            .hint("write NAME=VALUE,NAME=VALUE")
        };
        let Some((name, value)) = pair.split_once('=') else {
            return Err(wrong("without a value"));
        };
        let name = name.trim();
        let value = percent_decoded(value.trim()).ok_or_else(|| wrong(name))?;
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong(name))?;
        let mut value = HeaderValue::from_bytes(&value).map_err(|_| wrong(name))?;
        value.set_sensitive(true);
        headers.push((header, value));
    }
    Ok(headers)
}

fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        rest = behind;
        if *first == b'%' {
            let digits = std::str::from_utf8(behind.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &behind[2..];
        } else {
            bytes.push(*first);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(to: Option<&str>, variables: &[(&str, &str)]) -> Result<(String, u16, String), String> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(it, _)| *it == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let collector = Collector::of(to, variable).map_err(|failure| failure.message)?;
        Ok((collector.host, collector.port, collector.path))
    }

    #[test]
    fn where_it_is_sent_is_what_was_said_or_what_opentelemetrys_variables_say() {
        let place = |host: &str, port, path: &str| Ok((host.to_owned(), port, path.to_owned()));
        assert_eq!(at(None, &[]), place("localhost", 4318, "/v1/traces"));
        let general = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:1/below/");
        let traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://b:2/own");
        assert_eq!(at(None, &[general]), place("a", 1, "/below/v1/traces"));
        assert_eq!(at(None, &[general, traces]), place("b", 2, "/own"));
        let said = at(Some("http://[::1]:4318/v1/traces"), &[general, traces]);
        assert_eq!(said, place("[::1]", 4318, "/v1/traces"));
        assert_eq!(at(Some("http://c"), &[]), place("c", 80, "/v1/traces"));
        let bare = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://b:2");
        assert_eq!(at(None, &[bare]), place("b", 2, "/"));
        let said = at(Some("http://me:secret@c"), &[]).expect_err("no collector");
        assert!(!said.contains("secret"), "{said}");
        for (wrong, why) in [
            ("https://c:4318", "HTTPS is not spoken here"),
            ("c:4318", "it does not begin with http://"),
            ("grpc://c:4317", "it does not begin with http://"),
            ("http://", "it is no URL"),
            ("a b", "it is no URL"),
        ] {
            let said = at(Some(wrong), &[]).expect_err("no collector");
            assert_eq!(said, format!("`{wrong}` is no collector: {why}"));
        }
    }

    #[test]
    fn headers_are_read_as_opentelemetry_writes_them() {
        let read = |text| {
            let headers = headers_of("OTEL_EXPORTER_OTLP_HEADERS", text)
                .map_err(|failure| failure.message)?;
            let pairs = headers.into_iter().map(|(name, value)| {
                let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                (name.to_string(), value)
            });
            Ok::<Vec<_>, String>(pairs.collect())
        };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(read(""), Ok(Vec::new()));
        assert_eq!(
            read("Api-Key=a%20b, x = y=z ,"),
            Ok(vec![pair("api-key", "a b"), pair("x", "y=z")])
        );
        for wrong in [
            "secret",
            "a b=secret",
            "a=secret%",
            "a=secret%zz",
            "a=secret%0a",
        ] {
            let said = read(wrong).expect_err("cannot be sent");
            assert!(!said.contains("secret"), "{said}");
        }
    }

    #[test]
    fn what_a_collector_did_not_take_is_counted() {
        let why = "it does not say why".to_owned();
        let some = br#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"a\nb"}}"#;
        assert_eq!(rejected(some), (3, "a b".to_owned()));
        assert_eq!(
            rejected(br#"{"partialSuccess":{"rejectedSpans":2}}"#),
            (2, why.clone())
        );
        assert_eq!(rejected(b"{}"), (0, why.clone()));
        assert_eq!(rejected(b"<html>"), (0, why));
    }
}
