//! Reading and writing sockets with a limit on silence. Called by both sides; knows bytes and time, no frames' meaning.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::ReadHalf;
use tokio::time::{Instant, timeout, timeout_at};

/// Room for heads, requests and small answers. Payload that arrives behind a head in the same read is copied out of here
/// once: at most this much per fetch, which costs about what the saved system call does.
const BUFFER_BYTES: usize = 16 << 10;
/// Slices handed to the operating system in one call.
const SLICES: usize = 64;

/// How a read or a write ended otherwise than well.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The peer closed its side.
    Ended,
    /// Nothing moved for the time of patience.
    Stalled,
    /// The operating system says so.
    Io(io::Error),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Since when something is awaited from the peer; `None` when it may be silent for ever.
pub(crate) type Awaited<'a> = &'a (dyn Fn() -> Option<Instant> + Sync);

/// No delay of small frames, and the operating system notices a peer whose machine is gone while nothing is awaited. Sizes of
/// buffers are left to the operating system, which makes them as large as the link needs: fixed ones were slower.
pub(crate) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10));
    socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive)?;
    if stream.local_addr()?.ip() == stream.peer_addr()?.ip() {
        unpaced(stream);
    }
    Ok(())
}

/// Within a machine there is no network to be kind to: an algorithm that paces what is sent, as `bbr` does, costs a third of
/// the bandwidth there. Every Linux has this one, and allows it to everyone; where that is not so, nothing is lost but speed.
#[cfg(target_os = "linux")]
fn unpaced(stream: &TcpStream) {
    if let Err(error) = socket2::SockRef::from(stream).set_tcp_congestion(b"reno") {
        tracing::debug!(%error, "a connection within this machine keeps its congestion control");
    }
}

#[cfg(not(target_os = "linux"))]
fn unpaced(_: &TcpStream) {}

/// The reading side of a socket.
pub(crate) struct Receiver<'a> {
    stream: ReadHalf<'a>,
    stall_timeout: Duration,
    last_byte: Instant,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    copied_bytes: u64,
}

impl<'a> Receiver<'a> {
    pub(crate) fn new(stream: ReadHalf<'a>, stall_timeout: Duration) -> Self {
        Self {
            stream,
            stall_timeout,
            last_byte: Instant::now(),
            buffer: vec![0; BUFFER_BYTES].into(),
            start: 0,
            end: 0,
            copied_bytes: 0,
        }
    }

    /// Bytes that reached their place through the buffer and not straight from the socket.
    pub(crate) fn copied_bytes(&self) -> u64 {
        self.copied_bytes
    }

