//! Opening a control connection: dialling with patience, and the version handshake on both sides.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use transload_protocol::{
    Hello, HelloError, PROTOCOL_VERSION, Role, VersionMismatch, Welcome, codec, read_hello,
};

use super::{ControlError, FrameReader, FrameWriter};

/// Largest frame before the handshake is done; a stranger cannot make us hold more.
pub const HANDSHAKE_FRAME_BYTES: usize = 64 << 10;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Silence of a peer's machine, not of the peer, after which the connection ends.
const DEAD_AFTER: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long a refused peer may take to read why.
const REFUSAL_LINGER: Duration = Duration::from_secs(1);

/// A TCP connection to a scheduler, before the handshake.
#[derive(Debug)]
pub struct Dialed {
    /// The connection, with small messages sent at once (no Nagle delay).
    pub stream: TcpStream,
    /// The scheduler's address as given.
    pub peer: Arc<str>,
}

/// An accepted control connection.
#[derive(Debug)]
pub struct Connected {
    /// The scheduler's answer: never [`Welcome::Refused`].
    pub welcome: Welcome,
    /// Messages from the scheduler.
    pub reader: FrameReader,
    /// Messages to the scheduler.
    pub writer: FrameWriter,
}

/// The `HOST:PORT` in `text`, which may start with `tcp://`.
///
/// # Errors
/// [`ControlError::BadAddress`].
pub fn scheduler_address(text: &str) -> Result<&str, ControlError> {
    let trimmed = text.trim();
    let address = trimmed.strip_prefix("tcp://").unwrap_or(trimmed);
    match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(address),
        _ => Err(ControlError::BadAddress {
            text: text.to_owned(),
        }),
    }
}

