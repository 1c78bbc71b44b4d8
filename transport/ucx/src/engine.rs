//! The progress thread: the only one that touches UCX. It takes commands from the rest of the process, lets UCX work, and hands what has
//! arrived to the connection that it is for. The protocol itself runs here, so that only finished partitions cross to other threads.

use std::collections::HashMap;
use std::mem;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;
use transload_protocol::Blob;
use transload_transport::backend::Outgoing;
use ucx_sys::Ucx;

use crate::UcxOptions;
use crate::client::requests::{ClientLink, NewClient, Wanted};
use crate::hello::Hello;
use crate::server::answers::ServerLink;
use crate::ucp::{
    Body, Endpoint, Event, Message, Parcel, Protocol, Remains, Signal, Tag, Worker, goes_over_tcp,
};
use crate::wire::{Header, Kind, Nonsense};

/// How often a thread that has always something to do looks for silence all the same.
const TURNS_PER_LOOK: u64 = 1_024;
/// Longest sleep: UCX can miss a wake-up, and silence must be noticed.
const LONGEST_SLEEP: Duration = Duration::from_millis(100);
/// While UCX has something to do, the thread looks again and again for this long before it sleeps: shared memory does not wake a sender
/// when there is room again.
const SPIN_WHILE_POSTED: Duration = Duration::from_micros(200);
/// And then sleeps no longer than this.
const SLEEP_WHILE_POSTED: Duration = Duration::from_millis(1);
/// Time for what is under way to end when the thread is to end.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// Bodies above this wait until the receiver has said where they go.
const EAGER_BYTES: usize = 8 << 10;
/// The same where every message crosses the kernel: the receiver's word costs more than its copy of so much.
const EAGER_BYTES_OVER_TCP: usize = 64 << 10;

/// Why there is no UCX to be had, in words with the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Unavailable {
    reason: String,
}

/// The progress thread, as the rest of the process sees it. Ends with the last handle.
pub(crate) struct Engine {
    commands: Commands,
    hello: Hello,
    next_key: AtomicU64,
    thread: Option<JoinHandle<()>>,
}

/// What the thread is told.
pub(crate) enum Command {
    /// A connection begins.
    Attach(Box<Attach>),
    /// A client wants a partition.
    Fetch { link: u64, wanted: Box<Wanted> },
    /// A client no longer wants it.
    Cancel { link: u64, request: u64 },
    /// A server's source has answered.
    Opened {
        link: u64,
        request: u64,
        opened: Opened,
    },
    /// A connection ends, for this reason.
    Close { link: u64, reason: String },
    /// The peer has closed its end of one that has ended here, or is gone: it uses none of our memory any more.
    PeerEnded { link: u64 },
    /// The thread ends.
    Stop,
}

/// What a source gives: a partition, nothing, or a reason.
pub(crate) type Opened = Result<Option<Outgoing>, String>;

/// A connection that begins.
pub(crate) struct Attach {
    /// Our number of it.
    pub(crate) key: u64,
    /// The peer, for people.
    pub(crate) name: String,
    /// What the peer said.
    pub(crate) peer: Hello,
    pub(crate) side: Side,
    /// Told what UCX chose to go over, when it has an endpoint: see [`Endpoint::transports`].
    pub(crate) done: oneshot::Sender<Result<String, String>>,
    /// Told, or dropped, when it has ended here: nothing of this process uses memory of the peer's any more.
    pub(crate) ended: oneshot::Sender<()>,
}

/// Which end of it is ours.
pub(crate) enum Side {
    Client(NewClient),
    Server(Box<ServerLink>),
}

/// Our end of a connection.
enum Role {
    Client(Box<ClientLink>),
    Server(Box<ServerLink>),
}

/// Where commands go. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Commands {
    sender: mpsc::Sender<Command>,
    sleeping: Arc<AtomicBool>,
    signal: Signal,
}

