//! The safe layer above UCX's functions: a worker, its endpoints, messages that are sent and received, each with the memory that it
//! needs. Called by the progress thread alone; knows nothing of partitions.
//!
//! Every `unsafe` of the backend is in this folder. It rests on four habits. A worker and all that belongs to it stay on one thread:
//! their types hold raw pointers and are not `Send`. Whatever UCX may still read or write is owned by the operation that UCX was given, and
//! leaves it when UCX says that the operation is over. Callbacks only put an event in a queue, so that nothing of ours runs, and nothing
//! can panic, beneath UCX. And whatever needs the worker keeps it alive.

mod callbacks;
mod config;
mod endpoint;
mod landing;
mod memory_stream;
mod operation;
mod parcel;
mod remains;
mod signal;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::mem;
use std::os::fd::RawFd;
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::time::Duration;

use transload_gpu::device::Device;
use ucx_sys::{
    Posted, UCP_AM_FLAG_WHOLE_MSG, UCP_AM_HANDLER_PARAM_FIELD_ARG, UCP_AM_HANDLER_PARAM_FIELD_CB,
    UCP_AM_HANDLER_PARAM_FIELD_FLAGS, UCP_AM_HANDLER_PARAM_FIELD_ID, UCP_API_MAJOR, UCP_API_MINOR,
    UCP_ATTR_FIELD_MEMORY_TYPES, UCP_FEATURE_AM, UCP_FEATURE_WAKEUP, UCP_PARAM_FIELD_FEATURES,
    UCP_PARAM_FIELD_MT_WORKERS_SHARED, UCP_WORKER_PARAM_FIELD_THREAD_MODE, UCS_MEMORY_TYPE_CUDA,
    UCS_OK, UCS_THREAD_MODE_SINGLE, Ucx, ucp_am_handler_param_t, ucp_context_attr_t, ucp_context_h,
    ucp_params_t, ucp_worker_h, ucp_worker_params_t, ucs_status_t,
};

pub(crate) use config::set_environment;
pub(crate) use endpoint::{Endpoint, Protocol, goes_over_tcp};
pub(crate) use landing::{Claim, Landing};
pub(crate) use parcel::{DevicePart, Parcel};
pub(crate) use remains::Remains;
pub(crate) use signal::Signal;

use config::Config;
use operation::Operation;

/// The one kind of message that there is.
const MESSAGE_ID: u32 = 1;
/// Longest header of a message, in bytes. UCX allows more on every transport.
pub(crate) const MAX_HEADER_BYTES: usize = 128;

/// What UCX answered where it did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("UCX: {what}: {words}")]
pub(crate) struct UcpError {
    /// What was asked for.
    pub(crate) what: &'static str,
    /// In UCX's words.
    pub(crate) words: String,
}

/// What an operation is for, told again when it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag {
    /// Which connection.
    pub(crate) link: u64,
    /// Which request over it.
    pub(crate) request: u64,
    /// How many bytes.
    pub(crate) bytes: u64,
}

/// What has happened since the last time somebody looked.
pub(crate) enum Event {
    /// A message has arrived, at least its header.
    Arrived(Message),
    /// A message has left, or never will.
    Sent {
        tag: Tag,
        result: Result<(), UcpError>,
        /// What it was made of, unless that has to be kept; dropped by who reads this, and not beneath UCX.
        _body: Option<Parcel>,
    },
    /// An offered body is in its place, or never will be.
    Received {
        tag: Tag,
        result: Result<(), UcpError>,
    },
    /// The endpoint with this tag is of no use any more.
    Broken { tag: u64, error: UcpError },
}

/// A message from a peer. Every size in it is a claim.
pub(crate) struct Message {
    header: [u8; MAX_HEADER_BYTES],
    header_bytes: usize,
    pub(crate) body: Body,
}

impl Message {
    pub(crate) fn header(&self) -> &[u8] {
        &self.header[..self.header_bytes]
    }
}

