//! The fetching side on the progress thread: the requests of one connection, each with the memory that its payload is received into.
//!
//! A payload comes in messages that say where they belong. Those that come before their header wait; those that nobody wants any more are
//! declined, and no byte of them moves. A request that was given up is remembered until the server has said that it is over.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use transload_gpu::device::Path;
use transload_gpu::{ALIGNMENT_BYTES, HeaderError, HostBuffer, PartitionHeader, Stored};
use transload_protocol::{Address, PartitionId, codec};
use transload_transport::backend::{self, MAX_HEADER_BYTES};
use transload_transport::{Destination, OnDevice, TransportError};

use super::Shared;
use crate::PROBE_BYTES;
use crate::engine::{Ending, Way};
use crate::ucp::{Body, Claim, Endpoint, Landing, Offer, Tag};
use crate::wire::{Header, Kind};

/// Parts of a payload that may come before its header: many more than a server has under way.
const MOST_EARLY: usize = 1_024;
/// The number under which a probe is received.
const PROBE: u64 = u64::MAX;

pub(crate) type Reply = oneshot::Sender<Result<Stored, TransportError>>;

/// A fetch, as it comes to the progress thread.
pub(crate) struct Wanted {
    pub(crate) request: u64,
    pub(crate) partition: PartitionId,
    pub(crate) destination: Arc<dyn Destination>,
    pub(crate) reply: Reply,
    /// Returns with the last answer, so that the server never has more requests than it allowed.
    pub(crate) place: OwnedSemaphorePermit,
}

/// What the client's end is made from.
pub(crate) struct NewClient {
    pub(crate) shared: Arc<Shared>,
    pub(crate) max_partition_bytes: u64,
    /// Told what the connection goes over, when the probe is here.
    pub(crate) proven: oneshot::Sender<String>,
}

/// The client's end of one connection. Stays on the progress thread.
pub(crate) struct ClientLink {
    shared: Arc<Shared>,
    max_partition_bytes: u64,
    requests: HashMap<u64, Request>,
    proven: Option<oneshot::Sender<String>>,
    probe: Option<Landing<Vec<u8>>>,
    /// That what is for a device does not come straight to it.
    told: bool,
}

struct Request {
    partition: PartitionId,
    reply: Reply,
    stage: Stage,
    /// Parts of it that UCX is receiving.
    arriving: usize,
    _place: OwnedSemaphorePermit,
}

enum Stage {
    /// Asked for.
    Asked(Asked),
    /// A long header is being received, of what is sent from a device or not.
    Heading(Asked, Landing<Vec<u8>>, bool),
    /// The payload is.
    Paying(Box<Paying>),
    /// Nobody wants it any more.
    GivenUp,
}

struct Asked {
    destination: Arc<dyn Destination>,
    /// Parts of the payload that came before the header.
    early: Vec<(u64, Body)>,
}

struct Paying {
    header: PartitionHeader,
    room: Room,
    /// Bytes of the payload that are not here, padding included.
    missing: u64,
}

/// Where a payload is received.
enum Room {
    Host(Landing<HostBuffer>),
    Device(Landing<OnDevice>),
}

impl Room {
    fn claim(&mut self, offset: u64, bytes: usize) -> Option<Claim> {
        match self {
            Self::Host(landing) => landing.claim(offset, bytes),
            Self::Device(landing) => landing.claim(offset, bytes),
        }
    }

    /// False where there is no such place, or the host cannot write to it.
    fn fill(&mut self, offset: u64, bytes: &[u8]) -> bool {
        let claim = self.claim(offset, bytes.len());
        claim.is_some_and(|claim| claim.fill(bytes))
    }

    /// The partition of that header, whose payload is here. `None` where some of it is still being written.
    fn finish(self, header: PartitionHeader) -> Option<Result<Stored, HeaderError>> {
        match self {
            Self::Host(landing) => {
                let assembled = header.assemble(landing.finish()?.freeze());
                Some(assembled.map(Stored::Host))
            }
            Self::Device(landing) => {
                let memory = landing.finish()?;
                let bytes = memory.buffer.bytes();
                memory
                    .buffer
                    .device()
                    .traffic()
                    .add(Path::PeerToDevice, bytes);
                Some(backend::arrived_on_device(header, memory).map(Stored::Device))
            }
        }
    }
}