impl Commands {
    /// False when the thread has ended.
    pub(crate) fn send(&self, command: Command) -> bool {
        let sent = self.sender.send(command).is_ok();
        // Against the fence between the thread's word that it sleeps and its last look at the queue.
        fence(Ordering::SeqCst);
        if self.sleeping.swap(false, Ordering::SeqCst) {
            self.signal.wake();
        }
        sent
    }
}

impl Engine {
    /// Loads UCX and starts the thread.
    pub(crate) fn start(options: &UcxOptions) -> Result<Self, Unavailable> {
        let ucx = load(options.library_dir.as_deref())?;
        let (started, start) = mpsc::channel();
        let (spin, stall) = (options.spin, options.stall_timeout);
        let thread = thread::Builder::new()
            .name("ucx-progress".to_owned())
            .spawn(move || {
                let (sender, commands) = mpsc::channel();
                let worker = match Worker::new(ucx) {
                    Ok(worker) => worker,
                    Err(error) => {
                        // Whoever waited is there: it waits for nothing else.
                        let _ = started.send(Err(error.to_string()));
                        return;
                    }
                };
                let sleeping = Arc::new(AtomicBool::new(false));
                let to_thread = Commands {
                    sender,
                    sleeping: Arc::clone(&sleeping),
                    signal: worker.signal(),
                };
                let version = ucx.version();
                let moves_device_memory = worker.moves_device_memory();
                let hello = Hello {
                    version: (version.major, version.minor, version.patch),
                    settings: worker.settings().to_vec(),
                    moves_device_memory,
                    address: Blob(Bytes::copy_from_slice(worker.address())),
                    key: 0,
                    max_requests: 0,
                };
                let _ = started.send(Ok((to_thread, hello)));
                let thread = Thread {
                    worker,
                    commands,
                    sleeping,
                    moves_device_memory,
                    links: HashMap::new(),
                    closing: HashMap::new(),
                    spin,
                    stall,
                    looked: Instant::now(),
                };
                thread.run();
            });
        let unavailable = |reason: String| Unavailable { reason };
        let thread = thread.map_err(|error| unavailable(format!("no progress thread: {error}")))?;
        let started = start.recv();
        let started = started.unwrap_or_else(|_| Err("the progress thread panicked".to_owned()));
        let (commands, hello) = started.map_err(unavailable)?;
        let device_memory = hello.moves_device_memory;
        tracing::debug!(?ucx, settings = ?hello.settings, device_memory, "UCX is there");
        Ok(Self {
            commands,
            hello,
            next_key: AtomicU64::new(1),
            thread: Some(thread),
        })
    }

    pub(crate) fn commands(&self) -> &Commands {
        &self.commands
    }

    /// A number for a new connection, and what to say of ourselves in it.
    pub(crate) fn hello(&self, max_requests: u32) -> Hello {
        Hello {
            key: self.next_key.fetch_add(1, Ordering::Relaxed),
            max_requests,
            ..self.hello.clone()
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.commands.send(Command::Stop);
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != thread::current().id()
        {
            // A panic there has been told by the panic itself.
            let _ = thread.join();
        }
    }
}

/// A process has one UCX.
fn load(folder: Option<&Path>) -> Result<&'static Ucx, Unavailable> {
    static LOADED: Mutex<Option<&'static Ucx>> = Mutex::new(None);
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(ucx) = *loaded {
        return Ok(ucx);
    }
    let ucx = Ucx::load(folder).map_err(|error| Unavailable {
        reason: error.to_string(),
    })?;
    *loaded = Some(ucx);
    Ok(ucx)
}

/// The way to a peer, and what it and we call it.
pub(crate) struct Way {
    pub(crate) endpoint: Endpoint,
    /// Our number.
    key: u64,
    /// The peer's.
    peer_key: u64,
    /// Longest body that is sent without being asked for.
    eager_bytes: usize,
    /// Whether UCX moves memory of devices, at both ends.
    pub(crate) moves_device_memory: bool,
}