/// What came behind a header.
pub(crate) enum Body {
    /// All of it, in memory of ours.
    Copied(Vec<u8>),
    /// All of it, in memory of UCX.
    Held(Held),
    /// Nothing yet: it can be received, or left.
    Offered(Offer),
}

/// Memory of UCX, given back when this is dropped.
pub(crate) struct Held {
    inner: Rc<Inner>,
    data: NonNull<libc::c_void>,
    bytes: usize,
}

/// A body that the peer has ready. Dropped, it is declined, and the peer hears that all is well.
pub(crate) struct Offer {
    inner: Rc<Inner>,
    data: NonNull<libc::c_void>,
    bytes: usize,
}

/// A UCX worker and its context. Stays on the thread that made it.
pub(crate) struct Worker {
    inner: Rc<Inner>,
    event_fd: RawFd,
    address: Vec<u8>,
    settings: Vec<String>,
}

/// What callbacks reach, and what every part of a worker keeps alive.
struct Inner {
    ucx: &'static Ucx,
    context: ucp_context_h,
    worker: ucp_worker_h,
    signal: Signal,
    events: RefCell<VecDeque<Event>>,
    /// Operations that UCX has.
    posted: Cell<usize>,
    /// Whose memory it was given: what UCX makes for them needs them to the worker's end.
    devices: RefCell<Vec<Device>>,
}

impl Inner {
    fn check(&self, what: &'static str, status: ucs_status_t) -> Result<(), UcpError> {
        check(self.ucx, what, status)
    }

    fn push(&self, event: Event) {
        self.events.borrow_mut().push_back(event);
    }

    /// Makes the device's context this thread's, from now on, as UCX goes on later with what it is given now. Where that cannot be, UCX
    /// says so of the operation.
    fn use_device(&self, device: &Device) {
        if let Err(error) = device.enter() {
            tracing::debug!(%error, "the context of a device cannot be used");
        }
        let mut devices = self.devices.borrow_mut();
        if devices.iter().all(|it| it.ordinal() != device.ordinal()) {
            devices.push(device.clone());
        }
    }
}

fn check(ucx: &Ucx, what: &'static str, status: ucs_status_t) -> Result<(), UcpError> {
    if status == UCS_OK {
        return Ok(());
    }
    Err(UcpError {
        what,
        words: ucx.describe(status),
    })
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.signal.end();
        // SAFETY: made by `Worker::new` and by nobody destroyed. Operations, endpoints, offers and held bodies keep this alive, so there
        // is none left.
        unsafe {
            self.ucx.ucp_worker_destroy(self.worker);
            self.ucx.ucp_cleanup(self.context);
        }
    }
}

impl Worker {
    /// A worker of its own context, on this thread.
    pub(crate) fn new(ucx: &'static Ucx) -> Result<Self, UcpError> {
        let config = Config::read(ucx)?;
        let context = make_context(ucx, &config)?;
        let worker = match make_worker(ucx, context) {
            Ok(worker) => worker,
            Err(error) => {
                // SAFETY: made above, and nothing uses it.
                unsafe { ucx.ucp_cleanup(context) };
                return Err(error);
            }
        };
        // From here on `Inner` cleans up.
        let inner = Rc::new(Inner {
            ucx,
            context,
            worker,
            signal: Signal::new(ucx, worker),
            events: RefCell::default(),
            posted: Cell::new(0),
            devices: RefCell::default(),
        });
        listen(&inner)?;
        let event_fd = event_fd(&inner)?;
        let address = address(&inner)?;
        Ok(Self {
            inner,
            event_fd,
            address,
            settings: config.in_force(),
        })
    }

    /// What a peer needs to connect to it.
    pub(crate) fn address(&self) -> &[u8] {
        &self.address
    }

    /// UCX's settings that two processes must have alike, each as `KEY=VALUE`, sorted.
    pub(crate) fn settings(&self) -> &[String] {
        &self.settings
    }

