//! The serving side on the progress thread: the requests of one connection, from the source to the last byte sent.
//!
//! Few partitions are open at once, and few bytes of them under way; the rest wait. Large partitions take turns, a piece each, and are sent
//! from their own buffers.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use transload_protocol::PartitionId;
use transload_transport::PartitionSource;
use transload_transport::backend::{self, Outgoing};

use crate::UcxOptions;
use crate::engine::{Command, Commands, Ending, Opened, Way};
use crate::pieces::{DevicePieces, HostPieces, Pieces};
use crate::ucp::{Body, Tag};
use crate::wire::{Header, Kind};

/// Header and payload up to this go in one message.
const TOGETHER_BYTES: u64 = 8 << 10;
/// Pieces under way at once over one connection: one that moves, and one that is ready.
const PIECES_UNDER_WAY: u64 = 2;

/// The server's end of one connection.
pub(crate) struct ServerLink {
    source: Arc<dyn PartitionSource>,
    /// For sources that take their time.
    runtime: Handle,
    commands: Commands,
    limits: Limits,
    requests: HashMap<u64, Served>,
    /// How many of them are past [`Served::ToOpen`].
    open: usize,
    /// Not yet opened, in order; some have been cancelled meanwhile.
    to_open: VecDeque<u64>,
    /// Open, and waiting until fewer bytes are under way, in order.
    to_send: VecDeque<u64>,
    /// With pieces left, in the order of their turns.
    turns: VecDeque<u64>,
    /// Of large partitions that are being sent.
    bytes_in_flight: u64,
    /// Of pieces that UCX has.
    posted_bytes: u64,
}

struct Limits {
    requests: usize,
    open: usize,
    bytes_in_flight: u64,
    chunk_bytes: u64,
}

enum Served {
    ToOpen(PartitionId, From),
    /// The source is asked; in a task of its own where it takes its time.
    Opening(Option<AbortHandle>),
    ToSend(Box<Sending>),
    Sending(Box<Sending>),
}

/// Where a partition is to be sent from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    Host,
    /// A device, if it is there.
    Device,
}

/// A partition on its way.
struct Sending {
    header: Bytes,
    pieces: Pieces,
    /// What it takes of the bytes that may be in flight.
    flight: u64,
    /// Its messages that UCX has.
    posted: usize,
    cancelled: bool,
}

impl ServerLink {
    pub(crate) fn new(
        source: Arc<dyn PartitionSource>,
        runtime: Handle,
        commands: Commands,
        options: &UcxOptions,
    ) -> Self {
        Self {
            source,
            runtime,
            commands,
            limits: Limits {
                requests: options.max_requests_per_connection as usize,
                open: options.max_open_per_connection as usize,
                bytes_in_flight: options.max_bytes_in_flight_per_connection,
                chunk_bytes: options.chunk_bytes.into(),
            },
            requests: HashMap::new(),
            open: 0,
            to_open: VecDeque::new(),
            to_send: VecDeque::new(),
            turns: VecDeque::new(),
            bytes_in_flight: 0,
            posted_bytes: 0,
        }
    }

    /// Whether the client is to take something.
    pub(crate) fn awaits_something(&self) -> bool {
        self.posted_bytes > 0
    }

    /// Frees everything but what UCX is reading.
    pub(crate) fn close(self, ending: &Ending) {
        if let Ending::Nonsense(reason) = ending {
            tracing::warn!(
                reason,
                "closed a connection over UCX whose peer made no sense"
            );
        } else {
            tracing::debug!(?ending, "a connection over UCX ended");
        }
        for request in self.requests.into_values() {
            if let Served::Opening(Some(task)) = request {
                task.abort();
            }
        }
    }

    pub(crate) fn message(&mut self, way: &Way, header: Header, body: &Body) -> Result<(), Ending> {
        let request = header.request;
        if body.bytes() > 0 {
            return Err(Ending::Nonsense("a request with a body".to_owned()));
        }
        match header.kind {
            Kind::Probe => way.send(0, Kind::Probe, crate::probe(), 0),
            Kind::Fetch {
                partition,
                in_place,
            } => {
                let from = if in_place && way.moves_device_memory {
                    From::Device
                } else {
                    From::Host
                };
                self.on_fetch(way, request, (partition, from))?;
            }
            Kind::Cancel => self.on_cancel(way, request),
            Kind::Header { .. }
            | Kind::Chunk { .. }
            | Kind::NotFound
            | Kind::Failed
            | Kind::Ended => {
                return Err(Ending::Nonsense("an answer from a client".to_owned()));
            }
        }
        Ok(())
    }