impl Way {
    /// Sends a message; what it cost is told back with `bytes`.
    pub(crate) fn send(&self, request: u64, kind: Kind, body: impl Into<Parcel>, bytes: u64) {
        let body = body.into();
        let header = Header {
            to: self.peer_key,
            request,
            kind,
        };
        // The host cannot put what comes at once into a device's memory.
        let protocol = if body.device().is_some() || body.bytes() > self.eager_bytes {
            Protocol::Rendezvous
        } else {
            Protocol::Eager
        };
        self.endpoint
            .send(&header.encode(), body, protocol, self.tag(request, bytes));
    }

    pub(crate) fn tag(&self, request: u64, bytes: u64) -> Tag {
        Tag {
            link: self.key,
            request,
            bytes,
        }
    }
}

/// Why a connection has to end.
#[derive(Debug)]
pub(crate) enum Ending {
    /// It is over, for this reason.
    Closed(String),
    /// The peer broke the protocol.
    Nonsense(String),
    /// Nothing came, or nothing was taken, for too long.
    Silence(Duration),
}

impl From<Nonsense> for Ending {
    fn from(Nonsense(reason): Nonsense) -> Self {
        Self::Nonsense(reason)
    }
}

struct Link {
    way: Way,
    role: Role,
    /// See [`Attach::name`].
    name: String,
    /// When something last moved, or began to be awaited.
    moved: Instant,
    /// See [`Attach::ended`].
    ended: oneshot::Sender<()>,
}

/// A connection that was closed at this end.
struct Closing {
    remains: Rc<Remains>,
    /// Until it is told.
    ended: Option<oneshot::Sender<()>>,
    peer_ended: bool,
    /// See [`Attach::name`].
    name: String,
    since: Instant,
    /// Somebody was told that memory is kept for it.
    is_told: bool,
}

impl Closing {
    /// Tells that it is over at this end, when it is. False while something is to come.
    fn is_settled(&mut self) -> bool {
        if !self.remains.is_over() {
            return false;
        }
        if let Some(ended) = self.ended.take() {
            // Who attends to it may be gone with its runtime.
            let _ = ended.send(());
        }
        self.peer_ended || !self.remains.holds_memory()
    }

    /// Once: the bytes that are kept for a peer that has not closed its end in so much time.
    fn kept_for_long(&mut self, now: Instant, patience: Duration) -> Option<u64> {
        let is_late = now.duration_since(self.since) >= patience;
        if self.is_told || !is_late || self.peer_ended || !self.remains.holds_memory() {
            return None;
        }
        self.is_told = true;
        Some(self.remains.kept_bytes())
    }
}

impl Link {
    /// Whether something should move.
    fn awaits_something(&self) -> bool {
        match &self.role {
            Role::Client(client) => client.awaits_something(),
            Role::Server(server) => server.awaits_something(),
        }
    }

    /// To be called before anything that may make something awaited.
    fn begin_to_wait(&mut self) {
        if !self.awaits_something() {
            self.moved = Instant::now();
        }
    }
}

struct Thread {
    worker: Worker,
    commands: mpsc::Receiver<Command>,
    sleeping: Arc<AtomicBool>,
    moves_device_memory: bool,
    links: HashMap<u64, Link>,
    closing: HashMap<u64, Closing>,
    spin: Duration,
    stall: Duration,
    /// When silence was last looked for.
    looked: Instant,
}