    /// Whether it moves memory of CUDA's devices: it was built for that, finds a driver, and is not told to leave it alone.
    pub(crate) fn moves_device_memory(&self) -> bool {
        let inner = &self.inner;
        // SAFETY: all zeros is "no field asked for".
        let mut attributes: ucp_context_attr_t = unsafe { mem::zeroed() };
        attributes.field_mask = u64::from(UCP_ATTR_FIELD_MEMORY_TYPES);
        // SAFETY: the context lives, and the structure has room for what is asked for.
        let status = unsafe {
            inner
                .ucx
                .ucp_context_query(inner.context, &raw mut attributes)
        };
        status == UCS_OK && attributes.memory_types & (1 << UCS_MEMORY_TYPE_CUDA) != 0
    }

    /// Wakes it from [`Worker::wait`], from any thread.
    pub(crate) fn signal(&self) -> Signal {
        self.inner.signal.clone()
    }

    /// An endpoint to the worker with this address. Events about it bear `tag`.
    pub(crate) fn connect(&self, address: &[u8], tag: u64) -> Result<Endpoint, UcpError> {
        Endpoint::new(&self.inner, address, tag)
    }

    /// Lets UCX do what there is to do. False where there was nothing.
    pub(crate) fn progress(&self) -> bool {
        // SAFETY: this thread made the worker. What callbacks use is reached through `inner`, which lives.
        unsafe { self.inner.ucx.ucp_worker_progress(self.inner.worker) != 0 }
    }

    /// The oldest thing that has happened.
    pub(crate) fn next_event(&self) -> Option<Event> {
        self.inner.events.borrow_mut().pop_front()
    }

    /// Operations that are not over.
    pub(crate) fn posted(&self) -> usize {
        self.inner.posted.get()
    }