impl ClientLink {
    pub(crate) fn new(new: NewClient) -> Self {
        Self {
            shared: new.shared,
            max_partition_bytes: new.max_partition_bytes,
            requests: HashMap::new(),
            proven: Some(new.proven),
            probe: None,
            told: false,
        }
    }

    /// Whether the server owes an answer.
    pub(crate) fn awaits_something(&self) -> bool {
        !self.requests.is_empty()
    }

    pub(crate) fn fetch(&mut self, way: &Way, wanted: Wanted) {
        let Wanted {
            request,
            partition,
            destination,
            reply,
            place,
        } = wanted;
        let device = destination.device();
        let in_place = device.is_some() && way.moves_device_memory;
        if let Some(device) = device.filter(|_| in_place) {
            way.endpoint.use_device(device);
        } else if device.is_some() && !self.told {
            self.told = true;
            tracing::info!(
                peer = %self.shared.peer,
                "UCX moves no memory of devices here or there (a UCX with CUDA at both ends does, unless UCX_TLS leaves cuda_copy out); what is for a GPU comes through page-locked memory"
            );
        }
        let early = Vec::new();
        let request_record = Request {
            partition,
            reply,
            stage: Stage::Asked(Asked { destination, early }),
            arriving: 0,
            _place: place,
        };
        self.requests.insert(request, request_record);
        let kind = Kind::Fetch {
            partition,
            in_place,
        };
        way.send(request, kind, Bytes::new(), 0);
    }

    /// Frees the memory at once, but for what UCX is writing.
    pub(crate) fn cancel(&mut self, way: &Way, request: u64) {
        if let Some(given_up) = self.requests.get_mut(&request)
            && !matches!(given_up.stage, Stage::GivenUp)
        {
            given_up.stage = Stage::GivenUp;
            way.send(request, Kind::Cancel, Bytes::new(), 0);
        }
    }

    /// Ends every fetch.
    pub(crate) fn close(self, ending: &Ending) {
        let error = self.shared.error(ending);
        tracing::debug!(peer = %self.shared.peer, %error, "a connection over UCX ended");
        self.shared.close(error.clone());
        for request in self.requests.into_values() {
            // A fetch that is gone does not mind.
            let _ = request.reply.send(Err(error.clone()));
        }
    }

    pub(crate) fn message(&mut self, way: &Way, header: Header, body: Body) -> Result<(), Ending> {
        let request = header.request;
        match header.kind {
            Kind::Probe => self.on_probe(way, body),
            Kind::Header { bytes, from_device } => {
                self.on_header(way, (request, bytes, from_device), body)
            }
            Kind::Chunk { offset } => self.on_chunk(way, (request, offset), body),
            Kind::NotFound => {
                self.answer(request, |peer, partition| TransportError::NotFound {
                    peer,
                    partition,
                });
                Ok(())
            }
            Kind::Failed => {
                let reason = String::from_utf8_lossy(body.as_slice()).into_owned();
                self.answer(request, |peer, partition| TransportError::Source {
                    peer,
                    partition,
                    reason,
                });
                Ok(())
            }
            Kind::Ended => {
                let ended = self.requests.remove(&request);
                match ended.map(|ended| ended.stage) {
                    None | Some(Stage::GivenUp) => Ok(()),
                    Some(Stage::Asked(_) | Stage::Heading(..) | Stage::Paying(_)) => {
                        Err(nonsense("an end of a request that is wanted"))
                    }
                }
            }
            Kind::Fetch { .. } | Kind::Cancel => Err(nonsense("a request from a server")),
        }
    }

    /// What UCX was receiving is here, or never will be.
    pub(crate) fn received(
        &mut self,
        way: &Way,
        tag: Tag,
        result: Result<(), String>,
    ) -> Result<(), Ending> {
        result.map_err(Ending::Closed)?;
        if tag.request == PROBE {
            return match self.probe.take().and_then(Landing::finish) {
                Some(probe) => self.proven(way, &probe),
                None => Err(nonsense("a second probe")),
            };
        }
        let Some(request) = self.requests.get_mut(&tag.request) else {
            return Ok(());
        };
        request.arriving -= 1;
        match &mut request.stage {
            Stage::Paying(paying) => {
                paying.missing = paying.missing.saturating_sub(padded(tag.bytes));
                self.finish_if_whole(tag.request)
            }
            Stage::Heading(..) => self.heading_is_here(way, tag.request),
            Stage::Asked(_) | Stage::GivenUp => Ok(()),
        }
    }