    fn on_fetch(
        &mut self,
        way: &Way,
        request: u64,
        (partition, from): (PartitionId, From),
    ) -> Result<(), Ending> {
        if self.requests.len() >= self.limits.requests {
            let reason = format!("more than {} requests in flight", self.requests.len());
            return Err(Ending::Nonsense(reason));
        }
        let earlier = self
            .requests
            .insert(request, Served::ToOpen(partition, from));
        if earlier.is_some() {
            let reason = format!("request {request} is in flight already");
            return Err(Ending::Nonsense(reason));
        }
        self.to_open.push_back(request);
        self.go_on(way);
        Ok(())
    }

    /// Answered by `Ended`, also where the last answer has been given: they crossed.
    fn on_cancel(&mut self, way: &Way, request: u64) {
        match self.requests.get_mut(&request) {
            Some(Served::Sending(sending)) if sending.posted > 0 => {
                sending.cancelled = true;
                return;
            }
            Some(Served::Opening(Some(task))) => task.abort(),
            Some(_) | None => {}
        }
        self.forget(request);
        way.send(request, Kind::Ended, Bytes::new(), 0);
        self.go_on(way);
    }

    /// Removes it, with what it takes of the limits.
    fn forget(&mut self, request: u64) {
        match self.requests.remove(&request) {
            None | Some(Served::ToOpen(..)) => {}
            Some(Served::Opening(_) | Served::ToSend(_)) => self.open -= 1,
            Some(Served::Sending(sending)) => {
                self.open -= 1;
                self.bytes_in_flight -= sending.flight;
            }
        }
    }

    fn go_on(&mut self, way: &Way) {
        self.open_next(way);
        self.send_next(way);
    }

    /// Opens as many as may be open.
    fn open_next(&mut self, way: &Way) {
        while self.open < self.limits.open
            && let Some(request) = self.to_open.pop_front()
        {
            // It may have been cancelled.
            let Some(served @ Served::ToOpen(..)) = self.requests.get_mut(&request) else {
                continue;
            };
            if let Served::ToOpen(partition, from) =
                std::mem::replace(served, Served::Opening(None))
            {
                self.open += 1;
                self.ask(way, request, (partition, from));
            }
        }
    }

    /// A partition in memory is there at once, and needs no task of its own.
    fn ask(&mut self, way: &Way, request: u64, (partition, from): (PartitionId, From)) {
        let source = Arc::clone(&self.source);
        let asking = async move {
            match from {
                From::Device => backend::open_in_place(&*source, partition).await,
                From::Host => {
                    let opened = backend::open(&*source, partition).await?;
                    Ok(opened.map(Outgoing::Host))
                }
            }
        };
        let mut asking = asking.boxed();
        let at_once = {
            // The source may want timers, or threads for what blocks.
            let _runtime = self.runtime.enter();
            (&mut asking).now_or_never()
        };
        if let Some(opened) = at_once {
            return self.answer(way, request, opened);
        }
        let (commands, link) = (self.commands.clone(), way.tag(request, 0).link);
        let task = self.runtime.spawn(async move {
            let opened = asking.await;
            // The thread outlives its connections.
            commands.send(Command::Opened {
                link,
                request,
                opened,
            });
        });
        let opening = Served::Opening(Some(task.abort_handle()));
        self.requests.insert(request, opening);
    }

    /// The source has answered.
    pub(crate) fn opened(&mut self, way: &Way, request: u64, opened: Opened) {
        // It may have been cancelled in the same moment.
        if self.requests.contains_key(&request) {
            self.answer(way, request, opened);
        }
        self.go_on(way);
    }