impl Thread {
    fn run(mut self) {
        let mut idle_since = None;
        let mut turns = 0_u64;
        loop {
            let mut busy = false;
            while let Ok(command) = self.commands.try_recv() {
                if matches!(command, Command::Stop) {
                    return self.end();
                }
                self.obey(command);
                busy = true;
            }
            busy |= self.turn();
            turns += 1;
            if turns.is_multiple_of(TURNS_PER_LOOK) {
                self.look_for_silence(Instant::now());
            }
            if busy {
                idle_since = None;
                continue;
            }
            let now = Instant::now();
            let since = *idle_since.get_or_insert(now);
            let spin = if self.worker.posted() > 0 {
                self.spin.max(SPIN_WHILE_POSTED)
            } else {
                self.spin
            };
            if now.duration_since(since) < spin {
                // Others may need the core more.
                thread::yield_now();
                continue;
            }
            self.look_for_silence(now);
            match self.sleep() {
                Some(Command::Stop) => return self.end(),
                Some(command) => self.obey(command),
                None => {}
            }
            idle_since = None;
        }
    }

    /// Lets UCX work, and sees to what has happened. False where nothing has.
    fn turn(&mut self) -> bool {
        let mut busy = self.worker.progress();
        while let Some(event) = self.worker.next_event() {
            self.see_to(event);
            busy = true;
        }
        self.closing.retain(|_, closing| !closing.is_settled());
        busy
    }