    fn on_probe(&mut self, way: &Way, body: Body) -> Result<(), Ending> {
        match body {
            Body::Offered(offer) => {
                if offer.bytes() != PROBE_BYTES {
                    return Err(nonsense("a probe of another length"));
                }
                self.probe = Some(receive_whole(&way.endpoint, offer, way.tag(PROBE, 0))?);
                Ok(())
            }
            Body::Copied(_) | Body::Held(_) => self.proven(way, body.as_slice()),
        }
    }

    fn proven(&mut self, way: &Way, probe: &[u8]) -> Result<(), Ending> {
        if probe != crate::probe() {
            return Err(nonsense("a probe with other bytes"));
        }
        if let Some(proven) = self.proven.take() {
            // Who waited may have run out of patience.
            let _ = proven.send(way.endpoint.transports());
        }
        Ok(())
    }

    fn on_header(
        &mut self,
        way: &Way,
        (number, bytes, from_device): (u64, u64, bool),
        body: Body,
    ) -> Result<(), Ending> {
        let Some(request) = self.requests.get_mut(&number) else {
            return Ok(());
        };
        let asked = match std::mem::replace(&mut request.stage, Stage::GivenUp) {
            Stage::Asked(asked) => asked,
            Stage::GivenUp => return Ok(()),
            Stage::Heading(..) | Stage::Paying(_) => return Err(nonsense("a second header")),
        };
        if bytes > body.bytes() as u64 || bytes > u64::from(MAX_HEADER_BYTES) {
            return Err(nonsense(format!(
                "a header of {bytes} B in a message of {} B",
                body.bytes()
            )));
        }
        match body {
            Body::Offered(offer) => {
                if offer.bytes() as u64 != bytes {
                    return Err(nonsense("a long header with a payload"));
                }
                let landing = receive_whole(&way.endpoint, offer, way.tag(number, bytes))?;
                request.stage = Stage::Heading(asked, landing, from_device);
                request.arriving += 1;
                Ok(())
            }
            Body::Copied(_) | Body::Held(_) => {
                let (header, payload) = body.as_slice().split_at(bytes as usize);
                let heading = (asked, from_device);
                self.allocate(way, number, heading, header, payload)
            }
        }
    }

    fn heading_is_here(&mut self, way: &Way, number: u64) -> Result<(), Ending> {
        let Some(request) = self.requests.get_mut(&number) else {
            return Ok(());
        };
        let stage = std::mem::replace(&mut request.stage, Stage::GivenUp);
        let Stage::Heading(asked, landing, from_device) = stage else {
            return Ok(());
        };
        let header = landing.finish();
        let header = header.ok_or_else(|| nonsense("a header in several parts"))?;
        let heading = (asked, from_device);
        self.allocate(way, number, heading, &header, &[])
    }

    /// The header is here: asks the destination for memory, into which the payload comes.
    fn allocate(
        &mut self,
        way: &Way,
        number: u64,
        (asked, from_device): (Asked, bool),
        header: &[u8],
        payload: &[u8],
    ) -> Result<(), Ending> {
        let header: PartitionHeader =
            codec::decode(header).map_err(|error| nonsense(error.to_string()))?;
        let bytes = header.payload_bytes();
        if bytes > self.max_partition_bytes {
            return Err(nonsense(format!(
                "a partition of {bytes} B; the limit is {} B",
                self.max_partition_bytes
            )));
        }
        let mut room = match room_for(&*asked.destination, &header, from_device) {
            Ok(room) => room,
            Err(error) => {
                self.refuse(way, number, error);
                return Ok(());
            }
        };
        let Some(request) = self.requests.get_mut(&number) else {
            return Ok(());
        };
        let mut missing = bytes;
        if !payload.is_empty() {
            if payload.len() as u64 != bytes || !room.fill(0, payload) {
                return Err(nonsense("a payload of another length"));
            }
            missing = 0;
        }
        request.stage = Stage::Paying(Box::new(Paying {
            header,
            room,
            missing,
        }));
        for (offset, body) in asked.early {
            self.on_chunk(way, (number, offset), body)?;
        }
        self.finish_if_whole(number)
    }

