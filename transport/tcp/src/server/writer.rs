//! Writes the answers of one connection. Small ones go first; large ones take turns, a chunk each.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::net::tcp::WriteHalf;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;
use transload_gpu::{ALIGNMENT_BYTES, Partition};
use transload_transport::backend;

use super::{Ended, Peer};
use crate::TcpOptions;
use crate::socket::Batch;
use crate::wire::{Head, Kind};

/// Pieces in one batch, so that partitions of many tiny buffers do not make it long.
const PIECES_PER_BATCH: usize = 4_096;
static PADDING: [u8; ALIGNMENT_BYTES] = [0; ALIGNMENT_BYTES];

/// What goes back for one request.
pub(super) struct Answer {
    pub(super) request: u32,
    pub(super) cancelled: CancellationToken,
    pub(super) body: Body,
}

pub(super) enum Body {
    /// All that is left of it.
    Partition(Box<Sending>),
    /// A part of an answer that is small.
    Part(Part),
}

/// What one head precedes.
pub(super) struct Part {
    pub(super) kind: Kind,
    pub(super) last: bool,
    /// The bytes that follow the head, in order.
    pub(super) slices: Vec<Bytes>,
}

impl Body {
    /// The whole answer.
    pub(super) fn whole(kind: Kind, body: Bytes) -> Self {
        Self::Part(Part {
            kind,
            last: true,
            slices: vec![body],
        })
    }

    /// The reason is cut to the length that a peer accepts.
    pub(super) fn failed(reason: String) -> Self {
        Self::whole(Kind::Failed, backend::shortened(reason))
    }

    pub(super) fn ended() -> Self {
        Self::whole(Kind::Ended, Bytes::new())
    }
}

/// What a partition occupies of its connection.
pub(super) type Places = (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>);

/// A partition on its way, and the places it occupies until its last byte is handed to the socket.
pub(super) struct Sending {
    /// Until it is sent.
    header: Option<Vec<u8>>,
    partition: Partition,
    /// Payload not yet sent, padding included.
    left: u64,
    /// The buffer to go on with, and where in it; the position may lie in its padding.
    buffer: usize,
    position: usize,
    _places: Places,
}

/// Writes until the connection breaks.
pub(super) async fn run(
    mut stream: WriteHalf<'_>,
    mut answers: mpsc::UnboundedReceiver<Answer>,
    peer: &Peer,
    options: &TcpOptions,
) -> Ended {
    let chunk_bytes = options.chunk_bytes as usize;
    let mut small = VecDeque::new();
    let mut large = VecDeque::new();
    let mut batch = Batch::default();
    loop {
        if small.is_empty() && large.is_empty() {
            match answers.recv().await {
                Some(answer) => small.push_back(answer),
                // Not while `peer` lives, which holds the other end.
                None => std::future::pending().await,
            }
        }
        while let Ok(answer) = answers.try_recv() {
            small.push_back(answer);
        }
        // Every answer passes here first; what does not end within a chunk goes to the large ones.
        while batch.bytes() < chunk_bytes
            && batch.pieces() < PIECES_PER_BATCH
            && let Some(answer) = small.pop_front()
        {
            if answer.is_larger_than(chunk_bytes) {
                large.push_back(answer);
            } else {
                write_some(answer, &mut batch, chunk_bytes, peer, &mut large);
            }
        }
        if let Some(answer) = large.pop_front() {
            write_some(answer, &mut batch, chunk_bytes, peer, &mut large);
        }
        if let Err(broken) = batch.write(&mut stream, options.stall_timeout).await {
            return broken.into();
        }
    }
}

/// Adds the answer's next pieces to the batch; it goes back in the queue where that is not its end.
fn write_some(
    mut answer: Answer,
    batch: &mut Batch,
    chunk_bytes: usize,
    peer: &Peer,
    unfinished: &mut VecDeque<Answer>,
) {
    // Who gives an answer part by part ends it likewise.
    if answer.cancelled.is_cancelled() && matches!(answer.body, Body::Partition(_)) {
        answer.body = Body::ended();
    }
    let request = answer.request;
    let is_over = match &mut answer.body {
        Body::Partition(sending) => {
            sending.push_next(request, batch, chunk_bytes);
            sending.left == 0
        }
        Body::Part(part) => {
            let bytes: usize = part.slices.iter().map(Bytes::len).sum();
            push_head(batch, request, part.kind, part.last, bytes as u32);
            for slice in part.slices.drain(..) {
                batch.push(slice);
            }
            part.last
        }
    };
    match answer.body {
        _ if is_over => drop(peer.requests().remove(&request)),
        Body::Partition(_) => unfinished.push_back(answer),
        Body::Part(_) => {}
    }
}

fn push_head(batch: &mut Batch, request: u32, kind: Kind, last: bool, bytes: u32) {
    let head = Head {
        kind,
        last,
        request,
        bytes,
    };
    batch.push(Bytes::copy_from_slice(&head.encode()));
}

impl Answer {
    fn is_larger_than(&self, chunk_bytes: usize) -> bool {
        match &self.body {
            Body::Partition(sending) => sending.left > chunk_bytes as u64,
            Body::Part(_) => false,
        }
    }
}

impl Sending {
    pub(super) fn new(
        header: Vec<u8>,
        partition: Partition,
        payload_bytes: u64,
        places: Places,
    ) -> Self {
        Self {
            header: Some(header),
            partition,
            left: payload_bytes,
            buffer: 0,
            position: 0,
            _places: places,
        }
    }

    /// The rest of a partition whose header and first `sent_bytes` have been sent.
    pub(super) fn rest(partition: Partition, sent_bytes: u64, places: Places) -> Self {
        let mut left = sent_bytes;
        let (mut buffer, mut position) = (0, 0);
        while left > 0
            && let Some(next) = partition.buffers().get(buffer)
        {
            let padded = next.len().next_multiple_of(ALIGNMENT_BYTES) as u64;
            if left < padded {
                position = left as usize;
                break;
            }
            left -= padded;
            buffer += 1;
        }
        Self {
            header: None,
            left: partition.header().payload_bytes() - sent_bytes,
            partition,
            buffer,
            position,
            _places: places,
        }
    }

    /// The header where it is not sent yet, and one chunk.
    fn push_next(&mut self, request: u32, batch: &mut Batch, chunk_bytes: usize) {
        if let Some(header) = self.header.take() {
            let last = self.left == 0;
            push_head(batch, request, Kind::Header, last, header.len() as u32);
            batch.push(header.into());
        }
        if self.left == 0 {
            return;
        }
        let bytes = self.left.min(chunk_bytes as u64);
        self.left -= bytes;
        push_head(batch, request, Kind::Chunk, self.left == 0, bytes as u32);
        self.push_payload(bytes as usize, batch);
    }

    fn push_payload(&mut self, bytes: usize, batch: &mut Batch) {
        let mut left = bytes;
        while left > 0
            && let Some(buffer) = self.partition.buffers().get(self.buffer)
        {
            let padded = buffer.len().next_multiple_of(ALIGNMENT_BYTES);
            let taken = left.min(padded - self.position);
            let end = self.position + taken;
            let (data_end, data_start) = (end.min(buffer.len()), self.position.min(buffer.len()));
            batch.push(buffer.slice(data_start..data_end));
            let padding = taken - (data_end - data_start);
            batch.push(Bytes::from_static(&PADDING[..padding]));
            left -= taken;
            if end == padded {
                (self.buffer, self.position) = (self.buffer + 1, 0);
            } else {
                self.position = end;
            }
        }
    }
}
