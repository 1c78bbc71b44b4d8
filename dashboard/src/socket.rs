//! A viewer's WebSocket: everything first, then what is new. Knows nothing of what it sends.

use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use futures::{SinkExt, StreamExt};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;

use crate::keeper;
use crate::server::Site;
use crate::view;

/// A viewer that takes nothing for so long is gone.
const PATIENCE: Duration = Duration::from_secs(20);
/// Viewers say nothing; what is longer than this is not one of ours.
const MOST_HEARD_BYTES: usize = 4 << 10;

pub(crate) async fn open(State(site): State<Site>, upgrade: WebSocketUpgrade) -> Response {
    let upgrade = upgrade.max_message_size(MOST_HEARD_BYTES);
    upgrade.on_upgrade(async move |socket| {
        let stop = site.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = serve(site, socket) => {}
        }
    })
}

async fn serve(site: Site, socket: WebSocket) {
    let (mut to, mut from) = socket.split();
    let mut send = async |text| {
        let sent = timeout(PATIENCE, to.send(Message::Text(text))).await;
        matches!(sent, Ok(Ok(())))
    };
    let about = view::Message::About(site.about());
    if !send(keeper::text(&about)).await {
        return;
    }
    // Also where nobody has looked for a while.
    if site.keeper.look().await.is_err() {
        return;
    }
    loop {
        let viewer = site.keeper.view();
        let whole = view::Message::Frame(viewer.whole);
        let mut news = viewer.news;
        let watch = viewer.watch;
        if !send(keeper::text(&whole)).await {
            return;
        }
        loop {
            let heard = tokio::select! {
                news = news.recv() => news,
                said = from.next() => match said {
                    // Browsers close by a message; pings are answered below us.
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                    Some(Ok(_)) => continue,
                },
            };
            match heard {
                Ok(text) => {
                    if !send(text).await {
                        return;
                    }
                }
                // Too slow for so much: everything anew.
                Err(RecvError::Lagged(_)) => break,
                Err(RecvError::Closed) => return,
            }
        }
        drop(watch);
    }
}
