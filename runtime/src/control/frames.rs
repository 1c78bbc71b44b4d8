//! Frames over a TCP connection: many in, many out, nothing allocated for bytes that have not arrived.

use std::sync::Arc;

use bytes::{Buf, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use transload_protocol::codec::{self, CodecError, MAX_FRAME_BYTES};

use super::ControlError;

const LENGTH_BYTES: usize = 4;
/// Asked of the socket at a time. The buffer grows with the bytes that arrive, never with the length that a frame claims.
const READ_BYTES: usize = 64 << 10;
/// A buffer that a large message has blown up beyond this is given back.
const KEPT_BUFFER_BYTES: usize = 1 << 20;

/// The reading half of a control connection.
#[derive(Debug)]
pub struct FrameReader {
    half: OwnedReadHalf,
    buffer: BytesMut,
    limit: usize,
    peer: Arc<str>,
}

impl FrameReader {
    /// A reader that refuses frames of more than `limit` bytes.
    pub(crate) fn new(half: OwnedReadHalf, limit: usize, peer: Arc<str>) -> Self {
        Self {
            half,
            buffer: BytesMut::new(),
            limit,
            peer,
        }
    }

    /// Accepts frames of any size that the protocol allows from now on.
    pub(crate) fn lift_limit(&mut self) {
        self.limit = MAX_FRAME_BYTES;
    }

    /// Who is at the other end, for people.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// Waits for at least one message and appends every whole one that has arrived, in order. Dropping the future loses
    /// nothing.
    ///
    /// # Errors
    /// [`ControlError::Closed`] when the peer closed the connection between two frames; [`ControlError::Frame`] for a frame that is too
    /// large or makes no sense; [`ControlError::Io`].
    pub async fn read_many<T: DeserializeOwned>(
        &mut self,
        messages: &mut Vec<T>,
    ) -> Result<(), ControlError> {
        loop {
            let before = messages.len();
            while let Some(length) = self.buffered_length()? {
                let end = LENGTH_BYTES + length;
                // Read where it lies: a handle of its own for each frame would cost more than the reading.
                let frame = self.buffer.get(LENGTH_BYTES..end).unwrap_or_default();
                let message = codec::decode(frame).map_err(|source| self.bad_frame(source));
                self.buffer.advance(end);
                messages.push(message?);
            }
            if messages.len() > before {
                return Ok(());
            }
            self.fill().await?;
        }
    }

    /// Waits for one frame and returns its bytes, undecoded.
    ///
    /// # Errors
    /// As [`FrameReader::read_many`].
    pub async fn read_frame(&mut self) -> Result<BytesMut, ControlError> {
        loop {
            if let Some(frame) = self.buffered_frame()? {
                return Ok(frame);
            }
            self.fill().await?;
        }
    }

    /// Reads and forgets until the peer closes.
    pub(crate) async fn drain(&mut self) {
        loop {
            self.buffer.clear();
            if self.fill().await.is_err() {
                return;
            }
        }
    }

    fn buffered_frame(&mut self) -> Result<Option<BytesMut>, ControlError> {
        Ok(self.buffered_length()?.map(|length| {
            self.buffer.advance(LENGTH_BYTES);
            self.buffer.split_to(length)
        }))
    }

    /// Length of the frame at the front of the buffer, if all of it is there.
    fn buffered_length(&self) -> Result<Option<usize>, ControlError> {
        let Some(prefix) = self.buffer.first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*prefix) as usize;
        if length > self.limit {
            return Err(self.bad_frame(CodecError::TooLarge { bytes: length }));
        }
        if self.buffer.len() < LENGTH_BYTES + length {
            return Ok(None);
        }
        Ok(Some(length))
    }

    async fn fill(&mut self) -> Result<(), ControlError> {
        if self.buffer.is_empty() && self.buffer.capacity() > KEPT_BUFFER_BYTES {
            self.buffer = BytesMut::new();
        }
        self.buffer.reserve(READ_BYTES);
        match self.half.read_buf(&mut self.buffer).await {
            Ok(0) if self.buffer.is_empty() => Err(ControlError::Closed {
                peer: self.peer.to_string(),
            }),
            Ok(0) => Err(ControlError::Io {
                peer: self.peer.to_string(),
                source: std::io::ErrorKind::UnexpectedEof.into(),
            }),
            Ok(_) => Ok(()),
            Err(source) => Err(ControlError::Io {
                peer: self.peer.to_string(),
                source,
            }),
        }
    }

    fn bad_frame(&self, source: CodecError) -> ControlError {
        ControlError::Frame {
            peer: self.peer.to_string(),
            source,
        }
    }
}

/// The writing half of a control connection: messages are collected and go out in one write per flush.
#[derive(Debug)]
pub struct FrameWriter {
    pub(super) half: OwnedWriteHalf,
    pub(super) peer: Arc<str>,
    buffer: Vec<u8>,
}

impl FrameWriter {
    pub(crate) fn new(half: OwnedWriteHalf, peer: Arc<str>) -> Self {
        Self {
            half,
            peer,
            buffer: Vec::new(),
        }
    }

    /// Appends one message to what the next [`FrameWriter::flush`] sends. On an error nothing was appended.
    ///
    /// # Errors
    /// [`ControlError::Frame`] when the message is too large.
    pub fn push<T: Serialize>(&mut self, message: &T) -> Result<(), ControlError> {
        codec::encode_frame(message, &mut self.buffer).map_err(|source| ControlError::Frame {
            peer: self.peer.to_string(),
            source,
        })
    }