    /// Sleeps until there is something to do. A command that came just before is the reason not to.
    fn sleep(&self) -> Option<Command> {
        self.sleeping.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let command = self.commands.try_recv().ok();
        if command.is_none() {
            self.worker.wait(if self.worker.posted() > 0 {
                SLEEP_WHILE_POSTED
            } else {
                LONGEST_SLEEP
            });
        }
        self.sleeping.store(false, Ordering::SeqCst);
        command
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Attach(attach) => self.attach(*attach),
            Command::Fetch { link, wanted } => self.on_client(link, |client, way| {
                client.fetch(way, *wanted);
                Ok(())
            }),
            Command::Cancel { link, request } => self.on_client(link, |client, way| {
                client.cancel(way, request);
                Ok(())
            }),
            Command::Opened {
                link,
                request,
                opened,
            } => self.on_server(link, |server, way| {
                server.opened(way, request, opened);
                Ok(())
            }),
            Command::Close { link, reason } => self.close(link, Ending::Closed(reason)),
            Command::PeerEnded { link } => {
                if let Some(closing) = self.closing.get_mut(&link) {
                    closing.peer_ended = true;
                }
            }
            // Seen to where commands are taken.
            Command::Stop => {}
        }
    }

    fn attach(&mut self, attach: Attach) {
        let Attach {
            key,
            name,
            peer,
            side,
            done,
            ended,
        } = attach;
        let role = match side {
            Side::Client(new) => Role::Client(Box::new(ClientLink::new(new))),
            Side::Server(server) => Role::Server(server),
        };
        let endpoint = match self.worker.connect(&peer.address.0, key) {
            Ok(endpoint) => endpoint,
            Err(error) => {
                let reason = error.to_string();
                let _ = done.send(Err(reason.clone()));
                return role.close(&Ending::Closed(reason));
            }
        };
        let transports = endpoint.transports();
        let way = Way {
            endpoint,
            key,
            peer_key: peer.key,
            moves_device_memory: self.moves_device_memory && peer.moves_device_memory,
            eager_bytes: if goes_over_tcp(&transports) {
                EAGER_BYTES_OVER_TCP
            } else {
                EAGER_BYTES
            },
        };
        if let Role::Client(_) = &role {
            way.send(0, Kind::Probe, Bytes::new(), 0);
        }
        let moved = Instant::now();
        let link = Link {
            way,
            role,
            name,
            moved,
            ended,
        };
        self.links.insert(key, link);
        if done.send(Ok(transports)).is_err() {
            self.close(key, Ending::Closed("nobody waits for it".to_owned()));
        }
    }

    fn see_to(&mut self, event: Event) {
        match event {
            Event::Arrived(message) => self.arrived(message),
            Event::Sent { tag, result, .. } => self.sent(tag, result.map_err(|it| it.to_string())),
            Event::Received { tag, result } => {
                self.moved(tag.link);
                let result = result.map_err(|it| it.to_string());
                self.on_client(tag.link, |client, way| client.received(way, tag, result));
            }
            Event::Broken { tag, error } => self.close(tag, Ending::Closed(error.to_string())),
        }
    }

    fn arrived(&mut self, message: Message) {
        let header = match Header::decode(message.header()) {
            Ok(header) => header,
            Err(error) => return tracing::warn!(%error, "a message over UCX makes no sense"),
        };
        // An unknown one has ended at this end; the body is declined.
        let Some(link) = self.links.get_mut(&header.to) else {
            return;
        };
        let body: Body = message.body;
        match &link.role {
            Role::Client(_) => {
                link.moved = Instant::now();
                self.on_client(header.to, |client, way| client.message(way, header, body));
            }
            Role::Server(_) => {
                self.on_server(header.to, |server, way| server.message(way, header, &body))
            }
        }
    }

    fn sent(&mut self, tag: Tag, result: Result<(), String>) {
        match result {
            Err(reason) => self.close(tag.link, Ending::Closed(reason)),
            // A client waits for answers alone.
            Ok(()) if tag.bytes == 0 => {}
            Ok(()) => {
                self.moved(tag.link);
                self.on_server(tag.link, |server, way| {
                    server.sent(way, tag);
                    Ok(())
                });
            }
        }
    }

    /// Something of this connection has moved.
    fn moved(&mut self, key: u64) {
        if let Some(link) = self.links.get_mut(&key) {
            link.moved = Instant::now();
        }
    }

    fn on_client(
        &mut self,
        key: u64,
        act: impl FnOnce(&mut ClientLink, &Way) -> Result<(), Ending>,
    ) {
        let Some(link) = self.links.get_mut(&key) else {
            return;
        };
        link.begin_to_wait();
        if let Role::Client(client) = &mut link.role
            && let Err(ending) = act(client, &link.way)
        {
            self.close(key, ending);
        }
    }

    fn on_server(
        &mut self,
        key: u64,
        act: impl FnOnce(&mut ServerLink, &Way) -> Result<(), Ending>,
    ) {
        let Some(link) = self.links.get_mut(&key) else {
            return;
        };
        link.begin_to_wait();
        if let Role::Server(server) = &mut link.role
            && let Err(ending) = act(server, &link.way)
        {
            self.close(key, ending);
        }
    }

    fn close(&mut self, key: u64, ending: Ending) {
        if let Some(link) = self.links.remove(&key) {
            // What is under way ends, and with it the last use of its memory by this process.
            let closing = Closing {
                remains: link.way.endpoint.close(),
                ended: Some(link.ended),
                peer_ended: false,
                name: link.name,
                since: Instant::now(),
                is_told: false,
            };
            self.closing.insert(key, closing);
            link.role.close(&ending);
        }
    }

    /// Ends connections on which nothing moves although something should, and tells of those whose memory is kept for long.
    fn look_for_silence(&mut self, now: Instant) {
        if now.duration_since(self.looked) < LONGEST_SLEEP {
            return;
        }
        self.looked = now;
        let silent =
            |link: &Link| link.awaits_something() && now.duration_since(link.moved) >= self.stall;
        let silent: Vec<u64> = self
            .links
            .iter()
            .filter(|(_, link)| silent(link))
            .map(|(key, _)| *key)
            .collect();
        for key in silent {
            self.close(key, Ending::Silence(self.stall));
        }
        for closing in self.closing.values_mut() {
            if let Some(bytes) = closing.kept_for_long(now, self.stall) {
                tracing::warn!(
                    peer = closing.name,
                    bytes,
                    "a connection over UCX has ended here and not at the peer, which may still use memory: that is kept, and counts against \
                     the limits, until the peer ends it, too; one that hangs has to be ended by hand"
                );
            }
        }
    }

    /// Closes everything, and gives UCX time to end what is under way.
    fn end(mut self) {
        let keys: Vec<u64> = self.links.keys().copied().collect();
        for key in keys {
            self.close(key, Ending::Closed("it was closed at this end".to_owned()));
        }
        let started = Instant::now();
        while self.worker.posted() > 0 && started.elapsed() < LAST_WORDS {
            if !self.turn() {
                thread::sleep(Duration::from_micros(50));
            }
        }
        self.turn();
        let left = self.worker.posted();
        if left > 0 || !self.closing.is_empty() {
            tracing::warn!(
                operations = left,
                connections = self.closing.len(),
                "UCX did not end what was under way, or a peer has not said that it did; its memory is left to the end of the process"
            );
            for (_, closing) in self.closing.drain() {
                mem::forget(closing.remains);
            }
        }
    }
}