    fn on_chunk(
        &mut self,
        way: &Way,
        (number, offset): (u64, u64),
        body: Body,
    ) -> Result<(), Ending> {
        let Some(request) = self.requests.get_mut(&number) else {
            return Ok(());
        };
        let paying = match &mut request.stage {
            Stage::Paying(paying) => paying,
            Stage::Asked(asked) | Stage::Heading(asked, ..) => {
                if asked.early.len() >= MOST_EARLY {
                    return Err(nonsense("a payload without a header"));
                }
                asked.early.push((offset, body));
                return Ok(());
            }
            Stage::GivenUp => return Ok(()),
        };
        let bytes = body.bytes();
        let misplaced = || {
            nonsense(format!(
                "{bytes} B of payload at {offset}, which is no place"
            ))
        };
        match body {
            Body::Offered(offer) => {
                let claim: Claim = paying.room.claim(offset, bytes).ok_or_else(misplaced)?;
                request.arriving += 1;
                way.endpoint
                    .receive(offer, claim, way.tag(number, bytes as u64));
                Ok(())
            }
            Body::Copied(_) | Body::Held(_) => {
                if !paying.room.fill(offset, body.as_slice()) {
                    return Err(misplaced());
                }
                paying.missing = paying.missing.saturating_sub(padded(bytes as u64));
                self.finish_if_whole(number)
            }
        }
    }

    /// Replies where nothing of the payload is missing.
    fn finish_if_whole(&mut self, number: u64) -> Result<(), Ending> {
        let whole = self.requests.get(&number).is_some_and(|request| {
            let is_here = matches!(&request.stage, Stage::Paying(paying) if paying.missing == 0);
            is_here && request.arriving == 0
        });
        if !whole {
            return Ok(());
        }
        let Some(Request {
            stage: Stage::Paying(paying),
            reply,
            ..
        }) = self.requests.remove(&number)
        else {
            return Ok(());
        };
        let Paying { header, room, .. } = *paying;
        let partition = room.finish(header);
        let partition = partition.ok_or_else(|| nonsense("a payload in places that overlap"))?;
        let partition = partition.map_err(|error| nonsense(error.to_string()))?;
        // A fetch that was dropped this moment does not mind.
        let _ = reply.send(Ok(partition));
        Ok(())
    }

    /// The payload is not wanted, for a reason of our own.
    fn refuse(&mut self, way: &Way, number: u64, error: TransportError) {
        let Some(request) = self.requests.get_mut(&number) else {
            return;
        };
        request.stage = Stage::GivenUp;
        let (nobody, _) = oneshot::channel();
        let reply = std::mem::replace(&mut request.reply, nobody);
        way.send(number, Kind::Cancel, Bytes::new(), 0);
        let _ = reply.send(Err(error));
    }

    /// The server has no partition to give. One that was given up is remembered until the server says that it is over.
    fn answer(&mut self, number: u64, error: impl FnOnce(Address, PartitionId) -> TransportError) {
        let given_up = |it: &Request| matches!(it.stage, Stage::GivenUp);
        if self.requests.get(&number).is_none_or(given_up) {
            return;
        }
        if let Some(Request {
            reply, partition, ..
        }) = self.requests.remove(&number)
        {
            let _ = reply.send(Err(error(self.shared.peer.clone(), partition)));
        }
    }
}

fn nonsense(reason: impl Into<String>) -> Ending {
    Ending::Nonsense(reason.into())
}

/// Receives an offered body into memory of its own.
fn receive_whole(endpoint: &Endpoint, offer: Offer, tag: Tag) -> Result<Landing<Vec<u8>>, Ending> {
    let bytes = offer.bytes();
    let mut landing = Landing::new(vec![0; bytes]);
    let claim = landing.claim(0, bytes);
    let claim = claim.ok_or_else(|| nonsense("an offer of nothing"))?;
    endpoint.receive(offer, claim, tag);
    Ok(landing)
}

/// What comes from a device goes to one, where the destination has room there.
fn room_for(
    destination: &dyn Destination,
    header: &PartitionHeader,
    from_device: bool,
) -> Result<Room, TransportError> {
    let on_device = if from_device {
        backend::allocate_on_device(destination, header)?
    } else {
        None
    };
    Ok(match on_device {
        Some(memory) => Room::Device(Landing::on_device(memory)),
        None => Room::Host(Landing::new(backend::allocate(destination, header)?)),
    })
}

/// Bytes of the payload that are here when so many of a buffer's are: what pads a buffer is not sent.
fn padded(bytes: u64) -> u64 {
    bytes.next_multiple_of(ALIGNMENT_BYTES as u64)
}