    /// The next `N` bytes, the start of a frame. Before its first byte the peer may be silent as `awaited` allows.
    /// `Broken::Ended` only where the peer closed between frames.
    pub(crate) async fn head<const N: usize>(
        &mut self,
        awaited: Awaited<'_>,
    ) -> Result<[u8; N], Broken> {
        while self.buffered() < N {
            let between_frames = self.buffered() == 0;
            if between_frames {
                (self.start, self.end) = (0, 0);
            } else if self.buffer.len() - self.start < N {
                self.buffer.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.buffered());
            }
            let end = self.buffer.len();
            if between_frames {
                self.read(&mut [], end, awaited).await?;
            } else {
                self.read_on(&mut [], end).await?;
            }
        }
        let head = std::array::from_fn(|index| self.buffer[self.start + index]);
        self.start += N;
        Ok(head)
    }

    /// Fills `target`: first with what was read ahead, then straight from the socket. The same call may read up to
    /// `ahead_bytes` of what comes after.
    pub(crate) async fn fill(
        &mut self,
        target: &mut [u8],
        ahead_bytes: usize,
    ) -> Result<(), Broken> {
        let mut filled = self.buffered().min(target.len());
        target[..filled].copy_from_slice(&self.buffer[self.start..self.start + filled]);
        self.start += filled;
        self.copied_bytes += filled as u64;
        let ahead = ahead_bytes.min(self.buffer.len());
        while filled < target.len() {
            (self.start, self.end) = (0, 0);
            filled += self.read_on(&mut target[filled..], ahead).await?;
        }
        Ok(())
    }

    /// Reads `bytes` and forgets them.
    pub(crate) async fn skip(&mut self, bytes: usize) -> Result<(), Broken> {
        let mut left = bytes;
        loop {
            let skipped = left.min(self.buffered());
            self.start += skipped;
            left -= skipped;
            if left == 0 {
                return Ok(());
            }
            (self.start, self.end) = (0, 0);
            let end = self.buffer.len();
            self.read_on(&mut [], end).await?;
        }
    }

    fn buffered(&self) -> usize {
        self.end - self.start
    }

    /// Within a frame more must come, and its end is a break.
    async fn read_on(&mut self, direct: &mut [u8], buffer_end: usize) -> Result<usize, Broken> {
        let since = self.last_byte;
        match self.read(direct, buffer_end, &|| Some(since)).await {
            Err(Broken::Ended) => Err(Broken::Io(io::ErrorKind::UnexpectedEof.into())),
            other => other,
        }
    }

    /// One read into `direct` and behind it into the buffer up to `buffer_end`; returns how much `direct` got.
    async fn read(
        &mut self,
        direct: &mut [u8],
        buffer_end: usize,
        awaited: Awaited<'_>,
    ) -> Result<usize, Broken> {
        loop {
            let direct_bytes = direct.len();
            let mut slices = [
                IoSliceMut::new(direct),
                IoSliceMut::new(&mut self.buffer[self.end..buffer_end]),
            ];
            // An empty first slice is legal, but some systems stop there.
            let slices = if direct_bytes == 0 {
                &mut slices[1..]
            } else {
                &mut slices[..]
            };
            match self.stream.try_read_vectored(slices) {
                Ok(0) => return Err(Broken::Ended),
                Ok(read) => {
                    self.last_byte = Instant::now();
                    let read_direct = read.min(direct_bytes);
                    self.end += read - read_direct;
                    // A socket that always has more must not keep other tasks from running.
                    tokio::task::consume_budget().await;
                    return Ok(read_direct);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(awaited).await?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn wait(&self, awaited: Awaited<'_>) -> Result<(), Broken> {
        let deadline = || awaited().map(|since| since.max(self.last_byte) + self.stall_timeout);
        loop {
            let until = deadline().unwrap_or_else(|| Instant::now() + self.stall_timeout);
            match timeout_at(until, self.stream.readable()).await {
                Ok(readable) => return Ok(readable?),
                Err(_) if deadline().is_some_and(|deadline| deadline <= Instant::now()) => {
                    return Err(Broken::Stalled);
                }
                // Nothing is awaited, or only since a moment ago.
                Err(_) => {}
            }
        }
    }
}

/// Pieces to be written in order, without being joined.
#[derive(Default)]
pub(crate) struct Batch {
    pieces: VecDeque<Bytes>,
    bytes: usize,
}

impl Batch {
    pub(crate) fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.bytes += piece.len();
            self.pieces.push_back(piece);
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// Writes everything. The peer must take something within each `stall_timeout`.
    pub(crate) async fn write(
        &mut self,
        stream: &mut (impl AsyncWrite + Unpin),
        stall_timeout: Duration,
    ) -> Result<(), Broken> {
        while !self.pieces.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut used = 0;
            for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
                *slice = IoSlice::new(piece);
                used += 1;
            }
            let written = timeout(stall_timeout, stream.write_vectored(&slices[..used]))
                .await
                .map_err(|_| Broken::Stalled)??;
            if written == 0 {
                return Err(Broken::Io(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
        }
        Ok(())
    }

    fn advance(&mut self, written: usize) {
        self.bytes -= written;
        let mut left = written;
        while let Some(piece) = self.pieces.front_mut() {
            if left < piece.len() {
                piece.advance(left);
                return;
            }
            left -= piece.len();
            self.pieces.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::HEAD_BYTES;
    use tokio::net::TcpListener;

    const STALL: Duration = Duration::from_secs(20);
    const CHUNK_BYTES: usize = 1 << 20;
    const CHUNKS: usize = 32;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("has one");
        let (connected, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        (connected.expect("connects"), accepted.expect("accepts").0)
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_connection_within_a_machine_is_not_paced() {
        let (here, _there) = pair().await;
        prepare(&here).expect("prepares");
        let congestion = socket2::SockRef::from(&here).tcp_congestion();
        let congestion = congestion.expect("has one");
        // Padded with zeros to the length of the longest name.
        assert!(congestion.starts_with(b"reno"), "{congestion:?}");
    }

    #[tokio::test]
    async fn a_payload_in_chunks_goes_straight_to_its_place() {
        let (mut here, mut there) = pair().await;
        let payload: Bytes = (0..CHUNKS * CHUNK_BYTES)
            .map(|at| (at / 97) as u8)
            .collect();
        let sent = payload.clone();
        let sender = tokio::spawn(async move {
            let mut batch = Batch::default();
            for chunk in 0..CHUNKS {
                batch.push(Bytes::from_static(&[7; HEAD_BYTES]));
                batch.push(sent.slice(chunk * CHUNK_BYTES..(chunk + 1) * CHUNK_BYTES));
            }
            batch.write(&mut there, STALL).await.expect("writes");
            there
        });
        let mut receiver = Receiver::new(here.split().0, STALL);
        let mut received = vec![0; payload.len()];
        for chunk in received.chunks_mut(CHUNK_BYTES) {
            let head = receiver.head::<HEAD_BYTES>(&|| None).await.expect("reads");
            assert_eq!(head, [7; HEAD_BYTES]);
            receiver.fill(chunk, HEAD_BYTES).await.expect("reads");
        }
        assert!(received == payload, "the same bytes");
        // Only what came in the same read as the first head.
        assert!(receiver.copied_bytes() <= BUFFER_BYTES as u64);
        drop(sender.await.expect("ends"));
        let ended = receiver.head::<HEAD_BYTES>(&|| None).await;
        assert!(matches!(ended, Err(Broken::Ended)));
    }

    #[tokio::test]
    async fn a_batch_of_many_pieces_is_written_in_order_and_whole() {
        let (mut here, mut there) = pair().await;
        let mut batch = Batch::default();
        let mut expected = Vec::new();
        for index in 0..3_000_usize {
            let piece = vec![index as u8; index % 90];
            expected.extend_from_slice(&piece);
            batch.push(piece.into());
        }
        assert_eq!(batch.bytes(), expected.len());
        let write = batch.write(&mut there, STALL);
        let mut receiver = Receiver::new(here.split().0, STALL);
        let mut received = vec![0; expected.len()];
        let (written, filled) = tokio::join!(write, receiver.fill(&mut received, 0));
        written.expect("writes");
        filled.expect("reads");
        assert_eq!(received, expected);
        assert_eq!((batch.bytes(), batch.pieces()), (0, 0));
    }
}