    /// Sends everything pushed since the last flush. Must not be dropped half-way: the peer would see half a frame.
    ///
    /// # Errors
    /// [`ControlError::Io`].
    pub async fn flush(&mut self) -> Result<(), ControlError> {
        let sent = self.half.write_all(&self.buffer).await;
        self.buffer.clear();
        self.buffer.shrink_to(KEPT_BUFFER_BYTES);
        sent.map_err(|source| ControlError::Io {
            peer: self.peer.to_string(),
            source,
        })
    }

    /// Tells the peer that nothing more follows; it may still send.
    pub(super) async fn finish(&mut self) {
        let _ = self.half.shutdown().await;
    }

    /// What was pushed and not flushed yet.
    pub(super) fn take_buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::mpsc;

    use super::*;
    use crate::control::SendLimits;

    /// Both ends of a connection: a plain one and one of ours.
    async fn pair() -> (TcpStream, FrameReader, FrameWriter) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let address = listener.local_addr().expect("bound");
        let (there, here) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (read, write) = here.expect("accepted").0.into_split();
        let peer: Arc<str> = "peer".into();
        (
            there.expect("connected"),
            FrameReader::new(read, MAX_FRAME_BYTES, Arc::clone(&peer)),
            FrameWriter::new(write, peer),
        )
    }

    fn frames(messages: &[String]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for message in messages {
            codec::encode_frame(message, &mut bytes).expect("encodes");
        }
        bytes
    }

    #[tokio::test]
    async fn messages_arrive_in_order_however_the_network_cuts_them() {
        let (mut there, mut reader, _writer) = pair().await;
        let sent: Vec<String> = (0..300).map(|size| "x".repeat(size * 7)).collect();
        let bytes = frames(&sent);
        tokio::spawn(async move {
            for piece in bytes.chunks(1_013) {
                there.write_all(piece).await.expect("sent");
                tokio::task::yield_now().await;
            }
        });
        let mut received: Vec<String> = Vec::new();
        let end = loop {
            if let Err(error) = reader.read_many(&mut received).await {
                break error;
            }
        };
        assert!(matches!(end, ControlError::Closed { .. }), "{end}");
        assert_eq!(received, sent);
    }

    #[tokio::test]
    async fn a_claimed_length_allocates_nothing() {
        let (mut there, mut reader, _writer) = pair().await;
        let claimed = u32::try_from(MAX_FRAME_BYTES).expect("fits");
        there.write_all(&claimed.to_le_bytes()).await.expect("sent");
        there.write_all(&[0; 10]).await.expect("sent");
        let mut messages: Vec<String> = Vec::new();
        let waiting = reader.read_many(&mut messages);
        tokio::time::timeout(Duration::from_millis(100), waiting)
            .await
            .expect_err("the rest never comes");
        assert!(reader.buffer.capacity() < 4 * READ_BYTES);
        drop(there);
        let error = reader.read_many(&mut messages).await.expect_err("cut off");
        assert!(matches!(error, ControlError::Io { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_frame_above_the_limit_is_refused_by_its_length_alone() {
        let (mut there, mut reader, _writer) = pair().await;
        there
            .write_all(&u32::MAX.to_le_bytes())
            .await
            .expect("sent");
        let mut messages: Vec<String> = Vec::new();
        let error = reader
            .read_many(&mut messages)
            .await
            .expect_err("too large");
        assert!(error.to_string().contains("exceeds the limit"), "{error}");
    }

    #[tokio::test]
    async fn everything_queued_is_sent_before_the_connection_is_closed() {
        let (mut there, _reader, writer) = pair().await;
        let (queue, receiver) = mpsc::unbounded_channel();
        let sent: Vec<String> = (0..100).map(|_| "y".repeat(50_000)).collect();
        for message in &sent {
            queue.send(vec![message.clone()]).expect("queued");
        }
        drop(queue);
        let limits = SendLimits {
            backlog_bytes: 1 << 30,
            stall: Duration::from_secs(10),
        };
        let mut received = Vec::new();
        let (ended, read) = tokio::join!(
            writer.send_all(receiver, limits),
            there.read_to_end(&mut received)
        );
        ended.expect("sent");
        read.expect("read to the end");
        assert_eq!(received, frames(&sent));
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_is_given_up_by_bytes_and_by_time() {
        let (_there, _reader, writer) = pair().await;
        let (queue, receiver) = mpsc::unbounded_channel();
        let limits = SendLimits {
            backlog_bytes: 20 << 20,
            stall: Duration::from_secs(60),
        };
        for _ in 0..50 {
            queue.send(vec!["z".repeat(1 << 20)]).expect("queued");
        }
        let error = writer.send_all(receiver, limits).await.expect_err("full");
        assert!(matches!(error, ControlError::Backlog { .. }), "{error}");

        let (_there, _reader, writer) = pair().await;
        let (queue, receiver) = mpsc::unbounded_channel();
        let limits = SendLimits {
            backlog_bytes: 1 << 30,
            stall: Duration::from_millis(100),
        };
        for _ in 0..50 {
            queue.send(vec!["z".repeat(1 << 20)]).expect("queued");
        }
        let error = writer.send_all(receiver, limits).await.expect_err("stuck");
        assert!(matches!(error, ControlError::Stalled { .. }), "{error}");
    }
}