impl Role {
    fn close(self, ending: &Ending) {
        match self {
            Self::Client(client) => client.close(ending),
            Self::Server(server) => server.close(ending),
        }
    }
}

#[cfg(test)]
mod tests {
    use transload_gpu::Budget;
    use transload_protocol::{Address, ClientId, GraphId, PartitionId, TaskId};

    use super::*;
    use crate::client::{Shared, requests::Reply};

    #[test]
    fn memory_that_is_kept_for_a_peer_that_hangs_is_told_once() {
        let since = Instant::now();
        let mut closing = Closing {
            remains: Rc::default(),
            ended: None,
            peer_ended: false,
            name: "a peer".to_owned(),
            since,
            is_told: false,
        };
        let patience = Duration::from_secs(30);
        assert_eq!(closing.kept_for_long(since + patience, patience), None);
        closing.remains.keep(vec![0_u8; 9], 9);
        let told = [0, 29, 30, 31, 60]
            .map(|seconds| closing.kept_for_long(since + Duration::from_secs(seconds), patience));
        assert_eq!(told, [None, None, Some(9), None, None]);
    }

    /// A request of this partition, as it comes to the thread.
    fn wanted(request: u64, reply: Reply) -> Wanted {
        let graph = GraphId {
            client: ClientId(1),
            sequence: 0,
        };
        let task = TaskId { graph, index: 0 };
        let places = Arc::new(tokio::sync::Semaphore::new(1));
        Wanted {
            request,
            partition: PartitionId { task, output: 0 },
            destination: Arc::new(Budget::new("test memory", u64::MAX)),
            reply,
            place: places.try_acquire_owned().expect("a place"),
        }
    }

    #[test]
    fn a_server_that_ends_what_was_not_given_up_makes_no_sense() {
        let worker = match load(None).map(Worker::new) {
            Ok(worker) => worker.expect("a worker"),
            Err(unavailable) => return println!("skipped: {unavailable}"),
        };
        let endpoint = worker.connect(worker.address(), 1).expect("an endpoint");
        let way = Way {
            endpoint,
            key: 1,
            peer_key: 2,
            eager_bytes: EAGER_BYTES,
            moves_device_memory: false,
        };
        let (proven, _proof) = oneshot::channel();
        let mut client = ClientLink::new(NewClient {
            shared: Arc::new(Shared::new(Address::new("ucx", "nowhere:1"), 1)),
            max_partition_bytes: 1,
            proven,
        });
        let end = |client: &mut ClientLink, request| {
            let header = Header {
                to: 1,
                request,
                kind: Kind::Ended,
            };
            client.message(&way, header, Body::Copied(Vec::new()))
        };
        let mut answers = Vec::new();
        for request in [5, 6] {
            let (reply, answer) = oneshot::channel();
            answers.push(answer);
            client.fetch(&way, wanted(request, reply));
        }
        client.cancel(&way, 5);
        end(&mut client, 5).expect("as asked for");
        end(&mut client, 7).expect("one that has ended crossed its cancel");
        let ending = end(&mut client, 6).expect_err("it is wanted");
        assert!(matches!(ending, Ending::Nonsense(_)), "{ending:?}");
    }
}
