//! Looks at a cluster through its dashboard, as a browser does. Called by what records; knows nothing of what is shown.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::header::AUTHORIZATION;
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};
use transload_runtime::{Client, Config};

use crate::cluster::client_failure;
use crate::failure::{Exit, Failure};

/// How long a dashboard may take to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// It says something ten times a second: one that is silent for so long is gone.
const SILENCE: Duration = Duration::from_secs(30);
/// All that a dashboard remembers is some 30 MB, where texts are not long.
const MOST_MESSAGE_BYTES: usize = 256 << 20;

/// A connection to a dashboard.
pub(crate) struct Viewer {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// When it said something last.
    heard: Instant,
}

impl Viewer {
    /// Looks at the dashboard of the client's cluster.
    ///
    /// # Errors
    /// There is none, it cannot be reached from here, or it wants another token.
    pub(crate) async fn open(client: &Client, token: Option<&str>) -> Result<Self, Failure> {
        let info = client.info().await.map_err(|it| client_failure(&it))?;
        let address = info.dashboard;
        if address.is_empty() {
            return Err(Failure::failed("the cluster has no dashboard to look at")
                .hint("start its scheduler without `--dashboard off`; its log says why where that is not the reason"));
        }
        let request = format!("ws://{address}/ws").into_client_request();
        let mut request = request.map_err(|error| refused(&address, &error))?;
        if let Some(token) = token {
            let shown = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| Failure::usage("the token has characters that cannot be sent"))?;
            request.headers_mut().insert(AUTHORIZATION, shown);
        }
        let config = WebSocketConfig::default()
            .max_message_size(Some(MOST_MESSAGE_BYTES))
            .max_frame_size(Some(MOST_MESSAGE_BYTES));
        let connecting = connect_async_with_config(request, Some(config), true);
        match timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok((socket, _))) => Ok(Self {
                socket,
                heard: Instant::now(),
            }),
            Ok(Err(error)) => Err(refused(&address, &error)),
            Err(_) => Err(unreachable(&address, "it does not answer")),
        }
    }

    /// What it says next; `None` when the cluster has ended. May be dropped while it waits: nothing is lost, and how long the
    /// dashboard has been silent is not forgotten.
    ///
    /// # Errors
    /// It says nothing any more, or something that no dashboard says.
    pub(crate) async fn next(&mut self) -> Result<Option<String>, Failure> {
        loop {
            let Ok(said) = timeout_at(self.heard + SILENCE, self.socket.next()).await else {
                let seconds = SILENCE.as_secs();
                let message = format!("the dashboard has said nothing for {seconds} s");
                return Err(Failure::new(Exit::Unreachable, message));
            };
            self.heard = Instant::now();
            match said {
                Some(Ok(Message::Text(text))) => return Ok(Some(text.to_string())),
                // Pings are answered below us.
                Some(Ok(
                    Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_),
                )) => {}
                Some(Err(Error::Capacity(error))) => {
                    return Err(Failure::failed(
                        "the dashboard has sent a message that is too long",
                    )
                    .because(&error));
                }
                // However a scheduler ends, its connections end with it.
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(None),
            }
        }
    }
}

/// What a dashboard wants to be shown, if anything: of the file that was named, or of the one that the configuration names.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn token(file: Option<&Path>, config: &Config) -> Result<Option<String>, Failure> {
    let configured = config.scheduler.dashboard_token_file.as_ref();
    let Some(path) = file.or(configured.map(PathBuf::as_path)) else {
        return Ok(None);
    };
    let text = fs::read_to_string(path).map_err(|error| {
        Failure::failed(format!(
            "cannot read the dashboard's token from {}: {error}",
            path.display()
        ))
    })?;
    Ok(Some(text.trim_end().to_owned()))
}

fn refused(address: &str, error: &Error) -> Failure {
    match error {
        Error::Http(answer) if answer.status() == StatusCode::UNAUTHORIZED => {
            Failure::failed(format!("the dashboard at {address} wants its token"))
                .hint("name the file that the scheduler was given as --dashboard-token-file")
        }
        Error::Http(answer) => {
            let said = answer.body().as_deref().unwrap_or_default();
            let said = String::from_utf8_lossy(said);
            Failure::failed(format!(
                "the dashboard at {address} answers {}: {}",
                answer.status(),
                said.trim()
            ))
        }
        error => unreachable(address, error),
    }
}

fn unreachable(address: &str, why: impl std::fmt::Display) -> Failure {
    let message = format!("cannot look at the dashboard at {address}: {why}");
    Failure::new(Exit::Unreachable, message).hint(
        "a dashboard serves its own machine alone unless its scheduler is told otherwise: go there, or start it with --dashboard HOST:PORT \
         and --dashboard-token-file FILE",
    )
}