    /// Sleeps until there is something to do, a signal comes, or the time is over.
    pub(crate) fn wait(&self, most: Duration) {
        // SAFETY: this thread made the worker.
        let status = unsafe { self.inner.ucx.ucp_worker_arm(self.inner.worker) };
        // Busy: there is something already. Other errors are as good a reason to look.
        if status != UCS_OK {
            return;
        }
        let mut poll = libc::pollfd {
            fd: self.event_fd,
            events: libc::POLLIN,
            revents: 0,
        };
        let millis = i32::try_from(most.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one structure, which is there. A descriptor that were closed would only be an error.
        unsafe { libc::poll(&raw mut poll, 1, millis) };
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // They may hold what keeps `inner` alive.
        let events = mem::take(&mut *self.inner.events.borrow_mut());
        drop(events);
    }
}

fn make_context(ucx: &'static Ucx, config: &Config) -> Result<ucp_context_h, UcpError> {
    // SAFETY: all zeros is "no field set".
    let mut params: ucp_params_t = unsafe { mem::zeroed() };
    params.field_mask = u64::from(UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_MT_WORKERS_SHARED);
    params.features = u64::from(UCP_FEATURE_AM | UCP_FEATURE_WAKEUP);
    params.mt_workers_shared = 0;
    let mut context = ptr::null_mut();
    // SAFETY: the structure is valid for its mask, and the configuration was read by this library.
    let status = unsafe {
        ucx.ucp_init_version(
            UCP_API_MAJOR,
            UCP_API_MINOR,
            &raw const params,
            config.as_ptr(),
            &raw mut context,
        )
    };
    check(ucx, "it cannot be initialized", status)?;
    Ok(context)
}

fn make_worker(ucx: &'static Ucx, context: ucp_context_h) -> Result<ucp_worker_h, UcpError> {
    // SAFETY: all zeros is "no field set".
    let mut params: ucp_worker_params_t = unsafe { mem::zeroed() };
    params.field_mask = u64::from(UCP_WORKER_PARAM_FIELD_THREAD_MODE);
    params.thread_mode = UCS_THREAD_MODE_SINGLE;
    let mut worker = ptr::null_mut();
    // SAFETY: the structure is valid for its mask, and the context was just made.
    let status = unsafe { ucx.ucp_worker_create(context, &raw const params, &raw mut worker) };
    check(ucx, "no worker can be made", status)?;
    Ok(worker)
}

/// Puts every message that arrives in the queue of events.
fn listen(inner: &Rc<Inner>) -> Result<(), UcpError> {
    // SAFETY: all zeros is "no field set".
    let mut handler: ucp_am_handler_param_t = unsafe { mem::zeroed() };
    handler.field_mask = u64::from(
        UCP_AM_HANDLER_PARAM_FIELD_ID
            | UCP_AM_HANDLER_PARAM_FIELD_FLAGS
            | UCP_AM_HANDLER_PARAM_FIELD_CB
            | UCP_AM_HANDLER_PARAM_FIELD_ARG,
    );
    handler.id = MESSAGE_ID;
    handler.flags = UCP_AM_FLAG_WHOLE_MSG;
    handler.cb = Some(callbacks::on_message);
    handler.arg = Rc::as_ptr(inner).cast_mut().cast();
    // SAFETY: the structure is valid for its mask. `inner` stays where it is, and outlives the worker that calls back.
    let status = unsafe {
        inner
            .ucx
            .ucp_worker_set_am_recv_handler(inner.worker, &raw const handler)
    };
    inner.check("it takes no messages", status)
}

fn event_fd(inner: &Inner) -> Result<RawFd, UcpError> {
    let mut fd = -1;
    // SAFETY: writes one number. The descriptor is the worker's, and so lives as long.
    let status = unsafe { inner.ucx.ucp_worker_get_efd(inner.worker, &raw mut fd) };
    inner.check("it cannot be waited for", status)?;
    Ok(fd)
}

fn address(inner: &Inner) -> Result<Vec<u8>, UcpError> {
    let (mut address, mut bytes) = (ptr::null_mut(), 0);
    // SAFETY: gives so many bytes, which are ours until they are released.
    unsafe {
        let status =
            inner
                .ucx
                .ucp_worker_get_address(inner.worker, &raw mut address, &raw mut bytes);
        inner.check("the worker has no address", status)?;
        let copy = std::slice::from_raw_parts(address.cast::<u8>(), bytes).to_vec();
        inner.ucx.ucp_worker_release_address(inner.worker, address);
        Ok(copy)
    }
}

impl Body {
    /// How long it is.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Copied(bytes) => bytes.len(),
            Self::Held(held) => held.bytes,
            Self::Offered(offer) => offer.bytes,
        }
    }
}

impl Body {
    /// What is here of it: nothing of what is only offered.
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Copied(bytes) => bytes,
            Self::Held(held) => held.as_slice(),
            Self::Offered(_) => &[],
        }
    }
}

impl Held {
    fn as_slice(&self) -> &[u8] {
        // SAFETY: UCX keeps so many bytes for us, and nobody writes them, until they are released.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr().cast::<u8>(), self.bytes) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        release(&self.inner, self.data);
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        release(&self.inner, self.data);
    }
}

fn release(inner: &Inner, data: NonNull<libc::c_void>) {
    // SAFETY: given to us by the callback that kept it, and released nowhere else: who receives an offer takes it apart.
    unsafe {
        inner.ucx.ucp_am_data_release(inner.worker, data.as_ptr());
    }
}

impl Offer {
    /// How long it is.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Its parts, without declining it.
    fn take_apart(self) -> (Rc<Inner>, NonNull<libc::c_void>, usize) {
        let offer = mem::ManuallyDrop::new(self);
        // SAFETY: read once, and the original is not dropped.
        let inner = unsafe { ptr::read(&raw const offer.inner) };
        (inner, offer.data, offer.bytes)
    }
}

/// What UCX says at once about what it was given.
fn posted_or_over(inner: &Inner, operation: *mut Operation, posted: Posted) {
    match posted {
        Posted::Pending(_) => {}
        Posted::Done => callbacks::over(inner, operation, UCS_OK),
        Posted::Failed(status) => callbacks::over(inner, operation, status),
    }
}
