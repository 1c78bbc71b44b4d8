//! Reads the answers of one connection, each into the memory of its destination. Owns a buffer while bytes arrive in it.

use transload_gpu::PartitionHeader;
use transload_gpu::device::DeviceError;
use transload_protocol::codec;
use transload_transport::backend::{self, MAX_HEADER_BYTES};
use transload_transport::{Destination, TransportError};

use super::Shared;
use crate::TcpOptions;
use crate::pending::{Received, Receiving, Reply, Room, Staged, State, Waiting};
use crate::socket::{Broken, Receiver};
use crate::wire::{HEAD_BYTES, Head, Kind};

/// Why a chunk is not in its place.
enum Unfilled {
    /// The connection is broken.
    Broken(TransportError),
    /// The device does not take it. All of it has been read.
    Device(DeviceError),
}

impl From<TransportError> for Unfilled {
    fn from(error: TransportError) -> Self {
        Self::Broken(error)
    }
}

/// Where the payload will be received: in memory of a device, if the destination has some and a way there.
fn room(destination: &dyn Destination, header: &PartitionHeader) -> Result<Room, TransportError> {
    if let Some((arriving, tiers)) = backend::allocate_staged(destination, header)? {
        return Ok(Room::Device(Box::new(Staged { arriving, tiers })));
    }
    backend::allocate(destination, header).map(Room::Host)
}

/// A claimed length is no reason to allocate: headers grow by this much as their bytes arrive.
const HEADER_STEP_BYTES: usize = 1 << 20;

/// The reading half of one connection's task.
pub(super) struct Reader<'a> {
    pub(super) receiver: Receiver<'a>,
    pub(super) shared: &'a Shared,
    pub(super) options: &'a TcpOptions,
}

