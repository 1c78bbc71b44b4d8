//! HTTP: the page, what it asks for, and what other programs ask for. Decides nothing of what is shown.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use transload_protocol::{Explanation, LayerIndex, TaskId};

use crate::guard::{Guard, guard};
use crate::keeper::{self, Keeper};
use crate::view::{About, Message};
use crate::{Gone, metrics, page, socket, trace};

/// What every request may need.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) scheduler: Arc<str>,
    /// When it began to be served.
    pub(crate) started_unix_ms: u64,
    /// Cancelled when all of it ends.
    pub(crate) stop: CancellationToken,
}

impl Site {
    /// Whose dashboard it is.
    pub(crate) fn about(&self) -> About {
        About {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: transload_protocol::PROTOCOL_VERSION,
            scheduler: self.scheduler.to_string(),
            now_us: self.keeper.now_us(),
            unix_ms: unix_ms(),
            started_unix_ms: self.started_unix_ms,
        }
    }

    /// The two messages of which everything remembered can be shown again.
    pub(crate) fn recording(&self) -> [Message; 2] {
        let whole = Box::new(self.keeper.whole());
        [Message::About(self.about()), Message::Frame(whole)]
    }
}

/// Milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// All there is.
pub(crate) fn routes(site: Site, allowed: Guard) -> Router {
    let text = |kind: &'static str, body: &'static str| {
        get(move || async move { ([(CONTENT_TYPE, kind)], body) })
    };
    Router::new()
        .route("/", text("text/html; charset=utf-8", page::INDEX))
        .route("/style.css", text("text/css; charset=utf-8", page::STYLE))
        .route(
            "/app.js",
            text("text/javascript; charset=utf-8", page::SCRIPT),
        )
        .route("/ws", get(socket::open))
        .route("/metrics", get(metrics))
        .route("/api/v1/cluster", get(cluster))
        .route("/api/v1/explain", get(explain))
        .route("/api/v1/record", get(record))
        .route("/api/v1/trace", get(chrome_trace))
        .layer(from_fn_with_state(allowed, guard))
        // Whether it lives may be asked by everybody: nothing of the cluster is told.
        .route("/health", get(async || "ok\n"))
        .with_state(site)
}

impl IntoResponse for Gone {
    fn into_response(self) -> Response {
        (StatusCode::SERVICE_UNAVAILABLE, format!("{self}\n")).into_response()
    }
}

async fn cluster(State(site): State<Site>) -> Result<Response, Gone> {
    site.keeper.look().await?;
    Ok(Json(site.keeper.whole()).into_response())
}

async fn metrics(State(site): State<Site>) -> Result<Response, Gone> {
    let (_, info) = site.keeper.source.look().await?;
    let feed = &site.keeper.feed;
    let text = metrics::text(&info, feed.viewers(), feed.dropped_events());
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    Ok(([(CONTENT_TYPE, kind)], text).into_response())
}

/// What is asked about: a task, or a layer of a graph.
#[derive(Debug, Deserialize)]
struct Question {
    task: Option<String>,
    graph: Option<String>,
    layer: Option<u32>,
}

/// An answer as JSON.
#[derive(Debug, Serialize)]
struct Explained {
    summary: String,
    details: Vec<String>,
}

async fn explain(
    State(site): State<Site>,
    Query(question): Query<Question>,
) -> Result<Json<Explained>, Response> {
    let bad = |reason: String| (StatusCode::BAD_REQUEST, reason + "\n").into_response();
    let gone = |gone: Gone| gone.into_response();
    let source = &site.keeper.source;
    let explained = match (question.task, question.graph, question.layer) {
        (Some(task), None, None) => {
            let task: TaskId = task.parse().map_err(|error| bad(format!("{error}")))?;
            source.explain(task).await.map_err(gone)?
        }
        (None, Some(graph), Some(layer)) => {
            let first = format!("{graph}.0").parse::<TaskId>();
            let wrong = |_| {
                bad(format!(
                    "`{graph}` is not a graph id; write CLIENT.GRAPH, as in 1.0"
                ))
            };
            let graph = first.map_err(wrong)?.graph;
            let layer = LayerIndex(layer);
            source.explain_layer(graph, layer).await.map_err(gone)?
        }
        _ => {
            let how = "ask about ?task=CLIENT.GRAPH.TASK or ?graph=CLIENT.GRAPH&layer=NUMBER";
            return Err(bad(how.to_owned()));
        }
    };
    let Explanation { summary, details } = explained;
    Ok(Json(Explained { summary, details }))
}

async fn record(State(site): State<Site>) -> Response {
    let mut lines = String::new();
    for message in site.recording() {
        lines.push_str(&keeper::text(&message));
        lines.push('\n');
    }
    attachment("transload-recording.jsonl", "application/jsonl", lines)
}

async fn chrome_trace(State(site): State<Site>) -> Response {
    let text = trace::chrome(&site.recording());
    attachment("transload-trace.json", "application/json", text)
}

fn attachment(name: &str, kind: &'static str, body: String) -> Response {
    let disposition = format!("attachment; filename=\"{name}\"");
    let headers = [
        (CONTENT_TYPE, kind.to_owned()),
        (CONTENT_DISPOSITION, disposition),
    ];
    (headers, body).into_response()
}