    /// Answers at once, or puts the partition in line.
    fn answer(&mut self, way: &Way, request: u64, opened: Opened) {
        let prepared = match opened {
            Ok(Some(outgoing)) => prepare(outgoing),
            Ok(None) => {
                way.send(request, Kind::NotFound, Bytes::new(), 0);
                return self.forget(request);
            }
            Err(reason) => Err(reason),
        };
        match prepared {
            Ok((header, mut pieces)) => {
                if let Pieces::Host(pieces) = &mut pieces
                    && header.len() as u64 + pieces.left() <= TOGETHER_BYTES
                {
                    send_together(way, request, &header, pieces);
                    return self.forget(request);
                }
                let large = pieces.left() > self.limits.chunk_bytes;
                let wanted = pieces.left().min(self.limits.bytes_in_flight);
                let sending = Box::new(Sending {
                    header,
                    pieces,
                    flight: if large { wanted } else { 0 },
                    posted: 0,
                    cancelled: false,
                });
                self.requests.insert(request, Served::ToSend(sending));
                self.to_send.push_back(request);
            }
            Err(reason) => {
                way.send(request, Kind::Failed, backend::shortened(reason), 0);
                self.forget(request);
            }
        }
    }

    /// Begins to send what may be in flight, and posts pieces by turns.
    fn send_next(&mut self, way: &Way) {
        self.begin_sending(way);
        let most = PIECES_UNDER_WAY * self.limits.chunk_bytes;
        while self.posted_bytes < most
            && let Some(request) = self.turns.pop_front()
        {
            let Some(Served::Sending(sending)) = self.requests.get_mut(&request) else {
                continue;
            };
            if sending.cancelled {
                continue;
            }
            if let Some((offset, piece)) = sending.pieces.next(self.limits.chunk_bytes) {
                let bytes = piece.bytes() as u64;
                sending.posted += 1;
                self.posted_bytes += bytes;
                way.send(request, Kind::Chunk { offset }, piece, bytes);
            }
            if sending.pieces.left() > 0 {
                self.turns.push_back(request);
            }
        }
    }

    /// Sends headers, in order, of what may be in flight. What takes nothing of that passes.
    fn begin_sending(&mut self, way: &Way) {
        let waiting = std::mem::take(&mut self.to_send);
        for request in waiting {
            let Some(Served::ToSend(sending)) = self.requests.get(&request) else {
                continue;
            };
            let most = self.limits.bytes_in_flight;
            let is_first = self.to_send.is_empty();
            let fits = self.bytes_in_flight == 0
                || self.bytes_in_flight.saturating_add(sending.flight) <= most;
            if sending.flight > 0 && !(is_first && fits) {
                self.to_send.push_back(request);
                continue;
            }
            let Some(Served::ToSend(mut sending)) = self.requests.remove(&request) else {
                continue;
            };
            self.bytes_in_flight += sending.flight;
            let header = std::mem::take(&mut sending.header);
            let bytes = header.len() as u64;
            let from_device = matches!(sending.pieces, Pieces::Device(_));
            sending.posted += 1;
            self.posted_bytes += bytes;
            self.requests.insert(request, Served::Sending(sending));
            self.turns.push_back(request);
            way.send(request, Kind::Header { bytes, from_device }, header, bytes);
        }
    }

    /// A message with a part of a partition has left.
    pub(crate) fn sent(&mut self, way: &Way, tag: Tag) {
        self.posted_bytes -= tag.bytes;
        if let Some(Served::Sending(sending)) = self.requests.get_mut(&tag.request) {
            sending.posted -= 1;
            let over = sending.cancelled || sending.pieces.left() == 0;
            if sending.posted == 0 && over {
                if sending.cancelled {
                    way.send(tag.request, Kind::Ended, Bytes::new(), 0);
                }
                self.forget(tag.request);
            }
        }
        self.go_on(way);
    }
}

/// Its header as it is sent, and its payload in pieces.
fn prepare(outgoing: Outgoing) -> Result<(Bytes, Pieces), String> {
    let (header, pieces) = match outgoing {
        Outgoing::Host(partition) => {
            let header = partition.header();
            let pieces = HostPieces::new(partition, header.payload_bytes());
            (header, Pieces::Host(pieces))
        }
        Outgoing::Device { partition, payload } => {
            let pieces = DevicePieces::new(payload);
            (partition.header().clone(), Pieces::Device(pieces))
        }
    };
    Ok((backend::encode_header(&header)?.into(), pieces))
}

/// A small partition goes in one message, behind its header.
fn send_together(way: &Way, request: u64, header: &Bytes, pieces: &mut HostPieces) {
    let mut body = Vec::with_capacity(header.len() + pieces.left() as usize);
    body.extend_from_slice(header);
    pieces.pack_all(&mut body);
    let kind = Kind::Header {
        bytes: header.len() as u64,
        from_device: false,
    };
    way.send(request, kind, Bytes::from(body), 0);
}
