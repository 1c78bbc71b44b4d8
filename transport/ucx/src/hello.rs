//! The first words between two processes, over TCP: whether they can speak UCX with each other, and how. Called by both sides; knows no UCX
//! beyond its version, its settings and its addresses.
//!
//! Processes with different versions or settings of UCX fail, hang or abort when they speak to each other, so they must not try. The
//! connection stays open afterwards and carries nothing: it ends when the peer does, which shared memory does not tell, and tells each end when
//! the other has stopped to use its memory.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use transload_protocol::{Blob, PROTOCOL_VERSION, VersionMismatch, check_version, codec};

use crate::engine::{Command, Engine};

const MAGIC: [u8; 8] = *b"TRANSLUX";
const PREFIX_BYTES: usize = 16;
/// Longest hello: addresses grow with the number of network devices, and are some hundred bytes each.
const MAX_HELLO_BYTES: usize = 1 << 20;
/// Silence of the peer's machine after which the system asks whether it is there, and how often it asks.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(2));

/// What each side says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// Major, minor and patch.
    pub(crate) version: (u32, u32, u32),
    /// UCX's settings that both sides must have alike, each as `KEY=VALUE`, sorted.
    pub(crate) settings: Vec<String>,
    /// Whether its UCX moves memory of devices.
    pub(crate) moves_device_memory: bool,
    /// Where UCX reaches it.
    pub(crate) address: Blob,
    /// Its number of this connection.
    pub(crate) key: u64,
    /// Requests that a client may have in flight; 0 from a client.
    pub(crate) max_requests: u32,
}

/// What a server says to a hello.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// Go on.
    Welcome(Hello),
    /// Why not.
    Refused(String),
}

/// Why what came was no hello.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HelloError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Version(#[from] VersionMismatch),
    #[error("it does not greet as a transload UCX port does: {0}")]
    NotTransload(String),
}

impl Hello {
    /// Why two processes cannot speak UCX with each other, in words for a person.
    pub(crate) fn mismatch(&self, other: &Self) -> Option<String> {
        let written = |(major, minor, patch)| format!("{major}.{minor}.{patch}");
        if self.version != other.version {
            return Some(format!(
                "UCX {} here and {} there; both need the very same version",
                written(self.version),
                written(other.version)
            ));
        }
        let only = |here: &[String], there: &[String]| {
            let missing = here.iter().find(|setting| !there.contains(setting));
            missing.map(|setting| format!("UCX_{setting}"))
        };
        let here = only(&self.settings, &other.settings);
        let there = only(&other.settings, &self.settings);
        if here.is_none() && there.is_none() {
            return None;
        }
        let or_none = |setting: Option<String>| setting.unwrap_or_else(|| "nothing".to_owned());
        Some(format!(
            "other settings of UCX: {} here against {} there; set the same in both environments",
            or_none(here),
            or_none(there)
        ))
    }
}

/// No delay, and an end when the peer's machine is gone.
pub(crate) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE.0)
        .with_interval(KEEPALIVE.1);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// Writes one hello or answer.
pub(crate) async fn write<T: Serialize>(stream: &mut TcpStream, message: &T) -> io::Result<()> {
    let body = codec::encode(message).map_err(io::Error::other)?;
    let mut bytes = Vec::with_capacity(PREFIX_BYTES + body.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&PROTOCOL_VERSION.to_le_bytes());
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&body);
    stream.write_all(&bytes).await
}

/// Reads one.
pub(crate) async fn read<T: serde::de::DeserializeOwned>(
    stream: &mut TcpStream,
) -> Result<T, HelloError> {
    let mut prefix = [0; PREFIX_BYTES];
    stream.read_exact(&mut prefix).await?;
    if prefix[..8] != MAGIC {
        return Err(HelloError::NotTransload("other first bytes".to_owned()));
    }
    let number = |at: usize| u32::from_le_bytes(std::array::from_fn(|index| prefix[at + index]));
    check_version(number(8))?;
    let bytes = number(12) as usize;
    if bytes > MAX_HELLO_BYTES {
        return Err(HelloError::NotTransload(format!("a hello of {bytes} B")));
    }
    let mut body = vec![0; bytes];
    stream.read_exact(&mut body).await?;
    codec::decode(&body).map_err(|error| HelloError::NotTransload(error.to_string()))
}

/// Closes a connection over UCX when the peer closes this one, and this one when that has ended here. Then waits until the peer, too, has
/// closed its side: it does so last of all, and so uses no memory of ours any more. Says how the first of it looked.
pub(crate) async fn attend(
    mut stream: TcpStream,
    engine: Arc<Engine>,
    link: u64,
    mut ended: oneshot::Receiver<()>,
) -> String {
    let reason = tokio::select! {
        reason = until_closed(&mut stream) => {
            let close = Command::Close { link, reason: reason.clone() };
            engine.commands().send(close);
            // Told or dropped: it has ended.
            let _ = (&mut ended).await;
            reason
        }
        _ = &mut ended => "it was closed at this end".to_owned(),
    };
    // Where the peer is gone there is nobody to tell.
    let _ = stream.shutdown().await;
    while matches!(stream.read(&mut [0; 64]).await, Ok(bytes) if bytes > 0) {}
    engine.commands().send(Command::PeerEnded { link });
    reason
}

/// Waits until the peer closes its side, and says how that looked.
async fn until_closed(stream: &mut TcpStream) -> String {
    let mut byte = [0];
    match stream.read(&mut byte).await {
        Ok(0) => "the peer closed it".to_owned(),
        Ok(_) => "the peer sent bytes where none belong".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(patch: u32, settings: &[&str]) -> Hello {
        Hello {
            version: (1, 13, patch),
            settings: settings.iter().map(|it| (*it).to_owned()).collect(),
            moves_device_memory: false,
            address: Blob::default(),
            key: 1,
            max_requests: 0,
        }
    }

    #[test]
    fn only_the_same_version_and_settings_speak_with_each_other() {
        let ours = hello(1, &["TLS=posix", "X=1"]);
        assert_eq!(ours.mismatch(&ours), None);
        let version = ours.mismatch(&hello(0, &["TLS=posix", "X=1"]));
        let version = version.expect("another version");
        assert!(
            version.contains("1.13.1 here and 1.13.0 there"),
            "{version}"
        );
        let settings = ours.mismatch(&hello(1, &["TLS=tcp", "X=1"]));
        let settings = settings.expect("another setting");
        assert!(
            settings.contains("UCX_TLS=posix here against UCX_TLS=tcp there"),
            "{settings}"
        );
        let fewer = ours.mismatch(&hello(1, &["TLS=posix"])).expect("one less");
        assert!(
            fewer.contains("UCX_X=1 here against nothing there"),
            "{fewer}"
        );
    }
}