impl Reader<'_> {
    /// Reads answers until the connection breaks, and says how it did.
    pub(super) async fn run(&mut self) -> TransportError {
        loop {
            if let Err(error) = self.answer().await {
                return error;
            }
        }
    }

    async fn answer(&mut self) -> Result<(), TransportError> {
        let pending = &self.shared.pending;
        let head = self
            .receiver
            .head::<HEAD_BYTES>(&|| pending.busy_since())
            .await
            .map_err(|broken| self.broken(broken))?;
        let head = Head::decode(&head).map_err(|error| self.shared.nonsense(error.to_string()))?;
        let Some(state) = pending.take(head.request) else {
            return Err(self.shared.nonsense(format!(
                "an answer ({:?}) to request {}, which is not in flight",
                head.kind, head.request
            )));
        };
        match (head.kind, state) {
            (_, State::Draining) => {
                self.skip(head).await?;
                if head.last {
                    pending.finish(head.request);
                }
                Ok(())
            }
            (Kind::Header, State::Waiting(waiting)) => self.on_header(head, waiting).await,
            (Kind::Chunk, State::Receiving(receiving)) => self.on_chunk(head, receiving).await,
            (Kind::NotFound, State::Waiting(waiting)) => {
                let error = TransportError::NotFound {
                    peer: self.shared.peer.clone(),
                    partition: waiting.partition,
                };
                self.reply(head.request, waiting.reply, Err(error));
                Ok(())
            }
            (Kind::Failed, state @ (State::Waiting(_) | State::Receiving(_))) => {
                self.on_failed(head, state).await
            }
            (kind, state) => {
                pending.put_back(head.request, state);
                Err(self.shared.nonsense(format!(
                    "an answer ({kind:?}) to request {} out of turn",
                    head.request
                )))
            }
        }
    }

    /// Asks the destination for memory; the payload comes next.
    async fn on_header(&mut self, head: Head, waiting: Waiting) -> Result<(), TransportError> {
        let header = match self.header(head).await {
            Ok(header) => header,
            Err(error) => {
                let pending = &self.shared.pending;
                pending.put_back(head.request, State::Waiting(waiting));
                return Err(error);
            }
        };
        let room = match room(&*waiting.destination, &header) {
            Ok(room) => room,
            Err(error) => {
                self.refuse(head, waiting.reply, error);
                return Ok(());
            }
        };
        let receiving = Box::new(Receiving {
            header,
            room,
            filled: 0,
            partition: waiting.partition,
            reply: waiting.reply,
        });
        self.proceed(head, receiving)
    }

    async fn header(&mut self, head: Head) -> Result<PartitionHeader, TransportError> {
        debug_assert!(head.bytes <= MAX_HEADER_BYTES);
        let length = head.bytes as usize;
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let from = bytes.len();
            bytes.resize(length.min(from + HEADER_STEP_BYTES), 0);
            self.receiver
                .fill(&mut bytes[from..], usize::MAX)
                .await
                .map_err(|broken| self.broken(broken))?;
        }
        let header: PartitionHeader =
            codec::decode(&bytes).map_err(|error| self.shared.nonsense(error.to_string()))?;
        let (bytes, most) = (header.payload_bytes(), self.options.max_partition_bytes);
        if bytes > most || (bytes == 0) != head.last {
            return Err(self.shared.nonsense(format!(
                "the header of a partition with {bytes} B of payload (last: {}, limit: {most} B)",
                head.last
            )));
        }
        Ok(header)
    }

    async fn on_chunk(
        &mut self,
        head: Head,
        mut receiving: Box<Receiving>,
    ) -> Result<(), TransportError> {
        let to = receiving.filled + u64::from(head.bytes);
        let filled = if to <= receiving.room.bytes() {
            self.fill(head, &mut receiving).await
        } else {
            let payload_bytes = receiving.room.bytes();
            Err(Unfilled::Broken(self.shared.nonsense(format!(
                "{to} B of a payload of {payload_bytes} B"
            ))))
        };
        receiving.filled = to;
        match filled {
            Ok(()) => self.proceed(head, receiving),
            Err(Unfilled::Device(error)) => {
                self.refuse(head, receiving.reply, error.into());
                Ok(())
            }
            Err(Unfilled::Broken(error)) => {
                let pending = &self.shared.pending;
                pending.put_back(head.request, State::Receiving(receiving));
                Err(error)
            }
        }
    }

    /// Reads a chunk to its place, which has room for it.
    async fn fill(&mut self, head: Head, receiving: &mut Receiving) -> Result<(), Unfilled> {
        // Behind a piece that is not the last comes, most often, the head of the next: no more than that is read ahead, so that the
        // next piece goes straight to its place.
        let ahead_bytes = if head.last { usize::MAX } else { HEAD_BYTES };
        let staged = match &mut receiving.room {
            Room::Host(buffer) => {
                let from = receiving.filled as usize;
                let target = &mut buffer.as_mut_slice()[from..from + head.bytes as usize];
                return Ok(self.read(target, ahead_bytes).await?);
            }
            Room::Device(staged) => staged,
        };
        let mut left = u64::from(head.bytes);
        while left > 0 {
            let mut piece = match staged.arriving.piece(left).await {
                Ok(piece) => piece,
                Err(error) => {
                    let skipped = self.receiver.skip(left as usize).await;
                    skipped.map_err(|broken| self.broken(broken))?;
                    return Err(Unfilled::Device(error));
                }
            };
            left -= piece.bytes();
            let mut slices = piece.slices_mut().into_iter().peekable();
            while let Some(slice) = slices.next() {
                let is_end = left == 0 && slices.peek().is_none();
                self.read(slice, if is_end { ahead_bytes } else { 0 })
                    .await?;
            }
            staged.arriving.arrived(piece);
        }
        Ok(())
    }

    async fn read(&mut self, target: &mut [u8], ahead_bytes: usize) -> Result<(), TransportError> {
        let filled = self.receiver.fill(target, ahead_bytes).await;
        filled.map_err(|broken| self.broken(broken))
    }

    /// Waits for the next piece, or replies where this was the last.
    fn proceed(&self, head: Head, receiving: Box<Receiving>) -> Result<(), TransportError> {
        let pending = &self.shared.pending;
        let complete = receiving.filled == receiving.room.bytes();
        if complete != head.last {
            let error = self.shared.nonsense(format!(
                "{} of {} B of a payload (last: {})",
                receiving.filled,
                receiving.room.bytes(),
                head.last
            ));
            pending.put_back(head.request, State::Receiving(receiving));
            return Err(error);
        }
        if !complete {
            pending.put_back(head.request, State::Receiving(receiving));
            return Ok(());
        }
        let Receiving {
            header,
            room,
            reply,
            ..
        } = *receiving;
        let received = match room {
            Room::Host(buffer) => {
                let assembled = header.assemble(buffer.freeze());
                let assembled = assembled.map(Received::Host);
                assembled.map_err(|error| self.shared.nonsense(error.to_string()))
            }
            Room::Device(staged) => Ok(Received::Device(header, staged)),
        };
        self.reply(head.request, reply, received);
        Ok(())
    }

    /// The peer cannot read the partition, or not on.
    async fn on_failed(&mut self, head: Head, state: State) -> Result<(), TransportError> {
        let mut reason = vec![0; head.bytes as usize];
        if let Err(error) = self.read(&mut reason, usize::MAX).await {
            self.shared.pending.put_back(head.request, state);
            return Err(error);
        }
        let (partition, reply) = match state {
            State::Waiting(waiting) => (waiting.partition, waiting.reply),
            State::Receiving(receiving) => (receiving.partition, receiving.reply),
            State::Busy | State::Draining => return Ok(()),
        };
        let error = TransportError::Source {
            peer: self.shared.peer.clone(),
            partition,
            reason: String::from_utf8_lossy(&reason).into_owned(),
        };
        self.reply(head.request, reply, Err(error));
        Ok(())
    }

    async fn skip(&mut self, head: Head) -> Result<(), TransportError> {
        self.receiver
            .skip(head.bytes as usize)
            .await
            .map_err(|broken| self.broken(broken))
    }

    /// Nothing more comes for the request, and this is its end.
    fn reply(&self, request: u32, reply: Reply, result: Result<Received, TransportError>) {
        self.shared.pending.finish(request);
        // A fetch that was dropped this moment does not mind.
        let _ = reply.send(result);
    }

    /// The payload is not wanted: throws away what comes until the server has heard of it.
    fn refuse(&self, head: Head, reply: Reply, error: TransportError) {
        if head.last {
            self.shared.pending.finish(head.request);
        } else {
            self.shared.cancel(head.request);
        }
        let _ = reply.send(Err(error));
    }

    fn broken(&self, broken: Broken) -> TransportError {
        self.shared.broken(broken, self.options, "an answer")
    }
}