/// Connects to `address` (`HOST:PORT`), again and again with growing pauses until `patience` is over: the scheduler may
/// still be starting.
///
/// # Errors
/// [`ControlError::Connect`] with the last attempt's error; [`ControlError::BadAddress`].
pub async fn dial(address: &str, patience: Duration) -> Result<Dialed, ControlError> {
    let address = scheduler_address(address)?;
    let start = Instant::now();
    let deadline = start + patience;
    let mut pause = FIRST_PAUSE;
    let mut attempts = 0;
    loop {
        attempts += 1;
        let source = match timeout_at(deadline, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                prepare(&stream);
                return Ok(Dialed {
                    stream,
                    peer: address.into(),
                });
            }
            Ok(Err(source)) => source,
            Err(_) => io::Error::new(io::ErrorKind::TimedOut, "no answer"),
        };
        if Instant::now() + pause >= deadline {
            return Err(ControlError::Connect {
                peer: address.to_owned(),
                attempts,
                waited: start.elapsed(),
                source,
            });
        }
        tracing::debug!(%address, attempts, %source, "scheduler not reached yet");
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Says hello on a fresh connection and waits for the welcome.
///
/// # Errors
/// [`ControlError::Version`] naming both versions, [`ControlError::Refused`], [`ControlError::Silent`] after `patience`,
/// [`ControlError::NotTransload`] when something else listens there.
pub async fn greet(
    dialed: Dialed,
    role: Role,
    patience: Duration,
) -> Result<Connected, ControlError> {
    let peer = dialed.peer;
    let (read, write) = dialed.stream.into_split();
    let mut reader = FrameReader::new(read, HANDSHAKE_FRAME_BYTES, Arc::clone(&peer));
    let mut writer = FrameWriter::new(write, Arc::clone(&peer));
    let exchange = async {
        writer.push(&Hello {
            version: PROTOCOL_VERSION,
            role,
        })?;
        writer.flush().await?;
        reader.read_frame().await
    };
    let frame = timeout(patience, exchange)
        .await
        .map_err(|_| ControlError::Silent {
            peer: peer.to_string(),
            waited: patience,
        })?
        .map_err(not_transload)?;
    match codec::decode::<Welcome>(&frame) {
        Ok(Welcome::Refused { version, .. }) if version != PROTOCOL_VERSION => {
            Err(ControlError::Version {
                peer: peer.to_string(),
                source: VersionMismatch {
                    ours: PROTOCOL_VERSION,
                    theirs: version,
                },
            })
        }
        Ok(Welcome::Refused { reason, .. }) => Err(ControlError::Refused {
            peer: peer.to_string(),
            reason,
        }),
        Ok(welcome @ (Welcome::Client { .. } | Welcome::Worker { .. })) => {
            reader.lift_limit();
            Ok(Connected {
                welcome,
                reader,
                writer,
            })
        }
        Err(error) => Err(ControlError::NotTransload {
            peer: peer.to_string(),
            reason: error.to_string(),
        }),
    }
}

/// [`dial`], then [`greet`].
///
/// # Errors
/// As both.
pub async fn connect(
    address: &str,
    role: Role,
    dial_patience: Duration,
    handshake_patience: Duration,
) -> Result<Connected, ControlError> {
    greet(
        dial(address, dial_patience).await?,
        role,
        handshake_patience,
    )
    .await
}

/// The scheduler's side: waits for the hello of a stranger. The welcome is the caller's to send. A peer of another version is
/// told so before the connection ends.
///
/// # Errors
/// [`ControlError::Version`], [`ControlError::NotTransload`], [`ControlError::Silent`], [`ControlError::Closed`].
pub(crate) async fn answer(
    stream: TcpStream,
    peer: Arc<str>,
    patience: Duration,
) -> Result<(Role, FrameReader, FrameWriter), ControlError> {
    prepare(&stream);
    let (read, write) = stream.into_split();
    let mut reader = FrameReader::new(read, HANDSHAKE_FRAME_BYTES, Arc::clone(&peer));
    let writer = FrameWriter::new(write, Arc::clone(&peer));
    let frame = timeout(patience, reader.read_frame())
        .await
        .map_err(|_| ControlError::Silent {
            peer: peer.to_string(),
            waited: patience,
        })?
        .map_err(not_transload)?;
    match read_hello(&frame) {
        Ok(hello) => {
            reader.lift_limit();
            Ok((hello.role, reader, writer))
        }
        Err(HelloError::Version(source)) => {
            // The sentence is read at the other end, where "this process" is the other one.
            let theirs = VersionMismatch {
                ours: source.theirs,
                theirs: source.ours,
            };
            refuse(reader, writer, theirs.to_string()).await;
            Err(ControlError::Version {
                peer: peer.to_string(),
                source,
            })
        }
        Err(HelloError::Malformed(source)) => Err(ControlError::NotTransload {
            peer: peer.to_string(),
            reason: source.to_string(),
        }),
    }
}

/// Tells a peer why it is not welcome and closes once it has had the time to read that.
async fn refuse(mut reader: FrameReader, mut writer: FrameWriter, reason: String) {
    let farewell = async {
        let refused = Welcome::Refused {
            version: PROTOCOL_VERSION,
            reason,
        };
        if writer.push(&refused).is_ok() && writer.flush().await.is_ok() {
            writer.finish().await;
            reader.drain().await;
        }
    };
    let _ = timeout(REFUSAL_LINGER, farewell).await;
}

/// Small messages leave at once, and the system notices a peer whose machine is gone: within half a minute where messages are
/// on their way, a little later where none are. A connection without these settings still works.
fn prepare(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(DEAD_AFTER / 2)
        .with_interval(DEAD_AFTER / 6)
        .with_retries(3);
    let _ = socket.set_tcp_keepalive(&keepalive);
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(DEAD_AFTER));
}

/// A frame that cannot be read before the handshake is done means that the peer speaks something else.
fn not_transload(error: ControlError) -> ControlError {
    match error {
        ControlError::Frame { peer, source } => ControlError::NotTransload {
            peer,
            reason: source.to_string(),
        },
        other => other,
    }
}
